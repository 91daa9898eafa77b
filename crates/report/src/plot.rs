//! Plots: layers over two axes.

use crate::axes::{Axes, Extent, Room, Span, coordinate};
use crate::legend::{Key, Legend};
use crate::palette::{Ink, SERIES, fill, stroke};
use crate::shape::{self, Shape};
use crate::svg::{Anchor, Canvas, Frame, N, Type};
use crate::thin;
use offprint_core::figure::{Layer, Plot, Scale};
use std::fmt::Write;

/// A dashed line.
const DASHED: &str = " stroke-dasharray=\"6 4\"";
/// A second kind, for references beyond the first.
const DOTTED: &str = " stroke-dasharray=\"2 4\" stroke-linecap=\"round\"";
/// A third one.
const DASH_DOT: &str = " stroke-dasharray=\"8 3 2 3\"";
/// Line ends and joins of curves.
const ROUND: &str = " stroke-linejoin=\"round\" stroke-linecap=\"round\"";

/// How one layer looks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub ink: Ink,
    pub mark: Shape,
    dash: &'static str,
}

/// A plot fitted to its place.
pub(crate) struct Fitted<'a> {
    plot: &'a Plot,
    looks: Vec<Look>,
    pub axes: Axes,
    pub legend: Legend,
}

/// The name of a layer; empty keeps it out of the legend.
pub(crate) fn name(layer: &Layer) -> &str {
    match layer {
        Layer::Line { name, .. }
        | Layer::Points { name, .. }
        | Layer::Bars { name, .. }
        | Layer::Stems { name, .. }
        | Layer::Segments { name, .. }
        | Layer::Rule { name, .. } => name,
    }
}

/// Names that have their colour already: things of one name look the same in all panels of a figure.
pub(crate) type Known<'a> = Vec<(&'a str, usize)>;

/// Colours by order; layers of one name share theirs. Rules and a lone dashed line are references in grey.
pub(crate) fn looks<'a>(plot: &'a Plot, known: &mut Known<'a>) -> Vec<Look> {
    let is_dashed = |l: &&Layer| matches!(l, Layer::Line { dashed: true, .. });
    let lone = plot.layers.iter().filter(is_dashed).count() == 1;
    let sharing = |layer: &Layer| plot.layers.iter().filter(|l| name(l) == name(layer)).count() > 1;
    let is_reference = |l: &Layer| is_dashed(&l) && lone && (name(l).is_empty() || !sharing(l));
    let mut used: Vec<usize> =
        plot.layers.iter().filter_map(|l| known.iter().find(|(n, _)| *n == name(l))).map(|k| k.1).collect();
    let mut rules = usize::from(plot.layers.iter().any(is_reference));
    let grey = |ink: Ink, dash: &'static str| Look { ink, mark: Shape::Circle, dash };
    let any_named = plot.layers.iter().any(|l| !name(l).is_empty());
    plot.layers
        .iter()
        .map(|layer| {
            let dash = if is_dashed(&layer) { DASHED } else { "" };
            match layer {
                Layer::Rule { .. } => {
                    rules += 1;
                    return grey(Ink::Reference, [DASHED, DOTTED, DASH_DOT][(rules - 1) % 3]);
                }
                Layer::Line { .. } if is_reference(layer) => return grey(Ink::Reference, dash),
                Layer::Segments { name, .. } if name.is_empty() && any_named => return grey(Ink::Axis, dash),
                _ => {}
            }
            let index = known.iter().find(|(n, _)| *n == name(layer)).map(|k| k.1).unwrap_or_else(|| {
                let free = (0..).find(|i| !used.contains(i)).unwrap_or(0);
                used.push(free);
                if !name(layer).is_empty() {
                    known.push((name(layer), free));
                }
                free
            });
            // A ninth series has the first one's colour again, but not its line.
            let dash = if dash.is_empty() && index >= SERIES { DOTTED } else { dash };
            Look { ink: Ink::Series(index), mark: Shape::nth(index), dash }
        })
        .collect()
}

