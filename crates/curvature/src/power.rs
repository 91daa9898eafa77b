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

/// When a power iteration has gone far enough.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Until {
    /// The residual is at most this share of |value|: the value is then known to be that close to an eigenvalue.
    Residual(f64),
    /// The value moved by less than this share of itself from one product to the next: cheaper, and no bound. PyHessian
    /// stops so.
    Change(f64),
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
    power_iteration_until(operator, Until::Residual(tolerance), limit, stream)
}

/// [`power_iteration`] with another rule to stop.
///
/// # Errors
/// As there.
pub fn power_iteration_until<T: Real>(
    operator: &impl LinearOperator<T>,
    until: Until,
    limit: usize,
    stream: Stream,
) -> Result<Eigenpair<T>> {
    if limit == 0 {
        return Err(Error::parameter("limit", limit, "at least 1"));
    }
    let mut vector: Vec<T> = gaussian(stream, 0, operator.dim());
    let length = norm(&vector);
    scale(&mut vector, 1.0 / length);
    let (mut products, mut before) = (0, f64::INFINITY);
    loop {
        let mut image = product(operator, &vector)?;
        products += 1;
        let value = dot(&vector, &image);
        let length = norm(&image);
        let mut difference = image.clone();
        add_scaled(&mut difference, -value, &vector);
        let residual = norm(&difference);
        let close = match until {
            Until::Residual(tolerance) => residual <= tolerance * value.abs(),
            Until::Change(tolerance) => (value - before).abs() < tolerance * before.abs(),
        };
        if close || products == limit || length == 0.0 {
            return Ok(Eigenpair { value, vector, residual, products });
        }
        before = value;
        scale(&mut image, 1.0 / length);
        vector = image;
    }
}
