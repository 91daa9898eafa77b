//! Where a path ends, given where it is: the law of x₁ under the bridge when x_t = x.
//!
//! For t = 0 this is the plan π(y | x). For t > 0 the Brownian prior from (x, t) reweighs the same mixture (prop. 3.3):
//! with v = 1/(1−t) and u = t/(1−t),
//!
//! x₁ | x_t = x  ~  Σ_k w_k(x, t) N(M_k (v x + S_k⁻¹ r_k), ε M_k),  M_k = (u I + S_k⁻¹)⁻¹.
//!
//! The paper's A_k^t is M_k⁻¹/ε. Completing the square gives
//! log w_k = log α_k − ½ log det S_k + ½ log det M_k − r_k'S_k⁻¹r_k / 2ε + c' M_k c / 2ε with c = v x + S_k⁻¹ r_k.

use super::bridge::{LightBridge, draw, for_each_row};
use super::quadratics::Quadratics;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, ArrayViewMut1, Axis, Zip};
use offprint_core::Result;
use offprint_core::random::{Rng, Stream};
use offprint_math::linalg;
use rand::RngExt;
use rand_distr::StandardNormal;

/// The law of a path's end given its place at one time.
#[derive(Debug, Clone)]
pub struct Posterior<'a> {
    bridge: &'a LightBridge,
    /// Their log-sum-exp normalises the weights w_k(x, t).
    quadratics: Quadratics,
    /// v = 1/(1−t).
    rate: f64,
    /// Eigenvalues of M_k (K, d).
    gain: Array2<f64>,
    /// M_k, one flat row for each k: (K, d) diagonals or (K, d²).
    gain_rows: Array2<f64>,
    /// M_k S_k⁻¹ r_k (K, d).
    offsets: Array2<f64>,
}

impl<'a> Posterior<'a> {
    /// The law at `time` in [0, 1).
    pub(super) fn new(bridge: &'a LightBridge, time: f64) -> Self {
        let (components, d) = bridge.centres.dim();
        let epsilon = bridge.epsilon;
        let (rate, drag) = (1.0 / (1.0 - time), time / (1.0 - time));
        let gain = bridge.spectrum.mapv(|s| s / (drag * s + 1.0));
        let mut quadratics = Quadratics::zeros(components, bridge.statistics());
        let width = if bridge.axes.is_none() { d } else { d * d };
        let mut gain_rows = Array2::zeros((components, width));
        let mut offsets = Array2::zeros((components, d));
        for k in 0..components {
            let (spectrum, gain) = (bridge.spectrum.row(k), gain.row(k));
            let centre = bridge.rotate(k, bridge.centres.row(k));
            let mut constant = bridge.log_alpha[k];
            let mut offset = Array1::zeros(d);
            for j in 0..d {
                let (s, m, r) = (spectrum[j], gain[j], centre[j]);
                offset[j] = m / s * r;
                // −½ log s + ½ log m − r²/(2εs) + m r²/(2εs²), with m/s = 1/(1 + u s).
                constant -= 0.5 * (drag * s).ln_1p() + 0.5 * drag * m / s * r * r / epsilon;
            }
            let offset = bridge.rotate_back(k, offset.view());
            let mut row = quadratics.coefficients.row_mut(k);
            Zip::from(row.slice_mut(ndarray::s![1..=d])).and(&offset).for_each(|c, o| *c = rate * o / epsilon);
            match &bridge.axes {
                None => {
                    Zip::from(row.slice_mut(ndarray::s![1 + d..]))
                        .and(&gain)
                        .for_each(|c, m| *c = 0.5 * rate * rate * m / epsilon);
                    gain_rows.row_mut(k).assign(&gain);
                }
                Some(axes) => {
                    let q = axes.index_axis(Axis(0), k);
                    let matrix = linalg::matmul((&q * &gain).view(), q.t());
                    let row = row.as_slice_mut().expect("coefficients are contiguous");
                    quadratics.statistics.set_matrix((&matrix * (0.5 * rate * rate / epsilon)).view(), row);
                    Zip::from(gain_rows.row_mut(k)).and(&matrix.flatten()).for_each(|g, m| *g = *m);
                }
            }
            offsets.row_mut(k).assign(&offset);
            quadratics.coefficients[[k, 0]] = constant;
        }
        Self { bridge, quadratics, rate, gain, gain_rows, offsets }
    }

    /// The weights w_k (n, K) at the rows of `x` (n, d).
    pub fn weights(&self, x: ArrayView2<'_, f64>) -> Result<Array2<f64>> {
        self.bridge.same_dim("x", x)?;
        Ok(self.quadratics.weights(x).1)
    }

