//! The door: what a user may set, and what one run reports.

use super::*;
use clap::ValueEnum;
use ndarray::{Array1, Axis};
use offprint_core::figure::{Axis as Scale, HeatMap, ImageGrid, Palette, Plot};
use offprint_core::random::{Stream, Streams};
use offprint_core::{Error, Figure, Method, Params, Progress, Run, Source, Table};
use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::path::PathBuf;

/// Parameters of online orthogonal dictionary learning.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OodlParams {
    /// Samples, one a row: .npy, .csv (PATH:COLUMN,COLUMN picks sensors), .jsonl, or - for standard input
    #[arg(long, default_value = "builtin")]
    pub input: Source,
    /// Built-in input when no file is given
    #[arg(long, value_enum, default_value_t = Example::Digits)]
    pub example: Example,
    /// Learning method; all but the Frank–Wolfe ones are baselines
    #[arg(long, value_enum, default_value_t = Algorithm::FrankWolfe)]
    pub method: Algorithm,
    /// Samples per step
    #[arg(long, default_value_t = 1)]
    #[schemars(range(min = 1, max = 1_000_000), extend("unit" = "samples"))]
    pub batch: usize,
    /// Stop after this many samples in all; by default at the end of the input (synthetic: after 20000)
    #[arg(long)]
    #[schemars(range(min = 1), extend("unit" = "samples"))]
    pub samples: Option<u64>,
    /// Passes over the input; by default 2 over the digits, else 1
    #[arg(long)]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub epochs: Option<u64>,
    /// What is done to samples first; by default zca, for the synthetic example none
    #[arg(long, value_enum)]
    pub whiten: Option<Whitening>,
    /// Samples from which mean and covariance are taken; by default the larger of 20 N and 500
    #[arg(long)]
    #[schemars(range(min = 2, max = 10_000_000), extend("unit" = "samples"))]
    pub burn_in: Option<usize>,
    /// Shorten samples longer than this many times the root mean square length so far
    #[arg(long)]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub clip: Option<f64>,
    /// Rows per sample: windows of a time series, column after column
    #[arg(long, default_value_t = 1)]
    #[schemars(range(min = 1, max = 100_000), extend("unit" = "rows"))]
    pub window: usize,
    /// Rows from the start of one window to the next; by default the window
    #[arg(long)]
    #[schemars(range(min = 1, max = 10_000_000), extend("unit" = "rows"))]
    pub stride: Option<usize>,
    /// Longest gap of missing values that is bridged by a straight line; longer ones are errors
    #[arg(long, default_value_t = 0)]
    #[schemars(range(min = 0, max = 10_000), extend("unit" = "rows"))]
    pub fill: usize,
    /// Factor a of the averaging weight ρ = min(1, a (t+1)^(-1/2))
    #[arg(long, default_value_t = 4.0)]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub averaging: f64,
    /// Factor c of the step γ = min(1, c (t+2)^(-3/4))
    #[arg(long, default_value_t = 2.0)]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub step: f64,
    /// Least averaging weight; above 0 to follow a dictionary that changes (0.05)
    #[arg(long, default_value_t = 0.0)]
    #[schemars(range(min = 0, max = 1))]
    pub averaging_floor: f64,
    /// Least step; above 0 to follow a dictionary that changes (0.02)
    #[arg(long, default_value_t = 0.0)]
    #[schemars(range(min = 0, max = 1))]
    pub step_floor: f64,
    /// Which of equally good steps is taken where the gradient has not full rank
    #[arg(long, value_enum, default_value_t = Completion::Svd)]
    pub completion: Completion,
    /// Go on from this model.safetensors; rows of the same input that it has seen are passed over
    #[arg(long, value_name = "FILE")]
    pub resume: Option<PathBuf>,
    /// Only apply the model of --resume to the input, from its first row; learn nothing
    #[arg(long)]
    pub freeze: bool,
    /// True dictionary (N, N), columns atoms, to measure the recovery error against
    #[arg(long)]
    pub truth: Option<Source>,
    /// Part of the coefficients that a compressed sample keeps
    #[arg(long, default_value_t = 0.25)]
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    pub keep: f64,
    /// Code and reconstruct this many samples, the last ones seen
    #[arg(long, default_value_t = 2000)]
    #[schemars(range(min = 1, max = 100_000_000), extend("unit" = "samples"))]
    pub codes: usize,
    /// Show samples and atoms as images of this width; by default 8 for the digits
    #[arg(long)]
    #[schemars(range(min = 1, max = 10_000), extend("unit" = "pixels"))]
    pub image_width: Option<usize>,
    /// Save the model after each this many samples, besides at the end and on Ctrl-C
    #[arg(long, default_value_t = 100_000)]
    #[schemars(range(min = 1), extend("unit" = "samples"))]
    pub save_every: u64,
    /// Length N of the samples of the synthetic example
    #[arg(long, default_value_t = 20)]
    #[schemars(range(min = 1, max = 2000))]
    pub dimension: usize,
    /// Chance θ that a code of the synthetic example is not zero
    #[arg(long, default_value_t = 0.3)]
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    pub theta: f64,
    /// Standard deviation of the noise added to the synthetic example
    #[arg(long, default_value_t = 0.0)]
    #[schemars(range(min = 0, max = 1000))]
    pub noise: f64,
}
offprint_core::defaults_from_flags!(OodlParams);

