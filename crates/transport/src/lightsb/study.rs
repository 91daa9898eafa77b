//! The claims, measured.

use super::examples::{Ends, Normal, benchmark_bridge, draw, mixture_bridge, swiss_roll};
use super::fit::{Options, Samples, Spread, Trainer};
use super::gaussian::gaussian_plan;
use super::measure::{Unexplained, energy_distance, unexplained};
use super::{LightBridge, LightSb};
use crate::sinkhorn::{self, half_squared_distances, sinkhorn};
use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2, Axis, array, s};
use offprint_core::figure::{Axis as Scale, Plot};
use offprint_core::random::{Rng, Stream};
use offprint_core::{Figure, Progress, Result, Run, Study, Table};
use offprint_math::{linalg, stats};
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_distr::StandardNormal;
use rayon::prelude::*;
use std::time::Instant;

impl Study for LightSb {
    fn measure(run: &mut Run) -> Result<()> {
        gaussian(run)?;
        benchmark(run)?;
        seconds(run)?;
        loss_is_kl(run)?;
        simulated(run)?;
        universality(run)?;
        generalisation(run)?;
        digits_middle(run)?;
        run.not_measured(
            "msci-middle",
            "the single-cell files are not part of this program (the licence of the underlying data was not checked); \
             fit your copy of the days with `--x0 full_cite_pcas_50_day_2.npy --x1 full_cite_pcas_50_day_4.npy \
             --normalise scale --times 0.5`",
        )
    }
}

/// Fits without telling each step: several fits run side by side.
fn fitted(
    source: &impl Samples,
    target: &impl Samples,
    options: Options,
    steps: u64,
    stream: Stream,
    progress: &Progress,
) -> Result<LightBridge> {
    let centres = draw(target, options.components.max(1000), &mut stream.rng(0));
    let mut trainer = Trainer::new(centres.view(), options, stream.nested(1))?;
    rayon::scope(|_| {
        for step in 0..steps {
            trainer.step(source, target)?;
            if step % 64 == 0 {
                progress.check()?;
            }
        }
        Ok(())
    })
    .map(|()| trainer.into_bridge())
}

/// All rows of an array as one batch: descent without the noise of minibatches.
struct Whole<'a>(ArrayView2<'a, f64>);

impl Samples for Whole<'_> {
    fn dim(&self) -> usize {
        self.0.ncols()
    }

    fn fill(&self, _: &mut Rng, mut batch: ArrayViewMut2<'_, f64>) {
        batch.assign(&self.0);
    }
}

/// Claim 1: one full component between Gaussians.
///
/// The bridge sought is the minimiser of the loss over the samples, so the claim is measured with all of them in every
/// batch. The last iterate of training with small batches at a constant rate, as the authors train, scatters about it;
/// the table shows that too.
fn gaussian(run: &mut Run) -> Result<()> {
    let samples = 20_000;
    let (descent, steps) = run.scale().pick((250, 500), (1500, 10_000), (3000, 10_000));
    let targets = [array![[4.0]], array![[0.09]], array![[2.0, 0.8], [0.8, 1.0]]];
    let mut names = Vec::new();
    // For each target: matrix and covariance with whole batches, then with small ones.
    let mut errors: [Vec<f64>; 4] = Default::default();
    for (case, covariance) in targets.into_iter().enumerate() {
        let d = covariance.nrows();
        let stream = run.stream("gaussian").nested(case as u64).stream("case");
        let x = draw(&Normal(d), samples, &mut stream.rng(10));
        let root = linalg::cholesky(covariance.view())?;
        let y = linalg::matmul(draw(&Normal(d), samples, &mut stream.rng(11)).view(), root.t());
        let small = Options {
            epsilon: 1.0,
            components: 1,
            spread: Spread::Full,
            initial_spread: 1.0,
            learning_rate: 3e-3,
            ..Options::default()
        };
        let whole = Options { batch: samples, learning_rate: 1e-2, ..small.clone() };
        let mut trainer = Trainer::new(y.view(), whole, stream.nested(2))?;
        trainer.run(&Whole(x.view()), &Whole(y.view()), descent, &run.progress(), |_, _, _| {})?;
        let zeros = Array1::zeros(d);
        let exact = gaussian_plan(zeros.view(), Array2::eye(d).view(), zeros.view(), covariance.view(), 1.0)?;
        let stochastic = fitted(&x.view(), &y.view(), small, steps, stream, &run.progress())?;
        let norm = |m: &Array2<f64>| m.iter().map(|x| x * x).sum::<f64>().sqrt();
        for (pair, bridge) in errors.chunks_mut(2).zip([trainer.bridge(), &stochastic]) {
            // The conditional law is N(r + S x, ε S).
            let found = bridge.spread(0);
            pair[0].push(100.0 * norm(&(&found - &exact.gain)) / norm(&exact.gain));
            pair[1].push(100.0 * norm(&(found * bridge.epsilon() - &exact.covariance)) / norm(&exact.covariance));
        }
        names.push(format!("{:?}", covariance.iter().collect::<Vec<_>>()));
    }
    let whole = errors[..2].iter().flatten().copied().fold(0.0, f64::max);
    let worst = errors[2..].iter().flatten().copied().fold(0.0, f64::max);
    let [gain, covariance, small_gain, small_covariance] = errors;
    run.table(
        Table::new("gaussian", "Error beside the closed form, for each target covariance.")
            .words("target covariance", names)
            .numbers("conditional matrix", "%", gain)
            .numbers("conditional covariance", "%", covariance)
            .numbers("matrix after batches of 128", "%", small_gain)
            .numbers("covariance after batches of 128", "%", small_covariance),
    )?;
    let how = format!(
        "three targets, {samples} samples of each side, {steps} steps of 128 at the constant rate 0.003; with all samples \
         in each of {descent} steps, which leaves the error of the samples, it is at most {whole:.1} % off"
    );
    run.claim("gaussian", worst, how)
}

