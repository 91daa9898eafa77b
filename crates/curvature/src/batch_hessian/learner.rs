//! Learning rate and momentum on the fly, from a few Lanczos steps every few epochs.

use crate::Ritz;
use offprint_core::{Error, Result};

/// What counts as the smallest curvature μ that momentum is tuned for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Floor {
    /// The smallest positive Ritz value that carries at least the weight 1/P of one eigenvalue.
    Smallest,
    /// The upper edge of the bulk around zero: the largest Ritz value that carries the weight of many eigenvalues.
    BulkEdge,
}

/// Ritz values with at least this many times the weight of one eigenvalue belong to the bulk.
const MANY: f64 = 10.0;
/// The largest momentum.
const LARGEST_MOMENTUM: f64 = 0.99;

/// Chooses rates from a Ritz decomposition.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Learner {
    /// How μ is chosen.
    pub floor: Floor,
    /// What the learning rate is multiplied by at the end.
    pub safety: f64,
}

impl Default for Learner {
    /// The bulk's edge, safety 0.5.
    fn default() -> Self {
        Self { floor: Floor::BulkEdge, safety: 0.5 }
    }
}

/// A learning rate and a momentum with the curvatures they were chosen for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// α.
    pub learning_rate: f64,
    /// ρ.
    pub momentum: f64,
    /// L.
    pub top: f64,
    /// μ.
    pub floor: f64,
}

impl Learner {
    /// Heavy-ball rates for curvatures between μ, taken from `ritz` of a matrix of size `dim`, and L = `top`, the largest
    /// eigenvalue at the batch size of the training: α = (2/(√L + √μ))², ρ = ((√L − √μ)/(√L + √μ))², with ρ ≤ 0.99 and
    /// α ≤ 2 (1 + ρ)/L.
    ///
    /// # Errors
    /// A `top` or a safety that is not positive.
    pub fn rates(&self, ritz: &Ritz, dim: usize, top: f64) -> Result<Rates> {
        if !(top > 0.0 && top.is_finite()) {
            return Err(Error::Numerical(format!(
                "the largest curvature is {top}: no learning rate follows from a loss that does not curve upwards"
            )));
        }
        if !(self.safety > 0.0 && self.safety.is_finite()) {
            return Err(Error::parameter("safety", self.safety, "above 0"));
        }
        let floor = self.floor_of(ritz, dim).clamp(0.0, top);
        let sum = top.sqrt() + floor.sqrt();
        let momentum = ((top.sqrt() - floor.sqrt()) / sum).powi(2).min(LARGEST_MOMENTUM);
        let learning_rate = (2.0 / sum).powi(2).min(2.0 * (1.0 + momentum) / top);
        Ok(Rates { learning_rate: self.safety * learning_rate, momentum, top, floor })
    }

    fn floor_of(&self, ritz: &Ritz, dim: usize) -> f64 {
        let one = 1.0 / dim as f64;
        let positive = ritz.values.iter().zip(&ritz.weights).filter(|(value, _)| **value > 0.0);
        let found = match self.floor {
            Floor::Smallest => positive.into_iter().find(|(_, weight)| **weight >= one),
            Floor::BulkEdge => positive.into_iter().rfind(|(_, weight)| **weight >= MANY * one),
        };
        found.map_or(0.0, |(value, _)| *value)
    }
}
