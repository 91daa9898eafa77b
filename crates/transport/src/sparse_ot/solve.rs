//! From a problem to a solution with its certificate.

use super::adam::Adam;
use super::bundle::Bundle;
use super::certificate::{relaxed_primal, repaired};
use super::objective::{Formulation, Objective};
use super::problem::{Problem, Regulariser};
use super::proximal::{Certified, Proximal};
use crate::exact::exact;
use crate::plan::Plan;
use crate::sinkhorn::{Options, sinkhorn};
use clap::ValueEnum;
use ndarray::Array1;
use offprint_core::{Error, Progress, Result};
use offprint_math::lbfgs::{Lbfgs, Stop};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;

/// How the dual is maximised.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Solver {
    /// What certifies fastest: proximal steps for a sparse regulariser, the network simplex for k = 1 and without
    /// regularisation, L-BFGS for the rest.
    #[default]
    Auto,
    /// L-BFGS on the dual or semi-dual, as in the authors' implementation; stalls at ties.
    Lbfgs,
    /// Adam, as the authors for large problems; rough.
    Adam,
    /// Proximal point steps on the relaxed primal; certified at any k.
    Proximal,
    /// L-BFGS, then a proximal bundle; certified for some tens of rows.
    Bundle,
    /// Sinkhorn's iteration, for the entropic regulariser alone.
    Sinkhorn,
}

/// Settings of [`solve`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Dual or semi-dual.
    pub formulation: Formulation,
    /// The method.
    pub solver: Solver,
    /// Most iterations of L-BFGS or Adam.
    pub iterations: usize,
    /// L-BFGS stops when no marginal is off by more than this.
    pub gradient_tolerance: f64,
    /// L-BFGS stops when an iteration gains no more than this much of the value (or of 1); 0 turns it off.
    pub value_tolerance: f64,
    /// First step of Adam, as part of the largest cost.
    pub rate: f64,
    /// The proximal point method.
    pub proximal: Proximal,
    /// The bundle method.
    pub bundle: Bundle,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            formulation: Formulation::SemiDual,
            solver: Solver::Auto,
            iterations: 500,
            gradient_tolerance: 1e-9,
            value_tolerance: 0.0,
            rate: 0.02,
            proximal: Proximal::default(),
            bundle: Bundle::default(),
        }
    }
}

/// What [`solve`] found.
#[derive(Debug, Clone)]
pub struct Solution {
    /// Dual variables of the rows (m).
    pub alpha: Array1<f64>,
    /// Dual variables of the columns (n).
    pub beta: Array1<f64>,
    /// At most k non-zeros per column. The marginals are as good as ties allow: see `tied`.
    pub plan: Plan,
    /// A plan with exact marginals, near optimal for the relaxed primal; columns may have more than k non-zeros.
    pub relaxed: Plan,
    /// The dual value: a lower bound on the non-convex primal.
    pub dual: f64,
    /// The relaxed primal (biconjugate regulariser) at `relaxed`.
    pub primal: f64,
    /// Columns whose k-th and (k+1)-th largest scores agree at the dual point.
    pub tied: usize,
    /// Iterations of L-BFGS or Adam, proximal steps, pivots of the network simplex.
    pub iterations: usize,
    /// Evaluations of the (semi-)dual, smoothed or not.
    pub evaluations: usize,
    /// The dual value after each iteration of L-BFGS or Adam, or each proximal step.
    pub trace: Vec<f64>,
}

impl Solution {
    /// (primal − dual) / |primal|: how far from optimal `relaxed` and the dual variables can be at most.
    pub fn certificate(&self) -> f64 {
        let gap = self.primal - self.dual;
        if gap == 0.0 { 0.0 } else { gap / self.primal.abs().max(f64::MIN_POSITIVE) }
    }
}

/// Maximises the dual of `problem` and reads the plans from it.
///
/// # Errors
/// A regulariser that does not fit; a solver that does not fit the problem; a stop by the user.
pub fn solve(
    problem: &Problem,
    regulariser: Regulariser,
    settings: &Settings,
    progress: &Progress,
) -> Result<Solution> {
    solve_from(problem, regulariser, settings, None, progress)
}