/// Claim 2: benchmark pairs with known plan.
fn benchmark(run: &mut Run) -> Result<()> {
    let dims: &[usize] = run.scale().pick(&[2, 16, 64], &[2, 16, 64], &[2, 16, 64, 128]);
    let (steps, points, conditionals) = run.scale().pick((60, 100, 20), (10_000, 2000, 1000), (10_000, 5000, 1000));
    // ε with the learning rate that the authors use at it.
    let settings = [(0.1, 1e-3), (1.0, 3e-3), (10.0, 6e-2)];
    let cases: Vec<(usize, f64, f64)> =
        dims.iter().flat_map(|&d| settings.iter().map(move |&(epsilon, rate)| (d, epsilon, rate))).collect();
    let progress = run.progress();
    progress.begin("benchmark pairs", cases.len() as u64);
    let stream = run.stream("benchmark");
    // The costly ones first, so that no thread is left alone with one at the end.
    let results: Vec<Unexplained> = cases
        .par_iter()
        .rev()
        .map(|&(d, epsilon, learning_rate)| {
            let stream = stream.nested(d as u64).stream("pair").nested((10.0 * epsilon) as u64).stream("epsilon");
            let truth = benchmark_bridge(d, epsilon, stream.nested(2).stream("truth"))?;
            let options = Options { epsilon, components: 50, initial_spread: 1.0, learning_rate, ..Options::default() };
            let target = Ends::new(&truth, Normal(d));
            let bridge = fitted(&Normal(d), &target, options, steps, stream, &progress)?;
            let x = draw(&Normal(d), points, &mut stream.rng(3));
            let result = unexplained(&bridge.plan(), &truth.plan(), x.view(), conditionals)?;
            progress.advance(1)?;
            Ok(result)
        })
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .rev()
        .collect();
    progress.finish();
    run.table(
        Table::new("benchmark", "Unexplained variance of fitted plans beside the truth.")
            .integers("dimension", "", cases.iter().map(|c| c.0 as i64))
            .numbers("epsilon", "", cases.iter().map(|c| c.1))
            .numbers("cBW-UVP", "%", results.iter().map(|r| r.conditional))
            .numbers("BW-UVP", "%", results.iter().map(|r| r.marginal)),
    )?;
    let mut plot = Plot::new(Scale::log("dimension"), Scale::log("cBW-UVP").unit("%"));
    for (epsilon, _) in settings {
        let of = |c: &&((usize, f64, f64), Unexplained)| c.0.1 == epsilon;
        let both: Vec<_> = cases.iter().copied().zip(results.iter().copied()).collect();
        let (x, y) = both.iter().filter(of).map(|(c, r)| (c.0 as f64, r.conditional)).unzip();
        plot = plot.line(format!("ε = {epsilon}"), x, y);
    }
    let caption = "Part of the target's variance that the fitted conditional laws leave unexplained, K = 50.";
    run.figure("benchmark", Figure::new("Benchmark pairs with known plan", caption).panel(plot));
    let how = format!("{steps} steps of 128 fresh samples, {conditionals} test points, closed-form moments");
    for (id, d) in [("benchmark-d2", 2), ("benchmark-d16", 16), ("benchmark-d64", 64)] {
        let of_dim = cases.iter().zip(&results).filter(|(c, _)| c.0 == d);
        run.claim(id, of_dim.map(|(_, r)| r.conditional).fold(0.0, f64::max), how.as_str())?;
    }
    run.claim("benchmark-target", results.iter().map(|r| r.marginal).fold(0.0, f64::max), how)
}

