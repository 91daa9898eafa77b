//! The operations of a graph.

use offprint_nn::ops;
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

/// A linear map with its tensors `<at>.weight` and, with a bias, `<at>.bias`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Affine {
    /// Where its tensors stand.
    pub at: String,
    /// Whether it adds a bias.
    #[serde(default = "yes")]
    pub bias: bool,
}

impl Affine {
    /// With a bias.
    pub fn biased(at: impl Into<String>) -> Self {
        Self { at: at.into(), bias: true }
    }

    /// Without one.
    pub fn plain(at: impl Into<String>) -> Self {
        Self { at: at.into(), bias: false }
    }

    /// The weight's name.
    pub fn weight(&self) -> String {
        format!("{}.weight", self.at)
    }

    /// The bias's name, if there is one.
    pub fn bias(&self) -> Option<String> {
        self.bias.then(|| format!("{}.bias", self.at))
    }

    fn tensors(&self) -> Vec<(String, bool)> {
        std::iter::once(self.weight()).chain(self.bias()).map(|name| (name, true)).collect()
    }
}

fn yes() -> bool {
    true
}

fn one() -> usize {
    1
}

fn norm_eps() -> f64 {
    1e-5
}

/// An element-wise function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Nonlinearity {
    /// max(x, 0)
    Relu,
    /// x Φ(x)
    Gelu,
    /// x σ(x)
    Silu,
    /// Hyperbolic tangent.
    Tanh,
    /// 1 / (1 + e⁻ˣ)
    Sigmoid,
    /// log(1 + eˣ)
    Softplus,
}

impl Nonlinearity {
    /// Whether a channel of zeros stays one: what does not cannot be cut out.
    pub fn keeps_zero(self) -> bool {
        !matches!(self, Self::Sigmoid | Self::Softplus)
    }
}

/// How queries, keys and values come from the input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Projections {
    /// One layer whose rows are those of all queries, then of all keys, then of all values.
    Fused {
        /// The layer.
        qkv: Affine,
    },
    /// One layer each.
    Separate {
        /// Queries.
        query: Affine,
        /// Keys.
        key: Affine,
        /// Values.
        value: Affine,
    },
}

impl Projections {
    /// The layers.
    pub fn layers(&self) -> Vec<&Affine> {
        match self {
            Self::Fused { qkv } => vec![qkv],
            Self::Separate { query, key, value } => vec![query, key, value],
        }
    }
}

/// Attention of the tokens of a sequence to each other, from the input to the layer after the heads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attention {
    /// Queries, keys and values.
    #[serde(flatten)]
    pub projections: Projections,
    /// The layer that joins the heads.
    pub output: Affine,
    /// Query heads.
    pub heads: usize,
    /// Heads of keys and values, which divide the query heads.
    pub kv_heads: usize,
    /// Whether a token sees only those before it.
    #[serde(default)]
    pub causal: bool,
    /// Base of rotary positions, if queries and keys are turned.
    #[serde(default)]
    pub rope_theta: Option<f64>,
}

/// What a node computes. Channels lie on axis 1 of images (n, channels, height, width) and on the last axis of rows
/// (n, channels) and tokens (n, positions, channels).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// What the network reads.
    Input {
        /// Shape of one sample: numbers, (channels, height, width), or positions of tokens.
        shape: Vec<usize>,
        /// Number of different tokens, for a network over tokens.
        #[serde(default)]
        vocabulary: Option<usize>,
    },
    /// `x wᵀ + b`.
    Linear(Affine),
    /// A convolution.
    Conv2d {
        /// Its tensors.
        #[serde(flatten)]
        layer: Conv,
    },
    /// A transposed convolution; its weight is (in, out, height, width).
    ConvTranspose2d {
        /// Where its tensors stand.
        at: String,
        /// Whether it adds a bias.
        #[serde(default = "yes")]
        bias: bool,
        /// Step.
        #[serde(default = "one")]
        stride: usize,
        /// Rows and columns cut off on each side.
        #[serde(default)]
        padding: usize,
    },
    /// Rows of the table `<at>.weight`, one a token.
    Embedding {
        /// Where the table stands.
        at: String,
    },
    /// The first rows of the table `<at>.weight`, one a position; reads the tokens.
    PositionEmbedding {
        /// Where the table stands.
        at: String,
    },
    /// Batch norm with `weight`, `bias`, `running_mean` and `running_var`.
    BatchNorm {
        /// Where its tensors stand.
        at: String,
        /// Added to the variance.
        #[serde(default = "norm_eps")]
        eps: f64,
    },
    /// Layer norm over the channels.
    LayerNorm {
        /// Where its tensors stand.
        at: String,
        /// Added to the variance.
        #[serde(default = "norm_eps")]
        eps: f64,
    },
    /// Root-mean-square norm over the channels.
    RmsNorm {
        /// Where its weight stands.
        at: String,
        /// Added to the mean square.
        #[serde(default = "norm_eps")]
        eps: f64,
    },
    /// Group norm.
    GroupNorm {
        /// Where its tensors stand.
        at: String,
        /// Groups of channels.
        groups: usize,
        /// Added to the variance.
        #[serde(default = "norm_eps")]
        eps: f64,
    },
    /// An element-wise function.
    Activation {
        /// Which.
        kind: Nonlinearity,
    },
    /// The sum of inputs of one shape.
    Add,
    /// The product of inputs of one shape.
    Mul,
    /// Inputs one after the other along the channels.
    Concat,
    /// The largest value of each square.
    MaxPool {
        /// Side of the squares, which divides height and width.
        size: usize,
    },
    /// The mean of each square.
    AvgPool {
        /// Side of the squares, which divides height and width.
        size: usize,
    },
    /// The mean over height and width.
    MeanPlaces,
    /// The mean over tokens.
    MeanTokens,
    /// The first token.
    FirstToken,
    /// (n, channels, height, width) to (n, channels · height · width).
    Flatten,
    /// (n, channels, height, width) to tokens (n, height · width, channels).
    ToTokens,
    /// A learned token before all others.
    PrependToken {
        /// Its name.
        weight: String,
    },
    /// Adds a learned array (1, positions, channels) to each sample.
    AddLearned {
        /// Its name.
        weight: String,
    },
    /// Attention with its four layers.
    Attention(Attention),
}

