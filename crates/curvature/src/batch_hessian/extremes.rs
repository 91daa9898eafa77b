//! The ends of a spectrum, of all data and of batches, from a few dozen products each.

use super::{SampledMatrix, Sampling};
use crate::{Lanczos, LinearOperator, Real, Spectrum, lanczos, lanczos_until, spectrum, vector};
use offprint_core::random::Stream;
use offprint_core::{Progress, Result};
use offprint_math::stats::{mean, standard_deviation};
use rayon::prelude::*;

/// The largest and the smallest eigenvalue of a symmetric matrix, as Lanczos found them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ends {
    /// λ₁, approached from below.
    pub top: f64,
    /// λ_P, approached from above.
    pub bottom: f64,
    /// An eigenvalue lies this close to each of the two.
    pub residual: f64,
}

impl Ends {
    fn of<T: Real>(found: &Lanczos<T>) -> Result<Self> {
        let ritz = found.ritz()?;
        let ((top, above), (bottom, below)) = (ritz.top(), ritz.bottom());
        Ok(Self { top, bottom, residual: above.max(below) })
    }
}

/// The ends of `operator` from `steps` Lanczos steps that start from probe `index` of `stream`.
///
/// # Errors
/// `steps` = 0; products that fail or are not finite; a stop by `progress`.
pub fn ends<T: Real>(
    operator: &impl LinearOperator<T>,
    steps: usize,
    stream: Stream,
    index: u64,
    progress: &Progress,
) -> Result<Ends> {
    let start: Vec<T> = vector::gaussian(stream, index, operator.dim());
    Ends::of(&lanczos(operator, &start, steps, progress)?)
}

/// The ends of `operator` from as many Lanczos steps, at most `most`, as it takes until an eigenvalue lies within
/// `tolerance` times the larger end of each of both.
///
/// # Errors
/// As [`ends`].
pub fn ends_within<T: Real>(
    operator: &impl LinearOperator<T>,
    tolerance: f64,
    most: usize,
    stream: Stream,
    progress: &Progress,
) -> Result<Ends> {
    let start: Vec<T> = vector::gaussian(stream, 0, operator.dim());
    let found = lanczos_until(operator, &start, most, progress, |found| {
        let ends = Ends::of(found)?;
        Ok(ends.residual <= tolerance * ends.top.abs().max(ends.bottom.abs()))
    })?;
    Ends::of(&found)
}

/// What is known of the matrix of all data.
#[derive(Debug, Clone)]
pub struct Whole<T> {
    /// Both ends.
    pub ends: Ends,
    /// The unit eigenvector v₁ of λ₁, `(P,)`.
    pub top_vector: Vec<T>,
    /// Positive eigenvalues from the top down, as far as each has converged to 1 % of itself.
    pub leading: Vec<f64>,
    /// The spectrum by stochastic Lanczos quadrature.
    pub spectrum: Spectrum,
}

/// Ends, top eigenvector and spectrum of `operator`: `steps` products for the first two, `probes` · `steps` more for the
/// spectrum.
///
/// # Errors
/// `steps` or `probes` = 0; products that fail or are not finite; a stop by `progress`.
pub fn whole<T: Real>(
    operator: &impl LinearOperator<T>,
    steps: usize,
    probes: usize,
    stream: Stream,
    progress: &Progress,
) -> Result<Whole<T>> {
    let start: Vec<T> = vector::gaussian(stream, 0, operator.dim());
    let found = lanczos(operator, &start, steps, progress)?;
    let ritz = found.ritz()?;
    let last = ritz.values.len() - 1;
    let ((top, above), (bottom, below)) = (ritz.top(), ritz.bottom());
    let converged = |i: &usize| ritz.values[*i] > 0.0 && ritz.residuals[*i] <= 0.01 * ritz.values[*i];
    let leading = (0..=last).rev().take_while(converged).map(|i| ritz.values[i]).collect();
    Ok(Whole {
        ends: Ends { top, bottom, residual: above.max(below) },
        top_vector: found.vector(&ritz, last),
        leading,
        spectrum: spectrum(operator, probes, steps, stream.nested(1).stream("probes"), progress)?,
    })
}

impl<T> Whole<T> {
    /// The largest eigenvalue that is left when `removed` are taken away from the top: what a preconditioner still
    /// meets that flattens so many. The last converged one where there are fewer.
    pub fn remaining(&self, removed: usize) -> f64 {
        self.leading.get(removed).or(self.leading.last()).copied().unwrap_or(self.ends.top)
    }
}

/// A mean and the standard deviation of what it was taken over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// The standard deviation (n − 1); NaN of one value.
    pub deviation: f64,
    /// The number of values.
    pub count: usize,
}

impl Spread {
    /// Of `values`.
    pub fn of(values: &[f64]) -> Self {
        Self { mean: mean(values), deviation: standard_deviation(values), count: values.len() }
    }

    /// The standard error of the mean; 0 of one value.
    pub fn error(&self) -> f64 {
        if self.count > 1 { self.deviation / (self.count as f64).sqrt() } else { 0.0 }
    }
}

/// The ends of batches of one size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchEnds {
    /// B.
    pub batch: usize,
    /// 𝔟.
    pub effective: f64,
    /// λ₁ over the batches drawn.
    pub top: Spread,
    /// λ_P over the batches drawn.
    pub bottom: Spread,
    /// The largest residual.
    pub residual: f64,
}

/// How batches are looked at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draws {
    /// Batches of each size.
    pub count: usize,
    /// How their samples are drawn.
    pub sampling: Sampling,
    /// Lanczos steps on each.
    pub steps: usize,
}

impl Default for Draws {
    /// Eight batches without replacement, 40 steps each.
    fn default() -> Self {
        Self { count: 8, sampling: Sampling::WithoutReplacement, steps: 40 }
    }
}

/// λ₁ and λ_P of `draws.count` batches of `batch` samples, which are worked on side by side.
///
/// # Errors
/// A batch size outside of the samples; `draws.steps` = 0; products that fail; a stop by `progress`.
pub fn batch_ends<M: SampledMatrix>(
    matrix: &M,
    batch: usize,
    draws: Draws,
    stream: Stream,
    progress: &Progress,
) -> Result<BatchEnds> {
    let effective = draws.sampling.effective_batch(batch, matrix.samples())?;
    let (samples, starts) =
        (stream.nested(batch as u64).stream("samples"), stream.nested(batch as u64).stream("starts"));
    let found = (0..draws.count as u64).into_par_iter().map(|draw| {
        let chosen = draws.sampling.draw(batch, matrix.samples(), samples, draw);
        let found = ends(&matrix.batch(chosen)?, draws.steps, starts, draw, progress)?;
        progress.advance(1)?;
        Ok(found)
    });
    let found: Vec<Ends> = found.collect::<Result<_>>()?;
    let each = |f: fn(&Ends) -> f64| found.iter().map(f).collect::<Vec<_>>();
    Ok(BatchEnds {
        batch,
        effective,
        top: Spread::of(&each(|e| e.top)),
        bottom: Spread::of(&each(|e| e.bottom)),
        residual: found.iter().fold(0.0, |largest, e| largest.max(e.residual)),
    })
}