/// Claim 3: the time that training takes.
fn seconds(run: &mut Run) -> Result<()> {
    let steps = run.scale().pick(40, 10_000, 10_000);
    let published = 10_000.0;
    let threads = rayon::current_num_threads();
    let how = |seconds: f64| match steps {
        10_000 => format!("{threads} threads"),
        _ => format!("{threads} threads; {steps} steps took {seconds:.3} s, scaled up"),
    };
    let stream = run.stream("seconds");
    let truth = benchmark_bridge(16, 1.0, stream)?;
    let ends = Ends::new(&truth, Normal(16));
    let (x, y) = (draw(&Normal(16), 10_000, &mut stream.rng(1)), draw(&ends, 10_000, &mut stream.rng(2)));
    let options =
        Options { epsilon: 1.0, components: 50, initial_spread: 1.0, learning_rate: 3e-3, ..Options::default() };
    let started = Instant::now();
    fitted(&x.view(), &y.view(), options, steps, stream, &run.progress())?;
    let seconds = started.elapsed().as_secs_f64();
    run.claim("seconds-d16", seconds * published / steps as f64, how(seconds))?;

    let x = draw(&Normal(512), 2000, &mut stream.rng(3));
    let y = Array2::from_shape_fn((2000, 512), |(i, j)| 0.5 * x[[(i * 7 + 1) % 2000, j]] + ((i + j) % 2) as f64);
    let options = Options { components: 10, ..Options::default() };
    let started = Instant::now();
    fitted(&x.view(), &y.view(), options, steps, stream, &run.progress())?;
    let seconds = started.elapsed().as_secs_f64();
    run.claim("seconds-d512", seconds * published / steps as f64, how(seconds))
}

/// A pair in one dimension: from N(0, 1), with three modes.
fn line_pair(epsilon: f64) -> Result<LightBridge> {
    let weights = array![0.5, 0.2, 0.3];
    let means = array![[-2.0], [0.5], [2.5]];
    mixture_bridge(epsilon, weights.view(), means.view(), array![[0.3], [0.1], [0.5]].view())
}

