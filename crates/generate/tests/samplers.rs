//! Samplers on exact models: orders of convergence, equalities between them, laws of what they give, bad input.

use ndarray::{Array2, array};
use offprint_core::Result;
use offprint_core::random::{Stream, Streams};
use offprint_generate::exact::{Covariances, ExactEmpirical, ExactMixture, Mixture};
use offprint_generate::sample::{
    Ancestral, Basis, Bh, Buffer, Churn, Correction, Ddim, Deis, DpmPlusPlus2M, DpmPlusPlus2S, Euler, EulerMaruyama,
    Heun, Multistep, NAMES, SdeDpm, Stepwise, UniPc, learned_variance_step, named,
};
use offprint_generate::{Counted, Denoiser, Grid, Hook, Kernel, Node, Noise, Sampler, Schedule, normals};
use offprint_math::stats::log_log_slope;

fn stream() -> Stream {
    Streams::new(11).stream("sampler")
}

/// Three dimensions, variances from 0.4 to 0.6.
fn mixture() -> ExactMixture {
    let means = array![[1.0, -1.0, 0.5], [-1.5, 0.3, 1.0], [0.0, 1.5, -1.0]];
    let variances = array![[0.4, 0.5, 0.6], [0.6, 0.4, 0.5], [0.5, 0.6, 0.4]];
    ExactMixture::new(Mixture::new(array![0.2, 0.5, 0.3], means, Covariances::Diagonal(variances)).unwrap()).unwrap()
}

fn lambda_grid(steps: usize) -> Grid {
    Grid::uniform_lambda(&Schedule::vp_linear(), steps, 0.9, 0.05).unwrap()
}

fn rms(a: &Array2<f64>, b: &Array2<f64>) -> f64 {
    ((a - b).mapv(|v| v * v).sum() / a.len() as f64).sqrt()
}

/// The exponent with which the error falls over 20 to 320 steps of equal λ.
fn observed_order(sampler: &dyn Sampler) -> f64 {
    let model = mixture();
    let start = lambda_grid(1).start(16, 3, Kernel::Gaussian, stream());
    let fine =
        Multistep { correction: Correction { last: true, ..Correction::default() }, ..multi(UniPc::new(3, Bh::Two)) };
    let reference = fine.run(&model, start.clone(), &lambda_grid(2500), stream()).unwrap().y;
    let steps = [20, 40, 80, 160, 320];
    let error = |n: usize| rms(&sampler.run(&model, start.clone(), &lambda_grid(n), stream()).unwrap().y, &reference);
    let errors: Vec<f64> = steps.iter().map(|&n| error(n)).collect();
    -log_log_slope(&steps.map(|n| n as f64), &errors)
}

fn multi<S: offprint_generate::sample::Solver>(solver: Result<S>) -> Multistep<S> {
    Multistep::new(solver.unwrap())
}

#[test]
fn orders_are_those_of_the_methods() {
    let every = Correction { last: true, ..Correction::default() };
    let unipc = |p, bh| Multistep { correction: every, ..multi(UniPc::new(p, bh)) };
    let predictor = |p| Multistep { correction: Correction { from: 1000, ..every }, ..multi(UniPc::new(p, Bh::Two)) };
    let noise = |p| Multistep { correction: every, ..Multistep::new(UniPc::new(p, Bh::Two).unwrap().over_noise()) };
    let time = || Basis::Time(Schedule::vp_linear());
    let expected: Vec<(Box<dyn Sampler>, f64)> = vec![
        (Box::new(Multistep::new(Ddim)), 1.0),
        (Box::new(Stepwise(Euler)), 1.0),
        (Box::new(Stepwise(Heun::new())), 2.0),
        (Box::new(Multistep::new(DpmPlusPlus2M)), 2.0),
        (Box::new(Stepwise(DpmPlusPlus2S)), 2.0),
        (Box::new(multi(Deis::new(2, time()))), 2.0),
        (Box::new(multi(Deis::new(3, time()))), 3.0),
        (Box::new(multi(Deis::new(2, Basis::Level))), 2.0),
        (Box::new(multi(Deis::new(3, Basis::Level))), 3.0),
        (Box::new(unipc(1, Bh::Two)), 2.0),
        (Box::new(unipc(2, Bh::One)), 3.0),
        (Box::new(unipc(2, Bh::Two)), 3.0),
        (Box::new(unipc(3, Bh::One)), 4.0),
        (Box::new(unipc(3, Bh::Two)), 4.0),
        (Box::new(noise(2)), 3.0),
        (Box::new(predictor(2)), 2.0),
        (Box::new(predictor(3)), 3.0),
    ];
    for (sampler, expected) in expected {
        let order = observed_order(&*sampler);
        println!("{}: {order:.2}", sampler.name());
        assert!((order - expected).abs() < 0.25, "{}: {order:.2}, not {expected}", sampler.name());
    }
}

