//! The door: few-step samples with searched, predicted or given ratios, on the user's model.

use super::choice::{AnySampler, Choice, sampler};
use super::trial::{Trial, dpm_v3, reevaluating, statistics};
use super::{CascadePolynomial, DcSampler, DcSolver, Found, Ratios, Reference, Search, Setting, view};
use crate::network::{DigitsData, Reading};
use crate::pictures::Shown;
use crate::sample::Statistics;
use crate::{Grid, Schedule, check, normals};
use ndarray::{Array2, Array3, Ix3};
use offprint_core::artifact::Metadata;
use offprint_core::{Error, Method, Params, Result, Run, Source, Table};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Sample, with ratios that are searched, predicted or given.
    Sample,
    /// Search ratios over all settings of --guidances and --nfe and fit the polynomial that predicts others.
    Fit,
}

/// How the schedule's signal falls with time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum NoiseSchedule {
    /// Latent diffusion's table of 1000 rates, roots linear from 0.00085 to 0.012.
    ScaledLinear,
    /// Rates linear from 0.1 to 20, continuous.
    VpLinear,
    /// The cosine table of 1000 entries.
    Cosine,
}

/// Where the steps are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Spacing {
    /// Equal in time.
    Time,
    /// Equal in λ = ln(α/σ).
    Lambda,
}

/// Parameters of `dc-solver`.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DcSolverParams {
    /// What to do: sample, or fit the polynomial that predicts ratios of settings that were not searched
    #[arg(long, value_enum, default_value_t = Task::Sample)]
    pub task: Task,
    /// Model: digits (a built-in network), mixture (built in, exact, 64 dimensions), a mixture .json {"weights", "means",
    /// "covs"}, a network .safetensors that was trained here (perceptron or U-Net), or .onnx that was exported anywhere
    #[arg(long, default_value = "digits")]
    pub model: String,
    /// What an .onnx model means, as in predicts=eps,schedule=scaled-linear,time=index,shape=3x32x32: each word wrong is
    /// answered with those that there are; words in the file's metadata under "offprint" need not be repeated
    #[arg(long, value_name = "WORDS")]
    pub onnx: Option<Reading>,
    /// Condition: components of the mixture, or classes that the points are dealt out to in turn, separated by commas;
    /// if none are given the built-in models take their own and others are not conditioned
    #[arg(long, value_delimiter = ',')]
    pub condition: Vec<usize>,
    /// Guidance w towards the condition; 1 is the conditional model alone
    #[arg(long, default_value_t = 2.0)]
    #[schemars(range(min = -100, max = 100))]
    pub guidance: f64,
    /// Sampler to compensate: latent or pipeline (the authors' two forms of UniPC), ddim, dpm++2m, deis-tab1 to
    /// deis-tab4, or unipc-P-bh1 and unipc-P-bh2 of order P
    #[arg(long, default_value = "latent")]
    pub sampler: String,
    /// Calls of the model (steps), one or several numbers separated by commas
    #[arg(long, value_delimiter = ',', default_values_t = [5, 6, 8, 10])]
    #[schemars(inner(range(min = 1, max = 1000)))]
    pub nfe: Vec<usize>,
    /// Places of the steps: equal in time, or in λ
    #[arg(long, value_enum, default_value_t = Spacing::Time)]
    pub spacing: Spacing,
    /// Noise schedule that the steps are laid out on
    #[arg(long, value_enum, default_value_t = NoiseSchedule::ScaledLinear)]
    pub schedule: NoiseSchedule,
    /// Table of ᾱ = α² (N) that replaces the schedule, falling between 1 and 0
    #[arg(long)]
    pub alphas_cumprod: Option<Source>,
    /// Table of rates β (N) that replaces the schedule, each between 0 and 1
    #[arg(long)]
    pub betas: Option<Source>,
    /// Reference trajectories that ratios are searched on
    #[arg(long, default_value_t = 10)]
    #[schemars(range(min = 1, max = 100_000))]
    pub points: usize,
    /// Samples to draw, from other noises than those of the search
    #[arg(long, default_value_t = 50)]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub samples: usize,
    /// Starting noises x of the samples (n, d), or (n, h, w, c), in place of drawn ones
    #[arg(long)]
    pub start: Option<Source>,
    /// Trajectories (NFE + 1, n, d) of x to search on, the noises first, in place of computed ones; takes one --nfe
    #[arg(long)]
    pub reference: Option<Source>,
    /// DDIM steps between neighbouring places of a reference
    #[arg(long, default_value_t = 50)]
    #[schemars(range(min = 1, max = 10_000))]
    pub substeps: usize,
    /// Ratios to use in place of a search: a .json list of NFE numbers; takes one --nfe
    #[arg(long)]
    pub ratios: Option<PathBuf>,
    /// Coefficients (4, 3, 3) of a fitted polynomial that predicts the ratios in place of a search
    #[arg(long)]
    pub coefficients: Option<Source>,
    /// Degree K of the interpolating polynomial
    #[arg(long, default_value_t = 2)]
    #[schemars(range(min = 1, max = 5))]
    pub degree: usize,
    /// Data lie within ± this limit: dynamic thresholding of the clean data, against strong guidance
    #[arg(long)]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub limit: Option<f64>,
    /// Guidances over which --task fit searches, separated by commas
    #[arg(long, value_delimiter = ',', default_values_t = [1.0, 2.0, 3.0, 5.0, 7.5])]
    pub guidances: Vec<f64>,
}
offprint_core::defaults_from_flags!(DcSolverParams);

