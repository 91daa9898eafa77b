//! A decoder that makes one token after the other, all its matrices multiplied by the engine.
//!
//! LLaMA's arithmetic over vectors: what `nn`'s model computes for a whole sequence, here for one token with the keys and
//! values of those before it kept. Activations are single precision; only products with matrices see 8 bits.

use super::engine::{Gemv, Input, Precision};
use crate::matrix;
use ndarray::Array2;
use offprint_core::{Error, Result};
use offprint_nn::models::LlamaConfig;
use offprint_nn::{Architecture, Network};

/// A LLaMA-shaped decoder.
pub struct Decoder {
    config: LlamaConfig,
    precision: Precision,
    /// (vocabulary, width)
    embedding: Array2<f32>,
    layers: Vec<DecoderLayer>,
    norm: Vec<f32>,
    head: Box<dyn Gemv>,
}

struct DecoderLayer {
    attention_norm: Vec<f32>,
    query: Box<dyn Gemv>,
    key: Box<dyn Gemv>,
    value: Box<dyn Gemv>,
    out: Box<dyn Gemv>,
    mlp_norm: Vec<f32>,
    gate: Box<dyn Gemv>,
    up: Box<dyn Gemv>,
    down: Box<dyn Gemv>,
}

/// Keys and values of the tokens so far, a row of (positions, kv width) each.
#[derive(Debug, Clone, Default)]
struct Cached {
    keys: Vec<f32>,
    values: Vec<f32>,
}

/// A sequence under way.
#[derive(Debug, Clone)]
pub struct Session {
    position: usize,
    layers: Vec<Cached>,
}

impl Session {
    /// Tokens that were read.
    pub fn position(&self) -> usize {
        self.position
    }
}

impl Decoder {
    /// The decoder of `network`, whose matrices `make` brings into a format: it gets a layer's name and weights (out, in).
    ///
    /// # Errors
    /// A network that is no LLaMA; what `make` refuses.
    pub fn new(
        network: &Network,
        precision: Precision,
        mut make: impl FnMut(&str, &Array2<f32>) -> Result<Box<dyn Gemv>>,
    ) -> Result<Self> {
        let Architecture::Llama(config) = network.architecture() else {
            return Err(Error::input("model", "is no LLaMA; the decoder runs LLaMA-shaped models"));
        };
        let tensor = |name: String| -> Result<Array2<f32>> {
            let var = network.params().get(&name);
            matrix(var.ok_or_else(|| Error::input("model", format!("has no tensor \"{name}\"")))?)
        };
        let vector = |name: String| -> Result<Vec<f32>> { Ok(tensor(name)?.column(0).to_vec()) };
        let mut product = |name: String| make(&name, &tensor(format!("{name}.weight"))?);
        let layers = (0..config.num_hidden_layers)
            .map(|i| {
                let at = |part: &str| format!("model.layers.{i}.{part}");
                Ok(DecoderLayer {
                    attention_norm: vector(at("input_layernorm.weight"))?,
                    query: product(at("self_attn.q_proj"))?,
                    key: product(at("self_attn.k_proj"))?,
                    value: product(at("self_attn.v_proj"))?,
                    out: product(at("self_attn.o_proj"))?,
                    mlp_norm: vector(at("post_attention_layernorm.weight"))?,
                    gate: product(at("mlp.gate_proj"))?,
                    up: product(at("mlp.up_proj"))?,
                    down: product(at("mlp.down_proj"))?,
                })
            })
            .collect::<Result<_>>()?;
        let embedding = tensor("model.embed_tokens.weight".into())?;
        let head = if config.tie_word_embeddings {
            make("lm_head", &embedding)?
        } else {
            make("lm_head", &tensor("lm_head.weight".into())?)?
        };
        let norm = vector("model.norm.weight".into())?;
        Ok(Self { config: config.clone(), precision, embedding, layers, norm, head })
    }

    /// A sequence without tokens.
    pub fn start(&self) -> Session {
        Session { position: 0, layers: vec![Cached::default(); self.layers.len()] }
    }

    /// Bytes of all matrices, which a token reads once.
    pub fn bytes(&self) -> usize {
        let of = |l: &DecoderLayer| -> usize {
            [&l.query, &l.key, &l.value, &l.out, &l.gate, &l.up, &l.down].iter().map(|m| m.bytes()).sum()
        };
        self.layers.iter().map(of).sum::<usize>() + self.head.bytes()
    }

