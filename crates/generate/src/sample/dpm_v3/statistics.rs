//! Empirical model statistics: what a model does on average, by coordinate and noise level.

use super::integrals::slope;
use crate::sample::{DpmPlusPlus2M, Multistep};
use crate::{Denoiser, Grid, check};
use ndarray::{Array1, Array2, Axis};
use offprint_core::random::Stream;
use offprint_core::{Error, Progress, Result};
use rand::RngExt;
use std::collections::VecDeque;

/// The coefficients l, s and b of [`DpmV3`](super::DpmV3) at equally spaced λ = −ln τ, linear in between; (N + 1, d) each.
///
/// - l = 1 − E \[diag ∂D/∂y\] makes f = (1 − l) y − D depend least on y: the part of the model that is linear in y is
///   integrated exactly.
/// - s and b are the regression of df/dλ on f, coordinate by coordinate: the part of the change of f that f itself
///   tells.
#[derive(Debug, Clone)]
pub struct Statistics {
    first: f64,
    width: f64,
    l: Array2<f64>,
    s: Array2<f64>,
    b: Array2<f64>,
    evaluations: u64,
}

/// How far, in intervals, a grid may reach beyond the statistics: rounding only.
const SLACK: f64 = 1e-6;

impl Statistics {
    /// Given coefficients (N + 1, d) at equally spaced λ from the first of `range` (noise) to the second (data).
    ///
    /// # Errors
    /// Tables of different shapes, fewer than two rows, values that are not finite, a range that does not rise.
    pub fn new(range: (f64, f64), l: Array2<f64>, s: Array2<f64>, b: Array2<f64>) -> Result<Self> {
        for (name, table) in [("l", &l), ("s", &s), ("b", &b)] {
            check::rows(name, table.view())?;
            if table.dim() != l.dim() || table.nrows() < 2 {
                let problem =
                    format!("has shape {:?}; at least two rows as in l, {:?}, are needed", table.shape(), l.shape());
                return Err(Error::input(name, problem));
            }
        }
        if !(range.0 < range.1 && range.0.is_finite() && range.1.is_finite()) {
            return Err(Error::parameter("range", format!("{} to {}", range.0, range.1), "finite and rising"));
        }
        let width = (range.1 - range.0) / (l.nrows() - 1) as f64;
        Ok(Self { first: range.0, width, l, s, b, evaluations: 0 })
    }

    /// From trajectories of `model` that begin at `start` y (K, d), over `intervals` equal steps in λ between the first and
    /// the last noise level of `grid` that is not 0.
    ///
    /// The trajectories are those of DPM-Solver++(2M); df/dλ is their central difference; the diagonal of the Jacobian
    /// is E \[v ∘ (∂D/∂y) v\] with random signs v, from `stream`. 3 (`intervals` + 1) calls, each for K points:
    /// one for D and two for the Jacobian. K should be hundreds.
    ///
    /// # Errors
    /// Fewer than two points or intervals, a start that does not fit the model, points that stop being finite, a stop
    /// by the user.
    pub fn estimate(
        model: &dyn Denoiser,
        start: Array2<f64>,
        grid: &Grid,
        intervals: usize,
        stream: Stream,
        progress: &Progress,
    ) -> Result<Self> {
        if start.nrows() < 2 {
            return Err(Error::parameter(
                "points",
                start.nrows(),
                "at least 2, better hundreds, to take statistics of",
            ));
        }
        if intervals < 2 {
            return Err(Error::parameter("intervals", intervals, "at least 2"));
        }
        let last = grid.nodes().iter().rev().find(|node| node.tau > 0.0).expect("the first has noise");
        let levels = Grid::even_levels(grid.first().tau, last.tau, intervals)?;
        let solver = Multistep::new(DpmPlusPlus2M);
        let mut state = solver.begin(model, start, &levels)?;
        let d = state.y.ncols();
        let shape = (intervals + 1, d);
        let mut found = Self {
            first: grid.first().lambda(),
            width: (last.lambda() - grid.first().lambda()) / intervals as f64,
            l: Array2::zeros(shape),
            s: Array2::zeros(shape),
            b: Array2::zeros(shape),
            evaluations: 3 * (intervals as u64 + 1),
        };
        // f at the last three places: the slope at the middle one needs its neighbours.
        let mut recent: VecDeque<Array2<f64>> = VecDeque::new();
        for n in 0..=intervals {
            progress.check()?;
            let tau = levels.nodes()[n].tau;
            let l = 1.0 - jacobian_diagonal(model, &state.y, tau, (stream, n))?;
            // The solver asks for D after every step but the last.
            let denoised = match state.buffer.get(0).filter(|entry| entry.at.tau == tau) {
                Some(entry) => entry.output.clone(),
                None => model.denoise(state.y.view(), tau)?,
            };
            recent.push_back(&state.y * &(1.0 - &l) - &denoised);
            found.l.row_mut(n).assign(&l);
            if recent.len() > 3 {
                recent.pop_front();
            }
            if let [a, b, c] = recent.make_contiguous() {
                let three = [&*a, &*b, &*c];
                let mut regress =
                    |at: usize, which: usize| found.regress(at, three[which], &slope(three, which, found.width));
                if n == 2 {
                    regress(0, 0);
                }
                regress(n - 1, 1);
                if n == intervals {
                    regress(n, 2);
                }
            }
            if n < intervals {
                solver.advance(model, &levels, &mut state, &mut ())?;
            }
        }
        Ok(found)
    }

