//! The matrices of a transformer that are quantised.

use super::weight::columns;
use super::{Levels, Reading, Rule, WeightQuantiser};
use candle_core::{Tensor, Var};
use offprint_core::Result;
use offprint_nn::computation;
use std::ops::Range;

/// Where the numbers of a matrix come from.
#[derive(Debug, Clone)]
pub(super) enum Origin {
    /// Rows of a weight.
    Rows(Var, Range<usize>),
    /// W_qᵀ W_k of each head, one below the other (heads · width, width), from the first two thirds of the rows of a
    /// `qkv` weight.
    Product { qkv: Var, heads: usize },
}

impl Origin {
    /// The matrix in floats, with the graph that leads to the weights. The gradient that reaches W_q is W_k dAᵀ, that of
    /// W_k is W_q dA: each with its partner in floats.
    pub fn floats(&self) -> candle_core::Result<Tensor> {
        match self {
            Self::Rows(var, rows) if rows.len() == var.dims()[0] => Ok(var.as_tensor().clone()),
            Self::Rows(var, rows) => var.as_tensor().narrow(0, rows.start, rows.len()),
            Self::Product { qkv, heads } => {
                let width = qkv.dim(1)?;
                let part = |i: usize| qkv.as_tensor().narrow(0, i * width, width)?.reshape((*heads, (), width));
                part(0)?.transpose(1, 2)?.contiguous()?.matmul(&part(1)?)?.reshape((heads * width, width))
            }
        }
    }
}

/// A matrix that is quantised.
#[derive(Debug)]
pub(super) struct Site {
    pub name: String,
    pub origin: Origin,
    /// None computes in floats.
    quantiser: Option<WeightQuantiser>,
    /// Its values, where the weights that they came from are not known any more.
    stored: Option<(Tensor, Reading)>,
}

impl Site {
    /// A matrix with levels of `bits` bits under `rule`, if any.
    pub fn new(name: String, origin: Origin, levels: Option<(Rule, u32)>) -> Result<Self> {
        let weight = origin.floats().map_err(computation)?.detach();
        let quantiser = levels.map(|(rule, bits)| WeightQuantiser::new(rule, &weight, bits)).transpose()?;
        Ok(Self { name, origin, quantiser, stored: None })
    }

    /// What the network computes with.
    pub fn weight(&self, margin: Option<f64>) -> candle_core::Result<Tensor> {
        match (&self.stored, &self.quantiser) {
            (Some((values, _)), _) => Ok(values.clone()),
            (None, None) => self.origin.floats(),
            (None, Some(quantiser)) => {
                quantiser.fake(&self.origin.floats()?, margin).map_err(|e| candle_core::Error::Msg(e.to_string()))
            }
        }
    }

    /// The matrix with its levels; none if it is in floats.
    pub fn read(&self) -> Result<Option<Reading>> {
        match (&self.stored, &self.quantiser) {
            (Some((_, reading)), _) => Ok(Some(reading.clone())),
            (None, None) => Ok(None),
            (None, Some(quantiser)) => {
                let weight = self.origin.floats().map_err(computation)?.detach();
                quantiser.read(&self.name, &weight).map(Some)
            }
        }
    }

    /// The trained scales, by name.
    pub fn trained(&self) -> Option<(String, Var)> {
        let var = self.quantiser.as_ref()?.trained()?;
        Some((format!("{}.scale", self.name), var.clone()))
    }

    /// Levels, rows, columns, and whether one scale serves all rows.
    pub fn layout(&self) -> Result<Option<(Levels, usize, usize, usize)>> {
        let Some(quantiser) = &self.quantiser else { return Ok(None) };
        let weight = self.origin.floats().map_err(computation)?;
        let rows = weight.dims().first().copied().unwrap_or(1);
        let scales = quantiser.trained().map_or(rows, |scales| scales.elem_count());
        Ok(Some((quantiser.levels(), rows, columns(&weight), scales)))
    }

    /// Fixes the values to those of `reading`, whose weights are on their levels.
    pub fn store(&mut self, reading: Reading) -> Result<()> {
        let shape = self.origin.floats().map_err(computation)?.shape().clone();
        let values = Tensor::from_slice(&reading.weights, shape, &candle_core::Device::Cpu).map_err(computation)?;
        self.stored = Some((values, reading));
        Ok(())
    }

    /// Overwrites weights: `values` gives for each its new value, if it is to have one. A product has no weights of its
    /// own and stays as it is.
    pub fn overwrite(&self, values: impl Fn(usize, f32) -> f32) -> candle_core::Result<()> {
        let Origin::Rows(var, rows) = &self.origin else { return Ok(()) };
        let columns = columns(var);
        let mut all = var.flatten_all()?.to_vec1::<f32>()?;
        let own = &mut all[rows.start * columns..rows.end * columns];
        own.iter_mut().enumerate().for_each(|(i, w)| *w = values(i, *w));
        var.set(&Tensor::from_vec(all, var.shape(), var.device())?)
    }
}
