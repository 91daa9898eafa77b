//! Quantisers of weights: statistics set the scale (StatsQ), or training does (LSQ).

use super::levels::{stats_scales, to_levels};
use super::{Levels, Reading};
use crate::quantiser::{ActivationQuantiser, Lsq};
use candle_core::{Device, Tensor, Var};
use offprint_core::{Error, Result};
use offprint_nn::computation;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What sets the scale of a weight's levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// StatsQ: twice the mean size of a row's weights, at every step
    StatsQ,
    /// LSQ: one trained scale a row
    Lsq,
    /// LSQ: one trained scale for the whole matrix
    LsqTensor,
}

/// A quantiser of one matrix.
#[derive(Debug)]
pub struct WeightQuantiser {
    levels: Levels,
    /// The trained scales of LSQ.
    lsq: Option<Lsq>,
}

impl WeightQuantiser {
    /// Of `rule` with `bits` bits, for a weight as it is now: its first axis are its rows.
    ///
    /// # Errors
    /// Bits outside 1 to 8, or outside 2 to 8 for LSQ.
    pub fn new(rule: Rule, weight: &Tensor, bits: u32) -> Result<Self> {
        if rule == Rule::StatsQ {
            if !(1..=8).contains(&bits) {
                return Err(Error::parameter("weight_bits", bits, "between 1 and 8"));
            }
            return Ok(Self { levels: Levels::Halves { bits }, lsq: None });
        }
        if !(2..=8).contains(&bits) {
            return Err(Error::parameter("weight_bits", bits, "between 2 and 8 for LSQ"));
        }
        let all = weight.flatten_all().and_then(|w| w.unsqueeze(0)).map_err(computation)?;
        let lsq = Lsq::of_weight(if rule == Rule::Lsq { weight } else { &all }, bits)?;
        let (first, last) = lsq.codes();
        Ok(Self { levels: Levels::Whole { first, last }, lsq: Some(lsq) })
    }

    /// The levels.
    pub fn levels(&self) -> Levels {
        self.levels
    }

    /// The trained scales, if training sets them.
    pub fn trained(&self) -> Option<&Var> {
        self.lsq.as_ref().map(|lsq| &lsq.step)
    }

    /// `weight`, which is called `name`, with its levels as they are now.
    ///
    /// # Errors
    /// None but those of the tensor library.
    pub fn read(&self, name: &str, weight: &Tensor) -> Result<Reading> {
        let columns = columns(weight);
        let weights = weight.flatten_all().and_then(|w| w.to_vec1::<f32>()).map_err(computation)?;
        let scales = match &self.lsq {
            None => stats_scales(&weights, columns),
            Some(lsq) => lsq.grid(columns)?.scales.into_iter().collect(),
        };
        Ok(Reading { name: name.to_owned(), weights, columns, scales, levels: self.levels })
    }

    /// `weight` brought to its levels. The gradient passes straight through: for StatsQ to all weights, and none to the
    /// scale; for LSQ as [`Lsq`] says. With a `margin` it reaches those weights only that lie within it of a boundary.
    ///
    /// # Errors
    /// None but those of the tensor library.
    pub fn fake(&self, weight: &Tensor, margin: Option<f64>) -> Result<Tensor> {
        let passes = |reading: &Reading| -> Result<Option<Tensor>> {
            let Some(margin) = margin else { return Ok(None) };
            let mask: Vec<f32> = reading.trainable(margin).into_iter().map(|t| f32::from(u8::from(t))).collect();
            Tensor::from_vec(mask, weight.shape(), &Device::Cpu).map(Some).map_err(computation)
        };
        match &self.lsq {
            Some(lsq) if margin.is_none() => lsq.fake(weight),
            Some(lsq) => {
                let mask = passes(&self.read("", weight)?)?;
                lsq.fake(&straight_through(&weight.detach(), weight, mask.as_ref()).map_err(computation)?)
            }
            None => {
                let reading = self.read("", weight)?;
                let values = to_levels(&reading.weights, reading.columns, self.levels, &reading.scales);
                let mask = passes(&reading)?;
                Tensor::from_vec(values, weight.shape(), &Device::Cpu)
                    .and_then(|values| straight_through(&values, weight, mask.as_ref()))
                    .map_err(computation)
            }
        }
    }
}

/// Elements of a row.
pub(super) fn columns(weight: &Tensor) -> usize {
    weight.elem_count() / weight.dims().first().copied().unwrap_or(1).max(1)
}

/// `values`, bit for bit, with the gradient going to `x` where `passes` is 1, or everywhere.
fn straight_through(values: &Tensor, x: &Tensor, passes: Option<&Tensor>) -> candle_core::Result<Tensor> {
    // x − x is 0 exactly, and adding it changes no bit.
    let carrier = (x - x.detach())?;
    let carrier = match passes {
        Some(mask) => (carrier * mask)?,
        None => carrier,
    };
    values + carrier
}
