//! The claims, measured.

use super::bins::Bins;
use super::design::Design;
use super::functions::{Function, Noisy, SparseFunction};
use super::{Algorithm, Hashing, Noise, Recovery, Settings, Spright, Table, full, plan, recover, transform};
use offprint_core::figure::{Axis, Figure, Layer, Plot};
use offprint_core::random::{Stream, Streams};
use offprint_core::{Progress, Result, Run, Study, Table as Rows};
use offprint_math::stats::{log_log_slope, mean, median};
use rand::RngExt;
use rayon::prelude::*;
use std::time::Instant;

/// The share of seeds that a smallest design must serve.
const ENOUGH: f64 = 0.95;

impl Study for Spright {
    fn measure(run: &mut Run) -> Result<()> {
        exact_recovery(run)?;
        peeling_threshold(run)?;
        robustness(run)?;
        samples(run)?;
        time(run)?;
        crossover(run)?;
        sparse_fht(run)
    }
}

/// Runs `trial` for each seed, in parallel; the answers in the order of the seeds.
fn trials<R: Send>(
    count: usize,
    stream: Stream,
    progress: &Progress,
    trial: impl Fn(Streams) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    (0..count as u64)
        .into_par_iter()
        .map(|seed| {
            let result = trial(stream.nested(seed))?;
            progress.advance(1)?;
            Ok(result)
        })
        .collect()
}

/// K coefficients ±1 on n bits and noise of the given signal-to-noise ratio K/σ² (in dB; infinite for none).
struct Instance {
    function: SparseFunction,
    sigma: f64,
    seed: u64,
}

impl Instance {
    fn draw(bits: u32, sparsity: usize, decibels: f64, streams: Streams) -> Self {
        let mut rng = streams.stream("function").rng(0);
        Self {
            function: SparseFunction::random_signs(bits, sparsity, 1.0, &mut rng),
            sigma: (sparsity as f64 / 10f64.powf(decibels / 10.0)).sqrt(),
            seed: rng.random(),
        }
    }

    fn noisy(&self) -> Noisy<'_, SparseFunction> {
        Noisy { function: &self.function, sigma: self.sigma, seed: self.seed }
    }

    fn recover(&self, settings: &Settings, streams: Streams) -> Result<Recovery> {
        transform(&mut self.noisy(), settings, streams.stream("design"), &Progress::silent())
    }

    /// The largest error of a value, if exactly the true coefficients were found.
    fn error(&self, recovery: &Recovery) -> Option<f64> {
        let truth = self.function.spectrum();
        let mut found = recovery.coefficients.clone();
        found.sort_by_key(|c| c.index);
        let same = found.len() == truth.len() && found.iter().zip(&truth).all(|(c, t)| c.index == t.0);
        same.then(|| found.iter().zip(&truth).fold(0.0, |l, (c, t)| (c.value - t.1).abs().max(l)))
    }

    /// Whether exactly the true coefficients were found, with their signs.
    fn is_recovered(&self, recovery: &Recovery) -> bool {
        self.error(recovery).is_some_and(|e| e < 1.0)
    }
}

/// N = 2¹⁸, K = 20, ±1, no noise: the example of the authors' manual.
fn exact_recovery(run: &mut Run) -> Result<()> {
    let count = run.scale().pick(20, 100, 1000);
    let settings =
        Settings { algorithm: Algorithm::Exact, bin_bits: Some(6), hashing: Hashing::Windows, ..Settings::new(18, 20) };
    let progress = run.progress();
    progress.begin("noiseless recovery", count as u64);
    let errors = trials(count, run.stream("exact"), &progress, |streams| {
        let instance = Instance::draw(18, 20, f64::INFINITY, streams);
        Ok(instance.error(&instance.recover(&settings, streams)?))
    })?;
    let exact: Vec<f64> = errors.into_iter().flatten().collect();
    let needed = plan(&settings, run.stream("exact"))?.len();
    run.metric("values looked at without noise (n = 18, K = 20)", needed as f64, "");
    run.metric("their share of all", 100.0 * needed as f64 / 2f64.powi(18), "%");
    let how =
        format!("n = 18, K = 20, ±1, three groups of 64 bins, {count} seeds, {needed} different values looked at");
    run.claim("exact-recovery", exact.len() as f64 / count as f64, &*how)?;
    run.claim("exact-error", exact.iter().fold(0.0, |l: f64, e| e.max(l)), format!("{how}; over the exact runs"))
}

