//! The door: several D sampled in the same way, with growing errors.

use super::{Augmentation, Protocol, Scaled, view, with_quantised};
use crate::exact::ExactEmpirical;
use crate::metrics::{DIRECTIONS, directions, sliced_wasserstein};
use crate::network::{Expected, Network, PictureConfig, Reading, Recipe, fit, open};
use crate::pictures::{DIGIT, Shown};
use crate::sample::named;
use crate::{Denoiser, Grid, Path, Sampler, Schedule};
use ndarray::{Array2, Array3, ArrayView2, Axis, s};
use offprint_core::{Error, Method, Params, Picture, Result, Run, Source, Table};
use offprint_nn::train::Plan;
use rand::seq::SliceRandom;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// PFGM++.
pub struct Pfgmpp;

/// Parameters of PFGM++.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PfgmppParams {
    /// Data, one point a row: .npy, .npz, .csv, .jsonl, images (n, h, w) or (n, h, w, c) as .npy, or a folder of .png files;
    /// the built-in example is 1797 digits of 8 × 8 pixels
    #[arg(long, default_value = "builtin")]
    pub data: Source,
    /// Added dimensions D to compare, comma-separated: positive numbers, 1 is Poisson flow, inf is diffusion (EDM)
    #[arg(long, value_name = "D", value_delimiter = ',', default_values = ["64", "128", "2048", "inf"])]
    pub added: Vec<Augmentation>,
    /// Choose D: a fifth of the data is held back from training (and from the exact denoiser), every D has the same number of
    /// training and sampling steps, and the one whose samples are nearest to what was held back, on average over --alphas,
    /// is reported. Tries 64, 128, 512, 2048 and inf unless --added names others
    #[arg(long, alias = "search-D")]
    pub search_d: bool,
    /// Train a network for each D for so many steps; 0 takes the exact denoiser of the data, which needs no training but
    /// only gives back what it was shown
    #[arg(long, default_value_t = 0)]
    #[schemars(range(max = 10_000_000), extend("unit" = "steps"))]
    pub train: u64,
    /// Train a U-Net that sees points as pictures in place of a perceptron: for images, or points with a --width
    #[arg(long)]
    pub unet: bool,
    /// Rows of the data over which training targets are averaged, the stable-target variant; 1 takes single points, as
    /// PFGM++ does
    #[arg(long, default_value_t = 1)]
    #[schemars(range(min = 1, max = 1_000_000), extend("unit" = "points"))]
    pub reference: usize,
    /// Sample this network, with the D it was trained for: .safetensors that was trained here (perceptron or U-Net), or
    /// .onnx that was exported anywhere
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// What an .onnx model means, as in predicts=eps,schedule=scaled-linear,time=index,shape=3x32x32: each word wrong is
    /// answered with those that there are; words in the file's metadata under "offprint" need not be repeated
    #[arg(long, value_name = "WORDS")]
    pub onnx: Option<Reading>,
    /// Samples for each D
    #[arg(long, default_value_t = 150)]
    #[schemars(range(min = 2, max = 1_000_000), extend("unit" = "samples"))]
    pub samples: usize,
    /// Sizes of the errors that are added to the state before every step, in units of the noise level, comma-separated
    #[arg(long, value_delimiter = ',', default_values_t = [0.0, 0.2, 0.4, 0.6])]
    pub alphas: Vec<f64>,
    /// Numbers of sampling steps for the curve of quality over cost, comma-separated; the last one is used for all else
    #[arg(long, value_delimiter = ',', default_values_t = [5, 9, 18])]
    pub steps: Vec<usize>,
    /// Bits of the weights at which trained networks are sampled too, comma-separated, each from 2 to 16
    #[arg(long, value_delimiter = ',', default_values_t = [4, 5, 6, 8])]
    pub bits: Vec<u32>,
    /// The sampler: heun, euler, dpm++2s, and for errors 0 also ddim, dpm++2m, deis-tab3, unipc-2-bh2 …; stochastic ones
    /// need D = inf
    #[arg(long, default_value = "heun")]
    pub sampler: String,
    /// Lowest noise level, before the last step to 0, in units where the data have the standard deviation 0.5
    #[arg(long, default_value_t = 0.002)]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub sigma_min: f64,
    /// Highest noise level, where sampling begins
    #[arg(long, default_value_t = 80.0)]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub sigma_max: f64,
    /// Curvature of the grid of noise levels: higher means finer near the data
    #[arg(long, default_value_t = 7.0)]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub rho: f64,
    /// Take the data as they are, without moving their mean to 0 and their standard deviation to 0.5
    #[arg(long)]
    pub raw: bool,
    /// Show samples as grey pictures of this width in pixels; 0 shows them as points. Images know theirs, the digits are 8
    /// wide
    #[arg(long, default_value_t = 0)]
    #[schemars(range(max = 4096), extend("unit" = "pixels"))]
    pub width: usize,
    /// Paths from noise to data that are saved
    #[arg(long, default_value_t = 16)]
    #[schemars(range(min = 1, max = 100_000), extend("unit" = "paths"))]
    pub paths: usize,
}
offprint_core::defaults_from_flags!(PfgmppParams);

