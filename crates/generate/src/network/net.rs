//! The networks that may stand behind a denoiser, behind one interface: rows of numbers in, points out.

use super::clock::Clock;
use super::layers::{NetConfig, TimedMlp};
#[cfg(feature = "onnx")]
use super::onnx::OnnxNet;
use super::unet::{PictureConfig, PictureNet};
use candle_core::Tensor;
use offprint_core::{Picture, Result};
use offprint_nn::{Weights, computation};
use serde::{Deserialize, Serialize};

/// The shape of a network that can be trained here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Shape {
    /// A U-Net for pictures, without classes.
    UNet(PictureConfig),
    /// A perceptron.
    Perceptron(NetConfig),
}

impl Shape {
    /// Components of a point.
    pub fn dim(&self) -> usize {
        match self {
            Self::UNet(config) => config.picture.len(),
            Self::Perceptron(config) => config.dim,
        }
    }

    /// How a fresh network of this shape is told the noise level.
    pub(super) fn clock(&self) -> Clock {
        match self {
            Self::UNet(_) => Clock::LogSigmaSteps,
            Self::Perceptron(_) => Clock::QuarterLogSigma,
        }
    }
}

impl From<NetConfig> for Shape {
    fn from(config: NetConfig) -> Self {
        Self::Perceptron(config)
    }
}

impl From<PictureConfig> for Shape {
    fn from(config: PictureConfig) -> Self {
        Self::UNet(config)
    }
}

/// A network that turns rows \[point, side\] into points; the side tells level and class.
#[derive(Debug, Clone)]
pub(super) enum Net {
    Perceptron(TimedMlp),
    Pictures(Box<PictureNet>),
    #[cfg(feature = "onnx")]
    Onnx(OnnxNet),
}

impl Net {
    pub fn new(shape: &Shape, weights: &Weights) -> Result<Self> {
        Ok(match shape {
            Shape::UNet(config) => Self::Pictures(Box::new(PictureNet::new(config, weights)?)),
            Shape::Perceptron(config) => Self::Perceptron(TimedMlp::new(config, weights)?),
        })
    }

    /// The shape, unless the network came from elsewhere.
    pub fn shape(&self) -> Option<Shape> {
        match self {
            Self::Perceptron(mlp) => Some(mlp.config().clone().into()),
            Self::Pictures(unet) => Some(unet.config().clone().into()),
            #[cfg(feature = "onnx")]
            Self::Onnx(_) => None,
        }
    }

    /// Components of a point.
    pub fn dim(&self) -> usize {
        match self {
            Self::Perceptron(mlp) => mlp.config().dim,
            Self::Pictures(unet) => unet.config().picture.len(),
            #[cfg(feature = "onnx")]
            Self::Onnx(onnx) => onnx.dim(),
        }
    }

    /// Classes; 0 without any.
    pub fn classes(&self) -> usize {
        match self {
            Self::Perceptron(mlp) => mlp.config().classes,
            Self::Pictures(_) => 0,
            #[cfg(feature = "onnx")]
            Self::Onnx(onnx) => onnx.classes(),
        }
    }

    /// The picture that a point is, if it is known to be one.
    pub fn picture(&self) -> Option<Picture> {
        match self {
            Self::Perceptron(_) => None,
            Self::Pictures(unet) => Some(unet.config().picture),
            #[cfg(feature = "onnx")]
            Self::Onnx(onnx) => onnx.picture(),
        }
    }

    /// Numbers beside the point.
    pub fn side(&self) -> usize {
        match self {
            Self::Perceptron(mlp) => mlp.side(),
            Self::Pictures(_) => 1,
            #[cfg(feature = "onnx")]
            Self::Onnx(_) => OnnxNet::SIDE,
        }
    }

    /// Writes what stands beside a point: the clock's `code`, and the class or none.
    pub fn fill_side(&self, code: f64, label: Option<usize>, side: &mut [f32]) {
        match self {
            Self::Perceptron(mlp) => mlp.fill_side(code, label, side),
            Self::Pictures(_) => side[0] = code as f32,
            #[cfg(feature = "onnx")]
            Self::Onnx(_) => OnnxNet::fill_side(code, label, side),
        }
    }

    /// Inputs (n, dim + side) to outputs (n, dim).
    pub fn forward(&self, inputs: &Tensor) -> Result<Tensor> {
        match self {
            Self::Perceptron(mlp) => mlp.forward(inputs).map_err(computation),
            Self::Pictures(unet) => unet.forward(inputs).map_err(computation),
            #[cfg(feature = "onnx")]
            Self::Onnx(onnx) => onnx.forward(inputs),
        }
    }

    /// The outputs' change (n, dim) when the points of `inputs` move by `tangent` (n, dim), where forward mode is there.
    pub fn forward_tangent(&self, inputs: &Tensor, tangent: &Tensor) -> Result<Option<Tensor>> {
        match self {
            Self::Perceptron(mlp) => mlp.forward_tangent(inputs, tangent).map(Some).map_err(computation),
            _ => Ok(None),
        }
    }
}
