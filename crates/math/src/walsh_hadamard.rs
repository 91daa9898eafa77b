//! The fast Walsh–Hadamard transform, in place.
//!
//! `X[k] = Σ_m (−1)^{⟨m,k⟩} x[m]`, ⟨m,k⟩ the parity of `m & k` (natural, or Hadamard, order). The transform is its own
//! inverse up to the factor N = length. N log₂N additions; the array is read and written twice, whatever its size:
//!
//! 1. as R rows of C values that stay in the second-level cache, each row transformed by itself;
//! 2. as panels of a few neighbouring columns, copied to a buffer where they lie densely (columns a power of two apart
//!    would fight over the same few cache lines), transformed there, and copied back.
//!
//! Within a block as many levels of butterflies as registers and cache sets allow run at once: for `f64` with AVX-512
//! seven at first and then three at a time.

use rayon::prelude::*;
use std::array::from_fn;
use std::ops::{Add, Sub};

/// Values that can be transformed: `f32` and `f64`.
pub trait Real: Copy + Default + Add<Output = Self> + Sub<Output = Self> + Send + Sync + sealed::Kernels {}
impl Real for f32 {}
impl Real for f64 {}

mod sealed {
    /// The kernels of a type, compiled for this processor.
    pub trait Kernels: Sized {
        fn block(x: &mut [Self]);
        fn columns(x: &mut [Self], width: usize);
    }
}

/// Values per row of the first pass: 512 KiB of `f64`, half a usual second-level cache.
const ROW: usize = 1 << 16;
/// Bytes that stay in the first-level cache.
const NEAR: usize = 32 << 10;
/// Values per panel of the second pass, unless its rows are many.
const PANEL: usize = 1 << 13;
/// log₂ of how many vectors take part in a step over long distances. They often share one set of cache lines, and the
/// usual set has eight.
const TOGETHER_FAR: u32 = 3;

/// Transforms `x` in place, on all threads of the current rayon pool above 2¹⁶ values.
///
/// # Panics
/// If the length is not a power of two.
pub fn walsh_hadamard<T: Real>(x: &mut [T]) {
    let n = x.len();
    assert!(n.is_power_of_two(), "the Walsh–Hadamard transform needs a power of two, not {n} values");
    if n <= ROW {
        return T::block(x);
    }
    x.par_chunks_exact_mut(ROW).for_each(T::block);

    let rows = n / ROW;
    let width = (PANEL / rows).clamp(16, 64);
    let array = Shared(x.as_mut_ptr());
    (0..ROW / width).into_par_iter().for_each_init(
        || vec![T::default(); rows * width],
        |panel, p| {
            let array = &array;
            for (r, line) in panel.chunks_exact_mut(width).enumerate() {
                // SAFETY: row r < rows and columns p·width .. (p+1)·width ≤ ROW lie within the array, which is borrowed
                // mutably for the whole call; panels with different p have no column in common.
                line.copy_from_slice(unsafe { std::slice::from_raw_parts(array.0.add(r * ROW + p * width), width) });
            }
            T::columns(panel, width);
            for (r, line) in panel.chunks_exact(width).enumerate() {
                // SAFETY: as above; nobody else reads or writes these columns.
                unsafe { std::slice::from_raw_parts_mut(array.0.add(r * ROW + p * width), width) }
                    .copy_from_slice(line);
            }
        },
    );
}

/// A pointer that threads share; every use says why it is sound.
struct Shared<T>(*mut T);
// SAFETY: the pointer alone does nothing; `walsh_hadamard` hands disjoint columns to each thread.
unsafe impl<T: Send> Sync for Shared<T> {}

/// Transforms a matrix of `x.len() / width` rows along its columns: every column by itself, on one thread.
///
/// # Panics
/// If the number of rows is not a power of two, or rows are not whole.
pub fn walsh_hadamard_columns<T: Real>(x: &mut [T], width: usize) {
    if x.is_empty() && width == 0 {
        return;
    }
    let rows = x.len() / width;
    assert!(rows.is_power_of_two() && rows * width == x.len(), "{} values in rows of {width}", x.len());
    T::columns(x, width);
}

