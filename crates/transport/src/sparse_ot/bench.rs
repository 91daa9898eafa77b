//! Workloads timed beside POT, one thread each.

use super::study::clouds;
use super::{Problem, Regulariser, Settings, Solver, SparseOt, solve};
use crate::exact::exact;
use offprint_core::bench::{Agreement, Case};
use offprint_core::random::Streams;
use offprint_core::{Array, Bench, Error, Progress, Result};
use rayon::{ThreadPool, ThreadPoolBuilder};
use serde_json::json;
use std::sync::Arc;

impl Bench for SparseOt {
    fn cases(seed: u64) -> Result<Vec<Case>> {
        let one_thread = ThreadPoolBuilder::new()
            .num_threads(1)
            .build()
            .map_err(|e| Error::Numerical(format!("no thread for the bench: {e}")))?;
        let one_thread = Arc::new(one_thread);
        let sparse = Regulariser::Sparse { gamma: 0.1, k: 4 };
        let quadratic = Regulariser::Quadratic { gamma: 0.1 };
        let automatic = Settings::default();
        let lbfgs = Settings { solver: Solver::Lbfgs, iterations: 5000, ..Settings::default() };
        Ok(vec![
            dual(seed, "dual-500", 500, sparse, automatic, 0.2, &one_thread)?,
            dual(seed, "dual-1000", 1000, sparse, automatic, 0.1, &one_thread)?,
            dual(seed, "semi-dual-500", 500, sparse, automatic, 0.2, &one_thread)?,
            dual(seed, "quadratic-500", 500, quadratic, lbfgs, 0.2, &one_thread)?,
            network_simplex(seed, 1000, &one_thread)?,
        ])
    }
}

/// Reaches at least the dual value at which POT stops with its defaults (tolerance 1e-9, 500 iterations).
fn dual(
    seed: u64,
    name: &'static str,
    n: usize,
    regulariser: Regulariser,
    settings: Settings,
    goal: f64,
    threads: &Arc<ThreadPool>,
) -> Result<Case> {
    let cost = clouds(Streams::new(seed), 0, n);
    let problem = Problem::uniform(cost.view())?;
    let k = regulariser.most_nonzeros(n);
    let threads = Arc::clone(threads);
    Ok(Case {
        name,
        says: format!("dual value of {n} × {n} points, γ = 0.1, at most {k} non-zeros per column, one thread"),
        inputs: vec![("cost", Array::from(cost))],
        settings: json!({ "gamma": regulariser.gamma(), "k": k }),
        work: Box::new(move || {
            let solution = threads.install(|| solve(&problem, regulariser, &settings, &Progress::silent()))?;
            Ok(vec![solution.dual])
        }),
        agreement: Agreement::AtLeast(1e-7),
        goal: Some(goal),
    })
}

fn network_simplex(seed: u64, n: usize, threads: &Arc<ThreadPool>) -> Result<Case> {
    let cost = clouds(Streams::new(seed), 0, n);
    let problem = Problem::uniform(cost.view())?;
    let threads = Arc::clone(threads);
    Ok(Case {
        name: "exact-1000",
        says: format!("exact transport of {n} × {n} points, one thread"),
        inputs: vec![("cost", Array::from(cost))],
        settings: json!({}),
        work: Box::new(move || {
            let found = threads.install(|| exact(problem.cost(), problem.a(), problem.b()))?;
            Ok(vec![found.value])
        }),
        agreement: Agreement::Within(1e-9),
        goal: None,
    })
}
