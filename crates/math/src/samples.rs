//! Distances between samples: rows of (n, d) and (m, d) tables.
//!
//! All of them refuse tables without rows or with different numbers of columns, and none draws random numbers: sliced
//! distances take their directions.

use crate::{assignment, linalg};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, Zip};
use offprint_core::{Error, Result};
use rayon::prelude::*;

fn check(x: ArrayView2<'_, f64>, y: ArrayView2<'_, f64>) -> Result<()> {
    if x.ncols() != y.ncols() || x.nrows() == 0 || y.nrows() == 0 {
        return Err(Error::input("samples", format!("have shapes {:?} and {:?}", x.shape(), y.shape())));
    }
    Ok(())
}

/// The sum over all pairs of `f(|x_i − y_j|²)`. O(d n m).
fn sum_over_pairs(x: ArrayView2<'_, f64>, y: ArrayView2<'_, f64>, f: impl Fn(f64) -> f64 + Sync) -> f64 {
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
                squares.iter().map(|&s| f(s)).sum::<f64>()
            },
        )
        .collect();
    sums.iter().sum()
}

/// The mean of |x_i − y_j| over all pairs. O(d n m).
///
/// # Errors
/// As all of this module.
pub fn mean_distance(x: ArrayView2<'_, f64>, y: ArrayView2<'_, f64>) -> Result<f64> {
    check(x, y)?;
    Ok(sum_over_pairs(x, y, f64::sqrt) / (x.nrows() as f64 * y.nrows() as f64))
}

/// The energy distance 2E|X − Y| − E|X − X'| − E|Y − Y'| without bias: a point is not paired with itself, so that it is
/// 0 on average for samples of one law, and negative about half of the time. O(d (n + m)²).
///
/// # Errors
/// Fewer than two rows too.
pub fn energy_distance(x: ArrayView2<'_, f64>, y: ArrayView2<'_, f64>) -> Result<f64> {
    let (n, m) = (x.nrows() as f64, y.nrows() as f64);
    if n < 2.0 || m < 2.0 {
        return Err(Error::input("samples", "have fewer than two rows"));
    }
    let own = |mean: f64, n: f64| mean * n / (n - 1.0);
    Ok(2.0 * mean_distance(x, y)? - own(mean_distance(x, x)?, n) - own(mean_distance(y, y)?, m))
}

/// The squared maximum mean discrepancy, all pairs counted, under the sum of five Gaussian kernels
/// exp(−r²/(h 2^i)), i = −2 … 2, with h the mean of r² over the pairs of different points of both samples.
pub fn mmd_squared(x: ArrayView2<'_, f64>, y: ArrayView2<'_, f64>) -> Result<f64> {
    check(x, y)?;
    let (n, m) = (x.nrows() as f64, y.nrows() as f64);
    let square = |s: f64| s;
    let total = sum_over_pairs(x, x, square) + sum_over_pairs(y, y, square) + 2.0 * sum_over_pairs(x, y, square);
    let bandwidth = total / ((n + m) * (n + m - 1.0));
    if bandwidth == 0.0 {
        return Ok(0.0);
    }
    let kernel = |s: f64| (-2..=2).map(|i| (-s / (bandwidth * 2f64.powi(i))).exp()).sum::<f64>();
    let mean = |a: ArrayView2<'_, f64>, b: ArrayView2<'_, f64>| {
        sum_over_pairs(a, b, kernel) / (a.nrows() as f64 * b.nrows() as f64)
    };
    Ok(mean(x, x) + mean(y, y) - 2.0 * mean(x, y))
}

/// The 2-Wasserstein distance W₂ between the samples, averaged (in squares) over projections on the unit vectors
/// `directions` (L, d): √(mean of W₂² over L). Exact in each, for samples of any sizes. O(L (n + m)(d + log(n + m))).
pub fn sliced_wasserstein(
    x: ArrayView2<'_, f64>,
    y: ArrayView2<'_, f64>,
    directions: ArrayView2<'_, f64>,
) -> Result<f64> {
    check(x, y)?;
    check(x, directions)?;
    let squares: Vec<f64> = directions
        .axis_iter(Axis(0))
        .into_par_iter()
        .map(|direction| {
            let project = |points: ArrayView2<'_, f64>| {
                let mut values = points.dot(&direction).to_vec();
                values.sort_unstable_by(f64::total_cmp);
                values
            };
            wasserstein_sorted(&project(x), &project(y))
        })
        .collect();
    Ok((squares.iter().sum::<f64>() / squares.len() as f64).sqrt())
}

