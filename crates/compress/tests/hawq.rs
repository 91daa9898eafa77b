//! HAWQ against dense Hessians, enumeration, and what its parts promise.

use candle_core::{DType, Device, Tensor};
use ndarray::Array2;
use offprint_compress::allocate::{Budget, Solver, exact, integer_program};
use offprint_compress::examples::Example;
use offprint_compress::hawq::{
    Activations, Assigned, Choice, Finder, FineTuning, LayerCurvature, Measuring, Optimiser, Problem, Score,
    Sensitivity, fine_tune, is_gauss_newton, layer_curvatures, partition, post_training, rank, resnet18, sensitivities,
    tensor_wide,
};
use offprint_compress::model::{evaluate, fold_batch_norms, outputs};
use offprint_core::Progress;
use offprint_core::random::{Stream, Streams};
use offprint_curvature::batch_hessian::DiagonalBlock;
use offprint_curvature::network::{LossOperator, Matrix};
use offprint_curvature::{LinearOperator, vector};
use offprint_math::linalg::eigh;
use offprint_nn::derivatives::Loss;
use offprint_nn::models::{Activation, MlpConfig};
use offprint_nn::{Architecture, Batch, Network};
use proptest::prelude::*;
use std::time::Instant;

fn stream(name: &str) -> Stream {
    Streams::new(5).stream(name)
}

fn mlp(activation: Activation) -> Network {
    Network::fresh(&Architecture::Mlp(MlpConfig { widths: vec![6, 8, 7, 3], activation }), 2, DType::F32).unwrap()
}

fn samples(n: usize) -> Batch {
    let inputs: Vec<f32> = vector::gaussian(stream("samples"), 0, n * 6);
    let targets: Vec<u32> = (0..n as u32).map(|i| i * i % 3).collect();
    let inputs = Tensor::from_vec(inputs, (n, 6), &Device::Cpu).unwrap();
    Batch { inputs, targets: Tensor::from_vec(targets, n, &Device::Cpu).unwrap() }
}

fn dense(operator: &impl LinearOperator<f32>) -> Array2<f64> {
    let d = operator.dim();
    let mut matrix = Array2::zeros((d, d));
    let mut image = vec![0.0; d];
    for i in 0..d {
        let mut unit = vec![0f32; d];
        unit[i] = 1.0;
        operator.apply(&unit, &mut image).unwrap();
        matrix.row_mut(i).iter_mut().zip(&image).for_each(|(m, &y)| *m = f64::from(y));
    }
    matrix
}

fn assert_close(a: &Array2<f64>, b: &Array2<f64>, tolerance: f64) {
    let largest = b.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    let error = a.iter().zip(b).fold(0.0f64, |m, (x, y)| m.max((x - y).abs()));
    assert!(error < tolerance * largest, "{error} of {largest}");
}

fn curvature(network: &Network, name: &str, samples: &Batch, part: usize) -> LayerCurvature {
    let places = network.layers().unwrap();
    let place = places.iter().find(|place| place.name == name).unwrap();
    layer_curvatures(network, &[place], samples, part).unwrap().pop().unwrap()
}

/// The block of the whole Hessian, by differentiating twice.
fn by_differentiation(network: &Network, name: &str, samples: &Batch) -> Array2<f64> {
    let loss = network.loss(Loss::CrossEntropy);
    let operator = LossOperator::new(&loss, Matrix::Hessian, samples, 64).unwrap();
    let block = loss.blocks().into_iter().find(|b| b.name == format!("{name}.weight")).unwrap();
    dense(&DiagonalBlock::new::<f32>(&operator, block.range).unwrap())
}

#[test]
fn the_layer_by_layer_hessian_is_the_block_of_the_whole_one_in_a_relu_network() {
    let (network, batch) = (mlp(Activation::Relu), samples(20));
    for name in ["layers.0", "layers.1", "layers.2"] {
        // 7 does not divide 20.
        let found = curvature(&network, name, &batch, 7);
        let exact = by_differentiation(&network, name, &batch);
        assert_close(&dense(&found), &exact, 2e-5);
        assert!((found.trace() - exact.diag().sum()).abs() < 1e-4 * exact.diag().sum());
    }
}

