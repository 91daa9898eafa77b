//! Ticks at round numbers, written as a person would.

/// The ticks of an axis, in the axis' own coordinate (the decadic logarithm on logarithmic axes).
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Ticks {
    /// Places with a number.
    pub major: Vec<(f64, String)>,
    /// Places with a short line only.
    pub minor: Vec<f64>,
}

/// Ticks at multiples of 1, 2 or 5 times a power of ten, about `wanted` of them between `low` and `high`.
pub(crate) fn linear(low: f64, high: f64, wanted: usize) -> Ticks {
    let (low, high) = if low <= high { (low, high) } else { (high, low) };
    let range = high - low;
    if !(range > 0.0 && range.is_finite()) {
        return Ticks::default();
    }
    let step = round_step(range / wanted.max(1) as f64);
    at_multiples(low, high, step)
}

/// As [`linear`], at whole numbers only.
pub(crate) fn whole(low: f64, high: f64, wanted: usize) -> Ticks {
    let (low, high) = if low <= high { (low, high) } else { (high, low) };
    let range = high - low;
    if !(range > 0.0 && range.is_finite()) {
        return Ticks::default();
    }
    at_multiples(low, high, round_step(range / wanted.max(1) as f64).max(1.0))
}

fn at_multiples(low: f64, high: f64, step: f64) -> Ticks {
    if !(step > 0.0 && step.is_finite()) {
        return Ticks::default();
    }
    // A hair of tolerance keeps ticks at the very ends in spite of rounding.
    let (first, last) = ((low / step - 1e-6).ceil(), (high / step + 1e-6).floor());
    let count = (last - first).clamp(0.0, 200.0) as usize + 1;
    let values: Vec<f64> =
        (0..count).map(|i| (first + i as f64) * step).map(|v| if v.abs() < step * 1e-6 { 0.0 } else { v }).collect();
    let labels = labels(&values, step);
    Ticks { major: values.into_iter().zip(labels).collect(), minor: Vec::new() }
}

/// The smallest of 1, 2, 5 × 10ⁿ that is at least `step`, but for a tenth.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let mantissa = step / power;
    let round = [1.0, 2.0, 5.0, 10.0].into_iter().find(|m| mantissa <= m * 1.1).unwrap_or(10.0);
    round * power
}

/// Ticks of a logarithmic axis from 10^`low` to 10^`high`, about `wanted` numbers.
pub(crate) fn log(low: f64, high: f64, wanted: usize) -> Ticks {
    let (low, high) = if low <= high { (low, high) } else { (high, low) };
    let range = high - low;
    if !(range > 0.0 && range.is_finite()) {
        return Ticks::default();
    }
    if range > 2_000.0 {
        // No pair of numbers is further apart than 633 decades.
        return Ticks::default();
    }
    let wanted = wanted.max(2);
    let within = |place: f64| place >= low - 1e-9 && place <= high + 1e-9;
    let decades: Vec<i32> =
        ((low - 1e-9).ceil() as i32..=(high + 1e-9).floor() as i32).filter(|&d| within(f64::from(d))).collect();
    let all: Vec<i32> = (low.floor() as i32..=high.ceil() as i32).collect();
    if decades.len() < 2 || (decades.len() == 2 && wanted >= 4) {
        // One decade or less: 1, 2, 5 of each decade; then round numbers at their logarithmic places.
        for mantissas in [&[1.0, 2.0, 5.0][..], &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0]] {
            let major: Vec<(f64, String)> = all
                .iter()
                .flat_map(|&d| mantissas.iter().map(move |&m| (m, d)))
                .map(|(m, d)| (f64::from(d) + f64::log10(m), power_label(m, d, &all)))
                .filter(|(place, _)| within(*place))
                .collect();
            if major.len() >= 3 {
                return Ticks { major, minor: minors(&all, &within) };
            }
        }
        let values = linear(10f64.powf(low), 10f64.powf(high), wanted);
        let major = values.major.into_iter().filter(|(v, _)| *v > 0.0).map(|(v, l)| (v.log10(), l));
        return Ticks { major: major.filter(|(v, _)| within(*v)).collect(), minor: Vec::new() };
    }
    let every = [1, 2, 3, 5, 10, 20, 50, 100]
        .into_iter()
        .find(|&k| decades.iter().filter(|&&d| d.rem_euclid(k) == 0).count() <= wanted.max(2))
        .unwrap_or(200);
    let labelled: Vec<i32> = decades.iter().copied().filter(|d| d.rem_euclid(every) == 0).collect();
    let major = labelled.iter().map(|&d| (f64::from(d), power_label(1.0, d, &labelled))).collect();
    let minor = if every == 1 && range <= 9.0 {
        minors(&all, &within)
    } else {
        // Of very many decades no short lines: they would be a grey bar.
        let rest = decades.iter().filter(|d| d.rem_euclid(every) != 0).map(|&d| f64::from(d));
        if decades.len() <= 40 { rest.collect() } else { Vec::new() }
    };
    Ticks { major, minor }
}

