//! Families of unnormalised laws that weighted particles follow from noise to data.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2};
use offprint_core::Result;

/// One step on the way from noise to data, as a [`Target`] sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Leg {
    /// Noise level τ at which the particles stand.
    pub tau: f64,
    /// Fraction of the steps that is done, from 0 at the noise to 1 at the data.
    pub from: f64,
    /// The same fraction after the step.
    pub to: f64,
}

/// What a [`Target`] p̃ says of particles at one noise level, per unit of variance G = τ² − τ'² that a step removes.
#[derive(Debug, Clone)]
pub struct Flow {
    /// The drift (n, d) of the process whose noise has factor ζ = 1.
    pub drift: Array2<f64>,
    /// The score ∇ log p̃ (n, d), where it is not the drift.
    pub score: Option<Array2<f64>>,
    /// The rate (n) at which log-weights grow. It is the same for every ζ.
    pub rate: Array1<f64>,
    /// What the change of a schedule over the whole step adds to the log-weights (n).
    pub change: Option<Array1<f64>>,
}

impl Flow {
    /// ∇ log p̃ (n, d).
    pub fn score(&self) -> &Array2<f64> {
        self.score.as_ref().unwrap_or(&self.drift)
    }

    /// The drift (n, d) per unit of variance for noise of factor ζ: Langevin's identity lets noise be traded for drift
    /// along the score, (ζ − 1)/2 ∇ log p̃, without touching the law or the weights.
    pub fn drift_with(&self, zeta: f64) -> Array2<f64> {
        let mut drift = self.drift.clone();
        if zeta != 1.0 {
            drift.scaled_add(0.5 * (zeta - 1.0), self.score());
        }
        drift
    }
}

/// Laws p̃_τ ∝ a function of pretrained scores, one for each noise level, not normalised, in the coordinates y = x/α.
///
/// All laws here have d log p̃/du = −div v − v·∇ log p̃ + ζ/2 (Δ log p̃ + |∇ log p̃|²) + g, where u = −τ² and (v, g) are
/// the drift and the rate of the [`Flow`]: the Feynman-Kac equation in its logarithmic form, so that particles that move
/// by dy = v du + √ζ dW and carry d log w = g du stand for p̃.
pub trait Target: Sync {
    /// Components d of a particle.
    fn dim(&self) -> usize;

    /// B, the sum of the exponents: at large τ the law is N(·, τ²/B).
    fn exponent(&self) -> f64;

    /// Where the law is centred at large τ (d).
    fn centre(&self) -> ArrayView1<'_, f64>;

    /// Drift, score and rate at `y` (n, d).
    fn flow(&self, y: ArrayView2<'_, f64>, leg: Leg) -> Result<Flow>;

    /// log p̃ (n) at noise level τ, when the given fraction of the steps is done, where densities are known. At the start
    /// it gives the weights.
    fn log_density(&self, y: ArrayView2<'_, f64>, tau: f64, fraction: f64) -> Result<Option<Array1<f64>>>;

    /// Calls of models for one [`Self::flow`].
    fn models(&self) -> u64;
}