#[test]
fn convolutions_with_batch_norm_and_a_skip_connection_too() {
    let subject = Example::DigitsCnn.load().unwrap();
    let batch = subject.train.narrow(0, 12).unwrap();
    let places = subject.network.layers().unwrap();
    let loss = subject.network.loss(Loss::CrossEntropy);
    let whole = LossOperator::new(&loss, Matrix::Hessian, &batch, 12).unwrap();
    for place in &places {
        assert!(is_gauss_newton(&subject.network, place, places.last().unwrap()));
        let found = curvature(&subject.network, &place.name, &batch, 5);
        let block = loss.blocks().into_iter().find(|b| b.name == place.weight).unwrap();
        let operator = DiagonalBlock::new::<f32>(&whole, block.range).unwrap();
        let x: Vec<f32> = vector::gaussian(stream("x"), 0, place.weights());
        let (mut a, mut b) = (x.clone(), x.clone());
        found.apply(&x, &mut a).unwrap();
        operator.apply(&x, &mut b).unwrap();
        let (length, difference) =
            (vector::norm(&b), a.iter().zip(&b).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt());
        assert!(f64::from(difference) < 1e-4 * length, "{}: {difference} of {length}", place.name);
    }
}

#[test]
fn a_smooth_network_is_not_taken_for_a_linear_one() {
    let (network, batch) = (mlp(Activation::Tanh), samples(20));
    let places = network.layers().unwrap();
    assert!(places.iter().all(|place| !is_gauss_newton(&network, place, places.last().unwrap())));
    let blocks = partition(&places, &[]).unwrap();
    let measuring = Measuring { tolerance: 1e-9, products: 2000, probes: 0, ..Measuring::default() };
    let found = sensitivities(&network, &blocks, &batch, measuring, stream("λ"), &Progress::silent()).unwrap();
    for (block, found) in blocks.iter().zip(found) {
        let (values, _) = eigh(by_differentiation(&network, &block.name, &batch).view()).unwrap();
        let top = values[values.len() - 1];
        assert!((found.eigenvalue - top).abs() < 1e-3 * top, "{} {top}", found.eigenvalue);
    }
}

#[test]
fn eigenvalues_and_traces_are_those_of_the_dense_block() {
    let (network, batch) = (mlp(Activation::Relu), samples(30));
    let blocks = partition(&network.layers().unwrap(), &["layers.*".into()]).unwrap();
    // One block of all three layers: differentiated as a whole, with negative curvature across layers.
    assert_eq!((blocks.len(), blocks[0].layers.len()), (1, 3));
    let single = partition(&network.layers().unwrap(), &[]).unwrap();
    let run = |blocks: &[_], finder, products| {
        let measuring = Measuring { finder, tolerance: 1e-7, products, probes: 4000, ..Measuring::default() };
        sensitivities(&network, blocks, &batch, measuring, stream("λ"), &Progress::silent()).unwrap()
    };
    for (block, (power, lanczos)) in
        single.iter().zip(run(&single, Finder::Power, 3000).iter().zip(run(&single, Finder::Lanczos, 20)))
    {
        let matrix = by_differentiation(&network, &block.name, &batch);
        let (values, _) = eigh(matrix.view()).unwrap();
        let top = values[values.len() - 1];
        assert!((power.eigenvalue - top).abs() < 2e-3 * top && (lanczos.eigenvalue - top).abs() < 1e-3 * top);
        assert_eq!(power.dominant, power.eigenvalue);
        assert!((power.trace - matrix.diag().sum()).abs() < 5.0 * power.trace_error + 1e-6, "{power:?}");
    }
    let whole = run(&blocks, Finder::Lanczos, 40);
    assert!(
        whole[0].eigenvalue
            >= single.iter().zip(run(&single, Finder::Lanczos, 20)).map(|(_, s)| s.eigenvalue).fold(0.0, f64::max)
    );
}

