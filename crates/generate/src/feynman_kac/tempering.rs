//! Parallel tempering: samples of exp(−E/T) at several temperatures, to train on and to compare with.

use super::Energy;
use ndarray::{Array2, s};
use offprint_core::random::{Rng, Stream};
use offprint_core::{Error, Progress, Result};
use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

/// One walker at one temperature.
#[derive(Clone)]
pub(super) struct Walker {
    pub x: Vec<f64>,
    pub energy: f64,
    gradient: Vec<f64>,
}

impl Walker {
    pub fn at(energy: &dyn Energy, x: Vec<f64>) -> Self {
        let mut gradient = vec![0.0; x.len()];
        let energy = energy.evaluate(&x, &mut gradient);
        Self { x, energy, gradient }
    }

    /// One step of the Metropolis-adjusted Langevin algorithm on exp(−E/T); whether it was taken.
    pub fn step(&mut self, energy: &dyn Energy, temperature: f64, size: f64, rng: &mut Rng) -> bool {
        let mut normal: Vec<f64> = self.x.iter().map(|_| StandardNormal.sample(&mut *rng)).collect();
        if let Some(dims) = energy.centred() {
            remove_mean(&mut normal, dims);
        }
        let (drift, noise) = (size / temperature, (2.0 * size).sqrt());
        let moved = self.x.iter().zip(&self.gradient).zip(&normal).map(|((x, g), z)| x - drift * g + noise * z);
        let next = Self::at(energy, moved.collect());
        // log q(x | x') − log q(x' | x) of the Gaussian proposals.
        let square = |from: &Self, to: &Self| -> f64 {
            let apart = to.x.iter().zip(&from.x).zip(&from.gradient).map(|((t, f), g)| t - f + drift * g);
            apart.map(|a| a * a).sum::<f64>() / (4.0 * size)
        };
        let log = (self.energy - next.energy) / temperature + square(self, &next) - square(&next, self);
        let taken = next.energy.is_finite() && rng.random::<f64>().ln() < log;
        if taken {
            *self = next;
        }
        taken
    }
}

/// A better step size after `taken` of 10 steps of `size`: Langevin proposals are best when a bit more than half are taken.
pub(super) fn tuned(size: f64, taken: usize) -> f64 {
    size * (0.1 * (taken as f64 / 10.0 - 0.57)).exp()
}

fn remove_mean(x: &mut [f64], dims: usize) {
    for axis in 0..dims {
        let count = (x.len() / dims) as f64;
        let mean = x.iter().skip(axis).step_by(dims).sum::<f64>() / count;
        x.iter_mut().skip(axis).step_by(dims).for_each(|v| *v -= mean);
    }
}

/// How long to run.
#[derive(Debug, Clone, Copy)]
pub struct Length {
    /// Independent ladders.
    pub chains: usize,
    /// Rounds that are thrown away; step sizes are tuned in them.
    pub burn_in: usize,
    /// Samples kept from each ladder.
    pub samples: usize,
    /// Rounds between kept samples. A round is 10 Langevin steps a walker, then exchanges between neighbours.
    pub thin: usize,
}

/// Samples (chains · samples, d) of exp(−E/T) at each of the `temperatures`, which fall or rise, from the configurations
/// `start` (n, d), dealt out in turn. Results do not depend on the number of threads.
///
/// # Errors
/// Temperatures that are not positive, a start without finite energy, lengths of 0, a stop by the user.
pub fn parallel_tempering(
    energy: &dyn Energy,
    start: &Array2<f64>,
    temperatures: &[f64],
    length: Length,
    stream: Stream,
    progress: &Progress,
) -> Result<Vec<Array2<f64>>> {
    if let Some(t) = temperatures.iter().find(|t| !(**t > 0.0 && t.is_finite())) {
        return Err(Error::parameter("temperature", t, "above 0"));
    }
    if temperatures.is_empty() || length.chains == 0 || length.samples == 0 || length.thin == 0 {
        return Err(Error::parameter("length", format!("{length:?}"), "of at least one temperature, chain and sample"));
    }
    energy.energies(start.view())?;
    let ladders: Vec<Vec<Array2<f64>>> = (0..length.chains)
        .into_par_iter()
        .map(|chain| {
            ladder(
                energy,
                start.row(chain % start.nrows()).to_vec(),
                temperatures,
                length,
                stream.rng(chain as u64),
                progress,
            )
        })
        .collect::<Result<_>>()?;
    let d = energy.dim();
    Ok((0..temperatures.len())
        .map(|t| {
            let mut all = Array2::zeros((length.chains * length.samples, d));
            for (chain, kept) in ladders.iter().enumerate() {
                all.slice_mut(s![chain * length.samples..(chain + 1) * length.samples, ..]).assign(&kept[t]);
            }
            all
        })
        .collect())
}

/// One ladder of walkers.
fn ladder(
    energy: &dyn Energy,
    mut start: Vec<f64>,
    temperatures: &[f64],
    length: Length,
    mut rng: Rng,
    progress: &Progress,
) -> Result<Vec<Array2<f64>>> {
    if let Some(dims) = energy.centred() {
        remove_mean(&mut start, dims);
    }
    let count = temperatures.len();
    let mut walkers = vec![Walker::at(energy, start); count];
    let mut sizes = vec![1e-3; count];
    let mut kept = vec![Array2::zeros((length.samples, energy.dim())); count];
    for round in 0..length.burn_in + length.samples * length.thin {
        for ((walker, size), &temperature) in walkers.iter_mut().zip(&mut sizes).zip(temperatures) {
            let taken = (0..10).filter(|_| walker.step(energy, temperature, *size, &mut rng)).count();
            if round < length.burn_in {
                *size = tuned(*size, taken);
            }
        }
        // Neighbours of even and odd places in turn.
        for i in (round % 2..count.saturating_sub(1)).step_by(2) {
            let gain =
                (1.0 / temperatures[i] - 1.0 / temperatures[i + 1]) * (walkers[i].energy - walkers[i + 1].energy);
            if rng.random::<f64>().ln() < gain {
                walkers.swap(i, i + 1);
            }
        }
        if let Some(done) = round.checked_sub(length.burn_in).filter(|done| (done + 1).is_multiple_of(length.thin)) {
            for (kept, walker) in kept.iter_mut().zip(&walkers) {
                kept.row_mut(done / length.thin).iter_mut().zip(&walker.x).for_each(|(k, x)| *k = *x);
            }
        }
        if round % 64 == 0 {
            progress.check()?;
        }
    }
    Ok(kept)
}
