//! The door: what a user may set, and what one run reports.

use super::objective::Target;
use super::source::{Model, Setup};
use super::{
    Diffusion, Epsilon, ExactFields, Fields, Generated, Integrator, Interpolant, Interpolants, Keep, flow,
    log_density_of_flow, view,
};
use crate::exact::ExactMixture;
use crate::likelihood::Divergence;
use crate::metrics::{energy_distance, kolmogorov_smirnov};
use crate::network::Reading;
use crate::ode::Tolerance;
use crate::{Gamma, check};
use clap::ValueEnum;
use ndarray::{Array2, ArrayView2, s};
use offprint_core::{Error, Method, Params, Picture, Progress, Result, Run, Source};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Instant;

/// Parameters of a bridge between two laws.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct InterpolantsParams {
    /// What is bridged when no data, mixtures or model are given
    #[arg(long, value_enum, default_value_t = Example::Line)]
    pub example: Example,
    /// Samples of the start, one a row: .npy, .npz, .csv, .jsonl, images (n, h, w) or (n, h, w, c), or a folder of .png
    /// files, whose values run from −1 to 1; without them a start from noise
    #[arg(long, default_value = "builtin")]
    pub x0: Source,
    /// Samples of the end, one a row, as many columns; fields are then learnt from them
    #[arg(long, default_value = "builtin")]
    pub x1: Source,
    /// Law of the start as JSON {"weights", "means", "covs"}; without it standard normal
    #[arg(long, value_name = "FILE")]
    pub mixture0: Option<PathBuf>,
    /// Law of the end as JSON {"weights", "means", "covs"}: fields are then exact
    #[arg(long, value_name = "FILE")]
    pub mixture1: Option<PathBuf>,
    /// Use this model in place of training: .safetensors of a bridge or a diffusion that was trained here, or .onnx of a
    /// diffusion or a flow from noise that was exported anywhere
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// What an .onnx model means, as in predicts=eps,schedule=scaled-linear,time=index,shape=3x32x32: each word wrong is
    /// answered with those that there are; words in the file's metadata under "offprint" need not be repeated
    #[arg(long, value_name = "WORDS")]
    pub onnx: Option<Reading>,
    /// How the ends are mixed over time; by default linear, and one-sided-linear where the start is noise
    #[arg(long, value_enum)]
    pub path: Option<PathName>,
    /// The latent noise between two data sets
    #[arg(long, value_enum, default_value_t = GammaName::Brownian)]
    pub gamma: GammaName,
    /// Variance A of the Brownian noise √(A t(1−t)); with the entropic coupling also its regularisation
    #[arg(long, default_value_t = 1.0)]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub gamma_scale: f64,
    /// Which end goes with a start
    #[arg(long, value_enum, default_value_t = CouplingName::Independent)]
    pub coupling: CouplingName,
    /// Noise of the diffusion dX = (b + ε s) dt + √(2ε) dW; 0 leaves the flow alone
    #[arg(long, default_value_t = 0.5)]
    #[schemars(range(min = 0, max = 1000))]
    pub epsilon: f64,
    /// How epsilon goes over time; by default constant, and bump where the start is noise (the score is steep at the end)
    #[arg(long, value_enum)]
    pub epsilon_shape: Option<EpsilonShape>,
    /// How a step of the diffusion is taken; the flow takes steps of Runge–Kutta
    #[arg(long, value_enum, default_value_t = IntegratorName::EulerMaruyama)]
    pub integrator: IntegratorName,
    /// Steps of a process
    #[arg(long, default_value_t = 200)]
    #[schemars(range(min = 1, max = 1_000_000), extend("unit" = "steps"))]
    pub steps: usize,
    /// Generated points
    #[arg(long, default_value_t = 2500)]
    #[schemars(range(min = 2, max = 10_000_000), extend("unit" = "samples"))]
    pub samples: usize,
    /// Run from the end to the start
    #[arg(long)]
    pub backward: bool,
    /// Paths that are saved and drawn
    #[arg(long, default_value_t = 60)]
    #[schemars(range(min = 1, max = 100_000), extend("unit" = "paths"))]
    pub paths: usize,
    /// Points whose log-density under the flow is saved; by default the first 200 of the end
    #[arg(long)]
    pub likelihood: Option<Source>,
    /// Width of the hidden layers of both networks
    #[arg(long, default_value_t = 64)]
    #[schemars(range(min = 1, max = 8192))]
    pub width: usize,
    /// Hidden layers of both networks
    #[arg(long, default_value_t = 3)]
    #[schemars(range(min = 1, max = 64))]
    pub depth: usize,
    /// Whether the second network learns the denoiser of the latent noise or the score itself
    #[arg(long, value_enum, default_value_t = Second::Denoiser)]
    pub second: Second,
    /// Steps of training
    #[arg(long, default_value_t = 2000)]
    #[schemars(range(min = 1, max = 100_000_000), extend("unit" = "steps"))]
    pub train_steps: u64,
    /// Pairs in a step of training
    #[arg(long, default_value_t = 512)]
    #[schemars(range(min = 1, max = 1_000_000), extend("unit" = "samples"))]
    pub batch: usize,
    /// First step size of Adam; it falls by 0.4 every 1500 steps
    #[arg(long, default_value_t = 2e-3)]
    #[schemars(range(max = 10), extend("exclusiveMinimum" = 0))]
    pub learning_rate: f64,
}
offprint_core::defaults_from_flags!(InterpolantsParams);

