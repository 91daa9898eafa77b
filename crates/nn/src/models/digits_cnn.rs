//! A small convolutional network for 8 × 8 images.

use super::at_least_one;
use crate::layers::{BatchNorm, Conv2d, Linear, Relu};
use crate::ops::{self, Mode};
use crate::params::Weights;
use candle_core::Tensor;
use offprint_core::Result;

/// Four 3 × 3 convolutions with batch norm and ReLU, 16, 32, 32 and 64 channels, the second and the last with stride 2,
/// the third with a skip connection; the mean over places; a linear classifier. 33 k parameters.
#[derive(Debug, Clone)]
pub struct DigitsCnn {
    blocks: [(Conv2d, BatchNorm, Relu); 4],
    fc: Linear,
}

impl DigitsCnn {
    /// For `classes` classes of images with one channel. Names: `conv1`, `bn1`, `relu1`, …, `conv4`,
    /// `bn4`, `relu4`, `fc`.
    pub fn new(classes: usize, weights: &Weights) -> Result<Self> {
        at_least_one(&[("classes", classes)])?;
        let block = |i: usize, inputs: usize, outputs: usize, stride: usize| -> Result<(Conv2d, BatchNorm, Relu)> {
            let conv = ops::Conv2d { stride, ..ops::Conv2d::same(3) };
            Ok((
                Conv2d::new(inputs, outputs, 3, conv, false, &weights.at(format!("conv{i}")))?,
                BatchNorm::new(outputs, &weights.at(format!("bn{i}")))?,
                Relu::new(&weights.at(format!("relu{i}"))),
            ))
        };
        Ok(Self {
            blocks: [block(1, 1, 16, 1)?, block(2, 16, 32, 2)?, block(3, 32, 32, 1)?, block(4, 32, 64, 2)?],
            fc: Linear::new(64, classes, true, &weights.at("fc"))?,
        })
    }

    /// Images (n, 1, height, width) to logits (n, classes).
    pub fn forward(&self, x: &Tensor, mode: Mode) -> candle_core::Result<Tensor> {
        let mut x = x.clone();
        for (i, (conv, norm, relu)) in self.blocks.iter().enumerate() {
            let y = norm.forward(&conv.forward(&x)?, mode)?;
            x = relu.forward(&if i == 2 { (y + &x)? } else { y })?;
        }
        self.fc.forward(&x.flatten_from(2)?.mean(2)?)
    }
}
