//! Euler's and Heun's methods on dy/dτ = (y − D)/τ, with EDM's churn (Karras et al. 2022, arXiv:2206.00364).

use super::stepwise::Step;
use crate::{Denoiser, Grid, Node, Noise};
use ndarray::{Array2, Zip};
use offprint_core::{Error, Result};

/// Euler's method in τ, of order 1: the same points as [`Ddim`](super::Ddim).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Euler;

impl Step for Euler {
    fn name(&self) -> String {
        "euler".into()
    }

    fn step(&self, model: &dyn Denoiser, y: &mut Array2<f64>, from: Node, to: Node, _: (usize, &Noise)) -> Result<u64> {
        let denoised = model.denoise(y.view(), from.tau)?;
        euler(y, &denoised, from.tau, to.tau);
        Ok(1)
    }
}

fn euler(y: &mut Array2<f64>, denoised: &Array2<f64>, from: f64, to: f64) {
    if to == 0.0 {
        y.assign(denoised);
        return;
    }
    let share = (to - from) / from;
    Zip::from(y).and(denoised).for_each(|y, &d| *y += share * (*y - d));
}

/// Noise that EDM's stochastic sampler adds before a step: the level rises from τ to τ(1 + min(S/n, √2 − 1)).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Churn {
    /// S, spread over the n steps.
    pub amount: f64,
    /// Lowest level at which it is added.
    pub lowest: f64,
    /// Highest level at which it is added.
    pub highest: f64,
    /// Factor of the added noise, about 1.
    pub scale: f64,
}

/// Heun's method of order 2: Euler's step, then the mean of the slopes at both ends. Two calls a step, one in the step
/// to τ = 0. Without churn it is deterministic and fits any noise.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Heun {
    churn: Option<Churn>,
    steps: usize,
}

impl Heun {
    /// Without churn.
    pub fn new() -> Self {
        Self::default()
    }

    /// With churn, for grids of `steps` steps.
    pub fn with_churn(churn: Churn, steps: usize) -> Result<Self> {
        let Churn { amount, lowest, highest, scale } = churn;
        if !(amount >= 0.0 && scale >= 0.0 && lowest <= highest && scale.is_finite()) {
            return Err(Error::parameter("churn", format!("{churn:?}"), "of amounts from 0 on and levels in order"));
        }
        if steps == 0 {
            return Err(Error::parameter("steps", steps, "at least 1"));
        }
        Ok(Self { churn: (amount > 0.0).then_some(churn), steps })
    }
}

impl Step for Heun {
    fn name(&self) -> String {
        if self.churn.is_some() { "edm-churn".into() } else { "heun".into() }
    }

    fn is_stochastic(&self) -> bool {
        self.churn.is_some()
    }

    fn check(&self, grid: &Grid) -> Result<()> {
        if self.churn.is_some() && grid.steps() != self.steps {
            let allowed = format!("{}, over which the churn is spread", self.steps);
            return Err(Error::parameter("steps", grid.steps(), allowed));
        }
        Ok(())
    }

    fn step(
        &self,
        model: &dyn Denoiser,
        y: &mut Array2<f64>,
        from: Node,
        to: Node,
        (step, noise): (usize, &Noise),
    ) -> Result<u64> {
        let mut tau = from.tau;
        if let Some(churn) = self.churn.filter(|c| (c.lowest..=c.highest).contains(&tau)) {
            let raised = tau * (1.0 + (churn.amount / self.steps as f64).min(std::f64::consts::SQRT_2 - 1.0));
            noise.add(step, churn.scale * (raised * raised - tau * tau).sqrt(), y);
            tau = raised;
        }
        let denoised = model.denoise(y.view(), tau)?;
        if to.tau == 0.0 {
            *y = denoised;
            return Ok(1);
        }
        let mut end = y.clone();
        euler(&mut end, &denoised, tau, to.tau);
        let denoised_end = model.denoise(end.view(), to.tau)?;
        let half = 0.5 * (to.tau - tau);
        Zip::from(y).and(&denoised).and(&end).and(&denoised_end).for_each(|y, &d, &e, &de| {
            *y += half * ((*y - d) / tau + (e - de) / to.tau);
        });
        Ok(2)
    }
}
