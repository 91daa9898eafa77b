//! How weights lie in memory: records of four groups, one after the other along a row.
//!
//! All values of a group stand in the same record, so a product reads one stream. The codes of four groups are laid out so
//! that a shift and a mask bring them into two vectors of two groups each.

#[cfg(target_arch = "x86_64")]
use super::avx2;
use super::group::{Affine, GROUP, Group};
use super::input::Input;
use super::instructions::{Instructions, Set};
use super::{Precision, portable};
use half::f16;

/// Groups in a record.
pub const GROUPS: usize = 4;

/// A piece of a row as it lies in memory.
pub trait Record: Copy + Send + Sync + 'static {
    /// The inner product of `x` with a part of a row, the records from place `first` on. A record must not point beyond
    /// the columns of `x`.
    fn dot(part: &[Self], first: usize, x: &Input, with: Instructions) -> f32;

    /// Writes the weights of the record that stands at `place` in its row into the row written out.
    fn expand(&self, place: usize, row: &mut [f32]);
}

/// The codes of a record.
pub(super) enum Codes<'a> {
    /// Four bits each: byte i holds weight i of group 0 (low) and 1 (high), byte 16 + i those of groups 2 and 3.
    Four(&'a [u8; 2 * GROUP]),
    /// Two bits each: byte i holds weight i of the four groups, the first in the lowest bits.
    Two(&'a [u8; GROUP]),
}

/// The scales and zeros of a record.
pub(super) enum Affines {
    /// One of each for a group.
    Each([f16; GROUPS], [u8; GROUPS]),
    /// One for all groups.
    Common(f16, u8),
}

impl Affines {
    /// What the codes of group `k` mean.
    pub(super) fn of(&self, k: usize) -> Affine {
        match *self {
            Self::Each(scales, zeros) => Affine { scale: scales[k], zero: zeros[k] },
            Self::Common(scale, zero) => Affine { scale, zero },
        }
    }
}

/// A record of four groups, each of which multiplies sixteen neighbouring values.
pub(super) trait Quad: Copy {
    /// The codes.
    fn codes(&self) -> Codes<'_>;
    /// The scales and zeros of the groups.
    fn affine(&self) -> Affines;
    /// Whether the groups are neighbours in every record, the first of them at four times its place.
    const NEIGHBOURS: bool;

    /// Which sixteen of x each group multiplies, for the record at `place` in its row.
    fn columns(&self, place: usize) -> [usize; GROUPS];
}

/// Code `i` of group `group`.
pub(super) fn code(codes: &Codes<'_>, group: usize, i: usize) -> u8 {
    match codes {
        Codes::Four(bytes) => bytes[GROUP * (group / 2) + i] >> (4 * (group % 2)) & 15,
        Codes::Two(bytes) => bytes[i] >> (2 * group) & 3,
    }
}

/// Four groups of 4 bits with the columns that they stand at: 13 bytes a group.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub struct SparseQuad {
    codes: [u8; 2 * GROUP],
    columns: [u16; GROUPS],
    scales: [f16; GROUPS],
    zeros: [u8; GROUPS],
}

/// Four neighbouring groups of 4 bits: 11 bytes a group.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub struct DenseQuad4 {
    codes: [u8; 2 * GROUP],
    scales: [f16; GROUPS],
    zeros: [u8; GROUPS],
}

/// Four neighbouring groups of 2 bits: 7 bytes a group.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub struct DenseQuad2 {
    codes: [u8; GROUP],
    scales: [f16; GROUPS],
    zeros: [u8; GROUPS],
}

/// Sixty-four neighbouring weights of 2 bits under one scale and zero: 19 bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub struct WideQuad2 {
    codes: [u8; GROUP],
    /// In half precision, as bytes: a record of an odd number of bytes has no alignment.
    scale: [u8; 2],
    zero: u8,
}

/// The codes of four groups in four bits.
fn pack4(codes: [&[u8; GROUP]; GROUPS]) -> [u8; 2 * GROUP] {
    std::array::from_fn(|byte| {
        let (pair, i) = (byte / GROUP, byte % GROUP);
        codes[2 * pair][i] | codes[2 * pair + 1][i] << 4
    })
}

/// The codes of four groups in two bits.
fn pack2(codes: [&[u8; GROUP]; GROUPS]) -> [u8; GROUP] {
    std::array::from_fn(|i| (0..GROUPS).fold(0, |byte, group| byte | codes[group][i] << (2 * group)))
}

impl SparseQuad {
    /// Up to four groups and the columns, counted in groups, that they stand at.
    pub fn new(groups: &[(u16, Group)]) -> Self {
        let at = |i: usize| groups.get(i).copied().unwrap_or((0, Group::PADDING));
        let quad: [(u16, Group); GROUPS] = std::array::from_fn(at);
        Self {
            codes: pack4(quad.each_ref().map(|(_, group)| &group.codes)),
            columns: quad.map(|(column, _)| column),
            scales: quad.map(|(_, group)| group.affine.scale),
            zeros: quad.map(|(_, group)| group.affine.zero),
        }
    }

