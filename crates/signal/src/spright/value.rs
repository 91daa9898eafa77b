//! Real and complex values, told apart only here.

use offprint_core::Complex;
use offprint_math::walsh_hadamard::{walsh_hadamard, walsh_hadamard_columns};
use std::fmt::Debug;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};

/// What a function on bits may take as values: `f64` or `Complex<f64>`.
pub trait Value:
    Copy
    + Default
    + Debug
    + PartialEq
    + Send
    + Sync
    + 'static
    + Add<Output = Self>
    + Sub<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
{
    /// The value with these real and imaginary parts; reals drop the imaginary part.
    fn from_parts(re: f64, im: f64) -> Self;
    /// Real and imaginary part.
    fn parts(self) -> (f64, f64);
    /// The product with a real number.
    fn scaled(self, factor: f64) -> Self;
    /// The Walsh–Hadamard transform of every column of a matrix with rows of `width` values, in place.
    fn transform_columns(x: &mut [Self], width: usize);
    /// The Walsh–Hadamard transform in place.
    fn transform(x: &mut [Self]);

    /// |x|².
    fn norm_squared(self) -> f64 {
        self.dot(self)
    }

    /// Re(x ȳ): positive where two values have the same sign.
    fn dot(self, other: Self) -> f64 {
        let ((a, b), (c, d)) = (self.parts(), other.parts());
        a * c + b * d
    }

    /// |x|.
    fn modulus(self) -> f64 {
        self.norm_squared().sqrt()
    }

    /// Whether both parts are finite.
    fn is_finite(self) -> bool {
        let (a, b) = self.parts();
        a.is_finite() && b.is_finite()
    }

    /// The value, negated if `negative`.
    fn signed(self, negative: bool) -> Self {
        if negative { -self } else { self }
    }

    /// The direction in which signs are read: 1 for reals, x / |x| for complex values.
    fn direction(self) -> Self;
}

impl Value for f64 {
    fn from_parts(re: f64, _: f64) -> Self {
        re
    }

    fn parts(self) -> (f64, f64) {
        (self, 0.0)
    }

    fn scaled(self, factor: f64) -> Self {
        self * factor
    }

    fn transform_columns(x: &mut [Self], width: usize) {
        walsh_hadamard_columns(x, width);
    }

    fn transform(x: &mut [Self]) {
        walsh_hadamard(x);
    }

    fn dot(self, other: Self) -> f64 {
        self * other
    }

    fn modulus(self) -> f64 {
        self.abs()
    }

    fn direction(self) -> Self {
        1.0
    }
}

impl Value for Complex<f64> {
    fn from_parts(re: f64, im: f64) -> Self {
        Self::new(re, im)
    }

    fn parts(self) -> (f64, f64) {
        (self.re, self.im)
    }

    fn scaled(self, factor: f64) -> Self {
        self.scale(factor)
    }

    fn transform_columns(x: &mut [Self], width: usize) {
        by_parts(x, |part| walsh_hadamard_columns(part, width));
    }

    fn transform(x: &mut [Self]) {
        by_parts(x, walsh_hadamard);
    }

    fn direction(self) -> Self {
        let modulus = self.norm();
        if modulus > 0.0 { self.unscale(modulus) } else { Self::new(1.0, 0.0) }
    }
}

/// Transforms real and imaginary parts one after the other, through one buffer of reals.
fn by_parts(x: &mut [Complex<f64>], transform: impl Fn(&mut [f64])) {
    let mut part: Vec<f64> = x.iter().map(|z| z.re).collect();
    transform(&mut part);
    for (z, part) in x.iter_mut().zip(&mut part) {
        z.re = std::mem::replace(part, z.im);
    }
    transform(&mut part);
    for (z, part) in x.iter_mut().zip(part) {
        z.im = part;
    }
}
