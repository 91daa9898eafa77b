//! GGUF version 3, the file format of llama.cpp: one file, little-endian, tensors aligned to 32 bytes, blocks of 32 weights.
//!
//! Tensors keep the names they have here, and `general.architecture` is `offprint`: the container, its types and their
//! arithmetic are those of llama.cpp, its graphs of models are not.

use super::stored::Tensors;
use crate::layer::tensor;
use crate::packed::{Packed, Values};
use crate::quantiser::Grid;
use candle_core::Tensor;
use half::f16;
use ndarray::Array2;
use offprint_core::{Error, Result};
use offprint_nn::LayerPlace;
use std::path::Path;

const MAGIC: &[u8; 4] = b"GGUF";
const VERSION: u32 = 3;
const ALIGNMENT: usize = 32;
/// Weights of a block.
const BLOCK: usize = 32;
const ARCHITECTURE: (&str, &str) = ("general.architecture", "offprint");

/// How a tensor's numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GgufType {
    /// Single precision.
    F32 = 0,
    /// Half precision.
    F16 = 1,
    /// A scale d in half precision, then codes of 4 bits: (q − 8) d.
    Q4_0 = 2,
    /// A scale d and a least value m in half precision, then codes of 4 bits: q d + m.
    Q4_1 = 3,
    /// A scale d in half precision, then signed codes of 8 bits: q d.
    Q8_0 = 8,
}

impl GgufType {
    const ALL: [Self; 5] = [Self::F32, Self::F16, Self::Q4_0, Self::Q4_1, Self::Q8_0];

    /// Bytes of `count` numbers.
    fn bytes(self, count: usize) -> usize {
        match self {
            Self::F32 => 4 * count,
            Self::F16 => 2 * count,
            Self::Q4_0 => count / BLOCK * 18,
            Self::Q4_1 => count / BLOCK * 20,
            Self::Q8_0 => count / BLOCK * 34,
        }
    }

    fn is_blocked(self) -> bool {
        !matches!(self, Self::F32 | Self::F16)
    }
}

/// A tensor of a file.
#[derive(Debug, Clone)]
pub struct GgufTensor {
    /// Its name.
    pub name: String,
    /// Shape, the last axis the fastest.
    pub shape: Vec<usize>,
    /// Type.
    pub dtype: GgufType,
    bytes: Vec<u8>,
}

/// A file with `others` in single precision and `layers` in whichever type holds them exactly.
pub fn encode(others: &Tensors, layers: &[Packed]) -> Result<Vec<u8>> {
    let mut tensors: Vec<GgufTensor> = others
        .iter()
        .map(|(name, stored)| GgufTensor {
            name: name.clone(),
            shape: stored.shape.clone(),
            dtype: GgufType::F32,
            bytes: stored.bytes.clone(),
        })
        .collect();
    for packed in layers {
        tensors.push(of_layer(packed)?);
    }
    let mut file = Vec::new();
    let text = |file: &mut Vec<u8>, text: &str| {
        file.extend((text.len() as u64).to_le_bytes());
        file.extend(text.as_bytes());
    };
    file.extend(MAGIC);
    file.extend(VERSION.to_le_bytes());
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend(1_u64.to_le_bytes());
    text(&mut file, ARCHITECTURE.0);
    file.extend(8_u32.to_le_bytes());
    text(&mut file, ARCHITECTURE.1);
    let mut offset = 0_usize;
    for tensor in &tensors {
        text(&mut file, &tensor.name);
        file.extend((tensor.shape.len() as u32).to_le_bytes());
        tensor.shape.iter().rev().for_each(|&n| file.extend((n as u64).to_le_bytes()));
        file.extend((tensor.dtype as u32).to_le_bytes());
        file.extend((offset as u64).to_le_bytes());
        offset += tensor.bytes.len().next_multiple_of(ALIGNMENT);
    }
    for tensor in &tensors {
        file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
        file.extend(&tensor.bytes);
    }
    file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
    Ok(file)
}

