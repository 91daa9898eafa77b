//! How far a sample is from another or from a law, each number with its uncertainty.
//!
//! The distances themselves are those of [`offprint_math::samples`].

use crate::{check, normals};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};
use offprint_core::random::Stream;
use offprint_core::{Error, Result};
pub use offprint_math::samples::{
    bures_wasserstein_squared, energy_distance, kolmogorov_smirnov, mean_distance, mmd_squared, moments,
    sliced_wasserstein, squared_distances, wasserstein,
};
use offprint_math::stats::standard_deviation;
use offprint_transport::exact::exact;
use rand::RngExt;
use rayon::prelude::*;

/// Directions that sliced distances usually take.
pub const DIRECTIONS: usize = 500;

/// Resamplings that intervals usually take.
pub const REPLICATES: usize = 200;

/// `count` unit vectors (count, d), uniform on the sphere; vector i comes from generator i of `stream`.
pub fn directions(count: usize, d: usize, stream: Stream) -> Array2<f64> {
    let mut vectors = normals(count, d, stream, 0);
    for mut vector in vectors.outer_iter_mut() {
        let norm = vector.dot(&vector).sqrt();
        vector /= norm.max(f64::MIN_POSITIVE);
    }
    vectors
}

/// A number and how sure it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The number.
    pub value: f64,
    /// Its standard error.
    pub error: f64,
}

impl Estimate {
    /// The interval of about 95 %: 1.96 standard errors to both sides.
    pub fn interval(&self) -> (f64, f64) {
        (self.value - 1.96 * self.error, self.value + 1.96 * self.error)
    }
}

/// `metric` between `x` (n, d) and `y` (m, d), with the standard error over `replicates` resamplings of both with
/// replacement.
///
/// The interval is centred at the value itself: resampled tables repeat rows, so that distances between them are larger
/// on average, which would shift percentiles. Replicate r comes from generator r of `stream`.
pub fn with_bootstrap(
    x: ArrayView2<'_, f64>,
    y: ArrayView2<'_, f64>,
    replicates: usize,
    stream: Stream,
    metric: impl Fn(ArrayView2<'_, f64>, ArrayView2<'_, f64>) -> Result<f64> + Sync,
) -> Result<Estimate> {
    let value = metric(x, y)?;
    let values: Vec<f64> = (0..replicates)
        .into_par_iter()
        .map(|r| {
            let mut rng = stream.rng(r as u64);
            let mut again = |table: ArrayView2<'_, f64>| {
                let n = table.nrows();
                let rows: Vec<usize> = (0..n).map(|_| rng.random_range(0..n)).collect();
                table.select(Axis(0), &rows)
            };
            let (x, y) = (again(x), again(y));
            metric(x.view(), y.view())
        })
        .collect::<Result<_>>()?;
    Ok(Estimate { value, error: standard_deviation(&values) })
}

/// Largest n m for which [`weighted_wasserstein`] solves the transport problem.
const LARGEST_TRANSPORT: usize = 16_000_000;

/// The exact W₂ between samples `x` (n, d) and `y` (m, d) of any sizes, with weights (n) and (m) that need not sum to 1;
/// `None` weighs all rows alike. By the network simplex method: about (n + m)² ln(n + m) time, O(n m) memory. Two samples
/// of one size without weights are an assignment, which [`wasserstein`] solves.
///
/// # Errors
/// Empty samples or different dimensions, more than 16 million pairs, weights that are negative, not finite, all zero
/// or of another number than the rows.
pub fn weighted_wasserstein(
    (x, a): (ArrayView2<'_, f64>, Option<ArrayView1<'_, f64>>),
    (y, b): (ArrayView2<'_, f64>, Option<ArrayView1<'_, f64>>),
) -> Result<f64> {
    check::rows("x", x)?;
    check::rows("y", y)?;
    check::dimension("y", y, "x", x.ncols())?;
    let pairs = x.nrows().saturating_mul(y.nrows());
    if pairs > LARGEST_TRANSPORT {
        let problem = format!("make {pairs} pairs: an exact distance takes at most {LARGEST_TRANSPORT}");
        return Err(Error::input("samples", problem));
    }
    let masses = |name: &str, n: usize, weights: Option<ArrayView1<'_, f64>>| -> Result<Array1<f64>> {
        let Some(weights) = weights else { return Ok(Array1::from_elem(n, 1.0 / n as f64)) };
        if weights.len() != n {
            return Err(Error::input(name, format!("has {} entries for {n} rows", weights.len())));
        }
        if let Some((i, w)) = weights.iter().enumerate().find(|(_, w)| !(**w >= 0.0 && w.is_finite())) {
            return Err(Error::input(name, format!("entry {i} is {w}: weights are at least 0 and finite")));
        }
        let total = weights.sum();
        if total > 0.0 && total.is_finite() {
            Ok(&weights / total)
        } else {
            Err(Error::input(name, format!("sums to {total}; some weight is needed")))
        }
    };
    let (a, b) = (masses("weights of x", x.nrows(), a)?, masses("weights of y", y.nrows(), b)?);
    Ok(exact(squared_distances(x, y).view(), a.view(), b.view())?.value.max(0.0).sqrt())
}

