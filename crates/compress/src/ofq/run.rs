//! The door: trains a quantised copy of the user's vision transformer, and evaluates what was written before.

use super::report;
use super::{Calm, Form, History, Lessons, Ofq, Precision, QuantisedViT, Rule, Training, is_quantised};
use crate::examples::Example;
use crate::subject::{Samples, Subject};
use candle_core::DType;
use offprint_core::artifact::read_safetensors;
use offprint_core::{Error, Method, Params, Result, Run, Source};
use offprint_nn::data::labelled;
use offprint_nn::derivatives::Loss;
use offprint_nn::train::Schedule;
use offprint_nn::{Network, computation};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What keeps weights from jumping between levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Calming {
    /// Nothing
    None,
    /// Confidence-guided annealing, in epochs of its own at the end
    Cga,
    /// Iterative freezing of weights that oscillate
    Freezing,
    /// A penalty on the distance to the levels
    Dampening,
}

/// Parameters of `ofq`.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OfqParams {
    /// A vision transformer with timm's names: a directory with config.json and .safetensors, or one .safetensors file that
    /// was saved here; or a quantised.safetensors of an earlier run, which is evaluated; built in is one for digits
    #[arg(long)]
    pub model: Option<PathBuf>,
    /// Images to test on (n, channels, height, width), or rows of square images with the class in the last column
    #[arg(long, default_value = "builtin")]
    pub data: Source,
    /// Classes of the images, counted from 0, if they do not stand among them
    #[arg(long)]
    pub targets: Option<Source>,
    /// Images to train on, in the same form; without them the first half of the data
    #[arg(long)]
    pub train: Option<Source>,
    /// Their classes
    #[arg(long)]
    pub train_targets: Option<Source>,
    /// Bits of the blocks' weights; the first layer and the head always have eight
    #[arg(long, default_value_t = 2)]
    #[schemars(range(min = 1, max = 8))]
    pub weight_bits: u32,
    /// Bits of the blocks' activations, from 2 to 8; 32 leaves all activations floats
    #[arg(long, default_value_t = 2)]
    #[schemars(range(min = 2, max = 32))]
    pub activation_bits: u32,
    /// What sets the scales of weights
    #[arg(long, value_enum, default_value_t = Rule::StatsQ)]
    pub rule: Rule,
    /// Quantise queries and keys by themselves instead of the product of their weights
    #[arg(long)]
    pub plain: bool,
    /// Keep the queries' bias, in floats, which the product drops
    #[arg(long)]
    pub keep_qbias: bool,
    /// What keeps weights from jumping between levels
    #[arg(long, value_enum, default_value_t = Calming::Cga)]
    pub calm: Calming,
    /// How near a boundary, in distances of levels, a weight must be to be trained under CGA
    #[arg(long, default_value_t = 0.005)]
    #[schemars(extend("exclusiveMinimum" = 0), extend("exclusiveMaximum" = 0.5))]
    pub margin: f64,
    /// Oscillations in a step from which a weight is frozen
    #[arg(long, default_value_t = 0.01)]
    #[schemars(extend("exclusiveMinimum" = 0), extend("exclusiveMaximum" = 1))]
    pub threshold: f64,
    /// Weight of the penalty of dampening
    #[arg(long, default_value_t = 0.01)]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub strength: f64,
    /// Passes over the training images
    #[arg(long, default_value_t = 8)]
    #[schemars(range(min = 1, max = 10_000))]
    pub epochs: u64,
    /// Further passes under CGA
    #[arg(long, default_value_t = 3)]
    #[schemars(range(min = 1, max = 10_000))]
    pub cga_epochs: u64,
    /// Images of a batch
    #[arg(long, default_value_t = 64)]
    #[schemars(range(min = 1, max = 100_000))]
    pub batch: usize,
    /// Adam's learning rate
    #[arg(long, default_value_t = 1e-3)]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub rate: f64,
    /// Let the learning rate fall to 0 on a cosine, in each of the two trainings
    #[arg(long)]
    pub cosine: bool,
    /// Decoupled weight decay
    #[arg(long, default_value_t = 0.0)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub weight_decay: f64,
    /// Train by the classes alone, without the float network as a teacher
    #[arg(long)]
    pub no_teacher: bool,
    /// Also save the weights before rounding, from which training could go on
    #[arg(long)]
    pub shadow: bool,
}
offprint_core::defaults_from_flags!(OfqParams);

