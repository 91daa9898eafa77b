//! What people look at: a sheet of samples, the histogram of their adaptability.

use super::samples::Samples;
use candle_core::Tensor;
use offprint_core::Result;
use offprint_core::figure::{Axis, Figure, ImageGrid, Layer, Panel, Plot};
use offprint_nn::computation;

/// Bars of a histogram over H′.
const BINS: usize = 20;

/// Some samples of each class, one class a column, at most ten classes.
///
/// # Errors
/// None but those of the tensor library.
pub(super) fn sheet(samples: &Samples, classes: usize, per_class: usize) -> Result<ImageGrid> {
    let shown = classes.min(10);
    let of_class = |class: usize| {
        let numbers = samples.labels.iter().enumerate().filter(|(_, label)| **label as usize == class);
        numbers.map(|(number, _)| number).take(per_class).collect::<Vec<_>>()
    };
    let columns: Vec<Vec<usize>> = (0..shown).map(of_class).collect();
    // Whole rows only: a class that was drawn less often shortens all.
    let rows = columns.iter().map(Vec::len).min().unwrap_or(0);
    let numbers: Vec<usize> = (0..rows).flat_map(|row| columns.iter().map(move |column| column[row])).collect();
    let labels = (0..rows * shown)
        .map(|place| if place / shown.max(1) + 1 == rows { (place % shown).to_string() } else { String::new() });
    images(&samples.images, &numbers, shown, labels.collect())
}

/// The images (n, channels, height, width) with these numbers, their values stretched to the whole range together; three
/// channels as colours, of others the first as grey.
///
/// # Errors
/// None but those of the tensor library.
pub(super) fn images(all: &Tensor, numbers: &[usize], per_row: usize, labels: Vec<String>) -> Result<ImageGrid> {
    let (_, channels, height, width) = all.dims4().map_err(computation)?;
    let shown = if channels == 3 { 3 } else { 1 };
    let pixels: Vec<Vec<f32>> = numbers
        .iter()
        .map(|&number| all.get(number)?.narrow(0, 0, shown)?.permute((1, 2, 0))?.flatten_all()?.to_vec1())
        .collect::<candle_core::Result<_>>()
        .map_err(computation)?;
    let ends = pixels.iter().flatten().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), &x| (l.min(x), h.max(x)));
    let byte = |x: f32| ((x - ends.0) / (ends.1 - ends.0).max(f32::MIN_POSITIVE) * 255.0).round() as u8;
    Ok(ImageGrid {
        title: String::new(),
        height,
        width,
        channels: shown,
        per_row: per_row.max(1),
        images: pixels.into_iter().map(|image| image.into_iter().map(byte).collect()).collect(),
        labels,
    })
}

/// The shares of samples by H′, one layer of bars for each of `all` with its name, between the bounds.
pub(super) fn histogram(all: &[(&str, &[f64])], (lower, upper): (f64, f64)) -> Plot {
    let centre = |bin: usize| (bin as f64 + 0.5) / BINS as f64;
    let x = Axis::new("adaptability H′").limits(0.0, 1.0);
    let mut plot = Plot::new(x, Axis::new("share of samples"));
    for (name, values) in all {
        let mut shares = vec![0.0; BINS];
        for h in *values {
            shares[((h * BINS as f64) as usize).min(BINS - 1)] += 1.0 / values.len() as f64;
        }
        plot = plot.layer(Layer::Bars {
            name: (*name).into(),
            x: (0..BINS).map(centre).collect(),
            y: shares,
            error: None,
        });
    }
    plot.vertical("λ", lower).vertical("", upper)
}

/// A figure of one panel.
pub(super) fn alone(title: &str, caption: &str, panel: impl Into<Panel>) -> Figure {
    Figure::new(title, caption).panel(panel)
}
