//! HESSO: what can be removed, what is removed, and what is left.

use candle_core::{DType, Device, Tensor};
use offprint_compress::hesso::graph::{Graph, examples};
use offprint_compress::hesso::{
    Base, Choice, Criteria, Criterion, Group, Hesso, Inside, Kind, Moments, Net, Pace, Pruning, Ranking, Settings,
    Space, Status, Stretch, Training, Way, compact, judge, kept, moments, quotas, target,
};
use offprint_core::Progress;
use offprint_core::random::Streams;
use offprint_nn::derivatives::Loss;
use offprint_nn::models::{Activation, GptConfig, LlamaConfig, MlpConfig, Norm, ResNetConfig, ViTConfig};
use offprint_nn::optim::{AdamSettings, Optimizer, SgdSettings};
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

/// Ten classes of noisy directions in 12 dimensions.
fn toy(n: usize) -> Batch {
    let mut rng = Streams::new(9).stream("toy").rng(0);
    let centres: Vec<f64> = (0..4 * 12).map(|_| rng.random_range(-1.0..1.0)).collect();
    let classes: Vec<u32> = (0..n).map(|i| i as u32 % 4).collect();
    let x: Vec<f64> = classes
        .iter()
        .flat_map(|&c| (0..12).map(|j| centres[c as usize * 12 + j] + rng.random_range(-0.6..0.6)).collect::<Vec<_>>())
        .collect();
    Batch {
        inputs: Tensor::from_vec(x, (n, 12), &Device::Cpu).unwrap(),
        targets: Tensor::from_vec(classes, n, &Device::Cpu).unwrap(),
    }
}

fn toy_net(seed: u64) -> (Net, Arc<Space>) {
    let config = MlpConfig { widths: vec![12, 20, 16, 4], activation: Activation::Relu };
    let network = Network::fresh(&Architecture::Mlp(config), seed, DType::F64).unwrap();
    let net = Net::of(&network, &[12]).unwrap();
    let space = Arc::new(Space::search(&net, Inside::Heads, &[]).unwrap());
    (net, space)
}

fn training(data: &Batch, epochs: u64) -> Training<'_> {
    Training {
        data,
        loss: Loss::CrossEntropy,
        epochs,
        batch: 16,
        schedule: Schedule::cosine(),
        order: Streams::new(1).stream("order"),
    }
}

fn sgd() -> Base {
    Base::Sgd(SgdSettings { learning_rate: 0.1, momentum: 0.9, ..SgdSettings::default() })
}

fn pruning(way: Way, base: Base, sparsity: f64) -> Pruning {
    Pruning { way, ..Pruning::hesso(base, sparsity, Streams::new(5).stream("chance")) }
}

fn bases() -> [Base; 3] {
    let adam = AdamSettings { learning_rate: 5e-3, ..AdamSettings::default() };
    [sgd(), Base::Adam(adam), Base::Adam(AdamSettings { learning_rate: 5e-3, ..AdamSettings::adamw() })]
}

#[test]
fn every_way_and_base_leaves_exactly_the_target_zero_and_the_rest_alive() {
    let data = toy(64);
    for way in [Way::Hesso, Way::Cric, Way::Magnitude, Way::MagnitudeTuned, Way::Taylor, Way::Random] {
        for base in bases() {
            for sparsity in [0.5, 0.9] {
                let (net, space) = toy_net(1);
                let outcome =
                    pruning(way, base, sparsity).run(&net, &space, &training(&data, 20), &Progress::silent()).unwrap();
                let goal = target(36, sparsity);
                assert_eq!(outcome.target, goal);
                assert_eq!(outcome.removed.iter().filter(|&&r| r).count(), goal, "{way:?} {sparsity}");
                // Zero exactly, and only where it is said.
                for (group, removed) in space.groups.iter().zip(&outcome.removed) {
                    let zero = group.stretches.iter().all(|s| {
                        numbers(net.params().get(&space.tensors[s.tensor].name).unwrap())[s.elements.clone()]
                            .iter()
                            .all(|&x| x == 0.0)
                    });
                    assert_eq!(zero, *removed, "{way:?}");
                }
                let small = compact(&net, &space, &outcome.removed).unwrap();
                let off = difference(&net.forward(&data.inputs).unwrap(), &small.forward(&data.inputs).unwrap());
                assert!(off < 1e-12);
                assert!(kept(&space, &outcome.removed).iter().all(|&k| k >= 1));
            }
        }
    }
}

