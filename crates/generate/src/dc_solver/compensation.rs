//! Dynamic compensation: the newest stored output, moved in time.

use super::Ratios;
use crate::sample::{Buffer, Hook, Multistep, Sampled, Sampler, Solver};
use crate::{Denoiser, Grid, Node};
use ndarray::{Array2, Zip};
use offprint_core::random::Stream;
use offprint_core::{Error, Progress, Result};

/// The values at `at` of the polynomials that are 1 at one of `times` and 0 at the others (Lagrange's basis).
///
/// # Errors
/// Two times that are the same.
pub fn lagrange_weights(times: &[f64], at: f64) -> Result<Vec<f64>> {
    let mut weights = vec![1.0; times.len()];
    for (k, &own) in times.iter().enumerate() {
        for (j, &other) in times.iter().enumerate() {
            if j == k {
                continue;
            }
            if own == other {
                let given = format!("{own} at index {} and {}", k.min(j), k.max(j));
                return Err(Error::parameter("times", given, "all different"));
            }
            weights[k] *= (at - other) / (own - other);
        }
    }
    Ok(weights)
}

/// Replaces the newest output of `buffer` by the value at t̂ = ρ t_i + (1 − ρ) t_{i−1} of the polynomial through its
/// newest K + 1 outputs. One pass over the memory for K = 2.
///
/// # Errors
/// Fewer than K + 1 outputs.
pub fn compensate(buffer: &mut Buffer, ratio: f64, degree: usize) -> Result<()> {
    let times: Vec<f64> = buffer.entries().take(degree + 1).map(|entry| entry.at.t).collect();
    if times.len() <= degree {
        let allowed = format!("at least {} for a polynomial of degree {degree}", degree + 1);
        return Err(Error::parameter("stored outputs", times.len(), allowed));
    }
    let weights = lagrange_weights(&times, ratio * times[0] + (1.0 - ratio) * times[1])?;
    let mut newest = std::mem::take(&mut buffer.get_mut(0).expect("counted above").output);
    let past: Vec<&Array2<f64>> = buffer.entries().skip(1).take(degree).map(|entry| &entry.output).collect();
    let first = weights[0];
    match past[..] {
        [one, two, ..] => {
            let (u, v) = (weights[1], weights[2]);
            Zip::from(&mut newest).and(one).and(two).for_each(|m, &a, &b| *m = first * *m + u * a + v * b);
        }
        _ => newest *= first,
    }
    let done = if degree == 1 { 0 } else { 2 };
    for (output, weight) in past.iter().zip(&weights[1..]).skip(done) {
        newest.scaled_add(*weight, *output);
    }
    buffer.get_mut(0).expect("counted above").output = newest;
    Ok(())
}

/// Dynamic compensation as a hook of a multistep sampler that keeps K + 1 outputs.
#[derive(Debug, Clone)]
pub struct Compensation<'a>(
    /// The ratios, as many as steps.
    pub &'a Ratios,
);

impl Hook for Compensation<'_> {
    fn buffer(&mut self, step: usize, _: Node, buffer: &mut Buffer) -> Result<()> {
        match self.0.values().get(step) {
            Some(&ratio) if ratio != 1.0 => compensate(buffer, ratio, self.0.degree()),
            _ => Ok(()),
        }
    }
}

/// A multistep sampler with dynamic compensation: as many calls of the model as without.
#[derive(Debug, Clone)]
pub struct DcSampler<S> {
    sampler: Multistep<S>,
    ratios: Ratios,
}

impl<S: Solver> DcSampler<S> {
    /// `sampler` with the given ratios, for grids of as many steps.
    pub fn new(sampler: Multistep<S>, ratios: Ratios) -> Self {
        Self { sampler: keeping(sampler, ratios.degree()), ratios }
    }

    /// The ratios.
    pub fn ratios(&self) -> &Ratios {
        &self.ratios
    }
}

/// `sampler`, keeping as many outputs as a polynomial of `degree` needs.
pub(super) fn keeping<S>(sampler: Multistep<S>, degree: usize) -> Multistep<S> {
    Multistep { history: sampler.history.max(degree + 1), ..sampler }
}

impl<S: Solver> Sampler for DcSampler<S> {
    fn name(&self) -> String {
        format!("dc-{}", self.sampler.name())
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
        self.ratios.check_steps(grid.steps())?;
        let mut compensation = Compensation(&self.ratios);
        let mut both = crate::sample::Chain(&mut compensation, hook);
        self.sampler.run_with(model, start, grid, stream, &mut both, progress)
    }
}
