//! The formats of compressed-tensors: `pack-quantized` for codes, `sparse-24-bitmask` and `sparse-bitmask` for pruned
//! floats.
//!
//! A word holds ⌊32/b⌋ codes, the first in its lowest bits, as signed code + 2^(b−1): the number counted from the first
//! code. Zeros are packed in the same way along the rows.

use super::native::read_groups;
use super::stored::{Reader, Stored, Tensors};
use super::{bitmask, dense_codes, from_bitmask, shaped, whole_zeros};
use crate::bits::{pack_words, per_word, unpack_words};
use crate::packed::{Mask, Packed, Pattern, Values};
use crate::quantiser::Grid;
use half::f16;
use ndarray::{Array2, Axis};
use offprint_core::{Error, Result};
use offprint_nn::LayerPlace;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const PACKED: &str = "compressed-tensors' pack-quantized";
const SPARSE: &str = "compressed-tensors' sparse bitmask";

/// `X.weight_packed`, `X.weight_scale`, `X.weight_zero_point`, `X.weight_shape`, and `X.weight_g_idx` if columns stand in
/// another order. Convolutions are stored as their matrices.
pub fn quantised(packed: &Packed) -> Result<Tensors> {
    let (codes, grid) = dense_codes(packed, PACKED)?;
    let (rows, columns) = codes.dim();
    let bits = grid.bits();
    let named = |ending: &str| format!("{}.{ending}", packed.name);
    let words = codes.rows().into_iter().flat_map(|row| pack_words(&row.to_vec(), bits));
    let mut tensors = Tensors::from([
        (named("weight_packed"), Stored::i32(&[rows, columns.div_ceil(per_word(bits))], words)),
        (named("weight_shape"), Stored::i64(&[2], [rows as i64, columns as i64])),
    ]);
    let half = || grid.scales.iter().map(|&s| f16::from_f32(s));
    let scale_shape: &[usize] = if grid.scales.len() == 1 { &[1] } else { grid.scales.shape() };
    let exact = half().zip(&grid.scales).all(|(half, &s)| half.to_f32() == s);
    let scales =
        if exact { Stored::f16(scale_shape, half()) } else { Stored::f32(scale_shape, grid.scales.iter().copied()) };
    tensors.insert(named("weight_scale"), scales);
    if !is_symmetric(grid) {
        let zeros = whole_zeros(&packed.name, PACKED, grid)?;
        let (rows, groups) = grid.zeros.dim();
        let zeros = Array2::from_shape_vec((rows, groups), zeros).map_err(|e| Error::Numerical(e.to_string()))?;
        // Packed along the rows: a column of words for each group.
        let columns: Vec<Vec<i32>> = zeros.columns().into_iter().map(|c| pack_words(&c.to_vec(), bits)).collect();
        let height = rows.div_ceil(per_word(bits));
        let words = (0..height).flat_map(|i| columns.iter().map(move |column| column[i])).collect::<Vec<_>>();
        tensors.insert(named("weight_zero_point"), Stored::i32(&[height, groups], words));
    }
    if let Some(groups) = &grid.group_of {
        tensors.insert(named("weight_g_idx"), Stored::i32(&[groups.len()], groups.iter().map(|&g| g as i32)));
    }
    Ok(tensors)
}

/// Whether 0 is the code in the middle for all.
fn is_symmetric(grid: &Grid) -> bool {
    grid.codes.0 < 0 && grid.zeros.iter().all(|&zero| zero == 0.0)
}

/// The layers with the same arithmetic are one group, by name.
pub fn quantised_config(layers: &[Packed], places: &[LayerPlace]) -> Value {
    let mut groups: BTreeMap<String, (Value, Vec<&str>)> = BTreeMap::new();
    for packed in layers {
        let Values::Codes { grid, .. } = &packed.values else { continue };
        let strategy = match grid.scales.dim() {
            (1, 1) => "tensor",
            (_, 1) => "channel",
            _ => "group",
        };
        let group = (strategy == "group").then_some(grid.group);
        let mut weights = json!({"num_bits": grid.bits(), "type": "int", "symmetric": is_symmetric(grid), "strategy": strategy,
            "group_size": group, "dynamic": false});
        if grid.group_of.is_some() {
            weights["actorder"] = json!("group");
        }
        groups.entry(weights.to_string()).or_insert((weights, Vec::new())).1.push(&packed.name);
    }
    let groups: serde_json::Map<String, Value> = groups
        .into_values()
        .enumerate()
        .map(|(number, (weights, targets))| {
            (format!("group_{number}"), json!({"targets": targets, "weights": weights}))
        })
        .collect();
    json!({"quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed",
        "config_groups": groups, "ignore": untouched(layers, places)})
}

