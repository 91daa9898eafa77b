//! Batch curvature against logistic regression, where every matrix can be written out.

use candle_core::{DType, Device, Tensor};
use ndarray::{Array1, Array2, Axis, aview1, s};
use offprint_core::Progress;
use offprint_core::random::{Stream, Streams};
use offprint_curvature::batch_hessian::spiked::AdditiveNoise;
use offprint_curvature::batch_hessian::{
    Callback, DiagonalBlock, Draws, Floor, GradientRows, Law, Learner, LearningRates, NetworkCurvature, Population,
    SampledGradients, SampledMatrix, Sampling, Scaling, batch_ends, block_curvatures, directional, effective, ends,
    ends_within, gradient_noise, isotropic, whole, without_noise,
};
use offprint_curvature::network::Matrix;
use offprint_curvature::{Explicit, LinearOperator, Product, Ritz, lanczos, vector};
use offprint_math::linalg::eigh;
use offprint_nn::derivatives::{Loss, LossFunction};
use offprint_nn::models::{Activation, Mlp, MlpConfig};
use offprint_nn::{Batch, Params, Weights};
use proptest::prelude::*;

const WITHOUT: Sampling = Sampling::WithoutReplacement;

fn stream(seed: u64) -> Stream {
    Streams::new(seed).stream("tests")
}

fn silent() -> Progress {
    Progress::silent()
}

/// Logistic regression on breast cancer, standardised, with a bias: P = 31, N = 569.
struct Logistic {
    params: Params,
    model: Mlp,
    data: Batch,
    /// Measurements with a 1 behind them, `(N, P)`.
    x: Array2<f64>,
    /// p − y of each patient.
    residual: Array1<f64>,
    /// p (1 − p) of each patient.
    weight: Array1<f64>,
}

impl Logistic {
    fn new() -> Self {
        let (mut x, benign) = offprint_data::breast_cancer();
        for mut column in x.columns_mut() {
            let (mean, deviation) = (column.mean().unwrap(), column.std(0.0));
            column.mapv_inplace(|x| (x - mean) / deviation);
        }
        let (n, d) = x.dim();
        let y = Array1::from_iter(benign.iter().map(|&class| f64::from(class)));
        let tensor = |values: Vec<f64>, columns: usize| Tensor::from_vec(values, (n, columns), &Device::Cpu).unwrap();
        let data = Batch { inputs: tensor(x.iter().copied().collect(), d), targets: tensor(y.to_vec(), 1) };
        let weights = Weights::fresh(3, DType::F64).unwrap();
        let model = Mlp::new(&MlpConfig { widths: vec![d, 1], activation: Activation::Tanh }, &weights).unwrap();
        let params = weights.finish(&[]).unwrap();
        let w = Array1::from(params.flat::<f64>().unwrap());
        x.push_column(Array1::ones(n).view()).unwrap();
        let p = x.dot(&w).mapv(|z| 1.0 / (1.0 + (-z).exp()));
        Self { params, model, data, residual: &p - &y, weight: &p * &(1.0 - &p), x }
    }

    fn loss(&self) -> LossFunction<'_> {
        LossFunction::new(&self.params, |x| self.model.forward(x), Loss::Logistic)
    }

    /// 1/B Σ p (1 − p) x xᵀ.
    fn hessian(&self, batch: &[u32]) -> Array2<f64> {
        let rows: Vec<usize> = batch.iter().map(|&i| i as usize).collect();
        let (x, weight) = (self.x.select(Axis(0), &rows), self.weight.select(Axis(0), &rows));
        (&x * &weight.insert_axis(Axis(1))).t().dot(&x) / batch.len() as f64
    }

    fn all(&self) -> Vec<u32> {
        (0..self.x.nrows() as u32).collect()
    }

    /// 1/(N − 1) Σ f(H_i − H): f of a matrix of rank one less the mean.
    fn variance(&self, f: impl Fn(Array2<f64>) -> f64) -> f64 {
        let whole = self.hessian(&self.all());
        self.all().iter().map(|&i| f(self.hessian(&[i]) - &whole)).sum::<f64>() / (self.x.nrows() - 1) as f64
    }
}

