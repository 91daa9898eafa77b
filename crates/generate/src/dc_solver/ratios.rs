//! The compensation ratios of a sampler: one number a step.

use offprint_core::{Error, Result};
use std::ops::RangeInclusive;

/// Ratios outside of this interval extrapolate so far that the interpolating polynomial is hardly trustworthy.
pub const TRUSTED: RangeInclusive<f64> = 0.3..=1.7;

/// One ratio ρ a step. Before step k (counted from 1) the newest stored output of the model, of time t_i, is replaced
/// by the value that the polynomial through the newest K + 1 outputs has at ρ t_i + (1 − ρ) t_{i−1}.
///
/// ρ = 1 changes nothing. The first K ratios are 1: before those steps fewer than K + 1 outputs are stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Ratios {
    values: Vec<f64>,
    degree: usize,
}

impl Ratios {
    /// The ratios of steps 1, 2, …, with interpolation of `degree` K (2 as published).
    ///
    /// # Errors
    /// A degree outside 1 to 5, a value that is not finite, one of the first K that is not 1.
    pub fn new(values: Vec<f64>, degree: usize) -> Result<Self> {
        if !(1..=5).contains(&degree) {
            return Err(Error::parameter("degree", degree, "from 1 to 5"));
        }
        if let Some((i, value)) = values.iter().enumerate().find(|(_, v)| !v.is_finite()) {
            return Err(Error::input("dc_ratios", format!("entry {} is {value}; ratios are finite numbers", i + 1)));
        }
        if let Some((i, value)) = values.iter().enumerate().take(degree).find(|(_, v)| **v != 1.0) {
            let problem = format!(
                "entry {} is {value}, but the first {degree} must be 1: no polynomial of degree {degree} can be laid \
                 through fewer than {} outputs",
                i + 1,
                degree + 1
            );
            return Err(Error::input("dc_ratios", problem));
        }
        Ok(Self { values, degree })
    }

    /// Ratios that change nothing in `steps` steps.
    pub fn identity(steps: usize, degree: usize) -> Result<Self> {
        Self::new(vec![1.0; steps], degree)
    }

    /// The values, that of step 1 first.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// The degree K of the polynomial.
    pub fn degree(&self) -> usize {
        self.degree
    }

    /// With the ratio of step `step`, counted from 0, set to `value`.
    ///
    /// # Panics
    /// If there is no such step or it is among the first K.
    pub(super) fn set(&mut self, step: usize, value: f64) {
        assert!(step >= self.degree, "the first ratios stay 1");
        self.values[step] = value;
    }

    /// Steps, counted from 1, whose ratio lies outside [`TRUSTED`].
    pub fn far_out(&self) -> Vec<usize> {
        (1..=self.values.len()).filter(|k| !TRUSTED.contains(&self.values[k - 1])).collect()
    }

    /// Refuses a grid of another number of steps.
    pub fn check_steps(&self, steps: usize) -> Result<()> {
        if self.values.len() == steps {
            return Ok(());
        }
        Err(Error::input("dc_ratios", format!("has {} entries, but NFE is {steps}", self.values.len())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_ratios_name_the_entry() {
        let message = |values: &[f64]| Ratios::new(values.to_vec(), 2).unwrap_err().to_string();
        assert!(message(&[1.0, 0.9, 1.1]).contains("entry 2 is 0.9"));
        assert!(message(&[1.0, 1.0, f64::NAN]).contains("entry 3 is NaN"));
        assert!(Ratios::new(vec![1.0], 9).unwrap_err().to_string().contains("from 1 to 5"));
        let ratios = Ratios::new(vec![1.0, 1.0, 0.9, 2.0], 2).unwrap();
        assert_eq!(ratios.check_steps(6).unwrap_err().to_string(), "dc_ratios: has 4 entries, but NFE is 6");
        assert_eq!(ratios.far_out(), [4]);
    }
}
