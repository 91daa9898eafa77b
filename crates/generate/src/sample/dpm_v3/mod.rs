//! DPM-Solver-v3 (Zheng, Lu, Chen and Zhu 2023, arXiv:2310.13268): an exponential integrator that is fitted to its model.

mod integrals;
mod statistics;

pub use statistics::Statistics;

use super::{Hook, Learned, Sampled, Sampler, check_start, check_state};
use crate::{Denoiser, Grid, Node};
use integrals::{Place, StepWeights};
use ndarray::{Array1, Array2, Zip};
use offprint_core::random::Stream;
use offprint_core::{Error, Progress, Result};
use std::collections::VecDeque;
use std::sync::Arc;

/// How the derivatives of g are taken from its past values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Derivatives {
    /// Those of the polynomial through all values: the stated order.
    Full,
    /// The divided differences as they are, called pseudo-order: calmer where steps are few and long.
    Pseudo,
}

/// The multistep predictor of order 1 to 3, with or without its corrector.
///
/// With f = (1 − l) y − D the flow is dy/dλ = −l y − f. Its linear part is integrated exactly, and so is what f does on
/// average, df/dλ ≈ s f + b: only the rest g = e^−∫s f − ∫ e^−∫s b is taken as a polynomial in λ. The coefficients
/// l, s and b (d each, functions of λ) are the [`Statistics`] of the model. l, s, b = 1, 0, 0 is exponential
/// integration of the clean data (DPM-Solver++), 0, −1, 0 that of the noise (DPM-Solver).
#[derive(Debug, Clone)]
pub struct DpmV3 {
    /// What is known of the model.
    pub statistics: Arc<Statistics>,
    /// Order, 1 to 3.
    pub order: usize,
    /// How derivatives are taken.
    pub derivatives: Derivatives,
    /// Whether every step but the last is made again with the output at its end, which costs no call.
    pub corrects: bool,
    /// Whether the last steps take lower orders.
    pub lower_order_final: bool,
}

/// An evaluated place: f there is what the method stores of the model.
struct Stored {
    place: Place,
    f: Array2<f64>,
}

impl DpmV3 {
    /// Of `order` 1 to 3, without a corrector and with full order to the end.
    pub fn new(order: usize, statistics: Arc<Statistics>) -> Result<Self> {
        check_order(order)?;
        let derivatives = Derivatives::Full;
        Ok(Self { statistics, order, derivatives, corrects: false, lower_order_final: false })
    }

    /// The settings that the authors use for `steps` steps: pseudo-order up to 5, a corrector up to 6.
    #[must_use]
    pub fn as_published(self, steps: usize) -> Self {
        let derivatives = if steps <= 5 { Derivatives::Pseudo } else { Derivatives::Full };
        Self { derivatives, corrects: steps <= 6, ..self }
    }

    /// f = (1 − l) y − D at `place`.
    fn ask(&self, model: &dyn Denoiser, y: &Array2<f64>, at: Node, place: &Place) -> Result<Array2<f64>> {
        let mut f = model.denoise(y.view(), at.tau)?;
        let keep = place.l.mapv(|l| 1.0 - l);
        for (mut f, y) in f.outer_iter_mut().zip(y.outer_iter()) {
            Zip::from(&mut f).and(&y).and(&keep).for_each(|f, &y, &k| *f = k * y - *f);
        }
        Ok(f)
    }

    fn order_at(&self, step: usize, steps: usize, stored: usize) -> usize {
        let order = self.order.min(stored);
        if self.lower_order_final { order.min(steps - step) } else { order }
    }
}

fn check_order(order: usize) -> Result<()> {
    if (1..=3).contains(&order) { Ok(()) } else { Err(Error::parameter("order", order, "from 1 to 3")) }
}

/// y' = `state` y + Σ `outputs` f + `shift`, by coordinate.
fn combine<'a>(weights: &StepWeights, y: &Array2<f64>, outputs: impl Iterator<Item = &'a Array2<f64>>) -> Array2<f64> {
    let mut next = y * &weights.state + &weights.shift;
    for (weight, output) in weights.outputs.iter().zip(outputs) {
        let weight: &Array1<f64> = weight;
        for (mut next, output) in next.outer_iter_mut().zip(output.outer_iter()) {
            Zip::from(&mut next).and(&output).and(weight).for_each(|n, &f, &w| *n += w * f);
        }
    }
    next
}

impl Sampler for DpmV3 {
    fn name(&self) -> String {
        name(self.order)
    }

