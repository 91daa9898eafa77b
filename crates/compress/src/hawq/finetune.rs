//! Rounding the weights: all at once, or block by block with training in between.

use super::activations::Activations;
use super::blocks::Block;
use super::problem::tensor_wide;
use crate::layer::matrix;
use crate::methods::{Rtn, Target};
use crate::model::{Quality, evaluate};
use crate::packed::Packed;
use crate::quantiser::{Grid, Scheme};
use crate::{Compressed, Layer, LayerRecord, Work, compress};
use offprint_core::random::{Stream, Streams};
use offprint_core::{Error, Progress, Result};
use offprint_nn::layers::substitute::{Chain, LayerUse, Operands, Substitute, substituting};
use offprint_nn::ops::{Beyond, Mode, Reduction, cross_entropy};
use offprint_nn::optim::{Adam, AdamSettings, Optimizer, Sgd, SgdSettings};
use offprint_nn::train::{Epochs, Plan, Schedule, train};
use offprint_nn::{Batch, LayerPlace, Network, computation};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// In which order blocks are quantised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// The largest Ω = λ‖Q(W) − W‖² first, the paper's
    Descending,
    /// The smallest first, for comparison
    Ascending,
}

/// What trains between two blocks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Optimiser {
    /// With momentum.
    Sgd {
        /// Rate of the first step of a stage; it falls along half a cosine to a tenth.
        rate: f64,
        /// Momentum.
        momentum: f64,
    },
    /// With its usual settings, at one rate.
    Adam {
        /// Rate.
        rate: f64,
    },
}

/// How blocks are fine-tuned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FineTuning {
    /// Epochs after each block.
    pub epochs: u64,
    /// Samples of a step.
    pub batch: usize,
    /// What trains.
    pub optimiser: Optimiser,
    /// Whether quantised blocks train on behind straight-through gradients; otherwise their codes stay.
    pub refine_all: bool,
    /// Whether batch norms see batches and follow them; otherwise they are in evaluation, as folded ones must be.
    pub norms_follow: bool,
    /// The quantiser of weights; its bits do not matter.
    pub template: Scheme,
}

impl Default for FineTuning {
    fn default() -> Self {
        Self {
            epochs: 1,
            batch: 64,
            optimiser: Optimiser::Sgd { rate: 0.01, momentum: 0.9 },
            refine_all: false,
            norms_follow: true,
            template: tensor_wide(),
        }
    }
}

/// One block quantised.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stage {
    /// The block's name.
    pub block: String,
    /// Its bits.
    pub bits: u32,
    /// Loss over all training samples right after rounding.
    pub rounded: f64,
    /// The same after the stage's training.
    pub trained: f64,
}

/// A network quantised block by block.
#[derive(Debug, Clone)]
pub struct FineTuned {
    /// The network with its quantised weights.
    pub network: Network,
    /// The quantised layers, block by block as given.
    pub layers: Vec<Packed>,
    /// What became of each layer, beside the network before.
    pub records: Vec<LayerRecord>,
    /// The stages in their order.
    pub stages: Vec<Stage>,
}

/// `network` with the layers of `blocks` rounded to `bits` bits, one number a block, by quantisers like `template`.
///
/// # Errors
/// Another number of bits than of blocks; bits that the quantiser refuses.
pub fn post_training(network: &Network, blocks: &[Block], bits: &[u32], template: Scheme) -> Result<Compressed> {
    check(blocks, bits)?;
    let of_block = |(block, &bits): (&Block, &u32)| {
        let target = Target::quantised(Scheme { bits, ..template });
        block.layers.iter().map(move |layer| (layer.clone(), target)).collect::<Vec<_>>()
    };
    let targets: Vec<(LayerPlace, Target)> = blocks.iter().zip(bits).flat_map(of_block).collect();
    let work = Work {
        method: &Rtn::AsGiven,
        targets: &targets,
        calibration: None,
        part: 1,
        order: crate::Order::Parallel,
        // Rounding draws nothing.
        stream: Streams::new(0).stream("rounding"),
    };
    compress(network, &work, &Progress::silent())
}

fn check(blocks: &[Block], bits: &[u32]) -> Result<()> {
    if blocks.len() == bits.len() {
        return Ok(());
    }
    Err(Error::parameter("bits", format!("{} numbers", bits.len()), format!("one for each of {} blocks", blocks.len())))
}

/// A network, and bits for its blocks.
#[derive(Debug, Clone, Copy)]
pub struct Assigned<'a> {
    /// The network in floats.
    pub network: &'a Network,
    /// Its blocks.
    pub blocks: &'a [Block],
    /// Bits of each.
    pub bits: &'a [u32],
}

