//! Online orthogonal dictionary learning: closed forms, reference values, invariants, streams, bad input.

use ndarray::{Array1, Array2, ArrayView2, Axis, array, s};
use offprint_core::artifact::{Artifact, read_safetensors};
use offprint_core::random::Streams;
use offprint_core::{Array, Cancel, Error, Method, Observer, Paper, Progress, Report, Run, Scale, Source, Verdict};
use offprint_math::linalg;
use offprint_signal::oodl::objective::{gap, mean_gradient};
use offprint_signal::oodl::*;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::f64::consts::PI;
use std::path::Path;
use std::sync::Arc;

fn streams(seed: u64) -> Streams {
    Streams::new(seed)
}

fn orthogonal(n: usize, seed: u64) -> Array2<f64> {
    random_orthogonal(n, &mut streams(seed).stream("orthogonal").rng(0)).unwrap()
}

fn distance(a: ArrayView2<'_, f64>, b: ArrayView2<'_, f64>) -> f64 {
    assert_eq!(a.dim(), b.dim());
    a.iter().zip(&b).fold(0.0, |m, (x, y)| m.max((x - y).abs()))
}

fn matrix(rows: usize, columns: usize) -> impl Strategy<Value = Array2<f64>> {
    proptest::collection::vec(-3.0..3.0f64, rows * columns)
        .prop_map(move |cells| Array2::from_shape_vec((rows, columns), cells).unwrap())
}

fn paper() -> Paper {
    offprint_signal::papers().into_iter().find(|p| p.card().slug == "oodl").unwrap()
}

/// Runs the method, files in memory.
fn try_run(parameters: Value) -> Result<(Report, Vec<(String, Artifact)>), Error> {
    let paper = paper();
    let mut run = Run::new(paper.card());
    paper.prepare_json(parameters)?.run(&mut run)?;
    run.finish(true)
}

fn message(parameters: Value) -> String {
    match try_run(parameters) {
        Ok(_) => panic!("no error"),
        Err(error) => error.to_string(),
    }
}

fn array_of(files: &[(String, Artifact)], name: &str) -> Array {
    match files.iter().find(|(n, _)| n == name) {
        Some((_, Artifact::Array(array))) => array.clone(),
        _ => panic!("no array {name}"),
    }
}

fn write(path: &Path, array: &Array2<f64>) -> String {
    Artifact::Array(array.clone().into()).write(path).unwrap();
    path.display().to_string()
}

// ---- objective ----

#[test]
fn the_gradient_is_that_of_finite_differences() {
    let samples = BernoulliGaussian::new(4, 0.5, 0.1, streams(1)).unwrap().samples(0, 7);
    let d = orthogonal(4, 2) * 0.9;
    let value = |d: &Array2<f64>| mean_gradient(d.view(), samples.view()).0;
    let (at, gradient) = mean_gradient(d.view(), samples.view());
    // −(1/p) Σ|z|³ directly.
    let direct = -samples.dot(&d).iter().map(|z| z.abs().powi(3)).sum::<f64>() / 7.0;
    assert!((at - direct).abs() < 1e-12);
    let h = 1e-5;
    for ((i, j), &g) in gradient.indexed_iter() {
        let (mut above, mut below) = (d.clone(), d.clone());
        above[[i, j]] += h;
        below[[i, j]] -= h;
        assert!(((value(&above) - value(&below)) / (2.0 * h) - g).abs() < 1e-7, "{i} {j}");
    }
    // Homogeneous of degree three: ⟨D, ∇F⟩ = 3F.
    assert!(((&d * &gradient).sum() - 3.0 * at).abs() < 1e-12);
}

#[test]
fn one_sample_at_a_time_or_in_batches_the_gradient_is_the_same() {
    let samples = BernoulliGaussian::new(6, 0.4, 0.0, streams(3)).unwrap().samples(0, 40);
    let d = orthogonal(6, 4);
    let (value, gradient) = mean_gradient(d.view(), samples.view());
    let each: Vec<_> = samples.outer_iter().map(|y| mean_gradient(d.view(), y.insert_axis(Axis(0)))).collect();
    let mean = each.iter().fold(Array2::zeros((6, 6)), |sum, e| sum + &e.1) / 40.0;
    assert!(distance(gradient.view(), mean.view()) < 1e-12);
    assert!((value - each.iter().map(|e| e.0).sum::<f64>() / 40.0).abs() < 1e-12);
}

#[test]
fn the_objective_at_the_truth_is_the_closed_form_and_its_gap_is_zero() {
    // E|g|³ = 2√(2/π) for a standard normal g, so F(D*) = −2√(2/π) N θ; there the gap vanishes.
    let (n, theta) = (6, 0.3);
    let stream = BernoulliGaussian::new(n, theta, 0.0, streams(5)).unwrap();
    let samples = stream.samples(0, 400_000);
    let (value, gradient) = mean_gradient(stream.truth(), samples.view());
    let expected = -2.0 * (2.0 / PI).sqrt() * n as f64 * theta;
    assert!((value / expected - 1.0).abs() < 0.01, "{value} {expected}");
    assert!(gap(stream.truth(), gradient.view()).unwrap() < 1e-4);
    let elsewhere = orthogonal(n, 6);
    let (_, gradient) = mean_gradient(elsewhere.view(), samples.view());
    let there = gap(elsewhere.view(), gradient.view()).unwrap();
    assert!(there > 0.01, "{there}");
}

// ---- the learner ----

