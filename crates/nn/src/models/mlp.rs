//! The multi-layer perceptron.

use crate::derivatives::jets::Jet;
use crate::layers::Linear;
use crate::ops;
use crate::params::Weights;
use candle_core::{Tensor, bail};
use offprint_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// What stands between two linear layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// max(x, 0)
    Relu,
    /// x Φ(x)
    Gelu,
    /// x σ(x)
    Silu,
    /// Hyperbolic tangent.
    Tanh,
    /// 1 / (1 + e⁻ˣ)
    Sigmoid,
}

impl Activation {
    /// Applies it to each value.
    pub fn forward(self, x: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Relu => ops::relu(x),
            Self::Gelu => ops::gelu(x),
            Self::Silu => ops::silu(x),
            Self::Tanh => ops::tanh(x),
            Self::Sigmoid => ops::sigmoid(x),
        }
    }
}

/// The shape of an [`Mlp`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MlpConfig {
    /// Widths from the inputs over the hidden layers to the outputs: at least two.
    pub widths: Vec<usize>,
    /// Between the layers; none after the last.
    pub activation: Activation,
}

/// Linear layers with an activation between them, named `layers.0.weight`, `layers.0.bias`, `layers.1.weight`, …
#[derive(Debug, Clone)]
pub struct Mlp {
    layers: Vec<Linear>,
    activation: Activation,
}

impl Mlp {
    /// Builds the layers from `weights`.
    pub fn new(config: &MlpConfig, weights: &Weights) -> Result<Self> {
        if config.widths.len() < 2 || config.widths.contains(&0) {
            return Err(Error::parameter(
                "widths",
                format!("{:?}", config.widths),
                "at least the numbers of inputs and outputs, each at least 1",
            ));
        }
        let layers = config
            .widths
            .windows(2)
            .enumerate()
            .map(|(i, pair)| Linear::new(pair[0], pair[1], true, &weights.at("layers").at(i)))
            .collect::<Result<_>>()?;
        Ok(Self { layers, activation: config.activation })
    }

    /// The linear layers, from the inputs on.
    pub fn layers(&self) -> &[Linear] {
        &self.layers
    }

    /// What stands between them.
    pub fn activation(&self) -> Activation {
        self.activation
    }

    /// `x` (n, …, inputs) to (n, …, outputs).
    pub fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let (last, hidden) = self.layers.split_last().expect("there is at least one layer");
        let mut x = x.clone();
        for layer in hidden {
            x = self.activation.forward(&layer.forward(&x)?)?;
        }
        last.forward(&x)
    }

    /// Outputs with their first and second derivatives along directions in the input: `x` (n, inputs), `directions`
    /// (D, inputs). For the activation tanh.
    pub fn jet(&self, x: &Tensor, directions: &Tensor) -> candle_core::Result<Jet> {
        if self.activation != Activation::Tanh {
            bail!("jets are carried through tanh, but the activation is {:?}", self.activation);
        }
        let (last, hidden) = self.layers.split_last().expect("there is at least one layer");
        let mut jet = Jet::of_inputs(x, directions)?;
        for layer in hidden {
            jet = jet.linear_tanh(layer.weight(), layer.bias().expect("made with a bias"))?;
        }
        jet.linear(last.weight(), last.bias())
    }
}
