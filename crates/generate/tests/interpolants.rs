//! Stochastic interpolants against the equations that define them, closed forms and independent computations.

use ndarray::{Array1, Array2, ArrayView2, Axis, array, s};
use offprint_core::random::Streams;
use offprint_core::{Progress, Result};
use offprint_generate::exact::{ExactMixture, Mixture};
use offprint_generate::interpolants::control::Errors;
use offprint_generate::interpolants::examples::{checkerboard, line, plane, standard_normal};
use offprint_generate::interpolants::fokker_planck::Line;
use offprint_generate::interpolants::{
    AsDiffusion, Coupling, Denoised, Diffusion, Epsilon, ExactFields, Fields, Integrator, Interpolant, Joint, Keep,
    Pairs, Rippled, flow, log_density_of_diffusion, log_density_of_flow,
};
use offprint_generate::likelihood::Divergence;
use offprint_generate::metrics::{energy_distance, kolmogorov_smirnov};
use offprint_generate::ode::Tolerance;
use offprint_generate::{
    Denoiser, Gamma, Grid, Interpolation, Kernel, Model, Path, Predicting, Prediction, Schedule, sample,
};
use offprint_math::stats;
use proptest::prelude::*;

const GAMMAS: [Gamma; 4] =
    [Gamma::Brownian { scale: 1.0 }, Gamma::Quadratic, Gamma::SineSquared, Gamma::Sigmoid { steepness: 10.0 }];

/// Every bridge between two data sets that the paper names, with every latent noise that it can bear.
fn paths() -> Vec<Interpolant> {
    let mixings = ["linear", "trigonometric", "encoding-decoding", "mirror"];
    mixings.into_iter().flat_map(|m| GAMMAS.map(|g| Interpolant::named(m, g))).filter_map(Result::ok).collect()
}

fn in_plane(path: Interpolant) -> ExactFields {
    let stream = Streams::new(3).stream("plane");
    let (start, end) = plane(stream).unwrap();
    let start = if path.is_one_sided() { standard_normal(2).unwrap() } else { start };
    ExactFields::new(path, Joint::independent(&start, &end).unwrap()).unwrap()
}

fn on_line(path: Interpolant) -> ExactFields {
    let (start, end) = line().unwrap();
    ExactFields::new(path, Joint::independent(&start, &end).unwrap()).unwrap()
}

fn linear() -> Interpolant {
    Interpolant::named("linear", GAMMAS[0]).unwrap()
}

fn log_density(mixture: &Mixture, x: ArrayView2<'_, f64>) -> Result<Array1<f64>> {
    ExactMixture::new(mixture.clone())?.log_density(x, 0.0)
}

fn standard(x: ArrayView2<'_, f64>) -> Result<Array1<f64>> {
    log_density(&standard_normal(x.ncols())?, x)
}

