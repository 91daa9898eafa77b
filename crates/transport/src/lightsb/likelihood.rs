//! The paper's objective: L = E log c(x₀) − E log v(x₁) (eq. 8), with its gradient by hand.
//!
//! KL(π* | π) = L − L* for the true plan π* (theorem 3.1), so that one pass over two unpaired batches moves the bridge
//! towards the truth; nothing is simulated. With the responsibilities γ_k(y) of the mixture v and the plan's weights
//! κ_k(x):
//!
//! - ∂L/∂log α_k = E κ_k − E γ_k
//! - ∂L/∂r_k = (E[κ_k x] − E[γ_k S_k⁻¹ (y − r_k)]) / ε
//! - ∂L/∂S_k = E[κ_k x x'] / 2ε − ½ E[γ_k (S_k⁻¹ (y − r_k)(y − r_k)' S_k⁻¹ / ε − S_k⁻¹)]
//!
//! All expectations are moments of the statistics φ under the weights: two matrix products per batch.

use super::bridge::LightBridge;
use super::gradient::Gradient;
use super::quadratics::{Quadratics, Workspace};
use ndarray::{Array1, Array2, ArrayView2, Axis};
use offprint_math::linalg;
use rayon::prelude::*;

/// Samples of a batch that one task works on; fixed, so that sums do not depend on the number of threads.
const SHARE: usize = 128;

/// The objective with its memory: one half for the source, one for the target.
#[derive(Debug, Clone)]
pub struct Likelihood {
    source: Half,
    target: Half,
}

/// log c over a source batch, or log v over a target batch.
#[derive(Debug, Clone)]
struct Half {
    quadratics: Quadratics,
    shares: Vec<Workspace>,
}

impl Half {
    fn new(bridge: &LightBridge, batch: usize) -> Self {
        let (components, statistics) = (bridge.components(), bridge.statistics());
        let shares = (0..batch.div_ceil(SHARE)).map(|_| Workspace::new(SHARE.min(batch), components, statistics));
        Self { quadratics: Quadratics::zeros(components, statistics), shares: shares.collect() }
    }

    /// Sums the moments over the batch into the first share.
    fn sum(&mut self, batch: ArrayView2<'_, f64>) {
        let Self { quadratics, shares } = self;
        let parts: Vec<_> = shares.iter_mut().zip(batch.axis_chunks_iter(Axis(0), SHARE)).collect();
        let used = parts.len();
        parts.into_par_iter().for_each(|(workspace, part)| quadratics.moments(part, workspace));
        let (first, rest) = shares[..used].split_first_mut().expect("a batch is not empty");
        for other in rest {
            first.moments.log_sum += other.moments.log_sum;
            first.moments.statistics += &other.moments.statistics;
        }
    }
}

impl Likelihood {
    /// The objective for batches of up to `batch` samples of each side and bridges in the shape of `bridge`.
    pub fn new(bridge: &LightBridge, batch: usize) -> Self {
        Self { source: Half::new(bridge, batch), target: Half::new(bridge, batch) }
    }

    /// The loss over the batches `x` (n0, d) of the source and `y` (n1, d) of the target; its gradient goes to
    /// `gradient`.
    pub fn evaluate(
        &mut self,
        bridge: &LightBridge,
        x: ArrayView2<'_, f64>,
        y: ArrayView2<'_, f64>,
        gradient: &mut Gradient,
    ) -> f64 {
        let Self { source, target } = self;
        rayon::join(
            || {
                bridge.write_source_quadratics(&mut source.quadratics);
                source.sum(x);
            },
            || {
                bridge.write_target_quadratics(&mut target.quadratics);
                target.sum(y);
            },
        );
        let (kappa, gamma) = (&source.shares[0].moments, &target.shares[0].moments);
        let (n0, n1) = (x.nrows() as f64, y.nrows() as f64);
        let (d, epsilon) = (bridge.dim(), bridge.epsilon);
        let statistics = bridge.statistics();
        let mut by_spread = Array2::zeros((d, d));
        let mut second = Array2::zeros((d, d));
        for k in 0..bridge.components() {
            let (centre, spectrum) = (bridge.centres.row(k), bridge.spectrum.row(k));
            let (of_x, of_y) = (kappa.statistics.row(k), gamma.statistics.row(k));
            let (of_x, of_y) = (of_x.as_slice().expect("contiguous"), of_y.as_slice().expect("contiguous"));
            let weight = of_y[0] / n1;
            gradient.log_alpha[k] = of_x[0] / n0 - weight;
            if bridge.axes.is_none() {
                for j in 0..d {
                    let (r, s) = (centre[j], spectrum[j]);
                    let first = of_y[1 + j] / n1 - weight * r;
                    gradient.centres[[k, j]] = (of_x[1 + j] / n0 - first / s) / epsilon;
                    // E γ (y − r)² = E γ y² − 2 r E γ (y − r) − r² E γ
                    let centred = of_y[1 + d + j] / n1 - 2.0 * r * first - weight * r * r;
                    let by_x = 0.5 * of_x[1 + d + j] / n0 * s / epsilon;
                    gradient.log_spectrum[[k, j]] = by_x - 0.5 * (centred / (epsilon * s) - weight);
                }
            } else {
                let precision = bridge.map_spread(k, |s| 1.0 / s);
                let first: Array1<f64> = (0..d).map(|j| of_y[1 + j] / n1 - weight * centre[j]).collect();
                let pulled = precision.dot(&first);
                for j in 0..d {
                    gradient.centres[[k, j]] = (of_x[1 + j] / n0 - pulled[j]) / epsilon;
                }
                statistics.matrix(of_y, second.view_mut());
                for i in 0..d {
                    for j in 0..d {
                        let (ri, rj) = (centre[i], centre[j]);
                        second[[i, j]] = second[[i, j]] / n1 - first[i] * rj - ri * first[j] - weight * ri * rj;
                    }
                }
                let half = linalg::matmul(precision.view(), second.view());
                statistics.matrix(of_x, by_spread.view_mut());
                by_spread *= 0.5 / (n0 * epsilon);
                linalg::gemm(-0.5 / epsilon, half.view(), precision.view(), true, by_spread.view_mut());
                by_spread.scaled_add(0.5 * weight, &precision);
                gradient.set_spread(bridge, k, by_spread.view());
            }
        }
        kappa.log_sum / n0 - gamma.log_sum / n1
    }
}