#[test]
fn a_learnable_task_survives_pruning_by_hesso_better_than_by_chance() {
    let data = toy(128);
    let accuracy = |way| {
        let (net, space) = toy_net(1);
        pruning(way, sgd(), 0.8).run(&net, &space, &training(&data, 30), &Progress::silent()).unwrap();
        judge(&net, &data, Loss::CrossEntropy).unwrap().accuracy.unwrap()
    };
    let (full, hesso, chance) = (accuracy(Way::Full), accuracy(Way::Hesso), accuracy(Way::Random));
    assert!(full > 0.95 && hesso > full - 0.05 && chance < hesso - 0.1, "{full} {hesso} {chance}");
}

#[test]
fn the_half_space_method_prunes_more_under_a_larger_penalty() {
    let data = toy(64);
    let removed = |penalty| {
        let (net, space) = toy_net(1);
        let pruning = Pruning { penalty, ..pruning(Way::Hspg, sgd(), 0.7) };
        let outcome = pruning.run(&net, &space, &training(&data, 20), &Progress::silent()).unwrap();
        outcome.removed.iter().filter(|&&r| r).count()
    };
    let (none, all) = (removed(0.0), removed(10.0));
    assert!(none < all && all <= target(36, 0.7), "{none} {all}");
}

/// One hand-made step after the other against the formulas: s ← s (D−t−1)/(D−t) beside w ← w − rate · v.
#[test]
fn a_chosen_group_shrinks_by_the_published_factors() {
    let settings = |periods, steps| Settings {
        sparsity: 0.5,
        start: 2,
        steps,
        periods,
        choice: Choice { divisible: 1, compat: false },
        ranking: Ranking::Saliency(Criteria::only(Criterion::Magnitude)),
        pace: Pace::Shrinking,
    };
    // A layer of four rows with no gradient but a constant one: loss = Σ w.
    let graph = Graph::from_json(
        r#"{"nodes": [{"name": "x", "op": "input", "shape": [1]},
            {"name": "a", "op": "linear", "at": "a", "bias": false, "inputs": ["x"]},
            {"name": "b", "op": "linear", "at": "b", "bias": false, "inputs": ["a"]}]}"#,
        "graph",
    )
    .unwrap();
    let shapes = [("a.weight".to_owned(), vec![4, 1]), ("b.weight".to_owned(), vec![1, 4])];
    let net = Net::fresh(graph, &shapes, 0, DType::F64).unwrap();
    let a = net.params().get("a.weight").unwrap().clone();
    a.set(&Tensor::new(&[[3.0], [-1.0], [4.0], [2.0]], &Device::Cpu).unwrap()).unwrap();
    let space = Arc::new(Space::search(&net, Inside::Heads, &[]).unwrap());
    assert_eq!(space.groups.iter().map(Group::size).collect::<Vec<_>>(), [1; 4]);
    let rate = 0.01;
    let base = Base::Sgd(SgdSettings { learning_rate: rate, ..SgdSettings::default() });
    let mut hesso = Hesso::new(net.params(), space, base, settings(1, 4)).unwrap();
    let mut expected = [3.0, -1.0, 4.0, 2.0];
    for step in 1..=8u64 {
        let gradients = a.sum_all().unwrap().backward().unwrap();
        hesso.step(&gradients).unwrap();
        expected.iter_mut().for_each(|w| *w -= rate);
        // Chosen at step 3 (t = 1 of D = 4): the two of least magnitude, rows 1 and 3; zero from t = 3 on.
        let factor = match step {
            1 | 2 => 1.0,
            3 => 2.0 / 3.0,
            4 => 1.0 / 2.0,
            _ => 0.0,
        };
        for row in [1, 3] {
            expected[row] *= factor;
        }
        for (found, expected) in numbers(&a).iter().zip(expected) {
            assert!((found - expected).abs() < 1e-14, "step {step}: {found} {expected}");
        }
    }
    assert_eq!(hesso.groups().is_pruned(), [false, true, false, true]);
    assert_eq!(hesso.groups().count(Status::Shrinking), 0);
}

