//! The inner kernels: one pass over a column of `s = α − c` that finds what the top-k operation needs of it.
//!
//! The k largest entries matter only if they are above a threshold (zero in the dual, `max s − γ b` in the semi-dual),
//! and near the solution few are. So a column is streamed once in blocks with a vector comparison, and only the entries
//! above the threshold, the *candidates*, are looked at one by one. Ties are broken by the row index.

use std::cmp::Ordering;

/// An entry above the threshold: its value, and its row.
pub(super) type Candidate = (f64, usize);

const BLOCK: usize = 16;

/// Defines a kernel twice, for the baseline and for AVX2, and picks by what the processor has.
macro_rules! dispatched {
    ($(#[$doc:meta])* $name:ident, $body:ident, $avx:ident, ($($arg:ident: $type:ty),*) -> $out:ty) => {
        $(#[$doc])*
        pub(super) fn $name($($arg: $type),*) -> $out {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                fn $avx($($arg: $type),*) -> $out {
                    $body($($arg),*)
                }
                if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
                    // SAFETY: the processor has the features that the function is compiled for.
                    return unsafe { $avx($($arg),*) };
                }
            }
            $body($($arg),*)
        }
    };
}

dispatched!(
    /// Appends every (α_i − c_i + shift, i) with α_i − c_i + shift > threshold, in ascending i.
    collect_above, collect_above_body, collect_above_avx2,
    (alpha: &[f64], cost: &[f64], shift: f64, threshold: f64, out: &mut Vec<Candidate>) -> ()
);

#[inline(always)]
fn collect_above_body(alpha: &[f64], cost: &[f64], shift: f64, threshold: f64, out: &mut Vec<Candidate>) {
    let (alpha_blocks, alpha_rest) = alpha.as_chunks::<BLOCK>();
    let (cost_blocks, cost_rest) = cost.as_chunks::<BLOCK>();
    for (block, (alpha, cost)) in alpha_blocks.iter().zip(cost_blocks).enumerate() {
        let mut s = [0.0; BLOCK];
        let mut any = false;
        for l in 0..BLOCK {
            s[l] = alpha[l] - cost[l] + shift;
            any |= s[l] > threshold;
        }
        if any {
            out.extend(s.iter().enumerate().filter(|&(_, &s)| s > threshold).map(|(l, &s)| (s, block * BLOCK + l)));
        }
    }
    let done = alpha_blocks.len() * BLOCK;
    for (l, (alpha, cost)) in alpha_rest.iter().zip(cost_rest).enumerate() {
        let s = alpha - cost + shift;
        if s > threshold {
            out.push((s, done + l));
        }
    }
}

dispatched!(
    /// max_i α_i − c_i.
    maximum, maximum_body, maximum_avx2, (alpha: &[f64], cost: &[f64]) -> f64
);

#[inline(always)]
fn maximum_body(alpha: &[f64], cost: &[f64]) -> f64 {
    let (alpha_blocks, alpha_rest) = alpha.as_chunks::<BLOCK>();
    let (cost_blocks, cost_rest) = cost.as_chunks::<BLOCK>();
    let mut largest = [f64::NEG_INFINITY; BLOCK];
    for (alpha, cost) in alpha_blocks.iter().zip(cost_blocks) {
        for l in 0..BLOCK {
            let s = alpha[l] - cost[l];
            largest[l] = if s > largest[l] { s } else { largest[l] };
        }
    }
    let rest = alpha_rest.iter().zip(cost_rest).map(|(alpha, cost)| alpha - cost);
    rest.chain(largest).fold(f64::NEG_INFINITY, f64::max)
}

dispatched!(
    /// Adds max(α_i − c_i + shift, 0) · weight to `sums` and answers (Σ max(·, 0), Σ max(·, 0)²).
    accumulate_positive, accumulate_positive_body, accumulate_positive_avx2,
    (alpha: &[f64], cost: &[f64], shift: f64, weight: f64, sums: &mut [f64]) -> (f64, f64)
);

#[inline(always)]
fn accumulate_positive_body(alpha: &[f64], cost: &[f64], shift: f64, weight: f64, sums: &mut [f64]) -> (f64, f64) {
    const LANES: usize = 8;
    let (alpha_blocks, alpha_rest) = alpha.as_chunks::<LANES>();
    let (cost_blocks, cost_rest) = cost.as_chunks::<LANES>();
    let (sum_blocks, sum_rest) = sums.as_chunks_mut::<LANES>();
    let (mut first, mut second) = ([0.0; LANES], [0.0; LANES]);
    for ((alpha, cost), sums) in alpha_blocks.iter().zip(cost_blocks).zip(sum_blocks) {
        for l in 0..LANES {
            let s = alpha[l] - cost[l] + shift;
            let s = if s > 0.0 { s } else { 0.0 };
            sums[l] += weight * s;
            first[l] += s;
            second[l] += s * s;
        }
    }
    let (mut total, mut squares) = (first.iter().sum::<f64>(), second.iter().sum::<f64>());
    for ((alpha, cost), sum) in alpha_rest.iter().zip(cost_rest).zip(sum_rest) {
        let s = (alpha - cost + shift).max(0.0);
        *sum += weight * s;
        total += s;
        squares += s * s;
    }
    (total, squares)
}