/// The share of coefficients that peeling finds, against bins per coefficient.
fn peeling_threshold(run: &mut Run) -> Result<()> {
    let count = run.scale().pick(4, 40, 200);
    let bins = 1024;
    let settings = |sparsity| Settings {
        algorithm: Algorithm::Exact,
        bin_bits: Some(10),
        hashing: Hashing::Windows,
        ..Settings::new(30, sparsity)
    };
    let ratios: Vec<f64> = (0..=14).map(|i| 0.36 + 0.01 * f64::from(i)).collect();
    let progress = run.progress();
    progress.begin("peeling threshold", (ratios.len() * count) as u64);
    let mut share = Vec::new();
    for &ratio in &ratios {
        let sparsity = (f64::from(bins) / ratio).round() as usize;
        let settings = settings(sparsity);
        let peeled = trials(count, run.stream("threshold"), &progress, |streams| {
            let mut rng = streams.stream("function").rng(0);
            let function = SparseFunction::random_normal(30, sparsity, &mut rng);
            let design = Design::draw(&settings, streams.stream("design"))?;
            let bins = Bins::of_spectrum(&design, &function.spectrum());
            let recovery = recover(&design, bins, &settings, &Progress::silent())?;
            let truth = function.spectrum();
            let right = recovery.coefficients.iter().filter(|c| {
                truth.binary_search_by_key(&c.index, |t| t.0).is_ok_and(|t| (c.value - truth[t].1).abs() < 1e-6)
            });
            Ok(right.count() as f64 / sparsity as f64)
        })?;
        share.push(mean(&peeled));
    }
    // Where the share crosses three quarters, between about a half below the threshold and all above.
    let crossing = (1..ratios.len()).find(|&i| share[i - 1] < 0.75 && share[i] >= 0.75).map_or(f64::NAN, |i| {
        ratios[i - 1] + (0.75 - share[i - 1]) / (share[i] - share[i - 1]) * (ratios[i] - ratios[i - 1])
    });
    run.table(
        Rows::new("peeling", "Share of coefficients peeled, by bins per coefficient (three groups).")
            .numbers("bins per coefficient", "", ratios.clone())
            .numbers("share peeled", "", share.clone()),
    )?;
    let fine: Vec<f64> = (0..=140).map(|i| 0.36 + 0.001 * f64::from(i)).collect();
    let theory = fine.iter().map(|&eta| 1.0 - unpeeled(3, eta)).collect();
    run.figure(
        "peeling-threshold",
        Figure::new(
            "Peeling succeeds all at once",
            format!(
                "Share of the coefficients that peeling takes out, three groups of {bins} bins, mean of {count} seeds; \
                 dashed: density evolution, which jumps at the threshold 0.4073."
            ),
        )
        .panel(
            Plot::new(Axis::new("bins per coefficient and group, η"), Axis::new("share peeled").limits(0.0, 1.05))
                .reference("density evolution", fine, theory)
                .line("measured", ratios, share)
                .vertical("threshold", 0.4073),
        ),
    );
    run.claim(
        "peeling-threshold",
        crossing,
        format!("n = 30, three groups of {bins} bins, normal coefficients, {count} seeds per η; where 3/4 are peeled"),
    )
}

/// The share of coefficients that peeling leaves by density evolution: a coefficient stays if in all C groups some
/// other stays in its bin, and edges follow p ← (1 − e^{−p/η})^{C−1}.
pub fn unpeeled(groups: u32, eta: f64) -> f64 {
    let mut p = 1.0f64;
    for _ in 0..100_000 {
        let next = (1.0 - (-p / eta).exp()).powi(groups as i32 - 1);
        if (next - p).abs() < 1e-12 {
            break;
        }
        p = next;
    }
    (1.0 - (-p / eta).exp()).powi(groups as i32)
}

