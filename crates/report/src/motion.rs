//! Moving figures: their frames, drawn one after another, as an animated PNG.

use crate::{layout, raster};
use offprint_core::figure::{Figure, Frame};
use offprint_core::{Error, Result};
use png::{BitDepth, BlendOp, ColorType, DisposeOp, Encoder};
use resvg::tiny_skia::Pixmap;

/// Most bytes of an animation: beyond this frames are left out.
const MOST: usize = 2 << 20;
/// Frames a second, while there are many; few frames stand longer.
const RATE: u16 = 12;
/// Seconds that the last frame stands.
const REST: u16 = 2;

/// A moving figure, drawn.
pub(crate) struct Motion {
    /// All frames, as an animated PNG.
    pub animation: Vec<u8>,
    /// The last frame alone.
    pub still: Vec<u8>,
}

/// Draws the frames of `figure`; `None` if it has fewer than two.
pub(crate) fn motion(figure: &Figure) -> Result<Option<Motion>> {
    if figure.frames.len() < 2 {
        return Ok(None);
    }
    let draw = |frame: &Frame| {
        let alone = Figure::new("", "").panel(frame.panel.clone().titled(&frame.title));
        raster::pixels(&layout::svg(&alone, layout::Setting::Inline), 1.0)
    };
    let drawn: Vec<Pixmap> = figure.frames.iter().map(draw).collect::<Result<_>>()?;
    let width = drawn.iter().map(Pixmap::width).max().unwrap_or(1);
    let height = drawn.iter().map(Pixmap::height).max().unwrap_or(1);
    let mut frames: Vec<Picture> = drawn.iter().map(|pixmap| Picture::new(pixmap, width, height)).collect();
    let still = encode(&frames[frames.len() - 1..])?;
    loop {
        let animation = encode(&frames)?;
        if animation.len() <= MOST || frames.len() <= 2 {
            return Ok(Some(Motion { animation, still }));
        }
        // Every other frame, and the last in any case.
        let last = frames.len() - 1;
        let mut at = 0..;
        frames.retain(|_| at.next().is_some_and(|i: usize| i % 2 == 0 || i == last));
    }
}

/// Red, green and blue of every pixel.
struct Picture {
    width: usize,
    height: usize,
    pixels: Vec<[u8; 3]>,
}

impl Picture {
    /// The pixels of an opaque drawing, with white beyond its edges.
    fn new(pixmap: &Pixmap, width: u32, height: u32) -> Self {
        let (width, height) = (width as usize, height as usize);
        let mut pixels = vec![[255; 3]; width * height];
        let own = pixmap.width() as usize;
        for (row, source) in pixels.chunks_mut(width).zip(pixmap.pixels().chunks(own)) {
            row.iter_mut().zip(source).for_each(|(to, from)| *to = [from.red(), from.green(), from.blue()]);
        }
        Self { width, height, pixels }
    }

    /// The smallest rectangle (left, top, width, height) outside of which this picture is `before`; one pixel if there is
    /// no difference.
    fn changed(&self, before: &Self) -> (usize, usize, usize, usize) {
        let (mut left, mut right, mut top, mut bottom) = (self.width, 0, self.height, 0);
        for (i, (a, b)) in self.pixels.iter().zip(&before.pixels).enumerate() {
            if a != b {
                let (x, y) = (i % self.width, i / self.width);
                (left, right, top, bottom) = (left.min(x), right.max(x), top.min(y), bottom.max(y));
            }
        }
        if left > right { (0, 0, 1, 1) } else { (left, top, right - left + 1, bottom - top + 1) }
    }

    fn part(&self, (left, top, width, height): (usize, usize, usize, usize)) -> Vec<u8> {
        let rows = self.pixels.chunks(self.width).skip(top).take(height);
        rows.flat_map(|row| row[left..left + width].as_flattened().to_vec()).collect()
    }
}

/// One frame as a PNG, several as an animated one that repeats for ever. Each frame holds only what changed.
fn encode(frames: &[Picture]) -> Result<Vec<u8>> {
    let Some(first) = frames.first() else { return Ok(Vec::new()) };
    let problem = |e: png::EncodingError| Error::Numerical(format!("the animation cannot be written as PNG: {e}"));
    let size = |n: usize| u32::try_from(n).expect("sizes of drawn pictures");
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, size(first.width), size(first.height));
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(png::Compression::High);
    if frames.len() > 1 {
        encoder.set_animated(size(frames.len()), 0).map_err(problem)?;
        encoder.set_blend_op(BlendOp::Source).map_err(problem)?;
        encoder.set_dispose_op(DisposeOp::None).map_err(problem)?;
        // About five seconds in all for few frames.
        let rate = RATE.min((frames.len() / 5).max(2) as u16);
        encoder.set_frame_delay(1, rate).map_err(problem)?;
    }
    let mut writer = encoder.write_header().map_err(problem)?;
    writer.write_image_data(&first.part((0, 0, first.width, first.height))).map_err(problem)?;
    for (i, pair) in frames.windows(2).enumerate() {
        let changed = pair[1].changed(&pair[0]);
        if i + 2 == frames.len() {
            writer.set_frame_delay(REST, 1).map_err(problem)?;
        }
        // The position is checked against the last dimension: back to the corner first.
        writer.reset_frame_position().map_err(problem)?;
        writer.set_frame_dimension(size(changed.2), size(changed.3)).map_err(problem)?;
        writer.set_frame_position(size(changed.0), size(changed.1)).map_err(problem)?;
        writer.write_image_data(&pair[1].part(changed)).map_err(problem)?;
    }
    writer.finish().map_err(problem)?;
    Ok(bytes)
}
