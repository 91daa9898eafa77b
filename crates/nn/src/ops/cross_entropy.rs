//! Cross-entropy of logits against class numbers.

use super::Reduction;
use super::element::{Element, elements, for_type, reduce, sum, tensor, vectorised, with_all};
use super::rows::{filled, zeros};
use super::softmax::log_sum_exp;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, WithDType, backend::BackendStorage};

/// Of logits (n, classes). With label smoothing ε the loss of a row x with target t is
/// `log Σ eˣ − (1 − ε) x_t − ε mean(x)`, whose gradient is `softmax(x) − (1 − ε) e_t − ε / classes`.
pub struct CrossEntropy {
    pub targets: Vec<u32>,
    pub label_smoothing: f64,
    pub reduction: Reduction,
}

impl CrossEntropy {
    fn losses<T: Element>(&self, x: &[T], classes: usize) -> Vec<T> {
        let smoothing = T::from_f64(self.label_smoothing);
        let mut losses = zeros(self.targets.len());
        for ((loss, x), &target) in losses.iter_mut().zip(x.chunks_exact(classes)).zip(&self.targets) {
            *loss = vectorised(
                #[inline(always)]
                || {
                    let mean = if smoothing == T::zero() { T::zero() } else { sum(x) / T::from_f64(classes as f64) };
                    log_sum_exp(x) - (T::one() - smoothing) * x[target as usize] - smoothing * mean
                },
            );
        }
        losses
    }

    /// `of_loss(row)` is the gradient of a row's loss.
    fn backward<T: Element>(&self, x: &[T], classes: usize, of_loss: impl Fn(usize) -> T + Sync) -> Vec<T> {
        let smoothing = T::from_f64(self.label_smoothing);
        let spread = smoothing / T::from_f64(classes as f64);
        let fill = |first: usize, gx: &mut [T]| {
            vectorised(
                #[inline(always)]
                || {
                    let rows = x[first * classes..].chunks_exact(classes).zip(&self.targets[first..]);
                    for (i, (gx, (x, &target))) in gx.chunks_exact_mut(classes).zip(rows).enumerate() {
                        let g = of_loss(first + i);
                        let most = reduce(x, x[0], |x| x, |a, b| if b > a { b } else { a });
                        gx.iter_mut().zip(x).for_each(|(gx, &x)| *gx = (x - most).exp());
                        let scale = g / sum(gx);
                        gx.iter_mut().for_each(|gx| *gx = *gx * scale - spread * g);
                        gx[target as usize] -= (T::one() - smoothing) * g;
                    }
                },
            )
        };
        filled(x.len(), classes, fill).0
    }
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, classes) = layout.shape().dims2()?;
        for_type!(x.dtype(), T => {
            let losses = self.losses::<T>(&elements(x, layout)?, classes);
            let (values, shape) = match self.reduction {
                Reduction::None => (losses, rows.into()),
                Reduction::Sum => (vec![sum(&losses)], ().into()),
                Reduction::Mean => (vec![sum(&losses) / T::from_f64(rows as f64)], ().into()),
            };
            Ok((T::to_cpu_storage_owned(values), shape))
        })
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        let (rows, classes) = x.dims2()?;
        for_type!(x.dtype(), T => {
            let gx = with_all::<T, _, 2>([x, g], |[x, g]| Ok(match self.reduction {
                Reduction::None => self.backward(x, classes, |row| g[row]),
                Reduction::Sum => self.backward(x, classes, |_| g[0]),
                Reduction::Mean => self.backward(x, classes, |_| g[0] / T::from_f64(rows as f64)),
            }))?;
            Ok(Some(tensor(gx, x.shape())?))
        })
    }
}
