//! The door: quantise the user's network on the user's samples.

use super::distil::{Distillation, distil};
use super::layer::{Bits, Calibrated, Settings};
use super::network::{Flow, How, Quantised};
use super::programme::Table as Options;
use super::tuning::{BiasTuning, divergence, tune_biases, tune_norms};
use crate::allocate::{Budget, Solver};
use crate::compression::usual_targets;
use crate::examples::Example;
use crate::export::{Format, export, load, network_bytes};
use crate::methods::{AdaRound, Target};
use crate::model::{evaluate, fold_batch_norms, outputs};
use crate::packed::Packed;
use crate::subject::{Samples, Subject, open_network, read};
use candle_core::{DType, Tensor};
use offprint_core::figure::{Axis, Figure, Plot};
use offprint_core::{Error, Method, Params, Result, Run, Source, Table};
use offprint_nn::data::unlabelled;
use offprint_nn::{Batch, LayerPlace, Network, computation};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// AdaQuant.
#[derive(Debug, Clone, Copy)]
pub struct AdaQuant;

/// How layers are quantised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// AdaQuant: weights, ranges and biases trained to give back each layer's outputs
    Adaquant,
    /// Ranges searched without gradients
    Search,
    /// Rounded to nearest between least and greatest
    Nearest,
    /// Rounded to nearest, biases moved by the mean difference of the outputs
    BiasCorrection,
    /// Weights rounded up or down by AdaRound, inputs between least and greatest
    Adaround,
    /// All weights trained at once against the float network's outputs
    Distillation,
}

/// Parameters of `adaquant`.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdaQuantParams {
    /// A network of your own: a directory with config.json and .safetensors, or one .safetensors file that was saved here
    #[arg(long)]
    pub model: Option<PathBuf>,
    /// The built-in network that is taken without one
    #[arg(long, value_enum, default_value_t = Example::DigitsCnn)]
    pub example: Example,
    /// Samples to calibrate with, as the network reads them; no classes are needed
    #[arg(long, default_value = "builtin")]
    pub calibration: Source,
    /// Samples with classes to test on, classes in the last column of rows; without them the quantised network is judged
    /// by how far its outputs are from the float network's
    #[arg(long)]
    pub data: Option<Source>,
    /// Classes of the test samples, if they do not stand among them
    #[arg(long)]
    pub targets: Option<Source>,
    /// Calibration samples that are used, from the first on
    #[arg(long, default_value_t = 256)]
    #[schemars(range(min = 2, max = 1_000_000), extend("unit" = "samples"))]
    pub samples: usize,
    /// How layers are quantised; all but the first are baselines
    #[arg(long, value_enum, default_value_t = Way::Adaquant)]
    pub way: Way,
    /// Bits of weights
    #[arg(long, default_value_t = 4)]
    #[schemars(range(min = 1, max = 8), extend("unit" = "bits"))]
    pub bits: u32,
    /// Bits of the layers' inputs; 0 leaves them floats
    #[arg(long, default_value_t = 4)]
    #[schemars(range(min = 0, max = 8), extend("unit" = "bits"))]
    pub input_bits: u32,
    /// Give each layer its own bits by an integer programme, such that all weights take at most this share of their size in
    /// 32-bit floats; 0 leaves all layers at --bits
    #[arg(long, default_value_t = 0.0)]
    #[schemars(range(min = 0, max = 1))]
    pub size: f64,
    /// The bits that the programme chooses from, for weights and inputs alike, falling
    #[arg(long, value_delimiter = ',', default_values_t = [8, 4, 2])]
    pub precisions: Vec<u32>,
    /// Calibrate each layer with the float network's inputs, not with those that quantised layers before it give
    #[arg(long)]
    pub parallel: bool,
    /// Steps of a layer's calibration; of distillation
    #[arg(long, default_value_t = 300)]
    #[schemars(range(min = 1, max = 1_000_000), extend("unit" = "steps"))]
    pub steps: usize,
    /// Samples of a step
    #[arg(long, default_value_t = 50)]
    #[schemars(range(min = 1, max = 100_000), extend("unit" = "samples"))]
    pub batch: usize,
    /// Leave the means and deviations of channels behind quantised convolutions as they come
    #[arg(long)]
    pub keep_norms: bool,
    /// Steps of bias tuning at the end; 0 for none
    #[arg(long, default_value_t = 0)]
    #[schemars(range(min = 0, max = 1_000_000), extend("unit" = "steps"))]
    pub bias_steps: usize,
    /// Layers that stay floats, separated by commas
    #[arg(long, value_delimiter = ',')]
    pub except: Vec<String>,
    /// Format of the quantised network
    #[arg(long, value_enum, default_value_t = Format::Packed)]
    pub format: Format,
}
offprint_core::defaults_from_flags!(AdaQuantParams);

