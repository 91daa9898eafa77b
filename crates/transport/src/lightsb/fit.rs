//! Fitting a bridge to samples: minibatches, an objective, Adam.

use super::bridge::LightBridge;
use super::gradient::Gradient;
use super::likelihood::Likelihood;
use super::matching;
use super::rotation::{self, Cayley};
use ndarray::{Array1, Array2, Array3, ArrayView2, ArrayViewMut2, Axis};
use offprint_core::random::{Rng, Stream, Streams};
use offprint_core::{Error, Progress, Result};
use offprint_math::adam::Adam;
use rand::RngExt;
use rand_distr::StandardNormal;
use serde::{Deserialize, Serialize};

/// The shape of S_k.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Spread {
    /// One number per dimension.
    #[default]
    Diagonal,
    /// A full matrix, by its eigenvalues and a rotation.
    Full,
}

/// What is minimised.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Objective {
    /// Light Schrödinger bridge: E log c − E log v.
    #[default]
    Likelihood,
    /// LightSB-M: bridge matching from independent pairs.
    Matching,
}

/// How a bridge is fitted. The defaults are those of the authors' two-dimensional example.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Variance ε of the prior over the unit of time.
    pub epsilon: f64,
    /// Number K of components.
    pub components: usize,
    /// Shape of S_k.
    pub spread: Spread,
    /// S_k = `initial_spread` · I at first.
    pub initial_spread: f64,
    /// What is minimised.
    pub objective: Objective,
    /// Step size of Adam.
    pub learning_rate: f64,
    /// Samples of each side per step.
    pub batch: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            epsilon: 0.1,
            components: 100,
            spread: Spread::Diagonal,
            initial_spread: 0.1,
            objective: Objective::Likelihood,
            learning_rate: 1e-3,
            batch: 128,
        }
    }
}

/// Something that samples can be drawn from: rows of an array (with replacement), a distribution.
pub trait Samples: Sync {
    /// The dimension d of a sample.
    fn dim(&self) -> usize;
    /// Fills every row of `batch` (n, d) with a sample.
    fn fill(&self, rng: &mut Rng, batch: ArrayViewMut2<'_, f64>);
}

impl Samples for ArrayView2<'_, f64> {
    fn dim(&self) -> usize {
        self.ncols()
    }

    fn fill(&self, rng: &mut Rng, mut batch: ArrayViewMut2<'_, f64>) {
        for mut row in batch.rows_mut() {
            row.assign(&self.row(rng.random_range(0..self.nrows())));
        }
    }
}

/// A bridge while it is fitted. One [`step`](Self::step) is one iteration; [`run`](Self::run) does many.
#[derive(Debug)]
pub struct Trainer {
    options: Options,
    bridge: LightBridge,
    /// What Adam moves: a = ε log α (K), r (K, d), log of the eigenvalues of S (K, d), and for full S the entries of
    /// Cayley's A below the diagonal (K, d(d−1)/2), one after the other.
    parameters: Vec<f64>,
    by_parameter: Vec<f64>,
    rotations: Vec<Cayley>,
    adam: Adam,
    likelihood: Likelihood,
    gradient: Gradient,
    x: Array2<f64>,
    y: Array2<f64>,
    batches: Stream,
    noise: Stream,
}

