//! The layers through which influence is measured, and their places in flattened vectors.

use super::{Element, Examples};
use crate::{LayerPlace, Real};
use ndarray::{Array2, Array3, Axis, concatenate};
use offprint_core::{Error, Result};
use offprint_nn::derivatives::{LossFunction, Targets};
use offprint_nn::layers::watch::{Layer, watching};
use std::collections::HashSet;
use std::ops::Range;

/// Which layers are tracked. Embeddings, norms and heads that share an embedding never are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Track {
    /// The perceptrons of a transformer; every linear and convolution layer of any other model.
    #[default]
    Usual,
    /// Every linear and convolution layer, attention projections too.
    All,
    /// Layers by name; a name stands for all layers that begin with it.
    Named(Vec<String>),
}

/// The tracked layers of a model. Tracked coordinates run over the layers in the order of the forward pass, each with its
/// weight row by row and then its bias.
#[derive(Debug, Clone)]
pub struct TrackedLayers {
    layers: Vec<LayerPlace>,
    /// Weight and bias of each layer in the flattened vector of all parameters.
    whole: Vec<(Range<usize>, Option<Range<usize>>)>,
    dim: usize,
    all: usize,
}

/// What went into a layer and the gradients at what came out, for a chunk of samples. A layer that is used several times
/// has its uses side by side as further positions.
pub(super) struct LayerRows<T> {
    /// (n, positions, in)
    pub inputs: Array3<T>,
    /// (n, positions, out)
    pub gradients: Array3<T>,
}

impl TrackedLayers {
    /// The layers of the model behind `loss` that `track` names, found in one forward pass over the first of `examples`.
    ///
    /// # Errors
    /// No example; a name that no layer begins with; no layer left to track.
    pub fn of(loss: &LossFunction<'_>, examples: &Examples, track: &Track) -> Result<Self> {
        if examples.is_empty() {
            return Err(Error::input("training rows", "there is no row"));
        }
        let first = examples.narrow(0, 1)?;
        let (outputs, seen) = watching(|| loss.outputs(&first.batch));
        outputs?;
        let tables: HashSet<&str> = seen
            .iter()
            .filter(|seen| matches!(seen.layer, Layer::Embedding { .. }))
            .map(|seen| seen.weight.as_str())
            .collect();
        let mut found: Vec<(&str, Option<&str>)> = Vec::new();
        for seen in &seen {
            let fits = match &seen.layer {
                Layer::Linear { .. } => true,
                Layer::Conv2d { conv, .. } => conv.groups == 1,
                _ => false,
            };
            if fits && !tables.contains(seen.weight.as_str()) && found.iter().all(|(weight, _)| *weight != seen.weight)
            {
                found.push((&seen.weight, seen.bias.as_deref()));
            }
        }
        let names: Vec<&str> = found.iter().map(|(weight, _)| layer_name(weight)).collect();
        let chosen = choose(&names, track)?;
        let blocks = loss.blocks();
        let mut tracked = Self { layers: Vec::new(), whole: Vec::new(), dim: 0, all: loss.dim() };
        for (name, (weight, bias)) in names.iter().zip(&found).filter(|(name, _)| chosen.contains(*name)) {
            let block = |name: &str| blocks.iter().find(|block| block.name == name);
            let Some(block_of_weight) = block(weight) else { continue };
            let bias = bias.and_then(block).map(|block| block.range.clone());
            let (outputs, inputs) = (block_of_weight.rows, block_of_weight.columns);
            let weight = tracked.dim..tracked.dim + outputs * inputs;
            let bias_here = bias.as_ref().map(|_| weight.end..weight.end + outputs);
            tracked.dim = bias_here.as_ref().map_or(weight.end, |bias| bias.end);
            tracked.layers.push(LayerPlace { name: (*name).to_owned(), weight, bias: bias_here, outputs, inputs });
            tracked.whole.push((block_of_weight.range.clone(), bias));
        }
        if tracked.layers.is_empty() {
            return Err(Error::parameter("track", "no layer", "at least one linear or convolution layer"));
        }
        Ok(tracked)
    }

    /// The layers, in tracked coordinates.
    pub fn layers(&self) -> &[LayerPlace] {
        &self.layers
    }

