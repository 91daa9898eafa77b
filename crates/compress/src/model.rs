//! Networks to be compressed: folding their batch norms, and how good they are.

use crate::layer::matrix;
use candle_core::{DType, Device, Tensor};
use ndarray::{Array1, Array2, Axis};
use offprint_core::{Error, Result};
use offprint_nn::layers::BatchNorm;
use offprint_nn::layers::substitute::{Substitute, substituting};
use offprint_nn::ops::{Reduction, cross_entropy};
use offprint_nn::train::Crops;
use offprint_nn::{Batch, Network, computation};
use std::rc::Rc;

/// A batch norm's γ, β and running statistics (channels), by the convolution that goes into it.
#[derive(Debug, Clone)]
pub struct Norm {
    /// Name of the convolution.
    pub layer: String,
    /// γ
    pub gain: Array1<f32>,
    /// β
    pub shift: Array1<f32>,
    /// Running mean μ.
    pub mean: Array1<f32>,
    /// Running variance v.
    pub variance: Array1<f32>,
}

/// A copy of `network` whose convolutions contain the batch norms that follow them: w ← w γ/√(v+ε). The norms stay where
/// they are, as the sum with the bias (b − μ) γ/√(v+ε) + β that belongs to the convolution, so that the architecture and
/// its files stay the same. Also what the norms were.
///
/// # Errors
/// None but those of the tensor library.
pub fn fold_batch_norms(network: &Network) -> Result<(Network, Vec<Norm>)> {
    let (folded, mut norms) = (network.copy()?, Vec::new());
    let params = folded.params();
    let vector = |name: &str| -> Result<Array1<f32>> {
        let var = params.get(name).ok_or_else(|| Error::input("model", format!("has no tensor \"{name}\"")))?;
        Ok(matrix(var)?.column(0).to_owned())
    };
    let set = |name: &str, values: Array2<f32>| -> Result<()> {
        let var = params.get(name).expect("just read");
        let tensor = crate::layer::tensor(values.view(), var.dims())?.to_dtype(params.dtype());
        tensor.and_then(|t| var.set(&t)).map_err(computation)
    };
    for place in folded.layers()? {
        let Some(norm) = &place.batch_norm else { continue };
        let part = |ending: &str| vector(&format!("{norm}.{ending}"));
        let was = Norm {
            layer: place.name.clone(),
            gain: part("weight")?,
            shift: part("bias")?,
            mean: part("running_mean")?,
            variance: part("running_var")?,
        };
        let eps = BatchNorm::EPS;
        let factor = Array1::from_shape_fn(was.gain.len(), |c| {
            f64::from(was.gain[c]) / (f64::from(was.variance[c]) + eps).sqrt()
        });
        let mut weight = matrix(params.get(&place.weight).expect("a layer's weight"))?;
        for (mut row, &factor) in weight.axis_iter_mut(Axis(0)).zip(&factor) {
            row.mapv_inplace(|w| (f64::from(w) * factor) as f32);
        }
        set(&place.weight, weight)?;
        let own = place.bias.as_deref().map(&vector).transpose()?;
        let bias = Array2::from_shape_fn((factor.len(), 1), |(c, _)| {
            let own = own.as_ref().map_or(0.0, |bias| f64::from(bias[c]));
            ((own - f64::from(was.mean[c])) * factor[c] + f64::from(was.shift[c])) as f32
        });
        if let Some(name) = &place.bias {
            set(name, Array2::zeros(bias.dim()))?;
        }
        // With variance 1 − ε the norm divides by 1.
        let constant = |value: f64| Array2::from_elem(bias.dim(), value as f32);
        for (ending, values) in [
            ("weight", constant(1.0)),
            ("running_mean", constant(0.0)),
            ("running_var", constant(1.0 - eps)),
            ("bias", bias.clone()),
        ] {
            set(&format!("{norm}.{ending}"), values)?;
        }
        norms.push(was);
    }
    Ok((folded, norms))
}

/// How good a network is on labelled samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quality {
    /// Mean cross-entropy of a target, in nats.
    pub loss: f64,
    /// Share of targets that have the largest logit.
    pub accuracy: f64,
}

impl Quality {
    /// e to the loss: for tokens the perplexity.
    pub fn perplexity(&self) -> f64 {
        self.loss.exp()
    }
}

/// Samples of one forward pass in evaluations.
pub const PART: usize = 256;

/// How good `network` is on `samples`, with the operands that `within` gives: classes (n), or the next token at each
/// position (n, positions), each counted once.
///
/// # Errors
/// No sample; outputs that are no logits for the targets, or not finite.
pub fn evaluate(network: &Network, samples: &Batch, within: Option<Rc<dyn Substitute>>) -> Result<Quality> {
    quality(samples, |x| substituting(within.clone(), || network.forward(x)))
}

/// [`evaluate`] of whatever computes logits by `forward`.
///
/// # Errors
/// As there.
pub fn quality(samples: &Batch, forward: impl Fn(&Tensor) -> candle_core::Result<Tensor>) -> Result<Quality> {
    if samples.is_empty() {
        return Err(Error::input("data", "holds no sample"));
    }
    let (mut loss, mut right, mut count) = (0.0, 0.0, 0);
    for part in samples.chunks(PART) {
        let part = part.map_err(computation)?;
        let logits = forward(&part.inputs).map_err(computation)?;
        let sums = || -> candle_core::Result<(f64, f64, usize)> {
            let logits = logits.reshape(((), logits.dim(candle_core::D::Minus1)?))?;
            let targets = part.targets.flatten_all()?;
            let sum =
                cross_entropy(&logits, &targets, 0.0, Reduction::Sum)?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
            let same = logits.argmax(1)?.eq(&targets)?.to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()?;
            Ok((sum, same, targets.elem_count()))
        };
        let (sum, same, targets) = sums().map_err(computation)?;
        loss += sum;
        right += same;
        count += targets;
    }
    if !loss.is_finite() {
        return Err(Error::Numerical("the network gives outputs that are not finite".into()));
    }
    Ok(Quality { loss: loss / count as f64, accuracy: right / count as f64 })
}

/// Outputs of `network` for `inputs` in parts, with the operands that `within` gives, without gradients.
///
/// # Errors
/// Inputs that the network cannot read.
pub fn outputs(network: &Network, inputs: &Tensor, within: Option<Rc<dyn Substitute>>) -> Result<Tensor> {
    let n = inputs.dims().first().copied().unwrap_or(0);
    let parts = (0..n).step_by(PART).map(|start| {
        let part = inputs.narrow(0, start, PART.min(n - start))?;
        Ok(substituting(within.clone(), || network.forward(&part))?.detach())
    });
    Tensor::cat(&parts.collect::<candle_core::Result<Vec<_>>>().map_err(computation)?, 0).map_err(computation)
}

/// Tokens cut into windows of `context` one after the other, each with the tokens that follow: for perplexity. A rest that
/// is shorter is left out.
///
/// # Errors
/// Fewer tokens than one window and its last target.
pub fn windows(tokens: &[u32], context: usize) -> Result<Batch> {
    // The stream is not drawn from: all windows are taken in order.
    let stream = offprint_core::random::Streams::new(0).stream("windows");
    Crops::new(tokens.to_vec(), context, 1, stream)?.all()
}

/// The samples with these numbers.
///
/// # Errors
/// A number beyond the samples.
pub fn pick(samples: &Batch, numbers: &[u32]) -> Result<Batch> {
    Tensor::new(numbers, &Device::Cpu).and_then(|numbers| samples.select(&numbers)).map_err(computation)
}
