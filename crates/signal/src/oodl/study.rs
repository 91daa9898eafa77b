//! The claims, measured.

use super::*;
use ndarray::{Axis, s};
use offprint_core::figure::{Axis as Scale, Plot};
use offprint_core::random::Streams;
use offprint_core::{Figure, Run, Study, Table};
use offprint_math::linalg;
use offprint_math::stats::{log_log_slope, mean};
use rayon::prelude::*;
use std::time::{Duration, Instant};

impl Study for Oodl {
    fn measure(run: &mut Run) -> Result<()> {
        recovery(run)?;
        scales(run)?;
        gap_rate(run)?;
        rate_in_size(run)?;
        offline(run)?;
        per_second(run)?;
        drift(run)?;
        real_data(run)
    }
}

/// Samples drawn at a time.
const BLOCK: usize = 512;

/// One learner on one synthetic stream.
struct Trial {
    stream: BernoulliGaussian,
    learner: FrankWolfe,
    drawn: u64,
}

impl Trial {
    fn new(n: usize, theta: f64, schedule: Schedule, streams: Streams) -> Result<Self> {
        let stream = BernoulliGaussian::new(n, theta, 0.0, streams)?;
        let learner = FrankWolfe::new(random_orthogonal(n, &mut streams.stream("start").rng(0))?, schedule)?;
        Ok(Self { stream, learner, drawn: 0 })
    }

    /// Learns until `samples` are used, `batch` a step.
    fn learn_to(&mut self, samples: u64, batch: usize) -> Result<()> {
        while self.drawn < samples {
            let count = (BLOCK.next_multiple_of(batch) as u64).min(samples - self.drawn) as usize;
            let block = self.stream.samples(self.drawn, count);
            for rows in block.axis_chunks_iter(Axis(0), batch) {
                self.learner.step(rows)?;
            }
            self.drawn += count as u64;
        }
        Ok(())
    }

    fn error(&mut self) -> Result<f64> {
        recovery_error(self.learner.dictionary()?.view(), self.stream.truth())
    }

    fn smallest(&self) -> Result<f64> {
        Ok(linalg::svd(self.learner.iterate())?.1.iter().copied().fold(f64::INFINITY, f64::min))
    }
}

/// `work` for every seed at once; results in the order of the seeds.
fn seeds<T: Send>(run: &Run, name: &str, count: u64, work: impl Fn(Streams) -> Result<T> + Sync) -> Result<Vec<T>> {
    let (stream, progress) = (run.stream(name), run.progress());
    progress.begin(name, count);
    let each = |seed| {
        progress.check()?;
        let result = work(stream.nested(seed))?;
        progress.advance(1)?;
        Ok(result)
    };
    let results = (0..count).into_par_iter().map(each).collect();
    progress.finish();
    results
}

fn largest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

fn smallest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

/// The columns of a list of equally long rows.
fn columns(rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
    (0..rows[0].len()).map(|j| rows.iter().map(|row| row[j]).collect()).collect()
}

