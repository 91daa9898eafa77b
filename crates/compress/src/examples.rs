//! Trained models that are compiled into the crate, with their data: default runs need no files and no training.

use crate::model::windows;
use candle_core::DType;
use offprint_core::Result;
use offprint_nn::data::{Characters, digits};
use offprint_nn::{Batch, Network};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A model that is built in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Example {
    /// The convolutional network on handwritten digits: 33 k weights, test accuracy 0.99
    DigitsCnn,
    /// The vision transformer on handwritten digits: 27 k weights, test accuracy 0.95
    DigitsVit,
    /// The character model of Hamlet and Macbeth: 107 k weights, perplexity 6.2
    CharLm,
}

/// A network with samples to calibrate or train with, and others to test on.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The network, in single precision.
    pub network: Network,
    /// What it was trained on.
    pub train: Batch,
    /// What it was not.
    pub test: Batch,
}

impl Example {
    /// The model with its data: images of digits split 1297 to 500, or windows of 64 characters of which the last tenth
    /// are for testing.
    ///
    /// # Errors
    /// None but those of the tensor library.
    pub fn load(self) -> Result<Subject> {
        let (bytes, name): (&'static [u8], _) = match self {
            Self::DigitsCnn => (include_bytes!("../data/digits-cnn.safetensors"), "digits-cnn"),
            Self::DigitsVit => (include_bytes!("../data/digits-vit.safetensors"), "digits-vit"),
            Self::CharLm => (include_bytes!("../data/char-lm.safetensors"), "char-lm"),
        };
        let network = Network::from_bytes(bytes, name, DType::F32)?;
        let (train, test) = match self {
            Self::DigitsCnn | Self::DigitsVit => {
                let digits = digits(DType::F32)?;
                (digits.train, digits.test)
            }
            Self::CharLm => {
                let text = offprint_data::text();
                let tokens = Characters::of(text).encode(text)?;
                let (train, test) = tokens.split_at(tokens.len() / 10 * 9);
                (windows(train, 64)?, windows(test, 64)?)
            }
        };
        Ok(Subject { network, train, test })
    }
}
