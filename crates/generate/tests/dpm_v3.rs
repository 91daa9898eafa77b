//! DPM-Solver-v3: what it reduces to, its orders of convergence, exact statistics of Gaussians, bad input.

use ndarray::{Array2, array};
use offprint_core::random::{Stream, Streams};
use offprint_core::{Progress, Result};
use offprint_generate::exact::{Covariances, ExactMixture, Mixture};
use offprint_generate::sample::{
    Correction, Ddim, Derivatives, DpmPlusPlus2M, DpmV3, Multistep, Output, Solver, Statistics, UniPc, UnlearnedDpmV3,
    Weights, named,
};
use offprint_generate::{Counted, Grid, Kernel, Node, Sampler, Schedule};
use offprint_math::quadrature::gauss_legendre;
use offprint_math::stats::log_log_slope;
use std::sync::Arc;

fn stream() -> Stream {
    Streams::new(3).stream("sampler")
}

fn mixture() -> ExactMixture {
    let means = array![[1.0, -1.0, 0.5], [-1.5, 0.3, 1.0], [0.0, 1.5, -1.0]];
    let variances = array![[0.4, 0.5, 0.6], [0.6, 0.4, 0.5], [0.5, 0.6, 0.4]];
    ExactMixture::new(Mixture::new(array![0.2, 0.5, 0.3], means, Covariances::Diagonal(variances)).unwrap()).unwrap()
}

fn grid(steps: usize) -> Grid {
    Grid::uniform_lambda(&Schedule::vp_linear(), steps, 0.9, 0.05).unwrap()
}

fn rms(a: &Array2<f64>, b: &Array2<f64>) -> f64 {
    ((a - b).mapv(|v| v * v).sum() / a.len() as f64).sqrt()
}

/// Statistics over the range of [`grid`] by functions of coordinate and λ.
fn given(intervals: usize, of: impl Fn(usize, f64) -> [f64; 3]) -> Arc<Statistics> {
    let (first, last) = (grid(1).first().lambda(), grid(1).last().lambda());
    let table = |which: usize| {
        Array2::from_shape_fn((intervals + 1, 3), |(n, j)| {
            of(j, first + (last - first) * n as f64 / intervals as f64)[which]
        })
    };
    Arc::new(Statistics::new((first, last), table(0), table(1), table(2)).unwrap())
}

fn run(sampler: &dyn Sampler, steps: usize) -> Array2<f64> {
    let start = grid(1).start(16, 3, Kernel::Gaussian, stream());
    sampler.run(&mixture(), start, &grid(steps), stream()).unwrap().y
}

/// Exponential integration of the clean data through Lagrange's polynomial in λ: the integrals by quadrature.
struct ExponentialAdams(usize);

impl Solver for ExponentialAdams {
    fn name(&self) -> String {
        "exponential adams".into()
    }

    fn order(&self) -> usize {
        self.0
    }

    fn output(&self) -> Output {
        Output::Data
    }

    fn predictor(&self, places: &[Node], to: Node, order: usize) -> Result<Weights> {
        let known: Vec<f64> = places[..order].iter().map(Node::lambda).collect();
        let (from, h) = (known[0], to.lambda() - known[0]);
        let (points, weights) = gauss_legendre(20);
        let mut outputs = vec![0.0; order];
        for (point, weight) in points.iter().zip(weights) {
            let at = from + 0.5 * h * (1.0 + point);
            for (j, output) in outputs.iter_mut().enumerate() {
                let others = known.iter().enumerate().filter(|&(k, _)| k != j);
                let basis: f64 = others.map(|(_, other)| (at - other) / (known[j] - other)).product();
                *output += 0.5 * h * weight * (at - to.lambda()).exp() * basis;
            }
        }
        Ok(Weights { state: (-h).exp(), outputs })
    }
}

#[test]
fn constant_statistics_give_the_known_exponential_integrators() {
    let data = given(300, |_, _| [1.0, 0.0, 0.0]);
    let noise = given(300, |_, _| [0.0, -1.0, 0.0]);
    let of = |order, statistics: &Arc<Statistics>| run(&DpmV3::new(order, Arc::clone(statistics)).unwrap(), 12);
    let ddim = run(&Multistep::new(Ddim), 12);
    assert!(rms(&of(1, &data), &ddim) < 1e-9);
    assert!(rms(&of(1, &noise), &ddim) < 1e-9);
    for order in 1..=3 {
        let independent = run(&Multistep::new(ExponentialAdams(order)), 12);
        assert!(rms(&of(order, &data), &independent) < 1e-8, "{order}");
    }
    assert!(rms(&of(2, &data), &of(2, &noise)) > 1e-4);
}

#[test]
fn orders_are_reached_with_any_smooth_statistics() {
    // At the noisy end those of the clean data, which hardly changes there: first steps of order 1 cost nothing.
    let (first, last) = (grid(1).first().lambda(), grid(1).last().lambda());
    let smooth = given(2500, |j, lambda| {
        let ramp = ((lambda - first) / (last - first)).powi(3);
        let phase = lambda + j as f64;
        [1.0 - ramp * (0.4 + 0.2 * phase.sin()), 0.3 * ramp * phase.cos(), 0.1 * ramp * (0.5 * phase).sin()]
    });
    let every = Correction { last: true, ..Correction::default() };
    let fine =
        Multistep { correction: every, ..Multistep::new(UniPc::new(3, offprint_generate::sample::Bh::Two).unwrap()) };
    let reference = run(&fine, 2500);
    let steps = [20, 40, 80, 160];
    for order in 1..=3 {
        for corrects in [false, true] {
            let method = DpmV3 { corrects, ..DpmV3::new(order, Arc::clone(&smooth)).unwrap() };
            let errors = steps.map(|n| rms(&run(&method, n), &reference));
            let observed = -log_log_slope(&steps.map(|n| n as f64), &errors);
            println!("order {order}, corrector {corrects}: {observed:.2}, {errors:?}");
            // The corrector's error falls faster as long as that of its own start is seen.
            let expected = order as f64 - 0.35..order as f64 + if corrects { 1.0 } else { 0.35 };
            assert!(expected.contains(&observed), "order {order}, corrector {corrects}: {observed:.2}");
        }
    }
}

