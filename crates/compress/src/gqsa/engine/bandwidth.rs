//! What the memory gives: the limit of every product.

use rayon::prelude::*;
use std::hint::black_box;
use std::time::Instant;

/// Values read as one piece by a thread.
const PIECE: usize = 1 << 17;

/// Bytes a second in which the threads of the current pool read `values` and add them up: the largest of `rounds`.
pub fn read_bandwidth(values: &[f32], rounds: usize) -> f64 {
    let mut best = 0f64;
    for _ in 0..rounds {
        let start = Instant::now();
        let sum: f32 = black_box(values)
            .par_chunks(PIECE)
            .map(|piece| {
                let mut sums = [0f32; 64];
                piece.as_chunks::<64>().0.iter().for_each(|part| sums.iter_mut().zip(part).for_each(|(s, x)| *s += x));
                sums.iter().sum::<f32>()
            })
            .sum();
        black_box(sum);
        best = best.max(size_of_val(values) as f64 / start.elapsed().as_secs_f64());
    }
    best
}