/// W₂² between two samples of numbers, both in ascending order: the integral of the squared difference of their
/// quantile functions. O(n + m).
pub fn wasserstein_sorted(x: &[f64], y: &[f64]) -> f64 {
    let (n, m) = (x.len() as u64, y.len() as u64);
    let (mut i, mut j, mut reached, mut sum) = (0u64, 0u64, 0u64, 0.0);
    // Probabilities in units of 1/(n m), so that steps of both quantile functions fall on whole numbers.
    while i < n && j < m {
        let end = ((i + 1) * m).min((j + 1) * n);
        sum += (end - reached) as f64 * (x[i as usize] - y[j as usize]).powi(2);
        reached = end;
        i += u64::from(end == (i + 1) * m);
        j += u64::from(end == (j + 1) * n);
    }
    sum / (n as f64 * m as f64)
}

/// Largest sample for which [`wasserstein`] solves the assignment problem.
const LARGEST_ASSIGNMENT: usize = 4000;

/// The exact W₂ between two samples of one size n ≤ 4000, by assignment. O(n³) time, O(n²) memory.
///
/// # Errors
/// Different or larger sizes too.
pub fn wasserstein(x: ArrayView2<'_, f64>, y: ArrayView2<'_, f64>) -> Result<f64> {
    check(x, y)?;
    let n = x.nrows();
    if y.nrows() != n || n > LARGEST_ASSIGNMENT {
        let problem =
            format!("have {n} and {} rows: an assignment needs equal numbers up to {LARGEST_ASSIGNMENT}", y.nrows());
        return Err(Error::input("samples", problem));
    }
    let cost = squared_distances(x, y);
    let total: f64 = assignment::minimize(cost.view()).into_iter().enumerate().map(|(i, j)| cost[[i, j]]).sum();
    Ok((total / n as f64).sqrt())
}

/// |x_i − y_j|² for all pairs (n, m). O(d n m).
pub fn squared_distances(x: ArrayView2<'_, f64>, y: ArrayView2<'_, f64>) -> Array2<f64> {
    let mut cost = Array2::zeros((x.nrows(), y.nrows()));
    cost.axis_iter_mut(Axis(0)).into_par_iter().zip(x.axis_iter(Axis(0))).for_each(|(mut row, x)| {
        Zip::from(&mut row).and(y.rows()).for_each(|c, y| {
            *c = Zip::from(x).and(y).fold(0.0, |sum, a, b| sum + (a - b) * (a - b));
        });
    });
    cost
}

/// The mean (d) and the covariance (d, d), divided by n, of the rows of `x`.
pub fn moments(x: ArrayView2<'_, f64>) -> (Array1<f64>, Array2<f64>) {
    let n = x.nrows().max(1) as f64;
    let mean = x.sum_axis(Axis(0)) / n;
    let centred = &x - &mean;
    let mut covariance = Array2::zeros((x.ncols(), x.ncols()));
    linalg::gemm(1.0 / n, centred.t(), centred.view(), false, covariance.view_mut());
    (mean, covariance)
}

/// The squared Bures–Wasserstein distance, W₂² between Gaussians of these moments:
/// |m − m'|² + tr C + tr C' − 2 tr (C^½ C' C^½)^½. O(d³).
pub fn bures_wasserstein_squared(
    (mean, covariance): (ArrayView1<'_, f64>, ArrayView2<'_, f64>),
    (other_mean, other_covariance): (ArrayView1<'_, f64>, ArrayView2<'_, f64>),
) -> Result<f64> {
    let apart = Zip::from(mean).and(other_mean).fold(0.0, |sum, a, b| sum + (a - b) * (a - b));
    // With C = L L', the eigenvalues of L'C'L are those of C^½ C' C^½; a covariance without full rank has no L.
    let root = linalg::cholesky(covariance).or_else(|_| linalg::sqrt_psd(covariance))?;
    let middle = linalg::matmul(linalg::matmul(root.t(), other_covariance).view(), root.view());
    let (values, _) = linalg::eigh(middle.view())?;
    let fidelity: f64 = values.iter().map(|x| x.max(0.0).sqrt()).sum();
    Ok((apart + covariance.diag().sum() + other_covariance.diag().sum() - 2.0 * fidelity).max(0.0))
}

