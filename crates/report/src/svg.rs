//! A small SVG writer: escapes text, rounds coordinates, never writes a number that is not finite.

use crate::palette::Ink;
use crate::text::Weight;
use std::fmt::{self, Display, Write};

/// A coordinate to two decimals without trailing zeros.
#[derive(Debug, Clone, Copy)]
pub(crate) struct N(pub f64);

/// Beyond this, places are outside every canvas; viewers that compute in 32 bits still draw them right.
const FAR: f64 = 1e6;

impl Display for N {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let x = if self.0.is_nan() { 0.0 } else { self.0.clamp(-FAR, FAR) };
        let text = format!("{x:.2}");
        let text = text.trim_end_matches('0').trim_end_matches('.');
        f.write_str(if text == "-0" { "0" } else { text })
    }
}

/// `text` with the signs that mean something in XML replaced, and the control characters it forbids dropped.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\u{fffe}' | '\u{ffff}' => {}
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// Where a text stands relative to its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// How a text is set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Type {
    pub size: f64,
    pub weight: Weight,
    pub ink: Ink,
    pub anchor: Anchor,
    /// Degrees, clockwise.
    pub turn: f64,
    /// Surrounded by the background's colour, to be read on top of lines.
    pub halo: bool,
}

impl Type {
    pub(crate) fn new(size: f64, ink: Ink) -> Self {
        Self { size, weight: Weight::Regular, ink, anchor: Anchor::Start, turn: 0.0, halo: false }
    }

    pub(crate) fn semibold(self) -> Self {
        Self { weight: Weight::SemiBold, ..self }
    }

    pub(crate) fn anchored(self, anchor: Anchor) -> Self {
        Self { anchor, ..self }
    }

    pub(crate) fn turned(self, turn: f64) -> Self {
        Self { turn, ..self }
    }

    pub(crate) fn haloed(self) -> Self {
        Self { halo: true, ..self }
    }
}

/// A rectangle on the canvas.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Frame {
    pub x: f64,
    pub y: f64,
    pub w: f64,
    pub h: f64,
}

impl Frame {
    pub(crate) fn right(&self) -> f64 {
        self.x + self.w
    }

    pub(crate) fn bottom(&self) -> f64 {
        self.y + self.h
    }
}

/// The elements drawn so far.
#[derive(Debug, Default)]
pub(crate) struct Canvas(String);

impl Canvas {
    /// Adds raw markup made of numbers, escaped text and constants.
    pub(crate) fn raw(&mut self, markup: impl Display) {
        write!(self.0, "{markup}").expect("writing to memory");
        self.0.push('\n');
    }

    pub(crate) fn rect(&mut self, at: Frame, radius: f64, paint: impl Display) {
        let Frame { x, y, w, h } = at;
        let round = if radius > 0.0 { format!(" rx=\"{}\"", N(radius)) } else { String::new() };
        self.raw(format_args!(
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"{round} {paint}/>",
            N(x),
            N(y),
            N(w.max(0.0)),
            N(h.max(0.0))
        ));
    }

    pub(crate) fn line(&mut self, from: (f64, f64), to: (f64, f64), paint: impl Display) {
        self.raw(format_args!(
            "<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" {paint}/>",
            N(from.0),
            N(from.1),
            N(to.0),
            N(to.1)
        ));
    }

    pub(crate) fn circle(&mut self, at: (f64, f64), radius: f64, paint: impl Display) {
        self.raw(format_args!("<circle cx=\"{}\" cy=\"{}\" r=\"{}\" {paint}/>", N(at.0), N(at.1), N(radius.max(0.0))));
    }

    /// A path; an empty one is left out.
    pub(crate) fn path(&mut self, d: &str, paint: impl Display) {
        if !d.is_empty() {
            self.raw(format_args!("<path d=\"{d}\" {paint}/>"));
        }
    }

    /// One line of text whose baseline is at `at`.
    pub(crate) fn text(&mut self, at: (f64, f64), text: &str, kind: Type) {
        if text.trim().is_empty() {
            return;
        }
        let (x, y) = (N(at.0), N(at.1));
        let anchor = match kind.anchor {
            Anchor::Start => "",
            Anchor::Middle => " text-anchor=\"middle\"",
            Anchor::End => " text-anchor=\"end\"",
        };
        let weight = if kind.weight == Weight::SemiBold { " font-weight=\"600\"" } else { "" };
        let turn =
            if kind.turn == 0.0 { String::new() } else { format!(" transform=\"rotate({} {x} {y})\"", N(kind.turn)) };
        let paint = if kind.halo {
            format!("{} stroke-width=\"6\" stroke-linejoin=\"round\" paint-order=\"stroke\"", {
                crate::palette::both(kind.ink, Ink::Background)
            })
        } else {
            crate::palette::fill(kind.ink)
        };
        self.raw(format_args!(
            "<text x=\"{x}\" y=\"{y}\" font-size=\"{}\"{weight}{anchor}{turn} {paint}>{}</text>",
            N(kind.size),
            escape(text)
        ));
    }

    /// Draws into `frame` only: what reaches beyond is cut. Nested SVG elements cut without an id, of which a page with
    /// several figures must not have two the same.
    pub(crate) fn clipped(&mut self, frame: Frame, draw: impl FnOnce(&mut Self)) {
        let Frame { x, y, w, h } = frame;
        // A viewBox without area would switch drawing off altogether.
        let (x, y, w, h) = (N(x), N(y), N(w.max(1.0)), N(h.max(1.0)));
        self.raw(format_args!(
            "<svg x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\" viewBox=\"{x} {y} {w} {h}\" overflow=\"hidden\">"
        ));
        draw(self);
        self.raw("</svg>");
    }

    /// The markup drawn.
    pub(crate) fn into_string(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_finite() {
        for (x, text) in [
            (0.0, "0"),
            (-0.001, "0"),
            (1.0, "1"),
            (1.256, "1.26"),
            (10.5, "10.5"),
            (100.0, "100"),
            (f64::NAN, "0"),
            (f64::INFINITY, "1000000"),
            (-1e300, "-1000000"),
        ] {
            assert_eq!(N(x).to_string(), text);
        }
    }

    #[test]
    fn text_is_escaped() {
        assert_eq!(escape("<a b=\"c\"> & 'd'\u{0}"), "&lt;a b=&quot;c&quot;&gt; &amp; &#39;d&#39; ");
    }
}