#[test]
fn a_negative_dominant_eigenvalue_is_told_and_the_largest_one_used() {
    // Far from a minimum: the targets are what the network gives the least probability.
    let network = mlp(Activation::Tanh);
    let batch = samples(24);
    let logits = outputs(&network, &batch.inputs, None).unwrap();
    let wrong = logits.argmin(1).unwrap();
    let batch = Batch { inputs: batch.inputs.affine(3.0, 0.0).unwrap(), targets: wrong };
    let params = network.params();
    let pushed: Vec<f32> = params.flat::<f32>().unwrap().iter().map(|w| 3.0 * w).collect();
    params.set_flat(&pushed).unwrap();
    let blocks = partition(&network.layers().unwrap(), &[]).unwrap();
    let measuring = Measuring { tolerance: 1e-8, products: 3000, probes: 0, ..Measuring::default() };
    let found = sensitivities(&network, &blocks, &batch, measuring, stream("λ"), &Progress::silent()).unwrap();
    let mut negative = 0;
    for (block, found) in blocks.iter().zip(&found) {
        let (values, _) = eigh(by_differentiation(&network, &block.name, &batch).view()).unwrap();
        let (bottom, top) = (values[0], values[values.len() - 1]);
        let dominant = if -bottom > top { bottom } else { top };
        assert!((found.eigenvalue - top).abs() < 0.01 * top.abs().max(dominant.abs()), "{found:?} {bottom} {top}");
        assert!((found.dominant - dominant).abs() < 0.01 * dominant.abs(), "{found:?} {bottom} {top}");
        negative += usize::from(dominant < 0.0);
    }
    assert!(negative > 0, "the case is not in the test: {found:?}");
}

#[test]
fn a_dead_block_has_no_curvature() {
    let network = mlp(Activation::Relu);
    // Nothing passes the first layer.
    for name in ["layers.0.weight", "layers.0.bias"] {
        let var = network.params().get(name).unwrap();
        var.set(&(var.zeros_like().unwrap() - 1.0).unwrap().affine(1e3, 0.0).unwrap()).unwrap();
    }
    let batch = Batch { inputs: samples(10).inputs.abs().unwrap(), targets: samples(10).targets };
    let blocks = partition(&network.layers().unwrap(), &[]).unwrap();
    let found =
        sensitivities(&network, &blocks, &batch, Measuring::default(), stream("λ"), &Progress::silent()).unwrap();
    assert_eq!((found[0].eigenvalue, found[0].trace, found[0].residual), (0.0, 0.0, 0.0));
    let problem = Problem::new(&network, &blocks, &found, Score::Eigenvalue, &[8, 2], tensor_wide(), &batch).unwrap();
    let bits = problem.choose(&Choice::Monotone, Budget::MeanBits(4.0), stream("bits")).unwrap();
    assert_eq!(bits[0], 2);
}

fn problem(scores: &[f64], weights: &[usize]) -> Problem {
    let network = mlp(Activation::Relu);
    let place = network.layers().unwrap().remove(0);
    let block = |&n: &usize| {
        let layer = offprint_nn::LayerPlace { shape: vec![1, n], ..place.clone() };
        offprint_compress::hawq::Block { name: n.to_string(), layers: vec![layer] }
    };
    let costs = Array2::from_shape_fn((scores.len(), 4), |(b, o)| scores[b] * 4f64.powi(o as i32) * weights[b] as f64);
    Problem {
        blocks: weights.iter().map(block).collect(),
        bits: vec![8, 4, 3, 2],
        pinned: vec![None; scores.len()],
        activation_bits: 8,
        scores: scores.to_vec(),
        costs,
    }
}