/// The built-in inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Example {
    /// Handwritten digits, 1797 images of 8 × 8 pixels, in a new random order in each pass.
    Digits,
    /// The paper's model: a random orthogonal dictionary with Bernoulli–Gaussian codes.
    Synthetic,
}

/// The learning methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// The paper's: Frank–Wolfe with an averaged gradient.
    FrankWolfe,
    /// Frank–Wolfe without averaging (ρ = 1).
    PlainFrankWolfe,
    /// Stochastic gradient with projection to the orthogonal group.
    RiemannianSgd,
    /// Online dictionary learning with lasso codes (Mairal and others), not orthogonal.
    OnlineLasso,
    /// Offline matching, stretching, projection with third powers.
    Msp3,
    /// Offline matching, stretching, projection with fourth powers.
    Msp4,
    /// Offline subgradient descent of the ℓ₁ norm, atom by atom.
    L1Subgradient,
    /// Offline K-SVD, not orthogonal.
    KSvd,
}

impl Algorithm {
    /// Whether its state can be saved and gone on from.
    fn resumes(self) -> bool {
        matches!(self, Self::FrankWolfe | Self::PlainFrankWolfe)
    }

    /// Whether it learns from each batch at once, rather than from all samples at the end.
    fn is_online(self) -> bool {
        self.resumes() || matches!(self, Self::RiemannianSgd | Self::OnlineLasso)
    }
}

impl Params for OodlParams {
    fn check(&self) -> Result<()> {
        if self.resume.is_some() && !self.method.resumes() {
            let method = self.method.to_possible_value().expect("no variant is hidden");
            let allowed = "frank-wolfe or plain-frank-wolfe to resume; the baselines keep no state";
            return Err(Error::parameter("method", method.get_name(), allowed));
        }
        if self.freeze && self.resume.is_none() {
            return Err(Error::parameter("freeze", true, "given together with resume, which names the model to apply"));
        }
        if self.is_standard_input() && self.epochs.is_some_and(|e| e > 1) {
            return Err(Error::parameter(
                "epochs",
                self.epochs.unwrap_or(1),
                "1 for standard input, which passes once",
            ));
        }
        if self.input.is_builtin() && (self.window > 1 || self.stride.is_some_and(|s| s > 1)) {
            return Err(Error::parameter(
                "window",
                self.window,
                "1 for the built-in examples, which are no time series",
            ));
        }
        Ok(())
    }
}

