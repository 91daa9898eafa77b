//! Uniform quantisers: which values a number may take, and how a number is brought to one of them.
//!
//! A [`Scheme`] says how many levels there are and which weights share a scale; fitted to a matrix it becomes a [`Grid`]
//! of scales and zeros, whose element is an [`Affine`]: code q = clip(round(w/s) + z), value (q − z) s. Every rounding is to
//! the nearest, ties to even.

mod activation;
mod affine;
mod grid;
mod lsq;
mod range;

pub use activation::{ActivationQuantiser, RangeTracker, Tracking};
pub use affine::Affine;
pub use grid::Grid;
pub use lsq::Lsq;
pub use range::{between, fit};

use offprint_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// The least scale: what a group of equal weights gets.
pub const LEAST_SCALE: f32 = 1e-8;

/// Which weights of a matrix (out, in) share a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Granularity {
    /// All.
    Tensor,
    /// Those of a row: an output channel.
    Row,
    /// So many neighbours in a row.
    Group(usize),
}

/// What the zero of an asymmetric quantiser may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ZeroPoint {
    /// A code, so that 0 is exact.
    Code,
    /// A whole number, perhaps beyond the codes: for ranges that need not hold 0.
    Whole,
    /// Any number: the range is met exactly at both ends.
    Float,
}

/// How the range of a group is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Range {
    /// From the least to the greatest weight.
    MinMax,
    /// Both ends shrunk by 0 to 79 hundredths, whichever leaves the least Σ|w − ŵ|^2.4 (BRECQ).
    Mse80,
}

/// A uniform quantiser before it has seen a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheme {
    /// Bits of a code: 1 to 8, at least 2 if symmetric.
    pub bits: u32,
    /// Levels on both sides of 0, codes from −2^(b−1); otherwise codes from 0 with a zero of their own.
    pub symmetric: bool,
    /// Which weights share a scale.
    pub granularity: Granularity,
    /// What the zero may be, if not symmetric.
    pub zero: ZeroPoint,
    /// Whether the range of an asymmetric quantiser is widened to hold 0.
    pub holds_zero: bool,
    /// How the range is found.
    pub range: Range,
    /// Whether scales are rounded to half precision before anything else, as formats that store them so need.
    pub half_scales: bool,
}

impl Scheme {
    /// `bits` bits, asymmetric with the zero a code, one scale a row, from least to greatest.
    pub fn asymmetric(bits: u32) -> Self {
        Self {
            bits,
            symmetric: false,
            granularity: Granularity::Row,
            zero: ZeroPoint::Code,
            holds_zero: true,
            range: Range::MinMax,
            half_scales: false,
        }
    }

    /// `bits` bits, symmetric, one scale a row, from least to greatest.
    pub fn symmetric(bits: u32) -> Self {
        Self { symmetric: true, ..Self::asymmetric(bits) }
    }

    /// With one scale for each `size` neighbours of a row.
    #[must_use]
    pub fn grouped(self, size: usize) -> Self {
        Self { granularity: Granularity::Group(size), ..self }
    }

    /// With another way to find ranges.
    #[must_use]
    pub fn ranged(self, range: Range) -> Self {
        Self { range, ..self }
    }

    /// First and last code.
    pub fn codes(&self) -> (i32, i32) {
        if self.symmetric { (-(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1) } else { (0, (1 << self.bits) - 1) }
    }

    /// Refuses bits outside 1 to 8, one bit if symmetric, and groups that do not divide the `inputs` columns of the layer
    /// `name`.
    pub fn check(&self, name: &str, inputs: usize) -> Result<()> {
        let least = if self.symmetric { 2 } else { 1 };
        if !(least..=8).contains(&self.bits) {
            return Err(Error::parameter("bits", self.bits, format!("between {least} and 8")));
        }
        match self.granularity {
            Granularity::Group(size) if size == 0 || !inputs.is_multiple_of(size) => {
                Err(Error::parameter("group", size, format!("a divisor of the {inputs} inputs of layer \"{name}\"")))
            }
            _ => Ok(()),
        }
    }

    /// Columns that share a scale in a matrix of `inputs` columns.
    pub fn group(&self, inputs: usize) -> usize {
        match self.granularity {
            Granularity::Group(size) => size,
            Granularity::Row | Granularity::Tensor => inputs,
        }
    }
}
