//! OFQ against definitions spelled out, networks without quantisers, and files that are wrong.

use candle_core::{DType, Device, Tensor};
use offprint_compress::model::quality;
use offprint_compress::ofq::{
    Calm, Form, LEAST_SCALE, Lessons, Levels, Precision, QuantisedViT, Reading, Rule, Tracker, Training, stats_scales,
    to_levels,
};
use offprint_core::artifact::{Arrays, Metadata};
use offprint_core::random::Streams;
use offprint_core::{Array, Progress};
use offprint_nn::models::ViTConfig;
use offprint_nn::train::Schedule;
use offprint_nn::{Architecture, Batch, Network};
use proptest::prelude::*;

fn small(class_token: bool) -> ViTConfig {
    ViTConfig { image: 4, patch: 2, channels: 1, width: 8, heads: 2, depth: 2, mlp: 12, classes: 3, class_token }
}

fn network(class_token: bool) -> Network {
    Network::fresh(&Architecture::ViT(small(class_token)), 3, DType::F32).unwrap()
}

fn images(n: usize) -> Batch {
    let inputs = Tensor::from_vec(
        (0..n * 16).map(|i| ((i * 37 % 101) as f32 / 50.0) - 1.0).collect::<Vec<_>>(),
        (n, 1, 4, 4),
        &Device::Cpu,
    );
    let targets = Tensor::from_vec((0..n as u32).map(|i| i % 3).collect::<Vec<_>>(), n, &Device::Cpu);
    Batch { inputs: inputs.unwrap(), targets: targets.unwrap() }
}

fn floats(form: Form) -> Precision {
    Precision { weights: None, activations: None, rule: Rule::StatsQ, form }
}

const QKR: Form = Form::Qkr { keep_query_bias: false };

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn set_bias(network: &Network, rows: std::ops::Range<usize>, value: impl Fn(usize) -> f32) {
    for block in 0..2 {
        let var = network.params().get(&format!("blocks.{block}.attn.qkv.bias")).unwrap();
        let mut bias = values(var);
        rows.clone().for_each(|i| bias[i] = value(i));
        var.set(&Tensor::from_vec(bias, var.shape(), &Device::Cpu).unwrap()).unwrap();
    }
}

/// The largest difference relative to the largest value.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let largest = b.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
    a.iter().zip(b).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs())) / largest
}

#[test]
fn levels_are_half_integers_on_both_sides_of_zero() {
    // Mean size 1, so s = 2: two bits give ±1/2 and ±3/2, one bit ±1.
    let weights = [0.1, -0.4, 1.5, -2.0];
    assert_eq!(stats_scales(&weights, 4), [2.0]);
    assert_eq!(to_levels(&weights, 4, Levels::Halves { bits: 2 }, &[2.0]), [0.5, -0.5, 1.5, -1.5]);
    assert_eq!(to_levels(&weights, 4, Levels::Halves { bits: 1 }, &[2.0]), [1.0, -1.0, 1.0, -1.0]);
    assert_eq!(Levels::Halves { bits: 3 }.codes(), (-4, 3));
}

#[test]
fn a_row_of_zeros_has_the_least_scale_and_a_constant_row_its_tie() {
    assert_eq!(stats_scales(&[0.0; 3], 3), [LEAST_SCALE]);
    let two = Levels::Halves { bits: 2 };
    // u = −1/2 lies between −1 and 0, and 0 is even.
    assert_eq!(two.code(0.0, LEAST_SCALE), 0);
    assert!(to_levels(&[0.0; 3], 3, two, &[LEAST_SCALE]).iter().all(|&w| w == LEAST_SCALE / 4.0));
    // In a constant row w/s = 1/2, so that u = 1/2: between 0 and 1, and 0 is even.
    assert_eq!(two.code(0.7, 1.4), 0);
}

