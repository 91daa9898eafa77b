//! The parameters of a model: named tensors in the order in which the model made them.
//!
//! A model is built from [`Weights`], which either draws fresh tensors or takes them from a [`Checkpoint`]; the same
//! constructor serves both. [`Weights::finish`] then gives the [`Params`]: what an optimiser steps, what a checkpoint
//! holds and what derivatives are taken in.

use crate::checkpoint::Checkpoint;
use crate::error::computation;
use candle_core::{DType, Device, Tensor, Var};
use offprint_core::random::Streams;
use offprint_core::{Error, Result};
use rand_distr::{Distribution, StandardNormal, Uniform};
use std::cell::RefCell;
use std::collections::HashSet;
use std::ops::Range;
use std::rc::Rc;

/// How a fresh tensor is filled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// One value everywhere: 0 for biases, 1 for the gains of norms.
    Constant(f64),
    /// Uniform in ±`bound`.
    Uniform {
        /// Largest absolute value.
        bound: f64,
    },
    /// Normal with mean 0.
    Normal {
        /// Standard deviation.
        std: f64,
    },
    /// Normal with mean 0, drawn again wherever it exceeds two standard deviations (ViT).
    TruncatedNormal {
        /// Standard deviation before truncation.
        std: f64,
    },
}

impl Init {
    /// PyTorch's default for weights and biases of linear and convolution layers: uniform in ±1/√fan_in.
    pub fn fan_in(fan_in: usize) -> Self {
        Self::Uniform { bound: 1.0 / (fan_in.max(1) as f64).sqrt() }
    }

    /// He initialisation for ReLU networks: normal with variance 2/fan.
    pub fn he(fan: usize) -> Self {
        Self::Normal { std: (2.0 / fan.max(1) as f64).sqrt() }
    }

    fn draw(self, n: usize, rng: &mut offprint_core::random::Rng) -> Vec<f64> {
        let normal = |rng: &mut _| -> f64 { StandardNormal.sample(rng) };
        match self {
            Self::Constant(value) => vec![value; n],
            Self::Uniform { bound } if bound > 0.0 => {
                let uniform = Uniform::new_inclusive(-bound, bound).expect("bounds are finite and ordered");
                (0..n).map(|_| uniform.sample(rng)).collect()
            }
            Self::Uniform { .. } => vec![0.0; n],
            Self::Normal { std } => (0..n).map(|_| std * normal(rng)).collect(),
            Self::TruncatedNormal { std } => (0..n)
                .map(|_| {
                    let mut z = normal(rng);
                    while z.abs() > 2.0 {
                        z = normal(rng);
                    }
                    std * z
                })
                .collect(),
        }
    }
}

/// A named tensor of a model.
#[derive(Debug, Clone)]
pub struct Param {
    /// The name, as in published checkpoints ("blocks.0.attn.qkv.weight").
    pub name: String,
    /// The value. The model holds the same storage, so setting it changes the model.
    pub var: Var,
}

/// The place of a parameter in the flattened vector of all parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The parameter's name.
    pub name: String,
    /// Where its values stand, row by row.
    pub range: Range<usize>,
    /// First dimension: outputs of a linear or convolution layer. 1 for a scalar.
    pub rows: usize,
    /// Product of the other dimensions: inputs (× kernel height × kernel width). 1 for a bias.
    pub columns: usize,
}

/// All parameters of a model, in the order in which it made them.
#[derive(Debug, Clone)]
pub struct Params {
    trained: Vec<Param>,
    buffers: Vec<Param>,
    dtype: DType,
}

impl Params {
    /// The parameters that training changes.
    pub fn trained(&self) -> &[Param] {
        &self.trained
    }

    /// Tensors that belong to the model's state but have no gradient (running statistics of batch norm).
    pub fn buffers(&self) -> &[Param] {
        &self.buffers
    }

    /// F32 or F64.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The variables of [`Self::trained`], for an optimiser.
    pub fn vars(&self) -> Vec<(String, Var)> {
        self.trained.iter().map(|p| (p.name.clone(), p.var.clone())).collect()
    }

    /// The number of trained values.
    pub fn count(&self) -> usize {
        self.trained.iter().map(|p| p.var.elem_count()).sum()
    }

    /// The parameter or buffer called `name`.
    pub fn get(&self, name: &str) -> Option<&Var> {
        self.trained.iter().chain(&self.buffers).find(|p| p.name == name).map(|p| &p.var)
    }

    /// Where each parameter stands in [`Self::flat`].
    pub fn blocks(&self) -> Vec<Block> {
        let mut start = 0;
        self.trained
            .iter()
            .map(|p| {
                let n = p.var.elem_count();
                let rows = p.var.dims().first().copied().unwrap_or(1);
                let range = start..start + n;
                start += n;
                Block { name: p.name.clone(), range, rows, columns: n.checked_div(rows).unwrap_or(0) }
            })
            .collect()
    }

    /// All trained values, one parameter after the other, each row by row.
    pub fn flat<T: Real>(&self) -> Result<Vec<T>> {
        flatten(self.trained.iter().map(|p| p.var.as_tensor()), self.count())
    }

