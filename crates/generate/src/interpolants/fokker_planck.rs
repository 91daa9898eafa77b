//! The density of a diffusion on a line, by finite volumes: no sampling noise.

use offprint_core::{Error, Result};

/// ∂_t ρ + ∂_x(f ρ) = ε ∂²_x ρ on an interval that nothing leaves.
///
/// Scharfetter and Gummel's fluxes are exact for a constant drift between two cells, whatever its size beside ε/h, and
/// keep densities positive; in time an implicit Runge–Kutta method of order 2 that damps what is stiff (Alexander 1977,
/// two stages). O(cells) a step.
#[derive(Debug, Clone)]
pub struct Line {
    low: f64,
    width: f64,
    cells: usize,
}

impl Line {
    /// `cells` cells between `low` and `high`.
    ///
    /// # Errors
    /// Fewer than 3 cells, ends that are not in order.
    pub fn new(low: f64, high: f64, cells: usize) -> Result<Self> {
        if cells < 3 {
            return Err(Error::parameter("cells", cells, "at least 3"));
        }
        if !(low < high && (high - low).is_finite()) {
            return Err(Error::parameter("interval", format!("{low} to {high}"), "two numbers in ascending order"));
        }
        Ok(Self { low, width: (high - low) / cells as f64, cells })
    }

    /// The middles of the cells.
    pub fn centres(&self) -> Vec<f64> {
        (0..self.cells).map(|i| self.low + (i as f64 + 0.5) * self.width).collect()
    }

    /// The boundaries between cells, where drifts are needed: one less than cells.
    pub fn edges(&self) -> Vec<f64> {
        (1..self.cells).map(|i| self.low + i as f64 * self.width).collect()
    }

    /// The width of a cell.
    pub fn width(&self) -> f64 {
        self.width
    }

    /// ∫ f dx of values at the centres.
    pub fn integral(&self, values: impl IntoIterator<Item = f64>) -> f64 {
        values.into_iter().sum::<f64>() * self.width
    }

    /// Takes `density` (cells), at time `from`, to time `to` in `steps` steps. `drift` gives f at the inner edges for a
    /// time.
    ///
    /// # Errors
    /// Sizes that do not fit, ε that is not positive, no steps, errors of the drift.
    pub fn evolve(
        &self,
        density: &[f64],
        (from, to, steps): (f64, f64, usize),
        epsilon: impl Fn(f64) -> f64,
        mut drift: impl FnMut(f64) -> Result<Vec<f64>>,
    ) -> Result<Vec<f64>> {
        if density.len() != self.cells {
            let problem = format!("has {} values, but the line has {} cells", density.len(), self.cells);
            return Err(Error::input("density", problem));
        }
        if steps == 0 {
            return Err(Error::parameter("steps", steps, "at least 1"));
        }
        // Both stages solve with 1 − 1/√2; the second is the new value.
        let share = 1.0 - std::f64::consts::FRAC_1_SQRT_2;
        let h = (to - from) / steps as f64;
        let mut density = density.to_vec();
        let mut matrix = Tridiagonal::new(self.cells);
        for step in 0..steps {
            let t = from + h * step as f64;
            let mut implicit = |right: &[f64], t: f64| -> Result<Vec<f64>> {
                let value = epsilon(t);
                crate::check::positive("epsilon", value)?;
                let drift = drift(t)?;
                if drift.len() + 1 != self.cells {
                    let problem = format!("has {} values at {} inner edges", drift.len(), self.cells - 1);
                    return Err(Error::input("drift", problem));
                }
                matrix.assemble(&drift, value, share * h, self.width);
                Ok(matrix.solve(right))
            };
            let first = implicit(&density, t + share * h)?;
            let slope = (1.0 - share) / share;
            let right: Vec<f64> = density.iter().zip(&first).map(|(rho, stage)| rho + slope * (stage - rho)).collect();
            density = implicit(&right, t + h)?;
        }
        Ok(density)
    }
}

/// KL(p | q) = ∫ p log(p/q) dx over `line`, for densities at its centres.
///
/// # Errors
/// Where q is not positive although p counts.
pub fn divergence(line: &Line, p: &[f64], q: &[f64]) -> Result<f64> {
    // What is lighter than this in all cells together does not show in the digits that are told.
    const NEGLIGIBLE: f64 = 1e-20;
    if let Some(i) = p.iter().zip(q).position(|(p, q)| *p > NEGLIGIBLE && (q.is_nan() || *q <= 0.0)) {
        let place = line.centres()[i];
        return Err(Error::Numerical(format!("the density at {place} is {}: more steps are needed", q[i])));
    }
    Ok(line.integral(p.iter().zip(q).filter(|(p, _)| **p > NEGLIGIBLE).map(|(p, q)| p * (p / q).ln())))
}

/// I − h L as three diagonals.
struct Tridiagonal {
    below: Vec<f64>,
    middle: Vec<f64>,
    above: Vec<f64>,
    ratio: Vec<f64>,
}