impl Trainer {
    /// A bridge with α = 1/K, S_k = S₀ I, and r_k at K different rows of `targets` (n, d), drawn by `streams`.
    ///
    /// # Errors
    /// An option outside its range, more components than target samples, samples that are not finite.
    pub fn new(targets: ArrayView2<'_, f64>, options: Options, streams: Streams) -> Result<Self> {
        let positive = |name: &str, x: f64| {
            if x > 0.0 && x.is_finite() { Ok(()) } else { Err(Error::parameter(name, x, "above 0 and finite")) }
        };
        positive("epsilon", options.epsilon)?;
        positive("initial_spread", options.initial_spread)?;
        positive("learning_rate", options.learning_rate)?;
        let (n, d) = targets.dim();
        let components = options.components;
        if components == 0 || components > n {
            return Err(Error::parameter("components", components, format!("between 1 and the {n} target samples")));
        }
        if options.batch == 0 {
            return Err(Error::parameter("batch", 0, "at least 1"));
        }
        finite("targets", targets)?;
        if d == 0 {
            return Err(Error::input("targets", "has no columns"));
        }
        if options.spread == Spread::Full
            && n > 1
            && let Some(j) = (0..d).find(|&j| targets.column(j).iter().all(|x| *x == targets[[0, j]]))
        {
            let problem = format!("column {j} is constant; a full spread needs variance in every direction");
            return Err(Error::input("targets", problem));
        }
        let mut rng = streams.stream("initial centres").rng(0);
        let centres = targets.select(Axis(0), rand::seq::index::sample(&mut rng, n, components).into_vec().as_slice());
        let full = options.spread == Spread::Full;
        let below = if full { rotation::count(d) } else { 0 };
        let mut parameters = vec![0.0; components * (1 + 2 * d + below)];
        let (a, rest) = parameters.split_at_mut(components);
        let (r, rest) = rest.split_at_mut(components * d);
        let (l, rest) = rest.split_at_mut(components * d);
        a.fill(-options.epsilon * (components as f64).ln());
        r.iter_mut().zip(&centres).for_each(|(r, c)| *r = *c);
        l.fill(options.initial_spread.ln());
        // S₀ I is the same in any axes; random ones keep the gradient from being blind to correlations.
        rest.iter_mut().for_each(|z| *z = rng.sample(StandardNormal));
        let bridge = LightBridge {
            epsilon: options.epsilon,
            log_alpha: Array1::zeros(components),
            centres,
            spectrum: Array2::zeros((components, d)),
            axes: full.then(|| Array3::zeros((components, d, d))),
        };
        let mut trainer = Self {
            by_parameter: vec![0.0; parameters.len()],
            rotations: Vec::new(),
            adam: Adam::new(options.learning_rate, parameters.len()),
            likelihood: Likelihood::new(&bridge, options.batch),
            gradient: Gradient::zeros(&bridge),
            x: Array2::zeros((options.batch, d)),
            y: Array2::zeros((options.batch, d)),
            batches: streams.stream("batches"),
            noise: streams.stream("matching noise"),
            parameters,
            bridge,
            options,
        };
        trainer.read_parameters()?;
        Ok(trainer)
    }

    /// The bridge as it stands.
    pub fn bridge(&self) -> &LightBridge {
        &self.bridge
    }

    /// The bridge, for good.
    pub fn into_bridge(self) -> LightBridge {
        self.bridge
    }

    /// Steps done so far.
    pub fn steps(&self) -> u64 {
        self.adam.steps()
    }

    /// One step on fresh batches; returns the loss before it.
    ///
    /// # Errors
    /// The loss or a parameter is no longer finite.
    pub fn step(&mut self, source: &impl Samples, target: &impl Samples) -> Result<f64> {
        let step = self.steps();
        source.fill(&mut self.batches.rng(2 * step), self.x.view_mut());
        target.fill(&mut self.batches.rng(2 * step + 1), self.y.view_mut());
        let loss = match self.options.objective {
            Objective::Likelihood => {
                self.likelihood.evaluate(&self.bridge, self.x.view(), self.y.view(), &mut self.gradient)
            }
            Objective::Matching => {
                let stream = self.noise.nested(step).stream("pairs");
                matching::evaluate(&self.bridge, self.x.view(), self.y.view(), stream, &mut self.gradient)
            }
        };
        if !loss.is_finite() {
            let advice = "centre and scale the data, lower the learning rate, or raise epsilon";
            return Err(Error::Numerical(format!("the loss is {loss} at step {step}; {advice}")));
        }
        self.write_gradient();
        self.adam.step(&mut self.parameters, &self.by_parameter);
        self.read_parameters()?;
        Ok(loss)
    }

    /// Does `steps` steps and calls `watch(step, mean loss, bridge)` after each of about 200 stretches.
    ///
    /// # Errors
    /// As for [`step`](Self::step), and [`Error::Cancelled`]; the bridge reached so far is kept.
    pub fn run(
        &mut self,
        source: &impl Samples,
        target: &impl Samples,
        steps: u64,
        progress: &Progress,
        mut watch: impl FnMut(u64, f64, &LightBridge) + Send,
    ) -> Result<()> {
        for (name, samples) in [("source", source.dim()), ("target", target.dim())] {
            if samples != self.bridge.dim() {
                let problem = format!("has dimension {samples}; the bridge has {}", self.bridge.dim());
                return Err(Error::input(name, problem));
            }
        }
        progress.begin("fitting the bridge", steps);
        let stretch = (steps / 200).max(1);
        // In the pool for good: entering it anew for every step would cost as much as the step.
        let outcome = rayon::scope(|_| {
            let mut done = 0;
            while done < steps {
                let count = stretch.min(steps - done);
                let mut sum = 0.0;
                for _ in 0..count {
                    sum += self.step(source, target)?;
                }
                done += count;
                let loss = sum / count as f64;
                watch(self.steps(), loss, &self.bridge);
                progress.status(&format!("loss {loss:.4}"));
                progress.advance(count)?;
            }
            Ok(())
        });
        progress.finish();
        outcome
    }

