//! The door: parameters, the input that they name, and what one run reports.

use super::functions::{Function, GraphCut, Noisy, SparseFunction, Trees};
use super::query::mapped_reals;
use super::{Algorithm, Hashing, Measurements, Noise, Query, Recovery, Settings, Table, Value, plan, transform};
use offprint_core::figure::{Axis, Figure, Plot};
use offprint_core::npy::Mapped;
use offprint_core::{Array, Complex, Error, Method, Result, Run, Source};
use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Read;
use std::time::Instant;

/// SPRIGHT: the sparse Walsh–Hadamard transform from few noisy samples.
#[derive(Debug, Clone, Copy)]
pub struct Spright;

/// What the input is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// All 2ⁿ values of the function in order, real or complex (two columns: real and imaginary part); of a .npy file
    /// only what is needed is read
    #[default]
    Table,
    /// Measurements: rows of index and value (or index, real, imaginary part), or the values alone in the order of the
    /// indices that --plan lists; needs --bits
    Samples,
    /// Decision trees on binary features, as JSON
    Trees,
    /// A graph's edges (node, node, and perhaps a weight to a row); the function is the weight that a set of nodes cuts
    Graph,
}

/// Parameters of SPRIGHT.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Params {
    /// The function; by default one with random coefficients, seen through noise
    #[arg(long, default_value = "builtin")]
    pub input: Source,
    /// What the input is
    #[arg(long, value_enum, default_value_t)]
    pub kind: Kind,
    /// Number of bits n of an index, for samples, plans and the built-in table (18 there); files tell it themselves
    #[arg(long)]
    #[schemars(range(min = 1, max = 60))]
    pub bits: Option<u32>,
    /// About how many coefficients K to expect
    #[arg(long, default_value_t = 20)]
    #[schemars(range(min = 1))]
    pub sparsity: usize,
    /// How the spectrum is found
    #[arg(long, value_enum, default_value_t)]
    pub algorithm: Algorithm,
    /// Ways of hashing C
    #[arg(long, default_value_t = 3)]
    #[schemars(range(min = 1, max = 64))]
    pub groups: usize,
    /// Bits b that number the 2^b bins of a group; by default the binary logarithm of the sparsity, rounded up
    #[arg(long)]
    #[schemars(range(min = 1, max = 30))]
    pub bin_bits: Option<u32>,
    /// Which indices share a bin
    #[arg(long, value_enum, default_value_t)]
    pub hashing: Hashing,
    /// Blocks of bits that hash, as 0-4,5-9,9-13, in place of groups, bin bits and hashing
    #[arg(long)]
    pub blocks: Option<String>,
    /// Random delays P1; by default 9 for nso, n for so, 3 n for ml
    #[arg(long)]
    #[schemars(range(min = 1, max = 100000))]
    pub delays: Option<usize>,
    /// Coded delays P2 of so; by default twice the n − b unknown bits
    #[arg(long)]
    #[schemars(range(min = 1, max = 4000))]
    pub coded_delays: Option<usize>,
    /// Margin of the test for empty bins: energy up to (1 + gamma) times the noise's
    #[arg(long, default_value_t = 0.5)]
    #[schemars(extend("exclusiveMinimum" = 0), range(max = 100))]
    pub gamma: f64,
    /// Standard deviation of the noise on one value, if known; estimated otherwise
    #[arg(long)]
    #[schemars(range(min = 0))]
    pub sigma: Option<f64>,
    /// Modulus of all coefficients, if it is known and the same for all
    #[arg(long)]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub amplitude: Option<f64>,
    /// What counts as zero for exact and sparse-fht, relative to the largest value; by default 1e-12, for 32-bit files
    /// 1e-6
    #[arg(long)]
    #[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1))]
    pub tolerance: Option<f64>,
    /// Random samples of omp and lasso; by default 2 K n
    #[arg(long)]
    #[schemars(range(min = 1))]
    pub samples: Option<usize>,
    /// Standard deviation of noise added to trees, graphs and the built-in table (10 dB there by default, else none)
    #[arg(long)]
    #[schemars(range(min = 0))]
    pub add_noise: Option<f64>,
    /// Only list the indices whose values are needed; measure them and come back with --kind samples
    #[arg(long)]
    pub plan: bool,
}
offprint_core::defaults_from_flags!(Params);

