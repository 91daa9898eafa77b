//! The architectures of `offprint_nn` as graphs, and back.

use super::{Affine, Attention, Builder, Graph, Nonlinearity, Op, Projections};
use offprint_core::Result;
use offprint_nn::models::{
    Activation, BlockShape, GptConfig, LlamaConfig, MlpConfig, Norm, ResNetConfig, Slim, ViTConfig,
};
use offprint_nn::ops::Conv2d;
use offprint_nn::{Architecture, Params, Reads};

/// The graph of `architecture` for samples of the given shape, under the names of its tensors.
///
/// # Errors
/// An architecture without layers.
pub fn of(architecture: &Architecture, sample: &[usize]) -> Result<Graph> {
    let vocabulary = match architecture.reads() {
        Reads::Tokens { vocabulary, .. } => Some(vocabulary),
        _ => None,
    };
    let mut graph = Builder::new(sample, vocabulary);
    match architecture {
        Architecture::Mlp(config) => mlp(&mut graph, config),
        Architecture::DigitsCnn { .. } | Architecture::Slim(Slim::DigitsCnn { .. }) => digits_cnn(&mut graph),
        Architecture::ResNet(config) | Architecture::Slim(Slim::ResNet { config, .. }) => resnet(&mut graph, config),
        Architecture::ViT(config) => {
            let heads = vec![config.heads; config.depth];
            vit(&mut graph, config, &heads);
        }
        Architecture::Slim(Slim::ViT { config, shapes }) => vit(&mut graph, config, &heads(shapes)),
        Architecture::Gpt(config) => gpt(&mut graph, config, &vec![config.heads; config.depth]),
        Architecture::Slim(Slim::Gpt { config, shapes }) => gpt(&mut graph, config, &heads(shapes)),
        Architecture::Llama(config) => {
            llama(&mut graph, config, &vec![config.num_attention_heads; config.num_hidden_layers]);
        }
        Architecture::Slim(Slim::Llama { config, shapes }) => llama(&mut graph, config, &heads(shapes)),
    }
    graph.finish()
}

fn heads(shapes: &[BlockShape]) -> Vec<usize> {
    shapes.iter().map(|shape| shape.heads).collect()
}

fn mlp(graph: &mut Builder, config: &MlpConfig) {
    let kind = match config.activation {
        Activation::Relu => Nonlinearity::Relu,
        Activation::Gelu => Nonlinearity::Gelu,
        Activation::Silu => Nonlinearity::Silu,
        Activation::Tanh => Nonlinearity::Tanh,
        Activation::Sigmoid => Nonlinearity::Sigmoid,
    };
    let mut x = 0;
    for i in 0..config.widths.len().saturating_sub(1) {
        if i > 0 {
            x = graph.activation(kind, x);
        }
        x = graph.linear(format!("layers.{i}"), x);
    }
}

fn digits_cnn(graph: &mut Builder) {
    let mut x = 0;
    for i in 1..=4 {
        let stride = if i % 2 == 0 { 2 } else { 1 };
        let geometry = Conv2d { stride, ..Conv2d::same(3) };
        let y = graph.conv_norm(&format!("conv{i}"), geometry, &format!("bn{i}"), x);
        let y = if i == 3 { graph.sum(y, x) } else { y };
        x = graph.activation(Nonlinearity::Relu, y);
    }
    x = graph.add("mean", Op::MeanPlaces, &[x]);
    graph.linear("fc", x);
}

fn resnet(graph: &mut Builder, config: &ResNetConfig) {
    let x = graph.conv_norm("conv1", Conv2d::same(3), "bn1", 0);
    let mut x = graph.activation(Nonlinearity::Relu, x);
    for stage in 0..config.widths.len() {
        for i in 0..config.blocks {
            let stride = if stage > 0 && i == 0 { 2 } else { 1 };
            let at = |name: &str| format!("layer{}.{i}.{name}", stage + 1);
            let strided = Conv2d { stride, ..Conv2d::same(3) };
            let y = graph.conv_norm(&at("conv1"), strided, &at("bn1"), x);
            let y = graph.activation(Nonlinearity::Relu, y);
            let y = graph.conv_norm(&at("conv2"), Conv2d::same(3), &at("bn2"), y);
            let skip = if stride == 1 {
                x
            } else {
                let projection = Conv2d { stride, ..Conv2d::default() };
                graph.conv_norm(&at("downsample.0"), projection, &at("downsample.1"), x)
            };
            let y = graph.sum(y, skip);
            x = graph.activation(Nonlinearity::Relu, y);
        }
    }
    x = graph.add("mean", Op::MeanPlaces, &[x]);
    graph.linear("fc", x);
}

