//! The two axes around a plot or a heat map: their range, ticks, labels and titles, and the room these take.

use crate::palette::{Ink, stroke};
use crate::svg::{Anchor, Canvas, Frame, Type};
use crate::text::{self, Weight};
use crate::ticks::{self, Ticks};
use offprint_core::figure::{Axis, Scale};

const TICK: f64 = 12.0;
const TITLE: f64 = 13.0;
const LINE: f64 = 17.0;
/// Between numbers and the axis.
const GAP: f64 = 8.0;

/// What an axis shows, in its own coordinate: the value, or its decadic logarithm. `low` may exceed `high`: then the
/// axis runs backwards.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Span {
    pub low: f64,
    pub high: f64,
    pub scale: Scale,
}

/// Values beyond this are drawn at it, so that differences stay finite.
const HUGE: f64 = 4e307;

/// `value` in the coordinate of an axis; `None` where it has no place on it.
pub(crate) fn coordinate(scale: Scale, value: f64) -> Option<f64> {
    match scale {
        _ if !value.is_finite() => None,
        Scale::Linear => Some(value.clamp(-HUGE, HUGE)),
        Scale::Log => (value > 0.0).then(|| value.log10()),
    }
}

/// Smallest and largest coordinate of values.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Extent(pub Option<(f64, f64)>);

impl Extent {
    pub(crate) fn add(&mut self, scale: Scale, value: f64) {
        if let Some(c) = coordinate(scale, value) {
            let (low, high) = self.0.unwrap_or((c, c));
            self.0 = Some((low.min(c), high.max(c)));
        }
    }
}

impl Span {
    /// The fixed limits of `axis`, or the extent of the data widened by `padding` of itself on both sides; a side at
    /// `floor` (the foot of bars) is not widened.
    pub(crate) fn of(axis: &Axis, extent: Extent, padding: f64, floor: Option<f64>) -> Self {
        let scale = axis.scale;
        if let Some((low, high)) = axis.limits
            && let (Some(low), Some(high)) = (coordinate(scale, low), coordinate(scale, high))
            && !is_flat(low, high)
        {
            return Self { low, high, scale };
        }
        let (low, high) = extent.0.unwrap_or((0.0, 1.0));
        if is_flat(low, high) {
            // One value only: room around it.
            let middle = low / 2.0 + high / 2.0;
            let room = match scale {
                Scale::Log => 0.5,
                Scale::Linear if middle.abs() < 1e-290 => 1.0,
                Scale::Linear => middle.abs() * 0.1,
            };
            let open = |end: f64, by: f64| if floor == Some(end) && end != 0.0 { end } else { end + by };
            return Self { low: open(middle, -room), high: middle + room, scale };
        }
        let room = (high - low) * padding;
        let open = |end: f64, by: f64| if floor == Some(end) { end } else { end + by };
        Self { low: open(low, -room), high: open(high, room), scale }
    }

    /// Where `value` lies: 0 at the low end, 1 at the high end.
    pub(crate) fn fraction(&self, value: f64) -> Option<f64> {
        coordinate(self.scale, value).map(|c| self.share(c))
    }

    /// [`Span::fraction`] of a coordinate.
    pub(crate) fn share(&self, coordinate: f64) -> f64 {
        (coordinate - self.low) / (self.high - self.low)
    }

    /// The length shown.
    pub(crate) fn length(&self) -> f64 {
        (self.high - self.low).abs()
    }

    /// The same middle, `times` as long.
    pub(crate) fn stretched(self, times: f64) -> Self {
        let room = (self.high - self.low) * (times - 1.0) / 2.0;
        Self { low: self.low - room, high: self.high + room, ..self }
    }

    /// Whether `coordinate` lies within.
    fn shows(&self, coordinate: f64) -> bool {
        (-1e-9..=1.0 + 1e-9).contains(&self.share(coordinate))
    }

    /// About `wanted` ticks; at `whole` numbers only where nothing lies between them.
    pub(crate) fn ticks(&self, wanted: usize, whole: bool) -> Ticks {
        match self.scale {
            Scale::Linear if whole => ticks::whole(self.low, self.high, wanted),
            Scale::Linear => ticks::linear(self.low, self.high, wanted),
            Scale::Log => ticks::log(self.low, self.high, wanted),
        }
    }
}

/// Whether two coordinates are too near for an axis between them.
fn is_flat(low: f64, high: f64) -> bool {
    let size = low.abs().max(high.abs());
    (high - low).abs() <= size * 1e-12 || (high - low).abs() < 1e-290
}

