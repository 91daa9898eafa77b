//! The element types that fused operations know, their functions in a form that the compiler vectorises, and how
//! kernels reach a tensor's memory.

use candle_core::{CpuStorage, DType, Layout, Result, Shape, Storage, Tensor, WithDType, bail};
use std::borrow::Cow;
use std::iter::Sum;
use std::ops::Neg;

/// `f32` or `f64`. The functions are free of branches and calls, so a loop over them becomes vector instructions inside
/// [`vectorised`]; outside of it, fused multiply-adds may be calls into the system's library.
pub trait Element: WithDType + Default + Neg<Output = Self> + Sum + faer::traits::ComplexField {
    /// The elements of a storage of this type, to be changed.
    fn slice_mut(storage: &mut CpuStorage) -> Result<&mut [Self]>;
    /// Square root.
    fn sqrt(self) -> Self;
    /// `self · a + b`, rounded once.
    fn mul_add(self, a: Self, b: Self) -> Self;
    /// Absolute value.
    fn abs(self) -> Self;
    /// The nearest whole number, the even one of two.
    fn round_ties_even(self) -> Self;
    /// This value with the sign of another.
    fn copysign(self, sign: Self) -> Self;
    /// `eˣ − 1 − x` divided by `x²`, for |x| ≤ ln 2 / 2.
    fn exp_rest(self) -> Self;
    /// `x = n ln 2 + r` as r and the two factors, both within range, of 2ⁿ; x is clamped to where eˣ is 0 or ∞.
    fn reduce(self) -> (Self, Self, Self);
    /// `erfc(x) exp(x²) (1 + 2x)` for x ≥ 0 of `t = (x − c) / (x + c)`, with c = [`Element::ERFCX_CENTRE`].
    fn erfcx_of(self) -> Self;
    /// The point at which the polynomial of [`Element::erfcx_of`] is centred.
    const ERFCX_CENTRE: f64;
    /// Beyond this, erfc is 0.
    const ERFC_END: f64;

    /// Exponential function.
    #[inline(always)]
    fn exp(self) -> Self {
        let (r, s1, s2) = self.reduce();
        let e = (r * r).mul_add(r.exp_rest(), r) + Self::one();
        e * s1 * s2
    }

    /// `eˣ − 1` without cancellation, for x ≤ 0.
    #[inline(always)]
    fn exp_m1_negative(self) -> Self {
        let (r, s1, s2) = self.reduce();
        let scale = s1 * s2;
        (r * r).mul_add(r.exp_rest(), r).mul_add(scale, scale - Self::one())
    }

    /// Hyperbolic tangent.
    #[inline(always)]
    fn tanh(self) -> Self {
        let two = Self::one() + Self::one();
        let e = (-two * self.abs()).exp_m1_negative();
        (-e / (e + two)).copysign(self)
    }

    /// `1 / (1 + e⁻ˣ)`, accurate in both tails.
    #[inline(always)]
    fn sigmoid(self) -> Self {
        let e = (-self.abs()).exp();
        let upper = Self::one() / (Self::one() + e);
        if self < Self::zero() { e * upper } else { upper }
    }

    /// The normal distribution function Φ(x), accurate in both tails, and `exp(−x²/2)`.
    #[inline(always)]
    fn normal(self) -> (Self, Self) {
        let constant = Self::from_f64;
        let e = (constant(-0.5) * self * self).exp();
        let end = constant(Self::ERFC_END);
        let z = self.abs() * constant(std::f64::consts::FRAC_1_SQRT_2);
        let z = if z > end { end } else { z };
        let centre = constant(Self::ERFCX_CENTRE);
        // One division serves t and the factor 1 + 2z.
        let (sum, factor) = (z + centre, Self::one() + z + z);
        let inverse = Self::one() / (sum * factor);
        let half_erfc = constant(0.5) * e * ((z - centre) * inverse * factor).erfcx_of() * inverse * sum;
        (if self < Self::zero() { half_erfc } else { Self::one() - half_erfc }, e)
    }
}

/// The polynomial with the coefficients given, from the constant one on.
macro_rules! polynomial {
    ($x:expr; $last:literal) => { $last };
    ($x:expr; $first:literal, $($rest:literal),+) => { polynomial!($x; $($rest),+).mul_add($x, $first) };
}

