//! The step of a DDPM whose network also gives the variance (Nichol and Dhariwal 2021, arXiv:2102.09672).

use crate::{Node, Noise};
use ndarray::{Array2, ArrayView2, Zip};
use offprint_core::{Error, Result};

/// One ancestral step with log variance f ln β + (1 − f) ln β̃, for a share f (n, d) that the network gives for each
/// coordinate: β is the variance of the noise that the step removes, β̃ that of the posterior given x₀.
///
/// `denoised` is D (n, d) at `from`; the result is y at `to`, whose noise is that of `step`. To τ = 0 it is D.
pub fn learned_variance_step(
    y: ArrayView2<'_, f64>,
    denoised: ArrayView2<'_, f64>,
    share: ArrayView2<'_, f64>,
    (from, to): (Node, Node),
    (step, noise): (usize, &Noise),
) -> Result<Array2<f64>> {
    if denoised.dim() != y.dim() || share.dim() != y.dim() {
        let problem = format!("has shape {:?} for points of shape {:?}", share.shape(), y.shape());
        return Err(Error::input("share", problem));
    }
    if to.tau == 0.0 {
        return Ok(denoised.to_owned());
    }
    let keep = (to.tau / from.tau).powi(2);
    // Both in units of y' = x'/α': β = 1 − α²/α'² for a path that preserves variance, β̃ = β σ'²/σ².
    let removed = from.tau * from.tau - to.tau * to.tau;
    let largest = (from.alpha / to.alpha).powi(2) * removed;
    let smallest = to.tau * to.tau * removed / (from.tau * from.tau);
    let mut fresh = Array2::zeros(y.dim());
    noise.add(step, 1.0, &mut fresh);
    let (ln_largest, ln_smallest) = (largest.ln(), smallest.ln());
    Zip::from(&mut fresh).and(y).and(denoised).and(share).for_each(|z, &y, &d, &f| {
        let deviation = (0.5 * (f * ln_largest + (1.0 - f) * ln_smallest)).exp();
        *z = keep * y + (1.0 - keep) * d + deviation * *z;
    });
    Ok(fresh)
}