/// As [`solve`], starting from dual variables of a related problem: `alpha` (m) and `beta` (n).
///
/// # Errors
/// As [`solve`], and dual variables of other lengths.
pub fn solve_from(
    problem: &Problem,
    regulariser: Regulariser,
    settings: &Settings,
    start: Option<(&Array1<f64>, &Array1<f64>)>,
    progress: &Progress,
) -> Result<Solution> {
    regulariser.check(problem.rows())?;
    if let Some((alpha, beta)) = start
        && (alpha.len(), beta.len()) != (problem.rows(), problem.columns())
    {
        return Err(Error::input("start", format!("has {} and {} dual variables", alpha.len(), beta.len())));
    }
    let balanced = problem.relaxation().is_none();
    let by_simplex = regulariser == Regulariser::Unregularised
        || (settings.solver == Solver::Auto && balanced && regulariser.most_nonzeros(problem.rows()) == 1);
    if by_simplex {
        if !balanced {
            return Err(Error::parameter("unbalanced", "a penalty", "left out without regularisation"));
        }
        return by_network_simplex(problem, regulariser);
    }

    let by_proximal = match settings.solver {
        Solver::Auto => balanced && matches!(regulariser, Regulariser::Sparse { .. }),
        Solver::Proximal => true,
        _ => false,
    };
    if by_proximal || settings.solver == Solver::Bundle {
        if !balanced {
            return Err(Error::parameter("solver", "proximal or bundle", "lbfgs or adam for an unbalanced problem"));
        }
        if matches!(regulariser, Regulariser::Entropic { .. }) {
            return Err(Error::parameter("solver", "proximal or bundle", "lbfgs or adam for an entropic regulariser"));
        }
    }
    if settings.solver == Solver::Sinkhorn {
        return by_sinkhorn(problem, regulariser, settings, progress);
    }
    if by_proximal {
        progress.begin("proximal steps", settings.proximal.steps as u64);
        let alpha = start.map_or_else(|| vec![0.0; problem.rows()], |(alpha, _)| alpha.to_vec());
        let found = settings.proximal.maximise(problem, regulariser, &alpha, progress)?;
        progress.finish();
        return Ok(from_certified(problem, regulariser, found));
    }

    let mut objective = Objective::new(problem, regulariser, settings.formulation);
    let mut x = vec![0.0; objective.dimension()];
    if let Some((alpha, beta)) = start {
        for (slot, value) in x.iter_mut().zip(alpha.iter().chain(beta)) {
            *slot = *value;
        }
    }
    let mut trace = Vec::new();
    let mut cancelled = Ok(());
    let (iterations, mut evaluations);
    if settings.solver == Solver::Adam {
        progress.begin("Adam", settings.iterations as u64);
        let largest = problem.cost().iter().fold(0.0f64, |l, &c| l.max(c));
        let method = Adam { rate: settings.rate * largest, iterations: settings.iterations };
        (x, evaluations) = method.minimise(
            &x,
            |x, g| objective.evaluate(x, g),
            |_, value| {
                trace.push(-value);
                go_on(&mut cancelled, progress)
            },
        );
        iterations = evaluations;
    } else {
        progress.begin("L-BFGS", settings.iterations as u64);
        let method = Lbfgs {
            iterations: settings.iterations,
            gradient_tolerance: settings.gradient_tolerance,
            value_tolerance: settings.value_tolerance,
            ..Lbfgs::default()
        };
        let found = method.minimise(
            &x,
            |x, g| objective.evaluate(x, g),
            |it| {
                trace.push(-it.value);
                go_on(&mut cancelled, progress)
            },
        );
        if found.stop == Stop::Start {
            return Err(Error::Numerical(
                "the dual is not finite where the search starts; is gamma far too small?".into(),
            ));
        }
        (x, iterations, evaluations) = (found.x, found.iterations, found.evaluations);
    }
    progress.finish();
    cancelled?;

    if settings.solver == Solver::Bundle {
        progress.begin("bundle", None);
        let found = settings.bundle.maximise(problem, regulariser, &x[..problem.rows()], progress)?;
        progress.finish();
        let mut solution = from_certified(problem, regulariser, found);
        solution.evaluations += evaluations;
        solution.iterations += iterations;
        trace.append(&mut solution.trace);
        return Ok(Solution { trace, ..solution });
    }
    let mut gradient = vec![0.0; x.len()];
    let dual = -objective.evaluate(&x, &mut gradient);
    evaluations += 1;
    let read = objective.plan(&x);
    let relaxed = repaired(problem, &read.plan);
    Ok(Solution {
        alpha: x[..problem.rows()].to_vec().into(),
        beta: read.beta.into(),
        primal: relaxed_primal(problem, regulariser, &relaxed),
        plan: read.plan,
        relaxed,
        dual,
        tied: read.tied.iter().filter(|&&t| t).count(),
        iterations,
        evaluations,
        trace,
    })
}

/// Completes a certified pair by β and the k-sparse plan.
fn from_certified(problem: &Problem, regulariser: Regulariser, found: Certified) -> Solution {
    let read = Objective::new(problem, regulariser, Formulation::SemiDual).plan(&found.alpha);
    let k = regulariser.most_nonzeros(problem.rows());
    Solution {
        alpha: found.alpha.into(),
        beta: read.beta.into(),
        plan: if found.plan.max_column_nnz() <= k { found.plan.clone() } else { read.plan },
        relaxed: found.plan,
        dual: found.dual,
        primal: found.primal,
        tied: read.tied.iter().filter(|&&t| t).count(),
        iterations: found.steps,
        evaluations: found.evaluations,
        trace: found.trace,
    }
}

