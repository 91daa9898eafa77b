//! Pictures as points: folders of PNG files and arrays of images, one picture a row.

use crate::{Error, Result, Source};
use ndarray::{Array2, ArrayD, Axis};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// How the numbers of a row are a picture: channel by channel, each row by row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Picture {
    /// 1 for grey, 3 for red, green and blue.
    pub channels: usize,
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
}

impl Picture {
    /// Numbers in a row.
    pub fn len(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// Whether it has no pixel.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Points, one a row, and how a row is a picture if it is one.
#[derive(Debug, Clone, PartialEq)]
pub struct Points {
    /// The points (n, d), all finite.
    pub values: Array2<f64>,
    /// The picture, of d numbers.
    pub picture: Option<Picture>,
}

/// Most pixels of a PNG file: more than any training set holds, fewer than would exhaust the memory.
const PIXELS: u64 = 1 << 26;

impl Source {
    /// Reads points: a matrix (n, d), images (n, height, width) or (n, height, width, channels) with 1 or 3 channels,
    /// first or last, or a folder of PNG files in the order of their names, 8 bits a channel, grey or RGB.
    ///
    /// Arrays keep their values. Those of PNG files run from −1 (black) to 1 (white), as diffusion models have them, or
    /// from 0 to 1 for `FOLDER:unit`.
    ///
    /// # Errors
    /// Those of [`Self::matrix`]; a folder without PNG files, a file that is no such picture or of another size than the
    /// first, which is named.
    pub fn points(&self) -> Result<Points> {
        if let Some((folder, unit)) = self.folder()? {
            return pictures(&folder, unit);
        }
        if self.path().is_some_and(|path| !may_hold_images(path)) {
            return Ok(Points { values: self.matrix()?, picture: None });
        }
        let array = self.array()?;
        if !matches!(array.shape().len(), 3 | 4) || array.shape().contains(&0) {
            return Ok(Points { values: Self::from(array).matrix().map_err(|e| self.named(e))?, picture: None });
        }
        let (shape, dtype) = (array.shape().to_vec(), array.dtype());
        let reals = array
            .into_f64()
            .ok_or_else(|| Error::input(self.to_string(), format!("has dtype {dtype}; real numbers are needed")))?;
        let (values, picture) = flattened(reals).ok_or_else(|| {
            let problem = format!("has shape {shape:?}; images have 1 or 3 channels, on their first or last axis");
            Error::input(self.to_string(), problem)
        })?;
        match values.indexed_iter().find(|(_, v)| !v.is_finite()) {
            Some(((row, column), &value)) => Err(self.not_finite(row, Some(column), value)),
            None => Ok(Points { values, picture: Some(picture) }),
        }
    }

    /// The folder that is meant, if it is one, and whether its values are asked for from 0 to 1.
    fn folder(&self) -> Result<Option<(PathBuf, bool)>> {
        match self {
            Self::File { path, select } if path.is_dir() => match select.as_deref() {
                None => Ok(Some((path.clone(), false))),
                Some("unit") => Ok(Some((path.clone(), true))),
                Some(_) => {
                    Err(Error::input(self.to_string(), "is a folder: FOLDER, or FOLDER:unit for values from 0 to 1"))
                }
            },
            _ => Ok(None),
        }
    }

    /// The error of the array in memory, under the name of this source.
    fn named(&self, error: Error) -> Error {
        match error {
            Error::Input { problem, .. } => Error::input(self.to_string(), problem),
            other => other,
        }
    }
}

/// Whether the file's format has arrays of three axes and more.
fn may_hold_images(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("npy") || e.eq_ignore_ascii_case("npz"))
}

/// (n, height, width), (n, height, width, channels) or (n, channels, height, width) as (n, channels · height · width).
fn flattened(images: ArrayD<f64>) -> Option<(Array2<f64>, Picture)> {
    let images = if images.ndim() == 3 { images.insert_axis(Axis(1)) } else { images };
    let is_channels = |n: usize| n == 1 || n == 3;
    let images = match images.shape() {
        [_, first, ..] if is_channels(*first) => images,
        [.., last] if is_channels(*last) => images.permuted_axes(vec![0, 3, 1, 2]),
        _ => return None,
    };
    let shape = images.shape().to_vec();
    let picture = Picture { channels: shape[1], height: shape[2], width: shape[3] };
    let values: Vec<f64> = images.iter().copied().collect();
    Some((Array2::from_shape_vec((shape[0], picture.len()), values).expect("as many as before"), picture))
}

/// All PNG files of `folder`.
fn pictures(folder: &Path, unit: bool) -> Result<Points> {
    let unreadable = |e| Error::file("read", folder, e);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("png")) {
            files.push(path);
        }
    }
    files.sort();
    let Some(first) = files.first() else {
        return Err(Error::input(folder.display().to_string(), "is a folder without .png files"));
    };
    let (mut values, mut picture) = (Vec::new(), None);
    for file in &files {
        let (found, bytes) = read_png(file)?;
        let wanted = *picture.get_or_insert(found);
        if found != wanted {
            let say = |p: Picture| format!("{} × {} with {} channels", p.height, p.width, p.channels);
            let problem = format!("is {}, but {} is {}: all must be equal", say(found), first.display(), say(wanted));
            return Err(Error::input(file.display().to_string(), problem));
        }
        // Channels last in the file, first in a point.
        for channel in 0..found.channels {
            let ink = bytes.iter().skip(channel).step_by(found.channels).map(|&byte| f64::from(byte) / 255.0);
            values.extend(ink.map(|ink| if unit { ink } else { 2.0 * ink - 1.0 }));
        }
    }
    let picture = picture.expect("there is a file");
    let values = Array2::from_shape_vec((files.len(), picture.len()), values).expect("one row a file");
    Ok(Points { values, picture: Some(picture) })
}

/// A PNG file as bytes, channels last: 8 bits a channel, grey or RGB; palettes and other depths are turned into these.
///
/// # Errors
/// A file that is no PNG, has transparency, or is larger than 2²⁶ pixels.
pub fn read_png(path: &Path) -> Result<(Picture, Vec<u8>)> {
    let bad = |problem: String| Error::input(path.display().to_string(), problem);
    let unreadable = |e: png::DecodingError| bad(format!("is not a readable PNG file: {e}"));
    let file = File::open(path).map_err(|e| Error::file("read", path, e))?;
    let mut decoder = png::Decoder::new(BufReader::new(file));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(unreadable)?;
    let (width, height) = reader.info().size();
    // A small file may unpack to a picture that fits no memory.
    if u64::from(width) * u64::from(height) > PIXELS {
        return Err(bad(format!("has {height} × {width} pixels; at most 2^26 are read")));
    }
    let channels = match reader.output_color_type().0 {
        png::ColorType::Grayscale => 1,
        png::ColorType::Rgb => 3,
        _ => return Err(bad("has transparency; grey and RGB pictures are read".into())),
    };
    let size = reader.output_buffer_size().ok_or_else(|| bad("does not fit in memory".into()))?;
    let mut bytes = vec![0; size];
    let frame = reader.next_frame(&mut bytes).map_err(unreadable)?;
    bytes.truncate(frame.buffer_size());
    Ok((Picture { channels, height: height as usize, width: width as usize }, bytes))
}
