//! Networks in files: safetensors, with the path, the shape and the target in the file's own words.

use super::clock::Clock;
use super::model::{Network, Target};
use super::net::{Net, Shape};
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
/// Absent in files of perceptrons, which have always been told ln(σ)/4.
const CLOCK: &str = "offprint.clock";

impl Network {
    /// Writes weights and words to a `.safetensors` file, whole or not at all.
    ///
    /// # Errors
    /// A file that cannot be written; a model from elsewhere, whose weights stay in its own file.
    pub fn save(&self, file: &std::path::Path) -> Result<()> {
        let Some(shape) = self.shape() else {
            return Err(Error::parameter("model", "an ONNX model", "a network that was trained here, to be saved"));
        };
        let words = BTreeMap::from([
            (SHAPE.to_owned(), word(&shape)?),
            (CLOCK.to_owned(), word(&self.clock())?),
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
        let shape: Shape = read(&checkpoint, SHAPE)?;
        let path: Path = read(&checkpoint, PATH)?;
        let target: Target = read(&checkpoint, TARGET)?;
        let clock: Clock = match checkpoint.word(CLOCK) {
            Some(_) => read(&checkpoint, CLOCK)?,
            None => shape.clock(),
        };
        path.check().map_err(|e| Error::input(checkpoint.origin(), e.to_string()))?;
        let origin = checkpoint.origin();
        let weights = Weights::loaded(checkpoint, candle_core::DType::F32)?;
        let network = Self::assemble(Net::new(&shape, &weights)?, &weights, (path, target, clock))?;
        expected.meets(&network, &origin)?;
        Ok(network)
    }
}

impl Expected {
    /// Refuses a network from `origin` that is not as expected.
    pub(super) fn meets(&self, network: &Network, origin: &str) -> Result<()> {
        let contradicts = |what: &str, has: String, wanted: String| {
            Err(Error::input(origin, format!("is a network of {what} {has}, but {wanted} is asked for")))
        };
        if let Some(dim) = self.dim.filter(|&dim| dim != network.dim()) {
            return contradicts("dimension", network.dim().to_string(), dim.to_string());
        }
        if let Some(wanted) = self.path.as_ref().filter(|&wanted| wanted != network.path()) {
            return contradicts("path", network.path().name(), wanted.name());
        }
        if self.conditional && network.classes() == 0 {
            return contradicts("classes", "0".into(), "a model with classes".into());
        }
        Ok(())
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
