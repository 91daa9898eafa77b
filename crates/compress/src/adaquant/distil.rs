//! The baseline that AdaQuant is said to overfit less than: all weights trained at once against the float network's
//! outputs, on the same few samples.

use super::layer::{Bits, Calibrated};
use super::network::{Quantised, bias_of};
use super::ranges::Ranges;
use super::tuning::divergence;
use crate::calibration::record;
use candle_core::Tensor;
use offprint_core::random::Stream;
use offprint_core::{Error, Progress, Result};
use offprint_nn::layers::substitute::{LayerUse, Operands, Substitute, substituting};
use offprint_nn::optim::{Adam, AdamSettings, Optimizer};
use offprint_nn::{LayerPlace, Network, computation, ops};
use rand::seq::SliceRandom;
use std::collections::BTreeMap;
use std::rc::Rc;

/// How a network is distilled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Distillation {
    /// Steps of Adam.
    pub steps: usize,
    /// Samples of a batch.
    pub batch: usize,
    /// Learning rate of weights and biases; ranges stay from least to greatest.
    pub rate: f64,
}

impl Default for Distillation {
    fn default() -> Self {
        Self { steps: 300, batch: 50, rate: 3e-4 }
    }
}

/// Quantises the operands of the layers it knows while they are trained: ranges of rows follow the weights.
struct Training {
    bits: BTreeMap<String, Bits>,
    inputs: BTreeMap<String, Ranges>,
}

impl Substitute for Training {
    fn operands(&self, layer: LayerUse<'_>, own: Operands) -> candle_core::Result<Operands> {
        let Some(bits) = self.bits.get(layer.weight) else { return Ok(own) };
        let rows =
            Ranges::of_weight(&own.weight.detach(), bits.weight).map_err(|e| candle_core::Error::Msg(e.to_string()))?;
        let input = match self.inputs.get(layer.weight) {
            Some(ranges) => ranges.fake(&own.input)?,
            None => own.input,
        };
        Ok(Operands { input, weight: rows.fake(&own.weight)?, bias: own.bias })
    }
}

/// Trains a copy of `network`, whose batch norms are folded, quantised at `bits`, to give the outputs of `network` itself on
/// `samples`, by their divergence; weights straight through the rounding.
///
/// # Errors
/// As [`Quantised::new`]; a batch of 0.
pub fn distil(
    network: &Network,
    bits: &[(LayerPlace, Bits)],
    samples: &Tensor,
    settings: &Distillation,
    stream: Stream,
    progress: &Progress,
) -> Result<Quantised> {
    if settings.batch == 0 {
        return Err(Error::parameter("batch", 0, "at least 1"));
    }
    let student = network.copy()?;
    let mut training = Training { bits: BTreeMap::new(), inputs: BTreeMap::new() };
    let mut named = Vec::new();
    for (place, bits) in bits {
        training.bits.insert(place.weight.clone(), *bits);
        if let Some(bits) = bits.input {
            let (inputs, _) = record(network, &place.weight, samples, None)?;
            training.inputs.insert(place.weight.clone(), Ranges::of_inputs(&inputs, bits)?);
        }
        let names = std::iter::once(place.weight.clone()).chain(bias_of(place).map(|bias| bias.name().to_owned()));
        named.extend(names.filter_map(|name| Some((name.clone(), student.params().get(&name)?.clone()))));
    }
    let training = Rc::new(training);
    let within: Rc<dyn Substitute> = training.clone();
    let mut adam = Adam::new(named, AdamSettings { learning_rate: settings.rate, ..AdamSettings::default() })
        .map_err(computation)?;
    let n = samples.dims().first().copied().unwrap_or(0) as u32;
    progress.begin("distilling", settings.steps as u64);
    for step in 0..settings.steps {
        let mut rows: Vec<u32> = (0..n).collect();
        let (batch, _) = rows.partial_shuffle(&mut stream.rng(step as u64), settings.batch);
        let mut descend = || -> candle_core::Result<()> {
            let x = samples.index_select(&Tensor::new(&*batch, samples.device())?, 0)?;
            let target = network.forward(&x)?.detach();
            let own = substituting(Some(within.clone()), || student.forward(&x))?;
            adam.step(&ops::backward(&divergence(&target, &own)?)?)
        };
        descend().map_err(computation)?;
        progress.advance(1)?;
    }
    progress.finish();
    let mut layers = Vec::with_capacity(bits.len());
    for (place, _) in bits {
        layers.push((
            place.clone(),
            Calibrated::trained(&student, place, &training.bits[&place.weight], training.inputs.get(&place.weight))?,
        ));
    }
    // Biases, and what is not quantised, are those of the student already.
    let quantised = Quantised { network: student, layers };
    quantised.layers.iter().try_for_each(|(place, layer)| {
        crate::layer::Layer::set(&quantised.network, place, layer.weight.dequant().view())
    })?;
    Ok(quantised)
}