fn minors(decades: &[i32], within: &dyn Fn(f64) -> bool) -> Vec<f64> {
    decades
        .iter()
        .flat_map(|&d| (2..10).map(move |m| f64::from(d) + f64::from(m).log10()))
        .filter(|&place| within(place))
        .collect()
}

/// `mantissa` × 10^`decade`: plain where all decades shown are near one, with an exponent elsewhere.
fn power_label(mantissa: f64, decade: i32, shown: &[i32]) -> String {
    let plain = |d: &i32| (-3..=4).contains(d);
    if shown.iter().all(plain) {
        let decimals = usize::try_from(-decade).unwrap_or(0) + usize::from(mantissa.fract() != 0.0);
        let text = format!("{:.decimals$}", mantissa * 10f64.powi(decade));
        return grouped(trimmed(&text));
    }
    if mantissa == 1.0 {
        format!("10{}", superscript(decade))
    } else {
        format!("{mantissa}×10{}", superscript(decade))
    }
}

/// Labels of `values` which are `step` apart, all in the same notation.
fn labels(values: &[f64], step: f64) -> Vec<String> {
    let largest = values.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    if largest == 0.0 {
        return values.iter().map(|_| "0".to_owned()).collect();
    }
    let magnitude = largest.log10().floor() as i32;
    let finest = step.log10().floor() as i32;
    let digits = (magnitude - finest).max(0) as usize;
    let scientific = (magnitude >= 6 && digits <= 4) || !(-4..15).contains(&magnitude);
    values
        .iter()
        .map(|&v| {
            if v == 0.0 {
                return "0".to_owned();
            }
            let sign = if v < 0.0 { "−" } else { "" };
            if scientific {
                // One exponent for the whole axis, so that the mantissas can be compared.
                let mantissa = format!("{:.*}", digits.min(12), scaled(v.abs(), magnitude));
                match trimmed(&mantissa) {
                    "1" => format!("{sign}10{}", superscript(magnitude)),
                    m => format!("{sign}{m}×10{}", superscript(magnitude)),
                }
            } else {
                let decimals = usize::try_from(-finest).unwrap_or(0).min(16);
                let text = format!("{:.decimals$}", v.abs());
                format!("{sign}{}", grouped(trimmed(&text)))
            }
        })
        .collect()
}

/// `v` / 10^`exponent` without overflow on the way.
fn scaled(v: f64, exponent: i32) -> f64 {
    let half = exponent / 2;
    v / 10f64.powi(half) / 10f64.powi(exponent - half)
}