impl OodlParams {
    fn schedule(&self) -> Schedule {
        let averaging = if self.method == Algorithm::PlainFrankWolfe { f64::INFINITY } else { self.averaging };
        Schedule { averaging, step: self.step, averaging_floor: self.averaging_floor, step_floor: self.step_floor }
    }

    fn is_standard_input(&self) -> bool {
        matches!(&self.input, Source::File { .. }) && self.input.path().is_none()
    }

    fn is_synthetic(&self) -> bool {
        self.input.is_builtin() && self.example == Example::Synthetic
    }

    fn is_digits(&self) -> bool {
        self.input.is_builtin() && self.example == Example::Digits
    }

    fn settings(&self) -> Settings {
        let whitening = self.whiten.unwrap_or(if self.is_synthetic() { Whitening::None } else { Whitening::Zca });
        Settings { batch: self.batch, whitening, burn_in: self.burn_in, clip: self.clip }
    }

    /// The input in words, by which a checkpoint knows its own again.
    fn input_in_words(&self, seed: u64) -> String {
        let input = if self.is_synthetic() {
            format!("synthetic {} {} {} seed {seed}", self.dimension, self.theta, self.noise)
        } else if self.is_digits() {
            format!("digits seed {seed}")
        } else {
            self.input.to_string()
        };
        format!("{input} window {} stride {}", self.window, self.stride.unwrap_or(self.window))
    }

    /// A learner for r coordinates.
    fn learner(&self, r: usize, streams: Streams, progress: Progress) -> Result<Box<dyn Learner>> {
        let start = random_orthogonal(r, &mut streams.stream("start").rng(0))?;
        Ok(match self.method {
            Algorithm::FrankWolfe | Algorithm::PlainFrankWolfe => {
                Box::new(FrankWolfe::new(start, self.schedule())?.with_completion(self.completion))
            }

            Algorithm::RiemannianSgd => Box::new(RiemannianSgd::new(start, 0.3)),
            // λ = 0.3 shrinks codes of variance about 1 moderately; no value suits every input.
            Algorithm::OnlineLasso => Box::new(OnlineLasso::new(start, 0.3)),
            Algorithm::Msp3 => Box::new(Msp::new(3, start, progress)?),
            Algorithm::Msp4 => Box::new(Msp::new(4, start, progress)?),
            Algorithm::L1Subgradient => Box::new(L1Subgradient::new(r, streams.stream("descents"), progress)),
            Algorithm::KSvd => {
                let nonzeros = ((self.keep * r as f64).ceil() as usize).clamp(1, r);
                Box::new(Ksvd::new(start, nonzeros, 20, progress)?)
            }
        })
    }
}

/// Where samples come from, pass after pass.
enum Feed {
    File { samples: Box<Samples>, ahead: Option<Vec<f64>> },
    Synthetic { model: Box<BernoulliGaussian>, block: Array2<f64>, next: u64 },
    Digits { images: Array2<f64>, order: Vec<usize>, next: usize },
}

/// Samples of the synthetic stream drawn at once.
const BLOCK: usize = 1024;

impl Feed {
    /// The samples of pass number `epoch`, and their length.
    fn open(p: &OodlParams, streams: Streams, epoch: u64) -> Result<(Self, usize)> {
        if p.is_synthetic() {
            let model = Box::new(BernoulliGaussian::new(p.dimension, p.theta, p.noise, streams)?);
            return Ok((Self::Synthetic { model, block: Array2::zeros((0, 0)), next: 0 }, p.dimension));
        }
        if p.is_digits() {
            let (images, _) = offprint_data::digits();
            let order = shuffled(images.nrows(), streams.stream("order"), epoch);
            let n = images.ncols();
            return Ok((Self::Digits { images, order, next: 0 }, n));
        }
        let mut samples = Box::new(Samples::open(&p.input, p.window, p.stride.unwrap_or(p.window), p.fill)?);
        // The first sample tells the length.
        let mut first = Vec::new();
        if !samples.next_sample(&mut first)? {
            let rows = if p.window > 1 {
                format!("has fewer than {} rows, one window", p.window)
            } else {
                "has no rows".into()
            };
            return Err(Error::input(p.input.to_string(), rows));
        }
        let n = first.len();
        Ok((Self::File { samples, ahead: Some(first) }, n))
    }

