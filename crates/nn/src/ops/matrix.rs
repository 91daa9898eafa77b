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

impl Threads {
    fn parallelism(self, work: usize) -> Parallelism {
        if self == Self::All && work >= WORTH_THREADS { Parallelism::Rayon(0) } else { Parallelism::None }
    }
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
    let (m, n) = (a.rows, b.columns);
    if m == 0 || n == 0 {
        return;
    }
    assert!((m - 1) * stride + n <= out.len() && n <= stride.max(n), "a product reaches beyond its memory");
    // SAFETY: by the assertion `out` holds all entries of the product; it is borrowed mutably, so it overlaps neither
    // operand, and it is initialised.
    unsafe { write_product(alpha, a, b, add, out.as_mut_ptr(), stride, threads) };
}

/// `a b`, as a new vector in row-major order, on all threads if the product is worth it.
pub fn new_product<T: Element>(a: View<'_, T>, b: View<'_, T>) -> Vec<T> {
    let length = a.rows * b.columns;
    let mut out = Vec::with_capacity(length);
    if length > 0 {
        // SAFETY: the capacity holds the a.rows · b.columns entries of the product, rows b.columns apart; without `add`
        // it is only written to, and all of it.
        unsafe {
            write_product(T::one(), a, b, false, out.as_mut_ptr(), b.columns, Threads::All);
            out.set_len(length);
        }
    }
    out
}

/// Writes (or adds, if `add`) `alpha a b` to `out`, row by row, the rows `stride` apart.
///
/// # Safety
/// `out` must be valid for writes of all entries of the product, overlap neither operand, and be initialised if `add`.
unsafe fn write_product<T: Element>(
    alpha: T,
    a: View<'_, T>,
    b: View<'_, T>,
    add: bool,
    out: *mut T,
    stride: usize,
    threads: Threads,
) {
    let (m, k, n) = (a.rows, a.columns, b.columns);
    assert_eq!(k, b.rows, "inner lengths of a product");
    if k == 0 {
        if !add {
            for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                // SAFETY: entry (i, j) is an entry of the product.
                unsafe { out.add(i * stride + j).write(T::zero()) };
            }
        }
        return;
    }
    // SAFETY: the views reach only entries of their slices, as was checked when they were made; for `out` the caller
    // answers.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out,
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
            threads.parallelism(m * n * k),
        );
    }
}
