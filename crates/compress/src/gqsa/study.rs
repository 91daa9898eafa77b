//! The claims, measured.

use super::engine::timing::{Regime, Timing, random_vector, random_weights};
use super::engine::{Format, GROUP, Gemv, Precision, Split, read_bandwidth, sparse};
use super::{
    Form, Gqsa, Pruning, Recipe, Saliency, Start, Training, block_layers, by_method, dense, group_pruned, keep_groups,
    perplexity,
};
use crate::Subject;
use crate::examples::Example;
use crate::methods::{Gptq, Magnitude, Scope, SparseGpt, Sparsity, Target, Wanda, WeightMethod};
use crate::quantiser::Scheme;
use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::{Device, Module, Tensor};
use ndarray::Array2;
use offprint_core::figure::{Axis, Figure, Plot};
use offprint_core::random::Streams;
use offprint_core::{Error, Progress, Result, Run, Study, Table};
use offprint_math::stats::{mean, median};
use offprint_nn::{LayerPlace, computation};
use std::time::Instant;

impl Study for Gqsa {
    fn measure(run: &mut Run) -> Result<()> {
        accuracy(run)?;
        let progress = run.progress();
        progress.begin("products", 5);
        speed(run)?;
        progress.advance(2)?;
        decoder(run)?;
        progress.advance(1)?;
        sparsities(run)?;
        progress.advance(1)?;
        balance(run)?;
        progress.advance(1)?;
        progress.finish();
        Ok(())
    }
}

/// What accuracies are measured on.
struct Bed {
    subject: Subject,
    places: Vec<LayerPlace>,
    recipe: Recipe,
    progress: Progress,
    calibration: usize,
}

impl Bed {
    /// Perplexities after rounding, stage one and stage two.
    fn trained(&self, starts: &[Start], form: Form, pruning: Option<Pruning>, streams: Streams) -> Result<[f64; 3]> {
        let mut found = [f64::NAN; 3];
        let Subject { network, train: data, test } = &self.subject;
        let training =
            Training { network, data, form, pruning, recipe: self.recipe, streams, progress: self.progress.clone() };
        training.run(starts, |stage, layers| {
            found[stage as usize] = perplexity(network, layers, test)?;
            Ok(())
        })?;
        Ok(found)
    }

    fn inputs(&self) -> Result<Tensor> {
        let count = self.calibration.min(self.subject.train.len());
        self.subject.train.inputs.narrow(0, 0, count).map_err(computation)
    }

    /// GQSA at sparsity `share`.
    fn gqsa(&self, share: f64, streams: Streams) -> Result<[f64; 3]> {
        let pruning = Pruning { share, scope: Scope::Row };
        let (network, places) = (&self.subject.network, &self.places);
        let stream = streams.stream("calibration");
        let starts =
            group_pruned(network, places, &self.inputs()?, Saliency::Hessian, pruning, stream, &self.progress)?;
        self.trained(&starts, Form::GQSA, Some(pruning), streams)
    }

    /// What `method` makes of the layers.
    fn starts(&self, method: &dyn WeightMethod, target: Target, streams: Streams) -> Result<Vec<Start>> {
        let stream = streams.stream("calibration");
        by_method(&self.subject.network, &self.places, &self.inputs()?, method, target, stream)
    }
}

