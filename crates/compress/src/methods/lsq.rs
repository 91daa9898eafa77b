//! LSQ (Esser et al. 2020) for a whole network: weights, the steps of their levels, and the steps of the activations' are
//! trained together.

use crate::compression::{Compressed, LayerRecord};
use crate::layer::Layer;
use crate::packed::Packed;
use crate::quantiser::{ActivationQuantiser, Lsq};
use candle_core::DType;
use offprint_core::random::Stream;
use offprint_core::{Error, Progress, Result};
use offprint_nn::layers::substitute::{LayerUse, Operands, Substitute, substituting};
use offprint_nn::ops::{Reduction, cross_entropy};
use offprint_nn::optim::{Adam, AdamSettings};
use offprint_nn::train::{Epochs, Plan, Schedule, train};
use offprint_nn::{Batch, LayerPlace, Network, computation};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// How long to train, and how.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LsqTraining {
    /// Steps of Adam on a cosine.
    pub steps: u64,
    /// Samples of a batch.
    pub batch: usize,
    /// Adam's learning rate.
    pub rate: f64,
    /// Bits of the inputs of the layers; none leaves them floats.
    pub activation_bits: Option<u32>,
}

impl Default for LsqTraining {
    fn default() -> Self {
        Self { steps: 200, batch: 64, rate: 1e-3, activation_bits: None }
    }
}

/// A trained network with quantised weights, and what still has to be done to its activations.
pub struct LsqNetwork {
    /// Weights on their levels, other parameters as trained.
    pub compressed: Compressed,
    /// Quantises the inputs of the layers; none if activations stay floats.
    pub activations: Option<Rc<dyn Substitute>>,
}

impl LsqTraining {
    /// Trains a copy of `network` on `samples` by cross-entropy, each layer of `targets` with levels of so many bits, one
    /// scale a row. Batch norms keep their running statistics.
    ///
    /// # Errors
    /// Bits outside 2 to 8; a training that does not stay finite; the user's stop.
    pub fn run(
        &self,
        network: &Network,
        targets: &[(LayerPlace, u32)],
        samples: &Batch,
        stream: Stream,
        progress: &Progress,
    ) -> Result<LsqNetwork> {
        let trained = network.copy()?;
        let mut weights = BTreeMap::new();
        for (place, bits) in targets {
            let var = trained.params().get(&place.weight);
            let var = var.ok_or_else(|| Error::input("model", format!("has no tensor \"{}\"", place.weight)))?;
            weights.insert(place.weight.clone(), Lsq::of_weight(var, *bits)?);
        }
        let mut inputs = BTreeMap::new();
        if let Some(bits) = self.activation_bits {
            for (place, _) in targets {
                // Decided by the first batch: inputs that are never negative get unsigned codes.
                let (input, _) = crate::calibration::record(
                    &trained,
                    &place.weight,
                    &samples.narrow(0, self.batch.clamp(1, samples.len().max(1))).map_err(computation)?.inputs,
                    None,
                )?;
                let least = input.to_dtype(DType::F32).and_then(|x| x.min_all()?.to_scalar::<f32>());
                let mut lsq = Lsq::of_activations(bits, least.map_err(computation)? >= 0.0)?;
                lsq.observe(&input)?;
                inputs.insert(place.weight.clone(), lsq);
            }
        }
        let steps = weights.iter().map(|(name, lsq)| (format!("{name}.step"), lsq.step.clone()));
        let input_steps = inputs.iter().map(|(name, lsq)| (format!("{name}.input_step"), lsq.step.clone()));
        let vars: Vec<_> = trained.params().vars().into_iter().chain(steps).chain(input_steps).collect();
        let settings = AdamSettings { learning_rate: self.rate, ..AdamSettings::default() };
        let mut adam = Adam::new(vars, settings).map_err(computation)?;
        let quantised = Rc::new(Quantised { weights: RefCell::new(weights), inputs });
        let epochs = Epochs::new(samples.clone(), self.batch, stream)?;
        let plan = Plan::new(self.steps, Schedule::cosine());
        train(trained.params(), &mut adam, &plan, progress, |step| {
            let batch = epochs.at(step)?;
            let loss = substituting(Some(quantised.clone()), || {
                let logits = trained.forward(&batch.inputs)?;
                let classes = logits.dim(candle_core::D::Minus1)?;
                cross_entropy(&logits.reshape(((), classes))?, &batch.targets.flatten_all()?, 0.0, Reduction::Mean)
            });
            loss.map_err(computation)
        })?;
        let (mut layers, mut records) = (Vec::new(), Vec::new());
        for (place, _) in targets {
            let layer = Layer::of(&trained, place)?;
            let lsq = quantised.weights.borrow_mut().remove(&place.weight);
            let lsq = lsq.ok_or_else(|| Error::parameter("targets", &place.name, "each layer once"))?;
            let grid = lsq.grid(place.inputs())?;
            let packed = Packed::coded(&place.name, &place.shape, layer.weight.view(), grid, None);
            Layer::set(&trained, place, packed.dequant().view())?;
            records.push(LayerRecord::of(&layer, &packed));
            layers.push(packed);
        }
        let compressed = Compressed { network: trained, layers, records };
        // With the weights' quantisers taken out, what is left quantises the inputs only.
        let activations = self.activation_bits.map(|_| quantised as Rc<dyn Substitute>);
        Ok(LsqNetwork { compressed, activations })
    }
}

/// Weights and inputs on their levels.
struct Quantised {
    weights: RefCell<BTreeMap<String, Lsq>>,
    inputs: BTreeMap<String, Lsq>,
}

impl Substitute for Quantised {
    fn operands(&self, layer: LayerUse<'_>, mut own: Operands) -> candle_core::Result<Operands> {
        let failed = |e: Error| candle_core::Error::Msg(e.to_string());
        if let Some(lsq) = self.weights.borrow().get(layer.weight) {
            own.weight = lsq.fake(&own.weight).map_err(failed)?;
        }
        if let Some(lsq) = self.inputs.get(layer.weight) {
            own.input = lsq.fake(&own.input).map_err(failed)?;
        }
        Ok(own)
    }
}
