//! Where descent stops being stable: on one batch, and in training with batches of every size.

use crate::batch_hessian::problem::{Problem, curvature};
use crate::batch_hessian::{
    Draws, Law, LearningRates, Population, SampledGradients, SampledMatrix, Sampling, batch_ends, effective, whole,
};
use crate::network::Matrix;
use crate::operator::product;
use crate::{LinearOperator, lanczos, vector};
use candle_core::DType;
use offprint_core::figure::{Axis, Figure, Plot};
use offprint_core::random::Stream;
use offprint_core::{Progress, Result, Run, Table};
use offprint_math::stats::{log_log_slope, mean};
use offprint_nn::computation;
use offprint_nn::optim::{Adam, AdamSettings, Optimizer, Sgd, SgdSettings};
use rayon::prelude::*;

/// Steps after which a small displacement has either grown or shrunk.
const STEPS: usize = 40;
/// Halvings of the interval that the threshold is searched in.
const HALVINGS: usize = 10;

/// The rate at which descent on one batch begins to diverge, beside 2/λ₁(B): on the quadratic model and on the loss.
pub fn thresholds(run: &mut Run) -> Result<()> {
    let (epochs, batches): (u64, Vec<usize>) =
        run.scale().pick((2, vec![32]), (20, vec![16, 64, 256]), (20, vec![16, 64, 256, 1024]));
    let progress = run.progress();
    let problem = Problem::digits(run.streams(), DType::F64)?;
    problem.train(epochs, &progress)?;
    let function = problem.function();
    let matrix = curvature::<f64>(&function, &problem.data, Matrix::Hessian)?;
    let weights: Vec<f64> = problem.network.params().flat()?;
    let stream = run.stream("one batch");
    let mut worst = [0.0f64; 2];
    let mut words = Vec::new();
    progress.begin("thresholds on one batch", 2 * batches.len() as u64);
    for (index, &batch) in batches.iter().enumerate() {
        let chosen = Sampling::WithoutReplacement.draw(batch, problem.data.len(), stream, index as u64);
        let hessian = matrix.batch(chosen.clone())?;
        let start: Vec<f64> = vector::gaussian(stream.nested(0).stream("starts"), 0, hessian.dim());
        let found = lanczos(&hessian, &start, 60, &progress)?;
        let ritz = found.ritz()?;
        let (top, _) = ritz.top();
        let direction = found.vector(&ritz, ritz.values.len() - 1);
        let quadratic = threshold(top, &direction, |x| product(&hessian, x))?;
        progress.advance(1)?;
        // The gradient at the start is taken away: what is left is how a displacement from it moves.
        let still = matrix.gradient(&chosen)?;
        let mut moved = weights.clone();
        let nonlinear = threshold(top, &direction, |x| {
            moved.iter_mut().zip(weights.iter().zip(x)).for_each(|(m, (w, x))| *m = w + TINY * x);
            problem.network.params().set_flat(&moved)?;
            let mut change = matrix.gradient(&chosen)?;
            change.iter_mut().zip(&still).for_each(|(g, still)| *g = (*g - still) / TINY);
            Ok(change)
        })?;
        problem.network.params().set_flat(&weights)?;
        progress.advance(1)?;
        for (worst, found) in worst.iter_mut().zip([quadratic, nonlinear]) {
            *worst = worst.max((found * top / 2.0 - 1.0).abs());
        }
        words.push(format!("B = {batch}: 2/λ₁ {:.4}, quadratic {quadratic:.4}, loss {nonlinear:.4}", 2.0 / top));
    }
    progress.finish();
    let how = format!("digits after {epochs} epochs, {STEPS} steps; {}", words.join("; "));
    run.claim("threshold-quadratic", worst[0], how.clone())?;
    run.claim("threshold-loss", worst[1], how)
}

/// The length of displacements on the loss, in weights that are of order 0.1.
const TINY: f64 = 1e-4;

