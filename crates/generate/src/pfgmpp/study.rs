//! The claims, measured.

use super::{Augmentation, Pfgmpp, Protocol, Scaled, distance_to_uniform, with_quantised};
use crate::exact::ExactEmpirical;
use crate::metrics::{DIRECTIONS, directions, mmd_squared, sliced_wasserstein};
use crate::network::{Digits8, Levels, NetConfig, Network, Recipe, fit};
use crate::sample::{Heun, Stepwise};
use crate::{Denoiser, Grid, Kernel, Sampler, Schedule, normals};
use ndarray::{Array2, ArrayView2, Axis, array};
use offprint_core::figure::{Axis as Scale, Plot};
use offprint_core::random::Stream;
use offprint_core::table::significant;
use offprint_core::{Figure, Progress, Result, Run, Study, Table};
use offprint_math::{linalg, stats};
use offprint_nn::train::{Plan, Schedule as Rate};
use rayon::prelude::*;

impl Study for Pfgmpp {
    fn measure(run: &mut Run) -> Result<()> {
        let digits = Scaled::new(offprint_data::digits().0.view())?.points;
        posterior_mean(run)?;
        limit(run, digits.view())?;
        phases(run, digits.view())?;
        errors(run, digits.view())?;
        quantised(run)?;
        toy(run)?;
        let why = "needs the CIFAR-10 and FFHQ data, 200 million training images and 50000 samples judged by an Inception \
                   network: days of several GPUs";
        run.not_measured("cifar-10", why)?;
        run.not_measured("ffhq-64", why)
    }
}

/// The augmentation with D = `d`, which is a constant of this study.
fn added(d: f64) -> Augmentation {
    Augmentation::new(d).expect("a positive constant")
}

/// A name for D in legends.
fn name(d: f64) -> String {
    if d.is_finite() { format!("D = {d}") } else { "D = ∞".into() }
}

/// Measured numbers in a sentence.
fn listed(values: &[f64]) -> String {
    values.iter().map(|&v| significant(v, 3)).collect::<Vec<_>>().join(", ")
}

/// Claim 1: what minimises the perturbation loss is the posterior mean.
///
/// Over functions that are constant in cells the minimiser is the mean of the clean points in each cell, which has no
/// error of a network's shape or training; a network trained as usual is told beside it.
fn posterior_mean(run: &mut Run) -> Result<()> {
    let (steps, points, draws) = run.scale().pick((300, 200, 20_000), (4000, 2000, 500_000), (4000, 2000, 2_000_000));
    let data = Scaled::new(array![[-0.7, -0.3], [0.6, -0.5], [0.3, 0.7], [-0.2, 0.1]].view())?.points;
    let freedoms = [8.0, 128.0];
    let (mut cells, mut networks) = (Vec::new(), Vec::new());
    for d in freedoms {
        let exact = ExactEmpirical::new(data.clone(), added(d).kernel())?;
        cells.push(gap_of_cells(&exact, draws, run.stream("cells"))?);
        let shape = NetConfig { dim: 2, classes: 0, width: 64, depth: 2, frequencies: 16 }.into();
        let recipe = Recipe { shape, ..Recipe::edm(2, 0, added(d).path(), steps) };
        let (network, _) = fit(&recipe, data.view(), None, run.seed(), &run.progress())?;
        networks.push(gap_of_network(&network, &exact, points, run.stream("held out"))?);
    }
    run.table(
        Table::new("posterior-mean", "Relative L2 gap to the exact posterior mean.")
            .numbers("D", "", freedoms)
            .numbers("means in cells", "%", cells.iter().copied())
            .numbers("network", "%", networks.iter().copied()),
    )?;
    let how = format!(
        "four points of the plane, a network of 2 × 64 after {steps} steps of 256: {} % for D = 8, 128; without a network, \
         means of {draws} draws in 144 cells at each of 8 levels are {} % off",
        listed(&networks),
        listed(&cells)
    );
    run.claim("posterior-mean", networks.into_iter().fold(0.0, f64::max), how)
}

