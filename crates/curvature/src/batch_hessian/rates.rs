//! Learning rates as a function of the batch size.
//!
//! A gradient step on the quadratic model of a batch is stable only below 2/λ₁′(B). For plain gradient descent λ₁′ is the
//! spike of the batch's Hessian; an adaptive method flattens the spikes and meets the edge of the noise, 2 s/√𝔟.

use super::{Law, Population, Sampling};
use offprint_core::{Error, Result};

/// How a learning rate that works for one batch size is carried over to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scaling {
    /// In proportion to B (Goyal et al. 2017).
    Linear,
    /// In proportion to √B (Krizhevsky 2014; Hoffer et al. 2017).
    SquareRoot,
    /// Not at all.
    Constant,
}

impl Scaling {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Linear, Self::SquareRoot, Self::Constant];

    /// Its name in tables and figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear scaling",
            Self::SquareRoot => "square-root scaling",
            Self::Constant => "constant",
        }
    }

    /// The rate for `batch` samples from the rate `at_base` for `base` samples.
    pub fn rate(self, at_base: f64, base: usize, batch: usize) -> f64 {
        let ratio = batch as f64 / base as f64;
        match self {
            Self::Linear => at_base * ratio,
            Self::SquareRoot => at_base * ratio.sqrt(),
            Self::Constant => at_base,
        }
    }
}

/// Largest stable rates for every batch size, by one law and one variance s².
#[derive(Debug, Clone)]
pub struct LearningRates {
    /// The spectrum of all data.
    pub population: Population,
    /// The law for λ₁′.
    pub law: Law,
    /// s².
    pub variance: f64,
    /// The largest curvature that an adaptive method still meets on all data ([`super::Whole::remaining`]).
    pub remaining: f64,
    /// The number of samples, N.
    pub samples: usize,
    /// How batches are drawn.
    pub sampling: Sampling,
}

impl LearningRates {
    /// The largest stable rate of gradient descent with heavy-ball momentum ρ on batches of `batch` samples:
    /// 2 (1 + ρ)/λ₁′(B). Infinite where nothing curves.
    ///
    /// # Errors
    /// A batch size outside of the samples; `momentum` outside of 0 ≤ ρ < 1.
    pub fn sgd(&self, batch: usize, momentum: f64) -> Result<f64> {
        check_momentum(momentum)?;
        let top = self.population.predict(self.law, self.variance, self.effective(batch)?).top;
        Ok(limit(2.0 * (1.0 + momentum), top))
    }

    /// The largest stable rate of an adaptive method, 2/max(2 s/√𝔟, remaining curvature), in units of its
    /// preconditioner's scale, which cancels in [`Self::adaptive_from`].
    ///
    /// # Errors
    /// A batch size outside of the samples.
    pub fn adaptive(&self, batch: usize) -> Result<f64> {
        let edge = 2.0 * (self.variance.max(0.0) / self.effective(batch)?).sqrt();
        Ok(limit(2.0, edge.max(self.remaining)))
    }

    /// The rate of an adaptive method for `batch` samples from a rate that works for `base`: ∝ √𝔟 until the remaining
    /// curvature takes over.
    ///
    /// # Errors
    /// A batch size outside of the samples.
    pub fn adaptive_from(&self, at_base: f64, base: usize, batch: usize) -> Result<f64> {
        let (here, there) = (self.adaptive(batch)?, self.adaptive(base)?);
        Ok(if there.is_finite() { at_base * (here / there) } else { at_base })
    }

    /// The smallest damping δ of a second-order method with rate α: its step α/δ along flat directions is stable against
    /// the curvature s²/(𝔟 λ₁) that the batch adds, so δ = α s²/(2 𝔟 λ₁), in proportion to α/𝔟.
    ///
    /// # Errors
    /// A batch size outside of the samples.
    pub fn minimal_damping(&self, rate: f64, batch: usize) -> Result<f64> {
        let noise = self.variance.max(0.0) / self.effective(batch)?;
        let top = self.population.top;
        // Below the threshold the spike has drowned and the noise's edge is what a step meets.
        Ok(rate / 2.0 * if top > noise.sqrt() { noise / top } else { 2.0 * noise.sqrt() })
    }

    /// B*, where the rate of gradient descent stops growing with B: 𝔟 = s²/λ₁², where noise adds as much curvature as
    /// there is. Infinite where λ₁ is not positive and samples are drawn with replacement.
    pub fn critical_batch(&self) -> f64 {
        let top = self.population.top.max(0.0);
        self.sampling.batch_of(self.variance.max(0.0) / (top * top), self.samples)
    }

    /// 𝔟 of a batch.
    ///
    /// # Errors
    /// A batch size outside of the samples.
    pub fn effective(&self, batch: usize) -> Result<f64> {
        self.sampling.effective_batch(batch, self.samples)
    }
}

/// `numerator`/`curvature`, and infinity where nothing curves upwards.
fn limit(numerator: f64, curvature: f64) -> f64 {
    if curvature > 0.0 { numerator / curvature } else { f64::INFINITY }
}

pub(super) fn check_momentum(momentum: f64) -> Result<()> {
    if (0.0..1.0).contains(&momentum) {
        Ok(())
    } else {
        Err(Error::parameter("momentum", momentum, "at least 0 and below 1"))
    }
}
