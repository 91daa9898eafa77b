//! Running a graph.

use super::{Affine, Attention, Conv, Graph, Node, Nonlinearity, Op, Projections};
use candle_core::{DType, Device, Result, Tensor, Var, bail};
use offprint_nn::models::attention::{Rotary, join_heads, repeat_heads, split_heads};
use offprint_nn::ops::{self, Mask, Mode, RunningStatistics};
use std::collections::HashMap;

/// Tensors by name, as a graph asks for them.
pub type Named = HashMap<String, Var>;

impl Graph {
    /// The output of every node for `x`, in order; in training each batch norm updates its running statistics.
    ///
    /// # Errors
    /// A tensor that is missing, or shapes that do not fit; the message names the node.
    pub fn outputs(&self, tensors: &Named, x: &Tensor, mode: Mode) -> Result<Vec<Tensor>> {
        let mut outputs: Vec<Tensor> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let inputs: Vec<&Tensor> = node.inputs.iter().map(|&from| &outputs[from]).collect();
            let y = match node.op {
                Op::Input { .. } => Ok(x.clone()),
                _ => run(node, tensors, &inputs, mode),
            };
            outputs.push(y.map_err(|e| e.context(format!("node \"{}\"", node.name)))?);
        }
        Ok(outputs)
    }
}

fn tensor<'a>(tensors: &'a Named, name: &str) -> Result<&'a Tensor> {
    var(tensors, name).map(Var::as_tensor)
}

fn var<'a>(tensors: &'a Named, name: &str) -> Result<&'a Var> {
    match tensors.get(name) {
        Some(var) => Ok(var),
        None => bail!("there is no tensor \"{name}\""),
    }
}

fn affine(x: &Tensor, layer: &Affine, tensors: &Named) -> Result<Tensor> {
    let bias = layer.bias().map(|name| tensor(tensors, &name)).transpose()?;
    ops::linear(x, tensor(tensors, &layer.weight())?, bias)
}

fn run(node: &Node, tensors: &Named, inputs: &[&Tensor], mode: Mode) -> Result<Tensor> {
    let x = match inputs.first() {
        Some(x) => *x,
        None => bail!("has no input"),
    };
    let weight = |at: &str| tensor(tensors, &format!("{at}.weight"));
    let bias = |at: &str| tensor(tensors, &format!("{at}.bias"));
    match &node.op {
        Op::Input { .. } => Ok(x.clone()),
        Op::Linear(layer) => affine(x, layer, tensors),
        Op::Conv2d { layer } => convolve(x, layer, tensors),
        Op::ConvTranspose2d { at, bias: biased, stride, padding } => {
            let y = x.conv_transpose2d(weight(at)?, *padding, 0, *stride, 1)?;
            if *biased { y.broadcast_add(&bias(at)?.reshape((1, (), 1, 1))?) } else { Ok(y) }
        }
        Op::Embedding { at } => ops::embedding(weight(at)?, x),
        Op::PositionEmbedding { at } => {
            let (n, positions) = x.dims2()?;
            let ids = Tensor::arange(0, positions as u32, &Device::Cpu)?.broadcast_as((n, positions))?.contiguous()?;
            ops::embedding(weight(at)?, &ids)
        }
        Op::BatchNorm { at, eps } => {
            let running = |name: &str| var(tensors, &format!("{at}.{name}")).cloned();
            let running =
                RunningStatistics { mean: running("running_mean")?, var: running("running_var")?, momentum: 0.1 };
            ops::batch_norm(x, weight(at)?, bias(at)?, &running, *eps, mode)
        }
        Op::LayerNorm { at, eps } => ops::layer_norm(x, weight(at)?, bias(at)?, *eps),
        Op::RmsNorm { at, eps } => ops::rms_norm(x, weight(at)?, *eps),
        Op::GroupNorm { at, groups, eps } => ops::group_norm(x, weight(at)?, bias(at)?, *groups, *eps),
        Op::Activation { kind } => activate(x, *kind),
        Op::Add => inputs[1..].iter().try_fold(x.clone(), |sum, y| sum + *y),
        Op::Mul => inputs[1..].iter().try_fold(x.clone(), |product, y| product * *y),
        Op::Concat => Tensor::cat(inputs, channel_axis(x)),
        Op::MaxPool { size } => squares(x, *size)?.max(5)?.max(3),
        Op::AvgPool { size } => squares(x, *size)?.mean(5)?.mean(3),
        Op::MeanPlaces => {
            x.dims4()?;
            x.flatten_from(2)?.mean(2)
        }
        Op::MeanTokens => x.mean(1),
        Op::FirstToken => x.get_on_dim(1, 0)?.contiguous(),
        Op::Flatten => x.flatten_from(1),
        Op::ToTokens => {
            x.dims4()?;
            x.flatten_from(2)?.transpose(1, 2)?.contiguous()
        }
        Op::PrependToken { weight } => {
            let (n, _, width) = x.dims3()?;
            Tensor::cat(&[&tensor(tensors, weight)?.broadcast_as((n, 1, width))?.contiguous()?, x], 1)
        }
        Op::AddLearned { weight } => x.broadcast_add(tensor(tensors, weight)?),
        Op::Attention(attention) => attend(x, attention, tensors),
    }
}

