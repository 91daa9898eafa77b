//! The orthogonal polar factor by products alone.
//!
//! Newton and Schulz's iteration X ← X (3I − XᵀX)/2 drives every singular value to 1 and leaves the singular vectors
//! as they are. Chen and Chow (2014) stretch its first steps, x ← ρx (3 − ρ²x²)/2 with the ρ that is best for singular
//! values in [l, 1], which lifts small ones 2.6-fold a step instead of 1.5-fold. Nearly singular matrices are left to a
//! singular value decomposition. The answer depends on the matrix alone, not on earlier calls.

use crate::linalg;
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Zip};
use offprint_core::{Error, Result};

/// Steps after which the decomposition takes over: they cost as much, and reach down to about 10⁻⁹ of the largest
/// singular value.
const MOST_STEPS: usize = 40;

/// The l for which steps are stretched. A smaller one would lift farther in one round but keep the values near 1 away
/// from it longer; matrices that need it get another round.
const SMALLEST: f64 = 1e-3;

/// The part of its largest eigenvalue below which XᵀX counts as singular.
const SINGULAR: f64 = 1e-12;

/// How strongly a preferred factor breaks ties, relative to the norm of the matrix.
const TIE: f64 = 1e-5;

/// ‖I − XᵀX‖² from which one more step, which squares the norm, reaches rounding.
const LAST_STEP: f64 = 1e-16;

/// ‖I − XᵀX‖² within which plain steps converge quickly and stretched ones are a detour.
const NEAR: f64 = 0.8;

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
        let largest = self.load(a)?;
        if largest == 0.0 {
            out.fill(0.0);
            out.diag_mut().fill(1.0);
        } else if self.newton_schulz(true) {
            out.assign(&self.x);
        } else {
            Zip::from(&mut self.x).and(a).for_each(|x, &a| *x = a / largest);
            out.assign(&linalg::polar(self.x.view())?);
        }
        Ok(())
    }

    /// The same, but where `a` is too nearly singular to determine the factor, of all (almost) nearest orthogonal
    /// matrices the one nearest to `prefer` (n, n): the factor of a + 10⁻⁵ ‖a‖ prefer. For `a` = 0 that of `prefer`.
    ///
    /// # Errors
    /// Entries that are not finite.
    ///
    /// # Panics
    /// If a shape is not (n, n).
    pub fn factor_near(
        &mut self,
        a: ArrayView2<'_, f64>,
        prefer: ArrayView2<'_, f64>,
        mut out: ArrayViewMut2<'_, f64>,
    ) -> Result<()> {
        let largest = self.load(a)?;
        if largest == 0.0 {
            return self.factor(prefer, out);
        }
        if !self.newton_schulz(true) {
            let norm = (a.iter().map(|a| (a / largest).powi(2)).sum::<f64>()).sqrt();
            let perturbed = |a: f64, prefer: f64| a / largest + TIE * norm * prefer;
            Zip::from(&mut self.x).and(a).and(prefer).for_each(|x, &a, &p| *x = perturbed(a, p));
            if !self.newton_schulz(false) {
                Zip::from(&mut self.x).and(a).and(prefer).for_each(|x, &a, &p| *x = perturbed(a, p));
                self.x = linalg::polar(self.x.view())?;
            }
        }
        out.assign(&self.x);
        Ok(())
    }

    /// Sets `x` to `a` divided by its largest entry and gives that.
    fn load(&mut self, a: ArrayView2<'_, f64>) -> Result<f64> {
        assert_eq!(a.dim(), self.x.dim(), "shape of the matrix");
        let largest = a.iter().fold(0.0f64, |m, x| if x.is_finite() { m.max(x.abs()) } else { f64::INFINITY });
        if largest.is_infinite() {
            return Err(Error::Numerical("the polar factor of a matrix with entries that are not finite".into()));
        }
        if largest > 0.0 {
            Zip::from(&mut self.x).and(a).for_each(|x, &a| *x = a / largest);
        }
        Ok(largest)
    }

    /// Iterates on `x`; `false` if that does not converge soon, or at once if `refuse_singular` and it would not.
    fn newton_schulz(&mut self, refuse_singular: bool) -> bool {
        self.square();
        let n = self.gram.nrows();
        let entries = |a: &Array2<f64>| a.iter().map(|x| x * x).sum::<f64>();
        let trace = self.gram.diag().sum();
        // ‖A/m − I‖² for the mean eigenvalue m = tr A / n of A = XᵀX.
        let spread = entries(&self.gram) * (n as f64 / trace).powi(2) - n as f64;
        let (shrink, mut lowest) = if spread < NEAR {
            (n as f64 / trace, 1.0)
        } else {
            if refuse_singular && self.is_singular() {
                return false;
            }
            // The largest eigenvalue is at most any row's sum of absolute values and at most the Frobenius norm.
            let row_sum = |row: ndarray::ArrayView1<'_, f64>| row.iter().map(|x| x.abs()).sum::<f64>();
            let rows = self.gram.outer_iter().map(row_sum).fold(0.0, f64::max);
            (1.0 / rows.min(entries(&self.gram).sqrt()), SMALLEST)
        };
        self.x *= shrink.sqrt();
        self.gram *= shrink;
        for _ in 0..MOST_STEPS {
            // ρ for singular values in [lowest, 1], and where it takes the lowest.
            let rho = if lowest < 0.9 { (3.0 / (1.0 + lowest + lowest * lowest)).sqrt() } else { 1.0 };
            lowest = (rho * lowest * (3.0 - (rho * lowest).powi(2)) / 2.0).min(1.0);
            let residual = stretch(&mut self.gram, rho);
            linalg::gemm(1.0, self.x.view(), self.gram.view(), false, self.next.view_mut());
            std::mem::swap(&mut self.x, &mut self.next);
            if residual < LAST_STEP {
                return true;
            }
            if rho == 1.0 && residual > NEAR {
                // The round is over, but not all have come near 1: the others started below `SMALLEST`.
                lowest = SMALLEST;
            }
            self.square();
        }
        false
    }

    /// Whether the smallest pivot of Cholesky's elimination of XᵀX, which bounds its smallest eigenvalue from above, is
    /// below `SINGULAR` of the largest. A sixth of a step's work.
    fn is_singular(&mut self) -> bool {
        let n = self.gram.nrows();
        self.next.assign(&self.gram);
        let least = SINGULAR * self.gram.diag().iter().copied().fold(0.0, f64::max);
        let cells = self.next.as_slice_mut().expect("standard layout");
        for k in 0..n {
            let (above, below) = cells.split_at_mut((k + 1) * n);
            let row = &above[k * n..];
            let pivot = row[k];
            if pivot <= least {
                return true;
            }
            for (i, below) in (k + 1..n).zip(below.chunks_exact_mut(n)) {
                let factor = row[i] / pivot;
                for (b, r) in below[i..].iter_mut().zip(&row[i..]) {
                    *b -= factor * r;
                }
            }
        }
        false
    }

    fn square(&mut self) {
        linalg::gemm(1.0, self.x.t(), self.x.view(), false, self.gram.view_mut());
    }
}