fn close(found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance * expected.abs(), "{found} is not {expected}");
}

#[test]
fn products_and_gradients_of_batches_are_the_dense_ones() {
    let problem = Logistic::new();
    let loss = problem.loss();
    let v: Vec<f64> = vector::gaussian(stream(0), 0, 31);
    let batch = vec![5, 17, 17, 300, 568];
    for matrix in [Matrix::Hessian, Matrix::GaussNewton] {
        // A loss whose outputs are linear in the weights has one matrix under both names; parts of 2 and of all samples.
        for part in [2, 1000] {
            let curvature = NetworkCurvature::<f64>::new(&loss, &problem.data, matrix, part).unwrap();
            for samples in [batch.clone(), problem.all()] {
                let mut image = vec![0.0; 31];
                curvature.batch(samples.clone()).unwrap().apply(&v, &mut image).unwrap();
                let expected = problem.hessian(&samples).dot(&aview1(&v));
                image.iter().zip(&expected).for_each(|(a, b)| assert!((a - b).abs() < 1e-12, "{a} {b}"));
            }
            let gradient = curvature.gradient(&batch).unwrap();
            let rows: Vec<usize> = batch.iter().map(|&i| i as usize).collect();
            let expected =
                problem.x.select(Axis(0), &rows).t().dot(&problem.residual.select(Axis(0), &rows)) / batch.len() as f64;
            gradient.iter().zip(&expected).for_each(|(a, b)| assert!((a - b).abs() < 1e-12, "{a} {b}"));
        }
    }
}

#[test]
fn ends_spectrum_and_leading_eigenvalues_are_the_dense_ones() {
    let problem = Logistic::new();
    let loss = problem.loss();
    let curvature = NetworkCurvature::<f64>::new(&loss, &problem.data, Matrix::Hessian, 1000).unwrap();
    let (values, vectors) = eigh(problem.hessian(&problem.all()).view()).unwrap();
    let found = whole(&curvature.whole().unwrap(), 31, 20, stream(1), &silent()).unwrap();
    close(found.ends.top, values[30], 1e-10);
    assert!((found.ends.bottom - values[0]).abs() < 1e-10 && found.ends.residual < 1e-8);
    let overlap = aview1(&found.top_vector).dot(&vectors.column(30)).abs();
    assert!((overlap - 1.0).abs() < 1e-9);
    assert_eq!(found.leading.len(), 31);
    close(found.remaining(4), values[26], 1e-9);
    assert_eq!(found.remaining(400), found.leading[30]);
    let trace = found.spectrum.trace();
    assert!((trace.value - values.sum()).abs() < 4.0 * trace.error);

    let population = Population::of(&found);
    close(population.spectrum.iter().map(|(_, weight)| weight).sum(), 1.0, 1e-12);
    // Batches: the same draws, written out.
    let draws = Draws { count: 5, steps: 31, sampling: WITHOUT };
    let measured = batch_ends(&curvature, 40, draws, stream(2), &silent()).unwrap();
    close(measured.effective, 40.0 / (1.0 - 40.0 / 569.0), 1e-12);
    let samples = stream(2).nested(40).stream("samples");
    let dense: Vec<f64> =
        (0..5).map(|draw| eigh(problem.hessian(&WITHOUT.draw(40, 569, samples, draw)).view()).unwrap().0[30]).collect();
    close(measured.top.mean, dense.iter().sum::<f64>() / 5.0, 1e-9);
    assert!(measured.residual < 1e-6, "{}", measured.residual);
}