#[test]
fn different_names_for_one_method_give_the_same_points() {
    let model = mixture();
    let grid = lambda_grid(12);
    let start = grid.start(16, 3, Kernel::Gaussian, stream());
    let run = |sampler: &dyn Sampler| sampler.run(&model, start.clone(), &grid, stream()).unwrap().y;
    let ddim = run(&Multistep::new(Ddim));
    let same: [(&str, Array2<f64>); 6] = [
        ("euler", run(&Stepwise(Euler))),
        ("eta 0", run(&Stepwise(Ancestral::new(0.0).unwrap()))),
        ("rhoAB1", run(&multi(Deis::new(1, Basis::Level)))),
        ("tAB1", run(&multi(Deis::new(1, Basis::Time(Schedule::vp_linear()))))),
        (
            "predictor 1",
            run(&Multistep {
                correction: Correction { from: 99, ..Default::default() },
                ..multi(UniPc::new(1, Bh::One))
            }),
        ),
        (
            "noise predictor 1",
            run(&Multistep {
                correction: Correction { from: 99, ..Default::default() },
                ..Multistep::new(UniPc::new(1, Bh::One).unwrap().over_noise())
            }),
        ),
    ];
    for (name, points) in same {
        assert!(rms(&points, &ddim) < 1e-12, "{name}");
    }
    assert!(rms(&run(&Stepwise(SdeDpm)), &run(&Stepwise(Ancestral::new(1.0).unwrap()))) < 1e-12);
    // bh2's predictor of order 2 is DPM-Solver++(2M) where all steps are equal.
    let predictor =
        Multistep { correction: Correction { from: 99, ..Default::default() }, ..multi(UniPc::new(2, Bh::Two)) };
    assert!(rms(&run(&predictor), &run(&Multistep::new(DpmPlusPlus2M))) < 1e-12);
}

#[test]
fn a_learned_variance_lies_between_both_ends() {
    let model = mixture();
    let grid = lambda_grid(6);
    let y = grid.start(500, 3, Kernel::Gaussian, stream());
    let (from, to) = (grid.nodes()[0], grid.nodes()[1]);
    let denoised = model.denoise(y.view(), from.tau).unwrap();
    let step = |share: f64| {
        let share = Array2::from_elem(y.dim(), share);
        let noise = Noise::new(stream());
        learned_variance_step(y.view(), denoised.view(), share.view(), (from, to), (0, &noise)).unwrap()
    };
    // The lower end is the posterior's variance: the ancestral sampler's.
    let one = Grid::of_times(&Schedule::vp_linear(), &[from.t, to.t]).unwrap();
    let ancestral = Stepwise(Ancestral::new(1.0).unwrap()).run(&model, y.clone(), &one, stream()).unwrap().y;
    assert!(rms(&step(0.0), &ancestral) < 1e-12);
    // The upper end is β = 1 − α²/α'², in units of y' = x'/α': the same mean, the same numbers, another scale.
    let mean = &denoised * (1.0 - (to.tau / from.tau).powi(2)) + &y * (to.tau / from.tau).powi(2);
    let beta = 1.0 - (from.alpha / to.alpha).powi(2);
    let posterior = to.tau * (1.0 - (to.tau / from.tau).powi(2)).sqrt();
    let expected = &mean + &((&ancestral - &mean) * (beta.sqrt() / to.alpha / posterior));
    assert!(rms(&step(1.0), &expected) < 1e-10);
}