#[test]
fn the_iterates_are_those_of_an_independent_implementation() {
    // numpy 2.4: the three steps written out, batches of 5, N = 3, D_1 = I, ρ_t = min(1, 1.2 (t+1)^(−1/2)), ρ_1 = 1,
    // γ_t = min(1, 2 (t+2)^(−3/4)), polar factors from numpy.linalg.svd.
    let schedule = Schedule { averaging: 1.2, ..Schedule::default() };
    let mut learner = FrankWolfe::new(Array2::eye(3), schedule).unwrap();
    for t in 1..=6 {
        let batch = Array2::from_shape_fn((5, 3), |(i, j)| {
            (((t * 31 + i * 17 + j * 7 + i * j * 5 + t * j * 3 + i * i * j * j) % 11) as f64 - 5.0) / 3.0
        });
        learner.step(batch.view()).unwrap();
    }
    let d = array![
        [0.9699079683640471, -0.0013588040513819143, -0.23937460720521006],
        [-0.01074352392888991, 0.9977483264265116, -0.046172122682534025],
        [0.23857254948993004, 0.04799357024421061, 0.9688740987503568],
    ];
    let projected = array![
        [0.9709355496108715, -0.0009838481418843225, -0.23933907024276185],
        [-0.01047402800866202, 0.9988588855020016, -0.04659636886039261],
        [0.23911180071069232, 0.04774891513462608, 0.9698172961255936],
    ];
    assert!(distance(learner.iterate(), d.view()) < 1e-12);
    assert!((learner.running_gap() - 0.045633136548922974).abs() < 1e-12);
    assert!(distance(learner.dictionary().unwrap().view(), projected.view()) < 1e-12);
    assert_eq!(learner.state().steps, 6);
}

#[test]
fn the_schedule_is_clipped_and_floored() {
    let schedule = Schedule { averaging_floor: 0.05, step_floor: 0.02, ..Schedule::default() };
    assert_eq!(schedule.rho(1), 1.0);
    assert!((schedule.gamma(1) - 2.0 / 3f64.powf(0.75)).abs() < 1e-15);
    assert_eq!(schedule.rho(15), 1.0);
    assert_eq!(schedule.rho(63), 0.5);
    assert_eq!(schedule.gamma(14), 0.25);
    assert_eq!((schedule.rho(1_000_000), schedule.gamma(1_000_000)), (0.05, 0.02));
    assert_eq!(Schedule::plain().rho(1_000_000), 1.0);
    let large = Schedule { step: 9.0, ..Schedule::default() };
    assert_eq!(large.gamma(1), 1.0);
}

