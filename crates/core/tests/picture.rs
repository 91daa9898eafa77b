//! Pictures as points: orders of axes, ranges, and files that are no such pictures.

use ndarray::{Array3, Array4};
use offprint_core::{Array, Picture, Source};
use std::fs::{self, File};
use std::path::Path;

fn write(path: &Path, (width, height): (u32, u32), colour: png::ColorType, bytes: &[u8]) {
    let mut encoder = png::Encoder::new(File::create(path).unwrap(), width, height);
    encoder.set_color(colour);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header().unwrap().write_image_data(bytes).unwrap();
}

fn source(path: impl AsRef<Path>) -> Source {
    path.as_ref().to_str().unwrap().parse().unwrap()
}

#[test]
fn folders_of_png_files_are_points_in_the_order_of_names() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("b.png"), (2, 1), png::ColorType::Rgb, &[0, 51, 255, 255, 102, 0]);
    write(&folder.path().join("a.PNG"), (2, 1), png::ColorType::Rgb, &[0; 6]);
    fs::write(folder.path().join("notes.txt"), "no picture").unwrap();
    let points = source(folder.path()).points().unwrap();
    assert_eq!(points.picture, Some(Picture { channels: 3, height: 1, width: 2 }));
    assert!(points.values.row(0).iter().all(|&v| v == -1.0));
    // Red of both pixels, then green, then blue.
    let expected = [-1.0, 1.0, -0.6, -0.2, 1.0, -1.0];
    assert!(points.values.row(1).iter().zip(expected).all(|(v, e)| (v - e).abs() < 1e-12));
    let unit = source(format!("{}:unit", folder.path().display())).points().unwrap();
    assert!(unit.values.row(1).iter().zip(expected).all(|(v, e)| (v - (e + 1.0) / 2.0).abs() < 1e-12));
}

#[test]
fn files_that_do_not_fit_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let message = || source(folder.path()).points().unwrap_err().to_string();
    assert!(message().contains("without .png files"), "{}", message());
    write(&folder.path().join("a.png"), (2, 2), png::ColorType::Grayscale, &[0; 4]);
    write(&folder.path().join("b.png"), (3, 2), png::ColorType::Grayscale, &[0; 6]);
    assert!(message().contains("b.png") && message().contains("2 × 3") && message().contains("2 × 2"), "{}", message());
    write(&folder.path().join("b.png"), (2, 2), png::ColorType::Rgba, &[0; 16]);
    assert!(message().contains("b.png") && message().contains("transparency"), "{}", message());
    let whole = fs::read(folder.path().join("a.png")).unwrap();
    fs::write(folder.path().join("b.png"), &whole[..whole.len() / 2]).unwrap();
    assert!(message().contains("b.png") && message().contains("not a readable PNG"), "{}", message());
    let other = source(format!("{}:grey", folder.path().display()));
    assert!(other.points().unwrap_err().to_string().contains("FOLDER:unit"));
}

#[test]
fn arrays_of_images_have_channels_first_or_last() {
    let grey = Source::from(Array::from(Array3::from_shape_fn((2, 3, 4), |(i, j, k)| (i * 12 + j * 4 + k) as f64)));
    let points = grey.points().unwrap();
    assert_eq!(points.picture, Some(Picture { channels: 1, height: 3, width: 4 }));
    assert_eq!(points.values.row(1)[5], 17.0);
    let last = Array4::from_shape_fn((1, 4, 5, 3), |(_, i, j, c)| (c * 100 + i * 10 + j) as f64);
    let first = last.clone().permuted_axes([0, 3, 1, 2]).as_standard_layout().into_owned();
    let (last, first) = (Source::from(Array::from(last)).points(), Source::from(Array::from(first)).points());
    assert_eq!(last.as_ref().unwrap(), first.as_ref().unwrap());
    assert_eq!(last.unwrap().values[[0, 20]], 100.0);
    let odd = Source::from(Array::from(Array4::<f64>::zeros((1, 4, 5, 2))));
    assert!(odd.points().unwrap_err().to_string().contains("1 or 3 channels"));
    let nan = Source::from(Array::from(Array3::from_elem((1, 2, 2), f64::NAN)));
    assert!(nan.points().unwrap_err().to_string().contains("NaN"));
    let empty = Source::from(Array::from(Array3::<f64>::zeros((0, 2, 2))));
    assert!(empty.points().unwrap_err().to_string().contains("is empty"));
}
