//! Weights of particles, and drawing particles by them.

use offprint_core::random::Rng;
use offprint_core::{Error, Result};
use offprint_math::vector;
use rand::RngExt;

/// How indices are drawn in proportion to weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// One uniform number u for all: positions (u + k)/K. Every index comes ⌊K w⌋ or ⌈K w⌉ times; the paper's.
    Systematic,
    /// One uniform number in each of K equal parts.
    Stratified,
    /// K independent draws.
    Multinomial,
}

impl Scheme {
    /// `count` indices drawn in proportion to `weights` (K), which need not sum to 1, in rising order.
    /// O(K + count).
    ///
    /// # Panics
    /// If no weight is positive, or one is negative or not finite.
    pub fn draw(self, weights: &[f64], count: usize, rng: &mut Rng) -> Vec<usize> {
        let total: f64 = weights.iter().sum();
        assert!(total > 0.0 && total.is_finite(), "weights are finite and one is positive");
        let unit = total / count as f64;
        match self {
            Self::Systematic => {
                let u: f64 = rng.random();
                search(weights, (0..count).map(|k| (u + k as f64) * unit))
            }
            Self::Stratified => search(weights, (0..count).map(|k| (rng.random::<f64>() + k as f64) * unit)),
            Self::Multinomial => {
                let mut places: Vec<f64> = (0..count).map(|_| rng.random::<f64>() * total).collect();
                places.sort_unstable_by(f64::total_cmp);
                search(weights, places.into_iter())
            }
        }
    }
}

/// `count` indices at even places of the summed weights: a picture's points, without chance.
pub(super) fn evenly(weights: &[f64], count: usize) -> Vec<usize> {
    let unit = weights.iter().sum::<f64>() / count as f64;
    search(weights, (0..count).map(|k| (k as f64 + 0.5) * unit))
}

/// The index of the weight in whose stretch of the cumulative sum each of the rising `places` falls.
fn search(weights: &[f64], places: impl Iterator<Item = f64>) -> Vec<usize> {
    // Rounding may leave the last place beyond the last sum: it belongs to the last index with a weight.
    let last = weights.iter().rposition(|w| *w > 0.0).expect("a positive weight");
    let (mut index, mut reached) = (0, weights[0]);
    places
        .map(|place| {
            while place >= reached && index < last {
                index += 1;
                reached += weights[index];
            }
            index
        })
        .collect()
}

/// Normalised weights (K) of log-weights.
///
/// # Errors
/// If all weights vanish, or one is infinite or no number.
pub fn normalised(log_weights: &[f64]) -> Result<Vec<f64>> {
    if let Some((k, w)) = log_weights.iter().enumerate().find(|(_, w)| w.is_nan() || **w == f64::INFINITY) {
        return Err(Error::Numerical(format!("the log-weight of particle {k} is {w}")));
    }
    if log_weights.iter().all(|w| *w == f64::NEG_INFINITY) {
        return Err(Error::Numerical("the weights of all particles have vanished".into()));
    }
    let mut weights = log_weights.to_vec();
    vector::softmax(&mut weights);
    Ok(weights)
}

/// Effective sample size 1/Σ w² of normalised `weights`, from 1 to their number.
pub fn effective_size(weights: &[f64]) -> f64 {
    1.0 / weights.iter().map(|w| w * w).sum::<f64>()
}

/// log of the mean of the weights.
pub fn log_mean(log_weights: &[f64]) -> f64 {
    vector::log_sum_exp(log_weights) - (log_weights.len() as f64).ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use offprint_core::random::Streams;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn systematic_draws_have_the_counts_of_their_weights(weights in prop::collection::vec(0.0..3.0f64, 2..60), seed in 0u64..99) {
            prop_assume!(weights.iter().sum::<f64>() > 1e-3);
            let count = 50;
            let drawn = Scheme::Systematic.draw(&weights, count, &mut Streams::new(seed).stream("u").rng(0));
            let total: f64 = weights.iter().sum();
            prop_assert!(drawn.is_sorted());
            for (k, w) in weights.iter().enumerate() {
                let expected = count as f64 * w / total;
                let found = drawn.iter().filter(|d| **d == k).count() as f64;
                prop_assert!((found - expected).abs() < 1.0 + 1e-9, "{found} {expected}");
            }
        }
    }

    #[test]
    fn every_scheme_draws_in_proportion() {
        let weights = [0.0, 1.0, 3.0, 0.0, 4.0, 0.0];
        for scheme in [Scheme::Systematic, Scheme::Stratified, Scheme::Multinomial] {
            let mut counts = [0.0; 6];
            for seed in 0..400 {
                for k in scheme.draw(&weights, 20, &mut Streams::new(seed).stream("u").rng(0)) {
                    counts[k] += 1.0 / 8000.0;
                }
            }
            // 8000 draws: a standard error below 0.006 even for independent ones.
            for (count, weight) in counts.iter().zip(weights) {
                assert!((count - weight / 8.0).abs() < 0.02, "{scheme:?} {counts:?}");
            }
            assert_eq!((counts[0], counts[5]), (0.0, 0.0));
        }
    }

    #[test]
    fn weights_survive_huge_logarithms_and_refuse_nonsense() {
        let weights = normalised(&[1e5, 1e5 + 2f64.ln(), f64::NEG_INFINITY]).unwrap();
        assert!((weights[0] - 1.0 / 3.0).abs() < 1e-10 && weights[2] == 0.0);
        assert!((effective_size(&weights) - 9.0 / 5.0).abs() < 1e-9);
        assert!((log_mean(&[0.0, 3f64.ln()]) - 2f64.ln()).abs() < 1e-14);
        assert!(normalised(&[0.0, f64::NAN]).unwrap_err().to_string().contains("particle 1"));
        assert!(normalised(&[f64::NEG_INFINITY; 2]).is_err());
    }
}
