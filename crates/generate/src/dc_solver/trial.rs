//! One model on one grid with its reference: how far samplers end from it.

use super::{Found, Reference, Search, mean_squared_error};
use crate::sample::{Correction, DpmV3, Multistep, Sampled, Sampler, Solver, Statistics};
use crate::{Denoiser, Grid, Schedule};
use ndarray::Array2;
use offprint_core::random::Streams;
use offprint_core::{Error, Progress, Result};
use std::sync::Arc;

/// A model, a grid, and reference trajectories of the model on it.
pub(super) struct Trial<'a> {
    pub model: &'a dyn Denoiser,
    pub grid: Grid,
    pub reference: Reference,
}

impl<'a> Trial<'a> {
    /// References from `start` x (n, d), with `substeps` DDIM steps between places.
    pub fn new(
        model: &'a dyn Denoiser,
        (grid, schedule): (Grid, &Schedule),
        start: Array2<f64>,
        substeps: usize,
        progress: &Progress,
    ) -> Result<Self> {
        let start = grid.start_from(start);
        let reference = Reference::integrate(model, start, &grid, schedule, substeps, progress)?;
        Ok(Self { model, grid, reference })
    }

    /// The samples of `sampler` from the same starts, y.
    pub fn run(&self, sampler: &dyn Sampler) -> Result<Sampled> {
        // Multistep samplers draw nothing.
        sampler.run(self.model, self.reference.start().clone(), &self.grid, Streams::new(0).stream("none"))
    }

    /// The mean squared error of x at the end; infinite for a sampler that left the finite numbers.
    pub fn error(&self, sampler: &dyn Sampler) -> Result<f64> {
        match self.run(sampler) {
            Err(Error::Numerical(_)) => Ok(f64::INFINITY),
            sampled => Ok(self.distance(&sampled?.y)),
        }
    }

    /// The mean squared distance in x between `y` and the reference's end.
    pub fn distance(&self, y: &Array2<f64>) -> f64 {
        self.grid.last().alpha.powi(2) * mean_squared_error(y, self.reference.end())
    }

    /// The root mean squared distance in x from the reference after every step, the start included.
    pub fn errors_along(&self, sampler: &dyn Sampler) -> Result<Vec<f64>> {
        let mut states: Vec<Array2<f64>> = Vec::new();
        let (start, stream) = (self.reference.start().clone(), Streams::new(0).stream("none"));
        sampler.run_with(self.model, start, &self.grid, stream, &mut states, &Progress::silent())?;
        let places = states.iter().zip(self.grid.nodes()).enumerate();
        Ok(places.map(|(k, (y, node))| node.alpha * mean_squared_error(y, self.reference.after(k)).sqrt()).collect())
    }

    /// Ratios searched on this trial's trajectories.
    pub fn search<S: Solver + Clone>(
        &self,
        search: Search,
        sampler: &Multistep<S>,
        progress: &Progress,
    ) -> Result<Found> {
        search.run(sampler, self.model, &self.grid, &self.reference, progress)
    }
}

/// `sampler`, asking the model again at every corrected point: what compensation stands in for, at twice the calls.
pub(super) fn reevaluating<S: Solver + Clone>(sampler: &Multistep<S>) -> Multistep<S> {
    Multistep { correction: Correction { reevaluate: true, ..sampler.correction }, ..sampler.clone() }
}

/// What DPM-Solver-v3 has to know of `model`, from trajectories that begin at `start` x (n, d), over the levels of `grid`:
/// 183 calls.
pub(super) fn statistics(
    model: &dyn Denoiser,
    start: Array2<f64>,
    grid: &Grid,
    streams: Streams,
    progress: &Progress,
) -> Result<Arc<Statistics>> {
    /// Intervals in λ.
    const INTERVALS: usize = 60;
    let start = grid.start_from(start);
    Ok(Arc::new(Statistics::estimate(model, start, grid, INTERVALS, streams.stream("signs"), progress)?))
}

/// DPM-Solver-v3 as its authors set it for `nfe` calls.
pub(super) fn dpm_v3(statistics: &Arc<Statistics>, nfe: usize) -> Result<DpmV3> {
    let solver = DpmV3::new(nfe.min(3), Arc::clone(statistics))?.as_published(nfe);
    Ok(DpmV3 { lower_order_final: true, ..solver })
}
