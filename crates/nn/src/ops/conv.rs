//! Convolution in two dimensions: each image's patches are laid out as the columns of a matrix, a tile of output rows at
//! a time so that it stays in a core's cache, and multiplied by the kernel.

use super::Conv2d;
use super::element::{Element, elements, for_type, reduce, tensor, vectorised, with_elements};
use super::gradient::hand_over;
use super::matrix::{Threads, View, product};
use super::rows::{filled_by, total, zeros};
use candle_core::{
    CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, WithDType, backend::BackendStorage, bail,
};
use rayon::prelude::*;

/// Elements of a tile of patches.
const TILE: usize = 1 << 15;

/// Images whose contributions to the kernel's gradient are added up one after the other; fixed, so that the order of the
/// sum does not depend on the number of threads.
const IMAGES: usize = 8;

/// The lengths of one convolution.
#[derive(Clone, Copy)]
struct Lengths {
    conv: Conv2d,
    /// Channels of a group, of the input and of the output.
    inputs: usize,
    outputs: usize,
    height: usize,
    width: usize,
    kernel: (usize, usize),
    out_height: usize,
    out_width: usize,
}

impl Lengths {
    fn new(conv: Conv2d, x: &Shape, w: &Shape) -> Result<Self> {
        let (_, _, height, width) = x.dims4()?;
        let (outputs, inputs, kh, kw) = w.dims4()?;
        let (Some(out_height), Some(out_width)) = (conv.output(height, kh), conv.output(width, kw)) else {
            bail!("conv2d: a kernel of {kh} × {kw} does not fit into {height} × {width} under {conv:?}");
        };
        let outputs = outputs / conv.groups;
        Ok(Self { conv, inputs, outputs, height, width, kernel: (kh, kw), out_height, out_width })
    }

    /// Elements of an image, of the input and of the output.
    fn image(&self) -> usize {
        self.conv.groups * self.inputs * self.height * self.width
    }

    fn out_image(&self) -> usize {
        self.conv.groups * self.outputs * self.places()
    }

    /// Places of an output channel.
    fn places(&self) -> usize {
        self.out_height * self.out_width
    }

    /// Entries of a patch.
    fn patch(&self) -> usize {
        self.inputs * self.kernel.0 * self.kernel.1
    }

    /// Output rows of a tile.
    fn tile_rows(&self) -> usize {
        (TILE / (self.patch() * self.out_width).max(1)).clamp(1, self.out_height.max(1))
    }

    /// Whether the patches are the image itself.
    fn is_pointwise(&self) -> bool {
        self.kernel == (1, 1) && self.conv.stride == 1 && self.conv.padding == 0
    }

    /// The outputs (begin, end) of an axis whose tap number `tap` falls inside an input axis of `length`.
    fn inside(&self, tap: usize, length: usize, outputs: usize) -> (usize, usize) {
        let Conv2d { stride, padding, dilation, .. } = self.conv;
        let shift = tap * dilation;
        let begin = padding.saturating_sub(shift).div_ceil(stride);
        let end = (length + padding).saturating_sub(shift).div_ceil(stride);
        (begin.min(outputs), end.min(outputs))
    }

    /// Calls `f(row of the patch matrix, tile's row, output columns, input index of the first)` for every run of
    /// patch entries inside the image, for output rows from `begin` to `end`. Input columns are `stride` apart.
    #[inline(always)]
    fn each_run(
        &self,
        begin: usize,
        end: usize,
        mut f: impl FnMut(usize, usize, std::ops::Range<usize>, Option<usize>),
    ) {
        let Conv2d { stride, padding, dilation, .. } = self.conv;
        let mut entry = 0;
        for channel in 0..self.inputs {
            for ky in 0..self.kernel.0 {
                let (top, bottom) = self.inside(ky, self.height, self.out_height);
                for kx in 0..self.kernel.1 {
                    let (left, right) = self.inside(kx, self.width, self.out_width);
                    for y in begin..end {
                        if y < top || y >= bottom || left >= right {
                            f(entry, y - begin, 0..self.out_width, None);
                            continue;
                        }
                        let row = y * stride + ky * dilation - padding;
                        let column = left * stride + kx * dilation - padding;
                        let first = (channel * self.height + row) * self.width + column;
                        f(entry, y - begin, 0..left, None);
                        f(entry, y - begin, left..right, Some(first));
                        f(entry, y - begin, right..self.out_width, None);
                    }
                    entry += 1;
                }
            }
        }
    }

