//! The door: what a user may set, and the way from a float network to a quantised one.

use super::activations::Activations;
use super::blocks::{Block, partition};
use super::choice::Choice;
use super::curvature::{Finder, Measuring, Sensitivity, sensitivities};
use super::finetune::{Assigned, FineTuned, FineTuning, Optimiser, Order, fine_tune, post_training};
use super::problem::{Problem, Score, errors, rank, tensor_wide};
use super::{Hawq, report};
use crate::allocate::{Budget, Solver};
use crate::examples::Example;
use crate::export::Format;
use crate::model::{fold_batch_norms, pick};
use crate::quantiser::Scheme;
use crate::{Samples, Subject, open_network};
use offprint_core::{Error, Method, Params, Result, Run, Source};
use offprint_curvature::network::Matrix;
use offprint_nn::data::cifar10;
use offprint_nn::{Batch, Network, Reads};
use rand::seq::SliceRandom;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::rc::Rc;

/// How bits are chosen within the budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Chooser {
    /// Least cost with no fewer bits for more sensitive blocks
    Monotone,
    /// Least cost, exactly (HAWQ-V3)
    Exact,
    /// Least cost through a solver of integer programmes
    IntegerProgram,
    /// Along the convex hulls of the blocks
    Greedy,
    /// The same bits for all blocks
    Uniform,
    /// The monotone bits the wrong way round, which may exceed the budget
    Reversed,
    /// Random monotone bits
    Random,
}

/// Which second derivatives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Curvature {
    /// Of the loss
    Hessian,
    /// The Gauss–Newton part, which is never negative
    GaussNewton,
}

/// Parameters of `hawq`.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HawqParams {
    /// A network of your own: a directory with config.json and .safetensors, or one .safetensors file that was saved here
    #[arg(long)]
    pub model: Option<PathBuf>,
    /// The built-in network that is taken without one
    #[arg(long, value_enum, default_value_t = Example::DigitsCnn)]
    pub example: Example,
    /// Samples to test your network on, as it reads them (.npy, .csv), with the class in the last column of rows; token
    /// numbers; or JSON lines {"text": …} with a tokenizer.json beside the model
    #[arg(long, default_value = "builtin")]
    pub data: Source,
    /// Classes of the samples, if they do not stand among them
    #[arg(long)]
    pub targets: Option<Source>,
    /// Samples for the Hessian and for fine-tuning, in the same form; without them the first half of the data
    #[arg(long)]
    pub train: Option<Source>,
    /// Their classes
    #[arg(long)]
    pub train_targets: Option<Source>,
    /// CIFAR-10's binary files (cifar-10-batches-bin) in place of data and training samples
    #[arg(long)]
    pub cifar10: Option<PathBuf>,
    /// Blocks that get one number of bits each, as patterns of layer names separated by commas (layer1.*); other layers are
    /// blocks of their own
    #[arg(long, value_delimiter = ',')]
    pub blocks: Vec<String>,
    /// Bits to choose from, 1 to 8, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "2,3,4,8")]
    pub bits: Vec<u32>,
    /// What quantised weights may take: 9680B, 12kB, 1.5MB, 3bits a weight, 0.13x of the floats, or 2.5Gbops a sample
    #[arg(long, default_value = "3bits")]
    pub budget: String,
    /// Bits in rank order, the most sensitive block first, separated by commas, in place of a budget
    #[arg(long, value_delimiter = ',')]
    pub assign: Vec<u32>,
    /// What ranks blocks and weighs their quantisation errors
    #[arg(long, value_enum, default_value_t = Score::Eigenvalue)]
    pub score: Score,
    /// How bits are chosen
    #[arg(long, value_enum, default_value_t = Chooser::Monotone)]
    pub choice: Chooser,
    /// Bits of the first and the last block, whatever their rank; 0 chooses for them as for the others
    #[arg(long, default_value_t = 8)]
    #[schemars(range(max = 8))]
    pub ends: u32,
    /// One symmetric scale for each output channel (HAWQ-V3) in place of one from least to greatest for each tensor
    #[arg(long)]
    pub per_channel: bool,
    /// Bits of layers' inputs, between the ends seen over the samples; floats by default
    #[arg(long)]
    #[schemars(range(min = 1, max = 8))]
    pub activations: Option<u32>,
    /// Fold batch norms into the convolutions before anything is measured
    #[arg(long)]
    pub fold: bool,
    /// Samples that the curvature is measured over
    #[arg(long, default_value_t = 512)]
    #[schemars(range(min = 2))]
    pub samples: usize,
    /// Samples that the network works on at once, which bounds memory
    #[arg(long, default_value_t = 128)]
    #[schemars(range(min = 1))]
    pub part: usize,
    /// How eigenvalues are found
    #[arg(long, value_enum, default_value_t = Finder::Power)]
    pub finder: Finder,
    /// Which second derivatives
    #[arg(long, value_enum, default_value_t = Curvature::Hessian)]
    pub curvature: Curvature,
    /// Relative change at which an eigenvalue or a trace is taken
    #[arg(long, default_value_t = 0.001)]
    #[schemars(extend("exclusiveMinimum" = 0), range(max = 1))]
    pub tolerance: f64,
    /// Largest number of products for an eigenvalue
    #[arg(long, default_value_t = 100)]
    #[schemars(range(min = 1, max = 100_000))]
    pub products: usize,
    /// Largest number of sign vectors for a trace
    #[arg(long, default_value_t = 100)]
    #[schemars(range(min = 1, max = 100_000))]
    pub probes: usize,
    /// Epochs of training after each block; 0 only rounds
    #[arg(long, default_value_t = 1)]
    #[schemars(range(max = 10_000))]
    pub epochs: u64,
    /// Order in which blocks are quantised
    #[arg(long, value_enum, default_value_t = Order::Descending)]
    pub order: Order,
    /// Let blocks that are quantised train on, behind straight-through gradients
    #[arg(long)]
    pub refine_all: bool,
    /// Learning rate of the training, with momentum 0.9
    #[arg(long, default_value_t = 0.01)]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub rate: f64,
    /// Samples of a training step
    #[arg(long, default_value_t = 64)]
    #[schemars(range(min = 1))]
    pub batch: usize,
    /// File format of the quantised network
    #[arg(long, value_enum, default_value_t = Format::Packed)]
    pub format: Format,
    /// Leave out the other ways to choose bits
    #[arg(long)]
    pub alone: bool,
}
offprint_core::defaults_from_flags!(HawqParams);

