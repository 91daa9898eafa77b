//! Networks in files: safetensors, with the path, the shape and the target in the file's own words.

use super::layers::NetConfig;
use super::model::{Network, Target};
use crate::Path;
use offprint_core::{Error, Result};
use offprint_nn::Weights;
use offprint_nn::checkpoint::{Checkpoint, save};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// What a caller knows of a network before it reads it; a file that says otherwise is refused.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// Components of a point.
    pub dim: Option<usize>,
    /// The path.
    pub path: Option<Path>,
    /// Whether it must have classes.
    pub conditional: bool,
}

const SHAPE: &str = "offprint.network";
const PATH: &str = "offprint.path";
const TARGET: &str = "offprint.target";

impl Network {
    /// Writes weights and words to a `.safetensors` file, whole or not at all.
    pub fn save(&self, file: &std::path::Path) -> Result<()> {
        let words = BTreeMap::from([
            (SHAPE.to_owned(), word(self.config())?),
            (PATH.to_owned(), word(self.path())?),
            (TARGET.to_owned(), word(&self.target())?),
        ]);
        save(file, &self.params.snapshot()?, &words)
    }

    /// Reads a network that [`Self::save`] wrote.
    ///
    /// # Errors
    /// A file without the words or with tensors of other shapes, and one that contradicts what is `expected`.
    pub fn load(file: &std::path::Path, expected: &Expected) -> Result<Self> {
        let checkpoint = Checkpoint::open(file)?;
        let config: NetConfig = read(&checkpoint, SHAPE)?;
        let path: Path = read(&checkpoint, PATH)?;
        let target: Target = read(&checkpoint, TARGET)?;
        path.check().map_err(|e| Error::input(checkpoint.origin(), e.to_string()))?;
        let contradicts = |what: &str, has: String, wanted: String| {
            Err(Error::input(checkpoint.origin(), format!("is a network of {what} {has}, but {wanted} is asked for")))
        };
        if let Some(dim) = expected.dim.filter(|&dim| dim != config.dim) {
            return contradicts("dimension", config.dim.to_string(), dim.to_string());
        }
        if let Some(wanted) = expected.path.as_ref().filter(|&wanted| *wanted != path) {
            return contradicts("path", path.name(), wanted.name());
        }
        if expected.conditional && config.classes == 0 {
            return contradicts("classes", "0".into(), "a model with classes".into());
        }
        let weights = Weights::loaded(checkpoint, candle_core::DType::F32)?;
        Self::from_weights(&config, path, target, &weights)
    }
}

fn word(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::Numerical(format!("the network's words cannot be written: {e}")))
}

fn read<T: DeserializeOwned>(checkpoint: &Checkpoint, key: &str) -> Result<T> {
    let Some(word) = checkpoint.word(key) else {
        let problem = format!("has no word \"{key}\": it is not a network that was saved here");
        return Err(Error::input(checkpoint.origin(), problem));
    };
    serde_json::from_str(word).map_err(|e| Error::input(checkpoint.origin(), format!("\"{key}\" cannot be read: {e}")))
}
