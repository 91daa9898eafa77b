//! The dynamic algorithm: the last m gradients of a stream.

use super::factor::Factor;
use super::factored;
use super::gradients::{check_damp, check_vector};
use crate::{Inverse, Real, wide};
use ndarray::{Array2, ArrayView2, s};
use offprint_core::{Error, Result};

/// F̂⁻¹ for the last m gradients, kept in a ring that starts at zero, with their inner products S = G Gᵀ.
///
/// A new gradient costs one product G g, O(d m), and O(m³) at most for the factor of S/λ + m I: rows of the factor
/// before the overwritten one are kept. A product with F̂⁻¹ costs O(d m + m²).
#[derive(Debug, Clone)]
pub struct MfacDynamic<T = f32> {
    ring: Array2<T>,
    /// S/λ.
    coupling: Array2<f64>,
    factor: Factor,
    damp: f64,
    next: usize,
    filled: usize,
}

impl<T: Real> MfacDynamic<T> {
    /// An empty window of `window` gradients of length `dim`, with damping λ.
    ///
    /// # Errors
    /// A size of zero, one that does not fit in memory, a `damp` that is not positive.
    pub fn new(dim: usize, window: usize, damp: f64) -> Result<Self> {
        check_damp(damp)?;
        for (name, size) in [("dim", dim), ("window", window)] {
            if size == 0 {
                return Err(Error::parameter(name, size, "at least 1"));
            }
        }
        let bytes = dim.checked_mul(window).and_then(|n| n.checked_mul(size_of::<T>()));
        if bytes.is_none_or(|bytes| isize::try_from(bytes).is_err()) {
            return Err(Error::parameter("window", window, format!("small enough that {dim} × window fits in memory")));
        }
        Ok(Self {
            ring: Array2::default((window, dim)),
            coupling: Array2::zeros((window, window)),
            factor: Factor::empty(window),
            damp,
            next: 0,
            filled: 0,
        })
    }

    /// Puts gradient `g (d,)` into the window, in place of the oldest.
    ///
    /// # Errors
    /// A length other than d, an element that is not finite (the window stays as it was), a damping too small for the
    /// gradients.
    pub fn push(&mut self, g: &[f64]) -> Result<()> {
        self.insert(g).map(|_| ())
    }

    /// [`Self::push`], then F̂⁻¹ g with the new gradient in the window already. Reads the window twice, where `push` and
    /// [`Inverse::apply_inverse`] one after the other read it three times.
    ///
    /// # Errors
    /// As for [`Self::push`].
    pub fn push_solve(&mut self, g: &[f64]) -> Result<Vec<f64>> {
        let along = self.insert(g)?;
        // What is stored may be rounded to f32; the product G x was taken with the stored one.
        let stored: Vec<f64> = g.iter().map(|&x| T::from_f64(x).to_f64()).collect();
        Ok(factored::solve(self.rows(), &self.factor, self.damp, &stored, along))
    }

    /// Overwrites the oldest row; gives G g.
    fn insert(&mut self, g: &[f64]) -> Result<Vec<f64>> {
        let (m, d) = self.ring.dim();
        if g.len() != d {
            return Err(Error::input("gradient", format!("has {} elements, but the window holds d = {d}", g.len())));
        }
        if let Some(k) = g.iter().position(|&x| !T::from_f64(x).to_f64().is_finite()) {
            return Err(Error::input("gradient", format!("element {k} (counted from 0) is {}", g[k])));
        }
        let i = self.next;
        self.ring.row_mut(i).iter_mut().zip(g).for_each(|(row, &x)| *row = T::from_f64(x));
        self.filled = self.filled.max(i + 1);
        let stored: Vec<f64> = self.ring.row(i).iter().map(|x| x.to_f64()).collect();
        let mut along = wide::times(self.rows(), &stored);
        along.resize(m, 0.0);
        for (j, product) in along.iter().enumerate() {
            self.coupling[[i, j]] = product / self.damp;
            self.coupling[[j, i]] = product / self.damp;
        }
        self.factor.replace(i, &self.coupling)?;
        self.next = (i + 1) % m;
        Ok(along)
    }

    /// The rows of the ring that hold gradients `(min(pushed, m), d)`; the oldest is not always the first.
    pub fn rows(&self) -> ArrayView2<'_, T> {
        self.ring.slice(s![..self.filled, ..])
    }

    /// The window's size m.
    pub fn window(&self) -> usize {
        self.ring.nrows()
    }

    /// D `(m, m)` in the order of the ring, upper triangular: D_ij = g_iᵀ F̂_{i−1}⁻¹ g_j.
    pub fn interactions(&self) -> Array2<f64> {
        self.factor.interactions(self.window())
    }

    /// δ `(m,)` in the order of the ring: δ_i = m + D_ii.
    pub fn denominators(&self) -> Vec<f64> {
        self.factor.denominators()
    }

    /// B `(m, m)`, lower triangular: F̂_{i−1}⁻¹ g_i = Σ_{j≤i} B_ij g_j.
    pub fn coefficients(&self) -> Array2<f64> {
        self.factor.unit_inverse() / self.damp
    }
}

impl<T: Real> Inverse for MfacDynamic<T> {
    fn dim(&self) -> usize {
        self.ring.ncols()
    }

    fn apply_inverse(&self, x: &[f64]) -> Result<Vec<f64>> {
        check_vector(x, self.dim())?;
        if self.filled == 0 {
            return Ok(x.iter().map(|x| x / self.damp).collect());
        }
        let mut along = wide::times(self.rows(), x);
        along.resize(self.window(), 0.0);
        Ok(factored::solve(self.rows(), &self.factor, self.damp, x, along))
    }

    fn diag_inverse(&self) -> Result<Vec<f64>> {
        if self.filled == 0 {
            return Ok(vec![1.0 / self.damp; self.dim()]);
        }
        factored::diagonal(self.ring.view(), &self.factor, self.damp)
    }
}
