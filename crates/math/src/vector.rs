//! Elementary functions over slices: exponential, logarithm, log-sum-exp and softmax.
//!
//! The standard library calls one scalar routine per element. Here the same polynomial runs over a whole slice in loops
//! without branches, which the compiler turns into vector instructions; on x86-64 those of AVX-512 or of AVX2 with
//! FMA, if the processor says at run time that it has them. Errors stay below 2 units in the last place for `f64` and `f32`;
//! subnormal numbers, zeros, infinities and NaN come out as from the standard library.
//!
//! ```
//! use offprint_math::vector;
//!
//! let mut x = [0.0, 1.0, f64::NEG_INFINITY];
//! vector::exp(&mut x);
//! assert_eq!(x[0], 1.0);
//! assert!((vector::log_sum_exp(&[1000.0, 1000.0]) - 1000.0 - 2f64.ln()).abs() < 1e-12);
//! ```

use ndarray::{ArrayViewMut1, ArrayViewMut2};
use sealed::Scalar;

/// An element type with vectorised functions: `f32` or `f64`.
pub trait Real: Scalar {}
impl Real for f32 {}
impl Real for f64 {}

/// A public function over one slice, compiled for AVX-512, for AVX2 with FMA and for any processor; the first of them
/// that the processor knows is taken. The second parameter of the kernel says whether a fused multiply-add is one instruction; where it is not,
/// it would be a call to a slow routine.
macro_rules! over_slice {
    ($(#[$doc:meta])* $name:ident($values:ident: $slice:ty) $(-> $output:ty)? = $kernel:ident) => {
        $(#[$doc])*
        pub fn $name<T: Real>($values: $slice) $(-> $output)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512dq,avx512vl,fma")]
                fn widest<T: Real>($values: $slice) $(-> $output)? {
                    $kernel::<T, true>($values)
                }
                #[target_feature(enable = "avx2,fma")]
                fn wide<T: Real>($values: $slice) $(-> $output)? {
                    $kernel::<T, true>($values)
                }
                // The standard library remembers the answers.
                let fma = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
                if fma
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                {
                    // SAFETY: the processor has just said that it knows the instructions `widest` is compiled for.
                    return unsafe { widest($values) };
                }
                if fma {
                    // SAFETY: as above, for the instructions of `wide`.
                    return unsafe { wide($values) };
                }
            }
            $kernel::<T, false>($values)
        }
    };
}

over_slice! {
    /// Replaces every element by its exponential.
    exp(values: &mut [T]) = exp_each
}
over_slice! {
    /// Replaces every element by its natural logarithm.
    ln(values: &mut [T]) = ln_each
}
over_slice! {
    /// The greatest element; −∞ of nothing. NaN is passed over.
    max(values: &[T]) -> T = greatest
}
over_slice! {
    /// log Σ exp(xᵢ) without overflow; −∞ of nothing, NaN if any element is NaN.
    log_sum_exp(values: &[T]) -> T = log_sum
}
over_slice! {
    /// Replaces x by exp(xᵢ) / Σ exp(xⱼ) and returns log Σ exp(xⱼ).
    ///
    /// Where the weights are undefined (every element is −∞, one is +∞ or NaN) they become NaN.
    softmax(values: &mut [T]) -> T = weights
}

/// [`softmax`] of every row of `(rows, columns)`; the log-sum-exps go to `log_sums` (rows).
///
/// # Panics
/// If the lengths differ or a row is not contiguous.
pub fn softmax_rows<T: Real>(mut matrix: ArrayViewMut2<'_, T>, mut log_sums: ArrayViewMut1<'_, T>) {
    assert_eq!(matrix.nrows(), log_sums.len(), "one log-sum-exp per row");
    for (mut row, log_sum) in matrix.rows_mut().into_iter().zip(&mut log_sums) {
        *log_sum = softmax(row.as_slice_mut().expect("contiguous rows"));
    }
}

/// Independent partial results, so that sums and maxima run in vector registers.
const LANES: usize = 16;

#[inline(always)]
fn exp_each<T: Real, const FMA: bool>(values: &mut [T]) {
    for x in values {
        *x = x.exp::<FMA>();
    }
}