/// Whether there is anything to draw.
fn has_data(layer: &Layer) -> bool {
    let any = |x: &[f64], y: &[f64]| x.iter().zip(y).any(|(x, y)| x.is_finite() && y.is_finite());
    match layer {
        Layer::Line { x, y, .. }
        | Layer::Points { x, y, .. }
        | Layer::Bars { x, y, .. }
        | Layer::Stems { x, y, .. } => any(x, y),
        Layer::Segments { ends, .. } => ends.iter().flatten().any(|v| v.is_finite()),
        Layer::Rule { at, .. } => at.is_finite(),
    }
}

/// The smallest distance between two bars of any layer, in data units.
pub(crate) fn bar_spacing(plot: &Plot) -> f64 {
    let mut places: Vec<f64> = plot
        .layers
        .iter()
        .filter_map(|l| if let Layer::Bars { x, .. } = l { Some(x) } else { None })
        .flatten()
        .filter_map(|&x| coordinate(plot.x.scale, x))
        .collect();
    places.sort_by(f64::total_cmp);
    let size = places.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    places.dedup_by(|a, b| (*a - *b).abs() <= size * 1e-9);
    places.windows(2).map(|w| w[1] - w[0]).reduce(f64::min).unwrap_or(1.0)
}

/// The range of both axes.
pub(crate) fn spans(plot: &Plot) -> (Span, Span) {
    let (mut x, mut y) = (Extent::default(), Extent::default());
    let (xs, ys) = (plot.x.scale, plot.y.scale);
    let mut footed = false;
    // Only points that can be drawn count: both of their coordinates need a place.
    let both = |a: f64, b: f64| coordinate(xs, a).is_some() && coordinate(ys, b).is_some();
    for layer in &plot.layers {
        match layer {
            Layer::Line { x: px, y: py, band, .. } => {
                for (&a, &b) in px.iter().zip(py).filter(|(a, b)| both(**a, **b)) {
                    x.add(xs, a);
                    y.add(ys, b);
                }
                if let Some((low, high)) = band {
                    for ((&a, &l), &h) in px.iter().zip(low).zip(high) {
                        if coordinate(xs, a).is_some() {
                            y.add(ys, l);
                            y.add(ys, h);
                        }
                    }
                }
            }
            Layer::Points { x: px, y: py, .. } => {
                for (&a, &b) in px.iter().zip(py).filter(|(a, b)| both(**a, **b)) {
                    x.add(xs, a);
                    y.add(ys, b);
                }
            }
            Layer::Bars { x: px, y: py, .. } | Layer::Stems { x: px, y: py, .. } => {
                footed = true;
                for (&a, &b) in px.iter().zip(py).filter(|(a, b)| both(**a, **b)) {
                    x.add(xs, a);
                    y.add(ys, b);
                }
                if let Layer::Bars { error: Some(error), .. } = layer {
                    for (&b, &e) in py.iter().zip(error).filter(|(_, e)| e.is_finite()) {
                        y.add(ys, b - e);
                        y.add(ys, b + e);
                    }
                }
                if ys == Scale::Linear {
                    y.add(ys, 0.0);
                }
            }
            Layer::Segments { ends, .. } => {
                for &[a, b, c, d] in ends.iter().filter(|e| both(e[0], e[1]) && both(e[2], e[3])) {
                    [a, c].into_iter().for_each(|v| x.add(xs, v));
                    [b, d].into_iter().for_each(|v| y.add(ys, v));
                }
            }
            Layer::Rule { vertical, at, .. } => {
                if *vertical {
                    x.add(xs, *at)
                } else {
                    y.add(ys, *at)
                }
            }
        }
    }
    let has_bars = plot.layers.iter().any(|l| matches!(l, Layer::Bars { .. }));
    if !plot.x.categories.is_empty() && xs == Scale::Linear {
        x = Extent(Some((-0.55, plot.x.categories.len() as f64 - 0.45)));
    } else if has_bars && let Some((low, high)) = x.0 {
        let half = bar_spacing(plot) * 0.55;
        x = Extent(Some((low - half, high + half)));
    }
    let x_padding = if !plot.x.categories.is_empty() || has_bars { 0.0 } else { 0.025 };
    let floor = (footed && ys == Scale::Linear).then_some(0.0);
    let mut y_span = Span::of(&plot.y, y, 0.06, floor);
    if let (Scale::Linear, None, Some((low, high))) = (ys, plot.y.limits, y.0) {
        // Widening must not show values of a sign that the data do not have: zero is the end then.
        if low >= 0.0 && y_span.low < 0.0 && high > 0.0 {
            y_span.low = 0.0;
        } else if high <= 0.0 && y_span.high > 0.0 && low < 0.0 {
            y_span.high = 0.0;
        }
    }
    (Span::of(&plot.x, x, x_padding, None), y_span)
}