/// Error against samples, with and without averaging: N = 10, θ = 0.3.
fn recovery(run: &mut Run) -> Result<()> {
    let count = run.scale().pick(2, 5, 20);
    let at = [10u64, 30, 100, 300, 1000, 3000, 10_000];
    let curves = |run: &Run, schedule: Schedule, completion: Completion| {
        seeds(run, "recovery", count, |streams| {
            let mut trial = Trial::new(10, 0.3, schedule, streams)?;
            trial.learner = trial.learner.with_completion(completion);
            at.iter().map(|&t| trial.learn_to(t, 1).and_then(|()| trial.error())).collect::<Result<Vec<f64>>>()
        })
    };
    let averaged = columns(&curves(run, Schedule::default(), Completion::Svd)?);
    let plain = columns(&curves(run, Schedule::plain(), Completion::Svd)?);
    let nearest = columns(&curves(run, Schedule::plain(), Completion::Nearest)?);
    let end = &averaged[at.len() - 1];
    let how = format!("{count} seeds, 10⁴ samples one by one, N = 10, θ = 0.3");
    run.claim("recovery-mean", mean(end), how.clone())?;
    run.claim("recovery-worst", largest(end), how.clone())?;
    run.claim("averaging", mean(&plain[at.len() - 1]) / mean(end), format!("{how}; ratio of mean errors"))?;

    let x: Vec<f64> = at.iter().map(|&t| t as f64).collect();
    let summary = |columns: &[Vec<f64>], of: fn(&[f64]) -> f64| columns.iter().map(|c| of(c)).collect::<Vec<_>>();
    run.table(
        Table::new("recovery", "A row is a number of samples; errors are means over the seeds.")
            .integers("samples", "", at.iter().map(|&t| t as i64))
            .numbers("error", "", summary(&averaged, mean))
            .numbers("lowest", "", summary(&averaged, smallest))
            .numbers("highest", "", summary(&averaged, largest))
            .numbers("error without averaging", "", summary(&plain, mean))
            .numbers("error without averaging, nearest completion", "", summary(&nearest, mean)),
    )?;
    let mut plot = Plot::new(Scale::log("samples"), Scale::log("recovery error"));
    let curves = [
        ("averaged gradient", &averaged),
        ("no averaging (ρ = 1)", &plain),
        ("no averaging, nearest completion", &nearest),
    ];
    for (name, c) in curves {
        plot = plot.band(name, x.clone(), summary(c, mean), summary(c, smallest), summary(c, largest));
    }
    run.figure(
        "recovery",
        Figure::new(
            "Recovery from a stream",
            "N = 10, θ = 0.3, one sample a step. Means over the seeds; bands from the lowest to the highest. Without averaging the paper's step stalls, because the gradient of one sample has rank one and most of the step is arbitrary; \
             if of all equally good steps the nearest is taken, it does not.",
        )
        .panel(plot),
    );
    Ok(())
}

/// Larger N, sparser codes, mini-batches; how orthogonal the iterates get.
fn scales(run: &mut Run) -> Result<()> {
    let count = run.scale().pick(1, 3, 10);
    let cases = [("scale-n20", 0.3, 1, 20_000), ("scale-theta", 0.1, 1, 20_000), ("scale-batch", 0.3, 10, 50_000)];
    let mut singular = Vec::new();
    for (id, theta, batch, samples) in cases {
        let ends = seeds(run, id, count, |streams| {
            let mut trial = Trial::new(20, theta, Schedule::default(), streams)?;
            trial.learn_to(samples, batch)?;
            Ok((trial.error()?, trial.smallest()?))
        })?;
        let errors: Vec<f64> = ends.iter().map(|e| e.0).collect();
        run.claim(
            id,
            mean(&errors),
            format!("{count} seeds, {} steps of batch {batch}, N = 20, θ = {theta}", samples / batch as u64),
        )?;
        if batch == 1 {
            singular.extend(ends.iter().map(|e| e.1));
        }
    }
    run.claim("tight", smallest(&singular), format!("{} runs, 2·10⁴ samples, N = 20, θ = 0.3 and 0.1", singular.len()))
}

