//! Mixtures with known answers: the built-in inputs and the subjects of the study.

use crate::exact::{ExactMixture, Mixture};
use ndarray::{Array1, Array2, array};
use offprint_core::Result;
use offprint_core::random::Stream;
use rand::RngExt;

fn round(weights: Array1<f64>, means: Array2<f64>, variances: Array1<f64>) -> Result<ExactMixture> {
    ExactMixture::new(Mixture::round(weights, means, variances.view())?)
}

/// ½ N(−4, 1) + ½ N(4, ¼) on the line: raised to β, mode k has a mass ∝ s_k^{1−β}, which scaled scores miss.
pub fn line() -> Result<ExactMixture> {
    round(array![0.5, 0.5], array![[-4.0], [4.0]], array![1.0, 0.25])
}

/// Two experts in the plane with different opinions on where the mass is.
pub fn experts() -> Result<[ExactMixture; 2]> {
    Ok([
        round(array![0.5, 0.5], array![[-3.0, 0.0], [3.0, 0.0]], array![1.0, 1.0])?,
        round(array![0.3, 0.7], array![[-3.0, 1.0], [3.0, -2.0]], array![0.5, 1.5])?,
    ])
}

/// An unconditional model of two classes in the plane, and the model of one of them.
pub fn classes() -> Result<[ExactMixture; 2]> {
    let both = round(array![0.5, 0.5], array![[-2.0, 0.0], [2.0, 0.0]], array![1.0, 1.0])?;
    let one = ExactMixture::new(both.mixture().select(&[1])?)?;
    Ok([both, one])
}

/// Eight modes on a circle of radius 4.
pub fn ring() -> Result<ExactMixture> {
    let angle = |k: usize| std::f64::consts::FRAC_PI_4 * k as f64;
    let means = Array2::from_shape_fn((8, 2), |(k, j)| 4.0 * if j == 0 { angle(k).cos() } else { angle(k).sin() });
    round(Array1::from_elem(8, 0.125), means, Array1::from_elem(8, 0.3))
}

/// Forty modes in \[−40, 40\]² with variances 1.2 and 0.3 in turn; the means come from generator 0 of `stream`.
pub fn forty(stream: Stream) -> Result<ExactMixture> {
    let mut rng = stream.rng(0);
    let means = Array2::from_shape_simple_fn((40, 2), || rng.random_range(-40.0..40.0));
    round(Array1::from_elem(40, 1.0 / 40.0), means, Array1::from_shape_fn(40, |k| if k % 2 == 0 { 1.2 } else { 0.3 }))
}
