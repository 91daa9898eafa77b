//! Learning rates over the steps of a training.

use offprint_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// A linear warm-up, then a decay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Steps over which the rate rises from its first share to all of it; 0 for none.
    pub warmup: u64,
    /// What follows.
    pub decay: Decay,
}

/// What becomes of the learning rate after the warm-up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Nothing.
    Constant,
    /// Half a cosine, down to the share `floor` of the rate.
    Cosine {
        /// Share of the rate at the end.
        floor: f64,
    },
    /// A straight line, down to the share `floor` of the rate.
    Linear {
        /// Share of the rate at the end.
        floor: f64,
    },
    /// Multiplied by `factor` at each milestone.
    Steps {
        /// Step numbers from which on the rate is lower.
        milestones: Vec<u64>,
        /// Factor at each.
        factor: f64,
    },
}

impl Schedule {
    /// The same rate at every step.
    pub fn constant() -> Self {
        Self { warmup: 0, decay: Decay::Constant }
    }

    /// Half a cosine down to 0.
    pub fn cosine() -> Self {
        Self { warmup: 0, decay: Decay::Cosine { floor: 0.0 } }
    }

    /// The same, after a linear warm-up over `steps`.
    #[must_use]
    pub fn with_warmup(self, steps: u64) -> Self {
        Self { warmup: steps, ..self }
    }

    /// Refuses shares and factors that are no finite numbers from 0 to 1.
    pub fn check(&self) -> Result<()> {
        let (name, value) = match self.decay {
            Decay::Constant => return Ok(()),
            Decay::Cosine { floor } | Decay::Linear { floor } => ("floor", floor),
            Decay::Steps { factor, .. } => ("factor", factor),
        };
        if (0.0..=1.0).contains(&value) { Ok(()) } else { Err(Error::parameter(name, value, "from 0 to 1")) }
    }

    /// The share of the base learning rate at step `step` (from 0) of `total`.
    pub fn factor(&self, step: u64, total: u64) -> f64 {
        if step < self.warmup {
            return (step + 1) as f64 / self.warmup as f64;
        }
        let span = total.saturating_sub(self.warmup).max(1) as f64;
        let done = ((step - self.warmup) as f64 / span).min(1.0);
        match &self.decay {
            Decay::Constant => 1.0,
            Decay::Cosine { floor } => floor + (1.0 - floor) * 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
            Decay::Linear { floor } => 1.0 - (1.0 - floor) * done,
            Decay::Steps { milestones, factor } => {
                factor.powi(milestones.iter().filter(|&&milestone| step >= milestone).count() as i32)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_follow_their_formulas() {
        let cosine = Schedule::cosine();
        assert_eq!(cosine.factor(0, 100), 1.0);
        assert!((cosine.factor(50, 100) - 0.5).abs() < 1e-15);
        assert!((cosine.factor(25, 100) - (0.5 + 0.5 * std::f64::consts::FRAC_1_SQRT_2)).abs() < 1e-15);
        assert!(cosine.factor(100, 100).abs() < 1e-15);
        let warm = Schedule { decay: Decay::Linear { floor: 0.2 }, warmup: 10 };
        assert_eq!([0, 4, 9, 10].map(|s| warm.factor(s, 110)), [0.1, 0.5, 1.0, 1.0]);
        assert!((warm.factor(60, 110) - 0.6).abs() < 1e-15);
        let steps = Schedule { warmup: 0, decay: Decay::Steps { milestones: vec![82, 123], factor: 0.1 } };
        assert_eq!(steps.factor(81, 164), 1.0);
        assert!((steps.factor(123, 164) - 0.01).abs() < 1e-15);
    }

    #[test]
    fn shares_outside_their_range_are_named() {
        let wrong = Schedule { warmup: 0, decay: Decay::Cosine { floor: 1.5 } };
        assert!(wrong.check().unwrap_err().to_string().starts_with("floor: got 1.5"));
    }
}
