//! The gradient-noise scale (McCandlish et al. 2018): the batch size up to which a larger batch pays in steps.

use super::{GradientRows, SampledMatrix, Sampling};
use crate::{Real, vector, wide};
use ndarray::Axis;
use offprint_core::random::Stream;
use offprint_core::{Error, Progress, Result};

/// Samples of which the gradient of any batch can be computed.
pub trait SampledGradients: SampledMatrix {
    /// The mean gradient over the samples with the numbers `batch`, `(P,)`.
    ///
    /// # Errors
    /// No sample, or a number from N on; what the model itself refuses.
    fn gradient(&self, batch: &[u32]) -> Result<Vec<f64>>;
}

impl<T: Real> SampledGradients for GradientRows<'_, T> {
    fn gradient(&self, batch: &[u32]) -> Result<Vec<f64>> {
        super::sampled::check_batch(batch, self.samples())?;
        let numbers: Vec<usize> = batch.iter().map(|&sample| sample as usize).collect();
        let mut mean = vec![0.0; self.dim()];
        let chosen = self.rows().select(Axis(0), &numbers);
        wide::add_transposed_times(&mut mean, chosen.view(), &vec![1.0 / batch.len() as f64; batch.len()]);
        Ok(mean)
    }
}

/// What is known of the noise of gradients.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GradientNoise {
    /// tr Σ, the variance of one sample's gradient summed over coordinates.
    pub variance: f64,
    /// ‖∇L‖².
    pub squared_gradient: f64,
}

impl GradientNoise {
    /// B_simple = tr Σ/‖∇L‖²; infinite at a stationary point.
    pub fn scale(self) -> f64 {
        if self.squared_gradient > 0.0 { self.variance / self.squared_gradient } else { f64::INFINITY }
    }
}

/// tr Σ = 𝔟 E‖g_B − ∇L‖² from `draws` batches of `batch` samples, and ‖∇L‖² from all.
///
/// # Errors
/// No draw; a batch size outside of the samples or of all of them; gradients that fail or are not finite; a stop by
/// `progress`.
pub fn gradient_noise<M: SampledGradients>(
    matrix: &M,
    batch: usize,
    sampling: Sampling,
    draws: usize,
    stream: Stream,
    progress: &Progress,
) -> Result<GradientNoise> {
    let effective = super::noise::noisy(sampling, batch, matrix.samples())?;
    if draws == 0 {
        return Err(Error::parameter("draws", draws, "at least 1"));
    }
    let whole = matrix.gradient(&(0..matrix.samples() as u32).collect::<Vec<_>>())?;
    let mut total = 0.0;
    for draw in 0..draws as u64 {
        let mut difference = matrix.gradient(&sampling.draw(batch, matrix.samples(), stream, draw))?;
        vector::add_scaled(&mut difference, -1.0, &whole);
        total += vector::dot(&difference, &difference);
        progress.check()?;
    }
    let noise =
        GradientNoise { variance: effective * total / draws as f64, squared_gradient: vector::dot(&whole, &whole) };
    if noise.variance.is_finite() && noise.squared_gradient.is_finite() {
        Ok(noise)
    } else {
        Err(Error::Numerical("a gradient is not finite: the loss cannot be differentiated at these weights".into()))
    }
}
