//! One scale and one zero.

/// Code q = clip(round(w/s) + z), value (q − z) s.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Affine {
    /// Step between two levels, s.
    pub scale: f32,
    /// Code of 0, z; a whole number unless the zero is a float, which is added before rounding.
    pub zero: f32,
    /// First and last code.
    pub codes: (i32, i32),
}

impl Affine {
    /// The code of `w`: the nearest level, ties to even.
    #[inline]
    pub fn code(&self, w: f32) -> i32 {
        let whole = self.zero == self.zero.round_ties_even();
        let code = if whole {
            (w / self.scale).round_ties_even() + self.zero
        } else {
            (w / self.scale + self.zero).round_ties_even()
        };
        // In floats first: far values do not fit into integers.
        code.clamp(self.codes.0 as f32, self.codes.1 as f32) as i32
    }

    /// The value of `code`.
    #[inline]
    pub fn value(&self, code: i32) -> f32 {
        (code as f32 - self.zero) * self.scale
    }

    /// The value nearest to `w`.
    #[inline]
    pub fn fake(&self, w: f32) -> f32 {
        self.value(self.code(w))
    }
}
