//! Power iteration: the eigenvalue of largest magnitude, from products alone.

use crate::operator::product;
use crate::vector::{add_scaled, dot, gaussian, norm, scale};
use crate::{LinearOperator, Real};
use offprint_core::random::Stream;
use offprint_core::{Error, Result};

/// An approximate eigenvalue with its eigenvector.
#[derive(Debug, Clone, PartialEq)]
pub struct Eigenpair<T = f64> {
    /// The Rayleigh quotient ⟨v, A v⟩.
    pub value: f64,
    /// The unit vector v.
    pub vector: Vec<T>,
    /// ‖A v − value v‖: some eigenvalue of A lies this close to `value`.
    pub residual: f64,
    /// Products spent.
    pub products: usize,
}

/// The eigenvalue of largest magnitude of `operator`, from a random start, until the residual falls to
/// `tolerance · |value|` or `limit` products are spent. Converges like (|λ₂|/|λ₁|)ᵏ; for a spectrum whose ends are
/// about equally far from zero [`crate::lanczos`] needs far fewer products.
///
/// # Errors
/// `limit` = 0; products that fail or are not finite.
pub fn power_iteration<T: Real>(
    operator: &impl LinearOperator<T>,
    tolerance: f64,
    limit: usize,
    stream: Stream,
) -> Result<Eigenpair<T>> {
    if limit == 0 {
        return Err(Error::parameter("limit", limit, "at least 1"));
    }
    let mut vector: Vec<T> = gaussian(stream, 0, operator.dim());
    let length = norm(&vector);
    scale(&mut vector, 1.0 / length);
    let mut products = 0;
    loop {
        let mut image = product(operator, &vector)?;
        products += 1;
        let value = dot(&vector, &image);
        let length = norm(&image);
        let mut difference = image.clone();
        add_scaled(&mut difference, -value, &vector);
        let residual = norm(&difference);
        if residual <= tolerance * value.abs() || products == limit || length == 0.0 {
            return Ok(Eigenpair { value, vector, residual, products });
        }
        scale(&mut image, 1.0 / length);
        vector = image;
    }
}