/// The population gap against t.
fn gap_rate(run: &mut Run) -> Result<()> {
    let (count, fresh) = run.scale().pick((2, 10_000), (5, 40_000), (20, 200_000));
    let at = [100u64, 300, 1000, 3000, 10_000];
    let gaps = seeds(run, "gap", count, |streams| {
        let mut trial = Trial::new(10, 0.3, Schedule::default(), streams)?;
        // Far beyond what is learned from, so these samples are new to the learner.
        let held_out = trial.stream.samples(1 << 40, fresh);
        at.iter()
            .map(|&t| {
                trial.learn_to(t, 1)?;
                let (_, gradient) = objective::mean_gradient(trial.learner.iterate(), held_out.view());
                objective::gap(trial.learner.iterate(), gradient.view())
            })
            .collect::<Result<Vec<f64>>>()
    })?;
    let columns = columns(&gaps);
    let means: Vec<f64> = columns.iter().map(|c| mean(c)).collect();
    let t: Vec<f64> = at.iter().map(|&t| t as f64).collect();
    let how = format!("{count} seeds, gap on {fresh} fresh samples at t = {at:?}");
    run.claim("gap-slope", log_log_slope(&t, &means), how.clone())?;
    let normalised: Vec<f64> = t.iter().zip(&means).map(|(t, g)| g * t.powf(0.25) / t.ln()).collect();
    let ratios: Vec<f64> = normalised[2..].windows(2).map(|w| w[1] / w[0]).collect();
    run.claim("gap-bound", largest(&ratios), how)?;
    run.table(
        Table::new("gap", "A row is a number of samples; gaps are means over the seeds.")
            .integers("samples", "", at.iter().map(|&t| t as i64))
            .numbers("gap", "", means.iter().copied())
            .numbers("gap t^(1/4) / ln t", "", normalised.iter().copied()),
    )?;
    let reference: Vec<f64> = t.iter().map(|t| normalised[0] * t.ln() / t.powf(0.25)).collect();
    let low = columns.iter().map(|c| smallest(c)).collect();
    let high = columns.iter().map(|c| largest(c)).collect();
    run.figure(
        "gap",
        Figure::new(
            "The Frank–Wolfe gap and its rate",
            "Population gap of the iterates, N = 10, θ = 0.3; band from the lowest to the highest seed. Dashed: ln t / t^(1/4), through the first point.",
        )
        .panel(
            Plot::new(Scale::log("samples"), Scale::log("Frank–Wolfe gap"))
                .band("measured", t.clone(), means, low, high)
                .reference("ln t / t^(1/4)", t, reference),
        ),
    );
    Ok(())
}

/// Samples until the error is 0.01, for several N and θ.
fn rate_in_size(run: &mut Run) -> Result<()> {
    const TARGET: f64 = 0.01;
    let sizes: &[usize] = run.scale().pick(&[8, 16], &[8, 16, 32, 64], &[8, 16, 32, 64, 128]);
    let thetas: &[f64] = run.scale().pick(&[0.3], &[0.1, 0.2, 0.3, 0.5], &[0.1, 0.2, 0.3, 0.5]);
    let (count, most) = run.scale().pick((1, 20_000), (2, 150_000), (5, 1_000_000));
    let pairs: Vec<(usize, f64)> = thetas.iter().flat_map(|&theta| sizes.iter().map(move |&n| (n, theta))).collect();
    // Every (N, θ, seed) is one item, so that the threads share the large ones.
    let stream = run.stream("rate");
    let progress = run.progress();
    let items = pairs.len() as u64 * count;
    progress.begin("samples to error 0.01", items);
    let times = (0..items)
        .into_par_iter()
        .map(|i| {
            let (n, theta) = pairs[(i / count) as usize];
            let mut trial = Trial::new(n, theta, Schedule::default(), stream.nested(i))?;
            let mut before = (1.0, f64::NAN);
            let mut next = 50.0f64;
            while trial.drawn < most {
                progress.check()?;
                trial.learn_to(next as u64, 1)?;
                let error = trial.error()?;
                if error <= TARGET {
                    progress.advance(1)?;
                    // Between the two looks on a straight line in logarithms.
                    let part = if before.1.is_nan() { 1.0 } else { (before.1 / TARGET).ln() / (before.1 / error).ln() };
                    return Ok(before.0 * (trial.drawn as f64 / before.0).powf(part));
                }
                before = (trial.drawn as f64, error);
                next = (next * 1.15).ceil();
            }
            progress.advance(1)?;
            Ok(f64::NAN)
        })
        .collect::<Result<Vec<f64>>>()?;
    progress.finish();
    let times: Vec<f64> = times.chunks(count as usize).map(mean).collect();
    let mut plot = Plot::new(Scale::log("N"), Scale::log("samples to error 0.01"));
    let sizes_f: Vec<f64> = sizes.iter().map(|&n| n as f64).collect();
    let mut sooner = 0;
    let mut never = 0;
    let mut exponents = Vec::new();
    for (theta, times) in thetas.iter().zip(times.chunks(sizes.len())) {
        never += times.iter().filter(|t| t.is_nan()).count();
        // A size that did not get there counts as later than any that did.
        let order = |t: f64| if t.is_nan() { f64::INFINITY } else { t };
        sooner += times.windows(2).filter(|w| order(w[1]) < order(w[0])).count();
        let reached: (Vec<f64>, Vec<f64>) = sizes_f.iter().zip(times).filter(|(_, t)| t.is_finite()).unzip();
        exponents.push(if reached.0.len() > 1 { log_log_slope(&reached.0, &reached.1) } else { f64::NAN });
        plot = plot.line(format!("θ = {theta}"), sizes_f.clone(), times.to_vec());
    }
    run.table(
        Table::new("rate", "A row is a size and a sparsity; NaN where error 0.01 was not reached.")
            .integers("N", "", pairs.iter().map(|p| p.0 as i64))
            .numbers("theta", "", pairs.iter().map(|p| p.1))
            .numbers("samples to error 0.01", "", times.iter().copied()),
    )?;
    run.table(
        Table::new("rate-exponents", "A row is a sparsity; samples to error 0.01 grow as N to this power.")
            .numbers("theta", "", thetas.iter().copied())
            .numbers("exponent of N", "", exponents.iter().copied()),
    )?;
    run.figure(
        "rate",
        Figure::new("How many samples it takes", "Samples until the recovery error is 0.01, one sample a step.")
            .panel(plot),
    );
    let reached =
        if never > 0 { format!("; {never} sizes did not get there in {most} samples") } else { String::new() };
    run.claim(
        "rate-in-n",
        sooner as f64,
        format!("{count} seeds, N in {sizes:?}, θ in {thetas:?}; exponents of N {exponents:.2?}{reached}"),
    )
}