#[test]
fn fields_are_averages_over_pairs() {
    // b(x) and s(x) = −E[z | x]/γ by importance weights over pairs: no formula of mixtures is used.
    let fields = in_plane(linear());
    let at = fields.path().at(0.4).unwrap();
    let (x0, x1) = fields.joint().sample(200_000, Streams::new(1).stream("pairs")).unwrap();
    let x = array![[0.3, -0.5]];
    let (b, s) = fields.both(x.view(), 0.4).unwrap();
    let (mut total, mut velocity, mut score) = (0.0, [0.0; 2], [0.0; 2]);
    for (x0, x1) in x0.outer_iter().zip(x1.outer_iter()) {
        let z = (&x.row(0) - &(&x0 * at.a) - &(&x1 * at.b)) / at.gamma;
        let weight = (-0.5 * z.dot(&z)).exp();
        total += weight;
        for j in 0..2 {
            velocity[j] += weight * (at.a_rate * x0[j] + at.b_rate * x1[j] + at.gamma_rate() * z[j]);
            score[j] -= weight * z[j] / at.gamma;
        }
    }
    for j in 0..2 {
        assert!((velocity[j] / total - b[[0, j]]).abs() < 0.15, "{velocity:?} {total} {b}");
        assert!((score[j] / total - s[[0, j]]).abs() < 0.05, "{score:?} {total} {s}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn fields_solve_their_equations(point in prop::array::uniform2(-4.0..4.0f64), t in 0.05..0.45f64) {
        let all = paths().into_iter().chain(["one-sided-linear", "one-sided-trigonometric", "one-sided-vp"].map(|name| {
            Interpolant::named(name, Gamma::Zero).unwrap()
        }));
        for path in all {
            let fields = in_plane(path);
            let x = Array2::from_shape_vec((1, 2), point.to_vec()).unwrap();
            let h = 1e-4;
            let log = |x: &Array2<f64>, t: f64| fields.log_density(x.view(), t).unwrap()[0];
            let moved = |j: usize, by: f64| {
                let mut x = x.clone();
                x[[0, j]] += by;
                x
            };
            // Central differences of order 4.
            let slope = |f: &dyn Fn(f64) -> f64| (8.0 * (f(h) - f(-h)) - (f(2.0 * h) - f(-2.0 * h))) / (12.0 * h);
            let (b, s) = fields.both(x.view(), t).unwrap();
            let (div_b, div_s) = fields.divergences(x.view(), t).unwrap().unwrap();
            let rate = slope(&|by| log(&x, t + by));
            let scale = 1.0 + rate.abs() + div_b[0].abs();
            let name = fields.path().name();
            prop_assert!((rate + div_b[0] + (&b * &s).sum()).abs() < 1e-6 * scale, "{name}");
            let mut divergences = [0.0; 2];
            for j in 0..2 {
                let gradient = slope(&|by| log(&moved(j, by), t));
                prop_assert!((gradient - s[[0, j]]).abs() < 1e-6 * (1.0 + gradient.abs()), "{name}");
                divergences[0] += slope(&|by| fields.both(moved(j, by).view(), t).unwrap().0[[0, j]]);
                divergences[1] += slope(&|by| fields.both(moved(j, by).view(), t).unwrap().1[[0, j]]);
            }
            prop_assert!((divergences[0] - div_b[0]).abs() < 1e-6 * (1.0 + div_b[0].abs()), "{name}");
            prop_assert!((divergences[1] - div_s[0]).abs() < 1e-6 * (1.0 + div_s[0].abs()), "{name}");
        }
    }

    #[test]
    fn ends_are_the_given_laws(point in prop::array::uniform2(-4.0..4.0f64)) {
        let x = Array2::from_shape_vec((1, 2), point.to_vec()).unwrap();
        for path in paths().into_iter().filter(|p| !p.name().starts_with("mirror")) {
            let fields = in_plane(path);
            for (t, law) in [(0.0, fields.joint().starts()), (1.0, fields.joint().ends())] {
                let (found, expected) = (fields.log_density(x.view(), t).unwrap(), log_density(law, x.view()).unwrap());
                prop_assert!((found[0] - expected[0]).abs() < 1e-9 * (1.0 + expected[0].abs()));
            }
        }
    }
}

#[test]
fn score_diffusion_and_rectified_flow_are_special_cases() {
    let (_, end) = plane(Streams::new(3).stream("plane")).unwrap();
    let model = ExactMixture::new(end.clone()).unwrap();
    let x = array![[0.3, -0.5], [2.0, 1.0], [-3.0, 0.2]];
    for name in ["one-sided-linear", "one-sided-trigonometric", "one-sided-vp"] {
        let path = Interpolant::named(name, Gamma::Zero).unwrap();
        let fields = in_plane(path.clone());
        let schedule = path.schedule().unwrap();
        let diffusion = |kind| Predicting::new(&model, Path::Gaussian(schedule.clone()), kind).unwrap();
        for t in [0.15, 0.5, 0.9] {
            let (b, s) = fields.both(x.view(), t).unwrap();
            let u = diffusion(Prediction::Velocity).predict(x.view(), 1.0 - t).unwrap();
            let score = diffusion(Prediction::Score).predict(x.view(), 1.0 - t).unwrap();
            assert!((&b + &u).iter().all(|v| v.abs() < 1e-10), "{name}");
            assert!((&s - &score).iter().all(|v| v.abs() < 1e-10), "{name}");
            // The other way round, with divergences.
            let denoised = Denoised::new(&model, path.clone()).unwrap();
            let (b2, s2) = denoised.both(x.view(), t).unwrap();
            assert!((b2 - &b).iter().chain((s2 - &s).iter()).all(|v| v.abs() < 1e-10), "{name}");
            let (ours, theirs) = (fields.divergences(x.view(), t), denoised.divergences(x.view(), t));
            let ((b, s), (b2, s2)) = (ours.unwrap().unwrap(), theirs.unwrap().unwrap());
            assert!((b - b2).iter().chain((s - s2).iter()).all(|v| v.abs() < 1e-9), "{name}");
        }
    }
    // Without latent noise a two-sided bridge from N(0, I) is the one-sided one.
    let straight = Interpolant::named("linear", Gamma::Zero).unwrap();
    let joint = || Joint::independent(&standard_normal(2).unwrap(), &end).unwrap();
    let (rectified, one_sided) = (
        ExactFields::new(straight, joint()).unwrap(),
        ExactFields::new(Interpolant::one_sided(Interpolation::Linear).unwrap(), joint()).unwrap(),
    );
    let apart = rectified.velocity(x.view(), 0.3).unwrap() - one_sided.velocity(x.view(), 0.3).unwrap();
    assert!(apart.iter().all(|v| v.abs() < 1e-12));
}

#[test]
fn one_sided_bridges_run_under_the_samplers_of_diffusions() {
    let fields = in_plane(Interpolant::named("one-sided-vp", Gamma::Zero).unwrap());
    let denoiser = AsDiffusion::denoiser(&fields).unwrap();
    let exact = ExactMixture::new(fields.joint().ends().clone()).unwrap();
    let schedule = Schedule::vp_linear();
    let grid = Grid::uniform_lambda(&schedule, 20, 1.0, 1e-3).unwrap();
    let stream = Streams::new(2).stream("start");
    let start = grid.start(50, 2, Kernel::Gaussian, stream);
    for name in ["heun", "dpm++2m", "unipc-2-bh2", "sde-dpm"] {
        let sampler = sample::named(name, 20, &schedule).unwrap();
        let ours = sampler.run(&denoiser, start.clone(), &grid, stream).unwrap();
        let theirs = sampler.run(&exact, start.clone(), &grid, stream).unwrap();
        assert!((ours.y - theirs.y).iter().all(|v| v.abs() < 1e-8), "{name}");
    }
    assert_eq!(denoiser.dim(), 2);
    let two_sided = in_plane(linear());
    assert!(AsDiffusion::denoiser(&two_sided).is_err());
}

/// The distribution function of a mixture on the line.
fn cdf(mixture: &Mixture, x: f64) -> f64 {
    let erf = |x: f64| {
        // Abramowitz and Stegun 7.1.26: 1.5e-7 is beyond what samples show.
        let t = 1.0 / (1.0 + 0.327_591_1 * x.abs());
        let poly =
            t * (0.254_829_592 + t * (-0.284_496_736 + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))));
        (1.0 - poly * (-x * x).exp()) * x.signum()
    };
    let term = |k: usize| {
        let deviation = mixture.covariance(k)[[0, 0]].sqrt();
        mixture.weights()[k] * 0.5 * (1.0 + erf((x - mixture.means()[[k, 0]]) / (deviation * 2f64.sqrt())))
    };
    (0..mixture.weights().len()).map(term).sum()
}

