//! The optimiser underneath: the update of every parameter, and its direction.

use candle_core::{DType, Tensor};
use offprint_core::{Error, Result};
use offprint_nn::optim::{Adam, AdamSettings, Optimizer, Sgd, SgdSettings};
use offprint_nn::params::Real;
use offprint_nn::{Params, computation};

/// Which optimiser trains the network, with its settings. A decoupled Adam is AdamW.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Base {
    /// Stochastic gradient descent with momentum.
    Sgd(SgdSettings),
    /// Adam or AdamW.
    Adam(AdamSettings),
}

impl Base {
    /// The optimiser over `params`.
    ///
    /// # Errors
    /// Nesterov's step, whose direction no buffer holds.
    pub fn optimizer(&self, params: &Params) -> Result<Box<dyn Optimizer>> {
        Ok(match *self {
            Self::Sgd(settings) if settings.nesterov => {
                return Err(Error::parameter("nesterov", true, "false under a pruning optimiser"));
            }
            Self::Sgd(settings) => Box::new(Sgd::new(params.vars(), settings).map_err(computation)?),
            Self::Adam(settings) => Box::new(Adam::new(params.vars(), settings).map_err(computation)?),
        })
    }

    /// The direction v of the last step for the tensors called `names`: p ← p − rate · v (AdamW's decay is not part of
    /// it). Zeros for a tensor that is not trained.
    pub fn direction<T: Real>(
        &self,
        optimizer: &dyn Optimizer,
        names: &[String],
        lengths: &[usize],
    ) -> Result<Vec<Vec<T>>> {
        let state = optimizer.state().map_err(computation)?;
        let find = |buffer: &str, name: &str| {
            let wanted = format!("{buffer}.{name}");
            state.iter().find(|(have, _)| *have == wanted).map(|(_, tensor)| elements::<T>(tensor)).transpose()
        };
        let steps = match state.iter().find(|(name, _)| name == "step") {
            Some((_, tensor)) => tensor.to_dtype(DType::F64).and_then(|t| t.to_scalar::<f64>()).map_err(computation)?,
            None => 0.0,
        };
        let of = |(name, &length): (&String, &usize)| -> Result<Vec<T>> {
            let direction = match self {
                Self::Sgd(_) => find("momentum_buffer", name)?,
                Self::Adam(AdamSettings { betas, eps, .. }) => {
                    let (first, second) = (1.0 - betas.0.powf(steps), 1.0 - betas.1.powf(steps));
                    let adapted = |(m, s): (Vec<T>, Vec<T>)| {
                        let one =
                            |(m, s): (T, T)| T::from_f64((m.to_f64() / first) / ((s.to_f64() / second).sqrt() + eps));
                        m.into_iter().zip(s).map(one).collect()
                    };
                    find("exp_avg", name)?.zip(find("exp_avg_sq", name)?).map(adapted)
                }
            };
            Ok(direction.unwrap_or_else(|| vec![T::zero(); length]))
        };
        names.iter().zip(lengths).map(of).collect()
    }
}

/// All elements of a tensor, row by row.
pub fn elements<T: Real>(tensor: &Tensor) -> Result<Vec<T>> {
    tensor.flatten_all().and_then(|t| t.to_dtype(T::DTYPE)?.to_vec1::<T>()).map_err(computation)
}
