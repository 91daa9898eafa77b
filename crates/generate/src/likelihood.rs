//! Densities along a flow: log p(x) = log p_end(x_end) + ∫ div u dt on the way to the end.

use crate::denoiser::needs_gaussian;
use crate::ode::{Field, LevelFlow, Tolerance, integrate};
use crate::{Denoiser, check};
use ndarray::{Array1, Array2, ArrayView2, Axis, s};
use offprint_core::random::Stream;
use offprint_core::{Error, Progress, Result};
use rand::RngExt;

/// How the divergence of a field is found, where it has no closed form.
#[derive(Debug, Clone, Copy)]
pub enum Divergence {
    /// d products with the Jacobian: exact, for up to 64 dimensions or so.
    Exact,
    /// Hutchinson's estimate with `probes` vectors of ±1, the same all along the flow: without bias, for many dimensions.
    Hutchinson {
        /// Products with the Jacobian.
        probes: usize,
        /// Where the vectors come from.
        stream: Stream,
    },
}

impl Divergence {
    /// The vectors (n, d) that products are taken with, and the factor of their sum.
    fn probes(self, (n, d): (usize, usize)) -> Result<(Vec<Array2<f64>>, f64)> {
        match self {
            Self::Exact => {
                let unit = |j: usize| Array2::from_shape_fn((n, d), |(_, i)| f64::from(u8::from(i == j)));
                Ok(((0..d).map(unit).collect(), 1.0))
            }
            Self::Hutchinson { probes: 0, .. } => Err(Error::parameter("probes", 0, "at least 1")),
            Self::Hutchinson { probes, stream } => {
                let signs = |p: usize| {
                    let mut rng = stream.rng(p as u64);
                    Array2::from_shape_simple_fn((n, d), || if rng.random::<bool>() { 1.0 } else { -1.0 })
                };
                Ok(((0..probes).map(signs).collect(), 1.0 / probes as f64))
            }
        }
    }
}

/// log p (n) of the points `x` (n, d) at time `from`, where points that have flowed to time `to` have the log-density
/// `end` (n). Also the calls of the field.
///
/// # Errors
/// Those of the field and of the integration.
pub fn log_density_along(
    field: &dyn Field,
    x: ArrayView2<'_, f64>,
    (from, to): (f64, f64),
    end: impl Fn(ArrayView2<'_, f64>) -> Result<Array1<f64>>,
    (divergence, tolerance): (Divergence, Tolerance),
    progress: &Progress,
) -> Result<(Array1<f64>, u64)> {
    check::dimension("points", x, "the field", field.dim())?;
    let (n, d) = x.dim();
    let (probes, share) = divergence.probes((n, d))?;
    // The integral of the divergence rides along as one more column.
    let mut state = Array2::zeros((n, d + 1));
    state.slice_mut(s![.., ..d]).assign(&x);
    let slope = |state: ArrayView2<'_, f64>, t: f64| {
        let x = state.slice(s![.., ..d]);
        let total = match field.divergence(x, t)? {
            Some(exact) => exact,
            None => {
                let mut total = Array1::zeros(n);
                for v in &probes {
                    total += &(field.jacobian_product(x, t, v.view())? * v).sum_axis(Axis(1));
                }
                total * share
            }
        };
        let mut slope = Array2::zeros((n, d + 1));
        slope.slice_mut(s![.., ..d]).assign(&field.velocity(x, t)?);
        slope.column_mut(d).assign(&total);
        Ok(slope)
    };
    let (state, evaluations) = integrate(slope, state, (from, to), tolerance, progress)?;
    Ok((end(state.slice(s![.., ..d]))? + state.column(d), evaluations))
}

/// log q_τ(y) (n) of a denoiser's law at the points `y` (n, d) and noise level `lowest`, along its probability flow up to
/// `highest`, where the law is taken for N(0, highest²): the error of that falls as `highest` grows.
///
/// # Errors
/// Levels out of order, noise that is not Gaussian, those of the integration.
pub fn log_density(
    model: &dyn Denoiser,
    y: ArrayView2<'_, f64>,
    (lowest, highest): (f64, f64),
    how: (Divergence, Tolerance),
    progress: &Progress,
) -> Result<Array1<f64>> {
    needs_gaussian("the likelihood", model.kernel())?;
    check::positive("lowest noise", lowest)?;
    if !(lowest < highest && highest.is_finite()) {
        return Err(Error::parameter("highest noise", highest, format!("above the lowest, {lowest}")));
    }
    let d = model.dim() as f64;
    let constant = -0.5 * d * (2.0 * std::f64::consts::PI * highest * highest).ln();
    let prior =
        |y: ArrayView2<'_, f64>| Ok(y.outer_iter().map(|y| constant - 0.5 * y.dot(&y) / (highest * highest)).collect());
    let (log, _) = log_density_along(&LevelFlow(model), y, (lowest.ln(), highest.ln()), prior, how, progress)?;
    Ok(log)
}
