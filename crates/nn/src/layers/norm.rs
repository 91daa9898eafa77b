//! Norm layers.
//!
//! Watched, a norm is split into the normalisation and the scaling by its parameters, because the gradient of a scale
//! needs the normalised input. The result is the same up to rounding.

use super::watch::{self, Layer};
use crate::ops::{self, Mode, RunningStatistics};
use crate::params::{Init, Weights};
use candle_core::{Result, Tensor};

/// `w x̂ + b` along `axis`, told to whoever watches.
fn scale(normalised: &Tensor, axis: usize, w: &Tensor, b: Option<&Tensor>, names: &(String, String)) -> Result<Tensor> {
    let mut shape = vec![1; normalised.rank()];
    shape[axis] = w.elem_count();
    let mut y = normalised.broadcast_mul(&w.reshape(shape.as_slice())?)?;
    if let Some(b) = b {
        y = y.broadcast_add(&b.reshape(shape.as_slice())?)?;
    }
    let bias = b.is_some().then_some(names.1.as_str());
    watch::tell(y, &names.0, bias, || Ok(Layer::Scale { normalised: normalised.detach(), axis }))
}

fn gain_and_bias(width: usize, weights: &Weights) -> offprint_core::Result<(Tensor, Tensor, (String, String))> {
    Ok((
        weights.param("weight", &[width], Init::Constant(1.0))?,
        weights.param("bias", &[width], Init::Constant(0.0))?,
        (weights.full("weight"), weights.full("bias")),
    ))
}

/// Layer norm over the last axis.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
    names: (String, String),
}

impl LayerNorm {
    /// Over `width` values.
    pub fn new(width: usize, eps: f64, weights: &Weights) -> offprint_core::Result<Self> {
        let (weight, bias, names) = gain_and_bias(width, weights)?;
        Ok(Self { weight, bias, eps, names })
    }

    /// `x` (…, width).
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if !watch::is_watched() {
            return ops::layer_norm(x, &self.weight, &self.bias, self.eps);
        }
        let (one, zero) = (self.weight.ones_like()?, self.bias.zeros_like()?);
        let normalised = ops::layer_norm(x, &one, &zero, self.eps)?;
        scale(&normalised, x.rank() - 1, &self.weight, Some(&self.bias), &self.names)
    }
}

/// Root-mean-square norm over the last axis.
#[derive(Debug, Clone)]
pub struct RmsNorm {
    weight: Tensor,
    eps: f64,
    names: (String, String),
}

impl RmsNorm {
    /// Over `width` values.
    pub fn new(width: usize, eps: f64, weights: &Weights) -> offprint_core::Result<Self> {
        let weight = weights.param("weight", &[width], Init::Constant(1.0))?;
        Ok(Self { weight, eps, names: (weights.full("weight"), String::new()) })
    }

    /// `x` (…, width).
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if !watch::is_watched() {
            return ops::rms_norm(x, &self.weight, self.eps);
        }
        let normalised = ops::rms_norm(x, &self.weight.ones_like()?, self.eps)?;
        scale(&normalised, x.rank() - 1, &self.weight, None, &self.names)
    }
}

/// Batch norm over the channels of (n, channels, …), with PyTorch's `running_mean` and `running_var`.
#[derive(Debug, Clone)]
pub struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    running: RunningStatistics,
    eps: f64,
    names: (String, String),
}

impl BatchNorm {
    /// Added to the variance.
    pub const EPS: f64 = 1e-5;

    /// Over `channels` channels, momentum 0.1 and eps 10⁻⁵ as PyTorch's defaults.
    pub fn new(channels: usize, weights: &Weights) -> offprint_core::Result<Self> {
        Self::with_eps(channels, Self::EPS, weights)
    }

    /// Over `channels` channels, with `eps` added to the variance.
    pub fn with_eps(channels: usize, eps: f64, weights: &Weights) -> offprint_core::Result<Self> {
        let (weight, bias, names) = gain_and_bias(channels, weights)?;
        let running = RunningStatistics {
            mean: weights.buffer("running_mean", &[channels], Init::Constant(0.0))?,
            var: weights.buffer("running_var", &[channels], Init::Constant(1.0))?,
            momentum: 0.1,
        };
        Ok(Self { weight, bias, running, eps, names })
    }

    /// `x` (n, channels, …).
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        if !watch::is_watched() {
            return ops::batch_norm(x, &self.weight, &self.bias, &self.running, self.eps, mode);
        }
        let (one, zero) = (self.weight.ones_like()?, self.bias.zeros_like()?);
        let normalised = ops::batch_norm(x, &one, &zero, &self.running, self.eps, mode)?;
        scale(&normalised, 1, &self.weight, Some(&self.bias), &self.names)
    }
}

/// Group norm over the channels of (n, channels, …).
#[derive(Debug, Clone)]
pub struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: usize,
    eps: f64,
    names: (String, String),
}

impl GroupNorm {
    /// `groups` groups of `channels` channels, eps 10⁻⁵.
    pub fn new(groups: usize, channels: usize, weights: &Weights) -> offprint_core::Result<Self> {
        let (weight, bias, names) = gain_and_bias(channels, weights)?;
        Ok(Self { weight, bias, groups, eps: 1e-5, names })
    }

    /// `x` (n, channels, …).
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if !watch::is_watched() {
            return ops::group_norm(x, &self.weight, &self.bias, self.groups, self.eps);
        }
        let (one, zero) = (self.weight.ones_like()?, self.bias.zeros_like()?);
        let normalised = ops::group_norm(x, &one, &zero, self.groups, self.eps)?;
        scale(&normalised, 1, &self.weight, Some(&self.bias), &self.names)
    }
}