/// A built-in example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Example {
    /// Two and three Gaussians on a line, exact fields.
    Line,
    /// One and three Gaussians in the plane, exact fields.
    Plane,
    /// Noise to a checkerboard, learnt fields.
    Checkerboard,
    /// Handwritten threes to eights, learnt fields.
    Digits,
    /// Noise to handwritten digits by the shipped network, without training.
    Digits8,
}

/// How the ends are mixed over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PathName {
    /// (1−t) x₀ + t x₁.
    Linear,
    /// Cosine and sine, shrunk for the noise.
    Trigonometric,
    /// Through pure noise in the middle.
    EncodingDecoding,
    /// x₁ to itself through noise.
    Mirror,
    /// Linear, where x₀ is the noise.
    OneSidedLinear,
    /// Cosine and sine, where x₀ is the noise.
    OneSidedTrigonometric,
    /// A variance-preserving diffusion run backward.
    OneSidedVp,
}

/// The latent noise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GammaName {
    /// √(A t(1−t)).
    Brownian,
    /// t(1−t).
    Quadratic,
    /// sin²(πt).
    SineSquared,
    /// A smooth plateau.
    Sigmoid,
    /// None: a rectified flow.
    Zero,
}

/// Which end goes with a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CouplingName {
    /// Any with any.
    Independent,
    /// Row i with row i.
    Paired,
    /// Least squared distance within each batch.
    MinibatchTransport,
    /// The entropic plan: with path linear and gamma brownian a Schrödinger bridge.
    Entropic,
}

/// How ε goes over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EpsilonShape {
    /// The same at all times.
    Constant,
    /// 4 t(1−t) times epsilon: none at the ends.
    Bump,
}

/// How a step of the diffusion is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum IntegratorName {
    /// Noise first, then Heun.
    Heun,
    /// Euler and Maruyama.
    EulerMaruyama,
}

/// What the second network learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Second {
    /// E[z | x].
    Denoiser,
    /// The score.
    Score,
}

