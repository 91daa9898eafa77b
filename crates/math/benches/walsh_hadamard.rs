//! The transform beside what bounds it: reading and writing the same memory twice.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use offprint_math::walsh_hadamard::walsh_hadamard;
use rayon::prelude::*;

fn transform(c: &mut Criterion) {
    let mut group = c.benchmark_group("walsh_hadamard");
    group.sample_size(10);
    for log in [10u32, 15, 18, 22, 24] {
        let mut x: Vec<f64> = (0..1u64 << log).map(|i| (i % 7) as f64 - 3.0).collect();
        let bytes = (x.len() * 8) as u64;
        group.throughput(Throughput::Bytes(bytes));
        // Repeated, the values overflow, which takes no other time.
        group.bench_with_input(BenchmarkId::new("f64", log), &log, |b, _| {
            b.iter(|| walsh_hadamard(&mut x));
        });
        group.bench_with_input(BenchmarkId::new("two passes over memory", log), &log, |b, _| {
            b.iter(|| {
                for _ in 0..2 {
                    x.par_chunks_mut(1 << 15).for_each(|part| part.iter_mut().for_each(|v| *v = -*v));
                }
            });
        });
        let mut y: Vec<f32> = (0..1u64 << log).map(|i| (i % 7) as f32 - 3.0).collect();
        group.throughput(Throughput::Bytes(bytes / 2));
        group.bench_with_input(BenchmarkId::new("f32", log), &log, |b, _| {
            b.iter(|| walsh_hadamard(&mut y));
        });
    }
    group.finish();
}

criterion_group!(benches, transform);
criterion_main!(benches);
