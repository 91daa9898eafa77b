//! M-FAC against dense inverses, against the recursion written out, and against bad input.

use ndarray::{Array2, ArrayView2, s};
use offprint_core::random::{Stream, Streams};
use offprint_core::{Error, Progress, Source};
use offprint_curvature::mfac::{
    Compensation, Criterion, Gradients, MfacBlocks, MfacDynamic, MfacFactored, MfacOptimizer, MfacStatic, Pruner,
    Settings, Weights, WoodFisher, saliencies, smallest,
};
use offprint_curvature::{Inverse, vector};
use offprint_math::linalg;
use proptest::prelude::*;

fn stream(seed: u64) -> Stream {
    Streams::new(seed).stream("tests")
}

fn normal(rows: usize, columns: usize, seed: u64) -> Array2<f64> {
    Array2::from_shape_vec((rows, columns), vector::gaussian(stream(seed), 0, rows * columns)).unwrap()
}

/// F̂ = λI + 1/m GᵀG, written out.
fn fisher(gradients: ArrayView2<f64>, damp: f64, count: usize) -> Array2<f64> {
    Array2::eye(gradients.ncols()) * damp + gradients.t().dot(&gradients) / count as f64
}

fn dense_inverse(gradients: ArrayView2<f64>, damp: f64, count: usize) -> Array2<f64> {
    linalg::inverse(fisher(gradients, damp, count).view()).unwrap()
}

/// The largest difference relative to the largest element of `b`.
fn error(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let largest = b.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
    a.iter().zip(b).fold(0.0, |worst: f64, (a, b)| worst.max((a - b).abs())) / largest
}

/// The published recursion, one rank-one term after the other: directions v_i and denominators δ_i.
fn recursion(gradients: ArrayView2<f64>, damp: f64) -> (Array2<f64>, Vec<f64>) {
    let (m, d) = gradients.dim();
    let (mut v, mut delta) = (Array2::<f64>::zeros((m, d)), Vec::new());
    for i in 0..m {
        let g = gradients.row(i);
        let mut row = &g / damp;
        for (v, delta) in v.rows().into_iter().zip(&delta) {
            row.scaled_add(-v.dot(&g) / delta, &v);
        }
        delta.push(m as f64 + g.dot(&row));
        v.row_mut(i).assign(&row);
    }
    (v, delta)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn every_form_is_the_dense_inverse(
        (m, d) in (1usize..14, 1usize..40), page in 1usize..15, block in 1usize..45, seed in 0u64..1000,
        damp in prop_oneof![Just(1e-3), Just(0.1), Just(10.0)], scale in prop_oneof![Just(1e-3), Just(1.0), Just(30.0)],
    ) {
        let g = normal(m, d, seed) * scale;
        let x: Vec<f64> = vector::gaussian(stream(seed), 1, d);
        let dense = dense_inverse(g.view(), damp, m);
        let expected = dense.dot(&ndarray::aview1(&x)).to_vec();
        let diagonal = dense.diag().to_vec();
        let fixed = MfacStatic::paged(g.clone(), damp, page).unwrap();
        let factored = MfacFactored::new(g.view(), damp).unwrap();
        let mut window = MfacDynamic::<f64>::new(d, m, damp).unwrap();
        g.rows().into_iter().for_each(|row| window.push(&row.to_vec()).unwrap());
        for inverse in [&fixed as &dyn Inverse, &factored, &window] {
            prop_assert!(error(&inverse.apply_inverse(&x).unwrap(), &expected) < 1e-8);
            prop_assert!(error(&inverse.diag_inverse().unwrap(), &diagonal) < 1e-8);
        }
        let (k, l) = (seed as usize % d, (seed as usize / 7) % d);
        prop_assert!((fixed.element(k, l).unwrap() - dense[[k, l]]).abs() < 1e-8 * dense[[k, k]].max(dense[[l, l]]));

        // Blocks: the dense inverse of F̂ without what lies outside its blocks.
        let mut blocked = fisher(g.view(), damp, m);
        blocked.indexed_iter_mut().for_each(|((i, j), x)| if i / block != j / block { *x = 0.0 });
        let blocked = linalg::inverse(blocked.view()).unwrap();
        let expected = blocked.dot(&ndarray::aview1(&x)).to_vec();
        let blocks = MfacBlocks::new(g.view(), damp, block).unwrap();
        let written_out = WoodFisher::new(g.view(), damp, block).unwrap();
        for inverse in [&blocks as &dyn Inverse, &written_out] {
            prop_assert!(error(&inverse.apply_inverse(&x).unwrap(), &expected) < 1e-8);
            prop_assert!(error(&inverse.diag_inverse().unwrap(), &blocked.diag().to_vec()) < 1e-8);
        }
    }

    #[test]
    fn directions_are_those_of_the_recursion_whatever_the_pages(
        (m, d) in (1usize..12, 1usize..30), page in 1usize..13, seed in 0u64..1000,
    ) {
        let g = normal(m, d, seed);
        let (v, delta) = recursion(g.view(), 0.1);
        let fixed = MfacStatic::paged(g, 0.1, page).unwrap();
        prop_assert!(error(fixed.directions().as_slice().unwrap(), v.as_slice().unwrap()) < 1e-9);
        prop_assert!(error(fixed.denominators(), &delta) < 1e-9);
    }

    #[test]
    fn the_window_forgets_all_but_the_last_gradients(
        (m, d) in (1usize..9, 1usize..20), pushed in 0usize..30, seed in 0u64..1000,
    ) {
        let g = normal(pushed.max(1), d, seed);
        let mut window = MfacDynamic::<f64>::new(d, m, 0.05).unwrap();
        for i in 0..pushed {
            let row = g.row(i).to_vec();
            let solved = window.push_solve(&row).unwrap();
            prop_assert!(error(&solved, &window.apply_inverse(&row).unwrap()) < 1e-9);
        }
        // The count in F̂ is the window's size also while it fills up; the order in the ring does not matter.
        let last = g.slice(s![pushed.saturating_sub(m)..pushed, ..]);
        let dense = dense_inverse(last, 0.05, m);
        let x: Vec<f64> = vector::gaussian(stream(seed), 2, d);
        prop_assert!(error(&window.apply_inverse(&x).unwrap(), &dense.dot(&ndarray::aview1(&x)).to_vec()) < 1e-9);
        prop_assert!(error(&window.diag_inverse().unwrap(), &dense.diag().to_vec()) < 1e-9);
    }

    #[test]
    fn of_equal_scores_the_first_go_first(scores in prop::collection::vec(0u8..4, 1..40), count in 0usize..45) {
        let scores: Vec<f64> = scores.into_iter().map(f64::from).collect();
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
        order.truncate(count);
        order.sort_unstable();
        prop_assert_eq!(smallest(&scores, count), order);
    }
}

