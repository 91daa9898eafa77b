//! Which tokens of a training sequence matter, asked of its outputs or of its inputs (Grosse et al. 2023, appendix B).
//!
//! The decomposition of a score over positions ([`super::Scores::tokens`]) follows the layers' inputs and gradients, where
//! attention has already mixed the tokens. These two move the parameters along a query's direction instead and look at
//! each token's own loss, or at the derivative by the scale of each token's embedding.

use super::{Examples, Model};
use crate::Real as _;
use candle_core::Tensor;
use ndarray::Array2;
use offprint_core::{Error, Result};
use offprint_nn::derivatives::IGNORED;
use offprint_nn::layers::watch::{Layer, watching};
use offprint_nn::{computation, ops};

/// How much each token of `sequences`, as something to predict, adds to the score of the query whose direction v is given
/// (tracked coordinates): α⁻¹ (ℓ_t(θ + α v) − ℓ_t(θ)) `(n, positions)`, which sums to the score over tokens as α → 0.
/// `step` is α relative to the parameters' length over the direction's; 10⁻⁴ in double precision, 10⁻² in single.
///
/// # Errors
/// Outputs that are not (n, positions, classes) with class numbers as targets; a direction of another length.
pub fn output_token_influence(
    model: &Model<'_>,
    direction: &[f64],
    sequences: &Examples,
    step: f64,
) -> Result<Array2<f64>> {
    difference(model, direction, step, || token_losses(model, sequences))
}

/// How much each token of `sequences`, as something to read, adds to the score: the change along v of the derivative of
/// the sequence's loss by the scale of the token's embedding, `(n, positions)`.
///
/// # Errors
/// As [`output_token_influence`]; a model without an embedding of its inputs.
pub fn input_token_influence(
    model: &Model<'_>,
    direction: &[f64],
    sequences: &Examples,
    step: f64,
) -> Result<Array2<f64>> {
    difference(model, direction, step, || embedding_slopes(model, sequences))
}

/// The derivative of `value` along `direction` by a difference forwards.
fn difference(
    model: &Model<'_>,
    direction: &[f64],
    step: f64,
    value: impl Fn() -> Result<Array2<f64>>,
) -> Result<Array2<f64>> {
    if direction.len() != model.tracked.dim() {
        let allowed = format!("one number for each of {} tracked coordinates", model.tracked.dim());
        return Err(Error::parameter("direction", direction.len(), allowed));
    }
    if !(step > 0.0 && step.is_finite()) {
        return Err(Error::parameter("step", step, "above 0"));
    }
    let params = model.loss.params();
    let here: Vec<f64> = params.flat()?;
    let length = crate::vector::norm(direction);
    if length == 0.0 {
        return Ok(value()? * 0.0);
    }
    let alpha = step * crate::vector::norm(&here).max(f64::MIN_POSITIVE) / length;
    let before = value()?;
    let there: Vec<f64> = here.iter().zip(model.tracked.embed(direction)).map(|(x, v)| x + alpha * v).collect();
    params.set_flat(&there)?;
    let after = value();
    params.set_flat(&here)?;
    Ok((after? - before) / alpha)
}

/// The loss of each token, 0 where it is ignored.
fn token_losses(model: &Model<'_>, sequences: &Examples) -> Result<Array2<f64>> {
    let outputs = model.loss.outputs(&sequences.batch)?.detach();
    let (n, positions, _) = outputs.dims3().map_err(computation)?;
    let read = || -> candle_core::Result<(Vec<f64>, Vec<u32>)> {
        let log = ops::log_softmax(&outputs)?.to_dtype(candle_core::DType::F64)?;
        let targets: Vec<u32> = sequences.batch.targets.flatten_all()?.to_vec1()?;
        let ids: Vec<u32> = targets.iter().map(|&id| if id == IGNORED { 0 } else { id }).collect();
        let ids = Tensor::from_vec(ids, (n, positions, 1), log.device())?;
        Ok((log.contiguous()?.gather(&ids, 2)?.flatten_all()?.to_vec1()?, targets))
    };
    let (log, targets) = read().map_err(computation)?;
    Ok(Array2::from_shape_fn((n, positions), |(i, t)| {
        let place = i * positions + t;
        if targets[place] == IGNORED { 0.0 } else { -log[place] }
    }))
}

/// ∂ℓᵢ/∂s_t at s = 1, where s_t scales the embedding of token t.
fn embedding_slopes(model: &Model<'_>, sequences: &Examples) -> Result<Array2<f64>> {
    let (outputs, seen) = watching(|| model.loss.outputs(&sequences.batch));
    let outputs = outputs?;
    let inputs = sequences.batch.inputs.flatten_all().and_then(|t| t.to_vec1::<u32>()).map_err(computation)?;
    // The table that is looked up by the tokens themselves, not by their places.
    let of_tokens = seen.iter().find(|seen| match &seen.layer {
        Layer::Embedding { ids, .. } => {
            ids.flatten_all().and_then(|ids| ids.to_vec1::<u32>()).is_ok_and(|ids| ids == inputs)
        }
        _ => false,
    });
    let Some(seen) = of_tokens else {
        return Err(Error::input("model", "has no embedding of its inputs"));
    };
    let table = model
        .loss
        .params()
        .get(&seen.weight)
        .ok_or_else(|| Error::input(seen.weight.clone(), "is no parameter of the model"))?;
    let slopes = || -> candle_core::Result<Vec<Vec<f64>>> {
        let losses = model.loss.loss().per_sample(&outputs, &sequences.batch.targets);
        let total = losses.map_err(candle_core::Error::wrap)?.sum_all()?;
        let gradients = total.backward()?;
        let gradient = gradients.get(&seen.probe).cloned().map_or_else(|| seen.probe.zeros_like(), Ok)?;
        let rows = ops::embedding(table.as_tensor(), &sequences.batch.inputs)?;
        (gradient * rows)?.sum(candle_core::D::Minus1)?.to_dtype(candle_core::DType::F64)?.to_vec2()
    };
    let rows = slopes().map_err(computation)?;
    let positions = rows.first().map_or(0, Vec::len);
    let flat: Vec<f64> = rows.into_iter().flatten().map(|x| x.to_f64()).collect();
    Ok(Array2::from_shape_vec((sequences.len(), positions), flat).expect("one number for every token"))
}
