//! Heat maps: a matrix by colour, with its colour bar.

use crate::axes::{Axes, Extent, Room, Span, coordinate};
use crate::palette::{self, Ink, Rgb, stroke};
use crate::raster;
use crate::svg::{Anchor, Canvas, Frame, Type};
use crate::text::{self, Weight};
use crate::ticks::{self, Ticks};
use offprint_core::figure::{Axis, HeatMap, Palette, Scale};
use std::borrow::Cow;

/// Up to so many cells are rectangles, sharp at any size, with their values written in where they fit.
const FEW: usize = 400;
/// Matrices with more rows or columns than this are averaged down to it: screens show no more.
const MOST: usize = 1_000;
const BAR: f64 = 13.0;

/// A heat map fitted to its place.
pub(crate) struct Fitted<'a> {
    map: &'a HeatMap,
    pub axes: Axes,
    colours: Span,
    bar_ticks: Ticks,
    bar_title: String,
}

/// The range of the colours.
pub(crate) fn colours(map: &HeatMap) -> Span {
    let mut extent = Extent::default();
    map.values.iter().for_each(|&v| extent.add(map.colour.scale, v));
    let span = Span::of(&map.colour, extent, 0.0, None);
    if map.palette == Palette::Diverging && map.colour.scale == Scale::Linear {
        let end = span.low.abs().max(span.high.abs());
        return Span { low: -end, high: end, ..span };
    }
    span
}

/// The places of the outer edges: as given, or the indices of rows and columns.
pub(crate) fn spans(map: &HeatMap) -> (Span, Span) {
    let x = Extent(Some((-0.5, map.columns.max(1) as f64 - 0.5)));
    let x = Span::of(&index_axis(&map.x), x, 0.0, None);
    let given = map.y.limits.is_some();
    let y = Extent(Some((-0.5, map.rows.max(1) as f64 - 0.5)));
    let y = Span::of(&index_axis(&map.y), y, 0.0, None);
    // Without limits the first row, at the top, is row 0.
    (x, if given { y } else { Span { low: y.high, high: y.low, ..y } })
}

/// Without limits an axis counts cells, which a logarithm cannot start from.
fn index_axis(axis: &Axis) -> Cow<'_, Axis> {
    if axis.limits.is_none() && axis.scale == Scale::Log {
        Cow::Owned(Axis { scale: Scale::Linear, ..axis.clone() })
    } else {
        Cow::Borrowed(axis)
    }
}

impl<'a> Fitted<'a> {
    pub(crate) fn new(map: &'a HeatMap, mut room: Room) -> Self {
        let colours = colours(map);
        let bar_ticks = colours.ticks((room.height / 55.0).clamp(2.0, 8.0) as usize, false);
        let numbers = bar_ticks.major.iter().map(|(_, l)| text::width(l, 12.0, Weight::Regular)).fold(0.0, f64::max);
        let bar_title = text::shorten(&map.colour.title(), 13.0, Weight::Regular, room.height);
        let title = if bar_title.is_empty() { 4.0 } else { 24.0 };
        room.right = 16.0 + BAR + 6.0 + numbers + title;
        room.whole = (map.x.limits.is_none(), map.y.limits.is_none());
        let ratio = map.columns.max(1) as f64 / map.rows.max(1) as f64;
        // Matrices have square cells; long ones (spectrograms, rasters) fill the panel.
        room.aspect = (0.4..=2.5).contains(&ratio).then_some(ratio);
        let (x, y) = spans(map);
        let axes = Axes::fit((&index_axis(&map.x), &index_axis(&map.y)), x, y, room);
        let bar_ticks = colours.ticks((axes.body.1 / 55.0).clamp(2.0, 8.0) as usize, false);
        Self { map, axes, colours, bar_ticks, bar_title }
    }

