//! SPRIGHT beside the full transform, on a table in memory.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use offprint_core::Progress;
use offprint_core::random::Streams;
use offprint_signal::spright::bins::Bins;
use offprint_signal::spright::design::Design;
use offprint_signal::spright::functions::{Noisy, SparseFunction};
use offprint_signal::spright::{Algorithm, Noise, Settings, Table, full, recover, transform};

fn spright(c: &mut Criterion) {
    let mut group = c.benchmark_group("spright");
    group.sample_size(20);
    let silent = Progress::silent();
    let stream = Streams::new(0).stream("design");
    for bits in [18u32, 24] {
        let function = SparseFunction::random_signs(bits, 100, 1.0, &mut Streams::new(0).stream("function").rng(0));
        let table = Noisy { function: &function, sigma: 1.0, seed: 0 }.table();
        for algorithm in [Algorithm::Nso, Algorithm::So] {
            let settings = Settings { algorithm, noise: Noise::Known(1.0), ..Settings::new(bits, 100) };
            group.bench_function(BenchmarkId::new(format!("{algorithm:?}"), bits), |b| {
                b.iter(|| transform(&mut Table::new::<f64>(&table[..], "table").unwrap(), &settings, stream, &silent));
            });
            let design = Design::draw(&settings, stream).unwrap();
            group.bench_function(BenchmarkId::new(format!("{algorithm:?}, looking up"), bits), |b| {
                b.iter(|| Bins::observe(&design, &mut Table::new::<f64>(&table[..], "table").unwrap()));
            });
            let bins = Bins::observe(&design, &mut Table::new::<f64>(&table[..], "table").unwrap()).unwrap();
            group.bench_function(BenchmarkId::new(format!("{algorithm:?}, peeling"), bits), |b| {
                b.iter(|| recover(&design, bins.clone(), &settings, &silent));
            });
        }
        group.bench_function(BenchmarkId::new("full", bits), |b| {
            b.iter(|| full::spectrum(&mut Table::new::<f64>(&table[..], "table").unwrap(), bits, &silent));
        });
    }
    group.finish();
}

criterion_group!(benches, spright);
criterion_main!(benches);