/// The gap in % between the mean clean point and the mean of D* in cells of the plane, pooled over p(σ) and p(x).
fn gap_of_cells(exact: &ExactEmpirical, draws: usize, stream: Stream) -> Result<f64> {
    const ACROSS: usize = 12;
    let (mut apart, mut size) = (0.0, 0.0);
    for (level, sigma) in sigma_quantiles(8).into_iter().enumerate() {
        let clean = repeated(exact.data(), draws);
        let y = &clean + &exact.kernel().noise(draws, 2, sigma, stream.nested(level as u64).stream("noise"), 0);
        let denoised = exact.denoise(y.view(), sigma)?;
        // Cells over most of the points; those beyond count in the outermost.
        let reach = 1.0 + 2.0 * sigma;
        let place = |v: f64| ((0.5 + 0.5 * v / reach) * ACROSS as f64).clamp(0.0, ACROSS as f64 - 1.0) as usize;
        let mut sums = vec![[0.0; 5]; ACROSS * ACROSS];
        for ((y, x), d) in y.outer_iter().zip(clean.outer_iter()).zip(denoised.outer_iter()) {
            let cell = &mut sums[place(y[0]) * ACROSS + place(y[1])];
            for (sum, value) in cell.iter_mut().zip([1.0, x[0], x[1], d[0], d[1]]) {
                *sum += value;
            }
        }
        for [n, x0, x1, d0, d1] in sums.into_iter().filter(|cell| cell[0] > 0.0) {
            apart += ((x0 - d0).powi(2) + (x1 - d1).powi(2)) / n;
            size += (d0 * d0 + d1 * d1) / n;
        }
    }
    Ok(100.0 * (apart / size).sqrt())
}

/// The gap in % between a network and D*, pooled over p(σ) and p(x).
fn gap_of_network(network: &Network, exact: &ExactEmpirical, points: usize, stream: Stream) -> Result<f64> {
    let (mut apart, mut size) = (0.0, 0.0);
    for (level, sigma) in sigma_quantiles(24).into_iter().enumerate() {
        let noise = exact.kernel().noise(points, 2, sigma, stream.nested(level as u64).stream("noise"), 0);
        let y = repeated(exact.data(), points) + noise;
        let (learnt, truth) = (network.unconditional().denoise(y.view(), sigma)?, exact.denoise(y.view(), sigma)?);
        apart += (&learnt - &truth).mapv(|v| v * v).sum();
        size += truth.mapv(|v| v * v).sum();
    }
    Ok(100.0 * (apart / size).sqrt())
}

/// The rows of `data` in turn, `n` of them.
fn repeated(data: ArrayView2<'_, f64>, n: usize) -> Array2<f64> {
    data.select(Axis(0), &(0..n).map(|i| i % data.nrows()).collect::<Vec<_>>())
}

/// Midpoints of `count` equally likely shares of exp(N(−1.2, 1.2²)), by sorting a fine sample of the normal law.
fn sigma_quantiles(count: usize) -> Vec<f64> {
    let stream = offprint_core::random::Streams::new(0).stream("levels");
    let mut z = normals(4096, 1, stream, 0).into_raw_vec_and_offset().0;
    z.sort_by(f64::total_cmp);
    (0..count).map(|i| (-1.2 + 1.2 * z[(2 * i + 1) * z.len() / (2 * count)]).exp()).collect()
}

