//! The multiple-choice knapsack, exactly: dynamic programming over the assignments that are still worth following, with the
//! bound of the Lagrangian relaxation.

use super::greedy::along_hulls;
use super::states::{History, State, undominated};
use super::{Assignment, Candidate, check};
use offprint_core::{Error, Result};

/// The assignment of least cost with a size of at most `budget`; of equal costs the smaller one.
///
/// With the multiplier λ of the linear relaxation, whatever completes a partial assignment costs at least
/// Σ min(cost + λ size) − λ budget. Options and states above the greedy solution by that bound are dropped, which leaves
/// few: two hundred layers with four options take milliseconds. At worst as many states are followed as there are sizes.
///
/// # Errors
/// As [`Solver::solve`](super::Solver::solve).
pub fn exact(layers: &[Vec<Candidate>], budget: u64) -> Result<Assignment> {
    check(layers, budget)?;
    if let Some(options) = layers.iter().find(|options| options.len() > 256) {
        return Err(Error::parameter("options", options.len(), "at most 256 a layer"));
    }
    let (start, multiplier) = along_hulls(layers, budget);
    let relaxed = |option: &Candidate| option.cost + multiplier * option.size as f64;
    let least: Vec<f64> = layers.iter().map(|options| options.iter().map(relaxed).fold(f64::MAX, f64::min)).collect();
    let bound = least.iter().sum::<f64>() - multiplier * budget as f64;
    // Room for rounding, so that nothing of the optimum's own cost is lost.
    let ceiling = start.cost + 1e-9 * (1.0 + start.cost.abs() + least.iter().sum::<f64>().abs());
    // Layers whose choice is least certain come last: the states of the others collapse.
    let gaps = |layer: usize| {
        let mut gaps: Vec<f64> = layers[layer].iter().map(|option| relaxed(option) - least[layer]).collect();
        gaps.sort_by(f64::total_cmp);
        gaps.get(1).copied().unwrap_or(f64::INFINITY)
    };
    let mut order: Vec<usize> = (0..layers.len()).collect();
    order.sort_by(|&a, &b| gaps(b).total_cmp(&gaps(a)));
    let mut smallest_after = vec![0_u64; layers.len() + 1];
    for (at, &layer) in order.iter().enumerate().rev() {
        smallest_after[at] = smallest_after[at + 1] + layers[layer].iter().map(|o| o.size).min().unwrap_or(0);
    }
    let (mut history, first) = History::start();
    // What the layers so far cost above their relaxed least, for each state: its cost + λ size − Σ least.
    let (mut states, mut passed) = (vec![first], 0.0);
    for (at, &layer) in order.iter().enumerate() {
        passed += least[layer];
        let mut next: Vec<State> = Vec::new();
        for (choice, option) in layers[layer].iter().enumerate() {
            if bound + relaxed(option) - least[layer] > ceiling {
                continue;
            }
            for state in &states {
                let size = state.size.saturating_add(option.size);
                if size.saturating_add(smallest_after[at + 1]) > budget {
                    break;
                }
                let above = state.cost + option.cost + multiplier * size as f64 - passed;
                if bound + above <= ceiling {
                    next.push(history.with(state, choice, *option));
                }
            }
        }
        states = undominated(next);
    }
    // States stand in order of falling cost.
    let Some(best) = states.last() else { return Ok(start) };
    let in_order = history.assignment(best, &order.iter().map(|&l| layers[l].clone()).collect::<Vec<_>>());
    let mut choices = vec![0; layers.len()];
    order.iter().zip(in_order.choices).for_each(|(&layer, choice)| choices[layer] = choice);
    Ok(Assignment::of(layers, choices))
}
