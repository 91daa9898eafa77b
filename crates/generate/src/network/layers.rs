//! A perceptron that sees a point, a noise level and a class.

use candle_core::{D, DType, Tensor};
use offprint_core::{Error, Result};
use offprint_nn::layers::Linear;
use offprint_nn::ops::{self, Activation};
use offprint_nn::params::Init;
use offprint_nn::{Weights, computation};
use serde::{Deserialize, Serialize};

/// The shape of a [`TimedMlp`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetConfig {
    /// Components of a point.
    pub dim: usize,
    /// Classes; 0 for a model without.
    pub classes: usize,
    /// Width of the hidden layers.
    pub width: usize,
    /// Hidden layers.
    pub depth: usize,
    /// Frequencies with which the noise level is told, each by its cosine and sine.
    pub frequencies: usize,
}

/// Highest frequency; the lowest is 1.
const HIGHEST: f64 = 100.0;

/// \[point, cosines and sines of the level, one-hot class\] → hidden SiLU layers → a point. Names: `layers.0`, ….
#[derive(Debug, Clone)]
pub struct TimedMlp {
    config: NetConfig,
    layers: Vec<Linear>,
}

impl TimedMlp {
    /// Builds the layers from `weights`.
    pub fn new(config: &NetConfig, weights: &Weights) -> Result<Self> {
        let NetConfig { dim, classes, width, depth, frequencies } = *config;
        for (name, value) in [("dim", dim), ("width", width), ("depth", depth), ("frequencies", frequencies)] {
            if value == 0 {
                return Err(Error::parameter(name, value, "at least 1"));
            }
        }
        let inputs = dim + 2 * frequencies + classes;
        let layer = |i: usize| {
            let (from, to) = (if i == 0 { inputs } else { width }, if i == depth { dim } else { width });
            // As wide as He's, so that the few inputs of the class count from the start.
            Linear::with_init(from, to, Init::he(from), Some(Init::Constant(0.0)), &weights.at("layers").at(i))
        };
        Ok(Self { config: config.clone(), layers: (0..=depth).map(layer).collect::<Result<_>>()? })
    }

    /// The shape.
    pub fn config(&self) -> &NetConfig {
        &self.config
    }

    /// What stands beside the point in the network's input: for row i the level code `codes[i]` as cosines and sines,
    /// then the class `labels[i]`, all zero without one. `side` has room for 2·frequencies + classes.
    pub fn fill_side(&self, code: f64, label: Option<usize>, side: &mut [f32]) {
        let m = self.config.frequencies;
        let ratio = if m > 1 { HIGHEST.powf(1.0 / (m - 1) as f64) } else { 1.0 };
        let mut frequency = 1.0;
        for i in 0..m {
            let (sin, cos) = (frequency * code).sin_cos();
            side[i] = cos as f32;
            side[m + i] = sin as f32;
            frequency *= ratio;
        }
        side[2 * m..].fill(0.0);
        if let Some(class) = label {
            side[2 * m + class] = 1.0;
        }
    }

    /// Numbers beside the point: 2·frequencies + classes.
    pub fn side(&self) -> usize {
        2 * self.config.frequencies + self.config.classes
    }

    /// Inputs (n, dim + side) to outputs (n, dim).
    pub fn forward(&self, inputs: &Tensor) -> candle_core::Result<Tensor> {
        let (last, hidden) = self.layers.split_last().expect("at least one hidden layer");
        let mut x = inputs.clone();
        for layer in hidden {
            x = ops::linear_activated(&x, layer.weight(), layer.bias(), Activation::Silu)?;
        }
        ops::linear(&x, last.weight(), last.bias())
    }

    /// The outputs' change (n, dim) when the points of `inputs` move by `tangent` (n, dim): forward-mode derivatives.
    pub fn forward_tangent(&self, inputs: &Tensor, tangent: &Tensor) -> candle_core::Result<Tensor> {
        let (last, hidden) = self.layers.split_last().expect("at least one hidden layer");
        let rest = Tensor::zeros((tangent.dim(0)?, self.side()), DType::F32, tangent.device())?;
        let (mut x, mut v) = (inputs.clone(), Tensor::cat(&[tangent, &rest], D::Minus1)?);
        for layer in hidden {
            let before = ops::linear(&x, layer.weight(), layer.bias())?;
            let share = ops::sigmoid(&before)?;
            // (x σ(x))' = σ + x σ (1 − σ)
            let slope = (&share + (&before * (&share * (1.0 - &share)?)?)?)?;
            v = (ops::linear(&v, layer.weight(), None)? * slope)?;
            x = (before * share)?;
        }
        ops::linear(&v, last.weight(), None)
    }
}

/// A table of f32 (n, k) as a tensor.
pub(super) fn tensor(values: Vec<f32>, rows: usize) -> Result<Tensor> {
    let columns = values.len() / rows.max(1);
    Tensor::from_vec(values, (rows, columns), &candle_core::Device::Cpu).map_err(computation)
}
