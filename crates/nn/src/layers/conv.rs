//! The two-dimensional convolution layer.

use super::substitute::{LayerKind, LayerUse, compute};
use super::watch::{self, Layer};
use crate::ops;
use crate::params::{Init, Weights};
use candle_core::Tensor;

/// A convolution with PyTorch's names (`weight`, `bias`) and default initialisation.
#[derive(Debug, Clone)]
pub struct Conv2d {
    weight: Tensor,
    bias: Option<Tensor>,
    conv: ops::Conv2d,
    names: (String, String),
}

impl Conv2d {
    /// A square kernel of `size` from `inputs` to `outputs` channels. `conv.groups` must divide both.
    pub fn new(
        inputs: usize,
        outputs: usize,
        size: usize,
        conv: ops::Conv2d,
        bias: bool,
        weights: &Weights,
    ) -> offprint_core::Result<Self> {
        let per_group = inputs / conv.groups.max(1);
        let init = Init::fan_in(per_group * size * size);
        Ok(Self {
            weight: weights.param("weight", &[outputs, per_group, size, size], init)?,
            bias: bias.then(|| weights.param("bias", &[outputs], init)).transpose()?,
            conv,
            names: (weights.full("weight"), weights.full("bias")),
        })
    }

    /// The weight (outputs, inputs / groups, size, size).
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// `x` (n, inputs, height, width) to (n, outputs, height', width').
    pub fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let bias = self.bias.is_some().then_some(self.names.1.as_str());
        let (_, _, height, width) = self.weight.dims4()?;
        let (conv, kernel) = (self.conv, (height, width));
        let layer = LayerUse { kind: LayerKind::Conv2d { conv, kernel }, weight: &self.names.0, bias };
        compute(layer, (x, &self.weight, self.bias.as_ref()), |x, w, b| {
            let y = ops::conv2d(x, w, b, &conv)?;
            watch::tell(y, &self.names.0, bias, || Ok(Layer::Conv2d { input: x.detach(), conv, kernel }))
        })
    }
}
