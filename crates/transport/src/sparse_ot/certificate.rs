//! How far a plan and a dual point are from optimal: the biconjugate's value, and feasible plans out of nearly feasible
//! ones.
//!
//! The dual is the exact value of the primal whose Ω is replaced by its biconjugate Ω**. For the sparse regulariser Ω**
//! is half γ times the squared k-support norm (Argyriou, Foygel & Srebro 2012) on t ≥ 0. So for any plan with exact
//! marginals
//!
//!   ⟨T, C⟩ + Σ_j Ω**(t_j) − D(α, β) ≥ 0,
//!
//! and the difference bounds what either side lacks.

use super::problem::{Problem, Regulariser};
use crate::exact::exact;
use crate::plan::Plan;
use ndarray::ArrayView1;

/// The squared k-support norm of t ≥ 0; equals |t|² if t has at most k non-zeros, (Σ t)² for k = 1. O(m log m).
///
/// min over θ in [0, 1]^m with Σ θ ≤ k of Σ t_i²/θ_i: the q largest get θ = 1, the others share k − q in proportion to
/// t_i. q runs over 0..k, and the least value among the feasible ones is the norm.
pub fn k_support_squared(t: &[f64], k: usize) -> f64 {
    let mut sorted: Vec<f64> = t.iter().copied().filter(|&x| x > 0.0).collect();
    if sorted.len() <= k {
        return sorted.iter().map(|x| x * x).sum();
    }
    sorted.sort_unstable_by(|x, y| y.total_cmp(x));
    // Sums of the tails from the small end: differences would lose tiny entries behind large ones.
    let mut tails = sorted.clone();
    for q in (0..tails.len() - 1).rev() {
        tails[q] += tails[q + 1];
    }
    let mut head = 0.0;
    let mut least = f64::INFINITY;
    for q in 0..k {
        let share = (k - q) as f64;
        if sorted[q] * share <= tails[q] {
            least = least.min(head + tails[q] * tails[q] / share);
        }
        head += sorted[q] * sorted[q];
    }
    least
}

/// Ω**(t) of a column given by its non-zeros.
fn biconjugate(regulariser: Regulariser, masses: &[f64]) -> f64 {
    match regulariser {
        Regulariser::Unregularised => 0.0,
        Regulariser::Entropic { gamma } => gamma * masses.iter().filter(|&&t| t > 0.0).map(|t| t * t.ln()).sum::<f64>(),
        Regulariser::Quadratic { gamma } => 0.5 * gamma * masses.iter().map(|t| t * t).sum::<f64>(),
        Regulariser::Sparse { gamma, k } => 0.5 * gamma * k_support_squared(masses, k),
    }
}

/// The relaxed primal at `plan`: ⟨T, C⟩ + Σ_j Ω**(t_j), plus the price of missing the column marginal if that is relaxed.
pub fn relaxed_primal(problem: &Problem, regulariser: Regulariser, plan: &Plan) -> f64 {
    let mut masses = Vec::new();
    let regularisation: f64 = (0..plan.columns())
        .map(|j| {
            masses.clear();
            masses.extend(plan.column(j).map(|e| e.1));
            biconjugate(regulariser, &masses)
        })
        .sum();
    let relaxation = problem.relaxation().map_or(0.0, |rho| {
        let kl = |x: f64, b: f64| if x > 0.0 { x * (x / b).ln() - x + b } else { b };
        let columns = plan.column_sums();
        let pairs = columns.iter().zip(problem.b()).filter(|&(&x, &b)| x > 0.0 || b > 0.0);
        rho * pairs.map(|(&x, &b)| kl(x, b)).sum::<f64>()
    });
    plan.cost(problem.cost()) + regularisation + relaxation
}

