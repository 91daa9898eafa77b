//! Matrix products on slices, by `faer`, whose kernels for x86-64 were two to four times as fast as those of `gemm`.

use super::element::Element;
use super::rows::zeros;
use candle_core::{Layout, Result};
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

/// Below this many multiplications a product is faster on one thread.
const WORTH_THREADS: usize = 1 << 20;

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

    /// A tensor's matrix over its own memory, whatever its strides.
    pub fn of(entries: &'a [T], layout: &Layout) -> Result<Self> {
        let ((rows, columns), entries) = (layout.shape().dims2()?, entries.get(layout.start_offset()..).unwrap_or(&[]));
        let strides = (layout.stride()[0], layout.stride()[1]);
        if rows > 0 && columns > 0 {
            let last = (rows - 1) * strides.0 + (columns - 1) * strides.1;
            assert!(last < entries.len(), "a matrix reaches beyond its memory");
        }
        Ok(Self { entries, rows, columns, strides })
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

    fn as_faer(self) -> MatRef<'a, T> {
        let (rows, columns) = self.strides;
        // SAFETY: the view reaches only entries of its slice, as was checked when it was made.
        unsafe {
            MatRef::from_raw_parts(self.entries.as_ptr(), self.rows, self.columns, rows as isize, columns as isize)
        }
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
    // SAFETY: by the assertion all m · n entries lie in `out`, which is borrowed mutably.
    let out = unsafe { MatMut::from_raw_parts_mut(out.as_mut_ptr(), m, n, stride as isize, 1) };
    let accumulate = if add { Accum::Add } else { Accum::Replace };
    let threads = if threads == Threads::All && m * n * k >= WORTH_THREADS { Par::rayon(0) } else { Par::Seq };
    matmul(out, accumulate, a.as_faer(), b.as_faer(), alpha, threads);
}

/// `a b`, as a new vector in row-major order, on all threads if the product is worth it.
pub fn new_product<T: Element>(a: View<'_, T>, b: View<'_, T>) -> Vec<T> {
    let mut out = zeros(a.rows * b.columns);
    product(T::one(), a, b, false, &mut out, b.columns, Threads::All);
    out
}