    /// Sets the bridge from the parameters.
    fn read_parameters(&mut self) -> Result<()> {
        let (components, d) = self.bridge.centres.dim();
        let (a, rest) = self.parameters.split_at(components);
        let (r, rest) = rest.split_at(components * d);
        let (l, below) = rest.split_at(components * d);
        let bridge = &mut self.bridge;
        bridge.log_alpha.iter_mut().zip(a).for_each(|(log_alpha, a)| *log_alpha = a / bridge.epsilon);
        bridge.centres.iter_mut().zip(r).for_each(|(centre, r)| *centre = *r);
        let spectrum = bridge.spectrum.as_slice_mut().expect("contiguous");
        spectrum.copy_from_slice(l);
        offprint_math::vector::exp(spectrum);
        if let Some(axes) = &mut bridge.axes {
            self.rotations.clear();
            for (k, mut axes) in axes.outer_iter_mut().enumerate() {
                let count = rotation::count(d);
                let rotation = Cayley::new(&below[k * count..(k + 1) * count], d)?;
                axes.assign(&rotation.q);
                self.rotations.push(rotation);
            }
        }
        Ok(())
    }

    /// Turns the gradient with respect to the bridge into that with respect to the parameters.
    fn write_gradient(&mut self) {
        let (components, d) = self.bridge.centres.dim();
        let (a, rest) = self.by_parameter.split_at_mut(components);
        let (r, rest) = rest.split_at_mut(components * d);
        let (l, below) = rest.split_at_mut(components * d);
        a.iter_mut().zip(&self.gradient.log_alpha).for_each(|(a, g)| *a = g / self.bridge.epsilon);
        r.iter_mut().zip(&self.gradient.centres).for_each(|(r, g)| *r = *g);
        l.iter_mut().zip(&self.gradient.log_spectrum).for_each(|(l, g)| *l = *g);
        let count = rotation::count(d);
        for (k, rotation) in self.rotations.iter().enumerate() {
            let below = &mut below[k * count..(k + 1) * count];
            rotation.pull_back(self.gradient.axes.index_axis(Axis(0), k), below);
        }
    }
}

/// Refuses samples (n, d) that are not finite.
pub(super) fn finite(name: &str, samples: ArrayView2<'_, f64>) -> Result<()> {
    match samples.indexed_iter().find(|(_, x)| !x.is_finite()) {
        Some(((i, j), x)) => Err(Error::input(name, format!("has {x} at row {i}, column {j}"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The loss as a function of the trainer's parameters, on the batch that it holds.
    fn loss(trainer: &mut Trainer, parameters: &[f64]) -> f64 {
        trainer.parameters.copy_from_slice(parameters);
        trainer.read_parameters().unwrap();
        match trainer.options.objective {
            Objective::Likelihood => {
                trainer.likelihood.evaluate(&trainer.bridge, trainer.x.view(), trainer.y.view(), &mut trainer.gradient)
            }
            Objective::Matching => {
                let pairs = trainer.noise.nested(0).stream("pairs");
                matching::evaluate(&trainer.bridge, trainer.x.view(), trainer.y.view(), pairs, &mut trainer.gradient)
            }
        }
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        for objective in [Objective::Likelihood, Objective::Matching] {
            for spread in [Spread::Diagonal, Spread::Full] {
                for (d, components, batch, epsilon) in [(3, 4, 7, 0.5), (1, 1, 1, 2.0), (2, 3, 150, 0.2)] {
                    let streams = Streams::new(d as u64);
                    let mut rng = streams.stream("points").rng(0);
                    let mut points = |n| Array2::from_shape_fn((n, d), |_| rng.sample::<f64, _>(StandardNormal));
                    let (x, y) = (points(batch), points(batch) * 0.7 + 0.3);
                    let targets = points(9);
                    let options = Options { epsilon, components, spread, objective, batch, ..Options::default() };
                    let mut trainer = Trainer::new(targets.view(), options, streams).unwrap();
                    (trainer.x, trainer.y) = (x, y);
                    let mut at = trainer.parameters.clone();
                    at.iter_mut().for_each(|p| *p += 0.3 * rng.sample::<f64, _>(StandardNormal));
                    loss(&mut trainer, &at);
                    trainer.write_gradient();
                    let gradient = trainer.by_parameter.clone();
                    for i in 0..at.len() {
                        let step = 1e-5;
                        let mut moved = |by: f64| {
                            let mut parameters = at.clone();
                            parameters[i] += by;
                            loss(&mut trainer, &parameters)
                        };
                        // Central difference of fourth order.
                        let near = (moved(step) - moved(-step)) / (2.0 * step);
                        let far = (moved(2.0 * step) - moved(-2.0 * step)) / (4.0 * step);
                        let expected = (4.0 * near - far) / 3.0;
                        assert!(
                            (gradient[i] - expected).abs() < 1e-6 * (1.0 + expected.abs()),
                            "{objective:?} {spread:?} d={d}, parameter {i}: {} beside {expected}",
                            gradient[i]
                        );
                    }
                }
            }
        }
    }
}
