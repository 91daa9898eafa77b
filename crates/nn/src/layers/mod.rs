//! The layers that models are made of: named parameters, one operation, and a word to whoever watches.
//!
//! A layer takes its parameters from [`Weights`](crate::params::Weights) under the names of published checkpoints. While
//! [`watch::watching`] runs, each layer also tells its input and lets the gradient at its output be seen, which is what
//! per-sample gradients and Kronecker-factored curvature are made from. While [`substitute::substituting`] runs, each layer
//! computes with the operands that somebody else gives it, which is what quantisers and pruners are made from.

mod conv;
mod embedding;
mod linear;
mod norm;
mod places;
mod relu;
pub mod substitute;
pub mod watch;

pub use conv::Conv2d;
pub use embedding::{Embedding, Learned};
pub use linear::Linear;
pub use norm::{BatchNorm, GroupNorm, LayerNorm, RmsNorm};
pub use places::LayerPlace;
pub(crate) use places::places;
pub use relu::Relu;
pub use substitute::LayerKind;
