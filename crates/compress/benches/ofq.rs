//! How near StatsQ comes to the memory's bandwidth, and what watching oscillations adds.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use offprint_compress::ofq::{Levels, Reading, Tracker, stats_scales, to_levels};
use std::hint::black_box;

fn levels(c: &mut Criterion) {
    let columns = 1024;
    let weights: Vec<f32> = (0..columns * 1024).map(|i| ((i as f32) * 0.618).sin()).collect();
    let levels = Levels::Halves { bits: 2 };
    let mut group = c.benchmark_group("StatsQ, 1024 × 1024");
    group.sample_size(30).throughput(Throughput::Bytes(4 * weights.len() as u64));
    // The limit: every byte copied once.
    group.bench_function("copy", |b| b.iter(|| black_box(weights.clone())));
    group.bench_function("scales", |b| b.iter(|| stats_scales(black_box(&weights), columns)));
    let scales = stats_scales(&weights, columns);
    group.bench_function("values", |b| b.iter(|| to_levels(black_box(&weights), columns, levels, &scales)));
    let reading = |shift: f32| Reading {
        name: String::new(),
        weights: weights.iter().map(|w| w + shift).collect(),
        columns,
        scales: scales.clone(),
        levels,
    };
    let mut tracker = Tracker::new(vec![reading(0.0)]);
    let next = reading(1e-3);
    group.bench_function("tracking", |b| b.iter(|| tracker.step(vec![next.clone()])));
    group.finish();
}

criterion_group!(benches, levels);
criterion_main!(benches);
