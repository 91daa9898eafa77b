//! The element types that vectors and gradient matrices are kept in.

use std::fmt::Debug;

/// A real number as stored: `f32` where memory is what limits, `f64` otherwise. Sums over many of them are always kept
/// in `f64`.
pub trait Real: Copy + Send + Sync + Default + PartialEq + Debug + 'static {
    /// The name of the type as numpy gives it.
    const NAME: &'static str;
    /// The distance from 1 to the next larger number.
    const EPSILON: f64;
    /// The value in double precision.
    fn to_f64(self) -> f64;
    /// The stored number nearest to `x`.
    fn from_f64(x: f64) -> Self;
}

impl Real for f32 {
    const NAME: &'static str = "float32";
    const EPSILON: f64 = f32::EPSILON as f64;
    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    #[inline(always)]
    fn from_f64(x: f64) -> Self {
        x as Self
    }
}

impl Real for f64 {
    const NAME: &'static str = "float64";
    const EPSILON: f64 = f64::EPSILON;
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self
    }
    #[inline(always)]
    fn from_f64(x: f64) -> Self {
        x
    }
}
