//! The door: what a user may set, and what one run reports.

use super::examples::{Normal, draw, swiss_roll};
use super::fit::{Objective, Options, Spread, Trainer};
use super::measure::energy_distance;
use super::{LightBridge, view};
use crate::sinkhorn::{self, half_squared_distances};
use clap::ValueEnum;
use ndarray::{Array1, Array2, Array3, ArrayView2, Axis, concatenate, s};
use offprint_core::artifact::{Arrays, Metadata, read_safetensors};
use offprint_core::{Error, Figure, Method, Params, Result, Run, Source};
use offprint_math::linalg;
use rand::seq::SliceRandom;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Instant;

/// Light Schrödinger bridge.
pub struct LightSb;

/// Parameters of a light Schrödinger bridge.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LightSbParams {
    /// Source samples, one a row: .npy, .npz, .csv, .jsonl; the built-in example is a normal cloud
    #[arg(long, default_value = "builtin")]
    pub x0: Source,
    /// Target samples, one a row, as many columns; the built-in example is a swiss roll
    #[arg(long, default_value = "builtin")]
    pub x1: Source,
    /// How the bridge is found; the last two are baselines
    #[arg(long, value_enum, default_value_t = Solver::Light)]
    pub solver: Solver,
    /// Use this fitted model.safetensors instead of fitting one
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Points to send through the bridge; by default the source samples
    #[arg(long)]
    pub map: Option<Source>,
    /// Variance of the noise of a path over the unit of time, the entropic regularisation: in squared units of the data
    /// (with --normalise scale, of the scaled data)
    #[arg(long, default_value_t = 0.1)]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub epsilon: f64,
    /// Components K of the potential
    #[arg(long, default_value_t = 100)]
    #[schemars(range(min = 1, max = 100_000))]
    pub components: usize,
    /// Shape of the components' matrices S
    #[arg(long, value_enum, default_value_t = Spread::Diagonal)]
    pub spread: Spread,
    /// S at first, times the identity
    #[arg(long, default_value_t = 0.1)]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub initial_spread: f64,
    /// Step size of Adam
    #[arg(long, default_value_t = 1e-3)]
    #[schemars(range(max = 10), extend("exclusiveMinimum" = 0))]
    pub learning_rate: f64,
    /// Samples of each side per step
    #[arg(long, default_value_t = 128)]
    #[schemars(range(min = 1, max = 1_000_000), extend("unit" = "samples"))]
    pub batch: usize,
    /// Steps of Adam; of the baseline sinkhorn, iterations at most
    #[arg(long, default_value_t = 10_000)]
    #[schemars(range(min = 1, max = 1_000_000_000), extend("unit" = "steps"))]
    pub steps: u64,
    /// What is done to the samples before fitting and undone after: centre leaves epsilon's meaning alone
    #[arg(long, value_enum, default_value_t = Normalise::Centre)]
    pub normalise: Normalise,
    /// Part of both sample sets kept aside to measure the held-out loss
    #[arg(long, default_value_t = 0.2)]
    #[schemars(range(min = 0, max = 0.9))]
    pub held_out: f64,
    /// Times at which samples and the drift are saved
    #[arg(long, value_delimiter = ',', default_values_t = [0.25, 0.5, 0.75])]
    pub times: Vec<f64>,
    /// Steps of a simulated path
    #[arg(long, default_value_t = 100)]
    #[schemars(range(min = 1, max = 100_000), extend("unit" = "steps"))]
    pub path_steps: usize,
    /// Simulated paths that are saved and drawn
    #[arg(long, default_value_t = 60)]
    #[schemars(range(min = 1, max = 100_000), extend("unit" = "paths"))]
    pub paths: usize,
}
offprint_core::defaults_from_flags!(LightSbParams);

/// How the bridge is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Solver {
    /// The paper's: maximum likelihood of the mixture potential.
    Light,
    /// LightSB-M: bridge matching with the same model.
    Matching,
    /// Discrete entropic transport between the samples, mapped out of sample.
    Sinkhorn,
}

/// What is done to the samples before fitting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Normalise {
    /// Nothing.
    None,
    /// Both means are moved to the origin.
    Centre,
    /// Both means are moved to the origin, and all is divided by the mean standard deviation of the features.
    Scale,
}

impl Params for LightSbParams {
    fn check(&self) -> Result<()> {
        if let Some(t) = self.times.iter().find(|t| !(0.0..1.0).contains(*t)) {
            return Err(Error::parameter("times", t, "at least 0 and below 1 (the drift is singular at 1)"));
        }
        if self.times.len() > 1000 {
            return Err(Error::parameter("times", format!("{} times", self.times.len()), "at most 1000 times"));
        }
        if self.model.is_some() && self.solver != Solver::Light {
            return Err(Error::parameter("model", "a file", "left out with a baseline solver"));
        }
        Ok(())
    }
}

