//! The conjugates of the regularisers: what one column adds to the dual and the semi-dual, and its part of the plan.
//!
//! For a column with scores s = α + β_j − c_j (dual) or s = α − c_j (semi-dual):
//! - Ω*(s) = max over t ≥ 0 of ⟨s, t⟩ − Ω(t), reached at t = ∇Ω*(s);
//! - Ω*_b(s) = the same maximum over the simplex {t ≥ 0, Σ t = b}, reached at t; −τ recovers β_j.

use super::problem::Regulariser;
use super::select::{Candidate, accumulate_positive, collect_above, keep_largest, maximum, simplex_threshold};
use offprint_math::vector;

/// Memory that the columns of one thread share.
#[derive(Debug, Default, Clone)]
pub(super) struct Scratch {
    candidates: Vec<Candidate>,
    /// A whole column, for regularisers whose plans are dense.
    dense: Vec<f64>,
    /// The non-zeros (row, mass) of the last column that was asked for them, in no particular order.
    pub(super) entries: Vec<(usize, f64)>,
}

/// What one column adds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Column {
    /// Ω*(s) or Ω*_b(s).
    pub(super) value: f64,
    /// Σ_i t_i.
    pub(super) mass: f64,
    /// The threshold τ of the semi-dual.
    pub(super) tau: f64,
    /// Whether the k-th and (k+1)-th largest scores were equal: t is then one subgradient among many.
    pub(super) tied: bool,
}

/// Scores closer than this part of what a column spreads over (γ b_j, or the largest score in the dual) count as tied in
/// reports; the selection itself breaks exact ties by row.
const TIE: f64 = 1e-6;

/// The dual's column: Ω*(α + β − c); t is added to `sums` (m).
pub(super) fn dual(
    regulariser: Regulariser,
    alpha: &[f64],
    beta: f64,
    cost: &[f64],
    sums: &mut [f64],
    scratch: &mut Scratch,
) -> Column {
    match regulariser {
        Regulariser::Quadratic { gamma } => {
            let (total, squares) = accumulate_positive(alpha, cost, beta, 1.0 / gamma, sums);
            Column { value: squares / (2.0 * gamma), mass: total / gamma, tau: -beta, tied: false }
        }
        _ => {
            let column = dual_entries(regulariser, alpha, beta, cost, scratch);
            scatter(&scratch.entries, sums);
            column
        }
    }
}

/// As [`dual`], with t left in `scratch.entries`.
pub(super) fn dual_entries(
    regulariser: Regulariser,
    alpha: &[f64],
    beta: f64,
    cost: &[f64],
    scratch: &mut Scratch,
) -> Column {
    scratch.entries.clear();
    match regulariser {
        Regulariser::Entropic { gamma } => {
            // Ω*(s) = γ Σ exp(s_i/γ − 1), t_i = exp(s_i/γ − 1).
            scratch.dense.clear();
            scratch.dense.extend(alpha.iter().zip(cost).map(|(a, c)| (a + beta - c) / gamma - 1.0));
            vector::exp(&mut scratch.dense);
            let mass: f64 = scratch.dense.iter().sum();
            scratch.entries.extend(scratch.dense.iter().copied().enumerate());
            Column { value: gamma * mass, mass, tau: -beta, tied: false }
        }
        // γ = 0 has Ω* = 0 where all s ≤ 0, +∞ elsewhere: no use for a gradient method.
        Regulariser::Unregularised => {
            let feasible = maximum(alpha, cost) + beta <= 0.0;
            Column { value: if feasible { 0.0 } else { f64::INFINITY }, mass: 0.0, tau: -beta, tied: false }
        }
        Regulariser::Quadratic { gamma } | Regulariser::Sparse { gamma, .. } => {
            // (1/2γ) Σ over the k largest of max(s, 0)², t = max(topk(s), 0)/γ.
            scratch.candidates.clear();
            collect_above(alpha, cost, beta, 0.0, &mut scratch.candidates);
            let k = regulariser.most_nonzeros(alpha.len());
            let top = scratch.candidates.iter().fold(0.0f64, |m, c| m.max(c.0));
            let tied = keep_largest(&mut scratch.candidates, k, TIE * top);
            let (mut total, mut squares) = (0.0, 0.0);
            for &(s, i) in &scratch.candidates {
                total += s;
                squares += s * s;
                scratch.entries.push((i, s / gamma));
            }
            Column { value: squares / (2.0 * gamma), mass: total / gamma, tau: -beta, tied }
        }
    }
}

/// The semi-dual's column: Ω*_b(α − c); t is added to `sums` (m).
pub(super) fn semi_dual(
    regulariser: Regulariser,
    ridge: Option<f64>,
    alpha: &[f64],
    b: f64,
    cost: &[f64],
    sums: &mut [f64],
    scratch: &mut Scratch,
) -> Column {
    let column = semi_dual_entries(regulariser, ridge, alpha, b, cost, scratch);
    scatter(&scratch.entries, sums);
    column
}