/// Quantises blocks one after the other, in the order of their numbers in `order`, and trains on `samples` after each.
/// `activations` quantise inputs meanwhile. The network that is given stays as it is.
///
/// # Errors
/// As [`post_training`]; an order that is none of all blocks; a training that diverges; the user's stop.
pub fn fine_tune(
    assigned: Assigned<'_>,
    order: &[usize],
    samples: &Batch,
    activations: Option<Rc<Activations>>,
    settings: FineTuning,
    stream: Stream,
    progress: &Progress,
) -> Result<FineTuned> {
    let Assigned { network, blocks, bits } = assigned;
    check(blocks, bits)?;
    let mut sorted = order.to_vec();
    sorted.sort_unstable();
    if sorted != (0..blocks.len()).collect::<Vec<_>>() {
        return Err(Error::parameter("order", format!("{order:?}"), "each block once"));
    }
    let tuned = network.copy()?;
    let through = Rc::new(StraightThrough::default());
    let inside: Rc<dyn Substitute> = Rc::new(Chain(
        activations
            .iter()
            .map(|a| a.clone() as Rc<dyn Substitute>)
            .chain([through.clone() as Rc<dyn Substitute>])
            .collect(),
    ));
    let watch = |watches: bool| activations.iter().for_each(|a| a.watch(watches));
    let mode = if settings.norms_follow { Mode::Training } else { Mode::Evaluation };
    let (mut packed, mut stages) = (BTreeMap::<String, Packed>::new(), Vec::new());
    for (number, &at) in order.iter().enumerate() {
        let (block, scheme) = (&blocks[at], Scheme { bits: bits[at], ..settings.template });
        for place in &block.layers {
            if settings.refine_all {
                through.0.borrow_mut().insert(place.weight.clone(), scheme);
            } else {
                packed.insert(place.weight.clone(), round(&tuned, place, &scheme)?);
            }
        }
        let rounded = evaluate(&tuned, samples, Some(inside.clone()))?.loss;
        let epochs = Epochs::new(samples.clone(), settings.batch, stream.nested(number as u64).stream("batches"))?;
        let moving = tuned.params().vars().into_iter().filter(|(name, _)| !packed.contains_key(name));
        let mut optimiser = optimiser(moving.collect(), settings.optimiser)?;
        let schedule = match settings.optimiser {
            Optimiser::Sgd { .. } => Schedule { warmup: 0, decay: offprint_nn::train::Decay::Cosine { floor: 0.1 } },
            Optimiser::Adam { .. } => Schedule { warmup: 0, decay: offprint_nn::train::Decay::Constant },
        };
        watch(true);
        train(
            tuned.params(),
            &mut *optimiser,
            &Plan::new(settings.epochs * epochs.steps(), schedule),
            progress,
            |step| {
                let batch = epochs.at(step)?;
                let logits = substituting(Some(inside.clone()), || tuned.forward_in(&batch.inputs, mode));
                let loss = logits.and_then(|logits| {
                    let logits = logits.reshape(((), logits.dim(candle_core::D::Minus1)?))?;
                    cross_entropy(&logits, &batch.targets.flatten_all()?, 0.0, Reduction::Mean)
                });
                loss.map_err(computation)
            },
        )?;
        watch(false);
        let Quality { loss: trained, .. } = evaluate(&tuned, samples, Some(inside.clone()))?;
        stages.push(Stage { block: block.name.clone(), bits: bits[at], rounded, trained });
    }
    let mut layers = Vec::new();
    for (block, &bits) in blocks.iter().zip(bits) {
        for place in &block.layers {
            layers.push(match packed.remove(&place.weight) {
                Some(packed) => packed,
                None => round(&tuned, place, &Scheme { bits, ..settings.template })?,
            });
        }
    }
    let before = blocks.iter().flat_map(|block| &block.layers).map(|place| Layer::of(network, place));
    let records = before.zip(&layers).map(|(layer, packed)| Ok(LayerRecord::of(&layer?, packed)));
    Ok(FineTuned { network: tuned, records: records.collect::<Result<_>>()?, layers, stages })
}

/// Rounds the layer at `place` where it stands.
fn round(network: &Network, place: &LayerPlace, scheme: &Scheme) -> Result<Packed> {
    let layer = Layer::of(network, place)?;
    let grid = Grid::fit(&place.name, layer.weight.view(), scheme)?;
    let packed = Packed::coded(&place.name, &place.shape, layer.weight.view(), grid, None);
    Layer::set(network, place, packed.dequant().view())?;
    Ok(packed)
}

fn optimiser(parameters: Vec<offprint_nn::optim::Named>, which: Optimiser) -> Result<Box<dyn Optimizer>> {
    match which {
        Optimiser::Sgd { rate, momentum } => {
            let settings = SgdSettings { learning_rate: rate, momentum, ..SgdSettings::default() };
            Sgd::new(parameters, settings).map(|sgd| Box::new(sgd) as Box<dyn Optimizer>).map_err(computation)
        }
        Optimiser::Adam { rate } => {
            let settings = AdamSettings { learning_rate: rate, ..AdamSettings::default() };
            Adam::new(parameters, settings).map(|adam| Box::new(adam) as Box<dyn Optimizer>).map_err(computation)
        }
    }
}

/// Weights brought to their levels in every forward pass, with ranges that follow them and gradients that pass.
#[derive(Debug, Default)]
struct StraightThrough(RefCell<BTreeMap<String, Scheme>>);

impl Substitute for StraightThrough {
    fn operands(&self, layer: LayerUse<'_>, own: Operands) -> candle_core::Result<Operands> {
        let schemes = self.0.borrow();
        let Some(scheme) = schemes.get(layer.weight) else { return Ok(own) };
        let failed = |e: Error| candle_core::Error::Msg(e.to_string());
        let grid = matrix(&own.weight).and_then(|w| Grid::fit(layer.weight, w.view(), scheme)).map_err(failed)?;
        let weight = grid.fake_tensor(&own.weight, Beyond::Stops).map_err(failed)?;
        Ok(Operands { weight, ..own })
    }
}