#[test]
fn saliency_is_that_of_the_formulas() {
    let stretch = |tensor, elements| Stretch { tensor, elements };
    let group = |stretches| Group { stretches, ..Group::default() };
    let groups = [group(vec![stretch(0, 0..2), stretch(1, 1..2)]), group(vec![stretch(0, 2..14)])];
    let p: Vec<Vec<f64>> = vec![(0..14).map(|i| f64::from(i) - 3.5).collect(), vec![9.0, 2.0]];
    let v: Vec<Vec<f64>> = vec![(0..14).map(|i| (f64::from(i) * 0.7).sin()).collect(), vec![5.0, -1.0]];
    let found = moments(&groups, &p, &v);
    let flat = |i: usize, x: &[Vec<f64>]| -> Vec<f64> {
        groups[i].stretches.iter().flat_map(|s| x[s.tensor][s.elements.clone()].to_vec()).collect()
    };
    let mut raw = Vec::new();
    for (i, m) in found.iter().enumerate() {
        let (p, v) = (flat(i, &p), flat(i, &v));
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let direct = Moments { magnitude: dot(&p, &p), direction: dot(&v, &v), along: dot(&p, &v), size: p.len() };
        assert!((m.magnitude - direct.magnitude).abs() < 1e-12 && (m.along - direct.along).abs() < 1e-12);
        assert!((m.direction - direct.direction).abs() < 1e-12 && m.size == direct.size);
        let (np, nv) = (dot(&p, &p).sqrt(), dot(&v, &v).sqrt());
        let along = dot(&p, &v);
        raw.push([np, np / p.len() as f64, along / (np * nv) + 1.0, along.abs(), along * along / 2.0]);
    }
    let mixture = Criteria::MIXTURE.saliency(&found);
    for i in 0..2 {
        let total: f64 = (0..5).map(|c| 0.2 * raw[i][c] / (raw[0][c].powi(2) + raw[1][c].powi(2)).sqrt()).sum();
        assert!((mixture[i] - total).abs() < 1e-5, "{} {total}", mixture[i]);
    }
    // The same in single precision, up to its digits.
    let single = |x: &[Vec<f64>]| x.iter().map(|x| x.iter().map(|&x| x as f32).collect()).collect::<Vec<Vec<f32>>>();
    let coarse = Criteria::MIXTURE.saliency(&moments(&groups, &single(&p), &single(&v)));
    assert!(coarse.iter().zip(&mixture).all(|(a, b)| (a - b).abs() < 1e-5));
}

/// v from the optimisers' buffers is the step that they took.
#[test]
fn directions_are_the_steps_taken() {
    let data = toy(32);
    let dampened = Base::Sgd(SgdSettings {
        learning_rate: 0.05,
        momentum: 0.8,
        dampening: 0.4,
        weight_decay: 0.01,
        ..SgdSettings::default()
    });
    for base in bases().into_iter().chain([dampened]) {
        let (net, _) = toy_net(2);
        let names: Vec<String> = net.params().trained().iter().map(|p| p.name.clone()).collect();
        let lengths: Vec<usize> = net.params().trained().iter().map(|p| p.var.elem_count()).collect();
        let mut optimizer = base.optimizer(net.params()).unwrap();
        for _ in 0..3 {
            let before: Vec<Vec<f64>> = net.params().trained().iter().map(|p| numbers(&p.var)).collect();
            let loss = Loss::CrossEntropy
                .per_sample(&net.forward(&data.inputs).unwrap(), &data.targets)
                .map(|l| offprint_nn::ops::backward(&l.mean_all().unwrap()).unwrap())
                .unwrap();
            optimizer.step(&loss).unwrap();
            let (rate, decay) = match base {
                Base::Sgd(s) => (s.learning_rate, 0.0),
                Base::Adam(s) => (s.learning_rate, if s.decoupled { s.weight_decay } else { 0.0 }),
            };
            let v = base.direction::<f64>(optimizer.as_ref(), &names, &lengths).unwrap();
            for ((before, v), p) in before.iter().zip(&v).zip(net.params().trained()) {
                for ((b, v), after) in before.iter().zip(v).zip(numbers(&p.var)) {
                    let predicted = b * (1.0 - rate * decay) - rate * v;
                    assert!((predicted - after).abs() < 1e-12, "{base:?}: {predicted} {after}");
                }
            }
        }
    }
}

