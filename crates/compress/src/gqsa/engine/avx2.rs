//! The kernels in AVX2, FMA and F16C.
//!
//! Bound by instructions rather than by memory on one thread: about eleven cycles for the 64 weights of a record.

use super::Precision;
use super::group::GROUP;
use super::input::{Block, Input};
use super::record::{Affines, Codes, GROUPS, Quad};
use half::f16;
use std::arch::x86_64::*;

/// Sixteen bytes as a vector.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn load16<T>(bytes: &[T; 16]) -> __m128i
where
    T: Copy,
{
    const { assert!(size_of::<T>() == 1) };
    // SAFETY: sixteen bytes are behind the reference, and the load asks for no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

/// Eight values as a vector.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn load8(values: &[f32; 8]) -> __m256 {
    // SAFETY: eight values are behind the reference, and the load asks for no alignment.
    unsafe { _mm256_loadu_ps(values.as_ptr()) }
}

/// Four values from the one at `first` on as a vector.
#[target_feature(enable = "avx2")]
#[inline]
fn load4(values: &[f32], first: usize) -> __m128 {
    let values = &values[first..first + 4];
    // SAFETY: four values are behind the slice, and the load asks for no alignment.
    unsafe { _mm_loadu_ps(values.as_ptr()) }
}

/// Four scales in single precision.
#[target_feature(enable = "avx2,f16c")]
#[inline]
pub(super) fn single(scales: [f16; GROUPS]) -> __m128 {
    // SAFETY: four scales are the eight bytes that the load takes, and it asks for no alignment.
    _mm_cvtph_ps(unsafe { _mm_loadl_epi64(scales.as_ptr().cast()) })
}

/// Four zeros in single precision.
#[target_feature(enable = "avx2")]
#[inline]
fn floats(zeros: [u8; GROUPS]) -> __m128 {
    _mm_cvtepi32_ps(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(i32::from_le_bytes(zeros))))
}

/// Scales of the four groups, and scales times zeros.
#[target_feature(enable = "avx2,f16c")]
#[inline]
pub(super) fn affine(affines: Affines) -> (__m128, __m128) {
    match affines {
        Affines::Each(scales, zeros) => {
            let scales = single(scales);
            (scales, _mm_mul_ps(scales, floats(zeros)))
        }
        Affines::Common(scale, zero) => {
            let scale = _mm_cvtph_ps(_mm_set1_epi16(scale.to_bits() as i16));
            (scale, _mm_mul_ps(scale, _mm_set1_ps(f32::from(zero))))
        }
    }
}

/// The sum of four values.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn sum4(x: __m128) -> f32 {
    let pairs = _mm_add_ps(x, _mm_movehl_ps(x, x));
    _mm_cvtss_f32(_mm_add_ss(pairs, _mm_movehdup_ps(pairs)))
}

/// The sum of eight values.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn sum8(x: __m256) -> f32 {
    sum4(_mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x)))
}

/// The codes of groups (0, 2) and (1, 3), a byte each, a group in each half of a vector.
#[target_feature(enable = "avx2")]
#[inline]
fn unpack(codes: &Codes<'_>) -> (__m256i, __m256i) {
    match codes {
        Codes::Four(bytes) => {
            let (bytes, mask) = (two(halves(bytes)), _mm256_set1_epi8(15));
            (_mm256_and_si256(bytes, mask), _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), mask))
        }
        Codes::Two(bytes) => {
            // A shift of wider elements brings foreign bits to the top of a byte, where the mask removes them.
            let (bytes, mask) = (_mm256_broadcastsi128_si256(load16(bytes)), _mm256_set1_epi8(3));
            let even = _mm256_srlv_epi32(bytes, _mm256_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4));
            let odd = _mm256_srlv_epi32(bytes, _mm256_setr_epi32(2, 2, 2, 2, 6, 6, 6, 6));
            (_mm256_and_si256(even, mask), _mm256_and_si256(odd, mask))
        }
    }
}

#[inline(always)]
fn halves(bytes: &[u8; 2 * GROUP]) -> [&[u8; GROUP]; 2] {
    let (low, high) = bytes.split_at(GROUP);
    [low.try_into().expect("half of 32"), high.try_into().expect("half of 32")]
}

/// Two groups of bytes, one in each half of a vector.
#[target_feature(enable = "avx2")]
#[inline]
fn two<T: Copy>([low, high]: [&[T; GROUP]; 2]) -> __m256i {
    _mm256_set_m128i(load16(high), load16(low))
}

/// Scale and sum of a block in the lower half of a vector.
#[target_feature(enable = "avx2")]
#[inline]
fn pair(block: &Block) -> __m128 {
    // SAFETY: two values are the eight bytes that the load takes, and it asks for no alignment.
    _mm_castsi128_ps(unsafe { _mm_loadl_epi64(block.scale_and_sum.as_ptr().cast()) })
}

/// The four blocks that a record multiplies. (Array methods do not take closures with these instructions inline.)
#[inline(always)]
pub(super) fn blocks_at(x: &[Block], columns: [usize; GROUPS]) -> [&Block; GROUPS] {
    let [a, b, c, d] = columns;
    [&x[a], &x[b], &x[c], &x[d]]
}

