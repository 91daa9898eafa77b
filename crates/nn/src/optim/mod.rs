//! Optimisers that step named parameters in place, and whose state can be saved and restored exactly.

mod adam;
mod sgd;
mod state;

pub use adam::{Adam, AdamSettings};
pub use sgd::{Sgd, SgdSettings};

use candle_core::{Result, Tensor, Var, backprop::GradStore, bail};

/// One step of gradient descent after another on an ordered list of named parameters.
pub trait Optimizer {
    /// Changes every parameter that has a gradient in `gradients`, in place.
    fn step(&mut self, gradients: &GradStore) -> Result<()>;

    /// The learning rate of the next step.
    fn learning_rate(&self) -> f64;

    /// Sets the learning rate of the next steps.
    fn set_learning_rate(&mut self, learning_rate: f64);

    /// The state beside the parameters, as named tensors: moments (`exp_avg.<parameter>`) and the number of steps.
    fn state(&self) -> Result<Vec<(String, Tensor)>>;

    /// Puts back what [`Optimizer::state`] gave; the next step is then bit for bit the one that would have followed.
    fn restore(&mut self, state: &[(String, Tensor)]) -> Result<()>;
}

/// A parameter and a name for it.
pub type Named = (String, Var);

/// The tensor `name` of a saved state.
fn find<'a>(state: &'a [(String, Tensor)], name: &str) -> Result<&'a Tensor> {
    match state.iter().find(|(have, _)| have == name) {
        Some((_, tensor)) => Ok(tensor),
        None => bail!("the optimiser's state has no tensor {name:?}"),
    }
}

/// The tensor `name` of a saved state, as the state of `parameter`.
fn find_like<'a>(state: &'a [(String, Tensor)], name: &str, parameter: &Var) -> Result<&'a Tensor> {
    let tensor = find(state, name)?;
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

/// The number of steps in a saved state.
fn find_steps(state: &[(String, Tensor)]) -> Result<u64> {
    let steps = find(state, "step")?.to_dtype(candle_core::DType::I64)?.to_scalar::<i64>()?;
    match u64::try_from(steps) {
        Ok(steps) => Ok(steps),
        Err(_) => bail!("the optimiser's state has step {steps}, but it must not be negative"),
    }
}
