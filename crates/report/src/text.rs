//! Text measured with the bundled fonts, so that margins and legends fit exactly.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use resvg::usvg::fontdb::Database;
use skrifa::instance::{LocationRef, Size};
use skrifa::{FontRef, MetadataProvider};
use std::collections::HashMap;
use std::sync::OnceLock;

const REGULAR: &[u8] = include_bytes!("../fonts/Inter-Regular.ttf");
const SEMIBOLD: &[u8] = include_bytes!("../fonts/Inter-SemiBold.ttf");
const WEB: [&[u8]; 2] =
    [include_bytes!("../fonts/Inter-Regular.woff2"), include_bytes!("../fonts/Inter-SemiBold.woff2")];
const MATHS: &[u8] = include_bytes!("../fonts/DejaVuSans-Maths.ttf");

/// The family asked for in every SVG; the first one is bundled, the rest serve viewers without it.
pub(crate) const FAMILY: &str = "Inter, 'Helvetica Neue', Arial, sans-serif";

/// How heavy letters are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weight {
    Regular,
    SemiBold,
}

/// Advance widths in em.
struct Widths(HashMap<char, f64>);

impl Widths {
    fn of(font: &[u8]) -> Self {
        // Signs that only the mathematical font has come first, so that Inter's own widths win.
        let mut widths = HashMap::new();
        for data in [MATHS, font] {
            let font = FontRef::new(data).expect("a bundled font");
            let units = f64::from(font.metrics(Size::unscaled(), LocationRef::default()).units_per_em);
            let glyphs = font.glyph_metrics(Size::unscaled(), LocationRef::default());
            widths.extend(font.charmap().mappings().filter_map(|(code, glyph)| {
                Some((char::from_u32(code)?, f64::from(glyphs.advance_width(glyph)?) / units))
            }));
        }
        Self(widths)
    }

    fn em(&self, c: char) -> f64 {
        // Letters outside the bundled fonts (Chinese, emoji) are drawn by the viewer's: about square.
        self.0.get(&c).copied().unwrap_or(if c.is_control() { 0.0 } else { 1.0 })
    }
}

/// The width of `text` in pixels.
pub(crate) fn width(text: &str, size: f64, weight: Weight) -> f64 {
    static WIDTHS: [OnceLock<Widths>; 2] = [OnceLock::new(), OnceLock::new()];
    let widths = match weight {
        Weight::Regular => WIDTHS[0].get_or_init(|| Widths::of(REGULAR)),
        Weight::SemiBold => WIDTHS[1].get_or_init(|| Widths::of(SEMIBOLD)),
    };
    text.chars().map(|c| widths.em(c)).sum::<f64>() * size
}

/// `text` in lines no wider than `limit`, broken at spaces; a word that is too wide by itself is cut.
pub(crate) fn wrap(text: &str, size: f64, weight: Weight, limit: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let longer = if line.is_empty() { word.to_owned() } else { format!("{line} {word}") };
        if line.is_empty() || width(&longer, size, weight) <= limit {
            line = longer;
        } else {
            lines.push(std::mem::replace(&mut line, word.to_owned()));
        }
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines.into_iter().map(|l| shorten(&l, size, weight, limit)).collect()
}

/// `text`, or its beginning with an ellipsis where it is wider than `limit`.
pub(crate) fn shorten(text: &str, size: f64, weight: Weight, limit: f64) -> String {
    if width(text, size, weight) <= limit {
        return text.to_owned();
    }
    let ellipsis = width("…", size, weight);
    let mut used = ellipsis;
    let mut short: String = text
        .chars()
        .take_while(|&c| {
            used += width(c.encode_utf8(&mut [0; 4]), size, weight);
            used <= limit
        })
        .collect();
    short.truncate(short.trim_end().len());
    short.push('…');
    short
}

/// The regular and the semibold font as base64 of WOFF2, to stand in a page.
pub(crate) fn web_fonts() -> [String; 2] {
    WEB.map(|font| STANDARD.encode(font))
}

/// The bundled fonts, for drawing.
pub(crate) fn fonts() -> Database {
    let mut fonts = Database::new();
    for data in [REGULAR, SEMIBOLD, MATHS] {
        fonts.load_font_data(data.to_vec());
    }
    fonts.set_sans_serif_family("Inter");
    fonts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_are_those_of_the_font() {
        // Inter's space is 576/2048 em, its digits are wider than its full stop.
        assert!((width(" ", 100.0, Weight::Regular) - 28.1).abs() < 0.5);
        assert!(width("0", 10.0, Weight::Regular) > width(".", 10.0, Weight::Regular));
        assert!(width("Offprint", 10.0, Weight::SemiBold) > width("Offprint", 10.0, Weight::Regular));
        assert!(width("∇", 10.0, Weight::Regular) < 10.0);
    }

    #[test]
    fn wrapped_lines_fit() {
        let text = "what a figure shows is told below it in a sentence or two averyveryverylongwordthatdoesnotfitatall";
        let lines = wrap(text, 12.0, Weight::Regular, 150.0);
        assert!(lines.len() > 2);
        assert!(lines.iter().all(|l| width(l, 12.0, Weight::Regular) <= 150.0));
        assert!(lines.last().unwrap().ends_with('…'));
        assert!(wrap("  ", 12.0, Weight::Regular, 150.0).is_empty());
    }
}
