//! The claims, measured.

use super::digits::{DigitsNet, Score};
use super::{Criterion, Mfac, MfacDynamic, MfacFactored, MfacStatic, Pruner, Settings};
use crate::{Inverse, Real, vector};
use ndarray::Array2;
use offprint_core::figure::{Axis, Figure, Plot};
use offprint_core::random::Stream;
use offprint_core::{Progress, Result, Run, Scale, Study, Table};
use offprint_math::linalg;
use offprint_math::stats::{log_log_slope, mean, median, standard_deviation};
use offprint_nn::computation;
use offprint_nn::optim::{Adam, AdamSettings, Sgd, SgdSettings};
use rand::RngExt;
use std::hint::black_box;
use std::time::Instant;

impl Study for Mfac {
    fn measure(run: &mut Run) -> Result<()> {
        exactness(run)?;
        complexity(run)?;
        pruning(run)?;
        optimisation(run)
    }
}

fn normal<T: Real>(stream: Stream, index: u64, m: usize, d: usize) -> Array2<T> {
    let elements = vector::gaussian(stream, index, m * d);
    Array2::from_shape_vec((m, d), elements).expect("as many elements as the shape says")
}

/// The largest error relative to the largest element.
fn relative_error(found: &[f64], exact: &[f64]) -> f64 {
    let largest = exact.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
    found.iter().zip(exact).fold(0.0, |worst: f64, (a, b)| worst.max((a - b).abs())) / largest
}

fn exactness(run: &mut Run) -> Result<()> {
    let stream = run.stream("exactness");
    let (m, d, damp) = (32, run.scale().pick(400, 1000, 1000), 1e-5);
    let gradients: Array2<f64> = normal(stream, 0, m, d);
    let x: Vec<f64> = vector::gaussian(stream, 1, d);
    let mut fisher = linalg::matmul(gradients.t(), gradients.view()) / m as f64;
    fisher.diag_mut().iter_mut().for_each(|f| *f += damp);
    let column = ndarray::aview1(&x).insert_axis(ndarray::Axis(1)).to_owned();
    let dense = linalg::solve(fisher.view(), column.view())?.column(0).to_vec();
    let how = format!("m = {m}, d = {d}, dense LU in f64");
    let fixed = MfacStatic::new(gradients.clone(), damp)?.apply_inverse(&x)?;
    run.claim("exact-static", relative_error(&fixed, &dense), how.clone())?;
    let mut window = MfacDynamic::<f64>::new(d, m, damp)?;
    gradients.rows().into_iter().try_for_each(|row| window.push(&row.to_vec()))?;
    run.claim("exact-dynamic", relative_error(&window.apply_inverse(&x)?, &dense), how)?;

    let (m, d, damp) = (512, 4096, 1e-3);
    let gradients: Array2<f32> = normal(stream, 2, m, d);
    let x: Vec<f64> = vector::gaussian(stream, 3, d);
    let wide = gradients.mapv(f64::from);
    let woodbury = MfacFactored::new(wide.view(), damp)?.apply_inverse(&x)?;
    // The harder question than a random x, most of which no gradient touches: a gradient, where all of x/λ cancels.
    let along = wide.row(0).to_vec();
    let exact = MfacFactored::new(wide.view(), damp)?.apply_inverse(&along)?;
    let inverse = MfacStatic::new(gradients, damp)?;
    run.metric("error of f32 directions on a gradient", relative_error(&inverse.apply_inverse(&along)?, &exact), "");
    let single = inverse.apply_inverse(&x)?;
    run.claim("exact-f32", relative_error(&single, &woodbury), format!("m = {m}, d = {d}, f32 directions, f64 sums"))
}