/// A ← (3ρ/2) I − (ρ³/2) A in place; gives ‖I − A‖² of the A before.
fn stretch(gram: &mut Array2<f64>, rho: f64) -> f64 {
    const LANES: usize = 8;
    let (constant, slope) = (1.5 * rho, -0.5 * rho.powi(3));
    // With I taken off first, nothing cancels in the norm: A − I, then slope (A − I) + (constant + slope) I.
    gram.diag_mut().mapv_inplace(|a| a - 1.0);
    let mut sums = [0.0; LANES];
    let cells = gram.as_slice_mut().expect("standard layout");
    let (chunks, rest) = cells.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for (a, sum) in chunk.iter_mut().zip(&mut sums) {
            *sum += *a * *a;
            *a *= slope;
        }
    }
    for (a, sum) in rest.iter_mut().zip(&mut sums) {
        *sum += *a * *a;
        *a *= slope;
    }
    gram.diag_mut().mapv_inplace(|a| a + (constant + slope));
    sums.iter().sum()
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
    fn holds_for_any_condition_number() {
        let n = 12;
        let (u, v) = (linalg::polar(gaussian(n, 1).view()).unwrap(), linalg::polar(gaussian(n, 2).view()).unwrap());
        for decades in 0..14 {
            // Singular values 1 … 10^(−decades); the factor is u vᵀ by construction.
            let s =
                ndarray::Array1::from_shape_fn(n, |i| 10f64.powf(-f64::from(decades) * i as f64 / (n as f64 - 1.0)));
            let a = linalg::matmul((&u * &s).view(), v.t());
            let q = factor(&a);
            assert!(distance(&linalg::matmul(q.t(), q.view()), &Array2::eye(n)) < 1e-12, "{decades}");
            // A factor moves by rounding over the smallest singular values.
            let allowed = 1e-14 * 10f64.powi(decades);
            assert!(distance(&q, &linalg::matmul(u.view(), v.t())) < allowed.max(1e-12), "{decades}");
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
    fn ties_are_broken_towards_the_preferred_factor() {
        // diag(2, 1, 0, 0) leaves the lower right block open: there the factor is the preferred one's own.
        let a = Array2::from_diag(&array![2.0, 1.0, 0.0, 0.0]);
        let mut prefer = Array2::eye(4);
        (prefer[[2, 2]], prefer[[2, 3]], prefer[[3, 2]], prefer[[3, 3]]) = (0.0, 1.0, -1.0, 0.0);
        let mut out = Array2::zeros((4, 4));
        Polar::new(4).factor_near(a.view(), prefer.view(), out.view_mut()).unwrap();
        assert!(distance(&out, &prefer) < 1e-12);
        // A matrix that determines its factor is not moved.
        let a = &(Array2::eye(6) * 2.0) + &gaussian(6, 5);
        let mut out = Array2::zeros((6, 6));
        Polar::new(6).factor_near(a.view(), gaussian(6, 6).view(), out.view_mut()).unwrap();
        assert!(distance(&out, &factor(&a)) == 0.0);
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
