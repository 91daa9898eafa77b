//! LightSB-M, the bridge-matching objective for the same bridge.
//!
//! N. Gushchin, S. Kholkin, E. Burnaev, A. Korotin, *Light and Optimal Schrödinger Bridge Matching*, ICML 2024: for any
//! coupling of source and target, with x_t on the Brownian bridge between x₀ and x₁, the drift that minimises
//!
//! E ‖ g(x_t, t) − (x₁ − x_t) / (1 − t) ‖²
//!
//! over all Schrödinger bridges is the drift of the bridge sought. As g = (E[x₁ | x_t] − x_t) / (1 − t), this is the
//! regression of x₁ on x_t with weight (1 − t)⁻². The coupling here is the independent one.
//!
//! In the eigenvectors of S_k everything is elementwise. With p = 1/s, u = t/(1−t), v = 1/(1−t), x̃ = Q'x, r̃ = Q'r:
//! m̃ = (v x̃ + p r̃)/(u + p) is the mean of component k, and its log-weight is
//! l = log α + ½ Σ log(p/(u+p)) − Σ p r̃²/2ε + Σ (u+p) m̃²/2ε. Then
//! ∂l/∂r̃ = (m̃ − r̃) p/ε, ∂l/∂p = ½(1/p − 1/(u+p) − (m̃ − r̃)²/ε), ∂l/∂x̃ = v m̃/ε and
//! ∂m̃/∂r̃ = p/(u+p), ∂m̃/∂p = (r̃ − m̃)/(u+p), ∂m̃/∂x̃ = v/(u+p).

use super::bridge::LightBridge;
use super::gradient::Gradient;
use ndarray::{Array1, Array2, ArrayView2, Axis};
use offprint_core::random::Stream;
use offprint_math::vector;
use rand::RngExt;
use rand_distr::StandardNormal;
use rayon::prelude::*;

/// Times are drawn up to here: the weight (1 − t)⁻² has no mean up to 1.
pub const LATEST: f64 = 0.99;

/// Pairs of a batch that one task works on; fixed, so that sums do not depend on the number of threads.
const SHARE: usize = 32;

/// The loss over the pairs `x` and `y` (n, d), each seen at one random time; its gradient goes to `gradient`. Pair i
/// draws from `stream.rng(i)`.
pub fn evaluate(
    bridge: &LightBridge,
    x: ArrayView2<'_, f64>,
    y: ArrayView2<'_, f64>,
    stream: Stream,
    gradient: &mut Gradient,
) -> f64 {
    let n = x.nrows();
    let shares: Vec<(f64, Gradient)> = (0..n.div_ceil(SHARE))
        .into_par_iter()
        .map(|share| {
            let mut sum = Gradient::zeros(bridge);
            let mut pair = Pair::new(bridge);
            let mut place = Array1::zeros(bridge.dim());
            let mut loss = 0.0;
            for i in share * SHARE..n.min((share + 1) * SHARE) {
                let mut rng = stream.rng(i as u64);
                let time = LATEST * rng.random::<f64>();
                let deviation = (bridge.epsilon * time * (1.0 - time)).sqrt();
                for (j, z) in place.iter_mut().enumerate() {
                    *z = (1.0 - time) * x[[i, j]] + time * y[[i, j]] + deviation * rng.sample::<f64, _>(StandardNormal);
                }
                loss += pair.add(bridge, &place, y.row(i), time, &mut sum);
            }
            (loss, sum)
        })
        .collect();
    let mut loss = 0.0;
    gradient.scale(0.0);
    for (part, sum) in &shares {
        loss += part;
        gradient.add(sum);
    }
    gradient.scale(1.0 / n as f64);
    loss / n as f64
}

/// Memory for one pair.
struct Pair {
    /// log-weights, then weights (K).
    weights: Array1<f64>,
    /// m̃_k and m_k (K, d).
    turned: Array2<f64>,
    means: Array2<f64>,
    /// x̃_k and r̃_k (K, d).
    places: Array2<f64>,
    centres: Array2<f64>,
    /// log(p/(u+p)) (K, d), in one slice for the vectorised logarithm.
    logs: Array2<f64>,
}

