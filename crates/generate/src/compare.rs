//! All samplers on one model: quality against calls of the model.

use crate::exact::ExactEmpirical;
use crate::metrics::{DIRECTIONS, directions, sliced_wasserstein};
use crate::network::{Digits8, DigitsData, Expected, Labels, Network, Reading, open};
use crate::pictures::{DIGIT, Shown};
use crate::sample::{NAMES, named};
use crate::{Denoiser, Grid, Guidance, Kernel, Schedule};
use ndarray::{Array2, ArrayView2, s};
use offprint_core::figure::{Axis, Figure, Plot};
use offprint_core::{Comparison, Error, Method, Params, Picture, Points, Result, Run, Source, Table};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The comparison of samplers, for the catalogue.
pub const SAMPLERS: Comparison = Comparison::of::<Samplers>(
    "samplers",
    "Samplers of diffusion models on one model",
    "Draws the quality of samples against the number of model calls, for every sampler of the field: how far each is from \
     the exact flow, and how far its samples are from the data.",
);

/// Runs every sampler at every number of steps.
#[derive(Debug, Clone, Copy)]
pub struct Samplers;

/// Parameters of `offprint compare samplers`.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SamplersParams {
    /// A network: .safetensors that was trained here (perceptron or U-Net), or .onnx that was exported anywhere; built in
    /// is the one of the digits, or the exact denoiser of the points if some are given
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// What an .onnx model means, as in predicts=eps,schedule=scaled-linear,time=index,shape=3x32x32: each word wrong is
    /// answered with those that there are; words in the file's metadata under "offprint" need not be repeated
    #[arg(long, value_name = "WORDS")]
    pub onnx: Option<Reading>,
    /// Points (N, d) to which samples are compared: .npy, .csv, images (N, h, w) or (N, h, w, c) as .npy, or a folder of
    /// .png files, whose values run from −1 to 1; built in are the handwritten digits
    #[arg(long, default_value = "builtin")]
    pub data: Source,
    /// Weight of guidance towards the classes, each an equal share of the samples, for a network that has some
    #[arg(long, default_value_t = 1.0)]
    #[schemars(range(min = 0, max = 100))]
    pub guidance: f64,
    /// Samplers, separated by commas
    #[arg(long, value_delimiter = ',', default_values_t = DEFAULT.map(str::to_owned))]
    pub samplers: Vec<String>,
    /// Numbers of steps, separated by commas
    #[arg(long, value_delimiter = ',', default_values_t = [5, 8, 12, 18, 30, 50])]
    pub steps: Vec<usize>,
    /// Points that each run samples
    #[arg(long, default_value_t = 500)]
    #[schemars(range(min = 2, max = 100_000))]
    pub count: usize,
    /// The highest noise level, in the units of the data; by default 80, or where the model's schedule ends before
    #[arg(long)]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub highest: Option<f64>,
    /// The lowest noise level before the final denoising
    #[arg(long, default_value_t = 0.002)]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub lowest: f64,
}
offprint_core::defaults_from_flags!(SamplersParams);

/// One of each kind.
const DEFAULT: [&str; 8] =
    ["ddim", "heun", "dpm++2m", "deis-tab3", "unipc-3-bh1", "sde-dpm", "edm-churn", "euler-maruyama"];

/// Steps of the reference.
const REFERENCE: usize = 400;

/// The highest noise level where nothing else is said: EDM's.
const HIGHEST: f64 = 80.0;

/// Samples that are shown as pictures.
const SHOWN: usize = 20;

impl Params for SamplersParams {
    fn check(&self) -> Result<()> {
        if self.samplers.is_empty() {
            return Err(Error::parameter("samplers", "none", format!("some of {}", NAMES.join(", "))));
        }
        for name in &self.samplers {
            named(name, 10, &Schedule::Edm)?;
        }
        match self.steps.iter().find(|&&steps| !(2..=10_000).contains(&steps)) {
            Some(steps) => Err(Error::parameter("steps", steps, "between 2 and 10000")),
            None if self.steps.is_empty() => Err(Error::parameter("steps", "none", "at least one number")),
            None => match self.highest {
                Some(highest) if self.lowest >= highest => {
                    Err(Error::parameter("lowest", self.lowest, format!("below the highest level {highest}")))
                }
                _ => Ok(()),
            },
        }
    }
}

