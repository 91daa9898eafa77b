//! The door: train and prune the user's network on the user's samples.

use super::base::Base;
use super::choose::Choice;
use super::data::{Samples, Start, digits_mlp, digits_samples, samples};
use super::measure::{difference, latencies};
use super::net::{GRAPH, Net};
use super::saliency::{Criteria, Criterion};
use super::space::{Inside, Space};
use super::subnet::compact;
use super::train::{Quality, Training, judge};
use super::ways::{Outcome, Pruning, Way, kept};
use crate::examples::{Example, Subject};
use candle_core::DType;
use offprint_core::figure::{Axis, Figure, Layer, Plot};
use offprint_core::{Error, Method, Params, Result, Run, Source, Table};
use offprint_nn::derivatives::Loss;
use offprint_nn::optim::{AdamSettings, SgdSettings};
use offprint_nn::train::Schedule;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;

/// HESSO.
pub struct HessoPaper;

/// The optimiser underneath.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Optimiser {
    /// Stochastic gradient descent with momentum.
    Sgd,
    /// Adam, weight decay in the gradient.
    Adam,
    /// Adam, weight decay beside it.
    Adamw,
}

/// What ranks groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Rank {
    /// A fifth of each of the others.
    Mixture,
    /// The norm of the group.
    Magnitude,
    /// The norm over the number of parameters.
    AverageMagnitude,
    /// The angle between the group and its update.
    Cosine,
    /// First-order change of the loss.
    TaylorFirst,
    /// Half its square.
    TaylorSecond,
}

impl Rank {
    fn criteria(self) -> Criteria {
        match self {
            Self::Mixture => Criteria::MIXTURE,
            Self::Magnitude => Criteria::only(Criterion::Magnitude),
            Self::AverageMagnitude => Criteria::only(Criterion::AverageMagnitude),
            Self::Cosine => Criteria::only(Criterion::Cosine),
            Self::TaylorFirst => Criteria::only(Criterion::TaylorFirst),
            Self::TaylorSecond => Criteria::only(Criterion::TaylorSecond),
        }
    }
}

/// What training makes small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Objective {
    /// Cross-entropy of classes, or of the next token.
    CrossEntropy,
    /// Half the squared error.
    SquaredError,
    /// Binary cross-entropy.
    Logistic,
}

/// What is removed inside attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Attention {
    /// Whole heads.
    Heads,
    /// The same components of all heads.
    HeadDims,
}

/// Number format of the training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// Single.
    F32,
    /// Double.
    F64,
}

