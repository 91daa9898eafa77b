//! The door: what a user may set, and what one run reports.

use super::examples::{classes, experts, line, ring};
use super::models::{Bound, Loaded, is_network, read, read_reward};
use super::{
    Annealing, Cooling, Corrector, DoubleWell, Energy, Lattice, Length, LennardJones, Linear, Particles, Product, Ramp,
    Reward, Scheme, Settings, Target, Tempered, Tilted, When, annealed_importance_sampling, cool, pair_distances,
    read_xyz, view,
};
use crate::network::{Digits8, Reading};
use crate::{Grid, Schedule};
use clap::ValueEnum;
use ndarray::{Array1, Array2, ArrayView2, Axis, array};
use offprint_core::artifact::{Arrays, Metadata};
use offprint_core::{Error, Method, Params, Result, Run, Source, Table};
use offprint_math::samples::wasserstein_sorted;
use offprint_math::stats::quantile;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Instant;

/// Feynman-Kac correctors.
pub struct FeynmanKac;

/// Parameters of weighted simulation.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FeynmanKacParams {
    /// What is sampled
    #[arg(long, value_enum, default_value_t = Task::Anneal)]
    pub task: Task,
    /// The model q (guide: the unconditional one): a mixture .json {"weights", "means", "covs"}, a network .safetensors
    /// that was trained here or .onnx that was exported anywhere, or points, one a row (.npy, .csv, a folder of .png), taken
    /// as a kernel density; each task has a built-in example
    #[arg(long, default_value = "builtin")]
    pub model: Source,
    /// What an .onnx model means, as in predicts=eps,schedule=scaled-linear,time=index,shape=3x32x32: each word wrong is
    /// answered with those that there are; words in the file's metadata under "offprint" need not be repeated
    #[arg(long, value_name = "WORDS")]
    pub onnx: Option<Reading>,
    /// The second model (product: the other expert; guide: the conditional one)
    #[arg(long, default_value = "builtin")]
    pub other: Source,
    /// Class of a network (guide: of the conditional one, which is then the same network; digits: the digit)
    #[arg(long)]
    pub class: Option<usize>,
    /// Deviation of the kernels around points; by default Scott's rule
    #[arg(long)]
    pub bandwidth: Option<f64>,
    /// Exponent of q when annealing: a number, or a schedule over the steps, 1:3 (linear), 1:3^2 (a power) or knots
    /// 0=1,0.5=1.2,1=3
    #[arg(long, default_value = "3", allow_hyphen_values = true)]
    pub beta: String,
    /// Exponents of both models in a product
    #[arg(long, value_delimiter = ',', default_values_t = [1.0, 1.0], allow_hyphen_values = true)]
    pub exponents: Vec<f64>,
    /// Weight w of guidance: the target is q_u^(1−w) q_c^w
    #[arg(long, default_value_t = 3.0)]
    #[schemars(range(min = -100, max = 100))]
    pub guidance: f64,
    /// Reward .json: {"linear": a} is a·x, {"matrix": A, "values": b, "deviation": s} is −|Ax−b|²/(2s²); the built-in one
    /// is the first coordinate
    #[arg(long, value_name = "FILE")]
    pub reward: Option<PathBuf>,
    /// Configurations of Lennard-Jones particles to start Monte Carlo from, an .xyz file (cool); the built-in energy is a
    /// double well in the plane
    #[arg(long, value_name = "FILE")]
    pub xyz: Option<PathBuf>,
    /// Temperature at which the network is trained (cool), in units of the energy
    #[arg(long, default_value_t = 2.0)]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub temperature: f64,
    /// Temperature to which its law is annealed (cool)
    #[arg(long, default_value_t = 1.0)]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub colder: f64,
    /// Steps of training of the network (cool)
    #[arg(long, default_value_t = 3000)]
    #[schemars(range(min = 1, max = 10_000_000), extend("unit" = "steps"))]
    pub training: u64,
    /// Strength of the reward over the steps, spelt as beta
    #[arg(long, default_value = "0:1^3", allow_hyphen_values = true)]
    pub strength: String,
    /// Particles K
    #[arg(long, default_value_t = 4096)]
    #[schemars(range(min = 2, max = 10_000_000), extend("unit" = "particles"))]
    pub particles: usize,
    /// Steps from noise to data
    #[arg(long, default_value_t = 400)]
    #[schemars(range(min = 1, max = 100_000), extend("unit" = "steps"))]
    pub steps: usize,
    /// Noise level at the end, in units of the data
    #[arg(long, default_value_t = 0.01)]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub lowest: f64,
    /// Noise level at the start; it should be far above the spread of the data. By default 20, or ten times the spread of
    /// the user's models if that is more
    #[arg(long)]
    pub highest: Option<f64>,
    /// Curvature of the grid of noise levels: 7 as EDM's
    #[arg(long, default_value_t = 7.0)]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub rho: f64,
    /// End with a step to noise level 0 that denoises
    #[arg(long)]
    pub denoise: bool,
    /// Variance factor of the noise: 1 has the target's score as drift, 1/beta is tempered noise
    #[arg(long, default_value_t = 1.0)]
    #[schemars(range(min = 0, max = 1000))]
    pub noise: f64,
    /// When particles are drawn anew by their weights
    #[arg(long, value_enum, default_value_t = Resample::Ess)]
    pub resample: Resample,
    /// Effective sample size, as a part of the particles, below which --resample ess draws anew
    #[arg(long, default_value_t = 0.5)]
    #[schemars(range(min = 0, max = 1))]
    pub ess: f64,
    /// Steps between drawings of --resample every
    #[arg(long, default_value_t = 1)]
    #[schemars(range(min = 1, max = 100_000), extend("unit" = "steps"))]
    pub interval: usize,
    /// How particles are drawn
    #[arg(long, value_enum, default_value_t = Draw::Systematic)]
    pub scheme: Draw,
    /// Last steps without drawing anew
    #[arg(long, default_value_t = 0)]
    #[schemars(range(min = 0, max = 100_000), extend("unit" = "steps"))]
    pub rest: usize,
    /// Steps FROM,TO outside which weights do not grow (biased; as the authors' code for molecules)
    #[arg(long, value_delimiter = ',', num_args = 1)]
    pub window: Vec<usize>,
    /// Cut the centred growth of log-weights in a step at this size (biased; 1 or 2 in the authors' code for images)
    #[arg(long)]
    pub clamp: Option<f64>,
    /// Raise weights to this part of the largest before drawing anew; 1e-6 in the authors' code
    #[arg(long, default_value_t = 0.0)]
    #[schemars(range(min = 0, max = 0.999))]
    pub floor: f64,
    /// Langevin steps on the target after each step (predictor and corrector)
    #[arg(long, default_value_t = 0)]
    #[schemars(range(min = 0, max = 1000), extend("unit" = "steps"))]
    pub langevin: usize,
    /// Draws without weights that are saved and drawn
    #[arg(long, default_value_t = 2000)]
    #[schemars(range(min = 1, max = 1_000_000), extend("unit" = "draws"))]
    pub draws: usize,
}
offprint_core::defaults_from_flags!(FeynmanKacParams);

