//! Densities of the models: along the flow by its divergence, and of a diffusion as a mean over backward paths.

use super::{Epsilon, Fields, Flow};
use crate::likelihood::{Divergence, log_density_along};
use crate::ode::Tolerance;
use crate::{Noise, check};
use ndarray::{Array1, Array2, ArrayView2};
use offprint_core::random::Stream;
use offprint_core::{Error, Progress, Result};
use offprint_math::vector;

/// log ρ̂(1, x) (n) of the flow: log ρ₀(X₀) − ∫ div b dt along dX = b dt, run from X = x at the later time of `span` back
/// to the earlier, where `start` gives log ρ₀ (n). Also the calls of the field.
///
/// # Errors
/// Those of the fields and of the integration.
pub fn log_density_of_flow(
    fields: &dyn Fields,
    x: ArrayView2<'_, f64>,
    (from, to): (f64, f64),
    start: impl Fn(ArrayView2<'_, f64>) -> Result<Array1<f64>>,
    how: (Divergence, Tolerance),
    progress: &Progress,
) -> Result<(Array1<f64>, u64)> {
    log_density_along(&Flow(fields), x, (to, from), start, how, progress)
}

/// A density estimated from random paths.
#[derive(Debug, Clone)]
pub struct Estimated {
    /// log of the mean (n).
    pub log_density: Array1<f64>,
    /// Standard error of that logarithm (n).
    pub error: Array1<f64>,
}

/// log ρ̂(1, x) (n) of the diffusion dX = (b + ε s) dt + √(2ε) dW, by the formula of Feynman and Kac (reconstructed):
/// ρ̂(1, x) = E\[exp(−∫ div(b + ε s)(Y_t, t) dt) ρ₀(Y₀)\] over the paths of dY = (b + ε s) dt + √(2ε) dW that leave
/// Y₁ = x and run back in time. `paths` of them a point, `steps` Euler–Maruyama steps each; the error falls as
/// 1/√paths.
///
/// # Errors
/// Fields without divergences in closed form, ε below 0, no steps or paths, points that do not fit.
pub fn log_density_of_diffusion(
    fields: &dyn Fields,
    x: ArrayView2<'_, f64>,
    epsilon: &Epsilon,
    (steps, paths): (usize, usize),
    start: impl Fn(ArrayView2<'_, f64>) -> Result<Array1<f64>>,
    (stream, progress): (Stream, &Progress),
) -> Result<Estimated> {
    epsilon.check()?;
    check::rows("points", x)?;
    check::dimension("points", x, "the fields", fields.dim())?;
    if steps == 0 || paths < 2 {
        let given = format!("{steps} steps and {paths} paths");
        return Err(Error::parameter("steps and paths", given, "at least 1 step and 2 paths"));
    }
    let (n, d) = x.dim();
    // Row i of the table is path i mod `paths` of point i div `paths`.
    let mut y = Array2::from_shape_fn((n * paths, d), |(i, j)| x[[i / paths, j]]);
    let mut log_weight = Array1::<f64>::zeros(n * paths);
    let noise = Noise::new(stream);
    let h = 1.0 / steps as f64;
    for step in 0..steps {
        // The midpoint in time: coefficients are read there, at the place where the step begins.
        let t = 1.0 - (step as f64 + 0.5) * h;
        let value = epsilon.at(t);
        let Some((velocity, score)) = fields.divergences(y.view(), t)? else {
            return Err(Error::parameter(
                "fields",
                "learnt ones",
                "of closed-form divergence for the density of a diffusion",
            ));
        };
        log_weight.scaled_add(-h, &velocity);
        log_weight.scaled_add(-h * value, &score);
        let drift = fields.drift(y.view(), t, value)?;
        y.scaled_add(-h, &drift);
        noise.add(step, (2.0 * value * h).sqrt(), &mut y);
        progress.check()?;
    }
    log_weight += &start(y.view())?;
    let (mut log_density, mut error) = (Array1::zeros(n), Array1::zeros(n));
    for (i, logs) in log_weight.as_slice().expect("own vectors are contiguous").chunks_exact(paths).enumerate() {
        let total = vector::log_sum_exp(logs);
        log_density[i] = total - (paths as f64).ln();
        // Relative variance of the weights, whose mean is exp(total)/paths.
        let square: f64 = logs.iter().map(|l| (2.0 * (l - total)).exp()).sum::<f64>() * paths as f64;
        error[i] = ((square - 1.0).max(0.0) / (paths as f64 - 1.0)).sqrt();
    }
    Ok(Estimated { log_density, error })
}