/// Beside methods that keep all samples.
fn offline(run: &mut Run) -> Result<()> {
    let count = run.scale().pick(1, 3, 10);
    let p = 5000;
    let progress = run.progress();
    let with_slow = run.scale().pick(false, true, true);
    let errors = seeds(run, "offline", count, |streams| {
        let mut trial = Trial::new(20, 0.3, Schedule::default(), streams)?;
        trial.learn_to(p, 1)?;
        let samples = trial.stream.samples(0, p as usize);
        let start = || random_orthogonal(20, &mut streams.stream("start").rng(0));
        let truth = trial.stream.truth().to_owned();
        let mut sgd = RiemannianSgd::new(start()?, 0.3);
        samples.outer_iter().try_for_each(|y| sgd.learn(y.insert_axis(Axis(0))))?;
        let mut rivals: Vec<Box<dyn Learner>> = vec![
            Box::new(Msp::new(3, start()?, progress.clone())?),
            Box::new(Msp::new(4, start()?, progress.clone())?),
        ];
        if with_slow {
            rivals.push(Box::new(L1Subgradient::new(20, streams.stream("descents"), progress.clone())));
            rivals.push(Box::new(Ksvd::new(start()?, 6, 20, progress.clone())?));
        }
        let mut row = vec![(trial.error()?, trial.learner.carried())];
        row.push((recovery_error(sgd.dictionary()?.view(), truth.view())?, sgd.carried()));
        for rival in &mut rivals {
            rival.learn(samples.view())?;
            row.push((recovery_error(rival.dictionary()?.view(), truth.view())?, rival.carried()));
        }
        Ok(row)
    })?;
    let names = ["this method", "Riemannian SGD", "MSP ℓ₃", "MSP ℓ₄", "ℓ₁ subgradient", "K-SVD"];
    let of = |k: usize| mean(&errors.iter().map(|row| row[k].0).collect::<Vec<_>>());
    let methods = errors[0].len();
    run.table(
        Table::new("offline", "A row is a method on the same 5000 samples; errors are means over the seeds.")
            .words("method", names[..methods].iter().copied())
            .numbers("recovery error", "", (0..methods).map(of))
            .integers("numbers carried", "", errors[0].iter().map(|e| e.1 as i64)),
    )?;
    run.claim(
        "offline-error",
        of(0) / of(2),
        format!("{count} seeds, first {p} samples, N = 20, θ = 0.3; ratio of mean errors"),
    )?;
    let (ours, theirs) = (errors[0][0].1, errors[0][2].1);
    run.claim("offline-memory", ours as f64 / theirs as f64, format!("{ours} against {theirs} numbers"))
}

