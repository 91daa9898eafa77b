//! Formats of our own: a byte a code for whoever wants to read them, or codes packed to their bits.

use super::stored::{Reader, Stored, Tensors};
use super::{LayerFormat, bitmask, from_bitmask, shaped};
use crate::bits::{pack, unpack};
use crate::packed::{Mask, Packed, Values};
use crate::quantiser::Grid;
use half::f16;
use ndarray::Array2;
use offprint_core::Result;
use offprint_nn::LayerPlace;

/// `X.weight_q` (I8 for signed codes, U8 for unsigned ones and numbers of levels), of the weight's shape.
pub fn plain(packed: &Packed) -> Result<Tensors> {
    let codes = match &packed.values {
        Values::Floats(_) => return super::layer_tensors(packed, super::Format::Fake),
        Values::Codes { codes, grid } if grid.codes.0 < 0 => {
            Stored::i8(&packed.shape, codes.iter().map(|&code| (i32::from(code) + grid.codes.0) as i8))
        }
        Values::Codes { codes, .. } | Values::Codebook { codes, .. } => {
            Stored::u8(&packed.shape, codes.iter().copied())
        }
    };
    let mut tensors = beside(packed);
    tensors.insert(format!("{}.weight_q", packed.name), codes);
    Ok(tensors)
}

/// `X.weight_codes`: the codes of the weights that are kept, row by row, packed to their bits; `X.weight_values` for floats.
pub fn tight(packed: &Packed) -> Result<Tensors> {
    let keep = packed.mask.as_ref().map(|mask| &mask.keep);
    let kept = |at: (usize, usize)| keep.is_none_or(|keep| keep[at]);
    let (ending, stored) = match &packed.values {
        Values::Floats(weight) if packed.mask.is_none() => {
            ("weight", Stored::f32(&packed.shape, weight.iter().copied()))
        }
        Values::Floats(weight) => {
            let values: Vec<f32> = weight.indexed_iter().filter(|(at, _)| kept(*at)).map(|(_, &w)| w).collect();
            ("weight_values", Stored::f32(&[values.len()], values))
        }
        Values::Codes { codes, .. } | Values::Codebook { codes, .. } => {
            let bytes =
                pack(codes.indexed_iter().filter(|(at, _)| kept(*at)).map(|(_, &code)| code), packed.bits().max(1));
            ("weight_codes", Stored::u8(&[bytes.len()], bytes))
        }
    };
    let mut tensors = beside(packed);
    tensors.insert(format!("{}.{ending}", packed.name), stored);
    Ok(tensors)
}

/// Scales, zeros, tables, masks and orders.
fn beside(packed: &Packed) -> Tensors {
    let mut tensors = Tensors::new();
    let mut put = |ending: &str, stored| tensors.insert(format!("{}.{ending}", packed.name), stored);
    match &packed.values {
        Values::Floats(_) => {}
        Values::Codes { grid, .. } => {
            put("weight_scale", shortest(&grid.scales));
            if grid.zeros.iter().any(|&zero| zero != 0.0) {
                let bytes = grid.zeros.iter().all(|&z| z.fract() == 0.0 && (0.0..=255.0).contains(&z));
                let shape = grid.zeros.shape();
                put(
                    "weight_zero",
                    match bytes {
                        true => Stored::u8(shape, grid.zeros.iter().map(|&zero| zero as u8)),
                        false => Stored::f32(shape, grid.zeros.iter().copied()),
                    },
                );
            }
            if let Some(groups) = &grid.group_of {
                put("weight_g_idx", Stored::i32(&[groups.len()], groups.iter().map(|&g| g as i32)));
            }
        }
        Values::Codebook { book, .. } => {
            put("weight_book", Stored::f32(book.shape(), book.iter().copied()));
        }
    }
    if let Some(mask) = &packed.mask {
        let (rows, columns) = mask.keep.dim();
        put("weight_mask", Stored::u8(&[rows, columns.div_ceil(8)], bitmask(mask.keep.view())));
    }
    tensors
}

/// In half precision if that holds every value.
fn shortest(values: &Array2<f32>) -> Stored {
    let half = || values.iter().map(|&x| f16::from_f32(x));
    if half().zip(values).all(|(half, &x)| half.to_f32() == x) {
        Stored::f16(values.shape(), half())
    } else {
        Stored::f32(values.shape(), values.iter().copied())
    }
}

