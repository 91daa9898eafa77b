#![doc = include_str!("README.md")]

mod bench;
mod extremes;
mod gradient_noise;
mod inspect;
mod layers;
mod learner;
mod network;
mod noise;
mod predict;
mod problem;
mod rates;
mod run;
mod sampled;
pub mod spiked;
mod study;

pub use extremes::{BatchEnds, Draws, Ends, Spread, Whole, batch_ends, ends, ends_within, whole};
pub use gradient_noise::{GradientNoise, SampledGradients, gradient_noise};
pub use layers::{BlockCurvature, DiagonalBlock, block_curvatures};
pub use learner::{Floor, Learner, Rates};
pub use network::NetworkCurvature;
pub use noise::{Noise, directional, effective, isotropic, without_noise};
pub use predict::{Law, Population};
pub use rates::{LearningRates, Scaling};
pub use run::{BatchHessianParams, Curvature, LawKind, LossKind, NoiseKind};
pub use sampled::{Callback, GradientRows, SampledMatrix, Sampling};

/// The paper, as the catalogue runs it.
#[derive(Debug, Clone, Copy)]
pub struct BatchHessian;
