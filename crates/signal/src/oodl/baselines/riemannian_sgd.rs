//! Stochastic gradient descent on the orthogonal group, by projection.

use crate::oodl::Learner;
use crate::oodl::frank_wolfe::check_batch;
use crate::oodl::objective::{Codes, accumulate_gradient};
use ndarray::{Array2, ArrayView2};
use offprint_core::Result;
use offprint_math::polar::Polar;

/// D ← Polar(D − η_t ∇f(D; y_t)) with η_t = η/√t: online and orthogonal, but every step trusts its batch alone.
#[derive(Debug, Clone)]
pub struct RiemannianSgd {
    dictionary: Array2<f64>,
    rate: f64,
    steps: u64,
    polar: Polar,
    moved: Array2<f64>,
    codes: Codes,
}

impl RiemannianSgd {
    /// From `start` (N, N), with η = `rate` for samples of variance about 1; 0.2 to 0.5 is a good start.
    pub fn new(start: Array2<f64>, rate: f64) -> Self {
        let n = start.nrows();
        Self { moved: start.clone(), dictionary: start, rate, steps: 0, polar: Polar::new(n), codes: Codes::default() }
    }
}

impl Learner for RiemannianSgd {
    fn learn(&mut self, samples: ArrayView2<'_, f64>) -> Result<()> {
        check_batch(samples, self.dictionary.nrows())?;
        if samples.nrows() == 0 {
            return Ok(());
        }
        self.steps += 1;
        let weight = -self.rate / (self.steps as f64).sqrt() / samples.nrows() as f64;
        self.moved.assign(&self.dictionary);
        accumulate_gradient(self.dictionary.view(), samples, weight, self.moved.view_mut(), &mut self.codes);
        self.polar.factor(self.moved.view(), self.dictionary.view_mut())
    }

    fn dictionary(&mut self) -> Result<Array2<f64>> {
        Ok(self.dictionary.clone())
    }

    fn carried(&self) -> usize {
        self.dictionary.len()
    }
}
