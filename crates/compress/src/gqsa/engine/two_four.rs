//! Two kept of every four: the sparsity that accelerators support, in 4 bits.
//!
//! A group of 16 kept weights stands for 32 columns. Which two of four are kept takes two bits each, so that a byte tells
//! it for eight columns; gathering the values by these bytes is what makes the format slower than its size.

use super::Precision;
use super::group::{Affine, GROUP, Group};
use super::input::Input;
use super::instructions::{Instructions, Set};
use super::record::{GROUPS, Record};
use half::f16;

/// Columns that a group stands for.
pub const SPAN: usize = 2 * GROUP;

/// Bytes of positions in a group: one for eight columns.
const POSITIONS: usize = SPAN / 8;

/// Four groups of 4 bits, two kept of every four columns: 15 bytes for 32 columns.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub struct TwoFourQuad {
    /// As in the other records of 4 bits.
    codes: [u8; 2 * GROUP],
    positions: [[u8; POSITIONS]; GROUPS],
    scales: [f16; GROUPS],
    zeros: [u8; GROUPS],
}

/// Which of eight columns the four weights of a byte of positions stand at.
const fn places(byte: u8) -> [u8; 4] {
    [byte & 3, byte >> 2 & 3, 4 + (byte >> 4 & 3), 4 + (byte >> 6 & 3)]
}

/// [`places`] of all bytes.
static PLACES: [[u8; 4]; 256] = {
    let mut table = [[0; 4]; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = places(byte as u8);
        byte += 1;
    }
    table
};

impl TwoFourQuad {
    /// Up to 128 weights (a multiple of 32) of which `kept` says which to keep: two of every four.
    pub fn rounded(weights: &[f32], kept: &[bool]) -> Self {
        let mut quad = Self {
            codes: [0; 2 * GROUP],
            positions: [[0; POSITIONS]; GROUPS],
            scales: [f16::ZERO; GROUPS],
            zeros: [0; GROUPS],
        };
        for (k, (weights, kept)) in weights.chunks_exact(SPAN).zip(kept.chunks_exact(SPAN)).enumerate() {
            let mut chosen = [0.0; GROUP];
            let columns = (0..SPAN).filter(|&column| kept[column]);
            for (next, column) in columns.take(GROUP).enumerate() {
                chosen[next] = weights[column];
                quad.positions[k][next / 4] |= ((column % 4) as u8) << (2 * (next % 4));
            }
            let Group { codes, affine } = Group::rounded(&chosen, 4);
            for (i, code) in codes.into_iter().enumerate() {
                quad.codes[GROUP * (k / 2) + i] |= code << (4 * (k % 2));
            }
            (quad.scales[k], quad.zeros[k]) = (affine.scale, affine.zero);
        }
        quad
    }

    fn affine(&self, k: usize) -> Affine {
        Affine { scale: self.scales[k], zero: self.zeros[k] }
    }

    fn code(&self, k: usize, i: usize) -> u8 {
        self.codes[GROUP * (k / 2) + i] >> (4 * (k % 2)) & 15
    }

    /// The column, within the group's, of kept weight `i`.
    fn column(&self, k: usize, i: usize) -> usize {
        8 * (i / 4) + usize::from(PLACES[usize::from(self.positions[k][i / 4])][i % 4])
    }
}

impl Record for TwoFourQuad {
    fn dot(part: &[Self], first: usize, x: &Input, with: Instructions) -> f32 {
        match with.set() {
            Set::Portable => portable(part, first, x),
            // SAFETY: the instructions are those of this machine, as a value of that type promises.
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 if x.precision() == Precision::Single => unsafe { x86::dot(part, first, x) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => unsafe { x86::dot_int8(part, first, x) },
        }
    }

    fn expand(&self, place: usize, row: &mut [f32]) {
        for k in (0..GROUPS).filter(|&k| self.scales[k] != f16::ZERO) {
            let span = &mut row[SPAN * (GROUPS * place + k)..][..SPAN];
            for i in 0..GROUP {
                span[self.column(k, i)] = self.affine(k).weight(self.code(k, i));
            }
        }
    }
}

fn portable(part: &[TwoFourQuad], first: usize, x: &Input) -> f32 {
    let mut total = 0.0;
    for (place, quad) in (first..).zip(part) {
        for k in 0..GROUPS {
            let first = GROUPS * place + k;
            let zero = i32::from(quad.zeros[k]);
            let code = |i| i32::from(quad.code(k, i)) - zero;
            // The kept weights of each eight columns follow each other: the first half of a group meets the first block.
            let sum: f32 = if x.precision() == Precision::Single {
                let values = &x.values[SPAN * first..][..SPAN];
                (0..GROUP).map(|i| code(i) as f32 * values[quad.column(k, i)]).sum()
            } else {
                (0..2)
                    .map(|half| {
                        let block = &x.blocks[2 * first + half];
                        let dot: i32 = (GROUP / 2 * half..GROUP / 2 * (half + 1))
                            .map(|i| code(i) * i32::from(block.codes[quad.column(k, i) - GROUP * half]))
                            .sum();
                        block.scale_and_sum[0] * dot as f32
                    })
                    .sum()
            };
            total += quad.scales[k].to_f32() * sum;
        }
    }
    total * x.factor
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::super::avx2::{load8, load16, single, sum8};
    use super::{GROUP, GROUPS, Input, PLACES, POSITIONS, TwoFourQuad};
    use std::arch::x86_64::*;

    /// Places in 16 columns of the eight weights that two bytes of positions tell, as eight bytes.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn eight_places(positions: [u8; 2]) -> u64 {
        let [low, high] = positions;
        let of = [PLACES[usize::from(low)], PLACES[usize::from(high)]];
        u64::from(u32::from_le_bytes(of[0])) | (u64::from(u32::from_le_bytes(of[1])) + 0x0808_0808) << 32
    }

