//! Draws Offprint's figures (SVG, PNG, terminal) and writes a run's self-contained HTML report.
//!
//! A [`Figure`] says what to show; this crate decides how it looks.
//!
//! ```
//! use offprint_core::figure::{Axis, Figure, Plot};
//!
//! let x: Vec<f64> = (1..=8).map(|i| 2f64.powi(i)).collect();
//! let error = x.iter().map(|n| n.powf(-0.5)).collect();
//! let plot = Plot::new(Axis::log("samples"), Axis::log("error")).line("Monte Carlo", x, error);
//! let figure = Figure::new("Error falls as n^-1/2", "").panel(plot);
//!
//! let svg = offprint_report::svg(&figure);
//! let png = offprint_report::png(&figure, 2.0)?;
//! println!("{}", offprint_report::terminal(&figure, 80, 20, false));
//! # assert!(svg.starts_with("<svg") && png.starts_with(b"\x89PNG"));
//! # Ok::<(), offprint_core::Error>(())
//! ```
//!
//! Every shape's light colour stands in its own attributes; the dark ones in a style sheet for screens that ask for dark
//! mode. All class names start with `op-`, and no element has an id, so that many figures can stand in one page.

mod axes;
mod graph;
mod heatmap;
mod html;
mod images;
mod layout;
mod legend;
mod motion;
mod palette;
mod plot;
mod raster;
mod shape;
mod svg;
mod terminal;
mod text;
mod thin;
mod ticks;

pub use html::html;
pub use terminal::terminal;

use layout::Setting;
use offprint_core::artifact::write_whole;
use offprint_core::{Card, Error, Figure, Report, Result};
use std::path::Path;

/// The figure as SVG with its title and caption: light, and dark where the viewer's screen asks for it.
pub fn svg(figure: &Figure) -> String {
    layout::svg(figure, Setting::Alone)
}

/// The figure as SVG to stand in a page that sets its title and caption as text.
pub fn svg_inline(figure: &Figure) -> String {
    layout::svg(figure, Setting::Inline)
}

/// As [`svg_inline`] for columns of about 400 pixels: one panel per row.
pub fn svg_narrow(figure: &Figure) -> String {
    layout::svg(figure, Setting::Narrow)
}

/// The figure as PNG on white, `scale` pixels for each of the SVG's; 2 is right for screens and print.
pub fn png(figure: &Figure, scale: f32) -> Result<Vec<u8>> {
    raster::png(&svg(figure), scale)
}

/// The frames of a moving figure as an animated PNG of at most about 2 MB; `None` if the figure has fewer than two.
pub fn animation(figure: &Figure) -> Result<Option<Vec<u8>>> {
    Ok(motion::motion(figure)?.map(|motion| motion.animation))
}

/// Writes `figures/<name>.svg` and `.png`, `.apng` of moving figures, and `report.html` into the run's `directory`.
///
/// # Errors
/// A figure's name is no stem of a file (letters, digits, `-`, `_`, `.`), or a file cannot be written.
pub fn write(report: &Report, card: &Card, directory: &Path) -> Result<()> {
    for (name, _) in &report.figures {
        if !is_stem(name) {
            return Err(Error::Paper {
                paper: report.paper.clone(),
                problem: format!("figure \"{name}\" cannot name a file: use letters, digits, \"-\", \"_\" and \".\""),
            });
        }
    }
    let motions = html::motions(report)?;
    let page = html::page(report, card, None, &motions)?;
    if !report.figures.is_empty() {
        let figures = directory.join("figures");
        std::fs::create_dir_all(&figures).map_err(|e| Error::file("create", &figures, e))?;
        for ((name, figure), motion) in report.figures.iter().zip(&motions) {
            if let Some(motion) = motion {
                write_whole(&figures.join(format!("{name}.apng")), |out| out.write_all(&motion.animation))?;
            }
            let drawn = svg(figure);
            write_whole(&figures.join(format!("{name}.svg")), |out| out.write_all(drawn.as_bytes()))?;
            let pixels = raster::png(&drawn, 2.0)?;
            write_whole(&figures.join(format!("{name}.png")), |out| out.write_all(&pixels))?;
        }
    }
    write_whole(&directory.join("report.html"), |out| out.write_all(page.as_bytes()))
}

/// Whether `name` can be the stem of a file on every system, in its own directory.
fn is_stem(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=100).contains(&name.len())
        && name.chars().all(allowed)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}