/// The Kolmogorov–Smirnov distance between a sample of numbers and the law with distribution function `cdf`:
/// the largest difference of their distribution functions. O(n log n).
pub fn kolmogorov_smirnov(sample: &[f64], cdf: impl Fn(f64) -> f64) -> f64 {
    let mut sorted = sample.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let n = sorted.len() as f64;
    let gap = |(i, &x): (usize, &f64)| {
        let law = cdf(x);
        (law - i as f64 / n).abs().max((law - (i + 1) as f64 / n).abs())
    };
    sorted.iter().enumerate().map(gap).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;
    use proptest::prelude::*;

    fn table(n: usize, d: usize) -> impl Strategy<Value = Array2<f64>> {
        prop::collection::vec(-3.0..3.0f64, n * d).prop_map(move |v| Array2::from_shape_vec((n, d), v).unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn sorted_quantiles_agree_with_repeated_points(x in prop::collection::vec(-3.0..3.0f64, 1..7), y in prop::collection::vec(-3.0..3.0f64, 1..7)) {
            // Both repeated to the product of the sizes: then equal sizes, pair by pair.
            let repeated = |v: &[f64], times: usize| {
                let mut all: Vec<f64> = v.iter().flat_map(|&a| std::iter::repeat_n(a, times)).collect();
                all.sort_by(f64::total_cmp);
                all
            };
            let (long_x, long_y) = (repeated(&x, y.len()), repeated(&y, x.len()));
            let exact = long_x.iter().zip(&long_y).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / long_x.len() as f64;
            let (mut x, mut y) = (x, y);
            x.sort_by(f64::total_cmp);
            y.sort_by(f64::total_cmp);
            prop_assert!((wasserstein_sorted(&x, &y) - exact).abs() < 1e-12);
        }

        #[test]
        fn distances_are_zero_on_themselves_and_grow_by_a_shift(x in table(9, 2), shift in 0.5..3.0f64) {
            let moved = &x + &array![shift, 0.0];
            let directions = array![[1.0, 0.0], [0.0, 1.0]];
            prop_assert!((wasserstein(x.view(), moved.view()).unwrap() - shift).abs() < 1e-9);
            let sliced = sliced_wasserstein(x.view(), moved.view(), directions.view()).unwrap();
            prop_assert!((sliced - shift / 2f64.sqrt()).abs() < 1e-9);
            prop_assert!(mmd_squared(x.view(), x.view()).unwrap().abs() < 1e-12);
            let (mean, covariance) = moments(x.view());
            let (far, _) = moments(moved.view());
            let bures = bures_wasserstein_squared((mean.view(), covariance.view()), (far.view(), covariance.view())).unwrap();
            prop_assert!((bures - shift * shift).abs() < 1e-6);
        }
    }

    #[test]
    fn small_cases_are_those_of_their_definitions() {
        let (x, y) = (array![[0.0], [2.0]], array![[1.0], [4.0]]);
        // 2·(1 + 4 + 1 + 2)/4 − 2 − 3
        assert!((energy_distance(x.view(), y.view()).unwrap() + 1.0).abs() < 1e-12);
        assert!((kolmogorov_smirnov(&[0.25, 0.5], |x| x) - 0.5).abs() < 1e-15);
        // Commuting covariances: Σ(√a − √b)².
        let zero = array![0.0, 0.0];
        let (a, b) = (array![[4.0, 0.0], [0.0, 1.0]], array![[1.0, 0.0], [0.0, 9.0]]);
        let squared = bures_wasserstein_squared((zero.view(), a.view()), (zero.view(), b.view())).unwrap();
        assert!((squared - 5.0).abs() < 1e-10);
        // numpy: h = mean squared distance of the six pairs of {0, 2, 1, 4}, five kernels.
        let h: f64 = (4.0 + 1.0 + 16.0 + 1.0 + 4.0 + 9.0) / 6.0;
        let k = |s: f64| (-2..=2).map(|i| (-s / (h * 2f64.powi(i))).exp()).sum::<f64>();
        let expected = (5.0 + k(4.0)) / 2.0 + (5.0 + k(9.0)) / 2.0 - (k(1.0) + k(16.0) + k(1.0) + k(4.0)) / 2.0;
        assert!((mmd_squared(x.view(), y.view()).unwrap() - expected).abs() < 1e-12);
    }

    #[test]
    fn shapes_are_named() {
        let (x, y) = (Array2::zeros((3, 2)), Array2::zeros((4, 2)));
        assert!(wasserstein(x.view(), y.view()).unwrap_err().to_string().contains("3 and 4 rows"));
        let error = mean_distance(x.view(), Array2::zeros((4, 3)).view()).unwrap_err().to_string();
        assert!(error.contains("[3, 2]") && error.contains("[4, 3]"), "{error}");
        assert!(mean_distance(x.view(), Array2::zeros((0, 2)).view()).is_err());
    }
}
