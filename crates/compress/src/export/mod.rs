//! Compressed networks as directories, in the formats that other programs read, and back.
//!
//! A directory holds `config.json` and `model.safetensors` (or `model.gguf`). Layers that were not compressed, biases and
//! norms keep their names and precision. No format ever rounds a weight again: what a format cannot hold exactly is
//! refused, with the reason. [`load`] reads every format back to the same weights, bit for bit.

mod bsr;
mod compressed_tensors;
mod gguf;
mod gptq;
mod native;
mod stored;

pub use gguf::{GgufType, read as read_gguf};
pub use stored::{Stored, Tensors, size};

use crate::layer::{matrix, tensor};
use crate::packed::{Packed, Pattern, Values};
use candle_core::{DType, Tensor};
use half::f16;
use ndarray::{Array2, ArrayView2};
use offprint_core::artifact::write_whole;
use offprint_core::{Error, Result};
use offprint_nn::{Architecture, Checkpoint, LayerPlace, Network, computation};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use stored::Reader;

/// A file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Weights as floats under their own names: a model that any program reads, with no byte saved
    Fake,
    /// A byte a code: `X.weight_q` with `X.weight_scale` and `X.weight_zero`, and `quant.json`
    Plain,
    /// Codes packed to their bits, pruned ones left out: the smallest
    Packed,
    /// `pack-quantized` of compressed-tensors, as vLLM and transformers read it
    CompressedTensors,
    /// `sparse-24-bitmask` or `sparse-bitmask` of compressed-tensors: pruned floats
    SparseBitmask,
    /// The layout of AutoGPTQ and GPTQModel
    Gptq,
    /// GGUF version 3 with types Q4_0, Q4_1, Q8_0, F16 or F32, whichever holds a layer exactly
    Gguf,
    /// Sparse rows of groups: `X.bsr_indptr`, `X.bsr_codes`, …
    Bsr,
}

/// The file of all tensors.
const WEIGHTS: &str = "model.safetensors";
/// The same in GGUF.
const GGUF: &str = "model.gguf";
/// What describes the model.
const CONFIG: &str = "config.json";
/// The word beside the tensors, and the file, that tell how layers are stored.
const QUANTIZATION: &str = "quantization";

/// How a layer of the formats of our own is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct LayerFormat {
    /// Name of the layer.
    name: String,
    /// First and last code.
    codes: (i32, i32),
    /// Columns that share a scale.
    group: usize,
    /// What is pruned.
    pattern: Option<Pattern>,
}

impl LayerFormat {
    fn of(packed: &Packed) -> Self {
        let (codes, group) = match &packed.values {
            Values::Codes { grid, .. } => (grid.codes, grid.group),
            Values::Codebook { book, .. } => ((0, book.ncols() as i32 - 1), packed.dim().1),
            Values::Floats(_) => ((0, 0), packed.dim().1),
        };
        Self { name: packed.name.clone(), codes, group, pattern: packed.mask.as_ref().map(|mask| mask.pattern) }
    }
}

/// The tensors of one layer in `format`; not for GGUF, whose types are no tensors.
///
/// # Errors
/// A layer that the format cannot hold exactly.
pub fn layer_tensors(packed: &Packed, format: Format) -> Result<Tensors> {
    packed.check()?;
    match format {
        Format::Fake => {
            let weight = packed.dequant();
            let stored = Stored::f32(&packed.shape, weight.iter().copied());
            Ok(Tensors::from([(format!("{}.weight", packed.name), stored)]))
        }
        Format::Plain => native::plain(packed),
        Format::Packed => native::tight(packed),
        Format::CompressedTensors => compressed_tensors::quantised(packed),
        Format::SparseBitmask => compressed_tensors::sparse(packed),
        Format::Gptq => gptq::encode(packed),
        Format::Bsr => bsr::encode(packed),
        Format::Gguf => Err(Error::parameter("format", "gguf", "a format of named tensors")),
    }
}

/// Bytes of `layers` in the tightest format of our own, scales, zeros and masks included.
///
/// # Errors
/// Layers that are no layers, as [`Packed::check`].
pub fn packed_bytes(layers: &[Packed]) -> Result<u64> {
    layers.iter().map(|packed| Ok(size(&layer_tensors(packed, Format::Packed)?))).sum()
}

/// Bytes of a whole network in which `layers` are compressed and everything else is in single precision.
///
/// # Errors
/// As [`packed_bytes`].
pub fn network_bytes(network: &Network, layers: &[Packed]) -> Result<u64> {
    Ok(packed_bytes(layers)? + size(&others(network, layers)?))
}