#[test]
fn flow_and_diffusions_end_in_one_law() {
    let fields = on_line(linear());
    let streams = Streams::new(5);
    let (start, _) = ExactMixture::new(fields.joint().starts().clone()).unwrap().sample(2000, streams.stream("start"));
    let distance = |x: &Array2<f64>, law: &Mixture| kolmogorov_smirnov(&x.column(0).to_vec(), |x| cdf(law, x));
    for epsilon in [0.0, 0.5, 2.0] {
        for integrator in [Integrator::EulerMaruyama, Integrator::Heun] {
            let process = Diffusion { epsilon: Epsilon::Constant(epsilon), integrator, steps: 120, span: (0.0, 1.0) };
            let keep = Keep { points: 7, every: 20 };
            let run = |stream| process.run(&fields, start.clone(), keep, stream, &Progress::silent()).unwrap();
            let there = run(streams.stream("noise"));
            // 1.63/√2000: passed in 99 of 100 draws.
            assert!(distance(&there.x, fields.joint().ends()) < 0.037, "{epsilon} {integrator:?}");
            assert_eq!((there.paths.dim(), there.times.len()), ((7, 7, 1), 7));
            assert_eq!(there.paths.slice(s![.., 6, ..]), there.x.slice(s![..7, ..]));
            let back = Diffusion { span: (1.0, 0.0), ..process.clone() };
            let back = back.run(&fields, there.x, Keep::NOTHING, streams.stream("back"), &Progress::silent()).unwrap();
            assert!(distance(&back.x, fields.joint().starts()) < 0.042, "{epsilon} {integrator:?}");
        }
    }
}

