//! Tables of vectors, and parameters that are added as they are.

use super::substitute::{LayerKind, LayerUse, compute};
use super::watch::{self, Layer};
use crate::ops;
use crate::params::{Init, Weights};
use candle_core::Tensor;

/// A table of vectors, looked up by row.
#[derive(Debug, Clone)]
pub struct Embedding {
    table: Tensor,
    name: String,
}

impl Embedding {
    /// `rows` vectors of `width` values, called `weight` as in PyTorch.
    pub fn new(rows: usize, width: usize, init: Init, weights: &Weights) -> offprint_core::Result<Self> {
        Ok(Self { table: weights.param("weight", &[rows, width], init)?, name: weights.full("weight") })
    }

    /// The table (rows, width).
    pub fn table(&self) -> &Tensor {
        &self.table
    }

    /// The table's full name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `ids` (…) of type `u32` to (…, width).
    pub fn forward(&self, ids: &Tensor) -> candle_core::Result<Tensor> {
        let layer = LayerUse { kind: LayerKind::Embedding, weight: &self.name, bias: None };
        compute(layer, (ids, &self.table, None), |ids, table, _| {
            let y = ops::embedding(table, ids)?;
            watch::tell(y, &self.name, None, || Ok(Layer::Embedding { ids: ids.clone(), rows: table.dim(0)? }))
        })
    }
}

/// A parameter that enters every sample as it is: position embeddings, class tokens.
#[derive(Debug, Clone)]
pub struct Learned {
    value: Tensor,
    name: String,
}

impl Learned {
    /// The parameter `name` of the given shape.
    pub fn new(name: &str, shape: &[usize], init: Init, weights: &Weights) -> offprint_core::Result<Self> {
        Ok(Self { value: weights.param(name, shape, init)?, name: weights.full(name) })
    }

    /// The parameter, broadcast to (n, shape without a leading 1): the first `n` dimension tells the samples apart.
    pub fn for_samples(&self, n: usize) -> candle_core::Result<Tensor> {
        let shape = self.value.dims();
        let inner = if shape.first() == Some(&1) { &shape[1..] } else { shape };
        let y = self.value.broadcast_as([&[n], inner].concat())?;
        watch::tell(y, &self.name, None, || Ok(Layer::Learned))
    }
}