impl offprint_core::Params for Params {
    fn check(&self) -> Result<()> {
        if self.kind == Kind::Samples && self.input.is_builtin() && !self.plan {
            return Err(Error::parameter("input", "builtin", "a file of samples for --kind samples"));
        }
        if (self.kind == Kind::Samples || self.plan && !self.has_own_bits()) && self.bits.is_none() {
            return Err(Error::parameter("bits", "nothing", "given, because the input does not tell it"));
        }
        self.blocks().map(drop)
    }
}

impl Params {
    /// Whether the number of bits follows from the input.
    fn has_own_bits(&self) -> bool {
        match self.kind {
            Kind::Samples => false,
            Kind::Table => !self.input.is_builtin(),
            Kind::Trees | Kind::Graph => true,
        }
    }

    fn blocks(&self) -> Result<Vec<(u32, u32)>> {
        let Some(text) = &self.blocks else { return Ok(Vec::new()) };
        let block = |part: &str| {
            let (first, last) = part.trim().split_once('-')?;
            Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
        };
        text.split(',')
            .map(block)
            .collect::<Option<_>>()
            .ok_or_else(|| Error::parameter("blocks", text, "ranges of bits such as 0-4,5-9,9-13"))
    }

    /// The settings for a function on `bits` bits.
    fn settings(&self, bits: u32, single_precision: bool) -> Result<Settings> {
        let settings = Settings {
            algorithm: self.algorithm,
            groups: self.groups,
            bin_bits: self.bin_bits,
            hashing: self.hashing,
            blocks: self.blocks()?,
            delays: self.delays,
            coded_delays: self.coded_delays,
            gamma: self.gamma,
            noise: self.sigma.map_or(Noise::Estimated, Noise::Known),
            amplitude: self.amplitude,
            tolerance: self.tolerance.unwrap_or(if single_precision { 1e-6 } else { 1e-12 }),
            samples: self.samples,
            ..Settings::new(bits, self.sparsity)
        };
        settings.check()?;
        if let Some(given) = self.bits.filter(|&given| given != bits) {
            return Err(Error::parameter("bits", given, format!("{bits}, which the input says, or left out")));
        }
        Ok(settings)
    }
}

impl Method for Spright {
    type Params = Params;

    fn run(params: &Params, run: &mut Run) -> Result<()> {
        match params.kind {
            Kind::Table if params.input.is_builtin() => {
                let function = example(params, run);
                on_function(&function, params, run)
            }
            Kind::Table => on_table(params, run),
            Kind::Samples => on_samples(params, run),
            Kind::Trees => on_function(&read_trees(&params.input)?, params, run),
            Kind::Graph => on_function(&read_graph(&params.input)?, params, run),
        }
    }
}

/// K coefficients of random sign with moduli between a half and one and a half.
fn example(params: &Params, run: &Run) -> SparseFunction {
    let bits = params.bits.unwrap_or(18);
    // A sparsity that does not fit is refused with the settings.
    let sparsity = params.sparsity.min(1 << bits.min(20) >> 2);
    let mut rng = run.stream("example").rng(0);
    let signs = SparseFunction::random_signs(bits, sparsity, 1.0, &mut rng);
    SparseFunction::new(bits, signs.spectrum().into_iter().map(|(k, x)| (k, x * rng.random_range(0.5..1.5))))
}

