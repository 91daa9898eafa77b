//! The noise levels at which a sampler stands.

use crate::{Kernel, Schedule};
use ndarray::Array2;
use offprint_core::random::Stream;
use offprint_core::{Error, Result};

/// One place on a path.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Node {
    /// The path's time.
    pub t: f64,
    /// Factor of the signal: x = α y.
    pub alpha: f64,
    /// Noise level σ/α in the coordinates y; 0 at a final denoising.
    pub tau: f64,
}

impl Node {
    /// λ = −ln τ.
    pub fn lambda(&self) -> f64 {
        -self.tau.ln()
    }
}

/// Noise levels from high to low, at least two.
#[derive(Debug, Clone, PartialEq)]
pub struct Grid {
    nodes: Vec<Node>,
}

impl Grid {
    /// `steps` equal steps in time from `from` (noise) to `to` (data).
    pub fn uniform_t(schedule: &Schedule, steps: usize, from: f64, to: f64) -> Result<Self> {
        Self::of_times(schedule, &spaced(steps, from, to, |t| t, |t| t)?)
    }

    /// `steps` steps from time `from` to `to`, equal in √t: finer near the data.
    pub fn quadratic_t(schedule: &Schedule, steps: usize, from: f64, to: f64) -> Result<Self> {
        Self::of_times(schedule, &spaced(steps, from, to, f64::sqrt, |r| r * r)?)
    }

    /// `steps` steps from time `from` to `to`, equal in λ.
    pub fn uniform_lambda(schedule: &Schedule, steps: usize, from: f64, to: f64) -> Result<Self> {
        let taus = spaced(steps, schedule.tau(from)?, schedule.tau(to)?, f64::ln, f64::exp)?;
        Self::of_levels(schedule, &taus)
    }

    /// `steps` noise levels from `highest` to `lowest`, equal in τ^(1/ρ): EDM's grid, with ρ = 7 as published. A final
    /// denoising is not among them: see [`Self::with_final_denoising`].
    pub fn karras(schedule: &Schedule, steps: usize, lowest: f64, highest: f64, rho: f64) -> Result<Self> {
        crate::check::positive("rho", rho)?;
        if lowest.is_nan() || highest.is_nan() || lowest >= highest {
            return Err(Error::parameter("lowest noise", lowest, format!("below the highest, {highest}")));
        }
        let power = 1.0 / rho;
        Self::of_levels(schedule, &spaced(steps, highest, lowest, |t| t.powf(power), |r| r.powf(rho))?)
    }

    /// EDM's grid as published: `steps` levels from 80 to 0.002 with ρ = 7, then 0. Takes `steps` steps.
    pub fn edm(steps: usize) -> Result<Self> {
        if steps < 2 {
            return Err(Error::parameter("steps", steps, "at least 2"));
        }
        Ok(Self::karras(&Schedule::Edm, steps - 1, 0.002, 80.0, 7.0)?.with_final_denoising())
    }

    /// The given times, from noise to data.
    ///
    /// # Errors
    /// Fewer than two times, one outside the schedule, or one that does not lie below the one before it; the error
    /// names its index.
    pub fn of_times(schedule: &Schedule, times: &[f64]) -> Result<Self> {
        falling("times", times)?;
        let node = |&t: &f64| Ok(Node { t, alpha: schedule.at(t)?.alpha, tau: schedule.tau(t)? });
        Ok(Self { nodes: times.iter().map(node).collect::<Result<_>>()? })
    }

    /// The given noise levels σ/α, from high to low.
    ///
    /// # Errors
    /// As [`Self::of_times`].
    pub fn of_levels(schedule: &Schedule, taus: &[f64]) -> Result<Self> {
        falling("noise levels", taus)?;
        let node = |&tau: &f64| {
            let t = schedule.time(tau)?;
            Ok(Node { t, alpha: schedule.at(t)?.alpha, tau })
        };
        Ok(Self { nodes: taus.iter().map(node).collect::<Result<_>>()? })
    }

    /// `steps` steps from noise level `highest` to `lowest`, equal in λ = −ln τ, with α = 1.
    pub fn even_levels(highest: f64, lowest: f64, steps: usize) -> Result<Self> {
        Self::of_levels(&Schedule::Edm, &spaced(steps, highest, lowest, f64::ln, f64::exp)?)
    }

    /// With one more step, to τ = 0, where every sampler gives exactly D.
    #[must_use]
    pub fn with_final_denoising(mut self) -> Self {
        if self.last().tau > 0.0 {
            self.nodes.push(Node { t: 0.0, alpha: 1.0, tau: 0.0 });
        }
        self
    }

    /// The places, from noise to data.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Number of steps: one less than places.
    pub fn steps(&self) -> usize {
        self.nodes.len() - 1
    }

    /// The place of the most noise.
    pub fn first(&self) -> Node {
        self.nodes[0]
    }

