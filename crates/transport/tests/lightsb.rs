//! Light Schrödinger bridges against PyTorch's distributions, quadrature, closed forms and their own definitions.

use ndarray::{Array1, Array2, Array3, ArrayView2, Axis, array};
use offprint_core::random::{Rng, Streams};
use offprint_core::{Array, Cancel, Error, Observer, Progress, Run};
use offprint_math::linalg;
use offprint_transport::lightsb::examples::{Ends, Normal, benchmark_bridge, draw, mixture_bridge, swiss_roll};
use offprint_transport::lightsb::gaussian::gaussian_plan;
use offprint_transport::lightsb::measure::{bures_wasserstein, energy_distance, target_moments, unexplained};
use offprint_transport::lightsb::{LightBridge, Objective, Options, Spread, Trainer};
use proptest::prelude::*;
use rand::RngExt;
use rand_distr::StandardNormal;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

fn close(a: &[f64], b: &[f64], tolerance: f64) {
    assert_eq!(a.len(), b.len());
    assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() <= tolerance * b.abs().max(1.0)), "{a:?}\n{b:?}");
}

fn small_diagonal() -> LightBridge {
    let centres = array![[0.2, -0.4], [1.5, 0.3], [-0.7, 0.9]];
    let spreads = array![[0.5, 1.2], [0.3, 0.8], [2.0, 0.1]];
    LightBridge::diagonal(0.7, array![0.3, -1.1, 0.5], centres, spreads).unwrap()
}

fn small_full() -> LightBridge {
    let centres = array![[0.2, -0.4], [1.5, 0.3], [-0.7, 0.9]];
    let spreads = array![[[0.5, 0.2], [0.2, 1.2]], [[0.3, -0.1], [-0.1, 0.8]], [[2.0, 0.3], [0.3, 0.4]]];
    LightBridge::full(0.7, array![0.3, -1.1, 0.5], centres, spreads.view()).unwrap()
}

fn line() -> LightBridge {
    LightBridge::diagonal(0.6, array![0.1, -0.5], array![[-1.2], [0.9]], array![[0.4], [1.3]]).unwrap()
}

/// A random bridge in `d` dimensions.
fn random_bridge(d: usize, components: usize, full: bool, rng: &mut Rng) -> LightBridge {
    let mut normal = |shape: (usize, usize)| Array2::from_shape_fn(shape, |_| rng.sample::<f64, _>(StandardNormal));
    let log_alpha = normal((1, components)).row(0).to_owned();
    let centres = normal((components, d));
    if full {
        let mut spreads = Array3::zeros((components, d, d));
        for mut spread in spreads.outer_iter_mut() {
            let root = normal((d, d));
            spread.assign(&(root.dot(&root.t()) + Array2::<f64>::eye(d) * 0.2));
        }
        LightBridge::full(0.5, log_alpha, centres, spreads.view()).unwrap()
    } else {
        LightBridge::diagonal(0.5, log_alpha, centres, normal((components, d)).mapv(|x| (0.5 * x).exp())).unwrap()
    }
}

#[test]
fn potentials_are_those_of_pytorch() {
    // torch 2.15 in float64: MixtureSameFamily(Categorical(logits), Normal or MultivariateNormal(r, ε S)).log_prob plus
    // logsumexp(log α); and logsumexp((x'Sx + 2 r'x)/2ε + log α) by broadcasting.
    let x = array![[0.1, 0.2], [-1.5, 2.0], [3.0, -2.0]];
    let v = |b: &LightBridge| b.log_v(x.view()).unwrap().to_vec();
    let c = |b: &LightBridge| b.log_c(x.view()).unwrap().to_vec();
    close(&v(&small_diagonal()), &[-1.088151165695416, -8.032894165215923, -11.780461687874725], 1e-13);
    close(&c(&small_diagonal()), &[1.3110626651020139, 8.07759804658218, 9.727494130708006], 1e-13);
    close(&v(&small_full()), &[-0.9064436082490857, -4.032418252456322, -10.220764027120957], 1e-13);
    close(&c(&small_full()), &[1.321784912376977, 7.647146683927265, 9.674048073560543], 1e-13);
}