    /// Sets all trained values from their flattened form.
    pub fn set_flat<T: Real>(&self, values: &[T]) -> Result<()> {
        for (param, tensor) in self.trained.iter().zip(self.unflatten(values)?) {
            param.var.set(&tensor).map_err(computation)?;
        }
        Ok(())
    }

    /// Cuts a flattened vector into tensors with the shapes of the parameters.
    pub fn unflatten<T: Real>(&self, values: &[T]) -> Result<Vec<Tensor>> {
        if values.len() != self.count() {
            return Err(Error::parameter(
                "parameters",
                format!("{} values", values.len()),
                format!("{} values, one for each trained parameter", self.count()),
            ));
        }
        self.blocks()
            .into_iter()
            .zip(&self.trained)
            .map(|(block, param)| {
                Tensor::from_slice(&values[block.range], param.var.shape(), &Device::Cpu)
                    .and_then(|t| t.to_dtype(self.dtype))
                    .map_err(computation)
            })
            .collect()
    }

    /// Names and present values of parameters and buffers, for a checkpoint. The values are copies: later training
    /// does not change them.
    pub fn snapshot(&self) -> Result<Vec<(String, Tensor)>> {
        self.trained
            .iter()
            .chain(&self.buffers)
            .map(|p| Ok((p.name.clone(), p.var.as_detached_tensor().copy().map_err(computation)?)))
            .collect()
    }

    /// Sets parameters and buffers from `checkpoint`, which must hold each of them under `prefix` and its name.
    pub fn restore(&self, checkpoint: &Checkpoint, prefix: &str) -> Result<()> {
        for param in self.trained.iter().chain(&self.buffers) {
            let tensor = checkpoint.shaped(&format!("{prefix}{}", param.name), param.var.dims(), self.dtype)?;
            param.var.set(&tensor).map_err(computation)?;
        }
        Ok(())
    }
}

/// The element types in which derivatives and flattened parameters are handed out.
pub trait Real: candle_core::WithDType + candle_core::FloatDType + ndarray::NdFloat {}

impl Real for f32 {}
impl Real for f64 {}

pub(crate) fn flatten<'a, T: Real>(tensors: impl Iterator<Item = &'a Tensor>, count: usize) -> Result<Vec<T>> {
    let mut values = Vec::with_capacity(count);
    for tensor in tensors {
        let flat = tensor.to_dtype(T::DTYPE).and_then(|t| t.flatten_all()).and_then(|t| t.to_vec1::<T>());
        values.extend(flat.map_err(computation)?);
    }
    Ok(values)
}

#[derive(Debug)]
enum Origin {
    Fresh(Streams),
    Loaded(Checkpoint),
}

#[derive(Debug)]
struct Shared {
    origin: Origin,
    dtype: DType,
    made: RefCell<Params>,
}

/// Where a model under construction gets its tensors from, at a place in the tree of names.
#[derive(Debug, Clone)]
pub struct Weights {
    shared: Rc<Shared>,
    prefix: String,
}

impl Weights {
    /// Fresh tensors, drawn by their [`Init`] from the streams of `seed`. A tensor's values depend on the seed, its name
    /// and its shape, not on what else the model has. `dtype` is F32 or F64.
    pub fn fresh(seed: u64, dtype: DType) -> Result<Self> {
        Self::from_origin(Origin::Fresh(Streams::new(seed)), dtype)
    }

    /// The tensors of `checkpoint`, converted to `dtype` (F32 or F64).
    pub fn loaded(checkpoint: Checkpoint, dtype: DType) -> Result<Self> {
        Self::from_origin(Origin::Loaded(checkpoint), dtype)
    }

    fn from_origin(origin: Origin, dtype: DType) -> Result<Self> {
        if !matches!(dtype, DType::F32 | DType::F64) {
            return Err(Error::parameter("dtype", dtype.as_str(), "f32 or f64"));
        }
        let made = RefCell::new(Params { trained: Vec::new(), buffers: Vec::new(), dtype });
        Ok(Self { shared: Rc::new(Shared { origin, dtype, made }), prefix: String::new() })
    }

    /// The place `name` below this one.
    pub fn at(&self, name: impl std::fmt::Display) -> Self {
        Self { shared: self.shared.clone(), prefix: self.full(&name.to_string()) }
    }

    /// The full name of this place.
    pub fn place(&self) -> &str {
        &self.prefix
    }

    /// The full name of `name` at this place.
    pub fn full(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }

    /// F32 or F64.
    pub fn dtype(&self) -> DType {
        self.shared.dtype
    }

    /// Whether the checkpoint holds `name` at this place; never so for fresh weights.
    pub fn holds(&self, name: &str) -> bool {
        match &self.shared.origin {
            Origin::Fresh(_) => false,
            Origin::Loaded(checkpoint) => checkpoint.shape(&self.full(name)).is_some(),
        }
    }

