//! A LLaMA-like decoder: rotary positions, grouped keys and values, SwiGLU, root-mean-square norms.

use super::attention::{Rotary, join_heads, repeat_heads, split_heads};
use super::slim::check_shapes;
use super::{BlockShape, at_least_one, heads_divide};
use crate::layers::{Embedding, Linear, RmsNorm};
use crate::ops::{self, Mask};
use crate::params::{Init, Weights};
use candle_core::{Tensor, bail};
use offprint_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// A LLaMA's `config.json`; fields that the model does not need are ignored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LlamaConfig {
    /// Number of different tokens.
    pub vocab_size: usize,
    /// Width of a token.
    pub hidden_size: usize,
    /// Hidden width of the perceptrons.
    pub intermediate_size: usize,
    /// Blocks.
    pub num_hidden_layers: usize,
    /// Query heads: a divisor of the width.
    pub num_attention_heads: usize,
    /// Key and value heads: a divisor of the query heads.
    pub num_key_value_heads: usize,
    /// Longest sequence.
    pub max_position_embeddings: usize,
    /// Added to the mean square in norms.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    #[serde(default = "rope_theta")]
    pub rope_theta: f64,
    /// Whether the head shares the embedding.
    #[serde(default)]
    pub tie_word_embeddings: bool,
}

impl LlamaConfig {
    /// Width of a head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads.max(1)
    }

    /// Query heads that share the keys and values of one head.
    pub fn heads_per_key(&self) -> usize {
        self.num_attention_heads / self.num_key_value_heads.max(1)
    }
}

fn rope_theta() -> f64 {
    10_000.0
}

const INIT: Init = Init::Normal { std: 0.02 };

#[derive(Debug, Clone)]
struct Layer {
    input_layernorm: RmsNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    post_attention_layernorm: RmsNorm,
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
    heads: usize,
    kv_heads: usize,
}

impl Layer {
    fn new(config: &LlamaConfig, shape: &BlockShape, weights: &Weights) -> Result<Self> {
        let (width, inner) = (config.hidden_size, shape.mlp);
        let (heads, kv_heads) = (shape.heads, shape.heads / config.heads_per_key());
        let (q, kv) = (heads * shape.head_dim, kv_heads * shape.head_dim);
        let linear = |inputs, outputs, name: &str| Linear::with_init(inputs, outputs, INIT, None, &weights.at(name));
        let norm = |name: &str| RmsNorm::new(width, config.rms_norm_eps, &weights.at(name));
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            q_proj: linear(width, q, "self_attn.q_proj")?,
            k_proj: linear(width, kv, "self_attn.k_proj")?,
            v_proj: linear(width, kv, "self_attn.v_proj")?,
            o_proj: linear(q, width, "self_attn.o_proj")?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            gate_proj: linear(width, inner, "mlp.gate_proj")?,
            up_proj: linear(width, inner, "mlp.up_proj")?,
            down_proj: linear(inner, width, "mlp.down_proj")?,
            heads,
            kv_heads,
        })
    }

    fn forward(&self, x: &Tensor, rotary: &Rotary) -> candle_core::Result<Tensor> {
        let h = self.input_layernorm.forward(x)?;
        let q = rotary.turn(&split_heads(&self.q_proj.forward(&h)?, self.heads)?)?;
        let k = rotary.turn(&split_heads(&self.k_proj.forward(&h)?, self.kv_heads)?)?;
        let v = split_heads(&self.v_proj.forward(&h)?, self.kv_heads)?;
        let shared = self.heads / self.kv_heads;
        let seen = ops::attention(&q, &repeat_heads(&k, shared)?, &repeat_heads(&v, shared)?, Mask::Causal)?;
        let x = (x + self.o_proj.forward(&join_heads(&seen)?)?)?;
        let h = self.post_attention_layernorm.forward(&x)?;
        let gated = (ops::silu(&self.gate_proj.forward(&h)?)? * self.up_proj.forward(&h)?)?;
        x + self.down_proj.forward(&gated)?
    }
}

/// A decoder with the names of LLaMA's checkpoints: `model.embed_tokens`, `model.layers.0.self_attn.q_proj`, …,
/// `model.norm`, `lm_head`.
#[derive(Debug, Clone)]
pub struct Llama {
    embed_tokens: Embedding,
    layers: Vec<Layer>,
    norm: RmsNorm,
    lm_head: Linear,
    config: LlamaConfig,
}

impl Llama {
    /// Builds the layers from `weights`.
    pub fn new(config: &LlamaConfig, weights: &Weights) -> Result<Self> {
        at_least_one(&[("intermediate_size", config.intermediate_size)])?;
        heads_divide(config.hidden_size, config.num_attention_heads, "num_attention_heads")?;
        let shape = BlockShape {
            heads: config.num_attention_heads,
            head_dim: config.head_dim(),
            mlp: config.intermediate_size,
        };
        Self::slim(config, &vec![shape; config.num_hidden_layers], weights)
    }

    /// With a shape of its own for each block: numbers of heads that groups of keys divide, and heads of the regular width.
    pub fn slim(config: &LlamaConfig, shapes: &[BlockShape], weights: &Weights) -> Result<Self> {
        at_least_one(&[("vocab_size", config.vocab_size)])?;
        heads_divide(config.hidden_size, config.num_attention_heads, "num_attention_heads")?;
        heads_divide(config.num_attention_heads, config.num_key_value_heads, "num_key_value_heads")?;
        if !config.head_dim().is_multiple_of(2) {
            return Err(Error::parameter(
                "num_attention_heads",
                config.num_attention_heads,
                "such that a head has an even width, for rotations of pairs",
            ));
        }
        check_shapes(shapes, config.num_hidden_layers)?;
        let (head_dim, per_key) = (config.head_dim(), config.heads_per_key());
        if let Some(i) = shapes.iter().position(|s| s.head_dim != head_dim || !s.heads.is_multiple_of(per_key)) {
            let allowed = format!("heads of width {head_dim}, {per_key} for each head of keys");
            return Err(Error::parameter(format!("shapes[{i}]"), format!("{:?}", shapes[i]), allowed));
        }
        let at = weights.at("model");
        let embed_tokens = Embedding::new(config.vocab_size, config.hidden_size, INIT, &at.at("embed_tokens"))?;
        let layers = shapes
            .iter()
            .enumerate()
            .map(|(i, shape)| Layer::new(config, shape, &at.at("layers").at(i)))
            .collect::<Result<_>>()?;
        let norm = RmsNorm::new(config.hidden_size, config.rms_norm_eps, &at.at("norm"))?;
        let lm_head = if config.tie_word_embeddings {
            Linear::tied(embed_tokens.table(), embed_tokens.name())
        } else {
            Linear::with_init(config.hidden_size, config.vocab_size, INIT, None, &weights.at("lm_head"))?
        };
        Ok(Self { embed_tokens, layers, norm, lm_head, config: config.clone() })
    }

    /// Tokens (n, positions) to logits (n, positions, vocabulary) for the token after each.
    pub fn forward(&self, ids: &Tensor) -> candle_core::Result<Tensor> {
        let (_, positions) = ids.dims2()?;
        if positions > self.config.max_position_embeddings {
            bail!("{positions} tokens, but the model sees at most {}", self.config.max_position_embeddings);
        }
        let mut x = self.embed_tokens.forward(ids)?;
        let rotary = Rotary::new(self.config.head_dim(), self.config.rope_theta, positions, x.dtype())?;
        for layer in &self.layers {
            x = layer.forward(&x, &rotary)?;
        }
        self.lm_head.forward(&self.norm.forward(&x)?)
    }
}
