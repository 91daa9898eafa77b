#![doc = include_str!("README.md")]

pub mod bridge;
pub mod examples;
pub mod fit;
pub mod gaussian;
mod gradient;
mod likelihood;
mod matching;
pub mod measure;
pub mod posterior;
mod process;
mod quadratics;
mod rotation;

pub use bridge::LightBridge;
pub use fit::{Objective, Options, Samples, Spread, Trainer};
pub use posterior::Posterior;
