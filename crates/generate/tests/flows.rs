//! Flows and likelihoods against closed forms.

use ndarray::{Array1, Array2, ArrayView2, array};
use offprint_core::random::Streams;
use offprint_core::{Progress, Result};
use offprint_generate::exact::{Covariances, ExactEmpirical, ExactMixture, Mixture};
use offprint_generate::likelihood::{Divergence, log_density, log_density_along};
use offprint_generate::ode::{Field, LevelFlow, PathFlow, Rule, Tolerance, integrate, solve, solve_fixed};
use offprint_generate::{Denoiser, Kernel, Path, Schedule, normals};
use offprint_math::stats::log_log_slope;
use std::f64::consts::PI;

/// x' = A x with a rotation: circles.
struct Rotation;

impl Field for Rotation {
    fn dim(&self) -> usize {
        2
    }

    fn velocity(&self, x: ArrayView2<'_, f64>, _: f64) -> Result<Array2<f64>> {
        Ok(x.dot(&array![[0.0, 1.0], [-1.0, 0.0]]))
    }
}

/// A denoiser without its closed forms.
struct Plain<'a>(&'a ExactMixture);

impl Denoiser for Plain<'_> {
    fn dim(&self) -> usize {
        self.0.dim()
    }

    fn denoise(&self, y: ArrayView2<'_, f64>, tau: f64) -> Result<Array2<f64>> {
        self.0.denoise(y, tau)
    }
}

fn mixture() -> ExactMixture {
    let covariances = array![[[0.5, 0.2], [0.2, 0.4]], [[0.3, 0.0], [0.0, 0.7]]];
    let means = array![[1.0, -1.0], [-2.0, 0.3]];
    ExactMixture::new(Mixture::new(array![0.3, 0.7], means, Covariances::Full(covariances)).unwrap()).unwrap()
}

#[test]
fn fixed_rules_have_their_orders_in_both_directions() {
    let start = array![[1.0, 0.0], [0.0, 2.0]];
    for (rule, order) in [(Rule::Euler, 1.0), (Rule::Heun, 2.0), (Rule::RungeKutta4, 4.0)] {
        for direction in [1.0, -1.0] {
            let steps = [20, 40, 80, 160];
            let error = |n: usize| {
                let times: Vec<f64> = (0..=n).map(|i| direction * i as f64 / n as f64).collect();
                let end = solve_fixed(&Rotation, start.clone(), &times, rule).unwrap();
                let angle: f64 = direction;
                (end[[0, 0]] - angle.cos()).hypot(end[[0, 1]] - angle.sin())
            };
            let slope = -log_log_slope(&steps.map(|n| n as f64), &steps.map(error));
            assert!((slope - order).abs() < 0.1, "{rule:?}: {slope}");
        }
    }
    assert!(solve_fixed(&Rotation, start.clone(), &[0.0], Rule::Euler).is_err());
    assert!(solve_fixed(&Rotation, Array2::zeros((1, 3)), &[0.0, 1.0], Rule::Euler).is_err());
}

#[test]
fn adaptive_steps_keep_the_tolerance_and_end_exactly() {
    let start = array![[1.0, 0.0]];
    for (relative, allowed) in [(1e-4, 2e-3), (1e-7, 2e-6), (1e-10, 2e-9)] {
        let tolerance = Tolerance { absolute: relative, relative };
        for end in [2.0 * PI, -PI] {
            let (x, calls) = solve(&Rotation, start.clone(), (0.0, end), tolerance, &Progress::silent()).unwrap();
            let error = (x[[0, 0]] - end.cos()).hypot(x[[0, 1]] - end.sin());
            assert!(error < allowed, "{relative}: {error} after {calls} calls");
        }
    }
    let tolerance = Tolerance::default();
    let (same, calls) = solve(&Rotation, start.clone(), (1.0, 1.0), tolerance, &Progress::silent()).unwrap();
    assert!(same == start && calls == 0);
    // x' = x² from 1 leaves every bound at t = 1.
    let burst = integrate(|x, _| Ok(x.mapv(|v| v * v)), array![[1.0]], (0.0, 2.0), tolerance, &Progress::silent());
    assert!(burst.unwrap_err().to_string().contains("smaller steps"));
    let bad = Tolerance { absolute: 0.0, relative: 1e-5 };
    assert!(solve(&Rotation, start, (0.0, 1.0), bad, &Progress::silent()).is_err());
}