/// Samplers that ask the model before the state is perturbed.
const WITH_MEMORY: [&str; 5] = ["ddim", "dpm++2m", "dpm-v3", "deis", "unipc"];

impl Params for PfgmppParams {
    fn check(&self) -> Result<()> {
        for (name, empty) in
            [("added", self.added.is_empty()), ("alphas", self.alphas.is_empty()), ("steps", self.steps.is_empty())]
        {
            if empty {
                return Err(Error::parameter(name, "nothing", "at least one number"));
            }
        }
        if let Some(alpha) = self.alphas.iter().find(|a| !(**a >= 0.0 && a.is_finite())) {
            return Err(Error::parameter("alphas", alpha, "zero or a positive number"));
        }
        if let Some(bits) = self.bits.iter().find(|b| !(2..=16).contains(*b)) {
            return Err(Error::parameter("bits", bits, "between 2 and 16"));
        }
        if let Some(steps) = self.steps.iter().find(|s| !(2..=100_000).contains(*s)) {
            return Err(Error::parameter("steps", steps, "between 2 and 100000"));
        }
        if self.sigma_min >= self.sigma_max {
            return Err(Error::parameter("sigma_min", self.sigma_min, format!("below sigma_max, {}", self.sigma_max)));
        }
        named(&self.sampler, self.steps[0], &Schedule::Edm)?;
        if WITH_MEMORY.iter().any(|name| self.sampler.starts_with(name)) && self.alphas.iter().any(|a| *a > 0.0) {
            let allowed = format!("0 with {}, which asks the model before the state is perturbed", self.sampler);
            return Err(Error::parameter("alphas", format!("{:?}", self.alphas), allowed));
        }
        if self.unet && self.train == 0 {
            return Err(Error::parameter("unet", "without steps", "given with --train, the steps of its training"));
        }
        if self.model.is_some() && self.search_d {
            return Err(Error::parameter("search_d", "given", "left out with --model, which has its D"));
        }
        if self.model.is_some() && self.train > 0 {
            return Err(Error::parameter("train", self.train, "0 with --model, which is trained"));
        }
        Ok(())
    }
}

/// What is sampled: a network, or the data themselves.
enum Model {
    Exact(ExactEmpirical),
    Trained(Network),
}

impl Model {
    /// Whether there are weights that can be made coarser.
    fn has_weights(&self) -> bool {
        matches!(self, Self::Trained(network) if network.shape().is_some())
    }

    fn ask<R>(&self, with: impl FnOnce(&dyn Denoiser) -> R) -> R {
        match self {
            Self::Exact(exact) => with(exact),
            Self::Trained(network) => with(&network.unconditional()),
        }
    }
}

/// What was found for one D.
pub(super) struct Row {
    pub added: Augmentation,
    /// Sliced W₂ for each α.
    pub errors: Vec<f64>,
    /// Sliced W₂ for each number of steps, without errors.
    pub steps: Vec<f64>,
    /// Calls of the model for each number of steps.
    pub calls: Vec<u64>,
    /// Sliced W₂ for each number of bits; empty without a network.
    pub bits: Vec<f64>,
    /// Samples for each α.
    pub samples: Vec<Array2<f64>>,
    /// The first points at every noise level of the longest run without errors, and the levels.
    pub way: Vec<(f64, Array2<f64>)>,
}