/// The rate at which x ← x − α `force`(x) from x = v begins to grow along the unit vector v = `direction`, between half
/// and twice 2/`top`. Along other directions negative curvature makes it grow at every rate.
fn threshold(top: f64, direction: &[f64], mut force: impl FnMut(&[f64]) -> Result<Vec<f64>>) -> Result<f64> {
    let (mut stable, mut unstable) = (1.0 / top, 4.0 / top);
    for _ in 0..HALVINGS {
        let rate = (stable + unstable) / 2.0;
        let mut x = direction.to_vec();
        for _ in 0..STEPS {
            let step = force(&x)?;
            vector::add_scaled(&mut x, -rate, &step);
        }
        let along = vector::dot(&x, direction).abs();
        if along < 1.0 { stable = rate } else { unstable = rate }
    }
    Ok((stable + unstable) / 2.0)
}

/// The two optimisers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sgd,
    Adam,
}

impl Kind {
    fn optimizer(self, problem: &Problem, learning_rate: f64) -> Result<Box<dyn Optimizer>> {
        let vars = problem.network.params().vars();
        Ok(match self {
            Self::Sgd => {
                Box::new(Sgd::new(vars, SgdSettings { learning_rate, ..SgdSettings::default() }).map_err(computation)?)
            }
            Self::Adam => Box::new(
                Adam::new(vars, AdamSettings { learning_rate, ..AdamSettings::default() }).map_err(computation)?,
            ),
        })
    }

    /// Where the search begins, well above what is usable.
    fn highest(self) -> f64 {
        match self {
            Self::Sgd => 8.0,
            Self::Adam => 1.0,
        }
    }
}

/// The final loss above which a training counts as diverged.
const DIVERGED: f64 = 2.0;

/// The largest rate of a grid with the factor √2 from which a fresh network trains, coming from above.
fn largest_rate(kind: Kind, batch: usize, steps: u64, stream: Stream, seed: u64, progress: &Progress) -> Result<f64> {
    let mut rate = kind.highest();
    // Sixteen halvings down there is no rate left that could be called usable.
    for _ in 0..32 {
        progress.check()?;
        let problem = Problem::digits(stream.nested(seed), DType::F32)?;
        let mut optimizer = kind.optimizer(&problem, rate)?;
        let samples = stream.nested(seed).stream("samples");
        if problem.descend(&mut *optimizer, batch, steps, samples)? <= DIVERGED {
            break;
        }
        rate /= std::f64::consts::SQRT_2;
    }
    Ok(rate)
}

