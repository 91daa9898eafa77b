//! Exact denoisers against their definitions, wrappers and path changes against each other.

use ndarray::{Array1, Array2, Array3, array, s};
use offprint_core::random::Streams;
use offprint_generate::exact::{Covariances, ExactEmpirical, ExactMixture, Mixture};
use offprint_generate::{
    Counted, Denoiser, Denoising, Guidance, Kernel, Model, Path, Predicting, Prediction, Schedule, ScoreSum,
    Thresholded, normals,
};
use offprint_math::linalg;
use proptest::prelude::*;

fn full() -> ExactMixture {
    let covariances = array![
        [[0.5, 0.2, 0.0], [0.2, 0.4, -0.1], [0.0, -0.1, 0.6]],
        [[0.3, 0.0, 0.1], [0.0, 0.7, 0.0], [0.1, 0.0, 0.2]],
    ];
    let means = array![[1.0, -1.0, 0.5], [-2.0, 0.3, 1.0]];
    ExactMixture::new(Mixture::new(array![0.3, 0.7], means, Covariances::Full(covariances)).unwrap()).unwrap()
}

fn diagonal() -> ExactMixture {
    let means = array![[1.0, -1.0, 0.5], [-2.0, 0.3, 1.0], [0.0, 2.0, -1.0]];
    let variances = array![[0.4, 0.5, 0.6], [0.6, 0.4, 0.5], [0.5, 0.6, 0.4]];
    ExactMixture::new(Mixture::new(array![0.2, 0.5, 0.3], means, Covariances::Diagonal(variances)).unwrap()).unwrap()
}

