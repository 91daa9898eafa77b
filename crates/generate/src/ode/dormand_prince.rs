//! The pair of orders 5 and 4 of Dormand and Prince (1980), with steps that adapt.

use super::Field;
use crate::check;
use ndarray::{Array2, ArrayView2};
use offprint_core::{Error, Progress, Result};

/// Largest error of a step: `absolute` + `relative` · |x|, in the root mean square over a row, for the worst row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// In units of x.
    pub absolute: f64,
    /// As a share of |x|.
    pub relative: f64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { absolute: 1e-6, relative: 1e-5 }
    }
}

/// Places of the stages within a step.
const PLACES: [f64; 7] = [0.0, 0.2, 0.3, 0.8, 8.0 / 9.0, 1.0, 1.0];

/// Factors of the earlier slopes in each stage; the last row is the step of order 5.
const STAGES: [&[f64]; 7] = [
    &[],
    &[0.2],
    &[3.0 / 40.0, 9.0 / 40.0],
    &[44.0 / 45.0, -56.0 / 15.0, 32.0 / 9.0],
    &[19372.0 / 6561.0, -25360.0 / 2187.0, 64448.0 / 6561.0, -212.0 / 729.0],
    &[9017.0 / 3168.0, -355.0 / 33.0, 46732.0 / 5247.0, 49.0 / 176.0, -5103.0 / 18656.0],
    &[35.0 / 384.0, 0.0, 500.0 / 1113.0, 125.0 / 192.0, -2187.0 / 6784.0, 11.0 / 84.0],
];

/// The step of order 5 less that of order 4.
const ERROR: [f64; 7] =
    [71.0 / 57600.0, 0.0, -71.0 / 16695.0, 71.0 / 1920.0, -17253.0 / 339200.0, 22.0 / 525.0, -1.0 / 40.0];

/// Steps after which the tolerance counts as out of reach.
const MOST_STEPS: usize = 100_000;

/// Takes `x` (n, d) along `field` from time `from` to `to`, in either direction, and gives the calls of the field.
pub fn solve(
    field: &dyn Field,
    x: Array2<f64>,
    (from, to): (f64, f64),
    tolerance: Tolerance,
    progress: &Progress,
) -> Result<(Array2<f64>, u64)> {
    check::dimension("start", x.view(), "the field", field.dim())?;
    integrate(|x, t| field.velocity(x, t), x, (from, to), tolerance, progress)
}

/// Takes `x` (n, k) along dx/dt = `slope`(x, t) from time `from` to `to`. All rows take the same steps.
///
/// # Errors
/// A start or time that is not finite, a tolerance that is not positive or out of reach, errors of the slope.
pub fn integrate(
    mut slope: impl FnMut(ArrayView2<'_, f64>, f64) -> Result<Array2<f64>>,
    x: Array2<f64>,
    (from, to): (f64, f64),
    tolerance: Tolerance,
    progress: &Progress,
) -> Result<(Array2<f64>, u64)> {
    check::rows("start", x.view())?;
    check::positive("absolute tolerance", tolerance.absolute)?;
    check::positive("relative tolerance", tolerance.relative)?;
    if !(from.is_finite() && to.is_finite()) {
        return Err(Error::parameter("times", format!("{from} and {to}"), "finite numbers"));
    }
    let mut x = x;
    if from == to {
        return Ok((x, 0));
    }
    let mut t = from;
    let mut first = slope(x.view(), t)?;
    let mut evaluations = 1;
    let mut h = first_step(&x, &first, tolerance).min((to - from).abs()) * (to - from).signum();
    for _ in 0..MOST_STEPS {
        if (to - t) / h <= 1.0 + 1e-9 {
            h = to - t;
        }
        let mut slopes = vec![first.clone()];
        let mut end = x.clone();
        for (stage, place) in STAGES.iter().zip(PLACES).skip(1) {
            end = x.clone();
            for (factor, slope) in stage.iter().zip(&slopes).filter(|(f, _)| **f != 0.0) {
                end.scaled_add(h * factor, slope);
            }
            slopes.push(slope(end.view(), t + place * h)?);
            evaluations += 1;
        }
        let mut difference = Array2::zeros(x.dim());
        for (factor, slope) in ERROR.iter().zip(&slopes).filter(|(f, _)| **f != 0.0) {
            difference.scaled_add(h * factor, slope);
        }
        let error = worst_row(&difference, &x, &end, tolerance);
        if error <= 1.0 {
            t += h;
            x = end;
            first = slopes.swap_remove(6);
            progress.check()?;
            if h == to - (t - h) || (to - t).abs() <= 1e-14 * (1.0 + to.abs()) {
                return Ok((x, evaluations));
            }
        }
        // Order 5: the error of the next step is that of this one times the fifth power of the factor.
        let factor = if error.is_finite() { (0.9 * error.max(1e-10).powf(-0.2)).clamp(0.2, 5.0) } else { 0.1 };
        h *= factor;
        if h.abs() < 1e-14 * (1.0 + t.abs()) {
            return Err(Error::Numerical(format!(
                "the flow needs ever smaller steps at t = {t}: its field is not smooth there"
            )));
        }
    }
    Err(Error::Numerical(format!("the flow did not arrive within {MOST_STEPS} steps: allow a larger tolerance")))
}

/// A hundredth of the time in which the points move by their own size.
fn first_step(x: &Array2<f64>, slope: &Array2<f64>, tolerance: Tolerance) -> f64 {
    let size = |a: &Array2<f64>| (a.iter().map(|v| v * v).sum::<f64>() / a.len() as f64).sqrt();
    let (place, speed) = (size(x).max(tolerance.absolute), size(slope));
    if speed > 0.0 { 0.01 * place / speed } else { 1e-3 }
}

fn worst_row(difference: &Array2<f64>, x: &Array2<f64>, end: &Array2<f64>, tolerance: Tolerance) -> f64 {
    let mut worst = 0.0f64;
    for ((difference, x), end) in difference.outer_iter().zip(x.outer_iter()).zip(end.outer_iter()) {
        let share = |((d, a), b): ((&f64, &f64), &f64)| {
            (d / (tolerance.absolute + tolerance.relative * a.abs().max(b.abs()))).powi(2)
        };
        let mean = difference.iter().zip(x).zip(end).map(share).sum::<f64>() / x.len() as f64;
        if mean.is_nan() {
            return f64::NAN;
        }
        worst = worst.max(mean.sqrt());
    }
    worst
}
