//! What all inverses of damped curvature matrices have in common.

use offprint_core::Result;

/// The inverse of a positive definite curvature matrix, in a form that is applied without ever being written out.
pub trait Inverse {
    /// The length of the vectors, n.
    fn dim(&self) -> usize;

    /// A⁻¹ x, `(n,)`.
    ///
    /// # Errors
    /// An `x` of another length than [`Self::dim`].
    fn apply_inverse(&self, x: &[f64]) -> Result<Vec<f64>>;

    /// The diagonal of A⁻¹, `(n,)`.
    ///
    /// # Errors
    /// An element that rounding has made zero or negative.
    fn diag_inverse(&self) -> Result<Vec<f64>>;
}
