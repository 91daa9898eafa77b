//! Soft-max over the last axis, and its logarithm.

use super::element::{Element, elements, for_type, largest, reduce, sum, sum_pairs, tensor, vectorised, with_all};
use super::rows::filled;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, WithDType, backend::BackendStorage};

/// Soft-max or its logarithm.
pub struct Softmax {
    pub log: bool,
}

/// Soft-max of a row in place.
#[inline(always)]
pub fn softmax_in_place<T: Element>(row: &mut [T]) {
    let most = largest(row);
    row.iter_mut().for_each(|x| *x = (*x - most).exp());
    let scale = T::one() / sum(row);
    row.iter_mut().for_each(|x| *x *= scale);
}

/// `log Σ eˣ` of a row.
#[inline(always)]
pub fn log_sum_exp<T: Element>(row: &[T]) -> T {
    let most = largest(row);
    let total = reduce(row, T::zero(), |x| (x - most).exp(), |a, b| a + b);
    most + T::from_f64(total.to_f64().ln())
}

impl Softmax {
    fn forward<T: Element>(&self, x: &[T], width: usize) -> Vec<T> {
        let fill = |first: usize, y: &mut [T]| {
            vectorised(
                #[inline(always)]
                || {
                    for (y, x) in y.chunks_exact_mut(width).zip(x[first * width..].chunks_exact(width)) {
                        if self.log {
                            let log_total = log_sum_exp(x);
                            y.iter_mut().zip(x).for_each(|(y, &x)| *y = x - log_total);
                        } else {
                            y.copy_from_slice(x);
                            softmax_in_place(y);
                        }
                    }
                },
            )
        };
        filled(x.len(), width, fill).0
    }

    /// From the result y and its gradient g: y (g − Σ g y), or for the logarithm g − eʸ Σ g.
    fn backward<T: Element>(&self, y: &[T], g: &[T], width: usize) -> Vec<T> {
        let fill = |first: usize, gx: &mut [T]| {
            vectorised(
                #[inline(always)]
                || {
                    let rows = y[first * width..].chunks_exact(width).zip(g[first * width..].chunks_exact(width));
                    for (gx, (y, g)) in gx.chunks_exact_mut(width).zip(rows) {
                        let entries = gx.iter_mut().zip(y).zip(g);
                        if self.log {
                            let total = sum(g);
                            entries.for_each(|((gx, &y), &g)| *gx = g - y.exp() * total);
                        } else {
                            let total = sum_pairs(g, y, |g, y| g * y);
                            entries.for_each(|((gx, &y), &g)| *gx = y * (g - total));
                        }
                    }
                },
            )
        };
        filled(y.len(), width, fill).0
    }
}

impl CustomOp1 for Softmax {
    fn name(&self) -> &'static str {
        if self.log { "log_softmax" } else { "softmax" }
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let width = layout.dims()[layout.dims().len() - 1];
        for_type!(x.dtype(), T => {
            let y = self.forward::<T>(&elements(x, layout)?, width);
            Ok((T::to_cpu_storage_owned(y), layout.shape().clone()))
        })
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        let width = x.dims()[x.rank() - 1];
        for_type!(x.dtype(), T => {
            let gx = with_all::<T, _, 2>([y, g], |[y, g]| Ok(self.backward(y, g, width)))?;
            Ok(Some(tensor(gx, x.shape())?))
        })
    }
}
