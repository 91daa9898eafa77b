//! What optimisers have in common: buffers beside every parameter, stepped in place together with it, saved and restored.

use super::Named;
use crate::ops::element::{Element, elements, vectorised};
use candle_core::{CpuStorage, DType, Device, InplaceOp2, Layout, Result, Tensor, Var, backprop::GradStore, bail};
use rayon::prelude::*;
use std::cell::RefCell;

/// Elements that one thread steps at a time: small enough for its cache, large enough to be worth handing out.
const CHUNK: usize = 1 << 14;

/// What one step does to some elements of a parameter, with `N` buffers beside it and the gradient: slices of equal
/// length.
pub trait Rule<const N: usize>: Sync {
    /// To be inlined, so that it is compiled for wide vectors.
    fn apply<T: Element>(&self, w: &mut [T], buffers: [&mut [T]; N], g: &[T]);
}

/// The parameters with `N` buffers each, and the number of steps so far.
#[derive(Debug)]
pub struct State<const N: usize> {
    /// Names of the buffers in a saved state: `<buffer>.<parameter>`.
    buffers: [&'static str; N],
    steps: u64,
    parameters: Vec<Stepped<N>>,
}

#[derive(Debug)]
struct Stepped<const N: usize> {
    name: String,
    parameter: Var,
    buffers: [CpuStorage; N],
}

impl<const N: usize> State<N> {
    /// Buffers of zeros. Parameters keep the order given.
    pub fn new(buffers: [&'static str; N], parameters: impl IntoIterator<Item = Named>) -> Result<Self> {
        let start = |(name, parameter): Named| {
            let zeros = zeros_like(&parameter)?;
            Ok(Stepped { name, parameter, buffers: std::array::from_fn(|_| zeros.clone()) })
        };
        Ok(Self { buffers, steps: 0, parameters: parameters.into_iter().map(start).collect::<Result<_>>()? })
    }

    /// The number of the step that follows, from 1.
    pub fn next_step(&self) -> u64 {
        self.steps + 1
    }

    /// Steps every parameter that has a gradient.
    pub fn step(&mut self, gradients: &GradStore, rule: &impl Rule<N>) -> Result<()> {
        self.steps += 1;
        for stepped in &mut self.parameters {
            if let Some(gradient) = gradients.get(&stepped.parameter) {
                match stepped.parameter.dtype() {
                    DType::F32 => stepped.step::<f32>(gradient, rule)?,
                    _ => stepped.step::<f64>(gradient, rule)?,
                }
            }
        }
        Ok(())
    }

    /// The number of steps (`step`) and all buffers as named tensors.
    pub fn saved(&self) -> Result<Vec<(String, Tensor)>> {
        let mut saved = vec![("step".to_owned(), Tensor::new(self.steps as i64, &Device::Cpu)?)];
        for Stepped { name, parameter, buffers } in &self.parameters {
            for (buffer, values) in self.buffers.iter().zip(buffers) {
                saved.push((format!("{buffer}.{name}"), to_tensor(values, parameter)?));
            }
        }
        Ok(saved)
    }

    /// Takes what [`Self::saved`] gave; all or, with an error, nothing.
    pub fn restore(&mut self, saved: &[(String, Tensor)]) -> Result<()> {
        let steps = find(saved, "step")?.to_dtype(DType::I64)?.to_scalar::<i64>()?;
        let Ok(steps) = u64::try_from(steps) else {
            bail!("the optimiser's state has step {steps}, but it must not be negative");
        };
        let mut restored = Vec::with_capacity(N * self.parameters.len());
        for Stepped { name, parameter, .. } in &self.parameters {
            for buffer in self.buffers {
                restored.push(from_tensor(find_like(saved, &format!("{buffer}.{name}"), parameter)?)?);
            }
        }
        self.steps = steps;
        let buffers = self.parameters.iter_mut().flat_map(|stepped| &mut stepped.buffers);
        buffers.zip(restored).for_each(|(buffer, values)| *buffer = values);
        Ok(())
    }
}

impl<const N: usize> Stepped<N> {
    fn step<T: Element>(&mut self, gradient: &Tensor, rule: &impl Rule<N>) -> Result<()> {
        let mut slices = Vec::with_capacity(N);
        for buffer in &mut self.buffers {
            slices.push(T::slice_mut(buffer)?);
        }
        // The slices are lent once; candle hands the operation on by shared reference.
        self.parameter.inplace_op2(gradient, &Step { buffers: RefCell::new(slices), rule })
    }
}

/// The tensor `name` of a saved state.
fn find<'a>(saved: &'a [(String, Tensor)], name: &str) -> Result<&'a Tensor> {
    match saved.iter().find(|(have, _)| have == name) {
        Some((_, tensor)) => Ok(tensor),
        None => bail!("the optimiser's state has no tensor {name:?}"),
    }
}