fn on_function(function: &impl Function, params: &Params, run: &mut Run) -> Result<()> {
    let settings = params.settings(function.bits(), false)?;
    let truth = function.spectrum();
    let sigma = params.add_noise.unwrap_or_else(|| {
        let is_example = params.kind == Kind::Table;
        // 10 dB: the noise has a tenth of the signal's power, the sum of its squared coefficients.
        if is_example { (truth.iter().map(|x| x.1 * x.1).sum::<f64>() / 10.0).sqrt() } else { 0.0 }
    });
    let mut noisy = Noisy { function, sigma, seed: run.stream("noise").rng(0).random() };
    if sigma > 0.0 {
        run.metric("noise added", sigma, "");
    }
    go(&mut noisy, &settings, params, Some(&truth), run)
}

fn on_table(params: &Params, run: &mut Run) -> Result<()> {
    let name = params.input.to_string();
    let is_npy = params.input.path().is_some_and(|p| p.extension().is_some_and(|e| e == "npy"));
    if is_npy && let Some(path) = params.input.path() {
        let file = Mapped::open(path)?;
        if file.shape().contains(&0) {
            return Err(Error::input(name, format!("is empty (shape {:?})", file.shape())));
        }
        if let Some(reals) = mapped_reals(&file, &name)? {
            let mut table = Table::new::<f64>(reals, &name)?;
            let single = matches!(reals, offprint_core::npy::Reals::F32(_));
            let settings = params.settings(table.bits(), single)?;
            return go::<f64>(&mut table, &settings, params, None, run);
        }
    }
    let array = params.input.array()?;
    let shape = array.shape().to_vec();
    let of_pairs = shape.len() == 2 && shape[1] == 2;
    if array.shape().iter().filter(|&&n| n != 1).count() > 1 && !of_pairs {
        let problem = format!("has shape {shape:?}; one axis of 2ⁿ values is needed (or two columns for complex ones)");
        return Err(Error::input(name, problem));
    }
    if shape.contains(&0) {
        return Err(Error::input(name, format!("is empty (shape {shape:?})")));
    }
    let single = matches!(array, Array::F32(_));
    if let Array::C128(values) = array {
        let values: Vec<Complex<f64>> = values.iter().copied().collect();
        let mut table = Table::new::<Complex<f64>>(values, &name)?;
        let settings = params.settings(table.bits(), false)?;
        return go(&mut table, &settings, params, None, run);
    }
    let reals: Vec<f64> = array.into_f64().expect("only complex arrays are not real").iter().copied().collect();
    if of_pairs {
        let values: Vec<Complex<f64>> = reals.as_chunks().0.iter().map(|&[re, im]| Complex::new(re, im)).collect();
        let mut table = Table::new::<Complex<f64>>(values, &name)?;
        let settings = params.settings(table.bits(), single)?;
        return go(&mut table, &settings, params, None, run);
    }
    let mut table = Table::new::<f64>(reals, &name)?;
    let settings = params.settings(table.bits(), single)?;
    go::<f64>(&mut table, &settings, params, None, run)
}

fn on_samples(params: &Params, run: &mut Run) -> Result<()> {
    let settings = params.settings(params.bits.expect("checked with the parameters"), false)?;
    if params.plan {
        return list(&settings, run);
    }
    let name = params.input.to_string();
    let array = params.input.array()?;
    let shape = array.shape().to_vec();
    let bad = |problem: String| Error::input(name.clone(), problem);
    if let Array::C128(values) = &array
        && shape.len() == 1
    {
        let pairs = in_order(values.iter().copied().collect(), &settings, run, &name)?;
        return go(&mut Measurements::new(pairs, &name)?, &settings, params, None, run);
    }
    let reals = array.into_f64().ok_or_else(|| {
        bad("has complex values in several columns; give index, real and imaginary part as real columns".into())
    })?;
    let reals: Vec<f64> = reals.iter().copied().collect();
    match shape[..] {
        [_] | [_, 1] => {
            let pairs = in_order(reals, &settings, run, &name)?;
            go(&mut Measurements::new(pairs, &name)?, &settings, params, None, run)
        }
        [_, 2] => {
            let pair = |(row, &[index, value]): (usize, &[f64; 2])| Ok((whole(index, row, &settings, &name)?, value));
            let pairs = reals.as_chunks().0.iter().enumerate().map(pair).collect::<Result<_>>()?;
            go(&mut Measurements::new(pairs, &name)?, &settings, params, None, run)
        }
        [_, 3] => {
            let pair = |(row, &[index, re, im]): (usize, &[f64; 3])| {
                Ok((whole(index, row, &settings, &name)?, Complex::new(re, im)))
            };
            let pairs = reals.as_chunks().0.iter().enumerate().map(pair).collect::<Result<_>>()?;
            go(&mut Measurements::new(pairs, &name)?, &settings, params, None, run)
        }
        _ => Err(bad(format!("has shape {shape:?}; rows of index and value are needed"))),
    }
}

