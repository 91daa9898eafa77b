//! Samplers that combine stored outputs of the model: the loop, once for all of them.

use super::{Hook, Sampled, Sampler, check_start, check_state};
use crate::{Denoiser, Grid, Node};
use ndarray::{Array2, Axis, Zip, s};
use offprint_core::random::Stream;
use offprint_core::{Error, Progress, Result};
use std::collections::VecDeque;
use std::sync::Arc;

/// What of the model a solver stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// The clean data D.
    Data,
    /// The noise ε = (y − D)/τ.
    Noise,
}

/// The numbers of one linear step: y' = `state` · y + Σ_j `outputs`\[j\] · m_j, the newest output first. Those of a
/// corrector begin with the output at the target.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights {
    /// Factor of the present state.
    pub state: f64,
    /// Factors of the outputs.
    pub outputs: Vec<f64>,
}

/// A multistep method: the numbers of its steps, as a function of the places alone.
///
/// `places` holds those of the stored outputs, the newest first; at least `order` of them.
pub trait Solver: Sync {
    /// The name.
    fn name(&self) -> String;

    /// Highest order, at least 1.
    fn order(&self) -> usize;

    /// What is stored.
    fn output(&self) -> Output;

    /// The step from `places[0]` to `to` with `order` outputs.
    fn predictor(&self, places: &[Node], to: Node, order: usize) -> Result<Weights>;

    /// The step made again, once the output at `to` is known. `None` if the method has no corrector.
    fn corrector(&self, _places: &[Node], _to: Node, _order: usize) -> Result<Option<Weights>> {
        Ok(None)
    }
}

impl<S: Solver + Send + ?Sized> Solver for Arc<S> {
    fn name(&self) -> String {
        (**self).name()
    }

    fn order(&self) -> usize {
        (**self).order()
    }

    fn output(&self) -> Output {
        (**self).output()
    }

    fn predictor(&self, places: &[Node], to: Node, order: usize) -> Result<Weights> {
        (**self).predictor(places, to, order)
    }

    fn corrector(&self, places: &[Node], to: Node, order: usize) -> Result<Option<Weights>> {
        (**self).corrector(places, to, order)
    }
}

/// A stored output of the model.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Where the model was asked.
    pub at: Node,
    /// What it said (n, d), in the solver's [`Output`].
    pub output: Array2<f64>,
}

/// The stored outputs, the newest first.
#[derive(Debug, Clone, Default)]
pub struct Buffer {
    entries: VecDeque<Entry>,
}

impl Buffer {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The outputs, the newest first.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Output `age` steps before the newest.
    pub fn get(&self, age: usize) -> Option<&Entry> {
        self.entries.get(age)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, age: usize) -> Option<&mut Entry> {
        self.entries.get_mut(age)
    }

    fn push(&mut self, entry: Entry, keep: usize) {
        self.entries.truncate(keep.max(1) - 1);
        self.entries.push_front(entry);
    }
}

/// Where a multistep run stands: it can be copied, and gone on from in several ways.
#[derive(Debug, Clone)]
pub struct State {
    /// The points (n, d).
    pub y: Array2<f64>,
    /// The stored outputs.
    pub buffer: Buffer,
    /// Steps made.
    pub step: usize,
    /// Calls of the model.
    pub evaluations: u64,
}

/// When and how a predictor–corrector run corrects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Correction {
    /// First step that is corrected, counted from 0.
    pub from: usize,
    /// Whether the last step is corrected too, which costs one more call of the model. Not by default.
    pub last: bool,
    /// Whether the model is asked again at the corrected point and that is stored, which doubles the calls. Not by
    /// default.
    pub reevaluate: bool,
}

/// A [`Solver`] with the loop around it.
#[derive(Debug, Clone)]
pub struct Multistep<S> {
    /// The method.
    pub solver: S,
    /// Whether the last steps take lower orders, so that the last is of order 1: for grids whose last step is long.
    pub lower_order_final: bool,
    /// When it corrects, if the solver has a corrector.
    pub correction: Correction,
    /// Outputs kept at least, for hooks that want more than the solver does.
    pub history: usize,
}

impl<S: Solver> Multistep<S> {
    /// `solver` with full order to the end and the default [`Correction`].
    pub fn new(solver: S) -> Self {
        Self { solver, lower_order_final: false, correction: Correction::default(), history: 0 }
    }

    /// The same, with lower orders in the last steps.
    #[must_use]
    pub fn with_lower_order_final(self) -> Self {
        Self { lower_order_final: true, ..self }
    }