    /// The mean of x₁ (n, d) at the rows of `x` (n, d): the barycentric map for t = 0.
    pub fn mean(&self, x: ArrayView2<'_, f64>) -> Result<Array2<f64>> {
        let weights = self.weights(x)?;
        let d = self.bridge.dim();
        let mut mean = linalg::matmul(weights.view(), self.offsets.view());
        // Σ_k w_k M_k, applied to v x.
        for (start, weights) in weights.axis_chunks_iter(Axis(0), 1024).enumerate() {
            let gains = linalg::matmul(weights, self.gain_rows.view());
            for (i, gain) in gains.rows().into_iter().enumerate() {
                let i = 1024 * start + i;
                let (x, mut mean) = (x.row(i), mean.row_mut(i));
                if gain.len() == d {
                    Zip::from(&mut mean).and(&gain).and(&x).for_each(|m, g, x| *m += self.rate * g * x);
                } else {
                    let gain = gain.into_shape_with_order((d, d)).expect("a row of d² is a matrix");
                    mean.scaled_add(self.rate, &gain.dot(&x));
                }
            }
        }
        Ok(mean)
    }

    /// The mean of component k (d) at `x` (d): M_k (v x + S_k⁻¹ r_k).
    fn component_mean(&self, k: usize, x: ArrayView1<'_, f64>) -> Array1<f64> {
        let moved = self.bridge.rotate(k, x) * self.gain.row(k) * self.rate;
        self.bridge.rotate_back(k, moved.view()) + self.offsets.row(k)
    }

    /// Mean (d) and covariance (d, d) of x₁ at one point `x` (d), in closed form.
    pub fn moments(&self, x: ArrayView1<'_, f64>) -> Result<(Array1<f64>, Array2<f64>)> {
        let weights = self.weights(x.insert_axis(Axis(0)))?;
        let d = self.bridge.dim();
        let means: Vec<_> = (0..self.bridge.components()).map(|k| self.component_mean(k, x)).collect();
        let mut mean = Array1::zeros(d);
        for (component, &w) in means.iter().zip(&weights) {
            mean.scaled_add(w, component);
        }
        // Σ w_k (ε M_k + (m_k − m)(m_k − m)'), the outer products as one matrix product.
        let mut scaled = Array2::zeros((means.len(), d));
        let mut gains = Array1::zeros(self.gain_rows.ncols());
        for ((mut row, component), (&w, gain)) in
            scaled.rows_mut().into_iter().zip(&means).zip(weights.iter().zip(self.gain_rows.rows()))
        {
            Zip::from(&mut row).and(component).and(&mean).for_each(|s, c, m| *s = w.sqrt() * (c - m));
            gains.scaled_add(w * self.bridge.epsilon, &gain);
        }
        let within = if gains.len() == d {
            Array2::from_diag(&gains)
        } else {
            gains.into_shape_with_order((d, d)).expect("d² numbers are a matrix")
        };
        Ok((mean, within + linalg::matmul(scaled.t(), scaled.view())))
    }

    /// One x₁ for each row of `x` (n, d); row i draws from `stream.rng(i)`.
    pub fn sample(&self, x: ArrayView2<'_, f64>, stream: Stream) -> Result<Array2<f64>> {
        let weights = self.weights(x)?;
        let mut y = Array2::zeros(x.dim());
        for_each_row(&mut y, |i, row| self.draw(x.row(i), weights.row(i), &mut stream.rng(i as u64), row));
        Ok(y)
    }

    /// One x₁ for each row of `x` (n, d), drawn one after the other from `rng`.
    pub fn sample_with(&self, x: ArrayView2<'_, f64>, rng: &mut Rng) -> Result<Array2<f64>> {
        let weights = self.weights(x)?;
        let mut y = Array2::zeros(x.dim());
        for (i, row) in y.rows_mut().into_iter().enumerate() {
            self.draw(x.row(i), weights.row(i), rng, row);
        }
        Ok(y)
    }

    /// Draws k by its weight, then y = mean_k + √(ε M_k) ξ.
    fn draw(&self, x: ArrayView1<'_, f64>, weights: ArrayView1<'_, f64>, rng: &mut Rng, mut y: ArrayViewMut1<'_, f64>) {
        let k = draw(weights, rng.random());
        let noise: Array1<f64> = self
            .gain
            .row(k)
            .iter()
            .map(|m| (self.bridge.epsilon * m).sqrt() * rng.sample::<f64, _>(StandardNormal))
            .collect();
        y.assign(&(self.component_mean(k, x) + self.bridge.rotate_back(k, noise.view())));
    }

    /// How fast the bridge pulls at `x` (n, d): the drift g = (E[x₁ | x_t = x] − x) / (1 − t) (prop. 3.3).
    pub fn drift(&self, x: ArrayView2<'_, f64>) -> Result<Array2<f64>> {
        let mut drift = self.mean(x)?;
        Zip::from(&mut drift).and(&x).for_each(|g, x| *g = self.rate * (*g - x));
        Ok(drift)
    }
}
