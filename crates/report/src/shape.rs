//! Marks, stem heads and arrow heads.

use crate::palette::{Ink, both, fill};
use crate::svg::{Canvas, N};
use std::fmt::Write;

/// The shape of a mark: a second way, besides colour, to tell series apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Circle,
    Square,
    Diamond,
    Triangle,
    Down,
}

impl Shape {
    /// The shape of the n-th series.
    pub(crate) fn nth(n: usize) -> Self {
        [Self::Circle, Self::Square, Self::Diamond, Self::Triangle, Self::Down][n % 5]
    }

    /// The outline around `at`, all shapes of about equal area.
    pub(crate) fn outline(self, at: (f64, f64), radius: f64) -> String {
        let corners: &[(f64, f64)] = match self {
            Self::Circle => {
                let r = N(radius);
                let d = N(2.0 * radius);
                return format!("M{} {}a{r} {r} 0 1 0 {d} 0a{r} {r} 0 1 0 -{d} 0z", N(at.0 - radius), N(at.1));
            }
            Self::Square => &[(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)],
            Self::Diamond => &[(0.0, -1.25), (1.25, 0.0), (0.0, 1.25), (-1.25, 0.0)],
            Self::Triangle => &[(0.0, -1.25), (1.16, 0.8), (-1.16, 0.8)],
            Self::Down => &[(0.0, 1.25), (1.16, -0.8), (-1.16, -0.8)],
        };
        polygon(corners.iter().map(|(x, y)| (at.0 + x * radius, at.1 + y * radius)))
    }
}

/// A closed path through `corners`.
pub(crate) fn polygon(corners: impl IntoIterator<Item = (f64, f64)>) -> String {
    let mut d = String::new();
    for (i, (x, y)) in corners.into_iter().enumerate() {
        write!(d, "{}{} {}", if i == 0 { 'M' } else { 'L' }, N(x), N(y)).expect("writing to memory");
    }
    d.push('z');
    d
}

/// A mark ringed by the background, so that it stands out from lines and neighbours.
pub(crate) fn draw(canvas: &mut Canvas, shape: Shape, at: (f64, f64), radius: f64, ink: Ink) {
    let paint = format!("{} stroke-width=\"1.5\"", both(ink, Ink::Background));
    match shape {
        Shape::Circle => canvas.circle(at, radius, paint),
        other => canvas.path(&other.outline(at, radius), paint),
    }
}

/// The head of a stem: a ring for the first of several series, a dot for the rest, which fits into the ring.
pub(crate) fn stem_head(canvas: &mut Canvas, at: (f64, f64), ink: Ink, hollow: bool) {
    if hollow {
        canvas.circle(at, 5.0, format!("{} stroke-width=\"2\"", both(Ink::Background, ink)));
    } else {
        canvas.circle(at, 2.8, fill(ink));
    }
}

/// The head of an arrow that ends at `to`; empty for an arrow without length.
pub(crate) fn arrow_head(from: (f64, f64), to: (f64, f64), size: f64) -> String {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let length = dx.hypot(dy);
    if !(length > 0.01 && length.is_finite()) {
        return String::new();
    }
    let size = size.min(length * 0.6);
    let (ux, uy) = (dx / length * size, dy / length * size);
    polygon([to, (to.0 - ux - uy * 0.45, to.1 - uy + ux * 0.45), (to.0 - ux + uy * 0.45, to.1 - uy - ux * 0.45)])
}
