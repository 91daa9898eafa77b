//! A small convolutional network for 8 × 8 images.

use super::at_least_one;
use crate::layers::{BatchNorm, Conv2d, Linear, Relu};
use crate::ops::{self, Mode};
use crate::params::Weights;
use candle_core::Tensor;
use offprint_core::{Error, Result};

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
        Self::slim(classes, Self::WIDTHS, weights)
    }

    /// Channels of the four convolutions.
    pub const WIDTHS: [usize; 4] = [16, 32, 32, 64];

    /// With other numbers of channels; the second and the third must be equal, for the skip between them.
    pub fn slim(classes: usize, widths: [usize; 4], weights: &Weights) -> Result<Self> {
        at_least_one(&[("classes", classes), ("widths", widths[0].min(widths[1]).min(widths[3]))])?;
        if widths[1] != widths[2] {
            return Err(Error::parameter(
                "widths",
                format!("{widths:?}"),
                "the same for the second and the third layer",
            ));
        }
        let [first, second, third, fourth] = widths;
        let block = |i: usize, inputs: usize, outputs: usize, stride: usize| -> Result<(Conv2d, BatchNorm, Relu)> {
            let conv = ops::Conv2d { stride, ..ops::Conv2d::same(3) };
            Ok((
                Conv2d::new(inputs, outputs, 3, conv, false, &weights.at(format!("conv{i}")))?,
                BatchNorm::new(outputs, &weights.at(format!("bn{i}")))?,
                Relu::new(&weights.at(format!("relu{i}"))),
            ))
        };
        Ok(Self {
            blocks: [
                block(1, 1, first, 1)?,
                block(2, first, second, 2)?,
                block(3, second, third, 1)?,
                block(4, third, fourth, 2)?,
            ],
            fc: Linear::new(fourth, classes, true, &weights.at("fc"))?,
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
