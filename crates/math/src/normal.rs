//! Standard normal numbers at the speed of vector instructions.
//!
//! Box and Muller's transform over numbers that are counted, not carried along: element i of a row depends on the row's
//! key and on i alone, so rows can be filled in any order, and a loop over them has no dependence that would keep it out
//! of vector registers. About four times as fast as a ziggurat that asks a cryptographic generator number by number.

use crate::vector;

/// Pairs that are made at once: three tables of them stay in the first-level cache.
const PAIRS: usize = 128;

/// Adds `scale` times standard normal numbers to `row`. The same `key` has the same numbers; keys should be the outputs
/// of a generator, or of [`mixed`].
pub fn add(row: &mut [f64], scale: f64, key: u64) {
    let (mut radii, mut turns) = ([0.0; PAIRS], [0.0; PAIRS]);
    for (block, row) in row.chunks_mut(2 * PAIRS).enumerate() {
        let pairs = row.len().div_ceil(2);
        let (radii, turns) = (&mut radii[..pairs], &mut turns[..pairs]);
        let first = (2 * PAIRS * block) as u64;
        pulp::Arch::new().dispatch(|| uniform(radii, turns, key, first));
        vector::ln(radii);
        let (cosines, sines) = row.split_at_mut(pairs);
        pulp::Arch::new().dispatch(|| turn(radii, turns, scale, cosines, sines));
    }
}

/// A key from another and a number: two rounds of [`mixed`], so that neighbouring numbers have unrelated keys.
pub fn keyed(key: u64, number: u64) -> u64 {
    mixed(mixed(key.wrapping_add(number.wrapping_mul(STEP))) ^ key.rotate_left(32))
}