#[inline(always)]
fn ln_each<T: Real, const FMA: bool>(values: &mut [T]) {
    for x in values {
        *x = x.ln::<FMA>();
    }
}

#[inline(always)]
fn greatest<T: Real, const FMA: bool>(values: &[T]) -> T {
    let larger = |a: T, b: T| if b > a { b } else { a };
    let mut lanes = [T::NEG_INFINITY; LANES];
    let (blocks, rest) = values.as_chunks::<LANES>();
    for block in blocks {
        for (lane, &x) in lanes.iter_mut().zip(block) {
            *lane = larger(*lane, x);
        }
    }
    lanes.iter().chain(rest).fold(T::NEG_INFINITY, |a, &b| larger(a, b))
}

#[inline(always)]
fn log_sum<T: Real, const FMA: bool>(values: &[T]) -> T {
    let top = greatest::<T, FMA>(values);
    if top.is_infinite() {
        return if values.iter().any(|x| x.is_nan()) { T::NAN } else { top };
    }
    let mut lanes = [T::ZERO; LANES];
    let (blocks, rest) = values.as_chunks::<LANES>();
    for block in blocks {
        for (lane, &x) in lanes.iter_mut().zip(block) {
            *lane = *lane + (x - top).exp::<FMA>();
        }
    }
    let sum = lanes.into_iter().chain(rest.iter().map(|&x| (x - top).exp::<FMA>())).fold(T::ZERO, |a, b| a + b);
    top + sum.ln::<FMA>()
}

#[inline(always)]
fn weights<T: Real, const FMA: bool>(values: &mut [T]) -> T {
    let top = greatest::<T, FMA>(values);
    if top.is_infinite() {
        let nan = values.iter().any(|x| x.is_nan());
        values.fill(T::NAN);
        return if nan { T::NAN } else { top };
    }
    let mut lanes = [T::ZERO; LANES];
    let (blocks, rest) = values.as_chunks_mut::<LANES>();
    for block in blocks {
        for (lane, x) in lanes.iter_mut().zip(block) {
            *x = (*x - top).exp::<FMA>();
            *lane = *lane + *x;
        }
    }
    let mut sum = lanes.into_iter().fold(T::ZERO, |a, b| a + b);
    for x in rest {
        *x = (*x - top).exp::<FMA>();
        sum = sum + *x;
    }
    let inverse = T::ONE / sum;
    for x in values {
        *x = *x * inverse;
    }
    top + sum.ln::<FMA>()
}

mod sealed {
    use std::ops::{Add, Div, Mul, Sub};

    /// One element: arithmetic, and the functions as straight lines of it.
    pub trait Scalar:
        Copy
        + PartialOrd
        + Send
        + Sync
        + Add<Output = Self>
        + Sub<Output = Self>
        + Mul<Output = Self>
        + Div<Output = Self>
        + 'static
    {
        const ZERO: Self;
        const ONE: Self;
        const NAN: Self;
        const NEG_INFINITY: Self;
        fn is_nan(self) -> bool;
        fn is_infinite(self) -> bool;
        fn sqrt(self) -> Self;
        fn exp<const FMA: bool>(self) -> Self;
        fn ln<const FMA: bool>(self) -> Self;
    }

    macro_rules! scalar {
        ($real:ident, $functions:ident) => {
            impl Scalar for $real {
                const ZERO: Self = 0.0;
                const ONE: Self = 1.0;
                const NAN: Self = $real::NAN;
                const NEG_INFINITY: Self = $real::NEG_INFINITY;
                #[inline(always)]
                fn is_nan(self) -> bool {
                    self.is_nan()
                }
                #[inline(always)]
                fn is_infinite(self) -> bool {
                    self.is_infinite()
                }
                #[inline(always)]
                fn sqrt(self) -> Self {
                    self.sqrt()
                }
                #[inline(always)]
                fn exp<const FMA: bool>(self) -> Self {
                    super::$functions::exp::<FMA>(self)
                }
                #[inline(always)]
                fn ln<const FMA: bool>(self) -> Self {
                    super::$functions::ln::<FMA>(self)
                }
            }
        };
    }
    scalar!(f32, single);
    scalar!(f64, double);
}

/// The functions of one `f64`.
mod double {
    #[inline(always)]
    fn fma<const FMA: bool>(a: f64, b: f64, c: f64) -> f64 {
        if FMA { a.mul_add(b, c) } else { a * b + c }
    }

