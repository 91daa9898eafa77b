//! One training step of a light Schrödinger bridge, and one evaluation of its drift, at the paper's sizes.

use criterion::{Criterion, criterion_group, criterion_main};
use ndarray::Array2;
use offprint_core::random::Streams;
use offprint_transport::lightsb::examples::{Normal, draw};
use offprint_transport::lightsb::{Objective, Options, Spread, Trainer};
use std::hint::black_box;

fn steps(c: &mut Criterion) {
    let mut group = c.benchmark_group("lightsb");
    let cases = [
        (2, 500, Spread::Diagonal, Objective::Likelihood),
        (16, 50, Spread::Diagonal, Objective::Likelihood),
        (64, 50, Spread::Diagonal, Objective::Likelihood),
        (512, 10, Spread::Diagonal, Objective::Likelihood),
        (16, 50, Spread::Full, Objective::Likelihood),
        (16, 50, Spread::Diagonal, Objective::Matching),
    ];
    for (d, components, spread, objective) in cases {
        let streams = Streams::new(0);
        let mut rng = streams.stream("data").rng(0);
        let (x, y): (Array2<f64>, Array2<f64>) = (draw(&Normal(d), 2000, &mut rng), draw(&Normal(d), 2000, &mut rng));
        let options = Options { components, spread, objective, ..Options::default() };
        let mut trainer = Trainer::new(y.view(), options, streams).expect("options in range");
        group.bench_function(format!("step d={d} K={components} {spread:?} {objective:?}"), |b| {
            b.iter(|| trainer.step(&x.view(), &y.view()).expect("finite loss"));
        });
        if (d, objective) == (2, Objective::Likelihood) {
            let bridge = trainer.bridge();
            group.bench_function("drift of 2000 points d=2 K=500", |b| {
                b.iter(|| bridge.drift(black_box(x.view()), 0.5).expect("time below 1"));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, steps);
criterion_main!(benches);
