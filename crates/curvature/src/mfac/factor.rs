//! The small side: what the gradients are to each other, m × m, in `f64`.
//!
//! With K = G F_a⁻¹ Gᵀ + m I and its Cholesky factor L (K = L Lᵀ), the quantities of the Sherman–Morrison recursion are
//! δ_i = L_ii² and g_iᵀ F_{i−1}⁻¹ g_j = D_ij = L_ii L_ji for i < j. The published algorithm gets them from the un-pivoted
//! LU of K, which is the same factorisation (U = diag(L) Lᵀ) without the guard against loss of definiteness.

use faer::linalg::triangular_solve::{
    solve_lower_triangular_in_place, solve_unit_lower_triangular_in_place, solve_upper_triangular_in_place,
};
use faer::{Accum, Par, Side};
use ndarray::{Array2, ArrayViewMut2, Axis, s};
use offprint_core::{Error, Result};
use offprint_math::linalg::{as_faer, as_faer_mut, matmul};

/// The Cholesky factor L of K `(m, m)`.
#[derive(Debug, Clone)]
pub(crate) struct Factor {
    lower: Array2<f64>,
}

impl Factor {
    /// Of K = m I: no gradient yet.
    pub fn empty(m: usize) -> Self {
        Self { lower: Array2::eye(m) * (m as f64).sqrt() }
    }

    /// Of K = `coupling` + `count` I; the lower triangle of `coupling` is read.
    pub fn new(mut coupling: Array2<f64>, count: usize) -> Result<Self> {
        coupling.diag_mut().iter_mut().for_each(|x| *x += count as f64);
        let mut factor = Self { lower: coupling };
        factor.refactor(0)?;
        Ok(factor)
    }

    /// Replaces row and column `i` of K by `row (m,)`; `coupling(j, k)` gives the other entries of K.
    ///
    /// Rows of L before `i`, and the first `i` columns of those after it, stay: on average a quarter of the work of a
    /// new factorisation, O((m − i)²m) here.
    pub fn replace(&mut self, i: usize, coupling: &Array2<f64>) -> Result<()> {
        let m = self.lower.nrows();
        let mut changed = coupling.slice(s![i, ..i]).to_owned().insert_axis(Axis(1));
        let before = self.lower.slice(s![..i, ..i]);
        solve_lower_triangular_in_place(as_faer(before), as_faer_mut(changed.view_mut()), Par::Seq);
        self.lower.slice_mut(s![i, ..i]).assign(&changed.column(0));
        self.lower.slice_mut(s![i.., i..]).assign(&coupling.slice(s![i.., i..]));
        for j in i..m {
            self.lower[[j, j]] += m as f64;
        }
        self.refactor(i)
    }

    /// Factors rows `from..`, whose first `from` columns hold L already and whose others hold K.
    fn refactor(&mut self, from: usize) -> Result<()> {
        let (left, mut trailing) = self.lower.slice_mut(s![from.., ..]).split_at(Axis(1), from);
        faer::linalg::matmul::matmul(
            as_faer_mut(trailing.view_mut()),
            Accum::Add,
            as_faer(left.view()),
            as_faer(left.t()),
            -1.0,
            Par::Seq,
        );
        let failed = || {
            Error::Numerical(
                "damp is too small: the gradients' m × m matrix is not positive definite in double precision".into(),
            )
        };
        let factored = as_faer(trailing.view()).llt(Side::Lower).map_err(|_| failed())?;
        let lower = factored.L();
        for j in 0..trailing.nrows() {
            for k in 0..trailing.ncols() {
                trailing[[j, k]] = if k <= j { lower[(j, k)] } else { 0.0 };
            }
        }
        if trailing.diag().iter().all(|x| x.is_finite()) { Ok(()) } else { Err(failed()) }
    }

    /// δ, `(m,)`.
    pub fn denominators(&self) -> Vec<f64> {
        self.lower.diag().iter().map(|x| x * x).collect()
    }

    /// D `(m, m)`, upper triangular: D_ij = g_iᵀ F_{i−1}⁻¹ g_j, so that δ_i = m + D_ii.
    pub fn interactions(&self, count: usize) -> Array2<f64> {
        let m = self.lower.nrows();
        Array2::from_shape_fn((m, m), |(i, j)| match i.cmp(&j) {
            std::cmp::Ordering::Less => self.lower[[i, i]] * self.lower[[j, i]],
            std::cmp::Ordering::Equal => self.lower[[i, i]].powi(2) - count as f64,
            std::cmp::Ordering::Greater => 0.0,
        })
    }

    /// K.
    pub fn matrix(&self) -> Array2<f64> {
        matmul(self.lower.view(), self.lower.t())
    }

    /// `y ← K⁻¹ y` for `y (m,)`. The forward half is the published sweep over D, the backward half its product with
    /// the coefficients B. O(m²).
    pub fn solve(&self, y: &mut [f64]) {
        let m = y.len();
        let lower = as_faer(self.lower.view());
        let mut y = ArrayViewMut2::from_shape((m, 1), y).expect("one column");
        solve_lower_triangular_in_place(lower, as_faer_mut(y.view_mut()), Par::Seq);
        solve_upper_triangular_in_place(lower.transpose(), as_faer_mut(y.view_mut()), Par::Seq);
    }

    /// `y ← L⁻¹ y` for `y (m, k)`.
    pub fn half_solve(&self, y: ArrayViewMut2<'_, f64>) {
        solve_lower_triangular_in_place(as_faer(self.lower.view()), as_faer_mut(y), Par::Seq);
    }

    /// `y ← L̂⁻¹ y` for `y (m, k)`, where L̂ = L diag(L)⁻¹ has ones on its diagonal.
    pub fn unit_solve(&self, y: ArrayViewMut2<'_, f64>) {
        let unit = &self.lower / &self.lower.diag();
        solve_unit_lower_triangular_in_place(as_faer(unit.view()), as_faer_mut(y), Par::Seq);
    }

    /// L̂⁻¹ `(m, m)`.
    pub fn unit_inverse(&self) -> Array2<f64> {
        let mut inverse = Array2::eye(self.lower.nrows());
        self.unit_solve(inverse.view_mut());
        inverse
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacing_a_row_equals_factoring_anew() {
        let m = 9;
        let a = Array2::from_shape_fn((m, 20), |(i, j)| ((i * 20 + j) as f64 * 0.7).sin());
        let mut coupling = a.dot(&a.t());
        let mut factor = Factor::new(coupling.clone(), m).unwrap();
        for i in [0, 4, 8] {
            let row: Vec<f64> = (0..m).map(|j| if i == j { 30.0 } else { ((i + 3 * j) as f64).cos() }).collect();
            for j in 0..m {
                coupling[[i, j]] = row[j];
                coupling[[j, i]] = row[j];
            }
            factor.replace(i, &coupling).unwrap();
            let anew = Factor::new(coupling.clone(), m).unwrap();
            let difference = (&factor.lower - &anew.lower).mapv(f64::abs).sum();
            assert!(difference < 1e-12, "row {i}: {difference}");
        }
    }
}
