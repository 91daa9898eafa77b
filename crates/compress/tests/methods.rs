//! Methods against their definitions, written out densely.

use ndarray::{Array2, ArrayView2, arr2};
use offprint_compress::calibration::{Calibration, Needs};
use offprint_compress::examples::Example;
use offprint_compress::methods::{
    AdaRound, Gptq, LsqTraining, Magnitude, Rtn, Scope, SparseGpt, Sparsity, Sweep, Target, Wanda, WeightMethod,
    global_shares, mask_lowest, upper_factor,
};
use offprint_compress::model::evaluate;
use offprint_compress::quantiser::{Grid, Scheme};
use offprint_compress::{Layer, Packed, Pattern, Values, usual_targets};
use offprint_core::Progress;
use offprint_core::random::{Stream, Streams};
use offprint_math::linalg::{inverse, solve};
use offprint_nn::LayerPlace;
use offprint_nn::layers::LayerKind;
use proptest::prelude::*;
use rand_distr::{Distribution, StandardNormal};

fn stream() -> Stream {
    Streams::new(3).stream("test")
}

fn normals(rows: usize, columns: usize, index: u64) -> Array2<f32> {
    let mut rng = stream().rng(index);
    Array2::from_shape_simple_fn((rows, columns), || StandardNormal.sample(&mut rng))
}

fn layer(weight: Array2<f32>) -> Layer {
    let place = LayerPlace {
        name: "fc".into(),
        weight: "fc.weight".into(),
        bias: None,
        kind: LayerKind::Linear,
        shape: vec![weight.nrows(), weight.ncols()],
        batch_norm: None,
        positions: 1,
    };
    Layer { place, weight, bias: None }
}

/// Rows whose columns share a few causes.
fn correlated(rows: usize, columns: usize) -> Array2<f32> {
    normals(rows, 3, 10).dot(&normals(3, columns, 11)) + normals(rows, columns, 12) * 0.3
}

fn seen(rows: &Array2<f32>) -> Calibration {
    let needs = Needs { statistics: true, hessian: true, rows: rows.nrows() };
    Calibration::of_rows("fc", rows.view(), needs, stream()).unwrap()
}

/// ‖X (Ŵ − W)ᵀ‖² / N
fn output_error(rows: &Array2<f32>, layer: &Layer, packed: &Packed) -> f64 {
    let error = rows.dot(&(packed.dequant() - &layer.weight).t());
    error.iter().map(|&e| f64::from(e).powi(2)).sum::<f64>() / rows.nrows() as f64
}

fn run(method: &dyn WeightMethod, layer: &Layer, rows: &Array2<f32>, target: &Target) -> Packed {
    let packed = method.compress(layer, &seen(rows), target, stream()).unwrap();
    packed.check().unwrap();
    packed
}

/// A row of the greedy sweep by dense solves: with the first columns fixed at q, the others minimise
/// (w − w₀) H (w − w₀)ᵀ, so w_R = w₀_R − H_RR⁻¹ H_RF (q_F − w₀_F).
fn greedy(w0: &[f64], h: ArrayView2<'_, f64>, settle: impl Fn(usize, f64) -> f64) -> Vec<f64> {
    let n = w0.len();
    let mut q: Vec<f64> = Vec::new();
    for i in 0..n {
        let free = h.slice(ndarray::s![i.., i..]);
        let pull = Array2::from_shape_fn((n - i, 1), |(r, _)| (0..i).map(|f| h[[i + r, f]] * (q[f] - w0[f])).sum());
        let moved = solve(free, pull.view()).unwrap();
        q.push(settle(i, w0[i] - moved[[0, 0]]));
    }
    q
}

fn damped(rows: &Array2<f32>) -> Array2<f64> {
    let mut h = seen(rows).hessian.unwrap();
    let mean = h.diag().mean().unwrap();
    h.diag_mut().mapv_inplace(|x| x + 0.01 * mean);
    h
}

#[test]
fn the_factor_is_that_of_the_inverse() {
    let h = damped(&correlated(60, 7));
    let upper = upper_factor("fc", &h, 0.0).unwrap();
    let product = upper.t().dot(&upper);
    let expected = inverse(h.view()).unwrap();
    assert!(product.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-8 * b.abs().max(1.0)));
    assert!((0..7).all(|i| (0..i).all(|j| upper[[i, j]] == 0.0)));
    let error = upper_factor("fc", &Array2::from_elem((3, 3), f64::NAN), 0.01).unwrap_err().to_string();
    assert!(error.contains("\"fc\"") && error.contains("Cholesky"), "{error}");
}

