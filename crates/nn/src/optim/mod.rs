//! Optimisers that step named parameters in place, and whose state can be saved and restored exactly.

mod adam;
mod sgd;
mod state;

pub use adam::{Adam, AdamSettings};
pub use sgd::{Sgd, SgdSettings};

use candle_core::{Result, Tensor, Var, backprop::GradStore};

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