/// The share of the rows of `x` (n, d) that lie nearest to each of the `centres` (K, d).
pub fn mode_masses(x: ArrayView2<'_, f64>, centres: ArrayView2<'_, f64>) -> Result<Vec<f64>> {
    check::rows("samples", x)?;
    check::dimension("samples", x, "the centres", centres.ncols())?;
    let mut masses = vec![0.0; centres.nrows()];
    for x in x.outer_iter() {
        let distance = |centre: ArrayView1<'_, f64>| (&x - &centre).mapv(|v| v * v).sum();
        let nearest = centres.outer_iter().map(distance).enumerate().min_by(|a, b| a.1.total_cmp(&b.1));
        if let Some((k, _)) = nearest {
            masses[k] += 1.0;
        }
    }
    masses.iter_mut().for_each(|mass| *mass /= x.nrows() as f64);
    Ok(masses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;
    use offprint_core::random::Streams;

    #[test]
    fn the_standard_error_of_a_mean_is_known() {
        let stream = |name: &str| Streams::new(6).stream(name);
        let (x, y) = (normals(400, 1, stream("x"), 0), normals(400, 1, stream("y"), 0));
        let estimate = with_bootstrap(x.view(), y.view(), 400, stream("bootstrap"), |x, y| {
            Ok(x.mean().unwrap_or(0.0) - y.mean().unwrap_or(0.0))
        })
        .unwrap();
        // √(1/400 + 1/400)
        assert!((estimate.error - 0.0707).abs() < 0.01, "{}", estimate.error);
        assert!(estimate.interval().0 < 0.0 && estimate.interval().1 > 0.0);
    }

    #[test]
    fn the_exact_distance_takes_any_sizes_and_weights() {
        let stream = |name: &str| Streams::new(9).stream(name);
        let distance =
            |x: &Array2<f64>, y: &Array2<f64>| weighted_wasserstein((x.view(), None), (y.view(), None)).unwrap();
        // On a line the quantile functions give it, for any sizes.
        let (x, y) = (normals(37, 1, stream("x"), 0), normals(53, 1, stream("y"), 0) * 2.0 + 0.5);
        let on_a_line = sliced_wasserstein(x.view(), y.view(), array![[1.0]].view()).unwrap();
        assert!((distance(&x, &y) - on_a_line).abs() < 1e-9);
        // Equal sizes are an assignment.
        let (x, y) = (normals(40, 3, stream("x"), 0), normals(40, 3, stream("y"), 0) + 0.3);
        assert!((distance(&x, &y) - wasserstein(x.view(), y.view()).unwrap()).abs() < 1e-9);
        // A weight is as many copies of its row; weights need not sum to 1, and rows without weight do not count.
        let copies = x.select(Axis(0), &[0, 1, 1, 2, 2, 2]);
        let weights = array![1.0, 2.0, 3.0, 0.0];
        let weighted = (x.slice(ndarray::s![..4, ..]), Some(weights.view()));
        let one = weighted_wasserstein(weighted, (y.view(), None)).unwrap();
        assert!((one - distance(&copies, &y)).abs() < 1e-9);
        assert!(weighted_wasserstein(weighted, weighted).unwrap() < 1e-9);
        let refused = |weights: Array1<f64>| {
            weighted_wasserstein((x.view(), Some(weights.view())), (y.view(), None)).unwrap_err().to_string()
        };
        assert!(refused(Array1::zeros(40)).contains("some weight is needed"));
        assert!(refused(Array1::ones(39)).contains("39 entries for 40 rows"));
        assert!(refused(Array1::from_elem(40, -1.0)).contains("entry 0 is -1"));
        let far = Array2::zeros((5000, 3));
        assert!(
            weighted_wasserstein((far.view(), None), (far.view(), None)).unwrap_err().to_string().contains("pairs")
        );
    }

    #[test]
    fn directions_are_unit_and_masses_are_shares() {
        let vectors = directions(50, 3, Streams::new(0).stream("d"));
        assert!(vectors.outer_iter().all(|v| (v.dot(&v) - 1.0).abs() < 1e-12));
        let x = array![[0.1], [0.2], [0.9], [-5.0]];
        assert_eq!(mode_masses(x.view(), array![[0.0], [1.0]].view()).unwrap(), [0.75, 0.25]);
        assert!(mode_masses(x.view(), array![[0.0, 1.0]].view()).is_err());
    }
}
