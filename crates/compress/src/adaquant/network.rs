//! A whole network quantised from its layers' tables: which layer has which bits, and what runs.

use super::layer::{Bits, Calibrated, FloatLayer, Pairs, Settings, calibrate_layer, correct_bias, search_layer};
use crate::calibration::{Calibration, record, rows};
use crate::layer::{Layer, matrix, tensor};
use crate::methods::{AdaRound, Target, WeightMethod};
use crate::quantiser::{Affine, Scheme};
use candle_core::Tensor;
use ndarray::{Array1, Axis};
use offprint_core::random::Stream;
use offprint_core::{Error, Progress, Result};
use offprint_nn::layers::LayerKind;
use offprint_nn::layers::substitute::{LayerUse, Operands, Substitute};
use offprint_nn::ops::{Beyond, fake_quantise};
use offprint_nn::{LayerPlace, Network, computation};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Quantisers of the inputs of layers, by the names of their weights. Gradients are straight through.
#[derive(Debug, Clone, Default)]
pub struct Inputs(pub BTreeMap<String, Affine>);

impl Substitute for Inputs {
    fn operands(&self, layer: LayerUse<'_>, own: Operands) -> candle_core::Result<Operands> {
        let Some(affine) = self.0.get(layer.weight) else { return Ok(own) };
        Ok(Operands { input: fake(&own.input, *affine)?, ..own })
    }
}

/// `x` brought to the levels of `affine`, with a straight-through gradient.
pub(super) fn fake(x: &Tensor, affine: Affine) -> candle_core::Result<Tensor> {
    let one = |value: f32| Tensor::new(&[value], x.device())?.to_dtype(x.dtype());
    fake_quantise(x, &one(affine.scale)?, &one(affine.zero)?, affine.codes, x.elem_count().max(1), Beyond::Stops)
}

/// A quantised network: `network` holds the values that its codes stand for.
#[derive(Debug, Clone)]
pub struct Quantised {
    /// What computes.
    pub network: Network,
    /// The quantised layers in order of execution.
    pub layers: Vec<(LayerPlace, Calibrated)>,
}

/// What layers are calibrated on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Inputs and outputs of the float network: layers do not depend on each other.
    Parallel,
    /// Outputs of the float network, inputs from the network whose earlier layers are quantised.
    Sequential,
}

/// How a layer is quantised.
#[derive(Debug, Clone, Copy)]
pub enum How {
    /// Rounded to nearest between least and greatest.
    Nearest,
    /// Calibrated.
    AdaQuant(Settings),
    /// Ranges searched without gradients, on batches of so many samples.
    Search {
        /// Samples of a batch.
        batch: usize,
    },
    /// Rounded to nearest, with the mean difference of the outputs added to the bias.
    BiasCorrection,
    /// Weights by AdaRound, inputs between least and greatest.
    AdaRound(AdaRound),
}

impl Quantised {
    /// The input quantisers, for [`substituting`](offprint_nn::layers::substitute::substituting) and evaluations.
    pub fn within(&self) -> Rc<dyn Substitute> {
        let inputs = self.layers.iter().filter_map(|(place, layer)| Some((place.weight.clone(), layer.input?)));
        Rc::new(Inputs(inputs.collect()))
    }

    /// Quantises the layers of `network`, whose batch norms are folded, at `bits` on `samples` as the network reads them.
    ///
    /// Memory: one layer's inputs and outputs on all samples.
    ///
    /// # Errors
    /// As [`calibrate_layer`]; a layer that the forward pass does not reach.
    pub fn new(
        network: &Network,
        bits: &[(LayerPlace, Bits)],
        samples: &Tensor,
        (how, flow): (How, Flow),
        stream: Stream,
        progress: &Progress,
    ) -> Result<Self> {
        let mut quantised = Self { network: network.copy()?, layers: Vec::with_capacity(bits.len()) };
        progress.begin("calibrating layers", bits.len() as u64);
        for (i, (place, bits)) in bits.iter().enumerate() {
            let (mut inputs, outputs) = record(network, &place.weight, samples, None)?;
            if flow == Flow::Sequential {
                inputs = record(&quantised.network, &place.weight, samples, Some(quantised.within()))?.0;
            }
            let stream = stream.nested(i as u64).stream("layer");
            let layer = quantise_layer(network, place, &Pairs { inputs, outputs }, *bits, how, stream, progress)?;
            quantised.install(place, &layer)?;
            quantised.layers.push((place.clone(), layer));
            progress.advance(1)?;
        }
        progress.finish();
        Ok(quantised)
    }