proptest! {
    #[test]
    fn choices_keep_their_promises(
        scores in prop::collection::vec(0.01..10.0f64, 5), weights in prop::collection::vec(1..50usize, 5), mean in 2.0..8.0f64,
    ) {
        let problem = problem(&scores, &weights);
        let budget = Budget::MeanBits(mean);
        let all: u64 = weights.iter().map(|&n| n as u64).sum();
        let choose = |choice: &Choice| problem.choose(choice, budget, stream("bits")).unwrap();
        let fits = |bits: &[u32]| problem.size(bits) as f64 <= mean * all as f64 + 1e-6;
        let monotone = choose(&Choice::Monotone);
        prop_assert!(fits(&monotone) && problem.violations(&monotone).is_empty());
        let best = choose(&Choice::By(Solver::Exact));
        prop_assert!(fits(&best) && problem.cost(&best) <= problem.cost(&monotone) + 1e-9);
        // Of all assignments the exact one, of monotone ones the monotone one is best.
        for number in 0..4usize.pow(5) {
            let bits: Vec<u32> = (0..5).map(|block| problem.bits[number / 4usize.pow(block) % 4]).collect();
            if fits(&bits) {
                prop_assert!(problem.cost(&best) <= problem.cost(&bits) + 1e-9);
                if problem.violations(&bits).is_empty() {
                    prop_assert!(problem.cost(&monotone) <= problem.cost(&bits) + 1e-9);
                }
            }
        }
        let random = choose(&Choice::Random);
        prop_assert!(fits(&random) && problem.violations(&random).is_empty());
        let uniform = choose(&Choice::Uniform);
        prop_assert!(fits(&uniform) && uniform.iter().all(|&b| b == uniform[0]));
        let order = problem.ranking();
        let reversed = choose(&Choice::Reversed);
        prop_assert!(order.iter().zip(order.iter().rev()).all(|(&a, &b)| monotone[a] == reversed[b]));
    }
}

#[test]
fn ends_are_pinned_and_paid_for() {
    let problem = problem(&[1.0, 5.0, 2.0], &[10, 20, 30]).with_ends_at(8);
    assert_eq!(problem.ranking(), [1]);
    let choose = |budget| problem.choose(&Choice::Monotone, budget, stream("bits"));
    // 40 · 8 + 20 · 3 bits are 380.
    assert_eq!(choose(Budget::Bytes(48)).unwrap(), [8, 3, 8]);
    assert_eq!(choose(Budget::MeanBits(6.0)).unwrap(), [8, 2, 8]);
    let error = choose(Budget::Bytes(44)).unwrap_err().to_string();
    assert!(error.contains("got 44") && error.contains("45"), "{error}");
    let error = problem.choose(&Choice::Given(vec![4, 4]), Budget::Bytes(99), stream("bits")).unwrap_err().to_string();
    assert!(error.contains("2 numbers") && error.contains("each of the 1"), "{error}");
    let operations = problem.choose(&Choice::Monotone, Budget::BitOperations(u64::MAX), stream("bits")).unwrap();
    assert_eq!(operations, [8, 8, 8]);
}

#[test]
fn ranks_are_stable_and_budgets_are_read_in_their_units() {
    assert_eq!(rank(&[1.0, 3.0, 1.0, f64::INFINITY]), [3, 1, 0, 2]);
    for (text, budget) in [
        ("9680B", Budget::Bytes(9680)),
        ("12kB", Budget::Bytes(12_000)),
        ("1.5 MB", Budget::Bytes(1_500_000)),
        ("3bits", Budget::MeanBits(3.0)),
        ("0.125x", Budget::MeanBits(4.0)),
        ("2.5Gbops", Budget::BitOperations(2_500_000_000)),
    ] {
        assert_eq!(text.parse::<Budget>().unwrap(), budget);
    }
    for text in ["", "B", "-1B", "nanbits", "12", "3 apples", "infx"] {
        assert!(text.parse::<Budget>().unwrap_err().contains("no budget"), "{text}");
    }
}

