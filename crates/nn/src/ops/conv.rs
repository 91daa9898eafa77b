//! Convolution in two dimensions, as one matrix product for each row of the kernel.
//!
//! For every channel and every column kx of the kernel the input is laid out once, shifted by kx. What row ky of the
//! kernel sees is then a part of that layout, some lines further down, which no one has to copy: a third of the memory of
//! a 3 × 3 kernel's patches. Lines are laid out for a tile of output rows at a time, so that they stay in a core's cache.

use super::Conv2d;
use super::element::{Element, elements, for_type, reduce, vectorised, with_all, with_elements};
use super::gradient::hand_over;
use super::matrix::{Threads, View, product};
use super::rows::{filled_by, total, zeros};
use candle_core::{
    CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, WithDType, backend::BackendStorage, bail,
};
use rayon::prelude::*;

/// Elements of a tile's layout.
const TILE: usize = 1 << 16;

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

    /// Columns of a row of the kernel: a channel's taps side by side, channel by channel.
    fn row_taps(&self) -> usize {
        self.inputs * self.kernel.1
    }

    /// Entries of a group's kernel.
    fn group_kernel(&self) -> usize {
        self.outputs * self.row_taps() * self.kernel.0
    }

    /// Output rows of a tile.
    fn tile_rows(&self) -> usize {
        (TILE / (self.row_taps() * self.out_width).max(1)).clamp(1, self.out_height.max(1))
    }

    /// Whether the layout is the image itself.
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

    /// Calls `f(index in the kernel, index in its rearrangement)` for every kw taps that stay together as each group's
    /// kernel (outputs, inputs, kh, kw) becomes (kh, outputs, inputs, kw).
    fn each_run_of_taps(&self, mut f: impl FnMut(usize, usize)) {
        let ((kh, kw), pairs) = (self.kernel, self.outputs * self.inputs);
        for (group, ky) in (0..self.conv.groups).flat_map(|group| (0..kh).map(move |ky| (group, ky))) {
            let start = group * self.group_kernel();
            (0..pairs).for_each(|pair| f(start + (pair * kh + ky) * kw, start + (ky * pairs + pair) * kw));
        }
    }

    /// The whole kernel, each group's row by row.
    fn kernel_by_row<T: Element>(&self, w: &[T]) -> Vec<T> {
        let (mut rows, kw) = (zeros(w.len()), self.kernel.1);
        self.each_run_of_taps(|at, row| rows[row..row + kw].copy_from_slice(&w[at..at + kw]));
        rows
    }

    /// A kernel from its rows.
    fn kernel_from_rows<T: Element>(&self, rows: &[T]) -> Vec<T> {
        let (mut w, kw) = (zeros(rows.len()), self.kernel.1);
        self.each_run_of_taps(|at, row| w[at..at + kw].copy_from_slice(&rows[row..row + kw]));
        w
    }

    /// Calls `f` with each tile of output rows; with none if there are no channels to multiply.
    fn each_tile(&self, mut f: impl FnMut(Tile<'_>)) {
        if self.group_kernel() == 0 {
            return;
        }
        for begin in (0..self.out_height).step_by(self.tile_rows()) {
            f(Tile::new(self, begin, (begin + self.tile_rows()).min(self.out_height)));
        }
    }

    fn forward_image<T: Element>(&self, x: &[T], rows: &[T], y: &mut [T], add: bool, threads: Threads) {
        let (columns, places) = (self.row_taps(), self.places());
        let mut laid_out = Vec::new();
        let group = self.inputs * self.height * self.width;
        for i in 0..self.conv.groups {
            let x = &x[i * group..][..group];
            let (w, y) = (&rows[i * self.group_kernel()..], &mut y[i * self.outputs * places..]);
            if self.is_pointwise() {
                let (w, x) = (View::new(w, self.outputs, columns), View::new(x, columns, places));
                product(T::one(), w, x, add, y, places, threads);
                continue;
            }
            self.each_tile(|tile| {
                tile.lay_out(x, &mut laid_out);
                let y = &mut y[tile.begin * self.out_width..];
                for (ky, w) in w.chunks_exact(self.outputs * columns).take(self.kernel.0).enumerate() {
                    let w = View::new(w, self.outputs, columns);
                    product(T::one(), w, tile.seen_by(ky, &laid_out), add || ky > 0, y, places, threads);
                }
            });
        }
    }

    /// Adds to `gw` (whole kernel, row by row) and writes `gx` (an image, zero before), where wanted.
    fn backward_image<T: Element>(
        &self,
        x: &[T],
        rows: &[T],
        g: &[T],
        (mut gx, mut gw): (Option<&mut [T]>, Option<&mut [T]>),
        laid_out: &mut Vec<T>,
    ) {
        let (columns, places) = (self.row_taps(), self.places());
        let group = self.inputs * self.height * self.width;
        for i in 0..self.conv.groups {
            let image = i * group..(i + 1) * group;
            let row = |ky: usize| i * self.group_kernel() + ky * self.outputs * columns;
            self.each_tile(|tile| {
                let g = &g[i * self.outputs * places + tile.begin * self.out_width..];
                let g = View::strided(g, self.outputs, tile.columns(), places);
                if let Some(gw) = gw.as_deref_mut() {
                    tile.lay_out(&x[image.clone()], laid_out);
                    for ky in 0..self.kernel.0 {
                        let seen = tile.seen_by(ky, laid_out);
                        product(T::one(), g, seen.t(), true, &mut gw[row(ky)..], columns, Threads::One);
                    }
                }
                if let Some(gx) = gx.as_deref_mut() {
                    laid_out.clear();
                    laid_out.resize(columns * tile.stride(), T::zero());
                    for ky in 0..self.kernel.0 {
                        let w = View::new(&rows[row(ky)..], self.outputs, columns);
                        let seen = &mut laid_out[tile.first_seen_by(ky)..];
                        product(T::one(), w.t(), g, true, seen, tile.stride(), Threads::One);
                    }
                    tile.add_back(laid_out, &mut gx[image.clone()]);
                }
            });
        }
    }
}

