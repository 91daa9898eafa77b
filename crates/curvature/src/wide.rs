//! Products with wide matrices: few rows, many columns, stored row by row (gradients, Lanczos vectors).
//!
//! All but [`times_rows`] walk the matrix in slabs of columns that fit the cache, one thread a slab, and add up slabs in their
//! order: the result does not depend on the number of threads. Sums are in `f64` whatever the matrix is stored in.
//! Rows must be contiguous; every function panics on lengths that do not fit.

use crate::Real;
use crate::kernel::{ROWS, add_rows, dot_rows};
use faer::linalg::matmul::triangular::{BlockStructure, matmul as triangular_matmul};
use faer::{Accum, Par};
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, Zip, s};
use offprint_math::linalg::{as_faer, as_faer_mut};
use rayon::prelude::*;

/// Columns of a slab in products with a vector: its piece of the vector (64 KiB) stays in the first two caches.
const SLAB: usize = 8192;
/// Rows that one thread takes in a product along whole rows.
const PIECE: usize = 64;
/// Columns of a slab in products of matrices, which are widened to `f64` slab by slab.
const PANEL: usize = 512;
/// Entries (64 MiB) of the partial sums that are kept at once in a product over columns.
const PARTIAL_SUMS: usize = 1 << 23;

/// The rows `i..i + ROWS` of a slab; after the last row it is repeated.
fn group<'a, T>(slab: &'a ArrayView2<'_, T>, i: usize) -> [&'a [T]; ROWS] {
    std::array::from_fn(|r| slab.row((i + r).min(slab.nrows() - 1)).to_slice().expect("contiguous rows"))
}

/// `a x`: from `a (m, d)` and `x (d,)` to `(m,)`. Reads `a` once.
pub fn times<T: Real>(a: ArrayView2<'_, T>, x: &[f64]) -> Vec<f64> {
    assert_eq!(a.ncols(), x.len(), "length of a product");
    let m = a.nrows();
    let partial: Vec<Vec<f64>> = a
        .axis_chunks_iter(Axis(1), SLAB)
        .into_par_iter()
        .enumerate()
        .map(|(slab, a)| {
            let x = &x[slab * SLAB..][..a.ncols()];
            let mut sums = Vec::with_capacity(m + ROWS);
            for i in (0..m).step_by(ROWS) {
                sums.extend(dot_rows(group(&a, i), x));
            }
            sums.truncate(m);
            sums
        })
        .collect();
    let mut total = vec![0.0; m];
    for part in &partial {
        total.iter_mut().zip(part).for_each(|(t, p)| *t += p);
    }
    total
}

/// `y = a x` for `a (m, d)` with many rows that are not wide: one thread a piece of the rows, sums along whole rows.
pub fn times_rows<T: Real>(a: ArrayView2<'_, T>, x: &[f64], y: &mut [f64]) {
    assert_eq!((a.nrows(), a.ncols()), (y.len(), x.len()), "lengths of a product");
    a.axis_chunks_iter(Axis(0), PIECE).into_par_iter().zip(y.par_chunks_mut(PIECE)).for_each(|(a, y)| {
        for (i, y) in y.chunks_mut(ROWS).enumerate() {
            let sums = dot_rows(group(&a, i * ROWS), x);
            y.copy_from_slice(&sums[..y.len()]);
        }
    });
}

/// `y += aᵀ c`: from `a (m, d)` and `c (m,)` into `y (d,)`. Reads `a` once.
pub fn add_transposed_times<T: Real>(y: &mut [f64], a: ArrayView2<'_, T>, c: &[f64]) {
    assert_eq!((a.nrows(), a.ncols()), (c.len(), y.len()), "lengths of a product");
    let m = a.nrows();
    a.axis_chunks_iter(Axis(1), SLAB).into_par_iter().zip(y.par_chunks_mut(SLAB)).for_each(|(a, y)| {
        for i in (0..m).step_by(ROWS) {
            let weight = std::array::from_fn(|r| c.get(i + r).copied().unwrap_or(0.0));
            add_rows(y, weight, group(&a, i));
        }
    });
}

/// `a bᵀ`: from `a (p, d)` and `b (q, d)` to `(p, q)`. 2 p q d flop.
pub fn cross<T: Real, U: Real>(a: ArrayView2<'_, T>, b: ArrayView2<'_, U>) -> Array2<f64> {
    assert_eq!(a.ncols(), b.ncols(), "lengths of rows");
    over_columns(a.nrows(), b.nrows(), a.ncols(), |columns, sum| {
        let a = widened(a.slice(s![.., columns.clone()]));
        let b = widened(b.slice(s![.., columns]));
        faer::linalg::matmul::matmul(as_faer_mut(sum), Accum::Add, as_faer(a.view()), as_faer(b.t()), 1.0, Par::Seq);
    })
}

/// `a aᵀ`: from `a (m, d)` to `(m, m)`, symmetric. m² d flop.
pub fn gram<T: Real>(a: ArrayView2<'_, T>) -> Array2<f64> {
    let m = a.nrows();
    let mut gram = over_columns(m, m, a.ncols(), |columns, sum| {
        let a = widened(a.slice(s![.., columns]));
        triangular_matmul(
            as_faer_mut(sum),
            BlockStructure::TriangularLower,
            Accum::Add,
            as_faer(a.view()),
            BlockStructure::Rectangular,
            as_faer(a.t()),
            BlockStructure::Rectangular,
            1.0,
            Par::Seq,
        );
    });
    for i in 0..m {
        for j in 0..i {
            gram[[j, i]] = gram[[i, j]];
        }
    }
    gram
}