#[test]
fn learning_lowers_the_objective_and_finds_the_dictionary() {
    let stream = BernoulliGaussian::new(8, 0.2, 0.0, streams(7)).unwrap();
    let held_out = stream.samples(1 << 30, 20_000);
    let mut learner = FrankWolfe::new(orthogonal(8, 8), Schedule::default()).unwrap();
    let before = mean_gradient(learner.iterate(), held_out.view()).0;
    assert!(recovery_error(learner.iterate(), stream.truth()).unwrap() > 0.3);
    for batch in stream.samples(0, 6000).axis_chunks_iter(Axis(0), 3) {
        learner.step(batch).unwrap();
    }
    // The wrong sign would converge as well, to the densest basis: then the objective rises.
    assert!(mean_gradient(learner.iterate(), held_out.view()).0 < before - 0.1);
    let d = learner.dictionary().unwrap();
    assert!(recovery_error(d.view(), stream.truth()).unwrap() < 0.01);
    assert!(distance(aligned(d.view(), stream.truth()).unwrap().view(), stream.truth()) < 0.1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn iterates_stay_in_the_spectral_ball(
        batches in proptest::collection::vec((1usize..5).prop_flat_map(|b| matrix(b, 5)), 1..12),
        nearest in any::<bool>(),
        plain in any::<bool>(),
    ) {
        let schedule = if plain { Schedule::plain() } else { Schedule::default() };
        let completion = if nearest { Completion::Nearest } else { Completion::Svd };
        let mut learner = FrankWolfe::new(orthogonal(5, 9), schedule).unwrap().with_completion(completion);
        for batch in &batches {
            learner.step(batch.view()).unwrap();
            prop_assert!(linalg::svd(learner.iterate()).unwrap().1[0] <= 1.0 + 1e-12);
            prop_assert!(learner.running_gap() >= -1e-9);
        }
        let d = learner.dictionary().unwrap();
        prop_assert!(distance(linalg::matmul(d.t(), d.view()).view(), Array2::eye(5).view()) < 1e-12);
    }

    #[test]
    fn the_gap_is_never_negative(d in matrix(4, 4), y in matrix(9, 4)) {
        let d = &d / (1e-9 + linalg::svd(d.view()).unwrap().1[0]);
        let (_, gradient) = mean_gradient(d.view(), y.view());
        prop_assert!(gap(d.view(), gradient.view()).unwrap() >= -1e-9);
    }

    #[test]
    fn order_and_signs_of_atoms_do_not_count(
        seed in 0u64..1000, order in Just((0..6).collect::<Vec<usize>>()).prop_shuffle(), signs in 0u8..64,
    ) {
        let truth = orthogonal(6, seed);
        let mut other = truth.select(Axis(1), &order);
        for (j, mut atom) in other.columns_mut().into_iter().enumerate() {
            if signs >> j & 1 == 1 {
                atom.mapv_inplace(|x| -x);
            }
        }
        prop_assert!(recovery_error(other.view(), truth.view()).unwrap().abs() < 1e-12);
        prop_assert!(distance(aligned(other.view(), truth.view()).unwrap().view(), truth.view()) < 1e-12);
    }
}

#[test]
fn a_random_dictionary_has_the_error_of_chance() {
    // E‖Q‖₄⁴ / N = 3/(N+2) for an evenly drawn orthogonal Q.
    for n in [3, 10] {
        let errors: Vec<f64> =
            (0..400).map(|i| recovery_error(orthogonal(n, i).view(), Array2::eye(n).view()).unwrap()).collect();
        let mean = errors.iter().sum::<f64>() / 400.0;
        assert!((mean - (1.0 - 3.0 / (n as f64 + 2.0))).abs() < 0.02, "{n} {mean}");
    }
}

#[test]
fn the_scale_of_the_samples_does_not_matter() {
    let samples = BernoulliGaussian::new(5, 0.4, 0.0, streams(11)).unwrap().samples(0, 300);
    let learn = |scale: f64| {
        let mut learner = FrankWolfe::new(orthogonal(5, 12), Schedule::default()).unwrap();
        // Batches larger than N: gradients of full rank, whose steps rounding does not decide.
        for batch in (&samples * scale).axis_chunks_iter(Axis(0), 30) {
            learner.step(batch).unwrap();
        }
        learner.iterate().to_owned()
    };
    let one = learn(1.0);
    for scale in [2f64.powi(-700), 2f64.powi(-3), 2f64.powi(700)] {
        assert_eq!(learn(scale), one, "{scale}");
    }
    assert!(distance(learn(1e90).view(), one.view()) < 1e-9);
}

#[test]
fn zeros_count_as_samples_and_move_nothing() {
    let start = orthogonal(3, 13);
    let mut learner = FrankWolfe::new(start.clone(), Schedule::default()).unwrap();
    for _ in 0..3 {
        learner.step(Array2::zeros((1, 3)).view()).unwrap();
    }
    assert_eq!((learner.iterate(), learner.state().steps), (start.view(), 3));
    learner.step(Array2::zeros((0, 3)).view()).unwrap();
    assert_eq!(learner.state().steps, 3);
    // One dimension: the dictionary is a sign.
    let mut one = FrankWolfe::new(array![[1.0]], Schedule::default()).unwrap();
    one.step(array![[2.0], [-1.0]].view()).unwrap();
    assert_eq!(one.dictionary().unwrap(), array![[1.0]]);
}

#[test]
fn the_number_of_threads_does_not_matter() {
    // Large enough for products to be shared between threads.
    let work = || {
        let stream = BernoulliGaussian::new(150, 0.1, 0.05, streams(14)).unwrap();
        let mut learner = FrankWolfe::new(orthogonal(150, 15), Schedule::default()).unwrap();
        for batch in stream.samples(0, 600).axis_chunks_iter(Axis(0), 200) {
            learner.step(batch).unwrap();
        }
        learner.iterate().to_owned()
    };
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    assert_eq!(pool(1).install(work), pool(4).install(work));
}

#[test]
fn learners_refuse_what_they_cannot_use() {
    assert!(FrankWolfe::new(Array2::zeros((0, 0)), Schedule::default()).is_err());
    assert!(FrankWolfe::new(Array2::zeros((2, 3)), Schedule::default()).is_err());
    assert!(FrankWolfe::new(Array2::eye(2) * 1.5, Schedule::default()).is_err());
    assert!(FrankWolfe::new(array![[f64::NAN]], Schedule::default()).is_err());
    let mut learner = FrankWolfe::new(Array2::eye(2), Schedule::default()).unwrap();
    let error = learner.step(array![[1.0, 0.0], [0.0, f64::INFINITY]].view()).unwrap_err().to_string();
    assert!(error.contains("row 1, column 1"), "{error}");
    assert!(learner.step(array![[1.0, 2.0, 3.0]].view()).unwrap_err().to_string().contains("N = 2"));
    assert_eq!(learner.iterate(), Array2::<f64>::eye(2), "as before");
    assert!(recovery_error(Array2::eye(2).view(), Array2::eye(3).view()).is_err());
    assert!(Msp::new(5, Array2::eye(2), Progress::silent()).is_err());
    assert!(Ksvd::new(Array2::eye(2), 3, 1, Progress::silent()).is_err());
    assert!(BernoulliGaussian::new(0, 0.1, 0.0, streams(0)).is_err());
    assert!(BernoulliGaussian::new(2, 1.5, 0.0, streams(0)).is_err());
}

#[test]
fn every_baseline_finds_a_sparse_dictionary() {
    let (n, p) = (8, 4000);
    let stream = BernoulliGaussian::new(n, 0.15, 0.0, streams(16)).unwrap();
    let samples = stream.samples(0, p);
    let start = orthogonal(n, 17);
    assert!(recovery_error(start.view(), stream.truth()).unwrap() > 0.4);
    let silent = Progress::silent();
    let rivals: Vec<(&str, Box<dyn Learner>, f64)> = vec![
        ("frank-wolfe", Box::new(FrankWolfe::new(start.clone(), Schedule::default()).unwrap()), 0.01),
        ("msp3", Box::new(Msp::new(3, start.clone(), silent.clone()).unwrap()), 0.003),
        ("msp4", Box::new(Msp::new(4, start.clone(), silent.clone()).unwrap()), 0.01),
        ("l1", Box::new(L1Subgradient::new(n, streams(18).stream("starts"), silent.clone())), 1e-4),
        ("k-svd", Box::new(Ksvd::new(start.clone(), 2, 30, silent).unwrap()), 0.01),
        ("sgd", Box::new(RiemannianSgd::new(start.clone(), 0.3)), 0.05),
        ("lasso", Box::new(OnlineLasso::new(start, 0.3)), 0.02),
    ];
    for (name, mut rival, allowed) in rivals {
        for batch in samples.axis_chunks_iter(Axis(0), 4) {
            rival.learn(batch).unwrap();
        }
        let d = rival.dictionary().unwrap();
        assert!(d.axis_iter(Axis(1)).all(|atom| (atom.dot(&atom) - 1.0).abs() < 1e-9), "{name}: unit atoms");
        let error = recovery_error(d.view(), stream.truth()).unwrap();
        assert!(error < allowed, "{name}: {error}");
        let online = matches!(name, "frank-wolfe" | "sgd" | "lasso");
        assert_eq!(rival.carried() <= 3 * n * n, online, "{name} carries {}", rival.carried());
        assert!(rival.learn(array![[1.0]].view()).is_err(), "{name}");
    }
}

// ---- preprocessing and coding ----

#[test]
fn whitening_makes_the_covariance_the_identity_whatever_the_units() {
    let stream = BernoulliGaussian::new(4, 0.5, 0.0, streams(19)).unwrap();
    for scale in [1e-120, 1.0, 1e120] {
        let units = array![1.0, 1e6, 1e-6, 30.0] * scale;
        let samples = stream.samples(0, 500) * &units + &(&units * 5.0);
        let zca = Preprocessing::fit(Whitening::Zca, samples.view()).unwrap();
        assert_eq!((zca.inputs(), zca.rank()), (4, 4));
        let x = zca.apply(samples.view());
        let covariance = linalg::matmul(x.t(), x.view()) / 500.0;
        assert!(distance(covariance.view(), Array2::eye(4).view()) < 1e-9, "{scale}");
        let identity = linalg::matmul(zca.forward.t(), zca.backward.view());
        assert!(distance(identity.view(), Array2::eye(4).view()) < 1e-9, "{scale}");
        let standard = Preprocessing::fit(Whitening::Standardise, samples.view()).unwrap().apply(samples.view());
        assert!(standard.columns().into_iter().all(|c| (c.dot(&c) / 500.0 - 1.0).abs() < 1e-9));
    }
}

#[test]
fn directions_that_do_not_vary_are_left_out() {
    // Column 1 is constant and column 3 the sum of 0 and 2.
    let base = BernoulliGaussian::new(2, 0.9, 0.0, streams(20)).unwrap().samples(0, 50);
    let samples = Array2::from_shape_fn((50, 4), |(i, j)| match j {
        0 => base[[i, 0]],
        1 => 7.0,
        2 => base[[i, 1]],
        _ => base[[i, 0]] + base[[i, 1]],
    });
    assert_eq!(constant_columns(samples.view()), [1]);
    for (kind, rank) in [(Whitening::None, 4), (Whitening::Centre, 3), (Whitening::Standardise, 3), (Whitening::Zca, 2)]
    {
        let p = Preprocessing::fit(kind, samples.view()).unwrap();
        assert_eq!(p.rank(), rank, "{kind:?}");
        let transform = Transform::new(&p, orthogonal(rank, 21).view()).unwrap();
        let restored = transform.reconstruct(transform.codes(samples.view()).view());
        assert!(distance(restored.view(), samples.view()) < 1e-9, "{kind:?}");
    }
    assert!(Preprocessing::fit(Whitening::Zca, Array2::from_elem((9, 3), 2.0).view()).is_err());
    assert!(Preprocessing::fit(Whitening::Zca, Array2::<f64>::eye(3).slice(s![..2, ..])).is_err());
    assert!(Preprocessing::fit(Whitening::Zca, Array2::zeros((0, 3)).view()).is_err());
}

#[test]
fn cosines_are_scipys_and_orthonormal() {
    // scipy 1.17: dct([1, 2, 3, 5], norm="ortho").
    let y = array![1.0, 2.0, 3.0, 5.0];
    let expected = [5.5, -2.88372398, 0.5, -0.42911072];
    assert!(dct(4).t().dot(&y).iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-8));
    for basis in [dct(1), dct(7), dct_images(3, 4)] {
        let n = basis.nrows();
        assert!(distance(linalg::matmul(basis.t(), basis.view()).view(), Array2::eye(n).view()) < 1e-12);
    }
}