    /// 1.5 · 2⁵²: adding it rounds |x| < 2⁵¹ to an integer, which then stands in the low bits of the sum.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    /// ln 2 in two parts; the first has 32 trailing zero bits, so that its product with an exponent is exact.
    const LN_2: [f64; 2] = [0.693_147_180_369_123_8, 1.908_214_929_270_587_7e-10];

    /// exp(x) = 2ⁿ exp(r), |r| ≤ ½ ln 2, with the Taylor polynomial of degree 13 (its remainder is below 2⁻⁵⁶).
    #[inline(always)]
    pub fn exp<const FMA: bool>(x: f64) -> f64 {
        // Beyond these the result is ∞ or 0 anyway. NaN passes, as it is neither above nor below.
        let x = if x > 711.0 { 711.0 } else { x };
        let x = if x < -746.0 { -746.0 } else { x };
        let shifted = fma::<FMA>(x, std::f64::consts::LOG2_E, ROUND);
        let n = shifted - ROUND;
        let r = fma::<FMA>(n, -LN_2[0], x);
        let r = fma::<FMA>(n, -LN_2[1], r);
        let mut p = 1.0 / 6_227_020_800.0;
        for c in [
            1.0 / 479_001_600.0,
            1.0 / 39_916_800.0,
            1.0 / 3_628_800.0,
            1.0 / 362_880.0,
            1.0 / 40_320.0,
            1.0 / 5_040.0,
            1.0 / 720.0,
            1.0 / 120.0,
            1.0 / 24.0,
            1.0 / 6.0,
            0.5,
        ] {
            p = fma::<FMA>(p, r, c);
        }
        let p = fma::<FMA>(r * r, p, r) + 1.0;
        // 2ⁿ as 2ʰ · 2ⁿ⁻ʰ, because n reaches below the least and above the greatest exponent of a normal number.
        let half = fma::<FMA>(n, 0.5, ROUND);
        let rest = (n - (half - ROUND)) + ROUND;
        p * power_of_two(half) * power_of_two(rest)
    }

    /// 2ᵏ, where k stands in the low bits of `shifted`.
    #[inline(always)]
    fn power_of_two(shifted: f64) -> f64 {
        f64::from_bits(shifted.to_bits().wrapping_add(1023) << 52)
    }

    /// ln(x) = e ln 2 + ln(m), m in [√½, √2), ln(m) = 2 artanh(f / (2 + f)) with f = m − 1, by the polynomial that
    /// fdlibm's `__ieee754_log` uses (its error is below 2⁻⁵⁸).
    #[inline(always)]
    pub fn ln<const FMA: bool>(x: f64) -> f64 {
        let subnormal = x < f64::MIN_POSITIVE;
        let scaled = if subnormal { x * 18_014_398_509_481_984.0 } else { x }; // 2⁵⁴
        let bias = if subnormal { 1023.0 + 54.0 } else { 1023.0 };
        // Moves the mantissa's [√½, √2) to one binade: its exponent is the number sought.
        const SQRT_HALF: u64 = 0x3fe6_a09e_667f_3bcd;
        let bits = scaled.to_bits().wrapping_sub(SQRT_HALF).wrapping_add(1023 << 52);
        // An integer below 2⁵² becomes a float by writing it into the mantissa of 2⁵².
        let e = f64::from_bits((bits >> 52) | 0x4330_0000_0000_0000) - 4_503_599_627_370_496.0 - bias;
        let m = f64::from_bits((bits & 0x000f_ffff_ffff_ffff).wrapping_add(SQRT_HALF));
        let f = m - 1.0;
        let s = f / (2.0 + f);
        let z = s * s;
        let mut r = 0.147_981_986_051_165_86;
        for c in [
            0.153_138_376_992_093_73,
            0.181_835_721_616_180_5,
            0.222_221_984_321_497_84,
            0.285_714_287_436_623_9,
            0.399_999_999_994_094_2,
            0.666_666_666_666_673_5,
        ] {
            r = fma::<FMA>(r, z, c);
        }
        r *= z;
        let square = 0.5 * f * f;
        let small = fma::<FMA>(s, square + r, e * LN_2[1]);
        let value = e * LN_2[0] - ((square - small) - f);
        // Zero, the negative numbers, ∞ and NaN.
        let value = if x == f64::INFINITY { x } else { value };
        let value = if x == 0.0 { f64::NEG_INFINITY } else { value };
        if x >= 0.0 { value } else { f64::NAN }
    }
}