#[test]
fn coefficients_and_interactions_of_the_window_are_as_derived() {
    let (m, d, damp) = (6, 15, 0.2);
    let g = normal(m, d, 5);
    let mut window = MfacDynamic::<f64>::new(d, m, damp).unwrap();
    g.rows().into_iter().for_each(|row| window.push(&row.to_vec()).unwrap());
    let (v, delta) = recursion(g.view(), damp);
    // v_i = Σ_j B_ij g_j; D_ij = v_i · g_j for i ≤ j; δ_i = m + D_ii.
    let from_coefficients = window.coefficients().dot(&g);
    assert!(error(from_coefficients.as_slice().unwrap(), v.as_slice().unwrap()) < 1e-10);
    let mut interactions = v.dot(&g.t());
    interactions.indexed_iter_mut().for_each(|((i, j), x)| {
        if i > j {
            *x = 0.0
        }
    });
    assert!(error(window.interactions().as_slice().unwrap(), interactions.as_slice().unwrap()) < 1e-10);
    assert!(error(&window.denominators(), &delta) < 1e-12);
}

#[test]
fn single_precision_storage_keeps_the_answer() {
    let (m, d, damp) = (24, 3000, 1e-3);
    let g = normal(m, d, 1).mapv(|x| x as f32);
    let wide = g.mapv(f64::from);
    let x: Vec<f64> = vector::gaussian(stream(1), 1, d);
    let exact = MfacFactored::new(wide.view(), damp).unwrap().apply_inverse(&x).unwrap();
    // The gradients are read as they are: only rounding in f64. The directions of the static form are rounded to f32.
    assert!(error(&MfacFactored::new(g.view(), damp).unwrap().apply_inverse(&x).unwrap(), &exact) < 1e-12);
    assert!(error(&MfacStatic::new(g.clone(), damp).unwrap().apply_inverse(&x).unwrap(), &exact) < 1e-4);
}

#[test]
fn zero_and_duplicate_gradients_are_legal() {
    let mut g = normal(5, 12, 3);
    g.row_mut(1).fill(0.0);
    let twin = g.row(2).to_owned();
    g.row_mut(4).assign(&twin);
    let dense = dense_inverse(g.view(), 1e-3, 5);
    let fixed = MfacStatic::new(g.clone(), 1e-3).unwrap();
    assert!(error(&fixed.diag_inverse().unwrap(), &dense.diag().to_vec()) < 1e-8);
    assert!((fixed.denominators()[1] - 5.0).abs() < 1e-12);
}

