//! A proximal bundle method on the semi-dual, for problems of some tens of rows.
//!
//! Where scores tie, no single plan read off a gradient has the right row marginals, only a convex combination of several
//! does. The bundle keeps such plans and needs nothing but the paper's own oracle; beyond a hundred rows the proximal
//! point method (`proximal`) is much faster. Every plan T with column marginals b gives a *cut*, an affine lower bound
//! on F = −S:
//!
//!   F(α) ≥ ⟨g, α⟩ − κ,   g = T 1 − a,   κ = ⟨T, C⟩ + Σ_j Ω(t_j).
//!
//! A step minimises the largest of the cuts plus |α − α_c|²/(2u) around the best point α_c so far. The dual of that is a
//! quadratic problem for weights λ on the simplex of cuts, min (u/2)|Σ λ g|² + Σ λ (κ − ⟨g, α_c⟩), and
//! α = α_c − u Σ λ g. As the weighted g goes to zero, Σ λ T becomes feasible and, by convexity, optimal for the relaxed
//! primal (Kiwiel 1990; Hiriart-Urruty & Lemaréchal 1993, ch. XV). When the bundle is full, the cut of Σ λ T stands for
//! those dropped.

use super::certificate::{relaxed_primal, repaired};
use super::objective::{Formulation, Objective};
use super::problem::{Problem, Regulariser};
use super::proximal::Certified;
use crate::plan::Plan;
use ndarray::{Array2, ArrayView2};
use offprint_core::{Progress, Result};
use offprint_math::linalg::solve;

/// Settings of the bundle method.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bundle {
    /// Most cuts kept.
    pub cuts: usize,
    /// Most evaluations.
    pub evaluations: usize,
    /// Stops when the certificate is at most this much of the value.
    pub tolerance: f64,
}

impl Default for Bundle {
    fn default() -> Self {
        Self { cuts: 40, evaluations: 5000, tolerance: 1e-6 }
    }
}

struct Cut {
    slope: Vec<f64>,
    /// κ.
    offset: f64,
    plan: Plan,
    weight: f64,
}

/// A step is serious if it gains at least this part of what the model promised.
const SERIOUS: f64 = 0.1;
/// The certificate costs as much as an evaluation, so it is looked at only now and then.
const CHECK_EVERY: usize = 20;

