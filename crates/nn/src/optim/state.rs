//! How a step reaches a parameter's memory together with its gradient and the optimiser's own buffers.

use crate::ops::element::{Element, elements};
use candle_core::{CpuStorage, DType, InplaceOp2, Layout, Result, Tensor, Var, bail};
use rayon::prelude::*;
use std::cell::RefCell;

/// Elements that one thread steps at a time: small enough for its cache, large enough to be worth handing out.
const CHUNK: usize = 1 << 14;

/// Zeros of a parameter's type and number, beside which it will be stepped.
pub fn zeros_like(parameter: &Var) -> Result<CpuStorage> {
    match parameter.dtype() {
        DType::F32 => Ok(CpuStorage::F32(vec![0.0; parameter.elem_count()])),
        DType::F64 => Ok(CpuStorage::F64(vec![0.0; parameter.elem_count()])),
        other => bail!("an optimiser steps parameters of type F32 or F64, but got {other:?}"),
    }
}

/// A copy of a buffer in the parameter's shape.
pub fn to_tensor(buffer: &CpuStorage, parameter: &Var) -> Result<Tensor> {
    match buffer {
        CpuStorage::F32(values) => Tensor::from_slice(values, parameter.shape(), parameter.device()),
        CpuStorage::F64(values) => Tensor::from_slice(values, parameter.shape(), parameter.device()),
        _ => bail!("an optimiser's buffer is of type F32 or F64"),
    }
}

/// A saved tensor as the buffer of a parameter of the same type.
pub fn from_tensor(tensor: &Tensor) -> Result<CpuStorage> {
    let flat = tensor.flatten_all()?;
    match tensor.dtype() {
        DType::F32 => Ok(CpuStorage::F32(flat.to_vec1()?)),
        _ => Ok(CpuStorage::F64(flat.to_vec1()?)),
    }
}

/// What a step does to some elements: `(parameter, buffers, gradient)`, slices of equal length.
pub trait Kernel<T, const N: usize>: Fn(&mut [T], [&mut [T]; N], &[T]) + Sync {}
impl<T, const N: usize, F: Fn(&mut [T], [&mut [T]; N], &[T]) + Sync> Kernel<T, N> for F {}

/// Steps `parameter` and its `buffers` in place, chunk by chunk on all threads.
pub fn step_in_place<T: Element, const N: usize>(
    parameter: &Var,
    gradient: &Tensor,
    buffers: [&mut CpuStorage; N],
    kernel: impl Kernel<T, N>,
) -> Result<()> {
    let mut slices = Vec::with_capacity(N);
    for buffer in buffers {
        slices.push(T::slice_mut(buffer)?);
    }
    // The slices are lent once; candle hands the operation on by shared reference.
    parameter.inplace_op2(gradient, &Step { buffers: RefCell::new(slices), kernel })
}

struct Step<'a, T, K, const N: usize> {
    buffers: RefCell<Vec<&'a mut [T]>>,
    kernel: K,
}

impl<T: Element, K: Kernel<T, N>, const N: usize> InplaceOp2 for Step<'_, T, K, N> {
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
        let Self { buffers, kernel } = self;
        let mut buffers = buffers.borrow_mut();
        let mut columns: Vec<_> = buffers.iter_mut().map(|buffer| buffer.chunks_mut(CHUNK)).collect();
        let mut pieces = Vec::with_capacity(w.len().div_ceil(CHUNK));
        for (w, g) in w.chunks_mut(CHUNK).zip(gradient.chunks(CHUNK)) {
            let buffers = std::array::from_fn(|i| columns[i].next().expect("buffers are as long as the parameter"));
            pieces.push((w, buffers, g));
        }
        if pieces.len() == 1 {
            pieces.into_iter().for_each(|(w, buffers, g)| kernel(w, buffers, g));
        } else {
            pieces.into_par_iter().for_each(|(w, buffers, g)| kernel(w, buffers, g));
        }
        Ok(())
    }
}