/// A grid of n points on [−edge, edge] with the weight of the trapezoidal rule.
fn grid(n: usize, edge: f64) -> (Array2<f64>, f64) {
    let step = 2.0 * edge / (n - 1) as f64;
    (Array2::from_shape_fn((n, 1), |(i, _)| i as f64 * step - edge), step)
}

#[test]
fn the_conditional_law_has_mass_one_and_the_moments_told() {
    let bridge = line();
    let (y, h) = grid(4001, 20.0);
    for x in [-2.0, 0.0, 1.3] {
        let starts = Array2::from_elem(y.dim(), x);
        let density = bridge.log_conditional(starts.view(), y.view()).unwrap().mapv(f64::exp) * h;
        let mean = density.dot(&y.column(0));
        let variance = density.dot(&y.column(0).mapv(|y| (y - mean) * (y - mean)));
        let (told_mean, told_variance) = bridge.plan().moments(array![x].view()).unwrap();
        close(&[density.sum(), mean, variance], &[1.0, told_mean[0], told_variance[[0, 0]]], 1e-10);
        close(bridge.plan().mean(array![[x]].view()).unwrap().as_slice().unwrap(), &[mean], 1e-10);
    }
}

#[test]
fn drift_is_the_gradient_of_the_heated_potential() {
    // g(x, t) = ε ∂ₓ log ∫ N(y; x, (1−t) ε) exp(y²/2ε) v(y) dy, the definition of the bridge's drift, by quadrature and
    // finite differences. A wrong sign in the completed square (the paper's A_k) fails this for every t > 0.
    let bridge = line();
    let epsilon = bridge.epsilon();
    let (y, h) = grid(8001, 25.0);
    let log_v = bridge.log_v(y.view()).unwrap();
    let log_heated = |x: f64, time: f64| {
        let variance = (1.0 - time) * epsilon;
        let exponents = Array1::from_shape_fn(y.nrows(), |i| {
            let y = y[[i, 0]];
            // exp(y²/2ε) against the kernel's exp(−(y − x)²/2ε(1−t)): they cancel but for terms linear in y at t = 0.
            log_v[i] + 0.5 * y * y / epsilon - 0.5 * (y - x) * (y - x) / variance
        });
        let top = exponents.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        top + (exponents.mapv(|e| (e - top).exp()).sum() * h).ln()
    };
    for time in [0.0, 0.3, 0.8, 0.97] {
        for x in [-1.7, 0.0, 0.4, 2.2] {
            let step = 1e-4;
            let expected = epsilon * (log_heated(x + step, time) - log_heated(x - step, time)) / (2.0 * step);
            let drift = bridge.drift(array![[x]].view(), time).unwrap()[[0, 0]];
            close(&[drift], &[expected], 1e-6);
        }
    }
}

#[test]
fn gaussian_closed_form_has_the_precision_of_an_entropic_plan() {
    let (s0, s1) = (array![[1.5, 0.4], [0.4, 0.8]], array![[2.0, 0.8], [0.8, 1.0]]);
    for epsilon in [0.1, 1.0, 10.0] {
        let (m0, m1) = (array![0.3, -1.0], array![2.0, 0.5]);
        let plan = gaussian_plan(m0.view(), s0.view(), m1.view(), s1.view(), epsilon).unwrap();
        let cross = s0.dot(&plan.gain.t());
        let joint = ndarray::concatenate![
            Axis(0),
            ndarray::concatenate![Axis(1), s0, cross],
            ndarray::concatenate![Axis(1), cross.t(), s1]
        ];
        let precision = linalg::inverse(joint.view()).unwrap();
        // The density of the plan is a product of potentials and exp(x'y/ε).
        let block = precision.slice(ndarray::s![..2, 2..]);
        close(block.to_owned().as_slice().unwrap(), &[-1.0 / epsilon, 0.0, 0.0, -1.0 / epsilon], 1e-9);
        close((&plan.offset + &plan.gain.dot(&m0)).as_slice().unwrap(), m1.as_slice().unwrap(), 1e-12);
        // One component represents it: the conditional covariance is ε times the conditional matrix.
        close(
            (&plan.gain * epsilon).iter().copied().collect::<Vec<_>>().as_slice(),
            plan.covariance.as_slice().unwrap(),
            1e-9,
        );
    }
}

