//! Every operation as a graph of candle's primitive operations: differentiable any number of times, on every device.
//!
//! Products of matrices alone are an operation of ours: one that is differentiable again, with kernels for wider vectors.
//!
//! Candle's own gradients of `gelu` and `relu` are avoided: the first uses constants of six digits, the second is 1 at 0.

use super::product::matmul;
use super::{Conv2d, Mask, Mode, Reduction, RunningStatistics};
use candle_core::{D, Result, Tensor};

pub fn linear(x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
    let (outputs, inputs) = w.dims2()?;
    let rows = x.elem_count() / inputs.max(1);
    let product = matmul(&x.reshape((rows, inputs))?, &w.t()?)?;
    let result = match b {
        Some(b) => product.broadcast_add(b)?,
        None => product,
    };
    let mut shape = x.dims().to_vec();
    shape.pop();
    shape.push(outputs);
    result.reshape(shape)
}

pub fn gelu(x: &Tensor) -> Result<Tensor> {
    let twice_phi = ((x * std::f64::consts::FRAC_1_SQRT_2)?.erf()? + 1.0)?;
    (x * 0.5)?.mul(&twice_phi)
}

pub fn gelu_tanh(x: &Tensor) -> Result<Tensor> {
    let cubic = ((x.sqr()? * 0.044715)? + 1.0)?.mul(x)?;
    let twice_phi = ((cubic * (2.0 / std::f64::consts::PI).sqrt())?.tanh()? + 1.0)?;
    (x * 0.5)?.mul(&twice_phi)
}

pub fn relu(x: &Tensor) -> Result<Tensor> {
    let zeros = x.zeros_like()?;
    x.gt(&zeros)?.where_cond(x, &zeros)
}

pub fn silu(x: &Tensor) -> Result<Tensor> {
    x.mul(&sigmoid(x)?)
}

/// Through tanh, whose gradient does not overflow.
pub fn sigmoid(x: &Tensor) -> Result<Tensor> {
    ((x * 0.5)?.tanh()? * 0.5)? + 0.5
}

pub fn softmax(x: &Tensor) -> Result<Tensor> {
    if x.elem_count() == 0 {
        // Candle has no maximum of nothing, even if there are no rows to take it of.
        return Ok(x.clone());
    }
    let e = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?.exp()?;
    e.broadcast_div(&e.sum_keepdim(D::Minus1)?)
}

pub fn log_softmax(x: &Tensor) -> Result<Tensor> {
    if x.elem_count() == 0 {
        return Ok(x.clone());
    }
    let shifted = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?;
    shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(D::Minus1)?.log()?)
}

/// `x` minus its mean over the last axis, divided by its standard deviation.
fn standardize(x: &Tensor, eps: f64) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    centred.broadcast_div(&(centred.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?)
}

pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    standardize(x, eps)?.broadcast_mul(weight)?.broadcast_add(bias)
}

pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    x.broadcast_div(&(x.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?)?.broadcast_mul(weight)
}

/// A vector of channels, shaped to broadcast over `x` (n, channels, …).
fn per_channel(vector: &Tensor, x: &Tensor) -> Result<Tensor> {
    let mut shape = vec![1; x.rank()];
    shape[1] = vector.elem_count();
    vector.reshape(shape)
}

pub fn batch_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    running: &RunningStatistics,
    eps: f64,
    mode: Mode,
) -> Result<Tensor> {
    let (mean, var) = match mode {
        Mode::Evaluation => (running.mean.as_detached_tensor(), running.var.as_detached_tensor()),
        Mode::Training => {
            // (channels, n · …)
            let rows = x.transpose(0, 1)?.flatten_from(1)?;
            let mean = rows.mean(1)?;
            let var = rows.broadcast_sub(&mean.unsqueeze(1)?)?.sqr()?.mean(1)?;
            let count = (x.elem_count() / mean.elem_count()) as f64;
            running.update(&mean.detach(), &(var.detach() * (count / (count - 1.0)))?)?;
            (mean, var)
        }
    };
    let scale = (var + eps)?.sqrt()?.recip()?;
    x.broadcast_sub(&per_channel(&mean, x)?)?
        .broadcast_mul(&per_channel(&scale, x)?)?
        .broadcast_mul(&per_channel(weight, x)?)?
        .broadcast_add(&per_channel(bias, x)?)
}

pub fn group_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, groups: usize, eps: f64) -> Result<Tensor> {
    let n = x.dim(0)?;
    let group = x.elem_count() / (n * groups).max(1);
    standardize(&x.reshape((n, groups, group))?, eps)?
        .reshape(x.shape())?
        .broadcast_mul(&per_channel(weight, x)?)?
        .broadcast_add(&per_channel(bias, x)?)
}