/// A part of a transformer's block: the norm, what `part` adds to the stream, and the sum.
fn residual(
    graph: &mut Builder,
    norm: impl FnOnce(&str) -> Op,
    at: &str,
    x: usize,
    part: impl FnOnce(&mut Builder, usize) -> usize,
) -> usize {
    let y = graph.add(at, norm(at), &[x]);
    let y = part(graph, y);
    graph.sum(x, y)
}

fn fused(at: &str, qkv: &str, output: &str, heads: usize, causal: bool) -> Attention {
    Attention {
        projections: Projections::Fused { qkv: Affine::biased(format!("{at}.{qkv}")) },
        output: Affine::biased(format!("{at}.{output}")),
        heads,
        kv_heads: heads,
        causal,
        rope_theta: None,
    }
}

fn gelu_mlp(graph: &mut Builder, first: String, second: String, x: usize) -> usize {
    let y = graph.linear(first, x);
    let y = graph.activation(Nonlinearity::Gelu, y);
    graph.linear(second, y)
}

fn vit(graph: &mut Builder, config: &ViTConfig, heads: &[usize]) {
    let norm = |at: &str| Op::LayerNorm { at: at.into(), eps: 1e-6 };
    let strided = Conv2d { stride: config.patch, ..Conv2d::default() };
    let patches = super::Conv::biased("patch_embed.proj", strided);
    let x = graph.add("patch_embed.proj", Op::Conv2d { layer: patches }, &[0]);
    let mut x = graph.add("tokens", Op::ToTokens, &[x]);
    if config.class_token {
        x = graph.add("cls_token", Op::PrependToken { weight: "cls_token".into() }, &[x]);
    }
    x = graph.add("pos_embed", Op::AddLearned { weight: "pos_embed".into() }, &[x]);
    for (i, &heads) in heads.iter().enumerate() {
        let at = |name: &str| format!("blocks.{i}.{name}");
        let attention = fused(&at("attn"), "qkv", "proj", heads, false);
        x = residual(graph, norm, &at("norm1"), x, |graph, y| graph.add(at("attn"), Op::Attention(attention), &[y]));
        x = residual(graph, norm, &at("norm2"), x, |graph, y| gelu_mlp(graph, at("mlp.fc1"), at("mlp.fc2"), y));
    }
    x = graph.add("norm", norm("norm"), &[x]);
    let (name, op) = if config.class_token { ("first", Op::FirstToken) } else { ("mean", Op::MeanTokens) };
    x = graph.add(name, op, &[x]);
    graph.linear("head", x);
}

fn gpt(graph: &mut Builder, config: &GptConfig, heads: &[usize]) {
    let norm = |at: &str| match config.norm {
        Norm::Layer => Op::LayerNorm { at: at.into(), eps: 1e-5 },
        Norm::Rms => Op::RmsNorm { at: at.into(), eps: 1e-5 },
    };
    let words = graph.add("wte", Op::Embedding { at: "wte".into() }, &[0]);
    let places = graph.add("wpe", Op::PositionEmbedding { at: "wpe".into() }, &[0]);
    let mut x = graph.sum(words, places);
    for (i, &heads) in heads.iter().enumerate() {
        let at = |name: &str| format!("h.{i}.{name}");
        let attention = fused(&at("attn"), "c_attn", "c_proj", heads, true);
        x = residual(graph, norm, &at("ln_1"), x, |graph, y| graph.add(at("attn"), Op::Attention(attention), &[y]));
        x = residual(graph, norm, &at("ln_2"), x, |graph, y| gelu_mlp(graph, at("mlp.c_fc"), at("mlp.c_proj"), y));
    }
    x = graph.add("ln_f", norm("ln_f"), &[x]);
    graph.add("head", Op::Linear(Affine::plain("wte")), &[x]);
}

