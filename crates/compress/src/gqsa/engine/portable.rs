//! The kernels in plain Rust, for machines without the instructions of the others and as their oracle.

use super::group::GROUP;
use super::input::Input;
use super::record::{Quad, code};

/// Σ s (Σ q x − z Σ x) over the groups of a row.
pub(super) fn dot<Q: Quad>(part: &[Q], first: usize, x: &Input) -> f32 {
    let mut total = 0.0;
    for (place, quad) in (first..).zip(part) {
        let (codes, affines, columns) = (quad.codes(), quad.affine(), quad.columns(place));
        for (k, column) in columns.into_iter().enumerate() {
            let values = &x.values[GROUP * column..][..GROUP];
            let dot: f32 = values.iter().enumerate().map(|(i, x)| f32::from(code(&codes, k, i)) * x).sum();
            let affine = affines.of(k);
            total += affine.scale.to_f32() * (dot - f32::from(affine.zero) * x.sums[column]);
        }
    }
    total
}

/// The same with the products of codes in integers: Σ s (xₛ Σ q x₈ − z xₛ Σ x₈).
pub(super) fn dot_int8<Q: Quad>(part: &[Q], first: usize, x: &Input) -> f32 {
    let mut total = 0.0;
    for (place, quad) in (first..).zip(part) {
        let (codes, affines, columns) = (quad.codes(), quad.affine(), quad.columns(place));
        for (k, column) in columns.into_iter().enumerate() {
            let block = &x.blocks[column];
            let dot: i32 =
                block.codes.iter().enumerate().map(|(i, &x)| i32::from(code(&codes, k, i)) * i32::from(x)).sum();
            let [scale, sum] = block.scale_and_sum;
            let affine = affines.of(k);
            total += affine.scale.to_f32() * (scale * dot as f32 - f32::from(affine.zero) * sum);
        }
    }
    total * x.factor
}