/// Whether all values along (x, y) are whole numbers, so that numbers between them would mean nothing: passes, counts.
fn are_whole(plot: &Plot) -> (bool, bool) {
    let whole = |values: &[f64]| values.iter().all(|v| !v.is_finite() || v.fract() == 0.0);
    plot.layers.iter().fold((true, true), |(along_x, along_y), layer| match layer {
        Layer::Line { x, y, band, .. } => {
            let banded = band.as_ref().is_none_or(|(low, high)| whole(low) && whole(high));
            (along_x && whole(x), along_y && whole(y) && banded)
        }
        Layer::Bars { x, y, error, .. } => {
            (along_x && whole(x), along_y && whole(y) && error.as_ref().is_none_or(|e| whole(e)))
        }
        Layer::Points { x, y, .. } | Layer::Stems { x, y, .. } => (along_x && whole(x), along_y && whole(y)),
        Layer::Segments { ends, .. } => {
            ends.iter().fold((along_x, along_y), |(x, y), e| (x && whole(&[e[0], e[2]]), y && whole(&[e[1], e[3]])))
        }
        Layer::Rule { vertical: true, at, .. } => (along_x && whole(&[*at]), along_y),
        Layer::Rule { at, .. } => (along_x, along_y && whole(&[*at])),
    })
}

/// The widest and the narrowest body of a plot with equal aspect.
const NARROW: f64 = 0.5;
const WIDE: f64 = 2.5;

/// Whether one unit can be equally long on both axes: a range a hundred times the other would leave a line to see.
pub(crate) fn is_equal(plot: &Plot, x: Span, y: Span) -> bool {
    let linear = x.scale == Scale::Linear && y.scale == Scale::Linear;
    plot.equal_aspect && linear && (0.01..=100.0).contains(&(x.length() / y.length()))
}

impl<'a> Fitted<'a> {
    pub(crate) fn new(plot: &'a Plot, mut room: Room, known: &mut Known<'a>) -> Self {
        let (mut x, mut y) = spans(plot);
        room.whole = are_whole(plot);
        if is_equal(plot, x, y) {
            // A body too long either way is widened instead, so that the unit stays equal.
            let aspect = x.length() / y.length();
            if aspect < NARROW {
                x = x.stretched(NARROW / aspect);
            } else if aspect > WIDE {
                y = y.stretched(aspect / WIDE);
            }
            room.aspect = Some(aspect.clamp(NARROW, WIDE));
        }
        let looks = looks(plot, known);
        let axes = Axes::fit((&plot.x, &plot.y), x, y, room);
        let legend = Legend::new(entries(plot, &looks), (room.width - axes.left).max(80.0));
        Self { plot, looks, axes, legend }
    }

    /// Draws everything but the legend around `body`.
    pub(crate) fn draw(&self, canvas: &mut Canvas, body: Frame) {
        let names_below = !self.plot.x.categories.is_empty();
        let pen = Pen { axes: &self.axes, body };
        self.axes.draw_grid(canvas, body, !names_below);
        if self.axes.y.scale == Scale::Linear && self.axes.y.low < 0.0 && self.axes.y.high > 0.0 {
            let y = pen.y(0.0).unwrap_or(body.bottom());
            canvas.line((body.x, y), (body.right(), y), stroke(Ink::Axis, 1.0));
        }
        canvas.clipped(body, |canvas| {
            for (i, layer) in self.plot.layers.iter().enumerate() {
                self.layer(canvas, &pen, i, layer);
            }
        });
        self.axes.draw(canvas, body);
        if !self.plot.layers.iter().any(has_data) {
            let kind = Type::new(13.0, Ink::Muted).anchored(Anchor::Middle).haloed();
            canvas.text((body.x + body.w / 2.0, body.y + body.h / 2.0 + 4.5), "no finite values", kind);
        }
        // Marks on the very edge are drawn whole, on top of the axes.
        for (i, layer) in self.plot.layers.iter().enumerate() {
            self.marks(canvas, &pen, i, layer);
        }
    }