    /// The groups with their columns, without those that fill up the record.
    pub fn groups(&self) -> impl Iterator<Item = (u16, Group)> + '_ {
        (0..GROUPS).filter(|&k| self.scales[k] != f16::ZERO).map(|k| {
            let codes = std::array::from_fn(|i| code(&self.codes(), k, i));
            (self.columns[k], Group { codes, affine: Affine { scale: self.scales[k], zero: self.zeros[k] } })
        })
    }
}

/// Cuts up to 64 weights into four groups, the missing ones 0.
fn quarters(weights: &[f32]) -> [[f32; GROUP]; GROUPS] {
    std::array::from_fn(|k| std::array::from_fn(|i| weights.get(GROUP * k + i).copied().unwrap_or(0.0)))
}

/// Four groups of `weights`, each rounded for itself; groups beyond the end are padding.
fn rounded(weights: &[f32], bits: u32) -> [Group; GROUPS] {
    let mut k = 0;
    quarters(weights).map(|quarter| {
        let group = if k < weights.len() { Group::rounded(&quarter, bits) } else { Group::PADDING };
        k += GROUP;
        group
    })
}

impl DenseQuad4 {
    /// Up to 64 weights (a multiple of 16), each 16 rounded over their own range.
    pub fn rounded(weights: &[f32]) -> Self {
        let groups = rounded(weights, 4);
        Self {
            codes: pack4(groups.each_ref().map(|group| &group.codes)),
            scales: groups.map(|group| group.affine.scale),
            zeros: groups.map(|group| group.affine.zero),
        }
    }
}

impl DenseQuad2 {
    /// Up to 64 weights (a multiple of 16), each 16 rounded over their own range.
    pub fn rounded(weights: &[f32]) -> Self {
        let groups = rounded(weights, 2);
        Self {
            codes: pack2(groups.each_ref().map(|group| &group.codes)),
            scales: groups.map(|group| group.affine.scale),
            zeros: groups.map(|group| group.affine.zero),
        }
    }
}

impl WideQuad2 {
    /// Up to 64 weights rounded over their common range.
    pub fn rounded(weights: &[f32]) -> Self {
        let affine = Affine::of(weights, 2);
        let codes = quarters(weights).map(|quarter| quarter.map(|w| affine.code(w, 2)));
        Self { codes: pack2(codes.each_ref()), scale: affine.scale.to_le_bytes(), zero: affine.zero }
    }
}

impl Quad for SparseQuad {
    const NEIGHBOURS: bool = false;

    #[inline(always)]
    fn codes(&self) -> Codes<'_> {
        Codes::Four(&self.codes)
    }

    #[inline(always)]
    fn affine(&self) -> Affines {
        Affines::Each(self.scales, self.zeros)
    }

    #[inline(always)]
    fn columns(&self, _: usize) -> [usize; GROUPS] {
        let [a, b, c, d] = self.columns;
        [usize::from(a), usize::from(b), usize::from(c), usize::from(d)]
    }
}

macro_rules! dense_quad {
    ($record:ident, $codes:ident, $quad:ident => $affine:expr) => {
        impl Quad for $record {
            const NEIGHBOURS: bool = true;

            #[inline(always)]
            fn codes(&self) -> Codes<'_> {
                Codes::$codes(&self.codes)
            }

            #[inline(always)]
            fn affine(&self) -> Affines {
                let $quad = self;
                $affine
            }

            #[inline(always)]
            fn columns(&self, place: usize) -> [usize; GROUPS] {
                let first = GROUPS * place;
                [first, first + 1, first + 2, first + 3]
            }
        }
    };
}

dense_quad!(DenseQuad4, Four, quad => Affines::Each(quad.scales, quad.zeros));
dense_quad!(DenseQuad2, Two, quad => Affines::Each(quad.scales, quad.zeros));
dense_quad!(WideQuad2, Two, quad => Affines::Common(f16::from_le_bytes(quad.scale), quad.zero));

impl<Q: Quad + Send + Sync + 'static> Record for Q {
    fn dot(part: &[Self], first: usize, x: &Input, with: Instructions) -> f32 {
        match (with.set(), x.precision()) {
            (Set::Portable, Precision::Single) => portable::dot(part, first, x),
            (Set::Portable, _) => portable::dot_int8(part, first, x),
            // SAFETY: the instructions are those of this machine, as a value of that type promises.
            #[cfg(target_arch = "x86_64")]
            (Set::Avx2, Precision::Single) => unsafe { avx2::dot(part, first, x) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            (Set::Avx2, _) => unsafe { avx2::dot_int8(part, first, x) },
        }
    }

    fn expand(&self, place: usize, row: &mut [f32]) {
        let (codes, affines) = (self.codes(), self.affine());
        for (k, column) in self.columns(place).into_iter().enumerate() {
            // What fills up a record has the scale 0, and may stand at a column of another group or beyond the row.
            let affine = affines.of(k);
            if affine.scale == f16::ZERO {
                continue;
            }
            for (i, w) in row.iter_mut().skip(GROUP * column).take(GROUP).enumerate() {
                *w = affine.weight(code(&codes, k, i));
            }
        }
    }
}
