//! How far a posterior over the data is from knowing nothing: the phases that the alignment r = σ√D keeps in step.

use crate::exact::ExactEmpirical;
use ndarray::ArrayView2;
use offprint_core::Result;

/// The total variation distance between the posterior over the data behind a point and the uniform law, ½ Σ_i |w_i − 1/N|,
/// averaged over the points `y` (n, d) at noise level `sigma`.
///
/// 0 where the noise hides all, 1 − 1/N where it hides nothing: the phases of section 4.
pub fn distance_to_uniform(model: &ExactEmpirical, y: ArrayView2<'_, f64>, sigma: f64) -> Result<f64> {
    let weights = model.posterior(y, sigma)?;
    let uniform = 1.0 / weights.ncols() as f64;
    let total: f64 = weights.iter().map(|w| (w - uniform).abs()).sum();
    Ok(0.5 * total / weights.nrows() as f64)
}
