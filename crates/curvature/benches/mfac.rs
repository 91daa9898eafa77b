//! How near the products with wide matrices come to the memory's bandwidth.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ndarray::Array2;
use offprint_core::random::Streams;
use offprint_curvature::mfac::{MfacDynamic, MfacStatic};
use offprint_curvature::{Inverse, vector, wide};
use rayon::prelude::*;
use std::hint::black_box;
use std::time::Duration;

fn products(c: &mut Criterion) {
    // As large as the goal names it (2 GB of f32) unless the environment asks for less.
    let d = std::env::var("OFFPRINT_BENCH_D").ok().and_then(|d| d.parse().ok()).unwrap_or(1_000_000);
    let m = 512;
    let stream = Streams::new(0).stream("bench");
    let x: Vec<f64> = vector::gaussian(stream, 0, d);
    // Constant rows but for one element: what they hold does not matter for the time, drawing them would.
    let mut rows = Array2::from_elem((m, d), 0.5f32);
    rows.diag_mut().fill(1.0);
    let bytes = (m * d * 4) as u64;
    let mut group = c.benchmark_group(format!("d = {d}, m = {m}"));
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    group.throughput(Throughput::Bytes(bytes));
    // The limit: every byte read once by all threads and added up, eight partial sums each.
    group.bench_function("read", |b| {
        let all = rows.as_slice().expect("in C order");
        b.iter(|| {
            let sum: f32 = all
                .par_chunks(1 << 18)
                .map(|part| {
                    let mut sums = [0f32; 32];
                    part.as_chunks::<32>().0.iter().for_each(|c| sums.iter_mut().zip(c).for_each(|(s, x)| *s += x));
                    sums.iter().sum::<f32>()
                })
                .sum();
            black_box(sum)
        });
    });
    group.bench_function("G x", |b| b.iter(|| wide::times(rows.view(), black_box(&x))));
    let c_vector = vec![0.1; m];
    let mut y = x.clone();
    group
        .bench_function("Gᵀ c", |b| b.iter(|| wide::add_transposed_times(&mut y, rows.view(), black_box(&c_vector))));
    group.throughput(Throughput::Bytes(2 * bytes));
    let inverse = MfacStatic::new(rows, 1.0).expect("well damped");
    group.bench_function("F̂⁻¹ x", |b| b.iter(|| inverse.apply_inverse(black_box(&x))));
    group.finish();
}

fn window(c: &mut Criterion) {
    let (m, d) = (512, 1 << 16);
    let stream = Streams::new(0).stream("bench");
    let mut window = MfacDynamic::<f32>::new(d, m, 1e-3).expect("fits in memory");
    for i in 0..m as u64 {
        window.push(&vector::gaussian::<f64>(stream, i, d)).expect("finite");
    }
    let g: Vec<f64> = vector::gaussian(stream, m as u64, d);
    let mut group = c.benchmark_group(format!("window, d = {d}, m = {m}"));
    group.sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    group.bench_function("push", |b| b.iter(|| window.push(black_box(&g))));
    group.bench_function("push and solve", |b| b.iter(|| window.push_solve(black_box(&g))));
    group.finish();
}

criterion_group!(benches, products, window);
criterion_main!(benches);
