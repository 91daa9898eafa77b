//! AdaQuant against finite differences, closed forms and the float network.

use candle_core::{Device, Tensor, Var};
use offprint_compress::adaquant::{
    BiasTuning, Bits, Flow, How, Quantised, Ranges, Settings, Table, divergence, drift, tune_biases, tune_norms,
};
use offprint_compress::allocate::{Budget, Solver};
use offprint_compress::examples::{Example, Subject};
use offprint_compress::model::{Norm, evaluate, fold_batch_norms, outputs, pick};
use offprint_core::Progress;
use offprint_core::random::{Stream, Streams};
use offprint_nn::layers::LayerKind;
use offprint_nn::{LayerPlace, Network};

fn stream() -> Stream {
    Streams::new(7).stream("tests")
}

fn silent() -> Progress {
    Progress::silent()
}

struct Digits {
    subject: Subject,
    folded: Network,
    norms: Vec<Norm>,
    samples: Tensor,
}

fn digits(samples: u32) -> Digits {
    let subject = Example::DigitsCnn.load().unwrap();
    let (folded, norms) = fold_batch_norms(&subject.network).unwrap();
    let samples = pick(&subject.train, &(0..samples).collect::<Vec<_>>()).unwrap().inputs;
    Digits { subject, folded, norms, samples }
}

fn places(network: &Network, bits: Bits) -> Vec<(LayerPlace, Bits)> {
    network.layers().unwrap().into_iter().filter(|p| p.kind != LayerKind::Embedding).map(|p| (p, bits)).collect()
}

#[test]
fn ranges_give_the_affine_arithmetic_by_hand() {
    // Row 0: m = −1, r = 4, 2 bits: s = 4/3, z = clip(round(−2 + 0.75), −2, 1) = −1. Row 1: all positive, so m = 0, z = −2.
    let weight = Tensor::new(&[[-1.0f32, 0.5, 3.0], [0.2, 0.4, 1.5]], &Device::Cpu).unwrap();
    let ranges = Ranges::of_weight(&weight, 2).unwrap();
    let affines = ranges.affines().unwrap();
    assert_eq!(affines.iter().map(|a| a.zero).collect::<Vec<_>>(), [-1.0, -2.0]);
    assert!((affines[0].scale - 4.0 / 3.0).abs() < 1e-6 && (affines[1].scale - 0.5).abs() < 1e-6);
    let fake: Vec<Vec<f32>> = ranges.fake(&weight).unwrap().to_vec2().unwrap();
    // −1 → round(−0.75 − 1) = −2 → −4/3; 0.5 → −1 → 0; 3 → round(2.25 − 1) = 1 → 8/3.
    let expected = [[-4.0 / 3.0, 0.0, 8.0 / 3.0], [0.0, 0.5, 1.5]];
    for (row, expected) in fake.iter().zip(expected) {
        row.iter().zip(expected).for_each(|(a, b)| assert!((a - b).abs() < 1e-6, "{fake:?}"));
    }
    assert!(Ranges::of_weight(&weight, 9).unwrap_err().to_string().contains("bits"));
}

#[test]
fn a_range_moves_its_levels_as_the_rule_of_the_chain_says() {
    // One number far beyond the last level, so that x̂ = (q⁺ − z) s, whose derivative in s is q⁺ − z and in z is −s, with
    // the rounding of z straight through: z = q⁻ − m/s gives dz/dr = m / (s² (q⁺ − q⁻)) and dz/dm = −1/s.
    let x = Var::new(&[[50.0f32]], &Device::Cpu).unwrap();
    let weight = Tensor::new(&[[-1.0f32, 2.0]], &Device::Cpu).unwrap();
    let ranges = Ranges::of_weight(&weight, 3).unwrap();
    let y = ranges.fake(&x).unwrap().sum_all().unwrap();
    let gradients = y.backward().unwrap();
    let slope = |var: &Var| gradients.get(var).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()[0];
    let (s, m, last, span) = (3.0f32 / 7.0, -1.0f32, 3.0f32, 7.0f32);
    let z = (-4.0 - m / s).round_ties_even();
    assert!((slope(&ranges.range) - ((last - z) / span - s * m / (s * s * span))).abs() < 1e-5);
    assert!((slope(&ranges.minimum) - 1.0).abs() < 1e-5);
    assert_eq!(slope(&x), 0.0);
}