/// What is sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// A power q^β of one model.
    Anneal,
    /// A product q₁^β₁ q₂^β₂ of two models.
    Product,
    /// Guidance, q_u^(1−w) q_c^w.
    Guide,
    /// q exp(λ r) with a reward r.
    Reward,
    /// Guidance of the shipped network of handwritten digits.
    Digits,
    /// An energy at a lower temperature than a network was trained at.
    Cool,
}

/// When particles are drawn anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Resample {
    /// When the effective sample size is low.
    Ess,
    /// After a fixed number of steps.
    Every,
    /// Never: the weights count at the end.
    Never,
    /// Killing and birth take the place of weights.
    Jump,
}

/// How particles are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Draw {
    /// One random number for all.
    Systematic,
    /// One in each of equal parts.
    Stratified,
    /// Independent draws.
    Multinomial,
}

impl Params for FeynmanKacParams {
    fn check(&self) -> Result<()> {
        self.ramp("beta", &self.beta)?;
        self.ramp("strength", &self.strength)?;
        let needs_two = matches!(self.task, Task::Product | Task::Guide);
        if !needs_two && !self.other.is_builtin() {
            return Err(Error::parameter("other", &self.other, "left out: this task has one model"));
        }
        let same = self.task == Task::Guide && self.class.is_some() && is_network(&self.model);
        if needs_two && !same && self.model.is_builtin() != self.other.is_builtin() {
            let allowed = "given together with model, or neither of them (a network may be guided to its own --class)";
            return Err(Error::parameter("other", &self.other, allowed));
        }
        if self.task == Task::Digits && !self.model.is_builtin() {
            return Err(Error::parameter("model", &self.model, "left out: this task has its own model"));
        }
        let has_class = self.task == Task::Digits || is_network(&self.model);
        if let Some(class) = self.class.filter(|_| !has_class) {
            return Err(Error::parameter("class", class, "left out: the model has no classes"));
        }
        if self.exponents.len() != 2 {
            return Err(Error::parameter("exponents", format!("{:?}", self.exponents), "two numbers"));
        }
        if self.reward.is_some() && self.task != Task::Reward {
            return Err(Error::parameter("reward", "a file", "left out, or the task reward"));
        }
        if self.xyz.is_some() && self.task != Task::Cool {
            return Err(Error::parameter("xyz", "a file", "left out, or the task cool"));
        }
        if self.task == Task::Cool && !self.model.is_builtin() {
            return Err(Error::parameter("model", &self.model, "left out: this task trains its own model"));
        }
        if self.task == Task::Cool && self.colder >= self.temperature {
            return Err(Error::parameter("colder", self.colder, format!("below temperature, {}", self.temperature)));
        }
        if let Some(h) = self.bandwidth.filter(|h| *h <= 0.0) {
            return Err(Error::parameter("bandwidth", h, "above 0"));
        }
        if let Some(highest) = self.highest.filter(|h| *h <= self.lowest) {
            return Err(Error::parameter("highest", highest, format!("above the lowest, {}", self.lowest)));
        }
        if !matches!(self.window.len(), 0 | 2) {
            return Err(Error::parameter("window", format!("{:?}", self.window), "two steps, FROM,TO"));
        }
        self.settings().check(1)
    }
}

