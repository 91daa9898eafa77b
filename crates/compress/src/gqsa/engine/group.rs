//! Sixteen neighbouring weights under one scale and one zero.

use half::f16;

/// Weights in a group: the unit of pruning, and of quantisation in all formats but one.
pub const GROUP: usize = 16;

/// The least and the largest scale of a group.
const SCALES: (f32, f32) = (1e-4, 1e4);

/// The affine map from codes to weights of a group: ŵ = (q − z) s.
///
/// The scale is rounded to half precision *before* codes are chosen by it, so that what is stored is what was chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Affine {
    /// Scale s.
    pub scale: f16,
    /// Zero z, the code of the weight 0.
    pub zero: u8,
}

/// The codes of a group and what they mean.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Group {
    /// Codes q.
    pub codes: [u8; GROUP],
    /// Their meaning.
    pub affine: Affine,
}

/// The largest code of `bits` bits.
pub fn largest_code(bits: u32) -> u8 {
    ((1u32 << bits) - 1) as u8
}

impl Affine {
    /// What fills a record up to its size: all weights are 0.
    pub const PADDING: Self = Self { scale: f16::ZERO, zero: 0 };

    /// From the least to the largest of `weights`, in `bits` bits (1 to 8): s = clip((max − min)/(2ᵇ − 1), 10⁻⁴, 10⁴)
    /// and z = clip(round(−min/s), 0, 2ᵇ − 1).
    ///
    /// The range is not stretched to include 0: of a group whose weights all have the same sign and a size above their
    /// range, the zero is cut off and the codes saturate. Of 16 weights drawn about 0 that is one group in some
    /// thousands, and training the scale mends it.
    pub fn of(weights: &[f32], bits: u32) -> Self {
        let (low, high) = weights.iter().fold((f32::MAX, f32::MIN), |(low, high), &w| (low.min(w), high.max(w)));
        if weights.is_empty() {
            return Self::PADDING;
        }
        Self::with_scale((high - low) / f32::from(largest_code(bits)), low, bits)
    }

    /// The map with the scale nearest to `scale` that is stored, and the zero that puts `low` at code 0.
    pub fn with_scale(scale: f32, low: f32, bits: u32) -> Self {
        let scale = stored_scale(scale);
        let zero = (-low / scale.to_f32()).round_ties_even().clamp(0.0, f32::from(largest_code(bits)));
        Self { scale, zero: zero as u8 }
    }

    /// The code of a weight: clip(round(w/s) + z, 0, 2ᵇ − 1).
    pub fn code(self, weight: f32, bits: u32) -> u8 {
        let code = (weight / self.scale.to_f32()).round_ties_even() + f32::from(self.zero);
        code.clamp(0.0, f32::from(largest_code(bits))) as u8
    }

    /// The weight of a code.
    pub fn weight(self, code: u8) -> f32 {
        f32::from(i16::from(code) - i16::from(self.zero)) * self.scale.to_f32()
    }
}

/// The scale as it is stored: within its bounds, in half precision.
pub fn stored_scale(scale: f32) -> f16 {
    f16::from_f32(scale.clamp(SCALES.0, SCALES.1))
}

impl Group {
    /// What fills a record up to its size.
    pub const PADDING: Self = Self { codes: [0; GROUP], affine: Affine::PADDING };

    /// The weights rounded to `bits` bits over their range.
    pub fn rounded(weights: &[f32; GROUP], bits: u32) -> Self {
        let affine = Affine::of(weights, bits);
        Self { codes: weights.map(|w| affine.code(w, bits)), affine }
    }

    /// The weights that the codes stand for.
    pub fn weights(&self) -> [f32; GROUP] {
        self.codes.map(|q| self.affine.weight(q))
    }
}