    fn run_with(
        &self,
        model: &dyn Denoiser,
        start: Array2<f64>,
        grid: &Grid,
        _: Stream,
        hook: &mut dyn Hook,
        progress: &Progress,
    ) -> Result<Sampled> {
        check_start(self, model, &start)?;
        check_order(self.order)?;
        self.statistics.check(model.dim(), grid)?;
        if grid.steps() < self.order {
            let allowed = format!("at least the order {} of {}", self.order, self.name());
            return Err(Error::parameter("steps", grid.steps(), allowed));
        }
        let (mut y, mut evaluations) = (start, 1);
        let place = self.statistics.at(grid.first().lambda());
        let mut stored = VecDeque::from([Stored { f: self.ask(model, &y, grid.first(), &place)?, place }]);
        for (step, places) in grid.nodes().windows(2).enumerate() {
            let (from, to) = (places[0], places[1]);
            hook.before(step, from, &mut y)?;
            if to.tau == 0.0 {
                // Where the noise ends, the only answer is D = (1 − l) y − f.
                let newest = &stored[0];
                let keep = newest.place.l.mapv(|l| 1.0 - l);
                y = y * &keep - &newest.f;
            } else {
                let order = self.order_at(step, grid.steps(), stored.len());
                let place = self.statistics.at(to.lambda());
                let known: Vec<&Place> = stored.iter().take(order).map(|s| &s.place).collect();
                let weights = self.statistics.step(&known, place.lambda, self.derivatives)?;
                let predicted = combine(&weights, &y, stored.iter().map(|s| &s.f));
                if step + 1 == grid.steps() {
                    y = predicted;
                } else {
                    let f = self.ask(model, &predicted, to, &place)?;
                    evaluations += 1;
                    y = predicted_or_corrected(self, (&stored, &y), (predicted, &f, &place), order)?;
                    stored.push_front(Stored { place, f });
                    stored.truncate(self.order);
                }
            }
            check_state(&self.name(), step, &y)?;
            hook.after(step, to, &mut y)?;
            progress.check()?;
        }
        Ok(Sampled { y, alpha: grid.last().alpha, evaluations })
    }
}

/// The step from `y` made again with f at its end among the outputs, if the method corrects. f itself stays.
fn predicted_or_corrected(
    method: &DpmV3,
    (stored, y): (&VecDeque<Stored>, &Array2<f64>),
    (predicted, f, place): (Array2<f64>, &Array2<f64>, &Place),
    order: usize,
) -> Result<Array2<f64>> {
    // Of order 1 the corrector would be the predictor.
    if !method.corrects || order < 2 {
        return Ok(predicted);
    }
    let mut known = vec![&stored[0].place, place];
    known.extend(stored.iter().skip(1).take(order - 2).map(|s| &s.place));
    let weights = method.statistics.step(&known, place.lambda, Derivatives::Full)?;
    let outputs = [&stored[0].f, f].into_iter().chain(stored.iter().skip(1).map(|s| &s.f));
    Ok(combine(&weights, y, outputs))
}

/// DPM-Solver-v3 that has seen no model yet: it learns the statistics of the one it meets, before it samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnlearnedDpmV3 {
    order: usize,
}

/// Intervals in λ over which [`UnlearnedDpmV3`] takes statistics.
const INTERVALS: usize = 60;

impl UnlearnedDpmV3 {
    /// Of `order` 1 to 3.
    pub fn new(order: usize) -> Result<Self> {
        check_order(order)?;
        Ok(Self { order })
    }
}

fn name(order: usize) -> String {
    format!("dpm-v3-{order}")
}

/// The learned sampler, with the authors' settings for the grid at hand.
struct Published(DpmV3);

impl Sampler for Published {
    fn name(&self) -> String {
        self.0.name()
    }

    fn run_with(
        &self,
        model: &dyn Denoiser,
        start: Array2<f64>,
        grid: &Grid,
        stream: Stream,
        hook: &mut dyn Hook,
        progress: &Progress,
    ) -> Result<Sampled> {
        self.0.clone().as_published(grid.steps()).run_with(model, start, grid, stream, hook, progress)
    }
}

impl Sampler for UnlearnedDpmV3 {
    fn name(&self) -> String {
        name(self.order)
    }

    fn learn(
        &self,
        model: &dyn Denoiser,
        points: usize,
        grid: &Grid,
        stream: Stream,
        progress: &Progress,
    ) -> Result<Option<Learned>> {
        let start = grid.start(points, model.dim(), model.kernel(), stream);
        let statistics = Statistics::estimate(model, start, grid, INTERVALS, stream, progress)?;
        let evaluations = statistics.evaluations();
        let sampler = Box::new(Published(DpmV3::new(self.order, Arc::new(statistics))?));
        Ok(Some(Learned { sampler, evaluations }))
    }

    /// Learns from as many points as `start` has, drawn from `stream`; the calls for that are counted.
    fn run_with(
        &self,
        model: &dyn Denoiser,
        start: Array2<f64>,
        grid: &Grid,
        stream: Stream,
        hook: &mut dyn Hook,
        progress: &Progress,
    ) -> Result<Sampled> {
        check_start(self, model, &start)?;
        let Some(learned) = self.learn(model, start.nrows(), grid, stream, progress)? else {
            unreachable!("this sampler always learns");
        };
        let sampled = learned.sampler.run_with(model, start, grid, stream, hook, progress)?;
        Ok(Sampled { evaluations: sampled.evaluations + learned.evaluations, ..sampled })
    }
}