    /// The place of the least noise.
    pub fn last(&self) -> Node {
        self.nodes[self.nodes.len() - 1]
    }

    /// `n` starting points y (n, d): noise of the law `kernel` at the first level. Row i comes from generator i of
    /// `stream`.
    pub fn start(&self, n: usize, d: usize, kernel: Kernel, stream: Stream) -> Array2<f64> {
        kernel.noise(n, d, self.first().tau, stream, 0)
    }

    /// Starting points given in the path's own coordinates x (n, d), as y = x/α.
    pub fn start_from(&self, x: Array2<f64>) -> Array2<f64> {
        x / self.first().alpha
    }
}

/// `steps` + 1 values from `from` to `to`, both hit exactly, evenly spaced in `scale`, whose inverse is `back`.
fn spaced(steps: usize, from: f64, to: f64, scale: impl Fn(f64) -> f64, back: impl Fn(f64) -> f64) -> Result<Vec<f64>> {
    if steps == 0 {
        return Err(Error::parameter("steps", steps, "at least 1"));
    }
    let (first, last) = (scale(from), scale(to));
    let between = (1..steps).map(|i| back(first + (last - first) * i as f64 / steps as f64));
    Ok(std::iter::once(from).chain(between).chain([to]).collect())
}

fn falling(what: &str, values: &[f64]) -> Result<()> {
    if values.len() < 2 {
        return Err(Error::parameter(what, format!("{} of them", values.len()), "at least 2"));
    }
    if let Some((i, v)) = values.iter().enumerate().find(|(_, v)| !(**v > 0.0 && v.is_finite())) {
        return Err(Error::parameter(what, format!("{v} at index {i}"), "positive numbers"));
    }
    match values.windows(2).position(|w| w[1] >= w[0]) {
        Some(i) => {
            let given = format!("{} at index {} after {}", values[i + 1], i + 1, values[i]);
            Err(Error::parameter(what, given, "strictly falling, from noise to data"))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use offprint_core::random::Streams;

    #[test]
    fn grids_are_even_in_their_own_scale() {
        let schedule = Schedule::vp_linear();
        let gaps = |grid: &Grid, scale: fn(&Node) -> f64| -> Vec<f64> {
            grid.nodes().windows(2).map(|w| scale(&w[1]) - scale(&w[0])).collect()
        };
        let even = |gaps: Vec<f64>| gaps.iter().all(|g| (g / gaps[0] - 1.0).abs() < 1e-9);
        assert!(even(gaps(&Grid::uniform_t(&schedule, 7, 1.0, 1e-3).unwrap(), |n| n.t)));
        assert!(even(gaps(&Grid::quadratic_t(&schedule, 7, 1.0, 1e-3).unwrap(), |n| n.t.sqrt())));
        assert!(even(gaps(&Grid::uniform_lambda(&schedule, 7, 0.9, 0.05).unwrap(), Node::lambda)));
        let karras = Grid::karras(&Schedule::Edm, 17, 0.002, 80.0, 7.0).unwrap();
        assert!(even(gaps(&karras, |n| n.tau.powf(1.0 / 7.0))));
        let last = karras.with_final_denoising();
        assert_eq!((last.steps(), last.last().tau, last.last().alpha), (18, 0.0, 1.0));
        assert_eq!(Grid::edm(18).unwrap(), last);
    }

    #[test]
    fn ends_are_hit_exactly_and_starts_have_their_scale() {
        let grid = Grid::uniform_lambda(&Schedule::vp_linear(), 100, 1.0, 1e-3).unwrap();
        assert!((grid.first().t - 1.0).abs() < 1e-12 && (grid.last().t - 1e-3).abs() < 1e-12);
        let y = grid.start(2000, 3, Kernel::Gaussian, Streams::new(0).stream("start"));
        let variance = y.iter().map(|y| y * y).sum::<f64>() / 6000.0;
        assert!((variance.sqrt() / grid.first().tau - 1.0).abs() < 0.03);
    }

    #[test]
    fn bad_grids_name_the_index() {
        let message = |times: &[f64]| Grid::of_times(&Schedule::vp_linear(), times).unwrap_err().to_string();
        assert!(message(&[0.9, 0.5, 0.5]).contains("0.5 at index 2 after 0.5"));
        assert!(message(&[0.5, 0.9]).contains("index 1"));
        assert!(message(&[0.5]).contains("at least 2"));
        assert!(message(&[0.5, f64::NAN]).contains("NaN at index 1"));
        assert!(message(&[1.5, 0.5]).contains("vp-linear"));
        assert!(Grid::karras(&Schedule::Edm, 5, 2.0, 1.0, 7.0).unwrap_err().to_string().contains("below the highest"));
        assert!(Grid::uniform_t(&Schedule::Edm, 0, 1.0, 0.1).unwrap_err().to_string().starts_with("steps"));
        assert!(Grid::edm(1).is_err());
    }
}