#[test]
fn patterns_gather_layers_and_are_refused_by_name() {
    let places = Example::DigitsCnn.load().unwrap().network.layers().unwrap();
    let blocks = partition(&places, &["conv*".into()]).unwrap();
    assert_eq!(blocks.iter().map(|b| (b.name.as_str(), b.layers.len())).collect::<Vec<_>>(), [("conv*", 4), ("fc", 1)]);
    assert_eq!(blocks[0].weights(), 144 + 4608 + 9216 + 18432);
    let refused = |patterns: &[&str]| {
        let patterns: Vec<String> = patterns.iter().map(|&p| p.into()).collect();
        partition(&places, &patterns).unwrap_err().to_string()
    };
    assert!(refused(&["layer9.*"]).contains("layer9.*"));
    let twice = refused(&["conv*", "*2"]);
    assert!(twice.contains("conv2") && twice.contains("*2"), "{twice}");
}

#[test]
fn the_published_resnet18_instance_is_solved_at_once_and_its_optimum_is_not_monotone() {
    let started = Instant::now();
    for limit in [0.25, 0.5, 0.75] {
        let instance = resnet18::instance(limit);
        let best = exact(&instance.options, instance.budget).unwrap();
        let bits = instance.bits(&best.choices);
        println!("limit {limit}: {bits:?}, violations {:?}", resnet18::violations(&bits));
        for (a, b) in [(4, 6), (9, 11), (14, 16)] {
            assert_eq!(bits[a], bits[b]);
        }
        assert!(best.size <= instance.budget);
    }
    assert!(started.elapsed().as_millis() < 50, "{:?}", started.elapsed());
    let instance = resnet18::instance(0.5);
    let (best, programme) = (
        exact(&instance.options, instance.budget).unwrap(),
        integer_program(&instance.options, instance.budget).unwrap(),
    );
    assert!((best.cost - programme.cost).abs() < 1e-9 * best.cost.max(1.0));
    // All 2^16 assignments.
    let least = (0u32..1 << 16)
        .filter_map(|number| {
            let chosen = instance.options.iter().enumerate().map(|(at, o)| o[(number >> at & 1) as usize]);
            let (cost, size) = chosen.fold((0.0, 0), |(cost, size), c| (cost + c.cost, size + c.size));
            (size <= instance.budget).then_some(cost)
        })
        .fold(f64::INFINITY, f64::min);
    assert!((best.cost - least).abs() < 1e-12);
}

#[test]
fn fine_tuning_keeps_codes_or_refines_them_and_repairs_the_loss() {
    let subject = Example::DigitsCnn.load().unwrap();
    let samples = subject.train.narrow(0, 320).unwrap();
    let blocks = partition(&subject.network.layers().unwrap(), &[]).unwrap();
    let (bits, order) = ([4, 3, 2, 2, 4], [1, 0, 2, 4, 3]);
    let rounded = post_training(&subject.network, &blocks, &bits, tensor_wide()).unwrap();
    let before = evaluate(&rounded.network, &samples, None).unwrap().loss;
    for refine_all in [false, true] {
        let settings = FineTuning { refine_all, optimiser: Optimiser::Adam { rate: 3e-4 }, ..FineTuning::default() };
        let assigned = Assigned { network: &subject.network, blocks: &blocks, bits: &bits };
        let run =
            || fine_tune(assigned, &order, &samples, None, settings, stream("tune"), &Progress::silent()).unwrap();
        let tuned = run();
        let after = evaluate(&tuned.network, &samples, None).unwrap().loss;
        assert!(after < 0.5 * before, "{before} {after}");
        assert_eq!(
            tuned.stages.iter().map(|s| s.block.as_str()).collect::<Vec<_>>(),
            ["conv2", "conv1", "conv3", "fc", "conv4"]
        );
        for ((packed, place), &bits) in tuned.layers.iter().zip(blocks.iter().flat_map(|b| &b.layers)).zip(&bits) {
            let weight = offprint_compress::Layer::of(&tuned.network, place).unwrap().weight;
            assert_eq!((packed.dequant(), packed.bits()), (weight, bits));
        }
        // The first block was rounded before anything moved; its codes stay unless all are refined.
        let first = tuned.layers.iter().position(|p| p.name == "conv2").unwrap();
        assert_eq!(tuned.layers[first] == rounded.layers[first], !refine_all);
        assert_eq!(tuned.stages, run().stages);
    }
}