/// Claim 2: the denoiser of large D goes over into that of diffusion, as 1/D.
fn limit(run: &mut Run, digits: ArrayView2<'_, f64>) -> Result<()> {
    let count = run.scale().pick(100, 1797, 1797);
    let freedoms = [1e2, 1e3, 1e4, 1e5, 1e6];
    let y = &digits.slice(ndarray::s![..count, ..]) + &(normals(count, 64, run.stream("limit"), 0) * 2.0);
    let gaussian = ExactEmpirical::new(digits.to_owned(), Kernel::Gaussian)?;
    let mut plot = Plot::new(Scale::log("D"), Scale::log("rms difference to diffusion"));
    for (sigma, id) in [(0.5, "limit-low"), (2.0, "limit-high")] {
        let reference = gaussian.denoise(y.view(), sigma)?;
        let mut gaps = Vec::new();
        for d in freedoms {
            let model = ExactEmpirical::new(digits.to_owned(), added(d).kernel())?;
            let apart = model.denoise(y.view(), sigma)? - &reference;
            gaps.push((apart.mapv(|v| v * v).sum() / apart.len() as f64).sqrt());
        }
        let slope = stats::log_log_slope(&freedoms[1..], &gaps[1..]);
        plot = plot.line(format!("σ = {sigma}"), freedoms.to_vec(), gaps.clone());
        run.claim(
            id,
            slope,
            format!("{count} points y + 2z, exact denoisers of the digits, σ = {sigma}: {}", listed(&gaps)),
        )?;
    }
    let caption = "Exact denoisers of the digits. A slope of −1 is a difference of order 1/D.";
    run.figure("limit", Figure::new("The limit of large D", caption).panel(plot));
    Ok(())
}

/// Claim 3: r = σ√D keeps the phases in step.
fn phases(run: &mut Run, digits: ArrayView2<'_, f64>) -> Result<()> {
    let count = run.scale().pick(60, 300, 300);
    let freedoms = [8.0, 32.0, 128.0, 2048.0, f64::INFINITY];
    let sigmas: Vec<f64> = (0..12).map(|i| 0.05 * 400f64.powf(f64::from(i) / 11.0)).collect();
    let rows: Vec<usize> = (0..count).map(|i| i * digits.nrows() / count).collect();
    let clean = digits.select(Axis(0), &rows);
    // `level` gives each D its noise level: aligned σ itself, unaligned that of the r which fits D = 128.
    let curves = |level: &dyn Fn(f64, f64) -> f64| -> Result<Vec<Vec<f64>>> {
        let curve = |&d: &f64| {
            let model = ExactEmpirical::new(digits.to_owned(), added(d).kernel())?;
            let at = |&sigma: &f64| {
                let scale = level(d, sigma);
                let y = &clean + &model.kernel().noise(count, 64, scale, run.stream("phases"), 0);
                distance_to_uniform(&model, y.view(), scale)
            };
            sigmas.iter().map(at).collect()
        };
        freedoms.iter().map(curve).collect()
    };
    let aligned = curves(&|_, sigma| sigma)?;
    let unaligned = curves(&|d, sigma| if d.is_finite() { added(d).sigma(added(128.0).radius(sigma)) } else { sigma })?;
    let gap = |curve: &[f64]| curve.iter().zip(&aligned[4]).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    let gaps: Vec<f64> = aligned.iter().map(|c| gap(c)).collect();
    let apart: Vec<f64> = unaligned.iter().map(|c| gap(c)).collect();
    let mut figure = Figure::new(
        "What r = σ√D aligns",
        "Mean total variation distance between the posterior over the digits and the uniform law. Left each D at its own \
         r = σ√D, right all at the r of D = 128.",
    )
    .columns(2);
    for (title, curves) in [("aligned", &aligned), ("the same r for all", &unaligned)] {
        let mut plot = Plot::new(Scale::log("σ"), Scale::new("distance to uniform")).titled(title);
        for (&d, curve) in freedoms.iter().zip(curves) {
            plot = plot.curve(name(d), sigmas.clone(), curve.clone());
        }
        figure = figure.panel(plot);
    }
    run.figure("phases", figure);
    run.table(
        Table::new("phases", "Largest gap to D = ∞ over σ.")
            .words("D", freedoms.iter().map(f64::to_string))
            .numbers("aligned", "", gaps.iter().copied())
            .numbers("the same r for all", "", apart.iter().copied()),
    )?;
    let how = format!("{count} perturbed digits, 12 levels σ from 0.05 to 20");
    run.claim(
        "aligned",
        gaps[1..4].iter().copied().fold(0.0, f64::max),
        format!("largest of D = 32, 128, 2048; {how}"),
    )?;
    run.claim("aligned-8", gaps[0], how.clone())?;
    let least = [0, 1, 3].into_iter().map(|i| apart[i]).fold(f64::INFINITY, f64::min);
    run.claim(
        "unaligned",
        least,
        format!("least of D = 8, 32, 2048: {}; {how}", listed(&[apart[0], apart[1], apart[3]])),
    )
}