/// Values that are added and subtracted together: a register.
///
/// Implementations for an instruction set may only be used inside functions compiled for it.
trait Vector: Copy {
    type Value: Real;
    /// Values per vector.
    const LANES: usize;
    /// log₂ of how many vectors take part in one step; twice as many must fit in the registers.
    const TOGETHER: u32;

    fn load(x: &[Self::Value]) -> Self;
    fn store(self, x: &mut [Self::Value]);
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    /// All levels of butterflies among the lanes.
    fn within(self) -> Self;
}

/// Vectors for any processor; the compiler splits them into what there is.
impl<T: Real> Vector for [T; 4] {
    type Value = T;
    const LANES: usize = 4;
    const TOGETHER: u32 = 2;

    #[inline(always)]
    fn load(x: &[T]) -> Self {
        [x[0], x[1], x[2], x[3]]
    }

    #[inline(always)]
    fn store(self, x: &mut [T]) {
        x.copy_from_slice(&self);
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        from_fn(|l| self[l] + other[l])
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        from_fn(|l| self[l] - other[l])
    }

    #[inline(always)]
    fn within(self) -> Self {
        let [a, b, c, d] = self;
        let (a, b, c, d) = (a + b, a - b, c + d, c - d);
        [a + c, b + d, a - c, b - d]
    }
}

/// One contiguous block on one thread.
#[inline(always)]
fn block<V: Vector>(x: &mut [V::Value]) {
    let tile = V::LANES << V::TOGETHER;
    if x.len() < tile {
        return levels(x, 1);
    }
    let near = NEAR / size_of::<V::Value>();
    for near in x.chunks_mut(near) {
        for tile in near.chunks_exact_mut(tile) {
            match V::TOGETHER {
                4 => in_registers::<V, 16>(tile),
                3 => in_registers::<V, 8>(tile),
                _ => in_registers::<V, 4>(tile),
            }
        }
        levels_of_vectors::<V>(near, tile);
    }
    levels_of_vectors::<V>(x, near);
}

/// Every column of a matrix with rows of `width` values.
#[inline(always)]
fn columns<V: Vector>(x: &mut [V::Value], width: usize) {
    if width.is_multiple_of(V::LANES) {
        levels_of_vectors::<V>(x, width);
    } else {
        levels(x, width);
    }
}