proptest! {
    #[test]
    fn every_weight_gets_the_nearest_level(
        weights in prop::collection::vec(-3.0_f32..3.0, 1..70), bits in 1_u32..=8,
    ) {
        let scale = stats_scales(&weights, weights.len())[0];
        let mean = weights.iter().map(|&w| f64::from(w.abs())).sum::<f64>() / weights.len() as f64;
        prop_assert!((f64::from(scale) - 2.0 * mean).abs() < 1e-5 * mean.max(1e-3));
        let levels = Levels::Halves { bits };
        let n = f64::from(1 << (bits - 1));
        let all: Vec<f64> = (-(n as i32)..n as i32).map(|k| f64::from(scale) * (f64::from(k) + 0.5) / n).collect();
        for (&w, &value) in weights.iter().zip(&to_levels(&weights, weights.len(), levels, &[scale])) {
            let nearest = all.iter().map(|l| (l - f64::from(w)).abs()).fold(f64::INFINITY, f64::min);
            prop_assert!((f64::from(value - w)).abs() <= nearest + 1e-5 * f64::from(scale));
            prop_assert_eq!(value, levels.value(levels.code(w, scale), scale));
            // The odd integer times the step has the same bits.
            let odd = 2 * levels.code(w, scale) + 1;
            prop_assert_eq!(value.to_bits(), ((scale / (2.0 * n) as f32) * odd as f32).to_bits());
        }
    }

    #[test]
    fn the_margin_is_that_of_the_definition(w in -2.0_f32..2.0, bits in 2_u32..=4, margin in 0.01_f64..0.3) {
        let reading = Reading {
            name: String::new(), weights: vec![w], columns: 1, scales: vec![1.0], levels: Levels::Halves { bits },
        };
        let n = 1_i32 << (bits - 1);
        let u = f64::from(w.clamp(-1.0, 1.0 - 1e-6)) * f64::from(n) - 0.5;
        let gap = |i: i32| ((u - f64::from(i)) - 0.5).abs();
        let nearest = (-n..=n - 2).map(gap).fold(f64::INFINITY, f64::min);
        prop_assume!((nearest - margin).abs() > 1e-5);
        prop_assert_eq!(reading.trainable(margin)[0], nearest <= margin);
    }
}

#[test]
fn without_quantisers_the_network_is_the_transformer() {
    for class_token in [false, true] {
        let network = network(class_token);
        let x = images(5).inputs;
        let plain = QuantisedViT::new(&network, floats(Form::Plain)).unwrap().forward(&x).unwrap();
        assert!(distance(&values(&plain), &values(&network.forward(&x).unwrap())) < 1e-5);
    }
}

#[test]
fn reparametrised_attention_is_exact_in_floats() {
    let network = network(false);
    let x = images(5).inputs;
    let logits = |form| values(&QuantisedViT::new(&network, floats(form)).unwrap().forward(&x).unwrap());
    let large = |i: usize| (i as f32).sin() * 3.0;
    // With biases only the form that keeps the queries' is exact.
    set_bias(&network, 0..16, large);
    let truth = values(&network.forward(&x).unwrap());
    assert!(distance(&logits(QKR), &truth) > 1e-3);
    assert!(distance(&logits(Form::Qkr { keep_query_bias: true }), &truth) < 1e-5);
    // The keys' biases alone never matter.
    set_bias(&network, 0..8, |_| 0.0);
    let truth = values(&network.forward(&x).unwrap());
    assert!(distance(&logits(QKR), &truth) < 1e-5);
}

#[test]
fn gradients_of_the_product_reach_both_its_factors() {
    // The two forms are the same function of the weights, so that their gradients agree.
    let network = network(false);
    set_bias(&network, 0..16, |_| 0.0);
    let data = images(6);
    let numbers = Tensor::arange(0, 6_u32, &Device::Cpu).unwrap();
    let gradient = |form| {
        let vit = QuantisedViT::new(&network, floats(form)).unwrap();
        let loss = Lessons::new(&data, None).unwrap().loss(&vit, &numbers).unwrap();
        let gradients = offprint_nn::ops::backward(&loss).unwrap();
        let var = vit.network().params().get("blocks.1.attn.qkv.weight").unwrap();
        values(gradients.get(var).unwrap())
    };
    assert!(distance(&gradient(QKR), &gradient(Form::Plain)) < 1e-4);
}

