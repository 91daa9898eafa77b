//! Samplers: from noise to data along a [`Grid`].
//!
//! Two families stand behind one trait. [`Multistep`] samplers combine stored outputs of the model; a [`Solver`] says
//! with which numbers. [`Stepwise`] samplers see the last state only; a [`Step`] says how. Both call a [`Hook`] between
//! their steps, which may look, perturb, resample, or change what is stored.

mod ancestral;
mod ddim;
mod deis;
mod dpm;
mod dpm_v3;
mod euler_maruyama;
mod heun;
mod hook;
mod multistep;
mod named;
mod stepwise;
mod unipc;
mod variance;

pub use ancestral::{Ancestral, SdeDpm};
pub use ddim::Ddim;
pub use deis::{Basis, Deis};
pub use dpm::{DpmPlusPlus2M, DpmPlusPlus2S};
pub use dpm_v3::{Derivatives, DpmV3, Statistics, UnlearnedDpmV3};
pub use euler_maruyama::EulerMaruyama;
pub use heun::{Churn, Euler, Heun};
pub use hook::{Chain, Hook};
pub use multistep::{Buffer, Correction, Entry, Multistep, Output, Solver, State, Weights};
pub use named::{NAMES, named};
pub use stepwise::{Step, Stepwise};
pub use unipc::{Bh, UniPc};
pub use variance::learned_variance_step;

use crate::denoiser::needs_gaussian;
use crate::{Denoiser, Grid, check};
use ndarray::Array2;
use offprint_core::random::Stream;
use offprint_core::{Error, Progress, Result};

/// What a sampler leaves.
#[derive(Debug, Clone)]
pub struct Sampled {
    /// The points y (n, d) at the grid's last level.
    pub y: Array2<f64>,
    /// α at the last level.
    pub alpha: f64,
    /// Calls of the model, each for all points.
    pub evaluations: u64,
}

impl Sampled {
    /// The points in the path's own coordinates, x = α y.
    pub fn into_x(self) -> Array2<f64> {
        self.y * self.alpha
    }
}

/// A sampler that knows its model, and what that took.
pub struct Learned {
    /// The sampler.
    pub sampler: Box<dyn Sampler>,
    /// Calls of the model, each for all points that were learned from.
    pub evaluations: u64,
}

/// A way from noise to data that works with every [`Denoiser`].
pub trait Sampler: Sync {
    /// The name, as [`named`] knows it.
    fn name(&self) -> String;

    /// Whether it adds noise, so that the model's must be Gaussian.
    fn is_stochastic(&self) -> bool {
        false
    }

    /// For a sampler that needs statistics of its model: the same sampler with those of `model` over the noise levels of
    /// `grid`, taken once, from `points` points, for runs over any part of these levels. `None` if there is nothing to
    /// learn. A run that nobody has learned for does so itself, at its own cost.
    fn learn(
        &self,
        _model: &dyn Denoiser,
        _points: usize,
        _grid: &Grid,
        _stream: Stream,
        _progress: &Progress,
    ) -> Result<Option<Learned>> {
        Ok(None)
    }

    /// Takes the points `start` (n, d), at the grid's first level, to its last. What is random comes from `stream`,
    /// addressed by step and row; deterministic samplers do not touch it.
    ///
    /// # Errors
    /// A model or start of another dimension, noise that the sampler cannot handle, a grid with fewer steps than the
    /// order, points that stop being finite, a stop by the user.
    fn run_with(
        &self,
        model: &dyn Denoiser,
        start: Array2<f64>,
        grid: &Grid,
        stream: Stream,
        hook: &mut dyn Hook,
        progress: &Progress,
    ) -> Result<Sampled>;

    /// The same without hook and progress.
    fn run(&self, model: &dyn Denoiser, start: Array2<f64>, grid: &Grid, stream: Stream) -> Result<Sampled> {
        self.run_with(model, start, grid, stream, &mut (), &Progress::silent())
    }
}

/// What every sampler refuses before its first step.
fn check_start(sampler: &dyn Sampler, model: &dyn Denoiser, start: &Array2<f64>) -> Result<()> {
    check::rows("start", start.view())?;
    check::dimension("start", start.view(), "the model", model.dim())?;
    if sampler.is_stochastic() {
        needs_gaussian(&format!("sampler {}", sampler.name()), model.kernel())?;
    }
    Ok(())
}

/// Ends a run whose points are not finite any more.
fn check_state(sampler: &str, step: usize, y: &Array2<f64>) -> Result<()> {
    match check::first_bad_row(y.view()) {
        None => Ok(()),
        Some(row) => Err(Error::Numerical(format!(
            "{sampler} left the finite numbers in step {}, first at point {row}: more steps, a lower order or less \
             guidance may help",
            step + 1
        ))),
    }
}
