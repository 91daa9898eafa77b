//! The learner beside a grid search.

use crate::batch_hessian::problem::{BATCH, Problem, curvature};
use crate::batch_hessian::{Floor, Learner, SampledMatrix, Sampling};
use crate::network::Matrix;
use crate::{lanczos, vector};
use candle_core::DType;
use offprint_core::random::Streams;
use offprint_core::{Progress, Result, Run, Table};
use rayon::prelude::*;

/// Learning rates of the grid.
const RATES: [f64; 8] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0];
/// Momenta of the grid.
const MOMENTA: [f64; 3] = [0.0, 0.5, 0.9];

/// How the learner looks at the curvature.
#[derive(Debug, Clone, Copy)]
struct Schedule {
    /// Epochs between two looks.
    every: u64,
    /// Samples of the batch whose Hessian is looked at.
    batch: usize,
    /// Lanczos steps.
    steps: usize,
}

/// Forward passes that a product with a Hessian and a gradient cost, a sample.
const PRODUCT: f64 = 4.0;
const GRADIENT: f64 = 3.0;

/// The learners that are compared; the claims are about the default.
const VARIANTS: [(&str, Learner); 4] = [
    ("bulk's edge", Learner { floor: Floor::BulkEdge, safety: 1.0 }),
    ("bulk's edge, halved", Learner { floor: Floor::BulkEdge, safety: 0.5 }),
    ("smallest", Learner { floor: Floor::Smallest, safety: 1.0 }),
    ("smallest, halved", Learner { floor: Floor::Smallest, safety: 0.5 }),
];

type Make = fn(Streams, DType) -> Result<Problem>;

pub fn measure(run: &mut Run) -> Result<()> {
    let epochs: u64 = run.scale().pick(3, 20, 20);
    let seeds: u64 = run.scale().pick(1, 3, 5);
    let looks = Schedule { every: 7, batch: BATCH, steps: 5 };
    let problems: [(&str, &str, Make); 2] =
        [("digits", "learner-digits", Problem::digits), ("breast cancer", "learner-cancer", Problem::cancer)];
    let progress = run.progress();
    let mut cost = 0.0f64;
    let (mut rows, mut variants) = (Vec::new(), Vec::new());
    for (name, id, make) in problems {
        let streams = |seed| run.stream("learner").nested(seed);
        progress.begin(&format!("grid search on {name}"), seeds * (RATES.len() * MOMENTA.len()) as u64);
        // Mean final loss over seeds, for each pair of the grid.
        let pairs: Vec<(f64, f64)> = RATES.iter().flat_map(|&rate| MOMENTA.map(|momentum| (rate, momentum))).collect();
        let losses: Vec<f64> = pairs
            .par_iter()
            .map(|&pair| {
                let mut total = 0.0;
                for seed in 0..seeds {
                    total += make(streams(seed), DType::F32)?.heavy_ball(epochs, |_, _| Ok(pair))?;
                    progress.advance(1)?;
                }
                Ok(total / seeds as f64)
            })
            .collect::<Result<_>>()?;
        progress.finish();
        let best = (0..pairs.len()).min_by(|&a, &b| losses[a].total_cmp(&losses[b])).expect("the grid is not empty");
        let (mut own, mut chosen) = (f64::INFINITY, Vec::new());
        for (variant, learner) in VARIANTS {
            let mut loss = 0.0;
            let mut rates = Vec::new();
            for seed in 0..seeds {
                let problem = make(streams(seed), DType::F32)?;
                let (last, picked) = learn(&problem, learner, looks, epochs, streams(seed), &progress)?;
                loss += last / seeds as f64;
                rates = picked;
            }
            variants.push((name, variant, loss / losses[best], rates[rates.len() - 1]));
            if learner == Learner::default() {
                (own, chosen) = (loss, rates);
            }
        }
        let n = problems_size(make, streams(0))?;
        let products = (chosen.len() * looks.steps * looks.batch.min(n)) as f64;
        cost = cost.max(PRODUCT * products / (GRADIENT * (epochs as usize * n) as f64));
        let (rate, momentum) = pairs[best];
        let words = format!(
            "{epochs} epochs, batches of {BATCH}, {seeds} seeds: learner {own:.4}, best of the grid {:.4} at rate {rate}, \
             momentum {momentum}; the learner's last rates: {chosen:.3?}",
            losses[best]
        );
        run.claim(id, own / losses[best], words)?;
        rows.push((name, own, losses[best], rate, momentum));
    }
    let words = format!(
        "{} steps on {} samples every {} epochs; a product counted as {PRODUCT} forward passes, a gradient as {GRADIENT}",
        looks.steps, looks.batch, looks.every
    );
    run.claim("learner-cost", cost, words)?;
    run.table(
        Table::new(
            "learners",
            "Final training loss of each learner over the best of the grid, and what it chose last.",
        )
        .words("problem", variants.iter().map(|v| v.0))
        .words("μ", variants.iter().map(|v| v.1))
        .numbers("loss / best", "", variants.iter().map(|v| v.2))
        .numbers("rate", "", variants.iter().map(|v| v.3.0))
        .numbers("momentum", "", variants.iter().map(|v| v.3.1)),
    )?;
    run.table(
        Table::new("learner", "Final training loss: the learner beside the best of a grid of 8 rates and 3 momenta.")
            .words("problem", rows.iter().map(|r| r.0))
            .numbers("learner", "nat", rows.iter().map(|r| r.1))
            .numbers("best of grid", "nat", rows.iter().map(|r| r.2))
            .numbers("its rate", "", rows.iter().map(|r| r.3))
            .numbers("its momentum", "", rows.iter().map(|r| r.4)),
    )
}

fn problems_size(make: Make, streams: Streams) -> Result<usize> {
    Ok(make(streams, DType::F32)?.data.len())
}

/// Trains with the learner's rates: the final loss and what it chose at each look. The Hessian is that of one batch of
/// the training's own size, so that its λ₁ needs no correction.
fn learn(
    problem: &Problem,
    learner: Learner,
    looks: Schedule,
    epochs: u64,
    streams: Streams,
    progress: &Progress,
) -> Result<(f64, Vec<(f64, f64)>)> {
    let mut chosen = Vec::new();
    let loss = problem.heavy_ball(epochs, |epoch, problem| {
        if epoch % looks.every == 0 {
            let function = problem.function();
            let matrix = curvature::<f64>(&function, &problem.data, Matrix::Hessian)?;
            let n = matrix.samples();
            let samples = Sampling::WithoutReplacement.draw(looks.batch.min(n), n, streams.stream("looks"), epoch);
            let start: Vec<f64> = vector::gaussian(streams.stream("starts"), epoch, matrix.dim());
            let ritz = lanczos(&matrix.batch(samples)?, &start, looks.steps, progress)?.ritz()?;
            match learner.rates(&ritz, matrix.dim(), ritz.top().0) {
                Ok(rates) => chosen.push((rates.learning_rate, rates.momentum)),
                // Training that has diverged may stand on a plateau without curvature. It keeps its rates; the final
                // loss tells.
                Err(error) if chosen.is_empty() => return Err(error),
                Err(_) => {}
            }
        }
        Ok(*chosen.last().expect("the first epoch looks"))
    })?;
    Ok((loss, chosen))
}