/// How the numbers or names below the horizontal axis are set.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Setting {
    Straight,
    /// Slanted, rising to the axis.
    Slanted,
}

/// Both axes, fitted to a place.
#[derive(Debug, Clone)]
pub(crate) struct Axes {
    pub x: Span,
    pub y: Span,
    /// Size of what lies between the axes.
    pub body: (f64, f64),
    /// Room needed left of, right of and below the body.
    pub left: f64,
    pub right: f64,
    pub bottom: f64,
    x_ticks: Ticks,
    y_ticks: Ticks,
    x_lines: Vec<Vec<String>>,
    setting: Setting,
    /// Whether names stand below the axis instead of numbers.
    named: bool,
    /// Height of what stands at the ticks below the axis.
    below: f64,
    /// Width of what stands at the ticks left of the axis.
    beside: f64,
    x_title: Vec<String>,
    y_title: Vec<String>,
}

/// What the axes have to fit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// Width for everything, labels included.
    pub width: f64,
    /// Height of the body, unless `aspect` says otherwise.
    pub height: f64,
    /// The room left of the body is at least this, so that the panels of a column line up.
    pub left: f64,
    /// Room kept free at the right (for a colour bar).
    pub right: f64,
    /// Width over height of the body.
    pub aspect: Option<f64>,
    /// The tallest body.
    pub tallest: f64,
    /// Numbers at whole places only (indices of rows and columns).
    pub whole: (bool, bool),
}

impl Axes {
    pub(crate) fn fit(axes: (&Axis, &Axis), x: Span, y: Span, room: Room) -> Self {
        let (x_axis, y_axis) = axes;
        let mut height = room.height;
        let mut width = room.width;
        let (mut left, mut beside) = (0.0, 0.0);
        let (mut y_ticks, mut y_title) = (Ticks::default(), Vec::new());
        let mut right = room.right.max(10.0);
        // The height follows from the width where the aspect is given, the width from the labels beside, and these from
        // the height: two rounds settle it.
        for _ in 0..2 {
            (y_ticks, beside) = vertical_ticks(y_axis, y, height, room.whole.1, room.width * 0.35);
            y_title = text::wrap(&y_axis.title(), TITLE, Weight::Regular, (height + 30.0).max(80.0));
            y_title.truncate(2);
            let title = if y_title.is_empty() { 0.0 } else { y_title.len() as f64 * LINE + 5.0 };
            left = (beside + GAP + title).max(room.left);
            width = (room.width - left - right).max(40.0);
            if let Some(aspect) = room.aspect {
                height = (width / aspect).min(room.tallest);
                width = height * aspect;
            }
        }
        let (x_ticks, x_lines, setting, below) = horizontal_ticks(x_axis, x, width, room.whole.0, left);
        if setting == Setting::Straight {
            // The last number may reach beyond the axis.
            let over = |(place, lines): (&(f64, String), &Vec<String>)| {
                widest(lines) / 2.0 - (1.0 - x.share(place.0)) * width + 2.0
            };
            let over = x_ticks.major.iter().zip(&x_lines).map(over).fold(0.0, f64::max);
            if over > right {
                if room.aspect.is_none() {
                    width -= over - right;
                }
                right = over;
            }
        }
        let mut x_title = text::wrap(&x_axis.title(), TITLE, Weight::Regular, (width + left * 0.5).max(80.0));
        x_title.truncate(2);
        let title = if x_title.is_empty() { 0.0 } else { x_title.len() as f64 * LINE + 4.0 };
        Self {
            x,
            y,
            body: (width, height),
            left,
            right,
            bottom: below + title + 4.0,
            x_ticks,
            y_ticks,
            x_lines,
            setting,
            named: !x_axis.categories.is_empty(),
            below,
            beside,
            x_title,
            y_title,
        }
    }

    /// The grid behind the data.
    pub(crate) fn draw_grid(&self, canvas: &mut Canvas, body: Frame, vertical: bool) {
        for (place, _) in &self.y_ticks.major {
            let y = body.bottom() - self.y.share(*place) * body.h;
            canvas.line((body.x, y), (body.right(), y), stroke(Ink::Grid, 1.0));
        }
        if vertical {
            for (place, _) in &self.x_ticks.major {
                let x = body.x + self.x.share(*place) * body.w;
                canvas.line((x, body.y), (x, body.bottom()), stroke(Ink::Grid, 1.0));
            }
        }
    }

