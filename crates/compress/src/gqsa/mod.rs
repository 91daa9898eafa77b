//! GQSA.
pub mod engine;
