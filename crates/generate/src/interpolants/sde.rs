//! Generation: the flow dX = b dt and the diffusions dX = (b + ε s) dt + √(2ε) dW, which share every marginal law.

use super::{Fields, Flow};
use crate::ode::{Rule, solve_fixed};
use crate::{Noise, check};
use ndarray::{Array2, Array3, ArrayView2, Axis, s};
use offprint_core::random::Stream;
use offprint_core::{Error, Progress, Result};

/// The diffusion coefficient ε(t) ≥ 0.
#[derive(Debug, Clone, PartialEq)]
pub enum Epsilon {
    /// The same at all times; 0 is the flow.
    Constant(f64),
    /// 4 t (1 − t) times this: none at the ends, where scores are hardest to learn.
    Bump(f64),
    /// Given at evenly spaced times from 0 to 1, linear between.
    Table(Vec<f64>),
}

impl Epsilon {
    /// Refuses values that are negative or not finite, and tables of fewer than two values.
    pub fn check(&self) -> Result<()> {
        let values = match self {
            Self::Constant(value) | Self::Bump(value) => std::slice::from_ref(value),
            Self::Table(values) if values.len() < 2 => {
                return Err(Error::parameter("epsilon", format!("{} values", values.len()), "at least 2 values"));
            }
            Self::Table(values) => values,
        };
        match values.iter().find(|v| !(**v >= 0.0 && v.is_finite())) {
            Some(value) => Err(Error::parameter("epsilon", value, "at least 0 and finite")),
            None => Ok(()),
        }
    }

    /// ε at `t`; times outside 0 to 1 count as the nearer end.
    pub fn at(&self, t: f64) -> f64 {
        let t = t.clamp(0.0, 1.0);
        match self {
            Self::Constant(value) => *value,
            Self::Bump(value) => 4.0 * t * (1.0 - t) * value,
            Self::Table(values) => {
                let place = t * (values.len() - 1) as f64;
                let (i, share) = ((place as usize).min(values.len() - 2), place.fract());
                if place as usize == values.len() - 1 {
                    values[i + 1]
                } else {
                    (1.0 - share) * values[i] + share * values[i + 1]
                }
            }
        }
    }
}

/// How a step is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Integrator {
    /// Euler and Maruyama: drift at the start of the step, then noise. Weak order 1.
    EulerMaruyama,
    /// Noise first, then Heun's mean of two drifts at the end of the step.
    Heun,
}

/// A diffusion over a span of time.
#[derive(Debug, Clone, PartialEq)]
pub struct Diffusion {
    /// ε(t).
    pub epsilon: Epsilon,
    /// How a step is taken.
    pub integrator: Integrator,
    /// Steps of equal length.
    pub steps: usize,
    /// Start and end; with the end before the start the process runs backward, with the drift b − ε s.
    pub span: (f64, f64),
}

/// What a generation leaves.
#[derive(Debug, Clone)]
pub struct Generated {
    /// The points (n, d) at the end.
    pub x: Array2<f64>,
    /// The first points at all times (n', times, d); n' and the times are those asked for.
    pub paths: Array3<f64>,
    /// The times of `paths`.
    pub times: Vec<f64>,
}

/// What to keep of the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Number of points, the first ones.
    pub points: usize,
    /// Every so many steps, beside the start and the end.
    pub every: usize,
}

impl Keep {
    /// Only the end.
    pub const NOTHING: Self = Self { points: 0, every: usize::MAX };
}

