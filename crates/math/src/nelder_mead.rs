//! The simplex method of Nelder and Mead, for functions of few variables that have no gradient.
//!
//! Coefficients are the usual ones: reflection 1, expansion 2, contraction ½, shrinkage ½ (Nelder & Mead 1965). Nothing
//! is promised about convergence beyond that the best value never rises.

/// Where the method ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Minimum {
    /// The best point.
    pub x: Vec<f64>,
    /// Its value.
    pub value: f64,
    /// Times the function was asked.
    pub evaluations: usize,
}

/// Lowers `f` from the simplex of `start` and `start[i] + steps[i]`, until the values of its corners differ by at most
/// `tolerance` times the best value's size, or `f` was asked `most` times. A value that is not a number counts as +∞.
///
/// # Panics
/// If `start` and `steps` differ in length or are empty.
pub fn nelder_mead(
    mut f: impl FnMut(&[f64]) -> f64,
    start: &[f64],
    steps: &[f64],
    tolerance: f64,
    most: usize,
) -> Minimum {
    assert!(!start.is_empty() && start.len() == steps.len(), "a step for each variable");
    let n = start.len();
    let evaluations = std::cell::Cell::new(0);
    let mut ask = |x: &[f64]| {
        evaluations.set(evaluations.get() + 1);
        let value = f(x);
        if value.is_nan() { f64::INFINITY } else { value }
    };
    let mut corners: Vec<(Vec<f64>, f64)> = (0..=n)
        .map(|i| {
            let mut x = start.to_vec();
            if i > 0 {
                x[i - 1] += steps[i - 1];
            }
            let value = ask(&x);
            (x, value)
        })
        .collect();
    while evaluations.get() < most {
        corners.sort_by(|a, b| a.1.total_cmp(&b.1));
        let (best, worst, second) = (corners[0].1, corners[n].1, corners[n - 1].1);
        if worst - best <= tolerance * best.abs().max(f64::MIN_POSITIVE) {
            break;
        }
        let centre: Vec<f64> = (0..n).map(|j| corners[..n].iter().map(|(x, _)| x[j]).sum::<f64>() / n as f64).collect();
        // On the line from the worst corner through the centre of the others, so far beyond it.
        let along =
            |far: f64| -> Vec<f64> { centre.iter().zip(&corners[n].0).map(|(c, w)| c + far * (c - w)).collect() };
        let reflected = along(1.0);
        let value = ask(&reflected);
        let mut next = (reflected, value);
        if value < best {
            let expanded = along(2.0);
            let value = ask(&expanded);
            if value < next.1 {
                next = (expanded, value);
            }
        } else if value >= second {
            let contracted = along(if value < worst { 0.5 } else { -0.5 });
            let found = ask(&contracted);
            if found < value.min(worst) {
                next = (contracted, found);
            } else {
                let anchor = corners[0].0.clone();
                for (x, value) in &mut corners[1..] {
                    x.iter_mut().zip(&anchor).for_each(|(x, a)| *x = a + 0.5 * (*x - a));
                    *value = ask(x);
                }
                continue;
            }
        }
        corners[n] = next;
    }
    corners.sort_by(|a, b| a.1.total_cmp(&b.1));
    let (x, value) = corners.swap_remove(0);
    Minimum { x, value, evaluations: evaluations.get() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_valley_of_rosenbrock_is_walked_to_its_end() {
        let f = |x: &[f64]| (1.0 - x[0]).powi(2) + 100.0 * (x[1] - x[0] * x[0]).powi(2);
        let found = nelder_mead(f, &[-1.2, 1.0], &[0.1, 0.1], 1e-14, 1000);
        assert!(found.value < 1e-10 && (found.x[0] - 1.0).abs() < 1e-4 && (found.x[1] - 1.0).abs() < 1e-4, "{found:?}");
        assert!(found.evaluations < 400, "{}", found.evaluations);
    }

    #[test]
    fn values_that_are_no_numbers_are_avoided_and_the_limit_is_kept() {
        let f = |x: &[f64]| if x[0] < 0.5 { f64::NAN } else { (x[0] - 0.6).abs() };
        let found = nelder_mead(f, &[2.0], &[0.5], 1e-9, 60);
        assert!((found.x[0] - 0.6).abs() < 1e-3 && found.evaluations <= 62, "{found:?}");
    }
}
