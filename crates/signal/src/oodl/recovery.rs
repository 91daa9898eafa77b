//! How near a learned dictionary is to the true one, given that atoms may come in any order and with any sign.

use ndarray::{Array2, ArrayView2, Axis};
use offprint_core::random::Rng;
use offprint_core::{Error, Result};
use offprint_math::{assignment, linalg};
use rand::RngExt;
use rand_distr::StandardNormal;

/// An orthogonal matrix (n, n) drawn evenly from the orthogonal group: the polar factor of a Gaussian matrix.
pub fn random_orthogonal(n: usize, rng: &mut Rng) -> Result<Array2<f64>> {
    let gaussian = Array2::from_shape_simple_fn((n, n), || rng.sample(StandardNormal));
    linalg::polar(gaussian.view())
}

/// 1 − ‖DᵀD*‖₄⁴ / N: 0 if the atoms (columns) of `learned` are those of `truth` in some order and with some signs,
/// about 1 − 3/(N+2) for a random one. Both (N, N); `learned` is projected to the orthogonal group first.
///
/// # Errors
/// Shapes that differ, entries that are not finite.
pub fn recovery_error(learned: ArrayView2<'_, f64>, truth: ArrayView2<'_, f64>) -> Result<f64> {
    check_shapes(learned, truth)?;
    let overlap = linalg::matmul(linalg::polar(learned)?.t(), truth);
    Ok(1.0 - overlap.iter().map(|x| x.powi(4)).sum::<f64>() / truth.nrows() as f64)
}

/// The atoms of `learned` (N, K) in the order and with the signs in which they fit those of `truth` (N, K) best:
/// the assignment of largest total |⟨dᵢ, d*ⱼ⟩|.
///
/// # Errors
/// Shapes that differ.
pub fn aligned(learned: ArrayView2<'_, f64>, truth: ArrayView2<'_, f64>) -> Result<Array2<f64>> {
    check_shapes(learned, truth)?;
    let overlap = linalg::matmul(truth.t(), learned);
    let order = assignment::minimize(overlap.mapv(|x| -x.abs()).view());
    let mut atoms = learned.select(Axis(1), &order);
    for ((place, &from), mut atom) in order.iter().enumerate().zip(atoms.columns_mut()) {
        if overlap[[place, from]] < 0.0 {
            atom.mapv_inplace(|x| -x);
        }
    }
    Ok(atoms)
}

fn check_shapes(learned: ArrayView2<'_, f64>, truth: ArrayView2<'_, f64>) -> Result<()> {
    if learned.dim() != truth.dim() || learned.is_empty() {
        let (a, b) = (learned.shape(), truth.shape());
        return Err(Error::input("dictionary", format!("has shape {a:?}, but the true one has {b:?}")));
    }
    Ok(())
}