pub fn cross_entropy(logits: &Tensor, targets: &Tensor, label_smoothing: f64, reduction: Reduction) -> Result<Tensor> {
    let log_p = log_softmax(logits)?;
    let of_target = log_p.gather(&targets.unsqueeze(1)?.contiguous()?, 1)?.squeeze(1)?;
    let losses = if label_smoothing == 0.0 {
        of_target.neg()?
    } else {
        ((of_target * (label_smoothing - 1.0))? - (log_p.mean(1)? * label_smoothing)?)?
    };
    match reduction {
        Reduction::Mean => losses.mean_all(),
        Reduction::Sum => losses.sum_all(),
        Reduction::None => Ok(losses),
    }
}

pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, mask: Mask<'_>) -> Result<Tensor> {
    let (_, _, queries, d) = q.dims4()?;
    let keys = k.dim(2)?;
    let scores = (q.contiguous()?.matmul(&k.t()?.contiguous()?)? * (1.0 / (d as f64).sqrt()))?;
    let scores = match mask {
        Mask::None => scores,
        Mask::Causal => scores.broadcast_add(&causal(queries, keys, q)?)?,
        Mask::Additive(m) => scores.broadcast_add(m)?,
    };
    softmax(&scores)?.matmul(&v.contiguous()?)
}

/// (1, 1, queries, keys): 0 where a query sees a key, −∞ elsewhere.
fn causal(queries: usize, keys: usize, like: &Tensor) -> Result<Tensor> {
    let entry = |i: usize, j: usize| if j + queries <= i + keys { 0.0f32 } else { f32::NEG_INFINITY };
    let entries: Vec<f32> = (0..queries * keys).map(|at| entry(at / keys, at % keys)).collect();
    Tensor::from_vec(entries, (1, 1, queries, keys), like.device())?.to_dtype(like.dtype())
}

/// Through patches: the gradient of candle's own convolution fails for some strides with dilation.
pub fn conv2d(x: &Tensor, w: &Tensor, b: Option<&Tensor>, conv: &Conv2d) -> Result<Tensor> {
    let Conv2d { stride, padding, dilation, groups } = *conv;
    let (n, _, height, width) = x.dims4()?;
    let (outputs, inputs, kh, kw) = w.dims4()?;
    let (Some(out_height), Some(out_width)) = (conv.output(height, kh), conv.output(width, kw)) else {
        candle_core::bail!("conv2d: a kernel of {kh} × {kw} does not fit into {height} × {width}");
    };
    let padded = x.pad_with_zeros(2, padding, padding)?.pad_with_zeros(3, padding, padding)?;
    let padded_width = width + 2 * padding;
    // For each tap and then each output, where in a padded plane it looks.
    let mut places = Vec::with_capacity(kh * kw * out_height * out_width);
    for (ky, kx) in (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx))) {
        for (y, x) in (0..out_height).flat_map(|y| (0..out_width).map(move |x| (y, x))) {
            places.push(((y * stride + ky * dilation) * padded_width + x * stride + kx * dilation) as u32);
        }
    }
    let places = Tensor::new(places, x.device())?;
    let patches = padded.flatten_from(2)?.contiguous()?.index_select(&places, 2)?;
    let patches = patches.reshape((n, groups, inputs * kh * kw, out_height * out_width))?;
    let w = w.reshape((1, groups, outputs / groups, inputs * kh * kw))?;
    let y = w.broadcast_matmul(&patches)?.reshape((n, outputs, out_height, out_width))?;
    match b {
        Some(b) => y.broadcast_add(&per_channel(b, &y)?),
        None => Ok(y),
    }
}

pub fn embedding(table: &Tensor, ids: &Tensor) -> Result<Tensor> {
    let mut shape = ids.dims().to_vec();
    shape.push(table.dim(1)?);
    table.contiguous()?.index_select(&ids.flatten_all()?, 0)?.reshape(shape)
}

impl RunningStatistics {
    /// Mixes in the mean and the unbiased variance of a batch (channels).
    pub(super) fn update(&self, mean: &Tensor, var: &Tensor) -> Result<()> {
        let mix = |running: &Tensor, batch: &Tensor| (running * (1.0 - self.momentum))? + (batch * self.momentum)?;
        self.mean.set(&mix(&self.mean.as_detached_tensor(), mean)?)?;
        self.var.set(&mix(&self.var.as_detached_tensor(), var)?)
    }
}
