//! Pruners that score each weight by itself. What survives is rounded to the nearest level if the target has some.

use super::mask::{Scope, mask_lowest};
use super::{Sparsity, Target, WeightMethod};
use crate::calibration::{Calibration, Needs};
use crate::layer::Layer;
use crate::packed::{Mask, Packed};
use crate::quantiser::{Grid, Scheme};
use ndarray::Array2;
use offprint_core::Result;
use offprint_core::random::Stream;

/// Scores |w|, compared in the whole layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Magnitude;

/// Scores |w_ij| ‖x_j‖, compared inside each row (Sun et al. 2024).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanda;

impl WeightMethod for Magnitude {
    fn name(&self) -> &str {
        "magnitude"
    }

    fn needs(&self, _: &Target) -> Needs {
        Needs::NOTHING
    }

    fn compress(&self, layer: &Layer, _: &Calibration, target: &Target, _: Stream) -> Result<Packed> {
        let scores = layer.weight.mapv(|w| f64::from(w.abs()));
        let mask = mask_lowest(scores.view(), &target.sparsity_of("magnitude")?, Scope::Layer);
        survivors(layer, mask, target.scheme)
    }
}

impl WeightMethod for Wanda {
    fn name(&self) -> &str {
        "wanda"
    }

    fn needs(&self, _: &Target) -> Needs {
        Needs::STATISTICS
    }

    fn compress(&self, layer: &Layer, seen: &Calibration, target: &Target, _: Stream) -> Result<Packed> {
        let scores = Array2::from_shape_fn(layer.weight.dim(), |(i, j)| {
            f64::from(layer.weight[[i, j]].abs()) * seen.mean_square[j].sqrt()
        });
        let mask = mask_lowest(scores.view(), &target.sparsity_of("wanda")?, Scope::Row);
        survivors(layer, mask, target.scheme)
    }
}

/// The weights that `mask` keeps, on the nearest levels of `scheme` if there is one.
///
/// # Errors
/// As [`Scheme::check`].
pub fn survivors(layer: &Layer, mask: Mask, scheme: Option<Scheme>) -> Result<Packed> {
    let (name, shape, weight) = (&layer.place.name, &layer.place.shape, &layer.weight);
    Ok(match scheme {
        None => Packed::floats(name, shape, weight.clone(), Some(mask)),
        Some(scheme) => {
            let grid = Grid::fit_kept(name, weight.view(), Some(mask.keep.view()), &scheme)?;
            Packed::coded(name, shape, weight.view(), grid, Some(mask))
        }
    })
}

/// The share of each layer's weights that stand below one threshold for all of them, such that `share` of all weights do:
/// global magnitude pruning is magnitude pruning with these shares.
pub fn global_shares(layers: &[Layer], share: f64) -> Vec<Sparsity> {
    let mut all: Vec<(f32, usize)> = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        all.extend(layer.weight.iter().map(|w| (w.abs(), number)));
    }
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut counts = vec![0_usize; layers.len()];
    let pruned = (all.len() as f64 * share.clamp(0.0, 1.0) + 1e-9) as usize;
    all[..pruned].iter().for_each(|&(_, number)| counts[number] += 1);
    let of_layer = |(count, layer): (usize, &Layer)| Sparsity::Unstructured(count as f64 / layer.weight.len() as f64);
    counts.into_iter().zip(layers).map(of_layer).collect()
}