#[test]
fn keeping_the_largest_loses_the_smallest() {
    // Orthonormal: the error is the energy of what was left out, by Parseval.
    let transform = Transform::orthonormal(Array1::zeros(3), orthogonal(3, 22));
    let codes = array![[3.0, -4.0, 1.0], [1.0, 1.0, 1.0]];
    let samples = transform.reconstruct(codes.view());
    assert_eq!(transform.keep_largest(codes.view(), 1), array![[0.0, -4.0, 0.0], [1.0, 0.0, 0.0]]);
    assert_eq!(transform.keep_largest(codes.view(), 9), codes);
    let expected = ((9.0 + 1.0 + 2.0) / 29.0f64).sqrt();
    assert!((transform.error_with_kept(samples.view(), 1) - expected).abs() < 1e-12);
    assert!(transform.error_with_kept(samples.view(), 3) < 1e-12);
    // A dictionary that is not orthogonal is inverted, not transposed.
    let skew = Transform::new(&Preprocessing::none(2), array![[1.0, 0.6], [0.0, 0.8]].view()).unwrap();
    let y = array![[1.0, 2.0]];
    assert!(distance(skew.reconstruct(skew.codes(y.view()).view()).view(), y.view()) < 1e-12);
}

#[test]
fn the_kurtosis_tells_sparse_codes_from_gaussian_ones() {
    let codes = |theta| {
        BernoulliGaussian::with_dictionary(Array2::eye(10), theta, 0.0, streams(23)).unwrap().samples(0, 20_000)
    };
    // 3/θ for Bernoulli–Gaussian codes, 3 for Gaussian ones.
    for theta in [0.1, 0.5, 1.0] {
        let measured = kurtosis(codes(theta).view());
        assert!((measured * theta / 3.0 - 1.0).abs() < 0.05, "{theta} {measured}");
        assert_eq!(is_sparse(measured, (20_000, 10)), theta < 1.0);
    }
}

