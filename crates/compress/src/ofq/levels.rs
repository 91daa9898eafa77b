//! The levels of a weight and where they meet.
//!
//! Both quantisers look at a weight in units in which neighbouring levels are 1 apart: its *position* u. The code is the
//! nearest whole number, ties to even, and codes change at the *boundaries* i + ½.

use serde::{Deserialize, Serialize};

/// The least scale of a row: that of a row of zeros.
pub const LEAST_SCALE: f32 = 1e-8;

/// Keeps the largest weights below the boundary that would lie beyond the last level.
const BELOW_ONE: f32 = 1.0 - 1e-6;

/// The levels that a weight of scale s can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Levels {
    /// Half-integers on both sides of 0, which is not among them: s (k + ½)/n for k = −n … n − 1 with n = 2^(b−1). The
    /// levels of StatsQ.
    Halves {
        /// b, from 1 to 8.
        bits: u32,
    },
    /// Multiples of the scale: s k. The levels of LSQ.
    Whole {
        /// First code.
        first: i32,
        /// Last code.
        last: i32,
    },
}

impl Levels {
    /// First and last code.
    pub fn codes(self) -> (i32, i32) {
        match self {
            Self::Halves { bits } => (-(1 << (bits - 1)), (1 << (bits - 1)) - 1),
            Self::Whole { first, last } => (first, last),
        }
    }

    /// Where `w` lies between the codes.
    #[inline(always)]
    pub fn position(self, w: f32, scale: f32) -> f32 {
        match self {
            Self::Halves { bits } => (w / scale).clamp(-1.0, BELOW_ONE) * (1_u32 << (bits - 1)) as f32 - 0.5,
            Self::Whole { first, last } => (w / scale).clamp(first as f32, last as f32),
        }
    }

    /// The code of `w`. A weight that is not finite has one too.
    #[inline(always)]
    pub fn code(self, w: f32, scale: f32) -> i32 {
        let (first, last) = self.codes();
        // With one bit the position −3/2 is a tie with a code that does not exist.
        (self.position(w, scale).round_ties_even() as i32).clamp(first, last)
    }

    /// The value of `code`. For half-integers it is an odd whole number of steps s/2n, which is what is computed: an
    /// integer product with 2k + 1 gives the same bits.
    #[inline(always)]
    pub fn value(self, code: i32, scale: f32) -> f32 {
        match self {
            Self::Halves { bits } => scale / (1_u32 << bits) as f32 * (2 * code + 1) as f32,
            Self::Whole { .. } => scale * code as f32,
        }
    }

    /// How far `position` is from the nearest boundary between two levels.
    #[inline(always)]
    pub fn to_boundary(self, position: f32) -> f32 {
        let (first, last) = self.codes();
        let below = position.floor().clamp(first as f32, (last - 1) as f32);
        (position - below - 0.5).abs()
    }
}

/// StatsQ's scales: s = 2 mean|w| of each row of `weights` with `columns` columns, at least [`LEAST_SCALE`].
pub fn stats_scales(weights: &[f32], columns: usize) -> Vec<f32> {
    weights.chunks(columns.max(1)).map(|row| (2.0 * sum_abs(row) / row.len() as f32).max(LEAST_SCALE)).collect()
}

/// Σ|w| in sixteen partial sums, which a processor adds side by side and which keep rounding small.
fn sum_abs(row: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 16];
    let (whole, rest) = row.as_chunks::<16>();
    for part in whole {
        sums.iter_mut().zip(part).for_each(|(sum, w)| *sum += w.abs());
    }
    sums.iter().sum::<f32>() + rest.iter().map(|w| w.abs()).sum::<f32>()
}

/// `weights` brought to their levels: rows of `columns` columns, whose `scales` are used in turn.
pub fn to_levels(weights: &[f32], columns: usize, levels: Levels, scales: &[f32]) -> Vec<f32> {
    let mut values = vec![0.0; weights.len()];
    let rows = weights.chunks(columns.max(1)).zip(values.chunks_mut(columns.max(1)));
    for (row, (weights, values)) in rows.enumerate() {
        let scale = scales[row % scales.len()];
        match levels {
            Levels::Halves { bits } => halves(weights, scale, bits, values),
            Levels::Whole { .. } => {
                values.iter_mut().zip(weights).for_each(|(v, &w)| *v = levels.value(levels.code(w, scale), scale));
            }
        }
    }
    values
}

/// The inner loop of StatsQ, in floats throughout so that it becomes vector instructions.
fn halves(weights: &[f32], scale: f32, bits: u32, values: &mut [f32]) {
    let n = (1_u32 << (bits - 1)) as f32;
    let step = scale / (2.0 * n);
    for (value, &w) in values.iter_mut().zip(weights) {
        let position = (w / scale).clamp(-1.0, BELOW_ONE) * n - 0.5;
        let code = position.round_ties_even().max(-n);
        *value = step * (2.0 * code + 1.0);
    }
}