#[test]
fn calibration_beats_rounding_on_images_it_has_not_seen() {
    let Digits { subject, folded, samples, .. } = digits(256);
    let bits = Bits { weight: 3, input: Some(4) };
    let settings = Settings { steps: 150, ..Settings::default() };
    let bits = places(&folded, bits);
    let make = |how, flow| Quantised::new(&folded, &bits, &samples, (how, flow), stream(), &silent()).unwrap();
    let float = outputs(&folded, &subject.test.inputs, None).unwrap();
    let error = |quantised: &Quantised| {
        let own = outputs(&quantised.network, &subject.test.inputs, Some(quantised.within())).unwrap();
        (own - &float).unwrap().sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap()
    };
    let nearest = error(&make(How::Nearest, Flow::Parallel));
    for flow in [Flow::Parallel, Flow::Sequential] {
        let quantised = make(How::AdaQuant(settings), flow);
        let calibrated = error(&quantised);
        assert!(calibrated < 0.7 * nearest, "{flow:?}: {calibrated} {nearest}");
        for (place, layer) in &quantised.layers {
            let (nearest, now) = layer.held_out.unwrap();
            assert!(now <= nearest, "{}: {now} {nearest}", place.name);
        }
    }
}

#[test]
fn the_baselines_stand_between_rounding_and_calibration() {
    let Digits { subject, folded, samples, .. } = digits(256);
    let bits = places(&folded, Bits { weight: 3, input: Some(4) });
    let float = outputs(&folded, &subject.test.inputs, None).unwrap();
    let error = |how| {
        let made = Quantised::new(&folded, &bits, &samples, (how, Flow::Parallel), stream(), &silent()).unwrap();
        let own = outputs(&made.network, &subject.test.inputs, Some(made.within())).unwrap();
        (own - &float).unwrap().sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap()
    };
    let nearest = error(How::Nearest);
    let calibrated = error(How::AdaQuant(Settings { steps: 150, ..Settings::default() }));
    for how in [How::Search { batch: 50 }, How::BiasCorrection] {
        let found = error(how);
        assert!(found < nearest && found > calibrated, "{how:?}: {found}, {nearest}, {calibrated}");
    }
}

#[test]
fn moments_give_the_loss_of_all_pairs_at_once() {
    // Weights only: the loss from moments and the one from batches of everything lead to the same layer.
    let Digits { folded, samples, .. } = digits(60);
    let bits = places(&folded, Bits { weight: 3, input: None });
    let with = |moments| {
        let settings = Settings { steps: 20, batch: 48, moments, ..Settings::default() };
        Quantised::new(&folded, &bits, &samples, (How::AdaQuant(settings), Flow::Sequential), stream(), &silent())
            .unwrap()
    };
    for ((place, a), (_, b)) in with(true).layers.iter().zip(&with(false).layers) {
        let (a, b) = (a.held_out.unwrap(), b.held_out.unwrap());
        assert!((a.1 - b.1).abs() < 0.03 * b.1 && (a.0 - b.0).abs() < 1e-3 * b.0, "{}: {a:?} {b:?}", place.name);
    }
}

