//! The derivative of an objective with respect to a bridge, before it is told in the optimiser's own parameters.

use super::bridge::LightBridge;
use ndarray::{Array1, Array2, Array3, Axis};
use offprint_math::linalg;

/// ∂L with respect to each part of a [`LightBridge`].
#[derive(Debug, Clone)]
pub struct Gradient {
    /// ∂L/∂log α_k (K).
    pub log_alpha: Array1<f64>,
    /// ∂L/∂r_k (K, d).
    pub centres: Array2<f64>,
    /// ∂L/∂ log of the eigenvalues of S_k (K, d).
    pub log_spectrum: Array2<f64>,
    /// ∂L/∂Q_k (K, d, d), as if Q_k were free; empty if S_k is diagonal.
    pub axes: Array3<f64>,
}

impl Gradient {
    /// Zero, in the shape of `bridge`.
    pub fn zeros(bridge: &LightBridge) -> Self {
        let (components, d) = bridge.centres.dim();
        let axes = if bridge.axes.is_some() { (components, d, d) } else { (0, 0, 0) };
        Self {
            log_alpha: Array1::zeros(components),
            centres: Array2::zeros((components, d)),
            log_spectrum: Array2::zeros((components, d)),
            axes: Array3::zeros(axes),
        }
    }

    /// Adds another.
    pub(super) fn add(&mut self, other: &Self) {
        self.log_alpha += &other.log_alpha;
        self.centres += &other.centres;
        self.log_spectrum += &other.log_spectrum;
        self.axes += &other.axes;
    }

    /// Multiplies by a number.
    pub(super) fn scale(&mut self, factor: f64) {
        self.log_alpha *= factor;
        self.centres *= factor;
        self.log_spectrum *= factor;
        self.axes *= factor;
    }

    /// Sets the parts that belong to a full S_k from the symmetric ∂L/∂S_k = `by_spread` (d, d):
    /// ∂ log s_j = s_j (Q' G Q)_jj and ∂Q = 2 G Q diag(s).
    pub(super) fn set_spread(&mut self, bridge: &LightBridge, k: usize, by_spread: ndarray::ArrayView2<'_, f64>) {
        let axes = bridge.axes.as_ref().expect("a bridge with full spreads");
        let q = axes.index_axis(Axis(0), k);
        let moved = linalg::matmul(by_spread, q);
        let spectrum = bridge.spectrum.row(k);
        for j in 0..bridge.dim() {
            self.log_spectrum[[k, j]] = spectrum[j] * q.column(j).dot(&moved.column(j));
        }
        let mut axes = self.axes.index_axis_mut(Axis(0), k);
        axes.assign(&moved);
        axes *= &(&spectrum * 2.0);
    }
}