/// Values in the order of the plan, with their indices.
fn in_order<T: Value>(values: Vec<T>, settings: &Settings, run: &Run, name: &str) -> Result<Vec<(u64, T)>> {
    let indices = plan(settings, run.stream("design"))?;
    if indices.len() != values.len() {
        let problem = format!(
            "has {} values without indices, but the plan for these parameters and this seed has {}",
            values.len(),
            indices.len()
        );
        return Err(Error::input(name, problem));
    }
    Ok(indices.into_iter().zip(values).collect())
}

/// An index read as a real number.
fn whole(index: f64, row: usize, settings: &Settings, name: &str) -> Result<u64> {
    let end = 2f64.powi(settings.bits as i32);
    if index >= 0.0 && index < end && index.fract() == 0.0 && index < 2f64.powi(53) {
        return Ok(index as u64);
    }
    let most = if settings.bits > 53 {
        "2^53, beyond which such files round; give the values alone, in the order of the plan".into()
    } else {
        format!("2^{}", settings.bits)
    };
    Err(Error::input(name, format!("row {row} has the index {index}; indices are whole numbers from 0 below {most}")))
}

fn read_trees(source: &Source) -> Result<Trees> {
    let name = source.to_string();
    if source.is_builtin() {
        return Trees::parse(include_str!("data/breast-cancer-trees.json"), &name);
    }
    let mut text = String::new();
    match (source, source.path()) {
        (_, Some(path)) => {
            text = std::fs::read_to_string(path).map_err(|e| Error::file("read", path, e))?;
        }
        (Source::File { .. }, None) => {
            std::io::stdin().read_to_string(&mut text).map_err(|e| Error::input(&*name, e.to_string()))?;
        }
        _ => return Err(Error::input(name, "is an array; decision trees are read from a JSON file")),
    }
    Trees::parse(&text, &name)
}

fn read_graph(source: &Source) -> Result<GraphCut> {
    if source.is_builtin() {
        return Ok(GraphCut::wheel(15));
    }
    let name = source.to_string();
    let rows = source.matrix()?;
    if !(2..=3).contains(&rows.ncols()) {
        return Err(Error::input(
            name,
            format!("has {} columns; node, node and perhaps a weight are needed", rows.ncols()),
        ));
    }
    let mut edges = Vec::with_capacity(rows.nrows());
    for (i, row) in rows.outer_iter().enumerate() {
        for &node in [row[0], row[1]].iter() {
            if node < 0.0 || node.fract() != 0.0 || node > f64::from(u32::MAX) {
                return Err(Error::input(name, format!("row {i} has the node {node}; nodes are whole numbers from 0")));
            }
        }
        edges.push((row[0] as u32, row[1] as u32, row.get(2).copied().unwrap_or(1.0)));
    }
    GraphCut::new(edges, &name)
}