#[test]
fn straight_through_gradients_reach_every_weight_or_those_at_a_boundary() {
    use offprint_compress::ofq::WeightQuantiser;
    let w = candle_core::Var::new(&[[0.1_f32, -0.4, 1.5, -2.0], [0.999, 0.4, 0.6, 2.001]], &Device::Cpu).unwrap();
    let factors = Tensor::new(&[[1_f32, 2., 3., 4.], [5., 6., 7., 8.]], &Device::Cpu).unwrap();
    let quantiser = WeightQuantiser::new(Rule::StatsQ, &w, 2).unwrap();
    let gradient = |margin| {
        let fake = quantiser.fake(&w, margin).unwrap();
        let loss = (fake * &factors).unwrap().sum_all().unwrap();
        values(loss.backward().unwrap().get(&w).unwrap())
    };
    // Also the clipped ones.
    assert_eq!(gradient(None), [1., 2., 3., 4., 5., 6., 7., 8.]);
    // s = 2, boundaries at −1, 0 and 1: u of 0.999 is 0.499.
    assert_eq!(gradient(Some(0.01)), [0., 0., 0., 0., 5., 0., 0., 0.]);
    let lsq = WeightQuantiser::new(Rule::Lsq, &w, 2).unwrap();
    let masked = lsq.fake(&w, Some(1e-9)).unwrap();
    let loss = (masked * &factors).unwrap().sum_all().unwrap();
    assert!(values(loss.backward().unwrap().get(&w).unwrap()).iter().all(|&g| g == 0.0));
}

fn reading(weights: &[f32], scale: f32) -> Reading {
    let levels = Levels::Whole { first: -2, last: 1 };
    Reading { name: "m".into(), weights: weights.to_vec(), columns: weights.len(), scales: vec![scale], levels }
}

#[test]
fn flips_oscillations_and_their_causes_are_counted() {
    let mut tracker = Tracker::new(vec![reading(&[0.4, 0.4], 1.0)]);
    let mut step = |weights: &[f32], scale| tracker.step(vec![reading(weights, scale)])[0];
    // The first weight goes up, down, up: one flip, then two oscillations.
    let counts = [step(&[0.6, 0.4], 1.0), step(&[0.4, 0.4], 1.0), step(&[0.4, 0.4], 1.0), step(&[0.6, 0.4], 1.0)];
    assert_eq!(counts.map(|c| c.flips), [1, 1, 0, 1]);
    assert_eq!(counts.map(|c| c.oscillations), [0, 1, 0, 1]);
    assert!(counts.iter().all(|c| c.by_scale == 0 && c.weight_steps == 2));
    // Now the scale shrinks: the second weight goes from 0 to 1 without having moved, the first stays.
    let by_scale = step(&[0.6, 0.4], 0.7);
    assert_eq!((by_scale.flips, by_scale.by_scale, by_scale.oscillations), (1, 1, 0));
    // Frequency: 0.01, then decayed once and raised again.
    let expected = 0.01 * 0.99_f32.powi(3) + 0.01 * 0.99;
    assert!((tracker.memories[0].frequency[0] - expected).abs() < 1e-6);
    assert_eq!(tracker.oscillating(), 0.5);
}

fn trained(precision: Precision, calm: Calm, weight_decay: f64, epochs: u64) -> (QuantisedViT, QuantisedViT) {
    let start = QuantisedViT::new(&network(false), precision).unwrap();
    let end = QuantisedViT::new(&network(false), precision).unwrap();
    let training = Training { epochs, batch: 10, rate: 0.02, schedule: Schedule::constant(), weight_decay, calm };
    let lessons = Lessons::new(&images(30), Some(&network(false))).unwrap();
    end.train(&lessons, &training, Streams::new(1).stream("order"), &Progress::silent()).unwrap();
    (start, end)
}

