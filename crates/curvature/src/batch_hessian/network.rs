//! The curvature of a network's loss over a data set as a sampled matrix.

use super::sampled::check_batch;
use super::{SampledGradients, SampledMatrix};
use crate::{LinearOperator, Product, Real};
use candle_core::{Device, Tensor};
use offprint_core::{Error, Result};
use offprint_nn::derivatives::LossFunction;
use offprint_nn::{Batch, computation, params};
use std::marker::PhantomData;

/// Which matrix of the loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matrix {
    /// The Hessian ∇²L.
    Hessian,
    /// The generalised Gauss–Newton matrix, which is never negative.
    GaussNewton,
}

/// Hessians, or Gauss–Newton matrices, of `loss` on batches of `data` at the present weights. `T` is what Lanczos
/// vectors are kept in; products are computed in the precision of the weights.
pub struct NetworkCurvature<'a, T = f32> {
    loss: &'a LossFunction<'a>,
    data: &'a Batch,
    matrix: Matrix,
    chunk: usize,
    element: PhantomData<fn() -> T>,
}

impl<'a, T: Real + params::Real> NetworkCurvature<'a, T> {
    /// With products over at most `chunk` samples at once, which bounds their memory.
    ///
    /// # Errors
    /// No sample; `chunk` = 0; a loss at the present weights that is not finite.
    pub fn new(loss: &'a LossFunction<'a>, data: &'a Batch, matrix: Matrix, chunk: usize) -> Result<Self> {
        if chunk == 0 {
            return Err(Error::parameter("chunk", chunk, "at least 1"));
        }
        let this = Self { loss, data, matrix, chunk, element: PhantomData };
        let value = this.value()?;
        if value.is_finite() {
            Ok(this)
        } else {
            Err(Error::Numerical(format!("the loss at these weights is {value}: it has no curvature to measure")))
        }
    }

    /// The loss over all data.
    ///
    /// # Errors
    /// The model refuses the data.
    pub fn value(&self) -> Result<f64> {
        let mut total = 0.0;
        for part in self.data.chunks(self.chunk) {
            total += self.loss.sample_losses(&part.map_err(computation)?)?.iter().sum::<f64>();
        }
        Ok(total / self.data.len() as f64)
    }

    fn select(&self, batch: &[u32]) -> Result<Batch> {
        check_batch(batch, self.data.len())?;
        Tensor::from_slice(batch, batch.len(), &Device::Cpu).and_then(|b| self.data.select(&b)).map_err(computation)
    }

    /// The mean over `batch` of what `part` gives for a part of it.
    fn mean<E: Real>(&self, batch: &Batch, part: impl Fn(&Batch) -> Result<Vec<E>>) -> Result<Vec<E>> {
        if batch.len() <= self.chunk {
            return part(batch);
        }
        let mut mean = vec![0.0; self.loss.dim()];
        for samples in batch.chunks(self.chunk) {
            let samples = samples.map_err(computation)?;
            let share = samples.len() as f64 / batch.len() as f64;
            mean.iter_mut().zip(part(&samples)?).for_each(|(mean, value)| *mean += share * Real::to_f64(value));
        }
        Ok(mean.into_iter().map(E::from_f64).collect())
    }

    fn operator(&self, batch: Batch) -> impl LinearOperator<T> {
        Product::new(self.loss.dim(), move |x: &[T], y: &mut [T]| {
            let image = self.mean(&batch, |part| match self.matrix {
                Matrix::Hessian => self.loss.hessian_product(part, x),
                Matrix::GaussNewton => self.loss.gauss_newton_product(part, x),
            })?;
            y.copy_from_slice(&image);
            Ok(())
        })
    }
}

impl<T: Real + params::Real> SampledMatrix for NetworkCurvature<'_, T> {
    type Element = T;

    fn samples(&self) -> usize {
        self.data.len()
    }

    fn dim(&self) -> usize {
        self.loss.dim()
    }

    fn batch(&self, batch: Vec<u32>) -> Result<impl LinearOperator<T>> {
        Ok(self.operator(self.select(&batch)?))
    }

    fn whole(&self) -> Result<impl LinearOperator<T>> {
        Ok(self.operator(self.data.clone()))
    }
}

impl<T: Real + params::Real> SampledGradients for NetworkCurvature<'_, T> {
    fn gradient(&self, batch: &[u32]) -> Result<Vec<f64>> {
        self.mean(&self.select(batch)?, |part| Ok(self.loss.gradient(part)?.1))
    }
}
