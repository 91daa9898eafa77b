//! A U-Net for images and times (Ronneberger et al. 2015; Ho et al. 2020), small enough for a CPU.

use super::at_least_one;
use super::attention::{join_heads, split_heads};
use super::time::TimeEmbedding;
use crate::layers::{Conv2d, GroupNorm, Linear};
use crate::ops::{self, Mask};
use crate::params::Weights;
use candle_core::{Result, Tensor, bail};
use offprint_core::Error;
use serde::{Deserialize, Serialize};

/// The shape of a [`UNet`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UNetConfig {
    /// Channels of the images that go in.
    pub inputs: usize,
    /// Channels of what comes out.
    pub outputs: usize,
    /// Channels of each level; every level but the first halves height and width. All are multiples of `groups`.
    pub widths: Vec<usize>,
    /// Residual blocks a level on the way down; one more on the way up.
    pub blocks: usize,
    /// Groups of the norms.
    pub groups: usize,
    /// Whether all places see each other at the lowest level.
    pub attention: bool,
}

#[derive(Debug, Clone)]
struct Residual {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Linear,
    norm2: GroupNorm,
    conv2: Conv2d,
    /// A projection of the skip connection where the number of channels changes.
    conv_shortcut: Option<Conv2d>,
}

fn conv(inputs: usize, outputs: usize, size: usize, stride: usize, weights: &Weights) -> offprint_core::Result<Conv2d> {
    let geometry = ops::Conv2d { stride, ..ops::Conv2d::same(size) };
    Conv2d::new(inputs, outputs, size, geometry, true, weights)
}

impl Residual {
    fn new(
        inputs: usize,
        outputs: usize,
        time: usize,
        groups: usize,
        weights: &Weights,
    ) -> offprint_core::Result<Self> {
        let shortcut = || conv(inputs, outputs, 1, 1, &weights.at("conv_shortcut"));
        Ok(Self {
            norm1: GroupNorm::new(groups, inputs, &weights.at("norm1"))?,
            conv1: conv(inputs, outputs, 3, 1, &weights.at("conv1"))?,
            time_emb_proj: Linear::new(time, outputs, true, &weights.at("time_emb_proj"))?,
            norm2: GroupNorm::new(groups, outputs, &weights.at("norm2"))?,
            conv2: conv(outputs, outputs, 3, 1, &weights.at("conv2"))?,
            conv_shortcut: (inputs != outputs).then(shortcut).transpose()?,
        })
    }

    fn forward(&self, x: &Tensor, time: &Tensor) -> Result<Tensor> {
        let h = self.conv1.forward(&ops::silu(&self.norm1.forward(x)?)?)?;
        let shift = self.time_emb_proj.forward(time)?.unsqueeze(2)?.unsqueeze(3)?;
        let h = h.broadcast_add(&shift)?;
        let h = self.conv2.forward(&ops::silu(&self.norm2.forward(&h)?)?)?;
        match &self.conv_shortcut {
            Some(shortcut) => h + shortcut.forward(x)?,
            None => h + x,
        }
    }
}

#[derive(Debug, Clone)]
struct Attention {
    group_norm: GroupNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
}