fn accuracy(run: &mut Run) -> Result<()> {
    let scale = run.scale();
    let subject = Example::CharLm.load()?;
    let places = block_layers(&subject.network)?;
    let steps = scale.pick(6, 150, 600);
    let recipe = Recipe { block_steps: steps, end_steps: steps, batch: scale.pick(8, 32, 64), ..Recipe::small() };
    let bed = Bed { subject, places, recipe, progress: run.progress(), calibration: scale.pick(32, 256, 1024) };
    let seeds = scale.pick(1, 3, 5);
    let all: Vec<Streams> = (0..seeds).map(|seed| run.stream("accuracy").nested(seed)).collect();
    let float = perplexity(&bed.subject.network, &[], &bed.subject.test)?;
    let two_four = Target::pruned(Sparsity::NofM { n: 2, m: 4 });
    let two_bits = Form::Codes { bits: 2, group: 64 };
    let narrow = Form::Codes { bits: 2, group: GROUP };
    // Those that a claim compares are trained from every seed, the others once.
    type Entrant<'a> = (&'a str, bool, Box<dyn Fn(Streams) -> Result<[f64; 3]> + 'a>);
    let whole = |form: Form| {
        let bed = &bed;
        Box::new(move |streams| bed.trained(&dense(&bed.subject.network, &bed.places)?, form, None, streams))
    };
    let pruned = |method: Box<dyn WeightMethod>| {
        let bed = &bed;
        Box::new(move |streams| bed.trained(&bed.starts(&*method, two_four, streams)?, Form::Half, None, streams))
    };
    let entrants: Vec<Entrant<'_>> = vec![
        ("GQSA W4 S50", true, Box::new(|streams| bed.gqsa(0.5, streams))),
        ("Wanda 2:4", true, pruned(Box::new(Wanda))),
        ("SparseGPT 2:4", false, pruned(Box::<SparseGpt>::default())),
        ("magnitude 2:4", false, pruned(Box::new(Magnitude))),
        ("W4 g16", false, whole(Form::GQSA)),
        ("W2 g64", true, whole(two_bits)),
        ("W2 g16", false, whole(narrow)),
    ];
    let mut table: Vec<(String, [f64; 3])> = Vec::new();
    for (name, compared, entrant) in &entrants {
        let seeds = if *compared { all.as_slice() } else { &all[..1] };
        let found = seeds.iter().map(|&streams| entrant(streams)).collect::<Result<Vec<_>>>()?;
        let stage = |k: usize| mean(&found.iter().map(|f| f[k]).collect::<Vec<_>>());
        table.push(((*name).to_owned(), [stage(0), stage(1), stage(2)]));
    }
    // One-shot with compensation; it has no training to follow here.
    for (bits, group) in [(2, 64), (2, GROUP)] {
        let target = Target::quantised(Scheme { holds_zero: true, ..Scheme::asymmetric(bits).grouped(group) });
        let starts = bed.starts(&Gptq::default(), target, all[0])?;
        let layers: Vec<_> = starts.iter().map(|start| start.rounded(Form::Half)).collect();
        let found = perplexity(&bed.subject.network, &layers, &bed.subject.test)?;
        table.push((format!("GPTQ W{bits} g{group}"), [found, f64::NAN, f64::NAN]));
    }
    drop(entrants);
    let at = |name: &str| table.iter().find(|row| row.0 == name).expect("measured above").1;
    let (gqsa, wanda, two) = (at("GQSA W4 S50"), at("Wanda 2:4"), at("W2 g64"));
    let how = format!("{seeds} seeds, {steps} steps a stage; perplexity of the dense model {float:.2}");
    run.claim("below-two-four", gqsa[2] / wanda[0], format!("{how}; {:.2} against {:.2}", gqsa[2], wanda[0]))?;
    run.claim("below-two-bits", gqsa[2] / two[0], format!("{how}; {:.2} against {:.2}", gqsa[2], two[0]))?;
    run.claim("equal-two-four", gqsa[2] / wanda[2], format!("{how}; {:.2} against {:.2}", gqsa[2], wanda[2]))?;
    run.claim("equal-two-bits", gqsa[2] / two[2], format!("{how}; {:.2} against {:.2}", gqsa[2], two[2]))?;
    run.claim("first-stage", gqsa[1] / gqsa[0], format!("{how}; {:.2} to {:.2}", gqsa[0], gqsa[1]))?;
    run.claim("second-stage", gqsa[2] / gqsa[1], format!("{how}; {:.3} to {:.3}", gqsa[1], gqsa[2]))?;
    let dial = [0.2, 0.3, 0.4, 0.5];
    let found = dial.iter().map(|&share| Ok(bed.gqsa(share, all[0])?[2])).collect::<Result<Vec<f64>>>()?;
    let least = found.windows(2).map(|pair| pair[1] / pair[0]).fold(f64::INFINITY, f64::min);
    let words = format!("one seed; perplexities {:.2}, {:.2}, {:.2}, {:.2}", found[0], found[1], found[2], found[3]);
    run.claim("perplexity-monotone", least, words)?;
    run.metric("perplexity of the dense model", float, "");
    run.figure(
        "stages",
        Figure::new(
            "Perplexity before and after training, by form",
            "The character model, all with the same steps. Trained, 2:4 and W2 of this small width are as good or better: \
             rows of 64 weights have four groups to choose from.",
        )
        .panel(
            Plot::new(
                Axis::categories("form", table[..7].iter().map(|row| row.0.as_str())),
                Axis::log("perplexity a character"),
            )
            .bars("one shot", table[..7].iter().map(|row| row.1[0]).collect())
            .bars("block by block", table[..7].iter().map(|row| row.1[1]).collect())
            .bars("end to end", table[..7].iter().map(|row| row.1[2]).collect())
            .horizontal("dense", float),
        ),
    );
    run.table(
        Table::new(
            "accuracy",
            "Perplexity a character on the held-out tenth; GQSA, Wanda 2:4 and W2 g64 are means over seeds.",
        )
        .words("form", table.iter().map(|row| row.0.clone()))
        .numbers("one shot", "", table.iter().map(|row| row.1[0]))
        .numbers("block by block", "", table.iter().map(|row| row.1[1]))
        .numbers("end to end", "", table.iter().map(|row| row.1[2])),
    )
}

