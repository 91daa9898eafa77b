//! Feynman-Kac correctors against closed forms, quadrature and the equation itself by finite differences.

use ndarray::{Array1, Array2, Array3, ArrayView2, array};
use offprint_core::random::Streams;
use offprint_core::{Progress, Result};
use offprint_generate::exact::{Covariances, ExactMixture, Mixture};
use offprint_generate::feynman_kac::{
    Annealing, Corrector, Density, DoubleWell, Energy, Expert, Flow, KernelDensity, Lattice, Leg, Length, LennardJones,
    Linear, Observation, Particles, Product, Ramp, Scheme, Settings, Target, Tempered, Tilted, When,
    annealed_importance_sampling, pair_distances, parallel_tempering, power_draws, product_mixture, residual,
};
use offprint_generate::{Denoiser, Grid, Kernel, Schedule, normals};
use proptest::prelude::*;
use std::f64::consts::PI;

fn mixture(weights: Array1<f64>, means: Array2<f64>, variances: Array1<f64>) -> ExactMixture {
    ExactMixture::new(Mixture::round(weights, means, variances.view()).unwrap()).unwrap()
}

fn line() -> ExactMixture {
    mixture(array![0.5, 0.5], array![[-4.0], [4.0]], array![1.0, 0.25])
}

fn grid(steps: usize) -> Grid {
    Grid::karras(&Schedule::Edm, steps, 0.01, 20.0, 7.0).unwrap()
}

/// Two mixtures with full covariances in the plane.
fn planar() -> [ExactMixture; 2] {
    let full = |means: Array2<f64>, tilt: f64| {
        let covariances: Array3<f64> = array![[[0.5, tilt], [tilt, 0.8]], [[1.2, -tilt], [-tilt, 0.4]]];
        ExactMixture::new(Mixture::new(array![0.4, 0.6], means, Covariances::Full(covariances)).unwrap()).unwrap()
    };
    [full(array![[-1.0, 0.5], [1.5, -0.3]], 0.2), full(array![[-0.5, 1.0], [1.0, 1.0]], -0.3)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn drifts_and_rates_solve_the_feynman_kac_equation(
        point in prop::array::uniform2(-2.0..2.0f64),
        tau in 0.4..3.0f64,
        exponents in prop::array::uniform2(-0.7..3.0f64),
        zeta in prop::sample::select(vec![0.0, 0.5, 1.0, 2.0]),
    ) {
        prop_assume!(exponents.iter().sum::<f64>() > 0.1);
        let [a, b] = planar();
        let y = Array1::from(point.to_vec());
        let experts = || vec![Expert::known(&a, exponents[0]).unwrap(), Expert::known(&b, exponents[1]).unwrap()];
        let product = || Product::new(experts()).unwrap();
        prop_assert!(residual(&product(), &y, tau, zeta).unwrap().abs() < 1e-5);

        let ramp: Ramp = "1:2.5^2".parse().unwrap();
        let tempered = Tempered::new(&a, ramp.clone()).unwrap();
        prop_assert!(residual(&tempered, &y, tau, zeta).unwrap().abs() < 1e-5);

        let observed = Observation::new(array![[0.7, -0.4]], array![0.3], 0.8).unwrap();
        let line: Ramp = "0:1".parse().unwrap();
        let tilted = Tilted::new(product(), observed.clone(), line.clone()).unwrap();
        prop_assert!(residual(&tilted, &y, tau, zeta).unwrap().abs() < 1e-5);

        // The densities that the equation is checked with are those meant.
        let rows = y.insert_axis(ndarray::Axis(0));
        let (log_a, log_b) = (a.log_density(rows.view(), tau).unwrap()[0], b.log_density(rows.view(), tau).unwrap()[0]);
        let reward = -0.5 * ((0.7 * rows[[0, 0]] - 0.4 * rows[[0, 1]] - 0.3) / 0.8).powi(2);
        let log = |target: &dyn Target| target.log_density(rows.view(), tau, 0.5).unwrap().unwrap()[0];
        let log_product = exponents[0] * log_a + exponents[1] * log_b;
        prop_assert!((log(&product()) - log_product).abs() < 1e-9);
        prop_assert!((log(&tempered) - 1.375 * log_a).abs() < 1e-9);
        prop_assert!((log(&tilted) - log_product - 0.5 * reward).abs() < 1e-9);
    }
}

#[test]
fn the_equation_refuses_a_drift_with_the_weights_of_another_law() {
    struct Wrong<'a>(Product<'a>);
    impl Target for Wrong<'_> {
        fn dim(&self) -> usize {
            self.0.dim()
        }
        fn exponent(&self) -> f64 {
            self.0.exponent()
        }
        fn centre(&self) -> ndarray::ArrayView1<'_, f64> {
            self.0.centre()
        }
        fn flow(&self, y: ArrayView2<'_, f64>, leg: Leg) -> Result<Flow> {
            let mut flow = self.0.flow(y, leg)?;
            flow.drift *= 0.9;
            Ok(flow)
        }
        fn log_density(&self, y: ArrayView2<'_, f64>, tau: f64, done: f64) -> Result<Option<Array1<f64>>> {
            self.0.log_density(y, tau, done)
        }
        fn models(&self) -> u64 {
            1
        }
    }
    let [a, _] = planar();
    let wrong = Wrong(Product::annealed(Expert::known(&a, 2.0).unwrap()).unwrap());
    assert!(residual(&wrong, &array![0.3, -0.8], 0.7, 1.0).unwrap().abs() > 1e-2);
    let score = Product::annealed(Expert::new(&a, 2.0).unwrap()).unwrap();
    assert!(residual(&score, &array![0.3, -0.8], 0.7, 1.0).is_err());
}