#[test]
fn mixture_bridges_have_the_density_they_are_made_from() {
    // π(y | x) ∝ N(y; x, ε) φ(y), on a grid.
    let (epsilon, weights) = (0.8, array![0.3, 0.7]);
    let (means, variances) = (array![[-1.0], [2.0]], array![[0.5], [1.5]]);
    let bridge = mixture_bridge(epsilon, weights.view(), means.view(), variances.view()).unwrap();
    let (y, h) = grid(3001, 15.0);
    let x = 0.7;
    let normal = |y: f64, mean: f64, variance: f64| (-0.5 * (y - mean).powi(2) / variance).exp() / variance.sqrt();
    let product = y.column(0).mapv(|y| {
        let phi: f64 = (0..2).map(|n| weights[n] * normal(y, means[[n, 0]], variances[[n, 0]])).sum();
        normal(y, x, epsilon) * phi
    });
    let expected = &product / (product.sum() * h);
    let density = bridge.log_conditional(Array2::from_elem(y.dim(), x).view(), y.view()).unwrap().mapv(f64::exp);
    close(density.as_slice().unwrap(), expected.as_slice().unwrap(), 1e-10);
}

#[test]
fn samples_have_the_moments_of_the_plan_and_of_the_process() {
    for bridge in [small_diagonal(), small_full()] {
        let streams = Streams::new(3);
        let n = 40_000;
        let x = Array2::from_shape_fn((n, 2), |(_, j)| [0.4, -0.3][j]);
        let y = bridge.plan().sample(x.view(), streams.stream("y")).unwrap();
        let (mean, covariance) = bridge.plan().moments(x.row(0)).unwrap();
        let found = y.mean_axis(Axis(0)).unwrap();
        let apart = &y - &found;
        let found_covariance = apart.t().dot(&apart) / n as f64;
        close(found.as_slice().unwrap(), mean.as_slice().unwrap(), 0.03);
        close(found_covariance.as_slice().unwrap(), covariance.as_slice().unwrap(), 0.05);
        let few = x.slice(ndarray::s![..4000, ..]);
        let paths = bridge.simulate(few, 200, 100, streams.stream("w"), &Progress::silent()).unwrap();
        let ends = paths.slice(ndarray::s![.., 2, ..]);
        let middle = bridge.between(few, y.slice(ndarray::s![..4000, ..]), 0.5, streams.stream("b")).unwrap();
        assert!(energy_distance(ends, y.slice(ndarray::s![..4000, ..])).unwrap() < 0.006);
        assert!(energy_distance(paths.slice(ndarray::s![.., 1, ..]), middle.view()).unwrap() < 0.006);
    }
}