fn untouched<'a>(layers: &[Packed], places: &'a [LayerPlace]) -> Vec<&'a str> {
    places.iter().map(|p| p.name.as_str()).filter(|name| !layers.iter().any(|packed| packed.name == *name)).collect()
}

pub fn decode_quantised(reader: &Reader<'_>, place: &LayerPlace, config: &Value) -> Result<Packed> {
    let named = |ending: &str| format!("{}.{ending}", place.name);
    let (rows, columns) = (place.outputs(), place.inputs());
    let groups = config["quantization_config"]["config_groups"].as_object();
    let weights = groups.into_iter().flat_map(|groups| groups.values()).find(|group| {
        let targets = group["targets"].as_array().into_iter().flatten();
        targets.filter_map(Value::as_str).any(|target| target == place.name || target == "Linear")
    });
    let weights = weights.map(|group| &group["weights"]).ok_or_else(|| {
        reader.bad(&named("weight_packed"), "no group of quantization_config in config.json names its layer")
    })?;
    let bits = weights["num_bits"].as_u64().filter(|bits| (1..=8).contains(bits));
    let bits =
        bits.ok_or_else(|| reader.bad(&named("weight_packed"), "num_bits in config.json is no number from 1 to 8"))?;
    let bits = bits as u32;
    let symmetric = weights["symmetric"].as_bool().unwrap_or(true);
    let shape = reader.i64(&named("weight_shape"))?.1;
    if shape != [rows as i64, columns as i64] {
        return Err(
            reader.bad(&named("weight_shape"), format!("is {shape:?}, but the model needs [{rows}, {columns}]"))
        );
    }
    let name = named("weight_packed");
    let width = columns.div_ceil(per_word(bits));
    let words = shaped(reader, &name, (rows, width), reader.i32(&name)?.1)?;
    let codes: Option<Vec<Vec<u8>>> =
        words.rows().into_iter().map(|row| unpack_words(&row.to_vec(), bits, columns)).collect();
    let codes = codes.ok_or_else(|| reader.bad(&name, "has too few words"))?;
    let codes = shaped(reader, &name, (rows, columns), codes.concat())?;
    let name = named("weight_scale");
    let (shape, scales) = reader.floats(&name)?;
    let dim = if shape == [1] { (1, 1) } else { (rows, scales.len() / rows.max(1)) };
    let count = dim.1.max(1);
    if !columns.is_multiple_of(count) {
        return Err(reader.bad(&name, format!("has {count} scales a row, which do not divide {columns} columns")));
    }
    let scales = shaped(reader, &name, dim, scales)?;
    let first = if symmetric { -(1 << (bits - 1)) } else { 0 };
    let zeros = if symmetric {
        Array2::zeros(dim)
    } else {
        let name = named("weight_zero_point");
        let words = shaped(reader, &name, (dim.0.div_ceil(per_word(bits)), dim.1), reader.i32(&name)?.1)?;
        let mut zeros = Array2::zeros(dim);
        for (column, mut out) in words.columns().into_iter().zip(zeros.axis_iter_mut(Axis(1))) {
            let column =
                unpack_words(&column.to_vec(), bits, dim.0).ok_or_else(|| reader.bad(&name, "has too few words"))?;
            out.iter_mut().zip(column).for_each(|(out, zero)| *out = f32::from(zero));
        }
        zeros
    };
    let group_of = read_groups(reader, &named("weight_g_idx"), columns, count)?;
    let grid = Grid { codes: (first, first + (1 << bits) - 1), group: columns / count, scales, zeros, group_of };
    Ok(Packed {
        name: place.name.clone(),
        shape: place.shape.clone(),
        values: Values::Codes { codes, grid },
        mask: None,
    })
}