/// Parameters of `hesso`.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HessoParams {
    /// The network to train and prune, from the weights that it has: a directory with config.json (or graph.json for a
    /// network of any other shape) and model.safetensors, or one .safetensors file; without one a fresh perceptron
    /// 64-128-128-10
    #[arg(long)]
    pub model: Option<PathBuf>,
    /// A trained network that is built in, in place of one of yours, with its own samples
    #[arg(long, value_enum)]
    pub example: Option<Example>,
    /// A config.json that lies elsewhere than beside the weights
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Samples: rows, images (n, channels, height, width) or tokens (n, positions); without targets the last column, or
    /// the next token, is the target; built in are 1797 handwritten digits
    #[arg(long, default_value = "builtin")]
    pub data: Source,
    /// Targets: class numbers from 0, or numbers
    #[arg(long)]
    pub targets: Option<Source>,
    /// Share of the samples that is kept out of training and judged on; the built-in digits have their own
    #[arg(long, default_value_t = 0.2)]
    #[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1))]
    pub held_out: f64,
    /// What training makes small
    #[arg(long, value_enum, default_value_t = Objective::CrossEntropy)]
    pub loss: Objective,
    /// How the network gets smaller: HESSO, or what it is compared with
    #[arg(long, value_enum, default_value_t = Way::Hesso)]
    pub way: Way,
    /// Share K of the removable groups (channels, heads) that go
    #[arg(long, default_value_t = 0.7)]
    #[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1))]
    pub sparsity: f64,
    /// The optimiser underneath
    #[arg(long, value_enum, default_value_t = Optimiser::Sgd)]
    pub optimiser: Optimiser,
    /// Learning rate at the start; it falls to zero on a cosine. Adam wants about a hundredth of the default
    #[arg(long, default_value_t = 0.1)]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub rate: f64,
    /// Momentum of SGD
    #[arg(long, default_value_t = 0.9)]
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub momentum: f64,
    /// Share of the gradient that SGD's momentum leaves out
    #[arg(long, default_value_t = 0.0)]
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub dampening: f64,
    /// Weight decay
    #[arg(long, default_value_t = 0.0)]
    #[schemars(range(min = 0))]
    pub weight_decay: f64,
    /// Passes over the samples
    #[arg(long, default_value_t = 40)]
    #[schemars(range(min = 1, max = 100_000))]
    pub epochs: u64,
    /// Samples of a step
    #[arg(long, default_value_t = 32)]
    #[schemars(range(min = 1))]
    pub batch: usize,
    /// Share of the steps before the first groups are chosen
    #[arg(long, default_value_t = 0.1)]
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub start: f64,
    /// Share of the steps in which groups go to zero; what is left trains on alone
    #[arg(long, default_value_t = 0.25)]
    #[schemars(extend("exclusiveMinimum" = 0), range(max = 1))]
    pub window: f64,
    /// Periods P of the window, each of which takes an equal part of the groups
    #[arg(long, default_value_t = 5)]
    #[schemars(range(min = 1))]
    pub periods: u64,
    /// What ranks groups
    #[arg(long, value_enum, default_value_t = Rank::Mixture)]
    pub rank: Rank,
    /// Keep a positive multiple of this many groups in each component; components without more stay whole
    #[arg(long, default_value_t = 1)]
    #[schemars(range(min = 1))]
    pub divisible: usize,
    /// Choose groups as the authors' code does: the lowest-numbered of the lowest-scored, without making up for groups
    /// that a component must keep
    #[arg(long)]
    pub compat: bool,
    /// What is removed inside attention
    #[arg(long, value_enum, default_value_t = Attention::Heads)]
    pub attention: Attention,
    /// Layers to leave whole, by name, separated by commas
    #[arg(long)]
    pub keep: Option<String>,
    /// Weight λ of the group norms for --way hspg
    #[arg(long, default_value_t = 0.1)]
    #[schemars(range(min = 0))]
    pub penalty: f64,
    /// Number format of the training
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    pub precision: Precision,
}
offprint_core::defaults_from_flags!(HessoParams);

impl Params for HessoParams {
    fn check(&self) -> Result<()> {
        if self.start + self.window > 1.0 {
            let given = format!("{} after a start of {}", self.window, self.start);
            return Err(Error::parameter("window", given, "such that start + window is at most 1"));
        }
        if self.example.is_some() && self.precision != Precision::F32 {
            return Err(Error::parameter("precision", "f64", "f32 for a built-in network"));
        }
        if self.config.is_some() && self.model.is_none() {
            return Err(Error::parameter("model", "none", "the weights that the config describes"));
        }
        if self.example.is_some() && (self.model.is_some() || !self.data.is_builtin()) {
            return Err(Error::parameter("example", "a built-in network", "none where a model or samples are given"));
        }
        if self.targets.is_some() && self.data.is_builtin() {
            return Err(Error::parameter("data", "builtin", "the samples whose targets are given"));
        }
        if self.loss != Objective::CrossEntropy && self.data.is_builtin() {
            return Err(Error::parameter("loss", "not cross-entropy", "cross-entropy for the built-in classes"));
        }
        Ok(())
    }
}

impl HessoParams {
    fn base(&self) -> Base {
        let Self { rate: learning_rate, momentum, dampening, weight_decay, .. } = *self;
        let adam = AdamSettings { learning_rate, weight_decay, ..AdamSettings::default() };
        match self.optimiser {
            Optimiser::Sgd => {
                Base::Sgd(SgdSettings { learning_rate, momentum, dampening, weight_decay, ..SgdSettings::default() })
            }
            Optimiser::Adam => Base::Adam(adam),
            Optimiser::Adamw => Base::Adam(AdamSettings { decoupled: true, ..adam }),
        }
    }

    fn loss(&self) -> Loss {
        match self.loss {
            Objective::CrossEntropy => Loss::CrossEntropy,
            Objective::SquaredError => Loss::SquaredError,
            Objective::Logistic => Loss::Logistic,
        }
    }