/// Claim 4: errors before every step hurt less at small D.
fn errors(run: &mut Run, digits: ArrayView2<'_, f64>) -> Result<()> {
    let (count, seeds) = run.scale().pick((60, 1), (1797, 3), (1797, 10));
    let freedoms = [64.0, 128.0, 2048.0, f64::INFINITY];
    let alphas = [0.0, 0.1, 0.2, 0.4, 0.6];
    let grid = Grid::edm(18)?;
    let sampler = Stepwise(Heun::new());
    let along = directions(DIRECTIONS, 64, run.stream("directions"));
    let progress = run.progress();
    progress.begin("sampling with errors", (freedoms.len() * alphas.len() * seeds) as u64);
    let mut table: Vec<Vec<f64>> = Vec::new();
    for d in freedoms {
        let model = ExactEmpirical::new(digits.to_owned(), added(d).kernel())?;
        let mut row = Vec::new();
        for alpha in alphas {
            let mut distances = Vec::new();
            for seed in 0..seeds {
                let streams = run.stream("errors").nested(seed as u64);
                let protocol = Protocol { sampler: &sampler, grid: &grid, count, alpha, streams };
                let samples = protocol.sample(&model, &mut (), &progress)?.y;
                distances.push(sliced_wasserstein(samples.view(), digits, along.view())?);
                progress.advance(1)?;
            }
            row.push(stats::mean(&distances));
        }
        table.push(row);
    }
    progress.finish();
    let mut plot = Plot::new(Scale::new("size α of the errors"), Scale::new("sliced W₂ to the digits"));
    let mut shown = Table::new("errors", "Sliced W₂ to the digits, with errors α before every step.")
        .words("D", freedoms.iter().map(f64::to_string));
    for (row, &d) in table.iter().zip(&freedoms) {
        plot = plot.line(name(d), alphas.to_vec(), row.clone());
    }
    for (i, alpha) in alphas.iter().enumerate() {
        shown = shown.numbers(format!("α = {alpha}"), "", table.iter().map(|row| row[i]));
    }
    run.figure("errors", Figure::new("Errors before every step", format!("Mean of {seeds} seeds.")).panel(plot));
    run.table(shown)?;
    let at = |i: usize| table.iter().map(|row| row[i]).collect::<Vec<_>>();
    let (clean, rough) = (at(0), at(3));
    let spread = |v: &[f64]| v.iter().copied().fold(0.0, f64::max) / v.iter().copied().fold(f64::INFINITY, f64::min);
    let how = format!("{count} samples of the exact denoiser, 18 steps of Heun, {seeds} seeds");
    run.claim("errors-none", spread(&clean), format!("{how}: {} for D = 64, 128, 2048, ∞", listed(&clean)))?;
    run.claim("errors-ratio", rough[3] / rough[0], format!("{how}, α = 0.4: {}", listed(&rough)))?;
    let disorder = rough.windows(2).map(|w| w[0] / w[1]).fold(0.0, f64::max);
    run.claim("errors-order", disorder, format!("{how}, α = 0.4"))
}

