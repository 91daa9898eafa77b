//! One run of weighted simulation, and drawing by weights, at the paper's sizes.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use offprint_core::random::Streams;
use offprint_generate::feynman_kac::examples::{experts, forty, line};
use offprint_generate::feynman_kac::{Corrector, Expert, Product, Scheme, jump};
use offprint_generate::{Grid, Schedule};
use std::hint::black_box;

const PARTICLES: usize = 4096;

fn simulation(c: &mut Criterion) {
    let steps = 40;
    let grid = Grid::karras(&Schedule::Edm, steps, 0.01, 20.0, 7.0).unwrap();
    let streams = Streams::new(0);
    let (line, [a, b], forty) = (line().unwrap(), experts().unwrap(), forty(streams.stream("modes")).unwrap());
    let mut group = c.benchmark_group("feynman-kac 40 steps");
    group.throughput(Throughput::Elements((steps * PARTICLES) as u64)).sample_size(20);
    for (name, experts) in [
        ("annealing, 2 modes on the line", vec![Expert::known(&line, 2.0).unwrap()]),
        ("product, 2 × 2 modes in the plane", vec![Expert::known(&a, 1.0).unwrap(), Expert::known(&b, 1.0).unwrap()]),
        ("annealing, 40 modes in the plane", vec![Expert::known(&forty, 2.0).unwrap()]),
    ] {
        let target = Product::new(experts).unwrap();
        group.bench_function(name, |bench| {
            bench.iter(|| Corrector::default().run(black_box(&target), PARTICLES, &grid, streams).unwrap());
        });
    }
    group.finish();
}

fn drawing(c: &mut Criterion) {
    let weights: Vec<f64> = (0..PARTICLES).map(|k| ((k * 37 % 101) as f64).powi(2)).collect();
    let stream = Streams::new(0).stream("drawing");
    let mut group = c.benchmark_group("feynman-kac drawing of 4096");
    for scheme in [Scheme::Systematic, Scheme::Stratified, Scheme::Multinomial] {
        group.bench_function(format!("{scheme:?}"), |b| {
            b.iter(|| scheme.draw(black_box(&weights), PARTICLES, &mut stream.rng(0)));
        });
    }
    let increments: Vec<f64> = weights.iter().map(|w| 1e-5 * w).collect();
    group.bench_function("jump", |b| b.iter(|| jump(black_box(&increments), &mut stream.rng(0))));
    group.finish();
}

criterion_group!(benches, simulation, drawing);
criterion_main!(benches);
