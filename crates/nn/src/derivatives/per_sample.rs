//! Gradients of single samples, all of a batch from one backward pass.

use super::layers::{by_position, output_gradient, rows};
use super::{LossFunction, Targets};
use crate::batch::Batch;
use crate::error::computation;
use crate::layers::watch::{Layer, Seen};
use crate::params::{Block, Real, flatten};
use candle_core::backprop::GradStore;
use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, Array3, ArrayView2, ArrayViewMut2, Axis, parallel::prelude::*, s};
use offprint_core::Result;

impl LossFunction<'_> {
    /// The gradient ∇ℓᵢ of each sample, (n, d). Memory is n · d values: cut large batches with [`Batch::chunks`].
    ///
    /// For models made of this crate's layers one backward pass serves the whole batch, since a sample's gradient
    /// follows from the inputs of each layer and the gradients at its outputs. If the gradients found that way do not
    /// add up to the gradient of the batch (a parameter that is used outside of a layer), each sample gets a pass.
    pub fn per_sample_gradients<T: Real>(&self, batch: &Batch, targets: Targets) -> Result<Array2<T>> {
        let batch = match targets {
            Targets::True => batch.clone(),
            Targets::Sampled(_) => {
                let outputs = self.outputs(batch)?;
                Batch { inputs: batch.inputs.clone(), targets: self.targets(&outputs, batch, targets)? }
            }
        };
        let (seen, gradients) = self.watched(&batch, Targets::True)?;
        let blocks = self.blocks();
        let mut all = Array2::zeros((batch.len(), self.dim()));
        for seen in &seen {
            add_layer(seen, &gradients, &blocks, &mut all)?;
        }
        if self.adds_up(&all, &gradients)? { Ok(all) } else { self.one_by_one(&batch) }
    }

    /// [`Self::per_sample_gradients`] with a backward pass a sample, for any model.
    fn one_by_one<T: Real>(&self, batch: &Batch) -> Result<Array2<T>> {
        let mut all = Array2::zeros((batch.len(), self.dim()));
        for (i, mut row) in all.outer_iter_mut().enumerate() {
            let (_, gradient) = self.gradient::<T>(&batch.narrow(i, 1).map_err(computation)?)?;
            row.assign(&ndarray::ArrayView1::from(&gradient));
        }
        Ok(all)
    }

    /// Whether the rows of `all` add up to the gradients of the whole batch, to half of the digits.
    fn adds_up<T: Real>(&self, all: &Array2<T>, gradients: &GradStore) -> Result<bool> {
        let whole: Vec<f64> = self.collect(gradients)?;
        let value = |x: T| x.to_f64();
        let half = if self.params.dtype() == candle_core::DType::F64 && T::DTYPE == candle_core::DType::F64 {
            f64::EPSILON.sqrt()
        } else {
            f64::from(f32::EPSILON).sqrt()
        };
        Ok(self.blocks().iter().all(|block| {
            let part = all.slice(s![.., block.range.clone()]);
            let sums = part.axis_iter(Axis(1)).zip(&whole[block.range.clone()]);
            let (mut error, mut size) = (0f64, 0f64);
            for (column, &whole) in sums {
                let sum: f64 = column.iter().map(|&x| value(x)).sum();
                let magnitude: f64 = column.iter().map(|&x| value(x).abs()).sum();
                error = error.max((sum - whole).abs());
                size = size.max(magnitude.max(whole.abs()));
            }
            // NaN never adds up.
            error <= half * size
        }))
    }
}

/// Adds what one use of a layer contributes to each sample's gradient.
fn add_layer<T: Real>(seen: &Seen, gradients: &GradStore, blocks: &[Block], all: &mut Array2<T>) -> Result<()> {
    let block = |name: &str| blocks.iter().find(|b| b.name == name);
    let bias = seen.bias.as_deref().and_then(block);
    let Some(weight) = block(&seen.weight) else { return Ok(()) };
    if let Some((inputs, delta)) = rows::<T>(seen, gradients)? {
        let groups = match &seen.layer {
            Layer::Conv2d { conv, .. } => conv.groups,
            _ => 1,
        };
        return {
            add_products(all.slice_mut(s![.., weight.range.clone()]), &inputs, &delta, groups);
            add_sums(all, bias, &delta);
            Ok(())
        };
    }
    let delta = output_gradient(seen, gradients).map_err(computation)?;
    match &seen.layer {
        Layer::Scale { normalised, axis } => {
            // The scaled axis last, so that what is left are positions.
            let last = normalised.rank() - 1;
            let by_channel = |t: &candle_core::Tensor| t.transpose(*axis, last).and_then(|t| t.contiguous());
            let scaled = by_channel(&(normalised * &delta).map_err(computation)?).map_err(computation)?;
            add_sums(all, Some(weight), &by_position(&scaled)?);
            add_sums(all, bias, &by_position(&by_channel(&delta).map_err(computation)?)?);
        }
        Layer::Embedding { ids, .. } => {
            let ids = ids.flatten_all().and_then(|ids| ids.to_vec1::<u32>()).map_err(computation)?;
            let delta: Array3<T> = by_position(&delta)?;
            let (n, positions, width) = delta.dim();
            for i in 0..n {
                for t in 0..positions {
                    let start = weight.range.start + ids[i * positions + t] as usize * width;
                    let mut row = all.slice_mut(s![i, start..start + width]);
                    row += &delta.slice(s![i, t, ..]);
                }
            }
        }
        Layer::Learned => {
            let values: Vec<T> = flatten([&delta].into_iter(), delta.elem_count())?;
            let n = delta.dims()[0];
            let rows = ArrayView2::from_shape((n, values.len() / n.max(1)), &values).expect("the sizes multiply");
            let mut part = all.slice_mut(s![.., weight.range.clone()]);
            part += &rows;
        }
        Layer::Linear { .. } | Layer::Conv2d { .. } => unreachable!("handled by its rows"),
    }
    Ok(())
}

/// For each sample Σₜ delta[t] inputs[t]ᵀ, within groups of inputs and outputs.
fn add_products<T: Real>(mut part: ArrayViewMut2<'_, T>, inputs: &Array3<T>, delta: &Array3<T>, groups: usize) {
    let (outputs, columns) = (delta.dim().2 / groups, inputs.dim().2 / groups);
    part.outer_iter_mut().into_par_iter().enumerate().for_each(|(i, row)| {
        let mut row = row.into_shape_with_order((groups, outputs, columns)).expect("a row of the matrix is contiguous");
        for group in 0..groups {
            let (of, from) = (group * outputs..(group + 1) * outputs, group * columns..(group + 1) * columns);
            let mut weight = row.index_axis_mut(Axis(0), group);
            let (delta, inputs) = (delta.slice(s![i, .., of]), inputs.slice(s![i, .., from]));
            if delta.nrows() == 1 {
                // An outer product: a matrix product would pack both vectors first.
                for (mut row, &d) in weight.outer_iter_mut().zip(delta.row(0)) {
                    row.scaled_add(d, &inputs.row(0));
                }
            } else {
                general_mat_mul(T::one(), &delta.t(), &inputs, T::one(), &mut weight);
            }
        }
    });
}

/// For each sample the sum over positions, added to the block's columns.
fn add_sums<T: Real>(all: &mut Array2<T>, block: Option<&Block>, values: &Array3<T>) {
    if let Some(block) = block {
        let mut part = all.slice_mut(s![.., block.range.clone()]);
        part += &values.sum_axis(Axis(1));
    }
}