#[test]
fn measures_have_their_closed_forms() {
    let (x, y) = (array![[0.0], [1.0]], array![[3.0]]);
    // E|X−Y| = 2.5, E|X−X'| = ½, E|Y−Y'| = 0.
    close(&[energy_distance(x.view(), y.view()).unwrap()], &[2.25], 1e-14);
    close(&[energy_distance(x.view(), x.view()).unwrap()], &[0.0], 1e-14);
    assert!(energy_distance(x.view(), array![[1.0, 2.0]].view()).is_err());
    // Commuting covariances: ½|m − m'|² + ½ Σ (√c − √c')².
    let (m0, m1) = (array![1.0, 2.0], array![0.0, 4.0]);
    let (c0, c1) = (Array2::from_diag(&array![4.0, 1.0]), Array2::from_diag(&array![1.0, 9.0]));
    let distance = bures_wasserstein((m0.view(), c0.view()), (m1.view(), c1.view())).unwrap();
    close(&[distance], &[2.5 + 0.5 * (1.0 + 4.0)], 1e-12);
    let flat = Array2::from_diag(&array![4.0, 0.0]);
    let distance = bures_wasserstein((m0.view(), flat.view()), (m0.view(), c1.view())).unwrap();
    close(&[distance], &[0.5 * (1.0 + 9.0)], 1e-12);
    let bridge = small_full();
    let x = draw(&Normal(2), 200, &mut Streams::new(1).stream("x").rng(0));
    let same = unexplained(&bridge.plan(), &bridge.plan(), x.view(), 20).unwrap();
    assert!(same.marginal < 1e-8 && same.conditional < 1e-8);
    let moved = bridge.in_units(1.0, array![0.0, 0.0].view(), array![1.0, 0.0].view());
    let apart = unexplained(&moved.plan(), &bridge.plan(), x.view(), 20).unwrap();
    let variance = target_moments(&bridge.plan(), x.view()).unwrap().1.diag().sum();
    // Only the mean has moved, by one: ½ · 1² beside half the variance.
    close(&[apart.marginal, apart.conditional], &[100.0 / variance, 100.0 / variance], 1e-8);
}

#[test]
fn the_swiss_roll_has_its_mean_radius() {
    // |roll|·7.5 is the angle, uniform on [1.5π, 4.5π], plus noise of deviation 0.8 in two coordinates:
    // E|.|² = E angle² + 2 · 0.64, with E angle² = (3π)² + (3π)²/12.
    let roll = swiss_roll(100_000, &mut Streams::new(0).stream("roll").rng(0));
    let square = roll.mapv(|x| x * x).sum() / 100_000.0 * 7.5 * 7.5;
    let pi2 = std::f64::consts::PI.powi(2);
    close(&[square], &[9.0 * pi2 * 13.0 / 12.0 + 1.28], 0.01);
}

fn train(options: Options, x: ArrayView2<'_, f64>, y: ArrayView2<'_, f64>, steps: u64) -> LightBridge {
    let mut trainer = Trainer::new(y, options, Streams::new(5)).unwrap();
    trainer.run(&x, &y, steps, &Progress::silent(), |_, _, _| {}).unwrap();
    trainer.into_bridge()
}

#[test]
fn one_component_learns_the_gaussian_bridge_with_both_objectives() {
    let mut rng = Streams::new(2).stream("pair").rng(0);
    let x = draw(&Normal(2), 20_000, &mut rng);
    // Equal variances with a correlation: axes aligned with the coordinates would be blind to it.
    let covariance = array![[1.0, 0.6], [0.6, 1.0]];
    let y = draw(&Normal(2), 20_000, &mut rng).dot(&linalg::cholesky(covariance.view()).unwrap().t()) + 0.5;
    let zeros = Array1::zeros(2);
    let exact = gaussian_plan(zeros.view(), Array2::eye(2).view(), zeros.view(), covariance.view(), 1.0).unwrap();
    for (objective, tolerance) in [(Objective::Likelihood, 0.03), (Objective::Matching, 0.06)] {
        let options = Options {
            epsilon: 1.0,
            components: 1,
            spread: Spread::Full,
            objective,
            learning_rate: 1e-2,
            batch: 512,
            ..Options::default()
        };
        let bridge = train(options, x.view(), y.view(), 1200);
        close(bridge.spread(0).as_slice().unwrap(), exact.gain.as_slice().unwrap(), tolerance);
        close(bridge.centres().as_slice().unwrap(), &[0.5, 0.5], 2.0 * tolerance);
    }
}

