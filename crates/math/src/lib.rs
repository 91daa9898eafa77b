//! Numerics shared by the papers that no crate gives in the form they need.
//!
//! Everything takes `ndarray` views and returns owned arrays; nothing reads files, prints or draws random numbers of
//! its own accord.

pub mod adam;
pub mod assignment;
pub mod lbfgs;
pub mod linalg;
pub mod line;
pub mod nelder_mead;
pub mod normal;
pub mod polar;
pub mod quadrature;
pub mod samples;
pub mod special;
pub mod stats;
pub mod vector;
pub mod walsh_hadamard;