/// The tensor `name` of a saved state, as a buffer of `parameter`.
fn find_like<'a>(saved: &'a [(String, Tensor)], name: &str, parameter: &Var) -> Result<&'a Tensor> {
    let tensor = find(saved, name)?;
    if tensor.dims() != parameter.dims() || tensor.dtype() != parameter.dtype() {
        bail!(
            "the optimiser's state {name:?} has shape {:?} and type {:?}, but it must be {:?} and {:?}",
            tensor.dims(),
            tensor.dtype(),
            parameter.dims(),
            parameter.dtype()
        );
    }
    Ok(tensor)
}

/// Zeros of a parameter's type and number, beside which it will be stepped.
fn zeros_like(parameter: &Var) -> Result<CpuStorage> {
    match parameter.dtype() {
        DType::F32 => Ok(CpuStorage::F32(vec![0.0; parameter.elem_count()])),
        DType::F64 => Ok(CpuStorage::F64(vec![0.0; parameter.elem_count()])),
        other => bail!("an optimiser steps parameters of type F32 or F64, but got {other:?}"),
    }
}

/// A copy of a buffer in the parameter's shape.
fn to_tensor(buffer: &CpuStorage, parameter: &Var) -> Result<Tensor> {
    match buffer {
        CpuStorage::F32(values) => Tensor::from_slice(values, parameter.shape(), parameter.device()),
        CpuStorage::F64(values) => Tensor::from_slice(values, parameter.shape(), parameter.device()),
        _ => bail!("an optimiser's buffer is of type F32 or F64"),
    }
}

/// A saved tensor as the buffer of a parameter of the same type.
fn from_tensor(tensor: &Tensor) -> Result<CpuStorage> {
    let flat = tensor.flatten_all()?;
    match tensor.dtype() {
        DType::F32 => Ok(CpuStorage::F32(flat.to_vec1()?)),
        _ => Ok(CpuStorage::F64(flat.to_vec1()?)),
    }
}

/// A step of one parameter, chunk by chunk on all threads.
struct Step<'a, T, R, const N: usize> {
    buffers: RefCell<Vec<&'a mut [T]>>,
    rule: &'a R,
}

impl<T: Element, R: Rule<N>, const N: usize> InplaceOp2 for Step<'_, T, R, N> {
    fn name(&self) -> &'static str {
        "optimizer-step"
    }

    fn cpu_fwd(&self, w: &mut CpuStorage, w_layout: &Layout, g: &CpuStorage, g_layout: &Layout) -> Result<()> {
        let gradient = elements::<T>(g, g_layout)?;
        let Some((start, end)) = w_layout.contiguous_offsets() else {
            bail!("a parameter of shape {:?} is not contiguous in memory", w_layout.dims());
        };
        let w = &mut T::slice_mut(w)?[start..end];
        if gradient.len() != w.len() {
            bail!("the gradient has shape {:?}, but its parameter {:?}", g_layout.dims(), w_layout.dims());
        }
        let mut buffers = self.buffers.borrow_mut();
        let mut columns: Vec<_> = buffers.iter_mut().map(|buffer| buffer.chunks_mut(CHUNK)).collect();
        let mut pieces = Vec::with_capacity(w.len().div_ceil(CHUNK));
        for (w, g) in w.chunks_mut(CHUNK).zip(gradient.chunks(CHUNK)) {
            let buffers = std::array::from_fn(|i| columns[i].next().expect("buffers are as long as the parameter"));
            pieces.push((w, buffers, g));
        }
        let rule = self.rule;
        let apply = |(w, buffers, g)| {
            vectorised(
                #[inline(always)]
                || rule.apply::<T>(w, buffers, g),
            )
        };
        if pieces.len() == 1 {
            pieces.into_iter().for_each(apply);
        } else {
            pieces.into_par_iter().for_each(apply);
        }
        Ok(())
    }
}