impl Params for AdaQuantParams {
    fn check(&self) -> Result<()> {
        match (&self.model, self.calibration.is_builtin()) {
            (Some(_), true) => {
                return Err(Error::parameter("calibration", "builtin", "given with a model of your own"));
            }
            (None, false) => return Err(Error::parameter("model", "none", "given with samples of your own")),
            _ => {}
        }
        if self.model.is_none() && self.data.is_some() {
            return Err(Error::parameter("model", "none", "given with samples of your own"));
        }
        if self.targets.is_some() && self.data.is_none() {
            return Err(Error::parameter("data", "none", "given with targets"));
        }
        if let Some(bits) = self.precisions.iter().find(|bits| !(1..=8).contains(*bits)) {
            return Err(Error::parameter("precisions", bits, "between 1 and 8"));
        }
        if self.size > 0.0 && (self.precisions.len() < 2 || !self.precisions.is_sorted_by(|a, b| a > b)) {
            let given = format!("{:?}", self.precisions);
            return Err(Error::parameter("precisions", given, "at least two, in falling order"));
        }
        if self.size > 0.0 && self.way == Way::Distillation {
            return Err(Error::parameter("way", "distillation", "a way that goes layer by layer, to choose bits"));
        }
        Ok(())
    }
}

impl AdaQuantParams {
    fn how(&self) -> How {
        match self.way {
            Way::Adaquant | Way::Distillation => {
                How::AdaQuant(Settings { steps: self.steps, batch: self.batch, ..Settings::default() })
            }
            Way::Search => How::Search { batch: self.batch },
            Way::Nearest => How::Nearest,
            Way::BiasCorrection => How::BiasCorrection,
            Way::Adaround => {
                // Fewer steps than the published ones go as far with a rate as much higher.
                let published = AdaRound::default();
                let rate = published.rate * (published.steps as f32 / self.steps as f32).clamp(1.0, 10.0);
                How::AdaRound(AdaRound { steps: self.steps, rate, ..published })
            }
        }
    }
}

/// What a run works on.
struct Given {
    network: Network,
    calibration: Tensor,
    test: Option<Batch>,
}

impl Given {
    fn read(params: &AdaQuantParams) -> Result<Self> {
        let Some(path) = &params.model else {
            let Subject { network, train, test } = params.example.load()?;
            return Ok(Self { network, calibration: train.inputs, test: Some(test) });
        };
        let network = open_network(path)?;
        let calibration = unlabelled(network.architecture(), &params.calibration, DType::F32)?;
        let test = match &params.data {
            Some(inputs) => {
                let samples = Samples { inputs, targets: params.targets.as_ref() };
                Some(read(&network, path, samples)?)
            }
            None => None,
        };
        Ok(Self { network, calibration, test })
    }
}

impl Method for AdaQuant {
    type Params = AdaQuantParams;

