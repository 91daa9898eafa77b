//! The Schrödinger bridge between two Gaussians, in closed form.
//!
//! Between N(m₀, Σ₀) and N(m₁, Σ₁) the plan is Gaussian with the cross-covariance
//! C = ½ (Σ₀^½ (4 Σ₀^½ Σ₁ Σ₀^½ + ε² I)^½ Σ₀^-½ − ε I), C = E[(x − m₀)(y − m₁)'] (A. Mallasto et al., arXiv 2006.03416;
//! H. Janati et al., NeurIPS 2020; for ε → 0 it is Monge's map).

use ndarray::{Array1, Array2, ArrayView1, ArrayView2};
use offprint_core::{Error, Result};
use offprint_math::linalg;

/// The conditional law of the plan: y | x ~ N(offset + gain x, covariance).
#[derive(Debug, Clone)]
pub struct GaussianPlan {
    /// C'Σ₀⁻¹ (d, d).
    pub gain: Array2<f64>,
    /// m₁ − gain m₀ (d).
    pub offset: Array1<f64>,
    /// Σ₁ − C'Σ₀⁻¹C (d, d).
    pub covariance: Array2<f64>,
}

/// The plan between N(`mean0`, `covariance0`) and N(`mean1`, `covariance1`) with regularisation `epsilon`.
///
/// # Errors
/// ε < 0, shapes that do not fit, a source covariance that is not positive definite.
pub fn gaussian_plan(
    mean0: ArrayView1<'_, f64>,
    covariance0: ArrayView2<'_, f64>,
    mean1: ArrayView1<'_, f64>,
    covariance1: ArrayView2<'_, f64>,
    epsilon: f64,
) -> Result<GaussianPlan> {
    let d = mean0.len();
    if !(epsilon >= 0.0 && epsilon.is_finite()) {
        return Err(Error::parameter("epsilon", epsilon, "at least 0 and finite"));
    }
    if mean1.len() != d || covariance0.dim() != (d, d) || covariance1.dim() != (d, d) {
        return Err(Error::input("covariance", format!("shapes do not fit the dimension {d} of the source mean")));
    }
    linalg::cholesky(covariance0)?;
    let root = linalg::sqrt_psd(covariance0)?;
    let inverse_root = linalg::inverse(root.view())?;
    let product = |a: &Array2<f64>, b: &Array2<f64>| linalg::matmul(a.view(), b.view());
    let middle = product(&product(&root, &covariance1.to_owned()), &root);
    let middle = linalg::map_spectrum(middle.view(), |s| (4.0 * s.max(0.0) + epsilon * epsilon).sqrt())?;
    let mut cross = product(&product(&root, &middle), &inverse_root) * 0.5;
    cross.diag_mut().mapv_inplace(|c| c - 0.5 * epsilon);
    let precision = linalg::inverse(covariance0)?;
    let gain = linalg::matmul(cross.t(), precision.view());
    let offset = &mean1 - &gain.dot(&mean0);
    let covariance = &covariance1 - &product(&gain, &cross);
    Ok(GaussianPlan { gain, offset, covariance })
}
