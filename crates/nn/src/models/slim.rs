//! Models whose layers have widths of their own: what structured pruning leaves of the regular ones.

use super::{GptConfig, LlamaConfig, ResNetConfig, ViTConfig};
use crate::network::Architecture;
use offprint_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// The shape of one block of a transformer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockShape {
    /// Attention heads.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Hidden width of the perceptron.
    pub mlp: usize,
}

/// A regular shape, and the widths in which the model departs from it. In JSON the fields of the regular shape and those
/// of the departure side by side: `{"of": "resnet", "channels": 1, "widths": [9, 7], "blocks": 1, "classes": 3, "inner":
/// [5, 4]}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "of", rename_all = "snake_case")]
pub enum Slim {
    /// The small convolutional network.
    DigitsCnn {
        /// Number of classes.
        classes: usize,
        /// Channels of the four convolutions; the second and the third have as many, for the skip between them.
        widths: [usize; 4],
    },
    /// A residual network.
    #[serde(rename = "resnet")]
    ResNet {
        /// Stages and classes.
        #[serde(flatten)]
        config: ResNetConfig,
        /// Channels between the two convolutions of each block, in order.
        inner: Vec<usize>,
    },
    /// A vision transformer.
    #[serde(rename = "vit")]
    ViT {
        /// What the blocks share.
        #[serde(flatten)]
        config: ViTConfig,
        /// Each block.
        shapes: Vec<BlockShape>,
    },
    /// A decoder with learned positions.
    Gpt {
        /// What the blocks share.
        #[serde(flatten)]
        config: GptConfig,
        /// Each block.
        shapes: Vec<BlockShape>,
    },
    /// A LLaMA-like decoder; heads keep their width and share keys and values as in the regular one.
    Llama {
        /// What the blocks share.
        #[serde(flatten)]
        config: LlamaConfig,
        /// Each block.
        shapes: Vec<BlockShape>,
    },
}

impl Slim {
    /// The regular architecture: what goes in and what comes out is the same.
    pub fn regular(&self) -> Architecture {
        match self.clone() {
            Self::DigitsCnn { classes, .. } => Architecture::DigitsCnn { classes },
            Self::ResNet { config, .. } => Architecture::ResNet(config),
            Self::ViT { config, .. } => Architecture::ViT(config),
            Self::Gpt { config, .. } => Architecture::Gpt(config),
            Self::Llama { config, .. } => Architecture::Llama(config),
        }
    }
}

/// Refuses shapes that are not one for each of `depth` blocks, or have a width of 0.
pub(super) fn check_shapes(shapes: &[BlockShape], depth: usize) -> Result<()> {
    if shapes.len() != depth {
        return Err(Error::parameter(
            "shapes",
            format!("{} of them", shapes.len()),
            format!("one for each of {depth} blocks"),
        ));
    }
    match shapes.iter().position(|s| s.heads == 0 || s.head_dim == 0 || s.mlp == 0) {
        Some(i) => Err(Error::parameter(format!("shapes[{i}]"), format!("{:?}", shapes[i]), "widths of at least 1")),
        None => Ok(()),
    }
}