/// Lists what has to be asked.
fn list(settings: &Settings, run: &mut Run) -> Result<()> {
    let indices = plan(settings, run.stream("design"))?;
    run.metric("values needed", indices.len() as f64, "");
    run.metric("share of all values", 100.0 * indices.len() as f64 / 2f64.powi(settings.bits as i32), "%");
    let table = offprint_core::Table::new("queries", "The indices whose values are needed.")
        .words("index", indices.iter().map(u64::to_string))
        .words("bits", indices.iter().map(|&k| in_bits(k, settings.bits)));
    run.save_table("queries.csv", &table)?;
    run.save_array("queries.npy", indices)
}

/// An index in binary, bit 0 last.
fn in_bits(k: u64, bits: u32) -> String {
    format!("{k:0width$b}", width = bits as usize)
}

fn go<T: Value>(
    query: &mut dyn Query<T>,
    settings: &Settings,
    params: &Params,
    truth: Option<&[(u64, f64)]>,
    run: &mut Run,
) -> Result<()> {
    if params.plan {
        return list(settings, run);
    }
    let started = Instant::now();
    let recovery = transform(query, settings, run.stream("design"), &run.progress())?;
    let seconds = started.elapsed().as_secs_f64();
    let looked_at = match settings.algorithm {
        Algorithm::Full => recovery.queries,
        _ => plan(settings, run.stream("design"))?.len(),
    };
    run.metric("coefficients found", recovery.coefficients.len() as f64, "");
    run.metric("values looked at", looked_at as f64, "");
    run.metric("share of all values", 100.0 * looked_at as f64 / 2f64.powi(settings.bits as i32), "%");
    run.metric("time", 1e3 * seconds, "ms");
    run.metric("noise on one value", recovery.sigma, "");
    run.metric("detection limit", recovery.limit, "");
    if settings.algorithm.peels() {
        run.metric("bins unresolved", recovery.unresolved as f64, "");
        run.metric("energy left", 100.0 * recovery.residual, "%");
        if !recovery.is_complete() {
            run.warn(format!(
                "incomplete: {} bins still hold several coefficients, {:.1} % of the energy is not explained; take more \
                 bins (a larger sparsity or bin bits), more delays, or random hashing",
                recovery.unresolved,
                100.0 * recovery.residual
            ));
        }
    }
    if let Some(truth) = truth {
        compare(&recovery, truth, run);
    }
    save(&recovery, settings, run)?;
    run.figure("spectrum", spectrum_figure(&recovery, truth, settings, looked_at));
    if !recovery.passes.is_empty() {
        run.figure("peeling", peeling_figure(&recovery));
    }
    Ok(())
}

/// Reports how far from the truth the recovery is.
fn compare<T: Value>(recovery: &Recovery<T>, truth: &[(u64, f64)], run: &mut Run) {
    let truth: BTreeMap<u64, f64> = truth.iter().copied().collect();
    let right: Vec<(f64, f64)> =
        recovery.coefficients.iter().filter_map(|c| truth.get(&c.index).map(|&x| (x, c.value.parts().0 - x))).collect();
    run.metric("coefficients of the function", truth.len() as f64, "");
    run.metric("found and true", right.len() as f64, "");
    run.metric("found and false", (recovery.coefficients.len() - right.len()) as f64, "");
    run.metric("largest error", right.iter().fold(0.0, |l, x| x.1.abs().max(l)), "");
}

