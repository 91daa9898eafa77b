//! The figure as a whole: panels in a grid, with titles above and the caption below.

use crate::axes::Room;
use crate::palette::{self, Ink, fill};
use crate::svg::{Canvas, Frame, N, Type, escape};
use crate::text::{self, FAMILY, Weight};
use crate::{graph, heatmap, images, plot};
use offprint_core::figure::{Figure, Panel};

const MARGIN: f64 = 16.0;
const COLUMN_GAP: f64 = 26.0;
const ROW_GAP: f64 = 24.0;
const TITLE: f64 = 17.0;
const PANEL_TITLE: f64 = 14.0;
const CAPTION: f64 = 13.0;

/// Where a figure will stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setting {
    /// A file of its own, with title and caption.
    Alone,
    /// In a page that sets title and caption itself.
    Inline,
    /// In a page on a telephone: one panel per row.
    Narrow,
}

/// A panel that knows its size.
enum Fitted<'a> {
    Plot(plot::Fitted<'a>),
    HeatMap(heatmap::Fitted<'a>),
    Images(images::Fitted<'a>),
    Graph(graph::Fitted<'a>),
}

/// A panel's room around its body.
#[derive(Debug, Clone, Copy, Default)]
struct Margins {
    left: f64,
    top: f64,
    bottom: f64,
}

impl<'a> Fitted<'a> {
    fn new(panel: &'a Panel, room: Room, known: &mut plot::Known<'a>) -> Self {
        match panel {
            Panel::Plot(p) => Self::Plot(plot::Fitted::new(p, room, known)),
            Panel::HeatMap(m) => Self::HeatMap(heatmap::Fitted::new(m, room)),
            Panel::Images(g) => Self::Images(images::Fitted::new(g, room.width)),
            Panel::Graph(g) => Self::Graph(graph::Fitted::new(g, room.width, room.tallest)),
        }
    }

    fn body(&self) -> (f64, f64) {
        match self {
            Self::Plot(p) => p.axes.body,
            Self::HeatMap(m) => m.axes.body,
            Self::Images(g) => g.size,
            Self::Graph(g) => g.size,
        }
    }

    fn margins(&self, titled: bool) -> Margins {
        let title = if titled { 26.0 } else { 0.0 };
        match self {
            Self::Plot(p) => {
                let legend = p.legend.height();
                let legend = if legend > 0.0 { legend + 8.0 } else { 6.0 };
                Margins { left: p.axes.left, top: title + legend, bottom: p.axes.bottom }
            }
            Self::HeatMap(m) => Margins { left: m.axes.left, top: title + 6.0, bottom: m.axes.bottom },
            Self::Images(_) | Self::Graph(_) => Margins { top: title, ..Margins::default() },
        }
    }

    /// Whether its width is set by its shape, not by the room.
    fn is_shaped(panel: &Panel) -> bool {
        match panel {
            Panel::Plot(p) => p.equal_aspect,
            Panel::HeatMap(_) | Panel::Images(_) => true,
            Panel::Graph(_) => false,
        }
    }
}

/// The figure as SVG.
pub(crate) fn svg(figure: &Figure, setting: Setting) -> String {
    let columns = match setting {
        Setting::Narrow => 1,
        _ => figure.columns.clamp(1, figure.panels.len().max(1)),
    };
    // (width of a panel, height of its body, tallest body): a natural size at which text of 12 pixels is right.
    let (cell, height, tallest) = match (setting, columns) {
        (Setting::Narrow, _) => (380.0, 240.0, 340.0),
        (_, 1) => (688.0, 320.0, 440.0),
        (_, 2) => (450.0, 270.0, 400.0),
        (_, 3) => (344.0, 220.0, 320.0),
        _ => (276.0, 180.0, 260.0),
    };
    let room = |left: f64| Room { width: cell, height, left, right: 0.0, aspect: None, tallest, whole: (false, false) };
    let mut known = plot::Known::new();
    let mut panels: Vec<Fitted> = figure.panels.iter().map(|p| Fitted::new(p, room(0.0), &mut known)).collect();
    if columns > 1 || panels.len() > 1 {
        // Fitted again with the column's common left margin, so that the bodies stand in line.
        for column in 0..columns {
            let members: Vec<usize> = (column..panels.len()).step_by(columns).collect();
            let left = members.iter().map(|&i| panels[i].margins(false).left).fold(0.0, f64::max);
            for i in members {
                panels[i] = Fitted::new(&figure.panels[i], room(left), &mut known);
            }
        }
    }
    let inner = columns as f64 * (cell + COLUMN_GAP) - COLUMN_GAP;
    let width = inner + 2.0 * MARGIN;
    let mut canvas = Canvas::default();
    let mut y = MARGIN;
    if setting == Setting::Alone {
        for line in text::wrap(&figure.title, TITLE, Weight::SemiBold, inner) {
            canvas.text((MARGIN, y + 15.0), &line, Type::new(TITLE, Ink::Text).semibold());
            y += 22.0;
        }
        y += if figure.title.trim().is_empty() { 0.0 } else { 10.0 };
    }
    for (row, (fitted, panels)) in panels.chunks(columns).zip(figure.panels.chunks(columns)).enumerate() {
        if row > 0 {
            y += ROW_GAP;
        }
        let titled = panels.iter().any(|p| !p.title().trim().is_empty());
        let margins: Vec<Margins> = fitted.iter().map(|f| f.margins(titled)).collect();
        let top = margins.iter().map(|m| m.top).fold(0.0, f64::max);
        let below = fitted.iter().zip(&margins).map(|(f, m)| f.body().1 + m.bottom).fold(0.0, f64::max);
        for (column, ((f, panel), m)) in fitted.iter().zip(panels).zip(&margins).enumerate() {
            let mut x = MARGIN + column as f64 * (cell + COLUMN_GAP);
            let (w, h) = f.body();
            if columns == 1 && Fitted::is_shaped(panel) && figure.panels.len() == 1 {
                // A square alone in a wide figure stands in its middle.
                let right = match f {
                    Fitted::Plot(p) => p.axes.right,
                    Fitted::HeatMap(p) => p.axes.right,
                    _ => 0.0,
                };
                x += ((cell - m.left - w - right) / 2.0).max(0.0);
            }
            let title = text::shorten(panel.title(), PANEL_TITLE, Weight::SemiBold, cell - m.left);
            canvas.text((x + m.left, y + 14.0), &title, Type::new(PANEL_TITLE, Ink::Text).semibold());
            let body = Frame { x: x + m.left, y: y + top, w, h };
            match f {
                Fitted::Plot(p) => {
                    p.legend.draw(&mut canvas, body.x, body.y - p.legend.height() - 8.0);
                    p.draw(&mut canvas, body);
                }
                Fitted::HeatMap(p) => p.draw(&mut canvas, body),
                Fitted::Images(p) => p.draw(&mut canvas, body.x, body.y),
                Fitted::Graph(p) => p.draw(&mut canvas, body.x, body.y),
            }
        }
        y += top + below;
    }
    if setting == Setting::Alone {
        let lines = text::wrap(&figure.caption, CAPTION, Weight::Regular, inner.min(760.0));
        y += if lines.is_empty() { 0.0 } else { 16.0 };
        for line in lines {
            canvas.text((MARGIN, y + 11.0), &line, Type::new(CAPTION, Ink::Muted));
            y += 19.0;
        }
    }
    let height = y + MARGIN;
    let (w, h, title) = (N(width), N(height), escape(&figure.title));
    let described = escape(&figure.caption);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{h}\" viewBox=\"0 0 {w} {h}\" role=\"img\" \
         aria-label=\"{title}\" font-family=\"{FAMILY}\">\n<title>{title}</title>\n<desc>{described}</desc>\n\
         <style>{}</style>\n<rect width=\"{w}\" height=\"{h}\" {}/>\n{}</svg>\n",
        palette::dark_mode(),
        fill(Ink::Background),
        canvas.into_string()
    )
}