/// The functions of one `f32`.
mod single {
    #[inline(always)]
    fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
        if FMA { a.mul_add(b, c) } else { a * b + c }
    }

    /// 1.5 · 2²³, as in [`double`](super::double).
    const ROUND: f32 = 12_582_912.0;
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];

    /// As for `f64`, with the Taylor polynomial of degree 7 (its remainder is below 2⁻²⁷).
    #[inline(always)]
    pub fn exp<const FMA: bool>(x: f32) -> f32 {
        let x = if x > 90.0 { 90.0 } else { x };
        let x = if x < -105.0 { -105.0 } else { x };
        let shifted = fma::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
        let n = shifted - ROUND;
        let r = fma::<FMA>(n, -LN_2[0], x);
        let r = fma::<FMA>(n, -LN_2[1], r);
        let mut p = 1.0 / 5_040.0;
        for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5] {
            p = fma::<FMA>(p, r, c);
        }
        let p = fma::<FMA>(r * r, p, r) + 1.0;
        let half = fma::<FMA>(n, 0.5, ROUND);
        let rest = (n - (half - ROUND)) + ROUND;
        p * power_of_two(half) * power_of_two(rest)
    }

    #[inline(always)]
    fn power_of_two(shifted: f32) -> f32 {
        f32::from_bits(shifted.to_bits().wrapping_add(127) << 23)
    }

    /// As for `f64`, with the polynomial of fdlibm's `__ieee754_logf` (its error is below 2⁻³⁴).
    #[inline(always)]
    pub fn ln<const FMA: bool>(x: f32) -> f32 {
        let subnormal = x < f32::MIN_POSITIVE;
        let scaled = if subnormal { x * 33_554_432.0 } else { x }; // 2²⁵
        let bias = if subnormal { 127.0 + 25.0 } else { 127.0 };
        const SQRT_HALF: u32 = 0x3f35_04f3;
        let bits = scaled.to_bits().wrapping_sub(SQRT_HALF).wrapping_add(127 << 23);
        let e = f32::from_bits((bits >> 23) | 0x4b00_0000) - 8_388_608.0 - bias;
        let m = f32::from_bits((bits & 0x007f_ffff).wrapping_add(SQRT_HALF));
        let f = m - 1.0;
        let s = f / (2.0 + f);
        let z = s * s;
        let mut r = 0.242_790_79;
        for c in [0.284_987_87, 0.400_009_72, 0.666_666_6] {
            r = fma::<FMA>(r, z, c);
        }
        r *= z;
        let square = 0.5 * f * f;
        // ln 2 split as fdlibm does for this polynomial.
        let small = fma::<FMA>(s, square + r, e * 9.058_001e-6);
        let value = e * 0.693_138_1 - ((square - small) - f);
        let value = if x == f32::INFINITY { x } else { value };
        let value = if x == 0.0 { f32::NEG_INFINITY } else { value };
        if x >= 0.0 { value } else { f32::NAN }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// |a − b| in units in the last place of b; infinite if only one of them is finite.
    fn ulps(a: f64, b: f64) -> f64 {
        if a == b || (a.is_nan() && b.is_nan()) {
            return 0.0;
        }
        let unit = (b.abs().next_up() - b.abs()).max(f64::from_bits(1));
        (a - b).abs() / unit
    }

    fn ulps_single(a: f32, exact: f64) -> f64 {
        let b = exact as f32;
        if a == b || (a.is_nan() && b.is_nan()) {
            return 0.0;
        }
        let unit = f64::from((b.abs().next_up() - b.abs()).max(f32::from_bits(1)));
        (f64::from(a) - exact).abs() / unit
    }

    /// Every kernel both ways, so that the one for old processors is tested on new ones too.
    fn both<T: Real>(x: T, function: &str) -> [T; 2] {
        let mut wide = [x; 17];
        let plain = match function {
            "exp" => {
                exp(&mut wide);
                x.exp::<false>()
            }
            _ => {
                ln(&mut wide);
                x.ln::<false>()
            }
        };
        [wide[16], plain]
    }

    const EDGES: [f64; 18] = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        5e-324,
        2.2e-308,
        1.7e308,
        709.78,
        709.79,
        710.5,
        1e300,
        -708.5,
        -744.0,
        -745.2,
        -1e300,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
    ];

    #[test]
    fn edges_are_those_of_the_standard_library() {
        for x in EDGES {
            for (name, expected) in [("exp", x.exp()), ("ln", x.ln())] {
                for value in both(x, name) {
                    assert!(ulps(value, expected) <= 2.0, "{name}({x}) = {value}, not {expected}");
                }
            }
            let x = x as f32;
            for (name, expected) in [("exp", f64::from(x).exp()), ("ln", f64::from(x).ln())] {
                for value in both(x, name) {
                    assert!(ulps_single(value, expected) <= 2.0, "{name}({x}) = {value}, not {expected}");
                }
            }
        }
        for x in [88.72f32, 88.73, 89.9, 100.0, -87.4, -103.0, -104.1, 1e-40, 1e-45, f32::MAX, f32::MIN_POSITIVE] {
            assert!(both(x, "exp").iter().all(|&v| ulps_single(v, f64::from(x).exp()) <= 2.0), "exp({x})");
            assert!(both(x, "ln").iter().all(|&v| ulps_single(v, f64::from(x).ln()) <= 2.0), "ln({x})");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn exp_is_within_two_units(x in -745.0..709.7f64, near in -1.0..1.0f64, y in -103.0..88.7f32) {
            for x in [x, near] {
                for value in both(x, "exp") {
                    prop_assert!(ulps(value, x.exp()) <= 2.0, "{} {}", value, x.exp());
                }
            }
            for value in both(y, "exp") {
                prop_assert!(ulps_single(value, f64::from(y).exp()) <= 2.0);
            }
        }

        #[test]
        fn ln_is_within_two_units(bits in 1u64..0x7ff0_0000_0000_0000, near in 0.5..2.0f64, single in 1u32..0x7f80_0000) {
            for x in [f64::from_bits(bits), near] {
                for value in both(x, "ln") {
                    prop_assert!(ulps(value, x.ln()) <= 2.0, "ln({x}) = {value}");
                }
            }
            let y = f32::from_bits(single);
            for value in both(y, "ln") {
                prop_assert!(ulps_single(value, f64::from(y).ln()) <= 2.0, "ln({y}) = {value}");
            }
        }

        #[test]
        fn softmax_and_log_sum_exp_agree_with_their_definitions(
            x in prop::collection::vec(-30.0..30.0f64, 1..70), shift in -1e4..1e4f64,
        ) {
            let expected = x.iter().map(|x| x.exp()).sum::<f64>().ln() + shift;
            let mut shifted: Vec<f64> = x.iter().map(|x| x + shift).collect();
            prop_assert!((log_sum_exp(&shifted) - expected).abs() < 1e-10);
            let returned = softmax(&mut shifted);
            prop_assert!((returned - expected).abs() < 1e-10);
            prop_assert!((shifted.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            for (w, x) in shifted.iter().zip(&x) {
                prop_assert!((w - (x + shift - expected).exp()).abs() < 1e-10);
            }
        }
    }

    #[test]
    fn empty_and_infinite_sums_are_limits() {
        let none: [f64; 0] = [];
        let below = f64::NEG_INFINITY;
        assert_eq!(log_sum_exp(&none), below);
        assert_eq!(log_sum_exp(&[below, below]), below);
        assert_eq!(log_sum_exp(&[below, 3.0]), 3.0);
        assert_eq!(log_sum_exp(&[f64::INFINITY, 3.0]), f64::INFINITY);
        assert!(log_sum_exp(&[f64::NAN, 3.0]).is_nan());
        assert!(log_sum_exp(&[f64::NAN, below]).is_nan());
        assert_eq!(max(&[1.0f32, -2.0]), 1.0);
        let mut one = [f32::NEG_INFINITY, 0.0];
        assert_eq!(softmax(&mut one), 0.0);
        assert_eq!(one, [0.0, 1.0]);
    }
}