fn right_mass(particles: &Particles) -> f64 {
    particles.expectation(|y| f64::from(u8::from(y[0] > 0.0)))
}

/// The median over seeds.
fn median(seeds: u64, of: impl Fn(Streams) -> f64) -> f64 {
    let mut values: Vec<f64> = (0..seeds).map(|seed| of(Streams::new(seed))).collect();
    values.sort_by(f64::total_cmp);
    0.5 * (values[(values.len() - 1) / 2] + values[values.len() / 2])
}

#[test]
fn gaussians_raised_to_a_power_are_exact_for_every_noise_and_policy() {
    // q^β for q = N(m, C) is N(m, C/β), and ∫ q^β = (2π)^{d(1−β)/2} |C|^{(1−β)/2} β^{−d/2}.
    let covariance = array![[[1.0, 0.4], [0.4, 0.6]]];
    let model =
        ExactMixture::new(Mixture::new(array![1.0], array![[1.0, -2.0]], Covariances::Full(covariance)).unwrap())
            .unwrap();
    let beta = 1.5;
    let exact = (1.0 - beta) * ((2.0 * PI).ln() + 0.5 * (0.6f64 - 0.16).ln()) - beta.ln();
    for (zeta, when) in [
        (1.0, When::BelowEss(0.5)),
        (1.0 / beta, When::BelowEss(0.5)),
        (2.0, When::Never),
        (1.0, When::Every(1)),
        (1.0, When::Jump),
    ] {
        let settings = Settings { noise: zeta, when, ..Settings::default() };
        let target = Product::annealed(Expert::known(&model, beta).unwrap()).unwrap();
        let found = Corrector::new(settings).run(&target, 4000, &grid(300), Streams::new(3)).unwrap();
        let (mean, covariance) = found.moments();
        assert!((mean[0] - 1.0).abs() < 0.08 && (mean[1] + 2.0).abs() < 0.08, "{zeta} {when:?} {mean}");
        for (found, exact) in covariance.iter().zip([1.0, 0.4, 0.4, 0.6].map(|c| c / beta)) {
            assert!((found - exact).abs() < 0.06, "{zeta} {when:?} {covariance}");
        }
        let log_z = found.log_normaliser.unwrap();
        assert!((log_z - exact).abs() < 0.3, "{zeta} {when:?} {log_z} {exact}");
    }
}