impl Pair {
    fn new(bridge: &LightBridge) -> Self {
        let shape = bridge.centres.dim();
        Self {
            weights: Array1::zeros(shape.0),
            turned: Array2::zeros(shape),
            means: Array2::zeros(shape),
            places: Array2::zeros(shape),
            centres: Array2::zeros(shape),
            logs: Array2::zeros(shape),
        }
    }

    /// Adds the gradient at one place and returns the loss there.
    fn add(
        &mut self,
        bridge: &LightBridge,
        x: &Array1<f64>,
        end: ndarray::ArrayView1<'_, f64>,
        time: f64,
        sum: &mut Gradient,
    ) -> f64 {
        let (components, d) = bridge.centres.dim();
        let epsilon = bridge.epsilon;
        let (u, v) = (time / (1.0 - time), 1.0 / (1.0 - time));
        for (log, s) in self.logs.iter_mut().zip(&bridge.spectrum) {
            *log = 1.0 + u * s; // (u + p)/p
        }
        vector::ln(self.logs.as_slice_mut().expect("contiguous"));
        for k in 0..components {
            self.places.row_mut(k).assign(&bridge.rotate(k, x.view()));
            self.centres.row_mut(k).assign(&bridge.rotate(k, bridge.centres.row(k)));
            let mut log_weight = bridge.log_alpha[k];
            for j in 0..d {
                let (p, r) = (1.0 / bridge.spectrum[[k, j]], self.centres[[k, j]]);
                let m = (v * self.places[[k, j]] + p * r) / (u + p);
                self.turned[[k, j]] = m;
                log_weight += 0.5 * ((u + p) * m * m - p * r * r) / epsilon - 0.5 * self.logs[[k, j]];
            }
            self.weights[k] = log_weight;
            self.means.row_mut(k).assign(&bridge.rotate_back(k, self.turned.row(k)));
        }
        vector::softmax(self.weights.as_slice_mut().expect("contiguous"));
        let error = self.weights.dot(&self.means) - end; // g − target = v (m̄ − x₁)
        let pull = &error * (2.0 * v * v); // ∂L/∂m̄
        let common = pull.dot(&(&error + &end)); // ∂L/∂m̄ · m̄
        for k in 0..components {
            let w = self.weights[k];
            let by_log_weight = w * (pull.dot(&self.means.row(k)) - common);
            sum.log_alpha[k] += by_log_weight;
            let turned_pull = bridge.rotate(k, pull.view()) * w; // ∂L/∂m̃_k
            let mut by_centre = Array1::zeros(d);
            let mut by_place = Array1::zeros(d);
            for j in 0..d {
                let s = bridge.spectrum[[k, j]];
                let (p, h) = (1.0 / s, turned_pull[j]);
                let (m, r) = (self.turned[[k, j]], self.centres[[k, j]]);
                by_centre[j] = by_log_weight * (m - r) * p / epsilon + h * p / (u + p);
                by_place[j] = by_log_weight * v * m / epsilon + h * v / (u + p);
                let by_precision =
                    by_log_weight * 0.5 * (s - 1.0 / (u + p) - (m - r) * (m - r) / epsilon) + h * (r - m) / (u + p);
                sum.log_spectrum[[k, j]] -= p * by_precision;
            }
            let mut row = sum.centres.row_mut(k);
            row += &bridge.rotate_back(k, by_centre.view());
            if bridge.axes.is_some() {
                // Q stands in x̃ = Q'x, in r̃ = Q'r and in m = Q m̃.
                let mut by_axes = sum.axes.index_axis_mut(Axis(0), k);
                for i in 0..d {
                    for j in 0..d {
                        by_axes[[i, j]] += x[i] * by_place[j]
                            + bridge.centres[[k, i]] * by_centre[j]
                            + w * pull[i] * self.turned[[k, j]];
                    }
                }
            }
        }
        error.dot(&error) * v * v
    }
}