impl Method for Pfgmpp {
    type Params = PfgmppParams;

    fn run(params: &PfgmppParams, run: &mut Run) -> Result<()> {
        let (data, shown) = read(params)?;
        let (data, held) = if params.search_d { split(&data, run)? } else { (data.clone(), data) };
        let models = models(params, run, (&data, shown.map(|shown| shown.picture)))?;
        let judge = Judge::new(run, held.points.view());
        run.metric("data: points", data.points.nrows() as f64, "");
        run.metric("data: components", data.points.ncols() as f64, "");
        run.metric("sliced W2 of as many data points", judge.floor(run, params.samples)?, "");
        let mut rows = Vec::new();
        let coarse = if models.iter().any(|(_, m)| m.has_weights()) { params.bits.len() } else { 0 };
        let rough = params.alphas.iter().filter(|&&alpha| alpha > 0.0).count();
        let runs = models.len() * (params.steps.len() + rough + coarse);
        run.progress().begin("sampling", runs as u64);
        for (added, model) in &models {
            rows.push(measure(params, run, &judge, &data, *added, model)?);
        }
        run.progress().finish();
        report(params, run, &rows)?;
        if params.search_d {
            chosen(&rows, run)?;
        }
        run.figure("robustness", view::robustness(params, &rows));
        run.figure("samples", view::samples(params, &rows, &data, shown)?);
        run.figure("moving", view::moving(&rows, &data)?);
        if params.data.is_builtin() {
            run.figure("field", view::field_lines()?);
        }
        Ok(())
    }
}

/// The data, and how they are shown as pictures.
fn read(params: &PfgmppParams) -> Result<(Scaled, Option<Shown>)> {
    let (data, picture) = if params.data.is_builtin() {
        (offprint_data::digits().0, None)
    } else {
        let points = params.data.points()?;
        (points.values, points.picture)
    };
    if params.width > 0 && !data.ncols().is_multiple_of(params.width) {
        let allowed = format!("a divisor of the data's {} columns", data.ncols());
        return Err(Error::parameter("width", params.width, allowed));
    }
    let shown = match picture {
        Some(picture) => Some(Shown::light(picture, &data)),
        None => {
            let width = if params.data.is_builtin() && params.width == 0 { DIGIT.width } else { params.width };
            let height = data.ncols().checked_div(width);
            height.map(|height| Shown::ink(Picture { channels: 1, height, width }, &data))
        }
    };
    let scaled = if params.raw { Scaled::raw(data) } else { Scaled::new(data.view()) };
    let named = scaled.map_err(|e| match e {
        Error::Input { problem, .. } => Error::input(params.data.to_string(), problem),
        other => other,
    });
    Ok((named?, shown))
}

/// Four fifths of the data to learn from, and the rest to judge by.
fn split(data: &Scaled, run: &Run) -> Result<(Scaled, Scaled)> {
    let n = data.points.nrows();
    if n < 10 {
        let allowed = "off with fewer than 10 points, of which a fifth would be held back";
        return Err(Error::parameter("search_d", format!("{n} points"), allowed));
    }
    let mut rows: Vec<usize> = (0..n).collect();
    rows.shuffle(&mut run.stream("held back").rng(0));
    let (held, learned) = rows.split_at(n / 5);
    Ok((data.select(learned), data.select(held)))
}

/// The mean distance to the points held back for each D, and the lowest as a metric.
fn chosen(rows: &[Row], run: &mut Run) -> Result<()> {
    let scores: Vec<f64> = rows.iter().map(|row| offprint_math::stats::mean(&row.errors)).collect();
    let best = scores.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(i, _)| i);
    run.metric("chosen D", rows[best].added.get(), "");
    let runner_up =
        scores.iter().enumerate().filter(|(i, _)| *i != best).map(|(_, s)| *s).fold(f64::INFINITY, f64::min);
    run.metric("distance of the chosen D / of the next", scores[best] / runner_up, "");
    run.table(
        Table::new("search", "Mean over the errors α of the sliced W₂ to the points held back.")
            .words("D", rows.iter().map(|row| row.added.to_string()))
            .numbers("score", "", scores)
            .words("", (0..rows.len()).map(|i| if i == best { "chosen" } else { "" }.to_owned())),
    )
}

