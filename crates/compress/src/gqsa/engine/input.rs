//! The vector that a matrix is multiplied by, prepared once for all matrices that read it.

use super::group::GROUP;
use offprint_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the vector enters the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// As it is, in single precision: the product is that of the dequantised matrix, up to rounding.
    Single,
    /// Rounded to 8 bits with a scale for each 16 values: integer products, an error of about one per cent.
    Int8,
    /// Rounded to 8 bits with one scale for the vector: fewer instructions, a larger error where sizes differ.
    Int8Vector,
}

/// Sixteen values in 8 bits, on a cache line's half of their own so that one address serves all of it.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C, align(32))]
pub struct Block {
    /// Codes in −127..=127.
    pub codes: [i8; GROUP],
    /// Scale, and scale times the sum of the codes, which multiplies the zero of a group of weights.
    pub scale_and_sum: [f32; 2],
}

/// A vector ready to be multiplied.
#[derive(Debug, Clone)]
pub struct Input {
    len: usize,
    precision: Precision,
    /// In single precision.
    pub(super) values: Vec<f32>,
    /// Sums of the values of each 16, for the zeros of the weights; with integer products before [`Self::factor`].
    pub(super) sums: Vec<f32>,
    /// Scales of the blocks, side by side for those who read them in order.
    pub(super) scales: Vec<f32>,
    /// In 8 bits; empty in single precision.
    pub(super) blocks: Vec<Block>,
    /// What the integer products are multiplied by in the end: the scale of [`Precision::Int8Vector`], else 1.
    pub(super) factor: f32,
}

/// Vectors are filled up with zeros to this, the widest record of any format.
const PADDED_TO: usize = 128;

impl Input {
    /// Prepares `x` (columns).
    ///
    /// # Errors
    /// A value that is not finite.
    pub fn new(x: &[f32], precision: Precision) -> Result<Self> {
        if let Some(i) = x.iter().position(|x| !x.is_finite()) {
            return Err(Error::input("x", format!("value {i} is {}; every value must be finite", x[i])));
        }
        let mut input = Self {
            len: x.len(),
            precision,
            values: x.to_vec(),
            sums: Vec::new(),
            scales: Vec::new(),
            blocks: Vec::new(),
            factor: 1.0,
        };
        input.values.resize(x.len().next_multiple_of(PADDED_TO), 0.0);
        let (groups, _) = input.values.as_chunks::<GROUP>();
        match precision {
            Precision::Single => {
                input.sums = groups.iter().map(|group| group.iter().sum()).collect();
                return Ok(input);
            }
            Precision::Int8 => {
                input.blocks = groups.iter().map(|group| Block::rounded(group, scale_of(group))).collect();
            }
            Precision::Int8Vector => {
                let scale = scale_of(&input.values);
                // The scale comes in at the end, so here sums are of the codes alone.
                input.blocks = groups.iter().map(|group| Block::rounded(group, scale).unscaled()).collect();
                input.factor = scale;
            }
        }
        input.scales = input.blocks.iter().map(|block| block.scale_and_sum[0]).collect();
        input.sums = input.blocks.iter().map(|block| block.scale_and_sum[1]).collect();
        Ok(input)
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How it enters products.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The values that the products are exact for: the given ones, or what their 8 bits stand for.
    pub fn effective(&self) -> Vec<f32> {
        let mut values = self.values.clone();
        if self.precision != Precision::Single {
            for (values, block) in values.as_chunks_mut::<GROUP>().0.iter_mut().zip(&self.blocks) {
                let scale = block.scale_and_sum[0] * self.factor;
                *values = block.codes.map(|code| f32::from(code) * scale);
            }
        }
        values.truncate(self.len);
        values
    }
}

/// The scale that puts the largest of `values` at 127; 0 if all are 0.
fn scale_of(values: &[f32]) -> f32 {
    values.iter().fold(0.0f32, |largest, x| largest.max(x.abs())) / 127.0
}

impl Block {
    fn rounded(values: &[f32; GROUP], scale: f32) -> Self {
        // A scale of 0, or one whose inverse overflows, belongs to values that 8 bits cannot tell from 0.
        let inverse = 1.0 / scale;
        if !inverse.is_finite() {
            return Self::default();
        }
        let codes = values.map(|x| (x * inverse).round_ties_even().clamp(-127.0, 127.0) as i8);
        let sum: i32 = codes.iter().map(|&code| i32::from(code)).sum();
        Self { codes, scale_and_sum: [scale, scale * sum as f32] }
    }

    fn unscaled(self) -> Self {
        let sum: i32 = self.codes.iter().map(|&code| i32::from(code)).sum();
        Self { scale_and_sum: [1.0, sum as f32], ..self }
    }
}