/// As [`semi_dual`], with t left in `scratch.entries`.
pub(super) fn semi_dual_entries(
    regulariser: Regulariser,
    ridge: Option<f64>,
    alpha: &[f64],
    b: f64,
    cost: &[f64],
    scratch: &mut Scratch,
) -> Column {
    if let Some(delta) = ridge {
        let k = regulariser.most_nonzeros(alpha.len());
        return smoothed_entries((regulariser.gamma(), k, delta), alpha, b, cost, scratch);
    }
    scratch.entries.clear();
    let top = maximum(alpha, cost);
    if b == 0.0 {
        return Column { value: 0.0, mass: 0.0, tau: top, tied: false };
    }
    match regulariser {
        Regulariser::Entropic { gamma } => {
            // Ω*_b(s) = γ b (ln Σ exp(s_i/γ) − ln b), t = b softmax(s/γ).
            scratch.dense.clear();
            scratch.dense.extend(alpha.iter().zip(cost).map(|(a, c)| (a - c - top) / gamma));
            vector::exp(&mut scratch.dense);
            let sum: f64 = scratch.dense.iter().sum();
            scratch.entries.extend(scratch.dense.iter().map(|e| e * b / sum).enumerate());
            let log_sum = top / gamma + sum.ln();
            // β of the dual: b = Σ exp((s_i + β)/γ − 1).
            let tau = gamma * (log_sum - b.ln() - 1.0);
            Column { value: gamma * b * (log_sum - b.ln()), mass: b, tau, tied: false }
        }
        Regulariser::Unregularised => {
            scratch.candidates.clear();
            collect_above(alpha, cost, 0.0, top - TIE * top.abs(), &mut scratch.candidates);
            let tied = scratch.candidates.len() > 1;
            let row = alpha.iter().zip(cost).position(|(a, c)| a - c == top).expect("a maximum is reached");
            scratch.entries.push((row, b));
            Column { value: b * top, mass: b, tau: top, tied }
        }
        Regulariser::Quadratic { gamma } | Regulariser::Sparse { gamma, .. } => {
            // Σ max(s − τ, 0) = γ b puts τ at or above max s − γ b: nothing below that takes part. A margin of a few
            // units in the last place keeps what rounding would cut off.
            let mass = gamma * b;
            let floor = top - mass - 4.0 * f64::EPSILON * (top.abs() + mass);
            scratch.candidates.clear();
            collect_above(alpha, cost, 0.0, floor, &mut scratch.candidates);
            let k = regulariser.most_nonzeros(alpha.len());
            let tied = keep_largest(&mut scratch.candidates, k, TIE * mass);
            let tau = simplex_threshold(&scratch.candidates, top, mass);
            // A tie below the threshold is between entries that get nothing.
            let tied = tied && scratch.candidates.iter().all(|c| c.0 > tau);
            let mut value = 0.0;
            for &(s, i) in &scratch.candidates {
                let t = (s - tau) / gamma;
                if t > 0.0 {
                    value += t * (s - 0.5 * gamma * t);
                    scratch.entries.push((i, t));
                }
            }
            if scratch.entries.is_empty() {
                // γ b is lost in the rounding of s: the whole mass goes to the largest.
                let row = alpha.iter().zip(cost).position(|(a, c)| a - c == top).expect("a maximum is reached");
                scratch.entries.push((row, b));
                value = b * (top - 0.5 * mass);
            } else {
                // The last digits of t, so that the column's marginal is exact.
                let sum: f64 = scratch.entries.iter().map(|e| e.1).sum();
                scratch.entries.iter_mut().for_each(|e| e.1 *= b / sum);
            }
            Column { value, mass: b, tau, tied }
        }
    }
}