    /// Reads `token` and gives the logits (vocabulary) of the one after it.
    ///
    /// # Errors
    /// A token beyond the vocabulary; a sequence at its longest; values that are no longer finite.
    pub fn step(&self, session: &mut Session, token: u32) -> Result<Vec<f32>> {
        let (tokens, longest) = (self.embedding.nrows(), self.config.max_position_embeddings);
        if token as usize >= tokens {
            return Err(Error::parameter("token", token, format!("below the vocabulary's {tokens}")));
        }
        if session.position >= longest {
            return Err(Error::parameter("position", session.position, format!("below the model's {longest}")));
        }
        let mut x = self.embedding.row(token as usize).to_vec();
        for (layer, cached) in self.layers.iter().zip(&mut session.layers) {
            let h = Input::new(&self.normed(&x, &layer.attention_norm), self.precision)?;
            let (mut q, mut k, v) = (apply(&*layer.query, &h), apply(&*layer.key, &h), apply(&*layer.value, &h));
            self.turn(&mut q, session.position);
            self.turn(&mut k, session.position);
            cached.keys.extend(k);
            cached.values.extend(v);
            let seen = Input::new(&self.attend(&q, cached), self.precision)?;
            add(&mut x, &apply(&*layer.out, &seen));
            let h = Input::new(&self.normed(&x, &layer.mlp_norm), self.precision)?;
            let (gate, up) = (apply(&*layer.gate, &h), apply(&*layer.up, &h));
            let gated: Vec<f32> = gate.iter().zip(&up).map(|(&g, &u)| g / (1.0 + (-g).exp()) * u).collect();
            add(&mut x, &apply(&*layer.down, &Input::new(&gated, self.precision)?));
        }
        session.position += 1;
        Ok(apply(&*self.head, &Input::new(&self.normed(&x, &self.norm), self.precision)?))
    }

    /// `count` tokens after `start`, each the likeliest.
    ///
    /// # Errors
    /// No token to start with; as [`Self::step`].
    pub fn generate(&self, start: &[u32], count: usize) -> Result<Vec<u32>> {
        let mut session = self.start();
        let mut logits = Vec::new();
        for &token in start {
            logits = self.step(&mut session, token)?;
        }
        if logits.is_empty() {
            return Err(Error::parameter("start", "no tokens", "at least one token"));
        }
        let mut tokens = Vec::with_capacity(count);
        while tokens.len() < count {
            let best = (0..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best }) as u32;
            tokens.push(best);
            if tokens.len() < count {
                logits = self.step(&mut session, best)?;
            }
        }
        Ok(tokens)
    }

    /// x / √(mean x² + ε) · w
    fn normed(&self, x: &[f32], weight: &[f32]) -> Vec<f32> {
        let mean = x.iter().map(|x| x * x).sum::<f32>() / x.len() as f32;
        let factor = 1.0 / (mean + self.config.rms_norm_eps as f32).sqrt();
        x.iter().zip(weight).map(|(x, w)| x * factor * w).collect()
    }

    fn head_width(&self) -> usize {
        self.config.hidden_size / self.config.num_attention_heads
    }

    /// Rotates the pairs (i, i + d/2) of each head by p θ^(−2i/d).
    fn turn(&self, heads: &mut [f32], position: usize) {
        let d = self.head_width();
        for i in 0..d / 2 {
            let angle = position as f64 * self.config.rope_theta.powf(-2.0 * i as f64 / d as f64);
            let (cos, sin) = (angle.cos() as f32, angle.sin() as f32);
            for head in heads.chunks_exact_mut(d) {
                let (a, b) = (head[i], head[i + d / 2]);
                (head[i], head[i + d / 2]) = (a * cos - b * sin, b * cos + a * sin);
            }
        }
    }

    /// Each query head's mean of the values, weighted by how its keys fit.
    fn attend(&self, q: &[f32], cached: &Cached) -> Vec<f32> {
        let d = self.head_width();
        let kv = d * self.config.num_key_value_heads;
        let shared = self.config.num_attention_heads / self.config.num_key_value_heads;
        let mut seen = vec![0.0; q.len()];
        for (head, (q, seen)) in q.chunks_exact(d).zip(seen.chunks_exact_mut(d)).enumerate() {
            let place = head / shared * d;
            let scores: Vec<f32> = cached
                .keys
                .chunks_exact(kv)
                .map(|k| q.iter().zip(&k[place..][..d]).map(|(q, k)| q * k).sum::<f32>() / (d as f32).sqrt())
                .collect();
            let top = scores.iter().copied().fold(f32::MIN, f32::max);
            let weights: Vec<f32> = scores.iter().map(|s| (s - top).exp()).collect();
            let total: f32 = weights.iter().sum();
            for (w, v) in weights.iter().zip(cached.values.chunks_exact(kv)) {
                seen.iter_mut().zip(&v[place..][..d]).for_each(|(seen, v)| *seen += w / total * v);
            }
        }
        seen
    }
}

fn apply(matrix: &dyn Gemv, x: &Input) -> Vec<f32> {
    let mut y = vec![0.0; matrix.shape().0];
    matrix.multiply(x, &mut y);
    y
}

fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}
