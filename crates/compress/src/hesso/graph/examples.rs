//! Small networks with every kind of coupling, to try a search and a cut on.

use super::op::Conv;
use super::{Affine, Attention, Builder, Nonlinearity, Op, Projections};
use crate::hesso::Net;
use candle_core::DType;
use offprint_core::Result;
use offprint_nn::ops::Conv2d;

/// The names of all examples.
pub const NAMES: [&str; 7] =
    ["perceptron", "residual", "concatenated", "depthwise", "flattened", "transposed", "attention"];

/// The example called `name` (one of [`NAMES`]) with fresh tensors of `seed`; `None` for another name.
///
/// # Errors
/// None in practice.
pub fn example(name: &str, seed: u64, dtype: DType) -> Option<Result<Net>> {
    let mut sketch = Sketch::default();
    let builder = match name {
        "perceptron" => perceptron(&mut sketch),
        "residual" => residual(&mut sketch),
        "concatenated" => concatenated(&mut sketch),
        "depthwise" => depthwise(&mut sketch),
        "flattened" => flattened(&mut sketch),
        "transposed" => transposed(&mut sketch),
        "attention" => attention(&mut sketch),
        _ => return None,
    };
    Some(builder.finish().and_then(|graph| Net::fresh(graph, &sketch.shapes, seed, dtype)))
}

/// The shapes of the tensors of a graph under construction.
#[derive(Default)]
struct Sketch {
    shapes: Vec<(String, Vec<usize>)>,
}

impl Sketch {
    fn vectors(&mut self, at: &str, names: &[&str], width: usize) {
        self.shapes.extend(names.iter().map(|name| (format!("{at}.{name}"), vec![width])));
    }

    fn weight(&mut self, at: &str, shape: &[usize]) {
        self.shapes.push((format!("{at}.weight"), shape.to_vec()));
    }

    fn linear(&mut self, graph: &mut Builder, at: &str, (inputs, outputs): (usize, usize), x: usize) -> usize {
        self.weight(at, &[outputs, inputs]);
        self.vectors(at, &["bias"], outputs);
        graph.linear(at, x)
    }

    /// A 3 × 3 convolution, a batch norm and a ReLU.
    fn conv(&mut self, graph: &mut Builder, at: &str, (inputs, outputs): (usize, usize), x: usize) -> usize {
        let y = self.conv_norm(graph, at, (inputs, outputs), x);
        graph.activation(Nonlinearity::Relu, y)
    }

    fn conv_norm(&mut self, graph: &mut Builder, at: &str, (inputs, outputs): (usize, usize), x: usize) -> usize {
        self.weight(at, &[outputs, inputs, 3, 3]);
        let norm = format!("{at}.norm");
        self.norm(&norm, outputs);
        graph.conv_norm(at, Conv2d::same(3), &norm, x)
    }

    fn norm(&mut self, at: &str, width: usize) {
        self.vectors(at, &["weight", "bias", "running_mean", "running_var"], width);
    }
}

/// The mean over places, and a linear layer.
fn classifier(sketch: &mut Sketch, graph: &mut Builder, width: usize, x: usize) {
    let x = graph.add("mean", Op::MeanPlaces, &[x]);
    sketch.linear(graph, "fc", (width, 3), x);
}

fn perceptron(sketch: &mut Sketch) -> Builder {
    let mut graph = Builder::new(&[6], None);
    let x = sketch.linear(&mut graph, "fc1", (6, 9), 0);
    let x = graph.activation(Nonlinearity::Gelu, x);
    let x = sketch.linear(&mut graph, "fc2", (9, 7), x);
    let x = graph.activation(Nonlinearity::Silu, x);
    sketch.linear(&mut graph, "fc3", (7, 4), x);
    graph
}

/// Two residual blocks on one stream: three layers tied together.
fn residual(sketch: &mut Sketch) -> Builder {
    let mut graph = Builder::new(&[2, 6, 6], None);
    let mut x = sketch.conv(&mut graph, "stem", (2, 8), 0);
    for block in ["a", "b"] {
        let y = sketch.conv(&mut graph, &format!("{block}1"), (8, 5), x);
        let y = sketch.conv_norm(&mut graph, &format!("{block}2"), (5, 8), y);
        let sum = graph.sum(y, x);
        x = graph.activation(Nonlinearity::Relu, sum);
    }
    classifier(sketch, &mut graph, 8, x);
    graph
}

/// Layers side by side, a norm behind them, and a sum with a layer as wide as both.
fn concatenated(sketch: &mut Sketch) -> Builder {
    let mut graph = Builder::new(&[2, 4, 4], None);
    let x = sketch.conv(&mut graph, "stem", (2, 6), 0);
    let left = sketch.conv(&mut graph, "left", (6, 4), x);
    let right = sketch.conv_norm(&mut graph, "right", (6, 5), x);
    let both = graph.add("both", Op::Concat, &[left, right, x]);
    sketch.norm("both.norm", 15);
    let both = graph.add("both.norm", Op::BatchNorm { at: "both.norm".into(), eps: 1e-5 }, &[both]);
    let wide = sketch.conv(&mut graph, "wide", (15, 9), both);
    let pair = graph.add("pair", Op::Concat, &[left, right]);
    let sum = graph.sum(wide, pair);
    let sum = graph.add("pool", Op::AvgPool { size: 2 }, &[sum]);
    classifier(sketch, &mut graph, 9, sum);
    graph
}