#[test]
fn annealing_finds_the_masses_that_scaled_scores_miss() {
    let model = line();
    let target = Product::annealed(Expert::known(&model, 3.0).unwrap()).unwrap();
    let mass = |settings: Settings| {
        median(5, |streams| {
            right_mass(&Corrector::new(settings.clone()).run(&target, 2048, &grid(200), streams).unwrap())
        })
    };
    // Mode k of q^β has a mass ∝ s_k^{1−β}: 4/5 on the right.
    let (corrected, scaled) = (mass(Settings::default()), mass(Settings::unweighted()));
    assert!((corrected - 0.8).abs() < 0.1, "{corrected}");
    assert!(scaled < 0.6, "{scaled}");
}

#[test]
fn results_do_not_depend_on_threads_and_lineages_are_recorded() {
    let model = line();
    let run = || {
        let target = Product::annealed(Expert::known(&model, 3.0).unwrap()).unwrap();
        Corrector::default().run(&target, 500, &grid(60), Streams::new(1)).unwrap()
    };
    let (a, b) = (run(), rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(run));
    assert!(a.y == b.y && a.weights == b.weights && a.log_normaliser == b.log_normaliser);
    assert_eq!((a.effective_sizes.len(), a.roots.len(), a.evaluations), (60, 500, 60));
    let composed = a
        .resamplings
        .iter()
        .fold((0..500).collect::<Vec<_>>(), |roots, (_, ancestors)| ancestors.iter().map(|&k| roots[k]).collect());
    assert_eq!(composed, a.roots);
    assert!(a.lineages() < 500 && (a.weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
}

#[test]
fn posteriors_of_linear_inverse_problems_are_gaussian_conditioning() {
    // Prior N(0, I), x₁ + x₂ observed as 1.5 with deviation 0.5: precision I + 4 11ᵀ, mean 6/9 (1, 1).
    let model = mixture(array![1.0], array![[0.0, 0.0]], array![1.0]);
    let observed = Observation::new(array![[1.0, 1.0]], array![1.5], 0.5).unwrap();
    let product = Product::annealed(Expert::known(&model, 1.0).unwrap()).unwrap();
    let target = Tilted::new(product, observed, "0:1^3".parse().unwrap()).unwrap();
    let x1 = median(3, |s| Corrector::default().run(&target, 4000, &grid(300), s).unwrap().moments().0[0]);
    assert!((x1 - 2.0 / 3.0).abs() < 0.06, "{x1}");
}

#[test]
fn experts_of_unknown_density_start_at_their_means() {
    struct Score<'a>(&'a ExactMixture);
    impl Denoiser for Score<'_> {
        fn dim(&self) -> usize {
            self.0.dim()
        }
        fn denoise(&self, y: ArrayView2<'_, f64>, tau: f64) -> Result<Array2<f64>> {
            self.0.denoise(y, tau)
        }
    }
    let model = mixture(array![1.0], array![[3.0]], array![0.5]);
    let score = Score(&model);
    let target = Product::annealed(Expert::new(&score, 2.0).unwrap().centred_at(array![3.0]).unwrap()).unwrap();
    let found = Corrector::default().run(&target, 2000, &grid(400), Streams::new(0)).unwrap();
    let (mean, covariance) = found.moments();
    assert!((mean[0] - 3.0).abs() < 0.05 && (covariance[[0, 0]] - 0.25).abs() < 0.04, "{mean} {covariance}");
    let exact = -0.5 * (2.0 * PI * 0.5f64).ln() - 0.5 * 2f64.ln();
    assert!((found.log_normaliser.unwrap() - exact).abs() < 0.1);
}

#[test]
fn products_of_mixtures_are_their_closed_form() {
    let [a, b] = planar();
    let exact = ExactMixture::new(product_mixture(a.mixture(), b.mixture()).unwrap()).unwrap();
    let points = array![[0.0, 0.0], [1.0, -1.0], [-1.5, 0.7], [2.0, 1.0]];
    let log = |m: &ExactMixture| m.log_density(points.view(), 0.0).unwrap();
    let apart = log(&a) + log(&b) - log(&exact);
    assert!(apart.iter().all(|v| (v - apart[0]).abs() < 1e-10), "{apart}");
}