impl FeynmanKacParams {
    fn ramp(&self, field: &str, text: &str) -> Result<Ramp> {
        text.parse().map_err(|e: Error| match e {
            Error::Parameter { given, allowed, .. } => Error::parameter(field, given, allowed),
            other => other,
        })
    }

    fn settings(&self) -> Settings {
        Settings {
            noise: self.noise,
            when: match self.resample {
                Resample::Ess => When::BelowEss(self.ess),
                Resample::Every => When::Every(self.interval),
                Resample::Never => When::Never,
                Resample::Jump => When::Jump,
            },
            scheme: match self.scheme {
                Draw::Systematic => Scheme::Systematic,
                Draw::Stratified => Scheme::Stratified,
                Draw::Multinomial => Scheme::Multinomial,
            },
            rest: self.rest,
            window: (self.window.len() == 2).then(|| (self.window[0], self.window[1])),
            clamp: self.clamp,
            floor: self.floor,
            langevin: self.langevin,
            ..Settings::default()
        }
    }

    /// The models: one or two.
    fn models(&self) -> Result<Vec<Loaded>> {
        let known = |model| Loaded::Known(Box::new(model));
        let own = |class| read(&self.model, self.onnx.as_ref(), self.bandwidth, class);
        Ok(match (self.task, self.model.is_builtin()) {
            (Task::Anneal, true) => vec![known(line()?)],
            (Task::Reward, true) => vec![known(ring()?)],
            (Task::Product, true) => experts()?.map(known).into(),
            (Task::Guide, true) => classes()?.map(known).into(),
            (Task::Digits, _) => {
                let network = Digits8::shipped()?.network;
                let bound = |class| Ok(Loaded::Score(Box::new(Bound::new(network.clone(), class)?)));
                vec![bound(None)?, bound(Some(self.class.unwrap_or(3)))?]
            }
            (Task::Anneal | Task::Reward | Task::Cool, _) => vec![own(self.class)?],
            (Task::Guide, false) if self.other.is_builtin() => vec![own(None)?, own(self.class)?],
            (Task::Product | Task::Guide, false) => {
                vec![own(None)?, read(&self.other, self.onnx.as_ref(), self.bandwidth, self.class)?]
            }
        })
    }