/// Samples of both sides.
struct Data {
    x0: Array2<f64>,
    x1: Array2<f64>,
}

impl Data {
    /// The user's files, or the built-in pair in place of those that are not given.
    fn read(params: &LightSbParams, run: &Run) -> Result<Self> {
        let builtin = run.stream("built-in samples");
        let x0 =
            if params.x0.is_builtin() { draw(&Normal(2), 4000, &mut builtin.rng(0)) } else { params.x0.matrix()? };
        let x1 = if params.x1.is_builtin() { swiss_roll(4000, &mut builtin.rng(1)) } else { params.x1.matrix()? };
        if x0.ncols() != x1.ncols() {
            let problem = format!("has {} columns, but x0 ({}) has {}", x1.ncols(), params.x0, x0.ncols());
            return Err(Error::input(params.x1.to_string(), problem));
        }
        Ok(Self { x0, x1 })
    }

    /// Two disjoint random parts; the second has `fraction` of each side, and may be empty.
    fn split(&self, fraction: f64, run: &Run) -> (Self, Self) {
        let part = |x: &Array2<f64>, index: u64| {
            let mut rows: Vec<usize> = (0..x.nrows()).collect();
            rows.shuffle(&mut run.stream("split").rng(index));
            let aside = ((x.nrows() as f64 * fraction) as usize).min(x.nrows() - 1);
            (x.select(Axis(0), &rows[aside..]), x.select(Axis(0), &rows[..aside]))
        };
        let ((x0, aside0), (x1, aside1)) = (part(&self.x0, 0), part(&self.x1, 1));
        (Self { x0, x1 }, Self { x0: aside0, x1: aside1 })
    }
}

impl Method for LightSb {
    type Params = LightSbParams;

    fn run(params: &LightSbParams, run: &mut Run) -> Result<()> {
        match (&params.model, params.solver) {
            (Some(path), _) => {
                let (arrays, words) = read_safetensors(path)?;
                let bridge = LightBridge::from_arrays(&arrays, &words, &path.display().to_string())?;
                let data = if params.x0.is_builtin() && params.x1.is_builtin() && bridge.dim() != 2 {
                    None
                } else {
                    Some(Data::read(params, run)?)
                };
                report_bridge(params, run, &bridge, data.as_ref())
            }
            (None, Solver::Sinkhorn) => run_sinkhorn(params, run),
            (None, _) => {
                let data = Data::read(params, run)?;
                let Fit { bridge, loss, outcome } = fit(params, run, &data)?;
                // A fit that was stopped leaves a bridge all the same.
                let (arrays, words) = bridge.to_arrays();
                run.save_arrays("model.safetensors", arrays, words)?;
                let reported = outcome.and_then(|()| report_bridge(params, run, &bridge, Some(&data)));
                run.figure("loss", loss);
                reported
            }
        }
    }
}

/// What fitting gives, complete or stopped.
struct Fit {
    /// In the units of the data.
    bridge: LightBridge,
    /// The loss over the steps.
    loss: Figure,
    /// Whether it came to its end.
    outcome: Result<()>,
}