macro_rules! element {
    ($type:ident, $variant:ident, $int:ident, $uint:ident,
     range: $least:literal to $most:literal, ln2: $ln2_high:literal + $ln2_low:literal, round: $round:literal,
     bias: $bias:literal << $mantissa:literal, exp: [$($exp:literal),+],
     erfcx: [$($erfcx:literal),+] about $centre:literal until $end:literal) => {
        impl Element for $type {
            const ERFCX_CENTRE: f64 = $centre;
            const ERFC_END: f64 = $end;

            fn slice_mut(storage: &mut CpuStorage) -> Result<&mut [Self]> {
                match storage {
                    CpuStorage::$variant(values) => Ok(values),
                    _ => bail!("expected a storage of type {}", stringify!($type)),
                }
            }

            #[inline(always)]
            fn sqrt(self) -> Self {
                self.sqrt()
            }

            #[inline(always)]
            fn mul_add(self, a: Self, b: Self) -> Self {
                self.mul_add(a, b)
            }

            #[inline(always)]
            fn abs(self) -> Self {
                self.abs()
            }

            #[inline(always)]
            fn round_ties_even(self) -> Self {
                self.round_ties_even()
            }

            #[inline(always)]
            fn copysign(self, sign: Self) -> Self {
                self.copysign(sign)
            }

            #[inline(always)]
            fn exp_rest(self) -> Self {
                polynomial!(self; $($exp),+)
            }

            #[inline(always)]
            fn reduce(self) -> (Self, Self, Self) {
                // Comparisons in this form let NaN through.
                let x = if self < $least { $least } else { self };
                let x = if x > $most { $most } else { x };
                // Adding 1.5 · 2^mantissa rounds to an integer, which then stands in the low bits.
                let rounded = x.mul_add(std::$type::consts::LOG2_E, $round);
                let n = rounded - $round;
                let r = n.mul_add(-$ln2_low, n.mul_add(-$ln2_high, x));
                let power = (rounded.to_bits() as $int).wrapping_sub(($round as $type).to_bits() as $int);
                // Two factors, since 2ⁿ itself may overflow or be subnormal.
                let half = power >> 1;
                let factor = |k: $int| $type::from_bits((k.wrapping_add($bias) as $uint) << $mantissa);
                (r, factor(half), factor(power.wrapping_sub(half)))
            }

            #[inline(always)]
            fn erfcx_of(self) -> Self {
                polynomial!(self; $($erfcx),+)
            }
        }
    };
}

// The coefficients of exp are those of Taylor's series in f64 and of a Chebyshev interpolation in f32; those of erfcx
// are Chebyshev interpolations made with 60 digits, with relative errors of 3e-9 (f32) and 1.4e-17 (f64).
element!(f32, F32, i32, u32,
    range: -104.0 to 89.0, ln2: 0.693_359_4 + -2.121_944_4e-4, round: 12_582_912.0, bias: 127 << 23,
    exp: [0.5, 0.166_666_67, 0.041_666_465, 0.008_333_311, 0.001_393_368_6, 0.000_198_910_3],
    erfcx: [1.253_008_1, -0.135_621_15, -0.047_562_32, 0.129_646_7, -0.119_271_92, 0.068_293_03, -0.023_794_665,
            0.002_576_856_5, 0.002_001_771_2, -0.000_788_120_7, -0.000_273_596]
        about 3.0 until 10.5);
element!(f64, F64, i64, u64,
    range: -746.0 to 710.0, ln2: 0.693_147_180_369_123_8 + 1.908_214_929_270_587_7e-10,
    round: 6_755_399_441_055_744.0, bias: 1023 << 52,
    exp: [0.5, 0.166_666_666_666_666_66, 0.041_666_666_666_666_664, 0.008_333_333_333_333_333,
          0.001_388_888_888_888_889, 0.000_198_412_698_412_698_4, 2.480_158_730_158_73e-5, 2.755_731_922_398_589e-6,
          2.755_731_922_398_589e-7, 2.505_210_838_544_172e-8, 2.087_675_698_786_81e-9, 1.605_904_383_682_161_5e-10],
    erfcx: [1.232_995_118_625_552_5, -0.139_621_116_840_562_9, 0.015_379_652_102_620_74, 0.068_097_054_254_737_32,
            -0.101_039_066_036_352_13, 0.093_732_834_996_794_12, -0.066_330_365_811_529_38, 0.037_167_515_562_492_86,
            -0.016_197_734_059_115_01, 0.005_031_969_755_895_426, -0.000_757_773_341_413_33,
            -0.000_199_255_507_556_149_52, 0.000_150_622_243_948_303, -2.440_316_924_497_407_5e-5,
            -1.122_478_913_515_470_1e-5, 5.717_887_284_632_185e-6, 3.013_504_994_487_539_5e-7,
            -8.351_619_688_696_847e-7, 6.270_727_157_198_311e-8, 1.153_494_374_575_415_7e-7,
            -7.715_418_614_417_83e-9, -1.367_098_986_334_738_2e-8, -1.820_609_868_030_868_3e-9]
        about 4.0 until 28.0);

/// Runs `f` compiled for the widest vectors of this processor. What is to be vectorised must be inlined into `f`.
#[inline(always)]
pub fn vectorised<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}

/// Independent running values of a reduction: enough to fill the vectors and to hide the latency of an addition.
const LANES: usize = 32;

