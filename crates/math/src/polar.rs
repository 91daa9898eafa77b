//! The orthogonal polar factor, fast where the matrix is well conditioned.
//!
//! Newton and Schulz's iteration X ← X (3I − XᵀX)/2 drives every singular value to 1 and leaves the singular vectors
//! as they are, with products only. Where it would be slow (nearly singular matrices) a singular value decomposition
//! takes over. The answer depends on the matrix alone, not on earlier calls.

use crate::linalg;
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Zip};
use offprint_core::{Error, Result};

/// Steps after which the decomposition is the cheaper way. A smallest singular value of 2 % of the largest needs 14.
const MOST_STEPS: usize = 14;

/// ‖I − XᵀX‖ from which one more step, which squares it, reaches rounding.
const LAST_STEP: f64 = 1e-8;

/// Memory in which polar factors of n × n matrices are computed without allocating.
#[derive(Debug, Clone)]
pub struct Polar {
    x: Array2<f64>,
    next: Array2<f64>,
    gram: Array2<f64>,
}

impl Polar {
    /// Memory for n × n matrices: 3 n² numbers.
    pub fn new(n: usize) -> Self {
        let zeros = || Array2::zeros((n, n));
        Self { x: zeros(), next: zeros(), gram: zeros() }
    }

    /// Writes the orthogonal matrix nearest to `a` (n, n) into `out` (n, n), to about 10⁻¹⁴. O(n³).
    ///
    /// Unique if `a` has full rank; otherwise one of the nearest. Any scale of `a` that `f64` can hold is fine.
    ///
    /// # Errors
    /// Entries that are not finite.
    ///
    /// # Panics
    /// If a shape is not (n, n).
    pub fn factor(&mut self, a: ArrayView2<'_, f64>, mut out: ArrayViewMut2<'_, f64>) -> Result<()> {
        assert_eq!(a.dim(), self.x.dim(), "shape of the matrix");
        let largest = a.iter().fold(0.0f64, |m, x| if x.is_finite() { m.max(x.abs()) } else { f64::INFINITY });
        if largest.is_infinite() {
            return Err(Error::Numerical("the polar factor of a matrix with entries that are not finite".into()));
        }
        if largest == 0.0 {
            out.fill(0.0);
            out.diag_mut().fill(1.0);
            return Ok(());
        }
        Zip::from(&mut self.x).and(a).for_each(|x, &a| *x = a / largest);
        if self.newton_schulz() {
            out.assign(&self.x);
        } else {
            Zip::from(&mut self.x).and(a).for_each(|x, &a| *x = a / largest);
            out.assign(&linalg::polar(self.x.view())?);
        }
        Ok(())
    }

    /// Iterates on `x`; `false` if that does not converge soon.
    fn newton_schulz(&mut self) -> bool {
        self.square();
        // The largest eigenvalue of XᵀX is at most any row's sum of absolute values and at most the Frobenius norm.
        let row_sum = |row: ndarray::ArrayView1<'_, f64>| row.iter().map(|x| x.abs()).sum::<f64>();
        let rows = self.gram.outer_iter().map(row_sum).fold(0.0, f64::max);
        let frobenius = self.gram.iter().map(|x| x * x).sum::<f64>().sqrt();
        // Singular values up to √2 go to at least 1/√2 in one step, and small ones start √2 nearer to 1.
        let shrink = 2.0 / rows.min(frobenius);
        self.x *= shrink.sqrt();
        self.gram *= shrink;
        for _ in 0..MOST_STEPS {
            let n = self.gram.nrows();
            let squares = self.gram.iter().map(|x| x * x).sum::<f64>();
            // ‖I − A‖² = ‖A‖² − 2 tr A + n loses digits near convergence; the entries themselves do not.
            let residual = if squares > n as f64 + 1e-3 || squares < n as f64 - 1e-3 {
                f64::INFINITY
            } else {
                let off: f64 = self.gram.indexed_iter().map(|((i, j), &x)| (x - f64::from(i == j)).powi(2)).sum();
                off.sqrt()
            };
            // X (3I − A)/2
            self.gram *= -0.5;
            self.gram.diag_mut().mapv_inplace(|x| x + 1.5);
            linalg::gemm(1.0, self.x.view(), self.gram.view(), false, self.next.view_mut());
            std::mem::swap(&mut self.x, &mut self.next);
            if residual < LAST_STEP {
                return true;
            }
            self.square();
        }
        false
    }

    fn square(&mut self) {
        linalg::gemm(1.0, self.x.t(), self.x.view(), false, self.gram.view_mut());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;
    use offprint_core::random::Streams;
    use rand::RngExt;
    use rand_distr::StandardNormal;

    fn gaussian(n: usize, index: u64) -> Array2<f64> {
        let mut rng = Streams::new(3).stream("matrix").rng(index);
        Array2::from_shape_simple_fn((n, n), || rng.sample(StandardNormal))
    }

    fn factor(a: &Array2<f64>) -> Array2<f64> {
        let mut out = Array2::zeros(a.dim());
        Polar::new(a.nrows()).factor(a.view(), out.view_mut()).unwrap();
        out
    }

    fn distance(a: &Array2<f64>, b: &Array2<f64>) -> f64 {
        a.iter().zip(b).fold(0.0, |m, (x, y)| m.max((x - y).abs()))
    }

    #[test]
    fn equals_the_factor_from_the_decomposition() {
        for n in [1, 2, 3, 7, 20, 40] {
            // Well conditioned (iteration) and as it comes (either way).
            let well = &(Array2::eye(n) * 3.0) + &(gaussian(n, n as u64) / (n as f64).sqrt());
            for a in [well, gaussian(n, n as u64)] {
                assert!(distance(&factor(&a), &linalg::polar(a.view()).unwrap()) < 1e-11, "{n}");
            }
        }
    }

    #[test]
    fn scale_does_not_matter() {
        let a = &Array2::eye(6) + &(gaussian(6, 1) * 0.1);
        for scale in [1e-290, 1e-8, 1e8, 1e290] {
            assert!(distance(&factor(&(&a * scale)), &factor(&a)) < 1e-13, "{scale}");
        }
    }

    #[test]
    fn singular_matrices_get_an_orthogonal_completion() {
        let rank_one = array![[1.0, 2.0, 2.0], [2.0, 4.0, 4.0], [2.0, 4.0, 4.0]];
        for a in [rank_one, Array2::zeros((3, 3))] {
            let q = factor(&a);
            assert!(distance(&linalg::matmul(q.t(), q.view()), &Array2::eye(3)) < 1e-12);
            // ⟨Polar(A), A⟩ is the nuclear norm, here the trace.
            assert!(((&q * &a).sum() - a.diag().sum()).abs() < 1e-12);
        }
        assert_eq!(factor(&Array2::zeros((0, 0))).len(), 0);
        let bad = array![[f64::NAN]];
        assert!(Polar::new(1).factor(bad.view(), Array2::zeros((1, 1)).view_mut()).is_err());
    }
}
