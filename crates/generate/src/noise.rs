//! Gaussian noise addressed by step and row, so that results do not depend on the number of threads.

use ndarray::{Array2, Axis};
use offprint_core::random::Stream;
use offprint_math::normal;
use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

/// Rows of one task: enough work to be worth a thread.
fn rows_of_a_task(d: usize) -> usize {
    4096usize.div_ceil(d.max(1))
}

/// Standard normal numbers (n, d); row i comes from generator `first + i` of `stream`.
pub fn normals(n: usize, d: usize, stream: Stream, first: u64) -> Array2<f64> {
    let mut values = Array2::zeros((n, d));
    let rows = values.axis_iter_mut(Axis(0)).into_par_iter().with_min_len(rows_of_a_task(d)).enumerate();
    rows.for_each(|(i, mut row)| {
        let mut rng = stream.rng(first + i as u64);
        row.iter_mut().for_each(|z| *z = StandardNormal.sample(&mut rng));
    });
    values
}

/// The noise of a sampler: fresh numbers for each step and row, made by vector instructions ([`offprint_math::normal`]),
/// because it would otherwise cost as much as everything else beside the model.
#[derive(Debug, Clone, Copy)]
pub struct Noise {
    stream: Stream,
}

impl Noise {
    /// Noise from `stream`.
    pub fn new(stream: Stream) -> Self {
        Self { stream }
    }

    /// Adds `scale` times the standard normal numbers of step `step` to `y` (n, d). The same step has the same numbers.
    pub fn add(&self, step: usize, scale: f64, y: &mut Array2<f64>) {
        let d = y.ncols();
        let key = self.stream.rng(step as u64).random();
        // Points stand row by row; a table that does not is put in order first.
        if !y.is_standard_layout() {
            *y = y.as_standard_layout().into_owned();
        }
        let values = y.as_slice_mut().expect("in order");
        values.par_chunks_exact_mut(d.max(1)).with_min_len(rows_of_a_task(d)).enumerate().for_each(|(i, row)| {
            normal::add(row, scale, normal::keyed(key, i as u64));
        });
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
        let noise = Noise::new(stream);
        let mut y = [Array2::zeros((2, 3)), Array2::zeros((2, 3)), Array2::zeros((2, 3))];
        for (y, step) in y.iter_mut().zip([0, 1, 0]) {
            noise.add(step, 2.0, y);
        }
        assert!(y[0] == y[2] && y[0] != y[1]);
        let many = |rows: usize| {
            let mut y = Array2::zeros((rows, 40));
            noise.add(5, 1.0, &mut y);
            y
        };
        assert_eq!(many(300).slice(ndarray::s![..100, ..]), many(100));
        assert_eq!(one.install(|| many(300)), many(300));
    }
}
