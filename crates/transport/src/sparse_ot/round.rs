//! A strictly k-sparse plan with exact marginals out of a relaxed one.
//!
//! The relaxed plan may have more than k non-zeros in a column: it is a mean of k-sparse plans. Rounding keeps each
//! column's k largest entries as its support and transports within it: first by the network simplex, where every entry
//! outside costs a prohibitive price, which finds a feasible plan if the support carries one; then by the quadratic
//! problem within the support. Whether a k-sparse plan exists at all is a hard question for arbitrary marginals (for
//! k = 1 it is a packing problem), so a few supports are tried, and what is left over is reported, not hidden.

use super::objective::{Formulation, Objective};
use super::problem::{Problem, Regulariser};
use crate::exact::exact;
use crate::plan::Plan;
use ndarray::{Array1, Array2};
use offprint_core::{Error, Progress, Result};
use offprint_math::lbfgs::Lbfgs;
use std::ops::ControlFlow;

/// A feasible plan that is k-sparse, or as nearly as was found.
#[derive(Debug, Clone)]
pub struct Rounded {
    /// The plan; marginals are exact.
    pub plan: Plan,
    /// Entries beyond k, summed over the columns: 0 for a strictly k-sparse plan.
    pub excess: usize,
    /// The non-convex primal: ⟨T, C⟩ + (γ/2) |T|².
    pub value: f64,
}

/// Supports tried at most, and entries of the cost that all tries together may look at.
const ATTEMPTS: usize = 100;
const WORK: usize = 10_000_000;

/// Rounds `relaxed` to at most k non-zeros per column.
///
/// # Errors
/// If k entries per column cannot cover the rows with mass, whatever the support; a relaxed column marginal.
pub fn round(problem: &Problem, gamma: f64, k: usize, relaxed: &Plan, progress: &Progress) -> Result<Rounded> {
    let (m, n) = (problem.rows(), problem.columns());
    let (a, b) = (problem.a(), problem.b());
    if problem.relaxation().is_some() {
        return Err(Error::parameter(
            "unbalanced",
            "a penalty",
            "left out to round the plan: rounding keeps marginals",
        ));
    }
    let rows = a.iter().filter(|&&x| x > 0.0).count();
    let columns = b.iter().filter(|&&x| x > 0.0).count();
    if k * columns < rows {
        return Err(Error::input(
            "k",
            format!(
                "k={k} per column cannot cover {rows} rows with {columns} columns; a strictly {k}-sparse plan does not exist"
            ),
        ));
    }
    let cost = problem.cost();
    let largest = cost.iter().fold(0.0f64, |l, &c| l.max(c));
    let price = 4.0 * (if largest > 0.0 { largest } else { 1.0 }) * (m + n) as f64;

    // First within the support, where entries outside are prohibitive.
    let support = largest_entries(relaxed, k);
    let within = Array2::from_shape_fn((m, n), |(i, j)| cost[[i, j]] + if support[[j, i]] { 0.0 } else { price });
    let first = exact(within.view(), a, b)?.plan;
    let first_excess = beyond(&first, k);
    let mut best = (first_excess, first.cost(cost), first.clone());
    // Then with a price on just the entries that mass insists on beyond k: dearer each time, until others are tried.
    let mut priced = cost.to_owned();
    let mut step = 0.02 * if largest > 0.0 { largest } else { 1.0 };
    for attempt in 0..ATTEMPTS.min(2 + WORK / (m * n)) {
        if best.0 == 0 {
            break;
        }
        progress.check()?;
        let plan = exact(priced.view(), a, b)?.plan;
        let (excess, value) = (beyond(&plan, k), plan.cost(cost));
        if (excess, value) < (best.0, best.1) {
            best = (excess, value, plan.clone());
        }
        for j in (0..n).filter(|&j| plan.column(j).len() > k) {
            let mut entries: Vec<(usize, f64)> = plan.column(j).collect();
            entries.sort_by(|x, y| y.1.total_cmp(&x.1).then(x.0.cmp(&y.0)));
            // The smallest entry gives way; every other time one of the larger, lest the same exchange goes on for ever.
            let i = entries[k - (attempt % 2).min(k - 1)].0;
            priced[[i, j]] += step;
        }
        step *= 1.05;
    }
    // Where no k-sparse plan was found, the one nearest to the relaxed plan serves best.
    let (excess, vertex) = if best.0 == 0 { (0, best.2) } else { (first_excess, first) };

    // Mass spreads over the relaxed plan's k largest entries where they carry the vertex, over the vertex's own where a
    // priced search has found it elsewhere, and over both where there are more than k anyway.
    let carried = vertex.entries().all(|(i, j, _)| support[[j, i]]);
    let mut within = if carried || excess > 0 { support } else { Array2::from_elem((n, m), false) };
    for (i, j, _) in vertex.entries() {
        within[[j, i]] = true;
    }
    let plan = quadratic_within(problem, gamma, &within, price, &vertex)?;
    let plan = if objective(problem, gamma, &plan) <= objective(problem, gamma, &vertex) { plan } else { vertex };
    let excess = beyond(&plan, k);
    Ok(Rounded { value: objective(problem, gamma, &plan), excess, plan })
}