#[test]
fn the_order_of_gradients_does_not_matter() {
    let g = normal(7, 20, 9);
    let reversed = g.slice(s![..;-1, ..]).as_standard_layout().into_owned();
    let x: Vec<f64> = vector::gaussian(stream(9), 1, 20);
    let answer = |g: Array2<f64>| MfacStatic::new(g, 0.01).unwrap().apply_inverse(&x).unwrap();
    assert!(error(&answer(g), &answer(reversed)) < 1e-10);
}

#[test]
fn bad_input_is_named() {
    let words = |result: Result<MfacStatic<f64>, Error>| result.unwrap_err().to_string();
    let g = normal(3, 4, 0);
    assert_eq!(words(MfacStatic::new(g.clone(), 0.0)), "damp: got 0, but it must be above 0 and finite");
    assert!(words(MfacStatic::new(g.clone(), f64::NAN)).starts_with("damp: got NaN"));
    assert!(words(MfacStatic::new(Array2::zeros((0, 4)), 1.0)).starts_with("grads: is empty"));
    assert!(words(MfacStatic::new(Array2::zeros((4, 0)), 1.0)).starts_with("grads: is empty"));
    assert!(words(MfacStatic::paged(g.clone(), 1.0, 0)).starts_with("rows_per_page"));
    let mut holed = g.clone();
    holed[[1, 2]] = f64::NAN;
    assert!(words(MfacStatic::new(holed.clone(), 1.0)).contains("row 1, column 2"));
    assert!(MfacBlocks::new(holed.view(), 1.0, 2).unwrap_err().to_string().contains("row 1, column 2"));
    assert!(MfacBlocks::new(g.view(), 1.0, 0).unwrap_err().to_string().starts_with("block"));
    let fixed = MfacStatic::new(g.clone(), 1.0).unwrap();
    assert!(fixed.apply_inverse(&[1.0; 3]).unwrap_err().to_string().contains("d = 4"));
    assert!(fixed.apply_inverse(&[1.0, f64::NAN, 0.0, 0.0]).unwrap_err().to_string().contains("element 1"));
    assert!(fixed.element(4, 0).is_err());
    assert!(MfacDynamic::<f32>::new(4, 0, 1.0).is_err() && MfacDynamic::<f32>::new(0, 4, 1.0).is_err());
    assert!(MfacDynamic::<f32>::new(usize::MAX / 2, 4, 1.0).is_err());
    let mut window = MfacDynamic::<f32>::new(4, 2, 1.0).unwrap();
    assert!(window.push(&[1.0]).is_err());
    // 1e300 is finite, but not in f32; the window stays as it was.
    assert!(window.push(&[1.0, 1e300, 0.0, 0.0]).unwrap_err().to_string().contains("element 1"));
    assert_eq!(window.rows().nrows(), 0);
    // A damping that drowns in the gradients' rounding is told, not answered by noise.
    let huge = Array2::from_elem((3, 4), 1e9);
    assert!(MfacStatic::new(huge, 1e-12).and_then(|inverse| inverse.diag_inverse()).is_err());
}

#[test]
fn gradients_come_from_files_in_place_or_converted() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let source = |name: &str| path(name).display().to_string().parse::<Source>().unwrap();
    let write = |name: &str, array: offprint_core::Array| {
        offprint_core::artifact::Artifact::Array(array).write(&path(name)).unwrap();
    };
    let g = normal(3, 5, 2).mapv(|x| x as f32);
    write("g.npy", g.clone().into());
    let opened = Gradients::open(&source("g.npy")).unwrap();
    assert!(matches!(opened, Gradients::Mapped(_)));
    assert_eq!(opened.view().columns(&[0, 1, 2, 3, 4]), g);
    offprint_core::artifact::Artifact::Arrays([("grads".to_owned(), g.clone().into())].into(), Default::default())
        .write(&path("g.safetensors"))
        .unwrap();
    assert_eq!(Gradients::open(&source("g.safetensors")).unwrap().view().columns(&[1]), g.slice(s![.., 1..2]));
    std::fs::write(path("g.csv"), "1,2\n3,4\n").unwrap();
    assert_eq!(Gradients::open(&source("g.csv")).unwrap().view().dim(), (2, 2));
    write("v.npy", vec![1.0f32, 2.0].into());
    assert!(Gradients::open(&source("v.npy")).unwrap_err().to_string().contains("shape [2]"));
    let mut holed = g;
    holed[[2, 4]] = f32::INFINITY;
    write("h.npy", holed.into());
    assert!(Gradients::open(&source("h.npy")).unwrap_err().to_string().contains("row 2, column 4"));
    assert!(Gradients::open(&source("g.safetensors:other")).unwrap_err().to_string().contains("no tensor \"other\""));
}