/// Larger values first; among equals, smaller rows first.
fn order(x: &Candidate, y: &Candidate) -> Ordering {
    y.0.total_cmp(&x.0).then(x.1.cmp(&y.1))
}

/// Keeps the k first of the candidates by value, ties by row; the order of what is kept is unspecified but fixed.
/// Answers whether the k-th and the (k+1)-th were equal to within `tie`.
pub(super) fn keep_largest(candidates: &mut Vec<Candidate>, k: usize, tie: f64) -> bool {
    if candidates.len() <= k {
        return false;
    }
    let (_, &mut kth, below) = candidates.select_nth_unstable_by(k - 1, order);
    let next = below.iter().map(|c| c.0).fold(f64::NEG_INFINITY, f64::max);
    candidates.truncate(k);
    kth.0 - next <= tie
}

/// The threshold τ with Σ max(s_i − τ, 0) = mass over the candidates, mass > 0: the projection on the simplex.
///
/// Michelot's iteration: the mean over the active set, from which those below drop out, until none does; at most as many
/// passes as candidates, a handful in practice. Works on s − `top` to keep the digits when s is large.
pub(super) fn simplex_threshold(candidates: &[Candidate], top: f64, mass: f64) -> f64 {
    let mut tau = f64::NEG_INFINITY;
    let mut active = usize::MAX;
    loop {
        let (mut sum, mut count) = (0.0, 0usize);
        for &(s, _) in candidates {
            let s = s - top;
            if s > tau {
                sum += s;
                count += 1;
            }
        }
        // Rounding may empty the set or let it grow; then the last threshold stands.
        if count == 0 || count >= active {
            return tau + top;
        }
        active = count;
        tau = (sum - mass) / count as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_agree_with_one_line_definitions_at_every_length() {
        for length in (0..40).chain([100, 257]) {
            let alpha: Vec<f64> = (0..length).map(|i| ((i * 7919) % 101) as f64 / 10.0).collect();
            let cost: Vec<f64> = (0..length).map(|i| ((i * 104_729) % 89) as f64 / 9.0).collect();
            let s = |i: usize| alpha[i] - cost[i] + 0.5;
            let mut found = Vec::new();
            collect_above(&alpha, &cost, 0.5, 2.0, &mut found);
            let expected: Vec<Candidate> = (0..length).map(|i| (s(i), i)).filter(|c| c.0 > 2.0).collect();
            assert_eq!(found, expected);
            let largest = (0..length).map(|i| alpha[i] - cost[i]).fold(f64::NEG_INFINITY, f64::max);
            assert_eq!(maximum(&alpha, &cost), largest);
            let mut sums = vec![1.0; length];
            let (total, squares) = accumulate_positive(&alpha, &cost, 0.5, 2.0, &mut sums);
            let positive: Vec<f64> = (0..length).map(|i| s(i).max(0.0)).collect();
            assert!((total - positive.iter().sum::<f64>()).abs() < 1e-9);
            assert!((squares - positive.iter().map(|x| x * x).sum::<f64>()).abs() < 1e-9);
            assert!(sums.iter().zip(&positive).all(|(x, y)| (x - 1.0 - 2.0 * y).abs() < 1e-12));
        }
    }

    #[test]
    fn ties_go_to_the_smaller_row() {
        let mut candidates = vec![(1.0, 0), (2.0, 1), (1.0, 2), (2.0, 3), (2.0, 4)];
        assert!(keep_largest(&mut candidates, 2, 0.0));
        candidates.sort_by_key(|c| c.1);
        assert_eq!(candidates, [(2.0, 1), (2.0, 3)]);
        assert!(!keep_largest(&mut vec![(1.0, 0), (3.0, 1)], 1, 0.0));
    }

    #[test]
    fn the_threshold_spends_the_mass() {
        // Three entries stay: (5 + 4 + 3.5 − 3) / 3 = 19/6 > 1.
        let candidates = [(5.0, 0), (4.0, 1), (3.5, 2), (1.0, 3)];
        assert!((simplex_threshold(&candidates, 5.0, 3.0) - 19.0 / 6.0).abs() < 1e-14);
        assert_eq!(simplex_threshold(&[(2.0, 7)], 2.0, 0.25), 1.75);
    }
}