/// NSO at n = 14, K = 16, with the three blocks 0–4, 5–9 and 9–13.
fn robustness(run: &mut Run) -> Result<()> {
    let count = run.scale().pick(20, 400, 2000);
    let delays = [3usize, 5, 7, 9];
    let progress = run.progress();
    let ratios = [-5.0, 0.0, 5.0];
    progress.begin("robustness", (ratios.len() * delays.len() * count) as u64);
    let mut success = Vec::new();
    for &decibels in &ratios {
        let mut row = Vec::new();
        for &delays in &delays {
            // The same functions and the same noise for every number of delays.
            let right = trials(count, run.stream("robust"), &progress, |streams| {
                let instance = Instance::draw(14, 16, decibels, streams);
                let settings = Settings {
                    blocks: vec![(0, 4), (5, 9), (9, 13)],
                    delays: Some(delays),
                    noise: Noise::Known(instance.sigma),
                    amplitude: Some(1.0),
                    ..Settings::new(14, 16)
                };
                Ok(instance.is_recovered(&instance.recover(&settings, streams)?))
            })?;
            row.push(right.iter().filter(|&&r| r).count() as f64 / count as f64);
        }
        success.push(row);
    }
    let x: Vec<f64> = delays.iter().map(|&d| d as f64).collect();
    let mut plot = Plot::new(Axis::new("random delays P₁"), Axis::new("share of runs recovered").limits(-0.02, 1.02));
    let mut table =
        Rows::new("robustness", "Share of runs in which exactly the true coefficients were found (n = 14, K = 16).")
            .integers("delays", "", delays.iter().map(|&d| d as i64));
    for (&decibels, row) in ratios.iter().zip(&success) {
        plot = plot.line(format!("{decibels} dB"), x.clone(), row.clone());
        table = table.numbers(format!("{decibels} dB"), "", row.clone());
    }
    run.table(table)?;
    run.figure(
        "robustness",
        Figure::new(
            "More delays beat the noise",
            format!("NSO on 2¹⁴ values with 16 coefficients ±1 in noise, {count} seeds for each point."),
        )
        .panel(plot),
    );
    let how =
        format!("n = 14, K = 16, ±1 known, blocks 0-4, 5-9, 9-13, NSO, {count} seeds for each of P₁ = 3, 5, 7, 9");
    run.claim("robust-success", success[1][3], format!("{how}; 0 dB, P₁ = 9"))?;
    let steps = success[1..].iter().flat_map(|row| row.windows(2).map(|w| w[1] - w[0]));
    run.claim("robust-monotone", steps.fold(f64::MAX, f64::min), format!("{how}; smallest step at 0 and 5 dB"))
}

/// The settings of one candidate design for `samples`: two to four bins per coefficient and group.
fn design_of(algorithm: Algorithm, bits: u32, sparsity: usize, size: usize, sigma: f64) -> Settings {
    let base = Settings {
        algorithm,
        bin_bits: Some(Settings::new(bits, sparsity).bin_bits() + 1),
        noise: Noise::Known(sigma),
        amplitude: Some(1.0),
        ..Settings::new(bits, sparsity)
    };
    match algorithm {
        // Of all delays two thirds carry the code, the rest verifies.
        Algorithm::So => Settings { coded_delays: Some((2 * size).div_ceil(3)), delays: Some(size / 3), ..base },
        _ => Settings { delays: Some(size), ..base },
    }
}

/// The mean number of different values that a design looks at, if at 5 dB it recovers enough of `count` seeds.
fn serves(
    run: &Run,
    algorithm: Algorithm,
    bits: u32,
    sparsity: usize,
    size: usize,
    count: usize,
) -> Result<Option<f64>> {
    /// Seeds between looks at whether it can still be enough.
    const BATCH: usize = 20;
    let stream = run.stream("samples");
    let (mut failures, mut values) = (0, Vec::with_capacity(count));
    while values.len() < count {
        run.progress().check()?;
        let batch: Vec<(bool, f64)> = (values.len()..count.min(values.len() + BATCH))
            .into_par_iter()
            .map(|seed| {
                let streams = stream.nested(seed as u64);
                let instance = Instance::draw(bits, sparsity, 5.0, streams);
                let settings = design_of(algorithm, bits, sparsity, size, instance.sigma);
                let design = Design::draw(&settings, streams.stream("design"))?;
                let seen = Bins::observe(&design, &mut instance.noisy())?;
                let found = recover(&design, seen, &settings, &Progress::silent())?;
                Ok((instance.is_recovered(&found), design.indices().len() as f64))
            })
            .collect::<Result<_>>()?;
        failures += batch.iter().filter(|r| !r.0).count();
        values.extend(batch.iter().map(|r| r.1));
        if failures as f64 > (1.0 - ENOUGH) * count as f64 {
            return Ok(None);
        }
    }
    Ok(Some(mean(&values)))
}