/// Scales and scaled sums of four blocks.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn scales_and_sums(blocks: [&Block; GROUPS]) -> (__m128, __m128) {
    let [a, b, c, d] = blocks;
    let (low, high) = (_mm_unpacklo_ps(pair(a), pair(b)), _mm_unpacklo_ps(pair(c), pair(d)));
    (_mm_movelh_ps(low, high), _mm_movehl_ps(high, low))
}

/// [`portable::dot_int8`](super::portable::dot_int8).
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot_int8<Q: Quad>(part: &[Q], first: usize, x: &Input) -> f32 {
    // With one scale for the vector the blocks' scales are 1 and stay unread.
    let scaled = x.precision() == Precision::Int8;
    x.factor * if scaled { blocks::<Q, true>(part, first, x) } else { blocks::<Q, false>(part, first, x) }
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn blocks<Q: Quad, const SCALED: bool>(part: &[Q], first: usize, input: &Input) -> f32 {
    let x = input.blocks.as_slice();
    let ones = _mm256_set1_epi16(1);
    let (at_even, at_odd) = (_mm256_setr_epi32(0, 0, 0, 0, 2, 2, 2, 2), _mm256_setr_epi32(1, 1, 1, 1, 3, 3, 3, 3));
    let (mut even_sum, mut odd_sum, mut zero_sum) = (_mm256_setzero_ps(), _mm256_setzero_ps(), _mm_setzero_ps());
    for (place, quad) in (first..).zip(part) {
        let [a, b, c, d] = blocks_at(x, quad.columns(place));
        let (even, odd) = unpack(&quad.codes());
        // |q| ≤ 15 and |x| ≤ 127: the sum of two products fits 16 bits.
        let even = _mm256_maddubs_epi16(even, two([&a.codes, &c.codes]));
        let odd = _mm256_maddubs_epi16(odd, two([&b.codes, &d.codes]));
        let (scales, offsets) = affine(quad.affine());
        let (x_scales, x_sums) = if Q::NEIGHBOURS {
            (load4(&input.scales, GROUPS * place), load4(&input.sums, GROUPS * place))
        } else {
            scales_and_sums([a, b, c, d])
        };
        zero_sum = _mm_fmadd_ps(offsets, x_sums, zero_sum);
        if let (false, Affines::Common(..)) = (SCALED, quad.affine()) {
            // One scale for all of it: the sums are added before they are scaled. Four products of codes up to 3 fit too.
            let products = _mm256_cvtepi32_ps(_mm256_madd_epi16(_mm256_add_epi16(even, odd), ones));
            even_sum = _mm256_fmadd_ps(products, _mm256_broadcastss_ps(scales), even_sum);
            continue;
        }
        let (even, odd) = (_mm256_madd_epi16(even, ones), _mm256_madd_epi16(odd, ones));
        let scales = _mm256_castps128_ps256(if SCALED { _mm_mul_ps(scales, x_scales) } else { scales });
        even_sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(even), _mm256_permutevar8x32_ps(scales, at_even), even_sum);
        odd_sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(odd), _mm256_permutevar8x32_ps(scales, at_odd), odd_sum);
    }
    sum8(_mm256_add_ps(even_sum, odd_sum)) - sum4(zero_sum)
}

/// [`portable::dot`](super::portable::dot).
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot<Q: Quad>(part: &[Q], first: usize, x: &Input) -> f32 {
    let values = x.values.as_chunks::<8>().0;
    let mut sums = [_mm256_setzero_ps(); 2];
    let mut zero_sum = _mm_setzero_ps();
    for (place, quad) in (first..).zip(part) {
        let (codes, columns) = (quad.codes(), quad.columns(place));
        let (scales, offsets) = affine(quad.affine());
        let [a, b, c, d] = columns;
        let x_sums =
            if Q::NEIGHBOURS { load4(&x.sums, a) } else { _mm_setr_ps(x.sums[a], x.sums[b], x.sums[c], x.sums[d]) };
        zero_sum = _mm_fmadd_ps(offsets, x_sums, zero_sum);
        let scales = _mm256_castps128_ps256(scales);
        for k in 0..GROUPS {
            let [low, high] = [&values[2 * columns[k]], &values[2 * columns[k] + 1]];
            let products = _mm256_mul_ps(eight(&codes, k, 0), load8(low));
            let products = _mm256_fmadd_ps(eight(&codes, k, 1), load8(high), products);
            let scale = _mm256_permutevar8x32_ps(scales, _mm256_set1_epi32(k as i32));
            sums[k % 2] = _mm256_fmadd_ps(products, scale, sums[k % 2]);
        }
    }
    sum8(_mm256_add_ps(sums[0], sums[1])) - sum4(zero_sum)
}

/// Half of the codes of a group in single precision.
#[target_feature(enable = "avx2")]
#[inline]
fn eight(codes: &Codes<'_>, group: usize, half: usize) -> __m256 {
    let (bytes, shift, mask) = match codes {
        Codes::Four(bytes) => (halves(bytes)[group / 2], 4 * (group % 2), 15),
        Codes::Two(bytes) => (*bytes, 2 * group, 3),
    };
    let part: &[u8; 8] = bytes.as_chunks().0[half..].first().expect("a group has two halves");
    let bytes = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(i64::from_le_bytes(*part)));
    let codes = _mm256_and_si256(_mm256_srlv_epi32(bytes, _mm256_set1_epi32(shift as i32)), _mm256_set1_epi32(mask));
    _mm256_cvtepi32_ps(codes)
}
