//! How large the noise of a batch's matrix is: three estimates of s² that agree only where the noise is isotropic.
//!
//! In the random-matrix model the noise H_B − H has independent entries of variance σ_ε²/𝔟, and s² = P σ_ε². Then all
//! three of the following are s². In a real network most of the noise lives in the few directions in which the loss
//! curves, and they differ by orders of magnitude.

use super::{SampledMatrix, Sampling};
use crate::operator::{check_length, product};
use crate::vector::{add_scaled, dot, norm, scale};
use crate::{Real, vector};
use offprint_core::random::Stream;
use offprint_core::{Error, Progress, Result};
use rayon::prelude::*;

/// Three estimates of the variance s².
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Noise {
    /// s²_iso = 𝔟 E‖(H_B − H) z‖² for random unit z, which is 𝔟 E‖H_B − H‖_F²/P.
    pub isotropic: f64,
    /// s²_dir = 𝔟 E‖(H_B − H) v₁‖² for the top eigenvector v₁ of H.
    pub directional: f64,
    /// s²_eff = (E λ₁(B₀) − λ₁) 𝔟₀ λ₁ from batches of one size B₀; it can be negative by chance.
    pub effective: f64,
}

/// s²_iso from `draws` batches of `batch` samples and `probes` random directions. Without knowing H: the variance of H_B z
/// over the batches, with their own mean in H's place and n − 1 in the denominator.
///
/// # Errors
/// Fewer than two batches or no probe; a batch of all samples, which has no noise; products that fail; a stop by
/// `progress`.
pub fn isotropic<M: SampledMatrix>(
    matrix: &M,
    batch: usize,
    sampling: Sampling,
    draws: usize,
    probes: usize,
    stream: Stream,
    progress: &Progress,
) -> Result<f64> {
    let effective = noisy(sampling, batch, matrix.samples())?;
    if draws < 2 || probes == 0 {
        let (field, given, allowed) =
            if draws < 2 { ("draws", draws, "at least 2") } else { ("probes", probes, "at least 1") };
        return Err(Error::parameter(field, given, allowed));
    }
    let (samples, directions) = (stream.nested(0).stream("samples"), stream.nested(0).stream("directions"));
    let operators: Vec<_> = (0..draws as u64)
        .map(|draw| matrix.batch(sampling.draw(batch, matrix.samples(), samples, draw)))
        .collect::<Result<_>>()?;
    let mut total = 0.0;
    for probe in 0..probes as u64 {
        let mut z: Vec<M::Element> = vector::gaussian(directions, probe, matrix.dim());
        let length = norm(&z);
        scale(&mut z, 1.0 / length);
        let images = operators.iter().map(|operator| product(operator, &z)).collect::<Result<Vec<_>>>()?;
        let mut mean = vec![M::Element::default(); matrix.dim()];
        images.iter().for_each(|image| add_scaled(&mut mean, 1.0 / draws as f64, image));
        total += images.iter().map(|image| squared_distance(image, &mean)).sum::<f64>() / (draws - 1) as f64;
        progress.check()?;
    }
    Ok(effective * total / probes as f64)
}

/// s²_dir = 𝔟 E‖(H_B − H) v‖² along the unit vector `direction` v, from `draws` batches of `batch` samples.
///
/// # Errors
/// No batch; a batch of all samples, which has no noise; a direction of another length; products that fail; a stop by
/// `progress`.
pub fn directional<M: SampledMatrix>(
    matrix: &M,
    direction: &[M::Element],
    batch: usize,
    sampling: Sampling,
    draws: usize,
    stream: Stream,
    progress: &Progress,
) -> Result<f64> {
    let effective = noisy(sampling, batch, matrix.samples())?;
    check_length("direction", direction.len(), matrix.dim())?;
    if draws == 0 {
        return Err(Error::parameter("draws", draws, "at least 1"));
    }
    let samples = stream.nested(1).stream("samples");
    let whole = product(&matrix.whole()?, direction)?;
    let squares = (0..draws as u64).into_par_iter().map(|draw| {
        let chosen = sampling.draw(batch, matrix.samples(), samples, draw);
        let image = product(&matrix.batch(chosen)?, direction)?;
        progress.check()?;
        Ok(squared_distance(&image, &whole))
    });
    // Collected first, so that the sum is in the order of the draws.
    let squares: Vec<f64> = squares.collect::<Result<_>>()?;
    Ok(effective * squares.iter().sum::<f64>() / draws as f64)
}

/// s²_eff: the variance with which the additive law gives `at_batch` = λ₁(B₀) for batches of effective size `effective`
/// of a matrix whose largest eigenvalue is `top`.
pub fn effective(at_batch: f64, top: f64, effective: f64) -> f64 {
    (at_batch - top) * effective * top
}

/// λ₁ of all data from λ₁(B) of batches: the inverse of λ + `variance`/(`effective` λ), on its branch above the
/// threshold; the threshold itself where `at_batch` lies below the noise's edge.
pub fn without_noise(at_batch: f64, variance: f64, effective: f64) -> f64 {
    let noise = variance / effective;
    (at_batch + (at_batch * at_batch - 4.0 * noise).max(0.0).sqrt()) / 2.0
}

/// 𝔟 of a batch that has noise.
pub(super) fn noisy(sampling: Sampling, batch: usize, total: usize) -> Result<f64> {
    let effective = sampling.effective_batch(batch, total)?;
    if effective.is_finite() {
        Ok(effective)
    } else {
        Err(Error::parameter("batch_size", batch, format!("below the {total} samples: all of them have no noise")))
    }
}

fn squared_distance<T: Real>(a: &[T], b: &[T]) -> f64 {
    let mut difference = a.to_vec();
    add_scaled(&mut difference, -1.0, b);
    dot(&difference, &difference)
}
