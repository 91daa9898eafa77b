//! The running mean of a model's weights.

use crate::checkpoint::Checkpoint;
use crate::error::computation;
use crate::params::Params;
use candle_core::Tensor;
use offprint_core::{Error, Result};

/// θ̄ ← decay θ̄ + (1 − decay) θ after every step, over parameters and buffers.
#[derive(Debug, Clone)]
pub struct Ema {
    decay: f64,
    weights: Vec<(String, Tensor)>,
}

impl Ema {
    /// Starts at the present weights; `decay` in [0, 1).
    pub fn new(params: &Params, decay: f64) -> Result<Self> {
        if !(0.0..1.0).contains(&decay) {
            return Err(Error::parameter("ema", decay, "at least 0 and below 1"));
        }
        Ok(Self { decay, weights: params.snapshot()? })
    }

    /// Takes in the present weights.
    pub fn update(&mut self, params: &Params) -> Result<()> {
        for ((_, mean), param) in self.weights.iter_mut().zip(params.trained().iter().chain(params.buffers())) {
            let now = param.var.as_detached_tensor();
            *mean = mean
                .affine(self.decay, 0.0)
                .and_then(|m| m + now.affine(1.0 - self.decay, 0.0)?)
                .map_err(computation)?;
        }
        Ok(())
    }

    /// The mean weights by name.
    pub fn weights(&self) -> &[(String, Tensor)] {
        &self.weights
    }

    /// Puts the mean weights into the model and keeps the present ones; a second call swaps them back.
    pub fn swap(&mut self, params: &Params) -> Result<()> {
        let present = params.snapshot()?;
        for (param, (_, mean)) in params.trained().iter().chain(params.buffers()).zip(&self.weights) {
            param.var.set(mean).map_err(computation)?;
        }
        self.weights = present;
        Ok(())
    }

    pub(super) fn restore(&mut self, checkpoint: &Checkpoint, prefix: &str) -> Result<()> {
        for (name, mean) in &mut self.weights {
            *mean = checkpoint.shaped(&format!("{prefix}{name}"), mean.dims(), mean.dtype())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::{Init, Weights};
    use candle_core::DType;

    #[test]
    fn the_mean_follows_its_recursion_and_swaps_in_and_out() {
        let weights = Weights::fresh(0, DType::F64).unwrap();
        weights.param("a", &[1], Init::Constant(0.0)).unwrap();
        let params = weights.finish(&[]).unwrap();
        let mut ema = Ema::new(&params, 0.75).unwrap();
        for step in 1..=3 {
            params.set_flat(&[f64::from(step)]).unwrap();
            ema.update(&params).unwrap();
        }
        // 0 → 0.25 → 0.6875 → 1.265625
        ema.swap(&params).unwrap();
        assert_eq!(params.flat::<f64>().unwrap(), [1.265625]);
        ema.swap(&params).unwrap();
        assert_eq!(params.flat::<f64>().unwrap(), [3.0]);
        assert!(Ema::new(&params, 1.0).unwrap_err().to_string().starts_with("ema"));
    }
}
