//! Derivatives of a model's loss as a function of its named parameters.
//!
//! A [`LossFunction`] is a model's forward pass and a [`Loss`]; vectors over the parameters are flattened as in
//! [`Params::flat`](crate::params::Params::flat), cut into [`Block`]s. With ℓᵢ the loss of sample i (summed over its
//! positions), f the outputs, J = ∂f/∂θ and L = (1/n) Σᵢ ℓᵢ it gives
//!
//! - the gradient ∇L and the gradients ∇ℓᵢ of single samples,
//! - products with the Hessian ∇²L, the generalised Gauss–Newton matrix (1/n) Σᵢ Jᵢᵀ ∇²_f ℓᵢ Jᵢ and the Fisher matrix
//!   (1/n) Σᵢ ∇ℓᵢ ∇ℓᵢᵀ with true or sampled targets, without forming a matrix,
//! - each layer's inputs and the gradients at its outputs.
//!
//! [`jets`] has derivatives with respect to inputs; [`PerceptronCurvature`] is the fast road for perceptrons.

pub mod jets;
mod keep_graph;
mod layers;
mod loss;
mod per_sample;
mod perceptron;
mod products;

pub use keep_graph::keeping_graph;
pub use layers::LayerTrace;
pub use loss::{IGNORED, Loss};
pub use perceptron::PerceptronCurvature;

use crate::batch::Batch;
use crate::error::computation;
use crate::models::Mlp;
use crate::ops;
use crate::params::{Block, Params, Real, flatten};
use candle_core::Tensor;
use candle_core::backprop::GradStore;
use offprint_core::random::Stream;
use offprint_core::{Error, Result};

/// A forward pass: inputs (n, …) to outputs (n, …).
type Forward<'a> = Box<dyn Fn(&Tensor) -> candle_core::Result<Tensor> + Sync + 'a>;

/// Which targets gradients are taken for.
#[derive(Debug, Clone, Copy)]
pub enum Targets {
    /// Those of the batch: the empirical Fisher matrix.
    True,
    /// Drawn from the distribution that the model predicts, sample i from generator i of the stream: the Fisher matrix.
    Sampled(Stream),
}

/// The loss of a model on a batch, as a function of the model's parameters.
pub struct LossFunction<'a> {
    params: &'a Params,
    forward: Forward<'a>,
    loss: Loss,
    perceptron: Option<&'a Mlp>,
}

impl<'a> LossFunction<'a> {
    /// `forward` must be the pass of the model that `params` belong to, with samples along the first axis that do not
    /// see each other (a batch norm in evaluation mode, no dropout).
    pub fn new(
        params: &'a Params,
        forward: impl Fn(&Tensor) -> candle_core::Result<Tensor> + Sync + 'a,
        loss: Loss,
    ) -> Self {
        Self { params, forward: Box::new(forward), loss, perceptron: None }
    }

    /// The loss of a perceptron, whose curvature has a faster road ([`Self::perceptron_curvature`]).
    pub fn of_perceptron(params: &'a Params, model: &'a Mlp, loss: Loss) -> Self {
        Self { perceptron: Some(model), ..Self::new(params, |x| model.forward(x), loss) }
    }

    /// The parameters. Setting them moves the point at which derivatives are taken.
    pub fn params(&self) -> &'a Params {
        self.params
    }

    /// The loss.
    pub fn loss(&self) -> Loss {
        self.loss
    }

    /// Number of parameters d: the length of every flattened vector here.
    pub fn dim(&self) -> usize {
        self.params.count()
    }

    /// Where the named parameters stand in a flattened vector.
    pub fn blocks(&self) -> Vec<Block> {
        self.params.blocks()
    }

    /// The model's outputs (n, …).
    pub fn outputs(&self, batch: &Batch) -> Result<Tensor> {
        (self.forward)(&batch.inputs).map_err(computation)
    }

    /// The loss ℓᵢ of each sample (n).
    pub fn sample_losses(&self, batch: &Batch) -> Result<Vec<f64>> {
        let losses = self.loss.per_sample(&self.outputs(batch)?, &batch.targets)?;
        flatten([&losses].into_iter(), batch.len())
    }

    /// The loss L.
    pub fn value(&self, batch: &Batch) -> Result<f64> {
        let losses = self.sample_losses(batch)?;
        if losses.is_empty() {
            return Err(empty());
        }
        Ok(losses.iter().sum::<f64>() / losses.len() as f64)
    }

    /// The loss L and its gradient (d).
    pub fn gradient<T: Real>(&self, batch: &Batch) -> Result<(f64, Vec<T>)> {
        let loss = self.mean_loss(batch)?;
        let gradients = ops::backward(&loss).map_err(computation)?;
        let value = flatten::<f64>([&loss].into_iter(), 1)?[0];
        Ok((value, self.collect(&gradients)?))
    }

    fn mean_loss(&self, batch: &Batch) -> Result<Tensor> {
        if batch.is_empty() {
            return Err(empty());
        }
        self.loss.per_sample(&self.outputs(batch)?, &batch.targets)?.mean_all().map_err(computation)
    }

    /// The targets of `batch`, or such as the model at `outputs` would give.
    fn targets(&self, outputs: &Tensor, batch: &Batch, targets: Targets) -> Result<Tensor> {
        match targets {
            Targets::True => Ok(batch.targets.clone()),
            Targets::Sampled(stream) => self.loss.sample(outputs, &batch.targets, stream),
        }
    }

    /// The gradients of all parameters as one vector; 0 for a parameter that the loss does not depend on.
    fn collect<T: Real>(&self, gradients: &GradStore) -> Result<Vec<T>> {
        let tensors = self
            .params
            .trained()
            .iter()
            .map(|p| gradients.get(&p.var).cloned().map_or_else(|| p.var.zeros_like(), Ok))
            .collect::<candle_core::Result<Vec<_>>>()
            .map_err(computation)?;
        flatten(tensors.iter(), self.dim())
    }
}

fn empty() -> Error {
    Error::parameter("batch", "no samples", "at least one sample")
}
