//! Minima of functions of one variable, without derivatives.

/// A minimum that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Minimum {
    /// Where it is.
    pub at: f64,
    /// The function's value there.
    pub value: f64,
    /// How often the function was asked.
    pub evaluations: usize,
}

/// The minimum of `f` on the interval from `low` to `high`: the lowest of `scan` evenly spaced points, ends included,
/// and then Brent's method (1973) between its neighbours, down to `tolerance` or `refine` more evaluations.
///
/// The scan finds the lowest of several valleys if none is narrower than its spacing; Brent's method then converges
/// superlinearly where `f` is smooth. Values that are not finite count as high.
///
/// # Errors
/// What `f` answers with.
///
/// # Panics
/// If `scan` is below 3, or the interval is empty.
pub fn minimize<E>(
    (low, high): (f64, f64),
    scan: usize,
    refine: usize,
    tolerance: f64,
    mut f: impl FnMut(f64) -> Result<f64, E>,
) -> Result<Minimum, E> {
    assert!(scan >= 3 && low < high, "three points at least, from low to high");
    let mut ask = |x: f64| f(x).map(|value| if value.is_nan() { f64::INFINITY } else { value });
    let spacing = (high - low) / (scan - 1) as f64;
    let (mut best, mut value) = (low, f64::INFINITY);
    for i in 0..scan {
        let x = if i + 1 == scan { high } else { low + spacing * i as f64 };
        let here = ask(x)?;
        if here < value {
            (best, value) = (x, here);
        }
    }
    let bracket = ((best - spacing).max(low), (best + spacing).min(high));
    let mut minimum = brent(bracket, (best, value), refine, tolerance, ask)?;
    minimum.evaluations += scan;
    Ok(minimum)
}

/// Brent's method inside `bracket`, from the point `start` with its value.
fn brent<E>(
    (mut low, mut high): (f64, f64),
    start: (f64, f64),
    most: usize,
    tolerance: f64,
    mut f: impl FnMut(f64) -> Result<f64, E>,
) -> Result<Minimum, E> {
    /// The smaller part of a segment in the golden ratio.
    const GOLDEN: f64 = 0.381_966_011_250_105_2;
    // The three lowest points so far, the lowest first, and the last two steps.
    let [mut lowest, mut second, mut third] = [start; 3];
    let (mut step, mut before): (f64, f64) = (0.0, 0.0);
    let mut evaluations = 0;
    while evaluations < most {
        let middle = 0.5 * (low + high);
        let least = tolerance + f64::EPSILON * lowest.0.abs();
        if (lowest.0 - middle).abs() <= 2.0 * least - 0.5 * (high - low) {
            break;
        }
        // The vertex of the parabola through the three points, as lowest + p/q.
        let r = (lowest.0 - second.0) * (lowest.1 - third.1);
        let s = (lowest.0 - third.0) * (lowest.1 - second.1);
        let p = (lowest.0 - third.0) * s - (lowest.0 - second.0) * r;
        let q = 2.0 * (s - r);
        let (p, q) = if q > 0.0 { (-p, q) } else { (p, -q) };
        // Taken if it falls inside and steps shrink; comparisons with NaN are false and lead to the golden section.
        let inside = p > q * (low - lowest.0) && p < q * (high - lowest.0);
        if before.abs() > least && inside && p.abs() < (0.5 * q * before).abs() {
            before = step;
            step = p / q;
            let x = lowest.0 + step;
            if x - low < 2.0 * least || high - x < 2.0 * least {
                step = least.copysign(middle - lowest.0);
            }
        } else {
            before = if lowest.0 < middle { high - lowest.0 } else { low - lowest.0 };
            step = GOLDEN * before;
        }
        let x = lowest.0 + if step.abs() >= least { step } else { least.copysign(step) };
        let point = (x, f(x)?);
        evaluations += 1;
        if point.1 <= lowest.1 {
            if x < lowest.0 {
                high = lowest.0
            } else {
                low = lowest.0
            }
            (third, second, lowest) = (second, lowest, point);
        } else {
            if x < lowest.0 {
                low = x
            } else {
                high = x
            }
            if point.1 <= second.1 || second.0 == lowest.0 {
                (third, second) = (second, point);
            } else if point.1 <= third.1 || third.0 == lowest.0 || third.0 == second.0 {
                third = point;
            }
        }
    }
    Ok(Minimum { at: lowest.0, value: lowest.1, evaluations })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    fn found(interval: (f64, f64), f: impl Fn(f64) -> f64) -> Minimum {
        minimize(interval, 15, 60, 1e-9, |x| Ok::<_, Infallible>(f(x))).unwrap()
    }

    #[test]
    fn smooth_minima_are_found_fast() {
        let minimum = found((0.3, 1.7), |x| (x - 0.87).powi(2) + 2.0);
        assert!((minimum.at - 0.87).abs() < 1e-8 && minimum.evaluations < 30, "{minimum:?}");
        // The minimum of x ln x is at 1/e.
        let minimum = found((0.01, 2.0), |x| x * x.ln());
        assert!((minimum.at - (-1f64).exp()).abs() < 1e-7, "{minimum:?}");
    }

    #[test]
    fn the_lowest_of_several_valleys_is_taken() {
        let minimum = found((-4.0, 4.0), |x| (3.0 * x).cos() + 0.1 * (x - 1.0).powi(2));
        let dense = (0..=80_000).map(|i| -4.0 + f64::from(i) * 1e-4);
        let lowest = dense.map(|x| (3.0 * x).cos() + 0.1 * (x - 1.0).powi(2)).fold(f64::INFINITY, f64::min);
        assert!(minimum.value <= lowest + 1e-12);
    }

    #[test]
    fn ends_kinks_and_holes_are_handled() {
        assert!((found((1.0, 2.0), |x| x).at - 1.0).abs() < 1e-8);
        assert!((found((1.0, 2.0), |x| -x).at - 2.0).abs() < 1e-8);
        assert!((found((0.0, 2.0), |x| (x - 1.234).abs()).at - 1.234).abs() < 1e-7);
        let minimum = found((0.0, 2.0), |x| if x < 0.5 { f64::NAN } else { (x - 0.6).powi(2) });
        assert!((minimum.at - 0.6).abs() < 1e-7, "{minimum:?}");
        assert_eq!(found((0.0, 1.0), |_| f64::INFINITY).value, f64::INFINITY);
    }

    #[test]
    fn the_budget_is_kept_and_errors_come_through() {
        let mut asked = 0;
        let minimum = minimize((0.3, 1.7), 15, 10, 1e-12, |x| {
            asked += 1;
            Ok::<_, Infallible>(x.sin())
        });
        assert!(minimum.unwrap().evaluations == asked && asked <= 25);
        assert_eq!(minimize((0.0, 1.0), 3, 5, 1e-3, |_| Err::<f64, _>("no")), Err("no"));
    }
}