/// The layer in the first type that gives its weights back bit for bit.
fn of_layer(packed: &Packed) -> Result<GgufTensor> {
    let weight = packed.dequant();
    let columns = weight.ncols();
    let wanted: &[GgufType] = match &packed.values {
        Values::Codes { grid, .. } if grid.zeros.iter().all(|&zero| zero == 0.0) && grid.codes.0 < 0 => {
            if grid.bits() <= 4 { &[GgufType::Q4_0] } else { &[GgufType::Q8_0] }
        }
        Values::Codes { grid, .. } if grid.bits() <= 4 => &[GgufType::Q4_1],
        Values::Codes { .. } => &[],
        Values::Floats(_) | Values::Codebook { .. } => &[GgufType::F16, GgufType::F32],
    };
    let bad = |problem: String| Error::input(format!("layer \"{}\"", packed.name), problem);
    let mut worst = None;
    for &dtype in wanted {
        let bytes = match (dtype, &packed.values) {
            (GgufType::F32, _) => weight.iter().flat_map(|w| w.to_le_bytes()).collect(),
            (GgufType::F16, _) => weight.iter().flat_map(|&w| f16::from_f32(w).to_le_bytes()).collect(),
            (_, Values::Codes { .. }) if !columns.is_multiple_of(BLOCK) => {
                return Err(bad(format!("GGUF's blocks of {BLOCK} do not divide its {columns} inputs")));
            }
            (_, Values::Codes { grid, .. }) if !grid.group.is_multiple_of(BLOCK) || grid.group_of.is_some() => {
                let problem =
                    format!("GGUF has a scale for each {BLOCK} neighbours, but here {} share one", grid.group);
                return Err(bad(problem));
            }
            (_, Values::Codes { codes, grid }) => blocks(dtype, packed, codes, grid),
            _ => continue,
        };
        let shape = if dtype.is_blocked() { vec![weight.nrows(), columns] } else { packed.shape.clone() };
        let tensor = GgufTensor { name: format!("{}.weight", packed.name), shape, dtype, bytes };
        let error = tensor.values().iter().zip(&weight).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        if error == 0.0 {
            return Ok(tensor);
        }
        worst = Some((dtype, error));
    }
    Err(bad(match worst {
        Some((dtype, error)) => format!(
            "GGUF's {dtype:?} would change weights by up to {error:.2e}, for its scales have half precision; compress \
             with half scales, or export dequantised floats"
        ),
        None => "GGUF has no type for asymmetric codes of more than 4 bits; export dequantised floats".into(),
    }))
}

/// Blocks of 32 weights, row after row.
fn blocks(dtype: GgufType, packed: &Packed, codes: &Array2<u8>, grid: &Grid) -> Vec<u8> {
    let mut bytes = Vec::new();
    let kept = |i: usize, j: usize| packed.mask.as_ref().is_none_or(|mask| mask.keep[[i, j]]);
    for (i, row) in codes.rows().into_iter().enumerate() {
        for start in (0..row.len()).step_by(BLOCK) {
            let affine = grid.affine(i, start);
            let code = |j: usize| {
                let code = i32::from(row[start + j]) + grid.codes.0;
                if kept(i, start + j) { code } else { affine.zero as i32 }
            };
            bytes.extend(f16::from_f32(affine.scale).to_le_bytes());
            let nibbles = |offset: i32| {
                (0..BLOCK / 2).map(move |j| ((code(j) + offset) | (code(j + BLOCK / 2) + offset) << 4) as u8)
            };
            match dtype {
                GgufType::Q4_0 => bytes.extend(nibbles(8)),
                GgufType::Q4_1 => {
                    bytes.extend(f16::from_f32(-affine.zero * affine.scale).to_le_bytes());
                    bytes.extend(nibbles(0));
                }
                _ => bytes.extend((0..BLOCK).map(|j| code(j) as i8 as u8)),
            }
        }
    }
    bytes
}