#[test]
fn estimates_of_the_noise_are_those_of_the_written_out_matrices() {
    let problem = Logistic::new();
    let loss = problem.loss();
    let curvature = NetworkCurvature::<f64>::new(&loss, &problem.data, Matrix::Hessian, 1000).unwrap();
    // In expectation, without replacement, exactly 1/(N − 1) Σ ‖H_i − H‖_F²/P.
    let exact = problem.variance(|difference| difference.mapv(|x| x * x).sum() / 31.0);
    let found = isotropic(&curvature, 30, WITHOUT, 300, 20, stream(3), &silent()).unwrap();
    close(found, exact, 0.15);
    let (_, vectors) = eigh(problem.hessian(&problem.all()).view()).unwrap();
    let top = vectors.column(30).to_owned();
    let exact = problem.variance(|difference| difference.dot(&top).mapv(|x| x * x).sum());
    for sampling in [WITHOUT, Sampling::WithReplacement] {
        let found = directional(&curvature, top.as_slice().unwrap(), 60, sampling, 800, stream(4), &silent()).unwrap();
        close(found, exact, 0.12);
    }
    let gradients = &problem.x * &problem.residual.clone().insert_axis(Axis(1));
    let mean = gradients.mean_axis(Axis(0)).unwrap();
    let exact = (&gradients - &mean).mapv(|x| x * x).sum() / 568.0;
    let noise = gradient_noise(&curvature, 30, WITHOUT, 800, stream(5), &silent()).unwrap();
    close(noise.variance, exact, 0.1);
    close(noise.squared_gradient, mean.dot(&mean), 1e-9);
    close(noise.scale(), noise.variance / mean.dot(&mean), 1e-9);
}

#[test]
fn rows_of_gradients_are_their_fisher_matrix() {
    let problem = Logistic::new();
    let gradients = &problem.x * &problem.residual.clone().insert_axis(Axis(1));
    let gradients = gradients.as_standard_layout().into_owned();
    let rows = GradientRows::new(gradients.view(), "g").unwrap();
    let v: Vec<f64> = vector::gaussian(stream(0), 1, 31);
    for batch in [vec![0, 3, 568], problem.all()] {
        let chosen = gradients.select(Axis(0), &batch.iter().map(|&i| i as usize).collect::<Vec<_>>());
        let expected = chosen.t().dot(&chosen.dot(&aview1(&v))) / batch.len() as f64;
        let mut image = vec![0.0; 31];
        rows.batch(batch.clone()).unwrap().apply(&v, &mut image).unwrap();
        image.iter().zip(&expected).for_each(|(a, b)| assert!((a - b).abs() < 1e-12));
        let mean = chosen.mean_axis(Axis(0)).unwrap();
        rows.gradient(&batch).unwrap().iter().zip(&mean).for_each(|(a, b)| assert!((a - b).abs() < 1e-12));
    }
    let mut bad = gradients.clone();
    bad[[3, 4]] = f64::NAN;
    assert!(GradientRows::new(bad.view(), "g.npy").unwrap_err().to_string().contains("g.npy"));
}

#[test]
fn blocks_are_the_dense_diagonal_blocks() {
    let problem = Logistic::new();
    let matrix = problem.hessian(&problem.all());
    let operator = Explicit::new(matrix.view(), "h").unwrap();
    let blocks = [("weight".to_owned(), 0..30), ("bias".to_owned(), 30..31)];
    let found = block_curvatures(&operator, &blocks, 30, 400, stream(6), &silent()).unwrap();
    let (values, _) = eigh(matrix.slice(s![..30, ..30])).unwrap();
    close(found[0].ends.top, values[29], 1e-9);
    assert!((found[0].trace.value - values.sum()).abs() < 4.0 * found[0].trace.error);
    close(found[1].ends.top, matrix[[30, 30]], 1e-12);
    close(found[1].trace.value, matrix[[30, 30]], 1e-12);
    for range in [3..3, 20..32] {
        let error = DiagonalBlock::new::<f64>(operator, range).err().unwrap().to_string();
        assert!(error.starts_with("range"), "{error}");
    }
    let both = DiagonalBlock::of::<f64>(operator, vec![2..5, 30..31]).unwrap();
    let mut image = [0.0; 4];
    both.apply(&[0.0, 1.0, 0.0, 2.0], &mut image).unwrap();
    let at = [2, 3, 4, 30];
    image.iter().zip(at).for_each(|(y, i)| close(*y, matrix[[i, 3]] + 2.0 * matrix[[i, 30]], 1e-12));
    for ranges in [vec![], vec![4..8, 6..9]] {
        assert!(DiagonalBlock::of::<f64>(operator, ranges).is_err());
    }
}