impl Params for DcSolverParams {
    fn check(&self) -> Result<()> {
        if self.nfe.is_empty() {
            return Err(Error::parameter("nfe", "none", "one number at least"));
        }
        if let Some(nfe) = self.nfe.iter().find(|n| !(1..=1000).contains(*n)) {
            return Err(Error::parameter("nfe", nfe, "between 1 and 1000"));
        }
        if self.nfe.len() > 1 && (self.ratios.is_some() || self.reference.is_some()) {
            let given = format!("{} numbers", self.nfe.len());
            return Err(Error::parameter("nfe", given, "one number with --ratios or --reference, which belong to one"));
        }
        let sources = [self.ratios.is_some(), self.coefficients.is_some(), self.reference.is_some()];
        if sources.into_iter().filter(|given| *given).count() > 1 {
            return Err(Error::parameter("ratios", "given twice", "from one of --ratios, --coefficients, --reference"));
        }
        if self.alphas_cumprod.is_some() && self.betas.is_some() {
            return Err(Error::parameter("betas", "a table", "left out beside --alphas-cumprod"));
        }
        if self.degree != 2 && (self.coefficients.is_some() || self.task == Task::Fit) {
            return Err(Error::parameter("degree", self.degree, "2 for the polynomial that predicts ratios"));
        }
        if let Some(w) = self.guidances.iter().find(|w| !w.is_finite()) {
            return Err(Error::parameter("guidances", w, "finite numbers"));
        }
        Ok(())
    }
}

/// What a run stands on: parameters read and checked.
struct Plan<'a> {
    params: &'a DcSolverParams,
    schedule: Schedule,
    choice: Choice,
    sampler: AnySampler,
    search: Search,
}

impl Method for DcSolver {
    type Params = DcSolverParams;

    fn run(params: &DcSolverParams, run: &mut Run) -> Result<()> {
        let schedule = schedule(params)?;
        let choice = Choice::open(&params.model, params.onnx.as_ref(), &params.condition, run.streams())?;
        let (sampler, search) = sampler(&params.sampler, &schedule)?;
        let search = Search { degree: params.degree, ..search };
        let plan = Plan { params, schedule, choice, sampler, search };
        match params.task {
            Task::Sample => plan.sample(run),
            Task::Fit => plan.fit(run),
        }
    }
}

fn schedule(params: &DcSolverParams) -> Result<Schedule> {
    let table = |source: &Source| source.vector().map(|table| table.to_vec());
    match (&params.alphas_cumprod, &params.betas) {
        (Some(source), _) => Schedule::from_alphas_cumprod(&table(source)?),
        (None, Some(source)) => Schedule::from_betas(&table(source)?),
        (None, None) => match params.schedule {
            NoiseSchedule::ScaledLinear => Ok(Schedule::scaled_linear()),
            NoiseSchedule::VpLinear => Ok(Schedule::vp_linear()),
            NoiseSchedule::Cosine => Schedule::cosine(1000, 0.999),
        },
    }
}

/// Points whose trajectories DPM-Solver-v3 takes its statistics from.
const FITTED: usize = 200;