    pub(crate) fn draw(&self, canvas: &mut Canvas, body: Frame) {
        let map = self.map;
        let (rows, columns) = (map.rows, map.columns);
        let cells = rows.saturating_mul(columns);
        if cells > 0 && cells <= FEW {
            self.rectangles(canvas, body);
        } else if cells > 0 {
            let (w, h) = (columns.min(MOST), rows.min(MOST));
            raster::image(canvas, body, (w, h), |i, j| {
                let row = j * rows / h..((j + 1) * rows).div_ceil(h);
                let column = i * columns / w..((i + 1) * columns).div_ceil(w);
                self.colour(mean(map, row, column)?)
            });
        }
        canvas.rect(body, 0.0, stroke(Ink::Axis, 1.0));
        self.axes.draw(canvas, body);
        self.bar(canvas, body);
    }

    fn colour(&self, value: f64) -> Option<Rgb> {
        // Infinities are the ends of the scale; only what is no number, or has no logarithm, is blank.
        let value = if value.is_infinite() { value.clamp(f64::MIN, f64::MAX) } else { value };
        let c = coordinate(self.colours.scale, value)?;
        Some(palette::colour(self.map.palette, self.colours.share(c)))
    }

    fn rectangles(&self, canvas: &mut Canvas, body: Frame) {
        let map = self.map;
        let (w, h) = (body.w / map.columns as f64, body.h / map.rows as f64);
        let labels: Vec<String> = map.values.iter().map(|&v| ticks::number(v, 3)).collect();
        let fits = |l: &String| text::width(l, 12.0, Weight::Regular) + 8.0 <= w;
        let written = map.rows * map.columns <= 150 && h >= 18.0 && labels.iter().all(fits);
        for (i, &value) in map.values.iter().enumerate().take(map.rows * map.columns) {
            let (row, column) = (i / map.columns, i % map.columns);
            let Some(colour) = self.colour(value) else { continue };
            let (x, y) = (body.x + column as f64 * w, body.y + row as f64 * h);
            // Half a pixel of overlap hides the seams that smoothing leaves between neighbours.
            let overlap = |more: bool| if more { 0.5 } else { 0.0 };
            let frame = Frame { x, y, w: w + overlap(column + 1 < map.columns), h: h + overlap(row + 1 < map.rows) };
            canvas.rect(frame, 0.0, format!("fill=\"{}\"", palette::hex(colour)));
            if written {
                let ink = if palette::is_dark(colour) { "#ffffff" } else { "#1f2733" };
                canvas.raw(format_args!(
                    "<text x=\"{}\" y=\"{}\" font-size=\"12\" text-anchor=\"middle\" fill=\"{ink}\">{}</text>",
                    crate::svg::N(x + w / 2.0),
                    crate::svg::N(y + h / 2.0 + 4.2),
                    crate::svg::escape(&labels[i])
                ));
            }
        }
    }

    fn bar(&self, canvas: &mut Canvas, body: Frame) {
        let frame = Frame { x: body.right() + 16.0, y: body.y, w: BAR, h: body.h };
        let shades = 128;
        raster::image(canvas, frame, (1, shades), |_, j| {
            Some(palette::colour(self.map.palette, 1.0 - (j as f64 + 0.5) / shades as f64))
        });
        canvas.rect(frame, 0.0, stroke(Ink::Axis, 1.0));
        let mut widest = 0.0f64;
        for (place, label) in &self.bar_ticks.major {
            let y = frame.bottom() - self.colours.share(*place) * frame.h;
            canvas.line((frame.right(), y), (frame.right() + 3.0, y), stroke(Ink::Axis, 1.0));
            canvas.text((frame.right() + 6.0, y + 4.2), label, Type::new(12.0, Ink::Muted));
            widest = widest.max(text::width(label, 12.0, Weight::Regular));
        }
        let at = (frame.right() + 6.0 + widest + 18.0, body.y + body.h / 2.0);
        canvas.text(at, &self.bar_title, Type::new(13.0, Ink::Text).anchored(Anchor::Middle).turned(-90.0));
    }
}

/// The mean of the numbers in a block; `None` where there is none.
pub(crate) fn mean(map: &HeatMap, rows: std::ops::Range<usize>, columns: std::ops::Range<usize>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0.0);
    for row in rows {
        for column in columns.clone() {
            if let Some(v) = map.values.get(row * map.columns + column).filter(|v| !v.is_nan()) {
                sum += v;
                count += 1.0;
            }
        }
    }
    (count > 0.0).then(|| sum / count)
}
