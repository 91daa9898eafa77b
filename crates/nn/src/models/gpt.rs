//! A decoder-only transformer with learned positions, after GPT-2.

use super::slim::check_shapes;
use super::{BlockShape, at_least_one, heads_divide};
use crate::error::computation;
use crate::layers::{Embedding, LayerNorm, Linear, RmsNorm};
use crate::ops::{self, Mask};
use crate::params::{Init, Weights, flatten};
use candle_core::{Device, Tensor};
use offprint_core::random::Stream;
use offprint_core::{Error, Result};
use rand::RngExt;
use serde::{Deserialize, Serialize};

/// Which norm stands before each part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Norm {
    /// Layer norm, as in GPT-2.
    Layer,
    /// Root-mean-square norm.
    Rms,
}

/// The shape of a [`Gpt`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GptConfig {
    /// Number of different tokens.
    pub vocabulary: usize,
    /// Longest sequence.
    pub context: usize,
    /// Width of a token.
    pub width: usize,
    /// Attention heads: a divisor of the width.
    pub heads: usize,
    /// Blocks.
    pub depth: usize,
    /// Hidden width of the perceptrons.
    pub mlp: usize,
    /// The norm.
    pub norm: Norm,
}

impl GptConfig {
    /// The small character model: two blocks of width 64, four heads, a context of 64 characters.
    pub fn characters(vocabulary: usize) -> Self {
        Self { vocabulary, context: 64, width: 64, heads: 4, depth: 2, mlp: 256, norm: Norm::Rms }
    }
}

#[derive(Debug, Clone)]
enum NormLayer {
    Layer(LayerNorm),
    Rms(RmsNorm),
}

impl NormLayer {
    fn new(config: &GptConfig, weights: &Weights) -> Result<Self> {
        Ok(match config.norm {
            Norm::Layer => Self::Layer(LayerNorm::new(config.width, 1e-5, weights)?),
            Norm::Rms => Self::Rms(RmsNorm::new(config.width, 1e-5, weights)?),
        })
    }

    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Layer(norm) => norm.forward(x),
            Self::Rms(norm) => norm.forward(x),
        }
    }
}

/// GPT-2's initial deviation of embeddings.
const STD: f64 = 0.02;

/// The initial deviation of linear layers: GPT-2's 0.02 at its width of 768, and as one over the root of the width at
/// others, so that the first outputs of a narrow model are of the same size.
fn deviation(width: usize) -> f64 {
    0.02 * (768.0 / width as f64).sqrt()
}

#[derive(Debug, Clone)]
struct Block {
    ln_1: NormLayer,
    c_attn: Linear,
    attn_proj: Linear,
    ln_2: NormLayer,
    c_fc: Linear,
    mlp_proj: Linear,
    heads: usize,
}

impl Block {
    fn new(config: &GptConfig, shape: &BlockShape, weights: &Weights) -> Result<Self> {
        let (width, inner) = (config.width, shape.heads * shape.head_dim);
        let linear = |inputs, outputs, std, name: &str| {
            Linear::with_init(inputs, outputs, Init::Normal { std }, Some(Init::Constant(0.0)), &weights.at(name))
        };
        // Two residual branches a block: their last layers start smaller, so that the sum keeps its variance.
        let std = deviation(width);
        let last = std / (2.0 * config.depth as f64).sqrt();
        Ok(Self {
            ln_1: NormLayer::new(config, &weights.at("ln_1"))?,
            c_attn: linear(width, 3 * inner, std, "attn.c_attn")?,
            attn_proj: linear(inner, width, last, "attn.c_proj")?,
            ln_2: NormLayer::new(config, &weights.at("ln_2"))?,
            c_fc: linear(width, shape.mlp, std, "mlp.c_fc")?,
            mlp_proj: linear(shape.mlp, width, last, "mlp.c_proj")?,
            heads: shape.heads,
        })
    }

    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let qkv = self.c_attn.forward(&self.ln_1.forward(x)?)?;
        let seen = ops::self_attention(&qkv, self.heads, Mask::Causal)?;
        let x = (x + self.attn_proj.forward(&seen)?)?;
        let y = self.mlp_proj.forward(&ops::gelu(&self.c_fc.forward(&self.ln_2.forward(&x)?)?)?)?;
        x + y
    }
}

