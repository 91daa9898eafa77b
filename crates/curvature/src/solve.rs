//! A⁻¹ b from products alone: conjugate gradients, and LiSSA's stochastic Neumann series.

use crate::operator::{check_length, product};
use crate::vector::{add_scaled, dot, norm};
use crate::{LinearOperator, Real};
use offprint_core::{Error, Progress, Result};

/// An approximate solution of A x = b.
#[derive(Debug, Clone, PartialEq)]
pub struct Solution<T = f64> {
    /// x.
    pub x: Vec<T>,
    /// ‖A x − b‖ / ‖b‖ as the recurrence tracks it.
    pub residual: f64,
    /// Products spent.
    pub products: usize,
}

/// Conjugate gradients on a positive definite `operator`, until the relative residual falls to `tolerance` or `limit`
/// products are spent. The error falls at least like ((√κ − 1)/(√κ + 1))ᵏ in the norm of A.
///
/// # Errors
/// A `b` of another length; a direction of curvature that is not positive; products that fail; a stop by `progress`.
pub fn conjugate_gradients<T: Real>(
    operator: &impl LinearOperator<T>,
    b: &[T],
    tolerance: f64,
    limit: usize,
    progress: &Progress,
) -> Result<Solution<T>> {
    check_length("b", b.len(), operator.dim())?;
    let mut x = vec![T::default(); b.len()];
    let mut remainder = b.to_vec();
    let mut direction = b.to_vec();
    let mut squared = dot(b, b);
    let target = tolerance * tolerance * squared;
    let whole = squared;
    let mut products = 0;
    while squared > target && products < limit {
        let image = product(operator, &direction)?;
        products += 1;
        let curvature = dot(&direction, &image);
        if curvature <= 0.0 {
            return Err(Error::Numerical(format!(
                "the operator is not positive definite: a direction has curvature {curvature}; add damping"
            )));
        }
        let step = squared / curvature;
        add_scaled(&mut x, step, &direction);
        add_scaled(&mut remainder, -step, &image);
        let before = squared;
        squared = dot(&remainder, &remainder);
        let beta = squared / before;
        direction.iter_mut().zip(&remainder).for_each(|(p, r)| *p = T::from_f64(r.to_f64() + beta * p.to_f64()));
        progress.check()?;
    }
    let residual = if whole > 0.0 { (squared / whole).sqrt() } else { 0.0 };
    Ok(Solution { x, residual, products })
}

/// LiSSA (Agarwal, Bullins, Hazan 2017): (A + damping I)⁻¹ b by the recurrence
/// r ← b + (I − scale (Ã + damping I)) r, with a fresh unbiased Ã in every step; the answer is scale · r.
///
/// `sampled(step, x, y)` sets y = Ã x for the batch of that step. `scale` must keep scale (Ã + damping I) below 1.
///
/// # Errors
/// A `scale` that is not positive; a recurrence that grows without bound, which names `scale`; products that fail.
pub fn lissa<T: Real>(
    mut sampled: impl FnMut(usize, &[T], &mut [T]) -> Result<()>,
    b: &[T],
    damping: f64,
    scale: f64,
    steps: usize,
    progress: &Progress,
) -> Result<Vec<T>> {
    if !(scale > 0.0 && scale.is_finite()) {
        return Err(Error::parameter("scale", scale, "above 0"));
    }
    let mut r = b.to_vec();
    let mut image = vec![T::default(); b.len()];
    // Below its bound the series never exceeds ‖b‖ / (scale · damping), nor steps · ‖b‖.
    let bound = 10.0 * norm(b) * (steps as f64 + 1.0);
    for step in 0..steps {
        sampled(step, &r, &mut image)?;
        for ((r, image), b) in r.iter_mut().zip(&image).zip(b) {
            *r = T::from_f64(b.to_f64() + (1.0 - scale * damping) * r.to_f64() - scale * image.to_f64());
        }
        let length = norm(&r);
        if length > bound || !length.is_finite() {
            let allowed = "small enough that scale · (A + damping I) stays below 1";
            return Err(Error::parameter("scale", scale, allowed));
        }
        progress.check()?;
    }
    crate::vector::scale(&mut r, scale);
    Ok(r)
}