#[test]
fn training_approaches_a_known_bridge_and_its_loss() {
    let stream = Streams::new(7).stream("truth");
    let truth = benchmark_bridge(2, 1.0, stream).unwrap();
    let target = Ends::new(&truth, Normal(2));
    let mut rng = stream.rng(9);
    let (x, y) = (draw(&Normal(2), 8000, &mut rng), draw(&target, 8000, &mut rng));
    let options =
        Options { epsilon: 1.0, components: 20, initial_spread: 1.0, learning_rate: 1e-2, ..Options::default() };
    let bridge = train(options, x.view(), y.view(), 1500);
    let (loss, best) = (bridge.loss(x.view(), y.view()).unwrap(), truth.loss(x.view(), y.view()).unwrap());
    assert!((loss - best).abs() < 0.03, "{loss} {best}");
    let result = unexplained(&bridge.plan(), &truth.plan(), x.slice(ndarray::s![..200, ..]), 200).unwrap();
    assert!(result.conditional < 1.5 && result.marginal < 1.0, "{result:?}");
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let fit = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut rng = Streams::new(2).stream("pair").rng(0);
            let (x, y) = (draw(&Normal(3), 500, &mut rng), draw(&Normal(3), 500, &mut rng));
            let mut out = Vec::new();
            for objective in [Objective::Likelihood, Objective::Matching] {
                let options = Options { components: 7, batch: 300, objective, ..Options::default() };
                let bridge = train(options, x.view(), y.view(), 20);
                out.push(bridge.plan().sample(x.view(), Streams::new(1).stream("y")).unwrap());
            }
            out
        })
    };
    assert_eq!(fit(1), fit(4));
}

#[test]
fn models_survive_their_files() {
    for bridge in [small_diagonal(), small_full()] {
        let (arrays, words) = bridge.to_arrays();
        let again = LightBridge::from_arrays(&arrays, &words, "model").unwrap();
        let x = array![[0.3, -0.2], [4.0, 1.0]];
        let y = array![[1.0, 0.0], [-2.0, 1.0]];
        let density = |b: &LightBridge| b.log_conditional(x.view(), y.view()).unwrap().to_vec();
        close(&density(&again), &density(&bridge), 1e-11);
        let mut broken = arrays.clone();
        broken.remove("r");
        assert!(LightBridge::from_arrays(&broken, &words, "m").unwrap_err().to_string().contains("no array \"r\""));
        broken.insert("r".into(), Array::from(array![[1.0, 2.0]]));
        assert!(LightBridge::from_arrays(&broken, &words, "m").is_err());
        assert!(
            LightBridge::from_arrays(&arrays, &Default::default(), "m").unwrap_err().to_string().contains("epsilon")
        );
    }
}

