//! Adam (Kingma & Ba 2015) on the (semi-)dual, which the authors use for large problems.
//!
//! It needs no line search and takes kinks lightly, but it converges slowly: a way to a rough solution.

use std::ops::ControlFlow;

/// Settings of the method.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adam {
    /// First step of each coordinate, in the cost's unit; it shrinks to zero along a cosine.
    pub rate: f64,
    /// Iterations, one evaluation each.
    pub iterations: usize,
}

/// Decay of the running means of gradients and of their squares, and the guard of the division.
const FIRST: f64 = 0.9;
const SECOND: f64 = 0.999;
const GUARD: f64 = 1e-30;

impl Adam {
    /// Minimises `objective` (gradient into the second argument) from `start`; `observe` gets the iteration and the
    /// value, and may stop it. Answers the point of the least value seen, and the number of evaluations.
    pub fn minimise(
        &self,
        start: &[f64],
        mut objective: impl FnMut(&[f64], &mut [f64]) -> f64,
        mut observe: impl FnMut(usize, f64) -> ControlFlow<()>,
    ) -> (Vec<f64>, usize) {
        let n = start.len();
        let mut x = start.to_vec();
        let (mut gradient, mut mean, mut square) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
        let mut best = x.clone();
        let mut least = f64::INFINITY;
        for t in 1..=self.iterations {
            let value = objective(&x, &mut gradient);
            if value < least {
                least = value;
                best.copy_from_slice(&x);
            }
            if observe(t, value).is_break() {
                return (best, t);
            }
            let progress = t as f64 / self.iterations as f64;
            let rate = self.rate * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
            let (unbias_mean, unbias_square) = (1.0 - FIRST.powi(t as i32), 1.0 - SECOND.powi(t as i32));
            for i in 0..n {
                mean[i] += (1.0 - FIRST) * (gradient[i] - mean[i]);
                square[i] += (1.0 - SECOND) * (gradient[i] * gradient[i] - square[i]);
                x[i] -= rate * (mean[i] / unbias_mean) / ((square[i] / unbias_square).sqrt() + GUARD);
            }
        }
        (best, self.iterations)
    }
}