/// The smallest SO design that serves enough seeds: its values looked at (NaN if none does), and its delays.
fn smallest(run: &Run, bits: u32, sparsity: usize, count: usize) -> Result<(f64, usize)> {
    let unknown = (bits - Settings::new(bits, sparsity).bin_bits() - 1) as usize;
    // Two thirds of the delays must carry at least the unknown bits.
    let mut size = (3 * unknown).div_ceil(2);
    while size <= 12 * bits as usize {
        if let Some(values) = serves(run, Algorithm::So, bits, sparsity, size, count)? {
            return Ok((values, size));
        }
        size += (size / 16).max(1);
    }
    Ok((f64::NAN, size))
}

/// How the number of values grows with n and K.
fn samples(run: &mut Run) -> Result<()> {
    let count = run.scale().pick(10, 100, 400);
    let bits: Vec<u32> = run.scale().pick(vec![12, 18, 24], vec![12, 14, 16, 18, 20, 22, 24], (12..=24).collect());
    let sparsities: Vec<usize> =
        run.scale().pick(vec![8, 64], vec![8, 16, 32, 64, 128, 256, 512], vec![8, 16, 32, 64, 128, 256, 512]);
    run.progress().begin("values needed, SO", None);
    let n: Vec<f64> = bits.iter().map(|&n| f64::from(n)).collect();
    let mut so = Vec::new();
    let mut so_delays = Vec::new();
    for &bits in &bits {
        let (values, size) = smallest(run, bits, 16, count)?;
        so.push(values);
        so_delays.push(size as f64);
    }
    // NSO as the paper designs it: P₁ proportional to n, with the smallest factor that serves every n.
    run.progress().begin("values needed, NSO", None);
    let mut factor = 1;
    let nso = loop {
        let tried: Option<Vec<f64>> = bits
            .iter()
            .map(|&n| serves(run, Algorithm::Nso, n, 16, (factor * n as usize).div_ceil(4), count))
            .collect::<Result<_>>()?;
        match tried {
            Some(values) => break values,
            None if factor == 16 => break vec![f64::NAN; bits.len()],
            None => factor += 1,
        }
    };
    run.progress().begin("values needed, by K", None);
    let by_sparsity: Vec<f64> =
        sparsities.iter().map(|&k| Ok(smallest(run, 20, k, count)?.0)).collect::<Result<_>>()?;
    // What the same bins take without noise.
    let exact = bits
        .iter()
        .map(|&n| {
            let settings = design_of(Algorithm::Exact, n, 16, 1, 0.0);
            Ok(plan(&settings, run.stream("samples").nested(0).stream("design"))?.len() as f64)
        })
        .collect::<Result<Vec<_>>>()?;
    let price: Vec<f64> = so.iter().zip(&exact).map(|(so, exact)| so / exact).collect();
    let unknown: Vec<f64> = n.iter().map(|n| n - 5.0).collect();
    let per_unknown: Vec<f64> = so.iter().zip(&unknown).map(|(v, u)| v / u).collect();
    run.metric("exponent of SO values / K in n − b", log_log_slope(&unknown, &per_unknown), "");
    let per = |values: &[f64]| values.iter().zip(&n).map(|(v, n)| v / (16.0 * n)).collect::<Vec<_>>();
    let k: Vec<f64> = sparsities.iter().map(|&k| k as f64).collect();
    let per_k: Vec<f64> = by_sparsity.iter().zip(&k).map(|(v, k)| v / (k * 20.0)).collect();
    run.table(
        Rows::new(
            "samples-by-n",
            "Values looked at by the smallest design that recovers 95 % of seeds (K = 16, 5 dB).",
        )
        .integers("n", "bits", bits.iter().map(|&n| i64::from(n)))
        .numbers("SO", "", so.clone())
        .numbers("delays of SO", "", so_delays)
        .numbers("NSO, P₁ ∝ n", "", nso.clone()),
    )?;
    run.table(
        Rows::new(
            "samples-by-k",
            "Values looked at by the smallest SO design that recovers 95 % of seeds (n = 20, 5 dB).",
        )
        .integers("K", "", sparsities.iter().map(|&k| k as i64))
        .numbers("SO", "", by_sparsity.clone()),
    )?;
    let all = n.iter().map(|n| 2f64.powf(*n)).collect();
    run.figure(
        "samples",
        Figure::new(
            "Values needed against the size of the problem",
            "Left: 16 coefficients at 5 dB; the dashed line is what the full transform reads. Right: 2²⁰ values.",
        )
        .columns(2)
        .panel(
            Plot::new(Axis::new("n").unit("bits"), Axis::log("values looked at"))
                .reference("all 2ⁿ", n.clone(), all)
                .line("NSO, P₁ ∝ n", n.clone(), nso.clone())
                .line("SO, smallest", n.clone(), so.clone())
                .line("exact, no noise", n.clone(), exact),
        )
        .panel(Plot::new(Axis::log("sparsity K"), Axis::log("values looked at")).line(
            "SO, smallest",
            k.clone(),
            by_sparsity,
        )),
    );
    let how = format!("5 dB, ±1 known, random hashing, b = ⌈log₂ K⌉ + 1, {count} seeds, at least 95 % recovered");
    run.claim(
        "so-price",
        log_log_slope(&n, &price),
        format!(
            "K = 16, n = 12 to 24, {how}; SO takes {:.2} to {:.2} times the values of the noiseless design",
            price.iter().copied().fold(f64::MAX, f64::min),
            price.iter().copied().fold(0.0, f64::max)
        ),
    )?;
    run.claim("so-samples-n", log_log_slope(&n, &per(&so)), format!("K = 16, n = 12 to 24, {how}; smallest design"))?;
    run.claim("so-samples-k", log_log_slope(&k, &per_k), format!("n = 20, K = 8 to 512, {how}; smallest design"))?;
    run.claim(
        "nso-samples-n",
        log_log_slope(&n, &per(&nso)),
        format!("K = 16, n = 12 to 24, {how}; P₁ = ⌈{factor} n / 4⌉, the smallest such factor that serves every n"),
    )
}