#[test]
fn the_flow_is_the_monotone_map() {
    let fields = on_line(linear());
    let x = Array2::from_shape_fn(
        (40, 1),
        |(i, _)| if i < 20 { -3.6 + 0.06 * i as f64 } else { 2.4 + 0.06 * (i - 20) as f64 },
    );
    let moved = flow(&fields, x.clone(), (500, (0.0, 1.0)), Keep::NOTHING, &Progress::silent()).unwrap().x;
    for (x, y) in x.iter().zip(&moved) {
        let (from, to) = (cdf(fields.joint().starts(), *x), cdf(fields.joint().ends(), *y));
        assert!((from - to).abs() < 1e-6, "{x} {y}: {from} {to}");
    }
}

#[test]
fn densities_of_exact_fields_are_the_target() {
    let fields = in_plane(linear());
    let x = array![[0.3, -0.5], [2.0, 1.0], [-3.0, 0.2]];
    let start = |x: ArrayView2<'_, f64>| log_density(fields.joint().starts(), x);
    let expected = log_density(fields.joint().ends(), x.view()).unwrap();
    let tolerance = Tolerance { absolute: 1e-8, relative: 1e-8 };
    let how = (Divergence::Exact, tolerance);
    let (found, _) = log_density_of_flow(&fields, x.view(), (0.0, 1.0), start, how, &Progress::silent()).unwrap();
    assert!((found - &expected).iter().all(|v| v.abs() < 1e-5));
    for epsilon in [Epsilon::Constant(0.5), Epsilon::Bump(1.0)] {
        let stream = Streams::new(9).stream("paths");
        let found =
            log_density_of_diffusion(&fields, x.view(), &epsilon, (100, 2000), start, (stream, &Progress::silent()));
        let found = found.unwrap();
        for i in 0..3 {
            let apart = (found.log_density[i] - expected[i]).abs();
            assert!(
                apart < 4.0 * found.error[i] + 0.02 && found.error[i] < 0.2,
                "{epsilon:?}: {apart} {}",
                found.error[i]
            );
        }
    }
}

#[test]
fn two_ways_to_the_density_of_a_wrong_diffusion_agree() {
    // Paths backward in time, and the Fokker–Planck equation forward.
    let exact = on_line(linear());
    let wrong = Rippled::new(&exact, 0.5, 4.0).unwrap();
    let epsilon = 0.5;
    let line = Line::new(-11.0, 11.0, 551).unwrap();
    let column = |x: Vec<f64>| Array1::from(x).insert_axis(Axis(1));
    let start = log_density(exact.joint().starts(), column(line.centres()).view()).unwrap().mapv(f64::exp);
    let edges = column(line.edges());
    let end = line
        .evolve(
            start.as_slice().unwrap(),
            (0.0, 1.0, 200),
            |_| epsilon,
            |t| Ok(wrong.drift(edges.view(), t, epsilon)?.into_raw_vec_and_offset().0),
        )
        .unwrap();
    assert!((line.integral(end.iter().copied()) - 1.0).abs() < 1e-10);
    let centres = line.centres();
    let places: Vec<usize> = [-6.2, -0.3, 5.5].iter().map(|x| centres.partition_point(|c| c < x)).collect();
    let x = Array2::from_shape_fn((3, 1), |(i, _)| centres[places[i]]);
    let base = |x: ArrayView2<'_, f64>| log_density(exact.joint().starts(), x);
    let how = (Streams::new(4).stream("paths"), &Progress::silent());
    let paths =
        log_density_of_diffusion(&wrong, x.view(), &Epsilon::Constant(epsilon), (200, 2000), base, how).unwrap();
    for (i, place) in places.iter().enumerate() {
        let apart = (paths.log_density[i] - end[*place].ln()).abs();
        assert!(apart < 4.0 * paths.error[i] + 0.03, "{apart} {}", paths.error[i]);
    }
}