impl Params for OfqParams {
    fn check(&self) -> Result<()> {
        if self.activation_bits > 8 && self.activation_bits != 32 {
            return Err(Error::parameter("activation_bits", self.activation_bits, "between 2 and 8, or 32 for floats"));
        }
        if self.rule != Rule::StatsQ && self.weight_bits == 1 {
            return Err(Error::parameter("weight_bits", 1, "at least 2 for LSQ"));
        }
        if self.plain && self.keep_qbias {
            return Err(Error::parameter("keep_qbias", true, "left out with plain attention, which keeps all biases"));
        }
        match (&self.model, self.data.is_builtin()) {
            (Some(_), true) => Err(Error::parameter("data", "builtin", "given with a model of your own")),
            (None, false) => Err(Error::parameter("model", "none", "given with data of your own")),
            _ => Ok(()),
        }
    }
}

impl OfqParams {
    fn precision(&self) -> Precision {
        Precision {
            weights: Some(self.weight_bits),
            activations: (self.activation_bits <= 8).then_some(self.activation_bits),
            rule: self.rule,
            form: if self.plain { Form::Plain } else { Form::Qkr { keep_query_bias: self.keep_qbias } },
        }
    }

    fn training(&self) -> Training {
        let calm = match self.calm {
            Calming::None | Calming::Cga => Calm::Nothing,
            Calming::Freezing => Calm::Freezing { threshold: self.threshold },
            Calming::Dampening => Calm::Dampening { strength: self.strength },
        };
        Training {
            epochs: self.epochs,
            batch: self.batch,
            rate: self.rate,
            schedule: if self.cosine { Schedule::cosine() } else { Schedule::constant() },
            weight_decay: self.weight_decay,
            calm,
        }
    }

    fn subject(&self) -> Result<Subject> {
        let Some(path) = &self.model else { return Example::DigitsVit.load() };
        let train = self.train.as_ref();
        let train = train.map(|inputs| Samples { inputs, targets: self.train_targets.as_ref() });
        Subject::open(path, Samples { inputs: &self.data, targets: self.targets.as_ref() }, train)
    }
}

impl Method for Ofq {
    type Params = OfqParams;

    fn run(params: &OfqParams, run: &mut Run) -> Result<()> {
        if let Some(path) = params.model.as_deref().filter(|path| path.is_file()) {
            // A file that cannot be read here may still be a network, whose reader says more about what is wrong.
            if let Ok((arrays, metadata)) = read_safetensors(path)
                && is_quantised(&metadata)
            {
                let network = QuantisedViT::from_arrays(&arrays, &metadata, &path.display().to_string())?;
                return evaluate(params, path, &network, run);
            }
        }
        train(params, run)
    }
}

/// Evaluates a network that was quantised before.
fn evaluate(params: &OfqParams, path: &Path, network: &QuantisedViT, run: &mut Run) -> Result<()> {
    let architecture = network.network().architecture();
    let samples = labelled(architecture, Loss::CrossEntropy, &params.data, params.targets.as_ref(), DType::F32)?;
    let quality = network.evaluate(&samples)?;
    run.metric("accuracy", quality.accuracy, "");
    run.metric("loss", quality.loss, "nat");
    run.metric("images", samples.len() as f64, "");
    let bytes = std::fs::metadata(path).map_err(|e| Error::file("read", path, e))?.len();
    run.metric("size of the file", bytes as f64 / 1e3, "kB");
    report::codes(network, run)?;
    run.save_array("logits.npy", network.logits(&samples.inputs)?)
}