impl Params for HawqParams {
    fn check(&self) -> Result<()> {
        let given = !self.data.is_builtin();
        match (&self.model, &self.cifar10) {
            (None, Some(_)) => return Err(Error::parameter("model", "none", "given with CIFAR-10")),
            (Some(_), Some(_)) if given || self.train.is_some() => {
                return Err(Error::parameter("data", "given", "left out with CIFAR-10, which has its own"));
            }
            (Some(_), None) if !given => {
                return Err(Error::parameter("data", "builtin", "given with a model of your own"));
            }
            (None, None) if given => return Err(Error::parameter("model", "none", "given with data of your own")),
            _ => {}
        }
        if let Some(bits) = self.bits.iter().chain(&self.assign).find(|bits| !(1..=8).contains(*bits)) {
            return Err(Error::parameter("bits", bits, "between 1 and 8"));
        }
        self.budget()?;
        match self.bits.is_empty() {
            true => Err(Error::parameter("bits", "none", "at least one number")),
            false => Ok(()),
        }
    }
}

impl HawqParams {
    fn budget(&self) -> Result<Budget> {
        self.budget
            .parse()
            .map_err(|_| Error::parameter("budget", &self.budget, "like 9680B, 12kB, 1.5MB, 3bits, 0.13x or 2.5Gbops"))
    }

    /// The budget, without a bound where the bits are given.
    fn limit(&self) -> Result<Budget> {
        if self.assign.is_empty() { self.budget() } else { Ok(Budget::Bytes(u64::MAX / 8)) }
    }

    fn choice(&self) -> Choice {
        match self.choice {
            _ if !self.assign.is_empty() => Choice::Given(self.assign.clone()),
            Chooser::Monotone => Choice::Monotone,
            Chooser::Exact => Choice::By(Solver::Exact),
            Chooser::IntegerProgram => Choice::By(Solver::IntegerProgram),
            Chooser::Greedy => Choice::By(Solver::Greedy),
            Chooser::Uniform => Choice::Uniform,
            Chooser::Reversed => Choice::Reversed,
            Chooser::Random => Choice::Random,
        }
    }

    fn template(&self) -> Scheme {
        if self.per_channel { Scheme::symmetric(8) } else { tensor_wide() }
    }

    fn measuring(&self) -> Measuring {
        let matrix = match self.curvature {
            Curvature::Hessian => Matrix::Hessian,
            Curvature::GaussNewton => Matrix::GaussNewton,
        };
        Measuring {
            finder: self.finder,
            matrix,
            tolerance: self.tolerance,
            products: self.products,
            probes: self.probes,
            part: self.part,
        }
    }

    fn subject(&self) -> Result<Subject> {
        let Some(model) = &self.model else { return self.example.load() };
        if let Some(directory) = &self.cifar10 {
            let network = open_network(model)?;
            if !matches!(network.architecture().reads(), Reads::Images { channels: 3, side: None | Some(32) }) {
                let problem = "does not read colour images of 32 × 32 pixels, which CIFAR-10 has";
                return Err(Error::input(model.display().to_string(), problem));
            }
            let read = cifar10(directory)?;
            return Ok(Subject { network, train: read.train, test: read.test });
        }
        let samples = Samples { inputs: &self.data, targets: self.targets.as_ref() };
        let train = self.train.as_ref().map(|inputs| Samples { inputs, targets: self.train_targets.as_ref() });
        Subject::open(model, samples, train)
    }
}