#[test]
fn gptq_is_the_greedy_sweep_of_dense_solves() {
    let (layer, rows) = (layer(normals(20, 12, 1)), correlated(80, 12));
    let scheme = Scheme::asymmetric(3);
    let grid = Grid::fit("fc", layer.weight.view(), &scheme).unwrap();
    let h = damped(&rows);
    // Whatever the block, for errors are handed on at once.
    for block in [5, 128] {
        let method = Gptq { sweep: Sweep { block, ..Sweep::default() } };
        let packed = run(&method, &layer, &rows, &Target::quantised(scheme)).dequant();
        for (i, row) in layer.weight.rows().into_iter().enumerate() {
            let w0: Vec<f64> = row.iter().map(|&w| f64::from(w)).collect();
            let expected = greedy(&w0, h.view(), |j, w| f64::from(grid.affine(i, j).fake(w as f32)));
            assert!(packed.row(i).iter().zip(expected).all(|(&a, b)| (f64::from(a) - b).abs() < 1e-6), "row {i}");
        }
    }
}

#[test]
fn sparsegpt_makes_up_for_its_mask_as_dense_solves_do() {
    let (layer, rows) = (layer(normals(6, 16, 1)), correlated(80, 16));
    let h = damped(&rows);
    for sparsity in [Sparsity::Unstructured(0.5), Sparsity::NofM { n: 2, m: 4 }] {
        let packed = run(&SparseGpt::default(), &layer, &rows, &Target::pruned(sparsity));
        let mask = packed.mask.clone().unwrap();
        match sparsity {
            // One more than half of 96, for the threshold itself is pruned.
            Sparsity::Unstructured(_) => assert_eq!(mask.keep.iter().filter(|&&keep| !keep).count(), 49),
            _ => assert_eq!((mask.pattern, mask.sparsity()), (Pattern::NofM { n: 2, m: 4 }, 0.5)),
        }
        let weight = packed.dequant();
        for (i, row) in layer.weight.rows().into_iter().enumerate() {
            let w0: Vec<f64> = row.iter().map(|&w| f64::from(w)).collect();
            let expected = greedy(&w0, h.view(), |j, w| if mask.keep[[i, j]] { w } else { 0.0 });
            assert!(weight.row(i).iter().zip(expected).all(|(&a, b)| (f64::from(a) - b).abs() < 1e-5), "row {i}");
        }
    }
}

#[test]
fn methods_order_as_expected_on_correlated_inputs_and_agree_on_white_ones() {
    let layer = layer(normals(24, 32, 1));
    let target = Target::quantised(Scheme::asymmetric(3));
    let rows = correlated(256, 32);
    let error =
        |method: &dyn WeightMethod, rows: &Array2<f32>| output_error(rows, &layer, &run(method, &layer, rows, &target));
    let adaround = AdaRound { steps: 1500, rate: 1e-2, ..AdaRound::default() };
    let (rtn, gptq) = (error(&Rtn::AsGiven, &rows), error(&Gptq::default(), &rows));
    let learned = error(&adaround, &rows);
    assert!(gptq < 0.6 * rtn && learned < 0.8 * rtn, "rtn {rtn} gptq {gptq} adaround {learned}");
    let white = normals(4096, 32, 5);
    let (rtn, gptq) = (error(&Rtn::AsGiven, &white), error(&Gptq::default(), &white));
    assert!((gptq / rtn - 1.0).abs() < 0.1, "{gptq} {rtn}");
    // In order of the diagonal, with groups.
    let act_order = Gptq { sweep: Sweep { by_diagonal: true, ..Sweep::default() } };
    let grouped = Target::quantised(Scheme::asymmetric(3).grouped(8));
    let packed = run(&act_order, &layer, &rows, &grouped);
    let Values::Codes { grid, .. } = &packed.values else { panic!("no codes") };
    let groups = grid.group_of.as_ref().unwrap();
    assert!((0..4).all(|g| groups.iter().filter(|&&group| group == g).count() == 8));
    assert!(output_error(&rows, &layer, &packed) < rtn_of(&layer, &rows, &grouped));
}

fn rtn_of(layer: &Layer, rows: &Array2<f32>, target: &Target) -> f64 {
    output_error(rows, layer, &run(&Rtn::AsGiven, layer, rows, target))
}

#[test]
fn scales_of_groups_are_those_of_the_compensated_weights() {
    let (layer, rows) = (layer(normals(3, 8, 1)), correlated(60, 8));
    let packed = run(&Gptq::default(), &layer, &rows, &Target::quantised(Scheme::asymmetric(2).grouped(4)));
    let Values::Codes { grid, .. } = &packed.values else { panic!("no codes") };
    let h = damped(&rows);
    for i in 0..3 {
        let w0: Vec<f64> = layer.weight.row(i).iter().map(|&w| f64::from(w)).collect();
        // The first group's scale is that of the weights themselves, the second's of what the first left.
        let first = Grid::fit("fc", layer.weight.slice(ndarray::s![i..=i, ..4]), &Scheme::asymmetric(2)).unwrap();
        assert_eq!(grid.affine(i, 0), first.affine(0, 0));
        let fixed = greedy(&w0, h.view(), |j, w| if j < 4 { f64::from(first.affine(0, j).fake(w as f32)) } else { w });
        let left = Array2::from_shape_fn((1, 4), |(_, j)| fixed[4 + j] as f32);
        let second = Grid::fit("fc", left.view(), &Scheme::asymmetric(2)).unwrap().affine(0, 0);
        assert!((grid.affine(i, 4).scale - second.scale).abs() < 1e-5);
    }
}