#[test]
fn draws_of_a_power_have_its_moments() {
    // Overlapping modes, so that the importance weights matter; the truth by quadrature.
    let model = mixture(array![0.5, 0.5], array![[-1.0, 0.0], [0.6, 0.4]], array![0.8, 0.3]);
    let target = Product::annealed(Expert::known(&model, 2.0).unwrap()).unwrap();
    let exact = Lattice::of(&target, 1e-3, &[-7.0, -7.0], &[7.0, 7.0], 300).unwrap().unwrap();
    let draws = power_draws(&model, 2.0, 4000, Streams::new(2).stream("draws")).unwrap();
    let mean = draws.column(0).mean().unwrap();
    let square = draws.column(0).iter().map(|x| x * x).sum::<f64>() / 4000.0;
    assert!((mean - exact.expectation(|y| y[0])).abs() < 0.03);
    assert!((square - exact.expectation(|y| y[0] * y[0])).abs() < 0.04);
}

#[test]
fn kernel_densities_are_mixtures_of_their_points() {
    let data = array![[0.0, 1.0], [2.0, -1.0], [0.5, 0.3]];
    let kernel = KernelDensity::new(data.clone(), 0.7).unwrap();
    let exact = mixture(Array1::from_elem(3, 1.0 / 3.0), data, Array1::from_elem(3, 0.49));
    let y = array![[0.3, 0.3], [-2.0, 4.0]];
    for tau in [0.01, 0.5, 6.0] {
        let apart = kernel.denoise(y.view(), tau).unwrap() - exact.denoise(y.view(), tau).unwrap();
        assert!(apart.iter().all(|v| v.abs() < 1e-9));
        let (a, b) = (Density::log_density(&kernel, y.view(), tau).unwrap(), exact.log_density(y.view(), tau).unwrap());
        assert!((a - b).iter().all(|v| v.abs() < 1e-9));
    }
    assert!((kernel.spread() - Density::spread(&exact)).abs() < 1e-9);
    assert!(KernelDensity::new(array![[1.0]], 0.0).is_err());
}

#[test]
fn denoising_at_the_end_gives_the_mode_of_a_sharp_law() {
    let model = mixture(array![1.0], array![[2.0]], array![1e-12]);
    let target = Product::annealed(Expert::known(&model, 3.0).unwrap()).unwrap();
    let found = Corrector::default().run(&target, 50, &grid(50).with_final_denoising(), Streams::new(0)).unwrap();
    assert!(found.y.iter().all(|y| (y - 2.0).abs() < 1e-6));
}

#[test]
fn configurations_keep_their_centre_of_mass() {
    let model = mixture(array![0.5, 0.5], Array2::from_shape_fn((2, 6), |(k, j)| (k * j) as f64), array![1.0, 1.0]);
    let target = Product::annealed(Expert::new(&model, 1.5).unwrap()).unwrap();
    let settings = Settings { centred: Some(3), langevin: 1, ..Settings::default() };
    let found = Corrector::new(settings).run(&target, 20, &grid(20), Streams::new(0)).unwrap();
    for row in found.y.outer_iter() {
        assert!((0..3).all(|a| (row[a] + row[a + 3]).abs() < 1e-12));
    }
}