    fn next(&mut self, sample: &mut Vec<f64>) -> Result<bool> {
        match self {
            Self::File { samples, ahead } => match ahead.take() {
                Some(first) => {
                    *sample = first;
                    Ok(true)
                }
                None => samples.next_sample(sample),
            },
            Self::Synthetic { model, block, next } => {
                let place = (*next % BLOCK as u64) as usize;
                if place == 0 || block.is_empty() {
                    *block = model.samples(*next - place as u64, BLOCK);
                }
                sample.clear();
                sample.extend(block.row(place));
                *next += 1;
                Ok(true)
            }
            Self::Digits { images, order, next } => {
                sample.clear();
                let found = order.get(*next);
                if let Some(&i) = found {
                    sample.extend(images.row(i));
                    *next += 1;
                }
                Ok(found.is_some())
            }
        }
    }
}

/// The numbers below `count` in the random order of pass `epoch`.
pub(super) fn shuffled(count: usize, stream: Stream, epoch: u64) -> Vec<usize> {
    let mut rng = stream.rng(epoch);
    let mut order: Vec<usize> = (0..count).collect();
    for i in (1..count).rev() {
        order.swap(i, rng.random_range(0..=i));
    }
    order
}

/// How it went: measured at sample counts that grow by a fixed factor.
#[derive(Default)]
struct Trace {
    samples: Vec<f64>,
    gap: Vec<f64>,
    error: Vec<f64>,
    smallest: Vec<f64>,
}

/// Factor from one measurement to the next.
const TRACE_FACTOR: f64 = 1.3;

/// Samples between looks at the progress bar and the stop switch.
const TELL_EVERY: u64 = 256;

struct Session<'a> {
    p: &'a OodlParams,
    /// The input, opened for its first pass.
    opened: Option<Feed>,
    truth: Option<Array2<f64>>,
    pipeline: Pipeline,
    position: Position,
    /// The last samples seen.
    recent: VecDeque<Vec<f64>>,
    trace: Trace,
}