    /// The patches (patch, rows · out_width) of the output rows from `begin` to `end`; `x` is a group of an image.
    fn patches<T: Element>(&self, x: &[T], begin: usize, end: usize, patches: &mut [T]) {
        let (width, columns) = (self.out_width, (end - begin) * self.out_width);
        self.each_run(begin, end, |entry, row, run, first| {
            let out = &mut patches[entry * columns + row * width..][run];
            match (first, self.conv.stride) {
                (None, _) => out.fill(T::zero()),
                (Some(first), 1) => out.copy_from_slice(&x[first..first + out.len()]),
                (Some(first), stride) => {
                    out.iter_mut().zip(x[first..].iter().step_by(stride)).for_each(|(out, &x)| *out = x)
                }
            }
        });
    }

    /// Adds the gradients of patches to that of the group of an image they were taken from.
    fn add_patches<T: Element>(&self, patches: &[T], begin: usize, end: usize, gx: &mut [T]) {
        let (width, columns) = (self.out_width, (end - begin) * self.out_width);
        self.each_run(begin, end, |entry, row, run, first| {
            let Some(first) = first else { return };
            let patch = &patches[entry * columns + row * width..][run];
            if self.conv.stride == 1 {
                gx[first..first + patch.len()].iter_mut().zip(patch).for_each(|(sum, &g)| *sum += g);
            } else {
                gx[first..].iter_mut().step_by(self.conv.stride).zip(patch).for_each(|(sum, &g)| *sum += g);
            }
        });
    }

    /// Calls `f(begin, end)` for each tile of output rows.
    fn each_tile(&self, mut f: impl FnMut(usize, usize)) {
        for begin in (0..self.out_height).step_by(self.tile_rows()) {
            f(begin, (begin + self.tile_rows()).min(self.out_height));
        }
    }

    fn forward_image<T: Element>(&self, x: &[T], w: &[T], y: &mut [T], add: bool, threads: Threads) {
        let (patch, places) = (self.patch(), self.places());
        let mut patches = zeros(if self.is_pointwise() { 0 } else { patch * self.tile_rows() * self.out_width });
        let group = self.inputs * self.height * self.width;
        for i in 0..self.conv.groups {
            let (x, w) = (&x[i * group..][..group], &w[i * self.outputs * patch..][..self.outputs * patch]);
            let (w, y) = (View::new(w, self.outputs, patch), &mut y[i * self.outputs * places..]);
            if self.is_pointwise() {
                product(T::one(), w, View::new(x, patch, places), add, y, places, threads);
                continue;
            }
            self.each_tile(|begin, end| {
                let columns = (end - begin) * self.out_width;
                self.patches(x, begin, end, &mut patches);
                let patches = View::new(&patches, patch, columns);
                product(T::one(), w, patches, add, &mut y[begin * self.out_width..], places, threads);
            });
        }
    }

    /// Adds to `gw` (whole kernel) and writes `gx` (an image, zero before), where wanted.
    fn backward_image<T: Element>(&self, x: &[T], w: &[T], g: &[T], gx: Option<&mut [T]>, gw: Option<&mut [T]>) {
        let (patch, places) = (self.patch(), self.places());
        let (mut gx, mut gw) = (gx, gw);
        let mut patches = zeros(patch * self.tile_rows() * self.out_width);
        let group = self.inputs * self.height * self.width;
        for i in 0..self.conv.groups {
            let kernel = i * self.outputs * patch..(i + 1) * self.outputs * patch;
            let image = i * group..(i + 1) * group;
            self.each_tile(|begin, end| {
                let columns = (end - begin) * self.out_width;
                let g = &g[i * self.outputs * places + begin * self.out_width..];
                let g = View::strided(g, self.outputs, columns, places);
                if let Some(gw) = gw.as_deref_mut() {
                    self.patches(&x[image.clone()], begin, end, &mut patches);
                    let patches = View::new(&patches, patch, columns);
                    product(T::one(), g, patches.t(), true, &mut gw[kernel.clone()], patch, Threads::One);
                }
                if let Some(gx) = gx.as_deref_mut() {
                    let w = View::new(&w[kernel.clone()], self.outputs, patch);
                    product(T::one(), w.t(), g, false, &mut patches, columns, Threads::One);
                    self.add_patches(&patches, begin, end, &mut gx[image.clone()]);
                }
            });
        }
    }
}

fn forward<T: Element>(x: &[T], w: &[T], b: Option<&[T]>, lengths: &Lengths) -> Vec<T> {
    let images = x.len() / lengths.image().max(1);
    let threads = if images == 1 { Threads::All } else { Threads::One };
    let fill = |i: usize, y: &mut [T]| {
        if let Some(b) = b {
            y.chunks_exact_mut(lengths.places()).zip(b).for_each(|(plane, &b)| plane.fill(b));
        }
        lengths.forward_image(&x[i * lengths.image()..][..lengths.image()], w, y, b.is_some(), threads);
    };
    filled_by(images * lengths.out_image(), lengths.out_image(), fill).0
}