/// A convolution's tensors and geometry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conv {
    /// Where its tensors stand.
    pub at: String,
    /// Whether it adds a bias.
    #[serde(default = "yes")]
    pub bias: bool,
    /// Step.
    #[serde(default = "one")]
    pub stride: usize,
    /// Zeros on each side.
    #[serde(default)]
    pub padding: usize,
    /// Distance of the taps.
    #[serde(default = "one")]
    pub dilation: usize,
    /// Groups of channels.
    #[serde(default = "one")]
    pub groups: usize,
}

impl Conv {
    /// Without a bias.
    pub fn plain(at: impl Into<String>, geometry: ops::Conv2d) -> Self {
        let ops::Conv2d { stride, padding, dilation, groups } = geometry;
        Self { at: at.into(), bias: false, stride, padding, dilation, groups }
    }

    /// With a bias.
    pub fn biased(at: impl Into<String>, geometry: ops::Conv2d) -> Self {
        Self { bias: true, ..Self::plain(at, geometry) }
    }

    /// Its tensors.
    pub fn affine(&self) -> Affine {
        Affine { at: self.at.clone(), bias: self.bias }
    }

    /// How its kernel moves.
    pub fn geometry(&self) -> ops::Conv2d {
        ops::Conv2d { stride: self.stride, padding: self.padding, dilation: self.dilation, groups: self.groups }
    }
}

impl Op {
    /// How many inputs it takes.
    pub fn inputs(&self) -> RangeInclusive<usize> {
        match self {
            Self::Input { .. } => 0..=0,
            Self::Add | Self::Mul | Self::Concat => 2..=usize::MAX,
            _ => 1..=1,
        }
    }

    /// The tensors it reads, each with whether it is trained.
    pub fn tensors(&self) -> Vec<(String, bool)> {
        let at = |at: &str, names: &[&str], trained| {
            names.iter().map(|name| (format!("{at}.{name}"), trained)).collect::<Vec<_>>()
        };
        match self {
            Self::Linear(layer) => layer.tensors(),
            Self::Conv2d { layer } => layer.affine().tensors(),
            Self::ConvTranspose2d { at, bias, .. } => Affine { at: at.clone(), bias: *bias }.tensors(),
            Self::Embedding { at: place } | Self::PositionEmbedding { at: place } | Self::RmsNorm { at: place, .. } => {
                at(place, &["weight"], true)
            }
            Self::LayerNorm { at: place, .. } | Self::GroupNorm { at: place, .. } => {
                at(place, &["weight", "bias"], true)
            }
            Self::BatchNorm { at: place, .. } => {
                [at(place, &["weight", "bias"], true), at(place, &["running_mean", "running_var"], false)].concat()
            }
            Self::PrependToken { weight } | Self::AddLearned { weight } => vec![(weight.clone(), true)],
            Self::Attention(attention) => attention
                .projections
                .layers()
                .into_iter()
                .chain([&attention.output])
                .flat_map(Affine::tensors)
                .collect(),
            _ => Vec::new(),
        }
    }
}
