//! What training starts from: the layers of a decoder's blocks, pruned or not.

use super::engine::GROUP;
use super::saliency::{Saliency, keep_groups};
use super::student::Start;
use super::train::{Pruning, block_of};
use crate::Layer;
use crate::calibration::{Calibration, calibrate};
use crate::methods::{Target, WeightMethod};
use candle_core::Tensor;
use ndarray::Array2;
use offprint_core::random::Stream;
use offprint_core::{Error, Progress, Result};
use offprint_nn::layers::LayerKind;
use offprint_nn::{LayerPlace, Network, Reads};

/// Samples of a part in calibration.
const PART: usize = 64;

/// The linear layers in the blocks of a decoder. Embeddings, norms and the head stay as they are.
///
/// # Errors
/// A network that does not read tokens, or has no such layers; a layer whose inputs groups of 16 do not divide.
pub fn block_layers(network: &Network) -> Result<Vec<LayerPlace>> {
    if !matches!(network.architecture().reads(), Reads::Tokens { .. }) {
        return Err(Error::input("model", "does not read tokens; decoders (gpt, llama) are compressed here"));
    }
    let linear = |place: &LayerPlace| place.kind == LayerKind::Linear && block_of(place).is_ok();
    let places: Vec<LayerPlace> = network.layers()?.into_iter().filter(linear).collect();
    if places.is_empty() {
        return Err(Error::input("model", "has no blocks with linear layers"));
    }
    match places.iter().find(|place| !place.inputs().is_multiple_of(GROUP)) {
        Some(place) => Err(Error::input(
            format!("layer \"{}\"", place.name),
            format!("has {} inputs, which groups of {GROUP} do not divide", place.inputs()),
        )),
        None => Ok(places),
    }
}

/// The layers at `places` as they are.
///
/// # Errors
/// Weights that are not finite.
pub fn dense(network: &Network, places: &[LayerPlace]) -> Result<Vec<Start>> {
    places
        .iter()
        .map(|place| {
            let weight = Layer::of(network, place)?.weight;
            Ok(Start { place: place.clone(), keep: Array2::from_elem(weight.dim(), true), weight, factors: None })
        })
        .collect()
}

/// The layers at `places` without their lowest groups.
///
/// # Errors
/// Weights that are not finite; inputs that [`calibrate`] refuses.
pub fn group_pruned(
    network: &Network,
    places: &[LayerPlace],
    inputs: &Tensor,
    saliency: Saliency,
    pruning: Pruning,
    stream: Stream,
    progress: &Progress,
) -> Result<Vec<Start>> {
    progress.begin("saliency", places.len() as u64);
    let starts = places
        .iter()
        .map(|place| {
            let layer = Layer::of(network, place)?;
            let seen = if saliency.needs().any() {
                let mut seen = calibrate(network, &[place], inputs, PART, saliency.needs(), None, stream)?;
                seen.pop().expect("one for the one place")
            } else {
                Calibration::none(place.inputs())
            };
            let factors = saliency.factors(&layer, &seen)?;
            let keep = keep_groups(layer.weight.view(), &factors, pruning.share, pruning.scope);
            progress.advance(1)?;
            Ok(Start { place: place.clone(), weight: layer.weight, keep, factors: Some(factors) })
        })
        .collect();
    progress.finish();
    starts
}

/// The layers at `places` as `method` compresses them to `target`.
///
/// # Errors
/// As the method's.
pub fn by_method(
    network: &Network,
    places: &[LayerPlace],
    inputs: &Tensor,
    method: &dyn WeightMethod,
    target: Target,
    stream: Stream,
) -> Result<Vec<Start>> {
    places
        .iter()
        .map(|place| {
            let layer = Layer::of(network, place)?;
            let needs = method.needs(&target);
            let mut seen = calibrate(network, &[place], inputs, PART, needs, None, stream)?;
            let packed = method.compress(&layer, &seen.pop().expect("one for the one place"), &target, stream)?;
            let weight = packed.dequant();
            let keep = packed.mask.map_or_else(|| Array2::from_elem(weight.dim(), true), |mask| mask.keep);
            Ok(Start { place: place.clone(), weight, keep, factors: None })
        })
        .collect()
}
