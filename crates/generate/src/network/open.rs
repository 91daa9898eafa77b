//! The model file that a user names: a network that was trained here, or one that was exported elsewhere.

use super::checkpoint::Expected;
use super::model::Network;
use super::reading::Reading;
use offprint_core::{Error, Result};
use std::path::Path;

/// Whether `file` has the ending of a model: `.safetensors` or `.onnx`.
pub fn is_model(file: &Path) -> bool {
    matches!(ending(file).as_str(), "safetensors" | "onnx")
}

fn ending(file: &Path) -> String {
    file.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).unwrap_or_default()
}

/// Reads the model in `file`: `.safetensors` as [`Network::save`] writes it, perceptron or U-Net, whose words say what
/// it means; `.onnx` (with the feature `onnx`), whose meaning `reading` tells, or the file's own metadata under the key
/// `offprint`.
///
/// # Errors
/// A file that cannot be read or is no such model, one that contradicts what is `expected`, a `reading` for a file that
/// needs none, an `.onnx` file in a program without the feature.
pub fn open(file: &Path, reading: Option<&Reading>, expected: &Expected) -> Result<Network> {
    if ending(file) == "onnx" {
        let network = exported(file, reading)?;
        expected.meets(&network, &file.display().to_string())?;
        return Ok(network);
    }
    match reading {
        Some(reading) => Err(Error::parameter("onnx", reading, "left out: only .onnx models need to be explained")),
        None => Network::load(file, expected),
    }
}

#[cfg(feature = "onnx")]
fn exported(file: &Path, reading: Option<&Reading>) -> Result<Network> {
    super::onnx::read(file, reading)
}

#[cfg(not(feature = "onnx"))]
fn exported(file: &Path, _: Option<&Reading>) -> Result<Network> {
    let problem = "is an ONNX model, which this program was built without; build it with `--features onnx`";
    Err(Error::input(file.display().to_string(), problem))
}
