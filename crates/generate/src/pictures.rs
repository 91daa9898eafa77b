//! Points as pictures in figures.

use ndarray::{ArrayView1, ArrayView2};
use offprint_core::Picture;
use offprint_core::figure::ImageGrid;

/// How points are shown as pictures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shown {
    /// How a point is a picture.
    pub picture: Picture,
    /// The value that is shown black.
    pub black: f64,
    /// The value that is shown white.
    pub white: f64,
}

impl Shown {
    /// Light on dark: the least of all `values` is black, the greatest white.
    pub fn light<'a>(picture: Picture, values: impl IntoIterator<Item = &'a f64>) -> Self {
        let ends = (f64::INFINITY, f64::NEG_INFINITY);
        let (black, white) = values.into_iter().fold(ends, |(low, high), &v| (low.min(v), high.max(v)));
        Self { picture, black, white }
    }

    /// Dark on light: the greatest of all `values`, ink, is black.
    pub fn ink<'a>(picture: Picture, values: impl IntoIterator<Item = &'a f64>) -> Self {
        let Self { black, white, .. } = Self::light(picture, values);
        Self { picture, black: white, white: black }
    }

    /// Handwritten digits as ink from 0 to 1.
    pub fn digits() -> Self {
        Self { picture: DIGIT, black: 1.0, white: 0.0 }
    }

    /// The rows of `points` (n, d) side by side, `per_row` in a row.
    pub fn grid(self, title: impl Into<String>, points: ArrayView2<'_, f64>, per_row: usize) -> ImageGrid {
        let Picture { channels, height, width } = self.picture;
        let images = points.outer_iter().map(|row| self.image(row)).collect();
        ImageGrid { title: title.into(), height, width, channels, per_row, images, labels: Vec::new() }
    }

    /// The bytes of one picture, channels last.
    fn image(self, point: ArrayView1<'_, f64>) -> Vec<u8> {
        let scale = if self.white == self.black { 0.0 } else { 255.0 / (self.white - self.black) };
        let byte = |v: f64| ((v - self.black) * scale).round().clamp(0.0, 255.0) as u8;
        let places = self.picture.height * self.picture.width;
        let channels = self.picture.channels;
        (0..places).flat_map(|place| (0..channels).map(move |c| byte(point[c * places + place]))).collect()
    }
}

/// The size of a handwritten digit.
pub const DIGIT: Picture = Picture { channels: 1, height: 8, width: 8 };

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn channels_come_last_and_ink_is_dark() {
        let picture = Picture { channels: 3, height: 1, width: 2 };
        let points = array![[-1.0, 1.0, 0.0, 1.0, 1.0, -1.0]];
        let grid = Shown::light(picture, &points).grid("", points.view(), 1);
        assert_eq!(grid.images, [[0, 128, 255, 255, 255, 0]]);
        let grey = Picture { channels: 1, height: 1, width: 2 };
        assert_eq!(Shown::ink(grey, &points).grid("", array![[1.0, -1.0]].view(), 1).images, [[0, 255]]);
        assert_eq!(Shown::light(grey, &[2.0]).grid("", array![[2.0, 2.0]].view(), 1).images, [[0, 0]]);
    }
}
