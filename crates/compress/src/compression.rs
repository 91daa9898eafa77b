//! A whole network, layer by layer.

use crate::calibration::{Calibration, calibrate};
use crate::layer::Layer;
use crate::methods::{Target, WeightMethod};
use crate::packed::Packed;
use candle_core::Tensor;
use ndarray::Zip;
use offprint_core::random::Stream;
use offprint_core::{Error, Progress, Result};
use offprint_nn::layers::LayerKind;
use offprint_nn::{LayerPlace, Network};
use serde::Serialize;

/// What inputs a layer is calibrated with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Those of the float network: layers do not depend on each other.
    Parallel,
    /// Those of the network whose earlier layers are compressed already.
    Sequential,
}

/// A compression that is asked for.
#[derive(Clone, Copy)]
pub struct Work<'a> {
    /// How.
    pub method: &'a dyn WeightMethod,
    /// Which layers, and to what.
    pub targets: &'a [(LayerPlace, Target)],
    /// Samples as the network reads them, without which only methods that need none work.
    pub calibration: Option<&'a Tensor>,
    /// Samples of one forward pass.
    pub part: usize,
    /// What layers are calibrated with.
    pub order: Order,
    /// Random choices; layer i takes its streams from item i.
    pub stream: Stream,
}

/// A compressed network.
#[derive(Debug, Clone)]
pub struct Compressed {
    /// The network that computes with the compressed weights.
    pub network: Network,
    /// The layers that were compressed, in the order of the targets.
    pub layers: Vec<Packed>,
    /// What became of each.
    pub records: Vec<LayerRecord>,
}

/// What compression did to one layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerRecord {
    /// Its name.
    pub name: String,
    /// Bits of a weight that is kept.
    pub bits: u32,
    /// Share of weights that are pruned.
    pub sparsity: f64,
    /// Mean of (w − ŵ)².
    pub mean_squared_error: f64,
    /// Σ w² / Σ (w − ŵ)² in decibels; infinite without error.
    pub sqnr: f64,
    /// Groups of equal weights, whose scale is the least one.
    pub constant_groups: usize,
}

/// Compresses `network`, which stays as it is.
///
/// Layers go one by one, so that memory is the network, one layer's statistics and the activations of one part.
///
/// # Errors
/// Targets that do not fit a layer or the method; calibration that is needed and missing, or as
/// [`calibrate`](crate::calibration::calibrate) refuses; the user's stop.
pub fn compress(network: &Network, work: &Work<'_>, progress: &Progress) -> Result<Compressed> {
    for (place, target) in work.targets {
        target.check(&place.name, place.inputs())?;
    }
    let (compressed, mut layers, mut records) = (network.copy()?, Vec::new(), Vec::new());
    progress.begin(work.method.name(), work.targets.len() as u64);
    for (i, (place, target)) in work.targets.iter().enumerate() {
        let layer = Layer::of(network, place)?;
        let streams = work.stream.nested(i as u64);
        let needs = work.method.needs(target);
        let seen = if needs.any() {
            let samples = work.calibration.ok_or_else(|| {
                Error::parameter("calibration", "none", format!("given: {} looks at inputs", work.method.name()))
            })?;
            let through = if work.order == Order::Parallel { network } else { &compressed };
            let mut seen =
                calibrate(through, &[place], samples, work.part, needs, None, streams.stream("calibration"))?;
            seen.pop().expect("one for the one place")
        } else {
            Calibration::none(place.inputs())
        };
        let packed = work.method.compress(&layer, &seen, target, streams.stream("method"))?;
        let weight = packed.dequant();
        Layer::set(&compressed, place, weight.view())?;
        records.push(LayerRecord::of(&layer, &packed));
        layers.push(packed);
        progress.advance(1)?;
    }
    progress.finish();
    Ok(Compressed { network: compressed, layers, records })
}

impl LayerRecord {
    /// Of `layer` and what it became.
    pub fn of(layer: &Layer, packed: &Packed) -> Self {
        let weight = packed.dequant();
        let (signal, error) = Zip::from(&layer.weight).and(&weight).fold((0.0, 0.0), |(signal, error), &w, &q| {
            (signal + f64::from(w).powi(2), error + f64::from(w - q).powi(2))
        });
        Self {
            name: packed.name.clone(),
            bits: packed.bits(),
            sparsity: packed.sparsity(),
            mean_squared_error: error / weight.len().max(1) as f64,
            sqnr: 10.0 * (signal / error).log10(),
            constant_groups: match &packed.values {
                crate::packed::Values::Codes { grid, .. } => grid.constant_groups(),
                _ => 0,
            },
        }
    }
}

/// The layers that are usually compressed, each with `target`: linear layers and convolutions, no embeddings, except those
/// whose names are in `except`.
///
/// # Errors
/// A name in `except` that no layer has.
pub fn usual_targets(network: &Network, target: Target, except: &[String]) -> Result<Vec<(LayerPlace, Target)>> {
    let places = network.layers()?;
    if let Some(unknown) = except.iter().find(|name| !places.iter().any(|place| place.name == **name)) {
        let names: Vec<&str> = places.iter().map(|place| place.name.as_str()).collect();
        return Err(Error::parameter("except", unknown, format!("one of the layers {}", names.join(", "))));
    }
    let usual = places.into_iter().filter(|p| p.kind != LayerKind::Embedding && !except.contains(&p.name));
    Ok(usual.map(|place| (place, target)).collect())
}
