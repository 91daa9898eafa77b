//! The Feynman-Kac equation itself, by finite differences: what makes drifts, noise and weights fit together.

use super::{Leg, Target};
use ndarray::{Array1, Axis};
use offprint_core::{Error, Result};

/// Fraction of the steps that is done where the residual is taken, and how fast it grows with the removed variance.
const DONE: f64 = 0.4;
const PACE: f64 = 0.1;

/// How far a target is from d log p̃/du = −div v − v·∇ log p̃ + ζ/2 (Δ log p̃ + |∇ log p̃|²) + g at the point `y` (d) and
/// noise level `tau`, with u = −τ². v and g are those of its [`Flow`](super::Flow); log p̃ and every derivative come from
/// its log-density alone, by central differences of fourth order. Zero but for their error, about 10⁻⁸, for every ζ; a
/// drift with the noise of another variant shows at once. The variance is taken in units of τ ≥ ½.
///
/// # Errors
/// A target without density.
pub fn residual(target: &dyn Target, y: &Array1<f64>, tau: f64, zeta: f64) -> Result<f64> {
    let h = 2e-3;
    let row = |y: &Array1<f64>| y.clone().insert_axis(Axis(0));
    let log = |y: &Array1<f64>, tau: f64, done: f64| -> Result<f64> {
        let density = target.log_density(row(y).view(), tau, done)?;
        density.map(|log| log[0]).ok_or_else(|| Error::parameter("target", "a score", "one of known density"))
    };
    let flow = |y: &Array1<f64>, done: f64, next: f64| target.flow(row(y).view(), Leg { tau, from: done, to: next });
    let moved = |j: usize, by: f64| {
        let mut y = y.clone();
        y[j] += by;
        y
    };
    let in_time = slope(h, |du| log(y, (tau * tau - du).sqrt(), DONE + PACE * du))?;
    let here = flow(y, DONE, DONE)?;
    let drift = here.drift_with(zeta);
    // The schedule's part of g: its change from one side of this place to the other.
    let around = flow(y, DONE - PACE * h, DONE + PACE * h)?;
    let rate = here.rate[0] + around.change.map_or(0.0, |c| c[0] / (2.0 * h));
    let mut balance = in_time - rate;
    for j in 0..y.len() {
        let first = slope(h, |by| log(&moved(j, by), tau, DONE))?;
        let second = curvature(1e-2, |by| log(&moved(j, by), tau, DONE))?;
        let divergence = slope(h, |by| Ok(flow(&moved(j, by), DONE, DONE)?.drift_with(zeta)[[0, j]]))?;
        balance += divergence + drift[[0, j]] * first - 0.5 * zeta * (second + first * first);
    }
    Ok(balance)
}

/// f'(0).
fn slope(h: f64, f: impl Fn(f64) -> Result<f64>) -> Result<f64> {
    Ok((8.0 * (f(h)? - f(-h)?) - (f(2.0 * h)? - f(-2.0 * h)?)) / (12.0 * h))
}

/// f''(0).
fn curvature(h: f64, f: impl Fn(f64) -> Result<f64>) -> Result<f64> {
    Ok((16.0 * (f(h)? + f(-h)?) - (f(2.0 * h)? + f(-2.0 * h)?) - 30.0 * f(0.0)?) / (12.0 * h * h))
}
