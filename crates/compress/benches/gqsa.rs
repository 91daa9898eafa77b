//! How near the products come to the memory's bandwidth, in memory and in cache.
//!
//! The first group reads a large array once and adds it up: the limit. Bytes are those of the format, so rates compare.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use offprint_compress::gqsa::engine::timing::{Regime, Timing, random_vector, random_weights};
use offprint_compress::gqsa::engine::{Format, Input, Precision, read_bandwidth};
use offprint_core::random::Streams;
use std::hint::black_box;
use std::time::Duration;

fn products(c: &mut Criterion) {
    let streams = Streams::new(0);
    let large = vec![1f32; 1 << 26];
    let mut group = c.benchmark_group("read");
    group.sample_size(10).measurement_time(Duration::from_secs(2));
    group.throughput(Throughput::Bytes(4 << 26));
    group.bench_function("256 MiB", |b| b.iter(|| read_bandwidth(black_box(&large), 1)));
    group.finish();
    for (n, regime) in [(4096, Regime::Memory), (2048, Regime::Cache)] {
        let weights = random_weights(n, n, streams.stream("weights"));
        let x = random_vector(n, streams.stream("x"));
        for precision in [Precision::Single, Precision::Int8, Precision::Int8Vector] {
            let mut group = c.benchmark_group(format!("{n} × {n}, {regime:?}, {precision:?}"));
            group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
            for format in Format::ALL {
                if matches!(format, Format::F32 | Format::F16) && precision != Precision::Single {
                    continue;
                }
                let matrix = format.rounded(&weights).expect("finite, of a fitting size");
                let matrices = Timing::new(regime, precision).copies(&*matrix);
                let input = Input::new(&x, precision).expect("finite");
                let mut y = vec![0.0; n];
                let mut next = matrices.iter().cycle();
                group.throughput(Throughput::Bytes(matrix.bytes() as u64));
                group.bench_function(format.name(), |b| {
                    b.iter(|| next.next().expect("cycles").multiply(black_box(&input), &mut y));
                });
            }
            group.finish();
        }
    }
}

criterion_group!(benches, products);
criterion_main!(benches);