    /// Puts layers calibrated by themselves into a copy of `network`.
    ///
    /// # Errors
    /// A layer that does not fit its place.
    pub fn assemble(network: &Network, layers: Vec<(LayerPlace, Calibrated)>) -> Result<Self> {
        let mut quantised = Self { network: network.copy()?, layers: Vec::new() };
        layers.iter().try_for_each(|(place, layer)| quantised.install(place, layer))?;
        quantised.layers = layers;
        Ok(quantised)
    }

    /// Sets the weights and the bias at `place` to those of `layer`.
    pub(super) fn install(&self, place: &LayerPlace, layer: &Calibrated) -> Result<()> {
        Layer::set(&self.network, place, layer.weight.dequant().view())?;
        match bias_of(place) {
            // A norm's shift stays beside the bias that calibration gave the convolution.
            Some(Bias::Shift(name)) => add(&self.network, &name, &layer.bias),
            Some(Bias::Own(name)) => set(&self.network, &name, &layer.bias),
            None => Ok(()),
        }
    }
}

/// Quantises one layer of `network` on `pairs`.
///
/// # Errors
/// As [`calibrate_layer`].
pub fn quantise_layer(
    network: &Network,
    place: &LayerPlace,
    pairs: &Pairs,
    bits: Bits,
    how: How,
    stream: Stream,
    progress: &Progress,
) -> Result<Calibrated> {
    if place.kind == LayerKind::Embedding {
        return Err(Error::input(
            format!("layer \"{}\"", place.name),
            "is an embedding: its inputs cannot be quantised",
        ));
    }
    let read = |name: &str| network.params().get(name).map(|var| var.as_detached_tensor());
    let weight = read(&place.weight).ok_or_else(|| Error::input("model", format!("has no \"{}\"", place.weight)))?;
    let bias = match bias_of(place) {
        Some(Bias::Own(name)) => read(&name),
        Some(Bias::Shift(_)) => {
            Some(Tensor::zeros(place.outputs(), weight.dtype(), weight.device()).map_err(computation)?)
        }
        None => None,
    };
    let layer = FloatLayer { place, weight: &weight, bias: bias.as_ref() };
    match how {
        How::Nearest => Calibrated::nearest(layer, &pairs.inputs, bits),
        How::AdaQuant(settings) => calibrate_layer(layer, pairs, bits, &settings, stream, progress),
        How::Search { batch } => search_layer(layer, pairs, bits, batch, stream),
        How::BiasCorrection if bias.is_some() => correct_bias(layer, pairs, bits),
        How::BiasCorrection => Calibrated::nearest(layer, &pairs.inputs, bits),
        How::AdaRound(method) => {
            let nearest = Calibrated::nearest(layer, &pairs.inputs, bits)?;
            let target = Target::quantised(Scheme::asymmetric(bits.weight));
            let seen = rows(place.kind, &pairs.inputs)?;
            let seen =
                Calibration::of_rows(&place.name, seen.view(), method.needs(&target), stream.nested(0).stream("rows"))?;
            let layer = Layer::of(network, place)?;
            Ok(Calibrated { weight: method.compress(&layer, &seen, &target, stream)?, ..nearest })
        }
    }
}

/// Where the bias of a layer stands.
pub(super) enum Bias {
    /// In a tensor of its own.
    Own(String),
    /// In the shift of the folded norm behind it.
    Shift(String),
}

impl Bias {
    /// The tensor's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Own(name) | Self::Shift(name) => name,
        }
    }
}

/// Where the bias of the layer at `place` stands, if anywhere.
pub(super) fn bias_of(place: &LayerPlace) -> Option<Bias> {
    let shift = || place.batch_norm.as_ref().map(|norm| Bias::Shift(format!("{norm}.bias")));
    place.bias.clone().map(Bias::Own).or_else(shift)
}

pub(super) fn read(network: &Network, name: &str) -> Result<Array1<f32>> {
    let var = network.params().get(name).ok_or_else(|| Error::input("model", format!("has no tensor \"{name}\"")))?;
    Ok(matrix(var)?.column(0).to_owned())
}

pub(super) fn set(network: &Network, name: &str, values: &Array1<f32>) -> Result<()> {
    let var = network.params().get(name).ok_or_else(|| Error::input("model", format!("has no tensor \"{name}\"")))?;
    let values = tensor(values.view().insert_axis(Axis(1)), var.dims())?.to_dtype(var.dtype());
    values.and_then(|values| var.set(&values)).map_err(computation)
}

fn add(network: &Network, name: &str, values: &Array1<f32>) -> Result<()> {
    set(network, name, &(read(network, name)? + values))
}