// ---- samples from sources ----

fn collect(text: &str, name: &str, window: usize, stride: usize, fill: usize) -> Result<Vec<Vec<f64>>, Error> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    std::fs::write(&path, text).unwrap();
    let mut samples = Samples::open(&path.display().to_string().parse().unwrap(), window, stride, fill)?;
    let (mut all, mut sample) = (Vec::new(), Vec::new());
    while samples.next_sample(&mut sample)? {
        all.push(sample.clone());
    }
    Ok(all)
}

#[test]
fn windows_hold_columns_one_after_the_other() {
    let text = "a,b\n1,10\n2,20\n3,30\n4,40\n5,50\n";
    let cut = |window, stride| collect(text, "x.csv", window, stride, 0).unwrap();
    assert_eq!(cut(2, 2), [[1., 2., 10., 20.], [3., 4., 30., 40.]]);
    assert_eq!(cut(2, 1).len(), 4);
    assert_eq!(cut(2, 1)[3], [4., 5., 40., 50.]);
    assert_eq!(cut(1, 3), [[1., 10.], [4., 40.]]);
    assert_eq!(cut(2, 3), [[1., 2., 10., 20.], [4., 5., 40., 50.]]);
    assert!(cut(6, 1).is_empty());
    assert_eq!(collect("[1,2]\n[3,4]\n", "x.jsonl", 1, 1, 0).unwrap(), [[1., 2.], [3., 4.]]);
}

#[test]
fn short_gaps_are_bridged_by_straight_lines() {
    let text = "a,b\n1,5\n,5\n,NA\n4,8\n5,nan\n6,6\n";
    let filled = collect(text, "x.csv", 1, 1, 2).unwrap();
    let expected = [[1., 5.], [2., 5.], [3., 6.5], [4., 8.], [5., 7.], [6., 6.]];
    for (row, expected) in filled.iter().zip(expected) {
        assert!(row.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{row:?} {expected:?}");
    }
    let message = |text, fill| collect(text, "x.csv", 1, 1, fill).unwrap_err().to_string();
    assert!(message(text, 1).contains("column 0 (a)") && message(text, 1).contains("longer than 1 rows"));
    assert!(message(text, 0).contains("row 1, column 0"), "{}", message(text, 0));
    assert!(message("1\n2\nnan\n", 3).contains("last row"));
    assert!(message("nan\n2\n", 3).contains("first row"));
    assert!(message("1\ninf\n2\n", 3).contains("is inf"));
    assert!(message("1\nnan\ninf\n", 3).contains("is inf"));
}

proptest! {
    #[test]
    fn windows_are_those_cut_from_the_whole(
        rows in 1usize..30, columns in 1usize..4, window in 1usize..6, stride in 1usize..6,
    ) {
        let data = Array2::from_shape_fn((rows, columns), |(i, j)| (i * 10 + j) as f64);
        let mut samples = Samples::open(&Source::from(Array::from(data.clone())), window, stride, 0).unwrap();
        let mut sample = Vec::new();
        let starts: Vec<usize> = (0..rows).step_by(stride).filter(|s| s + window <= rows).collect();
        for start in starts {
            prop_assert!(samples.next_sample(&mut sample).unwrap());
            let cut: Vec<f64> = data.slice(s![start..start + window, ..]).t().iter().copied().collect();
            prop_assert_eq!(&sample, &cut);
        }
        prop_assert!(!samples.next_sample(&mut sample).unwrap());
    }
}

// ---- streams that stop and go on ----

fn make(r: usize) -> Result<Box<dyn Learner>, Error> {
    Ok(Box::new(FrankWolfe::new(orthogonal(r, 30), Schedule::default())?))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_pipeline_that_stops_anywhere_ends_where_one_that_does_not(
        cut in 0usize..120, batch in 1usize..7, burn_in in 6usize..60, zca in any::<bool>(),
    ) {
        let samples = BernoulliGaussian::new(6, 0.4, 0.1, streams(31)).unwrap().samples(0, 120);
        let whitening = if zca { Whitening::Zca } else { Whitening::None };
        let settings = Settings { batch, whitening, burn_in: Some(burn_in), clip: Some(1.5) };
        let feed = |pipeline: &mut Pipeline, rows: ArrayView2<'_, f64>| {
            rows.outer_iter().for_each(|y| pipeline.learn_one(y.as_slice().unwrap()).unwrap());
        };
        let mut whole = Pipeline::new(6, settings, make).unwrap();
        feed(&mut whole, samples.view());

        let mut first = Pipeline::new(6, settings, make).unwrap();
        feed(&mut first, samples.slice(s![..cut, ..]));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model.safetensors");
        let (arrays, words) = first.checkpoint(Position::default()).to_arrays();
        Artifact::Arrays(arrays, words).write(&path).unwrap();
        let read = Checkpoint::read(&path).unwrap();
        prop_assert_eq!(&read, &first.checkpoint(Position::default()));
        let go_on = |state| Ok(Box::new(FrankWolfe::resume(state, Schedule::default())?) as Box<dyn Learner>);
        let mut second = Pipeline::resume(read, settings, make, go_on).unwrap();
        feed(&mut second, samples.slice(s![cut.., ..]));
        prop_assert_eq!(whole.checkpoint(Position::default()), second.checkpoint(Position::default()));
    }
}