#[test]
fn both_coordinates_carry_a_gaussian_as_its_closed_form_does() {
    // N(m, s²) at level τ is N(m, s² + τ²): the flow keeps (y − m)/√(s² + τ²).
    let (mean, variance) = (array![[0.7, -0.4]], 0.3);
    let law = Mixture::round(array![1.0], mean.clone(), array![variance].view()).unwrap();
    let model = ExactMixture::new(law).unwrap();
    let tolerance = Tolerance { absolute: 1e-9, relative: 1e-9 };
    let schedule = Schedule::vp_linear();
    let (from, to) = (schedule.at(1.0).unwrap(), schedule.at(0.01).unwrap());
    let (high, low) = (schedule.tau(1.0).unwrap(), schedule.tau(0.01).unwrap());
    let y = array![[30.0, -100.0], [5.0, 80.0]];
    let exact = (&y - &mean) * ((variance + low * low) / (variance + high * high)).sqrt() + &mean;
    let (end, _) = solve(&LevelFlow(&model), y.clone(), (high.ln(), low.ln()), tolerance, &Progress::silent()).unwrap();
    assert!((&end - &exact).iter().all(|v| v.abs() < 1e-6));
    let flow = PathFlow::new(&model, Path::Gaussian(schedule)).unwrap();
    let (x, _) = solve(&flow, &y * from.alpha, (1.0, 0.01), tolerance, &Progress::silent()).unwrap();
    assert!((x / to.alpha - &exact).iter().all(|v| v.abs() < 1e-6));
}

#[test]
fn likelihoods_are_those_of_the_mixture() {
    let model = mixture();
    let (y, _) = model.sample(12, Streams::new(5).stream("points"));
    let exact = model.log_density(y.view(), 1e-3).unwrap();
    let how = |divergence| (divergence, Tolerance::default());
    let worst = |model: &dyn Denoiser, divergence| {
        let log = log_density(model, y.view(), (1e-3, 2e4), how(divergence), &Progress::silent()).unwrap();
        (log - &exact).iter().fold(0.0f64, |m, v| m.max(v.abs()))
    };
    assert!(worst(&model, Divergence::Exact) < 1e-3);
    // By products with the Jacobian.
    assert!(worst(&Plain(&model), Divergence::Exact) < 1e-3);
    // Hutchinson's estimate: within errors of 64 probes.
    let probes = Divergence::Hutchinson { probes: 64, stream: Streams::new(6).stream("probes") };
    assert!(worst(&Plain(&model), probes) < 0.3);
}

#[test]
fn one_probe_is_exact_for_a_round_gaussian() {
    let law = Mixture::round(array![1.0], array![[0.2, -0.1, 0.4]], array![0.25].view()).unwrap();
    let model = ExactMixture::new(law).unwrap();
    let y = normals(6, 3, Streams::new(7).stream("points"), 0);
    let exact = model.log_density(y.view(), 2e-3).unwrap();
    let one = Divergence::Hutchinson { probes: 1, stream: Streams::new(8).stream("probes") };
    let how = (one, Tolerance::default());
    let log = log_density(&Plain(&model), y.view(), (2e-3, 2e4), how, &Progress::silent()).unwrap();
    assert!((log - exact).iter().all(|v| v.abs() < 1e-3));
}

#[test]
fn densities_along_any_field_follow_its_volume() {
    /// x' = −x: volumes shrink by e^−2 in a unit of time.
    struct Shrinking;
    impl Field for Shrinking {
        fn dim(&self) -> usize {
            2
        }
        fn velocity(&self, x: ArrayView2<'_, f64>, _: f64) -> Result<Array2<f64>> {
            Ok(-&x)
        }
    }
    let x = array![[0.3, 0.5], [0.0, -1.0]];
    let normal = |x: ArrayView2<'_, f64>| -> Result<Array1<f64>> {
        Ok(x.outer_iter().map(|x| -0.5 * x.dot(&x) - (2.0 * PI).ln()).collect())
    };
    // Standard normal at t = 0, so N(0, e^−2) at t = 1.
    let how = (Divergence::Exact, Tolerance { absolute: 1e-9, relative: 1e-9 });
    let (log, _) = log_density_along(&Shrinking, x.view(), (1.0, 0.0), normal, how, &Progress::silent()).unwrap();
    for (log, x) in log.iter().zip(x.outer_iter()) {
        let exact = -0.5 * x.dot(&x) * 2f64.exp() - (2.0 * PI).ln() + 2.0;
        assert!((log - exact).abs() < 1e-6);
    }
}

#[test]
fn bad_input_is_refused() {
    let model = mixture();
    let y = array![[0.0, 0.0]];
    let call = |levels, divergence| {
        log_density(&model, y.view(), levels, (divergence, Tolerance::default()), &Progress::silent())
    };
    assert!(call((1.0, 0.5), Divergence::Exact).unwrap_err().to_string().contains("above the lowest"));
    let none = Divergence::Hutchinson { probes: 0, stream: Streams::new(0).stream("p") };
    assert!(call((0.1, 5.0), none).unwrap_err().to_string().starts_with("probes"));
    let table = ExactEmpirical::new(y.clone(), Kernel::StudentT { freedom: 8.0 }).unwrap();
    let how = (Divergence::Exact, Tolerance::default());
    let error = log_density(&table, y.view(), (0.1, 5.0), how, &Progress::silent()).unwrap_err().to_string();
    assert!(error.contains("Gaussian"), "{error}");
}
