//! The built-in model: a mixture in many dimensions with guidance, exact, on which few steps are as hard as on images.

use crate::exact::{ExactMixture, Mixture};
use crate::{Guidance, normals};
use ndarray::Array1;
use offprint_core::Result;
use offprint_core::random::Stream;

/// Components of the mixture.
const COMPONENTS: usize = 10;
/// Components that meet the condition.
const CONDITION: [usize; 3] = [0, 1, 2];
/// Variance of each component.
const VARIANCE: f64 = 0.05;

/// Ten round components with standard normal centres in `d` dimensions, and the first three of them as the condition.
#[derive(Debug, Clone)]
pub struct Example {
    unconditional: ExactMixture,
    conditional: ExactMixture,
}

impl Example {
    /// Centres drawn from `stream`.
    pub fn new(d: usize, stream: Stream) -> Result<Self> {
        let weights = Array1::from_elem(COMPONENTS, 1.0 / COMPONENTS as f64);
        let variances = Array1::from_elem(COMPONENTS, VARIANCE);
        let mixture = Mixture::round(weights, normals(COMPONENTS, d, stream, 0), variances.view())?;
        let conditional = ExactMixture::new(mixture.select(&CONDITION)?)?;
        Ok(Self { unconditional: ExactMixture::new(mixture)?, conditional })
    }

    /// The whole mixture, and the part that meets the condition.
    pub fn into_parts(self) -> (ExactMixture, ExactMixture) {
        (self.unconditional, self.conditional)
    }

    /// The model with guidance `w` towards the condition.
    pub fn guided(&self, w: f64) -> Result<Guidance<&ExactMixture, &ExactMixture>> {
        Guidance::new(&self.unconditional, &self.conditional, w)
    }
}