/// Fits a bridge to the data, and tells how well.
fn fit(params: &LightSbParams, run: &mut Run, data: &Data) -> Result<Fit> {
    let (mut train, mut test) = data.split(params.held_out, run);
    let d = train.x0.ncols();
    let zeros = Array1::zeros(d);
    let (mean0, mean1) = match params.normalise {
        Normalise::None => (zeros.clone(), zeros),
        _ => (train.x0.mean_axis(Axis(0)).expect("a row"), train.x1.mean_axis(Axis(0)).expect("a row")),
    };
    for part in [&mut train, &mut test] {
        part.x0 -= &mean0;
        part.x1 -= &mean1;
    }
    let scale = if params.normalise == Normalise::Scale {
        let both = concatenate![Axis(0), train.x0, train.x1];
        both.std_axis(Axis(0), 0.0).mean().expect("a column")
    } else {
        1.0
    };
    if !(scale > 0.0 && scale.is_finite()) {
        return Err(Error::input(
            params.x1.to_string(),
            format!("has a scale of {scale}; samples that differ are needed"),
        ));
    }
    for part in [&mut train, &mut test] {
        part.x0 /= scale;
        part.x1 /= scale;
    }
    let objective = if params.solver == Solver::Matching { Objective::Matching } else { Objective::Likelihood };
    let options = Options {
        epsilon: params.epsilon,
        components: params.components,
        spread: params.spread,
        initial_spread: params.initial_spread,
        objective,
        learning_rate: params.learning_rate,
        batch: params.batch,
    };
    let mut trainer = Trainer::new(train.x1.view(), options, run.streams())?;
    let has_test = test.x0.nrows() > 0 && test.x1.nrows() > 0;
    let started = Instant::now();
    let (mut curve, mut held_out) = (Vec::new(), Vec::new());
    // Held-out losses are worth one look in ten.
    let mut looks = 0;
    let watch = |step: u64, loss: f64, bridge: &LightBridge| {
        curve.push((step as f64, loss));
        if has_test && looks % 10 == 9 {
            held_out.push((step as f64, bridge.loss(test.x0.view(), test.x1.view()).unwrap_or(f64::NAN)));
        }
        looks += 1;
    };
    let outcome = match trainer.run(&train.x0.view(), &train.x1.view(), params.steps, &run.progress(), watch) {
        Err(error) if !matches!(error, Error::Cancelled) => return Err(error),
        outcome => outcome,
    };
    let seconds = started.elapsed().as_secs_f64();
    let steps = trainer.steps();
    let bridge = trainer.into_bridge();
    run.metric("training time", seconds, "s");
    run.metric("steps per second", steps as f64 / seconds, "1/s");
    run.metric("loss, training samples", bridge.loss(train.x0.view(), train.x1.view())?, "");
    if has_test {
        let loss = bridge.loss(test.x0.view(), test.x1.view())?;
        run.metric("loss, held out", loss, "");
        held_out.push((steps as f64, loss));
    }
    if params.normalise == Normalise::Scale {
        run.metric("scale of the data", scale, "");
        run.metric("epsilon in squared units of the data", bridge.epsilon() * scale * scale, "");
    }
    let usage = bridge.usage(train.x0.view())?;
    // exp of the entropy: how many components of equal weight would be as varied.
    let entropy: f64 = usage.iter().filter(|w| **w > 0.0).map(|w| -w * w.ln()).sum();
    run.metric("effective components", entropy.exp(), "");
    let loss = view::loss(objective, &curve, &held_out);
    Ok(Fit { bridge: bridge.in_units(scale, mean0.view(), mean1.view()), loss, outcome })
}

/// Sends points through a bridge and saves all that it says of them.
fn report_bridge(params: &LightSbParams, run: &mut Run, bridge: &LightBridge, data: Option<&Data>) -> Result<()> {
    let x = match (&params.map, data) {
        (Some(source), _) => source.matrix()?,
        (None, Some(data)) => data.x0.clone(),
        (None, None) => {
            let wanted = format!("given for a model of dimension {}: --map or --x0", bridge.dim());
            return Err(Error::parameter("map", "nothing", wanted));
        }
    };
    bridge.same_dim(&params.map.as_ref().unwrap_or(&params.x0).to_string(), x.view())?;
    let plan = bridge.plan();
    let mapped = plan.sample(x.view(), run.stream("ends"))?;
    let mean = plan.mean(x.view())?;
    run.metric("epsilon", bridge.epsilon(), "");
    run.metric("components", bridge.components() as f64, "");
    run.metric("mean cost", mean_cost(x.view(), mapped.view()), "");
    let (mut places, mut drifts) = (Arrays::new(), Arrays::new());
    for (i, &time) in params.times.iter().enumerate() {
        let place =
            bridge.between(x.view(), mapped.view(), time, run.stream("places").nested(i as u64).stream("noise"))?;
        drifts.insert(format!("t={time}"), bridge.drift(place.view(), time)?.into());
        places.insert(format!("t={time}"), place.into());
    }
    let mut densities = Arrays::from([("log_c_map".into(), bridge.log_c(x.view())?.into())]);
    densities.insert("log_conditional_map".into(), bridge.log_conditional(x.view(), mapped.view())?.into());
    if let Some(data) = data {
        bridge.same_dim("x1", data.x1.view())?;
        densities.insert("log_v_x1".into(), bridge.log_v(data.x1.view())?.into());
        end_distance(run, mapped.view(), data.x1.view())?;
    }
    let paths = simulate(params, run, bridge, x.view())?;
    run.figure("bridge", view::bridge(x.view(), data.map(|d| d.x1.view()), mapped.view(), mean.view(), paths.view()));
    run.figure("marginals", view::marginals(bridge, x.view(), mapped.view(), run.stream("snapshots"))?);
    if !params.times.is_empty() {
        run.save_arrays("places.npz", places, Metadata::new())?;
        run.save_arrays("drifts.npz", drifts, Metadata::new())?;
    }
    run.save_arrays("log_densities.npz", densities, Metadata::new())?;
    run.save_array("paths.npy", paths)?;
    run.save_array("mapped.npy", mapped)?;
    run.save_array("mapped_mean.npy", mean)
}

