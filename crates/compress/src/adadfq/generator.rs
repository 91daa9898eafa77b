//! The generator G(z, y): images of given classes out of noise.

use candle_core::{Device, Result, Tensor};
use offprint_core::random::Stream;
use offprint_nn::layers::{BatchNorm, Conv2d, Embedding, Linear};
use offprint_nn::ops::{self, Mode, RunningStatistics};
use offprint_nn::params::Init;
use offprint_nn::{Params, Weights, computation};
use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How an image learns of its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Conditioning {
    /// The noise is multiplied by a vector of the class (the generator for CIFAR)
    Product,
    /// Batch norms scale and shift by class (the generator for ImageNet)
    Norm,
}

/// What images look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageShape {
    /// Classes that can be asked for.
    pub classes: usize,
    /// Channels.
    pub channels: usize,
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
}

/// Length of the noise z.
const LATENT: usize = 100;
/// Channels of the first map.
const WIDTH: usize = 128;
/// What the batch norms between convolutions add to the variance: the published generators pass this 0.8 where its
/// authors may have meant a momentum.
const EPS: f64 = 0.8;

/// Noise → linear → map of a quarter of the side → twice (doubled, convolved, normalised, leaky) → convolution → tanh →
/// standardised channels. All norms take the batch's statistics, always.
#[derive(Debug, Clone)]
pub struct Generator {
    shape: ImageShape,
    /// Of the classes, if the noise is multiplied by them.
    embedding: Option<Embedding>,
    linear: Linear,
    convolutions: [Conv2d; 3],
    norms: [Norm; 3],
    last: Standardise,
    params: Params,
}

impl Generator {
    /// Fresh weights, drawn from the streams of `seed` as PyTorch draws them, in single precision.
    ///
    /// # Errors
    /// A shape with a size of 0.
    pub fn fresh(shape: ImageShape, conditioning: Conditioning, seed: u64) -> offprint_core::Result<Self> {
        let sizes = [
            ("classes", shape.classes),
            ("channels", shape.channels),
            ("height", shape.height),
            ("width", shape.width),
        ];
        if let Some((name, size)) = sizes.into_iter().find(|(_, size)| *size == 0) {
            return Err(offprint_core::Error::parameter(name, size, "at least 1"));
        }
        let weights = Weights::fresh(seed, candle_core::DType::F32)?;
        let table = || Embedding::new(shape.classes, LATENT, Init::Normal { std: 1.0 }, &weights.at("label_emb"));
        let (height, width) = first_map(shape);
        let convolution = |name: &str, inputs, outputs| {
            Conv2d::new(inputs, outputs, 3, ops::Conv2d::same(3), true, &weights.at(name))
        };
        let norm = |name: &str, channels, eps| Norm::new(conditioning, shape.classes, channels, eps, &weights.at(name));
        Ok(Self {
            shape,
            embedding: (conditioning == Conditioning::Product).then(table).transpose()?,
            linear: Linear::new(LATENT, WIDTH * height * width, true, &weights.at("l1"))?,
            convolutions: [
                convolution("conv1", WIDTH, WIDTH)?,
                convolution("conv2", WIDTH, WIDTH / 2)?,
                convolution("conv3", WIDTH / 2, shape.channels)?,
            ],
            norms: [norm("norm0", WIDTH, BatchNorm::EPS)?, norm("norm1", WIDTH, EPS)?, norm("norm2", WIDTH / 2, EPS)?],
            last: Standardise::new(shape.channels, BatchNorm::EPS).map_err(computation)?,
            params: weights.finish(&[])?,
        })
    }

    /// What its images look like.
    pub fn shape(&self) -> ImageShape {
        self.shape
    }

