//! Orthogonal matrices from unconstrained numbers, by Cayley's transform.
//!
//! The eigenvectors of a full S_k must stay orthogonal while a gradient moves them. Q = (I + A)⁻¹ (I − A) is orthogonal
//! for every skew-symmetric A, and A is d(d−1)/2 free numbers: its entries below the diagonal, row by row.

use ndarray::{Array2, ArrayView2};
use offprint_core::Result;
use offprint_math::linalg;

/// The number of entries of A below its diagonal.
pub fn count(d: usize) -> usize {
    d * (d - 1) / 2
}

/// A rotation, with what its gradient needs.
#[derive(Debug, Clone)]
pub struct Cayley {
    /// Q (d, d).
    pub q: Array2<f64>,
    /// (I + A)⁻¹ (d, d).
    resolvent: Array2<f64>,
}

impl Cayley {
    /// The rotation of the skew-symmetric matrix with the entries `below` its diagonal. O(d³).
    pub fn new(below: &[f64], d: usize) -> Result<Self> {
        let mut plus = Array2::eye(d);
        let mut entries = below.iter();
        for i in 0..d {
            for j in 0..i {
                let a = entries.next().expect("d(d−1)/2 entries");
                plus[[i, j]] = *a;
                plus[[j, i]] = -a;
            }
        }
        // I + A has no eigenvalue within distance 1 of zero, so that the inverse is safe. Q = 2 (I + A)⁻¹ − I.
        let resolvent = linalg::inverse(plus.view())?;
        let mut q = &resolvent * 2.0;
        q.diag_mut().mapv_inplace(|x| x - 1.0);
        Ok(Self { q, resolvent })
    }

    /// Turns the gradient with respect to Q (d, d) into that with respect to the entries below A's diagonal.
    ///
    /// dQ = −2 (I + A)⁻¹ dA (I + A)⁻¹, so the gradient with respect to a free A is G = −2 R' ∂Q R', R = (I + A)⁻¹; the
    /// entry (i, j) stands in A twice, with opposite signs.
    pub fn pull_back(&self, gradient: ArrayView2<'_, f64>, below: &mut [f64]) {
        let left = linalg::matmul(self.resolvent.t(), gradient);
        let free = linalg::matmul(left.view(), self.resolvent.t());
        let mut entries = below.iter_mut();
        for i in 0..self.q.nrows() {
            for j in 0..i {
                *entries.next().expect("d(d−1)/2 entries") = -2.0 * (free[[i, j]] - free[[j, i]]);
            }
        }
    }
}
