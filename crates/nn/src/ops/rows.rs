//! Work over the rows of a matrix on all threads, in pieces whose bounds do not depend on the number of threads.

use super::element::Element;
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Elements of a piece: small enough for a core's cache, large enough to be worth handing out.
const PIECE: usize = 1 << 14;

/// Rows of `width` elements in a piece.
pub fn rows_per_piece(width: usize) -> usize {
    (PIECE / width.max(1)).max(1)
}

/// A vector of zeros.
pub fn zeros<T: Element>(length: usize) -> Vec<T> {
    vec![T::zero(); length]
}

/// A vector of `length` elements that `f(first row, rows)` fills piece by piece, in rows of `width` elements; and what
/// `f` gave, in order. `f` finds zeros.
pub fn filled<T: Element, R: Send>(
    length: usize,
    width: usize,
    f: impl Fn(usize, &mut [T]) -> R + Sync,
) -> (Vec<T>, Vec<R>) {
    let rows = rows_per_piece(width);
    filled_by(length, rows * width.max(1), |i, piece| f(i * rows, piece))
}

/// A vector of `length` elements that `f(number of the piece, piece)` fills in pieces of `piece` elements; and what `f`
/// gave, in order. `f` finds zeros.
///
/// The zeros are written piece by piece, just before `f`, so that they are still in the cache: a vector of zeros made
/// beforehand would be one more pass over memory, on one thread.
pub fn filled_by<T: Element, R: Send>(
    length: usize,
    piece: usize,
    f: impl Fn(usize, &mut [T]) -> R + Sync,
) -> (Vec<T>, Vec<R>) {
    let mut values = Vec::with_capacity(length);
    let spare = &mut values.spare_capacity_mut()[..length];
    let one = |(i, piece): (usize, &mut [MaybeUninit<T>])| {
        piece.iter_mut().for_each(|value| {
            value.write(T::zero());
        });
        // SAFETY: every element of the piece has just been written.
        f(i, unsafe { piece.assume_init_mut() })
    };
    let results = if length <= piece {
        spare.chunks_mut(piece.max(1)).enumerate().map(one).collect()
    } else {
        spare.par_chunks_mut(piece.max(1)).enumerate().map(one).collect()
    };
    // SAFETY: the pieces cover the first `length` elements of the capacity, and each was filled with zeros.
    unsafe { values.set_len(length) };
    (values, results)
}

/// Adds up vectors of equal length in order; `None` of none.
pub fn total<T: Element>(parts: Vec<Vec<T>>) -> Option<Vec<T>> {
    parts.into_iter().reduce(|mut sum, part| {
        sum.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
        sum
    })
}

/// Sums of the columns of a matrix (rows, width).
pub fn column_sums<T: Element>(matrix: &[T], width: usize) -> Vec<T> {
    let length = rows_per_piece(width) * width.max(1);
    let sums = |piece: &[T]| {
        super::element::vectorised(
            #[inline(always)]
            || {
                let mut sums = vec![T::zero(); width];
                for row in piece.chunks_exact(width) {
                    sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += x);
                }
                sums
            },
        )
    };
    let parts = if matrix.len() <= length {
        matrix.chunks(length).map(sums).collect()
    } else {
        matrix.par_chunks(length).map(sums).collect()
    };
    total(parts).unwrap_or_else(|| vec![T::zero(); width])
}