/// A pool of so many threads.
fn pool(threads: usize) -> Result<rayon::ThreadPool> {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(|e| Error::Numerical(e.to_string()))
}

/// Where, how and on how many threads.
type Setting = (Regime, Precision, usize);

fn settings() -> Vec<Setting> {
    let mut settings = Vec::new();
    for regime in [Regime::Memory, Regime::Cache] {
        for precision in [Precision::Single, Precision::Int8] {
            for threads in [1, 2] {
                settings.push((regime, precision, threads));
            }
        }
    }
    settings
}

fn name((regime, precision, threads): Setting) -> String {
    let place = if regime == Regime::Memory { "memory" } else { "cache" };
    let vector = if precision == Precision::Single { "f32" } else { "int8" };
    format!("{place}, {vector}, {threads} thread{}", if threads == 1 { "" } else { "s" })
}

fn speed(run: &mut Run) -> Result<()> {
    let (large, small) = run.scale().pick((512, 256), (4096, 2048), (8192, 2048));
    let rounds = run.scale().pick(5, 21, 41);
    let settings = settings();
    // Seconds by setting and format.
    let mut seconds = vec![[f64::NAN; Format::ALL.len()]; settings.len()];
    let mut bytes = [0; Format::ALL.len()];
    for (regime, n) in [(Regime::Memory, large), (Regime::Cache, small)] {
        let weights = random_weights(n, n, run.stream("weights"));
        let x = random_vector(n, run.stream("x"));
        for (f, format) in Format::ALL.into_iter().enumerate() {
            let matrix = format.rounded(&weights)?;
            if regime == Regime::Memory {
                bytes[f] = matrix.bytes();
            }
            let copies = Timing::new(regime, Precision::Single).copies(&*matrix);
            for (s, &(_, precision, threads)) in settings.iter().enumerate().filter(|(_, s)| s.0 == regime) {
                let timing = Timing { rounds, ..Timing::new(regime, precision) };
                seconds[s][f] = pool(threads)?.install(|| timing.of_all(&copies, &x))?;
            }
        }
    }
    let column = |format: Format| Format::ALL.iter().position(|&f| f == format).expect("one of all");
    let ratios = |format: Format| -> Vec<f64> {
        seconds.iter().map(|row| row[column(format)] / row[column(Format::W4S50)]).collect()
    };
    let how = format!("{large} × {large} from memory, {small} × {small} from cache, median of {rounds}");
    for (claim, format, least) in [
        ("speed-two-four", Format::W4TwoFour, 2.0),
        ("speed-two-bits-16", Format::W2G16, 1.2),
        ("speed-two-bits-64", Format::W2G64, 1.2),
    ] {
        let ratios = ratios(format);
        let share = ratios.iter().filter(|&&ratio| ratio >= least).count() as f64 / ratios.len() as f64;
        let list: Vec<String> =
            settings.iter().zip(&ratios).map(|(&s, ratio)| format!("{}: {ratio:.2}", name(s))).collect();
        run.claim(claim, share, format!("{how}; ratios {}", list.join("; ")))?;
    }
    let floats = vec![1f32; run.scale().pick(1 << 20, 1 << 26, 1 << 27)];
    let reads = [1, 2].map(|threads| pool(threads).map(|pool| pool.install(|| read_bandwidth(&floats, 7))));
    let [one, two] = reads;
    let (one, two) = (one?, two?);
    run.metric("streaming read, 1 thread", one / 1e9, "GB/s");
    run.metric("streaming read, 2 threads", two / 1e9, "GB/s");
    let sparse = column(Format::W4S50);
    let best = settings
        .iter()
        .zip(&seconds)
        .filter(|((regime, _, threads), _)| *regime == Regime::Memory && *threads == 2)
        .map(|(_, row)| bytes[sparse] as f64 / row[sparse])
        .fold(0.0, f64::max);
    run.metric("W4 S50 from memory, 2 threads", best / 1e9, "GB/s");
    run.metric("share of the streaming read", best / two, "");
    // The bound: what formats could differ by if only bytes counted.
    run.table(
        Table::new("roofline", format!("Bytes of {large} × {large}, and the least time at {:.1} GB/s.", two / 1e9))
            .words("format", Format::ALL.map(Format::name))
            .numbers("size", "MB", bytes.iter().map(|&b| b as f64 / 1e6))
            .numbers("least time", "ms", bytes.iter().map(|&b| 1e3 * b as f64 / two))
            .numbers("bytes / W4 S50", "", bytes.iter().map(|&b| b as f64 / bytes[sparse] as f64)),
    )?;
    let mut table =
        Table::new("speed", format!("Time of a product; {how}.")).words("setting", settings.iter().map(|&s| name(s)));
    for (f, format) in Format::ALL.into_iter().enumerate() {
        table = table.numbers(format.name(), "ms", seconds.iter().map(|row| 1e3 * row[f]));
    }
    run.table(table)?;
    let mut plot = Plot::new(Axis::categories("format", Format::ALL.map(Format::name)), Axis::log("time / W4 S50"));
    for (s, &setting) in settings.iter().enumerate().filter(|(_, s)| s.2 == 2) {
        plot = plot.bars(name(setting), (0..Format::ALL.len()).map(|f| seconds[s][f] / seconds[s][sparse]).collect());
    }
    run.figure(
        "speed",
        Figure::new("Time of a product with one vector", "Relative to W4 S50 g16, two threads.").panel(plot),
    );
    peer(run, large, rounds)
}