#[test]
fn pruning_keeps_the_heavy_components() {
    let mut arrays = small_diagonal().to_arrays();
    arrays.0.insert("log_alpha".into(), Array::from(vec![0.0, -60.0, -0.3]));
    let bridge = LightBridge::from_arrays(&arrays.0, &arrays.1, "m").unwrap();
    let x = array![[0.1, 0.2], [-0.5, 0.0]];
    let pruned = bridge.pruned(x.view(), 1e-6).unwrap();
    assert_eq!(pruned.components(), 2);
    close(&pruned.log_c(x.view()).unwrap().to_vec(), &bridge.log_c(x.view()).unwrap().to_vec(), 1e-12);
    assert_eq!(bridge.pruned(x.view(), 2.0).unwrap().components(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_full_bridge_with_diagonal_matrices_is_the_diagonal_one(seed in 0u64..1000, d in 1usize..5, k in 1usize..6) {
        let mut rng = Streams::new(seed).stream("bridge").rng(0);
        let diagonal = random_bridge(d, k, false, &mut rng);
        let mut spreads = Array3::zeros((k, d, d));
        for i in 0..k {
            spreads.index_axis_mut(Axis(0), i).assign(&diagonal.spread(i));
        }
        let full = LightBridge::full(0.5, diagonal.log_alpha().to_owned(), diagonal.centres().to_owned(), spreads.view()).unwrap();
        let x = draw(&Normal(d), 5, &mut rng);
        for time in [0.0, 0.6] {
            let (a, b) = (diagonal.drift(x.view(), time).unwrap(), full.drift(x.view(), time).unwrap());
            prop_assert!((&a - &b).iter().all(|e| e.abs() < 1e-9));
            let (a, b) = (diagonal.posterior(time).unwrap().moments(x.row(0)).unwrap(), full.posterior(time).unwrap().moments(x.row(0)).unwrap());
            prop_assert!((&a.1 - &b.1).iter().all(|e| e.abs() < 1e-9));
        }
        let (a, b) = (diagonal.log_v(x.view()).unwrap(), full.log_v(x.view()).unwrap());
        prop_assert!((&a - &b).iter().all(|e| e.abs() < 1e-9));
    }

    #[test]
    fn bridges_move_and_scale_with_their_data(seed in 0u64..1000, d in 1usize..4, full in any::<bool>(), scale in 0.2..5.0f64) {
        let mut rng = Streams::new(seed).stream("bridge").rng(0);
        let bridge = random_bridge(d, 4, full, &mut rng);
        let mut normal = |n: usize| draw(&Normal(d), n, &mut rng);
        let (x, y, shift) = (normal(6), normal(6), normal(2) * 3.0);
        let moved = bridge.in_units(scale, shift.row(0), shift.row(1));
        let (x_moved, y_moved) = (&x * scale + shift.row(0), &y * scale + shift.row(1));
        // The density of s·y + b has the Jacobian s^−d.
        let expected = bridge.log_conditional(x.view(), y.view()).unwrap() - d as f64 * scale.ln();
        let found = moved.log_conditional(x_moved.view(), y_moved.view()).unwrap();
        prop_assert!((&found - &expected).iter().all(|e| e.abs() < 1e-7), "{found} {expected}");
        let mean = bridge.plan().mean(x.view()).unwrap() * scale + shift.row(1);
        prop_assert!((&mean - &moved.plan().mean(x_moved.view()).unwrap()).iter().all(|e| e.abs() < 1e-7));
    }

    #[test]
    fn weights_sum_to_one_at_any_scale(seed in 0u64..1000, size in -3.0..4.0f64, time in 0.0..0.999f64) {
        let mut rng = Streams::new(seed).stream("bridge").rng(0);
        let bridge = random_bridge(2, 5, seed % 2 == 0, &mut rng);
        // exp(x'Sx/2ε) overflows from |x| ≈ 30 on.
        let x = draw(&Normal(2), 4, &mut rng) * 10f64.powf(size);
        let weights = bridge.posterior(time).unwrap().weights(x.view()).unwrap();
        prop_assert!(weights.sum_axis(Axis(1)).iter().all(|s| (s - 1.0).abs() < 1e-12));
        prop_assert!(bridge.drift(x.view(), time).unwrap().iter().all(|g| g.is_finite()));
    }
}

#[test]
fn bad_models_points_and_options_are_named() {
    let message = |r: Result<LightBridge, Error>| r.unwrap_err().to_string();
    let ok = (array![0.0], array![[0.0]], array![[1.0]]);
    let new = |epsilon, a: &Array1<f64>, r: &Array2<f64>, s: &Array2<f64>| {
        LightBridge::diagonal(epsilon, a.clone(), r.clone(), s.clone())
    };
    assert_eq!(message(new(0.0, &ok.0, &ok.1, &ok.2)), "epsilon: got 0, but it must be above 0 and finite");
    assert!(message(new(1.0, &ok.0, &ok.1, &array![[-1.0]])).contains("component 0"));
    assert!(message(new(1.0, &array![f64::NAN], &ok.1, &ok.2)).contains("component 0"));
    assert!(message(new(1.0, &array![0.0, 0.0], &ok.1, &ok.2)).contains("shape"));
    assert!(message(new(1.0, &array![f64::NEG_INFINITY], &ok.1, &ok.2)).contains("mass"));
    assert!(message(new(1.0, &array![], &Array2::zeros((0, 1)), &Array2::zeros((0, 1)))).contains("nothing"));
    let full = |s: Array3<f64>| LightBridge::full(1.0, array![0.0], array![[0.0, 0.0]], s.view());
    assert!(message(full(array![[[1.0, 0.5], [0.0, 1.0]]])).contains("symmetric"));
    assert!(message(full(array![[[1.0, 2.0], [2.0, 1.0]]])).contains("positive definite"));
    assert!(message(full(array![[[1.0]]])).contains("shape"));

    let bridge = small_diagonal();
    let x = array![[0.0, 1.0]];
    assert!(bridge.drift(x.view(), 1.0).unwrap_err().to_string().starts_with("time: got 1"));
    assert!(bridge.drift(x.view(), f64::NAN).is_err());
    assert!(bridge.log_v(array![[1.0]].view()).unwrap_err().to_string().contains("dimension 2"));
    assert!(bridge.plan().mean(Array2::zeros((0, 2)).view()).is_err());
    assert!(bridge.simulate(x.view(), 10, 3, Streams::new(0).stream("w"), &Progress::silent()).is_err());

    let targets = array![[0.0, 1.0], [1.0, 1.0]];
    let refuse = |options: Options| Trainer::new(targets.view(), options, Streams::new(0)).unwrap_err().to_string();
    assert!(
        refuse(Options::default()).contains("components: got 100, but it must be between 1 and the 2 target samples")
    );
    let two = Options { components: 2, ..Options::default() };
    assert!(refuse(Options { epsilon: -1.0, ..two.clone() }).starts_with("epsilon"));
    assert!(refuse(Options { batch: 0, ..two.clone() }).starts_with("batch"));
    assert!(refuse(Options { learning_rate: f64::NAN, ..two.clone() }).starts_with("learning_rate"));
    assert!(refuse(Options { spread: Spread::Full, ..two.clone() }).contains("column 1 is constant"));
    let bad = array![[0.0, 1.0], [f64::NAN, 1.0]];
    let error = Trainer::new(bad.view(), two, Streams::new(0)).unwrap_err().to_string();
    assert!(error.contains("NaN at row 1, column 0"), "{error}");
}

/// Runs the door with JSON parameters and gives the report with its files.
fn door(parameters: serde_json::Value) -> offprint_core::Result<(offprint_core::Report, Vec<String>)> {
    let papers = offprint_transport::papers();
    let paper = papers.iter().find(|p| p.card().slug == "lightsb").unwrap();
    let mut run = Run::new(paper.card()).with_seed(4);
    paper.prepare_json(parameters)?.run(&mut run)?;
    let (report, _) = run.finish(true)?;
    let files = report.files.clone();
    Ok((report, files))
}

#[test]
fn the_door_fits_reuses_maps_and_compares() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, array: Array| {
        let path = directory.path().join(name);
        offprint_core::artifact::Artifact::Array(array).write(&path).unwrap();
        path.display().to_string()
    };
    let mut rng = Streams::new(1).stream("files").rng(0);
    for d in [1, 3] {
        let x0 = write("x0.npy", draw(&Normal(d), 300, &mut rng).into());
        let x1 = write("x1.npy", (draw(&Normal(d), 200, &mut rng) * 0.5 + 40.0).into());
        let new = write("new.npy", draw(&Normal(d), 5, &mut rng).into());
        for solver in ["light", "matching", "sinkhorn"] {
            for spread in ["diagonal", "full"] {
                let (report, files) = door(json!({
                    "x0": x0, "x1": x1, "solver": solver, "spread": spread, "components": 3, "steps": 60,
                    "normalise": "scale", "paths": 4, "path_steps": 10, "map": new,
                }))
                .unwrap_or_else(|e| panic!("{solver} {spread}: {e}"));
                assert!(files.iter().any(|f| f == "mapped.npy"), "{files:?}");
                assert!(report.figures.iter().any(|(name, _)| name == "bridge"));
                assert!(report.metric("energy distance to the target samples").unwrap() < 3.0, "{solver} {spread}");
            }
        }
        // A model file is used as it is, in the units of the data.
        let papers = offprint_transport::papers();
        let paper = papers.iter().find(|p| p.card().slug == "lightsb").unwrap();
        let out = directory.path().join(format!("run{d}"));
        let mut run = Run::new(paper.card()).with_out(out.clone()).unwrap();
        let parameters = json!({"x0": x0, "x1": x1, "components": 3, "steps": 60, "spread": "full"});
        paper.prepare_json(parameters).unwrap().run(&mut run).unwrap();
        run.finish(true).unwrap();
        let model = out.join("model.safetensors").display().to_string();
        let (report, files) = door(json!({"model": model, "map": new, "paths": 2})).unwrap_or_else(|e| panic!("{e}"));
        assert!(files.iter().any(|f| f == "drifts.npz") && report.metric("components") == Some(3.0));
        let error = door(json!({"model": model})).unwrap_err().to_string();
        assert!(error.contains("--map"), "{error}");
    }
}

#[test]
fn the_door_names_what_does_not_fit() {
    let message = |parameters| door(parameters).unwrap_err().to_string();
    assert_eq!(message(json!({"epsilon": 0})), "epsilon: got 0, but it must be above 0");
    assert!(message(json!({"times": [0.5, 1.0]})).starts_with("times: got 1"));
    assert!(message(json!({"components": 5000, "steps": 1})).contains("components: got 5000"));
    assert!(message(json!({"x0": "no such file.npy"})).contains("no such file.npy"));
    assert!(message(json!({"model": "no such model.safetensors"})).contains("no such model"));
    assert!(message(json!({"model": "m.safetensors", "solver": "sinkhorn"})).starts_with("model"));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.csv");
    std::fs::write(&path, "a,b,c\n1,2,3\n4,5,6\n").unwrap();
    assert!(message(json!({"x0": path.display().to_string()})).contains("columns"));
    std::fs::write(&path, "a,b\n1,2\n4,\n").unwrap();
    assert!(message(json!({"x0": path.display().to_string()})).contains("row 1"));
    std::fs::write(&path, "a,b\n1,2\n1,2\n").unwrap();
    let same = path.display().to_string();
    let error = message(json!({"x0": same, "x1": same, "components": 1, "normalise": "scale", "held_out": 0}));
    assert!(error.contains("scale"), "{error}");
}

/// Stops the run after some steps.
struct StopAfter(AtomicU64, Cancel);

impl Observer for StopAfter {
    fn begin(&self, _: &str, _: Option<u64>) {}
    fn advance(&self, steps: u64) {
        if self.0.fetch_add(steps, Ordering::Relaxed) > 500 {
            self.1.cancel();
        }
    }
    fn status(&self, _: &str) {}
    fn warn(&self, _: &str) {}
    fn finish(&self) {}
}

#[test]
fn a_stopped_fit_leaves_its_model() {
    let papers = offprint_transport::papers();
    let paper = papers.iter().find(|p| p.card().slug == "lightsb").unwrap();
    let cancel = Cancel::default();
    let progress = Progress::new(Arc::new(StopAfter(AtomicU64::new(0), cancel.clone())), cancel);
    let mut run = Run::new(paper.card()).with_progress(progress);
    let outcome = paper.prepare_json(json!({"steps": 1_000_000, "components": 4})).unwrap().run(&mut run);
    assert!(matches!(outcome, Err(Error::Cancelled)));
    assert!(run.finish(false).unwrap().0.files.contains(&"model.safetensors".to_string()));
}
