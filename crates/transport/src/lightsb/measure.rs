//! How far a fitted plan is from the truth, and how far two samples are from each other.

use super::posterior::Posterior;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};
use offprint_core::Result;
use offprint_math::linalg;
use offprint_math::samples::{bures_wasserstein_squared, mean_distance};
use rayon::prelude::*;

/// The energy distance E|X − Y| − ½ E|X − X'| − ½ E|Y − Y'| between the samples `x` (n, d) and `y` (m, d), all pairs
/// counted. Zero for equal samples, never negative. O(d (n + m)²).
///
/// # Errors
/// Different dimensions, or no sample.
pub fn energy_distance(x: ArrayView2<'_, f64>, y: ArrayView2<'_, f64>) -> Result<f64> {
    Ok(mean_distance(x, y)? - 0.5 * mean_distance(x, x)? - 0.5 * mean_distance(y, y)?)
}

/// The squared Bures–Wasserstein distance with the cost's factor ½:
/// ½|m − m'|² + ½ tr C + ½ tr C' − tr (C^½ C' C^½)^½.
pub fn bures_wasserstein(
    one: (ArrayView1<'_, f64>, ArrayView2<'_, f64>),
    other: (ArrayView1<'_, f64>, ArrayView2<'_, f64>),
) -> Result<f64> {
    Ok(0.5 * bures_wasserstein_squared(one, other)?)
}

/// Mean (d) and covariance (d, d) of the plan's second marginal over the source points `x` (n, d), without sampling
/// noise beyond that of `x`.
pub fn target_moments(plan: &Posterior<'_>, x: ArrayView2<'_, f64>) -> Result<(Array1<f64>, Array2<f64>)> {
    let parts: Vec<_> = (0..x.nrows()).into_par_iter().map(|i| plan.moments(x.row(i))).collect::<Result<_>>()?;
    let n = parts.len() as f64;
    let mut mean = Array1::zeros(x.ncols());
    parts.iter().for_each(|(m, _)| mean.scaled_add(1.0 / n, m));
    let mut covariance = Array2::zeros((x.ncols(), x.ncols()));
    for (m, c) in &parts {
        covariance.scaled_add(1.0 / n, c);
        let apart = (m - &mean).insert_axis(Axis(1));
        linalg::gemm(1.0 / n, apart.view(), apart.t(), true, covariance.view_mut());
    }
    Ok((mean, covariance))
}

/// Unexplained variance percentages of a plan against the true one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Unexplained {
    /// BW-UVP of the target marginals: 100 BW² / (½ tr of the true covariance). In percent.
    pub marginal: f64,
    /// cBW-UVP: the same between the conditional laws, averaged over the source. In percent.
    pub conditional: f64,
}

/// How much of the target's variance `plan` leaves unexplained beside the `truth`, over source points `x` (n, d); all
/// moments in closed form. The conditional part takes the first `conditionals` points.
pub fn unexplained(
    plan: &Posterior<'_>,
    truth: &Posterior<'_>,
    x: ArrayView2<'_, f64>,
    conditionals: usize,
) -> Result<Unexplained> {
    let (mean, covariance) = target_moments(plan, x)?;
    let (true_mean, true_covariance) = target_moments(truth, x)?;
    let variance = 0.5 * true_covariance.diag().sum();
    let marginal = bures_wasserstein((mean.view(), covariance.view()), (true_mean.view(), true_covariance.view()))?;
    let count = conditionals.min(x.nrows());
    let distances: Vec<f64> = (0..count)
        .into_par_iter()
        .map(|i| {
            let ((m, c), (true_m, true_c)) = (plan.moments(x.row(i))?, truth.moments(x.row(i))?);
            bures_wasserstein((m.view(), c.view()), (true_m.view(), true_c.view()))
        })
        .collect::<Result<_>>()?;
    let conditional = distances.iter().sum::<f64>() / count as f64;
    Ok(Unexplained { marginal: 100.0 * marginal / variance, conditional: 100.0 * conditional / variance })
}