impl Bundle {
    /// Maximises the semi-dual of `problem` from `start` (m).
    ///
    /// # Errors
    /// Only [`offprint_core::Error::Cancelled`] through `progress`, and what a singular bundle would give.
    pub fn maximise(
        &self,
        problem: &Problem,
        regulariser: Regulariser,
        start: &[f64],
        progress: &Progress,
    ) -> Result<Certified> {
        let m = problem.rows();
        let mut objective = Objective::new(problem, regulariser, Formulation::SemiDual);
        let mut gradient = vec![0.0; m];
        let mut centre = start.to_vec();
        let mut value = objective.evaluate(&centre, &mut gradient);
        let mut evaluations = 1;
        let mut cuts = vec![Cut::new(&objective, &centre, value, &gradient)];
        let mut gram = Array2::from_elem((1, 1), dot(&gradient, &gradient));
        let k = regulariser.most_nonzeros(m) as f64;
        // The inverse of a typical curvature: about k n / m columns meet in a row, each bent by 1/γ.
        let mut reach = regulariser.gamma() * m as f64 / (k * problem.columns() as f64);
        let mut best: Option<(f64, Plan)> = None;
        let mut nulls = 0;
        let mut trace = Vec::new();

        loop {
            let linear: Vec<f64> = cuts.iter().map(|c| c.offset - dot(&c.slope, &centre)).collect();
            let mut weights: Vec<f64> = cuts.iter().map(|c| c.weight).collect();
            simplex_quadratic(gram.view(), &linear, reach, &mut weights)?;
            for (cut, &weight) in cuts.iter_mut().zip(&weights) {
                cut.weight = weight;
            }
            let mut slope = vec![0.0; m];
            for cut in &cuts {
                for (s, g) in slope.iter_mut().zip(&cut.slope) {
                    *s += cut.weight * g;
                }
            }
            let error: f64 = value + linear.iter().zip(&weights).map(|(l, w)| l * w).sum::<f64>();
            let square = dot(&slope, &slope);
            // The model's promise: F(α_c) − model(α) = u |Σ λ g|² + Σ λ e.
            let promised = reach * square + error.max(0.0);

            let done = promised <= 1e-15 * value.abs().max(f64::MIN_POSITIVE) || evaluations >= self.evaluations;
            if done || evaluations % CHECK_EVERY == 0 {
                progress.check()?;
                let plans: Vec<&Plan> = cuts.iter().map(|c| &c.plan).collect();
                let plan = repaired(problem, &Plan::combination(&plans, &weights));
                let primal = relaxed_primal(problem, regulariser, &plan);
                if best.as_ref().is_none_or(|(least, _)| primal < *least) {
                    best = Some((primal, plan));
                }
                let least = best.as_ref().expect("set above").0;
                progress.status(&format!("certificate {:.1e}", (least + value) / value.abs()));
                if done || least + value <= self.tolerance * value.abs() {
                    break;
                }
            }

            let trial: Vec<f64> = centre.iter().zip(&slope).map(|(x, g)| x - reach * g).collect();
            let trial_value = objective.evaluate(&trial, &mut gradient);
            evaluations += 1;
            trace.push(-value.min(trial_value));
            let cut = Cut::new(&objective, &trial, trial_value, &gradient);
            if value - trial_value >= SERIOUS * promised {
                if value - trial_value >= 0.5 * promised && nulls == 0 {
                    reach *= 2.0;
                }
                nulls = 0;
                centre = trial;
                value = trial_value;
            } else {
                nulls += 1;
                // A cut that lies far below F at the centre says that the step went too far.
                let cut_error = value - (dot(&cut.slope, &centre) - cut.offset);
                if nulls > 3 && cut_error > 10.0 * promised.max(error) {
                    reach *= 0.5;
                    nulls = 1;
                }
            }
            if cuts.len() >= self.cuts.max(3) {
                self.compress(&mut cuts, &mut gram);
            }
            // Gram matrix of the slopes, one row more.
            let l = cuts.len();
            let mut grown = Array2::zeros((l + 1, l + 1));
            grown.slice_mut(ndarray::s![..l, ..l]).assign(&gram);
            for (i, other) in cuts.iter().enumerate() {
                let product = dot(&other.slope, &cut.slope);
                grown[[i, l]] = product;
                grown[[l, i]] = product;
            }
            grown[[l, l]] = dot(&cut.slope, &cut.slope);
            gram = grown;
            cuts.push(cut);
        }
        let (primal, plan) = best.expect("the certificate was looked at before the loop ended");
        Ok(Certified { alpha: centre, dual: -value, plan, primal, steps: evaluations, evaluations, trace })
    }

    /// Makes room: drops the cuts of weight zero, or else lets one cut stand for the half of least weight.
    fn compress(&self, cuts: &mut Vec<Cut>, gram: &mut Array2<f64>) {
        if cuts.iter().any(|c| c.weight == 0.0) {
            cuts.retain(|c| c.weight > 0.0);
        } else {
            cuts.sort_by(|x, y| y.weight.total_cmp(&x.weight));
            let light = cuts.split_off(cuts.len() / 2);
            let total: f64 = light.iter().map(|c| c.weight).sum();
            let weights: Vec<f64> = light.iter().map(|c| c.weight / total).collect();
            let plans: Vec<&Plan> = light.iter().map(|c| &c.plan).collect();
            let mut slope = vec![0.0; light[0].slope.len()];
            for (cut, w) in light.iter().zip(&weights) {
                for (s, g) in slope.iter_mut().zip(&cut.slope) {
                    *s += w * g;
                }
            }
            let offset = light.iter().zip(&weights).map(|(c, w)| c.offset * w).sum();
            cuts.push(Cut { slope, offset, plan: Plan::combination(&plans, &weights), weight: total });
        }
        *gram = Array2::from_shape_fn((cuts.len(), cuts.len()), |(i, j)| dot(&cuts[i].slope, &cuts[j].slope));
    }
}

impl Cut {
    /// The cut at `alpha`, where F has this `value` and gradient.
    fn new(objective: &Objective<'_>, alpha: &[f64], value: f64, gradient: &[f64]) -> Self {
        let offset = dot(gradient, alpha) - value;
        Self { slope: gradient.to_vec(), offset, plan: objective.plan(alpha).plan, weight: 0.0 }
    }
}

fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