    fn layer(&self, canvas: &mut Canvas, pen: &Pen, index: usize, layer: &Layer) {
        let look = self.looks[index];
        match layer {
            Layer::Line { x, y, band, .. } => {
                if let Some((low, high)) = band {
                    canvas.path(&pen.band(x, low, high), format!("{} fill-opacity=\"0.16\"", fill(look.ink)));
                }
                // Noise of thousands of points is a band, not a line: thinner strokes let its inside be seen.
                let width = if x.len() > 2_000 { 1.2 } else { 2.0 };
                let paint = format!("{}{}{ROUND}", stroke(look.ink, width), look.dash);
                let runs = pen.runs(x, y);
                canvas.path(&path_of(&runs), paint);
                for run in runs.iter().filter(|r| r.len() == 1) {
                    // A lone point between gaps has no line to be seen by.
                    canvas.circle(run[0], 2.0, fill(look.ink));
                }
            }
            Layer::Bars { x, y, error, .. } => self.bars(canvas, pen, index, (x, y, error.as_deref())),
            Layer::Stems { x, y, .. } => self.stems(canvas, pen, index, (x, y)),
            Layer::Segments { ends, arrows, opacity, .. } => segments(canvas, pen, look, (ends, *arrows, opacity)),
            Layer::Rule { vertical, at, .. } => {
                let body = pen.body;
                let paint = format!("{}{}", stroke(look.ink, 1.5), look.dash);
                if *vertical {
                    if let Some(x) = pen.x(*at) {
                        canvas.line((x, body.y), (x, body.bottom()), paint);
                    }
                } else if let Some(y) = pen.y(*at) {
                    canvas.line((body.x, y), (body.right(), y), paint);
                }
            }
            Layer::Points { x, y, radius, .. } => {
                let points: Vec<_> = pen.points(x, y).into_iter().filter(|&p| pen.sees(p)).collect();
                if points.len() > RINGED {
                    cloud(canvas, points, *radius, look);
                }
            }
        }
    }

    fn marks(&self, canvas: &mut Canvas, pen: &Pen, index: usize, layer: &Layer) {
        let look = self.looks[index];
        match layer {
            Layer::Line { x, y, marks: true, .. } => {
                let points: Vec<_> = pen.points(x, y).into_iter().filter(|&p| pen.sees(p)).collect();
                // Marks that would touch each other hide the line instead of showing its points.
                if points.len() as f64 * 9.0 <= pen.body.w.max(100.0) {
                    points.into_iter().for_each(|p| shape::draw(canvas, look.mark, p, 4.0, look.ink));
                }
            }
            Layer::Points { x, y, radius, .. } => {
                let points: Vec<_> = pen.points(x, y).into_iter().filter(|&p| pen.sees(p)).collect();
                if points.len() <= RINGED {
                    let radius = radius_of(*radius);
                    points.into_iter().for_each(|p| shape::draw(canvas, look.mark, p, radius + 0.75, look.ink));
                }
            }
            _ => {}
        }
    }

