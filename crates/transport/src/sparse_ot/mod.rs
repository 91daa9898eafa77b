#![doc = include_str!("README.md")]

mod adam;
mod bench;
mod bundle;
mod certificate;
pub mod colour;
mod conjugate;
mod objective;
mod problem;
mod proximal;
mod round;
pub mod routing;
pub mod run;
mod select;
mod solve;
mod study;

pub use adam::Adam;
pub use bundle::Bundle;
pub use certificate::{k_support_squared, relaxed_primal, repaired};
pub use objective::{Formulation, Objective, ReadOff};
pub use problem::{Problem, Regulariser};
pub use proximal::{Certified, Proximal};
pub use round::{Rounded, round};
pub use run::SparseOt;
pub use solve::{Settings, Solution, Solver, path, solve, solve_batch, solve_from};
