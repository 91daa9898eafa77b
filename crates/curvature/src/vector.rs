//! Inner products, norms and sums of long vectors, in `f64` and in an order that does not depend on threads.

use crate::{Real, wide};
use ndarray::ArrayView2;
use offprint_core::random::Stream;
use rand::RngExt;
use rayon::prelude::*;

/// Elements that draw from one generator.
const CHUNK: usize = 1 << 14;

/// The inner product ⟨a, b⟩.
pub fn dot<T: Real>(a: &[T], b: &[T]) -> f64 {
    assert_eq!(a.len(), b.len(), "lengths of an inner product");
    if a.is_empty() {
        return 0.0;
    }
    let b: Vec<f64> = b.iter().map(|x| x.to_f64()).collect();
    let a = ArrayView2::from_shape((1, a.len()), a).expect("one row of all elements");
    wide::times(a, &b)[0]
}

/// The Euclidean length.
pub fn norm<T: Real>(a: &[T]) -> f64 {
    dot(a, a).sqrt()
}

/// `y += alpha x`.
pub fn add_scaled<T: Real>(y: &mut [T], alpha: f64, x: &[T]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y = T::from_f64(y.to_f64() + alpha * x.to_f64()));
}

/// `x *= alpha`.
pub fn scale<T: Real>(x: &mut [T], alpha: f64) {
    x.iter_mut().for_each(|x| *x = T::from_f64(alpha * x.to_f64()));
}

/// Independent standard normal numbers, the probe with number `index` of `stream`.
pub fn gaussian<T: Real>(stream: Stream, index: u64, length: usize) -> Vec<T> {
    drawn(stream, index, length, |rng| rng.sample(rand_distr::StandardNormal))
}

/// Independent signs ±1, the probe with number `index` of `stream`.
pub fn rademacher<T: Real>(stream: Stream, index: u64, length: usize) -> Vec<T> {
    drawn(stream, index, length, |rng| if rng.random() { 1.0 } else { -1.0 })
}

fn drawn<T: Real>(
    stream: Stream,
    index: u64,
    length: usize,
    draw: impl Fn(&mut offprint_core::random::Rng) -> f64 + Sync,
) -> Vec<T> {
    let chunks = stream.nested(index).stream("elements");
    let mut values = vec![T::default(); length];
    values.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, values)| {
        let mut rng = chunks.rng(chunk as u64);
        values.iter_mut().for_each(|x| *x = T::from_f64(draw(&mut rng)));
    });
    values
}