/// log q_τ by Cholesky, component by component: no eigenvectors, no shared code.
fn log_density(mixture: &Mixture, y: &Array1<f64>, tau: f64) -> f64 {
    let d = y.len();
    let term = |k: usize| {
        let covariance = mixture.covariance(k) + Array2::<f64>::eye(d) * tau * tau;
        let apart = (y - &mixture.means().row(k)).insert_axis(ndarray::Axis(1));
        let solved = linalg::solve(covariance.view(), apart.view()).unwrap();
        let log_det: f64 = 2.0 * linalg::cholesky(covariance.view()).unwrap().diag().mapv(f64::ln).sum();
        let square = (&apart * &solved).sum();
        mixture.weights()[k] * (-0.5 * (square + log_det + d as f64 * (2.0 * std::f64::consts::PI).ln())).exp()
    };
    (0..mixture.weights().len()).map(term).sum::<f64>().ln()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn mixtures_agree_with_cholesky_and_tweedie(point in prop::array::uniform3(-4.0..4.0f64), tau in 0.05..8.0f64) {
        for model in [full(), diagonal()] {
            let y = Array1::from(point.to_vec());
            let rows = y.clone().insert_axis(ndarray::Axis(0));
            let exact = log_density(model.mixture(), &y, tau);
            prop_assert!((model.log_density(rows.view(), tau).unwrap()[0] - exact).abs() < 1e-9 * (1.0 + exact.abs()));
            // Tweedie: D = y + τ² ∇ log q, here by differences of the independent density.
            let denoised = model.denoise(rows.view(), tau).unwrap();
            for j in 0..3 {
                let h = 1e-5 * tau.min(1.0);
                let (mut low, mut high) = (y.clone(), y.clone());
                low[j] -= h;
                high[j] += h;
                let mixture = model.mixture();
                let slope = (log_density(mixture, &high, tau) - log_density(mixture, &low, tau)) / (2.0 * h);
                prop_assert!((denoised[[0, j]] - y[j] - tau * tau * slope).abs() < 1e-4, "{tau}");
            }
            let weights = model.responsibilities(rows.view(), tau).unwrap();
            prop_assert!((weights.sum() - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn divergences_are_traces_of_jacobians(point in prop::array::uniform3(-3.0..3.0f64), tau in 0.2..4.0f64) {
        for model in [full(), diagonal()] {
            let y = Array2::from_shape_vec((1, 3), point.to_vec()).unwrap();
            let exact = model.divergence(y.view(), tau).unwrap().unwrap()[0];
            let by_differences: f64 = (0..3)
                .map(|j| {
                    let mut v = Array2::zeros((1, 3));
                    v[[0, j]] = 1.0;
                    model.jacobian_product(y.view(), tau, v.view()).unwrap()[[0, j]]
                })
                .sum();
            prop_assert!((exact - by_differences).abs() < 1e-6 * (1.0 + exact.abs()), "{exact} {by_differences}");
        }
    }

    #[test]
    fn table_posteriors_are_kernel_weights(seed in 0u64..50, tau in 0.05..5.0f64, freedom in 1.0..200.0f64) {
        let streams = Streams::new(seed);
        // More rows than a tile holds.
        let data = normals(700, 3, streams.stream("data"), 0);
        let y = normals(5, 3, streams.stream("points"), 0) * 2.0;
        for kernel in [Kernel::Gaussian, Kernel::StudentT { freedom }] {
            let model = ExactEmpirical::new(data.clone(), kernel).unwrap();
            let denoised = model.denoise(y.view(), tau).unwrap();
            let weights = model.posterior(y.view(), tau).unwrap();
            for (i, point) in y.outer_iter().enumerate() {
                let log = |x: ndarray::ArrayView1<f64>| {
                    let square = (&point - &x).mapv(|v| v * v).sum();
                    match kernel {
                        Kernel::Gaussian => -square / (2.0 * tau * tau),
                        Kernel::StudentT { freedom } => {
                            -0.5 * (3.0 + freedom) * (square / (tau * tau * freedom)).ln_1p()
                        }
                    }
                };
                let logs: Vec<f64> = data.outer_iter().map(log).collect();
                let top = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = logs.iter().map(|l| (l - top).exp()).sum();
                for j in 0..3 {
                    let mean: f64 = logs.iter().zip(data.column(j)).map(|(l, x)| (l - top).exp() / total * x).sum();
                    prop_assert!((denoised[[i, j]] - mean).abs() < 1e-9);
                }
                prop_assert!((weights[[i, 17]] - (logs[17] - top).exp() / total).abs() < 1e-9);
            }
        }
    }
}

#[test]
fn denoised_data_end_where_noise_begins_and_ends() {
    let model = full();
    let y = array![[0.2, -0.4, 0.9]];
    let clean = model.denoise(y.view(), 1e-6).unwrap();
    assert!((&clean - &y).iter().all(|v| v.abs() < 1e-9));
    let (mean, covariance) = model.mixture().moments();
    let blind = model.denoise(y.view(), 1e6).unwrap();
    assert!((&blind.row(0) - &mean).iter().all(|v| v.abs() < 1e-6));
    // Samples have those moments; errors of 20 000 draws.
    let (points, components) = model.sample(20_000, Streams::new(4).stream("draws"));
    assert!((points.mean_axis(ndarray::Axis(0)).unwrap() - &mean).iter().all(|v| v.abs() < 0.05));
    let spread = (&points - &mean).t().dot(&(&points - &mean)) / 20_000.0;
    assert!((spread - &covariance).iter().all(|v| v.abs() < 0.08));
    let second = components.iter().filter(|&&c| c == 1).count() as f64 / 20_000.0;
    assert!((second - 0.7).abs() < 0.015);
}

#[test]
fn every_path_and_prediction_wraps_the_same_denoiser() {
    let model = diagonal();
    let y = array![[0.2, -0.4, 0.9], [3.0, 1.0, -2.0]];
    let schedules = [
        Schedule::vp_linear(),
        Schedule::scaled_linear(),
        Schedule::cosine(1000, 0.999).unwrap(),
        Schedule::Edm,
        Schedule::Rectified,
        Schedule::Trigonometric,
    ];
    let kinds = [Prediction::Eps, Prediction::X0, Prediction::V, Prediction::Score, Prediction::Velocity];
    for schedule in schedules {
        for kind in kinds {
            let path = Path::Gaussian(schedule.clone());
            let there = Predicting::new(&model, path, kind).unwrap();
            let back = Denoising::new(there).unwrap();
            for tau in [0.05, 0.7, 6.0] {
                let (direct, around) = (model.denoise(y.view(), tau).unwrap(), back.denoise(y.view(), tau).unwrap());
                let apart = (&direct - &around).iter().fold(0.0f64, |m, v| m.max(v.abs()));
                assert!(apart < 1e-10, "{} {kind} {tau}: {apart}", schedule.name());
            }
        }
    }
}

#[test]
fn guidance_and_sums_are_linear_in_the_score() {
    let (u, c) = (diagonal(), ExactMixture::new(diagonal().mixture().select(&[1]).unwrap()).unwrap());
    let y = array![[0.2, -0.4, 0.9]];
    let tau = 0.8;
    let guided = Guidance::new(&u, &c, 3.0).unwrap();
    let sum = ScoreSum::new(vec![(-2.0, &u), (3.0, &c)]).unwrap();
    let by_hand = u.score(y.view(), tau).unwrap() * -2.0 + c.score(y.view(), tau).unwrap() * 3.0;
    for model in [&guided as &dyn Denoiser, &sum] {
        assert!((model.score(y.view(), tau).unwrap() - &by_hand).iter().all(|v| v.abs() < 1e-12));
        let divergence = model.divergence(y.view(), tau).unwrap().unwrap()[0];
        let by_differences: f64 = (0..3)
            .map(|j| {
                let v = Array2::from_shape_fn((1, 3), |(_, i)| f64::from(u8::from(i == j)));
                model.jacobian_product(y.view(), tau, v.view()).unwrap()[[0, j]]
            })
            .sum();
        assert!((divergence - by_differences).abs() < 1e-6);
    }
    let counted = Counted::new(&guided);
    counted.denoise(y.view(), tau).unwrap();
    counted.denoise(y.view(), tau).unwrap();
    assert_eq!(counted.calls(), 2);
    let cut = Thresholded::new(&guided, 0.5, 0.1).unwrap();
    assert!(cut.denoise(y.view(), tau).unwrap().iter().all(|v| v.abs() <= 0.1 + 1e-15));
}

#[test]
fn the_gaussian_law_is_the_limit_of_students() {
    let data = normals(300, 2, Streams::new(5).stream("data"), 0);
    let y = normals(20, 2, Streams::new(5).stream("points"), 0);
    let gaussian = ExactEmpirical::new(data.clone(), Kernel::Gaussian).unwrap().denoise(y.view(), 0.5).unwrap();
    let gap = |freedom: f64| {
        let student = ExactEmpirical::new(data.clone(), Kernel::StudentT { freedom }).unwrap();
        let apart = student.denoise(y.view(), 0.5).unwrap() - &gaussian;
        apart.iter().map(|v| v * v).sum::<f64>().sqrt()
    };
    let slope = (gap(1e6) / gap(1e3)).log10() / 3.0;
    assert!((slope + 1.0).abs() < 0.05, "{slope}");
}

#[test]
fn bad_input_is_answered_with_its_place() {
    let means = array![[0.0, 0.0], [1.0, 1.0]];
    let variances = || Covariances::Diagonal(Array2::ones((2, 2)));
    let message = |r: offprint_core::Result<Mixture>| r.unwrap_err().to_string();
    assert!(message(Mixture::new(array![0.5, 0.6], means.clone(), variances())).contains("sum to 1.1"));
    assert!(message(Mixture::new(array![1.5, -0.5], means.clone(), variances())).contains("entry 1 is -0.5"));
    assert!(message(Mixture::new(array![1.0], means.clone(), variances())).contains("2 means"));
    let mut bad = Array2::ones((2, 2));
    bad[[1, 0]] = 0.0;
    assert!(message(Mixture::new(array![0.5, 0.5], means.clone(), Covariances::Diagonal(bad))).contains("component 1"));
    let mut full = Array3::zeros((2, 2, 2));
    full.slice_mut(s![0, .., ..]).assign(&Array2::eye(2));
    full.slice_mut(s![1, .., ..]).assign(&array![[1.0, 2.0], [2.0, 1.0]]);
    assert!(message(Mixture::new(array![0.5, 0.5], means.clone(), Covariances::Full(full))).contains("matrix 1"));
    let nan = array![[0.0, 0.0], [f64::NAN, 1.0]];
    assert!(message(Mixture::new(array![0.5, 0.5], nan.clone(), variances())).contains("row 1"));
    assert!(ExactEmpirical::new(nan, Kernel::Gaussian).unwrap_err().to_string().contains("row 1"));
    let model = diagonal();
    let error = model.denoise(array![[0.0, 0.0]].view(), 1.0).unwrap_err().to_string();
    assert!(error.contains("[1, 2]") && error.contains("dimension 3"), "{error}");
    let table = ExactEmpirical::new(means, Kernel::StudentT { freedom: 128.0 }).unwrap();
    let error = table.score(array![[0.0, 0.0]].view(), 1.0).unwrap_err().to_string();
    assert!(error.contains("student-t D=128"), "{error}");
    let error = Guidance::new(&table, &model, 2.0).unwrap_err().to_string();
    assert!(error.contains("dimensions"), "{error}");
    let student = Path::student_t(8.0).unwrap();
    let eps = Predicting::new(&table, Path::student_t(128.0).unwrap(), Prediction::Eps).unwrap();
    assert!(Denoising::new(eps).unwrap_err().to_string().contains("x0 or velocity"));
    assert!(Predicting::new(&table, student, Prediction::X0).unwrap_err().to_string().contains("D=128"));
    let model = Predicting::new(&table, Path::student_t(128.0).unwrap(), Prediction::X0).unwrap();
    assert_eq!(model.kind(), Prediction::X0);
}

#[test]
fn independent_coordinates_are_a_case_of_full_covariances() {
    // More points than a block holds, near and far, and a component without weight.
    let means = array![[1.0, -1.0, 0.5], [-2.0, 0.3, 1.0], [0.0, 2.0, -1.0]];
    let variances = array![[0.4, 0.5, 0.6], [0.6, 0.4, 0.5], [0.5, 0.6, 0.4]];
    let mut matrices = Array3::zeros((3, 3, 3));
    for k in 0..3 {
        matrices.slice_mut(s![k, .., ..]).diag_mut().assign(&variances.row(k));
    }
    let model = |c| ExactMixture::new(Mixture::new(array![0.3, 0.7, 0.0], means.clone(), c).unwrap()).unwrap();
    let (diagonal, full) = (model(Covariances::Diagonal(variances.clone())), model(Covariances::Full(matrices)));
    let mut y = normals(300, 3, Streams::new(0).stream("points"), 0) * 3.0;
    y.row_mut(7).fill(1e4);
    for tau in [1e-3, 0.3, 50.0] {
        let (a, b) = (diagonal.denoise(y.view(), tau).unwrap(), full.denoise(y.view(), tau).unwrap());
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-9 * (1.0 + b.abs())), "{tau}");
    }
}
