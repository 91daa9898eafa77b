//! The noise level, from the bins themselves.

use super::bins::{Bins, energy};
use super::design::Design;
use super::settings::{Noise, Settings};
use super::value::Value;
use offprint_math::stats::{mean, quantile};

/// Of the bins, at most this share is taken to be empty when the expected number of coefficients is uncertain.
const SURE_SHARE: f64 = 0.25;

/// The standard deviation σ of the noise on one value: as known, or estimated.
///
/// With K coefficients in B bins a share e^{−K/B} stays empty. Empty bins have the least energy, so the quantile at
/// half that share is about the median of ν²; the mean of the bins that this finds to be empty is then taken. (The
/// authors' code averages sorted energies up to a jump of ten times, which noise near the signal's level does not
/// leave. This estimator is a reconstruction.)
pub fn deviation<T: Value>(design: &Design, bins: &Bins<T>, settings: &Settings) -> f64 {
    // Rounding alone is no less than this.
    let floor = settings.tolerance * bins.largest;
    let estimate = match settings.noise {
        Noise::Known(sigma) => return sigma.max(floor),
        Noise::Estimated => {
            let per_group = design.groups.iter().zip(&bins.groups).map(|(group, u)| {
                let energies: Vec<f64> = u.chunks_exact(group.delays.len()).map(energy).collect();
                let empty = (-(settings.sparsity as f64) / group.bins() as f64).exp();
                let median = quantile(&energies, (empty / 2.0).min(SURE_SHARE));
                let low: Vec<f64> = energies.into_iter().filter(|&e| e <= (1.0 + settings.gamma) * median).collect();
                // ν² = σ²/B.
                mean(&low) * group.bins() as f64
            });
            per_group.sum::<f64>() / design.groups.len() as f64
        }
    };
    estimate.sqrt().max(floor)
}