/// Eigenvalues of a spectrum with a bulk of its own between 0 and 1, and spikes at 4 and −1.5.
fn population() -> Population {
    let mut values: Vec<f64> = (0..998).map(|i| i as f64 / 997.0).collect();
    values.extend([4.0, -1.5]);
    values.sort_by(f64::total_cmp);
    Population::of_eigenvalues(&values)
}

#[test]
fn laws_predict_the_ends_of_noisy_matrices() {
    let p = 1000;
    let a = Array2::from_shape_vec((p, p), vector::gaussian::<f64>(stream(7), 0, p * p)).unwrap();
    let noise = (&a + &a.t()) / (2.0 * p as f64).sqrt();
    let population = population();
    for variance in [0.2, 1.0, 4.0] {
        let mut matrix = &noise * f64::sqrt(variance);
        population.spectrum.iter().enumerate().for_each(|(i, (place, _))| matrix[[i, i]] += place);
        let operator = Explicit::new(matrix.view(), "h").unwrap();
        let found = ends(&operator, 120, stream(7), 1, &silent()).unwrap();
        let law = population.predict(Law::FieldDependent, variance, 1.0);
        close(found.top, law.top, 0.03);
        close(found.bottom, law.bottom, 0.03);
        // The plain law does not see the bulk, which pushes the top further up.
        assert!(population.predict(Law::Additive, variance, 1.0).top < law.top);
    }
    let additive = population.predict(Law::Additive, 1.0, 2.0);
    assert_eq!((additive.top, additive.bottom), (4.0 + 0.5 / 4.0, -1.5 - 0.5 / 1.5));
    assert_eq!(population.overlap(1.0, 2.0), 1.0 - 0.5 / 16.0);
    assert_eq!(population.overlap(20.0, 1.0), 0.0);
    for law in Law::ALL {
        let none = population.predict(law, 1.0, f64::INFINITY);
        assert_eq!((none.top, none.bottom), (4.0, -1.5), "{law:?}");
    }
}

#[test]
fn the_multiplicative_law_predicts_fisher_matrices_of_few_samples() {
    // Samples with covariance I but for one direction of variance 8; batches of them.
    let (p, n) = (300, 30_000);
    let mut rows = Array2::from_shape_vec((n, p), vector::gaussian::<f32>(stream(8), 0, n * p)).unwrap();
    rows.column_mut(0).mapv_inplace(|x| x * 8f32.sqrt());
    let rows = GradientRows::new(rows.view(), "g").unwrap();
    let found = whole(&rows.whole().unwrap(), 30, 4, stream(8), &silent()).unwrap();
    let population = Population::of(&found);
    for batch in [150, 300, 1200] {
        let draws = Draws { count: 12, steps: 60, sampling: WITHOUT };
        let measured = batch_ends(&rows, batch, draws, stream(9), &silent()).unwrap();
        let law = population.predict(Law::Multiplicative, 0.0, measured.effective);
        close(measured.top.mean, law.top, 0.07);
        match batch {
            150 => assert!(law.bottom == 0.0 && measured.bottom.mean < 1e-6),
            1200 => close(measured.bottom.mean, law.bottom, 0.1),
            // Near q = 1 the lower edge is where the law changes.
            _ => assert!(law.bottom < 0.01 && measured.bottom.mean < 0.01),
        }
    }
}