/// What --search-d tries.
const SEARCHED: [f64; 5] = [64.0, 128.0, 512.0, 2048.0, f64::INFINITY];

fn models(
    params: &PfgmppParams,
    run: &mut Run,
    (data, picture): (&Scaled, Option<Picture>),
) -> Result<Vec<(Augmentation, Model)>> {
    let points = data.points.view();
    if let Some(file) = &params.model {
        let expected = Expected { dim: Some(points.ncols()), ..Expected::default() };
        let network = open(file, params.onnx.as_ref(), &expected)?;
        let added = match network.path() {
            Path::StudentT { freedom } => Augmentation::new(*freedom)?,
            path => {
                path.kernel()?;
                Augmentation::DIFFUSION
            }
        };
        return Ok(vec![(added, Model::Trained(network))]);
    }
    let usual = params.added == PfgmppParams::default().added;
    let added: Vec<Augmentation> = match params.search_d && usual {
        true => SEARCHED.into_iter().map(Augmentation::new).collect::<Result<_>>()?,
        false => params.added.clone(),
    };
    let mut models = Vec::new();
    for added in added {
        if added.get() <= 1.0 {
            run.warn(format!("D = {added}: the noise has no mean, samples start from Cauchy tails or worse"));
        }
        models.push((
            added,
            if params.train > 0 {
                let usual = Recipe::edm(points.ncols(), 0, added.path(), params.train);
                let shape = match (params.unet, picture) {
                    (false, _) => usual.shape.clone(),
                    (true, Some(picture)) => PictureConfig::small(picture)?.into(),
                    (true, None) => {
                        let allowed = "left out, or given with images or a --width: the data are no pictures";
                        return Err(Error::parameter("unet", "given", allowed));
                    }
                };
                let recipe = Recipe {
                    shape,
                    reference: params.reference,
                    // At small D single points lie arbitrarily far out.
                    plan: Plan { clip: Some(1.0), ..usual.plan.clone() },
                    ..usual
                };
                let (network, losses) = fit(&recipe, points, None, run.seed(), &run.progress())?;
                run.metric(&format!("D = {added}: loss at the end"), tail_mean(&losses), "");
                if let Some(out) = run.out() {
                    network.save(&out.join(format!("network-D{added}.safetensors")))?;
                }
                Model::Trained(network)
            } else {
                Model::Exact(ExactEmpirical::new(data.points.clone(), added.kernel())?)
            },
        ));
    }
    Ok(models)
}

/// The mean of the last tenth: single losses jump with their noise levels.
fn tail_mean(losses: &[f64]) -> f64 {
    let tail = &losses[losses.len() - losses.len().div_ceil(10)..];
    offprint_math::stats::mean(tail)
}

/// Says how far samples are from the data.
struct Judge<'a> {
    data: ArrayView2<'a, f64>,
    directions: Array2<f64>,
}

impl<'a> Judge<'a> {
    fn new(run: &Run, data: ArrayView2<'a, f64>) -> Self {
        Self { data, directions: directions(DIRECTIONS, data.ncols(), run.stream("directions")) }
    }

    fn distance(&self, samples: ArrayView2<'_, f64>) -> Result<f64> {
        sliced_wasserstein(samples, self.data, self.directions.view())
    }

    /// The distance of `count` random rows of the data: nobody does much better.
    fn floor(&self, run: &Run, count: usize) -> Result<f64> {
        let mut rows: Vec<usize> = (0..self.data.nrows()).collect();
        rows.shuffle(&mut run.stream("floor").rng(0));
        rows.truncate(count);
        self.distance(self.data.select(Axis(0), &rows).view())
    }
}

