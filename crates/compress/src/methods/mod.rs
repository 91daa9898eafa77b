//! Methods that compress one layer's weights, behind one trait.
//!
//! A [`Target`] says what a layer is to become: levels, sparsity or both. A [`WeightMethod`] says how. What stands in the
//! target and what in the method is drawn so that the same targets can be given to every method.

mod adaround;
mod gptq;
mod lsq;
mod mask;
mod prune;
mod rtn;
mod sweep;

pub use adaround::AdaRound;
pub use gptq::{Gptq, SparseGpt};
pub use lsq::{LsqNetwork, LsqTraining};
pub use mask::{Scope, mask_lowest};
pub use prune::{Magnitude, Wanda, global_shares, survivors};
pub use rtn::Rtn;
pub use sweep::{Sweep, upper_factor};

use crate::calibration::{Calibration, Needs};
use crate::layer::Layer;
use crate::packed::{Packed, Pattern};
use crate::quantiser::Scheme;
use offprint_core::random::Stream;
use offprint_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// How many weights are pruned.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sparsity {
    /// This share of them, wherever.
    Unstructured(f64),
    /// All but `n` of each `m` neighbours in a row.
    NofM {
        /// Kept.
        n: usize,
        /// Of so many.
        m: usize,
    },
    /// This share of the groups of `size` neighbours in a row.
    Groups {
        /// Weights of a group.
        size: usize,
        /// Share of groups.
        share: f64,
    },
}

impl Sparsity {
    /// The pattern that masks of this sparsity have.
    pub fn pattern(&self) -> Pattern {
        match *self {
            Self::Unstructured(_) => Pattern::Unstructured,
            Self::NofM { n, m } => Pattern::NofM { n, m },
            Self::Groups { size, .. } => Pattern::Groups(size),
        }
    }

    /// Refuses shares outside 0 to below 1, and groups that do not divide the `inputs` columns of the layer `name`.
    pub fn check(&self, name: &str, inputs: usize) -> Result<()> {
        let (share, size) = match *self {
            Self::Unstructured(share) => (share, 1),
            Self::NofM { n, m } if n >= 1 && n < m => (0.0, m),
            Self::NofM { n, .. } => return Err(Error::parameter("n", n, "at least 1 and below m")),
            Self::Groups { size, share } => (share, size),
        };
        if !(0.0..1.0).contains(&share) {
            return Err(Error::parameter("sparsity", share, "at least 0 and below 1"));
        }
        if size == 0 || !inputs.is_multiple_of(size) {
            return Err(Error::parameter(
                "group",
                size,
                format!("a divisor of the {inputs} inputs of layer \"{name}\", to prune groups"),
            ));
        }
        Ok(())
    }
}

/// What a layer is to become.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Target {
    /// The levels of its weights; none leaves them floats.
    pub scheme: Option<Scheme>,
    /// What is pruned; none keeps all.
    pub sparsity: Option<Sparsity>,
}

impl Target {
    /// Levels only.
    pub fn quantised(scheme: Scheme) -> Self {
        Self { scheme: Some(scheme), sparsity: None }
    }

    /// Pruned only.
    pub fn pruned(sparsity: Sparsity) -> Self {
        Self { scheme: None, sparsity: Some(sparsity) }
    }

    /// Both.
    pub fn both(scheme: Scheme, sparsity: Sparsity) -> Self {
        Self { scheme: Some(scheme), sparsity: Some(sparsity) }
    }

    /// Refuses what does not fit the layer `name` with `inputs` columns.
    pub fn check(&self, name: &str, inputs: usize) -> Result<()> {
        self.scheme.map_or(Ok(()), |scheme| scheme.check(name, inputs))?;
        self.sparsity.map_or(Ok(()), |sparsity| sparsity.check(name, inputs))
    }

    /// The scheme of a method that only quantises.
    ///
    /// # Errors
    /// A target without levels, or with sparsity.
    pub fn scheme_only(&self, method: &str) -> Result<Scheme> {
        match (self.scheme, self.sparsity) {
            (Some(scheme), None) => Ok(scheme),
            (None, _) => Err(Error::parameter("bits", "none", format!("given: {method} quantises"))),
            (_, Some(_)) => Err(Error::parameter("sparsity", "some", format!("left out: {method} does not prune"))),
        }
    }

    /// The sparsity of a method that prunes.
    ///
    /// # Errors
    /// A target without sparsity.
    pub fn sparsity_of(&self, method: &str) -> Result<Sparsity> {
        self.sparsity.ok_or_else(|| Error::parameter("sparsity", "none", format!("given: {method} prunes")))
    }
}

/// A method that compresses one layer at a time.
pub trait WeightMethod {
    /// Short name: "gptq".
    fn name(&self) -> &str;

    /// What it must know of the layer's inputs to reach `target`.
    fn needs(&self, target: &Target) -> Needs;

    /// The layer compressed to `target`. `seen` holds at least what [`Self::needs`] asks for; random choices come from
    /// `stream`.
    ///
    /// # Errors
    /// A target that the method cannot reach.
    fn compress(&self, layer: &Layer, seen: &Calibration, target: &Target, stream: Stream) -> Result<Packed>;
}
