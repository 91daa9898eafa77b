//! Samplers that see the last state only: the loop, once for all of them.

use super::{Hook, Sampled, Sampler, check_start, check_state};
use crate::{Denoiser, Grid, Node, Noise};
use ndarray::Array2;
use offprint_core::random::Stream;
use offprint_core::{Progress, Result};

/// One step of a method without memory.
pub trait Step: Sync {
    /// The name.
    fn name(&self) -> String;

    /// Whether it adds noise, so that the model's must be Gaussian.
    fn is_stochastic(&self) -> bool {
        false
    }

    /// What it wants to know of the grid before its first step.
    fn check(&self, _grid: &Grid) -> Result<()> {
        Ok(())
    }

    /// Takes `y` (n, d) from one place to the next and gives the calls of the model. The noise is that of the step's
    /// number. To τ = 0 it gives exactly D.
    fn step(
        &self,
        model: &dyn Denoiser,
        y: &mut Array2<f64>,
        from: Node,
        to: Node,
        noise: (usize, &Noise),
    ) -> Result<u64>;
}

/// A [`Step`] with the loop around it.
#[derive(Debug, Clone)]
pub struct Stepwise<S>(
    /// The method.
    pub S,
);

impl<S: Step> Sampler for Stepwise<S> {
    fn name(&self) -> String {
        self.0.name()
    }

    fn is_stochastic(&self) -> bool {
        self.0.is_stochastic()
    }

    fn run_with(
        &self,
        model: &dyn Denoiser,
        start: Array2<f64>,
        grid: &Grid,
        stream: Stream,
        hook: &mut dyn Hook,
        progress: &Progress,
    ) -> Result<Sampled> {
        check_start(self, model, &start)?;
        self.0.check(grid)?;
        let noise = Noise::new(stream);
        let (mut y, mut evaluations) = (start, 0);
        for (step, places) in grid.nodes().windows(2).enumerate() {
            let (from, to) = (places[0], places[1]);
            hook.before(step, from, &mut y)?;
            evaluations += self.0.step(model, &mut y, from, to, (step, &noise))?;
            check_state(&self.0.name(), step, &y)?;
            hook.after(step, to, &mut y)?;
            progress.check()?;
        }
        Ok(Sampled { y, alpha: grid.last().alpha, evaluations })
    }
}