#[test]
fn bad_input_is_refused_in_words() {
    let (model, other) = (line(), planar().into_iter().next().unwrap());
    let known = |beta| Expert::known(&model, beta).unwrap();
    let message = |result: Result<Product<'_>>| result.err().unwrap().to_string();
    assert!(message(Product::annealed(known(-1.0))).contains("sum to -1, and the start law does not exist"));
    assert!(message(Product::new(vec![known(1.0), known(-1.0)])).contains("sum to 0"));
    assert!(message(Product::new(vec![])).contains("at least one"));
    assert!(message(Product::new(vec![known(1.0), Expert::known(&other, 1.0).unwrap()])).contains("expert 1"));
    assert!(Expert::new(&model, f64::NAN).is_err());
    let student =
        offprint_generate::exact::ExactEmpirical::new(array![[0.0]], Kernel::StudentT { freedom: 4.0 }).unwrap();
    assert!(Expert::new(&student, 1.0).err().unwrap().to_string().contains("student-t"));
    assert!(known(1.0).centred_at(array![0.0, 1.0]).is_err());
    assert!(Tempered::new(&model, "0:1".parse().unwrap()).err().unwrap().to_string().contains("start law"));
    let reward = Linear::new(array![1.0, 0.0]).unwrap();
    let tilted = Tilted::new(Product::annealed(known(1.0)).unwrap(), reward, "1".parse().unwrap());
    assert!(tilted.err().unwrap().to_string().contains("dimension 1"));
    assert!(Observation::new(array![[1.0]], array![1.0, 2.0], 1.0).is_err());

    let target = Product::annealed(known(2.0)).unwrap();
    let run = |settings: Settings, k| {
        Corrector::new(settings).run(&target, k, &grid(5), Streams::new(0)).err().map(|e| e.to_string())
    };
    let base = Settings::default;
    assert!(run(base(), 1).unwrap().contains("at least 2"));
    assert!(run(Settings { noise: -1.0, ..base() }, 9).unwrap().starts_with("noise"));
    assert!(run(Settings { when: When::Every(0), ..base() }, 9).unwrap().starts_with("resample"));
    assert!(run(Settings { when: When::BelowEss(1.5), ..base() }, 9).unwrap().starts_with("ess"));
    assert!(run(Settings { window: Some((5, 2)), ..base() }, 9).unwrap().starts_with("window"));
    assert!(run(Settings { clamp: Some(0.0), ..base() }, 9).unwrap().starts_with("clamp"));
    assert!(run(Settings { floor: 1.0, ..base() }, 9).unwrap().starts_with("floor"));
    assert!(run(Settings { centred: Some(1), ..base() }, 9).unwrap().starts_with("centred"));
}

#[test]
fn a_model_that_breaks_is_told_by_particle_step_and_level() {
    struct Breaks;
    impl Denoiser for Breaks {
        fn dim(&self) -> usize {
            2
        }
        fn denoise(&self, y: ArrayView2<'_, f64>, tau: f64) -> Result<Array2<f64>> {
            let mut out = y.to_owned();
            if tau < 1.0 {
                out[[3, 1]] = f64::NAN;
            }
            Ok(out)
        }
    }
    let target = Product::annealed(Expert::new(&Breaks, 1.5).unwrap()).unwrap();
    let message = Corrector::default().run(&target, 8, &grid(50), Streams::new(0)).unwrap_err().to_string();
    assert!(message.contains("score of particle 3") && message.contains("noise level 0.9"), "{message}");
    let stopped = offprint_core::Cancel::default();
    stopped.cancel();
    let progress = Progress::new(std::sync::Arc::new(offprint_core::Silent), stopped);
    let run = Corrector::default().run_with(&target, 8, &grid(5), Streams::new(0), &mut |_, _, _, _| {}, &progress);
    assert!(matches!(run, Err(offprint_core::Error::Cancelled)));
}

#[test]
fn gradients_of_energies_are_those_of_differences() {
    let cluster = LennardJones::new(4).unwrap();
    let energies: [&dyn Energy; 2] = [&DoubleWell, &cluster];
    for energy in energies {
        let x: Vec<f64> = (0..energy.dim()).map(|i| (i * i % 7) as f64 * 0.6 + 0.1 * i as f64).collect();
        let mut gradient = vec![0.0; x.len()];
        energy.evaluate(&x, &mut gradient);
        for i in 0..x.len() {
            let at = |step: f64| {
                let mut x = x.clone();
                x[i] += step;
                energy.evaluate(&x, &mut vec![0.0; x.len()])
            };
            let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!((gradient[i] - slope).abs() < 1e-6 * (1.0 + slope.abs()), "{i}: {} {slope}", gradient[i]);
        }
    }
}

#[test]
fn pairs_of_least_energy_stand_at_distance_one() {
    // Two particles at distance 1: −2 for the ordered pairs, and ½ (¼ + ¼) for the trap.
    let pair = LennardJones::new(2).unwrap();
    let x = array![[-0.5, 0.0, 0.0, 0.5, 0.0, 0.0]];
    assert!((pair.energies(x.view()).unwrap()[0] + 1.75).abs() < 1e-12);
    assert_eq!(pair_distances(x.view())[[0, 0]], 1.0);
    assert!(pair.energies(Array2::zeros((1, 6)).view()).unwrap_err().to_string().contains("coincide"));
    assert!(LennardJones::new(1).is_err() && pair.energies(array![[0.0]].view()).is_err());
}

