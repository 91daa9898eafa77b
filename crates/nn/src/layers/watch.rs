//! Watching a model's layers: what went in, and the gradient at what came out.

use crate::ops;
use candle_core::{Result, Tensor, Var};
use std::cell::RefCell;

thread_local! {
    static SEEN: RefCell<Option<Vec<Seen>>> = const { RefCell::new(None) };
}

/// One use of a layer in a watched forward pass.
#[derive(Debug, Clone)]
pub struct Seen {
    /// What the layer computes from which input.
    pub layer: Layer,
    /// Full name of the weight.
    pub weight: String,
    /// Full name of the bias, if there is one.
    pub bias: Option<String>,
    /// Zeros that were added to the output: their gradient is the gradient at the output.
    pub probe: Var,
}

/// What a watched layer computes.
#[derive(Debug, Clone)]
pub enum Layer {
    /// `x wᵀ + b` over the last axis.
    Linear {
        /// Input (n, …, in).
        input: Tensor,
    },
    /// A convolution.
    Conv2d {
        /// Input (n, in, height, width).
        input: Tensor,
        /// Its geometry.
        conv: ops::Conv2d,
        /// Height and width of the kernel.
        kernel: (usize, usize),
    },
    /// A norm's `w x̂ + b`.
    Scale {
        /// Normalised input x̂ (n, …), of the output's shape.
        normalised: Tensor,
        /// The axis along which `w` and `b` run.
        axis: usize,
    },
    /// Rows of a table.
    Embedding {
        /// Row numbers (n, …).
        ids: Tensor,
        /// Number of rows of the table.
        rows: usize,
    },
    /// The parameter itself, the same for all samples.
    Learned,
}

/// Runs `f` and gives with its result every use of a layer in it, on this thread, in order.
pub fn watching<R>(f: impl FnOnce() -> R) -> (R, Vec<Seen>) {
    // Puts back what an outer call has seen, also if `f` panics.
    struct Restore(Option<Vec<Seen>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            SEEN.set(self.0.take());
        }
    }
    let restore = Restore(SEEN.replace(Some(Vec::new())));
    let result = f();
    let seen = SEEN.take().unwrap_or_default();
    drop(restore);
    (result, seen)
}

/// Whether somebody watches on this thread.
pub fn is_watched() -> bool {
    SEEN.with_borrow(Option::is_some)
}

/// Tells of one use of a layer, if somebody watches, and gives its output with the probe added.
pub fn tell(output: Tensor, weight: &str, bias: Option<&str>, layer: impl FnOnce() -> Result<Layer>) -> Result<Tensor> {
    if !is_watched() {
        return Ok(output);
    }
    let probe = Var::zeros(output.shape(), output.dtype(), output.device())?;
    let probed = output.add(probe.as_tensor())?;
    let seen = Seen { layer: layer()?, weight: weight.to_owned(), bias: bias.map(str::to_owned), probe };
    SEEN.with_borrow_mut(|all| all.get_or_insert_default().push(seen));
    Ok(probed)
}