    /// Axis lines, ticks, numbers and titles.
    pub(crate) fn draw(&self, canvas: &mut Canvas, body: Frame) {
        let axis = stroke(Ink::Axis, 1.0);
        canvas.line((body.x, body.bottom()), (body.right(), body.bottom()), &axis);
        for &place in &self.x_ticks.minor {
            let x = body.x + self.x.share(place) * body.w;
            canvas.line((x, body.bottom()), (x, body.bottom() + 3.0), &axis);
        }
        for &place in &self.y_ticks.minor {
            let y = body.bottom() - self.y.share(place) * body.h;
            canvas.line((body.x - 3.0, y), (body.x, y), &axis);
        }
        if self.y.scale == Scale::Log {
            canvas.line((body.x, body.y), (body.x, body.bottom()), &axis);
        }
        let kind = Type::new(TICK, Ink::Muted);
        for ((place, _), lines) in self.x_ticks.major.iter().zip(&self.x_lines) {
            let x = body.x + self.x.share(*place) * body.w;
            if !self.named {
                canvas.line((x, body.bottom()), (x, body.bottom() + 4.0), &axis);
            }
            for (i, line) in lines.iter().enumerate() {
                match self.setting {
                    Setting::Straight => {
                        canvas.text((x, body.bottom() + 18.0 + i as f64 * 14.0), line, kind.anchored(Anchor::Middle))
                    }
                    Setting::Slanted => {
                        canvas.text((x + 4.0, body.bottom() + 15.0), line, kind.anchored(Anchor::End).turned(-SLANT))
                    }
                }
            }
        }
        for (place, label) in &self.y_ticks.major {
            let y = body.bottom() - self.y.share(*place) * body.h;
            canvas.text((body.x - GAP, y + 4.2), label, kind.anchored(Anchor::End));
        }
        let kind = Type::new(TITLE, Ink::Text).anchored(Anchor::Middle);
        for (i, line) in self.x_title.iter().enumerate() {
            let y = body.bottom() + self.below + 15.0 + i as f64 * LINE;
            canvas.text((body.x + body.w / 2.0, y), line, kind);
        }
        let lines = self.y_title.len() as f64;
        for (i, line) in self.y_title.iter().enumerate() {
            let x = body.x - GAP - self.beside - 8.0 - (lines - 1.0 - i as f64) * LINE;
            canvas.text((x, body.y + body.h / 2.0), line, kind.turned(-90.0));
        }
    }
}

/// Degrees by which long names rise.
const SLANT: f64 = 35.0;

fn widest(lines: &[String]) -> f64 {
    lines.iter().map(|l| text::width(l, TICK, Weight::Regular)).fold(0.0, f64::max)
}

/// The names of an axis with categories that lie within the span.
fn names(axis: &Axis, span: Span) -> Vec<(f64, String)> {
    let places = axis.categories.iter().enumerate().map(|(i, name)| (i as f64, name.clone()));
    places.filter(|(place, _)| span.scale == Scale::Linear && span.shows(*place)).collect()
}

fn vertical_ticks(axis: &Axis, span: Span, height: f64, whole: bool, widest: f64) -> (Ticks, f64) {
    let mut ticks = if axis.categories.is_empty() {
        let wanted = (height / 48.0).round().clamp(2.0, 9.0) as usize;
        span.ticks(wanted, whole)
    } else {
        let mut major = names(axis, span);
        let every = thinning(major.len(), height, 15.0);
        major = major.into_iter().step_by(every).collect();
        Ticks { major, minor: Vec::new() }
    };
    for (_, label) in &mut ticks.major {
        *label = text::shorten(label, TICK, Weight::Regular, widest.max(40.0));
    }
    let beside = ticks.major.iter().map(|(_, l)| text::width(l, TICK, Weight::Regular)).fold(0.0, f64::max);
    (ticks, beside)
}

/// Every how many names one is shown, for `count` names over a `length` where each takes `each`.
fn thinning(count: usize, length: f64, each: f64) -> usize {
    ((count as f64 * each / length.max(1.0)).ceil() as usize).max(1)
}

type Horizontal = (Ticks, Vec<Vec<String>>, Setting, f64);