/// A plan with exact marginals near `plan`: what is too much is scaled down, what is then missing is transported at least
/// cost, in at most m + n entries. Where the column marginal is relaxed, only rows are repaired.
pub fn repaired(problem: &Problem, plan: &Plan) -> Plan {
    let (a, b) = (problem.a(), problem.b());
    let relaxed = problem.relaxation().is_some();
    let shrink = |sum: f64, wanted: f64| if sum > wanted { wanted / sum } else { 1.0 };
    let row_factors: Vec<f64> = plan.row_sums().iter().zip(a).map(|(&s, &w)| shrink(s, w)).collect();
    let mut columns: Vec<Vec<(usize, f64)>> = Vec::with_capacity(plan.columns());
    let mut missing_rows = a.to_vec();
    let mut missing_columns = vec![0.0; plan.columns()];
    for j in 0..plan.columns() {
        let mut column: Vec<(usize, f64)> = plan.column(j).map(|(i, t)| (i, t * row_factors[i])).collect();
        let sum: f64 = column.iter().map(|e| e.1).sum();
        let factor = if relaxed { 1.0 } else { shrink(sum, b[j]) };
        for (i, t) in &mut column {
            *t *= factor;
            missing_rows[*i] -= *t;
        }
        missing_columns[j] = b[j] - sum * factor;
        columns.push(column);
    }
    if relaxed {
        // Any column may take what a row still has: the cheapest does.
        for (i, &mass) in missing_rows.iter().enumerate().filter(|&(_, &mass)| mass > 0.0) {
            let cheapest = (0..b.len())
                .filter(|&j| b[j] > 0.0)
                .min_by(|&j, &l| problem.cost()[[i, j]].total_cmp(&problem.cost()[[i, l]]));
            columns[cheapest.expect("b has mass")].push((i, mass));
        }
    } else {
        fill(problem, missing_rows, missing_columns, &mut columns);
    }
    let mut repaired = Plan::with_rows(a.len(), plan.nnz());
    for mut column in columns {
        column.sort_by_key(|e| e.0);
        column.dedup_by(|later, first| {
            let same = later.0 == first.0;
            if same {
                first.1 += later.1;
            }
            same
        });
        repaired.push_column(column);
    }
    repaired
}

/// Adds the missing masses to `columns`: by the network simplex, or corner by corner where they are mere rounding.
fn fill(
    problem: &Problem,
    mut missing_rows: Vec<f64>,
    mut missing_columns: Vec<f64>,
    columns: &mut [Vec<(usize, f64)>],
) {
    missing_rows.iter_mut().chain(&mut missing_columns).for_each(|x| *x = x.max(0.0));
    let missing: f64 = missing_rows.iter().sum();
    if missing > 1e-6 * problem.a().sum() {
        let balance = missing / missing_columns.iter().sum::<f64>();
        missing_columns.iter_mut().for_each(|x| *x *= balance);
        let (rows, columns_missing) = (ArrayView1::from(&missing_rows), ArrayView1::from(&missing_columns));
        if let Ok(found) = exact(problem.cost(), rows, columns_missing) {
            for (i, j, mass) in found.plan.entries() {
                columns[j].push((i, mass));
            }
            return;
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < missing_rows.len() && j < missing_columns.len() {
        let mass = missing_rows[i].min(missing_columns[j]);
        if mass > 0.0 {
            columns[j].push((i, mass));
            missing_rows[i] -= mass;
            missing_columns[j] -= mass;
        }
        if missing_rows[i] <= missing_columns[j] { i += 1 } else { j += 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn k_support_norm_equals_its_published_closed_form() {
        // Argyriou, Foygel & Srebro 2012, Prop. 2.1, on (3, 2, 1, 1), k = 2: r = 0 asks t_(1) = 3 > 2 + 1 + 1 = 4: no;
        // r = 1 asks ∞ > 7/2 ≥ t_(1) = 3: yes, so the square is 7²/2.
        assert!((k_support_squared(&[1.0, 3.0, 2.0, 1.0], 2) - 24.5).abs() < 1e-13);
        // (10, 1, 1, 1), k = 2: r = 0 as 10 > 3 ≥ 1: 100 + 9.
        assert!((k_support_squared(&[1.0, 1.0, 10.0, 1.0], 2) - 109.0).abs() < 1e-13);
        assert_eq!(k_support_squared(&[3.0, 0.0, 4.0], 2), 25.0);
        assert_eq!(k_support_squared(&[3.0, 4.0], 1), 49.0);
        assert_eq!(k_support_squared(&[], 1), 0.0);
    }

    #[test]
    fn repaired_plans_have_the_marginals() {
        let problem = Problem::new(
            array![[1.0, 2.0], [0.0, 1.0], [3.0, 0.5]].view(),
            array![0.2, 0.3, 0.5].view(),
            array![0.6, 0.4].view(),
        )
        .unwrap();
        let off = Plan::from_dense(array![[0.3, 0.0], [0.1, 0.1], [0.3, 0.05]].view());
        let (rows, columns) = repaired(&problem, &off).marginal_errors(problem.a(), problem.b());
        assert!(rows.max(columns) < 1e-15);
        let exact = Plan::from_dense(array![[0.2, 0.0], [0.3, 0.0], [0.1, 0.4]].view());
        assert!((&repaired(&problem, &exact).to_dense() - &exact.to_dense()).iter().all(|x| x.abs() < 1e-15));
    }
}