    /// The target that the task makes of the models.
    fn target<'a>(&self, models: &'a [Loaded]) -> Result<Box<dyn Target + 'a>> {
        Ok(match self.task {
            Task::Anneal | Task::Cool => match self.ramp("beta", &self.beta)? {
                Ramp::Knots(knots) if knots.len() == 1 => Box::new(Product::annealed(models[0].expert(knots[0].1)?)?),
                beta => {
                    let density = models[0].density("a beta that changes on the way needs a density")?;
                    Box::new(Tempered::new(density, beta)?)
                }
            },
            Task::Product => {
                let experts = models.iter().zip(&self.exponents).map(|(m, &b)| m.expert(b)).collect::<Result<_>>()?;
                Box::new(Product::new(experts)?)
            }
            Task::Guide | Task::Digits => {
                Box::new(Product::guided(models[0].expert(1.0)?, models[1].expert(1.0)?, self.guidance)?)
            }
            Task::Reward => {
                let reward: Box<dyn Reward> = match &self.reward {
                    Some(path) => read_reward(path)?,
                    None => {
                        let mut direction = Array1::zeros(models[0].dim());
                        direction[0] = 1.0;
                        Box::new(Linear::new(direction)?)
                    }
                };
                let strength = self.ramp("strength", &self.strength)?;
                Box::new(Tilted::new(Product::annealed(models[0].expert(1.0)?)?, reward, strength)?)
            }
        })
    }

    /// What is done without weights, in words.
    fn heuristic(&self) -> &'static str {
        match self.task {
            Task::Anneal | Task::Cool => "scaled score",
            Task::Product => "sum of scores",
            Task::Guide | Task::Digits => "plain guidance",
            Task::Reward => "drift alone",
        }
    }
}

impl Method for FeynmanKac {
    type Params = FeynmanKacParams;

    fn run(params: &FeynmanKacParams, run: &mut Run) -> Result<()> {
        if params.task == Task::Cool {
            return run_cooling(params, run);
        }
        let models = params.models()?;
        let target = params.target(&models)?;
        let settings = params.settings();
        settings.check(target.dim())?;
        let beta = target.exponent();
        if params.task == Task::Anneal && params.resample != Resample::Jump && params.noise <= 1.0 - 1.0 / beta {
            run.warn(format!(
                "noise {} is at most 1 - 1/beta = {:.3}: even for a Gaussian the weights have no variance; expect few \
                 particles to carry all weight",
                params.noise,
                1.0 - 1.0 / beta
            ));
        }
        let spread = models.iter().map(Loaded::spread).fold(0.0, f64::max);
        let highest = params.highest.unwrap_or_else(|| {
            let usual = if params.model.is_builtin() { 20.0 } else { 20f64.max(10.0 * spread) };
            usual.min(models.iter().map(Loaded::highest).fold(f64::INFINITY, f64::min))
        });
        let mut grid = Grid::karras(&Schedule::Edm, params.steps, params.lowest, highest, params.rho)?;
        if params.denoise {
            grid = grid.with_final_denoising();
        }
        let progress = run.progress();
        let mut records = Vec::new();
        let mut finals = Vec::new();
        for (stage, settings) in [
            ("corrected", settings.clone()),
            (params.heuristic(), Settings { when: When::Unweighted, ..settings.clone() }),
        ] {
            progress.begin(stage, grid.steps() as u64);
            let started = Instant::now();
            let mut record = view::Record::new(grid.steps());
            let found = Corrector::new(settings).run_with(
                &*target,
                params.particles,
                &grid,
                run.streams(),
                &mut |step, tau, y, weights| record.watch(step, tau, y, weights),
                &progress,
            )?;
            progress.finish();
            if finals.is_empty() {
                run.metric("time", started.elapsed().as_secs_f64(), "s");
            }
            records.push(record);
            finals.push(found);
        }
        let (corrected, heuristic) = (&finals[0], &finals[1]);
        report(params, run, corrected)?;
        let draws = corrected.draw(params.draws, run.stream("draws"));
        let unweighted = heuristic.draw(params.draws, run.stream("draws"));
        let exact = lattice(&*target, params, corrected, heuristic)?;
        compare(run, corrected, heuristic, exact.as_ref(), params.heuristic())?;
        run.save_array("draws.npy", draws.clone())?;
        let result = if params.task == Task::Digits {
            view::digits(&draws, &unweighted, params.heuristic())
        } else {
            let clouds = (&draws, &unweighted);
            view::result(target.dim(), (corrected, heuristic), clouds, exact.as_ref(), params.heuristic())
        };
        let on_a_line = (target.dim() == 1).then_some(&result);
        run.figure("way", view::way(&records, params.heuristic(), on_a_line));
        run.figure("moving", view::moving(&records, params.heuristic()));
        if target.dim() > 1 {
            run.figure("result", result);
        }
        run.figure("weights", view::weights(corrected, params.particles));
        Ok(())
    }
}