/// What one sampler does at one number of steps.
struct Outcome {
    sampler: usize,
    steps: usize,
    calls: u64,
    /// Root mean square distance to the exact flow from the same noise; only for deterministic samplers.
    gap: f64,
    /// Sliced W₂ to the data.
    distance: f64,
    seconds: f64,
}

impl Method for Samplers {
    type Params = SamplersParams;

    fn run(params: &Self::Params, run: &mut Run) -> Result<()> {
        let (network, data, picture) = subject(params)?;
        let model: Box<dyn Denoiser + '_> = match &network {
            None => Box::new(ExactEmpirical::new(data.clone(), Kernel::Gaussian)?),
            Some(network) if network.classes() == 0 => Box::new(network.unconditional()),
            Some(network) => {
                let classes = network.classes();
                let labels = (0..params.count).map(|i| i * classes / params.count).collect();
                let conditioned = network.conditioned(Labels::Each(labels))?;
                Box::new(Guidance::new(network.unconditional(), conditioned, params.guidance)?)
            }
        };
        let model = &*model;
        if model.kernel() != Kernel::Gaussian {
            return Err(Error::parameter(
                "model",
                "of Student noise",
                "a model of Gaussian noise, which all samplers take",
            ));
        }
        let progress = run.progress();
        let reach = network.as_ref().map_or(f64::INFINITY, Network::highest);
        let highest = params.highest.unwrap_or(HIGHEST.min(reach));
        let grid = |steps: usize| -> Result<Grid> {
            let levels = Grid::karras(&Schedule::Edm, steps - 1, params.lowest, highest, 7.0)?;
            Ok(levels.with_final_denoising())
        };
        let start = Kernel::Gaussian.noise(params.count, model.dim(), highest, run.stream("start"), 0);
        let noise = run.stream("noise");
        let heun = named("heun", REFERENCE, &Schedule::Edm)?;
        let exact = heun.run_with(model, start.clone(), &grid(REFERENCE)?, noise, &mut (), &progress)?.into_x();
        let directions = directions(DIRECTIONS, model.dim(), run.stream("directions"));
        let to_data = |x: ArrayView2<'_, f64>| sliced_wasserstein(x, data.view(), directions.view());
        let mut outcomes = Vec::new();
        progress.begin("samplers", (params.samplers.len() * params.steps.len()) as u64);
        let widest = grid(params.steps.iter().copied().max().unwrap_or(2))?;
        for (sampler, name) in params.samplers.iter().enumerate() {
            // The levels of all grids lie between the same ends: what is learned on one serves all.
            let unlearned = named(name, widest.steps(), &Schedule::Edm)?;
            let learned = unlearned.learn(model, params.count, &widest, noise, &progress)?;
            if let Some(learned) = &learned {
                run.metric(&format!("calls for the statistics of {name}"), learned.evaluations as f64, "");
            }
            for &steps in &params.steps {
                progress.advance(1)?;
                let own = named(name, steps, &Schedule::Edm)?;
                let solver = learned.as_ref().map_or(&*own, |learned| &*learned.sampler);
                let began = std::time::Instant::now();
                let sampled = match solver.run_with(model, start.clone(), &grid(steps)?, noise, &mut (), &progress) {
                    Ok(sampled) => sampled,
                    Err(Error::Cancelled) => return Err(Error::Cancelled),
                    // A method of high order needs more steps than the smallest number asked for.
                    Err(error) => {
                        run.warn(format!("{name} with {steps} steps: {error}"));
                        continue;
                    }
                };
                let seconds = began.elapsed().as_secs_f64();
                let calls = sampled.evaluations;
                let x = sampled.into_x();
                let gap = if solver.is_stochastic() { f64::NAN } else { root_mean_square(&(&x - &exact)) };
                outcomes.push(Outcome { sampler, steps, calls, gap, distance: to_data(x.view())?, seconds });
            }
        }
        if let Some(picture) = picture {
            let some = exact.slice(s![..exact.nrows().min(SHOWN), ..]);
            let shown =
                if params.data.is_builtin() { Shown::ink(picture, &data) } else { Shown::light(picture, &data) };
            let caption = "What the exact flow makes of noise.";
            run.figure("samples", Figure::new("Samples", caption).panel(shown.grid("", some, SHOWN / 2)));
        }
        report(params, &outcomes, to_data(exact.view())?, run)
    }
}