#[test]
fn the_surgeon_drops_what_costs_least_and_adjusts_the_rest() {
    // Two coordinates that do the same work, one that does nothing, one that works alone.
    let g = ndarray::arr2(&[[1.0, 1.0, 0.0, 0.0], [-1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 2.0], [0.0, 0.0, 0.0, -2.0]])
        .mapv(|x: f64| x as f32);
    let start = [10.0, 5.0, 3.0, 0.8];
    let pruned = |compensation, sparsity| {
        let mut weights = start.to_vec();
        let pruner = Pruner { damp: 1e-4, compensation, ..Pruner::default() };
        pruner.prune(&mut weights, sparsity, |_| Ok(g.clone()), &Progress::silent()).unwrap();
        weights
    };
    // The idle weight goes first although it is not the smallest, then the smaller twin, whose work the other takes over.
    assert_eq!(pruned(Compensation::Single, 0.25)[2], 0.0);
    for compensation in [Compensation::Single, Compensation::Joint] {
        let weights = pruned(compensation, 0.5);
        assert_eq!((weights[1], weights[2]), (0.0, 0.0));
        assert!((weights[0] - 15.0).abs() < 1e-3 && (weights[3] - 0.8).abs() < 1e-12, "{weights:?}");
    }
    assert_eq!(pruned(Compensation::Joint, 1.0), [0.0; 4]);
    assert_eq!(pruned(Compensation::Single, 0.0), start);
}

#[test]
fn the_joint_update_minimises_the_quadratic_model() {
    let (m, d, damp) = (20, 12, 0.05);
    let g = normal(m, d, 4).mapv(|x| x as f32);
    let start: Vec<f64> = vector::gaussian(stream(4), 1, d);
    let mut weights = start.clone();
    let pruner = Pruner { damp, compensation: Compensation::Joint, ..Pruner::default() };
    pruner.prune(&mut weights, 0.5, |_| Ok(g.clone()), &Progress::silent()).unwrap();
    let kept: Vec<usize> = (0..d).filter(|&k| weights[k] != 0.0).collect();
    assert_eq!(kept.len(), 6);
    // The gradient of ½ (w − w₀)ᵀ F̂ (w − w₀) vanishes on the kept coordinates.
    let change: Vec<f64> = weights.iter().zip(&start).map(|(w, s)| w - s).collect();
    let slope = fisher(g.mapv(f64::from).view(), damp, m).dot(&ndarray::aview1(&change));
    assert!(kept.iter().all(|&k| slope[k].abs() < 1e-10), "{slope}");
    // What is dropped is what the saliencies say.
    let diagonal = dense_inverse(g.mapv(f64::from).view(), damp, m).diag().to_vec();
    let dropped = smallest(&saliencies(&start, &diagonal), 6);
    assert!(dropped.iter().all(|&k| weights[k] == 0.0));
}

#[test]
fn pruning_reaches_its_sparsity_in_every_way() {
    let d = 50;
    let start: Vec<f64> = vector::gaussian(stream(8), 0, d);
    for criterion in [
        Criterion::Magnitude,
        Criterion::DiagonalFisher,
        Criterion::Mfac,
        Criterion::MfacBlocks(7),
        Criterion::WoodFisher(7),
    ] {
        for steps in [1, 3] {
            let mut weights = start.clone();
            weights[3] = 0.0;
            let mut calls = 0;
            let gradients = |w: &[f64]| {
                calls += 1;
                Ok(normal(16, w.len(), 100 + calls).mapv(|x| x as f32))
            };
            Pruner { criterion, steps, damp: 1e-2, ..Pruner::default() }
                .prune(&mut weights, 0.8, gradients, &Progress::silent())
                .unwrap();
            assert_eq!(weights.iter().filter(|&&w| w == 0.0).count(), 40, "{criterion:?}");
            assert_eq!(weights[3], 0.0);
            assert_eq!(calls, if criterion == Criterion::Magnitude { 0 } else { steps as u64 });
        }
    }
    let fail = |sparsity, steps| {
        let mut weights = vec![0.0, 0.0, 1.0, 2.0];
        let pruner = Pruner { steps, ..Pruner::default() };
        pruner
            .prune(&mut weights, sparsity, |_| Ok(Array2::zeros((2, 3))), &Progress::silent())
            .unwrap_err()
            .to_string()
    };
    assert!(fail(0.25, 1).starts_with("sparsity: got 0.25, but it must be at least the present sparsity 0.5"));
    assert!(fail(1.5, 1).starts_with("sparsity"));
    assert!(fail(0.75, 0).starts_with("recompute"));
    assert!(fail(0.75, 1).contains("(2, 3)"));
}