impl GgufTensor {
    /// The numbers, in single precision.
    pub fn values(&self) -> Vec<f32> {
        let half = |bytes: &[u8]| f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
        let nibble = |bytes: &[u8], j: usize| f32::from(bytes[j % 16] >> (4 * (j / 16)) & 15);
        let blocks = |size: usize, of: &dyn Fn(&[u8], usize) -> f32| -> Vec<f32> {
            self.bytes.chunks_exact(size).flat_map(|block| (0..BLOCK).map(move |j| of(block, j))).collect()
        };
        match self.dtype {
            GgufType::F32 => {
                let number = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                self.bytes.chunks_exact(4).map(number).collect()
            }
            GgufType::F16 => self.bytes.chunks_exact(2).map(half).collect(),
            GgufType::Q4_0 => blocks(18, &|b, j| (nibble(&b[2..], j) - 8.0) * half(b)),
            GgufType::Q4_1 => blocks(20, &|b, j| nibble(&b[4..], j) * half(b) + half(&b[2..])),
            GgufType::Q8_0 => blocks(34, &|b, j| f32::from(b[2 + j] as i8) * half(b)),
        }
    }

    /// Codes and scales, if the type has no least value beside them.
    fn packed(&self, place: &LayerPlace) -> Option<Packed> {
        let (size, codes) = match self.dtype {
            GgufType::Q4_0 => (18, (-8, 7)),
            GgufType::Q8_0 => (34, (-128, 127)),
            _ => return None,
        };
        let (rows, columns) = (place.outputs(), place.inputs());
        let (mut numbers, mut scales) = (Vec::new(), Vec::new());
        for block in self.bytes.chunks_exact(size) {
            scales.push(f16::from_le_bytes([block[0], block[1]]).to_f32());
            numbers.extend((0..BLOCK).map(|j| match self.dtype {
                GgufType::Q4_0 => block[2 + j % 16] >> (4 * (j / 16)) & 15,
                _ => (i32::from(block[2 + j] as i8) + 128) as u8,
            }));
        }
        let scales = Array2::from_shape_vec((rows, columns / BLOCK), scales).ok()?;
        let grid = Grid { codes, group: BLOCK, zeros: Array2::zeros(scales.dim()), scales, group_of: None };
        let codes = Array2::from_shape_vec((rows, columns), numbers).ok()?;
        let values = Values::Codes { codes, grid };
        Some(Packed { name: place.name.clone(), shape: place.shape.clone(), values, mask: None })
    }
}

/// Reads bytes from the front, never beyond the end.
struct Cursor<'a> {
    left: &'a [u8],
    read: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, left) = self.left.split_at_checked(count)?;
        self.left = left;
        self.read += count;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.u64()?).ok()?;
        String::from_utf8(self.take(length)?.to_vec()).ok()
    }

    /// Passes over a value of type `kind`; arrays do not nest.
    fn skip(&mut self, kind: u32, inside: bool) -> Option<()> {
        match kind {
            0 | 1 | 7 => self.take(1).map(drop),
            2 | 3 => self.take(2).map(drop),
            4..=6 => self.take(4).map(drop),
            10..=12 => self.take(8).map(drop),
            8 => self.text().map(drop),
            9 if !inside => {
                let kind = self.u32()?;
                let count = self.u64()?;
                (0..count).try_for_each(|_| self.skip(kind, true))
            }
            _ => None,
        }
    }
}