/// An energy at two temperatures, with a network between them.
fn run_cooling(params: &FeynmanKacParams, run: &mut Run) -> Result<()> {
    let (energy, start): (Box<dyn Energy>, Array2<f64>) = match &params.xyz {
        Some(path) => {
            let start = read_xyz(path)?;
            (Box::new(LennardJones::new(start.ncols() / 3)?), start)
        }
        None => (Box::new(DoubleWell), array![[-1.0, 0.0], [1.0, 0.0]]),
    };
    let cooling = Cooling {
        temperature: params.temperature,
        colder: params.colder,
        length: Length { chains: 64, burn_in: 300, samples: 100, thin: 5 },
        training: params.training,
        particles: params.particles,
        steps: params.steps,
        settings: params.settings(),
    };
    let found = cool(&*energy, &start, &cooling, run.streams(), &run.progress())?;
    report(params, run, &found.corrected)?;
    let annealed = anneal_without_network(&*energy, &found.hot, params, run)?;
    let clouds = [
        ("Monte Carlo, trained on", found.hot.clone()),
        ("Monte Carlo, colder", found.cold.clone()),
        ("corrected", found.corrected.draw(found.cold.nrows(), run.stream("draws"))),
        ("scaled score", found.scaled.draw(found.cold.nrows(), run.stream("draws"))),
        ("annealed importance sampling", annealed.draw(found.cold.nrows(), run.stream("draws"))),
    ];
    let mut energies = Vec::new();
    for (name, x) in &clouds {
        let values = energy.energies(x.view())?.to_vec();
        run.metric(&format!("median energy, {name}"), quantile(&values, 0.5), "");
        energies.push((*name, values));
    }
    // What of a configuration is compared: distances of pairs, or the first coordinate.
    let feature = |x: &Array2<f64>| {
        let mut values =
            if params.xyz.is_some() { pair_distances(x.view()).into_iter().collect() } else { x.column(0).to_vec() };
        values.sort_by(f64::total_cmp);
        values
    };
    let truth = feature(&clouds[1].1);
    for (name, x) in clouds.iter().skip(2).chain(&clouds[..1]) {
        let distance = wasserstein_sorted(&feature(x), &truth).sqrt();
        run.metric(&format!("W₂ to the colder Monte Carlo, {name}"), distance, "");
    }
    let label = if params.xyz.is_some() { "distance of a pair" } else { "x₁" };
    let columns = clouds.iter().map(|(name, x)| (*name, feature(x))).collect::<Vec<_>>();
    run.figure("cooling", view::cooling(&energies, &columns, label));
    run.save_array("draws.npy", clouds[2].1.clone())?;
    run.save_array("trained-on.npy", found.hot)?;
    run.save_array("colder.npy", found.cold)?;
    run.figure("weights", view::weights(&found.corrected, params.particles));
    Ok(())
}

/// The baseline that asks the energy and no network: annealed importance sampling from the same hot samples, with as many
/// Langevin steps in all as the corrected process has steps.
fn anneal_without_network(
    energy: &dyn Energy,
    hot: &Array2<f64>,
    params: &FeynmanKacParams,
    run: &mut Run,
) -> Result<Particles> {
    /// Langevin steps at one temperature.
    const STEPS: usize = 5;
    let length = Annealing { temperatures: (params.steps / STEPS).max(1) + 1, steps: STEPS };
    let rows: Vec<usize> =
        (0..params.particles.min(hot.nrows())).map(|i| i * hot.nrows() / params.particles.min(hot.nrows())).collect();
    let start = hot.select(Axis(0), &rows);
    let (stream, ends) = (run.stream("annealed importance sampling"), (params.temperature, params.colder));
    let found = annealed_importance_sampling(energy, &start, ends, length, stream, &run.progress())?;
    run.metric("annealed importance sampling: effective share", found.effective_size() / rows.len() as f64, "");
    Ok(found)
}