fn save<T: Value>(recovery: &Recovery<T>, settings: &Settings, run: &mut Run) -> Result<()> {
    /// Rows shown in the report; files have all.
    const SHOWN: usize = 50;
    let found = &recovery.coefficients;
    let is_complex = found.iter().any(|c| c.value.parts().1 != 0.0);
    let table = |name: &str, caption: &str, count: usize| {
        let found = || found.iter().take(count);
        let mut table = offprint_core::Table::new(name, caption)
            .words("index", found().map(|c| c.index.to_string()))
            .words("bits", found().map(|c| in_bits(c.index, settings.bits)))
            .numbers("value", "", found().map(|c| c.value.parts().0));
        if is_complex {
            table = table.numbers("imaginary part", "", found().map(|c| c.value.parts().1));
        }
        table.numbers("error", "", found().map(|c| c.error))
    };
    if found.len() > SHOWN {
        let caption = format!("The {SHOWN} largest of {} coefficients; the file spectrum.csv has all.", found.len());
        run.table(table("largest", &caption, SHOWN))?;
        run.save_table("spectrum.csv", &table("spectrum", "", found.len()))?;
    } else {
        run.table(table("spectrum", "The coefficients found, largest first, with their standard errors.", SHOWN))?;
    }
    let coefficients: Vec<_> = found
        .iter()
        .map(|c| {
            let (re, im) = c.value.parts();
            let value = if is_complex { json!([re, im]) } else { json!(re) };
            json!({"index": c.index, "bits": in_bits(c.index, settings.bits), "value": value, "error": c.error})
        })
        .collect();
    run.save_json(
        "spectrum.json",
        &json!({
            "bits": settings.bits,
            "algorithm": settings.algorithm,
            "sigma": recovery.sigma,
            "detection_limit": recovery.limit,
            "complete": recovery.is_complete(),
            "coefficients": coefficients,
        }),
    )
}

fn spectrum_figure<T: Value>(
    recovery: &Recovery<T>,
    truth: Option<&[(u64, f64)]>,
    settings: &Settings,
    looked_at: usize,
) -> Figure {
    let x = |k: u64| k as f64;
    let found = &recovery.coefficients;
    let mut plot = Plot::new(Axis::new("index k"), Axis::new("coefficient X[k]"));
    if let Some(truth) = truth {
        plot = plot.layer(offprint_core::figure::Layer::Stems {
            name: "true".into(),
            x: truth.iter().map(|t| x(t.0)).collect(),
            y: truth.iter().map(|t| t.1).collect(),
        });
        plot = plot.points(
            "recovered",
            found.iter().map(|c| x(c.index)).collect(),
            found.iter().map(|c| c.value.parts().0).collect(),
            3.0,
        );
    } else {
        plot = plot.layer(offprint_core::figure::Layer::Stems {
            name: String::new(),
            x: found.iter().map(|c| x(c.index)).collect(),
            y: found.iter().map(|c| c.value.parts().0).collect(),
        });
    }
    let limit = recovery.limit;
    if limit > 0.0 {
        plot = plot.horizontal("detection limit", limit).horizontal("", -limit);
    }
    let all = 2f64.powi(settings.bits as i32);
    let caption = format!(
        "{} coefficients out of 2^{}, found by looking at {looked_at} of the function's values ({:.3} %). Coefficients \
         within the dashed lines are lost in noise.",
        found.len(),
        settings.bits,
        100.0 * looked_at as f64 / all
    );
    Figure::new("Spectrum", caption).panel(plot)
}

fn peeling_figure<T: Value>(recovery: &Recovery<T>) -> Figure {
    let passes = &recovery.passes;
    let place: Vec<f64> = (1..=passes.len()).map(|i| i as f64).collect();
    let series = |of: fn(&super::Pass) -> usize| passes.iter().map(|p| of(p) as f64).collect::<Vec<_>>();
    let bins = Plot::new(Axis::new("pass"), Axis::new("bins"))
        .titled("What the bins hold")
        .line("nothing", place.clone(), series(|p| p.zero))
        .line("one (taken out in this pass)", place.clone(), series(|p| p.single))
        .line("several", place.clone(), series(|p| p.multi));
    let found = Plot::new(Axis::new("pass"), Axis::new("coefficients found")).titled("Progress").line(
        "",
        place,
        series(|p| p.found),
    );
    Figure::new(
        "Peeling",
        "Each coefficient that is alone in a bin is taken out of its bins in all groups, which leaves others alone.",
    )
    .columns(2)
    .panel(bins)
    .panel(found)
}
