//! Hutchinson's estimators of trace and diagonal: E[z ∘ A z] over random signs z.

use crate::operator::product;
use crate::quadrature::Estimate;
use crate::vector::{dot, rademacher};
use crate::{LinearOperator, Real};
use offprint_core::random::Stream;
use offprint_core::{Error, Progress, Result};

/// The trace from `probes` sign vectors: the mean of ⟨z, A z⟩. Its variance is 2 Σ_{i≠j} A_ij² / probes.
///
/// # Errors
/// No probe; products that fail or are not finite; a stop by `progress`.
pub fn trace<T: Real>(
    operator: &impl LinearOperator<T>,
    probes: usize,
    stream: Stream,
    progress: &Progress,
) -> Result<Estimate> {
    trace_until(operator, 0.0, probes, stream, progress).map(|(estimate, _)| estimate)
}

/// [`trace`] from as many probes as it takes for one more to move the mean by less than the share `change` of itself, but
/// at most `limit`; also how many that were. (PyHessian and HAWQ-V2 stop so; it is no bound on the error.)
///
/// # Errors
/// As there.
pub fn trace_until<T: Real>(
    operator: &impl LinearOperator<T>,
    change: f64,
    limit: usize,
    stream: Stream,
    progress: &Progress,
) -> Result<(Estimate, usize)> {
    check_probes(limit)?;
    let (mut values, mut sum) = (Vec::with_capacity(limit), 0.0);
    for probe in 0..limit {
        let z: Vec<T> = rademacher(stream, probe as u64, operator.dim());
        let (value, before) = (dot(&z, &product(operator, &z)?), sum / probe as f64);
        values.push(value);
        sum += value;
        progress.check()?;
        // Before the first probe the mean is not a number, which nothing is close to.
        if (sum / values.len() as f64 - before).abs() < change * before.abs() {
            break;
        }
    }
    Ok((Estimate::of(&values), values.len()))
}

/// The diagonal from `probes` sign vectors: the mean of z ∘ A z, `(n,)`. The variance of element i is
/// Σ_{j≠i} A_ij² / probes.
///
/// # Errors
/// As for [`trace`].
pub fn diagonal<T: Real>(
    operator: &impl LinearOperator<T>,
    probes: usize,
    stream: Stream,
    progress: &Progress,
) -> Result<Vec<f64>> {
    check_probes(probes)?;
    let mut diagonal = vec![0.0; operator.dim()];
    for probe in 0..probes {
        let z: Vec<T> = rademacher(stream, probe as u64, operator.dim());
        let image = product(operator, &z)?;
        diagonal.iter_mut().zip(z.iter().zip(&image)).for_each(|(d, (z, a))| *d += z.to_f64() * a.to_f64());
        progress.check()?;
    }
    diagonal.iter_mut().for_each(|d| *d /= probes as f64);
    Ok(diagonal)
}

fn check_probes(probes: usize) -> Result<()> {
    if probes == 0 { Err(Error::parameter("probes", probes, "at least 1")) } else { Ok(()) }
}