#[test]
fn parallel_tempering_has_the_moments_of_its_temperatures() {
    let length = Length { chains: 16, burn_in: 200, samples: 200, thin: 3 };
    let run = |temperatures: &[f64]| {
        parallel_tempering(
            &DoubleWell,
            &array![[1.0, 0.0]],
            temperatures,
            length,
            Streams::new(1).stream("mc"),
            &Progress::silent(),
        )
    };
    let samples = run(&[4.0, 1.0]).unwrap();
    for (x, temperature) in samples.iter().zip([4.0, 1.0]) {
        // y is N(0, T); x by quadrature.
        let square = x.column(1).iter().map(|y| y * y).sum::<f64>() / 3200.0;
        assert!((square / temperature - 1.0).abs() < 0.15, "{square} {temperature}");
        let (mut mass, mut fourth) = (0.0, 0.0);
        for i in -3000..=3000 {
            let v = f64::from(i) * 1e-3;
            let w = (-4.0 * (v * v - 1.0).powi(2) / temperature).exp();
            mass += w;
            fourth += w * v.powi(4);
        }
        let found = x.column(0).iter().map(|v| v.powi(4)).sum::<f64>() / 3200.0;
        assert!((found * mass / fourth - 1.0).abs() < 0.08, "{found} {}", fourth / mass);
        assert!(x.column(0).mean().unwrap().abs() < 0.25);
    }
    assert!(run(&[0.0]).is_err() && run(&[]).is_err());
}

#[test]
fn annealed_importance_sampling_weighs_hot_samples_into_the_cold_law() {
    // Exact hot samples by drawing x from its law on a fine grid, y from a Gaussian.
    let (hot, cold) = (4.0, 0.7);
    let moments = |temperature: f64| {
        let (mut mass, mut fourth) = (0.0, 0.0);
        for i in -3000..=3000 {
            let v = f64::from(i) * 1e-3;
            let w = (-4.0 * (v * v - 1.0).powi(2) / temperature).exp() * 1e-3;
            mass += w;
            fourth += w * v.powi(4);
        }
        (mass, fourth / mass)
    };
    let mut masses = Vec::new();
    for i in -3000..=3000 {
        let v = f64::from(i) * 1e-3;
        masses.push((-4.0 * (v * v - 1.0).powi(2) / hot).exp());
    }
    let count = 4000;
    let places = Scheme::Stratified.draw(&masses, count, &mut Streams::new(2).stream("x").rng(0));
    let noise = normals(count, 1, Streams::new(2).stream("y"), 0);
    let start = Array2::from_shape_fn((count, 2), |(i, j)| {
        if j == 0 { (places[i] as f64 - 3000.0) * 1e-3 } else { hot.sqrt() * noise[[i, 0]] }
    });
    let run = |temperatures: usize| {
        let (stream, silent) = (Streams::new(3).stream("ais"), Progress::silent());
        let length = Annealing { temperatures, steps: 3 };
        annealed_importance_sampling(&DoubleWell, &start, (hot, cold), length, stream, &silent)
    };
    let found = run(12).unwrap();
    let (hot_mass, _) = moments(hot);
    let (cold_mass, fourth) = moments(cold);
    // Z factorises: a Gaussian in y, quadrature in x.
    let exact = (cold_mass / hot_mass).ln() + 0.5 * (cold / hot).ln();
    assert!((found.log_normaliser.unwrap() - exact).abs() < 0.05, "{:?} {exact}", found.log_normaliser);
    assert!((found.expectation(|x| x[0].powi(4)) / fourth - 1.0).abs() < 0.06);
    assert!((found.expectation(|x| x[1] * x[1]) / cold - 1.0).abs() < 0.1);
    // More temperatures, evener weights; two are plain importance sampling.
    let sizes = [2, 4, 12].map(|n| run(n).unwrap().effective_size());
    assert!(sizes[0] < sizes[1] && sizes[1] < sizes[2], "{sizes:?}");
    assert!(run(1).unwrap_err().to_string().contains("at least 2"));
    let two = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    assert_eq!(two.install(|| run(4).unwrap().y), run(4).unwrap().y);
}