/// The output rows from `begin` to `end`, and the lines of the input that they see.
///
/// A line is the input that column kx of the kernel sees in one row of a channel, out_width entries. Lines are sorted by
/// their row's remainder (phase) under the stride, so that those which one row of the kernel sees follow each other.
struct Tile<'a> {
    lengths: &'a Lengths,
    begin: usize,
    end: usize,
    phases: usize,
    /// Lines of a phase.
    lines: usize,
}

impl<'a> Tile<'a> {
    fn new(lengths: &'a Lengths, begin: usize, end: usize) -> Self {
        let (stride, reach) = (lengths.conv.stride, (lengths.kernel.0 - 1) * lengths.conv.dilation);
        Self { lengths, begin, end, phases: stride.min(reach + 1), lines: end - begin + reach / stride }
    }

    /// Places of the tile in an output channel.
    fn columns(&self) -> usize {
        (self.end - self.begin) * self.lengths.out_width
    }

    /// Entries from one row of the layout (channel and kx) to the next.
    fn stride(&self) -> usize {
        self.phases * self.lines * self.lengths.out_width
    }

    /// Where in a row of the layout stands what row `ky` of the kernel sees.
    fn first_seen_by(&self, ky: usize) -> usize {
        let (shift, stride) = (ky * self.lengths.conv.dilation, self.lengths.conv.stride);
        (shift % stride * self.lines + shift / stride) * self.lengths.out_width
    }

