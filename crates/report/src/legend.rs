//! The legend: one wrapping row above the data, so that it covers none of it.

use crate::palette::{Ink, fill, stroke};
use crate::shape::{self, Shape};
use crate::svg::{Canvas, Frame, Type};
use crate::text::{self, Weight};

const SIZE: f64 = 12.5;
const ROW: f64 = 20.0;
const KEY: f64 = 22.0;
const SPACE: f64 = 18.0;

/// What stands before a name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Key {
    Line { ink: Ink, dash: &'static str, mark: Option<Shape> },
    Points { ink: Ink, mark: Shape },
    Bar { ink: Ink },
    Stem { ink: Ink, hollow: bool },
    Segment { ink: Ink, arrow: bool },
}

impl Key {
    fn width(self) -> f64 {
        match self {
            Self::Line { .. } | Self::Segment { .. } => KEY,
            Self::Points { .. } | Self::Bar { .. } | Self::Stem { .. } => 12.0,
        }
    }
}

/// Names with their keys, in rows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Legend {
    /// (key, name, distance from the left) by row.
    rows: Vec<Vec<(Key, String, f64)>>,
}

impl Legend {
    pub(crate) fn new(entries: Vec<(Key, String)>, width: f64) -> Self {
        let mut rows: Vec<Vec<(Key, String, f64)>> = Vec::new();
        let mut x = f64::INFINITY;
        for (key, name) in entries {
            let name = text::shorten(&name, SIZE, Weight::Regular, (width - KEY - 6.0).max(30.0));
            let length = key.width() + 6.0 + text::width(&name, SIZE, Weight::Regular);
            if x + length > width {
                rows.push(Vec::new());
                x = 0.0;
            }
            if let Some(row) = rows.last_mut() {
                row.push((key, name, x));
            }
            x += length + SPACE;
        }
        Self { rows }
    }

    pub(crate) fn height(&self) -> f64 {
        self.rows.len() as f64 * ROW
    }

    /// Draws with the upper left corner at (`x`, `y`).
    pub(crate) fn draw(&self, canvas: &mut Canvas, x: f64, y: f64) {
        for (i, row) in self.rows.iter().enumerate() {
            let middle = y + (i as f64 + 0.5) * ROW;
            for (key, name, at) in row {
                draw_key(canvas, *key, x + at, middle);
                canvas.text((x + at + key.width() + 6.0, middle + 4.4), name, Type::new(SIZE, Ink::Text));
            }
        }
    }
}

fn draw_key(canvas: &mut Canvas, key: Key, x: f64, y: f64) {
    let centre = (x + key.width() / 2.0, y);
    match key {
        Key::Line { ink, dash, mark } => {
            canvas.line((x, y), (x + KEY, y), format!("{}{dash}", stroke(ink, 2.2)));
            if let Some(mark) = mark {
                shape::draw(canvas, mark, centre, 4.0, ink);
            }
        }
        Key::Points { ink, mark } => shape::draw(canvas, mark, centre, 4.5, ink),
        Key::Bar { ink } => {
            canvas.rect(Frame { x: centre.0 - 6.0, y: y - 6.0, w: 12.0, h: 12.0 }, 2.5, fill(ink));
        }
        Key::Stem { ink, hollow } => {
            canvas.line((centre.0, y + 7.0), (centre.0, y - 3.0), stroke(ink, if hollow { 3.0 } else { 1.5 }));
            shape::stem_head(canvas, (centre.0, y - 3.5), ink, hollow);
        }
        Key::Segment { ink, arrow } => {
            let (from, to) = ((x + 1.0, y), (x + KEY - 1.0, y));
            canvas.line(from, to, stroke(ink, 1.8));
            if arrow {
                canvas.path(&shape::arrow_head(from, to, 6.0), fill(ink));
            }
        }
    }
}
