//! Residual networks for small images (He et al. 2016, §4.2).

use super::at_least_one;
use crate::layers::{BatchNorm, Conv2d, Linear, Relu};
use crate::ops::{self, Mode};
use crate::params::Weights;
use candle_core::Tensor;
use offprint_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// The shape of a [`ResNet`]: 6n + 2 layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResNetConfig {
    /// Channels of the images.
    pub channels: usize,
    /// Channels of each stage; all but the first halve height and width.
    pub widths: Vec<usize>,
    /// Residual blocks a stage: n.
    pub blocks: usize,
    /// Classes.
    pub classes: usize,
}

impl ResNetConfig {
    /// ResNet-20 for CIFAR-10: three stages of three blocks with 16, 32 and 64 channels.
    pub fn resnet20() -> Self {
        Self { channels: 3, widths: vec![16, 32, 64], blocks: 3, classes: 10 }
    }
}

#[derive(Debug, Clone)]
struct Block {
    conv1: Conv2d,
    bn1: BatchNorm,
    relu1: Relu,
    conv2: Conv2d,
    bn2: BatchNorm,
    relu2: Relu,
    /// A projection of the skip connection where the shape changes.
    downsample: Option<(Conv2d, BatchNorm)>,
}

impl Block {
    fn new(inputs: usize, inner: usize, outputs: usize, stride: usize, weights: &Weights) -> Result<Self> {
        let strided = ops::Conv2d { stride, ..ops::Conv2d::same(3) };
        let projection = || -> Result<(Conv2d, BatchNorm)> {
            let conv = ops::Conv2d { stride, ..ops::Conv2d::default() };
            let at = weights.at("downsample");
            Ok((Conv2d::new(inputs, outputs, 1, conv, false, &at.at(0))?, BatchNorm::new(outputs, &at.at(1))?))
        };
        Ok(Self {
            conv1: Conv2d::new(inputs, inner, 3, strided, false, &weights.at("conv1"))?,
            bn1: BatchNorm::new(inner, &weights.at("bn1"))?,
            relu1: Relu::new(&weights.at("relu1")),
            conv2: Conv2d::new(inner, outputs, 3, ops::Conv2d::same(3), false, &weights.at("conv2"))?,
            bn2: BatchNorm::new(outputs, &weights.at("bn2"))?,
            relu2: Relu::new(&weights.at("relu2")),
            downsample: (stride != 1 || inputs != outputs).then(projection).transpose()?,
        })
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> candle_core::Result<Tensor> {
        let y = self.relu1.forward(&self.bn1.forward(&self.conv1.forward(x)?, mode)?)?;
        let y = self.bn2.forward(&self.conv2.forward(&y)?, mode)?;
        let skip = match &self.downsample {
            Some((conv, norm)) => norm.forward(&conv.forward(x)?, mode)?,
            None => x.clone(),
        };
        self.relu2.forward(&(y + skip)?)
    }
}

/// A residual network with torchvision's names: `conv1`, `bn1`, `layer1.0.conv1`, …, `layer2.0.downsample.0`, `fc`.
#[derive(Debug, Clone)]
pub struct ResNet {
    conv1: Conv2d,
    bn1: BatchNorm,
    relu: Relu,
    blocks: Vec<Block>,
    fc: Linear,
}

impl ResNet {
    /// Builds the layers from `weights`.
    pub fn new(config: &ResNetConfig, weights: &Weights) -> Result<Self> {
        let inner: Vec<usize> = config.widths.iter().flat_map(|&width| vec![width; config.blocks]).collect();
        Self::slim(config, &inner, weights)
    }

    /// With the given numbers of channels between the two convolutions of each block.
    pub fn slim(config: &ResNetConfig, inner: &[usize], weights: &Weights) -> Result<Self> {
        let first = config.widths.first().copied().unwrap_or(0);
        let narrowest = config.widths.iter().copied().min().unwrap_or(0);
        at_least_one(&[
            ("channels", config.channels),
            ("widths", narrowest),
            ("blocks", config.blocks),
            ("classes", config.classes),
            ("inner", inner.iter().copied().min().unwrap_or(1)),
        ])?;
        if inner.len() != config.widths.len() * config.blocks {
            let allowed = format!("one for each of {} × {} blocks", config.widths.len(), config.blocks);
            return Err(Error::parameter("inner", format!("{} widths", inner.len()), allowed));
        }
        let conv1 = Conv2d::new(config.channels, first, 3, ops::Conv2d::same(3), false, &weights.at("conv1"))?;
        let bn1 = BatchNorm::new(first, &weights.at("bn1"))?;
        let (mut blocks, mut inputs) = (Vec::new(), first);
        for (stage, &width) in config.widths.iter().enumerate() {
            for i in 0..config.blocks {
                let stride = if stage > 0 && i == 0 { 2 } else { 1 };
                let at = weights.at(format!("layer{}", stage + 1)).at(i);
                blocks.push(Block::new(inputs, inner[blocks.len()], width, stride, &at)?);
                inputs = width;
            }
        }
        let relu = Relu::new(&weights.at("relu"));
        Ok(Self { conv1, bn1, relu, blocks, fc: Linear::new(inputs, config.classes, true, &weights.at("fc"))? })
    }

    /// Images (n, channels, height, width) to logits (n, classes).
    pub fn forward(&self, x: &Tensor, mode: Mode) -> candle_core::Result<Tensor> {
        let mut x = self.relu.forward(&self.bn1.forward(&self.conv1.forward(x)?, mode)?)?;
        for block in &self.blocks {
            x = block.forward(&x, mode)?;
        }
        self.fc.forward(&x.flatten_from(2)?.mean(2)?)
    }
}