#[test]
fn every_sampler_ends_in_the_mixture() {
    let model = mixture();
    let (mean, covariance) = model.mixture().moments();
    let n = 1500;
    for schedule in [Schedule::vp_linear(), Schedule::Rectified] {
        let grid =
            Grid::uniform_lambda(&schedule, 100, schedule.latest().unwrap(), 1e-3).unwrap().with_final_denoising();
        // One of the schedules for all: in (y, τ) they differ by their ends alone.
        let names = if schedule == Schedule::Rectified { &NAMES[..4] } else { &NAMES[..] };
        for &name in names {
            let sampler = named(name, grid.steps(), &schedule).unwrap();
            assert_eq!(sampler.name(), name);
            let start = grid.start(n, 3, Kernel::Gaussian, Streams::new(2).stream("start"));
            let counted = Counted::new(&model);
            let sampled = sampler.run(&counted, start, &grid, stream()).unwrap();
            assert_eq!(sampled.evaluations, counted.calls(), "{name}");
            let x = sampled.into_x();
            let centre = x.mean_axis(ndarray::Axis(0)).unwrap();
            let spread = (&x - &centre).t().dot(&(&x - &centre)) / n as f64;
            // Four errors of 1500 draws, and what 100 steps leave.
            assert!((&centre - &mean).iter().all(|v| v.abs() < 0.13), "{name}: {centre}");
            let worst = (&spread - &covariance).iter().fold(0.0f64, |m, v| m.max(v.abs()));
            assert!(worst < 0.3, "{name}: {worst}");
        }
    }
}

#[test]
fn evaluations_are_counted_as_published() {
    let model = mixture();
    let edm = Grid::edm(18).unwrap();
    let start = edm.start(2, 3, Kernel::Gaussian, stream());
    let calls =
        |sampler: &dyn Sampler, grid: &Grid| sampler.run(&model, start.clone(), grid, stream()).unwrap().evaluations;
    assert_eq!(calls(&Stepwise(Heun::new()), &edm), 35);
    let grid = lambda_grid(8);
    assert_eq!(calls(&multi(UniPc::new(3, Bh::One)), &grid), 8);
    let twice = Multistep {
        correction: Correction { reevaluate: true, ..Default::default() },
        ..multi(UniPc::new(3, Bh::One))
    };
    assert_eq!(calls(&twice, &grid), 8 + 7);
    let last =
        Multistep { correction: Correction { last: true, ..Default::default() }, ..multi(UniPc::new(3, Bh::One)) };
    assert_eq!(calls(&last, &grid), 9);
    assert_eq!(calls(&Multistep::new(DpmPlusPlus2M), &grid), 8);
    assert_eq!(calls(&Stepwise(DpmPlusPlus2S), &grid), 16);
}

#[test]
fn the_step_without_noise_gives_exactly_the_denoised_data() {
    let model = mixture();
    let grid = Grid::karras(&Schedule::Edm, 5, 0.3, 20.0, 7.0).unwrap();
    let start = grid.start(8, 3, Kernel::Gaussian, stream());
    for name in NAMES {
        let before = named(name, 5, &Schedule::Edm).unwrap();
        // The last step of a longer run may start from a corrected state, and settings may depend on the steps.
        let longer = grid.clone().with_final_denoising();
        let after = named(name, 6, &Schedule::Edm).unwrap();
        if name == "edm-churn" || name.starts_with("unipc") || name.starts_with("dpm-v3") {
            assert!(after.run(&model, start.clone(), &longer, stream()).is_ok());
            continue;
        }
        let y = before.run(&model, start.clone(), &grid, stream()).unwrap().y;
        let denoised = model.denoise(y.view(), 0.3).unwrap();
        let x = after.run(&model, start.clone(), &longer, stream()).unwrap().y;
        assert!(rms(&denoised, &x) < 1e-12, "{name}");
    }
}

#[test]
fn results_do_not_depend_on_threads() {
    let model = mixture();
    let grid = lambda_grid(10);
    let start = grid.start(3000, 3, Kernel::Gaussian, stream());
    for name in NAMES {
        let sampler = named(name, 10, &Schedule::vp_linear()).unwrap();
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| sampler.run(&model, start.clone(), &grid, stream()).unwrap().y)
        };
        assert_eq!(run(1), run(3), "{name}");
    }
}

/// Doubles the newest output before step 4, once.
struct Doubling(usize);

