//! Products with the Hessian, the Jacobian, the Gauss–Newton matrix and the Fisher matrix.

use super::{LossFunction, Targets, empty, keeping_graph};
use crate::batch::Batch;
use crate::error::computation;
use crate::ops;
use crate::params::Real;
use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};
use offprint_core::Result;

impl LossFunction<'_> {
    /// ∇²L v (d), by differentiating ⟨∇L, v⟩.
    pub fn hessian_product<T: Real>(&self, batch: &Batch, v: &[T]) -> Result<Vec<T>> {
        let v = self.params.unflatten(v)?;
        keeping_graph(|| {
            let gradients = self.mean_loss(batch)?.backward().map_err(computation)?;
            let along = self.dot(&gradients, &v).and_then(|dot| dot.backward()).map_err(computation)?;
            self.collect(&along)
        })
    }

    /// J v, of the outputs' shape: how the outputs change as the parameters move along `v`.
    pub fn jacobian_product<T: Real>(&self, batch: &Batch, v: &[T]) -> Result<Tensor> {
        let v = self.params.unflatten(v)?;
        keeping_graph(|| {
            let outputs = self.outputs(batch)?;
            self.push_forward(&outputs, &v).map_err(computation)
        })
    }

    /// Jᵀ w (d) for `w` of the outputs' shape.
    pub fn transposed_jacobian_product<T: Real>(&self, batch: &Batch, w: &Tensor) -> Result<Vec<T>> {
        let outputs = self.outputs(batch)?;
        self.pull_back(&outputs, w)
    }

    /// The value and the gradient (d) of any function of the outputs: `function` gives its value at the outputs and its
    /// gradient in them, of their shape.
    pub fn gradient_through<T: Real>(
        &self,
        batch: &Batch,
        function: impl FnOnce(&Tensor) -> Result<(f64, Tensor)>,
    ) -> Result<(f64, Vec<T>)> {
        let outputs = self.outputs(batch)?;
        let (value, w) = function(&outputs.detach())?;
        Ok((value, self.pull_back(&outputs, &w)?))
    }

    /// The generalised Gauss–Newton matrix times `v` (d): (1/n) Σᵢ Jᵢᵀ ∇²_f ℓᵢ Jᵢ v.
    pub fn gauss_newton_product<T: Real>(&self, batch: &Batch, v: &[T]) -> Result<Vec<T>> {
        self.through_outputs(batch, v, |outputs, moved| {
            self.loss.output_hessian_product(outputs, &batch.targets, moved)
        })
    }

    /// The Fisher matrix times `v` (d): (1/n) Σᵢ ∇ℓᵢ ⟨∇ℓᵢ, v⟩ with true targets (the empirical Fisher matrix) or
    /// sampled ones.
    pub fn fisher_product<T: Real>(&self, batch: &Batch, v: &[T], targets: Targets) -> Result<Vec<T>> {
        self.through_outputs(batch, v, |outputs, moved| {
            let residual = self.loss.output_gradient(outputs, &self.targets(outputs, batch, targets)?)?;
            // ∇ℓᵢ = Jᵢᵀ rᵢ, so ⟨∇ℓᵢ, v⟩ = ⟨rᵢ, Jᵢ v⟩.
            (|| {
                let n = residual.dim(0)?;
                let mut shape = vec![1; residual.rank()];
                shape[0] = n;
                let along = (&residual * moved)?.reshape((n, ()))?.sum(1)?.reshape(shape)?;
                residual.broadcast_mul(&along)
            })()
            .map_err(computation)
        })
    }

    /// (1/n) Jᵀ `middle`(J v).
    fn through_outputs<T: Real>(
        &self,
        batch: &Batch,
        v: &[T],
        middle: impl Fn(&Tensor, &Tensor) -> Result<Tensor> + Sync,
    ) -> Result<Vec<T>> {
        let v = self.params.unflatten(v)?;
        if batch.is_empty() {
            return Err(empty());
        }
        keeping_graph(|| {
            let outputs = self.outputs(batch)?;
            let moved = self.push_forward(&outputs, &v).map_err(computation)?.detach();
            let w = middle(&outputs, &moved)?.affine(1.0 / batch.len() as f64, 0.0).map_err(computation)?;
            self.pull_back(&outputs, &w)
        })
    }

    /// J v by differentiating twice: Jᵀ u is linear in u, and the gradient of ⟨Jᵀ u, v⟩ in u is J v.
    fn push_forward(&self, outputs: &Tensor, v: &[Tensor]) -> candle_core::Result<Tensor> {
        let u = Var::zeros(outputs.shape(), outputs.dtype(), outputs.device())?;
        let pulled = (outputs * u.as_tensor())?.sum_all()?.backward()?;
        let moved = self.dot(&pulled, v)?.backward()?;
        moved.get(&u).cloned().map_or_else(|| outputs.zeros_like(), Ok)
    }

    fn pull_back<T: Real>(&self, outputs: &Tensor, w: &Tensor) -> Result<Vec<T>> {
        let gradients =
            (outputs * w.detach()).and_then(|s| s.sum_all()).and_then(|s| ops::backward(&s)).map_err(computation)?;
        self.collect(&gradients)
    }

    /// ⟨gradients, v⟩ over all parameters.
    fn dot(&self, gradients: &GradStore, v: &[Tensor]) -> candle_core::Result<Tensor> {
        let mut total = Tensor::zeros((), self.params.dtype(), &candle_core::Device::Cpu)?;
        for (param, v) in self.params.trained().iter().zip(v) {
            if let Some(gradient) = gradients.get(&param.var) {
                total = (total + (gradient * v)?.sum_all()?)?;
            }
        }
        Ok(total)
    }
}
