//! Computing with other operands than a layer's own: fake-quantised or masked weights, quantised or recorded inputs,
//! corrected biases, quantised outputs of activations.
//!
//! Inside [`substituting`] every linear layer, convolution and embedding shows its operands to a [`Substitute`] and
//! computes with what that gives back; every named rectifier shows its output. The model is not changed, and gradients flow through whatever the substitute
//! did: a weight replaced by its fake-quantised self is quantisation-aware training.

use crate::ops;
use candle_core::{Result, Tensor};
use std::cell::RefCell;
use std::rc::Rc;

thread_local! {
    static SCOPE: RefCell<Option<Rc<dyn Substitute>>> = const { RefCell::new(None) };
}

/// What a layer computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerKind {
    /// `x wᵀ + b` over the last axis; weight (out, in).
    Linear,
    /// A convolution; weight (out, in / groups, height, width).
    Conv2d {
        /// Its geometry.
        conv: ops::Conv2d,
        /// Height and width of the kernel.
        kernel: (usize, usize),
    },
    /// Rows of a table (rows, width); the input is row numbers.
    Embedding,
}

/// One use of a layer in a forward pass.
#[derive(Debug, Clone, Copy)]
pub struct LayerUse<'a> {
    /// What it computes.
    pub kind: LayerKind,
    /// Full name of its weight. A head that shares an embedding's table has the table's name and another kind.
    pub weight: &'a str,
    /// Full name of its bias, if it has one.
    pub bias: Option<&'a str>,
}

/// What a layer computes with.
#[derive(Debug, Clone)]
pub struct Operands {
    /// Input: numbers, or row numbers of type `u32` for an embedding.
    pub input: Tensor,
    /// Weight.
    pub weight: Tensor,
    /// Bias; a layer without one may be given one.
    pub bias: Option<Tensor>,
}

/// Somebody who gives layers other operands than their own. State that changes stands in cells: a forward pass holds the
/// substitute shared.
pub trait Substitute {
    /// What the layer computes with instead of `own`. Shapes stay those that the layer can compute with.
    fn operands(&self, layer: LayerUse<'_>, own: Operands) -> Result<Operands> {
        let _ = layer;
        Ok(own)
    }

    /// What the layer gives out instead of `output`.
    fn output(&self, layer: LayerUse<'_>, output: Tensor) -> Result<Tensor> {
        let _ = layer;
        Ok(output)
    }

    /// What the [`Relu`](super::Relu) called `name` gives out instead of `output`.
    fn activation(&self, name: &str, output: Tensor) -> Result<Tensor> {
        let _ = name;
        Ok(output)
    }
}

/// Several substitutes, one after the other: each sees as a layer's own what the one before it gave.
pub struct Chain(pub Vec<Rc<dyn Substitute>>);

impl Substitute for Chain {
    fn operands(&self, layer: LayerUse<'_>, own: Operands) -> Result<Operands> {
        self.0.iter().try_fold(own, |own, substitute| substitute.operands(layer, own))
    }

    fn output(&self, layer: LayerUse<'_>, output: Tensor) -> Result<Tensor> {
        self.0.iter().try_fold(output, |output, substitute| substitute.output(layer, output))
    }

    fn activation(&self, name: &str, output: Tensor) -> Result<Tensor> {
        self.0.iter().try_fold(output, |output, substitute| substitute.activation(name, output))
    }
}

/// Runs `f` with `substitute` in charge of all layers on this thread. An inner call takes the place of an outer one until
/// it ends; without `substitute` layers are themselves again.
pub fn substituting<R>(substitute: Option<Rc<dyn Substitute>>, f: impl FnOnce() -> R) -> R {
    // Puts back the outer substitute, also if `f` panics.
    struct Restore(Option<Rc<dyn Substitute>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            SCOPE.set(self.0.take());
        }
    }
    let _restore = Restore(SCOPE.replace(substitute));
    f()
}

/// Computes a layer, with the operands of whoever is in charge.
pub(super) fn compute(
    layer: LayerUse<'_>,
    own: (&Tensor, &Tensor, Option<&Tensor>),
    f: impl FnOnce(&Tensor, &Tensor, Option<&Tensor>) -> Result<Tensor>,
) -> Result<Tensor> {
    // Cloned, so that a substitute may itself run networks.
    let Some(substitute) = SCOPE.with_borrow(Clone::clone) else { return f(own.0, own.1, own.2) };
    let own = Operands { input: own.0.clone(), weight: own.1.clone(), bias: own.2.cloned() };
    let Operands { input, weight, bias } = substitute.operands(layer, own)?;
    substitute.output(layer, f(&input, &weight, bias.as_ref())?)
}

/// The output of the activation called `name`, or what whoever is in charge gives instead.
pub(super) fn activated(name: &str, output: Tensor) -> Result<Tensor> {
    match SCOPE.with_borrow(Clone::clone) {
        Some(substitute) => substitute.activation(name, output),
        None => Ok(output),
    }
}
