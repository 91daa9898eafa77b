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
//!
//! ```
//! use ndarray::array;
//! use offprint_core::random::Streams;
//! use offprint_generate::exact::{ExactMixture, Mixture};
//! use offprint_generate::sample::{DpmPlusPlus2M, Multistep};
//! use offprint_generate::{Denoiser, Grid, Sampler, Schedule};
//!
//! let law = Mixture::round(array![0.5, 0.5], array![[-2.0, 0.0], [2.0, 0.0]], array![0.1, 0.1].view())?;
//! let model = ExactMixture::new(law)?;
//! let grid = Grid::uniform_lambda(&Schedule::vp_linear(), 20, 1.0, 1e-3)?.with_final_denoising();
//! let stream = Streams::new(0).stream("start");
//! let start = grid.start(100, 2, model.kernel(), stream);
//! let x = Multistep::new(DpmPlusPlus2M).run(&model, start, &grid, stream)?.into_x();
//! assert!(x.column(0).iter().all(|x| (x.abs() - 2.0).abs() < 2.0));
//! # Ok::<(), offprint_core::Error>(())
//! ```

pub mod check;
pub mod compare;
mod compose;
pub mod dc_solver;
mod denoiser;
pub mod exact;
pub mod feynman_kac;
mod grid;
pub mod interpolants;
pub mod likelihood;
pub mod metrics;
pub mod network;
mod noise;
pub mod ode;
mod path;
pub mod pfgmpp;
mod pictures;
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

use offprint_core::{Comparison, Paper};

/// The papers of this field.
pub fn papers() -> Vec<Paper> {
    vec![
        offprint_core::paper!("interpolants", interpolants::Interpolants),
        offprint_core::paper!("pfgmpp", pfgmpp::Pfgmpp),
        offprint_core::paper!("dc_solver", dc_solver::DcSolver),
        offprint_core::paper!("feynman_kac", feynman_kac::FeynmanKac),
    ]
}

/// The comparisons of this field.
pub fn comparisons() -> Vec<Comparison> {
    vec![compare::SAMPLERS]
}
