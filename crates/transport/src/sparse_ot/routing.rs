//! Routers of a mixture-of-experts layer: which tokens go to which experts.
//!
//! A router scores every token against every expert; an expert can take `capacity` tokens. Sparse transport gives all
//! tokens to experts of equal load with at most `capacity` tokens each. The baselines are those used in practice.

use super::problem::Problem;
use crate::plan::Plan;
use crate::sinkhorn::{Options, sinkhorn};
use ndarray::{Array1, Array2, ArrayView2};
use offprint_core::{Progress, Result};

/// Fractions of tokens sent to experts, and what they add up to.
#[derive(Debug, Clone)]
pub struct Routing {
    /// Fractions (tokens, experts); a token that is served in full has a row sum of one.
    pub plan: Plan,
    /// Σ fraction · affinity.
    pub affinity: f64,
    /// Tokens not served, in fractions.
    pub unserved: f64,
    /// Load of each expert, in tokens (experts).
    pub loads: Vec<f64>,
    /// Different tokens that each expert gets a part of (experts).
    pub tokens: Vec<usize>,
}

impl Routing {
    /// Sums up a plan whose rows are tokens.
    pub fn new(affinity: ArrayView2<'_, f64>, plan: Plan) -> Self {
        Self {
            affinity: plan.cost(affinity),
            unserved: plan.row_sums().iter().map(|s| (1.0 - s).max(0.0)).sum(),
            loads: plan.column_sums().to_vec(),
            tokens: plan.column_nnz(),
            plan,
        }
    }

    /// The largest load over the mean of what is served.
    pub fn imbalance(&self) -> f64 {
        let mean = self.loads.iter().sum::<f64>() / self.loads.len() as f64;
        self.loads.iter().copied().fold(0.0, f64::max) / mean
    }
}

/// The transport problem of a router: tokens of mass 1/m, experts of mass 1/n, cost the affinity turned over and scaled
/// to 0..=1.
///
/// # Errors
/// Affinities that are not finite.
pub fn router_problem(affinity: ArrayView2<'_, f64>) -> Result<Problem> {
    let (low, high) = affinity.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &x| (l.min(x), h.max(x)));
    let range = if high > low { high - low } else { 1.0 };
    Problem::uniform(affinity.mapv(|x| ((high - x) / range).max(0.0)).view())
}

/// Every token goes to its `choices` best experts in equal parts, in the order of tokens; a full expert drops what comes
/// later (Switch, GShard).
pub fn top_choices(affinity: ArrayView2<'_, f64>, choices: usize, capacity: usize) -> Plan {
    let wishes = affinity.rows().into_iter().map(|row| best(row.iter().copied(), choices));
    first_come(affinity.dim(), wishes, choices, capacity)
}

/// Every expert takes the `capacity` tokens that like it best (expert choice). A token may be taken several times, then
/// in equal parts, or by nobody.
pub fn expert_choice(affinity: ArrayView2<'_, f64>, capacity: usize) -> Plan {
    let (m, n) = affinity.dim();
    let taken: Vec<Vec<usize>> = affinity.columns().into_iter().map(|c| best(c.iter().copied(), capacity)).collect();
    let mut times = vec![0usize; m];
    taken.iter().flatten().for_each(|&i| times[i] += 1);
    let mut plan = Plan::with_rows(m, n * capacity);
    for mut tokens in taken {
        tokens.sort_unstable();
        plan.push_column(tokens.into_iter().map(|i| (i, 1.0 / times[i] as f64)));
    }
    plan
}

/// Entropic transport balances the scores, then every token goes to its best expert in the balanced scores while there
/// is room (S-BASE).
///
/// # Errors
/// As [`sinkhorn`].
pub fn sinkhorn_top_choice(
    affinity: ArrayView2<'_, f64>,
    epsilon: f64,
    capacity: usize,
    progress: &Progress,
) -> Result<Plan> {
    let problem = router_problem(affinity)?;
    let (cost, a, b) = (problem.cost(), problem.a(), problem.b());
    let options = Options { tolerance: 1e-9, max_iterations: 10_000 };
    let balanced = sinkhorn(cost, a, b, epsilon, options, progress)?.plan(cost, a, b);
    let wishes = balanced.rows().into_iter().map(|row| best(row.iter().copied(), 1));
    Ok(first_come(affinity.dim(), wishes, 1, capacity))
}

/// Token fractions of a transport plan for [`router_problem`]: masses times the number of tokens.
pub fn fractions(plan: &Plan) -> Plan {
    let m = plan.rows() as f64;
    Plan::combination(&[plan], &[m])
}

/// Scores of a random linear router: features (tokens, d), brought to mean 0 and variance 1 per feature as a
/// normalisation layer does, times weights (d, experts).
pub fn linear_router(features: ArrayView2<'_, f64>, weights: ArrayView2<'_, f64>) -> Array2<f64> {
    let mut normal = features.to_owned();
    for mut column in normal.columns_mut() {
        let mean = column.mean().unwrap_or(0.0);
        let deviation = column.std(0.0);
        column.mapv_inplace(|x| if deviation > 0.0 { (x - mean) / deviation } else { 0.0 });
    }
    offprint_math::linalg::matmul(normal.view(), weights)
}

/// Indices of the `count` largest scores, best first; ties to the smaller index.
fn best(scores: impl Iterator<Item = f64>, count: usize) -> Vec<usize> {
    let scores: Array1<f64> = scores.collect();
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&x, &y| scores[y].total_cmp(&scores[x]).then(x.cmp(&y)));
    order.truncate(count);
    order
}

fn first_come(
    (m, n): (usize, usize),
    wishes: impl Iterator<Item = Vec<usize>>,
    choices: usize,
    capacity: usize,
) -> Plan {
    let mut columns: Vec<Vec<(usize, f64)>> = vec![Vec::new(); n];
    for (token, experts) in wishes.enumerate() {
        for expert in experts {
            if columns[expert].len() < capacity {
                columns[expert].push((token, 1.0 / choices as f64));
            }
        }
    }
    let mut plan = Plan::with_rows(m, m * choices);
    columns.into_iter().for_each(|column| plan.push_column(column));
    plan
}