/// Beside Mairal's online method, error against seconds on one thread.
fn per_second(run: &mut Run) -> Result<()> {
    let samples = run.scale().pick(4_000, 20_000, 100_000u64);
    let streams = run.stream("per second").nested(0);
    let mut ours = Trial::new(20, 0.3, Schedule::default(), streams)?;
    let block = ours.stream.samples(0, samples as usize);
    let truth = ours.stream.truth().to_owned();
    let start = random_orthogonal(20, &mut streams.stream("start").rng(0))?;
    // Clocks run while learning only, not while errors are computed.
    let race = |learner: &mut dyn Learner, budget: Duration| -> Result<(Vec<f64>, Vec<f64>, usize)> {
        let (mut seconds, mut errors, mut spent, mut used, mut look) = (vec![], vec![], Duration::ZERO, 0, 50);
        while used < samples as usize && spent < budget {
            let until = look.min(samples as usize);
            let clock = Instant::now();
            while used < until && spent + clock.elapsed() < budget {
                learner.learn(block.slice(s![used..used + 1, ..]))?;
                used += 1;
            }
            spent += clock.elapsed();
            seconds.push(spent.as_secs_f64());
            errors.push(recovery_error(learner.dictionary()?.view(), truth.view())?);
            look = (look as f64 * 1.4) as usize;
        }
        Ok((seconds, errors, used))
    };
    let (our_seconds, our_errors, _) = race(&mut ours.learner, Duration::MAX)?;
    let budget = our_seconds[our_seconds.len() - 1];
    let mut lasso = OnlineLasso::new(start, 0.3);
    let (their_seconds, their_errors, used) = race(&mut lasso, Duration::from_secs_f64(budget))?;
    run.metric("time per sample, N = 20", budget / samples as f64 * 1e6, "µs");
    let ratio = our_errors[our_errors.len() - 1] / their_errors[their_errors.len() - 1];
    run.claim(
        "beats-online",
        ratio,
        format!("{samples} samples in {budget:.2} s against {used} in the same time; λ = 0.3; scikit-learn's version is timed by `offprint bench oodl`"),
    )?;
    run.figure(
        "per-second",
        Figure::new("Error against time", "The same stream, N = 20, θ = 0.3, one sample a step, one thread.").panel(
            Plot::new(Scale::log("time").unit("s"), Scale::log("recovery error"))
                .line("this method", our_seconds, our_errors)
                .line("online lasso (Mairal)", their_seconds, their_errors),
        ),
    );
    Ok(())
}

/// A dictionary that turns by 20° after 5000 samples, with floors on both step sizes.
fn drift(run: &mut Run) -> Result<()> {
    let count = run.scale().pick(2, 5, 20);
    let (turn_at, after, look) = (5000u64, 3000u64, 250u64);
    let curves = seeds(run, "drift", count, |streams| {
        let schedule = Schedule { averaging_floor: 0.05, step_floor: 0.02, ..Schedule::default() };
        let mut trial = Trial::new(10, 0.3, schedule, streams)?;
        let mut errors = Vec::new();
        while trial.drawn < turn_at + after {
            if trial.drawn == turn_at {
                let turned = turned(trial.stream.truth(), 20f64.to_radians());
                trial.stream = BernoulliGaussian::with_dictionary(turned, 0.3, 0.0, streams)?;
            }
            trial.learn_to(trial.drawn + look, 1)?;
            errors.push(trial.error()?);
        }
        Ok(errors)
    })?;
    let columns = columns(&curves);
    run.claim(
        "drift",
        largest(&columns[columns.len() - 1]),
        format!("{count} seeds, N = 10, θ = 0.3, floors 0.05 and 0.02"),
    )?;
    let x = (1..=columns.len()).map(|k| (k as u64 * look) as f64).collect();
    run.figure(
        "drift",
        Figure::new(
            "Following a dictionary that changes",
            "After 5000 samples every atom turns by 20°. Mean over the seeds; band from the lowest to the highest.",
        )
        .panel(
            Plot::new(Scale::new("samples"), Scale::log("recovery error"))
                .band(
                    "error",
                    x,
                    columns.iter().map(|c| mean(c)).collect(),
                    columns.iter().map(|c| smallest(c)).collect(),
                    columns.iter().map(|c| largest(c)).collect(),
                )
                .vertical("the dictionary turns", turn_at as f64),
        ),
    );
    Ok(())
}

