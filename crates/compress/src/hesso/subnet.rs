//! Cutting zero groups out: a smaller network with the same outputs.

use super::graph::{self, Attention, Op, Projections};
use super::net::Net;
use super::space::{Kind, Space};
use candle_core::{Device, Tensor, Var};
use offprint_core::{Error, Result};
use offprint_nn::params::Init;
use offprint_nn::{Params, Weights, computation};
use std::collections::HashMap;

/// The network without the groups whose `removed` is true. What produces them must be zero; then the outputs are those of
/// `net` up to rounding.
///
/// A component of attention heads that loses components keeps its scores by a factor √(d′/d) on its queries, because
/// attention divides by the root of the width of a head.
///
/// # Errors
/// `removed` of another length than the groups; a component of which nothing would be left; a removed group that is not
/// zero.
pub fn compact(net: &Net, space: &Space, removed: &[bool]) -> Result<Net> {
    check(net, space, removed)?;
    // Places that go, by tensor and axis.
    let mut gone: HashMap<(usize, usize), Vec<bool>> = HashMap::new();
    for (group, _) in space.groups.iter().zip(removed).filter(|(_, removed)| **removed) {
        for slice in group.owned.iter().chain(&group.followers) {
            let along = space.tensors[slice.tensor].shape[slice.axis];
            let gone = gone.entry((slice.tensor, slice.axis)).or_insert_with(|| vec![false; along]);
            gone[slice.start..slice.start + slice.len].fill(true);
        }
    }
    let scales = query_scales(net, space, removed);
    let mut tensors: HashMap<&str, Tensor> = HashMap::new();
    for (number, place) in space.tensors.iter().enumerate() {
        let mut tensor = tensor(net.params(), &place.name)?.clone();
        if let Some((rows, factor)) = scales.get(&place.name) {
            tensor = scaled_rows(&tensor, *rows, *factor).map_err(computation)?;
        }
        for axis in 0..place.shape.len() {
            if let Some(gone) = gone.get(&(number, axis)) {
                let kept: Vec<u32> = (0..).zip(gone).filter(|(_, gone)| !**gone).map(|(i, _)| i).collect();
                let kept = Tensor::from_slice(&kept, kept.len(), &Device::Cpu).map_err(computation)?;
                tensor = tensor.index_select(&kept, axis).map_err(computation)?;
            }
        }
        tensors.insert(&place.name, tensor);
    }
    let graph = net.graph().map(|number, op| {
        let mut op = op.clone();
        match &mut op {
            Op::Attention(attention) => shrink_heads(attention, number, space, removed),
            Op::Conv2d { layer } if layer.groups > 1 => {
                // Only depthwise convolutions lose channels, and they have as many groups as rows.
                let rows = tensors[layer.affine().weight().as_str()].dims()[0];
                if tensor(net.params(), &layer.affine().weight()).is_ok_and(|w| w.dims()[0] == layer.groups) {
                    layer.groups = rows;
                }
            }
            Op::GroupNorm { at, groups, .. } => {
                let name = format!("{at}.weight");
                if tensor(net.params(), &name).is_ok_and(|w| w.dims()[0] == *groups) {
                    *groups = tensors[name.as_str()].dims()[0];
                }
            }
            _ => {}
        }
        op
    });
    // Fresh tensors of the new shapes, in the order of the old ones, then their values.
    let weights = Weights::fresh(0, net.params().dtype())?;
    for param in net.params().trained() {
        weights.param(
            &param.name,
            tensors.get(param.name.as_str()).map_or(param.var.dims(), Tensor::dims),
            Init::Constant(0.0),
        )?;
    }
    for param in net.params().buffers() {
        weights.buffer(
            &param.name,
            tensors.get(param.name.as_str()).map_or(param.var.dims(), Tensor::dims),
            Init::Constant(0.0),
        )?;
    }
    let params = weights.finish(&[])?;
    for param in params.trained().iter().chain(params.buffers()) {
        let value = match tensors.get(param.name.as_str()) {
            Some(value) => value.clone(),
            None => tensor(net.params(), &param.name)?.clone(),
        };
        param.var.set(&value.contiguous().map_err(computation)?).map_err(computation)?;
    }
    let architecture = net.architecture().map(|old| graph::shape_of(old, &graph, &params));
    Ok(Net::new(graph, params)?.with_architecture(architecture))
}

fn tensor<'a>(params: &'a Params, name: &str) -> Result<&'a Tensor> {
    params.get(name).map(Var::as_tensor).ok_or_else(|| Error::input("graph", format!("there is no tensor \"{name}\"")))
}

fn check(net: &Net, space: &Space, removed: &[bool]) -> Result<()> {
    if removed.len() != space.groups.len() {
        let allowed = format!("one word for each of {} groups", space.groups.len());
        return Err(Error::parameter("removed", format!("{} words", removed.len()), allowed));
    }
    if let Some(c) = space.components.iter().find(|c| removed[c.groups.clone()].iter().all(|&removed| removed)) {
        return Err(Error::parameter(
            "removed",
            format!("all of \"{}\"", c.name),
            "such that each component keeps a group",
        ));
    }
    let values = space
        .tensors
        .iter()
        .map(|place| {
            tensor(net.params(), &place.name)?
                .flatten_all()
                .and_then(|t| t.to_dtype(candle_core::DType::F64)?.to_vec1::<f64>())
                .map_err(computation)
        })
        .collect::<Result<Vec<_>>>()?;
    for (number, group) in space.groups.iter().enumerate().filter(|(i, _)| removed[*i]) {
        let stretch = group.stretches.iter().find(|s| values[s.tensor][s.elements.clone()].iter().any(|&x| x != 0.0));
        if let Some(stretch) = stretch {
            let name = &space.tensors[stretch.tensor].name;
            let allowed = format!("zero everywhere; \"{name}\" is not");
            return Err(Error::parameter("removed", format!("group {number}"), allowed));
        }
    }
    Ok(())
}

/// Queries whose heads lose components: tensor name to (its rows of queries, the factor).
fn query_scales(net: &Net, space: &Space, removed: &[bool]) -> HashMap<String, (usize, f64)> {
    let mut scales = HashMap::new();
    for component in &space.components {
        let Kind::HeadDims(number) = component.kind else { continue };
        let Op::Attention(attention) = &net.graph().nodes()[number].op else { continue };
        let d = component.groups.len();
        let kept = removed[component.groups.clone()].iter().filter(|removed| !**removed).count();
        let layer = match &attention.projections {
            Projections::Fused { qkv } => qkv,
            Projections::Separate { query, .. } => query,
        };
        let change = (attention.heads * d, (kept as f64 / d as f64).sqrt());
        scales.extend(std::iter::once(layer.weight()).chain(layer.bias()).map(|name| (name, change)));
    }
    scales
}

/// The first `rows` rows times `factor`.
fn scaled_rows(tensor: &Tensor, rows: usize, factor: f64) -> candle_core::Result<Tensor> {
    let all = tensor.dim(0)?;
    let first = (tensor.narrow(0, 0, rows)? * factor)?;
    if rows == all { Ok(first) } else { Tensor::cat(&[&first, &tensor.narrow(0, rows, all - rows)?], 0) }
}

fn shrink_heads(attention: &mut Attention, number: usize, space: &Space, removed: &[bool]) {
    let Some(component) = space.components.iter().find(|c| c.kind == Kind::Heads(number)) else { return };
    let kept = removed[component.groups.clone()].iter().filter(|removed| !**removed).count();
    attention.heads = attention.heads / attention.kv_heads.max(1) * kept;
    attention.kv_heads = kept;
}
