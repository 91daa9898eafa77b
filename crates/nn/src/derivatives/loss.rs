//! Losses with the derivatives in the outputs that curvature needs.

use crate::error::computation;
use crate::ops::{self, Reduction};
use crate::params::flatten;
use candle_core::{DType, Device, Tensor};
use offprint_core::random::Stream;
use offprint_core::{Error, Result};
use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};

/// A class number that stands for "no target here": such positions have no loss (padding, prompts).
pub const IGNORED: u32 = u32::MAX;

/// The loss of a sample, given the model's outputs for it and its targets. All are negative log-likelihoods, so that
/// targets can be drawn from what the model predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Cross-entropy after a soft-max: outputs (n, …, classes) are logits, targets (n, …) class numbers of type `u32`
    /// or [`IGNORED`]. Summed over positions.
    CrossEntropy,
    /// ½‖outputs − targets‖², both of the same shape (n, …): a Gaussian with variance 1.
    SquaredError,
    /// Binary cross-entropy after a logistic function: outputs (n, …) are logits, targets (n, …) are 0 or 1. Summed
    /// over positions.
    Logistic,
}

impl Loss {
    /// The loss of each sample (n).
    pub fn per_sample(self, outputs: &Tensor, targets: &Tensor) -> Result<Tensor> {
        self.check(outputs, targets)?;
        let losses = match self {
            Self::CrossEntropy => {
                let (ids, mask) = ids_and_mask(outputs, targets)?;
                let classes = outputs.dim(outputs.rank() - 1).map_err(computation)?;
                outputs
                    .reshape(((), classes))
                    .and_then(|rows| ops::cross_entropy(&rows, &ids, 0.0, Reduction::None))
                    .and_then(|losses| mask.map_or(Ok(losses.clone()), |mask| losses * mask))
            }
            Self::SquaredError => (outputs - targets).and_then(|e| e.sqr()).and_then(|e| e * 0.5),
            // log(1 + eᶻ) − t z, written so that no exponential overflows: max(z, 0) + log(1 + e^−|z|) − t z.
            Self::Logistic => (|| {
                let soft = (outputs.abs()?.neg()?.exp()? + 1.0)?.log()?;
                (outputs.relu()? + soft)? - (outputs * targets)?
            })(),
        };
        let n = outputs.dims()[0];
        losses.and_then(|l| l.reshape((n, ()))?.sum(1)).map_err(computation)
    }

    /// The gradient of Σᵢ ℓᵢ in the outputs, of their shape.
    pub fn output_gradient(self, outputs: &Tensor, targets: &Tensor) -> Result<Tensor> {
        self.check(outputs, targets)?;
        match self {
            Self::CrossEntropy => {
                let (ids, mask) = ids_and_mask(outputs, targets)?;
                (|| {
                    let classes = outputs.dim(outputs.rank() - 1)?;
                    let rows = outputs.detach().reshape(((), classes))?;
                    let ids = ids.unsqueeze(1)?;
                    let minus_one = Tensor::ones(ids.shape(), rows.dtype(), rows.device())?.neg()?;
                    let mut gradient = ops::softmax(&rows)?.contiguous()?.scatter_add(&ids, &minus_one, 1)?;
                    if let Some(mask) = mask {
                        gradient = gradient.broadcast_mul(&mask.unsqueeze(1)?)?;
                    }
                    gradient.reshape(outputs.shape())
                })()
            }
            Self::SquaredError => outputs.detach() - targets,
            Self::Logistic => ops::sigmoid(&outputs.detach()).and_then(|p| p - targets),
        }
        .map_err(computation)
    }

    /// The Hessian of Σᵢ ℓᵢ in the outputs, times `v`; both of the outputs' shape. `targets` only tell where positions
    /// are ignored.
    pub fn output_hessian_product(self, outputs: &Tensor, targets: &Tensor, v: &Tensor) -> Result<Tensor> {
        self.check(outputs, targets)?;
        let outputs = outputs.detach();
        match self {
            // (diag p − p pᵀ) v
            Self::CrossEntropy => {
                let (_, mask) = ids_and_mask(&outputs, targets)?;
                (|| {
                    let p = ops::softmax(&outputs)?;
                    let pv = (&p * v)?;
                    let last = pv.rank() - 1;
                    let product = (&pv - p.broadcast_mul(&pv.sum_keepdim(last)?)?)?;
                    match mask {
                        Some(mask) => product.broadcast_mul(&mask.reshape(targets.shape())?.unsqueeze(last)?),
                        None => Ok(product),
                    }
                })()
            }
            Self::SquaredError => Ok(v.clone()),
            Self::Logistic => ops::sigmoid(&outputs).and_then(|p| (&p * (1.0 - &p)?)? * v),
        }
        .map_err(computation)
    }