/// The shortest of a few runs of `work`, in seconds: what others do on the machine only lengthens a run.
fn seconds(repeats: usize, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..repeats {
        let start = Instant::now();
        work()?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}

/// The times of the static algorithm on one matrix: setup, product, element.
fn static_times(stream: Stream, m: usize, d: usize, repeats: usize, progress: &Progress) -> Result<[f64; 3]> {
    let gradients: Array2<f32> = normal(stream, 0, m, d);
    let x: Vec<f64> = vector::gaussian(stream, 1, d);
    let (mut inverse, mut setup) = (None, f64::INFINITY);
    for _ in 0..repeats.div_ceil(2) {
        // The directions take the gradients' place: the copy is not part of the setup.
        drop(inverse.take());
        let copy = gradients.clone();
        let start = Instant::now();
        inverse = Some(MfacStatic::new(copy, 1e-3)?);
        setup = setup.min(start.elapsed().as_secs_f64());
        progress.check()?;
    }
    let inverse = inverse.expect("set up at least once");
    let multiply = seconds(repeats, || {
        black_box(inverse.apply_inverse(&x)?);
        Ok(())
    })?;
    // Each element at a place of its own, so that none is in the cache because it was asked for before.
    let mut rng = stream.rng(2);
    let places: Vec<(usize, usize)> = (0..400).map(|_| (rng.random_range(0..d), rng.random_range(0..d))).collect();
    let start = Instant::now();
    let total: Result<f64> = places.iter().map(|&(k, l)| inverse.element(k, l)).sum();
    let element = start.elapsed().as_secs_f64() / places.len() as f64;
    black_box(total?);
    Ok([setup, multiply, element])
}

/// The times of the window on one size: update, product.
fn dynamic_times(stream: Stream, m: usize, d: usize, repeats: usize) -> Result<[f64; 2]> {
    let gradients: Array2<f32> = normal(stream, 0, m, d);
    let mut window = MfacDynamic::<f32>::new(d, m, 1e-3)?;
    for row in gradients.rows() {
        window.push(&row.iter().map(|&x| f64::from(x)).collect::<Vec<_>>())?;
    }
    let x: Vec<f64> = vector::gaussian(stream, 1, d);
    // What an update costs depends on the place in the ring: a median over places spread evenly.
    let mut updates = Vec::new();
    for _ in 0..8 {
        for _ in 0..m / 8 - 1 {
            window.push(&x)?;
        }
        let start = Instant::now();
        window.push(&x)?;
        updates.push(start.elapsed().as_secs_f64());
    }
    let multiply = seconds(repeats, || {
        black_box(window.apply_inverse(&x)?);
        Ok(())
    })?;
    Ok([median(&updates), multiply])
}

fn complexity(run: &mut Run) -> Result<()> {
    let stream = run.stream("complexity");
    let progress = run.progress();
    let (ds, m_fixed): (Vec<usize>, usize) = match run.scale() {
        Scale::Quick => ((13..=16).map(|k| 1 << k).collect(), 32),
        Scale::Standard => ((16..=20).map(|k| 1 << k).collect(), 128),
        Scale::Full => ((16..=21).map(|k| 1 << k).collect(), 256),
    };
    let ms: Vec<usize> = run.scale().pick(vec![16, 32, 64], vec![64, 128, 256, 512], vec![64, 128, 256, 512, 1024]);
    let d_fixed = run.scale().pick(1 << 14, 1 << 18, 1 << 18);
    let repeats = run.scale().pick(2, 5, 9);
    progress.begin("timing", (ds.len() + 2 * ms.len()) as u64);
    let mut over_d: [Vec<f64>; 3] = Default::default();
    for &d in &ds {
        let times = static_times(stream, m_fixed, d, repeats, &progress)?;
        over_d.iter_mut().zip(times).for_each(|(all, time)| all.push(time));
        progress.advance(1)?;
    }
    let mut over_m: [Vec<f64>; 3] = Default::default();
    let mut dynamic: [Vec<f64>; 2] = Default::default();
    for &m in &ms {
        let times = static_times(stream, m, d_fixed, repeats, &progress)?;
        over_m.iter_mut().zip(times).for_each(|(all, time)| all.push(time));
        progress.advance(1)?;
        let times = dynamic_times(stream, m, d_fixed, repeats)?;
        dynamic.iter_mut().zip(times).for_each(|(all, time)| all.push(time));
        progress.advance(1)?;
    }
    progress.finish();
    let (d, m): (Vec<f64>, Vec<f64>) = (ds.iter().map(|&d| d as f64).collect(), ms.iter().map(|&m| m as f64).collect());
    let in_d = format!("m = {m_fixed}, d = {} to {}, shortest of {repeats} runs", ds[0], ds[ds.len() - 1]);
    let in_m = format!("d = {d_fixed}, m = {} to {}, shortest of {repeats} runs", ms[0], ms[ms.len() - 1]);
    run.claim("setup-in-d", log_log_slope(&d, &over_d[0]), in_d.clone())?;
    run.claim("setup-in-m", log_log_slope(&m, &over_m[0]), in_m.clone())?;
    run.claim("multiply-in-d", log_log_slope(&d, &over_d[1]), in_d.clone())?;
    run.claim("multiply-in-m", log_log_slope(&m, &over_m[1]), in_m.clone())?;
    run.claim("element-in-d", log_log_slope(&d, &over_d[2]), format!("{in_d}; 400 random elements, none asked twice"))?;
    run.claim("dynamic-multiply-in-m", log_log_slope(&m, &dynamic[1]), in_m)?;
    match ms.iter().position(|&m| m == 128) {
        Some(i) => {
            let words = format!("d = {d_fixed}, m = 128: setup {:.4} s, update {:.5} s", over_m[0][i], dynamic[0][i]);
            run.claim("dynamic-update", over_m[0][i] / dynamic[0][i], words)?;
        }
        None => run.not_measured("dynamic-update", "at quick scale m does not reach 128")?,
    }
    let axis = |label: &str| Axis::log(label);
    run.figure(
        "complexity",
        Figure::new(
            "Time against size",
            format!(
                "Left m = {m_fixed}, right d = {d_fixed}. The setup grows with d m², products with d m, the update of \
                 the window with d m + m³."
            ),
        )
        .columns(2)
        .panel(
            Plot::new(axis("dimension d"), axis("time").unit("s"))
                .line("static setup", d.clone(), over_d[0].clone())
                .line("product", d.clone(), over_d[1].clone())
                .line("element", d, over_d[2].clone()),
        )
        .panel(
            Plot::new(axis("gradients m"), axis("time").unit("s"))
                .line("static setup", m.clone(), over_m[0].clone())
                .line("product", m.clone(), over_m[1].clone())
                .line("window, update", m.clone(), dynamic[0].clone())
                .line("window, product", m, dynamic[1].clone()),
        ),
    );
    Ok(())
}

/// The ways of pruning that are compared: name, pruner, gradients m.
fn ways(count: usize) -> [(&'static str, Pruner, usize); 6] {
    let one_shot = |criterion| Pruner { criterion, ..Pruner::default() };
    [
        ("magnitude", one_shot(Criterion::Magnitude), count),
        ("diagonal Fisher", one_shot(Criterion::DiagonalFisher), count),
        ("WoodFisher, blocks of 128", one_shot(Criterion::WoodFisher(128)), count),
        ("M-FAC, blocks of 128", one_shot(Criterion::MfacBlocks(128)), count),
        ("M-FAC, full", one_shot(Criterion::Mfac), count),
        ("M-FAC, full, 8 recomputations", Pruner { steps: 8, ..Pruner::default() }, count / 2),
    ]
}

fn pruning(run: &mut Run) -> Result<()> {
    let (seeds, epochs, count) = run.scale().pick((1, 20, 64), (5, 60, 256), (10, 60, 256));
    let sparsities = [0.9, 0.95];
    let counts: Vec<usize> = run.scale().pick(vec![16, 64], vec![16, 64, 256, 1024], vec![16, 64, 256, 1024]);
    let progress = run.progress();
    let names: Vec<&str> = ways(count).iter().map(|way| way.0).collect();
    // [way][sparsity][seed], and the loss by [m][seed].
    let mut scores: Vec<[Vec<Score>; 2]> = names.iter().map(|_| Default::default()).collect();
    let mut by_count: Vec<Vec<f64>> = counts.iter().map(|_| Vec::new()).collect();
    let mut dense = Vec::new();
    for seed in 0..seeds {
        let net = DigitsNet::trained(run.stream("pruning").nested(seed), epochs, &progress)?;
        dense.push(net.score()?.accuracy);
        for (way, (_, pruner, count)) in ways(count).into_iter().enumerate() {
            for (score, all) in net.prune(pruner, &sparsities, count, &progress)?.into_iter().zip(&mut scores[way]) {
                all.push(score);
            }
        }
        for (all, &count) in by_count.iter_mut().zip(&counts) {
            all.push(net.prune(Pruner::default(), &[0.95], count, &progress)?[0].loss);
        }
    }
    let losses = |way: usize, s: usize| scores[way][s].iter().map(|score| score.loss).collect::<Vec<_>>();
    let accuracy = |way: usize, s: usize| mean(&scores[way][s].iter().map(|score| score.accuracy).collect::<Vec<_>>());
    let (magnitude, blocks, full) = (losses(0, 0), losses(3, 0), losses(4, 0));
    let ordered = (0..full.len()).filter(|&i| full[i] < blocks[i] && blocks[i] < magnitude[i]).count();
    let how = format!("{seeds} seeds, {epochs} epochs, m = {count}, batches of 16, λ = 1e-5");
    let words = format!(
        "{how}; mean loss full {:.3}, blocks {:.3}, magnitude {:.3}",
        mean(&full),
        mean(&blocks),
        mean(&magnitude)
    );
    run.claim("prune-order", ordered as f64 / full.len() as f64, words)?;
    for (s, id) in ["recompute-90", "recompute-95"].into_iter().enumerate() {
        let (again, by_size) = (accuracy(5, s), accuracy(0, s));
        run.claim(id, again - by_size, format!("{how}; recomputed {again:.3}, magnitude {by_size:.3}"))?;
    }
    let means: Vec<f64> = by_count.iter().map(|losses| mean(losses)).collect();
    if seeds > 1 {
        let rise = by_count.windows(2).map(|pair| {
            let differences: Vec<f64> = pair[1].iter().zip(&pair[0]).map(|(more, fewer)| more - fewer).collect();
            mean(&differences) / (standard_deviation(&differences) / (differences.len() as f64).sqrt())
        });
        let words = format!("m = {counts:?}: mean loss {means:.3?}; {seeds} seeds");
        run.claim("more-gradients", rise.fold(f64::NEG_INFINITY, f64::max), words)?;
    } else {
        run.not_measured("more-gradients", "one seed, at quick scale, has no standard error")?;
    }
    run.table(
        Table::new("pruning", "One-shot pruning of the digits network without retraining, means over seeds.")
            .words("way", names.iter().copied())
            .numbers("accuracy at 90 %", "", (0..names.len()).map(|way| accuracy(way, 0)))
            .numbers("loss at 90 %", "nat", (0..names.len()).map(|way| mean(&losses(way, 0))))
            .numbers("accuracy at 95 %", "", (0..names.len()).map(|way| accuracy(way, 1)))
            .numbers("loss at 95 %", "nat", (0..names.len()).map(|way| mean(&losses(way, 1)))),
    )?;
    run.figure(
        "pruning",
        Figure::new(
            "Pruning without retraining",
            format!(
                "Left test accuracy (dense: {:.3}), means over {seeds} seeds; right the training loss at 95 % against \
                 the number of gradients.",
                mean(&dense)
            ),
        )
        .columns(2)
        .panel(
            Plot::new(Axis::categories("", names.iter().copied()), Axis::new("test accuracy").limits(0.0, 1.0))
                .bars("90 %", (0..names.len()).map(|way| accuracy(way, 0)).collect())
                .bars("95 %", (0..names.len()).map(|way| accuracy(way, 1)).collect()),
        )
        .panel(Plot::new(Axis::log("gradients m"), Axis::log("training loss").unit("nat")).line(
            "",
            counts.iter().map(|&m| m as f64).collect(),
            means,
        )),
    );
    Ok(())
}

/// Means over an epoch, of the losses before each step.
fn by_epoch(losses: &[f64], epochs: u64) -> Vec<f64> {
    losses.chunks(losses.len().div_ceil(epochs as usize).max(1)).map(mean).collect()
}

fn optimisation(run: &mut Run) -> Result<()> {
    let (seeds, epochs, window) = run.scale().pick((1, 5, 32), (3, 20, 128), (5, 40, 256));
    let progress = run.progress();
    let settings = Settings { window, damp: 1e-3, learning_rate: 3e-3, ..Settings::default() };
    let mut scores: [Vec<Score>; 4] = Default::default();
    let mut curves: [Vec<f64>; 4] = Default::default();
    for seed in 0..seeds {
        let streams = run.stream("optimisation").nested(seed);
        for way in 0..4 {
            let net = DigitsNet::fresh(streams)?;
            let losses = match way {
                0 => net.train_with_mfac(settings, epochs, 32, &progress)?,
                1 => net.train_with_mfac(Settings { damp: 1e-5, ..settings }, epochs, 32, &progress)?,
                2 => {
                    let usual = SgdSettings { learning_rate: 0.1, momentum: 0.9, ..SgdSettings::default() };
                    let mut sgd = Sgd::new(net.params().vars(), usual).map_err(computation)?;
                    net.train_with(&mut sgd, epochs, 32, &progress)?
                }
                _ => {
                    let usual = AdamSettings { learning_rate: 3e-3, ..AdamSettings::default() };
                    let mut adam = Adam::new(net.params().vars(), usual).map_err(computation)?;
                    net.train_with(&mut adam, epochs, 32, &progress)?
                }
            };
            scores[way].push(net.score()?);
            if seed == 0 {
                curves[way] = by_epoch(&losses, epochs);
            }
        }
    }
    let loss = |way: usize| mean(&scores[way].iter().map(|s: &Score| s.loss).collect::<Vec<_>>());
    let accuracy = |way: usize| mean(&scores[way].iter().map(|s: &Score| s.accuracy).collect::<Vec<_>>());
    let how = format!("{epochs} epochs, batches of 32, m = {window}, λ = 1e-3, rate 3e-3, {seeds} seeds");
    run.claim("optimiser-loss", loss(0) / loss(2), format!("{how}; M-FAC {:.2e}, SGD {:.2e}", loss(0), loss(2)))?;
    let best = accuracy(2).max(accuracy(3));
    let words = format!("{how}; M-FAC {:.3}, SGD {:.3}, Adam {:.3}", accuracy(0), accuracy(2), accuracy(3));
    run.claim("optimiser-accuracy", accuracy(0) - best, words)?;
    let names = ["M-FAC, λ = 1e-3", "M-FAC, λ = 1e-5", "SGD", "Adam"];
    // The authors' default damping is part of the result: where the loss nears zero, ‖g‖² falls to mλ and steps grow.
    run.metric("final training loss at λ = 1e-5", loss(1), "nat");
    run.table(
        Table::new("optimisers", "The digits network after training, means over seeds.")
            .words("optimiser", names)
            .numbers("training loss", "nat", (0..4).map(loss))
            .numbers("test accuracy", "", (0..4).map(accuracy)),
    )?;
    let mut plot = Plot::new(Axis::new("epoch"), Axis::log("training loss").unit("nat"));
    for (name, curve) in names.into_iter().zip(curves) {
        plot = plot.line(name, (1..=curve.len()).map(|epoch| epoch as f64).collect(), curve);
    }
    let caption = "Mean loss of each epoch's batches before their steps, first seed.";
    run.figure("optimisers", Figure::new("Training the digits network", caption).panel(plot));
    Ok(())
}