/// Combines `map` of all elements in a fixed order, lane by lane.
#[inline(always)]
pub fn reduce<T: Element>(x: &[T], start: T, map: impl Fn(T) -> T, combine: impl Fn(T, T) -> T) -> T {
    let mut lanes = [start; LANES];
    let whole = x.chunks_exact(LANES);
    let rest = whole.remainder();
    for piece in whole {
        for (lane, &x) in lanes.iter_mut().zip(piece) {
            *lane = combine(*lane, map(x));
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane = combine(*lane, map(x));
    }
    halve(lanes, combine)
}

/// Combines `map` of all pairs of elements in a fixed order, lane by lane.
#[inline(always)]
pub fn sum_pairs<T: Element>(x: &[T], y: &[T], map: impl Fn(T, T) -> T) -> T {
    let mut lanes = [T::zero(); LANES];
    let (whole_x, whole_y) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let rest = whole_x.remainder().iter().zip(whole_y.remainder());
    for (x, y) in whole_x.zip(whole_y) {
        for ((lane, &x), &y) in lanes.iter_mut().zip(x).zip(y) {
            *lane += map(x, y);
        }
    }
    for (lane, (&x, &y)) in lanes.iter_mut().zip(rest) {
        *lane += map(x, y);
    }
    halve(lanes, |a, b| a + b)
}

#[inline(always)]
fn halve<T: Element>(mut lanes: [T; LANES], combine: impl Fn(T, T) -> T) -> T {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = combine(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// The sum of all elements.
#[inline(always)]
pub fn sum<T: Element>(x: &[T]) -> T {
    reduce(x, T::zero(), |x| x, |a, b| a + b)
}

/// The largest element; −∞ of none.
#[inline(always)]
pub fn largest<T: Element>(x: &[T]) -> T {
    reduce(x, T::from_f64(f64::NEG_INFINITY), |x| x, |a, b| if b > a { b } else { a })
}

/// A tensor's elements in row-major order; copied only if they do not lie so in memory.
pub fn elements<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> Result<Cow<'a, [T]>> {
    let all = T::cpu_storage_as_slice(storage)?;
    Ok(match layout.contiguous_offsets() {
        Some((start, end)) => Cow::Borrowed(&all[start..end]),
        None => {
            let mut ordered = Vec::with_capacity(layout.shape().elem_count());
            append(all, layout.dims(), layout.stride(), layout.start_offset(), &mut ordered);
            Cow::Owned(ordered)
        }
    })
}

/// Appends the elements that `dims` and `strides` reach from `offset` on, in row-major order.
fn append<T: Copy>(all: &[T], dims: &[usize], strides: &[usize], offset: usize, ordered: &mut Vec<T>) {
    match (dims, strides) {
        ([], _) => ordered.push(all[offset]),
        ([length], [1]) => ordered.extend_from_slice(&all[offset..offset + length]),
        ([length], [stride]) => ordered.extend((0..*length).map(|i| all[offset + i * stride])),
        _ => (0..dims[0]).for_each(|i| append(all, &dims[1..], &strides[1..], offset + i * strides[0], ordered)),
    }
}

/// Calls `f` with a CPU tensor's elements in row-major order.
pub fn with_elements<T: WithDType, R>(tensor: &Tensor, f: impl FnOnce(&[T]) -> Result<R>) -> Result<R> {
    with_all([tensor], |[elements]| f(elements))
}

/// Calls `f` with the elements of several CPU tensors in row-major order.
pub fn with_all<T: WithDType, R, const N: usize>(
    tensors: [&Tensor; N],
    f: impl FnOnce([&[T]; N]) -> Result<R>,
) -> Result<R> {
    let storages = tensors.map(Tensor::storage_and_layout);
    let mut slices = Vec::with_capacity(N);
    for (storage, layout) in &storages {
        match &**storage {
            Storage::Cpu(storage) => slices.push(elements(storage, layout)?),
            _ => bail!("a fused operation met a tensor that is not on the CPU"),
        }
    }
    f(std::array::from_fn(|i| &*slices[i]))
}

/// A CPU tensor of values in row-major order.
pub fn tensor<T: Element>(values: Vec<T>, shape: impl Into<Shape>) -> Result<Tensor> {
    Tensor::from_vec(values, shape.into(), &candle_core::Device::Cpu)
}

/// Whether a tensor is of a type and on a device that fused operations know.
pub fn is_fusible(tensor: &Tensor) -> bool {
    tensor.device().is_cpu() && matches!(tensor.dtype(), DType::F32 | DType::F64)
}

/// Evaluates an expression with `T` standing for the element type of a tensor's `DType`, `F32` or `F64`.
macro_rules! for_type {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            candle_core::DType::F32 => {
                type $T = f32;
                $body
            }
            candle_core::DType::F64 => {
                type $T = f64;
                $body
            }
            other => candle_core::bail!("a fused operation met elements of type {other:?}"),
        }
    };
}
pub(crate) use for_type;