fn measure(
    params: &PfgmppParams,
    run: &mut Run,
    judge: &Judge<'_>,
    data: &Scaled,
    added: Augmentation,
    model: &Model,
) -> Result<Row> {
    let progress = run.progress();
    let sampled = |steps: usize, alpha: f64, model: &dyn Denoiser, path: &mut Vec<Array2<f64>>| {
        let grid = Grid::karras(&Schedule::Edm, steps - 1, params.sigma_min, params.sigma_max, params.rho)?;
        let grid = grid.with_final_denoising();
        let sampler: Box<dyn Sampler> = named(&params.sampler, steps, &Schedule::Edm)?;
        let protocol = Protocol {
            sampler: sampler.as_ref(),
            grid: &grid,
            count: params.samples,
            alpha,
            streams: run.stream("samples").nested(0),
        };
        let sampled = protocol.sample(model, path, &progress)?;
        progress.advance(1)?;
        Ok::<_, Error>((judge.distance(sampled.y.view())?, sampled))
    };
    let most = *params.steps.last().expect("checked");
    let mut row =
        Row { added, errors: vec![], steps: vec![], calls: vec![], bits: vec![], samples: vec![], way: vec![] };
    let mut path = Vec::new();
    let mut best = None;
    for &steps in &params.steps {
        path.clear();
        let (distance, sampled) = model.ask(|m| sampled(steps, 0.0, m, &mut path))?;
        row.steps.push(distance);
        row.calls.push(sampled.evaluations);
        best = Some((distance, sampled));
    }
    let (clean, last) = best.expect("checked: there are steps");
    for &alpha in &params.alphas {
        let (distance, y) = if alpha == 0.0 {
            (clean, last.y.clone())
        } else {
            let (distance, sampled) = model.ask(|m| sampled(most, alpha, m, &mut Vec::new()))?;
            (distance, sampled.y)
        };
        row.errors.push(distance);
        row.samples.push(y);
    }
    if let Model::Trained(network) = model
        && model.has_weights()
    {
        for &bits in &params.bits {
            let ask = |network: &Network| sampled(most, 0.0, &network.unconditional(), &mut Vec::new());
            row.bits.push(with_quantised(network, bits, ask)?.0);
        }
    }
    let levels = Grid::karras(&Schedule::Edm, most - 1, params.sigma_min, params.sigma_max, params.rho)?;
    let levels = levels.nodes().iter().map(|node| node.tau).chain([0.0]);
    let shown = params.samples.min(view::MOVING);
    row.way = levels.zip(&path).map(|(tau, points)| (tau, points.slice(s![..shown, ..]).to_owned())).collect();
    run.save_array(&format!("samples-D{added}.npy"), data.restore(last.y.view()))?;
    let count = params.paths.min(params.samples);
    let mut paths = Array3::zeros((count, path.len(), last.y.ncols()));
    for (i, points) in path.iter().enumerate() {
        paths.slice_mut(s![.., i, ..]).assign(&data.restore(points.slice(s![..count, ..])));
    }
    run.save_array(&format!("paths-D{added}.npy"), paths)?;
    Ok(row)
}

fn report(params: &PfgmppParams, run: &mut Run, rows: &[Row]) -> Result<()> {
    let names = || rows.iter().map(|row| row.added.to_string());
    let mut errors =
        Table::new("errors", "Sliced W₂ to the data, with errors α before every step.").words("D", names());
    for (i, alpha) in params.alphas.iter().enumerate() {
        errors = errors.numbers(format!("α = {alpha}"), "", rows.iter().map(|row| row.errors[i]));
    }
    run.table(errors)?;
    let mut steps = Table::new("steps", "Sliced W₂ to the data after fewer steps.").words("D", names());
    for (i, count) in params.steps.iter().enumerate() {
        let title = format!("{count} steps ({} calls)", rows[0].calls[i]);
        steps = steps.numbers(title, "", rows.iter().map(|row| row.steps[i]));
    }
    run.table(steps)?;
    if rows.iter().any(|row| !row.bits.is_empty()) {
        let mut table = Table::new("bits", "Sliced W₂ to the data with weights of fewer bits.").words("D", names());
        for (i, bits) in params.bits.iter().enumerate() {
            table = table.numbers(format!("{bits} bits"), "", rows.iter().map(|row| row.bits[i]));
        }
        run.table(table)?;
    }
    for row in rows {
        for (alpha, error) in params.alphas.iter().zip(&row.errors) {
            run.metric(&format!("D = {}: sliced W2 at alpha {alpha}", row.added), *error, "");
        }
    }
    Ok(())
}
