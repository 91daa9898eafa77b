//! Matrices in single and half precision: what the packed ones are measured against.

use super::input::Input;
use super::instructions::{Instructions, Set};
use super::matrix::{Gemv, Split, check_fits};
use half::f16;
use ndarray::Array2;
use rayon::prelude::*;

/// An element of an unpacked matrix.
pub trait Element: Copy + Send + Sync + 'static {
    /// In single precision.
    fn to_single(self) -> f32;

    /// Inner product of a row with as many values.
    fn dot(row: &[Self], x: &[f32], with: Instructions) -> f32;
}

/// A matrix of `f32` or `f16`. It always multiplies in single precision.
#[derive(Debug, Clone)]
pub struct Plain<T> {
    columns: usize,
    elements: Vec<T>,
}

impl<T: Element> Plain<T> {
    /// From `weights` (rows, columns), each converted by `convert`.
    pub fn new(weights: &Array2<f32>, convert: impl Fn(f32) -> T) -> Self {
        Self { columns: weights.ncols(), elements: weights.iter().map(|&w| convert(w)).collect() }
    }

    fn rows(&self) -> usize {
        self.elements.len() / self.columns.max(1)
    }
}

/// Rows that a task takes: at least a cache line of results, and the work of some thousand cycles.
fn rows_per_task(rows: usize) -> usize {
    rows.div_ceil(32).max(16)
}

impl<T: Element> Gemv for Plain<T> {
    fn shape(&self) -> (usize, usize) {
        (self.rows(), self.columns)
    }

    fn bytes(&self) -> usize {
        size_of_val(self.elements.as_slice())
    }

    fn dequant(&self) -> Array2<f32> {
        let elements = self.elements.iter().map(|x| x.to_single()).collect();
        Array2::from_shape_vec(self.shape(), elements).expect("whole rows")
    }

    fn copy(&self) -> Box<dyn Gemv> {
        Box::new(self.clone())
    }

    fn multiply_by(&self, x: &Input, y: &mut [f32], split: Split, with: Instructions) {
        check_fits(self.shape(), x, y);
        let per_task = match split {
            Split::Tasks => rows_per_task(self.rows()),
            Split::Rows(count) => self.rows().div_ceil(count.max(1)).max(1),
        };
        let values = &x.values[..self.columns];
        y.par_chunks_mut(per_task).zip(self.elements.par_chunks(per_task * self.columns.max(1))).for_each(
            |(y, rows)| {
                for (y, row) in y.iter_mut().zip(rows.chunks(self.columns)) {
                    *y = T::dot(row, values, with);
                }
            },
        );
    }
}

/// Accumulators of the plain loop: as many as keep wide adders busy.
const LANES: usize = 16;

#[inline(always)]
fn portable<T: Element>(row: &[T], x: &[f32]) -> f32 {
    let ((chunks, rest), (x_chunks, x_rest)) = (row.as_chunks::<LANES>(), x.as_chunks::<LANES>());
    let mut sums = [0f32; LANES];
    for (row, x) in chunks.iter().zip(x_chunks) {
        sums.iter_mut().zip(row).zip(x).for_each(|((sum, w), x)| *sum += w.to_single() * x);
    }
    sums.iter().sum::<f32>() + rest.iter().zip(x_rest).map(|(w, x)| w.to_single() * x).sum::<f32>()
}

impl Element for f32 {
    #[inline(always)]
    fn to_single(self) -> f32 {
        self
    }

    fn dot(row: &[Self], x: &[f32], with: Instructions) -> f32 {
        match with.set() {
            Set::Portable => portable(row, x),
            // SAFETY: the instructions are those of this machine, as a value of that type promises.
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => unsafe { x86::dot_single(row, x) },
        }
    }
}

impl Element for f16 {
    #[inline(always)]
    fn to_single(self) -> f32 {
        self.to_f32()
    }

    fn dot(row: &[Self], x: &[f32], with: Instructions) -> f32 {
        match with.set() {
            Set::Portable => portable(row, x),
            // SAFETY: as for single precision.
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => unsafe { x86::dot_half(row, x) },
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::super::avx2::{load8, sum8};
    use half::f16;
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx2,f16c")]
    #[inline]
    fn load8_half(values: &[f16; 8]) -> __m256 {
        // SAFETY: eight halves are behind the reference, and the load asks for no alignment.
        _mm256_cvtph_ps(unsafe { _mm_loadu_si128(values.as_ptr().cast()) })
    }

    /// The inner product of a row, by four sums of eight, with `$load` for eight of its elements.
    macro_rules! dot {
        ($name:ident, $element:ty, $load:ident) => {
            #[target_feature(enable = "avx2,fma,f16c")]
            pub fn $name(row: &[$element], x: &[f32]) -> f32 {
                let ((rows, rest), (xs, x_rest)) = (row.as_chunks::<8>(), x.as_chunks::<8>());
                let mut sums = [_mm256_setzero_ps(); 4];
                let ((fours, last), (x_fours, x_last)) = (rows.as_chunks::<4>(), xs.as_chunks::<4>());
                for (row, x) in fours.iter().zip(x_fours) {
                    for k in 0..4 {
                        sums[k] = _mm256_fmadd_ps($load(&row[k]), load8(&x[k]), sums[k]);
                    }
                }
                for (row, x) in last.iter().zip(x_last) {
                    sums[0] = _mm256_fmadd_ps($load(row), load8(x), sums[0]);
                }
                let total = _mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3]));
                sum8(total) + rest.iter().zip(x_rest).map(|(w, x)| f32::from(*w) * x).sum::<f32>()
            }
        };
    }

    dot!(dot_single, f32, load8);
    dot!(dot_half, f16, load8_half);
}
