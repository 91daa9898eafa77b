//! What a few-step sampler should have done: the states of a fine one at the same places.

use crate::sample::{Ddim, Multistep};
use crate::{Denoiser, Grid, Schedule, check};
use ndarray::{Array2, Array3, Axis, s};
use offprint_core::{Error, Progress, Result};
use std::ops::Range;

/// The points y (n, d) of reference trajectories at every place of a grid, the start first.
#[derive(Debug, Clone)]
pub struct Reference {
    states: Vec<Array2<f64>>,
}

impl Reference {
    /// From `start` (n, d) by DDIM, with `substeps` steps of equal time between neighbours of `grid`.
    ///
    /// Its error falls as 1/`substeps`: 100 to 200 are enough to judge samplers of 5 to 10 steps.
    ///
    /// # Errors
    /// A grid that ends without noise, a start that does not fit the model, no substep, a stop by the user.
    pub fn integrate(
        model: &dyn Denoiser,
        start: Array2<f64>,
        grid: &Grid,
        schedule: &Schedule,
        substeps: usize,
        progress: &Progress,
    ) -> Result<Self> {
        if grid.last().tau == 0.0 {
            return Err(Error::parameter("grid", "one that ends without noise", "one that ends above t = 0"));
        }
        let ddim = Multistep::new(Ddim);
        let mut states = vec![start];
        for places in grid.nodes().windows(2) {
            let between = Grid::uniform_t(schedule, substeps, places[0].t, places[1].t)?;
            let from = states[states.len() - 1].clone();
            let mut state = ddim.begin(model, from, &between)?;
            for _ in 0..substeps {
                ddim.advance(model, &between, &mut state, &mut ())?;
                progress.advance(1)?;
            }
            states.push(state.y);
        }
        Ok(Self { states })
    }

    /// From the states x (NFE + 1, n, d) of trajectories that were computed elsewhere, the start first.
    ///
    /// # Errors
    /// Another number of places than the grid has, no points, values that are not finite.
    pub fn from_states(states: &Array3<f64>, grid: &Grid) -> Result<Self> {
        let (places, n, d) = states.dim();
        if places != grid.steps() + 1 {
            let needed = grid.steps() + 1;
            let problem = format!(
                "has shape {:?}, but NFE is {}: ({needed}, n, d) is needed, the start and the state after every step",
                [places, n, d],
                grid.steps()
            );
            return Err(Error::input("reference", problem));
        }
        let at = |(state, node): (ndarray::ArrayView2<'_, f64>, &crate::Node)| {
            check::rows("reference", state)?;
            Ok(&state / node.alpha)
        };
        Ok(Self { states: states.outer_iter().zip(grid.nodes()).map(at).collect::<Result<_>>()? })
    }

    /// The starting points y (n, d).
    pub fn start(&self) -> &Array2<f64> {
        &self.states[0]
    }

    /// The points y (n, d) after `step` steps.
    pub fn after(&self, step: usize) -> &Array2<f64> {
        &self.states[step]
    }

    /// The points y (n, d) at the end.
    pub fn end(&self) -> &Array2<f64> {
        &self.states[self.states.len() - 1]
    }

    /// Number of steps.
    pub fn steps(&self) -> usize {
        self.states.len() - 1
    }

    /// The trajectories `rows` alone.
    #[must_use]
    pub fn select(&self, rows: Range<usize>) -> Self {
        let part = |state: &Array2<f64>| state.slice(s![rows.clone(), ..]).to_owned();
        Self { states: self.states.iter().map(part).collect() }
    }

    /// The states in the path's own coordinates x (NFE + 1, n, d).
    pub fn into_x(self, grid: &Grid) -> Array3<f64> {
        let scaled: Vec<Array2<f64>> =
            self.states.into_iter().zip(grid.nodes()).map(|(state, node)| state * node.alpha).collect();
        let views: Vec<_> = scaled.iter().map(|state| state.view()).collect();
        ndarray::stack(Axis(0), &views).expect("states of one shape")
    }
}

/// The mean squared difference over all coordinates of all points of two tables (n, d).
///
/// # Panics
/// If the shapes differ.
pub fn mean_squared_error(a: &Array2<f64>, b: &Array2<f64>) -> f64 {
    ndarray::Zip::from(a).and(b).fold(0.0, |sum, &a, &b| sum + (a - b) * (a - b)) / a.len() as f64
}
