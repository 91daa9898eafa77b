//! How near fitting and scoring come to the machine's products of matrices.

use candle_core::{DType, Device, Tensor};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ndarray::Array2;
use offprint_core::Progress;
use offprint_core::random::Streams;
use offprint_curvature::influence::{Detail, Directions, Examples, Fit, Model, Preconditioner, Track, TrackedLayers};
use offprint_curvature::{Damping, KroneckerInverse, vector};
use offprint_math::linalg::matmul;
use offprint_nn::derivatives::Loss;
use offprint_nn::models::{Activation, MlpConfig};
use offprint_nn::{Architecture, Batch, Network};
use std::hint::black_box;
use std::time::Duration;

/// Training rows, queries, width of the hidden layers.
const ROWS: usize = 1024;
const QUERIES: usize = 64;
const WIDTH: usize = 256;

fn rows(n: usize, index: u64) -> Examples {
    let values: Vec<f32> = vector::gaussian(Streams::new(0).stream("bench"), index, n * 64);
    let classes: Vec<u32> = (0..n as u32).map(|i| i % 10).collect();
    let inputs = Tensor::from_vec(values, (n, 64), &Device::Cpu).expect("a matrix");
    Batch { inputs, targets: Tensor::from_vec(classes, n, &Device::Cpu).expect("a vector") }.into()
}

fn scoring(c: &mut Criterion) {
    let shape = MlpConfig { widths: vec![64, WIDTH, WIDTH, 10], activation: Activation::Relu };
    let network = Network::fresh(&Architecture::Mlp(shape), 0, DType::F32).expect("a perceptron");
    let loss = network.loss(Loss::CrossEntropy);
    let (train, queries, progress) = (rows(ROWS, 0), rows(QUERIES, 1), Progress::silent());
    let tracked = TrackedLayers::of(&loss, &train, &Track::Usual).expect("layers");
    let model = Model { loss: &loss, tracked: &tracked, chunk: 128 };
    let fit = Fit::new(Streams::new(0).stream("targets"));
    let mut group = c.benchmark_group(format!("{ROWS} rows, {QUERIES} queries, width {WIDTH}"));
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    group.bench_function("fit", |b| b.iter(|| fit.layers(&model, &train, None, &progress)));
    let layers = fit.layers(&model, &train, None, &progress).expect("finite gradients");
    let inverse = KroneckerInverse::new(layers, tracked.dim(), Damping::OfMean(0.1)).expect("no dead layer");
    let gradients = model.gradients(&queries, &progress).expect("finite");
    group.bench_function("precondition", |b| b.iter(|| inverse.precondition(black_box(gradients.view()), &progress)));
    let directions = inverse.precondition(gradients.view(), &progress).expect("finite");
    let whole = Directions::new(&tracked, directions.view()).expect("finite");
    let small = whole.compressed(&tracked, 8).expect("a rank");
    // 2 · q · dim flop a row.
    group.throughput(Throughput::Elements((2 * ROWS * QUERIES * tracked.dim()) as u64));
    group.bench_function("score", |b| b.iter(|| model.scores(&whole, &train, Detail::default(), &progress)));
    group.bench_function("score, rank 8", |b| b.iter(|| model.scores(&small, &train, Detail::default(), &progress)));
    // The limit: one product of the same cost.
    let (a, v) = (Array2::<f32>::ones((ROWS, tracked.dim())), Array2::<f32>::ones((tracked.dim(), QUERIES)));
    group.bench_function("one product of that size", |b| b.iter(|| matmul(black_box(a.view()), v.view())));
    group.finish();
}

criterion_group!(benches, scoring);
criterion_main!(benches);
