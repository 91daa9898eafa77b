//! The vision transformer (Dosovitskiy et al. 2021).

use super::slim::check_shapes;
use super::{BlockShape, at_least_one, heads_divide};
use crate::layers::{Conv2d, LayerNorm, Learned, Linear};
use crate::ops::{self, Mask};
use crate::params::{Init, Weights};
use candle_core::Tensor;
use offprint_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// The shape of a [`ViT`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViTConfig {
    /// Height and width of the images.
    pub image: usize,
    /// Height and width of a patch: divides the image's.
    pub patch: usize,
    /// Channels of the images.
    pub channels: usize,
    /// Width of a token.
    pub width: usize,
    /// Attention heads: a divisor of the width.
    pub heads: usize,
    /// Blocks.
    pub depth: usize,
    /// Hidden width of the perceptrons.
    pub mlp: usize,
    /// Classes.
    pub classes: usize,
    /// Whether a class token is read out; otherwise the mean of all tokens.
    pub class_token: bool,
}

impl ViTConfig {
    /// For the 8 × 8 digits: 16 tokens of 2 × 2 pixels, three blocks of width 32.
    pub fn digits() -> Self {
        Self {
            image: 8,
            patch: 2,
            channels: 1,
            width: 32,
            heads: 2,
            depth: 3,
            mlp: 64,
            classes: 10,
            class_token: false,
        }
    }

    fn block(&self) -> BlockShape {
        BlockShape { heads: self.heads, head_dim: self.width / self.heads, mlp: self.mlp }
    }

    /// Tokens of an image, the class token among them.
    pub fn tokens(&self) -> usize {
        (self.image / self.patch).pow(2) + usize::from(self.class_token)
    }
}

/// Initial deviation of timm's position embeddings. Its linear layers start with the same, which suits a width of several
/// hundred; here they start with PyTorch's default, which suits any.
const STD: f64 = 0.02;

#[derive(Debug, Clone)]
struct Block {
    norm1: LayerNorm,
    qkv: Linear,
    proj: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    heads: usize,
}

impl Block {
    fn new(width: usize, shape: &BlockShape, weights: &Weights) -> Result<Self> {
        let inner = shape.heads * shape.head_dim;
        Ok(Self {
            norm1: LayerNorm::new(width, ViT::EPS, &weights.at("norm1"))?,
            qkv: Linear::new(width, 3 * inner, true, &weights.at("attn.qkv"))?,
            proj: Linear::new(inner, width, true, &weights.at("attn.proj"))?,
            norm2: LayerNorm::new(width, ViT::EPS, &weights.at("norm2"))?,
            fc1: Linear::new(width, shape.mlp, true, &weights.at("mlp.fc1"))?,
            fc2: Linear::new(shape.mlp, width, true, &weights.at("mlp.fc2"))?,
            heads: shape.heads,
        })
    }

    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let qkv = self.qkv.forward(&self.norm1.forward(x)?)?;
        let seen = ops::self_attention(&qkv, self.heads, Mask::None)?;
        let x = (x + self.proj.forward(&seen)?)?;
        let y = self.fc2.forward(&ops::gelu(&self.fc1.forward(&self.norm2.forward(&x)?)?)?)?;
        x + y
    }
}

/// A vision transformer with timm's names: `patch_embed.proj`, `cls_token`, `pos_embed`, `blocks.0.attn.qkv`, …, `norm`,
/// `head`.
#[derive(Debug, Clone)]
pub struct ViT {
    patch_embed: Conv2d,
    class_token: Option<Learned>,
    pos_embed: Learned,
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: Linear,
}

impl ViT {
    /// Added to the variance by timm's layer norms.
    pub const EPS: f64 = 1e-6;

    /// Builds the layers from `weights`.
    pub fn new(config: &ViTConfig, weights: &Weights) -> Result<Self> {
        at_least_one(&[("mlp", config.mlp)])?;
        heads_divide(config.width, config.heads, "heads")?;
        Self::slim(config, &vec![config.block(); config.depth], weights)
    }

    /// With a shape of its own for each block.
    pub fn slim(config: &ViTConfig, shapes: &[BlockShape], weights: &Weights) -> Result<Self> {
        check_shapes(shapes, config.depth)?;
        let ViTConfig { image, patch, channels, width, classes, .. } = *config;
        at_least_one(&[
            ("image", image),
            ("patch", patch),
            ("channels", channels),
            ("width", width),
            ("classes", classes),
        ])?;
        if !image.is_multiple_of(patch) {
            return Err(Error::parameter("patch", patch, format!("a divisor of the image's side {image}")));
        }
        let strided = ops::Conv2d { stride: patch, ..ops::Conv2d::default() };
        let position = Init::TruncatedNormal { std: STD };
        let token = || Learned::new("cls_token", &[1, 1, width], Init::Normal { std: 1e-6 }, weights);
        Ok(Self {
            class_token: config.class_token.then(token).transpose()?,
            pos_embed: Learned::new("pos_embed", &[1, config.tokens(), width], position, weights)?,
            patch_embed: Conv2d::new(channels, width, patch, strided, true, &weights.at("patch_embed.proj"))?,
            blocks: shapes
                .iter()
                .enumerate()
                .map(|(i, shape)| Block::new(width, shape, &weights.at("blocks").at(i)))
                .collect::<Result<_>>()?,
            norm: LayerNorm::new(width, ViT::EPS, &weights.at("norm"))?,
            head: Linear::new(width, classes, true, &weights.at("head"))?,
        })
    }

    /// Images (n, channels, image, image) to logits (n, classes).
    pub fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let n = x.dim(0)?;
        let patches = self.patch_embed.forward(x)?.flatten_from(2)?.transpose(1, 2)?.contiguous()?;
        let mut x = match &self.class_token {
            Some(token) => Tensor::cat(&[&token.for_samples(n)?, &patches], 1)?,
            None => patches,
        };
        x = (x + self.pos_embed.for_samples(n)?)?;
        for block in &self.blocks {
            x = block.forward(&x)?;
        }
        let x = self.norm.forward(&x)?;
        self.head.forward(&if self.class_token.is_some() { x.get_on_dim(1, 0)?.contiguous()? } else { x.mean(1)? })
    }
}
