//! Quantised attention, as it was and reparametrised (QKR).
//!
//! Plain attention quantises W_q, W_k, q and k. Each matrix then has a gradient that depends on the other's codes, which
//! jump. QKR quantises the product A_h = W_q,hᵀ W_k,h of each head instead: the logits of x_n and x_m are x_nᵀ Â_h x_m/√d.
//! It costs a width × width matrix for each head in place of two width × d ones: heads/2 times the weights and products.

use super::activation::{Sharing, Shifted, quantised};
use super::site::{Origin, Site};
use super::vit::{Layer, Parts};
use candle_core::{Tensor, Var};
use offprint_core::Result;
use offprint_nn::ops;
use serde::{Deserialize, Serialize};

/// How attention is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// From queries and keys, each quantised.
    Plain,
    /// From the quantised product of the queries' and the keys' weights.
    Qkr {
        /// Whether the queries' bias b_q is kept, as b_qᵀ W_k x_m in floats. The published form drops it; the keys' bias
        /// shifts all logits of a query alike and never matters.
        keep_query_bias: bool,
    },
}

#[derive(Debug)]
enum Logits {
    Plain { queries_and_keys: Site, queries: Option<Shifted>, keys: Option<Shifted> },
    Qkr { product: Site, products: Option<Shifted>, bias: QueryBias },
}

/// What becomes of the queries' bias.
#[derive(Debug)]
enum QueryBias {
    Dropped,
    /// b_qᵀ W_k is computed from the weights.
    Kept,
    /// b_qᵀ W_k of each head (heads, width), where the weights are not known any more.
    Stored(Tensor),
}

#[derive(Debug)]
pub(super) struct Attention {
    heads: usize,
    width: usize,
    /// The weight and bias of timm's `qkv`.
    qkv: Var,
    bias: Var,
    input: Option<Shifted>,
    logits: Logits,
    values: Site,
    value: Option<Shifted>,
    probabilities: Option<Shifted>,
    proj: Layer,
}

impl Attention {
    pub fn new(name: &str, parts: &Parts<'_>) -> Result<Self> {
        let (heads, width, tokens) = (parts.config.heads, parts.config.width, parts.config.tokens());
        let at = |part: &str| format!("{name}.{part}");
        let by_token = |part: &str, channels| parts.activation(at(part), channels, Sharing::Token(tokens), false);
        let qkv = parts.var(&at("qkv.weight"))?;
        let logits = match parts.precision.form {
            Form::Plain => Logits::Plain {
                queries_and_keys: parts.site(at("qk"), Origin::Rows(qkv.clone(), 0..2 * width))?,
                queries: by_token("q", width)?,
                keys: by_token("k", width)?,
            },
            Form::Qkr { keep_query_bias } => Logits::Qkr {
                product: parts.site(at("product"), Origin::Product { qkv: qkv.clone(), heads })?,
                products: by_token("product", heads * width)?,
                bias: if keep_query_bias { QueryBias::Kept } else { QueryBias::Dropped },
            },
        };
        Ok(Self {
            heads,
            width,
            bias: parts.var(&at("qkv.bias"))?,
            input: by_token("input", width)?,
            logits,
            values: parts.site(at("v"), Origin::Rows(qkv.clone(), 2 * width..3 * width))?,
            qkv,
            value: parts.activation(at("v"), width, Sharing::Channel, false)?,
            probabilities: parts.activation(at("probabilities"), tokens, Sharing::Token(tokens), true)?,
            proj: parts.layer(at("proj"), width, false)?,
        })
    }