    fn bars(&self, canvas: &mut Canvas, pen: &Pen, index: usize, data: (&[f64], &[f64], Option<&[f64]>)) {
        let (xs, ys, error) = data;
        let is_bars = |l: &&Layer| matches!(l, Layer::Bars { .. });
        let groups = self.plot.layers.iter().filter(is_bars).count().max(1);
        let rank = self.plot.layers[..index].iter().filter(is_bars).count();
        let spacing = bar_spacing(self.plot) / self.axes.x.length() * pen.body.w;
        // Histograms of many bars touch; few bars keep a decent width.
        let share = if spacing / (groups as f64) < 4.0 { 1.0 } else { 0.78 };
        let group = (spacing * share).min(96.0 * groups as f64);
        let width = group / groups as f64;
        let gap = if width > 8.0 && groups > 1 { 1.5 } else { 0.0 };
        let foot = pen.y(0.0).map_or(pen.body.bottom(), |y| y.clamp(pen.body.y - 10.0, pen.body.bottom() + 10.0));
        let ink = self.looks[index].ink;
        for (i, (&x, &y)) in xs.iter().zip(ys).enumerate() {
            let (Some(px), Some(py)) = (pen.x(x), pen.y(y)) else { continue };
            let left = px - group / 2.0 + rank as f64 * width + gap / 2.0;
            let w = (width - gap).max(0.75);
            let radius = if w > 8.0 { 2.5f64.min((foot - py).abs() / 2.0) } else { 0.0 };
            canvas.path(&bar((left, w), foot, py.clamp(-9e3, 9e3), radius), fill(ink));
            if let Some(e) = error.and_then(|e| e.get(i)).filter(|e| e.is_finite() && **e > 0.0) {
                let middle = left + w / 2.0;
                let top = pen.y(y + e).unwrap_or(py);
                let bottom = pen.y(y - e).unwrap_or(pen.body.bottom());
                let cap = (w / 4.0).clamp(1.5, 5.0);
                let (m, t, b) = (N(middle), N(top), N(bottom));
                let (l, r) = (N(middle - cap), N(middle + cap));
                canvas.path(&format!("M{m} {t}V{b}M{l} {t}H{r}M{l} {b}H{r}"), stroke(Ink::Text, 1.4));
            }
        }
    }

    fn stems(&self, canvas: &mut Canvas, pen: &Pen, index: usize, (xs, ys): (&[f64], &[f64])) {
        let is_stems = |l: &&Layer| matches!(l, Layer::Stems { .. });
        let several = self.plot.layers.iter().filter(is_stems).count() > 1;
        let hollow = several && !self.plot.layers[..index].iter().any(|l| is_stems(&l));
        let foot = pen.y(0.0).unwrap_or(pen.body.bottom());
        let many = xs.len() > 24;
        // Of many stems the zeros are the ground, not a row of dots on it.
        let shown: Vec<(f64, f64)> = xs
            .iter()
            .zip(ys)
            .filter(|(_, y)| !(many && **y == 0.0))
            .filter_map(|(&x, &y)| Some((pen.x(x)?, pen.y(y)?)))
            .collect();
        let ink = self.looks[index].ink;
        let mut d = String::new();
        for (x, y) in thin_stems(&shown, foot) {
            write!(d, "M{} {}V{}", N(x), N(foot), N(y)).expect("writing to memory");
        }
        let crowded = shown.len() as f64 * 5.0 > pen.body.w;
        let (width, opacity) = match (hollow, crowded) {
            (true, false) => (4.0, " stroke-opacity=\"0.35\""),
            (true, true) => (2.0, " stroke-opacity=\"0.5\""),
            (false, false) => (1.6, ""),
            (false, true) => (1.0, ""),
        };
        canvas.path(&d, format!("{}{opacity}", stroke(ink, width)));
        if !crowded {
            shown.into_iter().filter(|&p| pen.sees(p)).for_each(|p| shape::stem_head(canvas, p, ink, hollow));
        }
    }
}

/// Of more than 5,000 stems, the longest up and the longest down in every half pixel.
fn thin_stems(stems: &[(f64, f64)], foot: f64) -> Vec<(f64, f64)> {
    if stems.len() <= 5_000 {
        return stems.to_vec();
    }
    let mut sorted = stems.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    sorted
        .chunk_by(|a, b| (a.0 * 2.0).floor() == (b.0 * 2.0).floor())
        .flat_map(|group| {
            let top = group.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1));
            let bottom = group.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1));
            [top.filter(|p| p.1 < foot), bottom.filter(|p| p.1 > foot)].into_iter().flatten()
        })
        .collect()
}

/// A bar with its far end rounded.
fn bar((left, width): (f64, f64), foot: f64, end: f64, radius: f64) -> String {
    let (right, down) = (left + width, if end <= foot { radius } else { -radius });
    if radius < 0.2 {
        return format!("M{} {}V{}H{}V{}z", N(left), N(foot), N(end), N(right), N(foot));
    }
    format!(
        "M{l} {f}V{}Q{l} {e} {} {e}H{}Q{r} {e} {r} {}V{f}z",
        N(end + down),
        N(left + radius),
        N(right - radius),
        N(end + down),
        l = N(left),
        r = N(right),
        f = N(foot),
        e = N(end),
    )
}

