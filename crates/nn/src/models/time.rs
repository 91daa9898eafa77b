//! Networks that also see a time, for diffusion and flows.

use super::{Activation, at_least_one};
use crate::layers::Linear;
use crate::ops;
use crate::params::Weights;
use candle_core::{Result, Tensor};
use offprint_core::Error;
use serde::{Deserialize, Serialize};

/// Slowest period of [`sinusoids`], in units of time.
const PERIOD: f64 = 10_000.0;

/// Sinusoids of times `t` (n) at geometrically spaced frequencies from 1 to 1/10000, (n, width): the cosines, then the
/// sines. `width` is even. Diffusion steps come as they are; times from 0 to 1 are better scaled by 1000 first.
pub fn sinusoids(t: &Tensor, width: usize) -> Result<Tensor> {
    let half = width / 2;
    let frequencies: Vec<f64> = (0..half).map(|i| (-PERIOD.ln() * i as f64 / half as f64).exp()).collect();
    let frequencies = Tensor::from_vec(frequencies, (1, half), t.device())?.to_dtype(t.dtype())?;
    let angles = t.unsqueeze(1)?.broadcast_mul(&frequencies)?;
    Tensor::cat(&[&angles.cos()?, &angles.sin()?], 1)
}

/// Sinusoids of a time and two linear layers with SiLU between, named `linear_1` and `linear_2`.
#[derive(Debug, Clone)]
pub struct TimeEmbedding {
    frequencies: usize,
    linear_1: Linear,
    linear_2: Linear,
}

impl TimeEmbedding {
    /// From `frequencies` sinusoids (an even number) to `width` values.
    pub fn new(frequencies: usize, width: usize, weights: &Weights) -> offprint_core::Result<Self> {
        if frequencies < 2 || !frequencies.is_multiple_of(2) {
            return Err(Error::parameter("frequencies", frequencies, "an even number, at least 2"));
        }
        Ok(Self {
            frequencies,
            linear_1: Linear::new(frequencies, width, true, &weights.at("linear_1"))?,
            linear_2: Linear::new(width, width, true, &weights.at("linear_2"))?,
        })
    }

    /// Times (n) to (n, width).
    pub fn forward(&self, t: &Tensor) -> Result<Tensor> {
        self.linear_2.forward(&ops::silu(&self.linear_1.forward(&sinusoids(t, self.frequencies)?)?)?)
    }
}

/// The shape of a [`TimeMlp`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeMlpConfig {
    /// Components of a point.
    pub inputs: usize,
    /// Components of what is predicted for it.
    pub outputs: usize,
    /// Width of the hidden layers and of the time's embedding.
    pub width: usize,
    /// Hidden layers.
    pub depth: usize,
    /// Sinusoids of the time, an even number.
    pub frequencies: usize,
    /// Between the layers.
    pub activation: Activation,
}

/// A perceptron for points whose every hidden layer also gets the embedded time. Names: `time_embedding.linear_1`,
/// `layers.0`, `time_layers.0`, …, `out`.
#[derive(Debug, Clone)]
pub struct TimeMlp {
    time: TimeEmbedding,
    layers: Vec<(Linear, Linear)>,
    out: Linear,
    activation: Activation,
}

impl TimeMlp {
    /// Builds the layers from `weights`.
    pub fn new(config: &TimeMlpConfig, weights: &Weights) -> offprint_core::Result<Self> {
        let TimeMlpConfig { inputs, outputs, width, depth, frequencies, activation } = *config;
        at_least_one(&[("inputs", inputs), ("outputs", outputs), ("width", width), ("depth", depth)])?;
        let layer = |i: usize| -> offprint_core::Result<(Linear, Linear)> {
            let from = if i == 0 { inputs } else { width };
            Ok((
                Linear::new(from, width, true, &weights.at("layers").at(i))?,
                Linear::new(width, width, false, &weights.at("time_layers").at(i))?,
            ))
        };
        Ok(Self {
            time: TimeEmbedding::new(frequencies, width, &weights.at("time_embedding"))?,
            layers: (0..depth).map(layer).collect::<offprint_core::Result<_>>()?,
            out: Linear::new(width, outputs, true, &weights.at("out"))?,
            activation,
        })
    }

    /// Points `x` (n, inputs) at times `t` (n) to (n, outputs).
    pub fn forward(&self, x: &Tensor, t: &Tensor) -> Result<Tensor> {
        let time = ops::silu(&self.time.forward(t)?)?;
        let mut x = x.clone();
        for (layer, shift) in &self.layers {
            x = self.activation.forward(&(layer.forward(&x)? + shift.forward(&time)?)?)?;
        }
        self.out.forward(&x)
    }
}