/// The semi-dual's column of the relaxed problem with a ridge: Ω(t) = (γ/2)|t|²_ksp + (δ/2)|t|², whose conjugate is
/// smooth however the scores tie. t is left in `scratch.entries`.
///
/// With |t|²_ksp = min_θ Σ t_i²/θ_i over 0 ≤ θ ≤ 1, Σ θ ≤ k, and multipliers τ of Σ t = b and γν²/2 of Σ θ ≤ k, an entry is
///   (s − τ)/(γ + δ)   where s − τ ≥ (γ + δ)ν   (θ = 1),
///   (s − τ − γν)/δ    where s − τ > γν         (θ = t/ν),
///   0                 elsewhere.
/// Of the scores in descending order the first p are of the first kind and the next q of the second; given p and q, the
/// two constraints are linear in τ and ν. p grows from 0, q for each p, until the pieces fit. O(k q) after sorting.
fn smoothed_entries(
    (gamma, k, delta): (f64, usize, f64),
    alpha: &[f64],
    b: f64,
    cost: &[f64],
    scratch: &mut Scratch,
) -> Column {
    scratch.entries.clear();
    let top = maximum(alpha, cost);
    if b == 0.0 {
        return Column { value: 0.0, mass: 0.0, tau: top, tied: false };
    }
    // As in the semi-dual, nothing below max s − (γ + δ) b takes part.
    let mass = (gamma + delta) * b;
    scratch.candidates.clear();
    let floor = top - mass - 4.0 * f64::EPSILON * (top.abs() + mass);
    collect_above(alpha, cost, 0.0, floor, &mut scratch.candidates);
    for candidate in &mut scratch.candidates {
        candidate.0 -= top;
    }
    let scores = &mut scratch.candidates;
    scores.sort_unstable_by(|x, y| y.0.total_cmp(&x.0).then(x.1.cmp(&y.1)));
    // First without the bound on Σ θ, then with θ = 1 on the k largest and 0 elsewhere, which holds for a range of ν.
    let mut tau = simplex_threshold(scores, 0.0, mass);
    let mut nu = 0.0;
    let mut bound = scores.partition_point(|c| c.0 > tau) > k;
    if bound {
        tau = simplex_threshold(&scores[..k], 0.0, mass);
        nu = ((scores[k - 1].0 - tau) / (gamma + delta)).max(0.0);
        bound = scores[k].0 - tau > gamma * nu;
    }
    if bound {
        let mut head = 0.0;
        for p in 0..k {
            let share = (k - p) as f64;
            // ν = A + B τ from Σ t = b.
            let a = (b - head / (gamma + delta)) / share;
            let slope = p as f64 / ((gamma + delta) * share);
            let mut middle: f64 = scores[p..k].iter().map(|c| c.0).sum();
            let mut all_positive = false;
            // More than k − p entries share k − p, each less than one.
            for q in k - p + 1..=scores.len() - p {
                middle += scores[p + q - 1].0;
                let d = q as f64 * gamma + share * delta;
                tau = (middle - d * a) / (q as f64 + d * slope);
                nu = a + slope * tau;
                if p + q == scores.len() || scores[p + q].0 - tau <= gamma * nu {
                    all_positive = scores[p + q - 1].0 - tau > gamma * nu;
                    break;
                }
            }
            if all_positive && scores[p].0 - tau <= (gamma + delta) * nu {
                break;
            }
            head += scores[p].0;
        }
    }
    let mut value = 0.0;
    for &(s, i) in scores.iter() {
        let above = s - tau;
        let (t, norm) = if above >= (gamma + delta) * nu {
            let t = above / (gamma + delta);
            (t, t * t)
        } else {
            let t = (above - gamma * nu) / delta;
            (t, nu * t)
        };
        if t <= 0.0 {
            break;
        }
        value += t * (s + top) - 0.5 * gamma * norm - 0.5 * delta * t * t;
        scratch.entries.push((i, t));
    }
    Column { value, mass: b, tau: tau + top, tied: false }
}

fn scatter(entries: &[(usize, f64)], sums: &mut [f64]) {
    for &(i, t) in entries {
        sums[i] += t;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sparse_ot::k_support_squared;

    fn scores(m: usize, seed: usize) -> Vec<f64> {
        (0..m)
            .map(|i| (((i + 1) * (seed * 2654435761 + 40503) % 9973) as f64 / 9973.0 * 8.0).round() / 8.0 * 0.7)
            .collect()
    }

    #[test]
    fn smoothed_columns_have_their_maximum_there() {
        // First-order optimality: no transfer of mass between two rows gains, ties and all.
        for seed in 0..60 {
            let m = 3 + seed % 9;
            let (alpha, zero) = (scores(m, seed), vec![0.0; m]);
            let (gamma, delta, b) = (0.3, [0.05, 0.3, 2.0][seed % 3], [0.2, 1.0, 4.0][seed / 3 % 3]);
            for k in 1..m {
                let mut scratch = Scratch::default();
                let column = smoothed_entries((gamma, k, delta), &alpha, b, &zero, &mut scratch);
                let mut t = vec![0.0; m];
                scratch.entries.iter().for_each(|&(i, x)| t[i] = x);
                let objective = |t: &[f64]| {
                    let linear: f64 = t.iter().zip(&alpha).map(|(t, s)| t * s).sum();
                    let square: f64 = t.iter().map(|t| t * t).sum();
                    linear - 0.5 * gamma * k_support_squared(t, k) - 0.5 * delta * square
                };
                let here = objective(&t);
                assert!((t.iter().sum::<f64>() - b).abs() < 1e-12, "seed {seed} k {k}: {t:?}");
                assert!((here - column.value).abs() < 1e-12, "seed {seed} k {k}: {here} {}", column.value);
                for i in 0..m {
                    for l in (0..m).filter(|&l| l != i && t[l] > 0.0) {
                        let step = 1e-4_f64.min(t[l]);
                        let mut moved = t.clone();
                        moved[i] += step;
                        moved[l] -= step;
                        assert!(objective(&moved) <= here + 1e-12, "seed {seed} k {k}: {i} {l} {t:?} {alpha:?}");
                    }
                }
            }
        }
    }
}
