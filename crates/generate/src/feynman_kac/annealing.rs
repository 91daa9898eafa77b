//! Annealed importance sampling (Neal 2001): from an energy's hot law to a cold one without any network.

use super::resample::normalised;
use super::tempering::{Walker, tuned};
use super::{Energy, Particles};
use ndarray::Array2;
use offprint_core::random::Stream;
use offprint_core::{Error, Progress, Result};
use offprint_math::vector;
use rayon::prelude::*;

/// How long to anneal.
#[derive(Debug, Clone, Copy)]
pub struct Annealing {
    /// Temperatures from the first to the last, in equal ratios; at least 2.
    pub temperatures: usize,
    /// Metropolis-adjusted Langevin steps at each but the first.
    pub steps: usize,
}

/// Rounds of 10 steps in which a pilot finds the step size of a temperature.
const PILOT: usize = 60;

/// Weighted samples of exp(−E/T') from samples `hot` (n, d) of exp(−E/T), where (T, T') are `temperatures`.
///
/// Each walker goes through the temperatures between: at each change its log-weight grows by E (1/T_k − 1/T_{k+1}), then
/// it moves under the new law. The weights are unbiased for any number of steps, and
/// [`Particles::log_normaliser`] is log Z'/Z. Step sizes come from a pilot run, so that no walker's size depends on its
/// own way. O(n · temperatures · steps) energies; results do not depend on the number of threads.
///
/// # Errors
/// Temperatures that are not positive or do not fall, fewer than two of them, points without finite energy, a stop by
/// the user.
pub fn annealed_importance_sampling(
    energy: &dyn Energy,
    hot: &Array2<f64>,
    (first, last): (f64, f64),
    annealing: Annealing,
    stream: Stream,
    progress: &Progress,
) -> Result<Particles> {
    if !(last > 0.0 && last < first && first.is_finite()) {
        let allowed = format!("above 0 and below the first, {first}");
        return Err(Error::parameter("last temperature", last, allowed));
    }
    if annealing.temperatures < 2 {
        return Err(Error::parameter("temperatures", annealing.temperatures, "at least 2"));
    }
    energy.energies(hot.view())?;
    let stages = annealing.temperatures - 1;
    let ladder: Vec<f64> = (0..=stages).map(|k| first * (last / first).powf(k as f64 / stages as f64)).collect();
    let sizes = pilot(energy, hot, &ladder, stream);
    let ends: Vec<(Vec<f64>, f64)> = hot
        .outer_iter()
        .into_par_iter()
        .enumerate()
        .map(|(i, start)| {
            progress.check()?;
            let mut rng = stream.rng(i as u64 + 1);
            let mut walker = Walker::at(energy, start.to_vec());
            let mut log_weight = 0.0;
            for (pair, size) in ladder.windows(2).zip(&sizes) {
                log_weight += walker.energy * (1.0 / pair[0] - 1.0 / pair[1]);
                for _ in 0..annealing.steps {
                    walker.step(energy, pair[1], *size, &mut rng);
                }
            }
            Ok((walker.x, log_weight))
        })
        .collect::<Result<_>>()?;
    let log_weights: Vec<f64> = ends.iter().map(|(_, w)| *w).collect();
    let n = hot.nrows();
    let mut y = Array2::zeros(hot.dim());
    y.outer_iter_mut().zip(&ends).for_each(|(mut row, (x, _))| row.iter_mut().zip(x).for_each(|(r, x)| *r = *x));
    Ok(Particles {
        y,
        alpha: 1.0,
        weights: normalised(&log_weights)?,
        log_normaliser: Some(vector::log_sum_exp(&log_weights) - (n as f64).ln()),
        effective_sizes: Vec::new(),
        resamplings: Vec::new(),
        roots: (0..n).collect(),
        evaluations: (stages * annealing.steps) as u64,
    })
}

/// The step size of each temperature after the first, from one walker.
fn pilot(energy: &dyn Energy, hot: &Array2<f64>, ladder: &[f64], stream: Stream) -> Vec<f64> {
    let mut rng = stream.rng(0);
    let mut walker = Walker::at(energy, hot.row(0).to_vec());
    let mut size = 1e-3;
    let at = |temperature: &f64| {
        for _ in 0..PILOT {
            let taken = (0..10).filter(|_| walker.step(energy, *temperature, size, &mut rng)).count();
            size = tuned(size, taken);
        }
        size
    };
    ladder[1..].iter().map(at).collect()
}