/// Claim 4: L − L* = E KL(π*(·|x) | π(·|x)), everything by quadrature.
fn loss_is_kl(run: &mut Run) -> Result<()> {
    let truth = line_pair(0.5)?;
    let (across, along) = run.scale().pick((241, 801), (601, 2401), (601, 2401));
    let grid =
        |n: usize, edge: f64| Array2::from_shape_fn((n, 1), |(i, _)| edge * (2.0 * i as f64 / (n - 1) as f64 - 1.0));
    // All integrands vanish to rounding at the edges, where the trapezoidal rule converges faster than any power.
    let (x, y) = (grid(across, 9.0), grid(along, 16.0));
    let (hx, hy) = (18.0 / (across - 1) as f64, 32.0 / (along - 1) as f64);
    let p0 = x.column(0).mapv(|x| hx * (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt());
    // log π(y | x) on the whole grid.
    let log_plan = |bridge: &LightBridge| -> Result<Array2<f64>> {
        let (c, v) = (bridge.log_c(x.view())?, bridge.log_v(y.view())?);
        let value = |(i, j): (usize, usize)| x[[i, 0]] * y[[j, 0]] / bridge.epsilon() + v[j] - c[i];
        Ok(Array2::from_shape_fn((across, along), value))
    };
    let log_true = log_plan(&truth)?;
    let plan = log_true.mapv(f64::exp) * hy;
    let p1 = p0.dot(&plan);
    let loss = |bridge: &LightBridge| -> Result<f64> {
        Ok(p0.dot(&bridge.log_c(x.view())?) - p1.dot(&bridge.log_v(y.view())?))
    };
    let best = loss(&truth)?;
    let mut worst: f64 = 0.0;
    let mut rng = run.stream("loss is KL").rng(0);
    for _ in 0..10 {
        let mut normal = |n: usize| Array1::from_shape_fn(n, |_| rng.sample::<f64, _>(StandardNormal));
        let centres = (normal(3) * 1.5).insert_axis(Axis(1));
        let spreads = (normal(3) * 0.4).mapv(f64::exp).insert_axis(Axis(1));
        let bridge = LightBridge::diagonal(0.5, normal(3), centres, spreads)?;
        let log_fitted = log_plan(&bridge)?;
        let divergence = p0.dot(&(&plan * &(&log_true - &log_fitted)).sum_axis(Axis(1)));
        worst = worst.max((loss(&bridge)? - best - divergence).abs());
    }
    run.claim("loss-is-kl", worst, format!("trapezoidal rule on {across} × {along} points; ε = 0.5"))
}

/// Claim 5: sampling in closed form beside simulation of the process.
fn simulated(run: &mut Run) -> Result<()> {
    let (steps, samples, moves) = run.scale().pick((300, 1000, 50), (10_000, 8000, 500), (10_000, 8000, 500));
    let stream = run.stream("simulated");
    let truth = benchmark_bridge(2, 1.0, stream.nested(2).stream("truth"))?;
    let options =
        Options { epsilon: 1.0, components: 50, initial_spread: 1.0, learning_rate: 3e-3, ..Options::default() };
    let bridge = fitted(&Normal(2), &Ends::new(&truth, Normal(2)), options, steps, stream, &run.progress())?;
    let x = draw(&Normal(2), samples, &mut stream.rng(3));
    let ends = bridge.plan().sample(x.view(), run.stream("ends"))?;
    let middle = bridge.between(x.view(), ends.view(), 0.5, run.stream("middle"))?;
    // Other starts for the simulation: the two samples are independent.
    let starts = draw(&Normal(2), samples, &mut stream.rng(4));
    let paths = bridge.simulate(starts.view(), moves, moves / 2, run.stream("paths"), &run.progress())?;
    let how = format!("{samples} samples of each, {moves} Euler–Maruyama steps, fitted for {steps} steps");
    let distance = energy_distance(ends.view(), paths.slice(s![.., 2, ..]))?;
    run.claim("simulated-end", distance, how.as_str())?;
    let distance = energy_distance(middle.view(), paths.slice(s![.., 1, ..]))?;
    run.claim("simulated-middle", distance, how)
}

/// The swiss roll as a distribution.
struct SwissRoll;

impl Samples for SwissRoll {
    fn dim(&self) -> usize {
        2
    }

    fn fill(&self, rng: &mut Rng, mut batch: ArrayViewMut2<'_, f64>) {
        let roll = swiss_roll(batch.nrows(), rng);
        batch.assign(&roll);
    }
}

/// Claim 6: held-out loss for more and more components.
fn universality(run: &mut Run) -> Result<()> {
    let (steps, held_out) = run.scale().pick((300, 2000), (20_000, 20_000), (20_000, 100_000));
    let components: &[usize] = run.scale().pick(&[1, 5, 20, 100], &[1, 5, 20, 100, 500], &[1, 5, 20, 100, 500]);
    let stream = run.stream("universality");
    let (x, y) = (draw(&Normal(2), held_out, &mut stream.rng(1)), draw(&SwissRoll, held_out, &mut stream.rng(2)));
    let progress = run.progress();
    progress.begin("swiss roll for each K", components.len() as u64);
    let losses: Vec<f64> = components
        .par_iter()
        .rev()
        .map(|&components| {
            let options = Options { components, ..Options::default() };
            let bridge = fitted(&Normal(2), &SwissRoll, options, steps, stream, &progress)?;
            progress.advance(1)?;
            bridge.loss(x.view(), y.view())
        })
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .rev()
        .collect();
    progress.finish();
    run.table(
        Table::new("universality", "Held-out loss of the swiss roll for each number of components.")
            .integers("components", "", components.iter().map(|&k| k as i64))
            .numbers("held-out loss", "", losses.iter().copied()),
    )?;
    let counts = components.iter().map(|&k| k as f64).collect();
    let plot = Plot::new(Scale::log("components K"), Scale::new("held-out loss")).line("", counts, losses.clone());
    run.figure("universality", Figure::new("More components", "Lower is nearer to the true bridge.").panel(plot));
    let largest = losses[..4].windows(2).map(|w| w[1] - w[0]).fold(f64::NEG_INFINITY, f64::max);
    run.claim("universality", largest, format!("{steps} steps of 128 fresh samples, {held_out} held out"))
}

/// Claim 7: the gap between test and training loss for more and more samples.
fn generalisation(run: &mut Run) -> Result<()> {
    let (trials, steps, test) = run.scale().pick((6, 200, 20_000), (24, 2000, 200_000), (100, 5000, 1_000_000));
    let sizes: &[usize] =
        run.scale().pick(&[100, 1000, 10_000], &[100, 316, 1000, 3162, 10_000], &[100, 316, 1000, 3162, 10_000]);
    let truth = line_pair(0.5)?;
    let target = Ends::new(&truth, Normal(1));
    let stream = run.stream("generalisation");
    let (x, y) = (draw(&Normal(1), test, &mut stream.rng(0)), draw(&target, test, &mut stream.rng(1)));
    let progress = run.progress();
    progress.begin("generalisation", (trials * sizes.len()) as u64);
    let gaps: Vec<Vec<f64>> = sizes
        .iter()
        .map(|&n| {
            (0..trials)
                .into_par_iter()
                .map(|trial| {
                    let stream = stream.nested(trial as u64).stream("trial").nested(n as u64).stream("size");
                    let train = (draw(&Normal(1), n, &mut stream.rng(0)), draw(&target, n, &mut stream.rng(1)));
                    let options = Options { epsilon: 0.5, components: 5, learning_rate: 1e-2, ..Options::default() };
                    let mut trainer = Trainer::new(train.1.view(), options, stream.nested(2))?;
                    for _ in 0..steps {
                        trainer.step(&train.0.view(), &train.1.view())?;
                    }
                    progress.advance(1)?;
                    let bridge = trainer.bridge();
                    let on_train = bridge.loss(train.0.view(), train.1.view())?;
                    Ok((bridge.loss(x.view(), y.view())? - on_train).abs())
                })
                .collect()
        })
        .collect::<Result<_>>()?;
    progress.finish();
    let means: Vec<f64> = gaps.iter().map(|g| stats::mean(g)).collect();
    let errors: Vec<f64> = gaps.iter().map(|g| stats::standard_deviation(g) / (trials as f64).sqrt()).collect();
    let n: Vec<f64> = sizes.iter().map(|&n| n as f64).collect();
    run.table(
        Table::new("generalisation", "Mean gap between test and training loss for each number of samples.")
            .integers("samples", "", sizes.iter().map(|&n| n as i64))
            .numbers("mean gap", "", means.iter().copied())
            .numbers("standard error", "", errors.iter().copied()),
    )?;
    let band = |sign: f64| means.iter().zip(&errors).map(|(m, e)| m + sign * e).collect();
    let plot = Plot::new(Scale::log("samples n of each side"), Scale::log("|test loss − training loss|"))
        .band("mean of trials", n.clone(), means.clone(), band(-1.0), band(1.0))
        .reference("∝ 1/√n", n.clone(), n.iter().map(|x| means[0] * (n[0] / x).sqrt()).collect());
    let caption = "The band is one standard error. Theorem 3.5 bounds the error by the dashed slope.";
    run.figure("generalisation", Figure::new("More samples", caption).panel(plot));
    let how = format!("K = 5, ε = 0.5, {trials} trials for each n, {steps} steps, {test} test samples");
    run.claim("generalisation", stats::log_log_slope(&n, &means), how)
}

/// Claim 8, stand-in: the middle between two classes of digits.
fn digits_middle(run: &mut Run) -> Result<()> {
    let (trials, steps) = run.scale().pick((2, 300), (10, 5000), (10, 10_000));
    let epsilon = 0.1;
    let (images, labels) = offprint_data::digits();
    let of = |digit: u8| -> Vec<usize> { (0..labels.len()).filter(|&i| labels[i] == digit).collect() };
    let (ones, sevens) = (of(1), of(7));
    let both: Vec<usize> = ones.iter().chain(&sevens).copied().collect();
    let scores = principal_scores(images.select(Axis(0), &both), 16)?;
    let scores = &scores / scores.std_axis(Axis(0), 0.0).mean().expect("16 columns");
    let (x, y) = scores.view().split_at(Axis(0), ones.len());
    let stream = run.stream("digits");
    let progress = run.progress();
    let distances: Vec<[f64; 2]> = (0..trials)
        .into_par_iter()
        .map(|trial| {
            let stream = stream.nested(trial as u64).stream("trial");
            let (train0, test0) = halves(x, &mut stream.rng(0));
            let (train1, test1) = halves(y, &mut stream.rng(1));
            // The middle: held-out images joined by their own entropic plan, at t = ½ of the Brownian bridges.
            let cost = half_squared_distances(test0.view(), test1.view());
            let uniform = |n: usize| Array1::from_elem(n, 1.0 / n as f64);
            let (a, b) = (uniform(test0.nrows()), uniform(test1.nrows()));
            let tight = sinkhorn::Options { tolerance: 1e-6, max_iterations: 20_000 };
            let plan = sinkhorn(cost.view(), a.view(), b.view(), epsilon, tight, &Progress::silent())?;
            let weights = plan.conditional(cost.view(), b.view());
            let mut rng = stream.rng(2);
            let drawn: Vec<usize> = weights.rows().into_iter().map(|w| super::bridge::draw(w, rng.random())).collect();
            let options = Options { epsilon, components: 10, learning_rate: 1e-2, ..Options::default() };
            let mut trainer = Trainer::new(train1.view(), options, stream.nested(3))?;
            for step in 0..steps {
                trainer.step(&train0.view(), &train1.view())?;
                if step % 64 == 0 {
                    progress.check()?;
                }
            }
            let bridge = trainer.bridge();
            let noise = stream.nested(4);
            let between =
                |ends: ArrayView2<'_, f64>, name: &str| bridge.between(test0.view(), ends, 0.5, noise.stream(name));
            let middle = between(test1.select(Axis(0), &drawn).view(), "middle")?;
            let ends = bridge.plan().sample(test0.view(), noise.stream("ends"))?;
            let predicted = between(ends.view(), "predicted")?;
            let random: Vec<usize> = (0..test0.nrows()).map(|_| rng.random_range(0..test1.nrows())).collect();
            let linear = (&test0 + &test1.select(Axis(0), &random)) * 0.5;
            Ok([energy_distance(predicted.view(), middle.view())?, energy_distance(linear.view(), middle.view())?])
        })
        .collect::<Result<_>>()?;
    let mean = |which: usize| stats::mean(&distances.iter().map(|d| d[which]).collect::<Vec<_>>());
    run.metric("digits: energy distance of the bridge's middle", mean(0), "");
    run.metric("digits: energy distance of linear interpolation", mean(1), "");
    let how = format!(
        "mean of {trials} random halves: bridge {:.4}, linear interpolation of random pairs {:.4}; K = 10, ε = {epsilon}, \
         {steps} steps",
        mean(0),
        mean(1)
    );
    run.claim("digits-middle", mean(0) / mean(1), how)
}

/// The rows of `points` on their first principal components, (n, count).
fn principal_scores(points: Array2<f64>, count: usize) -> Result<Array2<f64>> {
    let centred = &points - &points.mean_axis(Axis(0)).expect("a row");
    let (u, sizes, _) = linalg::svd(centred.view())?;
    Ok(&u.slice(s![.., ..count]) * &sizes.slice(s![..count]))
}

/// Two random halves of the rows.
fn halves(points: ArrayView2<'_, f64>, rng: &mut Rng) -> (Array2<f64>, Array2<f64>) {
    let mut rows: Vec<usize> = (0..points.nrows()).collect();
    rows.shuffle(rng);
    let (a, b) = rows.split_at(points.nrows() / 2);
    (points.select(Axis(0), a), points.select(Axis(0), b))
}