    /// Targets drawn from the model's prediction, in the form of `targets`; ignored positions stay ignored.
    pub fn sample(self, outputs: &Tensor, targets: &Tensor, stream: Stream) -> Result<Tensor> {
        self.check(outputs, targets)?;
        let outputs = outputs.detach();
        let n = outputs.dims()[0];
        let build = |values: Vec<f64>| {
            Tensor::from_vec(values, outputs.shape(), &Device::Cpu).and_then(|t| t.to_dtype(outputs.dtype()))
        };
        match self {
            Self::CrossEntropy => {
                let classes = outputs.dims()[outputs.rank() - 1];
                let p: Vec<f64> = flatten([&ops::softmax(&outputs).map_err(computation)?].into_iter(), 0)?;
                let mut ids = targets.flatten_all().and_then(|t| t.to_vec1::<u32>()).map_err(computation)?;
                let positions = ids.len() / n.max(1);
                for (i, ids) in ids.chunks_mut(positions.max(1)).enumerate() {
                    let mut rng = stream.rng(i as u64);
                    for (t, id) in ids.iter_mut().enumerate() {
                        let row = &p[(i * positions + t) * classes..][..classes];
                        let mut left = rng.random::<f64>() * row.iter().sum::<f64>();
                        if *id != IGNORED {
                            *id = row
                                .iter()
                                .position(|p| {
                                    left -= p;
                                    left < 0.0
                                })
                                .unwrap_or(classes - 1) as u32;
                        }
                    }
                }
                Tensor::from_vec(ids, targets.shape(), &Device::Cpu)
            }
            Self::SquaredError => {
                let mut values: Vec<f64> = flatten([&outputs].into_iter(), 0)?;
                let width = values.len() / n.max(1);
                for (i, values) in values.chunks_mut(width.max(1)).enumerate() {
                    let mut rng = stream.rng(i as u64);
                    values.iter_mut().for_each(|y| {
                        let noise: f64 = StandardNormal.sample(&mut rng);
                        *y += noise;
                    });
                }
                build(values)
            }
            Self::Logistic => {
                let mut values: Vec<f64> = flatten([&ops::sigmoid(&outputs).map_err(computation)?].into_iter(), 0)?;
                let width = values.len() / n.max(1);
                for (i, values) in values.chunks_mut(width.max(1)).enumerate() {
                    let mut rng = stream.rng(i as u64);
                    values.iter_mut().for_each(|p| *p = f64::from(rng.random::<f64>() < *p));
                }
                build(values)
            }
        }
        .map_err(computation)
    }

    fn check(self, outputs: &Tensor, targets: &Tensor) -> Result<()> {
        let allowed = match self {
            Self::CrossEntropy if outputs.rank() < 2 => {
                return Err(Error::parameter("outputs", format!("shape {:?}", outputs.dims()), "(n, …, classes)"));
            }
            Self::CrossEntropy => &outputs.dims()[..outputs.rank() - 1],
            Self::SquaredError | Self::Logistic => outputs.dims(),
        };
        let wanted = if self == Self::CrossEntropy { DType::U32 } else { outputs.dtype() };
        if outputs.rank() == 0 || targets.dims() != allowed || targets.dtype() != wanted {
            return Err(Error::parameter(
                "targets",
                format!("shape {:?} of {}", targets.dims(), targets.dtype().as_str()),
                format!("shape {allowed:?} of {}, for outputs of shape {:?}", wanted.as_str(), outputs.dims()),
            ));
        }
        Ok(())
    }
}

