//! Image grids: small images side by side, each pixel sharp.

use crate::palette::{Ink, stroke};
use crate::raster;
use crate::svg::{Anchor, Canvas, Frame, Type};
use crate::text::{self, Weight};
use offprint_core::figure::ImageGrid;

const GAP: f64 = 10.0;
const LABEL: f64 = 20.0;
/// No image is drawn larger than this.
const LARGEST: f64 = 220.0;

/// An image grid fitted to its place.
pub(crate) struct Fitted<'a> {
    grid: &'a ImageGrid,
    per_row: usize,
    cell: (f64, f64),
    pub size: (f64, f64),
}

impl<'a> Fitted<'a> {
    pub(crate) fn new(grid: &'a ImageGrid, width: f64) -> Self {
        let count = grid.images.len();
        let per_row = grid.per_row.clamp(1, count.max(1));
        let most = (width - GAP * (per_row - 1) as f64) / per_row as f64;
        let w = most.clamp(2.0, LARGEST);
        // A whole number of screen pixels for each of the image's, where there is room for some.
        let times = (w / grid.width.max(1) as f64).floor();
        let w = if times >= 1.0 { times * grid.width as f64 } else { w };
        let h = (w * grid.height.max(1) as f64 / grid.width.max(1) as f64).min(4.0 * LARGEST);
        let below = if grid.labels.iter().any(|l| !l.is_empty()) { LABEL } else { 0.0 };
        let rows = count.div_ceil(per_row);
        let size = (per_row as f64 * (w + GAP) - GAP, (rows as f64 * (h + below + GAP) - GAP).max(0.0));
        Self { grid, per_row, cell: (w, h), size }
    }

    pub(crate) fn draw(&self, canvas: &mut Canvas, x: f64, y: f64) {
        let grid = self.grid;
        let (w, h) = self.cell;
        let rows = grid.images.len().div_ceil(self.per_row);
        let pitch = (self.size.1 + GAP) / rows.max(1) as f64;
        for (i, image) in grid.images.iter().enumerate() {
            let (row, column) = (i / self.per_row, i % self.per_row);
            let frame = Frame { x: x + column as f64 * (w + GAP), y: y + row as f64 * pitch, w, h };
            raster::image(canvas, frame, (grid.width, grid.height), |px, py| {
                let at = (py * grid.width + px) * grid.channels;
                let channel = |k: usize| image.get(at + k).copied();
                match grid.channels {
                    3 => Some([channel(0)?, channel(1)?, channel(2)?]),
                    _ => Some([channel(0)?; 3]),
                }
            });
            canvas.rect(frame, 0.0, stroke(Ink::Grid, 1.0));
            if let Some(label) = grid.labels.get(i) {
                let label = text::shorten(label, 12.0, Weight::Regular, w + GAP - 4.0);
                let at = (frame.x + w / 2.0, frame.bottom() + 15.0);
                canvas.text(at, &label, Type::new(12.0, Ink::Muted).anchored(Anchor::Middle));
            }
        }
    }
}