#[test]
fn statistics_of_a_gaussian_are_its_closed_form_and_few_steps_follow_its_flow() {
    let (means, variances) = (array![[1.0, -2.0, 0.5]], array![[0.5, 0.1, 2.0]]);
    let law = Mixture::new(array![1.0], means.clone(), Covariances::Diagonal(variances.clone())).unwrap();
    let model = Counted::new(ExactMixture::new(law).unwrap());
    let (coarse, intervals) = (grid(3), 80);
    let start = coarse.start(40, 3, Kernel::Gaussian, stream());
    let statistics =
        Statistics::estimate(&model, start.clone(), &coarse, intervals, stream(), &Progress::silent()).unwrap();
    assert_eq!(model.calls(), statistics.evaluations());
    assert_eq!(statistics.evaluations(), 3 * 81);
    for n in [0, 17, 40, 80] {
        let squared = (-2.0 * statistics.lambda(n)).exp();
        for j in 0..3 {
            // D = m + v/(v + τ²) (y − m), so that f = −τ²/(v + τ²) m has no spread.
            let share = squared / (variances[[0, j]] + squared);
            assert!((statistics.l()[[n, j]] - share).abs() < 1e-6, "l, {n}, {j}");
            let rate = 2.0 * share * (1.0 - share) * means[[0, j]];
            let f = -share * means[[0, j]];
            let regression = statistics.s()[[n, j]] * f + statistics.b()[[n, j]];
            assert!((regression - rate).abs() < 0.02, "df/dλ, {n}, {j}: {regression} {rate}");
        }
    }
    // The flow keeps (y − m)/√(v + τ²).
    let scale = |tau: f64| (&variances + tau * tau).mapv(f64::sqrt);
    let exact = (&start - &means) / scale(coarse.first().tau) * scale(coarse.last().tau) + &means;
    let fitted = DpmV3::new(1, Arc::new(statistics)).unwrap();
    let error = |sampler: &dyn Sampler| rms(&sampler.run(&model, start.clone(), &coarse, stream()).unwrap().y, &exact);
    let (fitted, ddim) = (error(&fitted), error(&Multistep::new(Ddim)));
    assert!(fitted < 0.02 * ddim, "{fitted} {ddim}");
}

#[test]
fn fitted_to_a_mixture_few_steps_err_less() {
    let coarse = grid(8);
    let learned = named("dpm-v3-3", 8, &Schedule::vp_linear())
        .unwrap()
        .learn(&mixture(), 500, &coarse, Streams::new(5).stream("statistics"), &Progress::silent())
        .unwrap()
        .unwrap();
    assert_eq!(learned.evaluations, 3 * 61);
    let reference = run(&Multistep::new(UniPc::new(3, offprint_generate::sample::Bh::Two).unwrap()), 1000);
    let fitted = rms(&run(&*learned.sampler, 8), &reference);
    let plain = rms(&run(&Multistep::new(DpmPlusPlus2M), 8), &reference);
    println!("{fitted:.2e} {plain:.2e}");
    assert!(fitted < plain, "{fitted} {plain}");
}

#[test]
fn published_settings_depend_on_the_number_of_steps() {
    let method = DpmV3::new(3, given(10, |_, _| [1.0, 0.0, 0.0])).unwrap();
    let of = |steps| {
        let method = method.clone().as_published(steps);
        (method.derivatives, method.corrects)
    };
    assert_eq!(
        [of(5), of(6), of(7)],
        [(Derivatives::Pseudo, true), (Derivatives::Full, true), (Derivatives::Full, false)]
    );
}

#[test]
fn bad_input_is_refused_in_words() {
    let table = |rows, columns| Array2::<f64>::ones((rows, columns));
    let new = |range, l, s| Statistics::new(range, l, s, table(4, 2)).unwrap_err().to_string();
    assert!(new((0.0, 1.0), table(4, 2), table(3, 2)).contains("[3, 2]"));
    assert!(new((1.0, 1.0), table(4, 2), table(4, 2)).contains("rising"));
    assert!(new((0.0, 1.0), table(4, 2) * f64::NAN, table(4, 2)).contains("row 0"));
    let statistics = given(10, |_, _| [1.0, 0.0, 0.0]);
    assert!(DpmV3::new(4, Arc::clone(&statistics)).unwrap_err().to_string().contains("from 1 to 3"));
    assert!(UnlearnedDpmV3::new(0).is_err());
    let method = DpmV3::new(2, statistics).unwrap();
    let refused = |grid: &Grid| {
        let start = grid.start(4, 3, Kernel::Gaussian, stream());
        method.run(&mixture(), start, grid, stream()).unwrap_err().to_string()
    };
    assert!(refused(&Grid::edm(6).unwrap()).contains("reach from"));
    assert!(refused(&grid(1)).contains("at least the order 2"));
    let silent = Progress::silent();
    let estimate = |points, intervals| {
        let start = grid(2).start(points, 3, Kernel::Gaussian, stream());
        Statistics::estimate(&mixture(), start, &grid(2), intervals, stream(), &silent).unwrap_err().to_string()
    };
    assert!(estimate(1, 10).contains("at least 2") && estimate(10, 1).contains("intervals"));
}
