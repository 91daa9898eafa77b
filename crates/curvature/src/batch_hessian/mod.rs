//! Learning rates as a function of batch size.

mod extremes;
mod gradient_noise;
mod layers;
mod learner;
mod network;
mod noise;
mod predict;
mod rates;
mod sampled;
pub mod spiked;

pub use extremes::{BatchEnds, Draws, Ends, Spread, Whole, batch_ends, ends, whole};
pub use gradient_noise::{GradientNoise, SampledGradients, gradient_noise};
pub use layers::{BlockCurvature, DiagonalBlock, block_curvatures};
pub use learner::{Floor, Learner, Rates};
pub use network::NetworkCurvature;
pub use noise::{Noise, directional, effective, isotropic, without_noise};
pub use predict::{Law, Population};
pub use rates::{LearningRates, Scaling};
pub use sampled::{Callback, GradientRows, SampledMatrix, Sampling};

/// The paper, as the catalogue runs it.
#[derive(Debug, Clone, Copy)]
pub struct BatchHessian;