#[test]
fn norms_get_their_mean_and_deviation_back_without_touching_codes() {
    let Digits { subject, folded, norms, samples } = digits(512);
    let bits = places(&folded, Bits { weight: 2, input: Some(8) });
    let mut quantised =
        Quantised::new(&folded, &bits, &samples, (How::Nearest, Flow::Parallel), stream(), &silent()).unwrap();
    let before = drift(&quantised, &norms, &samples).unwrap();
    let poor = evaluate(&quantised.network, &subject.test, Some(quantised.within())).unwrap();
    let codes = |q: &Quantised| q.layers.iter().map(|(_, l)| l.weight.values.clone()).collect::<Vec<_>>();
    let was = codes(&quantised);
    tune_norms(&mut quantised, &norms, &samples, &silent()).unwrap();
    for (now, before) in drift(&quantised, &norms, &samples).unwrap().iter().zip(&before) {
        assert!(now.mean < 1e-4 && now.deviation < 1e-3, "{now:?}");
        assert!(now.mean < 0.2 * before.mean && now.deviation < 0.2 * before.deviation);
    }
    for (was, now) in was.iter().zip(codes(&quantised)) {
        let (offprint_compress::Values::Codes { codes: a, .. }, offprint_compress::Values::Codes { codes: b, .. }) =
            (was, &now)
        else {
            panic!("codes stay codes")
        };
        assert_eq!(a, b);
    }
    let better = evaluate(&quantised.network, &subject.test, Some(quantised.within())).unwrap();
    assert!(better.loss < poor.loss, "{better:?} {poor:?}");
}

#[test]
fn biases_bring_the_outputs_closer() {
    let Digits { folded, samples, .. } = digits(128);
    let bits = places(&folded, Bits { weight: 2, input: Some(8) });
    let quantised =
        Quantised::new(&folded, &bits, &samples, (How::Nearest, Flow::Parallel), stream(), &silent()).unwrap();
    let float = outputs(&folded, &samples, None).unwrap();
    let gap = || {
        let own = outputs(&quantised.network, &samples, Some(quantised.within())).unwrap();
        divergence(&float, &own).unwrap().to_scalar::<f32>().unwrap()
    };
    let before = gap();
    let tuning = BiasTuning { steps: 100, ..BiasTuning::default() };
    tune_biases(&quantised, &folded, &samples, &tuning, stream(), &silent()).unwrap();
    assert!(gap() < 0.8 * before, "{} {before}", gap());
}

#[test]
fn the_programme_keeps_its_budget_and_predicts_what_it_chose() {
    let Digits { subject, folded, samples, .. } = digits(128);
    let data = pick(&subject.train, &(0..128).collect::<Vec<_>>()).unwrap();
    let all: Vec<LayerPlace> = places(&folded, Bits { weight: 8, input: None }).into_iter().map(|(p, _)| p).collect();
    let loss = |q: &Quantised| Ok(evaluate(&q.network, &data, Some(q.within()))?.loss);
    let table = Table::measure(&folded, &all, &[8, 4, 2], (&samples, How::Nearest), stream(), &silent(), loss).unwrap();
    let mut last = f64::INFINITY;
    for share in [0.08, 0.12, 0.16, 0.25] {
        let exact = table.choose(Budget::MeanBits(32.0 * share), Solver::Exact).unwrap();
        let programme = table.choose(Budget::MeanBits(32.0 * share), Solver::IntegerProgram).unwrap();
        let greedy = table.choose(Budget::MeanBits(32.0 * share), Solver::Greedy).unwrap();
        assert!(table.compression(&exact) <= share + 1e-9);
        assert!((table.predicted(&exact) - table.predicted(&programme)).abs() < 1e-9);
        assert!(table.predicted(&exact) <= table.predicted(&greedy) + 1e-12 && table.predicted(&exact) <= last);
        last = table.predicted(&exact);
    }
    assert_eq!(table.choose(Budget::MeanBits(8.0), Solver::Exact).unwrap(), vec![0; all.len()]);
    let error = table.choose(Budget::MeanBits(1.0), Solver::Exact).unwrap_err().to_string();
    assert!(error.contains("budget") && error.contains('2'), "{error}");
}