/// Class numbers by row (…), and 0 where they are ignored and 1 elsewhere, if any is.
fn ids_and_mask(outputs: &Tensor, targets: &Tensor) -> Result<(Tensor, Option<Tensor>)> {
    let flat = targets.flatten_all().map_err(computation)?;
    let ids = flat.to_vec1::<u32>().map_err(computation)?;
    if !ids.contains(&IGNORED) {
        return Ok((flat, None));
    }
    let mask: Vec<f64> = ids.iter().map(|&id| f64::from(id != IGNORED)).collect();
    let ids: Vec<u32> = ids.into_iter().map(|id| if id == IGNORED { 0 } else { id }).collect();
    let n = ids.len();
    let mask =
        Tensor::from_vec(mask, n, &Device::Cpu).and_then(|t| t.to_dtype(outputs.dtype())).map_err(computation)?;
    Ok((Tensor::from_vec(ids, n, &Device::Cpu).map_err(computation)?, Some(mask)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Var;
    use offprint_core::random::Streams;

    fn cases() -> Vec<(Loss, Tensor, Tensor)> {
        let outputs = Tensor::new(&[[0.3, -1.2, 0.7], [2.0, 0.1, -0.4]], &Device::Cpu).unwrap();
        let ids = Tensor::new(&[2u32, 0], &Device::Cpu).unwrap();
        let values = Tensor::new(&[[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]], &Device::Cpu).unwrap();
        vec![
            (Loss::CrossEntropy, outputs.clone(), ids),
            (Loss::SquaredError, outputs.clone(), values.clone()),
            (Loss::Logistic, outputs, values),
        ]
    }

    #[test]
    fn output_derivatives_are_those_of_the_loss() {
        for (loss, outputs, targets) in cases() {
            let flat: Vec<f64> = flatten([&outputs].into_iter(), 6).unwrap();
            let total = |x: &[f64]| -> f64 {
                let y = Tensor::from_slice(x, outputs.shape(), &Device::Cpu).unwrap();
                let losses: Vec<f64> = flatten([&loss.per_sample(&y, &targets).unwrap()].into_iter(), 2).unwrap();
                losses.iter().sum()
            };
            let gradient = |x: &[f64]| -> Vec<f64> {
                let y = Tensor::from_slice(x, outputs.shape(), &Device::Cpu).unwrap();
                flatten([&loss.output_gradient(&y, &targets).unwrap()].into_iter(), 6).unwrap()
            };
            let v = [0.5, -1.0, 0.25, 2.0, 0.1, -0.3];
            let vt = Tensor::from_slice(&v, outputs.shape(), &Device::Cpu).unwrap();
            let product: Vec<f64> =
                flatten([&loss.output_hessian_product(&outputs, &targets, &vt).unwrap()].into_iter(), 6).unwrap();
            let step = |i: usize, h: f64| {
                let mut x = flat.clone();
                x[i] += h;
                x
            };
            let exact = gradient(&flat);
            let along = |h: f64| gradient(&flat.iter().zip(&v).map(|(x, v)| x + h * v).collect::<Vec<_>>());
            let (plus, minus) = (along(1e-5), along(-1e-5));
            for i in 0..6 {
                let difference = (total(&step(i, 1e-5)) - total(&step(i, -1e-5))) / 2e-5;
                assert!((difference - exact[i]).abs() < 1e-9, "{loss:?} gradient {i}");
                let difference = (plus[i] - minus[i]) / 2e-5;
                assert!((difference - product[i]).abs() < 1e-9, "{loss:?} Hessian {i}");
            }
        }
    }

    #[test]
    fn ignored_positions_have_no_loss_and_no_derivative() {
        let outputs = Var::new(&[[[0.3, -1.2], [0.4, 0.7]]], &Device::Cpu).unwrap();
        let with = Tensor::new(&[[1u32, IGNORED]], &Device::Cpu).unwrap();
        let without = Tensor::new(&[[1u32]], &Device::Cpu).unwrap();
        let first = outputs.narrow(1, 0, 1).unwrap();
        let losses = |o: &Tensor, t: &Tensor| Loss::CrossEntropy.per_sample(o, t).unwrap().to_vec1::<f64>().unwrap();
        assert_eq!(losses(&outputs, &with), losses(&first, &without));
        let gradient = Loss::CrossEntropy.output_gradient(&outputs, &with).unwrap().to_vec3::<f64>().unwrap();
        assert_eq!(gradient[0][1], [0.0, 0.0]);
        let drawn = Loss::CrossEntropy.sample(&outputs, &with, Streams::new(0).stream("labels")).unwrap();
        assert_eq!(drawn.to_vec2::<u32>().unwrap()[0][1], IGNORED);
    }

    #[test]
    fn drawn_targets_follow_the_prediction() {
        let n = 4000;
        let row = Tensor::new(&[[0.0, 1.0, 3f64.ln()]], &Device::Cpu).unwrap();
        let outputs = row.broadcast_as((n, 3)).unwrap().contiguous().unwrap();
        let stream = Streams::new(5).stream("labels");
        let ids = Tensor::zeros(n, DType::U32, &Device::Cpu).unwrap();
        let drawn = Loss::CrossEntropy.sample(&outputs, &ids, stream).unwrap().to_vec1::<u32>().unwrap();
        let e = 1f64.exp();
        for (class, p) in [1.0, e, 3.0].map(|w| w / (4.0 + e)).into_iter().enumerate() {
            let share = drawn.iter().filter(|&&id| id == class as u32).count() as f64 / n as f64;
            // Four standard deviations of a share.
            assert!((share - p).abs() < 4.0 * (p * (1.0 - p) / n as f64).sqrt(), "class {class}: {share} for {p}");
        }
        let normal = Loss::SquaredError.sample(&outputs, &outputs, stream).unwrap();
        let noise: Vec<f64> = flatten([&(normal - &outputs).unwrap()].into_iter(), 3 * n).unwrap();
        let variance = noise.iter().map(|z| z * z).sum::<f64>() / noise.len() as f64;
        assert!((variance - 1.0).abs() < 4.0 * (2.0 / noise.len() as f64).sqrt(), "{variance}");
        let coins = Loss::Logistic.sample(&outputs, &outputs, stream).unwrap();
        let share = coins.narrow(1, 2, 1).unwrap().mean_all().unwrap().to_scalar::<f64>().unwrap();
        assert!((share - 0.75).abs() < 0.03, "{share}");
    }

    #[test]
    fn targets_that_do_not_fit_are_named() {
        for (loss, outputs, _) in cases() {
            let error = loss.per_sample(&outputs, &outputs.narrow(0, 0, 1).unwrap()).unwrap_err().to_string();
            assert!(error.starts_with("targets: got shape [1, 3] of f64"), "{error}");
        }
    }
}