#[test]
fn errors_of_ripples_are_known() {
    let exact = in_plane(linear());
    let wrong = Rippled::new(&exact, 0.6, 8.0).unwrap();
    let points = |t: f64| {
        let at = exact.path().at(t)?;
        let stream = Streams::new(1).stream("points");
        let (x0, x1) = exact.joint().sample(4000, stream)?;
        Ok(x0 * at.a + x1 * at.b + offprint_generate::normals(4000, 2, Streams::new(2).stream("z"), 0) * at.gamma)
    };
    let errors = Errors::measure(&wrong, &exact, &[0.0, 0.5, 1.0], points).unwrap();
    // δ²/2 in each of two coordinates; the waves are short beside the law.
    assert!((errors.total_velocity() - 0.36).abs() < 0.02, "{}", errors.total_velocity());
    assert!(errors.total_score() == 0.0);
}

#[test]
fn the_entropic_coupling_makes_the_process_a_schroedinger_bridge() {
    // A diffusion has the pairs of its bridge only for the entropic plan: then it is the bridge's own process.
    let epsilon = 1.5;
    let start = Mixture::round(array![1.0], array![[0.0]], array![1.0].view()).unwrap();
    let end = Mixture::round(array![1.0], array![[2.0]], array![0.49].view()).unwrap();
    let path = Interpolant::named("linear", Gamma::Brownian { scale: epsilon }).unwrap();
    let correlation = |joint: Joint| {
        let fields = ExactFields::new(path.clone(), joint).unwrap();
        let (x0, _) = fields.joint().sample(20_000, Streams::new(1).stream("pairs")).unwrap();
        let process = Diffusion {
            epsilon: Epsilon::Constant(0.5 * epsilon),
            integrator: Integrator::EulerMaruyama,
            steps: 200,
            span: (0.0, 1.0),
        };
        let stream = Streams::new(2).stream("noise");
        let x1 = process.run(&fields, x0.clone(), Keep::NOTHING, stream, &Progress::silent()).unwrap().x;
        let cross = (&x0 * &(&x1 - 2.0)).mean().unwrap();
        (cross, fields.joint().pairs().covariance(0)[[0, 1]])
    };
    let (simulated, plan) = correlation(Joint::entropic(&start, &end, epsilon).unwrap());
    // Closed form on the line: (√(4 σ₀²σ₁² + ε²) − ε)/2.
    assert!((plan - 0.5 * ((4.0 * 0.49 + epsilon * epsilon).sqrt() - epsilon)).abs() < 1e-12);
    assert!((simulated - plan).abs() < 0.03, "{simulated} {plan}");
    let (simulated, none) = correlation(Joint::independent(&start, &end).unwrap());
    assert!(none == 0.0 && simulated > 0.1, "{simulated}");
}

#[test]
fn couplings_pair_as_they_say() {
    let streams = Streams::new(1);
    let x0 = offprint_generate::normals(300, 2, streams.stream("x0"), 0);
    let x1 = &x0 * 0.5 + 3.0;
    let cost = |coupling| {
        let pairs = Pairs::tables(x0.clone(), x1.clone(), coupling, &Progress::silent()).unwrap();
        let (a, b) = pairs.draw(256, streams.stream("draw")).unwrap();
        assert_eq!((a.dim(), b.dim()), ((256, 2), (256, 2)));
        ((&b - &a).mapv(|v| v * v).sum_axis(Axis(1)).mean().unwrap(), a, b)
    };
    let (paired, a, b) = cost(Coupling::Paired);
    assert!((&a * 0.5 + 3.0 - b).iter().all(|v| v.abs() < 1e-12));
    let (independent, ..) = cost(Coupling::Independent);
    let (transport, ..) = cost(Coupling::MinibatchTransport);
    let (sharp, ..) = cost(Coupling::Entropic { epsilon: 0.05 });
    let (blunt, ..) = cost(Coupling::Entropic { epsilon: 20.0 });
    assert!(
        transport < independent && sharp < independent && sharp < blunt,
        "{transport} {sharp} {blunt} {independent}"
    );
    assert!((sharp - paired).abs() < 1.0, "{sharp} {paired}");
    // A large ε forgets the cost.
    assert!((blunt - independent).abs() < 0.15 * independent, "{blunt} {independent}");
    let error = Pairs::tables(x0.clone(), x1.slice(s![..9, ..]).to_owned(), Coupling::Paired, &Progress::silent());
    assert!(error.err().unwrap().to_string().contains("9 rows"));
}