/// Writes `network`, in which `layers` are compressed, to `directory`, and gives the bytes of its tensors.
///
/// # Errors
/// Layers that the format cannot hold exactly; files that cannot be written.
pub fn export(network: &Network, layers: &[Packed], format: Format, directory: &Path) -> Result<u64> {
    std::fs::create_dir_all(directory).map_err(|e| Error::file("create", directory, e))?;
    let mut config = serde_json::to_value(network.architecture()).map_err(|e| Error::Numerical(e.to_string()))?;
    if matches!(network.architecture(), Architecture::Llama(_)) {
        config["model_type"] = json!("llama");
    }
    let places = network.layers()?;
    match format {
        Format::CompressedTensors => {
            config["quantization_config"] = compressed_tensors::quantised_config(layers, &places);
        }
        Format::SparseBitmask => config["sparsity_config"] = compressed_tensors::sparse_config(layers, &places),
        Format::Gptq => config["quantization_config"] = gptq::config(layers)?,
        _ => {}
    }
    let mut tensors = others(network, layers)?;
    let bytes = if format == Format::Gguf {
        layers.iter().try_for_each(Packed::check)?;
        let bytes = gguf::encode(&tensors, layers)?;
        write_whole(&directory.join(GGUF), |out| out.write_all(&bytes))?;
        bytes.len() as u64
    } else {
        for packed in layers {
            tensors.extend(layer_tensors(packed, format)?);
        }
        let formats: Vec<LayerFormat> = layers.iter().map(LayerFormat::of).collect();
        let text = serde_json::to_string_pretty(&formats).map_err(|e| Error::Numerical(e.to_string()))?;
        let mut words = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        if matches!(format, Format::Plain | Format::Packed | Format::Bsr) {
            words.insert(QUANTIZATION.into(), text.clone());
            write_whole(&directory.join("quant.json"), |out| writeln!(out, "{text}"))?;
        }
        stored::write(&directory.join(WEIGHTS), &tensors, &words)?;
        size(&tensors)
    };
    let text = serde_json::to_string_pretty(&config).map_err(|e| Error::Numerical(e.to_string()))?;
    write_whole(&directory.join(CONFIG), |out| writeln!(out, "{text}"))?;
    Ok(bytes)
}

/// A network that was exported, and its compressed layers as they were read.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The network, with the weights that the layers stand for.
    pub network: Network,
    /// The layers that are stored in another form than floats.
    pub layers: Vec<Packed>,
}

/// Reads a directory in any of the formats, compressed or not.
///
/// # Errors
/// Files that cannot be read or do not describe a model; tensors that are missing, of another type or shape, or hold what
/// the format does not know, by name.
pub fn load(directory: &Path) -> Result<Loaded> {
    let path = directory.join(CONFIG);
    let text = std::fs::read_to_string(&path).map_err(|e| Error::file("read", &path, e))?;
    let architecture = Architecture::from_json(&text, &path.display().to_string())?;
    let config: Value =
        serde_json::from_str(&text).map_err(|e| Error::input(path.display().to_string(), e.to_string()))?;
    let empty = Network::fresh(&architecture, 0, DType::F32)?;
    let places = empty.layers()?;
    let (floats, layers) = if directory.join(GGUF).is_file() {
        gguf::load(&directory.join(GGUF), &places)?
    } else {
        let checkpoint = Checkpoint::open(directory)?;
        let layers = stored_layers(&checkpoint, &config, &places)?;
        let mut floats = Vec::new();
        for name in checkpoint.names() {
            let ours = empty.params().get(name).is_some();
            if ours {
                floats.push((name.to_owned(), checkpoint.tensor(name, DType::F32)?));
            }
        }
        (floats, layers)
    };
    let mut tensors: Vec<(String, Tensor)> = floats;
    for packed in &layers {
        packed.check()?;
        tensors.push((format!("{}.weight", packed.name), tensor(packed.dequant().view(), &packed.shape)?));
    }
    for (name, tensor) in &tensors {
        let sum = tensor.abs().and_then(|t| t.sum_all()?.to_scalar::<f32>()).map_err(computation)?;
        if !sum.is_finite() {
            let problem = format!("tensor \"{name}\" holds values that are not finite");
            return Err(Error::input(directory.display().to_string(), problem));
        }
    }
    Ok(Loaded { network: Network::with_tensors(&architecture, &tensors, DType::F32)?, layers })
}

