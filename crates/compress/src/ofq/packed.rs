//! A quantised network as the packed layers that every exporter of this crate writes.

use super::{Form, Levels, QuantisedViT, Reading};
use crate::packed::Packed;
use crate::quantiser::Grid;
use ndarray::{Array2, ArrayView2};
use offprint_core::{Error, Result};
use std::collections::BTreeMap;

/// The levels of several matrices with the same rule, one below the other. Half-integers are a grid of step s/n whose zero
/// is −½.
fn grid(readings: &[&Reading]) -> Grid {
    let levels = readings[0].levels;
    let (step, zero) = match levels {
        Levels::Halves { bits } => (1.0 / (1_u32 << (bits - 1)) as f32, -0.5),
        Levels::Whole { .. } => (1.0, 0.0),
    };
    let scales = readings.iter().flat_map(|reading| {
        let rows = reading.weights.len() / reading.columns.max(1);
        (0..rows).map(|row| reading.scales[row % reading.scales.len()] * step)
    });
    let scales: Vec<f32> = scales.collect();
    let scales = Array2::from_shape_fn((scales.len(), 1), |(row, _)| scales[row]);
    Grid {
        codes: levels.codes(),
        group: readings[0].columns,
        zeros: Array2::from_elem(scales.dim(), zero),
        scales,
        group_of: None,
    }
}

impl QuantisedViT {
    /// The layers on their levels, the first layer and the head among them.
    ///
    /// # Errors
    /// Reparametrised attention, whose products are no layer's weights; weights that are floats.
    pub fn packed(&self) -> Result<Vec<Packed>> {
        if self.precision().form != Form::Plain {
            let allowed = "plain: products of queries and keys are no layer that other formats know";
            return Err(Error::parameter("attention", "reparametrised", allowed));
        }
        let mut readings = BTreeMap::new();
        for site in self.all_sites() {
            let reading = site.read()?.ok_or_else(|| Error::parameter("weights", "floats", "quantised"))?;
            readings.insert(site.name.clone(), reading);
        }
        let layers = self.network().layers()?.into_iter().map(|place| {
            let parts = match place.name.strip_suffix(".qkv") {
                Some(attention) => vec![format!("{attention}.qk"), format!("{attention}.v")],
                None => vec![place.name.clone()],
            };
            let parts: Vec<&Reading> = parts.iter().map(|name| &readings[name]).collect();
            let weights: Vec<f32> = parts.iter().flat_map(|reading| reading.weights.iter().copied()).collect();
            let columns = parts[0].columns;
            let view = ArrayView2::from_shape((weights.len() / columns, columns), &weights);
            let view = view.map_err(|e| Error::Numerical(e.to_string()))?;
            Ok(Packed::coded(&place.name, &place.shape, view, grid(&parts), None))
        });
        layers.collect()
    }
}
