//! What a look at the curvature of a batch costs: a product beside a gradient, the ends of a batch, a law's edge.

use candle_core::{DType, Device, Tensor};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use offprint_core::Progress;
use offprint_core::random::Streams;
use offprint_curvature::batch_hessian::spiked::AdditiveNoise;
use offprint_curvature::batch_hessian::{NetworkCurvature, SampledMatrix, Sampling, ends};
use offprint_curvature::network::Matrix;
use offprint_curvature::{LinearOperator, vector};
use offprint_nn::derivatives::Loss;
use offprint_nn::models::{Activation, MlpConfig};
use offprint_nn::{Architecture, Batch, Network};
use std::hint::black_box;

fn products(c: &mut Criterion) {
    let (images, labels) = offprint_data::digits();
    let n = labels.len();
    let pixels: Vec<f32> = images.iter().map(|ink| (ink / 16.0) as f32).collect();
    let ids: Vec<u32> = labels.into_iter().map(u32::from).collect();
    let data = Batch {
        inputs: Tensor::from_vec(pixels, (n, 64), &Device::Cpu).expect("as many as the shape says"),
        targets: Tensor::from_vec(ids, n, &Device::Cpu).expect("one a sample"),
    };
    let shape = MlpConfig { widths: vec![64, 64, 32, 10], activation: Activation::Tanh };
    let network = Network::fresh(&Architecture::Mlp(shape), 0, DType::F32).expect("a valid shape");
    let loss = network.loss(Loss::CrossEntropy);
    let stream = Streams::new(0).stream("bench");
    let v: Vec<f32> = vector::gaussian(stream, 0, loss.dim());
    let mut y = v.clone();
    let mut group = c.benchmark_group("perceptron 64-64-32-10, P = 6570");
    for batch in [8, 128, 1024] {
        let samples = Sampling::WithoutReplacement.draw(batch, n, stream, 0);
        for (name, matrix) in [("Hessian", Matrix::Hessian), ("Gauss–Newton", Matrix::GaussNewton)] {
            let curvature = NetworkCurvature::<f32>::new(&loss, &data, matrix, 2048).expect("a finite loss");
            let operator = curvature.batch(samples.clone()).expect("samples of the data");
            group.bench_function(BenchmarkId::new(name, batch), |b| b.iter(|| operator.apply(black_box(&v), &mut y)));
        }
        let part = data.narrow(0, batch).expect("within the data");
        group
            .bench_function(BenchmarkId::new("gradient", batch), |b| b.iter(|| loss.gradient::<f32>(black_box(&part))));
    }
    group.sample_size(10);
    let curvature = NetworkCurvature::<f32>::new(&loss, &data, Matrix::Hessian, 2048).expect("a finite loss");
    let operator = curvature.batch((0..128).collect()).expect("samples of the data");
    group.bench_function("both ends of a batch of 128, 40 steps", |b| {
        b.iter(|| ends(&operator, 40, stream, 1, &Progress::silent()));
    });
    group.finish();
}

fn edges(c: &mut Criterion) {
    let bulk: Vec<(f64, f64)> = (0..320).map(|i| (f64::from(i) / 320.0, 1.0 / 320.0)).collect();
    let noise = AdditiveNoise { variance: 0.3 };
    c.bench_function("edge of noise over a spectrum of 320 nodes", |b| b.iter(|| noise.edge_over(black_box(&bulk))));
}

criterion_group!(benches, products, edges);
criterion_main!(benches);