fn trimmed(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

/// Thin spaces between groups of three digits from 10 000 on.
fn grouped(text: &str) -> String {
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(w, f)| (w, Some(f)));
    let mut out = String::new();
    for (i, c) in whole.chars().enumerate() {
        if whole.len() > 4 && i > 0 && (whole.len() - i).is_multiple_of(3) {
            out.push('\u{2009}');
        }
        out.push(c);
    }
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

/// An exponent in raised digits.
pub(crate) fn superscript(exponent: i32) -> String {
    exponent
        .to_string()
        .chars()
        .map(|c| match c {
            '-' => '⁻',
            '1' => '¹',
            '2' => '²',
            '3' => '³',
            digit => char::from_u32('⁰' as u32 + digit as u32 - '0' as u32).unwrap_or(digit),
        })
        .collect()
}

/// A single number for people, to `digits` significant digits (whole ones below 10⁹ in full), with a real minus and raised exponents.
pub(crate) fn number(x: f64, digits: usize) -> String {
    if x.is_infinite() {
        return if x > 0.0 { "∞".into() } else { "−∞".into() };
    }
    // Counts are exact.
    let is_count = x.fract() == 0.0 && x.abs() < 1e9;
    let text = if is_count { format!("{:.0}", x + 0.0) } else { offprint_core::table::significant(x, digits) };
    let text = text.replace('-', "−");
    match text.split_once('e') {
        Some((mantissa, exponent)) => {
            let exponent = superscript(exponent.replace('−', "-").parse().unwrap_or(0));
            match mantissa {
                "1" => format!("10{exponent}"),
                "−1" => format!("−10{exponent}"),
                m => format!("{m}×10{exponent}"),
            }
        }
        None => match text.strip_prefix('−') {
            Some(rest) => format!("−{}", grouped(rest)),
            None => grouped(&text),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels_of(ticks: &Ticks) -> Vec<&str> {
        ticks.major.iter().map(|(_, l)| l.as_str()).collect()
    }

    #[test]
    fn linear_ticks_are_round_numbers() {
        for (low, high, wanted, expected) in [
            (0.0, 1.0, 5, "0 0.2 0.4 0.6 0.8 1"),
            (0.0, 10.0, 5, "0 2 4 6 8 10"),
            (-1.05, 1.05, 4, "−1 −0.5 0 0.5 1"),
            (0.0, 50_000.0, 5, "0 10\u{2009}000 20\u{2009}000 30\u{2009}000 40\u{2009}000 50\u{2009}000"),
            (0.0, 4e-7, 4, "0 10⁻⁷ 2×10⁻⁷ 3×10⁻⁷ 4×10⁻⁷"),
            (0.0, 2.5e9, 5, "0 0.5×10⁹ 10⁹ 1.5×10⁹ 2×10⁹ 2.5×10⁹"),
            (99.9, 100.1, 4, "99.9 99.95 100 100.05 100.1"),
            (0.001, 0.003, 4, "0.001 0.0015 0.002 0.0025 0.003"),
        ] {
            assert_eq!(labels_of(&linear(low, high, wanted)).join(" "), expected, "{low}..{high}");
        }
    }

    #[test]
    fn logarithmic_ticks_are_decades_or_their_1_2_5() {
        for (low, high, wanted, expected) in [
            (0.0, 3.0, 5, "1 10 100 1000"),
            (-6.0, 0.0, 7, "10⁻⁶ 10⁻⁵ 10⁻⁴ 10⁻³ 10⁻² 10⁻¹ 10⁰"),
            (-300.0, 300.0, 6, "10⁻²⁰⁰ 10⁰ 10²⁰⁰"),
            (0.0, 1.0, 4, "1 2 5 10"),
            (-5.0, -4.1, 4, "10⁻⁵ 2×10⁻⁵ 5×10⁻⁵"),
            (0.301, 0.4772, 4, "2 2.5 3"),
        ] {
            assert_eq!(labels_of(&log(low, high, wanted)).join(" "), expected, "{low}..{high}");
        }
        assert_eq!(log(0.0, 2.0, 5).minor.len(), 16);
    }

    #[test]
    fn no_range_no_ticks() {
        for f in [linear, whole, log] {
            assert_eq!(f(1.0, 1.0, 5), Ticks::default());
            assert_eq!(f(f64::NAN, 1.0, 5), Ticks::default());
            assert_eq!(f(0.0, f64::INFINITY, 5), Ticks::default());
        }
    }

    #[test]
    fn single_numbers_read_well() {
        assert_eq!(number(1.5e-7, 3), "1.5×10⁻⁷");
        assert_eq!(number(-123456.0, 6), "−123\u{2009}456");
        assert_eq!(number(1e9, 3), "10⁹");
        assert_eq!(number(4_194_304.0, 3), "4\u{2009}194\u{2009}304");
        assert_eq!(number(-0.0, 3), "0");
        assert_eq!(number(f64::INFINITY, 3), "∞");
    }
}