    /// The order of step `step` of `steps` to `to`, when `stored` outputs are there.
    pub fn order_at(&self, step: usize, steps: usize, to: Node, stored: usize) -> usize {
        if to.tau == 0.0 {
            // Where the noise ends, the only answer is D.
            return 1;
        }
        let order = self.solver.order().min(stored);
        if self.lower_order_final { order.min(steps - step) } else { order }
    }

    /// Asks the model at the start.
    pub fn begin(&self, model: &dyn Denoiser, start: Array2<f64>, grid: &Grid) -> Result<State> {
        check_start(self, model, &start)?;
        if grid.steps() < self.solver.order() {
            let allowed = format!("at least the order {} of {}", self.solver.order(), self.solver.name());
            return Err(Error::parameter("steps", grid.steps(), allowed));
        }
        let mut state = State { y: start, buffer: Buffer::default(), step: 0, evaluations: 0 };
        let output = self.ask(model, &state.y, grid.first())?;
        self.store(&mut state, grid.first(), output);
        Ok(state)
    }

    /// Makes the next step of `grid`. The hook's [`Hook::buffer`] comes first.
    pub fn advance(&self, model: &dyn Denoiser, grid: &Grid, state: &mut State, hook: &mut dyn Hook) -> Result<()> {
        let (step, to) = (state.step, grid.nodes()[state.step + 1]);
        hook.before(step, grid.nodes()[step], &mut state.y)?;
        hook.buffer(step, to, &mut state.buffer)?;
        let last = step + 1 == grid.steps();
        let order = self.order_at(step, grid.steps(), to, state.buffer.len());
        let places: Vec<Node> = state.buffer.entries().map(|e| e.at).collect();
        let weights = self.solver.predictor(&places, to, order)?;
        let predicted = combine(&weights, &state.y, state.buffer.entries().map(|e| &e.output));
        let corrects = to.tau > 0.0 && step >= self.correction.from && (!last || self.correction.last);
        let corrector = if corrects { self.solver.corrector(&places, to, order)? } else { None };
        if last && corrector.is_none() {
            state.y = predicted;
        } else {
            let mut output = self.ask(model, &predicted, to)?;
            state.y = match corrector {
                None => predicted,
                Some(weights) => {
                    let outputs = std::iter::once(&output).chain(state.buffer.entries().map(|e| &e.output));
                    let corrected = combine(&weights, &state.y, outputs);
                    if self.correction.reevaluate && !last {
                        output = self.ask(model, &corrected, to)?;
                        state.evaluations += 1;
                    }
                    corrected
                }
            };
            self.store(state, to, output);
        }
        check_state(&self.solver.name(), step, &state.y)?;
        hook.after(step, to, &mut state.y)?;
        state.step += 1;
        Ok(())
    }

    fn ask(&self, model: &dyn Denoiser, y: &Array2<f64>, at: Node) -> Result<Array2<f64>> {
        let mut output = model.denoise(y.view(), at.tau)?;
        if self.solver.output() == Output::Noise {
            let inverse = 1.0 / at.tau;
            Zip::from(&mut output).and(y).for_each(|d, &y| *d = (y - *d) * inverse);
        }
        Ok(output)
    }

    fn store(&self, state: &mut State, at: Node, output: Array2<f64>) {
        state.buffer.push(Entry { at, output }, self.solver.order().max(self.history));
        state.evaluations += 1;
    }
}

impl<S: Solver> Sampler for Multistep<S> {
    fn name(&self) -> String {
        self.solver.name()
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
        let mut state = self.begin(model, start, grid)?;
        for _ in 0..grid.steps() {
            self.advance(model, grid, &mut state, hook)?;
            progress.check()?;
        }
        Ok(Sampled { y: state.y, alpha: grid.last().alpha, evaluations: state.evaluations })
    }
}

/// Elements that stay in the first-level cache while all terms are added to them.
const BLOCK: usize = 2048;

/// The linear step in one pass over the memory; outputs without weight are left out.
fn combine<'a>(weights: &Weights, y: &Array2<f64>, outputs: impl Iterator<Item = &'a Array2<f64>>) -> Array2<f64> {
    let terms: Vec<(f64, &Array2<f64>)> =
        weights.outputs.iter().copied().zip(outputs).filter(|(w, _)| *w != 0.0).collect();
    let mut next = y * weights.state;
    let rows = (BLOCK / y.ncols().max(1)).max(1);
    for (i, mut block) in next.axis_chunks_iter_mut(Axis(0), rows).enumerate() {
        let range = i * rows..i * rows + block.nrows();
        for (weight, output) in &terms {
            block.scaled_add(*weight, &output.slice(s![range.clone(), ..]));
        }
    }
    next
}
