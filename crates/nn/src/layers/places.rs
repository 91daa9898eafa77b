//! Where a network's layers stand: what a method that goes through them one by one needs to know.

use super::LayerKind;
use super::watch::{Layer, watching};
use crate::error::computation;
use crate::params::Params;
use candle_core::Tensor;
use offprint_core::Result;

/// A linear layer, convolution or embedding of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerPlace {
    /// Name of the layer: the weight's without its ending `.weight`.
    pub name: String,
    /// Full name of the weight.
    pub weight: String,
    /// Full name of the bias, if there is one.
    pub bias: Option<String>,
    /// What it computes. A table that is both embedding and head is one place, an embedding.
    pub kind: LayerKind,
    /// Shape of the weight.
    pub shape: Vec<usize>,
    /// Name of the batch norm (`bn1`) that its output goes into, if there is one.
    pub batch_norm: Option<String>,
    /// Places of one sample to which the weight is applied: pixels of a convolution's output, tokens.
    pub positions: usize,
}

impl LayerPlace {
    /// Outputs: rows of the weight.
    pub fn outputs(&self) -> usize {
        self.shape[0]
    }

    /// Numbers that an output is made from: columns of the weight as a matrix.
    pub fn inputs(&self) -> usize {
        self.shape[1..].iter().product()
    }

    /// Number of weights.
    pub fn weights(&self) -> usize {
        self.shape.iter().product()
    }

    /// Multiplications for one sample; an embedding has none.
    pub fn multiplications(&self) -> u64 {
        if self.kind == LayerKind::Embedding { 0 } else { self.weights() as u64 * self.positions as u64 }
    }
}

/// The layers that `forward` uses on `sample` (1, …), in the order of their first use.
pub fn places(
    params: &Params,
    sample: &Tensor,
    forward: impl FnOnce(&Tensor) -> candle_core::Result<Tensor>,
) -> Result<Vec<LayerPlace>> {
    let (output, seen) = watching(|| forward(sample));
    output.map_err(computation)?;
    let mut places: Vec<LayerPlace> = Vec::new();
    let mut convolution_before = false;
    for seen in seen {
        let after_convolution = std::mem::replace(&mut convolution_before, false);
        let (kind, positions) = match &seen.layer {
            Layer::Linear { input } => (LayerKind::Linear, input.elem_count() / input.dims().last().map_or(1, |&d| d)),
            Layer::Conv2d { conv, kernel, .. } => {
                convolution_before = true;
                let (_, _, height, width) = seen.probe.dims4().map_err(computation)?;
                (LayerKind::Conv2d { conv: *conv, kernel: *kernel }, height * width)
            }
            Layer::Embedding { ids, .. } => (LayerKind::Embedding, ids.elem_count()),
            Layer::Scale { .. } => {
                let norm = seen.weight.trim_end_matches(".weight");
                let is_batch_norm = params.get(&format!("{norm}.running_mean")).is_some();
                if let Some(last) = places.last_mut().filter(|_| after_convolution && is_batch_norm) {
                    last.batch_norm = Some(norm.to_owned());
                }
                continue;
            }
            Layer::Learned => continue,
        };
        if places.iter().any(|place| place.weight == seen.weight) {
            continue;
        }
        let Some(weight) = params.get(&seen.weight) else { continue };
        places.push(LayerPlace {
            name: seen.weight.trim_end_matches(".weight").to_owned(),
            shape: weight.dims().to_vec(),
            weight: seen.weight,
            bias: seen.bias,
            kind,
            batch_norm: None,
            positions,
        });
    }
    Ok(places)
}