    /// The trained parameter `name` of the given shape.
    pub fn param(&self, name: &str, shape: &[usize], init: Init) -> Result<Tensor> {
        self.tensor(name, shape, init, true).map(Var::into_inner)
    }

    /// The untrained tensor `name` of the given shape.
    pub fn buffer(&self, name: &str, shape: &[usize], init: Init) -> Result<Var> {
        self.tensor(name, shape, init, false)
    }

    fn tensor(&self, name: &str, shape: &[usize], init: Init, trained: bool) -> Result<Var> {
        let name = self.full(name);
        let mut made = self.shared.made.borrow_mut();
        if made.get(&name).is_some() {
            return Err(Error::Numerical(format!("the model asks twice for the parameter \"{name}\"")));
        }
        let tensor = match &self.shared.origin {
            Origin::Loaded(checkpoint) => checkpoint.shaped(&name, shape, self.shared.dtype)?,
            Origin::Fresh(streams) => {
                let values = init.draw(shape.iter().product(), &mut streams.stream(&name).rng(0));
                Tensor::from_vec(values, shape, &Device::Cpu)
                    .and_then(|t| t.to_dtype(self.shared.dtype))
                    .map_err(computation)?
            }
        };
        let var = Var::from_tensor(&tensor).map_err(computation)?;
        let param = Param { name, var: var.clone() };
        if trained {
            made.trained.push(param)
        } else {
            made.buffers.push(param)
        }
        Ok(var)
    }

    /// The parameters of the finished model. Fails if the checkpoint holds tensors that the model did not ask for,
    /// except names that end in one of `ignored`; the error names them.
    pub fn finish(&self, ignored: &[&str]) -> Result<Params> {
        let made = self.shared.made.borrow().clone();
        if let Origin::Loaded(checkpoint) = &self.shared.origin {
            let asked: HashSet<&str> = made.trained.iter().chain(&made.buffers).map(|p| p.name.as_str()).collect();
            let unknown: Vec<&str> = checkpoint
                .names()
                .filter(|name| !asked.contains(name) && !ignored.iter().any(|ending| name.ends_with(ending)))
                .collect();
            if !unknown.is_empty() {
                let more = if unknown.len() > 8 { format!(" and {} more", unknown.len() - 8) } else { String::new() };
                return Err(Error::input(
                    checkpoint.origin(),
                    format!(
                        "holds tensors that this model does not have: {}{more}",
                        unknown[..unknown.len().min(8)].join(", ")
                    ),
                ));
            }
        }
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two(seed: u64) -> Params {
        let weights = Weights::fresh(seed, DType::F64).unwrap();
        weights.at("a").param("weight", &[2, 3], Init::fan_in(3)).unwrap();
        weights.param("b", &[4], Init::Constant(1.0)).unwrap();
        weights.finish(&[]).unwrap()
    }

    #[test]
    fn flattening_and_setting_are_inverse() {
        let params = two(1);
        let values: Vec<f64> = (0..10).map(f64::from).collect();
        params.set_flat(&values).unwrap();
        assert_eq!(params.flat::<f64>().unwrap(), values);
        assert_eq!(params.get("a.weight").unwrap().to_vec2::<f64>().unwrap(), [[0., 1., 2.], [3., 4., 5.]]);
        let blocks = params.blocks();
        assert_eq!((blocks[0].rows, blocks[0].columns, blocks[0].range.clone()), (2, 3, 0..6));
        assert_eq!((blocks[1].rows, blocks[1].columns, blocks[1].range.clone()), (4, 1, 6..10));
        let error = params.set_flat(&values[1..]).unwrap_err().to_string();
        assert!(error.contains("9 values") && error.contains("10 values"), "{error}");
    }

    #[test]
    fn draws_depend_on_seed_and_name_and_keep_their_bounds() {
        let weights = |params: &Params| params.flat::<f64>().unwrap()[..6].to_vec();
        assert_eq!(weights(&two(1)), weights(&two(1)));
        assert_ne!(weights(&two(1)), weights(&two(2)));
        assert!(weights(&two(1)).iter().all(|w| w.abs() <= 1.0 / 3f64.sqrt()));
        let mut rng = Streams::new(3).stream("x").rng(0);
        let z = Init::TruncatedNormal { std: 0.5 }.draw(20_000, &mut rng);
        assert!(z.iter().all(|z| z.abs() <= 1.0));
        // A standard normal cut at ±2 has variance 1 − 2·2φ(2)/(2Φ(2) − 1) = 0.7737.
        let variance = z.iter().map(|z| z * z).sum::<f64>() / 20_000.0;
        assert!((variance - 0.25 * 0.7737).abs() < 0.006, "{variance}");
    }

    #[test]
    fn a_name_is_given_once_and_integers_are_no_weights() {
        let weights = Weights::fresh(0, DType::F32).unwrap();
        weights.param("w", &[1], Init::Constant(0.0)).unwrap();
        assert!(weights.param("w", &[1], Init::Constant(0.0)).unwrap_err().to_string().contains("\"w\""));
        assert!(Weights::fresh(0, DType::U32).unwrap_err().to_string().contains("dtype"));
    }
}
