//! Explicit Runge–Kutta methods on given times.

use super::Field;
use crate::check;
use ndarray::Array2;
use offprint_core::{Error, Result};

/// A method of fixed steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Euler, order 1.
    Euler,
    /// Heun (the mean of both ends' slopes), order 2.
    Heun,
    /// The classical one of order 4.
    RungeKutta4,
}

/// Takes `x` (n, d) along `field` over the `times`, in either direction.
///
/// # Errors
/// A start that does not fit, fewer than two times, a point that stops being finite.
pub fn solve_fixed(field: &dyn Field, x: Array2<f64>, times: &[f64], rule: Rule) -> Result<Array2<f64>> {
    check::rows("start", x.view())?;
    check::dimension("start", x.view(), "the field", field.dim())?;
    if times.len() < 2 || times.iter().any(|t| !t.is_finite()) {
        return Err(Error::parameter("times", format!("{} of them", times.len()), "at least 2 finite numbers"));
    }
    let mut x = x;
    for pair in times.windows(2) {
        let (t, h) = (pair[0], pair[1] - pair[0]);
        let moved = |slope: &Array2<f64>, h: f64| {
            let mut moved = x.clone();
            moved.scaled_add(h, slope);
            moved
        };
        let k1 = field.velocity(x.view(), t)?;
        x = match rule {
            Rule::Euler => moved(&k1, h),
            Rule::Heun => {
                let k2 = field.velocity(moved(&k1, h).view(), t + h)?;
                moved(&(k1 + k2), 0.5 * h)
            }
            Rule::RungeKutta4 => {
                let k2 = field.velocity(moved(&k1, 0.5 * h).view(), t + 0.5 * h)?;
                let k3 = field.velocity(moved(&k2, 0.5 * h).view(), t + 0.5 * h)?;
                let k4 = field.velocity(moved(&k3, h).view(), pair[1])?;
                moved(&(k1 + (k2 + k3) * 2.0 + k4), h / 6.0)
            }
        };
        if let Some(row) = check::first_bad_row(x.view()) {
            return Err(Error::Numerical(format!(
                "the flow left the finite numbers at t = {}, at point {row}",
                pair[1]
            )));
        }
    }
    Ok(x)
}