/// The odd number nearest to 2⁶⁴ over the golden ratio, by which the counter of SplitMix64 steps.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The output function of SplitMix64 (Steele, Lea and Flood 2014): every bit depends on every bit.
#[inline(always)]
pub fn mixed(counter: u64) -> u64 {
    let z = (counter ^ (counter >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Numbers in (0, 1] for the radii and in \[−½, ½) for the turns, from counters `first`, `first` + 1, ….
#[inline(always)]
fn uniform(radii: &mut [f64], turns: &mut [f64], key: u64, first: u64) {
    const UNIT: f64 = 1.0 / (1u64 << 52) as f64;
    // The bits of 1.0: with 52 bits below them a number in [1, 2), without a conversion.
    const ONE: u64 = 0x3ff0_0000_0000_0000;
    for (i, (radius, turn)) in radii.iter_mut().zip(turns).enumerate() {
        let counter = first + 2 * i as u64;
        let draw = |counter: u64| {
            let bits = mixed(key.wrapping_add((counter + 1).wrapping_mul(STEP)));
            f64::from_bits(ONE | (bits >> 12))
        };
        *radius = draw(counter) - (1.0 - UNIT);
        *turn = draw(counter + 1) - 1.5;
    }
}

/// Adds r cos 2πu and r sin 2πu with r = scale √(−2 ln), for the logarithms `logs` and the turns u.
#[inline(always)]
fn turn(logs: &[f64], turns: &[f64], scale: f64, cosines: &mut [f64], sines: &mut [f64]) {
    // The last sine of a row of odd length has no place.
    for (i, cosine) in cosines.iter_mut().enumerate() {
        let radius = scale * (-2.0 * logs[i]).sqrt();
        let (cos, sin) = circle(turns[i]);
        *cosine += radius * cos;
        if let Some(sine) = sines.get_mut(i) {
            *sine += radius * sin;
        }
    }
}

/// (cos 2πu, sin 2πu) for |u| ≤ ½, with errors below 10⁻¹⁴.
#[inline(always)]
fn circle(u: f64) -> (f64, f64) {
    // Adding and taking away 3/2 · 2⁵² rounds to the nearest whole number.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    let quarters = (4.0 * u + ROUND) - ROUND;
    let angle = std::f64::consts::TAU * (u - 0.25 * quarters);
    // Within ±π/4 the series end early.
    let s = angle * angle;
    let series = |terms: [f64; 7]| terms.into_iter().rev().fold(0.0, |sum, term| sum * s + term);
    let sin = angle
        * series([
            1.0,
            -1.0 / 6.0,
            1.0 / 120.0,
            -1.0 / 5040.0,
            1.0 / 362_880.0,
            -1.0 / 39_916_800.0,
            1.0 / 6_227_020_800.0,
        ]);
    let cos = 1.0
        - s * series([
            0.5,
            -1.0 / 24.0,
            1.0 / 720.0,
            -1.0 / 40_320.0,
            1.0 / 3_628_800.0,
            -1.0 / 479_001_600.0,
            1.0 / 87_178_291_200.0,
        ]);
    // Quarter turns: −2, −1, 0, 1, 2.
    let is_odd = quarters * quarters == 1.0;
    let (c, s) = if is_odd { (sin, cos) } else { (cos, sin) };
    let turned = quarters * quarters == 4.0;
    let (c_flips, s_flips) = (turned || quarters == 1.0, turned || quarters == -1.0);
    (if c_flips { -c } else { c }, if s_flips { -s } else { s })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_have_their_cosines_and_sines() {
        for i in 0..=1000 {
            let u = f64::from(i) / 1000.0 - 0.5;
            let (cos, sin) = circle(u);
            let angle = std::f64::consts::TAU * u;
            assert!((cos - angle.cos()).abs() < 1e-14 && (sin - angle.sin()).abs() < 1e-14, "{u}");
        }
    }

    #[test]
    fn numbers_are_normal_and_independent() {
        const N: usize = 1 << 20;
        let mut z = vec![0.0; N];
        for (i, row) in z.chunks_exact_mut(64).enumerate() {
            add(row, 1.0, keyed(7, i as u64));
        }
        let mean = |f: &dyn Fn(f64) -> f64| z.iter().map(|&z| f(z)).sum::<f64>() / N as f64;
        // Standard errors of the moments of a normal law: √1, √2, √15, √96 over √N.
        assert!(mean(&|z| z).abs() < 4e-3 && (mean(&|z| z * z) - 1.0).abs() < 6e-3);
        assert!(mean(&|z| z.powi(3)).abs() < 2e-2 && (mean(&|z| z.powi(4)) - 3.0).abs() < 4e-2);
        // P(|z| > 3) = 0.0026998 (table).
        assert!((mean(&|z| f64::from(u8::from(z.abs() > 3.0))) - 0.0027).abs() < 2e-4);
        // Φ (table), within four standard errors.
        for (at, share) in [(-4.0, 3.167e-5), (-1.5, 0.066_807), (-0.1, 0.460_172), (0.5, 0.691_462), (2.0, 0.977_250)]
        {
            let error = (share * (1.0 - share) / N as f64).sqrt();
            assert!((mean(&|z| f64::from(u8::from(z < at))) - share).abs() < 4.0 * error, "{at}");
        }
    }

    #[test]
    fn neighbours_in_a_row_and_between_rows_are_uncorrelated() {
        let rows: Vec<Vec<f64>> = (0..4000)
            .map(|i| {
                let mut row = vec![0.0; 65];
                add(&mut row, 1.0, keyed(3, i));
                row
            })
            .collect();
        let correlation = |f: &dyn Fn(usize, usize) -> f64| {
            let pairs = (0..3999).flat_map(|i| (0..64).map(move |j| (i, j)));
            pairs.map(|(i, j)| f(i, j)).sum::<f64>() / (3999.0 * 64.0)
        };
        // Standard error 0.002.
        for other in [(0, 1), (1, 0), (1, 1)] {
            let c = correlation(&|i, j| rows[i][j] * rows[i + other.0][j + other.1]);
            assert!(c.abs() < 0.008, "{other:?}: {c}");
        }
        // Cosine and sine of one pair share their radius: z² and z'² would show it if the turn were not uniform.
        let c = correlation(&|i, j| {
            if j < 32 { (rows[i][j].powi(2) - 1.0) * (rows[i][j + 33].powi(2) - 1.0) } else { 0.0 }
        });
        assert!(c.abs() < 0.02, "{c}");
    }

    #[test]
    fn a_row_is_its_own_beginning_whatever_its_length_and_scale() {
        let mut long = vec![1.0; 700];
        add(&mut long, 0.5, 9);
        let mut other = vec![1.0; 700];
        add(&mut other, 0.25, 9);
        assert!(long.iter().zip(&other).all(|(a, b)| ((a - 1.0) - 2.0 * (b - 1.0)).abs() < 1e-14));
        let mut one = [0.0];
        add(&mut one, 1.0, 9);
        add(&mut [], 1.0, 9);
        assert!(one[0] != 0.0);
    }
}