/// A GPT with GPT-2's names (`wte`, `wpe`, `h.0.attn.c_attn`, `h.0.mlp.c_fc`, …, `ln_f`) and a head that shares `wte`.
/// Weights are (out, in) as everywhere here; GPT-2's own files hold them transposed.
#[derive(Debug, Clone)]
pub struct Gpt {
    wte: Embedding,
    wpe: Embedding,
    blocks: Vec<Block>,
    ln_f: NormLayer,
    context: usize,
}

impl Gpt {
    /// Builds the layers from `weights`.
    pub fn new(config: &GptConfig, weights: &Weights) -> Result<Self> {
        let GptConfig { width, heads, depth, mlp, .. } = *config;
        at_least_one(&[("mlp", mlp)])?;
        heads_divide(width, heads, "heads")?;
        Self::slim(config, &vec![BlockShape { heads, head_dim: width / heads, mlp }; depth], weights)
    }

    /// With a shape of its own for each block.
    pub fn slim(config: &GptConfig, shapes: &[BlockShape], weights: &Weights) -> Result<Self> {
        let GptConfig { vocabulary, context, width, .. } = *config;
        at_least_one(&[("vocabulary", vocabulary), ("context", context), ("width", width)])?;
        check_shapes(shapes, config.depth)?;
        let init = Init::Normal { std: STD };
        Ok(Self {
            wte: Embedding::new(vocabulary, width, init, &weights.at("wte"))?,
            wpe: Embedding::new(context, width, init, &weights.at("wpe"))?,
            blocks: shapes
                .iter()
                .enumerate()
                .map(|(i, shape)| Block::new(config, shape, &weights.at("h").at(i)))
                .collect::<Result<_>>()?,
            ln_f: NormLayer::new(config, &weights.at("ln_f"))?,
            context,
        })
    }

    /// Tokens (n, positions) to logits (n, positions, vocabulary) for the token after each. At most `context` positions.
    pub fn forward(&self, ids: &Tensor) -> candle_core::Result<Tensor> {
        let (n, positions) = ids.dims2()?;
        let places = Tensor::arange(0, positions as u32, &Device::Cpu)?.broadcast_as((n, positions))?.contiguous()?;
        let mut x = (self.wte.forward(ids)? + self.wpe.forward(&places)?)?;
        for block in &self.blocks {
            x = block.forward(&x)?;
        }
        Linear::tied(self.wte.table(), self.wte.name()).forward(&self.ln_f.forward(&x)?)
    }

    /// `count` tokens that follow `start`, each drawn from the prediction sharpened by `temperature` (0: the likeliest).
    pub fn generate(&self, start: &[u32], count: usize, temperature: f64, stream: Stream) -> Result<Vec<u32>> {
        if start.is_empty() {
            return Err(Error::parameter("start", "no tokens", "at least one token"));
        }
        if !(temperature >= 0.0 && temperature.is_finite()) {
            return Err(Error::parameter("temperature", temperature, "at least 0"));
        }
        let mut tokens = start.to_vec();
        let mut rng = stream.rng(0);
        for _ in 0..count {
            let seen = &tokens[tokens.len().saturating_sub(self.context)..];
            let logits = Tensor::from_slice(seen, (1, seen.len()), &Device::Cpu)
                .and_then(|ids| self.forward(&ids)?.get(0)?.get(seen.len() - 1))
                .map_err(computation)?;
            let logits: Vec<f64> = flatten([&logits].into_iter(), logits.elem_count())?;
            let (best, top) = logits
                .iter()
                .copied()
                .enumerate()
                .max_by(|a, b| a.1.total_cmp(&b.1))
                .expect("the vocabulary is not empty");
            let next = if temperature == 0.0 {
                best
            } else {
                let p: Vec<f64> = logits.iter().map(|z| ((z - top) / temperature).exp()).collect();
                let mut left = rng.random::<f64>() * p.iter().sum::<f64>();
                p.iter()
                    .position(|p| {
                        left -= p;
                        left < 0.0
                    })
                    .unwrap_or(best)
            };
            tokens.push(next as u32);
        }
        Ok(tokens.split_off(start.len()))
    }
}
