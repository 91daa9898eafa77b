//! HESSO: what can be removed, what is removed, and what is left.

use candle_core::{DType, Device, Tensor};
use offprint_compress::hesso::graph::{self, Graph, examples};
use offprint_compress::hesso::{
    Base, Choice, Cric, CricSettings, Criteria, Criterion, Group, Hesso, Inside, Kind, Moments, Net, Pace, Ranking,
    Settings, Space, Status, Stretch, Training, compact, moments, prune_now, quotas, target,
};
use offprint_core::Progress;
use offprint_core::random::Streams;
use offprint_nn::derivatives::Loss;
use offprint_nn::models::{Activation, GptConfig, LlamaConfig, MlpConfig, Norm, ResNetConfig, ViTConfig};
use offprint_nn::optim::{Adam, AdamSettings, Optimizer, Sgd, SgdSettings};
use offprint_nn::train::Schedule;
use offprint_nn::{Architecture, Batch, Network, Params};
use proptest::prelude::*;
use rand::RngExt;
use std::sync::Arc;

/// Every parameter and running statistic at random, so that no identity hides behind a zero or a one.
fn shuffle(params: &Params, seed: u64) {
    for (i, param) in params.trained().iter().chain(params.buffers()).enumerate() {
        let mut rng = Streams::new(seed).stream("test").rng(i as u64);
        let low = if param.name.ends_with("running_var") { 0.5 } else { -0.7 };
        let values: Vec<f64> = (0..param.var.elem_count()).map(|_| rng.random_range(low..1.0)).collect();
        let tensor = Tensor::from_vec(values, param.var.shape(), &Device::Cpu).unwrap();
        param.var.set(&tensor.to_dtype(param.var.dtype()).unwrap()).unwrap();
    }
}

