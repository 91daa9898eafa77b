//! Trained models that are compiled into the crate, with their data: default runs need no files and no training.

use crate::model::windows;
pub use crate::subject::Subject;
use candle_core::DType;
use offprint_core::Result;
use offprint_nn::Network;
use offprint_nn::data::{Characters, digits};
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

impl Example {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::DigitsCnn => "digits-cnn",
            Self::DigitsVit => "digits-vit",
            Self::CharLm => "char-lm",
        }
    }

    /// The model with its data: images of digits split 1297 to 500, or windows of 64 characters of which the last tenth
    /// are for testing.
    ///
    /// # Errors
    /// None but those of the tensor library.
    pub fn load(self) -> Result<Subject> {
        let bytes: &'static [u8] = match self {
            Self::DigitsCnn => include_bytes!("../data/digits-cnn.safetensors"),
            Self::DigitsVit => include_bytes!("../data/digits-vit.safetensors"),
            Self::CharLm => include_bytes!("../data/char-lm.safetensors"),
        };
        let network = Network::from_bytes(bytes, self.name(), DType::F32)?;
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
