//! A quantised network as arrays, and back.

use super::student::{Bits, Student};
use crate::bits::{pack, unpack};
use crate::packed::{Packed, Values};
use crate::quantiser::Grid;
use crate::tensor;
use candle_core::{DType, Device, Tensor};
use ndarray::{Array1, Array2, ArrayD, IxDyn};
use offprint_core::artifact::{Arrays, Metadata, read_safetensors};
use offprint_core::{Array, Error, Result};
use offprint_nn::{Architecture, Network, computation};
use std::collections::BTreeMap;
use std::path::Path;

const ARCHITECTURE: &str = "architecture";
const WEIGHT_BITS: &str = "weight_bits";
const ACTIVATION_BITS: &str = "activation_bits";

/// Endings of what stands for a weight: codes one after the other, the first in the lowest bits of the first byte; the step
/// and the code of 0 of each output channel.
const CODES: &str = ".weight_codes";
const SCALE: &str = ".weight_scale";
const ZERO: &str = ".weight_zero";
/// Ending of a rectifier's range: least, greatest.
const RANGE: &str = ".range";

/// The quantised network as named arrays, with words that tell its architecture and bits: for each layer codes in as many
/// bits as they have, scales and zeros (value = (code − zero) · scale); for each rectifier its range; biases and batch norms
/// as they are.
///
/// # Errors
/// Weights that are not finite; ranges that were never observed.
pub fn arrays(student: &Student) -> Result<(Arrays, Metadata)> {
    let bits = student.bits();
    let (mut arrays, mut coded) = (Arrays::new(), Vec::new());
    for layer in student.layers()? {
        let Values::Codes { codes, grid } = &layer.values else { continue };
        arrays.insert(format!("{}{CODES}", layer.name), pack(codes.iter().copied(), bits.weights).into());
        arrays.insert(format!("{}{SCALE}", layer.name), grid.scales.column(0).to_owned().into());
        arrays.insert(format!("{}{ZERO}", layer.name), grid.zeros.column(0).to_owned().into());
        coded.push(format!("{}.weight", layer.name));
    }
    for (name, (low, high)) in student.ranges()? {
        arrays.insert(format!("{name}{RANGE}"), vec![low as f32, high as f32].into());
    }
    for (name, values) in student.network().params().snapshot()? {
        if !coded.contains(&name) {
            arrays.insert(name, array(&values)?);
        }
    }
    let architecture = serde_json::to_string(student.network().architecture()).expect("a shape is plain data");
    let words = [
        (ARCHITECTURE.to_owned(), architecture),
        (WEIGHT_BITS.to_owned(), bits.weights.to_string()),
        (ACTIVATION_BITS.to_owned(), bits.activations.to_string()),
    ];
    Ok((arrays, words.into()))
}

/// A tensor of single precision as an array.
pub(super) fn array(tensor: &Tensor) -> Result<Array> {
    let values = tensor.flatten_all().and_then(|t| t.to_dtype(DType::F32)?.to_vec1::<f32>()).map_err(computation)?;
    let shaped = ArrayD::from_shape_vec(IxDyn(tensor.dims()), values);
    shaped.map(Into::into).map_err(|e| Error::Numerical(e.to_string()))
}