/// The levels h = `from`, 2·`from`, … below the length, one at a time: butterflies between x[i] and x[i + h].
#[inline(always)]
fn levels<T: Real>(x: &mut [T], from: usize) {
    let mut h = from;
    while h < x.len() {
        for pair in x.chunks_exact_mut(2 * h) {
            let (low, high) = pair.split_at_mut(h);
            for (a, b) in low.iter_mut().zip(high) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        h *= 2;
    }
}

/// The levels h = `from`, 2·`from`, … below the length, as many at a time as registers hold; `from` is a multiple of
/// the vector's length.
#[inline(always)]
fn levels_of_vectors<V: Vector>(x: &mut [V::Value], from: usize) {
    let mut h = from;
    while h < x.len() {
        let left = (x.len() / h).trailing_zeros();
        // As even as possible: 4 levels are 2 + 2, not 3 + 1.
        let steps = left.div_ceil(V::TOGETHER.min(TOGETHER_FAR));
        let now = left.div_ceil(steps);
        match now {
            1 => step::<V, 2>(x, h),
            2 => step::<V, 4>(x, h),
            _ => step::<V, 8>(x, h),
        }
        h <<= now;
    }
}

/// log₂ R levels at once: butterflies among R vectors at distance h.
#[inline(always)]
fn step<V: Vector, const R: usize>(x: &mut [V::Value], h: usize) {
    for group in x.chunks_exact_mut(R * h) {
        let mut i = 0;
        while i < h {
            let mut v = [V::load(&group[i..][..V::LANES]); R];
            for (r, v) in v.iter_mut().enumerate().skip(1) {
                *v = V::load(&group[r * h + i..][..V::LANES]);
            }
            between(&mut v);
            for (r, v) in v.into_iter().enumerate() {
                v.store(&mut group[r * h + i..][..V::LANES]);
            }
            i += V::LANES;
        }
    }
}

/// All levels within R consecutive vectors. As everywhere, short distances come first, so that results are the same to
/// the last bit whatever the vectors' length.
#[inline(always)]
fn in_registers<V: Vector, const R: usize>(tile: &mut [V::Value]) {
    // No closures here: they would be compiled without the vector instructions, and so not inlined.
    let mut v = [V::load(&tile[..V::LANES]).within(); R];
    for (r, v) in v.iter_mut().enumerate().skip(1) {
        *v = V::load(&tile[r * V::LANES..][..V::LANES]).within();
    }
    between(&mut v);
    for (r, v) in v.into_iter().enumerate() {
        v.store(&mut tile[r * V::LANES..][..V::LANES]);
    }
}

/// Butterflies among R vectors.
#[inline(always)]
fn between<V: Vector, const R: usize>(v: &mut [V; R]) {
    let mut h = 1;
    while h < R {
        for i in 0..R {
            if i & h == 0 {
                (v[i], v[i + h]) = (v[i].add(v[i + h]), v[i].sub(v[i + h]));
            }
        }
        h *= 2;
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    //! Registers of AVX2 and AVX-512, and the kernels compiled for them.
    //!
    //! With AVX-512 the transform is three times as fast in cache as the same code for the x86-64 baseline.

    use super::{Vector, block, columns};
    use std::arch::x86_64::*;

    macro_rules! vector {
        ($register:ty, $value:ty, $lanes:literal, $together:literal, $load:ident, $store:ident, $add:ident, $sub:ident,
         $v:ident => $within:expr) => {
            impl Vector for $register {
                type Value = $value;
                const LANES: usize = $lanes;
                const TOGETHER: u32 = $together;

                #[inline(always)]
                fn load(x: &[$value]) -> Self {
                    let x: &[$value; $lanes] = x.try_into().expect("as long as a register");
                    // SAFETY: used only in functions compiled for the instruction; the array has the register's size.
                    unsafe { $load(x.as_ptr()) }
                }

                #[inline(always)]
                fn store(self, x: &mut [$value]) {
                    let x: &mut [$value; $lanes] = x.try_into().expect("as long as a register");
                    // SAFETY: as above.
                    unsafe { $store(x.as_mut_ptr(), self) }
                }

                #[inline(always)]
                fn add(self, other: Self) -> Self {
                    // SAFETY: used only in functions compiled for the instruction.
                    unsafe { $add(self, other) }
                }

                #[inline(always)]
                fn sub(self, other: Self) -> Self {
                    // SAFETY: used only in functions compiled for the instruction.
                    unsafe { $sub(self, other) }
                }

                #[inline(always)]
                fn within(self) -> Self {
                    let mut $v = self;
                    // SAFETY: used only in functions compiled for the instructions.
                    unsafe { $within };
                    $v
                }
            }
        };
    }

    // Each level among lanes: exchange partners, add, and in the upper partner's lanes subtract instead.
    vector!(__m512d, f64, 8, 4, _mm512_loadu_pd, _mm512_storeu_pd, _mm512_add_pd, _mm512_sub_pd, v => {
        let level = |v, partner, upper| _mm512_mask_sub_pd(_mm512_add_pd(v, partner), upper, partner, v);
        v = level(v, _mm512_permute_pd::<0b01010101>(v), 0xaa);
        v = level(v, _mm512_permutex_pd::<0b01001110>(v), 0xcc);
        v = level(v, _mm512_shuffle_f64x2::<0b01001110>(v, v), 0xf0);
    });
    vector!(__m512, f32, 16, 4, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_add_ps, _mm512_sub_ps, v => {
        let level = |v, partner, upper| _mm512_mask_sub_ps(_mm512_add_ps(v, partner), upper, partner, v);
        v = level(v, _mm512_permute_ps::<0b10110001>(v), 0xaaaa);
        v = level(v, _mm512_permute_ps::<0b01001110>(v), 0xcccc);
        v = level(v, _mm512_shuffle_f32x4::<0b10110001>(v, v), 0xf0f0);
        v = level(v, _mm512_shuffle_f32x4::<0b01001110>(v, v), 0xff00);
    });
    vector!(__m256d, f64, 4, 3, _mm256_loadu_pd, _mm256_storeu_pd, _mm256_add_pd, _mm256_sub_pd, v => {
        let partner = _mm256_permute_pd::<0b0101>(v);
        v = _mm256_blend_pd::<0b1010>(_mm256_add_pd(v, partner), _mm256_sub_pd(partner, v));
        let partner = _mm256_permute2f128_pd::<1>(v, v);
        v = _mm256_blend_pd::<0b1100>(_mm256_add_pd(v, partner), _mm256_sub_pd(partner, v));
    });
    vector!(__m256, f32, 8, 3, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_add_ps, _mm256_sub_ps, v => {
        let partner = _mm256_permute_ps::<0b10110001>(v);
        v = _mm256_blend_ps::<0b10101010>(_mm256_add_ps(v, partner), _mm256_sub_ps(partner, v));
        let partner = _mm256_permute_ps::<0b01001110>(v);
        v = _mm256_blend_ps::<0b11001100>(_mm256_add_ps(v, partner), _mm256_sub_ps(partner, v));
        let partner = _mm256_permute2f128_ps::<1>(v, v);
        v = _mm256_blend_ps::<0b11110000>(_mm256_add_ps(v, partner), _mm256_sub_ps(partner, v));
    });

    macro_rules! kernels {
        ($features:literal, $register:ty, $value:ty, $block:ident, $columns:ident) => {
            #[target_feature(enable = $features)]
            pub(super) fn $block(x: &mut [$value]) {
                block::<$register>(x);
            }

            #[target_feature(enable = $features)]
            pub(super) fn $columns(x: &mut [$value], width: usize) {
                columns::<$register>(x, width);
            }
        };
    }
    kernels!("avx512f", __m512d, f64, block_f64_avx512, columns_f64_avx512);
    kernels!("avx512f", __m512, f32, block_f32_avx512, columns_f32_avx512);
    kernels!("avx2", __m256d, f64, block_f64_avx2, columns_f64_avx2);
    kernels!("avx2", __m256, f32, block_f32_avx2, columns_f32_avx2);
}

/// Chooses the kernel by what the processor can do.
macro_rules! dispatch {
    ($value:ty, $block_avx512:ident, $columns_avx512:ident, $block_avx2:ident, $columns_avx2:ident) => {
        impl sealed::Kernels for $value {
            fn block(x: &mut [Self]) {
                #[cfg(target_arch = "x86_64")]
                if is_x86_feature_detected!("avx512f") {
                    // SAFETY: the processor has what the function is compiled for.
                    return unsafe { x86::$block_avx512(x) };
                } else if is_x86_feature_detected!("avx2") {
                    // SAFETY: as above.
                    return unsafe { x86::$block_avx2(x) };
                }
                block::<[$value; 4]>(x);
            }

            fn columns(x: &mut [Self], width: usize) {
                #[cfg(target_arch = "x86_64")]
                if is_x86_feature_detected!("avx512f") {
                    // SAFETY: the processor has what the function is compiled for.
                    return unsafe { x86::$columns_avx512(x, width) };
                } else if is_x86_feature_detected!("avx2") {
                    // SAFETY: as above.
                    return unsafe { x86::$columns_avx2(x, width) };
                }
                columns::<[$value; 4]>(x, width);
            }
        }
    };
}
dispatch!(f64, block_f64_avx512, columns_f64_avx512, block_f64_avx2, columns_f64_avx2);
dispatch!(f32, block_f32_avx512, columns_f32_avx512, block_f32_avx2, columns_f32_avx2);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};

    fn random(n: usize, seed: u64) -> Vec<f64> {
        let mut rng = offprint_core::random::Rng::seed_from_u64(seed);
        (0..n).map(|_| rng.random_range(-1.0..1.0)).collect()
    }

    /// The definition.
    fn slow(x: &[f64]) -> Vec<f64> {
        let sign = |m: usize, k: usize| 1.0 - 2.0 * f64::from((m & k).count_ones() % 2);
        (0..x.len()).map(|k| x.iter().enumerate().map(|(m, v)| sign(m, k) * v).sum()).collect()
    }

    #[test]
    fn equals_the_definition_for_every_small_size() {
        for log in 0..=10 {
            let x = random(1 << log, log);
            let mut fast = x.clone();
            walsh_hadamard(&mut fast);
            let mut single: Vec<f32> = x.iter().map(|&v| v as f32).collect();
            walsh_hadamard(&mut single);
            for ((fast, single), slow) in fast.iter().zip(&single).zip(slow(&x)) {
                assert!((fast - slow).abs() < 1e-12 * (1 << log) as f64, "2^{log}: {fast} {slow}");
                assert!((f64::from(*single) - slow).abs() < 1e-5 * (1 << log) as f64, "2^{log}");
            }
        }
    }

    #[test]
    fn a_single_one_becomes_its_character_at_every_size() {
        // x = δ_m has the transform (−1)^{⟨m,k⟩}: exact in floating point.
        for log in 0..=20 {
            let n = 1usize << log;
            let m = 0x5a5a5 % n;
            let mut x = vec![0.0; n];
            x[m] = 1.0;
            walsh_hadamard(&mut x);
            let wrong = x.iter().enumerate().find(|&(k, &v)| v != 1.0 - 2.0 * ((m & k).count_ones() % 2) as f64);
            assert!(wrong.is_none(), "2^{log}: {wrong:?}");
        }
    }

    #[test]
    fn every_vector_extension_gives_the_same_bits() {
        // The order of additions does not depend on the instructions, so results are reproducible between processors.
        let x = random(1 << 13, 3);
        let mut dispatched = x.clone();
        walsh_hadamard(&mut dispatched);
        let mut plain = x.clone();
        block::<[f64; 4]>(&mut plain);
        assert_eq!(dispatched, plain);
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            let mut middle = x.clone();
            // SAFETY: the processor has what the function is compiled for.
            unsafe { x86::block_f64_avx2(&mut middle) };
            assert_eq!(middle, plain);
            let mut single: Vec<f32> = x.iter().map(|&v| v as f32).collect();
            let mut plain = single.clone();
            // SAFETY: as above.
            unsafe { x86::block_f32_avx2(&mut single) };
            block::<[f32; 4]>(&mut plain);
            assert_eq!(single, plain);
        }
    }

    #[test]
    fn columns_are_transformed_one_by_one() {
        for (rows, width) in [(1, 3), (8, 1), (16, 5), (32, 24), (64, 16)] {
            let x = random(rows * width, 1);
            let mut all = x.clone();
            walsh_hadamard_columns(&mut all, width);
            for c in 0..width {
                let mut column: Vec<f64> = (0..rows).map(|r| x[r * width + c]).collect();
                walsh_hadamard(&mut column);
                assert!((0..rows).all(|r| (all[r * width + c] - column[r]).abs() < 1e-12), "{rows} × {width}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "power of two, not 12 values")]
    fn other_lengths_are_refused() {
        walsh_hadamard(&mut [0.0; 12]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn twice_is_the_length_times_the_input(log in 0u32..19, seed: u64) {
            let x = random(1 << log, seed);
            let mut twice = x.clone();
            walsh_hadamard(&mut twice);
            walsh_hadamard(&mut twice);
            let n = x.len() as f64;
            prop_assert!(x.iter().zip(&twice).all(|(x, t)| (t / n - x).abs() < 1e-12));
        }
    }
}