/// Candle's product with Q4_0, the nearest in Rust that a user would otherwise take.
fn peer(run: &mut Run, n: usize, rounds: usize) -> Result<()> {
    let weights = random_weights(n, n, run.stream("weights"));
    let x = random_vector(n, run.stream("x"));
    // A block of 32 weights takes 18 bytes; as many matrices in turn as ours.
    let copies = Regime::Memory.copies(n * n / 32 * 18);
    let made = || -> candle_core::Result<(Vec<QMatMul>, Tensor)> {
        let dense = Tensor::from_vec(weights.iter().copied().collect::<Vec<f32>>(), (n, n), &Device::Cpu)?;
        let matrix = || QMatMul::from_qtensor(QTensor::quantize(&dense, GgmlDType::Q4_0)?);
        Ok((
            (0..copies).map(|_| matrix()).collect::<candle_core::Result<_>>()?,
            Tensor::from_slice(&x, (1, n), &Device::Cpu)?,
        ))
    };
    let (matrices, vector) = made().map_err(computation)?;
    let ours = Format::W4S50.rounded(&weights)?;
    let timing = Timing { rounds, ..Timing::new(Regime::Memory, Precision::Int8) };
    let ours = timing.of(&*ours, &x)?;
    let mut seconds = Vec::with_capacity(rounds);
    for (round, matrix) in matrices.iter().cycle().take(rounds + 3).enumerate() {
        let start = Instant::now();
        std::hint::black_box(matrix.forward(&vector).map_err(computation)?);
        if round >= 3 {
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    let theirs = median(&seconds);
    run.metric("candle's Q4_0 product", 1e3 * theirs, "ms");
    run.metric("candle's Q4_0 product / W4 S50", theirs / ours, "");
    Ok(())
}

/// The seven matrices of a LLaMA-7B layer, reading each once.
fn decoder(run: &mut Run) -> Result<()> {
    let (width, inner) = run.scale().pick((256, 688), (4096, 11008), (4096, 11008));
    let square = random_weights(width, width, run.stream("square"));
    let wide = random_weights(inner, width, run.stream("wide"));
    let tall = Array2::from_shape_vec((width, inner), wide.iter().copied().collect()).expect("as many elements");
    let rounds = run.scale().pick(3, 7, 15);
    let pool = pool(2)?;
    let total = |format: Format, precision: Precision| -> Result<f64> {
        let timing = Timing { rounds, ..Timing::new(Regime::Memory, precision) };
        let mut seconds = 0.0;
        for (weights, count) in [(&square, 4.0), (&wide, 2.0), (&tall, 1.0)] {
            let x = random_vector(weights.ncols(), run.stream("x"));
            let matrix = format.rounded(weights)?;
            seconds += count * pool.install(|| timing.of(&*matrix, &x))?;
        }
        Ok(seconds)
    };
    let half = total(Format::F16, Precision::Single)?;
    let sparse = total(Format::W4S50, Precision::Int8)?;
    let exact = total(Format::W4S50, Precision::Single)?;
    let words = format!(
        "{width} × {width} four times, {inner} × {width} three times; f16 {:.2} ms a layer, W4 S50 {:.2} (f32 vector: {:.2}); \
         32 layers: {:.1} tokens a second against {:.1}",
        1e3 * half,
        1e3 * sparse,
        1e3 * exact,
        1.0 / (32.0 * sparse),
        1.0 / (32.0 * half)
    );
    run.claim("decoder-half", half / sparse, words)
}

fn sparsities(run: &mut Run) -> Result<()> {
    let n = run.scale().pick(256, 2048, 4096);
    let weights = random_weights(n, n, run.stream("weights"));
    let x = random_vector(n, run.stream("x"));
    let rounds = run.scale().pick(5, 41, 81);
    let timing = Timing { rounds, ..Timing::new(Regime::Cache, Precision::Int8) };
    let ones = vec![1.0; n];
    let shares = [0.0, 0.2, 0.3, 0.4, 0.5];
    let mut found = Vec::new();
    for share in shares {
        let keep = keep_groups(weights.view(), &ones, share, Scope::Row);
        let matrix = sparse(&weights, &super::group_mask(&keep))?;
        let seconds = pool(1)?.install(|| timing.of(&matrix, &x))?;
        found.push((matrix.bytes() as f64, seconds));
    }
    let distance = |of: fn(&(f64, f64)) -> f64| {
        let whole = of(&found[0]);
        shares.iter().zip(&found).map(|(share, f)| (of(f) / ((1.0 - share) * whole) - 1.0).abs()).fold(0.0, f64::max)
    };
    let how = format!("{n} × {n}, from cache, median of {rounds}");
    run.claim("bytes-linear", distance(|f| f.0), how.clone())?;
    let times: Vec<String> = found.iter().map(|f| format!("{:.3}", 1e3 * f.1)).collect();
    run.claim("time-linear", distance(|f| f.1), format!("{how}; {} ms", times.join(", ")))
}

fn balance(run: &mut Run) -> Result<()> {
    let n = run.scale().pick(320, 4000, 8000);
    let weights = random_weights(n, n, run.stream("weights"));
    let x = random_vector(n, run.stream("x"));
    let groups = n / GROUP;
    // A fifth of all groups is left: the first tenth of the rows is full, the others share as many.
    let kept = Array2::from_shape_fn((n, groups), |(row, group)| row < n / 10 || (group * 7 + row) % 9 == 0);
    let matrix = sparse(&weights, &kept)?;
    let rounds = run.scale().pick(5, 41, 81);
    let pool = pool(2)?;
    let time = |split| {
        let timing = Timing { rounds, split, ..Timing::new(Regime::Memory, Precision::Int8) };
        pool.install(|| timing.of(&matrix, &x))
    };
    let (rows, tasks) = (time(Split::Rows(2))?, time(Split::Tasks)?);
    let words = format!(
        "{n} × {n}; {:.3} ms by rows, {:.3} by tasks. Two equal runs of rows hold 72 % and 28 % of the groups, so the \
         most that balance can give on two threads is 1.44",
        1e3 * rows,
        1e3 * tasks
    );
    run.claim("balanced", rows / tasks, words)
}