/// What a run found and made.
pub(super) struct Outcome {
    pub float: Network,
    pub blocks: Vec<Block>,
    pub found: Vec<Sensitivity>,
    pub problem: Problem,
    pub bits: Vec<u32>,
    /// ‖Q(W) − W‖² at the chosen bits.
    pub errors: Vec<f64>,
    /// Blocks in the order in which they are quantised.
    pub order: Vec<usize>,
    pub tuned: FineTuned,
    pub activations: Option<Rc<Activations>>,
}

impl Method for Hawq {
    type Params = HawqParams;

    fn run(params: &HawqParams, run: &mut Run) -> Result<()> {
        let Subject { network, train, test } = params.subject()?;
        let network = if params.fold { fold_batch_norms(&network)?.0 } else { network };
        let samples = drawn(&train, params.samples, run)?;
        if samples.len() < params.samples {
            run.warn(format!("the curvature is measured over all {} training samples", samples.len()));
        }
        let blocks = partition(&network.layers_on(&first(&samples)?)?, &params.blocks)?;
        let stream = run.stream("curvature");
        let found = sensitivities(&network, &blocks, &samples, params.measuring(), stream, &run.progress())?;
        warn(&found, params, run);
        let template = params.template();
        let pinned = |problem: Problem| if params.ends > 0 { problem.with_ends_at(params.ends) } else { problem };
        let of = |score| Problem::new(&network, &blocks, &found, score, &params.bits, template, &samples).map(pinned);
        let activation_bits = params.activations.unwrap_or(32);
        let problem = Problem { activation_bits, ..of(params.score)? };
        let bits = problem.choose(&params.choice(), params.limit()?, run.stream("bits"))?;
        let errors: Vec<f64> = (0..blocks.len())
            .map(|b| Ok(errors(&network, &blocks[b..=b], &bits[b..=b], template)?[[0, 0]]))
            .collect::<Result<_>>()?;
        // Ω = λ ‖Q(W) − W‖².
        let mut order = rank(&(0..blocks.len()).map(|b| found[b].eigenvalue * errors[b]).collect::<Vec<_>>());
        if params.order == Order::Ascending {
            order.reverse();
        }
        let activations = match params.activations {
            Some(bits) => Some(Activations::calibrated(bits, &network, &samples, params.part)?),
            None => None,
        };
        let assigned = Assigned { network: &network, blocks: &blocks, bits: &bits };
        let tuned = tune(params, assigned, &order, &train, activations.clone(), run)?;
        let outcome =
            Outcome { float: network.copy()?, blocks, found, problem, bits, errors, order, tuned, activations };
        report::run(params, &outcome, &samples, &test, template, run)
    }
}

/// Rounds block by block, with training in between if epochs are asked for.
fn tune(
    params: &HawqParams,
    assigned: Assigned<'_>,
    order: &[usize],
    train: &Batch,
    activations: Option<Rc<Activations>>,
    run: &Run,
) -> Result<FineTuned> {
    if params.epochs == 0 {
        let rounded = post_training(assigned.network, assigned.blocks, assigned.bits, params.template())?;
        let (network, layers, records) = (rounded.network, rounded.layers, rounded.records);
        return Ok(FineTuned { network, layers, records, stages: Vec::new() });
    }
    let settings = FineTuning {
        epochs: params.epochs,
        batch: params.batch,
        optimiser: Optimiser::Sgd { rate: params.rate, momentum: 0.9 },
        refine_all: params.refine_all,
        norms_follow: !params.fold,
        template: params.template(),
    };
    let stream = run.stream("fine-tuning");
    fine_tune(assigned, order, train, activations, settings, stream, &run.progress())
}

/// One sample, to see the sizes of layers by.
fn first(samples: &Batch) -> Result<candle_core::Tensor> {
    samples.inputs.narrow(0, 0, 1).map_err(offprint_nn::computation)
}

/// So many of `train`, the same for the same seed.
fn drawn(train: &Batch, count: usize, run: &Run) -> Result<Batch> {
    let mut numbers: Vec<u32> = (0..train.len() as u32).collect();
    numbers.shuffle(&mut run.stream("samples").rng(0));
    numbers.truncate(count);
    pick(train, &numbers)
}

/// Tells of what makes a ranking doubtful.
fn warn(found: &[Sensitivity], params: &HawqParams, run: &mut Run) {
    for block in found {
        let name = &block.block;
        if block.dominant < 0.0 {
            run.warn(format!(
                "block \"{name}\" bends down more than up ({:.3e} beside {:.3e}): the network is not at a minimum there. \
                 The largest eigenvalue is used",
                block.dominant, block.eigenvalue
            ));
        }
        if block.eigenvalue == 0.0 {
            run.warn(format!(
                "block \"{name}\" has no curvature: the loss does not depend on it; it gets the fewest bits"
            ));
        } else if block.products >= params.products && block.residual > 0.1 {
            run.warn(format!(
                "the eigenvalue of block \"{name}\" did not settle in {} products (residual {:.2} of it)",
                block.products, block.residual
            ));
        }
    }
}
