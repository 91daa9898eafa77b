//! The curvature of a network's loss over a data set as a sampled matrix.

use super::sampled::check_batch;
use super::{SampledGradients, SampledMatrix};
use crate::network::{LossOperator, Matrix};
use crate::{LinearOperator, Real};
use candle_core::{Device, Tensor};
use offprint_core::{Error, Result};
use offprint_nn::derivatives::LossFunction;
use offprint_nn::{Batch, computation, params};
use std::marker::PhantomData;

/// Hessians, Gauss–Newton or Fisher matrices of `loss` on batches of `data` at the present weights. `T` is what Lanczos
/// vectors are kept in; products are computed in the precision of the weights.
pub struct NetworkCurvature<'a, T = f32> {
    loss: &'a LossFunction<'a>,
    data: &'a Batch,
    matrix: Matrix,
    part: usize,
    element: PhantomData<fn() -> T>,
}

impl<'a, T: Real + params::Real> NetworkCurvature<'a, T> {
    /// With products over at most `part` samples at once, which bounds their memory.
    ///
    /// # Errors
    /// No sample; `part` = 0; a loss at the present weights that is not finite.
    pub fn new(loss: &'a LossFunction<'a>, data: &'a Batch, matrix: Matrix, part: usize) -> Result<Self> {
        if part == 0 {
            return Err(Error::parameter("part", part, "at least 1"));
        }
        let this = Self { loss, data, matrix, part, element: PhantomData };
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
    /// No sample; a model that refuses the data.
    pub fn value(&self) -> Result<f64> {
        if self.data.is_empty() {
            return Err(Error::parameter("samples", "none", "at least one"));
        }
        let mut total = 0.0;
        for part in self.data.chunks(self.part) {
            total += self.loss.sample_losses(&part.map_err(computation)?)?.iter().sum::<f64>();
        }
        Ok(total / self.data.len() as f64)
    }

    fn select(&self, batch: &[u32]) -> Result<Batch> {
        check_batch(batch, self.data.len())?;
        Tensor::from_slice(batch, batch.len(), &Device::Cpu).and_then(|b| self.data.select(&b)).map_err(computation)
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
        LossOperator::new(self.loss, self.matrix, &self.select(&batch)?, self.part)
    }

    fn whole(&self) -> Result<impl LinearOperator<T>> {
        LossOperator::new(self.loss, self.matrix, self.data, self.part)
    }
}

impl<T: Real + params::Real> SampledGradients for NetworkCurvature<'_, T> {
    fn gradient(&self, batch: &[u32]) -> Result<Vec<f64>> {
        let mut mean = vec![0.0; self.loss.dim()];
        for part in self.select(batch)?.chunks(self.part) {
            let part = part.map_err(computation)?;
            let (_, gradient) = self.loss.gradient::<f64>(&part)?;
            crate::vector::add_scaled(&mut mean, part.len() as f64 / batch.len() as f64, &gradient);
        }
        Ok(mean)
    }
}
