//! Flows of velocity fields: fixed steps, adaptive steps, and the probability flow of a denoiser.

mod dormand_prince;
mod field;
mod fixed;

pub use dormand_prince::{Tolerance, integrate, solve};
pub use field::{Field, LevelFlow, PathFlow};
pub use fixed::{Rule, solve_fixed};
