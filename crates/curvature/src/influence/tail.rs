//! A power law fitted to the largest scores, and whether it is plausible.

use offprint_core::random::Stream;
use offprint_core::{Error, Result};
use offprint_math::stats::mean;
use rand::RngExt;

/// The tail P(X > x) = (x / x_min)^−α of the largest values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PowerLaw {
    /// Where the tail begins: the smallest value that was fitted.
    pub minimum: f64,
    /// α by maximum likelihood.
    pub exponent: f64,
    /// The largest distance between the fitted and the found distribution (Kolmogorov–Smirnov).
    pub distance: f64,
    /// The share of samples of the fitted law whose own fit is further away: above 0.1 the law is plausible.
    pub p: f64,
}

/// Fits the `count` largest of `values` that are positive. `resamples` bootstrap samples give p, each from a generator
/// of its own. O(count · log count) for each.
///
/// # Errors
/// Fewer than three positive values; all of the largest equal.
pub fn power_law_tail(values: &[f64], count: usize, resamples: usize, stream: Stream) -> Result<PowerLaw> {
    let mut tail: Vec<f64> = values.iter().copied().filter(|&x| x > 0.0 && x.is_finite()).collect();
    tail.sort_by(|a, b| b.total_cmp(a));
    tail.truncate(count);
    if tail.len() < 3 {
        let problem = format!("there are {} positive values; a tail needs at least 3", tail.len());
        return Err(Error::input("scores", problem));
    }
    tail.reverse();
    let minimum = tail[0];
    let (exponent, distance) = fit(&tail, minimum);
    if !exponent.is_finite() {
        return Err(Error::input("scores", "the largest values are all equal"));
    }
    let further = (0..resamples)
        .filter(|&i| {
            let mut rng = stream.rng(i as u64);
            // 1 − u is in (0, 1].
            let mut drawn: Vec<f64> =
                (0..tail.len()).map(|_| minimum * (1.0 - rng.random::<f64>()).powf(-1.0 / exponent)).collect();
            drawn.sort_by(f64::total_cmp);
            let own = drawn[0];
            fit(&drawn, own).1 >= distance
        })
        .count();
    Ok(PowerLaw { minimum, exponent, distance, p: further as f64 / resamples.max(1) as f64 })
}

/// α̂ = n / Σ ln(x/x_min) and the distance of the ascending `tail` from that law.
fn fit(tail: &[f64], minimum: f64) -> (f64, f64) {
    let exponent = 1.0 / mean(&tail.iter().map(|x| (x / minimum).ln()).collect::<Vec<_>>());
    let n = tail.len() as f64;
    let distance = tail.iter().enumerate().fold(0.0f64, |worst, (i, x)| {
        let below = 1.0 - (x / minimum).powf(-exponent);
        worst.max((below - i as f64 / n).abs()).max((below - (i + 1) as f64 / n).abs())
    });
    (exponent, distance)
}

#[cfg(test)]
mod tests {
    use super::*;
    use offprint_core::random::Streams;

    #[test]
    fn a_power_law_is_found_and_plausible_and_another_law_is_not() {
        let stream = Streams::new(3).stream("tail");
        let mut rng = stream.rng(0);
        let uniform: Vec<f64> = (0..1000).map(|_| 1.0 - rng.random::<f64>()).collect();
        let pareto: Vec<f64> = uniform.iter().map(|u| 2.0 * u.powf(-1.0 / 3.0)).collect();
        let fitted = power_law_tail(&pareto, 1000, 200, stream).unwrap();
        // The standard error of α̂ is α/√n = 0.095.
        assert!((fitted.exponent - 3.0).abs() < 0.3 && fitted.p > 0.1, "{fitted:?}");
        assert!((fitted.minimum - 2.0).abs() < 0.02);
        // Log-normal values, all of them: no power law.
        let normal: Vec<f64> = crate::vector::gaussian::<f64>(stream, 1, 1000).iter().map(|z| z.exp()).collect();
        assert!(power_law_tail(&normal, 1000, 200, stream).unwrap().p < 0.05);
    }

    #[test]
    fn what_has_no_tail_is_refused() {
        let stream = Streams::new(3).stream("tail");
        assert!(power_law_tail(&[1.0, -2.0, 3.0], 10, 10, stream).unwrap_err().to_string().contains("2 positive"));
        assert!(power_law_tail(&[1.0; 5], 10, 10, stream).unwrap_err().to_string().contains("equal"));
    }
}