fn rates(variance: f64) -> LearningRates {
    LearningRates {
        population: Population { dim: 100, top: 4.0, bottom: -1.0, trace: 10.0, spectrum: vec![(0.0, 1.0)] },
        law: Law::Additive,
        variance,
        remaining: 0.5,
        samples: 1000,
        sampling: Sampling::WithReplacement,
    }
}

#[test]
fn rates_are_linear_then_flat_and_adaptive_ones_go_with_the_root() {
    let table = rates(640.0);
    // 2/(4 + 640/(4 B)) above B = 40, 2/(2 √(640/B)) below.
    close(table.sgd(160, 0.0).unwrap(), 2.0 / (4.0 + 1.0), 1e-12);
    close(table.sgd(160, 0.9).unwrap(), 3.8 / (4.0 + 1.0), 1e-12);
    close(table.sgd(10, 0.0).unwrap(), 2.0 / 16.0, 1e-12);
    assert!(table.sgd(1_000_000, 0.0).unwrap() > 0.4999);
    close(table.critical_batch(), 40.0, 1e-12);
    // The noise's edge falls to 0.5 at B = 10240.
    close(table.adaptive(40).unwrap() / table.adaptive(10).unwrap(), 2.0, 1e-12);
    close(table.adaptive(20_000).unwrap(), 4.0, 1e-12);
    close(table.adaptive_from(1e-3, 100, 400).unwrap(), 2e-3, 1e-12);
    // Damping is in proportion to α/𝔟 above the threshold.
    close(table.minimal_damping(0.1, 200).unwrap(), 0.1 * 640.0 / (2.0 * 200.0 * 4.0), 1e-12);
    close(table.minimal_damping(0.2, 100).unwrap() / table.minimal_damping(0.1, 200).unwrap(), 4.0, 1e-12);
    let finite = LearningRates { sampling: WITHOUT, ..table.clone() };
    close(finite.sgd(1000, 0.0).unwrap(), 0.5, 1e-12);
    close(finite.critical_batch(), 40.0 / 1.04, 1e-12);
    assert_eq!(finite.minimal_damping(0.1, 1000).unwrap(), 0.0);
    assert_eq!(Scaling::ALL.map(|scaling| scaling.rate(0.1, 100, 400)), [0.4, 0.2, 0.1]);
    for error in [
        finite.sgd(1001, 0.0).unwrap_err(),
        finite.sgd(0, 0.0).unwrap_err(),
        finite.adaptive(0).unwrap_err(),
        finite.minimal_damping(0.1, 0).unwrap_err(),
    ] {
        assert!(error.to_string().starts_with("batch_size"), "{error}");
    }
    assert!(table.sgd(10, 1.0).unwrap_err().to_string().starts_with("momentum"));
    assert!(table.sgd(10, f64::NAN).is_err());
    // At a point where nothing curves upwards no rate is too large.
    let flat = Population { top: 0.0, bottom: 0.0, ..rates(0.0).population };
    let flat = LearningRates { population: flat, remaining: 0.0, ..rates(0.0) };
    assert_eq!(flat.sgd(10, 0.0).unwrap(), f64::INFINITY);
    assert_eq!(flat.adaptive_from(1e-3, 10, 20).unwrap(), 1e-3);
}