/// Paths from evenly chosen rows of `x`.
fn simulate(params: &LightSbParams, run: &Run, bridge: &LightBridge, x: ArrayView2<'_, f64>) -> Result<Array3<f64>> {
    let count = params.paths.min(x.nrows());
    let rows: Vec<usize> = (0..count).map(|i| i * x.nrows() / count).collect();
    bridge.simulate(x.select(Axis(0), &rows).view(), params.path_steps, 1, run.stream("paths"), &run.progress())
}

/// The discrete baseline: the entropic plan between the samples, and its out-of-sample map.
fn run_sinkhorn(params: &LightSbParams, run: &mut Run) -> Result<()> {
    const MOST: usize = 50_000_000;
    let data = Data::read(params, run)?;
    let (train, _) = data.split(params.held_out, run);
    let (n, m) = (train.x0.nrows(), train.x1.nrows());
    if n.saturating_mul(m) > MOST {
        let problem =
            format!("with x0 makes a plan of {n} × {m}; sinkhorn keeps it whole and takes {MOST} entries at most");
        return Err(Error::input(params.x1.to_string(), problem));
    }
    let (a, b) = (Array1::from_elem(n, 1.0 / n as f64), Array1::from_elem(m, 1.0 / m as f64));
    // Moving both means to the origin leaves the plan alone and keeps digits.
    let (mean0, mean1) = (train.x0.mean_axis(Axis(0)).expect("a row"), train.x1.mean_axis(Axis(0)).expect("a row"));
    let cost = half_squared_distances((&train.x0 - &mean0).view(), (&train.x1 - &mean1).view());
    let options = sinkhorn::Options { tolerance: 1e-6, max_iterations: params.steps as usize };
    let started = Instant::now();
    let solution = sinkhorn::sinkhorn(cost.view(), a.view(), b.view(), params.epsilon, options, &run.progress())?;
    run.metric("solving time", started.elapsed().as_secs_f64(), "s");
    run.metric("iterations", solution.iterations as f64, "");
    run.metric("marginal error", solution.marginal_error, "");
    if !solution.converged {
        run.warn(format!("sinkhorn stopped after {} iterations; raise --steps or --epsilon", solution.iterations));
    }
    let x = params.map.as_ref().map_or_else(|| Ok(data.x0.clone()), Source::matrix)?;
    if x.ncols() != train.x0.ncols() {
        let problem = format!("has {} columns; the samples have {}", x.ncols(), train.x0.ncols());
        return Err(Error::input("map", problem));
    }
    let new_cost = half_squared_distances((&x - &mean0).view(), (&train.x1 - &mean1).view());
    let weights = solution.conditional(new_cost.view(), b.view());
    let mean = linalg::matmul(weights.view(), train.x1.view());
    let ends = run.stream("ends");
    let mut mapped = Array2::zeros(x.dim());
    for (i, mut row) in mapped.rows_mut().into_iter().enumerate() {
        use rand::RngExt;
        row.assign(&train.x1.row(super::bridge::draw(weights.row(i), ends.rng(i as u64).random())));
    }
    run.metric("mean cost", mean_cost(x.view(), mapped.view()), "");
    end_distance(run, mapped.view(), data.x1.view())?;
    // Straight lines: the discrete plan has no process of its own.
    let count = params.paths.min(x.nrows());
    let rows: Vec<usize> = (0..count).map(|i| i * x.nrows() / count).collect();
    let mut lines = Array3::zeros((count, 2, x.ncols()));
    lines.slice_mut(s![.., 0, ..]).assign(&x.select(Axis(0), &rows));
    lines.slice_mut(s![.., 1, ..]).assign(&mapped.select(Axis(0), &rows));
    run.figure("bridge", view::bridge(x.view(), Some(data.x1.view()), mapped.view(), mean.view(), lines.view()));
    run.save_array("f.npy", solution.f.clone())?;
    run.save_array("g.npy", solution.g.clone())?;
    run.save_array("mapped.npy", mapped)?;
    run.save_array("mapped_mean.npy", mean)
}

/// ½|x − y|² on average over pairs.
fn mean_cost(x: ArrayView2<'_, f64>, y: ArrayView2<'_, f64>) -> f64 {
    (&x - &y).mapv(|z| 0.5 * z * z).sum() / x.nrows() as f64
}

/// How far the ends are from the target samples, on up to 4000 of each.
fn end_distance(run: &mut Run, mapped: ArrayView2<'_, f64>, x1: ArrayView2<'_, f64>) -> Result<()> {
    let some = |z: &ArrayView2<'_, f64>| {
        let count = z.nrows().min(4000);
        let rows: Vec<usize> = (0..count).map(|i| i * z.nrows() / count).collect();
        z.select(Axis(0), &rows)
    };
    let distance = energy_distance(some(&mapped).view(), some(&x1).view())?;
    run.metric("energy distance to the target samples", distance, "");
    Ok(())
}