fn report(params: &SamplersParams, outcomes: &[Outcome], of_exact: f64, run: &mut Run) -> Result<()> {
    run.metric("distance of the exact flow's samples to the data", of_exact, "");
    for (most, what) in [(10, "10"), (20, "20"), (50, "50")] {
        let within = outcomes.iter().filter(|o| o.calls <= most && o.gap.is_finite());
        if let Some(best) = within.min_by(|a, b| a.gap.total_cmp(&b.gap)) {
            run.metric(&format!("least gap within {what} calls ({})", params.samplers[best.sampler]), best.gap, "");
        }
    }
    let curve = |mut plot: Plot, value: fn(&Outcome) -> f64| {
        for (sampler, name) in params.samplers.iter().enumerate() {
            let own = outcomes.iter().filter(|o| o.sampler == sampler && value(o).is_finite());
            let (x, y): (Vec<f64>, Vec<f64>) = own.map(|o| (o.calls as f64, value(o))).unzip();
            if !x.is_empty() {
                plot = plot.line(name, x, y);
            }
        }
        plot
    };
    let gap = Plot::new(Axis::log("calls of the model"), Axis::log("gap to the exact flow"));
    let distance = Plot::new(Axis::log("calls of the model"), Axis::log("distance to the data"));
    run.figure(
        "samplers",
        Figure::new(
            "Quality against cost",
            format!(
                "Left: root mean square distance to the points that the exact flow ({REFERENCE} steps of Heun's method) \
                 reaches from the same noise; stochastic samplers go elsewhere. Right: sliced Wasserstein distance of the \
                 samples to the data; dashed: that of the exact flow."
            ),
        )
        .columns(2)
        .panel(curve(gap.titled("from the same noise"), |o| o.gap))
        .panel(curve(distance.titled("as a whole"), |o| o.distance).horizontal("exact flow", of_exact)),
    );
    let column = |value: fn(&Outcome) -> f64| outcomes.iter().map(value).collect::<Vec<_>>();
    run.table(
        Table::new("samplers", "Every sampler at every number of steps.")
            .words("sampler", outcomes.iter().map(|o| params.samplers[o.sampler].clone()))
            .integers("steps", "", outcomes.iter().map(|o| o.steps as i64))
            .integers("calls", "", outcomes.iter().map(|o| o.calls as i64))
            .numbers("gap to the exact flow", "", column(|o| o.gap))
            .numbers("distance to the data", "", column(|o| o.distance))
            .numbers("time", "s", column(|o| o.seconds)),
    )
}

/// The network, or none if the model is the exact denoiser of the data; the data, and how they are pictures.
fn subject(params: &SamplersParams) -> Result<(Option<Network>, Array2<f64>, Option<Picture>)> {
    let Points { values: data, picture } = match params.data.is_builtin() {
        true => Points { values: DigitsData::new().train, picture: Some(DIGIT) },
        false => params.data.points()?,
    };
    let expected = Expected { dim: Some(data.ncols()), ..Expected::default() };
    let network = match &params.model {
        Some(file) => Some(open(file, params.onnx.as_ref(), &expected)?),
        None if params.data.is_builtin() => Some(Digits8::shipped()?.network),
        None => None,
    };
    let guided = network.as_ref().is_some_and(|network| network.classes() > 0);
    if params.guidance != 1.0 && !guided {
        return Err(Error::parameter("guidance", params.guidance, "1: the model has no classes"));
    }
    let picture = picture.or_else(|| network.as_ref().and_then(Network::picture));
    Ok((network, data, picture))
}

fn root_mean_square(x: &Array2<f64>) -> f64 {
    (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64).sqrt()
}
