//! Sparse rows of groups: what a kernel that skips pruned groups reads.

use super::stored::{Reader, Stored, Tensors};
use super::{LayerFormat, exact_half, shaped, whole_zeros};
use crate::bits::{pack, unpack};
use crate::packed::{Mask, Packed, Pattern, Values};
use crate::quantiser::Grid;
use half::f16;
use ndarray::Array2;
use offprint_core::{Error, Result};
use offprint_nn::LayerPlace;

const NAME: &str = "the sparse layout of groups";

/// For the groups that are kept, row by row: `X.bsr_indices` (their number in the row), `X.bsr_codes`, `X.bsr_scale`,
/// `X.bsr_zero`; and `X.bsr_indptr`, where each row begins.
pub fn encode(packed: &Packed) -> Result<Tensors> {
    let bad = |problem: String| Error::input(format!("layer \"{}\"", packed.name), format!("{NAME} {problem}"));
    let Values::Codes { codes, grid } = &packed.values else {
        return Err(bad("stores codes with a scale a group".into()));
    };
    let Some(Mask { keep, pattern: Pattern::Groups(size) }) = &packed.mask else {
        return Err(bad("needs a mask of whole groups".into()));
    };
    let (rows, columns) = codes.dim();
    if grid.group != *size || grid.scales.dim() != (rows, columns / size) || grid.group_of.is_some() {
        return Err(bad(format!("needs one scale for each group of {size} that is kept or pruned")));
    }
    if columns / size > i16::MAX as usize {
        return Err(bad(format!("counts groups with 15 bits, but there are {} in a row", columns / size)));
    }
    let (scales, zeros) = (exact_half(&packed.name, NAME, &grid.scales)?, whole_zeros(&packed.name, NAME, grid)?);
    let (mut pointers, mut indices, mut bytes) = (vec![0_i32], Vec::new(), Vec::new());
    let (mut kept_scales, mut kept_zeros) = (Vec::new(), Vec::new());
    for i in 0..rows {
        for group in (0..columns / size).filter(|group| keep[[i, group * size]]) {
            indices.push(group as i16);
            bytes.extend(pack((group * size..(group + 1) * size).map(|j| codes[[i, j]]), grid.bits()));
            kept_scales.push(scales[i * (columns / size) + group]);
            kept_zeros.push(zeros[i * (columns / size) + group]);
        }
        pointers.push(indices.len() as i32);
    }
    let named = |ending: &str| format!("{}.{ending}", packed.name);
    Ok(Tensors::from([
        (named("bsr_indptr"), Stored::i32(&[rows + 1], pointers)),
        (named("bsr_codes"), Stored::u8(&[bytes.len()], bytes)),
        (named("bsr_scale"), Stored::f16(&[kept_scales.len()], kept_scales)),
        (named("bsr_zero"), Stored::u8(&[kept_zeros.len()], kept_zeros)),
        (named("bsr_indices"), Stored::i16(&[indices.len()], indices)),
    ]))
}

pub fn decode(reader: &Reader<'_>, place: &LayerPlace, format: &LayerFormat) -> Result<Packed> {
    let named = |ending: &str| format!("{}.{ending}", place.name);
    let (rows, columns) = (place.outputs(), place.inputs());
    let Some(Pattern::Groups(size)) =
        format.pattern.filter(|_| format.group > 0 && columns.is_multiple_of(format.group))
    else {
        return Err(reader.bad(&named("bsr_indptr"), "is not described as groups that divide its inputs"));
    };
    let levels = i64::from(format.codes.1) - i64::from(format.codes.0) + 1;
    if size != format.group || !(1..=256).contains(&levels) {
        return Err(reader.bad(&named("bsr_codes"), format!("is described by codes {:?}", format.codes)));
    }
    let bits = (levels as u32).next_power_of_two().trailing_zeros().max(1);
    let (pointers, indices) = (reader.i32(&named("bsr_indptr"))?.1, reader.i16(&named("bsr_indices"))?.1);
    let (bytes, scales) = (reader.u8(&named("bsr_codes"))?.1, reader.f16(&named("bsr_scale"))?.1);
    let zeros = reader.u8(&named("bsr_zero"))?.1;
    let groups = columns / size;
    let (count, width) = (indices.len(), (size * bits as usize).div_ceil(8));
    let whole = pointers.len() == rows + 1
        && pointers[0] == 0
        && pointers.is_sorted()
        && pointers[rows] as usize == count
        && [scales.len(), zeros.len(), bytes.len() / width] == [count; 3]
        && indices.iter().all(|&g| g >= 0 && (g as usize) < groups);
    if !whole {
        return Err(
            reader.bad(&named("bsr_indptr"), format!("and its indices do not describe {rows} rows of {groups} groups"))
        );
    }
    let first = format.codes.0 as f32;
    let (mut codes, mut keep) = (Array2::zeros((rows, columns)), Array2::from_elem((rows, columns), false));
    let mut grid = Grid {
        codes: format.codes,
        group: size,
        scales: Array2::from_elem((rows, groups), crate::quantiser::LEAST_SCALE),
        zeros: shaped(reader, "bsr_zero", (rows, groups), vec![first; rows * groups])?,
        group_of: None,
    };
    for i in 0..rows {
        for at in pointers[i] as usize..pointers[i + 1] as usize {
            let group = indices[at] as usize;
            let own = unpack(&bytes[at * width..(at + 1) * width], bits, size).expect("a whole group");
            for (j, code) in (group * size..).zip(own) {
                codes[[i, j]] = code;
                keep[[i, j]] = true;
            }
            grid.scales[[i, group]] = f16::to_f32(scales[at]);
            grid.zeros[[i, group]] = f32::from(zeros[at]) + first;
        }
    }
    let mask = Some(Mask { keep, pattern: Pattern::Groups(size) });
    Ok(Packed { name: place.name.clone(), shape: place.shape.clone(), values: Values::Codes { codes, grid }, mask })
}