impl Hook for Doubling {
    fn buffer(&mut self, step: usize, _: Node, buffer: &mut Buffer) -> Result<()> {
        if step == 4 {
            buffer.get_mut(0).unwrap().output.mapv_inplace(|v| 2.0 * v);
            self.0 = buffer.len();
        }
        if step == 5 {
            // What was changed stays as history.
            assert!(buffer.get(1).unwrap().output.iter().any(|v| v.abs() > 0.0));
        }
        Ok(())
    }
}

#[test]
fn hooks_see_and_change_what_is_stored() {
    let model = mixture();
    let grid = lambda_grid(8);
    let start = grid.start(4, 3, Kernel::Gaussian, stream());
    let sampler = Multistep { history: 3, ..multi(UniPc::new(2, Bh::Two)) };
    let plain = sampler.run(&model, start.clone(), &grid, stream()).unwrap().y;
    let mut doubling = Doubling(0);
    let run = |hook: &mut dyn Hook| {
        sampler.run_with(&model, start.clone(), &grid, stream(), hook, &offprint_core::Progress::silent()).unwrap().y
    };
    assert!(rms(&run(&mut doubling), &plain) > 1e-3);
    assert_eq!(doubling.0, 3);
    let mut trajectory: Vec<Array2<f64>> = Vec::new();
    assert_eq!(run(&mut trajectory), plain);
    assert_eq!((trajectory.len(), &trajectory[0], &trajectory[8]), (9, &start, &plain));
    // Step by step is the same as at once.
    let mut state = sampler.begin(&model, start.clone(), &grid).unwrap();
    for _ in 0..8 {
        let copy = state.clone();
        sampler.advance(&model, &grid, &mut state, &mut ()).unwrap();
        assert_eq!(copy.step + 1, state.step);
    }
    assert_eq!(state.y, plain);
}

#[test]
fn bad_input_is_refused_in_words() {
    let model = mixture();
    let grid = lambda_grid(3);
    let start = grid.start(4, 3, Kernel::Gaussian, stream());
    let message = |sampler: &dyn Sampler, start: Array2<f64>, grid: &Grid| {
        sampler.run(&model, start, grid, stream()).unwrap_err().to_string()
    };
    let ddim = Multistep::new(Ddim);
    let mut nan = start.clone();
    nan[[2, 1]] = f64::NAN;
    assert!(message(&ddim, nan, &grid).contains("row 2"));
    assert!(message(&ddim, Array2::zeros((4, 2)), &grid).contains("dimension 3"));
    assert!(message(&multi(Deis::new(4, Basis::Level)), start.clone(), &grid).contains("at least the order 4"));
    let churn = Churn { amount: 40.0, lowest: 0.05, highest: 50.0, scale: 1.003 };
    assert!(message(&Stepwise(Heun::with_churn(churn, 7).unwrap()), start.clone(), &grid).contains("steps"));
    let table = ExactEmpirical::new(normals(50, 3, stream(), 0), Kernel::StudentT { freedom: 128.0 }).unwrap();
    for sampler in [&Stepwise(SdeDpm) as &dyn Sampler, &Stepwise(EulerMaruyama)] {
        let error = sampler.run(&table, start.clone(), &grid, stream()).unwrap_err().to_string();
        assert!(
            error.contains(&sampler.name()) && error.contains("Gaussian") && error.contains("student-t D=128"),
            "{error}"
        );
    }
    // Deterministic ones take any noise.
    assert!(Stepwise(Heun::new()).run(&table, start.clone(), &grid, stream()).is_ok());
    for name in ["ddmi", "unipc-3", "unipc-3-bh3", "deis-tabx", "deis-tab9"] {
        assert!(named(name, 3, &Schedule::Edm).is_err(), "{name}");
    }
    assert!(Ancestral::new(1.5).is_err() && UniPc::new(0, Bh::One).is_err());
    /// A model that breaks.
    struct Broken;
    impl Denoiser for Broken {
        fn dim(&self) -> usize {
            3
        }
        fn denoise(&self, y: ndarray::ArrayView2<'_, f64>, tau: f64) -> Result<Array2<f64>> {
            Ok(if tau < 1.0 { Array2::from_elem(y.dim(), f64::INFINITY) } else { Array2::zeros(y.dim()) })
        }
    }
    let error = ddim.run(&Broken, start, &lambda_grid(20), stream()).unwrap_err().to_string();
    assert!(error.contains("finite") && error.contains("step"), "{error}");
}
