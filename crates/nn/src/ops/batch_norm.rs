//! Batch norm and group norm: (n, channels, …) normalised over a channel of the whole batch, or over a group of an
//! item's channels.

use super::element::{Element, elements, for_type, reduce, sum, sum_pairs, vectorised, with_all};
use super::gradient::hand_over;
use super::rows::{filled_by, zeros};
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, WithDType, backend::BackendStorage};
use rayon::prelude::*;
use std::sync::{Arc, OnceLock};

/// Mean and variance (biased) of each channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    pub mean: Vec<f64>,
    pub var: Vec<f64>,
}

/// Batch norm of (x, weight, bias).
pub struct BatchNorm {
    pub eps: f64,
    /// Set beforehand, they are constants of the function (evaluation); otherwise the forward pass puts the batch's here.
    pub moments: Arc<OnceLock<Moments>>,
    /// Whether the moments depend on x.
    pub of_batch: bool,
    /// Whether the result goes through `max(·, 0)`.
    pub relu: bool,
}

/// Group norm of (x, weight, bias).
pub struct GroupNorm {
    pub groups: usize,
    pub eps: f64,
}

/// The lengths of (n, channels, …): items, channels, places.
fn lengths(shape: &Shape) -> (usize, usize, usize) {
    let dims = shape.dims();
    (dims[0], dims[1], dims[2..].iter().product())
}

/// Per channel: the sum over items of `of_plane(item, plane)`, a plane being the places of an item's channel.
fn channel_sums<T: Element>(
    (items, channels, places): (usize, usize, usize),
    of_plane: impl Fn(usize, std::ops::Range<usize>) -> [T; 2] + Sync,
) -> Vec<[f64; 2]> {
    let of_channel = |channel: usize| {
        let mut sums = [0.0; 2];
        for item in 0..items {
            let start = (item * channels + channel) * places;
            // Planes are added up in f64: there are many, and their sums cancel.
            let [a, b] = of_plane(channel, start..start + places);
            sums[0] += a.to_f64();
            sums[1] += b.to_f64();
        }
        sums
    };
    (0..channels).into_par_iter().map(of_channel).collect()
}

fn moments<T: Element>(x: &[T], lengths: (usize, usize, usize)) -> Moments {
    let count = (lengths.0 * lengths.2) as f64;
    let totals = channel_sums(lengths, |_, plane| {
        vectorised(
            #[inline(always)]
            || [sum(&x[plane]), T::zero()],
        )
    });
    let mean: Vec<f64> = totals.iter().map(|s| s[0] / count).collect();
    let squares = channel_sums(lengths, |channel, plane| {
        let mean = T::from_f64(mean[channel]);
        vectorised(
            #[inline(always)]
            || [reduce(&x[plane], T::zero(), |x| (x - mean) * (x - mean), |a, b| a + b), T::zero()],
        )
    });
    Moments { mean, var: squares.iter().map(|s| s[0] / count).collect() }
}

/// A tensor of (n, channels, …) that `f(channel, range of the plane, plane)` fills plane by plane.
fn filled_planes<T: Element>(
    (items, channels, places): (usize, usize, usize),
    f: impl Fn(usize, std::ops::Range<usize>, &mut [T]) + Sync,
) -> Vec<T> {
    let item = channels * places;
    // An item's planes stay on one thread: with one place a plane they are single numbers.
    let fill = |i: usize, planes: &mut [T]| {
        for (channel, plane) in planes.chunks_exact_mut(places).enumerate() {
            let start = i * item + channel * places;
            f(channel, start..start + places, plane);
        }
    };
    filled_by(items * item, item, fill).0
}

/// The part of a gradient that a ReLU behind the norm of a channel lets through.
#[derive(Clone, Copy)]
struct Counts<T> {
    relu: bool,
    mean: T,
    scale: T,
    shift: T,
}

impl<T: Element> Counts<T> {
    #[inline(always)]
    fn of(self, x: T, g: T) -> T {
        let value = (x - self.mean) * self.scale + self.shift;
        if self.relu && value <= T::zero() { T::zero() } else { g }
    }
}

