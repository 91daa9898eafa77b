//! Generative models: one interface for paths, predictions, samplers, likelihoods and metrics.
//!
//! Every model of a Gaussian [`Path`] estimates the same thing, the clean data behind a noisy point. In the coordinates
//! y = x/α and τ = σ/α all such paths coincide: y = x₀ + τ ε, whatever the schedule. So a model is wrapped once as a
//! [`Denoiser`] D(y, τ) = E\[x₀ | y\], a [`Grid`] says at which noise levels it is asked, and every [`Sampler`] works on
//! every model. The field's shared state is y; [`Node::alpha`] leads back to x.
//!
//! - [`Schedule`], [`Path`], [`Prediction`]: what a model was trained on and what it predicts.
//! - [`exact`]: denoisers in closed form, of Gaussian mixtures and of data tables.
//! - [`sample`]: deterministic and stochastic samplers, with hooks between their steps.
//! - [`ode`]: flows of any velocity field; [`likelihood`]: densities along the probability flow.
//! - [`metrics`]: distances between samples, each with its standard error.
//! - [`network`]: denoisers that are trained here, with the shared model of the digits.

pub mod check;
mod compose;
mod denoiser;
pub mod exact;
mod grid;
pub mod likelihood;
pub mod metrics;
pub mod network;
mod noise;
pub mod ode;
mod path;
pub mod pfgmpp;
mod prediction;
pub mod sample;
mod schedule;

pub use compose::{Counted, Guidance, ScoreSum, Thresholded};
pub use denoiser::{Denoiser, Denoising, Model, Predicting};
pub use grid::{Grid, Node};
pub use noise::{Noise, normals};
pub use path::{Coefficients, Gamma, Interpolation, Kernel, Path, TwoSided};
pub use prediction::Prediction;
pub use sample::{Hook, Sampled, Sampler};
pub use schedule::{Point, Schedule};

use offprint_core::Paper;

/// The papers of this field.
pub fn papers() -> Vec<Paper> {
    vec![offprint_core::paper!("pfgmpp", pfgmpp::Pfgmpp)]
}
