//! A backward pass that hands the gradients of parameters over without adding them to zeros first.

use super::element::{Element, tensor};
use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, TensorId};
use std::cell::RefCell;
use std::collections::HashMap;

thread_local! {
    /// Gradients of variables that fused operations have handed over in the backward pass under way.
    static HANDED_OVER: RefCell<Option<HashMap<TensorId, Tensor>>> = const { RefCell::new(None) };
}

/// The gradients of `loss` (a scalar) with respect to the variables it depends on, as candle's `Tensor::backward`.
///
/// Candle makes zeros for every gradient and adds what comes in; here the gradient that a fused operation computes for
/// a variable is taken as it is, which spares three passes over the memory of the parameters.
pub fn backward(loss: &Tensor) -> Result<GradStore> {
    // Restores the outer pass's gradients also if this one panics.
    struct Restore(Option<HashMap<TensorId, Tensor>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            HANDED_OVER.set(self.0.take());
        }
    }
    let _restore = Restore(HANDED_OVER.replace(Some(HashMap::new())));
    let mut gradients = loss.backward()?;
    for (id, gradient) in HANDED_OVER.take().unwrap_or_default() {
        let gradient = match gradients.get_id(id) {
            Some(other) => (other + gradient)?,
            None => gradient,
        };
        gradients.insert_id(id, gradient);
    }
    Ok(gradients)
}

/// What an operation returns to candle as the gradient of `argument`, given its values in row-major order: nothing, if
/// [`backward`] has taken it.
pub fn hand_over<T: Element>(argument: &Tensor, gradient: Vec<T>) -> Result<Option<Tensor>> {
    let gradient = tensor(gradient, argument.shape())?;
    HANDED_OVER.with_borrow_mut(|taken| {
        let Some(taken) = taken.as_mut().filter(|_| argument.is_variable()) else { return Ok(Some(gradient)) };
        let sum = match taken.remove(&argument.id()) {
            Some(earlier) => (earlier + gradient)?,
            None => gradient,
        };
        taken.insert(argument.id(), sum);
        Ok(None)
    })
}
