//! Curvature of losses: operators, what they tell, their inverses, and the papers on them.
//!
//! A [`LinearOperator`] is a symmetric matrix known by its products: a Hessian, a Gauss–Newton or a Fisher matrix of a
//! network, or any function. Over it work [`power_iteration`], [`lanczos`](fn@lanczos), stochastic Lanczos quadrature
//! ([`spectrum`]), Hutchinson's [`trace`] and [`diagonal`], [`conjugate_gradients`] and [`lissa`]. An [`Inverse`] is a
//! damped curvature matrix in a form that is inverted without being written out: K-FAC and EK-FAC
//! ([`KroneckerInverse`]), M-FAC ([`mfac`]). [`network`] makes operators of networks' losses. [`batch_hessian`] tells
//! where sampling noise moves extreme eigenvalues, and what learning rates follow.

mod basis;
pub mod batch_hessian;
mod hutchinson;
pub mod influence;
mod inverse;
mod kernel;
mod kronecker;
mod lanczos;
pub mod mfac;
pub mod network;
mod operator;
mod power;
mod quadrature;
mod real;
mod solve;
pub mod vector;
pub mod wide;

pub use hutchinson::{diagonal, trace, trace_until};
pub use inverse::Inverse;
pub use kronecker::{Damping, KroneckerFactors, KroneckerInverse, KroneckerLayer, KroneckerParts, LayerPlace};
pub use lanczos::{Deflated, Lanczos, Ritz, lanczos, lanczos_until};
pub use operator::{EmpiricalFisher, Explicit, LinearOperator, Product, Shifted};
pub use power::{Eigenpair, Until, power_iteration, power_iteration_until};
pub use quadrature::{Estimate, Spectrum, spectrum};
pub use real::Real;
pub use solve::{Solution, conjugate_gradients, lissa};

use offprint_core::Paper;

/// The papers of this field.
pub fn papers() -> Vec<Paper> {
    vec![
        offprint_core::paper!("mfac", mfac::Mfac),
        offprint_core::paper!("batch_hessian", batch_hessian::BatchHessian),
        offprint_core::paper!("influence", influence::Influence),
    ]
}