    /// Its parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Images (n, channels, height, width) of the classes `labels` (n) from the noise `z` (n, 100), each channel with mean
    /// 0 and variance 1 over the batch.
    pub fn forward(&self, z: &Tensor, labels: &Tensor) -> Result<Tensor> {
        let z = match &self.embedding {
            Some(embedding) => (z * embedding.forward(labels)?)?,
            None => z.clone(),
        };
        let (height, width) = first_map(self.shape);
        let x = self.linear.forward(&z)?.reshape(((), WIDTH, height, width))?;
        let mut x = self.norms[0].forward(&x, labels)?;
        for (convolution, norm) in self.convolutions.iter().zip(&self.norms[1..]) {
            x = leaky(&norm.forward(&convolution.forward(&ops::upsample(&x)?)?, labels)?)?;
        }
        let x = ops::tanh(&self.convolutions[2].forward(&x)?)?;
        // Four times the first map may be larger than the image.
        let x = x.narrow(2, 0, self.shape.height)?.narrow(3, 0, self.shape.width)?.contiguous()?;
        self.last.forward(&x)
    }

    /// Noise (n, 100) and classes (n), uniform, from generator `index` of `stream`.
    ///
    /// # Errors
    /// None but those of the tensor library.
    pub fn draw(&self, n: usize, stream: Stream, index: u64) -> offprint_core::Result<(Tensor, Tensor)> {
        let mut rng = stream.rng(index);
        let z: Vec<f32> = (0..n * LATENT).map(|_| StandardNormal.sample(&mut rng)).collect();
        let labels: Vec<u32> = (0..n).map(|_| rng.random_range(0..self.shape.classes as u32)).collect();
        let tensors =
            || Ok((Tensor::from_vec(z, (n, LATENT), &Device::Cpu)?, Tensor::from_vec(labels, n, &Device::Cpu)?));
        tensors().map_err(computation)
    }
}

/// Height and width of the first map: a quarter of the image's, rounded up.
fn first_map(shape: ImageShape) -> (usize, usize) {
    (shape.height.div_ceil(4), shape.width.div_ceil(4))
}

/// x where it is positive, x/5 elsewhere.
fn leaky(x: &Tensor) -> Result<Tensor> {
    x.affine(0.2, 0.0)? + ops::relu(x)?.affine(0.8, 0.0)?
}

/// A batch norm of the generator.
#[derive(Debug, Clone)]
enum Norm {
    Plain(Box<BatchNorm>),
    /// Scale and shift (classes, channels).
    ByClass(Standardise, Embedding, Embedding),
}

impl Norm {
    fn new(
        conditioning: Conditioning,
        classes: usize,
        channels: usize,
        eps: f64,
        weights: &Weights,
    ) -> offprint_core::Result<Self> {
        if conditioning == Conditioning::Product {
            return Ok(Self::Plain(BatchNorm::with_eps(channels, eps, weights)?.into()));
        }
        let table = |name: &str, value| Embedding::new(classes, channels, Init::Constant(value), &weights.at(name));
        let plain = Standardise::new(channels, eps).map_err(computation)?;
        Ok(Self::ByClass(plain, table("scale", 1.0)?, table("shift", 0.0)?))
    }

    fn forward(&self, x: &Tensor, labels: &Tensor) -> Result<Tensor> {
        match self {
            Self::Plain(norm) => norm.forward(x, Mode::Training),
            Self::ByClass(norm, scale, shift) => {
                let of_class = |table: &Embedding| table.forward(labels)?.unsqueeze(2)?.unsqueeze(3);
                norm.forward(x)?.broadcast_mul(&of_class(scale)?)?.broadcast_add(&of_class(shift)?)
            }
        }
    }
}

/// A batch norm without parameters.
#[derive(Debug, Clone)]
struct Standardise {
    one: Tensor,
    zero: Tensor,
    running: RunningStatistics,
    eps: f64,
}

impl Standardise {
    fn new(channels: usize, eps: f64) -> Result<Self> {
        let (dtype, device) = (candle_core::DType::F32, &Device::Cpu);
        Ok(Self {
            one: Tensor::ones(channels, dtype, device)?,
            zero: Tensor::zeros(channels, dtype, device)?,
            running: RunningStatistics::new(channels, dtype, device)?,
            eps,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::batch_norm(x, &self.one, &self.zero, &self.running, self.eps, Mode::Training)
    }
}