#[test]
fn the_learner_gives_the_heavy_balls_optimum() {
    let ritz = |values: &[f64], weights: &[f64]| Ritz {
        values: values.to_vec(),
        residuals: vec![0.0; values.len()],
        weights: weights.to_vec(),
        vectors: Array2::eye(values.len()),
    };
    let found = ritz(&[-0.5, 0.01, 1.0, 4.0, 9.0], &[0.2, 0.3, 0.3, 0.001, 0.0009]);
    let learner = Learner { floor: Floor::BulkEdge, safety: 1.0 };
    let rates = learner.rates(&found, 1000, 9.0).unwrap();
    assert_eq!((rates.floor, rates.top), (1.0, 9.0));
    // (2/(3 + 1))², ((3 − 1)/(3 + 1))².
    close(rates.learning_rate, 0.25, 1e-12);
    close(rates.momentum, 0.25, 1e-12);
    let rates = Learner { floor: Floor::Smallest, safety: 0.5 }.rates(&found, 1000, 9.0).unwrap();
    close(rates.momentum, (2.9f64 / 3.1).powi(2), 1e-12);
    close(rates.learning_rate, 0.5 * (2.0f64 / 3.1).powi(2), 1e-12);
    // No floor at all: momentum is clipped, and the rate with it.
    let rates = learner.rates(&ritz(&[-1.0, 5.0], &[0.5, 1e-9]), 1000, 5.0).unwrap();
    assert_eq!((rates.momentum, rates.floor), (0.99, 0.0));
    close(rates.learning_rate, 2.0 * 1.99 / 5.0, 1e-12);
    assert!(learner.rates(&found, 1000, 0.0).is_err());
    assert!(Learner { safety: 0.0, ..learner }.rates(&found, 1000, 9.0).unwrap_err().to_string().starts_with("safety"));
    // From Lanczos on a quadratic: descent with these rates contracts like √ρ a step.
    let n = 60;
    let mut matrix = Array2::zeros((n, n));
    (0..n).for_each(|i| matrix[[i, i]] = if i == 0 { 16.0 } else { 1.0 });
    let operator = Explicit::new(matrix.view(), "h").unwrap();
    let start: Vec<f64> = vector::gaussian(stream(10), 0, n);
    let spectrum = lanczos(&operator, &start, 5, &silent()).unwrap().ritz().unwrap();
    let rates = learner.rates(&spectrum, n, 16.0).unwrap();
    close(rates.floor, 1.0, 1e-9);
    let (mut x, mut direction) = (Array1::from(start), Array1::<f64>::zeros(n));
    let before = x.dot(&x).sqrt();
    for _ in 0..60 {
        direction = rates.momentum * direction + matrix.dot(&x);
        x = x - rates.learning_rate * &direction;
    }
    assert!(x.dot(&x).sqrt() < 200.0 * before * rates.momentum.sqrt().powi(60));
}

#[test]
fn impossible_inputs_are_named() {
    let broken = Callback::new(10, 4, |_: &[u32], _: &[f64], y: &mut [f64]| {
        y.fill(f64::NAN);
        Ok(())
    });
    let quiet = silent();
    let says = |error: offprint_core::Error, word: &str| assert!(error.to_string().contains(word), "{error}");
    says(broken.batch(vec![]).err().unwrap(), "batch_size");
    says(broken.batch(vec![10]).err().unwrap(), "names sample 10, but there are 10");
    says(batch_ends(&broken, 11, Draws::default(), stream(0), &quiet).unwrap_err(), "batch_size");
    says(batch_ends(&broken, 5, Draws::default(), stream(0), &quiet).unwrap_err(), "product is NaN");
    says(isotropic(&broken, 10, WITHOUT, 4, 2, stream(0), &quiet).unwrap_err(), "all of them have no noise");
    says(isotropic(&broken, 5, WITHOUT, 1, 2, stream(0), &quiet).unwrap_err(), "draws");
    says(isotropic(&broken, 5, WITHOUT, 4, 0, stream(0), &quiet).unwrap_err(), "probes");
    says(directional(&broken, &[1.0], 5, WITHOUT, 4, stream(0), &quiet).unwrap_err(), "direction");
    says(directional(&broken, &[1.0; 4], 5, WITHOUT, 0, stream(0), &quiet).unwrap_err(), "draws");
    says(WITHOUT.effective_batch(1, 1).unwrap_err(), "batch_size");
    let problem = Logistic::new();
    let loss = problem.loss();
    says(NetworkCurvature::<f64>::new(&loss, &problem.data, Matrix::Hessian, 0).err().unwrap(), "part");
    problem.params.set_flat(&[f64::NAN; 31]).unwrap();
    says(
        NetworkCurvature::<f64>::new(&loss, &problem.data, Matrix::Hessian, 9).err().unwrap(),
        "loss at these weights",
    );
}

