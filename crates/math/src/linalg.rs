//! Dense linear algebra on `ndarray` views, done by `faer` over the same memory.
//!
//! Matrices are (rows, columns). Costs are for n × n; memory is the result plus faer's workspace of the same order.

use faer::linalg::matmul::matmul as faer_matmul;
use faer::prelude::Solve;
use faer::traits::ComplexField;
use faer::{Accum, MatMut, MatRef, Par, Side};
use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2};
use offprint_core::{Error, Result};

/// Below this many multiplications a product is faster on one thread than split over several.
const WORTH_THREADS: usize = 1 << 21;

/// The memory of an `ndarray` view as a `faer` view.
pub fn as_faer<'a, T>(a: ArrayView2<'a, T>) -> MatRef<'a, T> {
    let (rows, columns) = a.dim();
    let (row_stride, column_stride) = (a.strides()[0], a.strides()[1]);
    // SAFETY: shape and strides (in elements) are those of a live ndarray view of lifetime 'a, so every element they
    // reach is initialised and stays borrowed for 'a.
    unsafe { MatRef::from_raw_parts(a.as_ptr(), rows, columns, row_stride, column_stride) }
}

/// The memory of a mutable `ndarray` view as a mutable `faer` view.
pub fn as_faer_mut<'a, T>(mut a: ArrayViewMut2<'a, T>) -> MatMut<'a, T> {
    let (rows, columns) = a.dim();
    let (row_stride, column_stride) = (a.strides()[0], a.strides()[1]);
    // SAFETY: as for `as_faer`; the view is the only one on this memory and is consumed here.
    unsafe { MatMut::from_raw_parts_mut(a.as_mut_ptr(), rows, columns, row_stride, column_stride) }
}

/// A `faer` matrix copied into an `ndarray`.
pub fn from_faer<T: Clone>(a: MatRef<'_, T>) -> Array2<T> {
    Array2::from_shape_fn((a.nrows(), a.ncols()), |(i, j)| a[(i, j)].clone())
}

/// The product `a b`. 2 rows·inner·columns flop.
///
/// # Panics
/// If the inner lengths differ.
pub fn matmul<T: ComplexField + Copy>(a: ArrayView2<'_, T>, b: ArrayView2<'_, T>) -> Array2<T> {
    let mut product = Array2::from_elem((a.nrows(), b.ncols()), T::zero_impl());
    gemm(T::one_impl(), a, b, false, product.view_mut());
    product
}

/// `c = alpha a b`, or `c += alpha a b` if `add`, without allocating.
///
/// # Panics
/// If the shapes do not fit.
pub fn gemm<T: ComplexField + Copy>(
    alpha: T,
    a: ArrayView2<'_, T>,
    b: ArrayView2<'_, T>,
    add: bool,
    c: ArrayViewMut2<'_, T>,
) {
    assert_eq!(a.ncols(), b.nrows(), "inner lengths of a product");
    assert_eq!(c.dim(), (a.nrows(), b.ncols()), "shape of a product");
    let work = a.nrows() * a.ncols() * b.ncols();
    let accumulate = if add { Accum::Add } else { Accum::Replace };
    let threads = if work >= WORTH_THREADS { Par::rayon(0) } else { Par::Seq };
    faer_matmul(as_faer_mut(c), accumulate, as_faer(a), as_faer(b), alpha, threads);
}

/// Eigenvalues in ascending order and eigenvectors (columns) of a symmetric matrix; its lower triangle is read. O(n³).
pub fn eigh(a: ArrayView2<'_, f64>) -> Result<(Array1<f64>, Array2<f64>)> {
    let e = as_faer(a).self_adjoint_eigen(Side::Lower).map_err(|_| no_convergence("symmetric eigenvalues", a))?;
    let values: Array1<f64> = (0..a.nrows()).map(|i| e.S()[i]).collect();
    // faer carries NaN through without a word.
    if values.iter().any(|x| !x.is_finite()) {
        return Err(no_convergence("symmetric eigenvalues", a));
    }
    Ok((values, from_faer(e.U())))
}

/// Thin singular value decomposition `a = u diag(s) vᵀ`: `u` (m, r), `s` descending (r), `v` (n, r), r = min(m, n).
/// O(m n r).
pub fn svd(a: ArrayView2<'_, f64>) -> Result<(Array2<f64>, Array1<f64>, Array2<f64>)> {
    let svd = as_faer(a).thin_svd().map_err(|_| no_convergence("singular values", a))?;
    let s: Array1<f64> = (0..a.nrows().min(a.ncols())).map(|i| svd.S()[i]).collect();
    if s.iter().any(|x| !x.is_finite()) {
        return Err(no_convergence("singular values", a));
    }
    Ok((from_faer(svd.U()), s, from_faer(svd.V())))
}