#[test]
fn bad_input_is_answered() {
    let (start, end) = line().unwrap();
    let message = |r: Result<Joint>| r.err().unwrap().to_string();
    let shapes = message(Joint::independent(&start, &standard_normal(2).unwrap()));
    assert!(shapes.contains("(2, 1)") && shapes.contains("(1, 2)"), "{shapes}");
    assert!(message(Joint::entropic(&start, &end, 1.0)).contains("single Gaussians"));
    assert!(message(Joint::new(standard_normal(3).unwrap())).contains("even"));
    let joint = Joint::independent(&start, &end).unwrap();
    let one_sided = Interpolant::one_sided(Interpolation::Linear).unwrap();
    assert!(ExactFields::new(one_sided, joint.clone()).err().unwrap().to_string().contains("standard normal"));
    let bare = Interpolant::named("encoding-decoding", Gamma::Zero).unwrap();
    let fields = ExactFields::new(bare, joint).unwrap();
    assert!(fields.velocity(array![[0.0]].view(), 0.5).unwrap_err().to_string().contains("spread"));
    assert!(fields.velocity(array![[0.0, 1.0]].view(), 0.2).unwrap_err().to_string().contains("[1, 2]"));
    assert!(fields.velocity(array![[0.0]].view(), 1.2).unwrap_err().to_string().contains("from 0 to 1"));
    let process = |epsilon: Epsilon, steps, start: Array2<f64>| {
        let process = Diffusion { epsilon, integrator: Integrator::Heun, steps, span: (0.0, 0.4) };
        let stream = Streams::new(0).stream("noise");
        process.run(&fields, start, Keep::NOTHING, stream, &Progress::silent()).err().unwrap().to_string()
    };
    assert!(process(Epsilon::Constant(-1.0), 10, array![[0.0]]).starts_with("epsilon"));
    assert!(process(Epsilon::Table(vec![1.0]), 10, array![[0.0]]).contains("at least 2"));
    assert!(process(Epsilon::Constant(1.0), 0, array![[0.0]]).starts_with("steps"));
    assert!(process(Epsilon::Constant(1.0), 10, array![[0.0], [f64::NAN]]).contains("row 1"));
    let data = |rows: Array2<f64>| Pairs::from_noise(rows).err().unwrap().to_string();
    assert!(data(array![[1.0, f64::INFINITY], [0.0, 0.0]]).contains("row 0"));
    assert!(data(array![[1.0, 2.0]]).contains("at least 2 rows"));
}

#[test]
fn answers_do_not_depend_on_threads() {
    let fields = on_line(linear());
    let answer = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let (start, _) = fields.joint().sample(5000, Streams::new(1).stream("pairs")).unwrap();
            let process =
                Diffusion { epsilon: Epsilon::Constant(1.0), integrator: Integrator::Heun, steps: 5, span: (0.0, 1.0) };
            process.run(&fields, start, Keep::NOTHING, Streams::new(1).stream("noise"), &Progress::silent()).unwrap().x
        })
    };
    assert_eq!(answer(1), answer(2));
}

#[test]
fn checkerboards_are_far_from_noise() {
    let board = checkerboard(1000, Streams::new(1).stream("board"));
    let again = checkerboard(1000, Streams::new(2).stream("board"));
    let noise = offprint_generate::normals(1000, 2, Streams::new(1).stream("noise"), 0);
    let near = energy_distance(board.view(), again.view()).unwrap();
    assert!(near.abs() < 0.02 && energy_distance(board.view(), noise.view()).unwrap() > 0.2);
    assert!(stats::mean(&board.column(0).to_vec()).abs() < 0.2);
    assert!(standard(noise.view()).unwrap().iter().all(|v| v.is_finite()));
}