/// The median seconds of `count` timed runs.
fn timed(count: usize, mut work: impl FnMut(u64) -> Result<()>) -> Result<f64> {
    let mut seconds = Vec::with_capacity(count);
    for seed in 0..count as u64 {
        let started = Instant::now();
        work(seed)?;
        seconds.push(started.elapsed().as_secs_f64());
    }
    Ok(median(&seconds))
}

/// SO on a function that is computed where it is asked, K = 32, up to n = 30.
fn time(run: &mut Run) -> Result<()> {
    let count = run.scale().pick(3, 21, 51);
    let bits: Vec<u32> = (16..=30).step_by(2).collect();
    let progress = run.progress();
    progress.begin("time against n", bits.len() as u64);
    let mut seconds = Vec::new();
    for &n in &bits {
        seconds.push(timed(count, |seed| {
            let streams = run.stream("time").nested(seed);
            let instance = Instance::draw(n, 32, 5.0, streams);
            let settings = Settings {
                algorithm: Algorithm::So,
                noise: Noise::Known(instance.sigma),
                amplitude: Some(1.0),
                ..Settings::new(n, 32)
            };
            instance.recover(&settings, streams).map(drop)
        })?);
        progress.advance(1)?;
    }
    let n: Vec<f64> = bits.iter().map(|&n| f64::from(n)).collect();
    let milliseconds: Vec<f64> = seconds.iter().map(|s| 1e3 * s).collect();
    run.table(
        Rows::new("time-by-n", "Time of SO from the query function to the spectrum (K = 32, 5 dB), median.")
            .integers("n", "bits", bits.iter().map(|&n| i64::from(n)))
            .numbers("time", "ms", milliseconds.clone()),
    )?;
    // The full transform of what memory holds.
    let sizes: Vec<u32> = run.scale().pick(vec![16, 18], vec![16, 18, 20, 22, 24], vec![16, 18, 20, 22, 24, 26]);
    let mut table = Vec::new();
    let mut whole = Vec::new();
    for &n in &sizes {
        table.resize(1 << n, 1.0);
        whole.push(
            1e3 * timed(count.min(5), |_| {
                offprint_math::walsh_hadamard::walsh_hadamard::<f64>(&mut table);
                Ok(())
            })?,
        );
    }
    run.figure(
        "time",
        Figure::new(
            "Time against the number of bits",
            "SO with 32 coefficients at 5 dB, the function being computed where it is asked, beside the full fast \
             transform of a table in memory.",
        )
        .panel(
            Plot::new(Axis::new("n").unit("bits"), Axis::log("time").unit("ms"))
                .line("SO", n.clone(), milliseconds)
                .line("full transform", sizes.iter().map(|&n| f64::from(n)).collect(), whole),
        ),
    );
    let how = format!("SO, K = 32, 5 dB, query function, median of {count}");
    run.claim("time-degree", log_log_slope(&n, &seconds), format!("{how}; exponent of time in n from 16 to 30"))?;
    run.claim("time-at-30", *seconds.last().expect("n = 30 is timed"), how)
}