/// The orthogonal polar factor `u vᵀ` of a square matrix: the orthogonal matrix nearest to it. O(n³).
///
/// Unique if the matrix has full rank; otherwise one of the nearest.
pub fn polar(a: ArrayView2<'_, f64>) -> Result<Array2<f64>> {
    let (u, _, v) = svd(a)?;
    Ok(matmul(u.view(), v.t()))
}

/// The lower Cholesky factor of a symmetric positive definite matrix; its lower triangle is read. O(n³).
pub fn cholesky(a: ArrayView2<'_, f64>) -> Result<Array2<f64>> {
    let llt =
        as_faer(a).llt(Side::Lower).map_err(|_| Error::Numerical("the matrix is not positive definite".into()))?;
    Ok(from_faer(llt.L()))
}

/// The solution of `a x = b` for a general square matrix, by LU with partial pivoting. O(n³).
pub fn solve(a: ArrayView2<'_, f64>, b: ArrayView2<'_, f64>) -> Result<Array2<f64>> {
    let x = from_faer(as_faer(a).partial_piv_lu().solve(as_faer(b)).as_ref());
    if x.iter().all(|v| v.is_finite()) { Ok(x) } else { Err(Error::Numerical("the matrix is singular".into())) }
}

/// The inverse of a square matrix. O(n³).
pub fn inverse(a: ArrayView2<'_, f64>) -> Result<Array2<f64>> {
    solve(a, Array2::eye(a.nrows()).view())
}

/// `f` applied to the eigenvalues of a symmetric matrix: `u diag(f(λ)) uᵀ`. O(n³).
pub fn map_spectrum(a: ArrayView2<'_, f64>, f: impl Fn(f64) -> f64) -> Result<Array2<f64>> {
    let (values, vectors) = eigh(a)?;
    let scaled = &vectors * &values.mapv(f);
    Ok(matmul(scaled.view(), vectors.t()))
}

/// The positive semi-definite square root of such a matrix; eigenvalues below zero by rounding count as zero. O(n³).
pub fn sqrt_psd(a: ArrayView2<'_, f64>) -> Result<Array2<f64>> {
    map_spectrum(a, |x| x.max(0.0).sqrt())
}

fn no_convergence(what: &str, a: ArrayView2<'_, f64>) -> Error {
    let (m, n) = a.dim();
    let cause = if a.iter().all(|x| x.is_finite()) { "" } else { ": it has entries that are not finite" };
    Error::Numerical(format!("the {what} of a {m} × {n} matrix did not converge{cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{array, s};

    fn close(a: &Array2<f64>, b: &Array2<f64>) -> bool {
        a.dim() == b.dim() && a.iter().zip(b).all(|(x, y)| (x - y).abs() < 1e-12)
    }

    #[test]
    fn products_follow_strides() {
        let a = array![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]];
        let every_second = a.slice(s![.., ..;2]);
        assert!(close(&matmul(every_second, a.slice(s![.., 1..])), &every_second.dot(&a.slice(s![.., 1..]))));
        assert!(close(&matmul(a.view(), a.t()), &array![[14.0, 32.0], [32.0, 77.0]]));
    }

    #[test]
    fn decompositions_multiply_back() {
        let a = array![[4.0, 1.0, 0.5], [1.0, 3.0, -0.2], [0.5, -0.2, 2.0]];
        let (values, vectors) = eigh(a.view()).unwrap();
        assert!(values.windows(2).into_iter().all(|w| w[0] <= w[1]));
        assert!(close(&matmul((&vectors * &values).view(), vectors.t()), &a));
        let l = cholesky(a.view()).unwrap();
        assert!(close(&matmul(l.view(), l.t()), &a));
        let root = sqrt_psd(a.view()).unwrap();
        assert!(close(&matmul(root.view(), root.view()), &a));
        let b = array![[1.0, 2.0], [0.0, 1.0], [3.0, -1.0], [2.0, 2.0]];
        let (u, s, v) = svd(b.view()).unwrap();
        assert!(close(&matmul((&u * &s).view(), v.t()), &b));
        assert!(close(&matmul(inverse(a.view()).unwrap().view(), a.view()), &Array2::eye(3)));
    }

    #[test]
    fn the_polar_factor_of_a_scaled_rotation_is_the_rotation() {
        let (sin, cos) = 0.3f64.sin_cos();
        let rotation = array![[cos, -sin], [sin, cos]];
        assert!(close(&polar((&rotation * 5.0).view()).unwrap(), &rotation));
    }

    #[test]
    fn singular_and_indefinite_matrices_are_errors() {
        assert!(solve(array![[1.0, 2.0], [2.0, 4.0]].view(), array![[1.0], [0.0]].view()).is_err());
        assert!(cholesky(array![[1.0, 2.0], [2.0, 1.0]].view()).is_err());
        assert!(eigh(array![[f64::NAN, 0.0], [0.0, 1.0]].view()).is_err());
    }
}
