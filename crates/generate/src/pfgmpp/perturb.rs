//! Sampling with errors: noise on the state before every step.

use crate::{Hook, Node, Noise};
use ndarray::Array2;
use offprint_core::random::Stream;
use offprint_core::{Error, Result};

/// Adds α σ_i ξ, ξ standard normal, to the points before step i (section 6.3): how much an imperfect sampler, or
/// imperfect hardware, may do wrong.
///
/// For samplers without memory ([`Stepwise`](crate::sample::Stepwise)): a multistep one has asked the model before.
#[derive(Debug, Clone)]
pub struct Perturbed {
    alpha: f64,
    noise: Noise,
}

impl Perturbed {
    /// Errors of size `alpha`. Step i takes the noise of number i of `stream`.
    ///
    /// # Errors
    /// α negative or not finite.
    pub fn new(alpha: f64, stream: Stream) -> Result<Self> {
        if !(alpha >= 0.0 && alpha.is_finite()) {
            return Err(Error::parameter("alpha", alpha, "zero or a positive number"));
        }
        Ok(Self { alpha, noise: Noise::new(stream) })
    }
}

impl Hook for Perturbed {
    fn before(&mut self, step: usize, at: Node, y: &mut Array2<f64>) -> Result<()> {
        if self.alpha > 0.0 {
            self.noise.add(step, self.alpha * at.tau, y);
        }
        Ok(())
    }
}