/// Claim 5: coarse weights hurt less at small D.
fn quantised(run: &mut Run) -> Result<()> {
    let (steps, each) = run.scale().pick((60, 5), (Digits8::STEPS, 100), (Digits8::STEPS, 180));
    let quick = run.scale() == offprint_core::Scale::Quick;
    let bits = [4, 5, 6, 7, 8];
    let grid = Grid::edm(18)?;
    let sampler = Stepwise(Heun::new());
    let along = directions(DIRECTIONS, 64, run.stream("directions"));
    let mut ratios = Vec::new();
    let mut plot = Plot::new(Scale::new("bits of a weight"), Scale::log("sliced W₂ over that of full precision"));
    let mut table = Table::new("bits", "Sliced W₂ to the digits with coarse weights.")
        .words("bits", ["32", "4", "5", "6", "7", "8"]);
    for d in [64.0, f64::INFINITY] {
        // The shipped weights of diffusion are those of this very training.
        let model = if d.is_finite() || steps != Digits8::STEPS {
            Digits8::train(added(d).path(), steps, 0, &run.progress())?
        } else {
            Digits8::shipped()?
        };
        let stream = run.stream("quantised");
        let distance = |_: &Network| {
            let (samples, _) = model.sample(&sampler, &grid, (each, 1.0), stream)?;
            sliced_wasserstein(samples.view(), model.data.train.view(), along.view())
        };
        let full = distance(&model.network)?;
        let coarse: Vec<f64> =
            bits.iter().map(|&bits| with_quantised(&model.network, bits, distance)).collect::<Result<_>>()?;
        plot =
            plot.line(name(d), bits.iter().map(|&b| f64::from(b)).collect(), coarse.iter().map(|c| c / full).collect());
        ratios.push(coarse[0] / full);
        table = table.numbers(name(d), "", std::iter::once(full).chain(coarse));
    }
    run.table(table)?;
    run.figure("bits", Figure::new("Coarse weights", "Networks of the digits, trained alike.").panel(plot));
    let how = format!(
        "4 bits: SWD grows by {:.2} at D = 64 and by {:.2} at D = ∞; digits8 network, {steps} steps{}, {each} samples a class",
        ratios[0],
        ratios[1],
        if quick { " (far too few)" } else { "" }
    );
    run.claim("quantised", ratios[0] / ratios[1], how)
}

/// Two clusters ±1 + 0.2 N(0, I₁₀), lifted to 1000 dimensions.
struct Toy {
    lift: Array2<f64>,
}

impl Toy {
    const LATENT: usize = 10;

    fn new(dim: usize, stream: Stream) -> Self {
        Self { lift: normals(Self::LATENT, dim, stream, 0) }
    }

    /// `n` points (n, dim), half of each cluster.
    fn draw(&self, n: usize, stream: Stream) -> Array2<f64> {
        let mut latent = normals(n, Self::LATENT, stream.nested(0).stream("latent"), 0) * 0.2;
        for (i, mut row) in latent.outer_iter_mut().enumerate() {
            row += if i % 2 == 0 { 1.0 } else { -1.0 };
        }
        let noise = normals(n, self.lift.ncols(), stream.nested(0).stream("noise"), 0) * 0.01;
        (linalg::matmul(latent.view(), self.lift.view()) + noise).mapv(|v| v.clamp(-100.0, 100.0))
    }
}

/// How one toy network is trained and sampled.
#[derive(Clone, Copy)]
struct Trial {
    d: f64,
    seed: u64,
    /// Factor of all noise levels: 1 if they are aligned.
    factor: f64,
}