impl BatchNorm {
    fn moments(&self) -> Result<&Moments> {
        self.moments.get().ok_or_else(|| candle_core::Error::Msg("batch_norm: its forward pass has not run".into()))
    }

    /// 1 / √(variance + eps) of each channel.
    fn scales(&self, moments: &Moments) -> Vec<f64> {
        moments.var.iter().map(|var| 1.0 / (var + self.eps).sqrt()).collect()
    }

    fn forward<T: Element>(&self, x: &[T], weight: &[T], bias: &[T], moments: &Moments, shape: &Shape) -> Vec<T> {
        let scales = self.scales(moments);
        filled_planes(lengths(shape), |channel, range, y: &mut [T]| {
            let scale = T::from_f64(scales[channel]) * weight[channel];
            let (mean, shift) = (T::from_f64(moments.mean[channel]), bias[channel]);
            vectorised(
                #[inline(always)]
                || {
                    for (y, &x) in y.iter_mut().zip(&x[range]) {
                        let value = (x - mean) * scale + shift;
                        *y = if self.relu && value < T::zero() { T::zero() } else { value };
                    }
                },
            );
        })
    }

    /// The gradients of x, weight and bias.
    ///
    /// With x̂ the normalised values that of x is weight · scale · (g − mean g − x̂ mean(g x̂)), without the means if
    /// the moments are constants. Behind a ReLU, g counts where the result is positive.
    fn backward<T: Element>(&self, x: &[T], weight: &[T], bias: &[T], g: &[T], shape: &Shape) -> Result<[Vec<T>; 3]> {
        let (moments, lengths) = (self.moments()?, lengths(shape));
        let scales = self.scales(moments);
        let sums = channel_sums(lengths, |channel, plane| {
            let (mean, scale) = (T::from_f64(moments.mean[channel]), T::from_f64(scales[channel]));
            let counts = Counts { relu: self.relu, mean, scale: scale * weight[channel], shift: bias[channel] };
            let (x, g) = (&x[plane.clone()], &g[plane]);
            vectorised(
                #[inline(always)]
                || {
                    let of_bias = sum_pairs(x, g, |x, g| counts.of(x, g));
                    [of_bias, sum_pairs(x, g, |x, g| (x - mean) * scale * counts.of(x, g))]
                },
            )
        });
        let count = (lengths.0 * lengths.2) as f64;
        let gx = filled_planes(lengths, |channel, range, gx: &mut [T]| {
            let [mean, scale] = [moments.mean[channel], scales[channel]].map(T::from_f64);
            let share = if self.of_batch { 1.0 / count } else { 0.0 };
            let [mean_g, mean_gx] = sums[channel].map(|sum| T::from_f64(sum * share));
            let factor = weight[channel] * scale;
            let counts = Counts { relu: self.relu, mean, scale: factor, shift: bias[channel] };
            let (x, g) = (&x[range.clone()], &g[range]);
            vectorised(
                #[inline(always)]
                || {
                    for ((gx, &x), &g) in gx.iter_mut().zip(x).zip(g) {
                        *gx = factor * (counts.of(x, g) - mean_g - (x - mean) * scale * mean_gx);
                    }
                },
            );
        });
        let column = |i: usize| sums.iter().map(|sums| T::from_f64(sums[i])).collect();
        Ok([gx, column(1), column(0)])
    }
}

impl CustomOp3 for BatchNorm {
    fn name(&self) -> &'static str {
        "batch_norm"
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
        for_type!(x.dtype(), T => {
            let x = elements::<T>(x, lx)?;
            let moments = self.moments.get_or_init(|| moments(&x, lengths(lx.shape())));
            let y = self.forward::<T>(&x, &elements(w, lw)?, &elements(b, lb)?, moments, lx.shape());
            Ok((T::to_cpu_storage_owned(y), lx.shape().clone()))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        for_type!(x.dtype(), T => {
            let backward = |[xs, w, b, g]: [&[T]; 4]| self.backward(xs, w, b, g, x.shape());
            let [gx, gw, gb] = with_all([x, weight, bias, g], backward)?;
            Ok((hand_over(x, gx)?, hand_over(weight, gw)?, hand_over(bias, gb)?))
        })
    }
}

impl GroupNorm {
    /// Mean and reciprocal standard deviation of a group.
    #[inline(always)]
    fn statistics<T: Element>(&self, group: &[T]) -> (T, T) {
        let count = T::from_f64(group.len() as f64);
        let mean = sum(group) / count;
        let variance = reduce(group, T::zero(), |x| (x - mean) * (x - mean), |a, b| a + b) / count;
        (mean, T::one() / (variance + T::from_f64(self.eps)).sqrt())
    }

