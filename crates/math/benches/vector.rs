//! Elementary functions over 4096 elements, beside the standard library's one at a time.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use offprint_math::vector;
use std::hint::black_box;

fn functions(c: &mut Criterion) {
    let double: Vec<f64> = (0..4096).map(|i| f64::from(i).sin() * 20.0).collect();
    let single: Vec<f32> = double.iter().map(|&x| x as f32).collect();
    let mut group = c.benchmark_group("vector");
    group.throughput(Throughput::Elements(4096));
    let mut out = double.clone();
    group.bench_function("exp f64 std", |b| {
        b.iter(|| black_box(&mut out).iter_mut().zip(&double).for_each(|(o, x)| *o = x.exp()));
    });
    group.bench_function("exp f64", |b| {
        b.iter(|| {
            out.copy_from_slice(&double);
            vector::exp(black_box(&mut out));
        });
    });
    group.bench_function("ln f64", |b| {
        b.iter(|| {
            out.fill(2.5);
            vector::ln(black_box(&mut out));
        });
    });
    group.bench_function("log_sum_exp f64", |b| b.iter(|| vector::log_sum_exp(black_box(&double))));
    let mut out = single.clone();
    group.bench_function("exp f32", |b| {
        b.iter(|| {
            out.copy_from_slice(&single);
            vector::exp(black_box(&mut out));
        });
    });
    group.finish();
}

criterion_group!(benches, functions);
criterion_main!(benches);
