//! The Lanczos process with full re-orthogonalisation.
//!
//! k products of a symmetric A span a Krylov space with orthonormal basis Q (k, n), in which A is the tridiagonal
//! T = Q A Qᵀ. The ends of A's spectrum appear among the eigenvalues of T (Ritz values) within a few dozen steps.

use crate::operator::{check_length, product};
use crate::vector::{add_scaled, dot, norm, scale};
use crate::{LinearOperator, Real, wide};
use ndarray::{Array2, ArrayView2};
use offprint_core::{Error, Progress, Result};
use offprint_math::linalg::eigh;

/// What k steps of Lanczos found.
#[derive(Debug, Clone)]
pub struct Lanczos<T = f64> {
    /// The diagonal of T, `(k,)`.
    pub alpha: Vec<f64>,
    /// The off-diagonal of T and, last, what the next step would begin with, `(k,)`; the last is 0 if the Krylov space
    /// is exhausted, and the Ritz values are then eigenvalues of A.
    pub beta: Vec<f64>,
    basis: Vec<T>,
    dim: usize,
}

/// The eigenvalues of T, ascending, with what is known of each.
#[derive(Debug, Clone, PartialEq)]
pub struct Ritz {
    /// The Ritz values.
    pub values: Vec<f64>,
    /// β_k |u_{k,i}| for each: an eigenvalue of A lies this close.
    pub residuals: Vec<f64>,
    /// u_{1,i}² for each: the Gauss quadrature of the start vector's spectral measure; they sum to 1.
    pub weights: Vec<f64>,
    /// Eigenvectors of T as columns `(k, k)`.
    pub vectors: Array2<f64>,
}

/// `steps` steps from `start`, or fewer if the Krylov space is exhausted before. Keeps the basis, `steps · n` elements
/// of `T`; the re-orthogonalisation costs 8 · steps² · n flop in all.
///
/// # Errors
/// A `start` of another length or zero, `steps` = 0, products that fail or are not finite, a stop by `progress`.
pub fn lanczos<T: Real>(
    operator: &impl LinearOperator<T>,
    start: &[T],
    steps: usize,
    progress: &Progress,
) -> Result<Lanczos<T>> {
    lanczos_until(operator, start, steps, progress, |_| Ok(false))
}

/// [`lanczos`] that stops as soon as `done` says so of the steps taken so far.
///
/// # Errors
/// As [`lanczos`], and those of `done`.
pub fn lanczos_until<T: Real>(
    operator: &impl LinearOperator<T>,
    start: &[T],
    steps: usize,
    progress: &Progress,
    mut done: impl FnMut(&Lanczos<T>) -> Result<bool>,
) -> Result<Lanczos<T>> {
    let dim = operator.dim();
    check_length("start", start.len(), dim)?;
    if steps == 0 {
        return Err(Error::parameter("steps", steps, "at least 1"));
    }
    let length = norm(start);
    if !(length > 0.0 && length.is_finite()) {
        return Err(Error::input("start", format!("has length {length}; a finite vector that is not zero is needed")));
    }
    let steps = steps.min(dim);
    let mut result =
        Lanczos { alpha: Vec::with_capacity(steps), beta: Vec::with_capacity(steps), basis: Vec::new(), dim };
    let mut next = start.to_vec();
    scale(&mut next, 1.0 / length);
    // The size of A so far, against which a rounding error is told from a direction.
    let mut largest = 0.0f64;
    for step in 0..steps {
        let mut image = product(operator, &next)?;
        result.alpha.push(dot(&next, &image));
        result.basis.extend_from_slice(&next);
        largest = largest.max(norm(&image));
        // Twice is enough (Kahan, Parlett): the second pass removes what rounding left in the first. It also does the
        // three-term recurrence, whose terms are the projections on the last two vectors.
        for _ in 0..2 {
            result.project_out(&mut image);
        }
        let beta = norm(&image);
        let exhausted = beta <= largest * T::EPSILON * (dim as f64).sqrt() || step + 1 == dim;
        result.beta.push(if exhausted { 0.0 } else { beta });
        progress.check()?;
        if exhausted || done(&result)? {
            break;
        }
        scale(&mut image, 1.0 / beta);
        next = image;
    }
    Ok(result)
}

