//! Along the convex hulls of the layers, steepest first: what a Lagrange multiplier gives, and the bound that goes with it.

use super::{Assignment, Candidate, check};
use offprint_core::Result;

/// A step along a layer's hull, to the next larger option on it.
#[derive(Debug, Clone, Copy)]
struct Step {
    layer: usize,
    to: usize,
    size: u64,
    /// Cost saved by a unit of size.
    slope: f64,
}

/// From the smallest options on, takes the steps along the layers' lower convex hulls that save most for their size, as
/// long as they fit; later ones are still taken if they do. O(n log n). Optimal where it ends with the budget used up by
/// whole steps.
///
/// # Errors
/// As [`Solver::solve`](super::Solver::solve).
pub fn greedy(layers: &[Vec<Candidate>], budget: u64) -> Result<Assignment> {
    check(layers, budget)?;
    Ok(along_hulls(layers, budget).0)
}

/// [`greedy`], and the multiplier λ at which the linear relaxation breaks: the slope of the first step that did not fit, 0
/// if all did.
pub(super) fn along_hulls(layers: &[Vec<Candidate>], budget: u64) -> (Assignment, f64) {
    let mut choices = Vec::with_capacity(layers.len());
    let mut steps = Vec::new();
    for (layer, options) in layers.iter().enumerate() {
        let hull = hull(options);
        choices.push(hull[0]);
        for pair in hull.windows(2) {
            let (from, to) = (options[pair[0]], options[pair[1]]);
            let size = to.size - from.size;
            steps.push(Step { layer, to: pair[1], size, slope: (from.cost - to.cost) / size as f64 });
        }
    }
    // Stable: steps of one hull stay in their order, for their slopes fall.
    steps.sort_by(|a, b| b.slope.total_cmp(&a.slope));
    let mut used: u64 = layers.iter().zip(&choices).map(|(options, &choice)| options[choice].size).sum();
    let (mut multiplier, mut stopped) = (0.0, vec![false; layers.len()]);
    for step in steps {
        if stopped[step.layer] {
            continue;
        }
        if step.size <= budget - used {
            used += step.size;
            choices[step.layer] = step.to;
        } else {
            stopped[step.layer] = true;
            if multiplier == 0.0 {
                multiplier = step.slope;
            }
        }
    }
    (Assignment::of(layers, choices), multiplier)
}

/// The options on the lower convex hull of (size, cost), from the smallest to the cheapest.
fn hull(options: &[Candidate]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..options.len()).collect();
    order.sort_by(|&a, &b| {
        let (a, b) = (options[a], options[b]);
        a.size.cmp(&b.size).then(a.cost.total_cmp(&b.cost))
    });
    let mut hull: Vec<usize> = Vec::new();
    for at in order {
        let next = options[at];
        if hull.last().is_some_and(|&last| next.cost >= options[last].cost) {
            continue;
        }
        while let [.., before, last] = hull[..] {
            let (before, last) = (options[before], options[last]);
            let slope = |from: Candidate, to: Candidate| (from.cost - to.cost) / (to.size - from.size) as f64;
            if slope(before, last) > slope(last, next) {
                break;
            }
            hull.pop();
        }
        hull.push(at);
    }
    hull
}