/// Entries beyond k, over all columns.
fn beyond(plan: &Plan, k: usize) -> usize {
    plan.column_nnz().iter().map(|&c| c.saturating_sub(k)).sum()
}

/// ⟨T, C⟩ + (γ/2) |T|².
fn objective(problem: &Problem, gamma: f64, plan: &Plan) -> f64 {
    plan.cost(problem.cost()) + 0.5 * gamma * plan.entries().map(|(_, _, t)| t * t).sum::<f64>()
}

/// The k largest entries of each column, ties to the smaller row, as a mask (n, m).
fn largest_entries(plan: &Plan, k: usize) -> Array2<bool> {
    let mut mask = Array2::from_elem((plan.columns(), plan.rows()), false);
    for j in 0..plan.columns() {
        let mut column: Vec<(usize, f64)> = plan.column(j).collect();
        column.sort_by(|x, y| y.1.total_cmp(&x.1).then(x.0.cmp(&y.0)));
        for (i, _) in column.into_iter().take(k) {
            mask[[j, i]] = true;
        }
    }
    mask
}

/// The optimum of the quadratic problem with all mass within the mask (n, m), by its smooth semi-dual. What the marginals
/// of that plan lack is made up by mixing in a little of a plan within the mask that errs to the other side, so that the
/// marginals come out exact; `vertex` if there is none.
fn quadratic_within(problem: &Problem, gamma: f64, mask: &Array2<bool>, price: f64, vertex: &Plan) -> Result<Plan> {
    let (m, n) = (problem.rows(), problem.columns());
    let (cost, a, b) = (problem.cost(), problem.a(), problem.b());
    let outside = |price: f64| {
        Array2::from_shape_fn((m, n), |(i, j)| if mask[[j, i]] { cost[[i, j]] } else { cost[[i, j]] + price })
    };
    let masked = Problem::unchecked(outside(f64::INFINITY).view(), a.to_owned(), b.to_owned(), None);
    let mut smooth = Objective::new(&masked, Regulariser::Quadratic { gamma }, Formulation::SemiDual);
    let mean = a.sum() / m as f64;
    let method = Lbfgs { iterations: 1000, gradient_tolerance: 1e-9 * mean, ..Lbfgs::default() };
    let start = vec![0.0; m];
    let found = method.minimise(&start, |x, g| smooth.evaluate(x, g), |_| ControlFlow::Continue(()));
    let plan = smooth.plan(&found.x).plan;
    let sums = plan.row_sums();
    let excess = sums.iter().zip(a).map(|(s, a)| if *s > 0.0 { (s - a) / s } else { 0.0 }).fold(0.0, f64::max);
    let priced = outside(price);
    // (1 − ε) T + ε V has row marginals a if V has (a − (1 − ε) T 1)/ε.
    let mut epsilon = (10.0 * excess).clamp(1e-12, 1.0);
    while epsilon < 1.0 {
        let wanted: Array1<f64> =
            sums.iter().zip(a).map(|(s, a)| ((a - (1.0 - epsilon) * s) / epsilon).max(0.0)).collect();
        let wanted = &wanted * (b.sum() / wanted.sum());
        let other = exact(priced.view(), wanted.view(), b)?.plan;
        if other.entries().all(|(i, j, _)| mask[[j, i]]) {
            return Ok(Plan::combination(&[&plan, &other], &[1.0 - epsilon, epsilon]));
        }
        epsilon *= 10.0;
    }
    Ok(vertex.clone())
}