/// Up to so many points are drawn one by one with a ring around them.
const RINGED: usize = 120;

fn radius_of(radius: f64) -> f64 {
    if radius.is_finite() { radius.clamp(0.4, 12.0) } else { 3.0 }
}

/// A cloud: see-through dots, so that density shows. All dots of a path are painted at once and do not add up; hence
/// many paths, each of dots far apart in the data.
fn cloud(canvas: &mut Canvas, points: Vec<(f64, f64)>, radius: f64, look: Look) {
    let points = thin::cloud(points);
    let opacity = match points.len() {
        0..=500 => 0.75,
        501..=3000 => 0.5,
        _ => 0.35,
    };
    let radius = radius_of(radius);
    let paint = format!("{} stroke-linecap=\"round\" stroke-opacity=\"{opacity}\"", stroke(look.ink, 2.0 * radius));
    let paths = (points.len() / 4).clamp(1, 64);
    for first in 0..paths {
        let mut d = String::new();
        for &(x, y) in points.iter().skip(first).step_by(paths) {
            write!(d, "M{} {}h.01", N(tenth(x)), N(tenth(y))).expect("writing to memory");
        }
        canvas.path(&d, &paint);
    }
}

/// To a tenth of a pixel: what the eye can tell, at half the bytes.
fn tenth(at: f64) -> f64 {
    (at * 10.0).round() / 10.0
}

/// Most pieces drawn of one layer of segments.
const SEGMENT_LIMIT: usize = 8_000;

fn segments(canvas: &mut Canvas, pen: &Pen, look: Look, data: (&[[f64; 4]], bool, &[f64])) {
    let (ends, arrows, opacity) = data;
    let opacity_of = |i: usize| {
        let o = if opacity.len() == 1 { opacity[0] } else { opacity.get(i).copied().unwrap_or(1.0) };
        if o.is_finite() { o.clamp(0.0, 1.0) } else { 1.0 }
    };
    let every = ends.len().div_ceil(SEGMENT_LIMIT).max(1);
    let width = if ends.len() > 500 { 1.0 } else { 1.5 };
    // One path per twentieth of opacity instead of one element per piece, and pieces that meet as one line.
    let mut lines: Vec<(String, String)> = vec![Default::default(); 21];
    let mut last = [(f64::NAN, f64::NAN); 21];
    for (i, &[x0, y0, x1, y1]) in ends.iter().enumerate().step_by(every) {
        let (Some(x0), Some(y0), Some(x1), Some(y1)) = (pen.x(x0), pen.y(y0), pen.x(x1), pen.y(y1)) else { continue };
        let (x0, y0, x1, y1) = (tenth(x0), tenth(y0), tenth(x1), tenth(y1));
        let bin = (opacity_of(i) * 20.0).round() as usize;
        let (d, heads) = &mut lines[bin];
        if last[bin] != (x0, y0) {
            write!(d, "M{} {}", N(x0), N(y0)).expect("writing to memory");
        }
        write!(d, "L{} {}", N(x1), N(y1)).expect("writing to memory");
        last[bin] = (x1, y1);
        if arrows {
            heads.push_str(&shape::arrow_head((x0, y0), (x1, y1), 6.0));
        }
    }
    for (i, (d, heads)) in lines.into_iter().enumerate().skip(1) {
        let o = N(i as f64 / 20.0);
        canvas.path(&d, format!("{} stroke-opacity=\"{o}\" stroke-linecap=\"round\"", stroke(look.ink, width)));
        canvas.path(&heads, format!("{} fill-opacity=\"{o}\"", fill(look.ink)));
    }
}

/// From data to places on the canvas.
struct Pen<'a> {
    axes: &'a Axes,
    body: Frame,
}