/// A convolution of each channel by itself between two of all.
fn depthwise(sketch: &mut Sketch) -> Builder {
    let mut graph = Builder::new(&[2, 6, 6], None);
    let x = sketch.conv(&mut graph, "expand", (2, 8), 0);
    sketch.weight("depth", &[8, 1, 3, 3]);
    sketch.vectors("depth", &["bias"], 8);
    let geometry = Conv2d { groups: 8, ..Conv2d::same(3) };
    let x = graph.add("depth", Op::Conv2d { layer: Conv::biased("depth", geometry) }, &[x]);
    let x = graph.activation(Nonlinearity::Tanh, x);
    sketch.vectors("instance", &["weight", "bias"], 8);
    let x = graph.add("instance", Op::GroupNorm { at: "instance".into(), groups: 8, eps: 1e-5 }, &[x]);
    let x = sketch.conv(&mut graph, "project", (8, 5), x);
    let x = graph.add("pool", Op::MaxPool { size: 2 }, &[x]);
    classifier(sketch, &mut graph, 5, x);
    graph
}

/// Channels that a linear layer reads place by place, and a gate that a sigmoid keeps from being cut.
fn flattened(sketch: &mut Sketch) -> Builder {
    let mut graph = Builder::new(&[1, 4, 4], None);
    let x = sketch.conv(&mut graph, "conv", (1, 6), 0);
    let x = graph.add("pool", Op::MaxPool { size: 2 }, &[x]);
    let x = graph.add("flat", Op::Flatten, &[x]);
    let y = sketch.linear(&mut graph, "value", (24, 10), x);
    let gate = sketch.linear(&mut graph, "gate", (24, 10), x);
    let gate = graph.activation(Nonlinearity::Silu, gate);
    let x = graph.add("gated", Op::Mul, &[y, gate]);
    let kept = sketch.linear(&mut graph, "squashed", (10, 7), x);
    let kept = graph.activation(Nonlinearity::Sigmoid, kept);
    sketch.linear(&mut graph, "fc", (7, 3), kept);
    graph
}

/// A transposed convolution between two others.
fn transposed(sketch: &mut Sketch) -> Builder {
    let mut graph = Builder::new(&[2, 4, 4], None);
    let x = sketch.conv(&mut graph, "down", (2, 7), 0);
    sketch.weight("up", &[7, 6, 2, 2]);
    sketch.vectors("up", &["bias"], 6);
    let up = Op::ConvTranspose2d { at: "up".into(), bias: true, stride: 2, padding: 0 };
    let x = graph.add("up", up, &[x]);
    let x = graph.activation(Nonlinearity::Relu, x);
    let x = sketch.conv(&mut graph, "last", (6, 5), x);
    classifier(sketch, &mut graph, 5, x);
    graph
}

/// Two blocks of a transformer over patches of an image; queries share keys and values in pairs.
fn attention(sketch: &mut Sketch) -> Builder {
    let (width, d, heads, kv_heads) = (8, 3, 4, 2);
    let mut graph = Builder::new(&[1, 4, 4], None);
    sketch.weight("patches", &[width, 1, 2, 2]);
    let strided = Conv2d { stride: 2, ..Conv2d::default() };
    let x = graph.add("patches", Op::Conv2d { layer: Conv::plain("patches", strided) }, &[0]);
    let mut x = graph.add("tokens", Op::ToTokens, &[x]);
    sketch.shapes.push(("places".into(), vec![1, 4, width]));
    x = graph.add("places", Op::AddLearned { weight: "places".into() }, &[x]);
    for block in 0..2 {
        let at = |name: &str| format!("{block}.{name}");
        sketch.vectors(&at("norm1"), &["weight", "bias"], width);
        let y = graph.add(at("norm1"), Op::LayerNorm { at: at("norm1"), eps: 1e-5 }, &[x]);
        for (name, rows, columns) in
            [("q", heads * d, width), ("k", kv_heads * d, width), ("v", kv_heads * d, width), ("o", width, heads * d)]
        {
            sketch.weight(&at(name), &[rows, columns]);
            sketch.vectors(&at(name), &["bias"], rows);
        }
        let layer = |name: &str| Affine::biased(at(name));
        let attention = Attention {
            projections: Projections::Separate { query: layer("q"), key: layer("k"), value: layer("v") },
            output: layer("o"),
            heads,
            kv_heads,
            causal: false,
            rope_theta: None,
        };
        let y = graph.add(at("attention"), Op::Attention(attention), &[y]);
        x = graph.sum(x, y);
        sketch.vectors(&at("norm2"), &["weight"], width);
        let y = graph.add(at("norm2"), Op::RmsNorm { at: at("norm2"), eps: 1e-5 }, &[x]);
        let y = sketch.linear(&mut graph, &at("fc1"), (width, 12), y);
        let y = graph.activation(Nonlinearity::Gelu, y);
        let y = sketch.linear(&mut graph, &at("fc2"), (12, width), y);
        x = graph.sum(x, y);
    }
    x = graph.add("mean", Op::MeanTokens, &[x]);
    sketch.linear(&mut graph, "head", (width, 3), x);
    graph
}