/// What compensation did for one number of calls.
pub(super) struct Outcome {
    /// Calls of the model.
    pub nfe: usize,
    /// Mean squared errors of the samples, as named in [`WAYS`]; NaN where a way does not exist.
    pub errors: [f64; 7],
}

/// The ways that are compared.
pub(super) const WAYS: [&str; 7] = [
    "DDIM",
    "DPM-Solver++(2M)",
    "DEIS-tAB3",
    "DPM-Solver-v3",
    "sampler",
    "sampler, compensated",
    "sampler, twice the calls",
];
/// Place in [`WAYS`] of the plain sampler.
const PLAIN: usize = 4;
/// Place of the compensated one.
const COMPENSATED: usize = 5;
/// Place of the one that asks again.
pub(super) const TWICE: usize = 6;

impl Plan<'_> {
    fn grid(&self, nfe: usize) -> Result<Grid> {
        let (from, to) = (self.schedule.latest().unwrap_or(1.0), self.schedule.earliest());
        match self.params.spacing {
            Spacing::Time => Grid::uniform_t(&self.schedule, nfe, from, to),
            Spacing::Lambda => Grid::uniform_lambda(&self.schedule, nfe, from, to),
        }
    }

    /// The samples' starting noises x (n, d).
    fn start(&self, run: &Run) -> Result<Array2<f64>> {
        let d = self.choice.dim();
        match &self.params.start {
            None => Ok(normals(self.params.samples, d, run.stream("noises"), 0)),
            Some(source) => {
                let start = source.points()?.values;
                check::dimension(&source.to_string(), start.view(), "the model", d)?;
                Ok(start)
            }
        }
    }

    /// Ratios searched for `nfe` calls and guidance `w`, on trajectories of noises that no sample starts from.
    fn searched(&self, nfe: usize, w: f64, run: &Run) -> Result<Found> {
        let progress = run.progress();
        let given = self.params.reference.as_ref().map(trajectories).transpose()?;
        let n = given.as_ref().map_or(self.params.points, |states| states.dim().1);
        let model = self.choice.bound(n, w, self.params.limit)?;
        let grid = self.grid(nfe)?;
        if let Some(states) = given {
            let reference = Reference::from_states(&states, &grid)?;
            check::dimension("reference", reference.start().view(), "the model", model.dim())?;
            return self.search.run(&self.sampler, &*model, &grid, &reference, &progress);
        }
        let start = normals(n, model.dim(), run.stream("search"), 0);
        let trial = Trial::new(&*model, (grid, &self.schedule), start, self.params.substeps, &progress)?;
        trial.search(self.search, &self.sampler, &progress)
    }

    /// What DPM-Solver-v3 knows of the model, taken once for all numbers of calls; `None` where trajectories diverge.
    fn statistics(&self, run: &mut Run) -> Result<Option<Arc<Statistics>>> {
        let params = self.params;
        let model = self.choice.bound(FITTED, params.guidance, params.limit)?;
        let start = normals(FITTED, model.dim(), run.stream("statistics"), 0);
        match statistics(&*model, start, &self.grid(params.nfe[0])?, run.streams(), &run.progress()) {
            Ok(found) => {
                run.metric("calls for the statistics of DPM-Solver-v3", found.evaluations() as f64, "");
                Ok(Some(found))
            }
            Err(Error::Numerical(problem)) => {
                run.warn(format!("DPM-Solver-v3 is left out: {problem}"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn sample(&self, run: &mut Run) -> Result<()> {
        let params = self.params;
        let progress = run.progress();
        let start = self.start(run)?;
        let model = self.choice.bound(start.nrows(), params.guidance, params.limit)?;
        let cascade = match &params.coefficients {
            Some(source) => Some(coefficients(source)?),
            None => None,
        };
        let per_nfe: usize = if cascade.is_some() || params.ratios.is_some() { 1 } else { 2 };
        let work = params.nfe.iter().map(|nfe| nfe * params.substeps * per_nfe).sum::<usize>();
        progress.begin("reference trajectories and search", work as u64);
        let fitted = self.statistics(run)?;
        let mut outcomes = Vec::new();
        let single = params.nfe.len() == 1;
        for &nfe in &params.nfe {
            let (ratios, found) = match (&params.ratios, &cascade) {
                (Some(path), _) => (read_ratios(path, params.degree)?, None),
                (None, Some(cascade)) => (cascade.ratios(params.guidance, nfe)?, None),
                (None, None) => {
                    let started = Instant::now();
                    let found = self.searched(nfe, params.guidance, run)?;
                    run.metric(&format!("search, NFE {nfe}"), started.elapsed().as_secs_f64(), "s");
                    (found.ratios.clone(), Some(found))
                }
            };
            ratios.check_steps(nfe)?;
            if let Some(found) = &found {
                run.metric(&format!("calls of the search, NFE {nfe}"), found.calls as f64, "");
                if !found.at_bounds.is_empty() {
                    run.warn(format!(
                        "NFE {nfe}: the ratio of step {} ended at a bound; a lower error may lie beyond, where the \
                         interpolation is not trusted",
                        listed(&found.at_bounds)
                    ));
                }
            } else if !ratios.far_out().is_empty() {
                run.warn(format!(
                    "NFE {nfe}: the ratio of step {} lies outside 0.3 to 1.7 and extrapolates far",
                    listed(&ratios.far_out())
                ));
            }
            let grid = self.grid(nfe)?;
            let trial = Trial::new(&*model, (grid, &self.schedule), start.clone(), params.substeps, &progress)?;
            outcomes.push(self.outcome(&trial, ratios, (single, fitted.as_ref()), run)?);
        }
        progress.finish();
        self.report(&outcomes, run)
    }

    /// Compares the ways for one number of calls, and saves what they gave.
    fn outcome(
        &self,
        trial: &Trial<'_>,
        ratios: Ratios,
        (single, fitted): (bool, Option<&Arc<Statistics>>),
        run: &mut Run,
    ) -> Result<Outcome> {
        let nfe = trial.grid.steps();
        let compensated = DcSampler::new(self.sampler.clone(), ratios.clone());
        let baseline = |name: &str| {
            let (sampler, _) = sampler(name, &self.schedule)?;
            if nfe < sampler.solver.order() { Ok(f64::NAN) } else { trial.error(&sampler) }
        };
        let twice = if self.sampler.solver.name().starts_with("unipc") {
            trial.error(&reevaluating(&self.sampler))?
        } else {
            f64::NAN
        };
        let plain = trial.run(&self.sampler)?;
        let better = trial.run(&compensated)?;
        let errors = [
            baseline("ddim")?,
            baseline("dpm++2m")?,
            baseline("deis-tab3")?,
            fitted.map_or(Ok(f64::NAN), |statistics| trial.error(&dpm_v3(statistics, nfe)?))?,
            trial.distance(&plain.y),
            trial.distance(&better.y),
            twice,
        ];
        let suffix = if single { String::new() } else { format!("_{nfe}") };
        run.metric(&format!("error, NFE {nfe}"), errors[PLAIN], "");
        run.metric(&format!("error, compensated, NFE {nfe}"), errors[COMPENSATED], "");
        run.save_json(&format!("dc_ratios{suffix}.json"), &ratios.values())?;
        let (plain, better) = (plain.into_x(), better.into_x());
        let reference = trial.reference.end() * trial.grid.last().alpha;
        if run_of_first(self.params, nfe) {
            let along = [trial.errors_along(&self.sampler)?, trial.errors_along(&compensated)?];
            run.figure("steps", view::steps(&ratios, &along));
            match (self.params.model.as_str(), self.choice.picture()) {
                ("digits", _) => {
                    let data = DigitsData::new();
                    let ink = |x: &Array2<f64>| data.to_ink(x);
                    run.figure(
                        "samples",
                        view::pictures(nfe, [&ink(&plain), &ink(&better), &ink(&reference)], Shown::digits()),
                    );
                }
                (_, Some(picture)) => {
                    run.figure(
                        "samples",
                        view::pictures(nfe, [&plain, &better, &reference], Shown::light(picture, &reference)),
                    );
                }
                _ if reference.ncols() >= 2 && reference.nrows() >= 2 => {
                    run.figure("samples", view::plane(nfe, [&plain, &better, &reference])?);
                }
                _ => {}
            }
        }
        let arrays = [("plain", plain), ("compensated", better.clone()), ("reference", reference)];
        run.save_array(&format!("samples{suffix}.npy"), better)?;
        let named = arrays.into_iter().map(|(name, array)| (name.to_owned(), array.into())).collect();
        run.save_arrays(&format!("compared{suffix}.npz"), named, Metadata::new())?;
        Ok(Outcome { nfe, errors })
    }

    fn report(&self, outcomes: &[Outcome], run: &mut Run) -> Result<()> {
        let logs: Vec<f64> = outcomes.iter().map(|o| (o.errors[COMPENSATED] / o.errors[PLAIN]).ln()).collect();
        let ratio = (logs.iter().sum::<f64>() / logs.len() as f64).exp();
        run.metric("error with compensation / without", ratio, "");
        run.figure("cost", view::cost(outcomes, &self.sampler.solver.name()));
        let column = |way: usize| outcomes.iter().map(move |o| o.errors[way]);
        let mut table =
            Table::new("errors", "Mean squared error of the samples against the reference, by calls of the model.")
                .integers("calls", "", outcomes.iter().map(|o| o.nfe as i64));
        for (way, name) in WAYS.iter().enumerate() {
            if column(way).any(|error| !error.is_nan()) {
                table = table.numbers(*name, "", column(way));
            }
        }
        run.table(table)
    }

    fn fit(&self, run: &mut Run) -> Result<()> {
        let params = self.params;
        let progress = run.progress();
        let steps: usize = params.nfe.iter().map(|nfe| nfe * params.substeps + nfe.saturating_sub(2)).sum();
        progress.begin("searches", (steps * params.guidances.len()) as u64);
        let (mut settings, mut calls) = (Vec::new(), 0);
        for &guidance in &params.guidances {
            for &nfe in &params.nfe {
                let found = self.searched(nfe, guidance, run)?;
                calls += found.calls;
                settings.push(Setting { guidance, ratios: found.ratios });
            }
        }
        progress.finish();
        let cascade = CascadePolynomial::fit(&settings)?;
        let residuals = settings.iter().map(|setting| {
            let searched = setting.ratios.values();
            let fitted = cascade.ratios(setting.guidance, searched.len())?;
            Ok(fitted.values().iter().zip(searched).skip(2).map(|(f, s)| (f - s) * (f - s)).sum::<f64>())
        });
        let squares: f64 = residuals.collect::<Result<Vec<f64>>>()?.iter().sum();
        let count: usize = settings.iter().map(|s| s.ratios.values().len().saturating_sub(2)).sum();
        run.metric("settings searched", settings.len() as f64, "");
        run.metric("calls of the searches", calls as f64, "");
        run.metric("ratios fitted", count as f64, "");
        run.metric("rms residual of the fit", (squares / count as f64).sqrt(), "");
        run.figure("cascade", view::cascade(&settings, &cascade)?);
        run.save_array("coefficients.npy", cascade.coefficients().clone())
    }
}

/// Detailed pictures show the first number of calls that the user names.
fn run_of_first(params: &DcSolverParams, nfe: usize) -> bool {
    params.nfe.first() == Some(&nfe)
}

fn listed(steps: &[usize]) -> String {
    steps.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

/// Trajectories (NFE + 1, n, d).
fn trajectories(source: &Source) -> Result<Array3<f64>> {
    let array = source.array()?;
    let (shape, dtype) = (array.shape().to_vec(), array.dtype());
    let reals = array
        .into_f64()
        .ok_or_else(|| Error::input(source.to_string(), format!("has dtype {dtype}; real numbers are needed")))?;
    reals
        .into_dimensionality::<Ix3>()
        .map_err(|_| Error::input(source.to_string(), format!("has shape {shape:?}; (NFE + 1, n, d) is needed")))
}

fn coefficients(source: &Source) -> Result<CascadePolynomial> {
    let array = source.array()?;
    let dtype = array.dtype();
    let reals = array
        .into_f64()
        .ok_or_else(|| Error::input(source.to_string(), format!("has dtype {dtype}; real numbers are needed")))?;
    CascadePolynomial::new(&reals.iter().copied().collect::<Vec<_>>())
}

/// A JSON list of numbers.
fn read_ratios(path: &std::path::Path, degree: usize) -> Result<Ratios> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::file("read", path, e))?;
    let values: Vec<f64> = serde_json::from_str(&text)
        .map_err(|e| Error::input(path.display().to_string(), format!("is not a JSON list of numbers: {e}")))?;
    Ratios::new(values, degree)
}