/// The layers that `checkpoint` stores in one of the formats, by the names of their tensors.
fn stored_layers(checkpoint: &Checkpoint, config: &Value, places: &[LayerPlace]) -> Result<Vec<Packed>> {
    let reader = Reader(checkpoint);
    let formats: Vec<LayerFormat> = match checkpoint.word(QUANTIZATION) {
        Some(text) => serde_json::from_str(text)
            .map_err(|e| Error::input(checkpoint.origin(), format!("its \"{QUANTIZATION}\" cannot be read: {e}")))?,
        None => Vec::new(),
    };
    let mut layers = Vec::new();
    for place in places {
        let has = |ending: &str| reader.has(&format!("{}.{ending}", place.name));
        if let Some(format) = formats.iter().find(|format| format.name == place.name) {
            layers.push(if has("bsr_indptr") {
                bsr::decode(&reader, place, format)?
            } else if has("weight_mask") || has("weight_codes") || has("weight_q") {
                native::decode(&reader, place, format)?
            } else {
                continue;
            });
        } else if has("weight_packed") {
            layers.push(compressed_tensors::decode_quantised(&reader, place, config)?);
        } else if has("bitmask") {
            layers.push(compressed_tensors::decode_sparse(&reader, place)?);
        } else if has("qweight") {
            layers.push(gptq::decode(&reader, place, config)?);
        }
    }
    Ok(layers)
}

/// Everything in `network` but the weights of `layers`.
fn others(network: &Network, layers: &[Packed]) -> Result<Tensors> {
    let params = network.params();
    let mut tensors = Tensors::new();
    for param in params.trained().iter().chain(params.buffers()) {
        let compressed = layers.iter().any(|packed| param.name.strip_suffix(".weight") == Some(packed.name.as_str()));
        if !compressed {
            let values = matrix(param.var.as_tensor())?;
            tensors.insert(param.name.clone(), Stored::f32(param.var.dims(), values));
        }
    }
    Ok(tensors)
}

/// The scales in half precision, or an error about `name` if that changes one.
fn exact_half(name: &str, format: &str, values: &Array2<f32>) -> Result<Vec<f16>> {
    let half: Vec<f16> = values.iter().map(|&x| f16::from_f32(x)).collect();
    match half.iter().zip(values).find(|(half, x)| half.to_f32() != **x) {
        None => Ok(half),
        Some((half, x)) => Err(Error::input(
            format!("layer \"{name}\""),
            format!(
                "{format} stores scales in half precision, which would make {half} of {x}; compress with half scales"
            ),
        )),
    }
}

/// Zeros as whole numbers counted from the first code, or an error about `name`.
fn whole_zeros(name: &str, format: &str, grid: &crate::quantiser::Grid) -> Result<Vec<u8>> {
    let last = (grid.codes.1 - grid.codes.0) as f32;
    let whole = grid.zeros.iter().map(|&zero| {
        let zero = zero - grid.codes.0 as f32;
        if zero.fract() == 0.0 && (0.0..=last).contains(&zero) {
            return Ok(zero as u8);
        }
        let problem = format!("{format} stores zeros as codes, but one is {zero}; compress with zeros that are codes");
        Err(Error::input(format!("layer \"{name}\""), problem))
    });
    whole.collect()
}

/// Codes and grid of a layer that keeps all weights.
fn dense_codes<'a>(packed: &'a Packed, format: &str) -> Result<(&'a Array2<u8>, &'a crate::quantiser::Grid)> {
    let bad = |problem: &str| Err(Error::input(format!("layer \"{}\"", packed.name), format!("{format} {problem}")));
    match (&packed.values, &packed.mask) {
        (Values::Codes { codes, grid }, None) => Ok((codes, grid)),
        (Values::Codes { .. }, Some(_)) => bad("has no place for a mask beside codes"),
        (Values::Codebook { .. }, _) => bad("stores scales and zeros, not tables of levels"),
        (Values::Floats(_), _) => bad("stores codes, but the layer holds floats"),
    }
}

/// Bits of a mask, row by row, each row begun with a new byte, the first column in the lowest bit.
fn bitmask(keep: ArrayView2<'_, bool>) -> Vec<u8> {
    keep.rows().into_iter().flat_map(|row| crate::bits::pack(row.iter().map(|&keep| u8::from(keep)), 1)).collect()
}

/// A mask (rows, columns) from its bits.
fn from_bitmask(bytes: &[u8], rows: usize, columns: usize) -> Option<Array2<bool>> {
    let width = columns.div_ceil(8);
    if bytes.len() != rows * width {
        return None;
    }
    Some(Array2::from_shape_fn((rows, columns), |(i, j)| bytes[i * width + j / 8] >> (j % 8) & 1 == 1))
}

/// Numbers as a matrix, or an error about the tensor.
fn shaped<T>(reader: &Reader<'_>, name: &str, shape: (usize, usize), values: Vec<T>) -> Result<Array2<T>> {
    let count = values.len();
    Array2::from_shape_vec(shape, values)
        .map_err(|_| reader.bad(name, format!("holds {count} numbers, but {} × {} are needed", shape.0, shape.1)))
}