fn train(params: &OfqParams, run: &mut Run) -> Result<()> {
    let subject = params.subject()?;
    let network = QuantisedViT::new(&subject.network, params.precision())?;
    warn(params, &subject.network, &network, run)?;
    run.metric("accuracy, floats", crate::model::evaluate(&subject.network, &subject.test, None)?.accuracy, "");
    // The first batch sets the steps of activations, here as in training.
    let rounded = QuantisedViT::new(&subject.network, params.precision())?;
    let first = subject.train.narrow(0, params.batch.min(subject.train.len())).map_err(computation)?;
    rounded.forward(&first.inputs).map_err(computation)?;
    run.metric("accuracy, rounded without training", rounded.evaluate(&subject.test)?.accuracy, "");

    let lessons = Lessons::new(&subject.train, (!params.no_teacher).then_some(&subject.network))?;
    let progress = run.progress();
    let mut training = params.training();
    let mut phases: Vec<(&str, History)> =
        vec![("training", network.train(&lessons, &training, run.stream("order"), &progress)?)];
    run.metric("accuracy, trained", network.evaluate(&subject.test)?.accuracy, "");
    let before = network.readings()?;
    if params.calm == Calming::Cga {
        training = Training { epochs: params.cga_epochs, calm: Calm::Cga { margin: params.margin }, ..training };
        let history = network.train(&lessons, &training, run.stream("order of annealing"), &progress)?;
        run.metric("accuracy, annealed", network.evaluate(&subject.test)?.accuracy, "");
        run.metric("weights trained under CGA", 100.0 * history.trained, "%");
        phases.push(("annealing", history));
    }
    report::phases(&phases, run)?;
    report::matrices(&network, &phases, run)?;
    report::positions(&before, &network, phases.len() > 1, run)?;

    let (arrays, metadata, bytes) = network.to_arrays(params.shadow)?;
    let again = QuantisedViT::from_arrays(&arrays, &metadata, "quantised.safetensors")?;
    let logits = network.logits(&subject.test.inputs)?;
    let apart = again.logits(&subject.test.inputs)?.iter().zip(&logits).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs()));
    run.metric("largest difference of logits after reloading", f64::from(apart), "");
    report::sizes(&network, bytes, run)?;
    run.save_array("logits.npy", logits)?;
    run.save_arrays("quantised.safetensors", arrays, metadata)
}

/// Tells what these levels cannot hold.
fn warn(params: &OfqParams, network: &Network, quantised: &QuantisedViT, run: &mut Run) -> Result<()> {
    let readings = quantised.readings()?;
    let (zeros, all) = readings.iter().filter(|r| !r.name.ends_with("product")).fold((0, 0), |(zeros, all), r| {
        (zeros + r.weights.iter().filter(|&&w| w == 0.0).count(), all + r.weights.len())
    });
    if params.rule == Rule::StatsQ && zeros * 100 > all {
        run.warn(format!(
            "{zeros} of {all} weights are 0, which is none of StatsQ's levels: pruned weights come back (LSQ has the level 0)"
        ));
    }
    if params.plain || params.keep_qbias {
        return Ok(());
    }
    let mut largest = 0.0_f32;
    for i in 0..quantised.config().depth {
        let Some(bias) = network.params().get(&format!("blocks.{i}.attn.qkv.bias")) else { continue };
        let queries = bias.narrow(0, 0, quantised.config().width).and_then(|b| b.abs()?.max(0)?.to_scalar::<f32>());
        largest = largest.max(queries.map_err(computation)?);
    }
    if largest > 0.0 {
        run.warn(format!(
            "the queries' biases (up to {largest:.2}) are dropped, as published, and training has to make up for them; \
             --keep-qbias keeps them"
        ));
    }
    Ok(())
}
