//! Layer norm and root-mean-square norm over the last axis.

use super::element::{Element, elements, for_type, reduce, sum, sum_pairs, vectorised, with_all};
use super::gradient::hand_over;
use super::rows::{filled, total};
use candle_core::{
    CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, WithDType, backend::BackendStorage,
};

/// Layer norm, of (x, weight, bias).
pub struct LayerNorm {
    pub eps: f64,
}

/// Root-mean-square norm, of (x, weight).
pub struct RmsNorm {
    pub eps: f64,
}

/// Mean (or 0) and reciprocal standard deviation (or root mean square) of a row.
#[inline(always)]
fn statistics<T: Element>(x: &[T], centre: bool, eps: f64) -> (T, T) {
    let count = T::from_f64(x.len() as f64);
    let mean = if centre { sum(x) / count } else { T::zero() };
    let variance = reduce(x, T::zero(), |x| (x - mean) * (x - mean), |a, b| a + b) / count;
    (mean, T::one() / (variance + T::from_f64(eps)).sqrt())
}

fn forward<T: Element>(x: &[T], weight: &[T], bias: Option<&[T]>, eps: f64) -> Vec<T> {
    let width = weight.len();
    let fill = |first: usize, y: &mut [T]| {
        vectorised(
            #[inline(always)]
            || {
                for (y, x) in y.chunks_exact_mut(width).zip(x[first * width..].chunks_exact(width)) {
                    let (mean, scale) = statistics(x, bias.is_some(), eps);
                    let entries = y.iter_mut().zip(x).zip(weight);
                    match bias {
                        Some(bias) => {
                            entries.zip(bias).for_each(|(((y, &x), &w), &b)| *y = (x - mean) * scale * w + b);
                        }
                        None => entries.for_each(|((y, &x), &w)| *y = x * scale * w),
                    }
                }
            },
        )
    };
    filled(x.len(), width, fill).0
}

/// The gradients of x, weight and bias (the last only if centred).
///
/// With x̂ the normalised row and h = g · weight, that of x is scale · (h − mean h − x̂ mean(h x̂)), without the
/// mean of h if the row is not centred.
fn backward<T: Element>(x: &[T], weight: &[T], g: &[T], centre: bool, eps: f64) -> (Vec<T>, Vec<T>, Vec<T>) {
    let width = weight.len();
    let fill = |first: usize, gx: &mut [T]| {
        vectorised(
            #[inline(always)]
            || {
                // The gradients of weight and of bias in one vector.
                let mut part = vec![T::zero(); 2 * width];
                let (of_weight, of_bias) = part.split_at_mut(width);
                let mut h = vec![T::zero(); width];
                let rows = x[first * width..].chunks_exact(width).zip(g[first * width..].chunks_exact(width));
                for (gx, (x, g)) in gx.chunks_exact_mut(width).zip(rows) {
                    let (mean, scale) = statistics(x, centre, eps);
                    let count = T::from_f64(width as f64);
                    for ((((h, gx), &x), &g), (&w, (of_weight, of_bias))) in h
                        .iter_mut()
                        .zip(gx.iter_mut())
                        .zip(x)
                        .zip(g)
                        .zip(weight.iter().zip(of_weight.iter_mut().zip(of_bias.iter_mut())))
                    {
                        let normalised = (x - mean) * scale;
                        *gx = normalised;
                        *h = g * w;
                        *of_weight += g * normalised;
                        *of_bias += g;
                    }
                    let mean_h = if centre { sum(&h) / count } else { T::zero() };
                    let mean_hx = sum_pairs(&h, gx, |h, x| h * x) / count;
                    gx.iter_mut().zip(&h).for_each(|(gx, &h)| *gx = scale * (h - mean_h - *gx * mean_hx));
                }
                part
            },
        )
    };
    let (gx, parts) = filled(x.len(), width, fill);
    let mut of_weight = total(parts).unwrap_or_else(|| vec![T::zero(); 2 * width]);
    let of_bias = of_weight.split_off(width);
    (gx, of_weight, of_bias)
}

fn gradients<T: Element>(
    [x, weight]: [&Tensor; 2],
    bias: Option<&Tensor>,
    g: &Tensor,
    eps: f64,
) -> Result<[Option<Tensor>; 3]> {
    let (gx, gw, gb) = with_all::<T, _, 3>([x, weight, g], |[x, w, g]| Ok(backward(x, w, g, bias.is_some(), eps)))?;
    let of_bias = bias.map(|bias| hand_over(bias, gb)).transpose()?.flatten();
    Ok([hand_over(x, gx)?, hand_over(weight, gw)?, of_bias])
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
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
            let y = forward::<T>(&elements(x, lx)?, &elements(w, lw)?, Some(&elements(b, lb)?), self.eps);
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
        let [gx, gw, gb] = for_type!(x.dtype(), T => gradients::<T>([x, weight], Some(bias), g, self.eps)?);
        Ok((gx, gw, gb))
    }
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, w: &CpuStorage, lw: &Layout) -> Result<(CpuStorage, Shape)> {
        for_type!(x.dtype(), T => {
            let y = forward::<T>(&elements(x, lx)?, &elements(w, lw)?, None, self.eps);
            Ok((T::to_cpu_storage_owned(y), lx.shape().clone()))
        })
    }

    fn bwd(&self, x: &Tensor, weight: &Tensor, _: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [gx, gw, _] = for_type!(x.dtype(), T => gradients::<T>([x, weight], None, g, self.eps)?);
        Ok((gx, gw))
    }
}