impl Pen<'_> {
    fn x(&self, value: f64) -> Option<f64> {
        self.axes.x.fraction(value).map(|f| (self.body.x + f * self.body.w).clamp(-1e6, 1e6))
    }

    fn y(&self, value: f64) -> Option<f64> {
        self.axes.y.fraction(value).map(|f| (self.body.bottom() - f * self.body.h).clamp(-1e6, 1e6))
    }

    /// Whether a place lies in the body.
    fn sees(&self, (x, y): (f64, f64)) -> bool {
        let b = self.body;
        x >= b.x - 0.5 && x <= b.right() + 0.5 && y >= b.y - 0.5 && y <= b.bottom() + 0.5
    }

    fn points(&self, xs: &[f64], ys: &[f64]) -> Vec<(f64, f64)> {
        xs.iter().zip(ys).filter_map(|(&x, &y)| Some((self.x(x)?, self.y(y)?))).collect()
    }

    /// Runs of points between gaps, thinned.
    fn runs(&self, xs: &[f64], ys: &[f64]) -> Vec<Vec<(f64, f64)>> {
        let mut runs = vec![Vec::new()];
        for (&x, &y) in xs.iter().zip(ys) {
            match (self.x(x), self.y(y)) {
                (Some(x), Some(y)) => runs.last_mut().expect("never empty").push((x, y)),
                _ => runs.push(Vec::new()),
            }
        }
        runs.into_iter().filter(|r| !r.is_empty()).map(thin::line).collect()
    }

    fn band(&self, xs: &[f64], low: &[f64], high: &[f64]) -> String {
        let mut d = String::new();
        let mut run: Vec<(f64, f64, f64)> = Vec::new();
        let mut close = |run: &mut Vec<(f64, f64, f64)>| {
            if run.len() > 1 {
                let upper = thin::line(run.iter().map(|p| (p.0, p.2)).collect());
                let lower = thin::line(run.iter().map(|p| (p.0, p.1)).collect());
                d.push_str(&shape::polygon(upper.into_iter().chain(lower.into_iter().rev())));
            }
            run.clear();
        };
        for ((&x, &l), &h) in xs.iter().zip(low).zip(high) {
            match (self.x(x), self.y(l), self.y(h)) {
                (Some(x), Some(l), Some(h)) => run.push((x, l, h)),
                // On a logarithmic axis a band may reach below everything shown.
                (Some(x), None, Some(h)) if !l.is_nan() => run.push((x, self.body.bottom() + 2.0, h)),
                _ => close(&mut run),
            }
        }
        close(&mut run);
        d
    }
}

fn path_of(runs: &[Vec<(f64, f64)>]) -> String {
    let mut d = String::new();
    for run in runs.iter().filter(|r| r.len() > 1) {
        for (i, (x, y)) in run.iter().enumerate() {
            write!(d, "{}{} {}", if i == 0 { 'M' } else { 'L' }, N(*x), N(*y)).expect("writing to memory");
        }
    }
    d
}

/// The legend's entries, one a name. A lone name that only repeats the axis or the title stays out.
fn entries(plot: &Plot, looks: &[Look]) -> Vec<(Key, String)> {
    let mut entries: Vec<(Key, String)> = Vec::new();
    let first_stems = plot.layers.iter().position(|l| matches!(l, Layer::Stems { .. }));
    let stems = plot.layers.iter().filter(|l| matches!(l, Layer::Stems { .. })).count();
    for (i, (layer, look)) in plot.layers.iter().zip(looks).enumerate() {
        let name = name(layer);
        if name.trim().is_empty() || entries.iter().any(|(_, n)| n == name) {
            continue;
        }
        let ink = look.ink;
        let key = match layer {
            Layer::Line { marks, .. } => Key::Line { ink, dash: look.dash, mark: marks.then_some(look.mark) },
            Layer::Points { x, y, .. } => {
                let cloud = x.len().min(y.len()) > RINGED;
                Key::Points { ink, mark: if cloud { Shape::Circle } else { look.mark } }
            }
            Layer::Bars { .. } => Key::Bar { ink },
            Layer::Stems { .. } => Key::Stem { ink, hollow: stems > 1 && first_stems == Some(i) },
            Layer::Segments { arrows, .. } => Key::Segment { ink, arrow: *arrows },
            Layer::Rule { .. } => Key::Line { ink, dash: look.dash, mark: None },
        };
        entries.push((key, name.to_owned()));
    }
    if let [(_, only)] = entries.as_slice() {
        let same = |other: &str| other.trim().eq_ignore_ascii_case(only.trim());
        if plot.layers.len() == 1 && (same(&plot.y.label) || same(&plot.title)) {
            entries.clear();
        }
    }
    entries
}