fn horizontal_ticks(axis: &Axis, span: Span, width: f64, whole: bool, left: f64) -> Horizontal {
    if !axis.categories.is_empty() {
        return horizontal_names(axis, span, width, left);
    }
    let mut wanted = (width / 70.0).round().clamp(2.0, 10.0) as usize;
    loop {
        let ticks = span.ticks(wanted, whole);
        if wanted <= 2 || have_room(&ticks, span, width) {
            let lines = ticks.major.iter().map(|(_, l)| vec![l.clone()]).collect();
            return (ticks, lines, Setting::Straight, 22.0);
        }
        wanted -= 1;
    }
}

fn have_room(ticks: &Ticks, span: Span, width: f64) -> bool {
    ticks.major.windows(2).all(|pair| {
        let distance = (span.share(pair[1].0) - span.share(pair[0].0)).abs() * width;
        let [a, b] = [&pair[0].1, &pair[1].1].map(|l| text::width(l, TICK, Weight::Regular));
        distance >= (a + b) / 2.0 + 10.0
    })
}

fn horizontal_names(axis: &Axis, span: Span, width: f64, left: f64) -> Horizontal {
    let major = names(axis, span);
    let slot = width / span.length().max(1.0);
    let lines: Vec<Vec<String>> =
        major.iter().map(|(_, name)| text::wrap(name, TICK, Weight::Regular, (slot - 8.0).max(10.0))).collect();
    let whole_words = major.iter().zip(&lines).all(|((_, name), l)| {
        l.len() <= 2 && l.iter().map(|l| l.split_whitespace().count()).sum::<usize>() == name.split_whitespace().count()
    });
    let uncut = lines.iter().flatten().all(|l| !l.ends_with('…'));
    if whole_words && uncut {
        let rows = lines.iter().map(Vec::len).max().unwrap_or(1).max(1);
        return (Ticks { major, minor: Vec::new() }, lines, Setting::Straight, 8.0 + rows as f64 * 14.0);
    }
    let every = thinning(major.len(), width, 17.0);
    let major: Vec<(f64, String)> = major.into_iter().step_by(every).collect();
    let (sin, cos) = SLANT.to_radians().sin_cos();
    let lines: Vec<Vec<String>> = major
        .iter()
        .map(|(place, name)| {
            // A slanted name reaches to the left: no further than the edge of the panel.
            let limit = ((span.share(*place) * width + left) / cos).clamp(24.0, 150.0);
            vec![text::shorten(name, TICK, Weight::Regular, limit)]
        })
        .collect();
    let deepest = lines.iter().map(|l| widest(l)).fold(0.0, f64::max);
    (Ticks { major, minor: Vec::new() }, lines, Setting::Slanted, 16.0 + deepest * sin)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(values: &[f64], scale: Scale) -> Extent {
        let mut e = Extent::default();
        values.iter().for_each(|&v| e.add(scale, v));
        e
    }

    #[test]
    fn a_single_value_stands_in_the_middle() {
        for v in [0.0, 5.0, -3e300, 1e-300, f64::MAX] {
            let span = Span::of(&Axis::new("x"), extent(&[v], Scale::Linear), 0.05, None);
            assert!(span.length() > 0.0 && span.length().is_finite(), "{v}");
            assert!((span.fraction(v).unwrap() - 0.5).abs() < 1e-6, "{v}");
        }
    }

    #[test]
    fn whole_numbers_on_a_logarithmic_axis_are_told_as_they_are() {
        let span = Span::of(&Axis::log("x"), extent(&[1.0, 10.0, 100.0, 1000.0], Scale::Log), 0.0, None);
        let labels: Vec<String> = span.ticks(5, true).major.into_iter().map(|(_, label)| label).collect();
        assert_eq!(labels, ["1", "10", "100", "1000"]);
    }

    #[test]
    fn logarithmic_axes_leave_out_what_is_not_positive() {
        let span = Span::of(&Axis::log("x"), extent(&[-1.0, 0.0, 1.0, 100.0], Scale::Log), 0.0, None);
        assert_eq!((span.low, span.high), (0.0, 2.0));
        assert_eq!(span.fraction(10.0), Some(0.5));
        assert_eq!(span.fraction(0.0), None);
    }

    #[test]
    fn many_names_are_thinned_and_long_ones_slanted() {
        let axis = Axis::categories("c", (0..200).map(|i| format!("category number {i}")));
        let span = Span { low: -0.5, high: 199.5, scale: Scale::Linear };
        let (ticks, _, setting, _) = horizontal_names(&axis, span, 600.0, 50.0);
        assert!(ticks.major.len() <= 40 && ticks.major.len() > 20);
        assert_eq!(setting, Setting::Slanted);
    }
}
