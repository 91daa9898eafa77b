//! The rectifier as a layer: an activation with a name, so that somebody can tell it from the others.

use super::substitute::activated;
use crate::ops;
use crate::params::Weights;
use candle_core::{Result, Tensor};

/// `max(x, 0)`, whose output a [`Substitute`](super::substitute::Substitute) may replace.
#[derive(Debug, Clone)]
pub struct Relu {
    name: String,
}

impl Relu {
    /// The rectifier at the place of `weights`.
    pub fn new(weights: &Weights) -> Self {
        Self { name: weights.place().to_owned() }
    }

    /// `x` (…) to the same shape.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        activated(&self.name, ops::relu(x)?)
    }
}