    fn run(params: &Self::Params, run: &mut Run) -> Result<()> {
        let Given { network, calibration, test } = Given::read(params)?;
        let (folded, norms) = fold_batch_norms(&network)?;
        let places = usual_targets(&folded, Target::default(), &params.except)?;
        let places: Vec<LayerPlace> = places.into_iter().map(|(place, _)| place).collect();
        let n = calibration.dims().first().copied().unwrap_or(0);
        if n < 2 {
            return Err(Error::input(
                params.calibration.to_string(),
                format!("holds {n} samples; at least 2 are needed"),
            ));
        }
        let samples = calibration.narrow(0, 0, params.samples.min(n)).map_err(computation)?;
        // Judged on what calibration has not seen, if anything is left.
        let rest = (n > params.samples).then(|| calibration.narrow(0, params.samples, (n - params.samples).min(512)));
        let judged = match (&test, rest) {
            (Some(test), _) => test.inputs.clone(),
            (None, Some(rest)) => rest.map_err(computation)?,
            (None, None) => {
                run.warn("all samples calibrate: outputs are compared on the same ones");
                samples.clone()
            }
        };
        let progress = run.progress();
        let flow = if params.parallel { Flow::Parallel } else { Flow::Sequential };
        let stream = run.stream("calibration");
        let same = Bits { weight: params.bits, input: (params.input_bits > 0).then_some(params.input_bits) };
        let all: Vec<(LayerPlace, Bits)> = places.iter().map(|place| (place.clone(), same)).collect();
        let mut quantised = if params.size > 0.0 {
            programme(params, &folded, &places, &samples, run)?
        } else if params.way == Way::Distillation {
            let settings = Distillation { steps: params.steps, batch: params.batch, ..Distillation::default() };
            distil(&folded, &all, &samples, &settings, stream, &progress)?
        } else {
            Quantised::new(&folded, &all, &samples, (params.how(), flow), stream, &progress)?
        };
        if !params.keep_norms {
            let known = |norm: &&crate::model::Norm| places.iter().any(|place| place.name == norm.layer);
            let norms: Vec<_> = norms.iter().filter(known).cloned().collect();
            tune_norms(&mut quantised, &norms, &samples, &progress)?;
        }
        if params.bias_steps > 0 {
            let tuning = BiasTuning { steps: params.bias_steps, ..BiasTuning::default() };
            tune_biases(&quantised, &folded, &samples, &tuning, run.stream("biases"), &progress)?;
        }
        report(params, (&folded, &quantised), (&judged, test.as_ref()), run)
    }
}

/// Layers with the bits that an integer programme gives them, by what each does to the divergence from the float outputs.
fn programme(
    params: &AdaQuantParams,
    folded: &Network,
    places: &[LayerPlace],
    samples: &Tensor,
    run: &mut Run,
) -> Result<Quantised> {
    let float = outputs(folded, samples, None)?;
    let loss = |q: &Quantised| gap(&float, &outputs(&q.network, samples, Some(q.within()))?);
    let stream = run.stream("calibration");
    let progress = run.progress();
    let options =
        Options::measure(folded, places, &params.precisions, (samples, params.how()), stream, &progress, loss)?;
    let choices = options.choose(Budget::MeanBits(32.0 * params.size), Solver::Exact)?;
    let quantised = options.assemble(&choices)?;
    run.metric("divergence that the programme expects", options.predicted(&choices), "nat");
    run.metric("divergence that was measured", loss(&quantised)?, "nat");
    let mut plot = Plot::new(
        Axis::categories("layer", places.iter().map(|place| place.name.clone())),
        Axis::log("divergence added").unit("nat"),
    );
    for (choice, bits) in params.precisions.iter().enumerate().skip(1) {
        plot = plot.bars(format!("{bits} bits"), options.costs.iter().map(|l| l.options[choice].cost).collect());
    }
    run.figure(
        "sensitivity",
        Figure::new(
            "What fewer bits in one layer do to the outputs",
            format!("KL divergence of the softmax of the outputs, in the mean over rows and classes, beyond that of all layers at {} bits.", params.precisions[0]),
        )
        .panel(plot),
    );
    Ok(quantised)
}

fn gap(float: &Tensor, own: &Tensor) -> Result<f64> {
    divergence(float, own).and_then(|d| d.to_dtype(DType::F64)?.to_scalar()).map_err(computation)
}