impl Session<'_> {
    /// Reads the input to its end, or to the wanted number of samples.
    fn learn(&mut self, run: &mut Run) -> Result<()> {
        let progress = run.progress();
        let most = self.p.samples.or(self.p.is_synthetic().then_some(20_000)).unwrap_or(u64::MAX);
        let epochs = self.p.epochs.unwrap_or(if self.p.is_digits() { 2 } else { 1 });
        progress.begin(if self.p.freeze { "coding" } else { "learning" }, (most < u64::MAX).then_some(most));
        let mut seen = if self.p.freeze { 0 } else { self.pipeline.learned() + self.pipeline.pending() as u64 };
        let mut measure_at = seen + 1;
        let mut sample = Vec::new();
        loop {
            let mut feed = match self.opened.take() {
                Some(feed) if self.position.epoch == 0 => feed,
                _ => Feed::open(self.p, run.streams(), self.position.epoch)?.0,
            };
            self.pass_over(&mut feed)?;
            while seen < most && feed.next(&mut sample)? {
                if !self.p.freeze {
                    self.pipeline.learn_one(&sample)?;
                }
                self.position.taken += 1;
                seen += 1;
                self.remember(&sample);
                if seen >= measure_at && !self.p.freeze {
                    measure_at = (seen as f64 * TRACE_FACTOR).ceil() as u64;
                    self.measure(seen)?;
                    if let Some(gap) = self.trace.gap.last().filter(|gap| gap.is_finite()) {
                        progress.status(&format!("gap {gap:.3}"));
                    }
                }
                if seen % self.p.save_every == 0 {
                    self.save(run)?;
                }
                if seen % TELL_EVERY == 0 {
                    progress.advance(TELL_EVERY)?;
                }
            }
            // The last pass stays open: a run that goes on finds what was appended to the input since.
            if seen >= most || self.position.epoch + 1 >= epochs {
                break;
            }
            self.position.epoch += 1;
            self.position.taken = 0;
        }
        progress.finish();
        if self.p.freeze { Ok(()) } else { self.pipeline.end_of_stream() }
    }

    /// Passes over the samples that the checkpoint has seen in this pass.
    fn pass_over(&mut self, feed: &mut Feed) -> Result<()> {
        if let Feed::Synthetic { next, .. } = feed {
            *next = self.position.taken;
            return Ok(());
        }
        let mut sample = Vec::new();
        for had in 0..self.position.taken {
            if !feed.next(&mut sample)? {
                let taken = self.position.taken;
                let problem = format!("has {had} samples, but the model to go on from has seen {taken} of it");
                return Err(Error::input(self.p.input.to_string(), problem));
            }
            self.remember(&sample);
        }
        Ok(())
    }

    fn remember(&mut self, sample: &[f64]) {
        let full = self.recent.len() == self.p.codes;
        let mut slot = if full { self.recent.pop_front() } else { None }.unwrap_or_default();
        slot.clear();
        slot.extend_from_slice(sample);
        self.recent.push_back(slot);
    }

    fn measure(&mut self, seen: u64) -> Result<()> {
        let Some(learner) = self.pipeline.learner().filter(|_| self.p.method.is_online()) else { return Ok(()) };
        let gap = learner.gap().unwrap_or(f64::NAN);
        let smallest = match learner.state() {
            Some(state) => *offprint_math::linalg::svd(state.dictionary.view())?.1.last().expect("r is at least 1"),
            None => f64::NAN,
        };
        self.trace.samples.push(seen as f64);
        self.trace.gap.push(gap);
        self.trace.smallest.push(smallest);
        let error = self.error(&self.truth.clone())?;
        self.trace.error.push(error.unwrap_or(f64::NAN));
        Ok(())
    }

    /// The recovery error, if there is a true dictionary with as many atoms as were learned.
    fn error(&mut self, truth: &Option<Array2<f64>>) -> Result<Option<f64>> {
        let Some(truth) = truth else { return Ok(None) };
        let atoms = self.pipeline.transform()?.unit_atoms();
        if atoms.dim() == truth.dim() { recovery_error(atoms.view(), truth.view()).map(Some) } else { Ok(None) }
    }

    fn save(&self, run: &mut Run) -> Result<()> {
        if !self.p.method.resumes() || self.p.freeze {
            return Ok(());
        }
        let (arrays, words) = self.pipeline.checkpoint(self.position.clone()).to_arrays();
        run.save_arrays("model.safetensors", arrays, words)
    }
}

impl Method for Oodl {
    type Params = OodlParams;