/// The axis of an output on which its channels lie.
fn channel_axis(x: &Tensor) -> usize {
    if x.rank() == 4 { 1 } else { x.rank().saturating_sub(1) }
}

fn convolve(x: &Tensor, layer: &Conv, tensors: &Named) -> Result<Tensor> {
    let names = layer.affine();
    let bias = names.bias().map(|name| tensor(tensors, &name)).transpose()?;
    ops::conv2d(x, tensor(tensors, &names.weight())?, bias, &layer.geometry())
}

fn activate(x: &Tensor, kind: Nonlinearity) -> Result<Tensor> {
    match kind {
        Nonlinearity::Relu => ops::relu(x),
        Nonlinearity::Gelu => ops::gelu(x),
        Nonlinearity::Silu => ops::silu(x),
        Nonlinearity::Tanh => ops::tanh(x),
        Nonlinearity::Sigmoid => ops::sigmoid(x),
        // log(1 + eˣ) without overflow: max(x, 0) + log(1 + e^−|x|).
        Nonlinearity::Softplus => x.relu()? + (x.abs()?.neg()?.exp()? + 1.0)?.log()?,
    }
}

/// (n, c, h, w) as (n, c, h / size, size, w / size, size).
fn squares(x: &Tensor, size: usize) -> Result<Tensor> {
    let (n, c, height, width) = x.dims4()?;
    if size == 0 || !height.is_multiple_of(size) || !width.is_multiple_of(size) {
        bail!("squares of side {size} do not tile {height} × {width}");
    }
    x.reshape((n, c, height / size, size, width / size, size))
}

fn attend(x: &Tensor, attention: &Attention, tensors: &Named) -> Result<Tensor> {
    let Attention { heads, kv_heads, causal, .. } = *attention;
    if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
        bail!("{kv_heads} heads of keys do not divide {heads} heads");
    }
    let mask = if causal { Mask::Causal } else { Mask::None };
    let joined = match &attention.projections {
        Projections::Fused { qkv } if kv_heads == heads && attention.rope_theta.is_none() => {
            ops::self_attention(&affine(x, qkv, tensors)?, heads, mask)?
        }
        projections => {
            let [q, k, v] = projected(x, projections, heads, kv_heads, tensors)?;
            let (mut q, mut k) = (split_heads(&q, heads)?, split_heads(&k, kv_heads)?);
            if let Some(theta) = attention.rope_theta {
                let (_, _, positions, d) = q.dims4()?;
                if !d.is_multiple_of(2) {
                    bail!("heads have {d} components, but rotary positions turn pairs");
                }
                let rotary = Rotary::new(d, theta, positions, x.dtype())?;
                (q, k) = (rotary.turn(&q)?, rotary.turn(&k)?);
            }
            let (times, v) = (heads / kv_heads, split_heads(&v, kv_heads)?);
            join_heads(&ops::attention(&q, &repeat_heads(&k, times)?, &repeat_heads(&v, times)?, mask)?)?
        }
    };
    affine(&joined, &attention.output, tensors)
}

fn projected(
    x: &Tensor,
    projections: &Projections,
    heads: usize,
    kv_heads: usize,
    tensors: &Named,
) -> Result<[Tensor; 3]> {
    match projections {
        Projections::Fused { qkv } => {
            let all = affine(x, qkv, tensors)?;
            let d = all.dim(2)? / (heads + 2 * kv_heads);
            let part = |start: usize, heads: usize| all.narrow(2, start * d, heads * d)?.contiguous();
            Ok([part(0, heads)?, part(heads, kv_heads)?, part(heads + kv_heads, kv_heads)?])
        }
        Projections::Separate { query, key, value } => {
            Ok([affine(x, query, tensors)?, affine(x, key, tensors)?, affine(x, value, tensors)?])
        }
    }
}

/// A sample of zeros that the graph reads, with the given type of numbers.
pub(in crate::hesso) fn zeros(shape: &[usize], vocabulary: Option<usize>, dtype: DType) -> Result<Tensor> {
    let dtype = if vocabulary.is_some() { DType::U32 } else { dtype };
    Tensor::zeros([&[1], shape].concat(), dtype, &Device::Cpu)
}
