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
    check_probes(probes)?;
    let mut values = Vec::with_capacity(probes);
    for probe in 0..probes {
        let z: Vec<T> = rademacher(stream, probe as u64, operator.dim());
        values.push(dot(&z, &product(operator, &z)?));
        progress.check()?;
    }
    Ok(Estimate::of(&values))
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