#[test]
fn annealing_puts_back_what_momentum_and_decay_move() {
    let precision = Precision::ofq(2, None).plain();
    let margin = 0.02;
    let (start, end) = trained(precision, Calm::Cga { margin }, 0.5, 2);
    let (mut held, mut moved) = (0, 0);
    for (before, after) in start.readings().unwrap().iter().zip(end.readings().unwrap()) {
        let far = before.to_boundary().map(|distance| distance > 0.2);
        for ((far, before), after) in far.zip(&before.weights).zip(&after.weights) {
            if far {
                assert_eq!(before.to_bits(), after.to_bits());
                held += 1;
            } else if before != after {
                moved += 1;
            }
        }
    }
    assert!(held > 100 && moved > 5, "{held} {moved}");
    // Everything else trains on.
    let bias = |vit: &QuantisedViT| values(vit.network().params().get("blocks.0.mlp.fc1.bias").unwrap());
    assert_ne!(bias(&start), bias(&end));
}

#[test]
fn with_reparametrised_attention_queries_and_keys_are_not_held() {
    let (start, end) = trained(Precision::ofq(2, None), Calm::Cga { margin: 0.02 }, 0.5, 1);
    let rows = |vit: &QuantisedViT| values(vit.network().params().get("blocks.0.attn.qkv.weight").unwrap());
    let (before, after) = (rows(&start), rows(&end));
    let same = |range: std::ops::Range<usize>| range.filter(|&i| before[i] == after[i]).count();
    assert!(same(0..128) < 10);
    assert!(same(128..192) > 40);
}

#[test]
fn dampening_is_the_sum_of_squares_to_the_levels() {
    let vit = QuantisedViT::new(&network(false), Precision::ofq(2, None)).unwrap();
    let found = vit.dampening().unwrap().unwrap().to_scalar::<f32>().unwrap();
    let mut sum = 0.0_f64;
    for reading in vit.readings().unwrap() {
        let ends = reading.levels.codes();
        for (i, &w) in reading.weights.iter().enumerate() {
            let s = reading.scale(i);
            let clipped = w.clamp(reading.levels.value(ends.0, s), reading.levels.value(ends.1, s));
            sum += f64::from(clipped - reading.levels.value(reading.levels.code(w, s), s)).powi(2);
        }
    }
    assert!((f64::from(found) - sum).abs() < 1e-4 * sum, "{found} {sum}");
}

#[test]
fn freezing_and_dampening_train_and_freezing_stops_flips() {
    let flips = |calm, epochs| {
        let vit = QuantisedViT::new(&network(false), Precision::ofq(2, Some(4)).plain().by(Rule::Lsq)).unwrap();
        let training = Training { epochs, batch: 10, rate: 0.02, calm, ..Training::default() };
        let lessons = Lessons::new(&images(30), None).unwrap();
        let history = vit.train(&lessons, &training, Streams::new(1).stream("order"), &Progress::silent()).unwrap();
        assert_eq!(history.counts.len(), 3 * epochs as usize);
        history.last(5).oscillations
    };
    let free = flips(Calm::Nothing, 20);
    assert!(free > 0);
    assert!(flips(Calm::Freezing { threshold: 0.005 }, 20) < free / 2);
    assert!(flips(Calm::Dampening { strength: 1.0 }, 20) < free);
}

fn all_precisions() -> Vec<Precision> {
    let ofq = Precision::ofq(2, Some(3));
    let kept = Precision { form: Form::Qkr { keep_query_bias: true }, ..Precision::ofq(4, None) };
    vec![ofq, ofq.plain(), Precision::ofq(1, None), kept, ofq.plain().by(Rule::Lsq), ofq.by(Rule::LsqTensor)]
}

#[test]
fn files_reload_bit_for_bit() {
    let data = images(12);
    for precision in all_precisions() {
        let (_, vit) = trained(precision, Calm::Nothing, 0.0, 1);
        let expected = vit.logits(&data.inputs).unwrap();
        for shadow in [false, true] {
            let (arrays, metadata, bytes) = vit.to_arrays(shadow).unwrap();
            let again = QuantisedViT::from_arrays(&arrays, &metadata, "file").unwrap();
            let logits = again.logits(&data.inputs).unwrap();
            assert!(expected.iter().zip(&logits).all(|(a, b)| a.to_bits() == b.to_bits()), "{precision:?} {shadow}");
            // What is read can be written again.
            let (second, _, again_bytes) = again.to_arrays(false).unwrap();
            assert_eq!(bytes, again_bytes);
            assert_eq!(second, vit.to_arrays(false).unwrap().0);
        }
    }
}