/// The numbers and files of the corrected particles.
fn report(params: &FeynmanKacParams, run: &mut Run, found: &Particles) -> Result<()> {
    let count = params.particles as f64;
    run.metric("effective sample size at the end", found.effective_size(), "particles");
    let least = found.effective_sizes.iter().copied().fold(f64::INFINITY, f64::min);
    run.metric("least effective sample size", least, "particles");
    run.metric("lineages that survive", found.lineages() as f64, "starts");
    run.metric("drawn anew", found.resamplings.len() as f64, "times");
    run.metric("calls of models", found.evaluations as f64, "batches");
    match found.log_normaliser {
        Some(log) => run.metric("log normaliser", log, ""),
        None => run.warn("weights were cut (clamp or window): the law is biased and its normaliser unknown"),
    }
    if (found.lineages() as f64) < 0.01 * count {
        run.warn(format!(
            "only {} of {} starts have descendants: modes may be lost; more particles, more steps or exponents nearer to 1 \
             may help",
            found.lineages(),
            params.particles
        ));
    }
    run.save_array("particles.npy", found.y.clone())?;
    run.save_array("weights.npy", found.weights.clone())?;
    run.save_array("roots.npy", found.roots.iter().map(|&k| k as u64).collect::<Vec<_>>())?;
    let ancestors: Arrays = found
        .resamplings
        .iter()
        .map(|(step, from)| (format!("step_{step:05}"), from.iter().map(|&k| k as u64).collect::<Vec<_>>().into()))
        .collect();
    if !ancestors.is_empty() {
        run.save_arrays("ancestors.npz", ancestors, Metadata::new())?;
    }
    run.save_table(
        "effective-size.csv",
        &Table::new("effective-size", "Effective sample size after each step, before drawing anew.")
            .integers("step", "", 1..=found.effective_sizes.len() as i64)
            .numbers("effective sample size", "particles", found.effective_sizes.iter().copied()),
    )
}

/// The law by quadrature, where there are at most two dimensions and densities are known.
fn lattice(
    target: &dyn Target,
    params: &FeynmanKacParams,
    corrected: &Particles,
    heuristic: &Particles,
) -> Result<Option<Lattice>> {
    if target.dim() > 2 {
        return Ok(None);
    }
    let (mut low, mut high) = (Vec::new(), Vec::new());
    for j in 0..target.dim() {
        let values: Vec<f64> = [corrected, heuristic].iter().flat_map(|p| p.y.column(j).to_vec()).collect();
        let (a, b) = (quantile(&values, 0.0), quantile(&values, 1.0));
        let margin = 0.15 * (b - a) + params.lowest;
        low.push(a - margin);
        high.push(b + margin);
    }
    Lattice::of(target, params.lowest, &low, &high, if target.dim() == 1 { 4001 } else { 241 })
}

/// Mean and standard deviation of each of the first `d` coordinates of weighted `points` (n, any).
fn marginals(points: ArrayView2<'_, f64>, weights: &[f64], d: usize) -> (Vec<f64>, Vec<f64>) {
    let average = |j: usize, h: &dyn Fn(f64) -> f64| points.column(j).iter().zip(weights).map(|(y, w)| w * h(*y)).sum();
    (0..d)
        .map(|j| {
            let mean: f64 = average(j, &|y| y);
            let variance: f64 = average(j, &|y| (y - mean) * (y - mean));
            (mean, variance.sqrt())
        })
        .unzip()
}

/// Mean and deviation of each coordinate (of the first ten), corrected, without weights and exact.
fn compare(
    run: &mut Run,
    corrected: &Particles,
    heuristic: &Particles,
    exact: Option<&Lattice>,
    name: &str,
) -> Result<()> {
    let d = corrected.y.ncols().min(10);
    let (mean, deviation) = marginals(corrected.y.view(), &corrected.weights, d);
    let (plain_mean, plain_deviation) = marginals(heuristic.y.view(), &heuristic.weights, d);
    let mut table = Table::new("moments", "Mean and standard deviation of each coordinate.")
        .integers("coordinate", "", 1..=d as i64)
        .numbers("mean, corrected", "", mean.iter().copied())
        .numbers(format!("mean, {name}"), "", plain_mean.iter().copied());
    if let Some(exact) = exact {
        let (exact_mean, exact_deviation) = marginals(exact.points.view(), &exact.masses, d);
        table = table.numbers("mean, exact", "", exact_mean.iter().copied());
        run.metric("mean of the first coordinate, exact", exact_mean[0], "");
        run.metric("log normaliser, exact", exact.log_normaliser, "");
        table = table
            .numbers("deviation, corrected", "", deviation)
            .numbers(format!("deviation, {name}"), "", plain_deviation)
            .numbers("deviation, exact", "", exact_deviation);
    } else {
        table = table.numbers("deviation, corrected", "", deviation).numbers(
            format!("deviation, {name}"),
            "",
            plain_deviation,
        );
    }
    run.metric("mean of the first coordinate, corrected", mean[0], "");
    run.metric(&format!("mean of the first coordinate, {name}"), plain_mean[0], "");
    run.table(table)
}
