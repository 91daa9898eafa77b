//! What weighted simulation leaves: particles, weights and the record of the way.

use super::resample::{Scheme, effective_size};
use ndarray::{Array1, Array2, Axis};
use offprint_core::random::Stream;

/// Weighted particles at the data's end.
#[derive(Debug, Clone)]
pub struct Particles {
    /// The particles y (K, d) at the last noise level.
    pub y: Array2<f64>,
    /// α at the last level: x = α y.
    pub alpha: f64,
    /// Normalised weights (K).
    pub weights: Vec<f64>,
    /// log ∫ p̃ at the last level. Absolute where densities are known; otherwise the models are taken for N(0, τ²) at
    /// the first level. `None` if the weights were not used, or cut.
    pub log_normaliser: Option<f64>,
    /// Effective sample size after each step, before drawing anew.
    pub effective_sizes: Vec<f64>,
    /// Every drawing anew: the step after which it was, and where each particle came from.
    pub resamplings: Vec<(usize, Vec<usize>)>,
    /// The start from which each particle descends (K).
    pub roots: Vec<usize>,
    /// Calls of models, each for all particles.
    pub evaluations: u64,
}

impl Particles {
    /// Σ w h, the estimate of E h.
    pub fn expectation(&self, h: impl Fn(ndarray::ArrayView1<'_, f64>) -> f64) -> f64 {
        self.y.outer_iter().zip(&self.weights).map(|(row, w)| w * h(row)).sum()
    }

    /// The weighted mean (d) and covariance (d, d).
    pub fn moments(&self) -> (Array1<f64>, Array2<f64>) {
        let weights = Array1::from(self.weights.clone());
        let mean = self.y.t().dot(&weights);
        let centred = &self.y - &mean;
        let covariance = centred.t().dot(&(&centred * &weights.insert_axis(Axis(1))));
        (mean, covariance)
    }

    /// Effective sample size of the final weights.
    pub fn effective_size(&self) -> f64 {
        effective_size(&self.weights)
    }

    /// Starts that still have descendants: how many independent draws there can be at most.
    pub fn lineages(&self) -> usize {
        let mut roots = self.roots.clone();
        roots.sort_unstable();
        roots.dedup();
        roots.len()
    }

    /// `count` draws (count, d) without weights.
    pub fn draw(&self, count: usize, stream: Stream) -> Array2<f64> {
        let drawn = Scheme::Systematic.draw(&self.weights, count, &mut stream.rng(0));
        self.y.select(Axis(0), &drawn)
    }
}
