//! How far a model with wrong fields can be from its target: Theorem 23 measured.

use super::{Epsilon, Fields};
use crate::check;
use ndarray::{Array2, Zip};
use offprint_core::{Error, Result};

/// Mean squared errors of fields over time, E|b̂ − b|² and E|ŝ − s|² under the law of the bridge.
#[derive(Debug, Clone, PartialEq)]
pub struct Errors {
    /// The times, evenly spaced.
    pub times: Vec<f64>,
    /// E|b̂ − b|² at each.
    pub velocity: Vec<f64>,
    /// E|ŝ − s|² at each.
    pub score: Vec<f64>,
}

impl Errors {
    /// Of `fields` beside the `exact` ones at `times`; `points` draws x_t (n, d) for a time.
    ///
    /// # Errors
    /// Those of the fields, no times.
    pub fn measure(
        fields: &dyn Fields,
        exact: &dyn Fields,
        times: &[f64],
        mut points: impl FnMut(f64) -> Result<Array2<f64>>,
    ) -> Result<Self> {
        if times.len() < 2 {
            return Err(Error::parameter("times", format!("{} of them", times.len()), "at least 2"));
        }
        let (mut velocity, mut score) = (Vec::new(), Vec::new());
        for &t in times {
            let x = points(t)?;
            check::dimension("points", x.view(), "the fields", fields.dim())?;
            let ((b_hat, s_hat), (b, s)) = (fields.both(x.view(), t)?, exact.both(x.view(), t)?);
            velocity.push(mean_square(&b_hat, &b));
            score.push(mean_square(&s_hat, &s));
        }
        Ok(Self { times: times.to_vec(), velocity, score })
    }

    /// ∫ E|b̂ − b|² dt by the trapezoidal rule.
    pub fn total_velocity(&self) -> f64 {
        trapezoid(&self.times, &self.velocity)
    }

    /// ∫ E|ŝ − s|² dt by the trapezoidal rule.
    pub fn total_score(&self) -> f64 {
        trapezoid(&self.times, &self.score)
    }

    /// The bound on KL(ρ₁ | ρ̂₁) at a constant ε: ∫E|b̂ − b|²/(2ε) + ε ∫E|ŝ − s|²/2.
    pub fn bound(&self, epsilon: f64) -> f64 {
        0.5 * self.total_velocity() / epsilon + 0.5 * epsilon * self.total_score()
    }

    /// The constant ε with the least bound, √(err_b/err_s).
    pub fn best_epsilon(&self) -> f64 {
        (self.total_velocity() / self.total_score()).sqrt()
    }

    /// The ε(t) with the least bound, √(E|b̂ − b|²/E|ŝ − s|²) at each time, for evenly spaced times from 0 to 1.
    pub fn best_schedule(&self) -> Epsilon {
        let ratio = |(b, s): (&f64, &f64)| if *s > 0.0 { (b / s).sqrt() } else { 0.0 };
        Epsilon::Table(self.velocity.iter().zip(&self.score).map(ratio).collect())
    }
}

fn mean_square(x: &Array2<f64>, y: &Array2<f64>) -> f64 {
    Zip::from(x).and(y).fold(0.0, |sum, x, y| sum + (x - y).powi(2)) / x.nrows() as f64
}

fn trapezoid(x: &[f64], y: &[f64]) -> f64 {
    x.windows(2).zip(y.windows(2)).map(|(x, y)| 0.5 * (x[1] - x[0]) * (y[0] + y[1])).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_epsilon_has_the_least_bound() {
        let errors = Errors { times: vec![0.0, 0.5, 1.0], velocity: vec![1.0, 2.0, 1.0], score: vec![4.0, 8.0, 4.0] };
        let best = errors.best_epsilon();
        assert!((best - 0.5).abs() < 1e-12);
        assert!(errors.bound(best) < errors.bound(best * 1.1) && errors.bound(best) < errors.bound(best / 1.1));
        assert_eq!(errors.best_schedule(), Epsilon::Table(vec![0.5; 3]));
    }
}