impl Tridiagonal {
    fn new(cells: usize) -> Self {
        let zeros = || vec![0.0; cells];
        Self { below: zeros(), middle: zeros(), above: zeros(), ratio: zeros() }
    }

    /// The flux from cell i to i + 1 is ε/h (B(−P) ρ_i − B(P) ρ_{i+1}) with P = f h/ε and B(z) = z/(eᶻ − 1).
    fn assemble(&mut self, drift: &[f64], epsilon: f64, time: f64, width: f64) {
        let scale = time * epsilon / (width * width);
        self.middle.fill(1.0);
        for (i, f) in drift.iter().enumerate() {
            let peclet = f * width / epsilon;
            let (out, back) = (scale * bernoulli(-peclet), scale * bernoulli(peclet));
            self.middle[i] += out;
            self.above[i] = -back;
            self.below[i + 1] = -out;
            self.middle[i + 1] += back;
        }
    }

    /// Thomas's elimination: stable here, because columns are dominated by their diagonal.
    fn solve(&mut self, right: &[f64]) -> Vec<f64> {
        let n = right.len();
        let mut x = vec![0.0; n];
        let mut pivot = self.middle[0];
        x[0] = right[0] / pivot;
        for i in 1..n {
            self.ratio[i] = self.above[i - 1] / pivot;
            pivot = self.middle[i] - self.below[i] * self.ratio[i];
            x[i] = (right[i] - self.below[i] * x[i - 1]) / pivot;
        }
        for i in (0..n - 1).rev() {
            x[i] -= self.ratio[i + 1] * x[i + 1];
        }
        x
    }
}

/// z/(eᶻ − 1).
fn bernoulli(z: f64) -> f64 {
    if z.abs() < 1e-8 { 1.0 - 0.5 * z } else { z / z.exp_m1() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// dX = −X dt + √(2ε) dW from N(2, ¼): mean 2e⁻ᵗ, variance ε + (¼ − ε)e⁻²ᵗ.
    fn ornstein_uhlenbeck(steps: usize, cells: usize) -> f64 {
        let epsilon = 0.7;
        let line = Line::new(-8.0, 8.0, cells).unwrap();
        let normal = |mean: f64, variance: f64| -> Vec<f64> {
            let density =
                |x: f64| (-0.5 * (x - mean).powi(2) / variance).exp() / (std::f64::consts::TAU * variance).sqrt();
            line.centres().into_iter().map(density).collect()
        };
        let drift: Vec<f64> = line.edges().iter().map(|x| -x).collect();
        let end = line.evolve(&normal(2.0, 0.25), (0.0, 1.0, steps), |_| epsilon, |_| Ok(drift.clone())).unwrap();
        assert!((line.integral(end.iter().copied()) - 1.0).abs() < 1e-12);
        let exact = normal(2.0 * (-1f64).exp(), epsilon + (0.25 - epsilon) * (-2f64).exp());
        assert!(divergence(&line, &exact, &end).unwrap() < 1e-3);
        line.integral(end.iter().zip(&exact).map(|(p, q)| (p - q).abs()))
    }

    #[test]
    fn ornstein_uhlenbeck_converges_with_order_two() {
        let (coarse, fine) = (ornstein_uhlenbeck(40, 400), ornstein_uhlenbeck(80, 800));
        let order = (coarse / fine).log2();
        assert!((order - 2.0).abs() < 0.2 && fine < 1e-3, "{order} {fine}");
    }

    #[test]
    fn strong_drift_keeps_densities_positive() {
        let line = Line::new(0.0, 1.0, 50).unwrap();
        let start: Vec<f64> = line.centres().iter().map(|x| 1.0 + x).collect();
        let end = line.evolve(&start, (0.0, 1.0, 200), |_| 1e-2, |_| Ok(vec![5.0; 49])).unwrap();
        assert!(end.iter().all(|p| *p >= 0.0));
        // At rest the law is ∝ exp(f x/ε): Scharfetter and Gummel's ratio between cells is exact.
        assert!(
            (end[49] / end[48] - (5.0 * line.width() / 1e-2f64).exp()).abs()
                < 1e-3 * (5.0 * line.width() / 1e-2f64).exp()
        );
    }

    #[test]
    fn sizes_are_checked() {
        assert!(Line::new(1.0, 0.0, 10).is_err() && Line::new(0.0, 1.0, 2).is_err());
        let line = Line::new(0.0, 1.0, 10).unwrap();
        let message = line.evolve(&[0.0; 9], (0.0, 1.0, 1), |_| 1.0, |_| Ok(vec![0.0; 9])).unwrap_err().to_string();
        assert!(message.contains("10 cells"), "{message}");
        assert!(line.evolve(&[1.0; 10], (0.0, 1.0, 1), |_| 0.0, |_| Ok(vec![0.0; 9])).is_err());
        assert!(line.evolve(&[1.0; 10], (0.0, 1.0, 1), |_| 1.0, |_| Ok(vec![0.0; 10])).is_err());
    }
}
