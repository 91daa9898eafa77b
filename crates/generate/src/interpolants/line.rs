//! Mixtures on a line: distribution functions, quantiles, local maxima.

use super::ExactFields;
use crate::exact::Mixture;
use ndarray::Array2;
use offprint_core::{Error, Result};
use std::f64::consts::SQRT_2;

/// The distribution function of a mixture on a line at `x`.
///
/// # Panics
/// If the mixture has another dimension.
pub fn cdf(mixture: &Mixture, x: f64) -> f64 {
    assert_eq!(mixture.means().ncols(), 1, "a distribution function needs a line");
    let term = |k: usize| {
        let deviation = mixture.covariance(k)[[0, 0]].sqrt();
        let z = (x - mixture.means()[[k, 0]]) / deviation;
        mixture.weights()[k] * 0.5 * erfc(-z / SQRT_2)
    };
    (0..mixture.weights().len()).map(term).sum()
}

/// Where the distribution function is `u`, by bisection to the last digits.
///
/// # Errors
/// A `u` that is not between 0 and 1.
pub fn quantile(mixture: &Mixture, u: f64) -> Result<f64> {
    if !(0.0 < u && u < 1.0) {
        return Err(Error::parameter("u", u, "above 0 and below 1"));
    }
    let reach = |k: usize| mixture.means()[[k, 0]].abs() + 40.0 * mixture.covariance(k)[[0, 0]].sqrt();
    let far = (0..mixture.weights().len()).map(reach).fold(0.0, f64::max);
    let (mut low, mut high) = (-far, far);
    // Each halving gives a digit of 53.
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if cdf(mixture, middle) < u { low = middle } else { high = middle }
    }
    Ok(0.5 * (low + high))
}

/// Number of local maxima of ρ(t, ·) on a line between `low` and `high`, on `cells` places.
///
/// # Errors
/// Those of the density.
pub fn modes(fields: &ExactFields, t: f64, (low, high): (f64, f64), cells: usize) -> Result<usize> {
    let x = Array2::from_shape_fn((cells, 1), |(i, _)| low + (high - low) * i as f64 / (cells - 1).max(1) as f64);
    let log = fields.log_density(x.view(), t)?;
    Ok(log.windows(3).into_iter().filter(|w| w[1] > w[0] && w[1] >= w[2]).count())
}

/// The complementary error function to about 1e-15: its series for small arguments, its continued fraction beyond.
fn erfc(x: f64) -> f64 {
    const CROSSING: f64 = 2.5;
    if x < 0.0 {
        return 2.0 - erfc(-x);
    }
    let square = x * x;
    if x < CROSSING {
        // erf x = 2/√π e^(−x²) Σ 2ⁿ x^(2n+1)/(1·3·…·(2n+1)): all terms positive.
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term > 1e-17 * sum {
            n += 1.0;
            term *= 2.0 * square / (2.0 * n + 1.0);
            sum += term;
        }
        return 1.0 - 2.0 / std::f64::consts::PI.sqrt() * (-square).exp() * sum;
    }
    // e^(−x²)/√π · 1/(x + ½/(x + 1/(x + 3/2/(x + …)))), from a depth where the rest is nothing.
    let mut fraction = x;
    for n in (1..=60).rev() {
        fraction = x + 0.5 * f64::from(n) / fraction;
    }
    (-square).exp() / (std::f64::consts::PI.sqrt() * fraction)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interpolants::examples;

    #[test]
    fn the_error_function_has_its_tabulated_values() {
        // NIST's Digital Library of Mathematical Functions, table 7.23.1 and mpmath for the tail.
        for (x, value) in [
            (0.0, 1.0),
            (0.5, 0.479_500_122_186_953_5),
            (1.0, 0.157_299_207_050_285_13),
            (2.0, 0.004_677_734_981_047_266),
            (3.0, 2.209_049_699_858_544e-5),
            (5.0, 1.537_459_794_428_035e-12),
        ] {
            let found = erfc(x);
            assert!((found - value).abs() < 1e-14 && (found / value - 1.0).abs() < 1e-11, "{x}: {found} {value}");
            assert!((erfc(-x) - (2.0 - value)).abs() < 1e-14);
        }
    }

    #[test]
    fn quantiles_invert_the_distribution_function() {
        let (_, end) = examples::line().unwrap();
        for u in [1e-6, 0.2, 1.0 / 3.0 - 1e-6, 0.5, 0.9] {
            assert!((cdf(&end, quantile(&end, u).unwrap()) - u).abs() < 1e-14);
        }
        assert!(quantile(&end, 0.5).unwrap().abs() < 1e-12);
        assert!(quantile(&end, 1.0).is_err());
    }
}
