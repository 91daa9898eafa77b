//! Kernels of interpolants: exact fields, the Fokker–Planck step, a batch of training pairs.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use offprint_core::Progress;
use offprint_core::random::Streams;
use offprint_generate::interpolants::fokker_planck::Line;
use offprint_generate::interpolants::objective::{Batch, Target};
use offprint_generate::interpolants::{Coupling, ExactFields, Fields, Interpolant, Joint, Pairs, examples};
use offprint_generate::{Gamma, normals};
use std::hint::black_box;

fn exact_fields(c: &mut Criterion) {
    let stream = Streams::new(0).stream("bench");
    let path = Interpolant::named("linear", Gamma::Brownian { scale: 1.0 }).unwrap();
    let mut group = c.benchmark_group("velocity and score of a mixture");
    for (name, (start, end)) in [("6 pairs, d=1", examples::line()), ("3 pairs, d=2", examples::plane(stream))]
        .map(|(name, laws)| (name, laws.unwrap()))
    {
        let fields = ExactFields::new(path.clone(), Joint::independent(&start, &end).unwrap()).unwrap();
        let x = normals(10_000, fields.dim(), stream, 0) * 3.0;
        group.throughput(Throughput::Elements(10_000));
        group.bench_function(name, |b| b.iter(|| fields.both(black_box(x.view()), 0.4).unwrap()));
    }
    group.finish();
}

fn fokker_planck(c: &mut Criterion) {
    let line = Line::new(-11.0, 11.0, 2201).unwrap();
    let start: Vec<f64> = line.centres().iter().map(|x| (-0.5 * x * x).exp()).collect();
    let drift: Vec<f64> = line.edges().iter().map(|x| -x).collect();
    let mut group = c.benchmark_group("Fokker–Planck");
    group.throughput(Throughput::Elements(10 * 2201));
    group.bench_function("10 steps on 2201 cells", |b| {
        b.iter(|| line.evolve(black_box(&start), (0.0, 0.01, 10), |_| 0.5, |_| Ok(drift.clone())).unwrap());
    });
    group.finish();
}

fn batches(c: &mut Criterion) {
    let stream = Streams::new(0).stream("bench");
    let path = Interpolant::named("linear", Gamma::Brownian { scale: 1.0 }).unwrap();
    let data = |name: &str| examples::checkerboard(10_000, Streams::new(0).stream(name));
    let pairs = Pairs::tables(data("x0"), data("x1"), Coupling::Independent, &Progress::silent()).unwrap();
    let mut group = c.benchmark_group("training pairs");
    group.throughput(Throughput::Elements(2 * 512));
    group.bench_function("512 pairs and their mirrors, d=2", |b| {
        b.iter(|| {
            let targets = [Target::Velocity, Target::Latent];
            Batch::draw(&path, &pairs, &targets, black_box((0, 512, (1e-3, 0.999))), stream).unwrap()
        });
    });
    group.finish();
}

criterion_group!(benches, exact_fields, fokker_planck, batches);
criterion_main!(benches);
