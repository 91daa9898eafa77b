//! A symmetric matrix known only by its products with vectors.

use crate::{Real, wide};
use ndarray::ArrayView2;
use offprint_core::{Error, Result};

/// A symmetric linear map on vectors of one length: a Hessian, a Gauss–Newton or a Fisher matrix, or anything else
/// that can be multiplied by a vector. `T` is what vectors are kept in.
pub trait LinearOperator<T: Real = f64> {
    /// The length of the vectors.
    fn dim(&self) -> usize;

    /// `y = A x`; both have [`Self::dim`] elements, and what `y` held before does not matter.
    ///
    /// # Errors
    /// A product that cannot be computed (a model's own error).
    fn apply(&self, x: &[T], y: &mut [T]) -> Result<()>;
}

impl<T: Real, A: LinearOperator<T> + ?Sized> LinearOperator<T> for &A {
    fn dim(&self) -> usize {
        (**self).dim()
    }

    fn apply(&self, x: &[T], y: &mut [T]) -> Result<()> {
        (**self).apply(x, y)
    }
}

/// Rows and columns that are compared at once: a tile of either side of the diagonal fits the first cache.
const TILE: usize = 32;

/// An explicit symmetric matrix.
#[derive(Debug, Clone, Copy)]
pub struct Explicit<'a> {
    matrix: ArrayView2<'a, f64>,
}

impl<'a> Explicit<'a> {
    /// The operator of `matrix (n, n)`, called `name` in errors.
    ///
    /// # Errors
    /// A matrix that is not square, not finite, or whose relative asymmetry exceeds 10⁻⁶.
    pub fn new(matrix: ArrayView2<'a, f64>, name: &str) -> Result<Self> {
        let (rows, columns) = matrix.dim();
        if rows != columns || rows == 0 {
            return Err(Error::input(name, format!("has shape ({rows}, {columns}); a square matrix is needed")));
        }
        if let Some(((i, j), x)) = matrix.indexed_iter().find(|(_, x)| !x.is_finite()) {
            return Err(Error::input(name, format!("row {i}, column {j} (counted from 0) is {x}")));
        }
        let largest = matrix.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
        // Tile by tile, because a column alone would touch a cache line for each of its elements.
        let tiles = |from: usize| (from..rows).step_by(TILE);
        for (top, left) in tiles(0).flat_map(|top| tiles(top).map(move |left| (top, left))) {
            for i in top..rows.min(top + TILE) {
                for j in left.max(i + 1)..rows.min(left + TILE) {
                    let (above, below) = (matrix[[i, j]], matrix[[j, i]]);
                    if (above - below).abs() > 1e-6 * largest {
                        let problem = format!("is not symmetric: ({i}, {j}) is {above}, but ({j}, {i}) is {below}");
                        return Err(Error::input(name, problem));
                    }
                }
            }
        }
        Ok(Self { matrix })
    }
}

impl LinearOperator for Explicit<'_> {
    fn dim(&self) -> usize {
        self.matrix.nrows()
    }

    fn apply(&self, x: &[f64], y: &mut [f64]) -> Result<()> {
        if self.matrix.is_standard_layout() {
            wide::times_rows(self.matrix, x, y);
        } else {
            self.matrix.dot(&ndarray::aview1(x)).iter().zip(y).for_each(|(a, y)| *y = *a);
        }
        Ok(())
    }
}

/// A function as an operator: `product(x, y)` sets `y = A x`.
pub struct Product<F> {
    dim: usize,
    product: F,
}

impl<F> Product<F> {
    /// The operator on vectors of length `dim` whose products `product` computes.
    pub fn new(dim: usize, product: F) -> Self {
        Self { dim, product }
    }
}

impl<T: Real, F: Fn(&[T], &mut [T]) -> Result<()>> LinearOperator<T> for Product<F> {
    fn dim(&self) -> usize {
        self.dim
    }

    fn apply(&self, x: &[T], y: &mut [T]) -> Result<()> {
        (self.product)(x, y)
    }
}

/// `A + shift I`: damping.
#[derive(Debug, Clone, Copy)]
pub struct Shifted<A> {
    /// A.
    pub operator: A,
    /// What is added on the diagonal.
    pub shift: f64,
}

impl<T: Real, A: LinearOperator<T>> LinearOperator<T> for Shifted<A> {
    fn dim(&self) -> usize {
        self.operator.dim()
    }

    fn apply(&self, x: &[T], y: &mut [T]) -> Result<()> {
        self.operator.apply(x, y)?;
        crate::vector::add_scaled(y, self.shift, x);
        Ok(())
    }
}

/// The empirical Fisher matrix `1/m Σ_i g_i g_iᵀ` of the rows of `gradients (m, d)`.
#[derive(Debug, Clone, Copy)]
pub struct EmpiricalFisher<'a, T> {
    gradients: ArrayView2<'a, T>,
}

impl<'a, T: Real> EmpiricalFisher<'a, T> {
    /// The Fisher matrix of `gradients (m, d)`, whose rows must be contiguous.
    ///
    /// # Errors
    /// No row or no column, or rows with gaps.
    pub fn new(gradients: ArrayView2<'a, T>) -> Result<Self> {
        crate::mfac::check_rows(gradients)?;
        Ok(Self { gradients })
    }
}

impl<T: Real> LinearOperator for EmpiricalFisher<'_, T> {
    fn dim(&self) -> usize {
        self.gradients.ncols()
    }

    fn apply(&self, x: &[f64], y: &mut [f64]) -> Result<()> {
        let mut c = wide::times(self.gradients, x);
        c.iter_mut().for_each(|c| *c /= self.gradients.nrows() as f64);
        y.fill(0.0);
        wide::add_transposed_times(y, self.gradients, &c);
        Ok(())
    }
}

/// `A x` in a new vector, with the check that it is finite.
pub(crate) fn product<T: Real>(operator: &impl LinearOperator<T>, x: &[T]) -> Result<Vec<T>> {
    let mut y = vec![T::default(); x.len()];
    operator.apply(x, &mut y)?;
    match y.iter().position(|y| !y.to_f64().is_finite()) {
        Some(i) => Err(Error::Numerical(format!("the operator's product is {} at element {i}", y[i].to_f64()))),
        None => Ok(y),
    }
}

/// That a vector called `name` has the length `dim`.
pub(crate) fn check_length(name: &str, length: usize, dim: usize) -> Result<()> {
    if length == dim {
        Ok(())
    } else {
        Err(Error::input(name, format!("has {length} elements, but the operator works on {dim}")))
    }
}