/// Claims 6 and 7: the best D after training, and what goes wrong without the alignment.
fn toy(run: &mut Run) -> Result<()> {
    let (dim, epochs, seeds, samples) = run.scale().pick((50, 2, 1, 100), (1000, 200, 3, 1000), (1000, 200, 10, 2000));
    let freedoms = [1.0, 8.0, 100.0, 2048.0, f64::INFINITY];
    let aligned = freedoms.iter().map(|&d| (d, 1.0));
    // The r that suits D = 100, given to the others: their σ is off by this factor.
    let off = [8.0, 2048.0].into_iter().map(|d| (d, added(d).sigma(added(100.0).radius(1.0))));
    let trials: Vec<Trial> =
        aligned.chain(off).flat_map(|(d, factor)| (0..seeds).map(move |seed| Trial { d, seed, factor })).collect();
    let progress = run.progress();
    progress.begin("toy networks", trials.len() as u64);
    let stream = run.stream("toy");
    let results: Vec<f64> = trials
        .par_iter()
        .map(|&trial| {
            let mmd = toy_mmd(trial, (dim, epochs, samples), stream)?;
            progress.advance(1)?;
            Ok(mmd)
        })
        .collect::<Result<_>>()?;
    progress.finish();
    let of = |d: f64, aligned: bool| -> Vec<f64> {
        let same = |t: &Trial| t.d == d && (t.factor == 1.0) == aligned;
        trials.iter().zip(&results).filter(|(t, _)| same(t)).map(|(_, &mmd)| mmd).collect()
    };
    let mean = |d, aligned| stats::mean(&of(d, aligned));
    let means: Vec<f64> = freedoms.iter().map(|&d| mean(d, true)).collect();
    run.table(
        Table::new("toy", "MMD² to fresh points, mean of the seeds.")
            .words("D", freedoms.iter().map(f64::to_string))
            .numbers("MMD²", "", means.iter().copied())
            .numbers("smallest", "", freedoms.iter().map(|&d| of(d, true).into_iter().fold(f64::INFINITY, f64::min)))
            .numbers("largest", "", freedoms.iter().map(|&d| of(d, true).into_iter().fold(0.0, f64::max)))
            .numbers("MMD² with the r of D = 100", "", freedoms.iter().map(|&d| mean(d, false))),
    )?;
    let places = Scale::categories("D", freedoms.iter().map(f64::to_string));
    let x: Vec<f64> = (0..freedoms.len()).map(|i| i as f64).collect();
    let plot = Plot::new(places, Scale::log("MMD² to fresh points")).line("aligned", x, means.clone()).points(
        "with the r of D = 100",
        vec![1.0, 3.0],
        vec![mean(8.0, false), mean(2048.0, false)],
        4.0,
    );
    run.figure("toy", Figure::new("Two clusters in many dimensions", format!("Mean of {seeds} seeds.")).panel(plot));
    let how = format!(
        "N = {dim}, {epochs} epochs, {seeds} seeds, {samples} samples; D = 1, 8, 100, 2048, ∞: {}",
        listed(&means)
    );
    let inner = means[1..4].iter().copied().fold(f64::INFINITY, f64::min);
    run.claim("sweet-spot", inner / means[0].min(means[4]), how)?;
    let worse = [8.0, 2048.0].map(|d| mean(d, false) / mean(d, true));
    let how = format!("MMD² grows by {:.1} at D = 8 and by {:.1} at D = 2048", worse[0], worse[1]);
    run.claim("transfer", worse[0].min(worse[1]), how)
}

/// MMD² between samples of a toy network and fresh points.
fn toy_mmd(trial: Trial, (dim, epochs, samples): (usize, u64, usize), stream: Stream) -> Result<f64> {
    let streams = stream.nested(trial.seed);
    let law = Toy::new(dim, streams.stream("lift"));
    let data = Scaled::new(law.draw(2000, streams.stream("training")).view())?;
    let batch = 128;
    let steps = epochs * 2000u64.div_ceil(batch as u64);
    let shift = trial.factor.ln();
    let recipe = Recipe {
        shape: NetConfig { dim, classes: 0, width: 32, depth: 2, frequencies: 16 }.into(),
        levels: Levels::LogNormal { mean: -1.2 + shift, deviation: 1.2 },
        batch,
        // Gradients are cut for every D: at D = 1 single points lie arbitrarily far out.
        plan: Plan { clip: Some(1.0), ..Plan::new(steps, Rate::constant()) },
        learning_rate: 1e-3,
        ..Recipe::edm(dim, 0, added(trial.d).path(), steps)
    };
    let (network, _) = fit(&recipe, data.points.view(), None, trial.seed, &Progress::silent())?;
    let (lowest, highest) = (0.001 * trial.factor, 50.0 * trial.factor);
    let grid = Grid::karras(&Schedule::Edm, 49, lowest, highest, 7.0)?.with_final_denoising();
    let model = network.unconditional();
    let start = grid.start(samples, dim, model.kernel(), streams.stream("prior"));
    let found = Stepwise(Heun::new()).run(&model, start, &grid, streams.stream("none"))?;
    let fresh = law.draw(samples, streams.stream("fresh"));
    mmd_squared(data.restore(found.y.view()).view(), fresh.view())
}