    fn run(p: &OodlParams, run: &mut Run) -> Result<()> {
        let (streams, progress) = (run.streams(), run.progress());
        let (feed, n) = Feed::open(p, streams, 0)?;
        if let Some(width) = p.image_width.filter(|w| n % w != 0) {
            return Err(Error::parameter("image_width", width, format!("a divisor of the samples' length {n}")));
        }
        let truth = match (&p.truth, &feed) {
            (Some(source), _) => Some(read_truth(source, n)?),
            (None, Feed::Synthetic { model, .. }) => Some(model.truth().to_owned()),
            _ => None,
        };
        let names = match &feed {
            Feed::File { samples, .. } => samples.names().to_vec(),
            _ => Vec::new(),
        };
        let make = {
            let p = p.clone();
            move |r: usize| p.learner(r, streams, progress.clone())
        };
        let source = p.input_in_words(run.seed());
        let mut position = Position { source, ..Position::default() };
        let pipeline = match &p.resume {
            None => Pipeline::new(n, p.settings(), make)?,
            Some(path) => {
                let checkpoint = Checkpoint::read(path)?;
                let learned_on = checkpoint.pending.ncols();
                if n != learned_on {
                    let problem = format!("has samples of {n} values, but the model takes samples of {learned_on}");
                    return Err(Error::input(p.input.to_string(), problem));
                }
                // Standard input cannot be gone back to, and an array in memory has no name to be known again by:
                // whatever comes is new.
                let known = p.input.is_builtin() || p.input.path().is_some();
                if known && checkpoint.position.source == position.source && !p.freeze {
                    position = checkpoint.position.clone();
                }
                let go_on = |state| {
                    let learner = FrankWolfe::resume(state, p.schedule())?;
                    Ok(Box::new(learner.with_completion(p.completion)) as Box<dyn Learner>)
                };
                Pipeline::resume(checkpoint, p.settings(), make, go_on)?
            }
        };
        let (recent, trace) = (VecDeque::new(), Trace::default());
        let mut session = Session { p, opened: Some(feed), truth, pipeline, position, recent, trace };
        match session.learn(run) {
            Err(Error::Cancelled) => {
                session.save(run)?;
                Err(Error::Cancelled)
            }
            Err(error) => Err(error),
            Ok(()) => report(session, n, &names, run),
        }
    }
}

fn read_truth(source: &Source, n: usize) -> Result<Array2<f64>> {
    let truth = source.matrix()?;
    if truth.dim() != (n, n) {
        let shape = truth.shape();
        return Err(Error::input(source.to_string(), format!("has shape {shape:?}; a true dictionary is ({n}, {n})")));
    }
    Ok(truth)
}

/// Numbers, figures and files of a finished session.
fn report(mut session: Session<'_>, n: usize, names: &[String], run: &mut Run) -> Result<()> {
    let p = session.p;
    if session.pipeline.learned() == 0 {
        let (pending, batch) = (session.pipeline.pending(), p.batch);
        let problem = format!("has {pending} samples, fewer than one batch of {batch}; nothing was learned");
        return Err(Error::input(p.input.to_string(), problem));
    }
    let truth = session.truth.take();
    let error = session.error(&truth)?;
    let transform = session.pipeline.transform()?;
    session.save(run)?;
    run.metric("samples learned from", session.pipeline.learned() as f64, "samples");
    run.metric("sample length", n as f64, "");
    run.metric("atoms", transform.atoms().ncols() as f64, "");
    if let Some(error) = error {
        run.metric("recovery error", error, "");
    }
    if let (Some(gap), Some(smallest)) = (session.trace.gap.last(), session.trace.smallest.last())
        && gap.is_finite()
    {
        run.metric("Frank–Wolfe gap", *gap, "");
        run.metric("smallest singular value", *smallest, "");
    }
    if let Some(learner) = session.pipeline.learner() {
        run.metric("numbers carried between samples", learner.carried() as f64, "");
    }
    if p.clip.is_some() {
        run.metric("outliers shortened", session.pipeline.clipped() as f64, "samples");
    }
    run.save_array("dictionary.npy", transform.unit_atoms())?;
    if !session.trace.samples.is_empty() {
        let trace = &session.trace;
        let mut table = Table::new("trace", "A row is a look at the learner while it learned.")
            .integers("samples", "", trace.samples.iter().map(|&t| t as i64))
            .numbers("Frank–Wolfe gap", "", trace.gap.iter().copied())
            .numbers("smallest singular value", "", trace.smallest.iter().copied());
        if error.is_some() {
            table = table.numbers("recovery error", "", trace.error.iter().copied());
        }
        run.table(table)?;
        run.figure("learning", learning_figure(trace, p));
    }
    if session.recent.is_empty() {
        run.warn("No sample came: the model is unchanged and there is nothing to code.");
        run.figure("atoms", atoms_figure(&transform, None, p, n));
        return Ok(());
    }
    let flat = session.recent.iter().flatten().copied().collect();
    let samples = Array2::from_shape_vec((session.recent.len(), n), flat).expect("rows of N");
    let codes = transform.codes(samples.view());
    let kept = ((p.keep * n as f64).round() as usize).max(1);
    let sparse = transform.keep_largest(codes.view(), kept);
    warn_of_trouble(&session, samples.view(), codes.view(), names, run);
    run.save_array("codes.npy", codes.clone())?;
    run.save_array("reconstruction.npy", transform.reconstruct(sparse.view()))?;
    run.figure("atoms", atoms_figure(&transform, Some(codes.view()), p, n));
    compression(&transform, samples.view(), kept, p, run)
}