/// Which gradients are wanted, and what came of them.
struct Gradients<T> {
    x: Option<Vec<T>>,
    w: Option<Vec<T>>,
}

fn backward<T: Element>(x: &[T], w: &[T], g: &[T], lengths: &Lengths, want: (bool, bool)) -> Gradients<T> {
    let (image, out_image) = (lengths.image().max(1), lengths.out_image().max(1));
    let of_images = |x: &[T], g: &[T], mut gx: Option<&mut [T]>| {
        let mut gw = want.1.then(|| zeros(w.len()));
        for (i, (x, g)) in x.chunks(image).zip(g.chunks(out_image)).enumerate() {
            let gx = gx.as_deref_mut().map(|gx| &mut gx[i * image..][..image]);
            lengths.backward_image(x, w, g, gx, gw.as_deref_mut());
        }
        gw
    };
    let part = |i: usize, gx: Option<&mut [T]>| {
        let images = i * IMAGES..((i + 1) * IMAGES).min(x.len() / image);
        of_images(
            &x[images.start * image..images.end * image],
            &g[images.start * out_image..images.end * out_image],
            gx,
        )
    };
    let (gx, parts) = if want.0 {
        let (gx, parts) = filled_by(x.len(), image * IMAGES, |i, gx: &mut [T]| part(i, Some(gx)));
        (Some(gx), parts)
    } else {
        let count = (x.len() / image).div_ceil(IMAGES);
        (None, (0..count).into_par_iter().map(|i| part(i, None)).collect())
    };
    let gw = want.1.then(|| {
        let parts: Vec<Vec<T>> = parts.into_iter().flatten().collect();
        total(parts).unwrap_or_else(|| zeros(w.len()))
    });
    Gradients { x: gx, w: gw }
}

/// Sums of every channel of (n, channels, places).
fn channel_sums<T: Element>(g: &[T], channels: usize, places: usize) -> Vec<T> {
    let mut sums = zeros(channels);
    for image in g.chunks_exact((channels * places).max(1)) {
        for (sum, plane) in sums.iter_mut().zip(image.chunks_exact(places)) {
            *sum += vectorised(
                #[inline(always)]
                || reduce(plane, T::zero(), |x| x, |a, b| a + b),
            );
        }
    }
    sums
}

/// The operation, of (x, w) or (x, w, b).
pub struct Convolution(pub Conv2d);

impl Convolution {
    fn shape(&self, lengths: &Lengths, x: &Layout) -> Shape {
        let channels = lengths.outputs * self.0.groups;
        (x.dims()[0], channels, lengths.out_height, lengths.out_width).into()
    }

    fn gradients(&self, x: &Tensor, w: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let lengths = Lengths::new(self.0, x.shape(), w.shape())?;
        let want = (x.track_op(), w.track_op());
        for_type!(x.dtype(), T => {
            let gradients = with_elements::<T, _>(x, |x| with_elements::<T, _>(w, |w| {
                with_elements::<T, _>(g, |g| Ok(backward(x, w, g, &lengths, want)))
            }))?;
            let hand = |like: &Tensor, values: Option<Vec<T>>| match values {
                Some(values) => hand_over(like, tensor(values, like.shape())?),
                None => Ok(None),
            };
            Ok((hand(x, gradients.x)?, hand(w, gradients.w)?))
        })
    }
}

impl CustomOp2 for Convolution {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, w: &CpuStorage, lw: &Layout) -> Result<(CpuStorage, Shape)> {
        let lengths = Lengths::new(self.0, lx.shape(), lw.shape())?;
        for_type!(x.dtype(), T => {
            let y = forward::<T>(&elements(x, lx)?, &elements(w, lw)?, None, &lengths);
            Ok((T::to_cpu_storage_owned(y), self.shape(&lengths, lx)))
        })
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        self.gradients(x, w, g)
    }
}

impl CustomOp3 for Convolution {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        w: &CpuStorage,
        lw: &Layout,
        b: &CpuStorage,
        lb: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let lengths = Lengths::new(self.0, lx.shape(), lw.shape())?;
        for_type!(x.dtype(), T => {
            let b = elements::<T>(b, lb)?;
            let y = forward::<T>(&elements(x, lx)?, &elements(w, lw)?, Some(&b), &lengths);
            Ok((T::to_cpu_storage_owned(y), self.shape(&lengths, lx)))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        _: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (gx, gw) = self.gradients(x, w, g)?;
        let (_, channels, height, width) = g.dims4()?;
        let gb = for_type!(x.dtype(), T => {
            tensor(with_elements::<T, _>(g, |g| Ok(channel_sums(g, channels, height * width)))?, b.shape())?
        });
        Ok((gx, gw, hand_over(b, gb)?))
    }
}