#[test]
fn a_step_from_an_empty_window_has_the_length_derived() {
    // u = m g/(m λ + ‖g‖²) after the first push.
    let g = [3.0f32, 4.0];
    let settings = Settings { window: 8, damp: 0.5, learning_rate: 0.1, ..Settings::default() };
    let mut weights = [1.0f32, -1.0];
    let mut optimizer = MfacOptimizer::new(&weights, settings).unwrap();
    optimizer.step(&mut weights, &g).unwrap();
    let factor = 0.1 * 8.0 / (8.0 * 0.5 + 25.0);
    assert!((weights[0] - (1.0 - 3.0 * factor)).abs() < 1e-6 && (weights[1] - (-1.0 - 4.0 * factor)).abs() < 1e-6);
    assert!(optimizer.step(&mut weights, &[1.0]).is_err());
    assert!(optimizer.step(&mut weights, &[f32::NAN, 0.0]).is_err());
}

#[test]
fn steps_with_momentum_decay_and_pruned_weights_are_those_written_out() {
    let settings = Settings { window: 3, damp: 0.02, learning_rate: 0.05, momentum: 0.6, weight_decay: 0.1 };
    let mut weights = [0.0f32, 1.0, -2.0, 0.5];
    let mut optimizer = MfacOptimizer::sparse(&weights, settings).unwrap();
    let (mut expected, mut velocity) = (ndarray::arr1(&[1.0, -2.0, 0.5]), ndarray::Array1::<f64>::zeros(3));
    let mut seen: Vec<f64> = Vec::new();
    for step in 0..7 {
        let gradient: Vec<f32> = vector::gaussian(stream(77), step, 4);
        optimizer.step(&mut weights, &gradient).unwrap();
        let g = ndarray::Array1::from_iter((0..3).map(|k| f64::from(gradient[k + 1]) + 0.1 * expected[k]));
        seen.extend(&g);
        let window = Array2::from_shape_vec((seen.len() / 3, 3), seen.clone()).unwrap();
        let last = window.slice(s![window.nrows().saturating_sub(3).., ..]);
        velocity = velocity * 0.6 + dense_inverse(last, 0.02, 3).dot(&g) * 0.4;
        expected.scaled_add(-0.05, &velocity);
    }
    assert_eq!(weights[0], 0.0, "a pruned weight stays so");
    for k in 0..3 {
        assert!((f64::from(weights[k + 1]) - expected[k]).abs() < 1e-4, "{weights:?} {expected}");
    }
    optimizer.set_learning_rate(0.0);
    let before = weights;
    optimizer.step(&mut weights, &[1.0; 4]).unwrap();
    assert_eq!(weights, before);
}

#[test]
fn weights_lay_their_tensors_out_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("w.safetensors");
    let arrays = [
        ("b.weight".to_owned(), ndarray::arr2(&[[1.0f32, 2.0], [3.0, 4.0]]).into()),
        ("a.weight".to_owned(), ndarray::arr2(&[[5.0f32, 6.0]]).into()),
        ("a.bias".to_owned(), vec![7.0f32].into()),
    ];
    offprint_core::artifact::Artifact::Arrays(arrays.into(), Default::default()).write(&path).unwrap();
    let weights = Weights::read(&path, &[]).unwrap();
    assert_eq!(weights.flat, [5.0, 6.0, 1.0, 2.0, 3.0, 4.0]);
    assert_eq!(weights.ranges(), [0..2, 2..6]);
    let named = Weights::read(&path, &["b.weight".to_owned(), "a.bias".to_owned()]).unwrap();
    assert_eq!(named.flat, [1.0, 2.0, 3.0, 4.0, 7.0]);
    assert_eq!(named.unflatten(&named.flat)["b.weight"].shape(), [2, 2]);
    let error = Weights::read(&path, &["c".to_owned()]).unwrap_err().to_string();
    assert!(error.contains("no tensor \"c\"") && error.contains("a.bias, a.weight, b.weight"), "{error}");
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let g = normal(33, 9000, 6).mapv(|x| x as f32);
    let x: Vec<f64> = vector::gaussian(stream(6), 1, 9000);
    let work = |threads| {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
            let fixed = MfacStatic::paged(g.clone(), 0.1, 8).unwrap();
            (fixed.apply_inverse(&x).unwrap(), fixed.diag_inverse().unwrap())
        })
    };
    assert_eq!(work(1), work(3));
}
