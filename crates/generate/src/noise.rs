//! Gaussian noise addressed by step and row, so that results do not depend on the number of threads.

use ndarray::{Array2, ArrayViewMut2, Axis};
use offprint_core::random::Stream;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

/// Standard normal numbers (n, d); row i comes from generator `first + i` of `stream`.
pub fn normals(n: usize, d: usize, stream: Stream, first: u64) -> Array2<f64> {
    let mut values = Array2::zeros((n, d));
    fill(values.view_mut(), stream, first);
    values
}

fn fill(mut values: ArrayViewMut2<'_, f64>, stream: Stream, first: u64) {
    // Rows of one task: enough work to be worth a thread.
    let least = 4096usize.div_ceil(values.ncols().max(1));
    values.axis_iter_mut(Axis(0)).into_par_iter().with_min_len(least).enumerate().for_each(|(i, mut row)| {
        let mut rng = stream.rng(first + i as u64);
        row.iter_mut().for_each(|z| *z = StandardNormal.sample(&mut rng));
    });
}

/// The noise of a sampler: fresh numbers for each step.
#[derive(Debug, Clone)]
pub struct Noise {
    stream: Stream,
    buffer: Array2<f64>,
}

impl Noise {
    /// Noise for `n` points in `d` dimensions.
    pub fn new(stream: Stream, n: usize, d: usize) -> Self {
        Self { stream, buffer: Array2::zeros((n, d)) }
    }

    /// Adds `scale` times the standard normal numbers of step `step` to `y` (n, d). The same step has the same numbers.
    ///
    /// # Panics
    /// If the shape is not that of the noise.
    pub fn add(&mut self, step: usize, scale: f64, y: &mut Array2<f64>) {
        // The first row of a step stands 2³² after that of the step before.
        fill(self.buffer.view_mut(), self.stream, (step as u64) << 32);
        y.scaled_add(scale, &self.buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use offprint_core::random::Streams;

    #[test]
    fn rows_depend_on_their_address_alone() {
        let stream = Streams::new(1).stream("noise");
        let (all, tail) = (normals(300, 40, stream, 0), normals(100, 40, stream, 200));
        assert_eq!(all.slice(ndarray::s![200.., ..]), tail);
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(one.install(|| normals(300, 40, stream, 0)), all);
        let mut noise = Noise::new(stream, 2, 3);
        let mut y = [Array2::zeros((2, 3)), Array2::zeros((2, 3)), Array2::zeros((2, 3))];
        for (y, step) in y.iter_mut().zip([0, 1, 0]) {
            noise.add(step, 2.0, y);
        }
        assert!(y[0] == y[2] && y[0] != y[1]);
    }
}