/// D* with every pair of atoms (1, 2), (3, 4), … turned by `angle` in its plane; a last odd atom stays.
fn turned(truth: ArrayView2<'_, f64>, angle: f64) -> Array2<f64> {
    let mut turned = truth.to_owned();
    let (sin, cos) = angle.sin_cos();
    for j in (0..truth.ncols() / 2).map(|pair| 2 * pair) {
        let (a, b) = (truth.column(j), truth.column(j + 1));
        turned.column_mut(j).assign(&(&a * cos + &b * sin));
        turned.column_mut(j + 1).assign(&(&b * cos - &a * sin));
    }
    turned
}

/// Compression of digits, learned online after whitening.
fn real_data(run: &mut Run) -> Result<()> {
    let passes = run.scale().pick(1, 5, 20);
    let (images, _) = offprint_data::digits();
    let streams = run.streams();
    let mean_image = images.mean_axis(Axis(0)).expect("not empty");
    let mut learned = Vec::new();
    for whitening in [Whitening::Zca, Whitening::Centre] {
        let settings = Settings { whitening, burn_in: Some(images.nrows()), ..Settings::default() };
        let mut pipeline = Pipeline::new(64, settings, move |r| {
            let start = random_orthogonal(r, &mut streams.stream("digits start").rng(0))?;
            Ok(Box::new(FrankWolfe::new(start, Schedule::default())?))
        })?;
        for pass in 0..passes {
            run.progress().check()?;
            for i in run::shuffled(images.nrows(), streams.stream("digits order"), pass) {
                pipeline.learn_one(images.row(i).as_slice().expect("standard layout"))?;
            }
        }
        learned.push(pipeline.transform()?);
    }
    let principal = principal_axes(images.view(), &mean_image)?;
    let rivals = [
        ("whitened, learned", learned[0].clone()),
        ("centred, learned", learned[1].clone()),
        ("DCT-II", Transform::orthonormal(mean_image.clone(), dct_images(8, 8))),
        ("principal components", Transform::orthonormal(mean_image, principal)),
    ];
    let counts = [2usize, 4, 8, 12, 16, 24, 32];
    let mut table = Table::new("digits", "A row is a number of coefficients kept of 64.").integers(
        "kept",
        "coefficients",
        counts.iter().map(|&k| k as i64),
    );
    let mut plot = Plot::new(Scale::new("coefficients kept").unit("%"), Scale::log("relative reconstruction error"));
    let mut at_quarter = Vec::new();
    for (name, transform) in &rivals {
        let errors: Vec<f64> = counts.iter().map(|&k| transform.error_with_kept(images.view(), k)).collect();
        at_quarter.push(errors[4]);
        table = table.numbers(*name, "", errors.iter().copied());
        plot = plot.line(*name, counts.iter().map(|&k| k as f64 / 0.64).collect(), errors);
    }
    run.table(table)?;
    run.figure(
        "digits",
        Figure::new(
            "Compression of digits",
            "Each image keeps its largest coefficients; lower is better. Learned online, one image a step.",
        )
        .panel(plot),
    );
    let how = format!(
        "{passes} passes over 1797 digits, ZCA; errors {:.3} against DCT-II {:.3}, principal components {:.3}; only centred {:.3}",
        at_quarter[0], at_quarter[2], at_quarter[3], at_quarter[1]
    );
    run.claim("real-data", at_quarter[0] / at_quarter[2], how)
}
