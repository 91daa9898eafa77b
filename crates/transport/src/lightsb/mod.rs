#![doc = include_str!("README.md")]

mod bench;
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
mod run;
mod study;
mod view;

pub use bridge::LightBridge;
pub use fit::{Objective, Options, Samples, Spread, Trainer};
pub use posterior::Posterior;
pub use run::{LightSb, LightSbParams, Normalise, Solver};
