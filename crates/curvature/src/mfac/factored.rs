//! The static problem for gradients that stay where they are: in a file larger than memory, or in somebody's buffer.

use super::factor::Factor;
use super::fixed::positive;
use super::gradients::{check_damp, check_rows, check_vector};
use crate::{Inverse, Real, wide};
use ndarray::{ArrayView2, Axis};
use offprint_core::Result;
use offprint_math::linalg::eigh;
use rayon::prelude::*;

/// F̂⁻¹ as the gradients G themselves and one m × m factor:
///
/// F̂⁻¹ x = (x − Gᵀ K⁻¹ G x/λ)/λ with K = G Gᵀ/λ + m I.
///
/// The gradients are read once at the setup and twice a product, in slabs of columns: pages that are not in use need
/// not be in memory. Everything but G is `f64`, so that storing G in `f32` loses nothing more. An element costs O(m²),
/// for O(m) see [`super::MfacStatic`].
#[derive(Debug, Clone)]
pub struct MfacFactored<'a, T = f32> {
    gradients: ArrayView2<'a, T>,
    factor: Factor,
    damp: f64,
}

impl<'a, T: Real> MfacFactored<'a, T> {
    /// From `gradients (m, d)`, rows contiguous, and damping λ. d m² flop.
    ///
    /// # Errors
    /// An empty matrix, rows with gaps, a `damp` that is not positive or too small, entries that are not finite.
    pub fn new(gradients: ArrayView2<'a, T>, damp: f64) -> Result<Self> {
        check_rows(gradients)?;
        check_damp(damp)?;
        let factor = Factor::new(wide::gram(gradients) / damp, gradients.nrows())?;
        Ok(Self { gradients, factor, damp })
    }

    /// The m largest eigenvalues of F̂, descending, at most d of them; all others equal λ. O(m³).
    ///
    /// # Errors
    /// They did not converge.
    pub fn eigenvalues(&self) -> Result<Vec<f64>> {
        // K = G Gᵀ/λ + m I has the eigenvalues m/λ · (σ²/m + λ).
        let (values, _) = eigh(self.factor.matrix().view())?;
        let scale = self.damp / self.gradients.nrows() as f64;
        Ok(values.iter().rev().take(self.dim()).map(|value| (value * scale).max(self.damp)).collect())
    }
}

impl<T: Real> Inverse for MfacFactored<'_, T> {
    fn dim(&self) -> usize {
        self.gradients.ncols()
    }

    fn apply_inverse(&self, x: &[f64]) -> Result<Vec<f64>> {
        check_vector(x, self.dim())?;
        Ok(solve(self.gradients, &self.factor, self.damp, x, wide::times(self.gradients, x)))
    }

    fn diag_inverse(&self) -> Result<Vec<f64>> {
        diagonal(self.gradients, &self.factor, self.damp)
    }
}

/// F̂⁻¹ x where `along` = G x is known already.
pub(super) fn solve<T: Real>(
    gradients: ArrayView2<'_, T>,
    factor: &Factor,
    damp: f64,
    x: &[f64],
    mut along: Vec<f64>,
) -> Vec<f64> {
    factor.solve(&mut along);
    along.iter_mut().for_each(|c| *c /= -damp * damp);
    let mut y: Vec<f64> = x.iter().map(|x| x / damp).collect();
    wide::add_transposed_times(&mut y, gradients, &along[..gradients.nrows()]);
    y
}

/// diag F̂⁻¹ = (1 − ‖L⁻¹ G_{:,k}‖²/λ)/λ, from K = L Lᵀ.
pub(super) fn diagonal<T: Real>(gradients: ArrayView2<'_, T>, factor: &Factor, damp: f64) -> Result<Vec<f64>> {
    const SLAB: usize = 512;
    let mut diagonal = vec![0.0; gradients.ncols()];
    let slabs = gradients.axis_chunks_iter(Axis(1), SLAB).into_par_iter();
    slabs.zip(diagonal.par_chunks_mut(SLAB)).for_each(|(slab, diagonal)| {
        let mut half = slab.map(|x| x.to_f64());
        factor.half_solve(half.view_mut());
        for row in half.rows() {
            diagonal.iter_mut().zip(row).for_each(|(d, x)| *d += x * x);
        }
        diagonal.iter_mut().for_each(|d| *d = (1.0 - *d / damp) / damp);
    });
    positive::<T>(diagonal)
}
