//! The layout of AutoGPTQ and GPTQModel, version 1: codes packed along the inputs, zeros less 1 along the outputs, scales
//! in half precision, all of them with the outputs last.

use super::native::read_groups;
use super::stored::{Reader, Stored, Tensors};
use super::{dense_codes, exact_half, shaped, whole_zeros};
use crate::bits::{pack_words, per_word, unpack_words};
use crate::packed::{Packed, Values};
use crate::quantiser::Grid;
use half::f16;
use ndarray::{Array2, Axis};
use offprint_core::{Error, Result};
use offprint_nn::LayerPlace;
use serde_json::{Value, json};

const NAME: &str = "the layout of GPTQ";

/// `X.qweight`, `X.qzeros`, `X.scales`, `X.g_idx`.
pub fn encode(packed: &Packed) -> Result<Tensors> {
    let (codes, grid) = dense_codes(packed, NAME)?;
    let (rows, columns) = codes.dim();
    let (bits, bad) = (grid.bits(), |problem: String| {
        Err(Error::input(format!("layer \"{}\"", packed.name), format!("{NAME} {problem}")))
    });
    if ![2, 4, 8].contains(&bits) {
        return bad(format!("packs 2, 4 or 8 bits, not {bits}"));
    }
    let per = per_word(bits);
    if !columns.is_multiple_of(per) || !rows.is_multiple_of(per) {
        return bad(format!("fills words with {per} codes, which do not divide {rows} outputs and {columns} inputs"));
    }
    let groups = columns / grid.group;
    // One scale for all is the same scale for every row.
    let of_rows = |values: &Array2<f32>| values.broadcast((rows, groups)).map(|v| v.to_owned());
    let (scales, zeros) = (of_rows(&grid.scales), of_rows(&grid.zeros));
    let (Some(scales), Some(zeros)) = (scales, zeros) else {
        return bad("needs a scale for every group of every row".into());
    };
    let whole = Grid { scales, zeros, ..grid.clone() };
    let half = exact_half(&packed.name, NAME, &whole.scales)?;
    let zeros = whole_zeros(&packed.name, NAME, &whole)?;
    if zeros.contains(&0) {
        return bad("stores zeros less 1, which a zero of 0 does not survive in all programs that read it; choose a \
                    symmetric scheme"
            .into());
    }
    let matrix = |values: Vec<u8>| Array2::from_shape_vec((rows, groups), values).expect("one for each group");
    let less_one = matrix(zeros.into_iter().map(|zero| zero - 1).collect());
    let words: Vec<Vec<i32>> = codes.rows().into_iter().map(|row| pack_words(&row.to_vec(), bits)).collect();
    let qweight = (0..columns / per).flat_map(|i| words.iter().map(move |row| row[i])).collect::<Vec<_>>();
    let qzeros = less_one.columns().into_iter().flat_map(|group| pack_words(&group.to_vec(), bits));
    let half = Array2::from_shape_vec((rows, groups), half).expect("one for each group");
    let g_idx = (0..columns).map(|j| grid.group_of.as_ref().map_or(j / grid.group, |groups| groups[j] as usize) as i32);
    let named = |ending: &str| format!("{}.{ending}", packed.name);
    Ok(Tensors::from([
        (named("qweight"), Stored::i32(&[columns / per, rows], qweight)),
        (named("qzeros"), Stored::i32(&[groups, rows / per], qzeros)),
        (named("scales"), Stored::f16(&[groups, rows], half.t().iter().copied())),
        (named("g_idx"), Stored::i32(&[columns], g_idx)),
    ]))
}

/// One for all layers. A layer whose rows are one group each goes with any group size that is its row's length.
pub fn config(layers: &[Packed]) -> Result<Value> {
    let grids = layers.iter().map(|packed| Ok((packed, dense_codes(packed, NAME)?.1))).collect::<Result<Vec<_>>>()?;
    let (_, first) = grids.first().ok_or_else(|| Error::parameter("layers", "none", "at least one quantised layer"))?;
    let is_row = |(packed, grid): &(&Packed, &Grid)| grid.group == packed.dim().1;
    let group = grids.iter().find(|layer| !is_row(layer)).map(|(_, grid)| grid.group);
    let symmetric = first.codes.0 < 0;
    for layer @ (packed, grid) in &grids {
        let same_group = group.is_none_or(|group| grid.group == group) && (group.is_some() || is_row(layer));
        if grid.bits() != first.bits() || (grid.codes.0 < 0) != symmetric || !same_group {
            let problem = format!("{NAME} has one bit width and group size for all layers, but this one differs");
            return Err(Error::input(format!("layer \"{}\"", packed.name), problem));
        }
    }
    Ok(json!({
        "quant_method": "gptq",
        "bits": first.bits(),
        "group_size": group.map_or(-1, |group| group as i64),
        "desc_act": grids.iter().any(|(_, grid)| grid.group_of.is_some()),
        "sym": symmetric,
        "checkpoint_format": "gptq",
    }))
}

pub fn decode(reader: &Reader<'_>, place: &LayerPlace, config: &Value) -> Result<Packed> {
    let named = |ending: &str| format!("{}.{ending}", place.name);
    let (rows, columns) = (place.outputs(), place.inputs());
    let bits = config["quantization_config"]["bits"].as_u64().filter(|bits| [2, 4, 8].contains(bits));
    let bits = bits.ok_or_else(|| reader.bad(&named("qweight"), "bits in config.json must be 2, 4 or 8"))? as u32;
    let per = per_word(bits);
    let unpacked = |name: &str, words: Vec<i32>, count: usize| {
        unpack_words(&words, bits, count).ok_or_else(|| reader.bad(name, "has too few words"))
    };
    let name = named("qweight");
    let words = shaped(reader, &name, (columns / per, rows), reader.i32(&name)?.1)?;
    let mut codes = Array2::zeros((rows, columns));
    for (words, mut row) in words.columns().into_iter().zip(codes.axis_iter_mut(Axis(0))) {
        let own = unpacked(&name, words.to_vec(), columns)?;
        row.iter_mut().zip(own).for_each(|(to, code)| *to = code);
    }
    let name = named("scales");
    let (shape, half) = reader.f16(&name)?;
    let groups = shape.first().copied().unwrap_or(0);
    if groups == 0 || !columns.is_multiple_of(groups) {
        return Err(reader.bad(&name, format!("has {groups} groups, which do not divide {columns} inputs")));
    }
    let scales = shaped(reader, &name, (groups, rows), half)?.t().mapv(f16::to_f32);
    let name = named("qzeros");
    let words = shaped(reader, &name, (groups, rows / per), reader.i32(&name)?.1)?;
    let mut zeros = Array2::zeros((rows, groups));
    for (words, mut group) in words.rows().into_iter().zip(zeros.axis_iter_mut(Axis(1))) {
        let own = unpacked(&name, words.to_vec(), rows)?;
        group.iter_mut().zip(own).for_each(|(to, zero)| *to = f32::from(zero) + 1.0);
    }
    let group = columns / groups;
    let group_of = read_groups(reader, &named("g_idx"), columns, groups)?;
    let group_of = group_of.filter(|of| of.iter().enumerate().any(|(j, &g)| g as usize != j / group));
    let grid = Grid { codes: (0, (1 << bits) - 1), group, scales, zeros, group_of };
    Ok(Packed {
        name: place.name.clone(),
        shape: place.shape.clone(),
        values: Values::Codes { codes, grid },
        mask: None,
    })
}
