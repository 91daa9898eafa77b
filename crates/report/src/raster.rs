//! Pixels: PNG files of whole figures, and small PNGs inside an SVG.

use crate::svg::{Canvas, Frame};
use crate::{palette::Rgb, text};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use offprint_core::{Error, Result};
use resvg::tiny_skia::{Color, ColorU8, Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb::Database};
use std::sync::{Arc, OnceLock};

/// Most pixels of a PNG: beyond this the scale is lowered.
const MOST: f32 = 60e6;

/// The SVG as a PNG on white, `scale` pixels for each of the SVG's.
pub(crate) fn png(svg: &str, scale: f32) -> Result<Vec<u8>> {
    let pixmap = pixels(svg, scale)?;
    pixmap.encode_png().map_err(|e| Error::Numerical(format!("the figure cannot be written as PNG: {e}")))
}

/// The SVG's pixels on white, `scale` of them for each of the SVG's.
pub(crate) fn pixels(svg: &str, scale: f32) -> Result<Pixmap> {
    let tree = parse(svg)?;
    let size = tree.size();
    let scale = if scale.is_finite() { scale.clamp(0.1, 16.0) } else { 1.0 };
    let scale = scale.min((MOST / (size.width() * size.height())).sqrt());
    let count = |length: f32| ((length * scale).ceil() as u32).max(1);
    let mut pixmap = Pixmap::new(count(size.width()), count(size.height()))
        .ok_or_else(|| Error::Numerical("a figure without area cannot be drawn".into()))?;
    pixmap.fill(Color::WHITE);
    resvg::render(&tree, Transform::from_scale(scale, scale), &mut pixmap.as_mut());
    Ok(pixmap)
}

/// Reads an SVG with the bundled fonts.
pub(crate) fn parse(svg: &str) -> Result<Tree> {
    static FONTS: OnceLock<Arc<Database>> = OnceLock::new();
    let fontdb = Arc::clone(FONTS.get_or_init(|| Arc::new(text::fonts())));
    let options = Options { fontdb, font_family: "Inter".into(), ..Options::default() };
    Tree::from_str(svg, &options).map_err(|e| Error::Numerical(format!("the figure is not well-formed: {e}")))
}

/// Draws `width` × `height` pixels into `frame` without smoothing; `None` is left blank.
pub(crate) fn image(
    canvas: &mut Canvas,
    frame: Frame,
    (width, height): (usize, usize),
    pixel: impl Fn(usize, usize) -> Option<Rgb>,
) {
    let size = u32::try_from(width).ok().zip(u32::try_from(height).ok());
    let Some(mut pixmap) = size.and_then(|(w, h)| Pixmap::new(w, h)) else { return };
    for (i, out) in pixmap.pixels_mut().iter_mut().enumerate() {
        if let Some([r, g, b]) = pixel(i % width, i / width) {
            *out = ColorU8::from_rgba(r, g, b, 255).premultiply();
        }
    }
    let Ok(png) = pixmap.encode_png() else { return };
    let Frame { x, y, w, h } = frame;
    canvas.raw(format_args!(
        "<image x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" preserveAspectRatio=\"none\" \
         style=\"image-rendering:pixelated\" href=\"data:image/png;base64,{}\"/>",
        crate::svg::N(x),
        crate::svg::N(y),
        crate::svg::N(w),
        crate::svg::N(h),
        STANDARD.encode(png)
    ));
}
