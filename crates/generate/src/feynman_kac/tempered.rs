//! Annealing with an exponent that changes on the way: q^{β(u)}.

use super::target::{Flow, Leg, Target};
use super::{Density, Expert, Product, Ramp};
use ndarray::{Array1, ArrayView1, ArrayView2};
use offprint_core::{Error, Result};

/// p̃ = q^{β(u)} with β a function of the fraction u of steps that is done (proposition C.6).
///
/// Beside what a fixed exponent gives, the log-weights grow by Δβ log q: the density must be known, not the score alone.
pub struct Tempered<'a> {
    model: &'a dyn Density,
    beta: Ramp,
    mean: Array1<f64>,
}

impl<'a> Tempered<'a> {
    /// Anneals `model` along `beta`.
    ///
    /// # Errors
    /// A schedule that begins at or below 0: the start law does not exist.
    pub fn new(model: &'a dyn Density, beta: Ramp) -> Result<Self> {
        if beta.at(0.0) <= 0.0 {
            let allowed = "positive at the noise, where the start law would not exist otherwise";
            return Err(Error::parameter("beta", beta.at(0.0), allowed));
        }
        let mean = model.mean();
        Ok(Self { model, beta, mean })
    }

    fn at(&self, u: f64) -> Result<Product<'a>> {
        Product::annealed(Expert::known(self.model, self.beta.at(u))?)
    }
}

impl Target for Tempered<'_> {
    fn dim(&self) -> usize {
        self.model.dim()
    }

    fn exponent(&self) -> f64 {
        self.beta.at(0.0)
    }

    fn centre(&self) -> ArrayView1<'_, f64> {
        self.mean.view()
    }

    fn flow(&self, y: ArrayView2<'_, f64>, leg: Leg) -> Result<Flow> {
        let mut flow = self.at(leg.from)?.flow(y, leg)?;
        let step = self.beta.at(leg.to) - self.beta.at(leg.from);
        if step != 0.0 {
            flow.change = Some(self.model.log_density(y, leg.tau)? * step);
        }
        Ok(flow)
    }

    fn log_density(&self, y: ArrayView2<'_, f64>, tau: f64, fraction: f64) -> Result<Option<Array1<f64>>> {
        self.at(fraction)?.log_density(y, tau, fraction)
    }

    fn models(&self) -> u64 {
        1
    }
}
