//! Operators of a network's loss against matrices written out from finite differences and per-sample gradients.

use candle_core::{DType, Device, Tensor};
use ndarray::Array2;
use offprint_core::Progress;
use offprint_core::random::Streams;
use offprint_curvature::network::{LossOperator, Matrix, drawn_targets};
use offprint_curvature::{LinearOperator, spectrum, trace, vector};
use offprint_math::linalg::eigh;
use offprint_nn::derivatives::{Loss, LossFunction, Targets};
use offprint_nn::models::{Activation, MlpConfig};
use offprint_nn::{Architecture, Batch, Network};

fn network() -> Network {
    let config = MlpConfig { widths: vec![5, 7, 4], activation: Activation::Tanh };
    Network::fresh(&Architecture::Mlp(config), 3, DType::F64).unwrap()
}

fn samples(n: usize) -> Batch {
    let inputs = vector::gaussian::<f64>(Streams::new(1).stream("samples"), 0, n * 5);
    let inputs = Tensor::from_vec(inputs, (n, 5), &Device::Cpu).unwrap();
    let targets: Vec<u32> = (0..n as u32).map(|i| i * i % 4).collect();
    Batch { inputs, targets: Tensor::from_vec(targets, n, &Device::Cpu).unwrap() }
}

fn written_out(operator: &impl LinearOperator) -> Array2<f64> {
    let d = operator.dim();
    let mut matrix = Array2::zeros((d, d));
    for i in 0..d {
        let mut unit = vec![0.0; d];
        unit[i] = 1.0;
        operator.apply(&unit, matrix.row_mut(i).as_slice_mut().unwrap()).unwrap();
    }
    matrix
}

/// ∇²L by central differences of the gradient.
fn hessian(network: &Network, loss: &LossFunction<'_>, batch: &Batch) -> Array2<f64> {
    let at: Vec<f64> = network.params().flat().unwrap();
    let step = 1e-5;
    let mut matrix = Array2::zeros((at.len(), at.len()));
    for i in 0..at.len() {
        let gradient = |sign: f64| -> Vec<f64> {
            let mut moved = at.clone();
            moved[i] += sign * step;
            network.params().set_flat(&moved).unwrap();
            loss.gradient(batch).unwrap().1
        };
        let (up, down) = (gradient(1.0), gradient(-1.0));
        matrix.row_mut(i).iter_mut().zip(up.iter().zip(down)).for_each(|(h, (u, d))| *h = (u - d) / (2.0 * step));
    }
    network.params().set_flat(&at).unwrap();
    matrix
}

fn assert_close(a: &Array2<f64>, b: &Array2<f64>, tolerance: f64) {
    let largest = b.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    let error = a.iter().zip(b).fold(0.0f64, |m, (x, y)| m.max((x - y).abs()));
    assert!(error < tolerance * largest, "{error} of {largest}");
}

#[test]
fn hessian_products_are_those_of_differences_of_gradients() {
    let (network, batch) = (network(), samples(23));
    let loss = network.loss(Loss::CrossEntropy);
    let exact = hessian(&network, &loss, &batch);
    // 8 does not divide 23: the parts weigh differently.
    for part in [8, 100] {
        let operator = LossOperator::new(&loss, Matrix::Hessian, &batch, part).unwrap();
        assert_close(&written_out(&operator), &exact, 1e-8);
    }
}

#[test]
fn fisher_products_are_those_of_the_samples_gradients() {
    let (network, batch) = (network(), samples(11));
    let loss = network.loss(Loss::CrossEntropy);
    let drawn = drawn_targets(&loss, &batch, 4, Streams::new(2).stream("targets")).unwrap();
    assert_ne!(drawn.targets.to_vec1::<u32>().unwrap(), batch.targets.to_vec1::<u32>().unwrap());
    for batch in [batch, drawn] {
        let gradients = loss.per_sample_gradients::<f64>(&batch, Targets::True).unwrap();
        let exact = gradients.t().dot(&gradients) / batch.len() as f64;
        let operator = LossOperator::new(&loss, Matrix::Fisher, &batch, 4).unwrap();
        assert_close(&written_out(&operator), &exact, 1e-12);
    }
}

#[test]
fn gauss_newton_is_the_mean_fisher_matrix_over_drawn_targets() {
    let (network, batch) = (network(), samples(6));
    let loss = network.loss(Loss::CrossEntropy);
    let operator = LossOperator::new(&loss, Matrix::GaussNewton, &batch, 4).unwrap();
    let exact = written_out(&operator);
    let rounds = 3000;
    let mut mean = Array2::<f64>::zeros(exact.raw_dim());
    for round in 0..rounds {
        let stream = Streams::new(round).stream("targets");
        let drawn = drawn_targets(&loss, &batch, 6, stream).unwrap();
        let gradients = loss.per_sample_gradients::<f64>(&drawn, Targets::True).unwrap();
        mean = mean + gradients.t().dot(&gradients) / batch.len() as f64;
    }
    assert_close(&(mean / rounds as f64), &exact, 0.05);
}

#[test]
fn the_spectrum_by_quadrature_is_that_of_the_explicit_matrix() {
    let (network, batch) = (network(), samples(40));
    let loss = network.loss(Loss::CrossEntropy);
    let operator = LossOperator::new(&loss, Matrix::Hessian, &batch, 40).unwrap();
    let exact = eigh(written_out(&operator).view()).unwrap().0;
    let d = exact.len();
    let found = spectrum::<f64>(&operator, 40, 30, Streams::new(4).stream("probes"), &Progress::silent()).unwrap();
    let (bottom, top) = (exact[0], exact[d - 1]);
    for (nodes, _) in &found.probes {
        assert!((nodes[nodes.len() - 1] - top).abs() < 1e-6 * top && (nodes[0] - bottom).abs() < 1e-3 * top);
    }
    // The share of eigenvalues below a place, smoothed alike on both sides.
    let smooth = |x: f64, place: f64| 1.0 / (1.0 + (-(place - x) / (0.02 * top)).exp());
    for k in 1..10 {
        let place = bottom + (top - bottom) * f64::from(k) / 10.0;
        let share = exact.iter().map(|&x| smooth(x, place)).sum::<f64>() / d as f64;
        let each = found.probes.iter().map(|(x, w)| x.iter().zip(w).map(|(&x, w)| w * smooth(x, place)).sum::<f64>());
        let estimate = each.sum::<f64>() / found.probes.len() as f64;
        assert!((estimate - share).abs() < 0.03, "{place}: {estimate} {share}");
    }
    let estimate = trace::<f64>(&operator, 400, Streams::new(4).stream("trace"), &Progress::silent()).unwrap();
    let exact_trace: f64 = exact.iter().sum();
    assert!((estimate.value - exact_trace).abs() < 5.0 * estimate.error, "{estimate:?} {exact_trace}");
}

#[test]
fn no_samples_and_no_parts_are_refused() {
    let (network, batch) = (network(), samples(3));
    let loss = network.loss(Loss::CrossEntropy);
    let refused =
        |batch: &Batch, part| LossOperator::new(&loss, Matrix::Hessian, batch, part).err().unwrap().to_string();
    assert!(refused(&batch, 0).starts_with("part"));
    assert!(refused(&batch.narrow(0, 0).unwrap(), 1).starts_with("samples"));
}
