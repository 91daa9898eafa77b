//! Work over the rows of a matrix on all threads, in pieces whose bounds do not depend on the number of threads.

use super::element::Element;
use rayon::prelude::*;

/// Elements of a piece: small enough for a core's cache, large enough to be worth handing out.
const PIECE: usize = 1 << 14;

/// Rows of `width` elements in a piece.
pub fn rows_per_piece(width: usize) -> usize {
    (PIECE / width.max(1)).max(1)
}

/// A buffer of `length` elements that is about to be overwritten.
pub fn buffer<T: Element>(length: usize) -> Vec<T> {
    vec![T::zero(); length]
}

/// Calls `f(first row, rows)` for each piece of `out`, whose rows have `width` elements. Gives what `f` gave, in order.
pub fn pieces<T: Element, R: Send>(out: &mut [T], width: usize, f: impl Fn(usize, &mut [T]) -> R + Sync) -> Vec<R> {
    let rows = rows_per_piece(width);
    let length = rows * width.max(1);
    if out.len() <= length {
        return if out.is_empty() { Vec::new() } else { vec![f(0, out)] };
    }
    out.par_chunks_mut(length).enumerate().map(|(i, piece)| f(i * rows, piece)).collect()
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