    fn dtype(&self) -> DType {
        match self.precision {
            Precision::F32 => DType::F32,
            Precision::F64 => DType::F64,
        }
    }

    fn inside(&self) -> Inside {
        match self.attention {
            Attention::Heads => Inside::Heads,
            Attention::HeadDims => Inside::HeadDims,
        }
    }

    fn start(&self, run: &Run) -> Result<(Net, Samples)> {
        let dtype = self.dtype();
        if let Some(example) = self.example {
            let Subject { network, train, test } = example.load()?;
            return Ok((Net::of(&network, &train.inputs.dims()[1..])?, Samples { train, test }));
        }
        let Some(path) = &self.model else {
            let samples = match self.data.is_builtin() {
                true => digits_samples(true, dtype)?,
                false => {
                    return Err(Error::parameter("model", "none", "a network that reads the samples given"));
                }
            };
            return Ok((digits_mlp(&[128, 128], run.seed(), dtype)?, samples));
        };
        let start = Start::load(path, self.config.as_deref(), dtype)?;
        let split = run.stream("samples held out");
        let reader = start.reader()?;
        let samples = samples(&reader, &self.data, self.targets.as_ref(), self.loss(), self.held_out, split, dtype)?;
        let shape = samples.train.inputs.dims()[1..].to_vec();
        Ok((start.net(&shape)?, samples))
    }
}

impl Method for HessoPaper {
    type Params = HessoParams;

    fn run(params: &HessoParams, run: &mut Run) -> Result<()> {
        let (net, samples) = params.start(run)?;
        let keep: Vec<String> =
            params.keep.iter().flat_map(|list| list.split(',')).map(|name| name.trim().to_owned()).collect();
        let space = Arc::new(Space::search(&net, params.inside(), &keep)?);
        if space.groups.is_empty() {
            let why: Vec<String> = space.fixed.iter().map(|f| format!("\"{}\" {}", f.name, f.why)).collect();
            let problem = format!("has nothing that can be removed: {}", why.join("; "));
            return Err(Error::input("model", problem));
        }
        let loss = params.loss();
        let training = Training {
            data: &samples.train,
            loss,
            epochs: params.epochs,
            batch: params.batch,
            schedule: Schedule::cosine(),
            order: run.stream("batches"),
        };
        let pruning = Pruning {
            way: params.way,
            start: params.start,
            window: params.window,
            periods: params.periods,
            criteria: params.rank.criteria(),
            choice: Choice { divisible: params.divisible, compat: params.compat },
            penalty: params.penalty,
            ..Pruning::hesso(params.base(), params.sparsity, run.stream("chance"))
        };
        let trained = params.model.is_some() || params.example.is_some();
        let before = trained.then(|| judge(&net, &samples.test, loss)).transpose()?;
        let outcome = pruning.run(&net, &space, &training, &run.progress())?;
        let small = compact(&net, &space, &outcome.removed)?;
        if let Some(before) = before {
            quality(run, ", before training", &before);
        }
        quality(run, "", &judge(&small, &samples.test, loss)?);
        report_size(run, &net, &small, &samples, &outcome, &space)?;
        report_components(run, &space, &outcome)?;
        figure(run, &space, &outcome, &pruning, training.steps());
        save(run, &net, &small)
    }
}

fn quality(run: &mut Run, when: &str, quality: &Quality) {
    if let Some(accuracy) = quality.accuracy {
        run.metric(&format!("test accuracy{when}"), accuracy, "");
    }
    run.metric(&format!("test loss{when}"), quality.loss, "nat");
}

fn report_size(
    run: &mut Run,
    net: &Net,
    small: &Net,
    samples: &Samples,
    outcome: &Outcome,
    space: &Space,
) -> Result<()> {
    let zero = outcome.removed.iter().filter(|&&removed| removed).count();
    run.metric("groups", space.groups.len() as f64, "");
    run.metric("groups removed", zero as f64, "");
    if zero != outcome.target {
        let words =
            "of the groups that were to go have gone: components keep a positive multiple, or a penalty was too weak";
        run.warn(format!("{zero} of {} {words}", outcome.target));
    }
    if let Some(cycles) = outcome.cycles {
        run.metric("cycles of the search", cycles as f64, "");
    }
    let share = |part: f64, whole: f64| part / whole.max(1.0);
    run.metric("parameters", small.params().count() as f64, "");
    run.metric("share of the parameters left", share(small.params().count() as f64, net.params().count() as f64), "");
    let (of, left) = (net.multiplications()?, small.multiplications()?);
    run.metric("share of the multiplications left", share(left as f64, of as f64), "");
    let some = samples.test.narrow(0, samples.test.len().min(256)).map_err(offprint_nn::computation)?;
    run.metric("largest difference to the full network", difference(net, small, &some.inputs)?, "");
    let [full, compact] = latencies([net, small], &some.inputs, 9)?;
    run.metric("time of the full network", 1e3 * full, "ms");
    run.metric("time of the compact network", 1e3 * compact, "ms");
    Ok(())
}

