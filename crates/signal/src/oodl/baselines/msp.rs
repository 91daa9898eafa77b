//! Matching, stretching and projection (Zhai et al., 2020): offline, orthogonal, ℓ₃ or ℓ₄.

use super::Kept;
use crate::oodl::Learner;
use ndarray::{Array2, ArrayView2};
use offprint_core::{Error, Progress, Result};
use offprint_math::linalg;
use offprint_math::polar::Polar;

/// Offline ascent of Σ‖Dᵀy‖_p^p over the orthogonal group: D ← Polar(Yᵀ (|Z|^{p−2} Z)) with Z = Y D.
///
/// p = 4 is MSP as published, p = 3 its analogue for the objective of this paper. O(p N²) a pass; keeps all samples.
#[derive(Clone)]
pub struct Msp {
    power: i32,
    start: Array2<f64>,
    samples: Kept,
    most_passes: usize,
    progress: Progress,
}

impl Msp {
    /// Ascent of the `power`-th powers (3 or 4) from `start` (N, N).
    ///
    /// # Errors
    /// Another power.
    pub fn new(power: i32, start: Array2<f64>, progress: Progress) -> Result<Self> {
        if !matches!(power, 3 | 4) {
            return Err(Error::parameter("power", power, "3 or 4"));
        }
        Ok(Self { power, samples: Kept::new(start.nrows()), start, most_passes: 500, progress })
    }
}

impl Learner for Msp {
    fn learn(&mut self, samples: ArrayView2<'_, f64>) -> Result<()> {
        self.samples.add(samples)
    }

    fn dictionary(&mut self) -> Result<Array2<f64>> {
        let y = self.samples.scaled()?;
        let mut d = self.start.clone();
        let mut z = Array2::zeros(y.dim());
        let mut gradient = Array2::zeros(d.dim());
        let mut next = Array2::zeros(d.dim());
        let mut polar = Polar::new(d.nrows());
        for _ in 0..self.most_passes {
            self.progress.check()?;
            linalg::gemm(1.0, y.view(), d.view(), false, z.view_mut());
            if self.power == 3 {
                z.mapv_inplace(|z| z * z.abs());
            } else {
                z.mapv_inplace(|z| z * z * z);
            }
            linalg::gemm(1.0, y.t(), z.view(), false, gradient.view_mut());
            polar.factor(gradient.view(), next.view_mut())?;
            std::mem::swap(&mut d, &mut next);
            let moved = d.iter().zip(&next).fold(0.0f64, |m, (a, b)| m.max((a - b).abs()));
            if moved < 1e-10 {
                break;
            }
        }
        Ok(d)
    }

    fn carried(&self) -> usize {
        self.samples.values.len()
    }
}