#[test]
fn inputs_are_quantised_between_the_ends_that_were_seen() {
    let subject = Example::DigitsCnn.load().unwrap();
    let batch = subject.test.narrow(0, 100).unwrap();
    let loss = |bits| {
        let activations = Activations::calibrated(bits, &subject.network, &batch, 50).unwrap();
        evaluate(&subject.network, &batch, Some(activations)).unwrap().loss
    };
    let float = evaluate(&subject.network, &batch, None).unwrap().loss;
    assert!((loss(8) - float).abs() < 0.01 && loss(2) > loss(8));
    assert!(Activations::calibrated(9, &subject.network, &batch, 50).is_err());
}

#[test]
fn scaling_a_convolution_that_a_norm_scales_back_changes_its_eigenvalue_by_the_square() {
    let subject = Example::DigitsCnn.load().unwrap();
    let network = fold_batch_norms(&subject.network).unwrap().0;
    let blocks = partition(&network.layers().unwrap(), &[]).unwrap();
    let batch = subject.train.narrow(0, 64).unwrap();
    let measure = |network: &Network| -> Vec<Sensitivity> {
        let measuring = Measuring { finder: Finder::Lanczos, products: 15, probes: 0, ..Measuring::default() };
        sensitivities(network, &blocks, &batch, measuring, stream("λ"), &Progress::silent()).unwrap()
    };
    let before = measure(&network);
    for (name, factor) in [("conv2.weight", 2.0), ("bn2.weight", 0.5)] {
        let var = network.params().get(name).unwrap();
        var.set(&var.affine(factor, 0.0).unwrap()).unwrap();
    }
    let after = measure(&network);
    assert!((after[1].eigenvalue * 4.0 / before[1].eigenvalue - 1.0).abs() < 1e-2);
    assert!((after[0].eigenvalue / before[0].eigenvalue - 1.0).abs() < 1e-3);
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let (network, batch) = (mlp(Activation::Relu), samples(10));
    let blocks = partition(&network.layers().unwrap(), &[]).unwrap();
    let one = batch.narrow(0, 1).unwrap();
    let error = sensitivities(&network, &blocks, &one, Measuring::default(), stream("λ"), &Progress::silent());
    assert!(error.unwrap_err().to_string().starts_with("samples: got 1"));
    let none = Measuring { products: 0, ..Measuring::default() };
    assert!(sensitivities(&network, &blocks, &batch, none, stream("λ"), &Progress::silent()).is_err());
    let found = sensitivities(
        &network,
        &blocks,
        &batch,
        Measuring { probes: 0, ..Measuring::default() },
        stream("λ"),
        &Progress::silent(),
    )
    .unwrap();
    let new = |score, bits: &[u32]| {
        Problem::new(&network, &blocks, &found, score, bits, tensor_wide(), &batch).map(|_| ()).unwrap_err().to_string()
    };
    assert!(new(Score::Trace, &[4]).contains("layers.0"));
    assert!(new(Score::Eigenvalue, &[]).starts_with("bits"));
    assert!(new(Score::Eigenvalue, &[9]).starts_with("bits: got 9"));
    assert!(post_training(&network, &blocks, &[4, 4], tensor_wide()).unwrap_err().to_string().contains("3 blocks"));
    let twice = fine_tune(
        Assigned { network: &network, blocks: &blocks, bits: &[4; 3] },
        &[0, 0, 1],
        &batch,
        None,
        FineTuning::default(),
        stream("t"),
        &Progress::silent(),
    );
    assert!(twice.unwrap_err().to_string().contains("each block once"));
}