/// The quantised network in the `.safetensors` file at `path`, as [`arrays`] describes it: it computes what the one that was
/// saved computed.
///
/// # Errors
/// A file that cannot be read or is not such a one: the word or array that is missing or does not fit.
pub fn load(path: &Path) -> Result<Student> {
    let (arrays, words) = read_safetensors(path)?;
    let file = Opened { origin: path.display().to_string(), arrays };
    let word = |name: &str| words.get(name).ok_or_else(|| file.bad(format!("does not tell its {name}")));
    let bits = |name: &str| -> Result<u32> {
        let text = word(name)?;
        text.parse().map_err(|_| file.bad(format!("has \"{text}\" for its {name}, which is no number")))
    };
    let bits = Bits { weights: bits(WEIGHT_BITS)?, activations: bits(ACTIVATION_BITS)? };
    bits.check()?;
    let architecture = Architecture::from_json(word(ARCHITECTURE)?, &file.origin)?;
    let blank = Network::fresh(&architecture, 0, DType::F32)?;
    let mut tensors: BTreeMap<String, Tensor> = BTreeMap::new();
    for place in blank.layers()? {
        if file.arrays.contains_key(&format!("{}{CODES}", place.name)) {
            let layer = file.layer(&place.name, &place.shape, bits.weights)?;
            tensors.insert(place.weight, tensor(layer.dequant().view(), &place.shape)?);
        }
    }
    for param in blank.params().trained().iter().chain(blank.params().buffers()) {
        if !tensors.contains_key(&param.name) {
            let values = file.floats(&param.name, param.var.elem_count())?;
            let tensor = Tensor::from_vec(values, param.var.dims(), &Device::Cpu).map_err(computation)?;
            tensors.insert(param.name.clone(), tensor);
        }
    }
    let named: Vec<(String, Tensor)> = tensors.into_iter().collect();
    let network = Network::with_tensors(&architecture, &named, DType::F32)?;
    let ranges = file.arrays.keys().filter_map(|name| name.strip_suffix(RANGE)).map(|name| {
        let ends = file.floats(&format!("{name}{RANGE}"), 2)?;
        Ok((name.to_owned(), (f64::from(ends[0]), f64::from(ends[1]))))
    });
    Student::finished(network, bits, &ranges.collect::<Result<_>>()?)
}

/// A file under reading.
struct Opened {
    origin: String,
    arrays: Arrays,
}

impl Opened {
    fn bad(&self, problem: String) -> Error {
        Error::input(self.origin.clone(), problem)
    }

    fn array(&self, name: &str) -> Result<&Array> {
        self.arrays.get(name).ok_or_else(|| self.bad(format!("has no array \"{name}\"")))
    }

    /// `count` finite numbers of single precision.
    fn floats(&self, name: &str, count: usize) -> Result<Vec<f32>> {
        match self.array(name)? {
            Array::F32(values) if values.len() == count && values.iter().all(|x| x.is_finite()) => {
                Ok(values.iter().copied().collect())
            }
            other => {
                let (shape, dtype) = (other.shape(), other.dtype());
                Err(self.bad(format!(
                    "array \"{name}\" is {dtype} {shape:?}; {count} finite numbers of float32 are needed"
                )))
            }
        }
    }

    fn layer(&self, name: &str, shape: &[usize], bits: u32) -> Result<Packed> {
        let (rows, columns) = (shape[0], shape[1..].iter().product::<usize>());
        let codes_name = format!("{name}{CODES}");
        let Array::U8(bytes) = self.array(&codes_name)? else {
            return Err(self.bad(format!("array \"{codes_name}\" does not hold bytes")));
        };
        let bytes: Vec<u8> = bytes.iter().copied().collect();
        let codes = unpack(&bytes, bits, rows * columns)
            .and_then(|codes| Array2::from_shape_vec((rows, columns), codes).ok())
            .ok_or_else(|| self.bad(format!("array \"{codes_name}\" is too short for {rows} × {columns} codes")))?;
        let column = |ending: &str| -> Result<Array2<f32>> {
            let values = self.floats(&format!("{name}{ending}"), rows)?;
            Ok(Array1::from_vec(values).insert_axis(ndarray::Axis(1)))
        };
        let grid = Grid {
            codes: (0, (1 << bits) - 1),
            group: columns,
            scales: column(SCALE)?,
            zeros: column(ZERO)?,
            group_of: None,
        };
        let packed =
            Packed { name: name.to_owned(), shape: shape.to_vec(), values: Values::Codes { codes, grid }, mask: None };
        packed.check()?;
        Ok(packed)
    }
}
