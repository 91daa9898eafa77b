//! What goes into each layer and the gradient at what comes out: the raw material of Kronecker-factored curvature.

use super::{LossFunction, Targets};
use crate::batch::Batch;
use crate::error::computation;
use crate::layers::watch::{self, Layer, Seen};
use crate::ops;
use crate::params::{Real, flatten};
use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor};
use ndarray::Array3;
use offprint_core::Result;
use rayon::prelude::*;

/// One use of a linear or convolution layer. The weight's gradient for sample i is Σₜ gradients[i, t] inputs[i, t]ᵀ,
/// the bias's is Σₜ gradients[i, t].
#[derive(Debug, Clone)]
pub struct LayerTrace<T> {
    /// Full name of the weight, the name of a [`Block`](crate::params::Block) with `out` rows and `in` columns.
    pub weight: String,
    /// Full name of the bias, if there is one.
    pub bias: Option<String>,
    /// Inputs (n, positions, in): positions are 1 for vectors, tokens for sequences, places of the kernel for images,
    /// where `in` runs over channel, kernel row and kernel column.
    pub inputs: Array3<T>,
    /// Gradients of ℓᵢ at the outputs (n, positions, out).
    pub gradients: Array3<T>,
}

impl LossFunction<'_> {
    /// The trace of every linear and ungrouped convolution layer, in the order of the forward pass. A layer that is used
    /// twice has two traces.
    pub fn layer_traces<T: Real>(&self, batch: &Batch, targets: Targets) -> Result<Vec<LayerTrace<T>>> {
        let (seen, gradients) = self.watched(batch, targets)?;
        let mut traces = Vec::new();
        for seen in &seen {
            let grouped = matches!(&seen.layer, Layer::Conv2d { conv, .. } if conv.groups != 1);
            if let (Some((inputs, gradients)), false) = (rows(seen, &gradients)?, grouped) {
                traces.push(LayerTrace { weight: seen.weight.clone(), bias: seen.bias.clone(), inputs, gradients });
            }
        }
        Ok(traces)
    }

    /// A watched forward pass and the gradients of Σᵢ ℓᵢ.
    pub(super) fn watched(&self, batch: &Batch, targets: Targets) -> Result<(Vec<Seen>, GradStore)> {
        let (outputs, seen) = watch::watching(|| self.outputs(batch));
        let outputs = outputs?;
        let targets = self.targets(&outputs, batch, targets)?;
        let total = self.loss.per_sample(&outputs, &targets)?.sum_all().map_err(computation)?;
        Ok((seen, ops::backward(&total).map_err(computation)?))
    }
}

/// Inputs (n, positions, in) and output gradients (n, positions, out) of a linear or convolution layer.
pub(super) fn rows<T: Real>(seen: &Seen, gradients: &GradStore) -> Result<Option<(Array3<T>, Array3<T>)>> {
    let delta = output_gradient(seen, gradients).map_err(computation)?;
    match &seen.layer {
        Layer::Linear { input } => Ok(Some((by_position(input)?, by_position(&delta)?))),
        Layer::Conv2d { input, conv, kernel } => {
            let inputs = unfold(input, conv, *kernel, (delta.dims()[2], delta.dims()[3]))?;
            let delta = delta.flatten_from(2).and_then(|d| d.transpose(1, 2)).map_err(computation)?;
            Ok(Some((inputs, by_position(&delta)?)))
        }
        Layer::Scale { .. } | Layer::Embedding { .. } | Layer::Learned => Ok(None),
    }
}

/// The gradient at the layer's output; zero if the loss does not depend on it.
pub(super) fn output_gradient(seen: &Seen, gradients: &GradStore) -> candle_core::Result<Tensor> {
    gradients.get(&seen.probe).cloned().map_or_else(|| seen.probe.zeros_like(), Ok)
}

/// (n, …, width) as (n, positions, width).
pub(super) fn by_position<T: Real>(x: &Tensor) -> Result<Array3<T>> {
    let (n, width) = (x.dims()[0], x.dims()[x.rank() - 1]);
    let positions = x.dims()[1..x.rank() - 1].iter().product();
    let values = flatten([x].into_iter(), x.elem_count())?;
    Ok(Array3::from_shape_vec((n, positions, width), values).expect("the sizes multiply to the number of values"))
}

/// What the kernel sees of `x` (n, channels, height, width) at each place: (n, places, channels × kh × kw).
fn unfold<T: Real>(
    x: &Tensor,
    conv: &ops::Conv2d,
    (kh, kw): (usize, usize),
    (out_h, out_w): (usize, usize),
) -> Result<Array3<T>> {
    let (n, channels, height, width) = x.dims4().map_err(computation)?;
    let x: Vec<T> = flatten([&x.to_device(&Device::Cpu).map_err(computation)?].into_iter(), x.elem_count())?;
    let columns = channels * kh * kw;
    let mut patches = vec![T::zero(); n * out_h * out_w * columns];
    let at = |place: usize, tap: usize, length: usize| {
        (place * conv.stride + tap * conv.dilation).checked_sub(conv.padding).filter(|&i| i < length)
    };
    patches
        .par_chunks_mut((out_h * out_w * columns).max(1))
        .zip(x.par_chunks((channels * height * width).max(1)))
        .for_each(|(patches, image)| {
            for (place, patch) in patches.chunks_mut(columns).enumerate() {
                let (row, column) = (place / out_w, place % out_w);
                for (k, value) in patch.iter_mut().enumerate() {
                    let (channel, i, j) = (k / (kh * kw), k / kw % kh, k % kw);
                    if let (Some(i), Some(j)) = (at(row, i, height), at(column, j, width)) {
                        *value = image[(channel * height + i) * width + j];
                    }
                }
            }
        });
    Ok(Array3::from_shape_vec((n, out_h * out_w, columns), patches).expect("the sizes multiply"))
}
