//! What is compressed: a network with samples to calibrate or train with, and others to test on.

use crate::export::load;
use crate::model::windows;
use candle_core::DType;
use offprint_core::{Error, Result, Source};
use offprint_nn::data::labelled;
use offprint_nn::data::read_sequences;
use offprint_nn::derivatives::Loss;
use offprint_nn::{Batch, Network, Reads, computation};
use std::path::Path;

/// A network with samples to calibrate or train with, and others to test on.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The network, in single precision.
    pub network: Network,
    /// What it was trained on, or may be calibrated with.
    pub train: Batch,
    /// What it was not.
    pub test: Batch,
}

/// Samples of a user's: inputs, and targets if they do not stand in the last column (or, for tokens, are the next token).
#[derive(Debug, Clone, Copy)]
pub struct Samples<'a> {
    /// `.npy`, `.csv`, … as the network reads them; or JSON lines `{"text": …}` for a network over tokens with a
    /// `tokenizer.json` beside it.
    pub inputs: &'a Source,
    /// Classes (n), or next tokens (n, positions).
    pub targets: Option<&'a Source>,
}

impl Subject {
    /// The network at `model` (a directory with `config.json` and `.safetensors`, plain or in a format of
    /// [`export`](mod@crate::export), or one `.safetensors` file) with the user's samples. Without `train` the first half
    /// of `test` takes its place.
    ///
    /// # Errors
    /// Files that cannot be read, do not describe a model or do not fit it.
    pub fn open(model: &Path, test: Samples<'_>, train: Option<Samples<'_>>) -> Result<Self> {
        let network = open_network(model)?;
        let test = read(&network, model, test)?;
        let (train, test) = match train {
            Some(train) => (read(&network, model, train)?, test),
            None if test.len() < 2 => {
                let problem = "holds one sample, which cannot be halved into one to calibrate with and one to test on";
                return Err(Error::input("data", problem));
            }
            None => {
                let half = test.len() / 2;
                let cut = |start, length| test.narrow(start, length).map_err(computation);
                (cut(0, half)?, cut(half, test.len() - half)?)
            }
        };
        Ok(Self { network, train, test })
    }

    /// The first `count` training samples, or all of fewer.
    ///
    /// # Errors
    /// None but those of the tensor library.
    pub fn calibration(&self, count: usize) -> Result<Batch> {
        self.train.narrow(0, count.min(self.train.len())).map_err(computation)
    }
}

/// The network at `path`, in single precision, whether it was compressed or not.
///
/// # Errors
/// As [`Subject::open`].
pub fn open_network(path: &Path) -> Result<Network> {
    let exported = path.is_dir()
        && (path.join("model.gguf").is_file()
            || std::fs::read_to_string(path.join("config.json")).is_ok_and(|text| text.contains("_config\""))
            || path.join("quant.json").is_file());
    if exported { Ok(load(path)?.network) } else { Network::load(path, None, DType::F32) }
}

fn read(network: &Network, model: &Path, samples: Samples<'_>) -> Result<Batch> {
    let architecture = network.architecture();
    let lines = samples.inputs.path().filter(|path| path.extension().is_some_and(|ending| ending == "jsonl"));
    let tokenizer = model.join("tokenizer.json");
    match (lines, architecture.reads()) {
        (Some(path), Reads::Tokens { vocabulary, context }) if tokenizer.is_file() => {
            let tokens: Vec<u32> = read_sequences(path, &tokenizer)?.into_iter().flat_map(|text| text.tokens).collect();
            if let Some(token) = tokens.iter().find(|&&token| token as usize >= vocabulary) {
                let problem = format!("becomes token {token}, but the model knows 0 to {}", vocabulary - 1);
                return Err(Error::input(path.display().to_string(), problem));
            }
            windows(&tokens, context.min(tokens.len().saturating_sub(1)).max(1))
        }
        _ => labelled(architecture, Loss::CrossEntropy, samples.inputs, samples.targets, DType::F32),
    }
}
