//! The static algorithm: a fixed set of gradients, directions v_i kept in their place.

use super::factor::Factor;
use super::gradients::{check_damp, check_finite, check_rows, check_vector};
use crate::{Inverse, Real, wide};
use ndarray::{Array2, ArrayView2, Axis, s};
use offprint_core::{Error, Result};
use offprint_math::linalg::matmul;
use rayon::prelude::*;

/// F̂⁻¹ for F̂ = λI + 1/m Σ g_i g_iᵀ, as the directions v_i = F̂_{i−1}⁻¹ g_i and denominators δ_i = m + g_iᵀ v_i of m
/// Sherman–Morrison steps:
///
/// F̂⁻¹ x = x/λ − Σ_i v_i (v_iᵀ x)/δ_i.
///
/// Setup O(d m²) once, then O(d m) a product and O(m) an element. The directions overwrite the gradients.
#[derive(Debug, Clone)]
pub struct MfacStatic<T = f32> {
    directions: Array2<T>,
    denominators: Vec<f64>,
    damp: f64,
}

impl<T: Real> MfacStatic<T> {
    /// From `gradients (m, d)` and damping λ, all rows at once.
    ///
    /// # Errors
    /// An empty matrix, an element that is not finite, a `damp` that is not positive or too small for double precision.
    pub fn new(gradients: Array2<T>, damp: f64) -> Result<Self> {
        let m = gradients.nrows();
        Self::paged(gradients, damp, m.max(1))
    }

    /// From `gradients (m, d)`, finished `rows_per_page` rows at a time: 1 is the plain recursion, m the fastest. What a
    /// page needs besides the matrix is O(m²) memory, so the matrix may live in a mapped file.
    ///
    /// For a page I after the finished rows `<a`, with C = G_I V_{<a}ᵀ:
    /// G_I F̂_a⁻¹ G_Iᵀ = G_I G_Iᵀ/λ − C δ⁻¹ Cᵀ = M, M + m I = L Lᵀ, L̂ = L diag(L)⁻¹, and
    /// V_I = L̂⁻¹ (G_I/λ − C δ⁻¹ V_{<a}), which is the recursion within the page written as products of matrices.
    ///
    /// # Errors
    /// As for [`Self::new`]; `rows_per_page` = 0.
    pub fn paged(gradients: Array2<T>, damp: f64, rows_per_page: usize) -> Result<Self> {
        let gradients = match gradients.is_standard_layout() {
            true => gradients,
            false => gradients.as_standard_layout().into_owned(),
        };
        check_rows(gradients.view())?;
        check_finite(gradients.view(), "grads")?;
        check_damp(damp)?;
        if rows_per_page == 0 {
            return Err(Error::parameter("rows_per_page", rows_per_page, "at least 1"));
        }
        let m = gradients.nrows();
        let mut directions = gradients;
        let mut denominators: Vec<f64> = Vec::with_capacity(m);
        for start in (0..m).step_by(rows_per_page) {
            let (finished, mut rest) = directions.view_mut().split_at(Axis(0), start);
            let page = rest.slice_mut(s![..rows_per_page.min(m - start), ..]);
            let mut coupling = wide::gram(page.view()) / damp;
            // C δ⁻¹, and M = G_I G_Iᵀ/λ − C δ⁻¹ Cᵀ.
            let projections = wide::cross(page.view(), finished.view());
            let mut weights = projections.clone();
            for mut row in weights.rows_mut() {
                row.iter_mut().zip(&denominators).for_each(|(c, delta)| *c /= delta);
            }
            coupling -= &matmul(weights.view(), projections.t());
            let factor = Factor::new(coupling, m)?;
            factor.unit_solve(weights.view_mut());
            weights.mapv_inplace(|c| -c);
            let own = factor.unit_inverse() / damp;
            wide::combine(page, own.view(), weights.view(), finished.view());
            denominators.extend(factor.denominators());
        }
        Ok(Self { directions, denominators, damp })
    }

    /// The directions v_i as rows `(m, d)`.
    pub fn directions(&self) -> ArrayView2<'_, T> {
        self.directions.view()
    }

    /// The denominators δ_i, `(m,)`.
    pub fn denominators(&self) -> &[f64] {
        &self.denominators
    }

    /// The element (F̂⁻¹)_kl = \[k = l\]/λ − Σ_i v_ik v_il/δ_i. O(m).
    ///
    /// # Errors
    /// An index that is not below d.
    pub fn element(&self, k: usize, l: usize) -> Result<f64> {
        let d = self.directions.ncols();
        if let Some(index) = [k, l].into_iter().find(|&index| index >= d) {
            return Err(Error::parameter("element", index, format!("below d = {d}")));
        }
        let start = if k == l { 1.0 / self.damp } else { 0.0 };
        let terms = self.directions.column(k).into_iter().zip(self.directions.column(l)).zip(&self.denominators);
        Ok(start - terms.map(|((a, b), delta)| a.to_f64() * b.to_f64() / delta).sum::<f64>())
    }
}

impl<T: Real> Inverse for MfacStatic<T> {
    fn dim(&self) -> usize {
        self.directions.ncols()
    }

    fn apply_inverse(&self, x: &[f64]) -> Result<Vec<f64>> {
        check_vector(x, self.dim())?;
        let mut along = wide::times(self.directions.view(), x);
        along.iter_mut().zip(&self.denominators).for_each(|(a, delta)| *a /= -delta);
        let mut y: Vec<f64> = x.iter().map(|x| x / self.damp).collect();
        wide::add_transposed_times(&mut y, self.directions.view(), &along);
        Ok(y)
    }

    fn diag_inverse(&self) -> Result<Vec<f64>> {
        const SLAB: usize = 4096;
        let mut diagonal = vec![1.0 / self.damp; self.dim()];
        let slabs = self.directions.axis_chunks_iter(Axis(1), SLAB).into_par_iter();
        slabs.zip(diagonal.par_chunks_mut(SLAB)).for_each(|(directions, diagonal)| {
            for (row, delta) in directions.rows().into_iter().zip(&self.denominators) {
                diagonal.iter_mut().zip(row).for_each(|(y, v)| *y -= v.to_f64() * v.to_f64() / delta);
            }
        });
        positive::<T>(diagonal)
    }
}

/// `diagonal`, unless rounding has made an element zero or negative.
pub(super) fn positive<T: Real>(diagonal: Vec<f64>) -> Result<Vec<f64>> {
    match diagonal.iter().position(|&x| x <= 0.0 || !x.is_finite()) {
        Some(k) => Err(Error::Numerical(format!(
            "damp is too small for {}: the inverse's diagonal is {} at coordinate {k}",
            T::NAME,
            diagonal[k]
        ))),
        None => Ok(diagonal),
    }
}