impl Attention {
    fn new(width: usize, groups: usize, weights: &Weights) -> offprint_core::Result<Self> {
        let linear = |name: &str| Linear::new(width, width, true, &weights.at(name));
        Ok(Self {
            group_norm: GroupNorm::new(groups, width, &weights.at("group_norm"))?,
            to_q: linear("to_q")?,
            to_k: linear("to_k")?,
            to_v: linear("to_v")?,
            to_out: linear("to_out.0")?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let shape = x.dims4()?;
        let places = self.group_norm.forward(x)?.flatten_from(2)?.transpose(1, 2)?.contiguous()?;
        let head = |layer: &Linear| split_heads(&layer.forward(&places)?, 1);
        let seen = ops::attention(&head(&self.to_q)?, &head(&self.to_k)?, &head(&self.to_v)?, Mask::None)?;
        let y = self.to_out.forward(&join_heads(&seen)?)?.transpose(1, 2)?.contiguous()?;
        x + y.reshape(shape)?
    }
}

#[derive(Debug, Clone)]
struct Level {
    resnets: Vec<Residual>,
    /// Halves (on the way down) or smooths the doubled (on the way up) height and width.
    sampler: Option<Conv2d>,
}

/// A U-Net with the names of the diffusers library: `time_embedding`, `conv_in`, `down_blocks.0.resnets.0.norm1`, …,
/// `mid_block`, `up_blocks`, `conv_norm_out`, `conv_out`.
#[derive(Debug, Clone)]
pub struct UNet {
    time: TimeEmbedding,
    conv_in: Conv2d,
    down: Vec<Level>,
    middle: (Residual, Option<Attention>, Residual),
    up: Vec<Level>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl UNet {
    /// Builds the layers from `weights`.
    pub fn new(config: &UNetConfig, weights: &Weights) -> offprint_core::Result<Self> {
        let UNetConfig { inputs, outputs, ref widths, blocks, groups, attention } = *config;
        at_least_one(&[("inputs", inputs), ("outputs", outputs), ("blocks", blocks), ("groups", groups)])?;
        let (Some(&first), Some(&last)) = (widths.first(), widths.last()) else {
            return Err(Error::parameter("widths", "none", "at least one level"));
        };
        if let Some(width) = widths.iter().find(|w| **w == 0 || !w.is_multiple_of(groups) || **w % 2 == 1) {
            return Err(Error::parameter("widths", width, format!("even and a multiple of groups, {groups}")));
        }
        let embedded = 4 * first;
        let residual = |from, to, weights: &Weights| Residual::new(from, to, embedded, groups, weights);

        // What the way down keeps for the way up: the channels after conv_in, each block and each halving.
        let (mut kept, mut width, mut down) = (vec![first], first, Vec::new());
        for (i, &to) in widths.iter().enumerate() {
            let at = weights.at("down_blocks").at(i);
            let mut resnets = Vec::new();
            for j in 0..blocks {
                resnets.push(residual(width, to, &at.at("resnets").at(j))?);
                width = to;
                kept.push(width);
            }
            let halve = || conv(width, width, 3, 2, &at.at("downsamplers.0.conv"));
            let sampler = (i + 1 < widths.len()).then(halve).transpose()?;
            if sampler.is_some() {
                kept.push(width);
            }
            down.push(Level { resnets, sampler });
        }
        let at = weights.at("mid_block");
        let middle = (
            residual(last, last, &at.at("resnets.0"))?,
            attention.then(|| Attention::new(last, groups, &at.at("attentions.0"))).transpose()?,
            residual(last, last, &at.at("resnets.1"))?,
        );
        let mut up = Vec::new();
        for (i, &to) in widths.iter().rev().enumerate() {
            let at = weights.at("up_blocks").at(i);
            let mut resnets = Vec::new();
            for j in 0..=blocks {
                let skip = kept.pop().expect("as many are kept as are asked for");
                resnets.push(residual(width + skip, to, &at.at("resnets").at(j))?);
                width = to;
            }
            let smooth = || conv(width, width, 3, 1, &at.at("upsamplers.0.conv"));
            up.push(Level { resnets, sampler: (i + 1 < widths.len()).then(smooth).transpose()? });
        }
        Ok(Self {
            time: TimeEmbedding::new(first, embedded, &weights.at("time_embedding"))?,
            conv_in: conv(inputs, first, 3, 1, &weights.at("conv_in"))?,
            down,
            middle,
            up,
            norm_out: GroupNorm::new(groups, first, &weights.at("conv_norm_out"))?,
            conv_out: conv(first, outputs, 3, 1, &weights.at("conv_out"))?,
        })
    }

    /// Images `x` (n, inputs, height, width) at times `t` (n) to (n, outputs, height, width). Height and width are
    /// multiples of 2^(levels − 1).
    pub fn forward(&self, x: &Tensor, t: &Tensor) -> Result<Tensor> {
        let (_, _, height, width) = x.dims4()?;
        let multiple = 1 << (self.down.len() - 1);
        if height % multiple != 0 || width % multiple != 0 {
            bail!("images of {height} × {width}, but height and width must be multiples of {multiple}");
        }
        let time = ops::silu(&self.time.forward(t)?)?;
        let mut x = self.conv_in.forward(x)?;
        let mut kept = vec![x.clone()];
        for level in &self.down {
            for block in &level.resnets {
                x = block.forward(&x, &time)?;
                kept.push(x.clone());
            }
            if let Some(halve) = &level.sampler {
                x = halve.forward(&x)?;
                kept.push(x.clone());
            }
        }
        let (before, attention, after) = &self.middle;
        x = before.forward(&x, &time)?;
        if let Some(attention) = attention {
            x = attention.forward(&x)?;
        }
        x = after.forward(&x, &time)?;
        for level in &self.up {
            for block in &level.resnets {
                let skip = kept.pop().expect("as many are kept as are asked for");
                x = block.forward(&Tensor::cat(&[&x, &skip], 1)?, &time)?;
            }
            if let Some(smooth) = &level.sampler {
                x = smooth.forward(&ops::upsample(&x)?)?;
            }
        }
        self.conv_out.forward(&ops::silu(&self.norm_out.forward(&x)?)?)
    }
}