/// Says what should keep the user from trusting the dictionary.
fn warn_of_trouble(
    session: &Session<'_>,
    samples: ArrayView2<'_, f64>,
    codes: ArrayView2<'_, f64>,
    names: &[String],
    run: &mut Run,
) {
    let tail = kurtosis(codes);
    run.metric("kurtosis of the codes", tail, "");
    if !is_sparse(tail, codes.dim()) {
        run.warn(format!(
            "Not sparse: the codes have kurtosis {tail:.2}, and Gaussian ones have 3. For such data every orthogonal \
             dictionary is as good as any other; do not read anything into these atoms."
        ));
    }
    let constant = constant_columns(samples);
    if !constant.is_empty() && samples.nrows() > 1 {
        let called = |&j: &usize| names.get(j).cloned().unwrap_or(j.to_string());
        let mut list = constant.iter().take(8).map(called).collect::<Vec<_>>().join(", ");
        if constant.len() > 8 {
            list += ", …";
        }
        run.warn(format!(
            "{} of {} columns do not vary over the last {} samples: {list}.",
            constant.len(),
            samples.ncols(),
            samples.nrows()
        ));
    }
    let pending = session.pipeline.pending();
    if pending > 0 && !session.p.freeze {
        run.warn(format!(
            "The last {pending} samples do not fill a batch; they are kept in the model for the next run, not learned from."
        ));
    }
}

/// The error of compressed samples for several numbers of kept coefficients, beside DCT-II and principal components.
fn compression(
    transform: &Transform,
    samples: ArrayView2<'_, f64>,
    kept: usize,
    p: &OodlParams,
    run: &mut Run,
) -> Result<()> {
    let n = samples.ncols();
    // The same mean for all, that of the samples themselves.
    let mean = samples.mean_axis(Axis(0)).expect("at least one sample");
    let cosines = match p.image_width.or(p.is_digits().then_some(8)) {
        Some(width) => dct_images(n / width, width),
        None => dct(n),
    };
    let principal = principal_axes(samples, &mean)?;
    let rivals = [
        ("learned", transform.clone()),
        ("DCT-II", Transform::orthonormal(mean.clone(), cosines)),
        ("principal components", Transform::orthonormal(mean, principal)),
    ];
    let mut counts: Vec<usize> = (1..=8).map(|eighth| (eighth * n).div_ceil(16)).collect();
    counts.dedup();
    let parts: Vec<f64> = counts.iter().map(|&k| k as f64 / n as f64).collect();
    let percent: Vec<f64> = parts.iter().map(|x| 100.0 * x).collect();
    let mut plot =
        Plot::new(Scale::new("coefficients kept").unit("%"), Scale::log("relative error of the reconstruction"));
    let mut table = Table::new("compression", "A row is a number of coefficients kept per sample.").integers(
        "kept",
        "coefficients",
        counts.iter().map(|&k| k as i64),
    );
    for (name, rival) in &rivals {
        let errors: Vec<f64> = counts.iter().map(|&k| rival.error_with_kept(samples, k)).collect();
        table = table.numbers(format!("error {name}"), "", errors.iter().copied());
        plot = plot.line(*name, percent.clone(), errors);
        run.metric(&format!("error at {:.0} % kept, {name}", 100.0 * p.keep), rival.error_with_kept(samples, kept), "");
    }
    run.table(table)?;
    run.figure(
        "compression",
        Figure::new(
            "Compression",
            "Each sample keeps its largest coefficients; lower is better. The learned dictionary comes from one look at \
             each sample, principal components from all of them at once.",
        )
        .panel(plot),
    );
    Ok(())
}

