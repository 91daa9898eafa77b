//! A learner's whole state as a `.safetensors` file: a run that goes on from it equals one that never stopped.

use super::{Preprocessing, State, Whitening};
use clap::ValueEnum;
use ndarray::{Array1, Array2, Ix1, Ix2};
use offprint_core::artifact::{self, Arrays, Metadata};
use offprint_core::{Array, Error, Result};
use std::path::Path;

/// What tells these files from other `.safetensors`.
const FORMAT: &str = "offprint-oodl-1";

/// Everything that a [`Pipeline`](super::Pipeline) carries, and where in its input it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// The learner's matrices; `None` while the burn-in lasts.
    pub state: Option<State>,
    /// The map to learning coordinates; `None` while the burn-in lasts.
    pub preprocessing: Option<Preprocessing>,
    /// Samples taken but not learned from yet: an unfinished batch or burn-in, (p, N).
    pub pending: Array2<f64>,
    /// Samples learned from.
    pub learned: u64,
    /// Samples shortened because they were outliers.
    pub clipped: u64,
    /// Sum of the squared lengths of the samples learned from, in learning coordinates.
    pub energy: f64,
    /// Where in the input it stands.
    pub position: Position,
}

/// A place in an input.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Position {
    /// The input in words.
    pub source: String,
    /// Passes over it that are complete.
    pub epoch: u64,
    /// Samples taken in the current pass.
    pub taken: u64,
}

impl Checkpoint {
    /// Named arrays and words, as [`Run::save_arrays`](offprint_core::Run::save_arrays) takes them.
    pub fn to_arrays(&self) -> (Arrays, Metadata) {
        let mut arrays = Arrays::new();
        let mut words = Metadata::new();
        let mut say = |name: &str, value: String| words.insert(name.to_owned(), value);
        say("format", FORMAT.to_owned());
        // `{:?}` of an f64 reads back to the same bits.
        say("learned", self.learned.to_string());
        say("clipped", self.clipped.to_string());
        say("energy", format!("{:?}", self.energy));
        say("source", self.position.source.clone());
        say("epoch", self.position.epoch.to_string());
        say("taken", self.position.taken.to_string());
        if let Some(state) = &self.state {
            say("steps", state.steps.to_string());
            say("unit", format!("{:?}", state.unit));
            arrays.insert("dictionary".into(), state.dictionary.clone().into());
            arrays.insert("gradient".into(), state.gradient.clone().into());
        }
        if let Some(p) = &self.preprocessing {
            say("whitening", p.kind.to_possible_value().expect("no variant is hidden").get_name().to_owned());
            arrays.insert("mean".into(), p.mean.clone().into());
            arrays.insert("forward".into(), p.forward.clone().into());
            arrays.insert("backward".into(), p.backward.clone().into());
        }
        arrays.insert("pending".into(), self.pending.clone().into());
        (arrays, words)
    }

    /// Reads a file written from [`to_arrays`](Self::to_arrays).
    ///
    /// # Errors
    /// A file that is none of these, or whose parts do not fit together.
    pub fn read(path: &Path) -> Result<Self> {
        let (arrays, words) = artifact::read_safetensors(path)?;
        let mut parts = Parts { name: path.display().to_string(), arrays, words };
        if parts.words.get("format").map(String::as_str) != Some(FORMAT) {
            return Err(
                parts.bad("is not a checkpoint of this method (metadata \"format\" is not \"offprint-oodl-1\")")
            );
        }
        let state = if parts.arrays.contains_key("dictionary") {
            Some(State {
                dictionary: parts.matrix("dictionary")?,
                gradient: parts.matrix("gradient")?,
                steps: parts.number("steps")?,
                unit: parts.number("unit")?,
            })
        } else {
            None
        };
        let preprocessing = if parts.arrays.contains_key("mean") {
            let kind = Whitening::from_str(&parts.word("whitening")?, false).map_err(|e| parts.bad(&e))?;
            let (mean, forward, backward) =
                (parts.vector("mean")?, parts.matrix("forward")?, parts.matrix("backward")?);
            Some(Preprocessing { kind, mean, forward, backward })
        } else {
            None
        };
        let checkpoint = Self {
            pending: parts.matrix("pending")?,
            learned: parts.number("learned")?,
            clipped: parts.number("clipped")?,
            energy: parts.number("energy")?,
            position: Position {
                source: parts.word("source")?,
                epoch: parts.number("epoch")?,
                taken: parts.number("taken")?,
            },
            state,
            preprocessing,
        };
        let fits = match (&checkpoint.state, &checkpoint.preprocessing) {
            (Some(s), Some(p)) => {
                p.forward.dim() == p.backward.dim()
                    && p.mean.len() == p.inputs()
                    && p.inputs() == checkpoint.pending.ncols()
                    && s.dictionary.dim() == (p.rank(), p.rank())
                    && s.gradient.dim() == (p.rank(), p.rank())
            }
            (None, None) => true,
            _ => false,
        };
        if fits { Ok(checkpoint) } else { Err(parts.bad("holds arrays whose shapes do not fit together")) }
    }
}

struct Parts {
    name: String,
    arrays: Arrays,
    words: Metadata,
}

impl Parts {
    fn bad(&self, problem: &str) -> Error {
        Error::input(self.name.clone(), problem)
    }

    fn word(&self, key: &str) -> Result<String> {
        self.words.get(key).cloned().ok_or_else(|| self.bad(&format!("lacks the metadata \"{key}\"")))
    }

    fn number<T: std::str::FromStr>(&self, key: &str) -> Result<T> {
        self.word(key)?.parse().map_err(|_| self.bad(&format!("has metadata \"{key}\" that is no number")))
    }

    fn array(&mut self, key: &str) -> Result<ndarray::ArrayD<f64>> {
        let array = self.arrays.remove(key).and_then(Array::into_f64);
        let array = array.ok_or_else(|| self.bad(&format!("lacks the real array \"{key}\"")))?;
        if array.iter().all(|x| x.is_finite()) {
            Ok(array)
        } else {
            Err(self.bad(&format!("has entries in \"{key}\" that are not finite")))
        }
    }

    fn matrix(&mut self, key: &str) -> Result<Array2<f64>> {
        let array = self.array(key)?;
        array.into_dimensionality::<Ix2>().map_err(|_| self.bad(&format!("holds \"{key}\", but not as a matrix")))
    }

    fn vector(&mut self, key: &str) -> Result<Array1<f64>> {
        let array = self.array(key)?;
        array.into_dimensionality::<Ix1>().map_err(|_| self.bad(&format!("holds \"{key}\", but not as a vector")))
    }
}