/// The tensors of a GGUF file whose types are known here.
///
/// # Errors
/// A file that cannot be read, is no GGUF of version 3, ends early, or holds a tensor of another type, by name.
pub fn read(path: &Path) -> Result<Vec<GgufTensor>> {
    let file = std::fs::read(path).map_err(|e| Error::file("read", path, e))?;
    let bad = |problem: String| Error::input(path.display().to_string(), problem);
    let mut cursor = Cursor { left: &file, read: 0 };
    if cursor.take(4) != Some(MAGIC) {
        return Err(bad("is not a GGUF file".into()));
    }
    match cursor.u32() {
        Some(VERSION) => {}
        other => return Err(bad(format!("has GGUF version {}; {VERSION} is read here", other.unwrap_or(0)))),
    }
    let ends = || bad("ends before its header does, or its header is damaged".into());
    let (count, pairs) = (cursor.u64().ok_or_else(ends)?, cursor.u64().ok_or_else(ends)?);
    let mut alignment = ALIGNMENT;
    for _ in 0..pairs {
        let key = cursor.text().ok_or_else(ends)?;
        let kind = cursor.u32().ok_or_else(ends)?;
        if key == "general.alignment" && kind == 4 {
            alignment = cursor.u32().filter(|a| a.is_power_of_two()).ok_or_else(ends)? as usize;
        } else {
            cursor.skip(kind, false).ok_or_else(ends)?;
        }
    }
    let mut infos = Vec::new();
    for _ in 0..count {
        let name = cursor.text().ok_or_else(ends)?;
        let dims = cursor.u32().filter(|&dims| dims <= 4).ok_or_else(ends)?;
        let mut shape = (0..dims)
            .map(|_| cursor.u64().and_then(|n| usize::try_from(n).ok()))
            .collect::<Option<Vec<usize>>>()
            .ok_or_else(ends)?;
        shape.reverse();
        let (number, offset) = (cursor.u32().ok_or_else(ends)?, cursor.u64().ok_or_else(ends)?);
        let dtype = GgufType::ALL.into_iter().find(|&dtype| dtype as u32 == number).ok_or_else(|| {
            bad(format!("tensor \"{name}\" has type {number}; F32, F16, Q4_0, Q4_1 and Q8_0 are read here"))
        })?;
        infos.push((name, shape, dtype, offset));
    }
    let start = cursor.read.next_multiple_of(alignment);
    let place = |(name, shape, dtype, offset): (String, Vec<usize>, GgufType, u64)| {
        let count = shape.iter().try_fold(1_usize, |product, &n| product.checked_mul(n).filter(|&n| n < 1 << 40));
        let whole = count.filter(|_| !dtype.is_blocked() || shape.last().is_some_and(|n| n.is_multiple_of(BLOCK)));
        let bytes = whole.and_then(|count| {
            let begin = start.checked_add(usize::try_from(offset).ok()?)?;
            file.get(begin..begin.checked_add(dtype.bytes(count))?)
        });
        let bytes = bytes.ok_or_else(|| bad(format!("does not hold the tensor \"{name}\" of shape {shape:?}")))?;
        Ok(GgufTensor { name, shape, dtype, bytes: bytes.to_vec() })
    };
    infos.into_iter().map(place).collect()
}

/// Floats by name, and the layers of `places` that are stored as codes.
#[expect(clippy::type_complexity, reason = "two lists")]
pub fn load(path: &Path, places: &[LayerPlace]) -> Result<(Vec<(String, Tensor)>, Vec<Packed>)> {
    let (mut floats, mut layers) = (Vec::new(), Vec::new());
    for stored in read(path)? {
        let place = places.iter().find(|place| place.weight == stored.name);
        let shape = place.map_or(&stored.shape, |place| &place.shape);
        if shape.iter().product::<usize>() != stored.shape.iter().product::<usize>() {
            let problem =
                format!("tensor \"{}\" has shape {:?}, but the model needs {shape:?}", stored.name, stored.shape);
            return Err(Error::input(path.display().to_string(), problem));
        }
        match place.and_then(|place| stored.packed(place)) {
            Some(packed) => layers.push(packed),
            None => {
                let values = stored.values();
                let flat = Array2::from_shape_vec((1, values.len()), values).expect("one row");
                floats.push((stored.name, tensor(flat.view(), shape)?));
            }
        }
    }
    Ok((floats, layers))
}