/// Stops a run after some hundred samples.
struct StopsSoon(Cancel, u64, std::sync::atomic::AtomicU64);

impl Observer for StopsSoon {
    fn begin(&self, _: &str, _: Option<u64>) {}
    fn advance(&self, steps: u64) {
        if self.2.fetch_add(steps, std::sync::atomic::Ordering::Relaxed) + steps >= self.1 {
            self.0.cancel();
        }
    }
    fn status(&self, _: &str) {}
    fn warn(&self, _: &str) {}
    fn finish(&self) {}
}

#[test]
fn a_run_that_is_stopped_and_resumed_equals_one_that_was_not() {
    let directory = tempfile::tempdir().unwrap();
    let samples = BernoulliGaussian::new(6, 0.3, 0.05, streams(32)).unwrap().samples(0, 1500);
    let file = write(&directory.path().join("samples.npy"), &samples);
    for (name, parameters) in [
        ("file", json!({"input": file, "batch": 7, "burn_in": 100, "epochs": 2})),
        ("windows", json!({"input": file, "batch": 2, "window": 2, "stride": 1, "whiten": "standardise"})),
        ("digits", json!({"example": "digits", "batch": 16, "epochs": 2})),
        ("synthetic", json!({"example": "synthetic", "samples": 3000, "batch": 4})),
    ] {
        let paper = paper();
        let out = |part: &str| directory.path().join(name).join(part);
        let whole = out("whole");
        let mut run = Run::new(paper.card()).with_out(whole.clone()).unwrap();
        paper.prepare_json(parameters.clone()).unwrap().run(&mut run).unwrap();

        let cancel = Cancel::default();
        let observer = StopsSoon(cancel.clone(), 700, Default::default());
        let progress = Progress::new(Arc::new(observer), cancel);
        let mut run = Run::new(paper.card()).with_out(out("first")).unwrap().with_progress(progress);
        let stopped = paper.prepare_json(parameters.clone()).unwrap().run(&mut run);
        assert!(matches!(stopped, Err(Error::Cancelled)), "{name}");

        let mut parameters = parameters;
        parameters["resume"] = json!(out("first").join("model.safetensors"));
        let mut run = Run::new(paper.card()).with_out(out("second")).unwrap();
        paper.prepare_json(parameters).unwrap().run(&mut run).unwrap();
        let model = |folder: std::path::PathBuf| read_safetensors(&folder.join("model.safetensors")).unwrap();
        assert_eq!(model(whole.clone()), model(out("second")), "{name}");
        assert_ne!(model(whole), model(out("first")), "{name}");
    }
}

#[test]
fn a_file_that_grew_is_gone_on_with_where_the_model_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let samples = BernoulliGaussian::new(4, 0.3, 0.0, streams(33)).unwrap().samples(0, 900);
    let file = directory.path().join("log.csv");
    let save = |rows: ArrayView2<'_, f64>| {
        let lines: Vec<String> =
            rows.outer_iter().map(|y| y.iter().map(f64::to_string).collect::<Vec<_>>().join(",")).collect();
        std::fs::write(&file, lines.join("\n")).unwrap();
    };
    let paper = paper();
    let run = |part: &str, resume: Option<&str>| {
        let out = |part: &str| directory.path().join(part);
        let model = resume.map(|r| out(r).join("model.safetensors"));
        let parameters = json!({"input": file, "whiten": "none", "resume": model});
        let mut run = Run::new(paper.card()).with_out(out(part)).unwrap();
        paper.prepare_json(parameters).unwrap().run(&mut run).unwrap();
        read_safetensors(&out(part).join("model.safetensors")).unwrap()
    };
    save(samples.slice(s![..500, ..]));
    run("short", None);
    save(samples.view());
    assert_eq!(run("grown", Some("short")), run("whole", None));
    // Nothing new: the model stays as it is.
    assert_eq!(run("again", Some("grown")), run("grown", Some("short")));
    save(samples.slice(s![..100, ..]));
    let model = directory.path().join("short/model.safetensors");
    assert!(message(json!({"input": file, "whiten": "none", "resume": model})).contains("has seen 500"));
}

#[test]
fn chunks_in_memory_are_all_new() {
    let directory = tempfile::tempdir().unwrap();
    let samples = BernoulliGaussian::new(4, 0.3, 0.0, streams(37)).unwrap().samples(0, 600);
    let paper = paper();
    let mut model = None;
    for (k, chunk) in samples.axis_chunks_iter(Axis(0), 200).enumerate() {
        let out = directory.path().join(k.to_string());
        let mut run = Run::new(paper.card()).with_out(out.clone()).unwrap();
        let parameters = OodlParams {
            input: Source::from(Array::from(chunk.to_owned())),
            whiten: Some(Whitening::None),
            resume: model,
            ..OodlParams::default()
        };
        Oodl::run(&parameters, &mut run).unwrap();
        model = Some(out.join("model.safetensors"));
    }
    let mut whole =
        FrankWolfe::new(random_orthogonal(4, &mut streams(0).stream("start").rng(0)).unwrap(), Schedule::default())
            .unwrap();
    samples.outer_iter().for_each(|y| whole.step(y.insert_axis(Axis(0))).unwrap());
    assert_eq!(Checkpoint::read(&model.unwrap()).unwrap().state.as_ref(), Some(whole.state()));
}