impl Params for InterpolantsParams {
    fn check(&self) -> Result<()> {
        let given = [
            ("x0", !self.x0.is_builtin()),
            ("x1", !self.x1.is_builtin()),
            ("mixture0", self.mixture0.is_some()),
            ("mixture1", self.mixture1.is_some()),
        ];
        let is_given = |name: &str| given.iter().any(|(n, g)| *n == name && *g);
        if (is_given("x0") || is_given("x1")) && (is_given("mixture0") || is_given("mixture1")) {
            return Err(Error::parameter("x1", "samples beside mixtures", "samples or mixtures, not both"));
        }
        if is_given("x0") && !is_given("x1") && self.model.is_none() {
            return Err(Error::parameter("x1", "nothing", "given with x0: the samples to arrive at"));
        }
        if is_given("mixture0") && !is_given("mixture1") {
            return Err(Error::parameter("mixture1", "nothing", "given with mixture0: the law to arrive at"));
        }
        if self.coupling == CouplingName::Entropic
            && (self.gamma != GammaName::Brownian || !matches!(self.path, None | Some(PathName::Linear)))
        {
            return Err(Error::parameter(
                "coupling",
                "entropic",
                "with path linear and gamma brownian, or another one",
            ));
        }
        Ok(())
    }
}

impl InterpolantsParams {
    /// γ as set.
    pub(super) fn gamma(&self) -> Gamma {
        match self.gamma {
            GammaName::Brownian => Gamma::Brownian { scale: self.gamma_scale },
            GammaName::Quadratic => Gamma::Quadratic,
            GammaName::SineSquared => Gamma::SineSquared,
            GammaName::Sigmoid => Gamma::Sigmoid { steepness: 10.0 },
            GammaName::Zero => Gamma::Zero,
        }
    }

    /// What the second network learns.
    pub(super) fn second(&self) -> Target {
        match self.second {
            Second::Denoiser => Target::Latent,
            Second::Score => Target::Score,
        }
    }

    fn epsilon(&self, value: f64, path: &Interpolant) -> Epsilon {
        let usual = if path.is_one_sided() { EpsilonShape::Bump } else { EpsilonShape::Constant };
        match self.epsilon_shape.unwrap_or(usual) {
            EpsilonShape::Constant => Epsilon::Constant(value),
            EpsilonShape::Bump => Epsilon::Bump(value),
        }
    }

    fn integrator(&self) -> Integrator {
        match self.integrator {
            IntegratorName::Heun => Integrator::Heun,
            IntegratorName::EulerMaruyama => Integrator::EulerMaruyama,
        }
    }
}

impl Method for Interpolants {
    type Params = InterpolantsParams;

    fn run(params: &InterpolantsParams, run: &mut Run) -> Result<()> {
        let setup = Setup::new(params, run)?;
        let begun = Instant::now();
        let work = Work { params, setup: &setup };
        let (start, target) = work.ends(run)?;
        let progress = run.progress();
        let epsilons = work.epsilons();
        progress.begin("generating", (params.steps * epsilons.len()) as u64);
        let runs = epsilons
            .iter()
            .map(|&epsilon| {
                let keep = Keep { points: params.paths, every: params.steps.div_ceil(100) };
                work.generate(start.clone(), (epsilon, params.steps), keep, run.stream("noise"), &progress)
            })
            .collect::<Result<Vec<_>>>()?;
        progress.finish();
        run.metric("generating time", begun.elapsed().as_secs_f64(), "s");
        run.metric("dimension", start.ncols() as f64, "");
        let named: Vec<(String, &Generated)> = epsilons.iter().map(|e| work.label(*e)).zip(&runs).collect();
        for (name, generated) in &named {
            let (measure, value) = work.distance(generated.x.view(), target.view())?;
            run.metric(&format!("{measure}, {name}"), value, "");
        }
        work.figures(run, &named, (start.view(), target.view()))?;
        work.likelihood(run, target.view())?;
        for (epsilon, generated) in epsilons.iter().zip(runs) {
            let kind = if *epsilon == 0.0 { "flow".into() } else { format!("epsilon-{epsilon}") };
            run.save_array(&format!("samples-{kind}.npy"), generated.x)?;
            run.save_array(&format!("paths-{kind}.npy"), generated.paths)?;
            run.save_array("times.npy", generated.times)?;
        }
        Ok(())
    }
}

/// One run.
struct Work<'a> {
    params: &'a InterpolantsParams,
    setup: &'a Setup,
}