/// For k = 1 the biconjugate of a column is (γ/2) b_j², a constant: the relaxed primal is optimal transport itself.
fn by_network_simplex(problem: &Problem, regulariser: Regulariser) -> Result<Solution> {
    let found = exact(problem.cost(), problem.a(), problem.b())?;
    let mut gradient = vec![0.0; problem.rows()];
    let alpha = found.alpha.to_vec();
    let dual = -Objective::new(problem, regulariser, Formulation::SemiDual).evaluate(&alpha, &mut gradient);
    let primal = relaxed_primal(problem, regulariser, &found.plan);
    let certified =
        Certified { alpha, dual, plan: found.plan, primal, steps: found.pivots, evaluations: 1, trace: Vec::new() };
    Ok(from_certified(problem, regulariser, certified))
}

/// Sinkhorn's scaling, with its potentials turned into α and β of γ Σ t ln t: T_ij = exp((α_i + β_j − c_ij)/γ − 1).
fn by_sinkhorn(
    problem: &Problem,
    regulariser: Regulariser,
    settings: &Settings,
    progress: &Progress,
) -> Result<Solution> {
    let Regulariser::Entropic { gamma } = regulariser else {
        return Err(Error::parameter("solver", "sinkhorn", "another one unless the regulariser is entropic"));
    };
    if problem.relaxation().is_some() {
        return Err(Error::parameter("solver", "sinkhorn", "lbfgs or adam for an unbalanced problem"));
    }
    let options = Options {
        tolerance: settings.gradient_tolerance / problem.a().sum(),
        max_iterations: 100 * settings.iterations,
    };
    let (cost, a, b) = (problem.cost(), problem.a(), problem.b());
    let found = sinkhorn(cost, a, b, gamma, options, progress)?;
    // With masses of total s the plan is a_i b_j exp((f_i + g_j − c_ij)/γ)/s.
    let log = |x: f64| x.max(f64::MIN_POSITIVE).ln();
    let alpha: Array1<f64> = found.f.iter().zip(a).map(|(f, &a)| f + gamma * log(a)).collect();
    let beta: Array1<f64> = found.g.iter().zip(b).map(|(g, &b)| g + gamma * (log(b) - log(a.sum()) + 1.0)).collect();
    let x: Vec<f64> = alpha.iter().chain(&beta).copied().collect();
    let mut objective = Objective::new(problem, regulariser, Formulation::Dual);
    let mut gradient = vec![0.0; x.len()];
    let dual = -objective.evaluate(&x, &mut gradient);
    let plan = objective.plan(&x).plan;
    let relaxed = repaired(problem, &plan);
    Ok(Solution {
        primal: relaxed_primal(problem, regulariser, &relaxed),
        alpha,
        beta,
        plan,
        relaxed,
        dual,
        tied: 0,
        iterations: found.iterations,
        evaluations: found.iterations,
        trace: Vec::new(),
    })
}

/// Solves many problems, one thread each: small ones, like the layers of a network.
pub fn solve_batch(
    problems: &[Problem],
    regulariser: Regulariser,
    settings: &Settings,
    progress: &Progress,
) -> Result<Vec<Solution>> {
    problems.par_iter().map(|problem| solve(problem, regulariser, settings, progress)).collect()
}

/// The solutions for several k, each started from that of the next larger k. Answers in the order of `ks`.
///
/// # Errors
/// As [`solve`].
pub fn path(
    problem: &Problem,
    gamma: f64,
    ks: &[usize],
    settings: &Settings,
    progress: &Progress,
) -> Result<Vec<Solution>> {
    let mut order: Vec<usize> = (0..ks.len()).collect();
    order.sort_by_key(|&p| std::cmp::Reverse(ks[p]));
    let mut solutions: Vec<Option<Solution>> = vec![None; ks.len()];
    let mut last: Option<usize> = None;
    for p in order {
        let start = last.and_then(|q| solutions[q].as_ref()).map(|s| (&s.alpha, &s.beta));
        let solution = solve_from(problem, Regulariser::Sparse { gamma, k: ks[p] }, settings, start, progress)?;
        solutions[p] = Some(solution);
        last = Some(p);
    }
    Ok(solutions.into_iter().map(|s| s.expect("every k was solved")).collect())
}

fn go_on(cancelled: &mut Result<()>, progress: &Progress) -> ControlFlow<()> {
    *cancelled = progress.advance(1);
    if cancelled.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}