/// NSO beside the full transform, both from a table in memory, with K = N^{1/3}.
fn crossover(run: &mut Run) -> Result<()> {
    let bits: Vec<u32> = run.scale().pick(vec![16, 20], vec![16, 18, 20, 22, 24], vec![16, 18, 20, 22, 24]);
    let count = run.scale().pick(3, 7, 21);
    let progress = run.progress();
    progress.begin("crossover", bits.len() as u64);
    let (mut sparse, mut whole, mut ratio) = (Vec::new(), Vec::new(), Vec::new());
    for &n in &bits {
        let sparsity = 2f64.powf(f64::from(n) / 3.0).floor() as usize;
        let streams = run.stream("crossover").nested(u64::from(n));
        let instance = Instance::draw(n, sparsity, 10.0, streams);
        let table = instance.noisy().table();
        let settings = Settings { noise: Noise::Known(instance.sigma), ..Settings::new(n, sparsity) };
        let ours = timed(count, |_| {
            let mut query = Table::new::<f64>(&table[..], "table")?;
            transform(&mut query, &settings, streams.stream("design"), &Progress::silent()).map(drop)
        })?;
        let full = timed(count, |_| {
            full::spectrum(&mut Table::new::<f64>(&table[..], "table")?, n, &Progress::silent()).map(drop)
        })?;
        sparse.push(1e3 * ours);
        whole.push(1e3 * full);
        ratio.push(full / ours);
        progress.advance(1)?;
    }
    let x: Vec<f64> = bits.iter().map(|&n| f64::from(n)).collect();
    run.table(
        Rows::new("crossover", "NSO and the full transform on a table in memory, K = N^(1/3), 10 dB, median.")
            .integers("n", "bits", bits.iter().map(|&n| i64::from(n)))
            .numbers("NSO", "ms", sparse.clone())
            .numbers("full transform", "ms", whole.clone())
            .numbers("full / NSO", "", ratio.clone()),
    )?;
    run.figure(
        "crossover",
        Figure::new(
            "Where looking at less wins",
            "Both from a table in memory, with K = N^(1/3) coefficients at 10 dB.",
        )
        .panel(
            Plot::new(Axis::new("n").unit("bits"), Axis::log("time").unit("ms")).line("NSO", x.clone(), sparse).line(
                "full transform",
                x,
                whole,
            ),
        ),
    );
    let from_20 = bits.iter().zip(&ratio).filter(|x| *x.0 >= 20).map(|x| *x.1);
    run.claim(
        "crossover",
        from_20.fold(f64::MAX, f64::min),
        format!("table in memory, K = N^(1/3), 10 dB, NSO, median of {count}; the smallest ratio at n ≥ 20"),
    )
}

/// The older transform and SPRIGHT at 20 dB.
fn sparse_fht(run: &mut Run) -> Result<()> {
    let count = run.scale().pick(20, 100, 1000);
    let progress = run.progress();
    let mut success = Vec::new();
    for algorithm in [Algorithm::SparseFht, Algorithm::Exact, Algorithm::Nso, Algorithm::So] {
        progress.begin("20 dB", count as u64);
        let right = trials(count, run.stream("noise breaks"), &progress, |streams| {
            let instance = Instance::draw(18, 20, 20.0, streams);
            let settings = Settings {
                algorithm,
                bin_bits: Some(6),
                hashing: Hashing::Windows,
                noise: Noise::Known(instance.sigma),
                ..Settings::new(18, 20)
            };
            Ok(instance.is_recovered(&instance.recover(&settings, streams)?))
        })?;
        success.push(right.iter().filter(|&&r| r).count() as f64 / count as f64);
    }
    run.figure(
        "noise",
        Figure::new("A little noise", format!("Share of {count} runs recovered at 20 dB (n = 18, K = 20).")).panel(
            Plot::new(
                Axis::categories("algorithm", ["SparseFHT", "SPRIGHT exact", "SPRIGHT NSO", "SPRIGHT SO"]),
                Axis::new("share recovered").limits(0.0, 1.0),
            )
            .layer(Layer::Bars {
                name: String::new(),
                x: vec![0.0, 1.0, 2.0, 3.0],
                y: success.clone(),
                error: None,
            }),
        ),
    );
    let how = format!("n = 18, K = 20, ±1, 20 dB, three groups of 64 bins, {count} seeds");
    run.claim("sparse-fht-breaks", success[0], &*how)?;
    run.claim("spright-at-20-db", success[2], format!("{how}; NSO"))
}
