//! How far a fitted plan is from the truth, and how far two samples are from each other.

use super::posterior::Posterior;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, Zip};
use offprint_core::{Error, Result};
use offprint_math::linalg;
use rayon::prelude::*;

/// The energy distance E|X − Y| − ½ E|X − X'| − ½ E|Y − Y'| between the samples `x` (n, d) and `y` (m, d), all pairs
/// counted. Zero for equal samples, never negative. O(d (n + m)²).
///
/// # Errors
/// Different dimensions, or no sample.
pub fn energy_distance(x: ArrayView2<'_, f64>, y: ArrayView2<'_, f64>) -> Result<f64> {
    if x.ncols() != y.ncols() || x.nrows() == 0 || y.nrows() == 0 {
        return Err(Error::input("samples", format!("have shapes {:?} and {:?}", x.shape(), y.shape())));
    }
    Ok(mean_distance(x, y) - 0.5 * mean_distance(x, x) - 0.5 * mean_distance(y, y))
}

/// The mean of |x_i − y_j| over all pairs.
fn mean_distance(x: ArrayView2<'_, f64>, y: ArrayView2<'_, f64>) -> f64 {
    // One contiguous row for each dimension of y, so that the loops over j run in vector registers.
    let columns = y.t().as_standard_layout().into_owned();
    let sums: Vec<f64> = (0..x.nrows())
        .into_par_iter()
        .with_min_len(16)
        .map_init(
            || vec![0.0; y.nrows()],
            |squares, i| {
                squares.fill(0.0);
                for (&x, column) in x.row(i).iter().zip(columns.rows()) {
                    let column = column.to_slice().expect("standard layout");
                    squares.iter_mut().zip(column).for_each(|(s, y)| *s += (x - y) * (x - y));
                }
                squares.iter().map(|s| s.sqrt()).sum::<f64>()
            },
        )
        .collect();
    sums.iter().sum::<f64>() / (x.nrows() as f64 * y.nrows() as f64)
}

/// The squared Bures–Wasserstein distance with the cost's factor ½:
/// ½|m − m'|² + ½ tr C + ½ tr C' − tr (C^½ C' C^½)^½.
pub fn bures_wasserstein(
    (mean, covariance): (ArrayView1<'_, f64>, ArrayView2<'_, f64>),
    (other_mean, other_covariance): (ArrayView1<'_, f64>, ArrayView2<'_, f64>),
) -> Result<f64> {
    let apart = Zip::from(mean).and(other_mean).fold(0.0, |sum, a, b| sum + (a - b) * (a - b));
    // With C = L L', the eigenvalues of L'C'L are those of C^½ C' C^½; a covariance without full rank has no L.
    let root = linalg::cholesky(covariance).or_else(|_| linalg::sqrt_psd(covariance))?;
    let middle = linalg::matmul(linalg::matmul(root.t(), other_covariance).view(), root.view());
    let (values, _) = linalg::eigh(middle.view())?;
    let fidelity: f64 = values.iter().map(|x| x.max(0.0).sqrt()).sum();
    Ok((0.5 * (apart + covariance.diag().sum() + other_covariance.diag().sum()) - fidelity).max(0.0))
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