fn report_components(run: &mut Run, space: &Space, outcome: &Outcome) -> Result<()> {
    let kept = kept(space, &outcome.removed);
    let of = space.components.iter();
    run.table(
        Table::new("components", "Layers whose groups go together, and how many of them are left.")
            .words("layers", of.clone().map(|c| c.name.clone()))
            .integers("groups", "", of.clone().map(|c| c.groups.len() as i64))
            .integers("left", "", kept.iter().map(|&k| k as i64))
            .integers("parameters a group", "", of.map(|c| space.groups[c.groups.start].size() as i64)),
    )?;
    run.table(
        Table::new("fixed", "Channels that cannot be removed.")
            .words("layers", space.fixed.iter().map(|f| f.name.clone()))
            .integers("channels", "", space.fixed.iter().map(|f| f.width as i64))
            .words("why", space.fixed.iter().map(|f| f.why.clone())),
    )
}

fn figure(run: &mut Run, space: &Space, outcome: &Outcome, pruning: &Pruning, total: u64) {
    let kept = kept(space, &outcome.removed);
    // At most forty components have room for their names.
    let shown = space.components.len().min(40);
    let names: Vec<String> = space.components[..shown].iter().map(|c| shortened(&c.name)).collect();
    let widths = Plot::new(Axis::categories("", names), Axis::new("groups"))
        .titled("What is left")
        .bars("before", space.components[..shown].iter().map(|c| c.groups.len() as f64).collect())
        .bars("after", kept[..shown].iter().map(|&k| k as f64).collect());
    // Means over stretches: single batches hide the course of the loss.
    let stretch = outcome.losses.len().div_ceil(160).max(1);
    let means: Vec<f64> =
        outcome.losses.chunks(stretch).map(|part| part.iter().sum::<f64>() / part.len() as f64).collect();
    let steps = (0..means.len()).map(|i| (i * stretch) as f64).collect();
    let (start, steps_of_window) = pruning.window_of(total);
    let mut course = Plot::new(Axis::new("step"), Axis::log("training loss")).titled("While it trains");
    if outcome.target > 0 {
        course = course.vertical("first groups chosen", start as f64);
        course = course.layer(Layer::Rule {
            name: "last groups gone".into(),
            vertical: true,
            at: (start + steps_of_window) as f64,
        });
    }
    run.figure(
        "pruning",
        Figure::new(
            format!("{}: training and pruning in one run", pruning.way.name()),
            "Left: the loss while groups go to zero between the two rules, and after. Right: groups of each component in the \
             network before and after the cut.",
        )
        .columns(2)
        .panel(course.curve("loss", steps, means))
        .panel(widths),
    );
}

/// A name that fits under a bar.
fn shortened(name: &str) -> String {
    let first = name.split(" + ").next().unwrap_or(name);
    if first.len() == name.len() { name.to_owned() } else { format!("{first} + …") }
}

/// The compact network as a model directory, and the full one with its zeros.
fn save(run: &mut Run, net: &Net, small: &Net) -> Result<()> {
    let words = |net: &Net| {
        let text = net.architecture().map(|a| serde_json::to_string(a).expect("a shape is plain data"));
        text.map(|text| ("architecture".to_owned(), text)).into_iter().collect()
    };
    run.save_arrays("model.safetensors", small.arrays()?, words(small))?;
    run.save_arrays("full.safetensors", net.arrays()?, words(net))?;
    match small.architecture() {
        Some(architecture) => run.save_json("config.json", architecture),
        None => run.save_json(GRAPH, &small.graph().to_json()),
    }
}