    /// Number of tracked parameters.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Where each tracked part stands: (tracked coordinates, all coordinates).
    fn parts(&self) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
        self.layers.iter().zip(&self.whole).flat_map(|(here, (weight, bias))| {
            let bias = here.bias.clone().zip(bias.clone());
            std::iter::once((here.weight.clone(), weight.clone())).chain(bias)
        })
    }

    /// The tracked coordinates of a vector over all parameters.
    pub fn restrict<A: Copy + Default>(&self, x: &[A]) -> Vec<A> {
        let mut y = vec![A::default(); self.dim];
        self.parts().for_each(|(here, there)| y[here].copy_from_slice(&x[there]));
        y
    }

    /// A vector over all parameters that is zero outside of the tracked coordinates.
    pub fn embed<A: Copy + Default>(&self, x: &[A]) -> Vec<A> {
        let mut y = vec![A::default(); self.all];
        self.parts().for_each(|(here, there)| y[there].copy_from_slice(&x[here]));
        y
    }

    /// `value(layer)` for every tracked coordinate of each layer.
    pub fn spread(&self, value: impl Fn(usize) -> f64) -> Vec<f64> {
        let mut y = vec![0.0; self.dim];
        for (number, layer) in self.layers.iter().enumerate() {
            y[layer.weight.clone()].fill(value(number));
            if let Some(bias) = &layer.bias {
                y[bias.clone()].fill(value(number));
            }
        }
        y
    }

    /// The inputs and output gradients of each tracked layer.
    pub(super) fn rows<T: Element>(&self, loss: &LossFunction<'_>, examples: &Examples) -> Result<Vec<LayerRows<T>>> {
        let mut traces = loss.layer_traces::<T>(&examples.batch, Targets::True)?;
        self.layers
            .iter()
            .map(|layer| {
                let (own, others): (Vec<_>, Vec<_>) =
                    traces.drain(..).partition(|trace| layer_name(&trace.weight) == layer.name);
                traces = others;
                let mut uses =
                    own.into_iter().map(|trace| LayerRows { inputs: trace.inputs, gradients: trace.gradients });
                let first = uses
                    .next()
                    .ok_or_else(|| Error::input(layer.name.clone(), "was not used by the model on these samples"))?;
                Ok(uses.fold(first, |a, b| LayerRows {
                    inputs: beside(&a.inputs, &b.inputs),
                    gradients: beside(&a.gradients, &b.gradients),
                }))
            })
            .collect()
    }

    /// The gradient of each sample's loss in tracked coordinates `(n, dim)`.
    pub(super) fn gradients<T: Element>(&self, loss: &LossFunction<'_>, examples: &Examples) -> Result<Array2<f64>> {
        let rows = self.rows::<T>(loss, examples)?;
        let mut all = Array2::zeros((examples.len(), self.dim));
        for (layer, rows) in self.layers.iter().zip(rows) {
            let (a, g) = (rows.inputs.mapv(Real::to_f64), rows.gradients.mapv(Real::to_f64));
            for (i, mut gradient) in all.outer_iter_mut().enumerate() {
                let (a, g) = (a.index_axis(Axis(0), i), g.index_axis(Axis(0), i));
                let weight = offprint_math::linalg::matmul(g.t(), a);
                let flat = gradient.as_slice_mut().expect("rows of a matrix in C order are contiguous");
                flat[layer.weight.clone()].copy_from_slice(weight.as_slice().expect("a fresh matrix is contiguous"));
                if let Some(bias) = &layer.bias {
                    g.axis_iter(Axis(1)).zip(&mut flat[bias.clone()]).for_each(|(g, b)| *b = g.sum());
                }
            }
        }
        Ok(all)
    }
}

fn beside<T: Clone>(a: &Array3<T>, b: &Array3<T>) -> Array3<T> {
    concatenate(Axis(1), &[a.view(), b.view()]).expect("uses of one layer have its widths")
}

/// A layer's name: its weight's without the ending.
fn layer_name(weight: &str) -> &str {
    weight.strip_suffix(".weight").unwrap_or(weight)
}

/// The names that `track` means.
fn choose<'a>(names: &[&'a str], track: &Track) -> Result<Vec<&'a str>> {
    let has = |name: &str, words: &[&str]| name.split(['.', '_']).any(|part| words.contains(&part));
    match track {
        Track::All => Ok(names.to_vec()),
        Track::Usual => {
            let transformer = names.iter().any(|name| has(name, &["attn", "attention"]));
            Ok(names.iter().copied().filter(|name| !transformer || has(name, &["mlp"])).collect())
        }
        Track::Named(wanted) => {
            for wanted in wanted {
                if !names.iter().any(|name| is_under(name, wanted)) {
                    return Err(Error::parameter("track", wanted, format!("one of the layers {}", names.join(", "))));
                }
            }
            Ok(names.iter().copied().filter(|name| wanted.iter().any(|wanted| is_under(name, wanted))).collect())
        }
    }
}

fn is_under(name: &str, wanted: &str) -> bool {
    name.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transformers_are_tracked_in_their_perceptrons() {
        let gpt = ["h.0.attn.c_attn", "h.0.attn.c_proj", "h.0.mlp.c_fc", "h.0.mlp.c_proj"];
        assert_eq!(choose(&gpt, &Track::Usual).unwrap(), gpt[2..]);
        assert_eq!(choose(&gpt, &Track::All).unwrap(), gpt);
        let named = Track::Named(vec!["h.0.attn".into()]);
        assert_eq!(choose(&gpt, &named).unwrap(), gpt[..2]);
        let error = choose(&gpt, &Track::Named(vec!["h.0.at".into()])).unwrap_err().to_string();
        assert!(error.starts_with("track: got h.0.at") && error.contains("h.0.mlp.c_fc"), "{error}");
        assert_eq!(choose(&["layers.0", "layers.1"], &Track::Usual).unwrap().len(), 2);
    }
}