/// min over the simplex of (u/2) λᵀ Q λ + ⟨q, λ⟩, from `weights` (all zero or on the simplex), by an active set of
/// positive weights. Each step solves the equality-constrained problem on the set: O(size³), sizes are tens.
fn simplex_quadratic(gram: ArrayView2<'_, f64>, linear: &[f64], reach: f64, weights: &mut [f64]) -> Result<()> {
    let count = linear.len();
    let total: f64 = weights.iter().sum();
    if total > 0.0 {
        weights.iter_mut().for_each(|w| *w /= total);
    } else {
        weights[(0..count).min_by(|&i, &j| linear[i].total_cmp(&linear[j])).expect("there is a cut")] = 1.0;
    }
    let mut active: Vec<usize> = (0..count).filter(|&i| weights[i] > 0.0).collect();
    let scale = reach * (0..count).map(|i| gram[[i, i]]).fold(0.0, f64::max)
        + linear.iter().fold(f64::NEG_INFINITY, |x, &y| x.max(y))
        - linear.iter().fold(f64::INFINITY, |x, &y| x.min(y));
    if scale <= 0.0 {
        return Ok(());
    }
    for _ in 0..10 * count + 20 {
        // [u Q 1; 1ᵀ 0] [λ; ν] = [−q; 1]. The ridge picks one of several solutions where cuts depend on one another.
        let size = active.len();
        let mut matrix = Array2::zeros((size + 1, size + 1));
        let mut right = Array2::zeros((size + 1, 1));
        for (r, &i) in active.iter().enumerate() {
            for (c, &j) in active.iter().enumerate() {
                matrix[[r, c]] = reach * gram[[i, j]] / scale;
            }
            matrix[[r, r]] += 1e-13;
            matrix[[r, size]] = 1.0;
            matrix[[size, r]] = 1.0;
            right[[r, 0]] = -(linear[i] - linear[active[0]]) / scale;
        }
        right[[size, 0]] = 1.0;
        let solution = solve(matrix.view(), right.view())?;
        // As far towards the solution as weights stay positive.
        let mut step = 1.0;
        let mut blocking = None;
        for (r, &i) in active.iter().enumerate() {
            let target = solution[[r, 0]];
            if target <= 0.0 && weights[i] - target > 0.0 {
                let ratio = weights[i] / (weights[i] - target);
                if ratio < step || blocking.is_none() {
                    step = ratio.min(1.0);
                    blocking = Some(r);
                }
            }
        }
        for (r, &i) in active.iter().enumerate() {
            weights[i] += step * (solution[[r, 0]] - weights[i]);
        }
        if let Some(r) = blocking {
            weights[active[r]] = 0.0;
            active.remove(r);
            continue;
        }
        // Optimal on the set: does a cut outside want in?
        let price = |i: usize| {
            let product: f64 = active.iter().map(|&j| gram[[i, j]] * weights[j]).sum();
            (reach * product + linear[i] - linear[active[0]]) / scale
        };
        let level = price(active[0]);
        let worst = (0..count)
            .filter(|i| !active.contains(i))
            .map(|i| (price(i) - level, i))
            .min_by(|x, y| x.0.total_cmp(&y.0));
        match worst {
            Some((gain, i)) if gain < -1e-12 => active.push(i),
            _ => break,
        }
    }
    let total: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|w| *w /= total);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn the_simplex_quadratic_meets_its_optimality_conditions() {
        // Slopes in the plane; conditions: u Qλ + q is equal on the support and not smaller elsewhere.
        let slopes: Vec<[f64; 2]> =
            (0..12).map(|i| [(f64::from(i) * 1.3).sin() + 0.2, (f64::from(i) * 0.7).cos() - 0.1]).collect();
        let gram = Array2::from_shape_fn((12, 12), |(i, j)| dot(&slopes[i], &slopes[j]));
        for scale in [0.0, 0.1, 10.0] {
            let linear: Vec<f64> = (0..12).map(|i| scale * (f64::from(i) * 2.1).sin()).collect();
            let mut weights = vec![0.0; 12];
            simplex_quadratic(gram.view(), &linear, 2.0, &mut weights).unwrap();
            assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-12 && weights.iter().all(|&w| w >= 0.0));
            let prices: Vec<f64> =
                (0..12).map(|i| 2.0 * (0..12).map(|j| gram[[i, j]] * weights[j]).sum::<f64>() + linear[i]).collect();
            let least = prices.iter().copied().fold(f64::INFINITY, f64::min);
            for (w, p) in weights.iter().zip(&prices) {
                assert!(*w < 1e-9 || p - least < 1e-8, "{weights:?} {prices:?}");
            }
        }
        let mut one = [0.0];
        simplex_quadratic(array![[1.0]].view(), &[3.0], 1.0, &mut one).unwrap();
        assert_eq!(one, [1.0]);
    }
}
