//! Matrix products on slices, by `gemm`.

use super::element::Element;
use gemm::Parallelism;

/// Below this many multiplications a product is faster on one thread.
const WORTH_THREADS: usize = 1 << 18;

/// A matrix inside a slice; entry (i, j) stands at `i · strides.0 + j · strides.1`.
#[derive(Debug, Clone, Copy)]
pub struct View<'a, T> {
    entries: &'a [T],
    rows: usize,
    columns: usize,
    strides: (usize, usize),
}

impl<'a, T: Element> View<'a, T> {
    /// A matrix (rows, columns) in row-major order.
    pub fn new(entries: &'a [T], rows: usize, columns: usize) -> Self {
        Self::strided(entries, rows, columns, columns)
    }

    /// A matrix whose rows start `stride` entries apart.
    pub fn strided(entries: &'a [T], rows: usize, columns: usize, stride: usize) -> Self {
        if rows > 0 && columns > 0 {
            assert!((rows - 1) * stride + columns <= entries.len(), "a matrix reaches beyond its memory");
        }
        Self { entries, rows, columns, strides: (stride, 1) }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The rows from `begin` to `end`.
    pub fn slice_rows(self, begin: usize, end: usize) -> Self {
        assert!(begin <= end && end <= self.rows, "rows beyond a matrix");
        let start = (begin * self.strides.0).min(self.entries.len());
        Self { entries: &self.entries[start..], rows: end - begin, ..self }
    }

    /// Its transpose, over the same memory.
    pub fn t(self) -> Self {
        Self { rows: self.columns, columns: self.rows, strides: (self.strides.1, self.strides.0), ..self }
    }
}

/// Who works on a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// This thread: for products that are themselves work of a parallel loop.
    One,
    /// All threads, if the product is worth it.
    All,
}

/// `out = alpha a b`, or `out += alpha a b` if `add`; `out` (a.rows, b.columns) has rows that start `stride` apart.
pub fn product<T: Element>(
    alpha: T,
    a: View<'_, T>,
    b: View<'_, T>,
    add: bool,
    out: &mut [T],
    stride: usize,
    threads: Threads,
) {
    let (m, k, n) = (a.rows, a.columns, b.columns);
    assert_eq!(k, b.rows, "inner lengths of a product");
    if m == 0 || n == 0 {
        return;
    }
    assert!((m - 1) * stride + n <= out.len() && n <= stride.max(n), "a product reaches beyond its memory");
    if k == 0 {
        if !add {
            out.chunks_mut(stride).take(m).for_each(|row| row[..n].fill(T::zero()));
        }
        return;
    }
    let parallelism =
        if threads == Threads::All && m * n * k >= WORTH_THREADS { Parallelism::Rayon(0) } else { Parallelism::None };
    // SAFETY: the views reach only entries of their slices (checked when they were made, and above for `out`), which
    // stay borrowed during the call; `out` is borrowed mutably, so it overlaps neither.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            stride as isize,
            add,
            a.entries.as_ptr(),
            a.strides.1 as isize,
            a.strides.0 as isize,
            b.entries.as_ptr(),
            b.strides.1 as isize,
            b.strides.0 as isize,
            T::one(),
            alpha,
            false,
            false,
            false,
            parallelism,
        );
    }
}
