//! The proximal point method on the relaxed primal: the certified optimum at any k, ties or not.
//!
//! For 1 < k < k* the semi-dual's maximum typically sits where scores tie. It has a kink there: quasi-Newton steps stall
//! short of the optimum, and the plan read off a gradient misses the row marginals. The relaxed primal,
//! min ⟨T, C⟩ + Σ_j Ω**(t_j), is convex but not strictly, which is the same defect seen from the other side. Rockafellar's
//! proximal point iteration (1976) mends it with a ridge that vanishes in the limit:
//!
//!   T⁺ = argmin ⟨T, C⟩ + Σ_j Ω**(t_j) + (δ/2)|T − T⁰|²   over plans with the marginals.
//!
//! That is a problem of the same kind with cost C − δ T⁰ and regulariser Ω** + (δ/2)|·|². Its semi-dual is smooth whatever
//! the ties, a column costs hardly more than the paper's top-k (see `conjugate`), and L-BFGS solves it in tens of
//! evaluations from the last dual point. The iteration ends when the certificate says so.

use super::certificate::{relaxed_primal, repaired};
use super::objective::{Formulation, Objective};
use super::problem::{Problem, Regulariser};
use crate::plan::Plan;
use offprint_core::{Progress, Result};
use offprint_math::lbfgs::Lbfgs;
use std::ops::ControlFlow;

/// Settings of the proximal point method.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Proximal {
    /// First strength of the ridge, as part of γ; it falls while steps are easy.
    pub ridge: f64,
    /// Most proximal steps.
    pub steps: usize,
    /// Most L-BFGS iterations of one step.
    pub iterations: usize,
    /// Most evaluations in all.
    pub evaluations: usize,
    /// Stops when the certificate is at most this.
    pub tolerance: f64,
}

impl Default for Proximal {
    fn default() -> Self {
        Self { ridge: 0.1, steps: 200, iterations: 300, evaluations: 10_000, tolerance: 1e-6 }
    }
}

/// A dual point and a feasible plan that certify one another.
#[derive(Debug, Clone)]
pub struct Certified {
    /// The best dual point found (m).
    pub alpha: Vec<f64>,
    /// The semi-dual there.
    pub dual: f64,
    /// A plan with exact marginals, near optimal for the relaxed primal.
    pub plan: Plan,
    /// The relaxed primal there.
    pub primal: f64,
    /// Steps: proximal steps, or evaluations of the bundle method.
    pub steps: usize,
    /// Evaluations of the semi-dual, smoothed or not.
    pub evaluations: usize,
    /// The best dual value after each step.
    pub trace: Vec<f64>,
}

/// The ridge does not fall below this part of its first strength: the smoothed problem would be as hard as the paper's.
const LEAST_RIDGE: f64 = 0.1;
/// Least bend of the ridge, as part of the largest cost.
const LEAST_BEND: f64 = 1e-4;
/// A step that took no more iterations than this was easy.
const EASY: usize = 12;

impl Proximal {
    /// Maximises the semi-dual of `problem` with a sparse or quadratic regulariser from `start` (m).
    ///
    /// # Errors
    /// Only a stop by the user.
    pub fn maximise(
        &self,
        problem: &Problem,
        regulariser: Regulariser,
        start: &[f64],
        progress: &Progress,
    ) -> Result<Certified> {
        let m = problem.rows();
        let mean = problem.a().sum() / m as f64;
        // A ridge that is nothing beside the cost would leave the problem as rough as it is: an entry of a column's size
        // shall bend by a small part of the cost at least.
        let largest = problem.cost().iter().fold(0.0f64, |l, &c| l.max(c));
        let column = problem.b().sum() / problem.columns() as f64;
        let mut delta = (self.ridge * regulariser.gamma()).max(LEAST_BEND * largest / column);
        let least_delta = LEAST_RIDGE * delta;
        let mut truth = Objective::new(problem, regulariser, Formulation::SemiDual);
        let mut gradient = vec![0.0; m];
        let mut alpha = start.to_vec();
        let mut best = Certified {
            dual: -truth.evaluate(&alpha, &mut gradient),
            alpha: alpha.clone(),
            plan: repaired(problem, &truth.plan(&alpha).plan),
            primal: f64::INFINITY,
            steps: 0,
            evaluations: 1,
            trace: Vec::new(),
        };
        best.primal = relaxed_primal(problem, regulariser, &best.plan);
        // From zero there is no plan worth staying near to.
        let mut centre =
            if start.iter().all(|&x| x == 0.0) { Plan::empty(m, problem.columns()) } else { best.plan.clone() };
        let mut tolerance = 1e-2 * mean;
        let mut last = self.steps == 0;
        while !last && best.primal - best.dual > self.tolerance * best.primal.abs() {
            progress.advance(1)?;
            let mut cost = problem.cost().to_owned();
            for (i, j, t) in centre.entries() {
                cost[[i, j]] -= delta * t;
            }
            let moved = Problem::unchecked(cost.view(), problem.a().to_owned(), problem.b().to_owned(), None);
            let mut smooth = Objective::smoothed(&moved, regulariser, delta);
            let method = Lbfgs { iterations: self.iterations, gradient_tolerance: tolerance, ..Lbfgs::default() };
            let mut stopped = Ok(());
            let found = method.minimise(
                &alpha,
                |x, g| smooth.evaluate(x, g),
                |_| {
                    stopped = progress.check();
                    if stopped.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                },
            );
            stopped?;
            alpha = found.x;
            let next = smooth.plan(&alpha).plan;
            let dual = -truth.evaluate(&alpha, &mut gradient);
            best.steps += 1;
            best.evaluations += found.evaluations + 1;
            last = best.steps >= self.steps || best.evaluations >= self.evaluations;
            if dual > best.dual {
                best.dual = dual;
                best.alpha.copy_from_slice(&alpha);
            }
            best.trace.push(best.dual);

            // The Lagrangian at (T, α) exceeds the dual by what either lacks; only if that is little, a plan with exact
            // marginals is worth its price.
            let missing: f64 = next.row_sums().iter().zip(problem.a()).zip(&alpha).map(|((r, a), x)| x * (a - r)).sum();
            let gap = relaxed_primal(problem, regulariser, &next) + missing - dual;
            if gap <= 2.0 * self.tolerance * best.dual.abs() || last {
                let plan = repaired(problem, &next);
                let primal = relaxed_primal(problem, regulariser, &plan);
                if primal < best.primal {
                    (best.primal, best.plan) = (primal, plan);
                }
            }
            progress.status(&format!("gap {:.1e}", gap / best.dual.abs().max(f64::MIN_POSITIVE)));

            let change = Plan::combination(&[&next, &centre], &[1.0, -1.0]);
            let change = change.entries().fold(0.0f64, |most, (_, _, t)| most.max(t.abs()));
            // Each step is solved to a tenth of what the last one moved, and always better than the one before.
            tolerance = (0.1 * change).min(0.7 * tolerance).max(1e-12 * mean);
            if found.iterations <= EASY {
                delta = (0.7 * delta).max(least_delta);
            }
            centre = next;
        }
        Ok(best)
    }
}