fn report(
    params: &AdaQuantParams,
    (float, quantised): (&Network, &Quantised),
    (judged, test): (&Tensor, Option<&Batch>),
    run: &mut Run,
) -> Result<()> {
    let within = quantised.within();
    let (expected, own) = (outputs(float, judged, None)?, outputs(&quantised.network, judged, Some(within.clone()))?);
    if let Some(test) = test {
        let (before, after) = (evaluate(float, test, None)?, evaluate(&quantised.network, test, Some(within))?);
        run.metric("accuracy of the float network", before.accuracy, "");
        run.metric("accuracy of the quantised network", after.accuracy, "");
        run.metric("loss of the float network", before.loss, "nat");
        run.metric("loss of the quantised network", after.loss, "nat");
    }
    let same = expected
        .argmax(candle_core::D::Minus1)
        .and_then(|a| a.eq(&own.argmax(candle_core::D::Minus1)?)?.to_dtype(DType::F64)?.mean_all()?.to_scalar::<f64>());
    run.metric("share of the same decisions", same.map_err(computation)?, "");
    run.metric("divergence from the float outputs", gap(&expected, &own)?, "nat");
    let packed: Vec<Packed> = quantised.layers.iter().map(|(_, layer)| layer.weight.clone()).collect();
    let (whole, small) = (network_bytes(float, &[])?, network_bytes(&quantised.network, &packed)?);
    run.metric("size of the float network", whole as f64 / 1e3, "kB");
    run.metric("size of the quantised network", small as f64 / 1e3, "kB");
    layers(&quantised.layers, run)?;
    let Some(out) = run.out() else { return Ok(()) };
    let directory = out.join("model");
    export(&quantised.network, &packed, params.format, &directory)?;
    let inputs: serde_json::Map<String, serde_json::Value> = quantised
        .layers
        .iter()
        .filter_map(|(place, layer)| {
            let affine = layer.input?;
            let (first, last) = affine.codes;
            let value = serde_json::json!({ "scale": affine.scale, "zero": affine.zero, "first": first, "last": last });
            Some((place.weight.clone(), value))
        })
        .collect();
    // What the exported tensors give when they are read again must be what was judged.
    let again = load(&directory)?.network;
    let reread = outputs(&again, judged, Some(quantised.within()))?;
    let apart = (&reread - &own).and_then(|d| d.abs()?.max_all()?.to_scalar::<f32>()).map_err(computation)?;
    run.metric("largest difference of the exported network's outputs", f64::from(apart), "");
    run.save_json("input_quantisers.json", &inputs)
}

fn layers(layers: &[(LayerPlace, Calibrated)], run: &mut Run) -> Result<()> {
    let names = || layers.iter().map(|(place, _)| place.name.clone());
    let of = |f: &dyn Fn(&Calibrated) -> Option<f64>| {
        layers.iter().map(|(_, l)| f(l).unwrap_or(f64::NAN)).collect::<Vec<_>>()
    };
    let nearest = of(&|l| Some(l.held_out?.0));
    let own = of(&|l| Some(l.held_out?.1));
    let equations = of(&|l| l.equations);
    if let Some((place, _)) = layers.iter().find(|(_, l)| l.equations.is_some_and(|e| e < 1.0)) {
        run.warn(format!(
            "layer \"{}\" has fewer outputs on all samples than weights that make them: more samples would determine it",
            place.name
        ));
    }
    let mut table = Table::new(
        "layers",
        "The quantised layers: bits, and mean squared error of outputs on calibration samples that were held out.",
    )
    .words("layer", names())
    .integers("weights", "", layers.iter().map(|(place, _)| place.weights() as i64))
    .integers("bits", "", layers.iter().map(|(_, l)| i64::from(l.weight.bits())));
    if own.iter().any(|x| x.is_finite()) {
        table = table
            .numbers("rounded to nearest", "", nearest.clone())
            .numbers("calibrated", "", own.clone())
            .numbers("equations a weight", "", equations);
    }
    run.table(table)?;
    let bits: Vec<f64> = layers.iter().map(|(_, layer)| f64::from(layer.weight.bits())).collect();
    let mixed = bits.windows(2).any(|pair| pair[0] != pair[1]);
    let mut figure = Figure::new("The layers", "What became of each layer.");
    if own.iter().any(|x| x.is_finite()) {
        figure = figure.panel(
            Plot::new(Axis::categories("layer", names()), Axis::log("mean squared error"))
                .titled("error on held-out samples")
                .bars("rounded to nearest", nearest)
                .bars("as it is now", own),
        );
    }
    if mixed || figure.panels.is_empty() {
        let plot = Plot::new(Axis::categories("layer", names()), Axis::new("bits of a weight"));
        figure = figure.panel(plot.titled("bits").bars("bits", bits));
    }
    let panels = figure.panels.len();
    run.figure("layers", figure.columns(panels));
    Ok(())
}