#[test]
fn a_frozen_model_codes_other_samples_and_stays_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let stream = BernoulliGaussian::new(5, 0.3, 0.0, streams(34)).unwrap();
    let file = write(&directory.path().join("learn.npy"), &stream.samples(0, 3000));
    let other = stream.samples(5000, 40);
    let other_file = write(&directory.path().join("other.npy"), &other);
    let paper = paper();
    let out = directory.path().join("out");
    let mut run = Run::new(paper.card()).with_out(out.clone()).unwrap();
    paper.prepare_json(json!({"input": file, "whiten": "none"})).unwrap().run(&mut run).unwrap();
    let model = out.join("model.safetensors");
    let (_, files) =
        try_run(json!({"input": other_file, "resume": model, "freeze": true, "keep": 1.0, "whiten": "none"})).unwrap();
    let codes = array_of(&files, "codes.npy").into_f64().unwrap().into_dimensionality::<ndarray::Ix2>().unwrap();
    let restored = array_of(&files, "reconstruction.npy").into_f64().unwrap();
    let restored = restored.into_dimensionality::<ndarray::Ix2>().unwrap();
    assert_eq!(codes.dim(), (40, 5));
    assert!(distance(restored.view(), other.view()) < 1e-12, "all coefficients kept");
    let d = array_of(&files, "dictionary.npy").into_f64().unwrap().into_dimensionality::<ndarray::Ix2>().unwrap();
    assert!(distance(codes.view(), other.dot(&d).view()) < 1e-12, "codes are Dᵀy");
    assert!(!files.iter().any(|(name, _)| name == "model.safetensors"));
    assert!(message(json!({"freeze": true})).contains("resume"));
}

/// Resident memory of this process in bytes.
#[cfg(target_os = "linux")]
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
#[cfg(target_os = "linux")]
fn a_stream_of_two_gigabytes_needs_no_memory() {
    use std::io::Write;
    let (n, block_rows, blocks) = (32usize, 8192usize, 1024usize);
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("stream.npy");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let block = BernoulliGaussian::new(n, 0.1, 0.0, streams(35)).unwrap().samples(0, block_rows);
    let bytes: Vec<u8> = block.iter().flat_map(|x| x.to_le_bytes()).collect();
    assert!((bytes.len() * blocks) as u64 >= 2 * (1 << 30));
    let writer = {
        let pipe = pipe.clone();
        std::thread::spawn(move || {
            let mut out = std::fs::OpenOptions::new().write(true).open(pipe).unwrap();
            let mut header = Vec::new();
            let shape =
                format!("{{'descr': '<f8', 'fortran_order': False, 'shape': ({}, {n}), }}", block_rows * blocks);
            header.extend(b"\x93NUMPY\x01\x00");
            header.extend((shape.len() as u16).to_le_bytes());
            header.extend(shape.as_bytes());
            out.write_all(&header).unwrap();
            for _ in 0..blocks {
                out.write_all(&bytes).unwrap();
            }
        })
    };
    let before = resident();
    let parameters = json!({"input": pipe, "batch": block_rows, "whiten": "none", "save_every": 1_000_000});
    let (report, _) = try_run(parameters).unwrap();
    writer.join().unwrap();
    assert_eq!(report.metric("samples learned from"), Some((block_rows * blocks) as f64));
    let grown = resident().saturating_sub(before);
    assert!(grown < 150 << 20, "grew by {} MiB for 2 GiB of samples", grown >> 20);
}

// ---- the door ----

#[test]
fn default_runs_need_no_files_and_show_what_was_learned() {
    let (report, files) = try_run(json!({})).unwrap();
    assert_eq!(report.metric("samples learned from"), Some(2.0 * 1797.0));
    // 61 of the 64 pixels ever vary; the burn-in may have seen one fewer.
    assert!((58.0..=61.0).contains(&report.metric("atoms").unwrap()));
    let names: Vec<_> = report.figures.iter().map(|f| f.0.as_str()).collect();
    assert_eq!(names, ["learning", "atoms", "compression"]);
    let learned = report.metric("error at 25 % kept, learned").unwrap();
    assert!(learned < 0.9 * report.metric("error at 25 % kept, DCT-II").unwrap());
    assert!(report.warnings.iter().any(|w| w.contains("3 of 64 columns do not vary")));
    assert!(files.iter().any(|(name, _)| name == "model.safetensors"));

    let (report, _) = try_run(json!({"example": "synthetic", "dimension": 10})).unwrap();
    assert!(report.metric("recovery error").unwrap() < 0.01);
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
}

#[test]
fn every_method_runs_from_the_door() {
    for method in ["plain-frank-wolfe", "riemannian-sgd", "online-lasso", "msp3", "msp4", "l1-subgradient", "k-svd"] {
        let parameters = json!({"example": "synthetic", "dimension": 5, "samples": 3000, "method": method});
        let (report, files) = try_run(parameters).unwrap_or_else(|e| panic!("{method}: {e}"));
        let error = report.metric("recovery error").unwrap();
        assert!(error < 0.1 || method == "plain-frank-wolfe", "{method}: {error}");
        assert!(files.iter().any(|(name, _)| name == "codes.npy"), "{method}");
        assert!(!report.figures.is_empty(), "{method}");
    }
    assert!(message(json!({"method": "msp3", "resume": "x"})).contains("frank-wolfe"));
}

#[test]
fn data_that_is_not_sparse_is_called_so() {
    let gaussian = json!({"example": "synthetic", "theta": 1.0, "samples": 6000, "batch": 10, "dimension": 8});
    let (report, _) = try_run(gaussian).unwrap();
    assert!(report.warnings.iter().any(|w| w.starts_with("Not sparse")), "{:?}", report.warnings);
    let sparse = json!({"example": "synthetic", "theta": 0.5, "samples": 6000, "batch": 10, "dimension": 8});
    assert!(try_run(sparse).unwrap().0.warnings.is_empty());
}