/// `X.compressed` with the values that are kept, row by row, `X.bitmask`, `X.shape`; in the unstructured format also
/// `X.row_offsets`, where each row begins.
pub fn sparse(packed: &Packed) -> Result<Tensors> {
    let bad = |problem: &str| Error::input(format!("layer \"{}\"", packed.name), format!("{SPARSE} {problem}"));
    let Values::Floats(weight) = &packed.values else { return Err(bad("stores floats, but the layer holds codes")) };
    let mask = packed.mask.as_ref().ok_or_else(|| bad("needs a mask, but nothing is pruned"))?;
    let (rows, columns) = weight.dim();
    let named = |ending: &str| format!("{}.{ending}", packed.name);
    let counts: Vec<usize> = mask.keep.rows().into_iter().map(|row| row.iter().filter(|&&keep| keep).count()).collect();
    let values: Vec<f32> = weight.iter().zip(&mask.keep).filter(|(_, keep)| **keep).map(|(&w, _)| w).collect();
    let mut tensors = Tensors::from([
        (named("bitmask"), Stored::u8(&[rows, columns.div_ceil(8)], bitmask(mask.keep.view()))),
        (named("shape"), Stored::i64(&[2], [rows as i64, columns as i64])),
    ]);
    if is_two_four(mask) && counts.iter().all(|&count| 2 * count == columns) {
        tensors.insert(named("compressed"), Stored::f32(&[rows, columns / 2], values));
    } else {
        let offsets = counts.iter().scan(0, |at, &count| Some(std::mem::replace(at, *at + count) as i64));
        tensors.insert(named("row_offsets"), Stored::i64(&[rows], offsets));
        tensors.insert(named("compressed"), Stored::f32(&[values.len()], values));
    }
    Ok(tensors)
}

fn is_two_four(mask: &Mask) -> bool {
    mask.pattern == Pattern::NofM { n: 2, m: 4 }
}

pub fn sparse_config(layers: &[Packed], places: &[LayerPlace]) -> Value {
    let two_four = layers.iter().all(|packed| packed.mask.as_ref().is_some_and(is_two_four));
    let (format, structure) = if two_four { ("sparse-24-bitmask", "2:4") } else { ("sparse-bitmask", "unstructured") };
    let count: usize = layers.iter().map(|packed| packed.shape.iter().product::<usize>()).sum();
    let pruned: f64 = layers.iter().map(|p| p.sparsity() * p.shape.iter().product::<usize>() as f64).sum();
    let targets: Vec<&str> = layers.iter().map(|packed| packed.name.as_str()).collect();
    json!({"format": format, "sparsity_structure": structure, "global_sparsity": pruned / count.max(1) as f64,
        "targets": targets, "ignore": untouched(layers, places)})
}

pub fn decode_sparse(reader: &Reader<'_>, place: &LayerPlace) -> Result<Packed> {
    let named = |ending: &str| format!("{}.{ending}", place.name);
    let (rows, columns) = (place.outputs(), place.inputs());
    let name = named("bitmask");
    let keep = from_bitmask(&reader.u8(&name)?.1, rows, columns)
        .ok_or_else(|| reader.bad(&name, format!("is no mask of {rows} × {columns} weights")))?;
    let name = named("compressed");
    let (shape, values) = reader.floats(&name)?;
    let kept = keep.iter().filter(|&&keep| keep).count();
    if values.len() != kept {
        return Err(reader.bad(&name, format!("holds {} values, but the mask keeps {kept}", values.len())));
    }
    let mut values = values.into_iter();
    let weight = keep.mapv(|keep| if keep { values.next().unwrap_or(0.0) } else { 0.0 });
    let pattern = if shape.len() == 2 { Pattern::NofM { n: 2, m: 4 } } else { Pattern::Unstructured };
    Ok(Packed::floats(&place.name, &place.shape, weight, Some(Mask { keep, pattern })))
}
