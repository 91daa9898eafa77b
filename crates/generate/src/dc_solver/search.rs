//! The search for ratios: greedily, step by step, on a few reference trajectories.

use super::compensation::{Compensation, keeping};
use super::reference::mean_squared_error;
use super::{Ratios, Reference};
use crate::sample::{Bh, Correction, Multistep, Solver, State, UniPc};
use crate::{Denoiser, Grid};
use offprint_core::{Error, Progress, Result};
use offprint_math::line::minimize;

/// How ratios are looked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Search {
    /// Degree K of the interpolating polynomial.
    pub degree: usize,
    /// Lowest and highest ratio.
    pub bounds: (f64, f64),
    /// Evenly spaced ratios that are tried first, at least 3.
    pub scan: usize,
    /// Tries of Brent's method after that.
    pub refine: usize,
}

impl Default for Search {
    /// K = 2, ratios from 0.3 to 1.7, 15 tries and then up to 10 more.
    fn default() -> Self {
        Self { degree: 2, bounds: (0.3, 1.7), scan: 15, refine: 10 }
    }
}

/// Ratios are found to this precision: what is left changes the error in its sixth digit.
const TOLERANCE: f64 = 1e-3;

/// The two forms in which the authors publish the method: which sampler, and between which bounds ratios lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// Of the unconditional latent models: UniPC-3 with bh1, corrected from the first step, ratios free.
    Latent,
    /// Of the text-to-image pipeline: UniPC-2 with bh2, not corrected in the first step, ratios 1 ± ½.
    Pipeline,
}

impl Variant {
    /// The sampler.
    pub fn sampler(self) -> Multistep<UniPc> {
        let (order, bh, from) = match self {
            Self::Latent => (3, Bh::One, 0),
            Self::Pipeline => (2, Bh::Two, 1),
        };
        let solver = UniPc::new(order, bh).expect("orders that exist");
        let correction = Correction { from, ..Correction::default() };
        Multistep { correction, ..Multistep::new(solver) }.with_lower_order_final()
    }

    /// The search.
    pub fn search(self) -> Search {
        match self {
            Self::Latent => Search::default(),
            Self::Pipeline => Search { bounds: (0.5, 1.5), ..Search::default() },
        }
    }
}

/// What a search found.
#[derive(Debug, Clone)]
pub struct Found {
    /// The ratios.
    pub ratios: Ratios,
    /// Mean squared distance of y from the reference after each step, compensated.
    pub losses: Vec<f64>,
    /// Steps, counted from 1, whose ratio ended at a bound.
    pub at_bounds: Vec<usize>,
    /// Calls of the model for all reference points, those of the starting point included.
    pub calls: u64,
    /// The most calls that one step took.
    pub most_calls_of_a_step: u64,
}

impl Search {
    fn check(&self, sampler_steps: usize, reference: &Reference) -> Result<()> {
        let (low, high) = self.bounds;
        if !(low < high && low.is_finite() && high.is_finite()) {
            return Err(Error::parameter("bounds", format!("{low} to {high}"), "finite and in rising order"));
        }
        if self.scan < 3 {
            return Err(Error::parameter("scan", self.scan, "at least 3"));
        }
        if reference.steps() != sampler_steps {
            let problem = format!("has {} steps, but NFE is {sampler_steps}", reference.steps());
            return Err(Error::input("reference", problem));
        }
        Ok(())
    }

    /// The ratios of `sampler` on `grid` that bring it closest to `reference`, step after step: ratio k minimises the
    /// mean squared distance after step k (its corrector included), and step k + 1 goes on from there.
    ///
    /// At most `scan` + `refine` calls of the model a step, on all points of the reference. A ratio at which the points
    /// stop being finite counts as infinitely far.
    ///
    /// # Errors
    /// Bounds or a reference that do not fit, no ratio with finite points, what the model and the sampler refuse, a
    /// stop by the user.
    pub fn run<S: Solver + Clone>(
        &self,
        sampler: &Multistep<S>,
        model: &dyn Denoiser,
        grid: &Grid,
        reference: &Reference,
        progress: &Progress,
    ) -> Result<Found> {
        self.check(grid.steps(), reference)?;
        let sampler = keeping(sampler.clone(), self.degree);
        let mut state = sampler.begin(model, reference.start().clone(), grid)?;
        let mut ratios = Ratios::identity(grid.steps(), self.degree)?;
        let (mut losses, mut at_bounds) = (Vec::new(), Vec::new());
        let (mut calls, mut most_calls_of_a_step) = (state.evaluations, 0);
        for step in 0..grid.steps() {
            let target = reference.after(step + 1);
            if step < self.degree {
                let before = state.evaluations;
                sampler.advance(model, grid, &mut state, &mut ())?;
                losses.push(mean_squared_error(&state.y, target));
                calls += state.evaluations - before;
                continue;
            }
            // The state after the best ratio so far: the winner's step is not made a second time.
            let mut best: Option<(f64, State)> = None;
            let mut of_step = 0;
            let minimum = minimize(self.bounds, self.scan, self.refine, TOLERANCE, |ratio| {
                progress.check()?;
                ratios.set(step, ratio);
                let mut trial = state.clone();
                let made = sampler.advance(model, grid, &mut trial, &mut Compensation(&ratios));
                of_step += trial.evaluations - state.evaluations;
                match made {
                    Err(Error::Numerical(_)) => return Ok(f64::INFINITY),
                    made => made?,
                }
                let loss = mean_squared_error(&trial.y, target);
                if best.as_ref().is_none_or(|(least, _)| loss < *least) {
                    best = Some((loss, trial));
                }
                Ok(loss)
            })?;
            let Some((loss, next)) = best else {
                let problem =
                    format!("no ratio between {} and {} keeps step {} finite", self.bounds.0, self.bounds.1, step + 1);
                return Err(Error::Numerical(problem));
            };
            ratios.set(step, minimum.at);
            if [self.bounds.0, self.bounds.1].iter().any(|b| (minimum.at - b).abs() <= 2.0 * TOLERANCE) {
                at_bounds.push(step + 1);
            }
            losses.push(loss);
            state = next;
            calls += of_step;
            most_calls_of_a_step = most_calls_of_a_step.max(of_step);
            progress.advance(1)?;
        }
        Ok(Found { ratios, losses, at_bounds, calls, most_calls_of_a_step })
    }
}
