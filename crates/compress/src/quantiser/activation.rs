//! Quantisers of activations: they watch some batches, then stand.

use super::range::between;
use super::{Affine, Scheme};
use crate::layer::matrix;
use candle_core::Tensor;
use offprint_core::{Error, Result};
use offprint_nn::computation;
use offprint_nn::ops::{Beyond, fake_quantise};

/// A quantiser of a whole tensor of activations.
pub trait ActivationQuantiser {
    /// Looks at a batch.
    fn observe(&mut self, x: &Tensor) -> Result<()>;
    /// Fixes the range from what was seen.
    fn freeze(&mut self) -> Result<()>;
    /// `x` brought to the levels, with a straight-through gradient.
    fn fake(&self, x: &Tensor) -> Result<Tensor>;
}

/// How a range follows the batches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tracking {
    /// The least and the greatest value ever seen.
    MinMax,
    /// Running means of the batches' least and greatest, `decay` of the old a step, without bias towards 0.
    Ema {
        /// Share of the old value that a step keeps.
        decay: f64,
    },
    /// As [`Self::Ema`], but what is stored is divided by 1 − decayᵗ at every step, which compounds: far too wide until the
    /// divisor nears 1. Published code that descends from GDFQ does so.
    CompoundedEma {
        /// Share of the old value that a step keeps.
        decay: f64,
    },
    /// The mean over batches of the values below which `share` and above which `share` of a batch lie.
    Percentile {
        /// Share cut off at either end, below ½.
        share: f64,
    },
}

/// A quantiser whose range is tracked.
#[derive(Debug, Clone)]
pub struct RangeTracker {
    scheme: Scheme,
    tracking: Tracking,
    ends: (f64, f64),
    /// Weight of what the ends hold: batches, or 1 − decayᵗ.
    weight: f64,
    affine: Option<Affine>,
    beyond: Beyond,
}

impl RangeTracker {
    /// A tracker for the quantiser `scheme`, whose granularity and range are not used: activations have one scale.
    pub fn new(scheme: Scheme, tracking: Tracking) -> Self {
        let ends = if tracking == Tracking::MinMax { (f64::INFINITY, f64::NEG_INFINITY) } else { (0.0, 0.0) };
        Self { scheme, tracking, ends, weight: 0.0, affine: None, beyond: Beyond::Stops }
    }

    /// With gradients that do so where a value lies beyond the range; they stop there otherwise.
    #[must_use]
    pub fn with_beyond(self, beyond: Beyond) -> Self {
        Self { beyond, ..self }
    }

    /// The range so far.
    ///
    /// # Errors
    /// Nothing was seen.
    pub fn range(&self) -> Result<(f64, f64)> {
        if self.weight == 0.0 {
            return Err(Error::Numerical("a quantiser of activations was asked before it saw any".into()));
        }
        match self.tracking {
            Tracking::MinMax | Tracking::CompoundedEma { .. } => Ok(self.ends),
            _ => Ok((self.ends.0 / self.weight, self.ends.1 / self.weight)),
        }
    }

    /// The frozen quantiser.
    pub fn affine(&self) -> Option<Affine> {
        self.affine
    }
}

impl ActivationQuantiser for RangeTracker {
    fn observe(&mut self, x: &Tensor) -> Result<()> {
        let values = matrix(x)?;
        if let Some(bad) = values.iter().find(|x| !x.is_finite()) {
            return Err(Error::Numerical(format!("activations hold {bad}, which no range contains")));
        }
        if values.is_empty() {
            return Ok(());
        }
        let (low, high) = match self.tracking {
            Tracking::Percentile { share } => {
                let mut sorted: Vec<f32> = values.iter().copied().collect();
                sorted.sort_unstable_by(f32::total_cmp);
                let last = sorted.len() - 1;
                let cut = ((share.clamp(0.0, 0.5) * last as f64).round_ties_even() as usize).min(last);
                (sorted[cut], sorted[last - cut])
            }
            _ => values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), &x| (l.min(x), h.max(x))),
        };
        let (low, high) = (f64::from(low), f64::from(high));
        match self.tracking {
            Tracking::MinMax => {
                self.ends = (self.ends.0.min(low), self.ends.1.max(high));
                self.weight = 1.0;
            }
            Tracking::Percentile { .. } => {
                self.ends = (self.ends.0 + low, self.ends.1 + high);
                self.weight += 1.0;
            }
            Tracking::Ema { decay } | Tracking::CompoundedEma { decay } => {
                let mix = |old: f64, new: f64| decay * old + (1.0 - decay) * new;
                self.ends = (mix(self.ends.0, low), mix(self.ends.1, high));
                self.weight = mix(self.weight, 1.0);
                if matches!(self.tracking, Tracking::CompoundedEma { .. }) {
                    self.ends = (self.ends.0 / self.weight, self.ends.1 / self.weight);
                }
            }
        }
        Ok(())
    }

    fn freeze(&mut self) -> Result<()> {
        let (low, high) = self.range()?;
        self.affine = Some(between(&self.scheme, low as f32, high as f32));
        Ok(())
    }

    fn fake(&self, x: &Tensor) -> Result<Tensor> {
        let affine = match self.affine {
            Some(affine) => affine,
            None => {
                let (low, high) = self.range()?;
                between(&self.scheme, low as f32, high as f32)
            }
        };
        let number = |value: f32| Tensor::new(&[value], x.device()).and_then(|t| t.to_dtype(x.dtype()));
        number(affine.scale)
            .and_then(|scale| {
                fake_quantise(x, &scale, &number(affine.zero)?, affine.codes, x.elem_count(), self.beyond)
            })
            .map_err(computation)
    }
}
