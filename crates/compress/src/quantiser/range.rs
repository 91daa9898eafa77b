//! From a group of numbers to a scale and a zero.

use super::{Affine, LEAST_SCALE, Range, Scheme, ZeroPoint};

/// The quantiser of `scheme` for the numbers that `values` iterates over.
pub fn fit<'a>(scheme: &Scheme, values: impl Iterator<Item = &'a f32> + Clone) -> Affine {
    let (low, high) =
        values.clone().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &w| (low.min(w), high.max(w)));
    if low > high {
        // A group without members.
        return between(scheme, 0.0, 0.0);
    }
    match scheme.range {
        Range::MinMax => between(scheme, low, high),
        Range::Mse80 => {
            let error = |affine: &Affine| -> f64 {
                values.clone().map(|&w| f64::from((w - affine.fake(w)).abs()).powf(2.4)).sum()
            };
            let shrunk = (0..80).map(|i| {
                let share = 1.0 - 0.01 * i as f32;
                between(scheme, low * share, high * share)
            });
            let scored = shrunk.map(|affine| (error(&affine), affine));
            // The first of equal ones: the widest range.
            scored.reduce(|best, next| if next.0 < best.0 { next } else { best }).expect("eighty ranges").1
        }
    }
}

/// The quantiser of `scheme` whose levels reach from `low` to `high`.
pub fn between(scheme: &Scheme, low: f32, high: f32) -> Affine {
    let codes = scheme.codes();
    let round = |scale: f32| {
        let scale = scale.max(LEAST_SCALE);
        if scheme.half_scales {
            half::f16::from_f32(scale).max(half::f16::MIN_POSITIVE_SUBNORMAL).to_f32()
        } else {
            scale
        }
    };
    if scheme.symmetric {
        return Affine { scale: round(low.abs().max(high.abs()) / codes.1 as f32), zero: 0.0, codes };
    }
    let (low, high) = if scheme.holds_zero { (low.min(0.0), high.max(0.0)) } else { (low, high) };
    let scale = round((high - low) / codes.1 as f32);
    let zero = match scheme.zero {
        ZeroPoint::Code => (-low / scale).round_ties_even().clamp(codes.0 as f32, codes.1 as f32),
        ZeroPoint::Whole => (-low / scale).round_ties_even(),
        ZeroPoint::Float => -low / scale,
    };
    Affine { scale, zero, codes }
}