#[test]
fn a_training_that_stopped_goes_on_as_if_it_had_not() {
    let (net, space) = toy_net(3);
    let settings = Settings {
        sparsity: 0.6,
        start: 3,
        steps: 9,
        periods: 3,
        choice: Choice { divisible: 1, compat: false },
        ranking: Ranking::Saliency(Criteria::MIXTURE),
        pace: Pace::Shrinking,
    };
    let data = toy(16);
    let step = |net: &Net, optimizer: &mut Hesso| {
        let loss = Loss::CrossEntropy.per_sample(&net.forward(&data.inputs).unwrap(), &data.targets).unwrap();
        optimizer.step(&offprint_nn::ops::backward(&loss.mean_all().unwrap()).unwrap()).unwrap();
    };
    let mut whole = Hesso::new(net.params(), space.clone(), sgd(), settings).unwrap();
    for _ in 0..7 {
        step(&net, &mut whole);
    }
    let (weights, state) = (net.params().flat::<f64>().unwrap(), whole.state().unwrap());
    let (other, space) = toy_net(4);
    other.params().set_flat(&weights).unwrap();
    let mut resumed = Hesso::new(other.params(), space, sgd(), settings).unwrap();
    resumed.restore(&state).unwrap();
    for _ in 0..8 {
        step(&net, &mut whole);
        step(&other, &mut resumed);
    }
    assert_eq!(net.params().flat::<f64>().unwrap(), other.params().flat::<f64>().unwrap());
    assert_eq!(whole.groups().status(), resumed.groups().status());
    assert!(resumed.restore(&[]).is_err());
}

#[test]
fn settings_that_prune_nothing_are_refused_by_name() {
    let data = toy(64);
    let run = |change: &dyn Fn(Pruning) -> Pruning| {
        let (net, space) = toy_net(1);
        match change(pruning(Way::Hesso, sgd(), 0.5)).run(&net, &space, &training(&data, 10), &Progress::silent()) {
            Ok(_) => panic!("it ran"),
            Err(error) => error.to_string(),
        }
    };
    assert!(run(&|p| Pruning { sparsity: 0.0, ..p }).starts_with("sparsity: got 0"));
    assert!(run(&|p| Pruning { sparsity: 1.0, ..p }).starts_with("sparsity"));
    assert!(run(&|p| Pruning { sparsity: 0.01, ..p }).contains("at least one of 36 groups"));
    assert!(run(&|p| Pruning { start: 1.0, ..p }).starts_with("pruning window"));
    assert!(run(&|p| Pruning { periods: 1000, ..p }).starts_with("periods"));
    assert!(run(&|p| Pruning { choice: Choice { divisible: 0, compat: false }, ..p }).starts_with("divisible"));
    assert!(run(&|p| Pruning { way: Way::Cric, window: 0.9, start: 0.9, ..p }).starts_with("pruning window"));
    let diverging = Base::Sgd(SgdSettings { learning_rate: 1e300, ..SgdSettings::default() });
    let words = run(&|p| Pruning { base: diverging, ..p });
    assert!(words.contains("loss is") || words.contains("saliency of group"), "{words}");
}

#[test]
fn what_is_not_zero_is_not_cut() {
    let (net, space) = toy_net(1);
    let mut removed = vec![false; 36];
    assert!(compact(&net, &space, &removed[..3]).unwrap_err().to_string().starts_with("removed: got 3 words"));
    removed[0] = true;
    let words = compact(&net, &space, &removed).unwrap_err().to_string();
    assert!(words.contains("group 0") && words.contains("layers.0.weight"), "{words}");
    removed[..20].fill(true);
    assert!(compact(&net, &space, &removed).unwrap_err().to_string().contains("all of \"layers.0\""));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever the scores, every component keeps a positive multiple, and nothing is chosen twice.
    #[test]
    fn a_choice_keeps_a_positive_multiple_of_each_component(
        seed in 0u64..1000, divisible in 1usize..5, quota in 0usize..40, compat in any::<bool>(),
    ) {
        let (_, space) = toy_net(1);
        let mut rng = Streams::new(seed).stream("scores").rng(0);
        let choice = Choice { divisible, compat };
        let mut status = vec![Status::Kept; 36];
        for _ in 0..3 {
            let scores: Vec<f64> = (0..36).map(|_| rng.random()).collect();
            let chosen = choice.lowest(&space, &status, &scores, quota);
            prop_assert!(chosen.len() <= quota);
            for group in chosen {
                prop_assert_eq!(status[group], Status::Kept);
                status[group] = Status::Pruned;
            }
            for component in &space.components {
                let kept = component.groups.clone().filter(|&g| status[g] == Status::Kept).count();
                prop_assert!(kept >= divisible.min(component.groups.len()));
                prop_assert!(kept == component.groups.len() || kept.is_multiple_of(divisible));
            }
        }
    }

    #[test]
    fn quotas_add_up(target in 0usize..500, periods in 1usize..12) {
        let parts = quotas(target, periods);
        prop_assert_eq!(parts.iter().sum::<usize>(), target);
        prop_assert!(parts[..periods - 1].iter().all(|&part| part == target / periods));
    }
}