    /// s and b at place `n`: the least squares of `rate` = s `f` + b over the points, by coordinate.
    fn regress(&mut self, n: usize, f: &Array2<f64>, rate: &Array2<f64>) {
        let count = f.nrows() as f64;
        for j in 0..f.ncols() {
            let (f, rate) = (f.column(j), rate.column(j));
            let (mean, mean_rate) = (f.sum() / count, rate.sum() / count);
            let (mut together, mut variance) = (0.0, 0.0);
            for (f, rate) in f.iter().zip(rate) {
                together += (f - mean) * (rate - mean_rate);
                variance += (f - mean) * (f - mean);
            }
            // A coordinate that hardly varies tells nothing of its slope.
            let slope = if variance > 1e-12 * count * (1.0 + mean * mean) { together / variance } else { 0.0 };
            self.s[[n, j]] = slope;
            self.b[[n, j]] = mean_rate - slope * mean;
        }
    }

    /// Refuses a model of another dimension and a grid that reaches beyond the statistics.
    pub(super) fn check(&self, d: usize, grid: &Grid) -> Result<()> {
        if d != self.dim() {
            let problem = format!("are of {} coordinates, but the model has {d}", self.dim());
            return Err(Error::input("statistics", problem));
        }
        let last = self.lambda(self.intervals());
        let beyond = |lambda: f64| lambda < self.first - SLACK * self.width || lambda > last + SLACK * self.width;
        match grid.nodes().iter().find(|node| node.tau > 0.0 && beyond(node.lambda())) {
            Some(node) => {
                let problem = format!(
                    "reach from τ = {} to {}, but the grid asks at {}",
                    (-self.first).exp(),
                    (-last).exp(),
                    node.tau
                );
                Err(Error::input("statistics", problem))
            }
            None => Ok(()),
        }
    }

    /// Coordinates d.
    pub fn dim(&self) -> usize {
        self.l.ncols()
    }

    /// Intervals N in λ.
    pub fn intervals(&self) -> usize {
        self.l.nrows() - 1
    }

    /// Calls of the model that the estimate took, each for all its points; 0 for given statistics.
    pub fn evaluations(&self) -> u64 {
        self.evaluations
    }

    /// l (N + 1, d).
    pub fn l(&self) -> &Array2<f64> {
        &self.l
    }

    /// s (N + 1, d).
    pub fn s(&self) -> &Array2<f64> {
        &self.s
    }

    /// b (N + 1, d).
    pub fn b(&self) -> &Array2<f64> {
        &self.b
    }

    /// λ of row `n`.
    pub fn lambda(&self, n: usize) -> f64 {
        self.first + self.width * n as f64
    }

    pub(super) fn width(&self) -> f64 {
        self.width
    }

    /// The interval that holds `lambda`, and how far along it lies; the ends for what lies outside.
    pub(super) fn interval(&self, lambda: f64) -> (usize, f64) {
        let at = ((lambda - self.first) / self.width).clamp(0.0, self.intervals() as f64);
        let n = (at as usize).min(self.intervals() - 1);
        (n, at - n as f64)
    }

    /// The interval to integrate over next on the way from `at` to `to`, and where its end, or `to`, lies.
    pub(super) fn piece(&self, at: f64, to: f64) -> (usize, f64) {
        let place = (at - self.first) / self.width;
        // Steps shorter than this are lost in the rounding of λ.
        let edge = 1e-9;
        let last = self.intervals() - 1;
        if to > at {
            let n = ((place + edge).floor().max(0.0) as usize).min(last);
            let end = self.lambda(n + 1);
            (n, if n == last || end >= to { to } else { end })
        } else {
            let n = (((place - edge).ceil() - 1.0).max(0.0) as usize).min(last);
            let end = self.lambda(n);
            (n, if n == 0 || end <= to { to } else { end })
        }
    }
}

/// The mean over the points `y` (K, d) of the diagonal of ∂D/∂y, with one vector of random signs a point.
fn jacobian_diagonal(
    model: &dyn Denoiser,
    y: &Array2<f64>,
    tau: f64,
    (stream, place): (Stream, usize),
) -> Result<Array1<f64>> {
    let mut signs = Array2::zeros(y.dim());
    for (i, mut row) in signs.outer_iter_mut().enumerate() {
        // Far from the generators that the starting points came from.
        let mut rng = stream.rng(((place as u64 + 1) << 32) + i as u64);
        row.iter_mut().for_each(|v| *v = if rng.random::<bool>() { 1.0 } else { -1.0 });
    }
    let product = model.jacobian_product(y.view(), tau, signs.view())? * &signs;
    Ok(product.mean_axis(Axis(0)).expect("there are points"))
}