    /// The codes less their zero of groups `k` (low half) and `k + 2` (high half), −15..=15.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn centred(quad: &TwoFourQuad, k: usize) -> __m256i {
        let [low, high] = quad.codes.as_chunks::<GROUP>().0 else { unreachable!("32 bytes are two times 16") };
        let bytes = _mm256_set_m128i(load16(high), load16(low));
        let shifted = if k == 0 { bytes } else { _mm256_srli_epi16::<4>(bytes) };
        let zeros = _mm256_set_m128i(_mm_set1_epi8(quad.zeros[k + 2] as i8), _mm_set1_epi8(quad.zeros[k] as i8));
        _mm256_sub_epi8(_mm256_and_si256(shifted, _mm256_set1_epi8(15)), zeros)
    }

    /// The bytes of x that the weights of the group `k` of the record at `place` multiply.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn gathered(quad: &TwoFourQuad, place: usize, k: usize, x: &Input) -> __m128i {
        let first = 2 * (GROUPS * place + k);
        let [a, b, c, d]: [u8; POSITIONS] = quad.positions[k];
        let places = _mm_set_epi64x(eight_places([c, d]) as i64, eight_places([a, b]) as i64);
        let low = _mm_shuffle_epi8(load16(&x.blocks[first].codes), places);
        let high = _mm_shuffle_epi8(load16(&x.blocks[first + 1].codes), places);
        _mm_blend_epi32::<0b1100>(low, high)
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    pub fn dot_int8(part: &[TwoFourQuad], first: usize, x: &Input) -> f32 {
        let ones = _mm256_set1_epi16(1);
        let mut sum = _mm256_setzero_ps();
        for (place, quad) in (first..).zip(part) {
            let scales = _mm256_castps128_ps256(single(quad.scales));
            for k in 0..2 {
                let x_codes = _mm256_set_m128i(gathered(quad, place, k + 2, x), gathered(quad, place, k, x));
                let codes = centred(quad, k);
                // An unsigned factor is asked for: the size of a code, its sign moved to the other.
                let products = _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(x_codes, codes));
                let products = _mm256_cvtepi32_ps(_mm256_madd_epi16(products, ones));
                // Two sums for each block of x.
                let block = |group: usize| {
                    let first = 2 * (GROUPS * place + group);
                    (x.blocks[first].scale_and_sum[0], x.blocks[first + 1].scale_and_sum[0])
                };
                let ((a, b), (c, d)) = (block(k), block(k + 2));
                let x_scales = _mm256_setr_ps(a, a, b, b, c, c, d, d);
                let (low, high) = (k as i32, k as i32 + 2);
                let at = _mm256_setr_epi32(low, low, low, low, high, high, high, high);
                let scales = _mm256_mul_ps(_mm256_permutevar8x32_ps(scales, at), x_scales);
                sum = _mm256_fmadd_ps(products, scales, sum);
            }
        }
        x.factor * sum8(sum)
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    pub fn dot(part: &[TwoFourQuad], first: usize, x: &Input) -> f32 {
        let values = x.values.as_chunks::<8>().0;
        let mut sum = _mm256_setzero_ps();
        for (place, quad) in (first..).zip(part) {
            let scales = _mm256_castps128_ps256(single(quad.scales));
            for k in 0..2 {
                let codes = centred(quad, k);
                let halves = [_mm256_castsi256_si128(codes), _mm256_extracti128_si256::<1>(codes)];
                for (group, codes) in [(k, halves[0]), (k + 2, halves[1])] {
                    let scale = _mm256_permutevar8x32_ps(scales, _mm256_set1_epi32(group as i32));
                    let values = &values[4 * (GROUPS * place + group)..][..4];
                    let positions = quad.positions[group];
                    let mut products = _mm256_setzero_ps();
                    for (half, codes) in [(0, codes), (1, _mm_srli_si128::<8>(codes))] {
                        let codes = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes));
                        let places = eight_places([positions[2 * half], positions[2 * half + 1]]);
                        let places = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(places as i64));
                        // A permutation reads the lowest three bits of a place only: the second four come from the
                        // second eight.
                        let low = _mm256_permutevar8x32_ps(load8(&values[2 * half]), places);
                        let high = _mm256_permutevar8x32_ps(load8(&values[2 * half + 1]), places);
                        let chosen = _mm256_blend_ps::<0b1111_0000>(low, high);
                        products = _mm256_fmadd_ps(codes, chosen, products);
                    }
                    sum = _mm256_fmadd_ps(products, scale, sum);
                }
            }
        }
        sum8(sum)
    }
}
