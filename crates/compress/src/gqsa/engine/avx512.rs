//! The kernels in AVX-512 with dot products of bytes: a record in one vector.

use super::Precision;
use super::avx2::{blocks_at, floats, load16, scales_and_sums, single, sum4};
use super::input::{Block, Input};
use super::record::{Codes, GROUPS, Quad};
use std::arch::x86_64::*;

/// Sixteen values as a vector.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn load16_single(values: &[f32; 16]) -> __m512 {
    // SAFETY: sixteen values are behind the reference, and the load asks for no alignment.
    unsafe { _mm512_loadu_ps(values.as_ptr()) }
}

/// Sixteen bytes in each quarter of a vector, in the order of groups 0, 2, 1, 3 in which [`unpack`] puts codes.
#[target_feature(enable = "avx512f")]
#[inline]
fn four<T: Copy>([a, b, c, d]: [&[T; 16]; GROUPS]) -> __m512i {
    let (even, odd) = (_mm256_set_m128i(load16(c), load16(a)), _mm256_set_m128i(load16(d), load16(b)));
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(even), odd)
}

/// The codes of groups 0, 2, 1 and 3, a byte each, a group in each quarter of a vector.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn unpack(codes: &Codes<'_>) -> __m512i {
    match codes {
        Codes::Four(bytes) => {
            let [low, high] = bytes.as_chunks::<16>().0 else { unreachable!("32 bytes are two times 16") };
            let bytes = _mm512_broadcast_i64x4(_mm256_set_m128i(load16(high), load16(low)));
            let shifted = _mm512_srlv_epi64(bytes, _mm512_setr_epi64(0, 0, 0, 0, 4, 4, 4, 4));
            _mm512_and_si512(shifted, _mm512_set1_epi8(15))
        }
        Codes::Two(bytes) => {
            let bytes = _mm512_broadcast_i32x4(load16(bytes));
            let shifted = _mm512_srlv_epi64(bytes, _mm512_setr_epi64(0, 0, 4, 4, 2, 2, 6, 6));
            _mm512_and_si512(shifted, _mm512_set1_epi8(3))
        }
    }
}

/// [`portable::dot_int8`](super::portable::dot_int8).
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn dot_int8<Q: Quad>(part: &[Q], first: usize, x: &Input) -> f32 {
    let scaled = x.precision() == Precision::Int8;
    x.factor * if scaled { blocks::<Q, true>(part, first, &x.blocks) } else { blocks::<Q, false>(part, first, &x.blocks) }
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn blocks<Q: Quad, const SCALED: bool>(part: &[Q], first: usize, x: &[Block]) -> f32 {
    let to_groups = _mm512_setr_epi32(0, 0, 0, 0, 2, 2, 2, 2, 1, 1, 1, 1, 3, 3, 3, 3);
    let (mut sum, mut zero_sum) = (_mm512_setzero_ps(), _mm_setzero_ps());
    for (place, quad) in (first..).zip(part) {
        let blocks = blocks_at(x, quad.columns(place));
        let [a, b, c, d] = blocks;
        let x_codes = four([&a.codes, &b.codes, &c.codes, &d.codes]);
        let products = _mm512_dpbusd_epi32(_mm512_setzero_si512(), unpack(&quad.codes()), x_codes);
        let scales = single(quad.scales());
        let (x_scales, x_sums) = scales_and_sums(blocks);
        zero_sum = _mm_fmadd_ps(_mm_mul_ps(scales, floats(quad.zeros())), x_sums, zero_sum);
        let scales = _mm512_castps128_ps512(if SCALED { _mm_mul_ps(scales, x_scales) } else { scales });
        sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), _mm512_permutexvar_ps(to_groups, scales), sum);
    }
    _mm512_reduce_add_ps(sum) - sum4(zero_sum)
}

/// [`portable::dot`](super::portable::dot), by looking up each code among the weights that its group knows.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl")]
pub(super) fn dot<Q: Quad>(part: &[Q], first: usize, x: &Input) -> f32 {
    let values = x.values.as_chunks::<16>().0;
    let all = _mm512_setr_ps(0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.);
    // Repeated, so that the bits of the next code in an index do not matter.
    let four_times = _mm512_setr_ps(0., 1., 2., 3., 0., 1., 2., 3., 0., 1., 2., 3., 0., 1., 2., 3.);
    let mut sums = [_mm512_setzero_ps(); 2];
    for (place, quad) in (first..).zip(part) {
        let columns = quad.columns(place);
        let (bytes, shift, codes) = match quad.codes() {
            Codes::Four(bytes) => {
                let [low, high] = bytes.as_chunks::<16>().0 else { unreachable!("32 bytes are two times 16") };
                ([low, low, high, high], [0, 4, 0, 4], all)
            }
            Codes::Two(bytes) => ([bytes; GROUPS], [0, 2, 4, 6], four_times),
        };
        let scales = single(quad.scales());
        let offsets = _mm512_castps128_ps512(_mm_mul_ps(scales, floats(quad.zeros())));
        let scales = _mm512_castps128_ps512(scales);
        for k in 0..GROUPS {
            let index = _mm512_set1_epi32(k as i32);
            let scale = _mm512_permutexvar_ps(index, scales);
            let weights = _mm512_fmsub_ps(codes, scale, _mm512_permutexvar_ps(index, offsets));
            let codes = _mm512_srlv_epi32(_mm512_cvtepu8_epi32(load16(bytes[k])), _mm512_set1_epi32(shift[k]));
            let chosen = _mm512_permutexvar_ps(codes, weights);
            sums[k % 2] = _mm512_fmadd_ps(chosen, load16_single(&values[columns[k]]), sums[k % 2]);
        }
    }
    _mm512_reduce_add_ps(_mm512_add_ps(sums[0], sums[1]))
}