/// Reads either format.
pub fn decode(reader: &Reader<'_>, place: &LayerPlace, format: &LayerFormat) -> Result<Packed> {
    let named = |ending: &str| format!("{}.{ending}", place.name);
    let (rows, columns) = (place.outputs(), place.inputs());
    let mask = match format.pattern.filter(|_| reader.has(&named("weight_mask"))) {
        None => None,
        Some(pattern) => {
            let name = named("weight_mask");
            let keep = from_bitmask(&reader.u8(&name)?.1, rows, columns)
                .ok_or_else(|| reader.bad(&name, format!("is no mask of {rows} × {columns} weights")))?;
            Some(Mask { keep, pattern })
        }
    };
    // What was packed tightly stands where the mask keeps.
    let keep = mask.as_ref().map(|mask| mask.keep.clone());
    let kept = keep.as_ref().map_or(rows * columns, |keep| keep.iter().filter(|&&keep| keep).count());
    let spread = |name: &str, values: Vec<u8>| -> Result<Array2<u8>> {
        let mut values = values.into_iter();
        let spread = Array2::from_shape_fn((rows, columns), |at| match &keep {
            Some(keep) if !keep[at] => Some(0),
            _ => values.next(),
        });
        if spread.iter().any(Option::is_none) {
            return Err(reader.bad(name, format!("holds fewer codes than the {kept} weights that are kept")));
        }
        Ok(spread.mapv(|code| code.unwrap_or(0)))
    };
    let levels = i64::from(format.codes.1) - i64::from(format.codes.0) + 1;
    if !(1..=256).contains(&levels) || format.group == 0 || !columns.is_multiple_of(format.group) {
        return Err(reader
            .bad(&place.weight, format!("is described by codes {:?} in groups of {}", format.codes, format.group)));
    }
    let bits = (levels as u32).next_power_of_two().trailing_zeros().max(1);
    let packed = |values| Packed { name: place.name.clone(), shape: place.shape.clone(), values, mask: mask.clone() };
    if reader.has(&named("weight_values")) {
        let (_, values) = reader.floats(&named("weight_values"))?;
        let mut next = values.into_iter();
        let weight = Array2::from_shape_fn((rows, columns), |at| match &keep {
            Some(keep) if !keep[at] => Some(0.0),
            _ => next.next(),
        });
        if weight.iter().any(Option::is_none) {
            return Err(reader.bad(&named("weight_values"), format!("holds fewer than the {kept} values kept")));
        }
        return Ok(packed(Values::Floats(weight.mapv(|w| w.unwrap_or(0.0)))));
    }
    let codes = if reader.has(&named("weight_codes")) {
        let name = named("weight_codes");
        let unpacked = unpack(&reader.u8(&name)?.1, bits, kept);
        spread(&name, unpacked.unwrap_or_default())?
    } else {
        let name = named("weight_q");
        let bytes = if format.codes.0 < 0 {
            let (_, signed) = reader.i8(&name)?;
            signed.into_iter().map(|q| (i32::from(q) - format.codes.0) as u8).collect()
        } else {
            reader.u8(&name)?.1
        };
        shaped(reader, &name, (rows, columns), bytes)?
    };
    if reader.has(&named("weight_book")) {
        let (shape, book) = reader.floats(&named("weight_book"))?;
        let entries = shape.last().copied().unwrap_or(0);
        let book = shaped(reader, &named("weight_book"), (shape.first().copied().unwrap_or(0), entries), book)?;
        if ![1, rows].contains(&book.nrows()) {
            return Err(reader.bad(&named("weight_book"), format!("has {} rows for {rows} outputs", book.nrows())));
        }
        return Ok(packed(Values::Codebook { codes, book }));
    }
    let (shape, scales) = reader.floats(&named("weight_scale"))?;
    let groups = columns / format.group;
    let dim = if shape == [1, 1] { (1, 1) } else { (rows, groups) };
    let scales = shaped(reader, &named("weight_scale"), dim, scales)?;
    let zeros = match reader.has(&named("weight_zero")) {
        false => Array2::zeros(dim),
        true => {
            let name = named("weight_zero");
            let zeros = match reader.u8(&name) {
                Ok((_, bytes)) => bytes.into_iter().map(f32::from).collect(),
                Err(_) => reader.floats(&name)?.1,
            };
            shaped(reader, &name, dim, zeros)?
        }
    };
    let group_of = read_groups(reader, &named("weight_g_idx"), columns, groups)?;
    Ok(packed(Values::Codes {
        codes,
        grid: Grid { codes: format.codes, group: format.group, scales, zeros, group_of },
    }))
}

/// The group of each column, if the tensor is there.
pub fn read_groups(reader: &Reader<'_>, name: &str, columns: usize, groups: usize) -> Result<Option<Vec<u32>>> {
    if !reader.has(name) {
        return Ok(None);
    }
    let (_, numbers) = reader.i32(name)?;
    if numbers.len() != columns || numbers.iter().any(|&g| g < 0 || g as usize >= groups) {
        return Err(
            reader.bad(name, format!("must hold a group from 0 to below {groups} for each of {columns} columns"))
        );
    }
    Ok(Some(numbers.into_iter().map(|g| g as u32).collect()))
}