fn learning_figure(trace: &Trace, p: &OodlParams) -> Figure {
    let mut figure = Figure::new(
        "Learning from a stream",
        "Each sample is seen once and forgotten. Dashed: the rate ln t / t^(1/4) that the paper proves, through the last point.",
    )
    .columns(2);
    if trace.gap.iter().any(|g| g.is_finite()) {
        let steps = |samples: f64| (samples / p.batch as f64).max(2.0);
        let rate = |samples: f64| steps(samples).ln() / steps(samples).powf(0.25);
        let (last, gap) = (trace.samples[trace.samples.len() - 1], trace.gap[trace.gap.len() - 1]);
        let reference = trace.samples.iter().map(|&t| gap * rate(t) / rate(last)).collect();
        figure = figure.panel(
            Plot::new(Scale::log("samples"), Scale::log("Frank–Wolfe gap"))
                .titled("Distance from stationarity")
                .curve("running gap", trace.samples.clone(), trace.gap.clone())
                .reference("ln t / t^(1/4)", trace.samples.clone(), reference),
        );
    }
    if trace.error.iter().any(|e| e.is_finite()) {
        figure = figure.panel(
            Plot::new(Scale::log("samples"), Scale::log("recovery error"))
                .titled("Distance from the true dictionary")
                .line("", trace.samples.clone(), trace.error.clone()),
        );
    } else if trace.smallest.iter().any(|s| s.is_finite()) {
        figure = figure.panel(
            Plot::new(Scale::log("samples"), Scale::new("smallest singular value of D").limits(0.0, 1.0))
                .titled("How orthogonal the iterate is")
                .line("", trace.samples.clone(), trace.smallest.clone()),
        );
    }
    figure
}

/// The atoms, those that carry most of the codes' energy first.
fn atoms_figure(transform: &Transform, codes: Option<ArrayView2<'_, f64>>, p: &OodlParams, n: usize) -> Figure {
    let atoms = transform.unit_atoms();
    let mut order: Vec<usize> = (0..atoms.ncols()).collect();
    if let Some(codes) = codes {
        let energy: Array1<f64> = (0..atoms.ncols())
            .map(|i| codes.column(i).mapv(|z| z * z).sum() * transform.atoms().column(i).mapv(|a| a * a).sum())
            .collect();
        order.sort_by(|&i, &j| energy[j].total_cmp(&energy[i]).then(i.cmp(&j)));
    }
    let Some(width) = p.image_width.or(p.is_digits().then_some(8)) else {
        let sorted = atoms.select(Axis(1), &order);
        return Figure::new("The dictionary", "Columns are atoms, those that carry most energy first.").panel(
            HeatMap {
                title: String::new(),
                values: sorted.iter().copied().collect(),
                rows: n,
                columns: order.len(),
                x: Scale::new("atom"),
                y: Scale::new("place in the sample"),
                colour: Scale::new("weight"),
                palette: Palette::Diverging,
            },
        );
    };
    let image = |&i: &usize| {
        let atom = atoms.column(i);
        let largest = atom.iter().fold(0.0f64, |m, x| m.max(x.abs()));
        atom.iter().map(|x| (127.5 + 127.5 * x / largest).round() as u8).collect()
    };
    Figure::new(
        "What the dictionary holds",
        "Each image is an atom, those that carry most energy first; grey is zero, white and black are the two signs.",
    )
    .panel(ImageGrid {
        title: String::new(),
        height: n / width,
        width,
        channels: 1,
        per_row: 16,
        images: order.iter().take(256).map(image).collect(),
        labels: Vec::new(),
    })
}
