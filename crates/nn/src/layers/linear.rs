//! The linear layer.

use super::substitute::{LayerKind, LayerUse, compute};
use super::watch::{self, Layer};
use crate::ops;
use crate::params::{Init, Weights};
use candle_core::Tensor;

/// `x wᵀ + b`, with PyTorch's names (`weight`, `bias`) and default initialisation.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
    names: (String, String),
}

impl Linear {
    /// From `inputs` to `outputs`, both parameters uniform in ±1/√inputs.
    pub fn new(inputs: usize, outputs: usize, bias: bool, weights: &Weights) -> offprint_core::Result<Self> {
        let init = Init::fan_in(inputs);
        Self::with_init(inputs, outputs, init, bias.then_some(init), weights)
    }

    /// With initialisations of the caller's choice; no bias without one.
    pub fn with_init(
        inputs: usize,
        outputs: usize,
        weight: Init,
        bias: Option<Init>,
        weights: &Weights,
    ) -> offprint_core::Result<Self> {
        Ok(Self {
            weight: weights.param("weight", &[outputs, inputs], weight)?,
            bias: bias.map(|init| weights.param("bias", &[outputs], init)).transpose()?,
            names: (weights.full("weight"), weights.full("bias")),
        })
    }

    /// A layer without bias that shares `weight` (outputs, inputs), called `name`, with another layer: a tied head.
    pub fn tied(weight: &Tensor, name: &str) -> Self {
        Self { weight: weight.clone(), bias: None, names: (name.to_owned(), String::new()) }
    }

    /// The weight (outputs, inputs).
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// The bias (outputs).
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// `x` (…, inputs) to (…, outputs).
    pub fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let bias = self.bias.is_some().then_some(self.names.1.as_str());
        let layer = LayerUse { kind: LayerKind::Linear, weight: &self.names.0, bias };
        compute(layer, (x, &self.weight, self.bias.as_ref()), |x, w, b| {
            let y = ops::linear(x, w, b)?;
            watch::tell(y, &self.names.0, bias, || Ok(Layer::Linear { input: x.detach() }))
        })
    }
}
