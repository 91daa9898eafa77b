//! A reward on top of a product: Π q_i^{β_i} · exp(λ(u) r).

use super::target::{Flow, Leg, Target};
use super::{Product, Ramp, Reward};
use ndarray::{Array1, ArrayView1, ArrayView2, Zip};
use offprint_core::{Error, Result};

/// p̃ = Π q_i^{β_i} · exp(λ(u) r), with λ a function of the fraction u of steps that is done (proposition D.6, there for
/// one model).
///
/// Drift S + ½ λ ∇r, rate that of the product plus ½ λ ∇r·S, and λ's own growth times r. Only r and its gradient are
/// needed: the drift is chosen so that the Laplacian of r cancels.
pub struct Tilted<'a, R> {
    product: Product<'a>,
    reward: R,
    strength: Ramp,
}

impl<'a, R: Reward> Tilted<'a, R> {
    /// Tilts `product` by `reward` with `strength` λ(u).
    ///
    /// # Errors
    /// A reward on points of another dimension.
    pub fn new(product: Product<'a>, reward: R, strength: Ramp) -> Result<Self> {
        if let Some(d) = reward.dim().filter(|&d| d != product.dim()) {
            let given = format!("on points of dimension {d}");
            return Err(Error::parameter("reward", given, format!("of dimension {}, as the model", product.dim())));
        }
        Ok(Self { product, reward, strength })
    }
}

impl<R: Reward> Target for Tilted<'_, R> {
    fn dim(&self) -> usize {
        self.product.dim()
    }

    fn exponent(&self) -> f64 {
        self.product.exponent()
    }

    fn centre(&self) -> ArrayView1<'_, f64> {
        self.product.centre()
    }

    fn flow(&self, y: ArrayView2<'_, f64>, leg: Leg) -> Result<Flow> {
        let Flow { drift: base, mut rate, .. } = self.product.flow(y, leg)?;
        let (value, gradient) = self.reward.value_and_gradient(y)?;
        let (strength, next) = (self.strength.at(leg.from), self.strength.at(leg.to));
        Zip::from(&mut rate)
            .and(base.rows())
            .and(gradient.rows())
            .for_each(|rate, s, r| *rate += 0.5 * strength * s.dot(&r));
        let (mut drift, mut score) = (base.clone(), base);
        drift.scaled_add(0.5 * strength, &gradient);
        score.scaled_add(strength, &gradient);
        let change = (next != strength).then(|| value * (next - strength));
        Ok(Flow { drift, score: Some(score), rate, change })
    }

    fn log_density(&self, y: ArrayView2<'_, f64>, tau: f64, fraction: f64) -> Result<Option<Array1<f64>>> {
        let Some(mut log) = self.product.log_density(y, tau, fraction)? else { return Ok(None) };
        let strength = self.strength.at(fraction);
        if strength != 0.0 {
            log.scaled_add(strength, &self.reward.value_and_gradient(y)?.0);
        }
        Ok(Some(log))
    }

    fn models(&self) -> u64 {
        self.product.models()
    }
}
