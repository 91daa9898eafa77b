//! Sparsity-constrained optimal transport.

mod adam;
mod bundle;
mod certificate;
mod conjugate;
mod objective;
mod problem;
mod proximal;
mod round;
mod select;
mod solve;

pub use adam::Adam;
pub use bundle::Bundle;
pub use certificate::{k_support_squared, relaxed_primal, repaired};
pub use objective::{Formulation, Objective, ReadOff};
pub use problem::{Problem, Regulariser};
pub use proximal::{Certified, Proximal};
pub use round::{Rounded, round};
pub use solve::{Settings, Solution, Solver, path, solve, solve_batch, solve_from};