impl Work<'_> {
    fn fields(&self) -> &dyn Fields {
        self.setup.model.fields()
    }

    /// The times that processes run between.
    fn span(&self) -> (f64, f64) {
        let (from, to) = self.setup.span;
        if self.params.backward { (to, from) } else { (from, to) }
    }

    /// Points to start from, and points of the law that should be arrived at.
    fn ends(&self, run: &Run) -> Result<(Array2<f64>, Array2<f64>)> {
        let (x0, _) = self.setup.pairs.draw(self.params.samples, run.stream("starts"))?;
        let (_, x1) = self.setup.pairs.draw(self.params.samples, run.stream("targets"))?;
        Ok(if self.params.backward { (x1, x0) } else { (x0, x1) })
    }

    /// The values of ε that are shown: the flow, the one asked for, and in the example on the line a large one.
    fn epsilons(&self) -> Vec<f64> {
        let mut all = vec![0.0];
        if self.params.epsilon > 0.0 && self.setup.has_score {
            all.push(self.params.epsilon);
        }
        if self.setup.is_line_example && self.params.epsilon == 0.5 {
            all.push(5.0);
        }
        all
    }

    fn label(&self, epsilon: f64) -> String {
        if epsilon == 0.0 { "flow, ε = 0".into() } else { format!("diffusion, ε = {epsilon}") }
    }

    fn generate(
        &self,
        start: Array2<f64>,
        (epsilon, steps): (f64, usize),
        keep: Keep,
        stream: offprint_core::random::Stream,
        progress: &Progress,
    ) -> Result<Generated> {
        let span = self.span();
        let mut generated = if epsilon == 0.0 {
            flow(self.fields(), start, (steps, span), keep, progress)?
        } else {
            let process = Diffusion {
                epsilon: self.params.epsilon(epsilon, self.fields().path()),
                integrator: self.params.integrator(),
                steps,
                span,
            };
            process.run(self.fields(), start, keep, stream, progress)?
        };
        // What stops just before the end takes the mean of the end as its last step.
        if !self.params.backward && span.1 < 1.0 && self.setup.has_score {
            generated.x = self.fields().end(generated.x.view(), span.1)?;
        }
        Ok(generated)
    }

    /// How far `x` (n, d) is from the law that should be arrived at: by its distribution function on a line, otherwise by
    /// `target` samples.
    fn distance(&self, x: ArrayView2<'_, f64>, target: ArrayView2<'_, f64>) -> Result<(&'static str, f64)> {
        if let (Model::Exact(exact), 1) = (&self.setup.model, x.ncols()) {
            let law = if self.params.backward { exact.joint().starts() } else { exact.joint().ends() };
            let values = x.column(0).to_vec();
            return Ok(("Kolmogorov–Smirnov distance", kolmogorov_smirnov(&values, |x| super::line::cdf(law, x))));
        }
        const MOST: usize = 3000;
        let some = |x: ArrayView2<'_, f64>| x.slice(s![..x.nrows().min(MOST), ..]).to_owned();
        Ok(("energy distance", energy_distance(some(x).view(), some(target).view())?))
    }

    fn figures(
        &self,
        run: &mut Run,
        runs: &[(String, &Generated)],
        (start, target): (ArrayView2<'_, f64>, ArrayView2<'_, f64>),
    ) -> Result<()> {
        let exact: Option<&ExactFields> = match &self.setup.model {
            Model::Exact(exact) => Some(exact),
            Model::Learned(_) | Model::Shared(_) => None,
        };
        let d = start.ncols();
        // All points of all paths, with a margin.
        let range = |j: usize| {
            let all =
                runs.iter().flat_map(|(_, run)| run.paths.slice(s![.., .., j]).iter().copied().collect::<Vec<_>>());
            let (low, high) = all.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
            let margin = 0.05 * (high - low).max(1e-9);
            (low - margin, high + margin)
        };
        if d == 1 {
            run.figure("bridge", view::line(exact, runs, range(0))?);
        } else {
            let square = Picture { channels: 1, height: d.isqrt(), width: d.isqrt() };
            let picture = self.setup.picture.or((square.len() == d && d >= 16).then_some(square));
            if let Some(picture) = picture.filter(|picture| picture.len() == d) {
                for (i, (name, generated)) in runs.iter().enumerate() {
                    run.figure(&format!("images-{i}"), view::pictures(generated, name, picture));
                }
            }
            run.figure("bridge", view::plane(start, target, runs));
        }
        run.figure("moving", view::moving(exact, runs, range, d)?);
        self.costs(run, start, target)
    }

    /// Quality over the number of steps, where a run is cheap.
    fn costs(&self, run: &mut Run, start: ArrayView2<'_, f64>, target: ArrayView2<'_, f64>) -> Result<()> {
        const STEPS: [usize; 6] = [3, 6, 12, 25, 50, 100];
        let few = start.slice(s![..start.nrows().min(1500), ..]);
        let progress = run.progress();
        progress.begin("quality over cost", (STEPS.iter().sum::<usize>() * self.epsilons().len()) as u64);
        let mut curves = Vec::new();
        let mut measure = "";
        for epsilon in self.epsilons() {
            let mut values = Vec::new();
            for steps in STEPS {
                let stream = run.stream("noise of the costs").nested(steps as u64).stream("noise");
                let generated = self.generate(few.to_owned(), (epsilon, steps), Keep::NOTHING, stream, &progress);
                // Too few steps may diverge: a gap in the curve.
                let value = match generated {
                    Ok(generated) => {
                        let (name, value) = self.distance(generated.x.view(), target)?;
                        measure = name;
                        value.max(1e-5)
                    }
                    Err(Error::Numerical(_)) => f64::NAN,
                    Err(other) => return Err(other),
                };
                values.push(value);
            }
            curves.push((self.label(epsilon), values));
        }
        progress.finish();
        let (_, again) = self.setup.pairs.draw(few.nrows(), run.stream("targets again"))?;
        let (_, floor) = self.distance(again.view(), target)?;
        run.figure("quality-cost", view::costs(&STEPS, &curves, measure, floor.abs().max(1e-5)));
        Ok(())
    }

    /// log ρ̂₁ under the flow, where the law of the start is known.
    fn likelihood(&self, run: &mut Run, target: ArrayView2<'_, f64>) -> Result<()> {
        const DEFAULT: usize = 200;
        const LARGEST: usize = 64;
        let d = target.ncols();
        let points = match &self.params.likelihood {
            Some(source) => source.points()?.values,
            // Without being asked only where it is cheap and possible.
            None if self.params.backward || d > 16 || self.setup.start_law.is_none() => return Ok(()),
            None => target.slice(s![..target.nrows().min(DEFAULT), ..]).to_owned(),
        };
        let name = self.params.likelihood.as_ref().map_or("x1".to_owned(), Source::to_string);
        check::dimension(&name, points.view(), "the model", d)?;
        let Some(law) = &self.setup.start_law else {
            let allowed = "left out: the law of x0 is known by its samples only, and the flow needs its density";
            return Err(Error::parameter("likelihood", name, allowed));
        };
        let law = ExactMixture::new(law.clone())?;
        let divergence = if d <= LARGEST {
            Divergence::Exact
        } else {
            Divergence::Hutchinson { probes: 8, stream: run.stream("probes") }
        };
        let tolerance = Tolerance { absolute: 1e-5, relative: 1e-5 };
        let start = |x: ArrayView2<'_, f64>| law.log_density(x, 0.0);
        let span = self.setup.span;
        let how = (divergence, tolerance);
        let (log, calls) = log_density_of_flow(self.fields(), points.view(), span, start, how, &run.progress())?;
        run.metric("mean log-likelihood of the flow", log.mean().unwrap_or(f64::NAN), "nat");
        run.metric("calls of the velocity for it", calls as f64, "");
        run.save_array("log_likelihood.npy", log)
    }
}
