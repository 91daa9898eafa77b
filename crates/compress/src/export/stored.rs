//! Tensors as they stand in a file.

use half::f16;
use offprint_core::artifact::write_whole;
use offprint_core::{Error, Result};
use offprint_nn::Checkpoint;
use safetensors::tensor::{Dtype, TensorView};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// A tensor's bytes, little-endian, row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// Type of an element.
    pub dtype: Dtype,
    /// Shape.
    pub shape: Vec<usize>,
    /// Bytes.
    pub bytes: Vec<u8>,
}

/// Tensors by name.
pub type Tensors = BTreeMap<String, Stored>;

/// The bytes of all tensors, without names and shapes.
pub fn size(tensors: &Tensors) -> u64 {
    tensors.values().map(|tensor| tensor.bytes.len() as u64).sum()
}

macro_rules! of_numbers {
    ($name:ident, $type:ty, $dtype:ident, $words:literal) => {
        #[doc = $words]
        pub fn $name(shape: &[usize], values: impl IntoIterator<Item = $type>) -> Self {
            let bytes = values.into_iter().flat_map(|x| x.to_le_bytes()).collect();
            Self { dtype: Dtype::$dtype, shape: shape.to_vec(), bytes }
        }
    };
}

impl Stored {
    of_numbers!(f32, f32, F32, "Of single precision.");
    of_numbers!(f16, f16, F16, "Of half precision.");
    of_numbers!(i32, i32, I32, "Of integers of 32 bits.");
    of_numbers!(i64, i64, I64, "Of integers of 64 bits.");
    of_numbers!(i16, i16, I16, "Of integers of 16 bits.");
    of_numbers!(i8, i8, I8, "Of integers of 8 bits.");
    of_numbers!(u8, u8, U8, "Of bytes.");
}

/// Reads tensors of a checkpoint by name, type and shape.
pub(super) struct Reader<'a>(pub &'a Checkpoint);

macro_rules! read_numbers {
    ($name:ident, $type:ty, $dtype:ident) => {
        pub fn $name(&self, name: &str) -> Result<(Vec<usize>, Vec<$type>)> {
            let (shape, bytes) = self.bytes(name, Dtype::$dtype)?;
            let numbers = bytes.chunks_exact(size_of::<$type>());
            Ok((shape, numbers.map(|b| <$type>::from_le_bytes(b.try_into().expect("whole numbers"))).collect()))
        }
    };
}

impl Reader<'_> {
    read_numbers!(f16, f16, F16);
    read_numbers!(i32, i32, I32);
    read_numbers!(i64, i64, I64);
    read_numbers!(i16, i16, I16);
    read_numbers!(i8, i8, I8);
    read_numbers!(u8, u8, U8);

    fn bytes(&self, name: &str, wanted: Dtype) -> Result<(Vec<usize>, &[u8])> {
        let (dtype, shape, bytes) = self.0.raw(name)?;
        if dtype != wanted {
            let problem = format!("tensor \"{name}\" has dtype {dtype:?}, but the format stores it as {wanted:?}");
            return Err(Error::input(self.0.origin(), problem));
        }
        Ok((shape.to_vec(), bytes))
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.shape(name).is_some()
    }

    /// Floats of F32 or F16.
    pub fn floats(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>)> {
        let (dtype, shape, bytes) = self.0.raw(name)?;
        if dtype == Dtype::F32 {
            let values = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes")));
            return Ok((shape.to_vec(), values.collect()));
        }
        let (shape, values) = self.f16(name)?;
        Ok((shape, values.into_iter().map(f16::to_f32).collect()))
    }

    /// An error about the tensor `name`.
    pub fn bad(&self, name: &str, problem: impl std::fmt::Display) -> Error {
        Error::input(self.0.origin(), format!("tensor \"{name}\": {problem}"))
    }
}

/// Writes tensors, and words beside them, as one `.safetensors` file, whole or not at all.
pub fn write(path: &Path, tensors: &Tensors, words: &BTreeMap<String, String>) -> Result<()> {
    let fail = |e: safetensors::SafeTensorError| Error::file("write", path, std::io::Error::other(e));
    let views = tensors
        .iter()
        .map(|(name, t)| Ok((name.as_str(), TensorView::new(t.dtype, t.shape.clone(), &t.bytes)?)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(fail)?;
    let words: Option<HashMap<String, String>> = (!words.is_empty()).then(|| words.clone().into_iter().collect());
    let bytes = safetensors::serialize(views, words).map_err(fail)?;
    write_whole(path, |out| out.write_all(&bytes))
}