    /// Of normalised tokens (n, tokens, width), with the projection.
    pub fn forward(&self, x: &Tensor, margin: Option<f64>) -> candle_core::Result<Tensor> {
        let (n, tokens, width) = x.dims3()?;
        let d = width / self.heads;
        let x = quantised(self.input.as_ref(), x)?;
        let bias = |first: usize, count: usize| self.bias.narrow(0, first * width, count * width);
        // (n, tokens, width) to (n, heads, tokens, d).
        let split = |y: &Tensor| y.reshape((n, tokens, self.heads, d))?.transpose(1, 2)?.contiguous();
        let logits = match &self.logits {
            Logits::Plain { queries_and_keys, queries, keys } => {
                let both = ops::linear(&x, &queries_and_keys.weight(margin)?, Some(&bias(0, 2)?))?;
                let part = |i: usize, quantiser: &Option<Shifted>| {
                    split(&quantised(quantiser.as_ref(), &both.narrow(2, i * width, width)?.contiguous()?)?)
                };
                part(0, queries)?.matmul(&part(1, keys)?.t()?)?
            }
            Logits::Qkr { product, products, .. } => {
                // t_m = Â_h x_m of all heads, side by side; then x_nᵀ t_m.
                let t = quantised(products.as_ref(), &ops::linear(&x, &product.weight(margin)?, None)?)?;
                let t = t.reshape((n, tokens * self.heads, width))?;
                let logits = x.matmul(&t.t()?)?.reshape((n, tokens, tokens, self.heads))?.permute((0, 3, 1, 2))?;
                match self.gain()? {
                    // b_qᵀ W_k x_m: (n, heads, 1, tokens).
                    Some(gain) => {
                        logits.broadcast_add(&ops::linear(&x, &gain, None)?.transpose(1, 2)?.unsqueeze(2)?)?
                    }
                    None => logits.contiguous()?,
                }
            }
        };
        let seen = ops::softmax(&(logits / (d as f64).sqrt())?.contiguous()?)?;
        let seen = quantised(self.probabilities.as_ref(), &seen)?;
        let values = ops::linear(&x, &self.values.weight(margin)?, Some(&bias(2, 1)?))?;
        let values = split(&quantised(self.value.as_ref(), &values)?)?;
        let mixed = seen.matmul(&values)?.transpose(1, 2)?.reshape((n, tokens, width))?;
        self.proj.forward(&mixed, margin)
    }

    /// b_qᵀ W_k of each head (heads, width), if the queries' bias is kept.
    pub fn gain(&self) -> candle_core::Result<Option<Tensor>> {
        match &self.logits {
            Logits::Plain { .. } | Logits::Qkr { bias: QueryBias::Dropped, .. } => Ok(None),
            Logits::Qkr { bias: QueryBias::Stored(gain), .. } => Ok(Some(gain.clone())),
            Logits::Qkr { bias: QueryBias::Kept, .. } => {
                let (width, heads) = (self.width, self.heads);
                let queries = self.bias.narrow(0, 0, width)?.reshape((heads, 1, ()))?;
                let keys = self.qkv.narrow(0, width, width)?.reshape((heads, (), width))?;
                queries.matmul(&keys)?.reshape((heads, width)).map(Some)
            }
        }
    }

    /// Fixes [`Self::gain`].
    pub fn store_gain(&mut self, gain: Tensor) {
        if let Logits::Qkr { bias, .. } = &mut self.logits {
            *bias = QueryBias::Stored(gain);
        }
    }

    pub fn sites(&self) -> impl Iterator<Item = &Site> {
        let (Logits::Plain { queries_and_keys: logits, .. } | Logits::Qkr { product: logits, .. }) = &self.logits;
        [logits, &self.values, &self.proj.site].into_iter()
    }

    pub fn sites_mut(&mut self) -> impl Iterator<Item = &mut Site> {
        let (Logits::Plain { queries_and_keys: logits, .. } | Logits::Qkr { product: logits, .. }) = &mut self.logits;
        [logits, &mut self.values, &mut self.proj.site].into_iter()
    }

    pub fn activations(&self) -> impl Iterator<Item = &Shifted> {
        let of_logits = match &self.logits {
            Logits::Plain { queries, keys, .. } => [queries, keys],
            Logits::Qkr { products, .. } => [products, &None],
        };
        [&self.input, &self.value, &self.probabilities, &self.proj.input].into_iter().chain(of_logits).flatten()
    }
}