#[test]
fn files_that_are_wrong_are_named() {
    let vit = QuantisedViT::new(&network(false), Precision::ofq(2, Some(3))).unwrap();
    let (arrays, metadata, _) = vit.to_arrays(false).unwrap();
    let fails = |change: &dyn Fn(&mut Arrays, &mut Metadata)| {
        let (mut arrays, mut metadata) = (arrays.clone(), metadata.clone());
        change(&mut arrays, &mut metadata);
        QuantisedViT::from_arrays(&arrays, &metadata, "net.safetensors").unwrap_err().to_string()
    };
    let codes = "blocks.0.mlp.fc1.codes";
    let without = |name: &'static str| fails(&move |arrays, _| drop(arrays.remove(name)));
    assert!(without(codes).contains(codes));
    assert!(without("norm.weight").contains("norm.weight"));
    assert!(without("activations.head.step").contains("activations.head.step"));
    assert!(fails(&|_, metadata| drop(metadata.remove("format"))).contains("quantised by ofq"));
    assert!(fails(&|_, metadata| drop(metadata.remove("precision"))).contains("precision"));
    let bytes = |n: usize| Array::U8(ndarray::Array1::from_elem(n, 0_u8).into_dyn());
    assert!(fails(&|arrays, _| drop(arrays.insert(codes.into(), bytes(3)))).contains("3 bytes for 96 codes"));
    let real = |n: usize, x: f32| Array::F32(ndarray::Array1::from_elem(n, x).into_dyn());
    assert!(fails(&|arrays, _| drop(arrays.insert(codes.into(), real(24, 0.0)))).contains("not uint8"));
    let scale = "blocks.0.attn.product.scale";
    assert!(fails(&|arrays, _| drop(arrays.insert(scale.into(), real(16, f32::NAN)))).contains("not finite"));
    assert!(fails(&|arrays, _| drop(arrays.insert(scale.into(), real(15, 1.0)))).contains("[16]"));
    for (from, to) in
        [("\"mlp\":12", "\"mlp\":1200000000000"), ("\"depth\":2", "\"depth\":0"), ("\"patch\":2", "\"patch\":0")]
    {
        let error = fails(&|_, metadata| {
            let text = metadata["architecture"].replace(from, to);
            assert_ne!(text, metadata["architecture"]);
            metadata.insert("architecture".into(), text);
        });
        assert!(error.contains("net.safetensors"), "{error}");
    }
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let network = network(false);
    let error = |precision| QuantisedViT::new(&network, precision).unwrap_err().to_string();
    assert!(error(Precision::ofq(0, None)).starts_with("weight_bits: got 0"));
    assert!(error(Precision::ofq(9, None)).starts_with("weight_bits: got 9"));
    assert!(error(Precision::ofq(1, None).by(Rule::Lsq)).starts_with("weight_bits: got 1"));
    assert!(error(Precision::ofq(2, Some(1))).starts_with("activation_bits: got 1"));
    let vit = QuantisedViT::new(&network, Precision::ofq(2, Some(2))).unwrap();
    let larger = Tensor::zeros((1, 1, 8, 8), DType::F32, &Device::Cpu).unwrap();
    assert!(vit.logits(&larger).unwrap_err().to_string().contains("8 × 8"));
    assert!(quality(&images(3).narrow(0, 0).unwrap(), |x| vit.forward(x)).is_err());
    for calm in [
        Calm::Cga { margin: 0.5 },
        Calm::Cga { margin: f64::NAN },
        Calm::Freezing { threshold: 0.0 },
        Calm::Dampening { strength: -1.0 },
    ] {
        assert!(calm.check().is_err());
    }
    let cnn = Network::fresh(&Architecture::DigitsCnn { classes: 3 }, 0, DType::F32).unwrap();
    assert!(QuantisedViT::new(&cnn, Precision::ofq(2, None)).unwrap_err().to_string().contains("vision transformer"));
}
