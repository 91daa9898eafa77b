//! How long products take, as they are asked for by a decoder: each matrix once, then the next.

use super::{Gemv, Input, Instructions, Precision, Split};
use ndarray::{Array1, Array2};
use offprint_core::Result;
use offprint_core::random::Stream;
use offprint_math::stats::median;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;
use std::time::Instant;

/// Where the matrices lie when they are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Regime {
    /// So many of them that none is left in a cache when its turn comes.
    Memory,
    /// One, in the cache from the product before.
    Cache,
}

impl Regime {
    /// As many matrices of so many bytes as it needs.
    pub fn copies(self, bytes: usize) -> usize {
        match self {
            Self::Memory => (2 * last_cache() / bytes.max(1) + 1).clamp(4, 4096),
            Self::Cache => 1,
        }
    }
}

/// Products that are timed: which, how often, where from.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Where the matrices lie.
    pub regime: Regime,
    /// How the vector enters.
    pub precision: Precision,
    /// How rows are shared out.
    pub split: Split,
    /// With which instructions.
    pub with: Instructions,
    /// Timed products; the result is their median.
    pub rounds: usize,
}

impl Timing {
    /// In tasks of equal work with the widest instructions, 21 products.
    pub fn new(regime: Regime, precision: Precision) -> Self {
        Self { regime, precision, split: Split::Tasks, with: Instructions::best(), rounds: 21 }
    }

    /// Seconds a product of `matrix` on the threads of the current pool, after three that are not counted.
    ///
    /// # Errors
    /// None but those of an `x` that is not finite.
    pub fn of(&self, matrix: &dyn Gemv, x: &[f32]) -> Result<f64> {
        self.of_all(&self.copies(matrix), x)
    }

    /// As many of `matrix` as the regime needs: in all more than twice the last cache, and at least four.
    pub fn copies(&self, matrix: &dyn Gemv) -> Vec<Box<dyn Gemv>> {
        (0..self.regime.copies(matrix.bytes())).map(|_| matrix.copy()).collect()
    }

    /// [`Self::of`] over `matrices` that are there already, one after the other.
    pub fn of_all(&self, matrices: &[Box<dyn Gemv>], x: &[f32]) -> Result<f64> {
        let input = Input::new(x, self.precision)?;
        let mut y = vec![0.0; matrices.first().map_or(0, |m| m.shape().0)];
        let mut seconds = Vec::with_capacity(self.rounds);
        for (round, matrix) in matrices.iter().cycle().take(self.rounds + 3).enumerate() {
            let start = Instant::now();
            matrix.multiply_by(&input, &mut y, self.split, self.with);
            if round >= 3 {
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
        std::hint::black_box(&y);
        Ok(median(&seconds))
    }
}

/// The size of the last cache in bytes, as the system tells it; 32 MiB if it does not.
pub fn last_cache() -> usize {
    let size = |index: usize| -> Option<usize> {
        let text = std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index{index}/size")).ok()?;
        let text = text.trim();
        let unit = match text.chars().last()? {
            'K' => 1 << 10,
            'M' => 1 << 20,
            _ => 1,
        };
        Some(text.trim_end_matches(['K', 'M']).parse::<usize>().ok()? * unit)
    };
    (0..8).filter_map(size).max().unwrap_or(32 << 20)
}

/// Normal weights (rows, columns) of deviation 0.02, drawn row by row.
pub fn random_weights(rows: usize, columns: usize, stream: Stream) -> Array2<f32> {
    let mut weights = Array2::zeros((rows, columns));
    weights.as_slice_mut().expect("made in C order").par_chunks_mut(columns.max(1)).enumerate().for_each(
        |(row, weights)| {
            let mut rng = stream.rng(row as u64);
            weights.iter_mut().for_each(|w| {
                let z: f32 = StandardNormal.sample(&mut rng);
                *w = 0.02 * z;
            });
        },
    );
    weights
}

/// A normal vector.
pub fn random_vector(n: usize, stream: Stream) -> Vec<f32> {
    let mut rng = stream.rng(0);
    Array1::from_shape_simple_fn(n, || StandardNormal.sample(&mut rng)).to_vec()
}
