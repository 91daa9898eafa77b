//! Draws Offprint's figures (SVG, PNG, terminal) and writes a run's self-contained HTML report.
//!
//! A [`Figure`] says what to show; this crate decides how it looks.

mod axes;
mod graph;
mod heatmap;
mod images;
mod layout;
mod legend;
mod palette;
mod plot;
mod raster;
mod shape;
mod svg;
mod terminal;
mod text;
mod thin;
mod ticks;

pub use terminal::terminal;

use layout::Setting;
use offprint_core::{Figure, Result};

/// The figure as SVG, light, and dark where the viewer's screen asks for it.
pub fn svg(figure: &Figure) -> String {
    layout::svg(figure, Setting::Alone)
}

/// The figure as PNG on white, `scale` pixels for each of the SVG's; 2 is right for screens and print.
pub fn png(figure: &Figure, scale: f32) -> Result<Vec<u8>> {
    raster::png(&svg(figure), scale)
}
