//! Peeling (Algorithms 1 and 2): single-tons are taken out of all their bins, which makes new single-tons.

use super::bins::{Bins, energy};
use super::design::Design;
use super::detect::{Content, Detector};
use super::settings::{Algorithm, Settings};
use super::value::Value;
use offprint_core::{Progress, Result};
use std::collections::HashMap;

/// One pass over all groups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pass {
    /// Bins that were empty when last looked at, over all groups.
    pub zero: usize,
    /// Bins that held one coefficient in this pass.
    pub single: usize,
    /// Bins left with several.
    pub multi: usize,
    /// Different coefficients found so far.
    pub found: usize,
}

/// What peeling left.
#[derive(Debug, Clone)]
pub struct Peeled<T> {
    /// (k, X̂\[k\]) in the order in which they were found.
    pub found: Vec<(u64, T)>,
    /// Pass by pass.
    pub passes: Vec<Pass>,
    /// Bins that still hold more than noise.
    pub unresolved: usize,
    /// Their share of all energy that the bins showed at first.
    pub residual: f64,
}

/// Peels `bins` until a whole pass finds nothing.
///
/// # Errors
/// The user asked to stop.
pub fn peel<T: Value>(
    design: &Design,
    bins: &mut Bins<T>,
    detector: &mut Detector<'_, T>,
    settings: &Settings,
    progress: &Progress,
) -> Result<Peeled<T>> {
    let at_first = total_energy(design, bins);
    let mut found: Vec<(u64, T)> = Vec::new();
    let mut place: HashMap<u64, usize> = HashMap::new();
    let mut changed: Vec<Vec<bool>> = design.groups.iter().map(|g| vec![true; g.bins()]).collect();
    let mut is_multi: Vec<Vec<bool>> = design.groups.iter().map(|g| vec![false; g.bins()]).collect();
    let mut passes = Vec::new();
    let mut left = (10 * settings.sparsity).max(64);
    loop {
        let mut single = 0;
        for (c, group) in design.groups.iter().enumerate() {
            progress.check()?;
            for j in 0..group.bins() {
                if !std::mem::take(&mut changed[c][j]) {
                    continue;
                }
                let content = detector.content(group, bins.bin(group, c, j));
                is_multi[c][j] = content == Content::Multi;
                let Content::Single { rest, value } = content else { continue };
                let k = group.index(j, rest);
                // A coefficient shows in every group. One that does not is several that happen to look like it.
                let shows = |(other, g): (usize, &super::design::Group)| {
                    other == c || !detector.is_empty(g, bins.bin(g, other, g.bin(k)))
                };
                let known = place.contains_key(&k);
                let believed =
                    known || settings.algorithm == Algorithm::SparseFht || design.groups.iter().enumerate().all(shows);
                if !believed || left == 0 {
                    is_multi[c][j] = true;
                    continue;
                }
                left -= 1;
                single += 1;
                // Never twice: what is left of one that was taken out before corrects it.
                let at = *place.entry(k).or_insert_with(|| {
                    found.push((k, T::default()));
                    found.len() - 1
                });
                found[at].1 += value;
                for (other, g) in design.groups.iter().enumerate() {
                    let bin = g.bin(k);
                    bins.subtract(g, other, bin, g.rest(k), value);
                    changed[other][bin] = true;
                }
            }
        }
        let multi = is_multi.iter().flatten().filter(|&&m| m).count();
        let all: usize = design.groups.iter().map(|g| g.bins()).sum();
        passes.push(Pass { zero: all - multi - single, single, multi, found: found.len() });
        if single == 0 || left == 0 {
            break;
        }
    }
    if !settings.algorithm.is_noiseless() && settings.amplitude.is_none() {
        refine(design, bins, &mut found);
    }
    // Corrections may have taken a coefficient back.
    let negligible = if settings.algorithm.is_noiseless() { detector.zero() } else { 3.0 * error(design, detector) };
    found.retain(|x| x.1.modulus() > negligible);
    let unresolved = design
        .groups
        .iter()
        .enumerate()
        .map(|(c, g)| (0..g.bins()).filter(|&j| detector.is_unresolved(g, bins.bin(g, c, j))).count())
        .sum();
    let residual = if at_first > 0.0 { total_energy(design, bins) / at_first } else { 0.0 };
    Ok(Peeled { found, passes, unresolved, residual })
}

/// The standard error of a coefficient that is fitted to its bins in all groups.
pub fn error<T: Value>(design: &Design, detector: &Detector<'_, T>) -> f64 {
    let weight: f64 = design.groups.iter().map(|g| g.delays.len() as f64 / detector.variance(g)).sum();
    (1.0 / weight).sqrt()
}

/// Two sweeps of least squares over all groups: each coefficient moves by what its bins still show of it. (The paper
/// estimates from the bin where the coefficient was found; using all C bins divides the variance by C.)
fn refine<T: Value>(design: &Design, bins: &mut Bins<T>, found: &mut [(u64, T)]) {
    // Noise has the variance σ²/B in a bin and is averaged over P delays: weight B P.
    let weights: Vec<f64> = design.groups.iter().map(|g| (g.bins() * g.delays.len()) as f64).collect();
    let total: f64 = weights.iter().sum();
    for _ in 0..2 {
        for (k, x) in found.iter_mut() {
            let mut step = T::default();
            for (c, g) in design.groups.iter().enumerate() {
                step += bins.fit(g, c, g.bin(*k), g.rest(*k)).scaled(weights[c] / total);
            }
            *x += step;
            for (c, g) in design.groups.iter().enumerate() {
                bins.subtract(g, c, g.bin(*k), g.rest(*k), step);
            }
        }
    }
}

fn total_energy<T: Value>(design: &Design, bins: &Bins<T>) -> f64 {
    design.groups.iter().zip(&bins.groups).map(|(g, u)| u.chunks_exact(g.delays.len()).map(energy).sum::<f64>()).sum()
}