    /// What row `ky` of the kernel sees: (inputs · kw, columns).
    fn seen_by<'b, T: Element>(&self, ky: usize, laid_out: &'b [T]) -> View<'b, T> {
        let entries = &laid_out[self.first_seen_by(ky)..];
        View::strided(entries, self.lengths.row_taps(), self.columns(), self.stride())
    }

    /// Calls `f(output columns, input index of the first)` for every line of the layout, in order; no output columns and
    /// no index where the line lies outside of the image. Input columns are the convolution's stride apart.
    #[inline(always)]
    fn each_line(&self, mut f: impl FnMut(std::ops::Range<usize>, usize)) {
        let lengths = self.lengths;
        let Conv2d { stride, padding, dilation, .. } = lengths.conv;
        for channel in 0..lengths.inputs {
            for kx in 0..lengths.kernel.1 {
                let (left, right) = lengths.inside(kx, lengths.width, lengths.out_width);
                for (phase, line) in (0..self.phases).flat_map(|phase| (0..self.lines).map(move |line| (phase, line))) {
                    let row = (self.begin + line) * stride + phase;
                    if row < padding || row >= padding + lengths.height || left >= right {
                        f(0..0, 0);
                        continue;
                    }
                    let column = left * stride + kx * dilation - padding;
                    f(left..right, (channel * lengths.height + row - padding) * lengths.width + column);
                }
            }
        }
    }

    /// Lays the lines of `x`, a group of an image, out: (inputs · kw, [`stride`](Self::stride)).
    fn lay_out<T: Element>(&self, x: &[T], laid_out: &mut Vec<T>) {
        let (width, stride) = (self.lengths.out_width, self.lengths.conv.stride);
        laid_out.clear();
        laid_out.reserve(self.lengths.row_taps() * self.stride());
        self.each_line(|run, first| {
            let end = laid_out.len() + width;
            laid_out.resize(end - width + run.start, T::zero());
            match stride {
                1 => laid_out.extend_from_slice(&x[first..first + run.len()]),
                _ => laid_out.extend(x[first..].iter().step_by(stride).take(run.len())),
            }
            laid_out.resize(end, T::zero());
        });
    }

    /// Adds the gradients of a layout to that of the group of an image it was made from.
    fn add_back<T: Element>(&self, laid_out: &[T], gx: &mut [T]) {
        let stride = self.lengths.conv.stride;
        let mut lines = laid_out.chunks_exact(self.lengths.out_width.max(1));
        self.each_line(|run, first| {
            let Some(line) = lines.next() else { return };
            let line = &line[run];
            match stride {
                1 => gx[first..first + line.len()].iter_mut().zip(line).for_each(|(sum, &g)| *sum += g),
                _ => gx[first..].iter_mut().step_by(stride).zip(line).for_each(|(sum, &g)| *sum += g),
            }
        });
    }
}

fn forward<T: Element>(x: &[T], w: &[T], b: Option<&[T]>, lengths: &Lengths) -> Vec<T> {
    let images = x.len() / lengths.image().max(1);
    let threads = if images == 1 { Threads::All } else { Threads::One };
    let rows = lengths.kernel_by_row(w);
    let fill = |i: usize, y: &mut [T]| {
        if let Some(b) = b {
            y.chunks_exact_mut(lengths.places()).zip(b).for_each(|(plane, &b)| plane.fill(b));
        }
        lengths.forward_image(&x[i * lengths.image()..][..lengths.image()], &rows, y, b.is_some(), threads);
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
    let rows = lengths.kernel_by_row(w);
    let of_images = |x: &[T], g: &[T], mut gx: Option<&mut [T]>| {
        let mut gw = want.1.then(|| zeros(w.len()));
        let mut laid_out = Vec::new();
        for (i, (x, g)) in x.chunks(image).zip(g.chunks(out_image)).enumerate() {
            let gx = gx.as_deref_mut().map(|gx| &mut gx[i * image..][..image]);
            lengths.backward_image(x, &rows, g, (gx, gw.as_deref_mut()), &mut laid_out);
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
        lengths.kernel_from_rows(&total(parts).unwrap_or_else(|| zeros(w.len())))
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
            let gradients = with_all::<T, _, 3>([x, w, g], |[x, w, g]| Ok(backward(x, w, g, &lengths, want)))?;
            let hand = |argument: &Tensor, gradient: Option<Vec<T>>| {
                gradient.map(|gradient| hand_over(argument, gradient)).transpose().map(Option::flatten)
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
            hand_over(b, with_elements::<T, _>(g, |g| Ok(channel_sums(g, channels, height * width)))?)?
        });
        Ok((gx, gw, gb))
    }
}