proptest! {
    #[test]
    fn effective_batches_are_larger_and_invertible(total in 2usize..5000, share in 0.0f64..1.0) {
        let batch = 1 + ((total - 1) as f64 * share) as usize;
        let effective = WITHOUT.effective_batch(batch, total).unwrap();
        prop_assert!(effective >= batch as f64);
        prop_assert!((WITHOUT.batch_of(effective, total) - batch as f64).abs() < 1e-6 * batch as f64);
        prop_assert_eq!(Sampling::WithReplacement.effective_batch(batch, total).unwrap(), batch as f64);
        prop_assert_eq!(WITHOUT.effective_batch(total, total).unwrap(), f64::INFINITY);
    }

    #[test]
    fn draws_stay_within_the_samples(total in 1usize..200, share in 0.0f64..=1.0, index in 0u64..9) {
        let batch = 1 + ((total - 1) as f64 * share) as usize;
        let mut drawn = WITHOUT.draw(batch, total, stream(11), index);
        drawn.sort_unstable();
        drawn.dedup();
        prop_assert_eq!(drawn.len(), batch);
        prop_assert!(drawn.iter().all(|&i| (i as usize) < total));
        let drawn = Sampling::WithReplacement.draw(batch, total, stream(11), index);
        prop_assert!(drawn.len() == batch && drawn.iter().all(|&i| (i as usize) < total));
    }

    #[test]
    fn larger_batches_have_smaller_ends(variance in 0.0f64..50.0, batch in 1.0f64..500.0, factor in 1.0f64..20.0) {
        let population = population();
        for law in [Law::Additive, Law::FieldDependent] {
            let (small, large) =
                (population.predict(law, variance, batch), population.predict(law, variance, batch * factor));
            prop_assert!(small.top >= large.top - 1e-9 && large.top >= 4.0 - 1e-9, "{:?}", law);
            prop_assert!(small.bottom <= large.bottom + 1e-9 && large.bottom <= -1.5 + 1e-9, "{:?}", law);
        }
    }

    #[test]
    fn the_additive_law_is_undone(top in 0.1f64..10.0, variance in 0.0f64..20.0, batch in 1.0f64..1000.0) {
        let noise = variance / batch;
        let at_batch = AdditiveNoise { variance: noise }.spike(top);
        if top > noise.sqrt() {
            prop_assert!((without_noise(at_batch, variance, batch) - top).abs() < 1e-6 * top.max(noise.sqrt()));
            prop_assert!((effective(at_batch, top, batch) - variance).abs() < 1e-8 * (1.0 + batch * top));
        } else {
            prop_assert!((without_noise(at_batch, variance, batch) - noise.sqrt()).abs() < 1e-6);
        }
    }
}

#[test]
fn ends_are_found_to_the_accuracy_that_is_asked_for() {
    // 300 eigenvalues in [−1, 2] and one far out on each side.
    let n = 302;
    let value = |i: usize| match i {
        0 => -6.0,
        1 => 9.0,
        i => -1.0 + 3.0 * (i - 2) as f64 / (n - 3) as f64,
    };
    let products = std::cell::Cell::new(0);
    let operator = Product::new(n, |x: &[f64], y: &mut [f64]| {
        products.set(products.get() + 1);
        y.iter_mut().zip(x).enumerate().for_each(|(i, (y, x))| *y = value(i) * x);
        Ok(())
    });
    let stream = stream(3);
    for (tolerance, most) in [(1e-2, 12), (1e-8, 30)] {
        products.set(0);
        let ends = ends_within(&operator, tolerance, n, stream, &silent()).unwrap();
        assert!((ends.top - 9.0).abs() <= 9.0 * tolerance && (ends.bottom + 6.0).abs() <= 9.0 * tolerance);
        assert!(ends.residual <= 9.0 * tolerance && products.get() <= most, "{} products", products.get());
    }
}
