//! Variance-preserving schedules given as a table, as published models have them.

use offprint_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// ln α at t = 1/N, 2/N, …, 1; linear between, and the first segment continued towards 0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Table {
    log_alpha: Vec<f64>,
}

impl Table {
    /// From the rates β₁ … β_N: α_i² = Π (1 − β_j).
    pub fn from_betas(betas: &[f64]) -> Result<Self> {
        if let Some((i, beta)) = betas.iter().enumerate().find(|(_, b)| !(**b > 0.0 && **b < 1.0)) {
            return Err(Error::parameter("betas", format!("{beta} at index {i}"), "between 0 and 1, without the ends"));
        }
        let mut total = 0.0;
        let sum = |beta: &f64| {
            total += 0.5 * (-beta).ln_1p();
            total
        };
        Self::of(betas.iter().map(sum).collect())
    }

    /// From ᾱ₁ > ᾱ₂ > … > ᾱ_N, the squares of α, all between 0 and 1.
    pub fn from_alphas_cumprod(alphas_cumprod: &[f64]) -> Result<Self> {
        for (i, &now) in alphas_cumprod.iter().enumerate() {
            let before = if i == 0 { 1.0 } else { alphas_cumprod[i - 1] };
            if now == 0.0 {
                return Err(Error::parameter(
                    "alphas_cumprod",
                    format!("0 at index {i}"),
                    format!("above 0: the schedule reaches zero signal at t={}, cut it below", i + 1),
                ));
            }
            if !(now > 0.0 && now < before) {
                let allowed = format!("between 0 and {before}, the value before it");
                return Err(Error::parameter("alphas_cumprod", format!("{now} at index {i}"), allowed));
            }
        }
        Self::of(alphas_cumprod.iter().map(|a| 0.5 * a.ln()).collect())
    }

    fn of(log_alpha: Vec<f64>) -> Result<Self> {
        if log_alpha.len() < 2 {
            return Err(Error::parameter("schedule", format!("{} entries", log_alpha.len()), "at least 2 entries"));
        }
        Ok(Self { log_alpha })
    }

    /// Refuses a table, read from a file, whose signal does not fall.
    pub(super) fn check(&self) -> Result<()> {
        let squares: Vec<f64> = self.log_alpha.iter().map(|l| (2.0 * l).exp()).collect();
        Self::from_alphas_cumprod(&squares).map(|_| ())
    }

    /// N.
    pub(super) fn len(&self) -> usize {
        self.log_alpha.len()
    }

    /// The time at which the continued first segment has no noise left, or 0 if it reaches 0 before.
    pub(super) fn earliest(&self) -> f64 {
        self.time(0.0).max(0.0)
    }

    /// ln α and its derivative at `t`.
    pub(super) fn log_alpha(&self, t: f64) -> (f64, f64) {
        let n = self.len();
        let place = t * n as f64 - 1.0;
        let left = (place.floor().max(0.0) as usize).min(n - 2);
        let rise = self.log_alpha[left + 1] - self.log_alpha[left];
        (self.log_alpha[left] + (place - left as f64) * rise, rise * n as f64)
    }

    /// The time at which ln α has the given value.
    pub(super) fn time(&self, log_alpha: f64) -> f64 {
        let n = self.len();
        let left = self.log_alpha.partition_point(|&l| l >= log_alpha).saturating_sub(1).min(n - 2);
        let rise = self.log_alpha[left + 1] - self.log_alpha[left];
        (left as f64 + 1.0 + (log_alpha - self.log_alpha[left]) / rise) / n as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_stand_at_their_times() {
        let table = Table::from_betas(&[0.1, 0.2, 0.5]).unwrap();
        for (i, expected) in [0.9f64, 0.72, 0.36].into_iter().enumerate() {
            let t = (i + 1) as f64 / 3.0;
            assert!((table.log_alpha(t).0 - 0.5 * expected.ln()).abs() < 1e-14);
        }
        let same = Table::from_alphas_cumprod(&[0.9, 0.72, 0.36]).unwrap();
        assert!((same.log_alpha(0.8).0 - table.log_alpha(0.8).0).abs() < 1e-14);
    }

    #[test]
    fn bad_tables_name_the_entry() {
        let message = |r: Result<Table>| r.unwrap_err().to_string();
        assert!(message(Table::from_betas(&[0.1, 1.0])).contains("1 at index 1"));
        assert!(message(Table::from_betas(&[f64::NAN, 0.1])).contains("NaN at index 0"));
        assert!(message(Table::from_betas(&[0.1])).contains("1 entries"));
        assert!(message(Table::from_alphas_cumprod(&[0.5, 0.6])).contains("0.6 at index 1"));
        assert!(message(Table::from_alphas_cumprod(&[0.5, 0.0])).contains("zero signal"));
    }
}
