//! A model that is nothing but the user's points.

use super::Density;
use crate::exact::ExactEmpirical;
use crate::{Denoiser, Kernel, check};
use ndarray::{Array1, Array2, ArrayView2, Axis, Zip};
use offprint_core::Result;
use offprint_math::vector;
use std::f64::consts::PI;

/// The Gaussian kernel density (1/N) Σ N(x_i, h² I) over a table of data, with its exact denoiser: O(n N d).
#[derive(Debug, Clone)]
pub struct KernelDensity {
    table: ExactEmpirical,
    bandwidth: f64,
}

impl KernelDensity {
    /// Over `data` (N, d) with `bandwidth` h.
    pub fn new(data: Array2<f64>, bandwidth: f64) -> Result<Self> {
        check::positive("bandwidth", bandwidth)?;
        Ok(Self { table: ExactEmpirical::new(data, Kernel::Gaussian)?, bandwidth })
    }

    /// Scott's rule: h = s N^{−1/(d+4)} with s the mean standard deviation of the columns of `data` (N, d).
    pub fn scott(data: ArrayView2<'_, f64>) -> f64 {
        let (n, d) = data.dim();
        let spread = data.std_axis(Axis(0), 0.0).mean().unwrap_or(0.0);
        spread * (n as f64).powf(-1.0 / (d as f64 + 4.0))
    }

    /// h.
    pub fn bandwidth(&self) -> f64 {
        self.bandwidth
    }

    /// The deviation of a kernel at noise level τ.
    fn width(&self, tau: f64) -> f64 {
        tau.hypot(self.bandwidth)
    }
}

impl Denoiser for KernelDensity {
    fn dim(&self) -> usize {
        self.table.dim()
    }

    /// D = y + τ² ∇log q_τ, where q_τ has kernels of variance τ² + h².
    fn denoise(&self, y: ArrayView2<'_, f64>, tau: f64) -> Result<Array2<f64>> {
        check::positive("tau", tau)?;
        let width = self.width(tau);
        let part = (tau / width).powi(2);
        let mut out = self.table.denoise(y, width)?;
        Zip::from(&mut out).and(y).for_each(|d, &y| *d = y + part * (*d - y));
        Ok(out)
    }
}

impl Density for KernelDensity {
    fn log_density(&self, y: ArrayView2<'_, f64>, tau: f64) -> Result<Array1<f64>> {
        check::dimension("points", y, "the data", self.dim())?;
        let (data, variance) = (self.table.data(), self.width(tau).powi(2));
        let constant = 0.5 * self.dim() as f64 * (2.0 * PI * variance).ln() + (data.nrows() as f64).ln();
        let mut log = vec![0.0; data.nrows()];
        Ok(y.outer_iter()
            .map(|y| {
                for (log, x) in log.iter_mut().zip(data.outer_iter()) {
                    *log = -0.5 * Zip::from(&x).and(&y).fold(0.0, |sum, x, y| sum + (x - y) * (x - y)) / variance;
                }
                vector::log_sum_exp(&log) - constant
            })
            .collect())
    }

    fn mean(&self) -> Array1<f64> {
        self.table.data().mean_axis(Axis(0)).expect("a table has rows")
    }

    fn spread(&self) -> f64 {
        self.width(self.table.data().std_axis(Axis(0), 0.0).iter().copied().fold(0.0, f64::max))
    }
}
