//! Models, one plain file each: a config, the layers under the names of published checkpoints, `new` and `forward`.

pub mod attention;
mod bert;
mod digits_cnn;
mod gpt;
mod llama;
mod mlp;
mod resnet;
mod sentence;
mod slim;
mod time;
mod unet;
mod vit;

pub use bert::{Bert, BertConfig};
pub use digits_cnn::DigitsCnn;
pub use gpt::{Gpt, GptConfig, Norm};
pub use llama::{Llama, LlamaConfig};
pub use mlp::{Activation, Mlp, MlpConfig};
pub use resnet::{ResNet, ResNetConfig};
pub use sentence::SentenceEncoder;
pub use slim::{BlockShape, Slim};
pub use time::{TimeEmbedding, TimeMlp, TimeMlpConfig, sinusoids};
pub use unet::{UNet, UNetConfig};
pub use vit::{ViT, ViTConfig};

use offprint_core::{Error, Result};

/// Refuses a width of 0, by name.
fn at_least_one(sizes: &[(&str, usize)]) -> Result<()> {
    match sizes.iter().find(|(_, size)| *size == 0) {
        Some((name, size)) => Err(Error::parameter(*name, size, "at least 1")),
        None => Ok(()),
    }
}

/// Refuses heads that do not divide the width.
fn heads_divide(width: usize, heads: usize, name: &str) -> Result<()> {
    at_least_one(&[("width", width), (name, heads)])?;
    if width.is_multiple_of(heads) {
        Ok(())
    } else {
        Err(Error::parameter(name, heads, format!("a divisor of the width {width}")))
    }
}
