//! The BERT encoder (Devlin et al. 2019), as in Hugging Face checkpoints.

use super::attention::{join_heads, split_heads};
use super::{at_least_one, heads_divide};
use crate::layers::{Embedding, LayerNorm, Linear};
use crate::ops::{self, Mask};
use crate::params::{Init, Weights};
use candle_core::{DType, Device, Tensor};
use offprint_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// A BERT's `config.json`; fields that this encoder does not need are ignored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BertConfig {
    /// Number of different tokens.
    pub vocab_size: usize,
    /// Width of a token.
    pub hidden_size: usize,
    /// Blocks.
    pub num_hidden_layers: usize,
    /// Attention heads: a divisor of the width.
    pub num_attention_heads: usize,
    /// Hidden width of the perceptrons.
    pub intermediate_size: usize,
    /// Longest sequence.
    pub max_position_embeddings: usize,
    /// Kinds of segments.
    pub type_vocab_size: usize,
    /// Added to the variance in layer norms.
    #[serde(default = "layer_norm_eps")]
    pub layer_norm_eps: f64,
    /// The activation; "gelu" is known here.
    pub hidden_act: String,
    /// How positions enter; "absolute" is known here.
    #[serde(default = "absolute")]
    pub position_embedding_type: String,
}

fn layer_norm_eps() -> f64 {
    1e-12
}

fn absolute() -> String {
    "absolute".to_owned()
}

/// BERT's initial deviation.
const INIT: Init = Init::Normal { std: 0.02 };

#[derive(Debug, Clone)]
struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    attention_output: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    output: Linear,
    norm: LayerNorm,
    heads: usize,
}

impl Layer {
    fn new(config: &BertConfig, weights: &Weights) -> Result<Self> {
        let (width, inner, eps) = (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
        let linear = |inputs, outputs, name: &str| {
            Linear::with_init(inputs, outputs, INIT, Some(Init::Constant(0.0)), &weights.at(name))
        };
        Ok(Self {
            query: linear(width, width, "attention.self.query")?,
            key: linear(width, width, "attention.self.key")?,
            value: linear(width, width, "attention.self.value")?,
            attention_output: linear(width, width, "attention.output.dense")?,
            attention_norm: LayerNorm::new(width, eps, &weights.at("attention.output.LayerNorm"))?,
            intermediate: linear(width, inner, "intermediate.dense")?,
            output: linear(inner, width, "output.dense")?,
            norm: LayerNorm::new(width, eps, &weights.at("output.LayerNorm"))?,
            heads: config.num_attention_heads,
        })
    }

    fn forward(&self, x: &Tensor, mask: Mask<'_>) -> candle_core::Result<Tensor> {
        let heads = |layer: &Linear| split_heads(&layer.forward(x)?, self.heads);
        let seen = ops::attention(&heads(&self.query)?, &heads(&self.key)?, &heads(&self.value)?, mask)?;
        let x = self.attention_norm.forward(&(self.attention_output.forward(&join_heads(&seen)?)? + x)?)?;
        let y = self.output.forward(&ops::gelu(&self.intermediate.forward(&x)?)?)?;
        self.norm.forward(&(y + x)?)
    }
}

/// The encoder: `embeddings.word_embeddings`, …, `encoder.layer.0.attention.self.query`, … The pooler of published
/// checkpoints is not part of it.
#[derive(Debug, Clone)]
pub struct Bert {
    words: Embedding,
    positions: Embedding,
    segments: Embedding,
    norm: LayerNorm,
    layers: Vec<Layer>,
}

impl Bert {
    /// Endings of names in published checkpoints that the encoder does not use, for [`Weights::finish`].
    pub const IGNORED: [&'static str; 3] = ["embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias"];

    /// Builds the layers from `weights`; names may stand below `bert.`, as in checkpoints with a head.
    pub fn new(config: &BertConfig, weights: &Weights) -> Result<Self> {
        at_least_one(&[
            ("vocab_size", config.vocab_size),
            ("intermediate_size", config.intermediate_size),
            ("max_position_embeddings", config.max_position_embeddings),
            ("type_vocab_size", config.type_vocab_size),
        ])?;
        heads_divide(config.hidden_size, config.num_attention_heads, "num_attention_heads")?;
        for (field, value, known) in [
            ("hidden_act", &config.hidden_act, "gelu"),
            ("position_embedding_type", &config.position_embedding_type, "absolute"),
        ] {
            if value != known {
                return Err(Error::parameter(field, value, known));
            }
        }
        let below = weights.at("bert");
        let weights = if below.holds("embeddings.word_embeddings.weight") { below } else { weights.clone() };
        let width = config.hidden_size;
        let table = |rows, name: &str| Embedding::new(rows, width, INIT, &weights.at("embeddings").at(name));
        Ok(Self {
            words: table(config.vocab_size, "word_embeddings")?,
            positions: table(config.max_position_embeddings, "position_embeddings")?,
            segments: table(config.type_vocab_size, "token_type_embeddings")?,
            norm: LayerNorm::new(width, config.layer_norm_eps, &weights.at("embeddings.LayerNorm"))?,
            layers: (0..config.num_hidden_layers)
                .map(|i| Layer::new(config, &weights.at("encoder.layer").at(i)))
                .collect::<Result<_>>()?,
        })
    }

    /// Tokens (n, positions), all of the first segment, to hidden states (n, positions, width). `mask` (n, positions) of
    /// type `u32` is 0 where a token is padding, 1 elsewhere.
    pub fn forward(&self, ids: &Tensor, mask: &Tensor) -> candle_core::Result<Tensor> {
        let (n, positions) = ids.dims2()?;
        let places = Tensor::arange(0, positions as u32, &Device::Cpu)?.broadcast_as((n, positions))?.contiguous()?;
        let words = self.words.forward(ids)?;
        let segment = self.segments.forward(&Tensor::zeros((n, positions), DType::U32, &Device::Cpu)?)?;
        let mut x = self.norm.forward(&((words + segment)? + self.positions.forward(&places)?)?)?;
        // 0 where a key is seen, −∞ where it is padding.
        let hidden = mask.eq(0u32)?.reshape((n, 1, 1, positions))?;
        let never = Tensor::full(f64::NEG_INFINITY, hidden.shape(), &Device::Cpu)?.to_dtype(x.dtype())?;
        let scores = hidden.where_cond(&never, &never.zeros_like()?)?;
        for layer in &self.layers {
            x = layer.forward(&x, Mask::Additive(&scores))?;
        }
        Ok(x)
    }
}