#[test]
fn outliers_are_shortened_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let mut samples = BernoulliGaussian::new(5, 0.5, 0.0, streams(36)).unwrap().samples(0, 4000);
    for i in (500..4000).step_by(500) {
        samples.row_mut(i).fill(1e4);
    }
    let truth = BernoulliGaussian::new(5, 0.5, 0.0, streams(36)).unwrap().truth().to_owned();
    let file = write(&directory.path().join("s.npy"), &samples);
    let truth = write(&directory.path().join("truth.npy"), &truth);
    let run = |clip: Value| {
        let parameters = json!({"input": file, "whiten": "none", "truth": truth, "clip": clip});
        try_run(parameters).unwrap().0
    };
    let clipped = run(json!(10.0));
    assert_eq!(clipped.metric("outliers shortened"), Some(7.0));
    assert!(clipped.metric("recovery error").unwrap() < 0.05);
    assert!(run(Value::Null).metric("recovery error").unwrap() > 0.1, "seven samples spoil it otherwise");
}

#[test]
fn bad_input_is_told_where_and_why() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let good: String = (0..60).map(|i| format!("{},{}\n", (i * 7) % 11, (i * 5) % 13)).collect();
    let says = |parameters: Value, words: &str| {
        let message = message(parameters);
        assert!(message.contains(words), "{message}");
    };
    says(json!({"input": file("nan.csv", &format!("{good}1,nan\n"))}), "row 60, column 1");
    says(json!({"input": file("ragged.csv", &format!("{good}1\n"))}), "line 61");
    says(json!({"input": file("text.csv", "a,b\n1,2\n3,oops\n")}), "oops");
    says(json!({"input": file("empty.csv", "")}), "empty");
    says(json!({"input": file("header.csv", "a,b\n")}), "no rows");
    says(json!({"input": file("few.csv", "1,2,3\n4,5,7\n")}), "too few for whitening");
    says(json!({"input": file("flat.csv", &"1,2\n".repeat(50))}), "do not vary in any column");
    says(json!({"input": file("good.csv", &good), "batch": 100}), "fewer than one batch");
    says(json!({"input": file("good.csv", &good), "window": 100}), "fewer than 100 rows");
    says(json!({"input": file("good.csv", &good), "image_width": 3}), "divisor");
    says(json!({"input": file("good.csv", &good), "burn_in": 2, "window": 2}), "burn_in");
    says(json!({"input": file("good.csv", &good), "truth": file("t.csv", "1,0,0\n0,1,0\n")}), "(2, 2)");
    says(json!({"input": file("good.csv", &good), "resume": file("bad.safetensors", "nonsense")}), "safetensors");
    says(json!({"input": directory.path().join("absent.npy")}), "absent.npy");
    says(json!({"input": "-", "epochs": 2}), "standard input");
    says(json!({"window": 3}), "built-in");
    says(json!({"batch": 0}), "between 1 and");
    says(json!({"theta": 1.5, "example": "synthetic"}), "theta");
    says(json!({"clip": 0}), "above 0");

    // A model for other samples.
    let paper = paper();
    let out = directory.path().join("out");
    let mut run = Run::new(paper.card()).with_out(out.clone()).unwrap();
    let parameters = json!({"example": "synthetic", "dimension": 3, "samples": 100});
    paper.prepare_json(parameters).unwrap().run(&mut run).unwrap();
    let model = out.join("model.safetensors");
    says(json!({"input": file("good.csv", &good), "resume": model}), "takes samples of 3");
}

#[test]
fn one_column_one_row_and_duplicates_do_not_break_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = |array: Array2<f64>| write(&directory.path().join("a.npy"), &array);
    let one_column = Array2::from_shape_fn((30, 1), |(i, _)| f64::from(i as u32 % 3));
    let (report, _) = try_run(json!({"input": file(one_column)})).unwrap();
    assert_eq!(report.metric("atoms"), Some(1.0));
    let (report, _) = try_run(json!({"input": file(array![[1.0, 2.0, 3.0]]), "whiten": "none"})).unwrap();
    assert_eq!(report.metric("samples learned from"), Some(1.0));
    let (report, _) = try_run(json!({"input": file(Array2::from_elem((40, 3), 2.0)), "whiten": "none"})).unwrap();
    assert_eq!(report.metric("samples learned from"), Some(40.0));
    let (report, _) = try_run(json!({"input": file(Array2::zeros((40, 3))), "whiten": "none"})).unwrap();
    assert_eq!(report.metric("atoms"), Some(3.0));
}

#[test]
fn the_study_measures_every_claim() {
    let paper = paper();
    let mut run = Run::new(paper.card()).with_scale(Scale::Quick);
    paper.measure(&mut run).unwrap();
    let (report, _) = run.finish(true).unwrap();
    let measured: Vec<_> = report.claims.iter().map(|c| c.id.as_str()).collect();
    for claim in &paper.card().claims {
        assert!(measured.contains(&claim.id.as_str()), "{}", claim.id);
    }
    // What does not hang on the number of seeds or on the clock.
    for id in ["recovery-mean", "offline-memory", "averaging", "drift", "real-data"] {
        let claim = report.claims.iter().find(|c| c.id == id).unwrap();
        assert_eq!(claim.verdict, Verdict::Holds, "{id}: {:?}", claim.measured);
    }
    assert!(report.figures.len() >= 5);
}

#[test]
fn bench_cases_answer_with_finite_numbers() {
    for mut case in paper().cases(0).unwrap() {
        let answer = (case.work)().unwrap();
        assert!(answer.iter().all(|x| (0.0..0.2).contains(x)), "{}: {answer:?}", case.name);
    }
}