    /// The group's number (over all items), length, and the channels of the group that starts at `start`.
    fn lengths(&self, shape: &Shape) -> (usize, usize, usize) {
        let (_, channels, places) = lengths(shape);
        (channels / self.groups, places, channels / self.groups * places)
    }

    fn forward<T: Element>(&self, x: &[T], weight: &[T], bias: &[T], shape: &Shape) -> Vec<T> {
        let (group_channels, places, length) = self.lengths(shape);
        let fill = |i: usize, y: &mut [T]| {
            let (first, x) = (i % self.groups * group_channels, &x[i * length..][..length]);
            vectorised(
                #[inline(always)]
                || {
                    let (mean, scale) = self.statistics(x);
                    let planes = y.chunks_exact_mut(places).zip(x.chunks_exact(places));
                    for (channel, (y, x)) in (first..).zip(planes) {
                        let (w, b) = (scale * weight[channel], bias[channel]);
                        y.iter_mut().zip(x).for_each(|(y, &x)| *y = (x - mean) * w + b);
                    }
                },
            );
        };
        filled_by(x.len(), length, fill).0
    }

    /// The gradients of x, weight and bias: as for layer norm with a weight for each channel.
    fn backward<T: Element>(&self, x: &[T], weight: &[T], g: &[T], shape: &Shape) -> [Vec<T>; 3] {
        let (group_channels, places, length) = self.lengths(shape);
        let fill = |i: usize, gx: &mut [T]| {
            let first = i % self.groups * group_channels;
            let (x, g) = (&x[i * length..][..length], &g[i * length..][..length]);
            vectorised(
                #[inline(always)]
                || {
                    let (mean, scale) = self.statistics(x);
                    let planes = || x.chunks_exact(places).zip(g.chunks_exact(places));
                    let sums: Vec<[T; 2]> =
                        planes().map(|(x, g)| [sum_pairs(x, g, |x, g| (x - mean) * scale * g), sum(g)]).collect();
                    let share = T::one() / T::from_f64(length as f64);
                    let mean_of =
                        |i: usize| sums.iter().zip(&weight[first..]).map(|(s, &w)| s[i] * w).sum::<T>() * share;
                    let (mean_hx, mean_h) = (mean_of(0), mean_of(1));
                    for ((channel, gx), (x, g)) in (first..).zip(gx.chunks_exact_mut(places)).zip(planes()) {
                        let w = weight[channel];
                        for ((gx, &x), &g) in gx.iter_mut().zip(x).zip(g) {
                            *gx = scale * (w * g - mean_h - (x - mean) * scale * mean_hx);
                        }
                    }
                    sums
                },
            )
        };
        let (gx, sums) = filled_by(x.len(), length, fill);
        let (mut of_weight, mut of_bias) = (zeros(weight.len()), zeros(weight.len()));
        for item in sums.chunks(self.groups) {
            for (channel, [w, b]) in item.iter().flatten().enumerate() {
                of_weight[channel] += *w;
                of_bias[channel] += *b;
            }
        }
        [gx, of_weight, of_bias]
    }
}

impl CustomOp3 for GroupNorm {
    fn name(&self) -> &'static str {
        "group_norm"
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
        for_type!(x.dtype(), T => {
            let y = self.forward::<T>(&elements(x, lx)?, &elements(w, lw)?, &elements(b, lb)?, lx.shape());
            Ok((T::to_cpu_storage_owned(y), lx.shape().clone()))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        for_type!(x.dtype(), T => {
            let backward = |[xs, w, g]: [&[T]; 3]| Ok(self.backward(xs, w, g, x.shape()));
            let [gx, gw, gb] = with_all([x, weight, g], backward)?;
            Ok((hand_over(x, gx)?, hand_over(weight, gw)?, hand_over(bias, gb)?))
        })
    }
}