/// `a ← r a + c b`, in place and rounded once: from `a (p, d)`, lower triangular `r (p, p)`, `c (p, q)` and `b (q, d)`;
/// q may be 0. p (p + 2 q) d flop.
pub fn combine<T: Real, U: Real>(
    mut a: ArrayViewMut2<'_, T>,
    r: ArrayView2<'_, f64>,
    c: ArrayView2<'_, f64>,
    b: ArrayView2<'_, U>,
) {
    let (p, q) = (a.nrows(), b.nrows());
    assert_eq!((r.dim(), c.dim(), b.ncols()), ((p, p), (p, q), a.ncols()), "shapes of a combination");
    let slabs = a.axis_chunks_iter_mut(Axis(1), PANEL).into_par_iter();
    slabs.zip(b.axis_chunks_iter(Axis(1), PANEL)).for_each(|(mut a, b)| {
        let mut new = Array2::zeros(a.raw_dim());
        let old = widened(a.view());
        let sum = as_faer_mut(new.view_mut());
        triangular_matmul(
            sum,
            BlockStructure::Rectangular,
            Accum::Replace,
            as_faer(r),
            BlockStructure::TriangularLower,
            as_faer(old.view()),
            BlockStructure::Rectangular,
            1.0,
            Par::Seq,
        );
        if q > 0 {
            let (b, sum) = (widened(b), as_faer_mut(new.view_mut()));
            faer::linalg::matmul::matmul(sum, Accum::Add, as_faer(c), as_faer(b.view()), 1.0, Par::Seq);
        }
        Zip::from(&mut a).and(&new).for_each(|a, &x| *a = T::from_f64(x));
    });
}

/// A slab in `f64`.
fn widened<T: Real>(slab: ArrayView2<'_, T>) -> Array2<f64> {
    slab.map(|x| x.to_f64())
}

/// The sum of what `add` adds to a `(p, q)` matrix for every slab of `d` columns. Neighbouring slabs share a partial
/// sum; how many there are depends on the shapes alone.
fn over_columns(
    p: usize,
    q: usize,
    d: usize,
    add: impl Fn(std::ops::Range<usize>, ArrayViewMut2<'_, f64>) + Sync,
) -> Array2<f64> {
    if p == 0 || q == 0 {
        return Array2::zeros((p, q));
    }
    let slabs = d.div_ceil(PANEL);
    let sums = (PARTIAL_SUMS / (p * q)).clamp(4, 64);
    let per_sum = slabs.div_ceil(sums).max(1);
    let partial: Vec<Array2<f64>> = (0..slabs.div_ceil(per_sum))
        .into_par_iter()
        .map(|part| {
            let mut sum = Array2::zeros((p, q));
            for slab in part * per_sum..((part + 1) * per_sum).min(slabs) {
                add(slab * PANEL..((slab + 1) * PANEL).min(d), sum.view_mut());
            }
            sum
        })
        .collect();
    let mut total = Array2::zeros((p, q));
    for part in &partial {
        total += part;
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array;
    use proptest::prelude::*;

    /// Small whole numbers: sums of their products are exact in any order.
    fn whole(rows: usize, columns: usize, seed: usize) -> Array2<f32> {
        Array::from_shape_fn((rows, columns), |(i, j)| ((i * 31 + j * 17 + seed * 7) % 13) as f32 - 6.0)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn products_are_exact_on_whole_numbers(
            (p, q) in (1usize..9, 0usize..9),
            d in prop_oneof![1usize..40, 500usize..530, 8185usize..8200, 16_380usize..16_390],
        ) {
            let (a, b) = (whole(p, d, 1), whole(q, d, 2));
            let (wide_a, wide_b) = (a.mapv(f64::from), b.mapv(f64::from));
            let x: Vec<f64> = (0..d).map(|k| (k % 7) as f64 - 3.0).collect();
            let c: Vec<f64> = (0..p).map(|k| k as f64 - 1.5).collect();
            let column = ndarray::aview1(&x);
            prop_assert_eq!(times(a.view(), &x), wide_a.dot(&column).to_vec());
            let mut y = x.clone();
            add_transposed_times(&mut y, a.view(), &c);
            prop_assert_eq!(y, (&wide_a.t().dot(&ndarray::aview1(&c)) + &column).to_vec());
            prop_assert_eq!(cross(a.view(), b.view()), wide_a.dot(&wide_b.t()));
            prop_assert_eq!(gram(a.view()), wide_a.dot(&wide_a.t()));
            let (mut r, c) = (whole(p, p, 3).mapv(f64::from), whole(p, q, 4).mapv(f64::from));
            r.indexed_iter_mut().for_each(|((i, j), r)| if j > i { *r = 0.0 });
            let mut combined = a.clone();
            combine(combined.view_mut(), r.view(), c.view(), b.view());
            prop_assert_eq!(combined.mapv(f64::from), r.dot(&wide_a) + c.dot(&wide_b));
        }
    }

    #[test]
    fn the_number_of_threads_does_not_change_a_bit() {
        let a = Array::from_shape_fn((37, 40_000), |(i, j)| ((i * 1009 + j * 31) as f32).sin());
        let x: Vec<f64> = (0..40_000).map(|k| (k as f64).cos()).collect();
        let work = |threads| {
            rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
                let mut moved = a.clone();
                let r = gram(a.slice(s![.., ..2000]));
                combine(moved.view_mut(), r.view(), r.view(), a.view());
                (times(a.view(), &x), gram(a.view()), moved)
            })
        };
        assert_eq!(work(1), work(3));
    }
}