fn samples(shape: &[usize], vocabulary: Option<usize>, n: usize, dtype: DType) -> Tensor {
    let mut rng = Streams::new(3).stream("samples").rng(0);
    let count = n * shape.iter().product::<usize>();
    let shape = [&[n], shape].concat();
    match vocabulary {
        Some(v) => {
            let ids: Vec<u32> = (0..count).map(|_| rng.random_range(0..v as u32)).collect();
            Tensor::from_vec(ids, shape, &Device::Cpu).unwrap()
        }
        None => {
            let x: Vec<f64> = (0..count).map(|_| rng.random_range(-1.0..1.0)).collect();
            Tensor::from_vec(x, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
        }
    }
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

/// The largest difference, relative to the largest number.
fn difference(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (numbers(a), numbers(b));
    assert_eq!(a.len(), b.len());
    let largest = a.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    a.iter().zip(&b).fold(0.0f64, |m, (x, y)| m.max((x - y).abs())) / largest
}

fn architectures() -> Vec<(Architecture, Vec<usize>)> {
    let llama = |tie| LlamaConfig {
        vocab_size: 11,
        hidden_size: 16,
        intermediate_size: 20,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        max_position_embeddings: 8,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        tie_word_embeddings: tie,
    };
    let gpt = |norm| GptConfig { vocabulary: 11, context: 8, width: 12, heads: 3, depth: 2, mlp: 14, norm };
    let vit = |class_token| ViTConfig { depth: 2, class_token, ..ViTConfig::digits() };
    vec![
        (Architecture::Mlp(MlpConfig { widths: vec![5, 8, 6, 3], activation: Activation::Relu }), vec![5]),
        (Architecture::DigitsCnn { classes: 4 }, vec![1, 8, 8]),
        (Architecture::ResNet(ResNetConfig { channels: 2, widths: vec![6, 8], blocks: 2, classes: 3 }), vec![2, 8, 8]),
        (Architecture::ViT(vit(false)), vec![1, 8, 8]),
        (Architecture::ViT(vit(true)), vec![1, 8, 8]),
        (Architecture::Gpt(gpt(Norm::Layer)), vec![6]),
        (Architecture::Gpt(gpt(Norm::Rms)), vec![6]),
        (Architecture::Llama(llama(true)), vec![6]),
        (Architecture::Llama(llama(false)), vec![6]),
    ]
}

/// Zeroes a random part of each component.
fn random_removal(net: &Net, space: &Space, seed: u64) -> Vec<bool> {
    let mut rng = Streams::new(seed).stream("removal").rng(0);
    let mut removed = vec![false; space.groups.len()];
    for component in &space.components {
        let stays = rng.random_range(component.groups.clone());
        for group in component.groups.clone().filter(|&g| g != stays) {
            removed[group] = rng.random_bool(0.5);
        }
    }
    let params = net.params();
    for (group, _) in space.groups.iter().zip(&removed).filter(|(_, r)| **r) {
        for Stretch { tensor, elements } in &group.stretches {
            let var = params.get(&space.tensors[*tensor].name).unwrap();
            let mut values = numbers(var);
            values[elements.clone()].fill(0.0);
            let tensor = Tensor::from_vec(values, var.shape(), &Device::Cpu).unwrap();
            var.set(&tensor.to_dtype(var.dtype()).unwrap()).unwrap();
        }
    }
    removed
}

#[test]
fn a_graph_computes_what_its_architecture_computes() {
    for (architecture, shape) in architectures() {
        let network = Network::fresh(&architecture, 1, DType::F64).unwrap();
        shuffle(network.params(), 2);
        let net = Net::of(&network, &shape).unwrap();
        let x = samples(&shape, net.graph().input().1, 3, DType::F64);
        let difference = difference(&network.forward(&x).unwrap(), &net.forward(&x).unwrap());
        assert!(difference < 1e-12, "{architecture:?}: {difference}");
    }
}

#[test]
fn a_slim_architecture_loads_what_a_cut_saves_and_computes_the_same() {
    for (seed, (architecture, shape)) in architectures().into_iter().enumerate() {
        for inside in [Inside::Heads, Inside::HeadDims] {
            let network = Network::fresh(&architecture, 1, DType::F64).unwrap();
            shuffle(network.params(), 2);
            let net = Net::of(&network, &shape).unwrap();
            let space = Space::search(&net, inside, &[]).unwrap();
            let removed = random_removal(&net, &space, seed as u64);
            let small = compact(&net, &space, &removed).unwrap();
            assert!(small.params().count() < net.params().count(), "{architecture:?}");
            let x = samples(&shape, net.graph().input().1, 3, DType::F64);
            let full = net.forward(&x).unwrap();
            let off = difference(&full, &small.forward(&x).unwrap());
            assert!(off < 1e-12, "{architecture:?}: {off}");

            let directory = tempfile::tempdir().unwrap();
            let weights = directory.path().join("model.safetensors");
            offprint_nn::checkpoint::save(&weights, &small.params().snapshot().unwrap(), &Default::default()).unwrap();
            let config = serde_json::to_string(small.architecture().unwrap()).unwrap();
            std::fs::write(directory.path().join("config.json"), &config).unwrap();
            let loaded = Network::load(directory.path(), None, DType::F64).unwrap_or_else(|e| panic!("{config}: {e}"));
            let off = difference(&full, &loaded.forward(&x).unwrap());
            assert!(off < 1e-12, "{config}: {off}");
            // What is loaded can be pruned again.
            assert_eq!(Net::of(&loaded, &shape).unwrap().graph(), small.graph());
        }
    }
}

#[test]
fn cutting_zero_groups_leaves_the_function_of_every_kind_of_coupling() {
    for name in examples::NAMES {
        for (dtype, tolerance) in [(DType::F32, 1e-5), (DType::F64, 1e-12)] {
            for seed in 0..6 {
                let net = examples::example(name, 1, dtype).unwrap().unwrap();
                shuffle(net.params(), seed);
                let inside = if seed % 2 == 0 { Inside::Heads } else { Inside::HeadDims };
                let space = Space::search(&net, inside, &[]).unwrap();
                assert!(!space.components.is_empty(), "{name}");
                let removed = random_removal(&net, &space, seed);
                let small = compact(&net, &space, &removed).unwrap();
                let x = samples(net.graph().input().0, None, 4, dtype);
                let off = difference(&net.forward(&x).unwrap(), &small.forward(&x).unwrap());
                assert!(off <= tolerance, "{name}, {dtype:?}: {off}");
            }
        }
    }
}

fn widths(name: &str) -> Vec<(String, usize)> {
    let net = examples::example(name, 1, DType::F32).unwrap().unwrap();
    let space = Space::search(&net, Inside::Heads, &[]).unwrap();
    space.components.iter().map(|c| (c.name.clone(), c.groups.len())).collect()
}

#[test]
fn couplings_are_those_worked_out_by_hand() {
    let named = |list: &[(&str, usize)]| list.iter().map(|(n, w)| ((*n).to_owned(), *w)).collect::<Vec<_>>();
    assert_eq!(widths("perceptron"), named(&[("fc1", 9), ("fc2", 7)]));
    assert_eq!(widths("residual"), named(&[("stem + a2 + b2", 8), ("a1", 5), ("b1", 5)]));
    // The wide layer's first four channels go with the left one's, the other five with the right one's.
    assert_eq!(widths("concatenated"), named(&[("stem", 6), ("left + wide", 4), ("right + wide", 5)]));
    assert_eq!(widths("depthwise"), named(&[("expand", 8), ("project", 5)]));
    assert_eq!(widths("flattened"), named(&[("conv", 6), ("value + gate", 10)]));
    assert_eq!(widths("transposed"), named(&[("down", 7), ("up", 6), ("last", 5)]));
    let block = |i: usize| [(format!("{i}.attention (heads)"), 2), (format!("{i}.fc1"), 12)];
    assert_eq!(widths("attention"), [block(0), block(1)].concat());
}

#[test]
fn what_stays_says_why() {
    let why = |net: &Net, inside, part: &str| {
        let space = Space::search(net, inside, &[]).unwrap();
        space.fixed.iter().find(|f| f.name.contains(part)).unwrap_or_else(|| panic!("{part}")).why.clone()
    };
    let net = |name: &str| examples::example(name, 1, DType::F32).unwrap().unwrap();
    assert!(why(&net("flattened"), Inside::Heads, "squashed").contains("activation"));
    assert!(why(&net("flattened"), Inside::Heads, "fc").contains("output"));
    assert!(why(&net("attention"), Inside::Heads, "patches").contains("norm"));
    let all = architectures();
    let of = |i: usize| {
        let (architecture, shape) = &all[i];
        Net::of(&Network::fresh(architecture, 1, DType::F32).unwrap(), shape).unwrap()
    };
    // A table that the head shares, a stream under norms, and components that rotary positions turn in pairs.
    assert!(why(&of(5), Inside::Heads, "wte").contains("norm") || why(&of(5), Inside::Heads, "wte").contains("serves"));
    assert!(why(&of(7), Inside::HeadDims, "self_attn (head components)").contains("rotary"));
    let kept = Space::search(&net("residual"), Inside::Heads, &["a1".into()]).unwrap();
    assert_eq!(kept.components.len(), 2);
    let error = Space::search(&net("residual"), Inside::Heads, &["a3".into()]).unwrap_err().to_string();
    assert!(error.starts_with("keep: got a3") && error.contains("a2"), "{error}");
}

#[test]
fn resnet_18_has_the_groups_that_its_authors_count() {
    let config = ResNetConfig { channels: 3, widths: vec![64, 128, 256, 512], blocks: 2, classes: 10 };
    let network = Network::fresh(&Architecture::ResNet(config), 0, DType::F32).unwrap();
    let space = Space::search(&Net::of(&network, &[3, 8, 8]).unwrap(), Inside::Heads, &[]).unwrap();
    // Tutorial 1 of the authors' code: 2880 groups, of which 2015 go at K = 0.7.
    assert_eq!(space.groups.len(), 2880);
    assert_eq!(target(2880, 0.7), 2015);
    assert_eq!(quotas(2015, 10), [[201; 9].as_slice(), &[206]].concat());
    // Tutorial 3, CARN.
    assert_eq!(quotas(target(1408, 0.6), 10), [[84; 9].as_slice(), &[88]].concat());
    assert_eq!(space.components.iter().filter(|c| c.kind == Kind::Channels).count(), 12);
}

#[test]
fn graphs_read_back_as_written_and_bad_ones_are_named() {
    for name in examples::NAMES {
        let net = examples::example(name, 1, DType::F32).unwrap().unwrap();
        let text = net.graph().to_json().to_string();
        assert_eq!(&Graph::from_json(&text, "graph.json").unwrap(), net.graph());
    }
    let input = r#"{"name": "x", "op": "input", "shape": [4]}"#;
    let read =
        |nodes: &str| Graph::from_json(&format!(r#"{{"nodes": [{nodes}]}}"#), "graph.json").unwrap_err().to_string();
    for (nodes, says) in [
        ("", "first node must be the input"),
        (r#"{"name": "a", "op": "flatten", "inputs": ["a"]}"#, "first node"),
        (&format!(r#"{input}, {{"name": "a", "op": "fold", "inputs": ["x"]}}"#), "fold"),
        (&format!(r#"{input}, {{"name": "a", "op": "flatten", "inputs": ["y"]}}"#), "\"y\", which is no node"),
        (&format!(r#"{input}, {{"name": "a", "op": "flatten", "inputs": ["a"]}}"#), "before it"),
        (&format!(r#"{input}, {{"name": "a", "op": "add", "inputs": ["x"]}}"#), "1 inputs"),
        (&format!(r#"{input}, {{"name": "x", "op": "flatten", "inputs": ["x"]}}"#), "stands twice"),
        (&format!("{input}, {}", input.replace("\"x\"", "\"z\"")), "second input"),
        (&format!(r#"{input}, {{"name": "a", "op": "linear", "inputs": ["x"]}}"#), "at"),
    ] {
        let error = read(nodes);
        assert!(error.contains(says) && error.starts_with("graph.json"), "{says}: {error}");
    }
    let graph = Graph::from_json(
        &format!(r#"{{"nodes": [{input}, {{"name": "a", "op": "linear", "at": "a", "inputs": ["x"]}}]}}"#),
        "graph.json",
    )
    .unwrap();
    let shapes = [("a.weight".to_owned(), vec![2, 5]), ("a.bias".to_owned(), vec![2])];
    let error = Net::fresh(graph, &shapes, 0, DType::F32).unwrap_err().to_string();
    assert!(error.contains("node \"a\"") && error.contains("does not run"), "{error}");
}
