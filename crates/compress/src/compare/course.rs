//! One network, several entrants, several levels: runs them all and draws quality against size.

use crate::compression::{Order, usual_targets};
use crate::contest::{Entrant, Task, named};
use crate::examples::Example;
use crate::export::network_bytes;
use crate::methods::Target;
use crate::model::{Quality, evaluate, fold_batch_norms};
use crate::subject::{Samples, Subject};
use offprint_core::figure::{Axis, Figure, Plot};
use offprint_core::{Error, Result, Run, Table};
use offprint_nn::{LayerPlace, Reads};
use std::path::Path;
use std::time::Instant;

/// What both comparisons are given.
pub struct Course<'a> {
    pub model: Option<&'a Path>,
    pub example: Example,
    pub test: Samples<'a>,
    pub train: Option<Samples<'a>>,
    pub samples: usize,
    pub except: &'a [String],
    pub methods: &'a [String],
    pub order: Order,
}

/// One level of compression: what tables call it, and what each layer becomes.
pub struct Level {
    pub name: String,
    pub target: Target,
}

/// What came of one entrant at one level.
struct Outcome {
    entrant: usize,
    level: usize,
    bytes: u64,
    quality: Quality,
    seconds: f64,
}

impl Course<'_> {
    /// Refuses data without a model, and the other way round.
    pub fn check(&self, entrants: Vec<Box<dyn Entrant>>) -> Result<()> {
        named(entrants, self.methods)?;
        match (self.model, self.test.inputs.is_builtin()) {
            (Some(_), true) => Err(Error::parameter("data", "builtin", "given with a model of your own")),
            (None, false) => Err(Error::parameter("model", "none", "given with data of your own")),
            _ => Ok(()),
        }
    }

    /// Runs all entrants at all levels. `steps` is how long those train that do.
    pub fn run(&self, entrants: Vec<Box<dyn Entrant>>, levels: &[Level], steps: usize, run: &mut Run) -> Result<()> {
        let entrants = named(entrants, self.methods)?;
        let subject = match self.model {
            Some(path) => Subject::open(path, self.test, self.train)?,
            None => self.example.load()?,
        };
        let (network, _) = fold_batch_norms(&subject.network)?;
        let calibration = subject.calibration(self.samples)?;
        let float = evaluate(&network, &subject.test, None)?;
        let whole = network_bytes(&network, &[])?;
        let progress = run.progress();
        let mut outcomes = Vec::new();
        for (level, Level { name, target }) in levels.iter().enumerate() {
            let (targets, left) = fitting(usual_targets(&network, *target, self.except)?);
            if !left.is_empty() {
                run.warn(format!("{name}: does not fit {}, which stay as they are", left.join(", ")));
            }
            if targets.is_empty() {
                continue;
            }
            for (entrant, method) in entrants.iter().enumerate() {
                progress.status(&format!("{} at {name}", method.name()));
                let task = Task {
                    network: &network,
                    targets: &targets,
                    calibration: &calibration,
                    train: &subject.train,
                    order: self.order,
                    steps,
                    streams: run.stream("entrants").nested(level as u64),
                    progress: &progress,
                };
                let began = Instant::now();
                let entry = match method.enter(&task) {
                    Ok(entry) => entry,
                    // What a method cannot do is no reason to stop the others.
                    Err(error @ Error::Parameter { .. }) => {
                        run.warn(format!("{} at {name}: {error}", method.name()));
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                let seconds = began.elapsed().as_secs_f64();
                let quality = evaluate(&entry.network, &subject.test, entry.within.clone())?;
                outcomes.push(Outcome { entrant, level, bytes: entry.bytes, quality, seconds });
            }
        }
        let of_tokens = matches!(network.architecture().reads(), Reads::Tokens { .. });
        let names: Vec<&str> = entrants.iter().map(|entrant| entrant.name()).collect();
        report(&names, levels, &outcomes, &Float { quality: float, bytes: whole, of_tokens }, run)
    }
}

/// The layers whose inputs the target's groups divide, and the names of the others.
fn fitting(targets: Vec<(LayerPlace, Target)>) -> (Vec<(LayerPlace, Target)>, Vec<String>) {
    let (fitting, others): (Vec<_>, Vec<_>) =
        targets.into_iter().partition(|(place, target)| target.check(&place.name, place.inputs()).is_ok());
    (fitting, others.into_iter().map(|(place, _)| place.name).collect())
}

/// The network before.
struct Float {
    quality: Quality,
    bytes: u64,
    of_tokens: bool,
}

fn report(names: &[&str], levels: &[Level], outcomes: &[Outcome], float: &Float, run: &mut Run) -> Result<()> {
    if outcomes.is_empty() {
        return Err(Error::parameter("methods", names.join(", "), "able to reach one of the levels asked for"));
    }
    let (measure, value): (&str, fn(&Quality) -> f64) =
        if float.of_tokens { ("perplexity", Quality::perplexity) } else { ("accuracy", |quality| quality.accuracy) };
    run.metric(&format!("{measure} of the float network"), value(&float.quality), "");
    run.metric("size of the float network", float.bytes as f64 / 1e3, "kB");
    let lossless = |outcome: &&Outcome| {
        if float.of_tokens {
            value(&outcome.quality) <= 1.01 * value(&float.quality)
        } else {
            value(&outcome.quality) >= value(&float.quality) - 0.01
        }
    };
    if let Some(best) = outcomes.iter().filter(lossless).min_by_key(|outcome| outcome.bytes) {
        let what = if float.of_tokens { "a hundredth of the perplexity" } else { "a hundredth of the accuracy" };
        let of = format!("{}, {}", names[best.entrant], levels[best.level].name);
        run.metric(&format!("smallest within {what} ({of})"), best.bytes as f64 / 1e3, "kB");
    }
    let mut quality =
        Plot::new(Axis::log("size").unit("kB"), if float.of_tokens { Axis::log(measure) } else { Axis::new(measure) });
    let mut loss = Plot::new(Axis::log("size").unit("kB"), Axis::log("cross-entropy").unit("nat"));
    for (entrant, name) in names.iter().enumerate() {
        let mut own: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.entrant == entrant).collect();
        own.sort_by_key(|outcome| outcome.bytes);
        let x: Vec<f64> = own.iter().map(|outcome| outcome.bytes as f64 / 1e3).collect();
        if !x.is_empty() {
            quality = quality.line(*name, x.clone(), own.iter().map(|o| value(&o.quality)).collect());
            loss = loss.line(*name, x, own.iter().map(|o| o.quality.loss).collect());
        }
    }
    run.figure(
        "size",
        Figure::new(
            "Quality against size",
            format!(
                "Each point is the whole network after one method at one level, its size counted with scales, masks and all \
                 that stays float. Dashed: the float network, {:.0} kB.",
                float.bytes as f64 / 1e3
            ),
        )
        .columns(2)
        .panel(quality.titled(format!("{measure} on the test samples")).horizontal("float", value(&float.quality)))
        .panel(loss.titled("loss on the test samples").horizontal("float", float.quality.loss)),
    );
    let words = |of: &dyn Fn(&Outcome) -> String| outcomes.iter().map(of).collect::<Vec<_>>();
    let numbers = |of: &dyn Fn(&Outcome) -> f64| outcomes.iter().map(of).collect::<Vec<_>>();
    run.table(
        Table::new("methods", "Every method at every level, tested on samples that it has not seen.")
            .words("method", words(&|o| names[o.entrant].to_owned()))
            .words("level", words(&|o| levels[o.level].name.clone()))
            .numbers("size", "kB", numbers(&|o| o.bytes as f64 / 1e3))
            .numbers("of the float size", "", numbers(&|o| o.bytes as f64 / float.bytes as f64))
            .numbers(measure, "", numbers(&|o| value(&o.quality)))
            .numbers("loss", "nat", numbers(&|o| o.quality.loss))
            .numbers("time", "s", numbers(&|o| o.seconds)),
    )
}
