//! Posterior means of a mixture of independent coordinates, for blocks of points.

use ndarray::{ArrayView1, ArrayView2, ArrayViewMut2};
use offprint_math::vector;

/// Points of a block: its columns are what the loops run along, in vector registers.
pub(super) const BLOCK: usize = 128;

/// A mixture at one noise level: for component k and coordinate j, everything that does not depend on the point.
pub(super) struct Components<'a> {
    /// Means (K, d).
    pub centres: ArrayView2<'a, f64>,
    /// Variances without noise (K, d).
    pub spread: ArrayView2<'a, f64>,
    /// 1/(variance with noise) (K, d).
    pub precision: ArrayView2<'a, f64>,
    /// Logarithms of weight and normaliser (K).
    pub offset: ArrayView1<'a, f64>,
}

/// Memory of one thread.
#[derive(Default)]
pub(super) struct Scratch {
    /// The points, coordinate by coordinate (d, n).
    points: Vec<f64>,
    /// Log-weights, then weights (K, n).
    weights: Vec<f64>,
    /// Largest log-weight, then sum of the weights (n).
    total: Vec<f64>,
    /// Σ_k r_k (1 − g_k) m_k and Σ_k r_k g_k of one coordinate (n).
    shift: Vec<f64>,
    gain: Vec<f64>,
}

impl Components<'_> {
    /// D of the points `y` (n, d), n ≤ [`BLOCK`], into `out` (n, d): Σ_k r_k [m_k + g_k (y − m_k)] with the gains
    /// g = variance/(variance + τ²). O(n K d), without a branch in the loops over points.
    pub(super) fn denoise(&self, y: ArrayView2<'_, f64>, scratch: &mut Scratch, mut out: ArrayViewMut2<'_, f64>) {
        let ((n, d), count) = (y.dim(), self.offset.len());
        let Scratch { points, weights, total, shift, gain } = scratch;
        points.clear();
        points.extend((0..d).flat_map(|j| y.column(j).into_iter().copied()));
        weights.clear();
        weights.resize(count * n, 0.0);
        total.clear();
        total.resize(n, f64::NEG_INFINITY);
        for (k, log) in weights.chunks_exact_mut(n).enumerate() {
            log.fill(self.offset[k]);
            for (j, points) in points.chunks_exact(n).enumerate() {
                let (centre, half) = (self.centres[[k, j]], 0.5 * self.precision[[k, j]]);
                log.iter_mut().zip(points).for_each(|(l, y)| *l -= half * (y - centre) * (y - centre));
            }
            total.iter_mut().zip(&*log).for_each(|(top, l)| *top = if *l > *top { *l } else { *top });
        }
        for log in weights.chunks_exact_mut(n) {
            log.iter_mut().zip(&*total).for_each(|(l, top)| *l -= top);
        }
        vector::exp(weights);
        total.fill(0.0);
        for weight in weights.chunks_exact(n) {
            total.iter_mut().zip(weight).for_each(|(t, w)| *t += w);
        }
        for (j, points) in points.chunks_exact(n).enumerate() {
            for sum in [&mut *shift, &mut *gain] {
                sum.clear();
                sum.resize(n, 0.0);
            }
            for (k, weight) in weights.chunks_exact(n).enumerate() {
                let g = self.spread[[k, j]] * self.precision[[k, j]];
                let constant = (1.0 - g) * self.centres[[k, j]];
                shift.iter_mut().zip(weight).for_each(|(s, w)| *s += w * constant);
                gain.iter_mut().zip(weight).for_each(|(s, w)| *s += w * g);
            }
            let sums = shift.iter().zip(&*gain).zip(&*total).zip(points);
            out.column_mut(j).iter_mut().zip(sums).for_each(|(d, (((s, g), t), y))| *d = (s + g * y) / t);
        }
    }
}
