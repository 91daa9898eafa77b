//! Colours: inks that follow the viewer's light or dark mode, the palette of series, and colour maps.

use offprint_core::figure::Palette;
use std::fmt::Write;

/// A colour by its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ink {
    /// Titles and labels.
    Text,
    /// Numbers at ticks, captions.
    Muted,
    /// Grid lines.
    Grid,
    /// Axis lines, rules.
    Axis,
    /// What everything stands on.
    Background,
    /// References: theory, thresholds.
    Reference,
    /// The n-th series; colours repeat after [`SERIES`].
    Series(usize),
}

/// Number of different series colours.
pub(crate) const SERIES: usize = LIGHT.len();

/// After Okabe and Ito: told apart with any colour vision, deepened for thin lines on white.
const LIGHT: [&str; 8] = ["#2764c4", "#d9581c", "#0f9373", "#b0529c", "#cf960a", "#3ba5dd", "#8a2b47", "#6a7282"];

/// The same hues, lightened for a dark background.
const DARK: [&str; 8] = ["#6ea8fe", "#ff9461", "#3ecfa6", "#e08fd0", "#f0c24b", "#7fd0f7", "#e0718f", "#a3adbd"];

/// (class, light, dark) of the inks that are not series.
const fn plain(ink: Ink) -> (&'static str, &'static str, &'static str) {
    match ink {
        Ink::Text => ("text", "#1f2733", "#e8ebf0"),
        Ink::Muted => ("muted", "#5a6474", "#a4aebd"),
        Ink::Grid => ("grid", "#e8ebf0", "#2b323d"),
        Ink::Axis => ("axis", "#a9b2bf", "#66707f"),
        Ink::Background => ("ground", "#ffffff", "#14181e"),
        Ink::Reference | Ink::Series(_) => ("reference", "#4b5565", "#c3cad5"),
    }
}

impl Ink {
    /// The colour in light mode, as `#rrggbb`.
    pub(crate) fn light(self) -> &'static str {
        match self {
            Self::Series(i) => LIGHT[i % SERIES],
            other => plain(other).1,
        }
    }

    fn class(self, prefix: char) -> String {
        match self {
            Self::Series(i) => format!("op-{prefix}{}", i % SERIES),
            other => format!("op-{prefix}-{}", plain(other).0),
        }
    }
}

/// The attributes of a shape filled with `ink`.
pub(crate) fn fill(ink: Ink) -> String {
    format!("class=\"{}\" fill=\"{}\"", ink.class('f'), ink.light())
}

/// The attributes of a line of `ink`.
pub(crate) fn stroke(ink: Ink, width: f64) -> String {
    format!(
        "class=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\"",
        ink.class('k'),
        ink.light(),
        crate::svg::N(width)
    )
}

/// The attributes of a shape filled with one ink and outlined with another.
pub(crate) fn both(inside: Ink, outline: Ink) -> String {
    format!(
        "class=\"{} {}\" fill=\"{}\" stroke=\"{}\"",
        inside.class('f'),
        outline.class('k'),
        inside.light(),
        outline.light()
    )
}

/// The style sheet that turns every ink to its dark value where the viewer's screen asks for it. Light colours stand in
/// the elements' own attributes, so that renderers without style sheets draw the light figure.
pub(crate) fn dark_mode() -> String {
    let mut css = String::from("@media screen and (prefers-color-scheme:dark){");
    let inks = [Ink::Text, Ink::Muted, Ink::Grid, Ink::Axis, Ink::Background, Ink::Reference];
    let plain = inks.map(|ink| (ink, plain(ink).2));
    let series = (0..SERIES).map(|i| (Ink::Series(i), DARK[i]));
    for (ink, dark) in plain.into_iter().chain(series) {
        let (f, k) = (ink.class('f'), ink.class('k'));
        write!(css, ".{f}{{fill:{dark}}}.{k}{{stroke:{dark}}}").expect("writing to memory");
    }
    css.push('}');
    css
}

/// Red, green, blue.
pub(crate) type Rgb = [u8; 3];

/// Viridis at eleven even places.
const SEQUENTIAL: [Rgb; 11] = [
    [68, 1, 84],
    [72, 36, 117],
    [65, 68, 135],
    [53, 95, 141],
    [42, 120, 142],
    [33, 145, 140],
    [34, 168, 132],
    [68, 191, 112],
    [122, 209, 81],
    [189, 223, 38],
    [253, 231, 37],
];

/// Blue, white, red.
const DIVERGING: [Rgb; 11] = [
    [16, 62, 122],
    [33, 102, 172],
    [67, 147, 195],
    [146, 197, 222],
    [209, 229, 240],
    [255, 255, 255],
    [253, 219, 199],
    [244, 165, 130],
    [214, 96, 77],
    [178, 24, 43],
    [118, 8, 34],
];

const GREY: [Rgb; 2] = [[0, 0, 0], [255, 255, 255]];

/// The colour at `t` in 0..=1.
pub(crate) fn colour(palette: Palette, t: f64) -> Rgb {
    let stops: &[Rgb] = match palette {
        Palette::Sequential => &SEQUENTIAL,
        Palette::Diverging => &DIVERGING,
        Palette::Grey => &GREY,
    };
    let place = if t.is_nan() { 0.0 } else { t.clamp(0.0, 1.0) } * (stops.len() - 1) as f64;
    let i = (place as usize).min(stops.len() - 2);
    let f = place - i as f64;
    std::array::from_fn(|k| (f64::from(stops[i][k]) * (1.0 - f) + f64::from(stops[i + 1][k]) * f).round() as u8)
}

/// Whether white letters are read better on this colour than black ones.
pub(crate) fn is_dark(c: Rgb) -> bool {
    // Rec. 709 weights on the gamma-coded values: good enough to choose between two.
    0.2126 * f64::from(c[0]) + 0.7152 * f64::from(c[1]) + 0.0722 * f64::from(c[2]) < 140.0
}

/// A colour as `#rrggbb`.
pub(crate) fn hex([r, g, b]: Rgb) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_end_where_they_should() {
        assert_eq!(hex(colour(Palette::Sequential, 0.0)), "#440154");
        assert_eq!(hex(colour(Palette::Sequential, 1.0)), "#fde725");
        assert_eq!(hex(colour(Palette::Diverging, 0.5)), "#ffffff");
        assert_eq!(hex(colour(Palette::Grey, f64::NAN)), "#000000");
        assert_eq!(colour(Palette::Grey, 7.0), [255; 3]);
    }

    #[test]
    fn sequential_gets_lighter_all_the_way() {
        let light = |t: f64| {
            let [r, g, b] = colour(Palette::Sequential, t).map(f64::from);
            0.2126 * r + 0.7152 * g + 0.0722 * b
        };
        assert!((0..100).all(|i| light(f64::from(i) / 100.0) < light(f64::from(i + 1) / 100.0)));
    }
}
