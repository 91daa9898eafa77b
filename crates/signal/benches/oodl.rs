//! One step of online dictionary learning and its parts.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ndarray::{Array2, Axis};
use offprint_core::random::Streams;
use offprint_math::polar::Polar;
use offprint_signal::oodl::objective::{Codes, accumulate_gradient};
use offprint_signal::oodl::{BernoulliGaussian, FrankWolfe, Schedule, random_orthogonal};
use std::hint::black_box;

fn steps(c: &mut Criterion) {
    let mut group = c.benchmark_group("step");
    for (n, batch) in [(10, 1), (20, 1), (20, 10), (64, 1), (64, 64)] {
        let streams = Streams::new(0);
        let samples = BernoulliGaussian::new(n, 0.3, 0.0, streams).unwrap().samples(0, 20_000);
        let start = random_orthogonal(n, &mut streams.stream("start").rng(0)).unwrap();
        let mut learner = FrankWolfe::new(start, Schedule::default()).unwrap();
        let mut batches = samples.axis_chunks_iter(Axis(0), batch).cycle();
        // Past the first samples, whose gradients are singular.
        for rows in batches.by_ref().take(2000) {
            learner.step(rows).unwrap();
        }
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(BenchmarkId::from_parameter(format!("N={n} batch={batch}")), |b| {
            b.iter(|| learner.step(black_box(batches.next().unwrap())).unwrap());
        });
    }
}

fn parts(c: &mut Criterion) {
    let mut group = c.benchmark_group("parts");
    for n in [20, 64] {
        let streams = Streams::new(1);
        let stream = BernoulliGaussian::new(n, 0.3, 0.0, streams).unwrap();
        let sample = stream.samples(0, 1);
        let (mut gradient, mut codes) = (Array2::zeros((n, n)), Codes::default());
        group.bench_function(BenchmarkId::new("gradient", n), |b| {
            b.iter(|| {
                accumulate_gradient(stream.truth(), black_box(sample.view()), 1e-3, gradient.view_mut(), &mut codes)
            });
        });
        let (many, mut polar, mut out) = (stream.samples(0, 50), Polar::new(n), Array2::zeros((n, n)));
        let mut averaged = Array2::zeros((n, n));
        accumulate_gradient(stream.truth(), many.view(), 0.02, averaged.view_mut(), &mut codes);
        group.bench_function(BenchmarkId::new("polar", n), |b| {
            b.iter(|| polar.factor(black_box(averaged.view()), out.view_mut()).unwrap());
        });
    }
}

criterion_group!(benches, steps, parts);
criterion_main!(benches);