fn llama(graph: &mut Builder, config: &LlamaConfig, heads: &[usize]) {
    let norm = |at: &str| Op::RmsNorm { at: at.into(), eps: config.rms_norm_eps };
    let mut x = graph.add("model.embed_tokens", Op::Embedding { at: "model.embed_tokens".into() }, &[0]);
    for (i, &heads) in heads.iter().enumerate() {
        let at = |name: &str| format!("model.layers.{i}.{name}");
        let layer = |name: &str| Affine::plain(at(&format!("self_attn.{name}_proj")));
        let attention = Attention {
            projections: Projections::Separate { query: layer("q"), key: layer("k"), value: layer("v") },
            output: layer("o"),
            heads,
            kv_heads: heads / config.heads_per_key().max(1),
            causal: true,
            rope_theta: Some(config.rope_theta),
        };
        x = residual(graph, norm, &at("input_layernorm"), x, |graph, y| {
            graph.add(at("self_attn"), Op::Attention(attention), &[y])
        });
        x = residual(graph, norm, &at("post_attention_layernorm"), x, |graph, y| {
            let gate = graph.plain_linear(at("mlp.gate_proj"), y);
            let gate = graph.activation(Nonlinearity::Silu, gate);
            let up = graph.plain_linear(at("mlp.up_proj"), y);
            let y = graph.add(at("mlp.gated"), Op::Mul, &[gate, up]);
            graph.plain_linear(at("mlp.down_proj"), y)
        });
    }
    x = graph.add("model.norm", norm("model.norm"), &[x]);
    let head = if config.tie_word_embeddings { "model.embed_tokens" } else { "lm_head" };
    graph.add("lm_head", Op::Linear(Affine::plain(head)), &[x]);
}

/// The architecture whose widths are those of `params`, tensors of `architecture` after pruning; `graph` tells the heads.
pub fn shape_of(architecture: &Architecture, graph: &Graph, params: &Params) -> Architecture {
    let rows = |name: &str| params.get(name).and_then(|var| var.dims().first().copied()).unwrap_or(0);
    let columns = |name: &str| params.get(name).and_then(|var| var.dims().get(1).copied()).unwrap_or(0);
    let regular = match architecture {
        Architecture::Slim(slim) => slim.regular(),
        regular => regular.clone(),
    };
    // One shape a block: the heads from the graph, the rest from the tensors.
    let shapes = |mlp: &dyn Fn(usize) -> String| -> Vec<BlockShape> {
        let attentions = graph.nodes().iter().filter_map(|node| match &node.op {
            Op::Attention(attention) => Some(attention),
            _ => None,
        });
        let shape = |(i, attention): (usize, &Attention)| BlockShape {
            heads: attention.heads,
            head_dim: columns(&attention.output.weight()) / attention.heads.max(1),
            mlp: rows(&mlp(i)),
        };
        attentions.enumerate().map(shape).collect()
    };
    // Slim only where the regular form has no word for it.
    let or_regular = |slim: Slim, departs: bool| if departs { Architecture::Slim(slim) } else { slim.regular() };
    match regular {
        Architecture::Mlp(mut config) => {
            for i in 1..config.widths.len() {
                config.widths[i] = rows(&format!("layers.{}.weight", i - 1));
            }
            Architecture::Mlp(config)
        }
        Architecture::DigitsCnn { classes } => {
            let widths = [1, 2, 3, 4].map(|i| rows(&format!("conv{i}.weight")));
            let departs = widths != offprint_nn::models::DigitsCnn::WIDTHS;
            or_regular(Slim::DigitsCnn { classes, widths }, departs)
        }
        Architecture::ResNet(mut config) => {
            let mut inner = Vec::new();
            for stage in 0..config.widths.len() {
                let at = |i: usize, name: &str| format!("layer{}.{i}.{name}.weight", stage + 1);
                inner.extend((0..config.blocks).map(|i| rows(&at(i, "conv1"))));
                config.widths[stage] = rows(&at(0, "conv2"));
            }
            let departs = inner.iter().enumerate().any(|(i, &width)| width != config.widths[i / config.blocks]);
            or_regular(Slim::ResNet { config, inner }, departs)
        }
        Architecture::ViT(config) => {
            let shapes = shapes(&|i| format!("blocks.{i}.mlp.fc1.weight"));
            let same = BlockShape { heads: config.heads, head_dim: config.width / config.heads, mlp: config.mlp };
            let departs = shapes.iter().any(|&shape| shape != same);
            or_regular(Slim::ViT { config, shapes }, departs)
        }
        Architecture::Gpt(config) => {
            let shapes = shapes(&|i| format!("h.{i}.mlp.c_fc.weight"));
            let same = BlockShape { heads: config.heads, head_dim: config.width / config.heads, mlp: config.mlp };
            let departs = shapes.iter().any(|&shape| shape != same);
            or_regular(Slim::Gpt { config, shapes }, departs)
        }
        Architecture::Llama(config) => {
            let shapes = shapes(&|i| format!("model.layers.{i}.mlp.gate_proj.weight"));
            let same = BlockShape {
                heads: config.num_attention_heads,
                head_dim: config.head_dim(),
                mlp: config.intermediate_size,
            };
            let departs = shapes.iter().any(|&shape| shape != same);
            or_regular(Slim::Llama { config, shapes }, departs)
        }
        slim @ Architecture::Slim(_) => slim,
    }
}