/// The largest usable rates of SGD and Adam over the batch size.
pub fn largest_rates(run: &mut Run) -> Result<()> {
    let (seeds, steps, batches): (u64, u64, Vec<usize>) = run.scale().pick(
        (1, 100, vec![4, 16, 64]),
        (3, 300, (1..=7).map(|k| 1 << k).collect()),
        (10, 300, (1..=9).map(|k| 1 << k).collect()),
    );
    let stream = run.stream("largest rates");
    let progress = run.progress();
    let work: Vec<(Kind, usize, u64)> = [Kind::Sgd, Kind::Adam]
        .into_iter()
        .flat_map(|kind| batches.iter().flat_map(move |&batch| (0..seeds).map(move |seed| (kind, batch, seed))))
        .collect();
    progress.begin("largest usable rates", work.len() as u64);
    let found: Vec<f64> = work
        .par_iter()
        .map(|&(kind, batch, seed)| {
            let rate = largest_rate(kind, batch, steps, stream, seed, &progress)?;
            progress.advance(1)?;
            Ok(rate)
        })
        .collect::<Result<_>>()?;
    progress.finish();
    // Geometric means over seeds: the grid is geometric.
    let rates = |kind: Kind| -> Vec<f64> {
        let of = |batch: usize| {
            let logs = work.iter().zip(&found).filter(|((k, b, _), _)| *k == kind && *b == batch);
            mean(&logs.map(|(_, rate)| rate.ln()).collect::<Vec<_>>()).exp()
        };
        batches.iter().map(|&batch| of(batch)).collect()
    };
    let (sgd, adam) = (rates(Kind::Sgd), rates(Kind::Adam));
    let sizes: Vec<f64> = batches.iter().map(|&batch| batch as f64).collect();
    let slope = |rates: &[f64], keep: &dyn Fn(f64) -> bool| {
        let kept: Vec<(f64, f64)> =
            sizes.iter().copied().zip(rates.iter().copied()).filter(|(b, _)| keep(*b)).collect();
        let (x, y): (Vec<f64>, Vec<f64>) = kept.into_iter().unzip();
        log_log_slope(&x, &y)
    };
    let how = |rates: &[f64]| {
        format!(
            "{seeds} seeds, {steps} steps, grid √2, diverged above a loss of {DIVERGED}: B = {batches:?}: {rates:.3?}"
        )
    };
    run.claim("sgd-small", slope(&sgd, &|b| b <= 16.0), how(&sgd))?;
    run.claim("sgd-large", slope(&sgd, &|b| b >= 16.0), how(&sgd))?;
    run.claim("adam-root", slope(&adam, &|_| true), how(&adam))?;
    let law = predicted(&batches, run)?;
    run.table(
        Table::new("largest-rates", "Largest usable learning rates, geometric means over seeds.")
            .integers("B", "", batches.iter().map(|&batch| batch as i64))
            .numbers("SGD", "", sgd.iter().copied())
            .numbers("2/λ₁′(B) at the start", "", law.iter().copied())
            .numbers("Adam", "", adam.iter().copied()),
    )?;
    let root =
        |rates: &[f64], power: f64| sizes.iter().map(|b| rates[0] * (b / sizes[0]).powf(power)).collect::<Vec<f64>>();
    run.figure(
        "largest-rates",
        Figure::new(
            "The largest usable learning rate",
            format!(
                "Digits from the start, {steps} steps on batches drawn with replacement. Dashed: growth like B, and \
                 like √B."
            ),
        )
        .columns(2)
        .panel(
            Plot::new(Axis::log("batch size B"), Axis::log("learning rate"))
                .titled("SGD")
                .line("largest usable", sizes.clone(), sgd.clone())
                .curve("2/λ₁′(B) at the start", sizes.clone(), law)
                .reference("∝ B", sizes.clone(), root(&sgd, 1.0)),
        )
        .panel(
            Plot::new(Axis::log("batch size B"), Axis::log("learning rate"))
                .titled("Adam")
                .line("largest usable", sizes.clone(), adam.clone())
                .reference("∝ √B", sizes.clone(), root(&adam, 0.5)),
        ),
    );
    Ok(())
}

/// 2/λ₁′(B) of a fresh network by the additive law, fitted at B = 64.
fn predicted(batches: &[usize], run: &Run) -> Result<Vec<f64>> {
    let progress = run.progress();
    let problem = Problem::digits(run.streams(), DType::F32)?;
    let function = problem.function();
    let matrix = curvature::<f32>(&function, &problem.data, Matrix::Hessian)?;
    let found = whole(&matrix.whole()?, 30, 1, run.stream("all data"), &progress)?;
    let draws = Draws { count: 8, sampling: Sampling::WithReplacement, steps: 30 };
    let fit = batch_ends(&matrix, 64, draws, run.stream("batches"), &progress)?;
    let rates = LearningRates {
        population: Population::of(&found),
        law: Law::Additive,
        variance: effective(fit.top.mean, found.ends.top, fit.effective),
        remaining: found.remaining(10),
        samples: problem.data.len(),
        sampling: Sampling::WithReplacement,
    };
    batches.iter().map(|&batch| rates.sgd(batch, 0.0)).collect()
}