impl<T: Real> Lanczos<T> {
    /// The number of steps taken.
    pub fn steps(&self) -> usize {
        self.alpha.len()
    }

    /// The orthonormal basis of the Krylov space as rows `(k, n)`.
    pub fn basis(&self) -> ArrayView2<'_, T> {
        ArrayView2::from_shape((self.basis.len() / self.dim, self.dim), &self.basis).expect("whole rows")
    }

    fn project_out(&self, x: &mut [T]) {
        let mut wide_x: Vec<f64> = x.iter().map(|x| x.to_f64()).collect();
        let mut along = wide::times(self.basis(), &wide_x);
        along.iter_mut().for_each(|c| *c = -*c);
        wide::add_transposed_times(&mut wide_x, self.basis(), &along);
        x.iter_mut().zip(wide_x).for_each(|(x, wide)| *x = T::from_f64(wide));
    }

    /// Ritz values with residuals, quadrature weights and vectors.
    ///
    /// # Errors
    /// The eigenvalues of T did not converge.
    pub fn ritz(&self) -> Result<Ritz> {
        let k = self.steps();
        let mut t = Array2::zeros((k, k));
        for i in 0..k {
            t[[i, i]] = self.alpha[i];
            if i + 1 < k {
                t[[i, i + 1]] = self.beta[i];
                t[[i + 1, i]] = self.beta[i];
            }
        }
        let (values, vectors) = eigh(t.view())?;
        let last = self.beta[k - 1];
        Ok(Ritz {
            values: values.to_vec(),
            residuals: (0..k).map(|i| last * vectors[[k - 1, i]].abs()).collect(),
            weights: (0..k).map(|i| vectors[[0, i]].powi(2)).collect(),
            vectors,
        })
    }

    /// The unit vector in the Krylov space that belongs to the Ritz value with number `i` of `ritz`.
    ///
    /// # Panics
    /// If `i` is not below the number of steps.
    pub fn vector(&self, ritz: &Ritz, i: usize) -> Vec<T> {
        let mut wide_x = vec![0.0; self.dim];
        wide::add_transposed_times(&mut wide_x, self.basis(), &ritz.vectors.column(i).to_vec());
        let mut x: Vec<T> = wide_x.into_iter().map(T::from_f64).collect();
        let length = norm(&x);
        scale(&mut x, 1.0 / length);
        x
    }
}

impl Ritz {
    /// The largest Ritz value and its residual.
    pub fn top(&self) -> (f64, f64) {
        let last = self.values.len() - 1;
        (self.values[last], self.residuals[last])
    }

    /// The smallest Ritz value and its residual.
    pub fn bottom(&self) -> (f64, f64) {
        (self.values[0], self.residuals[0])
    }
}

/// `y = A x` on a deflated operator: A with the span of the rows of `found (k, n)`, eigenvectors, mapped to zero.
pub struct Deflated<'a, A, T> {
    operator: A,
    found: ArrayView2<'a, T>,
}

impl<'a, A, T: Real> Deflated<'a, A, T> {
    /// `operator` without its part on the orthonormal rows of `found (k, n)`.
    pub fn new(operator: A, found: ArrayView2<'a, T>) -> Self {
        Self { operator, found }
    }
}

impl<T: Real, A: LinearOperator<T>> LinearOperator<T> for Deflated<'_, A, T> {
    fn dim(&self) -> usize {
        self.operator.dim()
    }

    fn apply(&self, x: &[T], y: &mut [T]) -> Result<()> {
        let mut rest = x.to_vec();
        for row in self.found.rows() {
            let row = row.to_vec();
            let along = dot(&row, &rest);
            add_scaled(&mut rest, -along, &row);
        }
        self.operator.apply(&rest, y)?;
        for row in self.found.rows() {
            let row = row.to_vec();
            let along = dot(&row, y);
            add_scaled(y, -along, &row);
        }
        Ok(())
    }
}
