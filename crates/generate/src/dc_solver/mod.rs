#![doc = include_str!("README.md")]

mod bench;
mod choice;
mod compensation;
mod example;
mod ratios;
mod reference;
mod regression;
mod run;
mod search;
mod study;
mod trial;
mod view;

pub use compensation::{Compensation, DcSampler, compensate, lagrange_weights};
pub use example::Example;
pub use ratios::{Ratios, TRUSTED};
pub use reference::{Reference, mean_squared_error};
pub use regression::{CascadePolynomial, Setting};
pub use run::{DcSolverParams, NoiseSchedule, Spacing, Task};
pub use search::{Found, Search, Variant};

/// The paper, as the catalogue runs it.
#[derive(Debug, Clone, Copy)]
pub struct DcSolver;
