//! Criterion benches of sparsity-constrained transport: one evaluation of each objective (the inner kernel, bound by
//! reading the cost once), and whole solves.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ndarray::Array2;
use offprint_core::Progress;
use offprint_core::random::Streams;
use offprint_transport::exact::exact;
use offprint_transport::sparse_ot::routing::router_problem;
use offprint_transport::sparse_ot::{Formulation, Objective, Problem, Regulariser, Settings, Solver, solve};
use rand::RngExt;
use std::hint::black_box;

fn random(m: usize, n: usize) -> Array2<f64> {
    let mut rng = Streams::new(0).stream("bench").rng(0);
    Array2::from_shape_simple_fn((m, n), || rng.random::<f64>())
}

fn evaluations(c: &mut Criterion) {
    let n = 1000;
    let problem = Problem::uniform(random(n, n).view()).expect("a valid problem");
    let mut group = c.benchmark_group("evaluation-1000");
    group.throughput(Throughput::Bytes((8 * n * n) as u64));
    let sparse = Regulariser::Sparse { gamma: 0.1, k: 4 };
    let quadratic = Regulariser::Quadratic { gamma: 0.1 };
    for (name, regulariser, formulation) in [
        ("sparse-dual", sparse, Formulation::Dual),
        ("sparse-semi-dual", sparse, Formulation::SemiDual),
        ("quadratic-dual", quadratic, Formulation::Dual),
        ("quadratic-semi-dual", quadratic, Formulation::SemiDual),
        ("entropic-semi-dual", Regulariser::Entropic { gamma: 0.1 }, Formulation::SemiDual),
    ] {
        // Near the optimum, where evaluations are made.
        let settings = Settings { solver: Solver::Lbfgs, iterations: 50, formulation, ..Settings::default() };
        let solution = solve(&problem, regulariser, &settings, &Progress::silent()).expect("a valid problem");
        let mut x = solution.alpha.to_vec();
        if formulation == Formulation::Dual {
            x.extend(&solution.beta);
        }
        let mut objective = Objective::new(&problem, regulariser, formulation);
        let mut gradient = vec![0.0; x.len()];
        group.bench_function(name, |b| b.iter(|| objective.evaluate(black_box(&x), &mut gradient)));
    }
    group.finish();
}

fn solves(c: &mut Criterion) {
    let mut group = c.benchmark_group("solve");
    group.sample_size(10);
    let problem = Problem::uniform(random(500, 500).view()).expect("a valid problem");
    group.bench_function("exact-500", |b| b.iter(|| exact(problem.cost(), problem.a(), problem.b())));
    let sparse = Regulariser::Sparse { gamma: 0.1, k: 4 };
    group.bench_function("certified-500", |b| {
        b.iter(|| solve(&problem, sparse, &Settings::default(), &Progress::silent()));
    });
    let layer = router_problem(random(4096, 32).view()).expect("finite scores");
    let capacity = Regulariser::Sparse { gamma: 0.1, k: 160 };
    let rough = Settings { solver: Solver::Lbfgs, iterations: 50, gradient_tolerance: 1e-6, ..Settings::default() };
    group.bench_function("router-4096x32", |b| b.iter(|| solve(&layer, capacity, &rough, &Progress::silent())));
    group.finish();
}

criterion_group!(benches, evaluations, solves);
criterion_main!(benches);