impl Diffusion {
    /// Takes `start` (n, d) along the process of `fields`. What is random comes from `stream`, addressed by step and row.
    ///
    /// # Errors
    /// ε below 0, no steps, points of another dimension or that stop being finite, a stop by the user.
    pub fn run(
        &self,
        fields: &dyn Fields,
        start: Array2<f64>,
        keep: Keep,
        stream: Stream,
        progress: &Progress,
    ) -> Result<Generated> {
        self.epsilon.check()?;
        let (times, h) = times(self.steps, self.span)?;
        check::rows("start", start.view())?;
        check::dimension("start", start.view(), "the fields", fields.dim())?;
        let noise = Noise::new(stream);
        let mut x = start;
        let mut kept = Kept::new(keep, &times, x.view());
        for step in 0..self.steps {
            let (t, next) = (times[step], times[step + 1]);
            let shake = (2.0 * self.epsilon.at(t) * h.abs()).sqrt();
            // Backward in time the score pulls the other way.
            let epsilon = |t: f64| self.epsilon.at(t) * h.signum();
            match self.integrator {
                Integrator::EulerMaruyama => {
                    let drift = fields.drift(x.view(), t, epsilon(t))?;
                    x.scaled_add(h, &drift);
                    noise.add(step, shake, &mut x);
                }
                Integrator::Heun => {
                    noise.add(step, shake, &mut x);
                    let first = fields.drift(x.view(), next, epsilon(next))?;
                    let mut ahead = x.clone();
                    ahead.scaled_add(h, &first);
                    let second = fields.drift(ahead.view(), next, epsilon(next))?;
                    x.scaled_add(0.5 * h, &first);
                    x.scaled_add(0.5 * h, &second);
                }
            }
            check_points(x.view(), next)?;
            kept.look(step + 1, x.view());
            progress.advance(1)?;
        }
        Ok(kept.finish(x))
    }
}

/// Takes `start` (n, d) along the flow of `fields` over `span` in `steps` steps of the classical Runge–Kutta method.
///
/// # Errors
/// As [`Diffusion::run`].
pub fn flow(
    fields: &dyn Fields,
    start: Array2<f64>,
    (steps, span): (usize, (f64, f64)),
    keep: Keep,
    progress: &Progress,
) -> Result<Generated> {
    let (times, _) = times(steps, span)?;
    check::rows("start", start.view())?;
    let mut x = start;
    let mut kept = Kept::new(keep, &times, x.view());
    for step in 0..steps {
        x = solve_fixed(&Flow(fields), x, &times[step..step + 2], Rule::RungeKutta4)?;
        kept.look(step + 1, x.view());
        progress.advance(1)?;
    }
    Ok(kept.finish(x))
}

/// `steps` + 1 times over the span, and the step between them.
fn times(steps: usize, (from, to): (f64, f64)) -> Result<(Vec<f64>, f64)> {
    if steps == 0 {
        return Err(Error::parameter("steps", steps, "at least 1"));
    }
    if !((0.0..=1.0).contains(&from) && (0.0..=1.0).contains(&to) && from != to) {
        return Err(Error::parameter("span", format!("{from} to {to}"), "two different times between 0 and 1"));
    }
    let h = (to - from) / steps as f64;
    let between = (1..steps).map(|i| from + h * i as f64);
    Ok((std::iter::once(from).chain(between).chain([to]).collect(), h))
}

fn check_points(x: ArrayView2<'_, f64>, t: f64) -> Result<()> {
    match check::first_bad_row(x) {
        None => Ok(()),
        Some(row) => Err(Error::Numerical(format!(
            "the process left the finite numbers at t = {t}, first at point {row}: more steps or a smaller epsilon may help"
        ))),
    }
}

/// The part of the way that is kept.
struct Kept {
    every: usize,
    steps: usize,
    paths: Array3<f64>,
    times: Vec<f64>,
    filled: usize,
}

impl Kept {
    fn new(keep: Keep, times: &[f64], start: ArrayView2<'_, f64>) -> Self {
        let steps = times.len() - 1;
        let every = keep.every.max(1);
        let chosen: Vec<f64> =
            times.iter().enumerate().filter(|(i, _)| i % every == 0 || *i == steps).map(|(_, t)| *t).collect();
        let points = keep.points.min(start.nrows());
        let paths = Array3::zeros((points, chosen.len(), start.ncols()));
        let mut kept = Self { every, steps, paths, times: chosen, filled: 0 };
        kept.look(0, start);
        kept
    }

    fn look(&mut self, step: usize, x: ArrayView2<'_, f64>) {
        if step.is_multiple_of(self.every) || step == self.steps {
            let points = self.paths.len_of(Axis(0));
            self.paths.slice_mut(s![.., self.filled, ..]).assign(&x.slice(s![..points, ..]));
            self.filled += 1;
        }
    }

    fn finish(self, x: Array2<f64>) -> Generated {
        Generated { x, paths: self.paths, times: self.times }
    }
}