#[test]
fn pruners_by_hand() {
    let layer = layer(arr2(&[[1.0, -5.0, 2.0, 3.0], [4.0, 0.5, 0.1, -0.2]]));
    let rows = arr2(&[[1.0, 0.1, 2.0, 1.0], [1.0, 0.1, 2.0, -1.0]]);
    let half = Target::pruned(Sparsity::Unstructured(0.5));
    let keep = |packed: Packed| packed.mask.unwrap().keep;
    assert_eq!(
        keep(run(&Magnitude, &layer, &rows, &half)),
        arr2(&[[false, true, true, true], [true, false, false, false]])
    );
    // Scores of the first row: 1, 0.5, 4, 3; of the second 4, 0.05, 0.2, 0.2, where the lower index stays.
    assert_eq!(
        keep(run(&Wanda, &layer, &rows, &half)),
        arr2(&[[false, false, true, true], [true, false, true, false]])
    );
    let quantised = Target::both(Scheme::symmetric(8), Sparsity::NofM { n: 2, m: 4 });
    let packed = run(&Magnitude, &layer, &rows, &quantised);
    assert_eq!((packed.dequant()[[0, 0]], packed.bits(), packed.sparsity()), (0.0, 8, 0.5));
    let error = |target: &Target| Magnitude.compress(&layer, &seen(&rows), target, stream()).unwrap_err().to_string();
    assert!(error(&Target::default()).contains("magnitude prunes"));
    let groups = Target::pruned(Sparsity::Groups { size: 2, share: 0.5 });
    assert_eq!(
        keep(run(&Magnitude, &layer, &rows, &groups)),
        arr2(&[[true, true, true, true], [false, false, false, false]])
    );
    assert!(SparseGpt::default().compress(&layer, &seen(&rows), &groups, stream()).is_err());
}

#[test]
fn one_threshold_for_all_layers_gives_each_its_share() {
    let layers = [layer(arr2(&[[1.0, 2.0], [3.0, 4.0]])), layer(arr2(&[[0.1, 10.0]]))];
    assert_eq!(global_shares(&layers, 0.5), [Sparsity::Unstructured(0.5), Sparsity::Unstructured(0.5)]);
    assert_eq!(global_shares(&layers, 0.2), [Sparsity::Unstructured(0.0), Sparsity::Unstructured(0.5)]);
}

proptest! {
    #[test]
    fn masks_keep_as_many_as_they_say(
        scores in prop::collection::vec(0.0..1.0f64, 24), share in 0.0..0.99f64, by_row: bool,
    ) {
        let scores = Array2::from_shape_vec((3, 8), scores).unwrap();
        let scope = if by_row { Scope::Row } else { Scope::Layer };
        let mask = mask_lowest(scores.view(), &Sparsity::Unstructured(share), scope);
        let pruned = mask.keep.iter().filter(|&&keep| !keep).count();
        let expected = if by_row { 3 * (8.0 * share + 1e-9) as usize } else { (24.0 * share + 1e-9) as usize };
        prop_assert_eq!(pruned, expected);
        if !by_row && pruned > 0 {
            let highest = scores.iter().zip(&mask.keep).filter(|(_, keep)| !**keep).map(|(s, _)| *s).fold(0.0, f64::max);
            prop_assert!(scores.iter().zip(&mask.keep).all(|(&s, &keep)| !keep || s >= highest));
        }
    }
}

#[test]
fn training_the_steps_mends_three_bits() {
    let subject = Example::DigitsCnn.load().unwrap();
    let (network, train) = (&subject.network, subject.train.narrow(0, 640).unwrap());
    let test = subject.test.narrow(0, 200).unwrap();
    let places = usual_targets(network, Target::default(), &[]).unwrap();
    let targets: Vec<_> = places.into_iter().map(|(place, _)| (place, 2)).collect();
    let training = LsqTraining { steps: 30, activation_bits: Some(4), ..LsqTraining::default() };
    let accuracy = |training: LsqTraining| {
        let trained = training.run(network, &targets, &train, stream(), &Progress::silent()).unwrap();
        assert!(trained.compressed.layers.iter().all(|packed| packed.bits() == 2));
        evaluate(&trained.compressed.network, &test, trained.activations).unwrap().accuracy
    };
    let (before, after) = (accuracy(LsqTraining { steps: 0, ..training }), accuracy(training));
    assert!(after > before + 0.1 && after > 0.85, "{before} {after}");
}
