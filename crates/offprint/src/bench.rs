//! `offprint bench`: ours and the peer interleaved on identical inputs.

use crate::peer::{Environment, Peer};
use crate::write::{self, columns, style};
use crate::{cli, memory, watch};
use clap::ArgMatches;
use offprint_core::artifact::Artifact;
use offprint_core::bench::Case;
use offprint_core::table::significant;
use offprint_core::{Error, Machine, Paper, Progress, Result};
use offprint_math::stats::median;
use serde_json::{Value, json};
use std::time::Instant;

/// The times of one workload.
struct Timing {
    case: &'static str,
    says: String,
    goal: Option<f64>,
    ours: Vec<f64>,
    /// Peak memory of this process during the case, in bytes.
    memory: Option<u64>,
    peer: Option<PeerTiming>,
}

struct PeerTiming {
    seconds: Vec<f64>,
    memory: Option<u64>,
    agrees: bool,
    ours: Vec<f64>,
    theirs: Vec<f64>,
}

/// `offprint bench`.
pub fn bench(papers: &[Paper], args: &ArgMatches) -> Result<()> {
    cli::on_threads(args, || time_all(papers, args))
}

fn time_all(papers: &[Paper], args: &ArgMatches) -> Result<()> {
    let slug = args.get_one::<String>("paper").expect("required").as_str();
    let paper = papers.iter().find(|p| p.card().slug == slug);
    let field = paper.map_or(slug, |p| p.card().field.as_str());
    let threads = rayon::current_num_threads();
    let rounds = *args.get_one::<u64>("rounds").expect("has a default");
    let progress = watch::progress()?;

    let seed = *args.get_one::<u64>("seed").expect("has a default");
    // Besides papers, the shared neural parts have workloads of their own.
    let mut cases = paper.map_or_else(|| offprint::nn::bench::cases(seed), |p| p.cases(seed))?;
    if let Some(wanted) = args.get_one::<String>("case") {
        let names: Vec<&str> = cases.iter().map(|c| c.name).collect();
        if !names.contains(&wanted.as_str()) {
            return Err(Error::parameter("case", wanted, format!("one of {}", names.join(", "))));
        }
        cases.retain(|c| c.name == wanted);
    }

    let environment = Environment::of(slug, field)?;
    if let Some(environment) = environment.as_ref().filter(|e| args.get_flag("install") && !e.is_installed()) {
        progress.begin("installing the peer", None);
        environment.install()?;
        progress.finish();
    }
    let installed = environment.as_ref().filter(|e| e.is_installed());
    let remark = match (&environment, installed) {
        (None, _) => Some("this paper has no peer; ours is timed alone".to_owned()),
        (Some(_), None) => Some(format!(
            "the peer is not installed, ours is timed alone; `offprint bench {} --install` installs it from PyPI",
            slug
        )),
        _ => None,
    };
    if let Some(remark) = &remark {
        progress.warn(remark);
    }

    let (mut timings, mut versions) = (Vec::new(), String::new());
    for mut case in cases {
        let directory = tempfile::tempdir().map_err(|e| Error::file("create", &std::env::temp_dir(), e))?;
        let mut peer = match installed {
            Some(environment) => {
                for (name, array) in &case.inputs {
                    Artifact::Array(array.clone()).write(&directory.path().join(format!("{name}.npy")))?;
                }
                Some(environment.start(&case, directory.path(), threads)?)
            }
            None => None,
        };
        if let Some(peer) = &peer {
            versions.clone_from(&peer.versions);
        }
        timings.push(time(&mut case, peer.as_mut(), rounds, &progress)?);
    }

    if args.get_flag("json") {
        write::json(&document(slug, &timings, &versions, threads));
    } else {
        write::out(&table(slug, &timings, &versions, threads));
    }
    match timings.iter().find(|t| t.peer.as_ref().is_some_and(|p| !p.agrees)) {
        Some(timing) => {
            Err(Error::Numerical(format!("{}: the answers do not agree, so the times do not compare", timing.case)))
        }
        None => Ok(()),
    }
}

/// Each side once to warm up and to compare the answers, then turn by turn.
fn time(case: &mut Case, mut peer: Option<&mut Peer>, rounds: u64, progress: &Progress) -> Result<Timing> {
    progress.begin(case.name, rounds + 1);
    memory::forget_peak();
    let answer = (case.work)()?;
    let mut compared = match &mut peer {
        Some(peer) => {
            let (_, theirs) = peer.run()?;
            let agrees = case.agreement.holds(&answer, &theirs);
            Some(PeerTiming { seconds: Vec::new(), memory: None, agrees, ours: answer, theirs })
        }
        None => None,
    };
    progress.advance(1)?;
    let mut ours = Vec::new();
    for _ in 0..rounds {
        let start = Instant::now();
        (case.work)()?;
        ours.push(start.elapsed().as_secs_f64());
        if let (Some(peer), Some(compared)) = (&mut peer, &mut compared) {
            compared.seconds.push(peer.run()?.0);
        }
        progress.advance(1)?;
    }
    progress.finish();
    let memory = memory::own_peak();
    if let (Some(peer), Some(compared)) = (&peer, &mut compared) {
        compared.memory = peer.peak_memory();
    }
    Ok(Timing { case: case.name, says: case.says.clone(), goal: case.goal, ours, memory, peer: compared })
}

impl Timing {
    fn ratio(&self) -> Option<f64> {
        self.peer.as_ref().map(|p| median(&self.ours) / median(&p.seconds))
    }
}

fn document(slug: &str, timings: &[Timing], versions: &str, threads: usize) -> Value {
    let cases: Vec<Value> = timings
        .iter()
        .map(|t| {
            json!({
                "case": t.case,
                "says": t.says,
                "ours_seconds": median(&t.ours),
                "peer_seconds": t.peer.as_ref().map(|p| median(&p.seconds)),
                "ratio": t.ratio(),
                "goal": t.goal,
                "ours_peak_bytes": t.memory,
                "peer_peak_bytes": t.peer.as_ref().and_then(|p| p.memory),
                "agrees": t.peer.as_ref().map(|p| p.agrees),
                "ours_answer": t.peer.as_ref().map(|p| &p.ours),
                "peer_answer": t.peer.as_ref().map(|p| &p.theirs),
                "rounds": t.ours.len(),
            })
        })
        .collect();
    json!({ "paper": slug, "threads": threads, "peer": versions, "machine": Machine::here(), "cases": cases })
}

fn table(slug: &str, timings: &[Timing], versions: &str, threads: usize) -> String {
    let s = style(false);
    let peer = if versions.is_empty() { String::new() } else { format!(", beside {versions}") };
    let plural = if threads == 1 { "" } else { "s" };
    let mut text = format!("{}  medians of interleaved runs, {threads} thread{plural}{peer}\n\n", s.bold(slug));
    let headings = ["case", "ours", "peer", "ours / peer", "goal", "memory", "peer's", "answers"];
    let mut rows = vec![headings.map(str::to_owned).to_vec()];
    for t in timings {
        let goal = t.goal.map_or(String::new(), |g| format!("≤ {}", significant(g, 3)));
        let ratio = t.ratio().map_or("—".into(), |r| significant(r, 3));
        let met = t.ratio().zip(t.goal).is_none_or(|(r, g)| r <= g);
        rows.push(vec![
            t.case.to_owned(),
            duration(median(&t.ours)),
            t.peer.as_ref().map_or("—".into(), |p| duration(median(&p.seconds))),
            if met { ratio } else { s.yellow(ratio) },
            goal,
            mebibytes(t.memory),
            mebibytes(t.peer.as_ref().and_then(|p| p.memory)),
            t.peer.as_ref().map_or(String::new(), |p| if p.agrees { s.green("agree") } else { s.red("differ") }),
        ]);
    }
    text += &columns(&rows, &[false, true, true, true, true, true, true], 2);
    text += "\n";
    for t in timings {
        text += &format!("  {}: {}\n", t.case, t.says);
        if let Some(p) = t.peer.as_ref().filter(|p| !p.agrees) {
            text += &format!("    ours {:?}, peer {:?}\n", p.ours, p.theirs);
        }
    }
    text
}

/// A duration to three digits in the unit that suits it.
fn duration(seconds: f64) -> String {
    let units = [("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)];
    let (unit, size) = units.into_iter().find(|(_, size)| seconds >= *size).unwrap_or(("ns", 1e-9));
    format!("{} {unit}", significant(seconds / size, 3))
}

/// Memory in whole MiB.
fn mebibytes(bytes: Option<u64>) -> String {
    bytes.map_or("—".into(), |bytes| format!("{} MiB", bytes >> 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_take_the_unit_that_suits() {
        assert_eq!(
            [3.0, 0.02, 0.00012345, 2.5e-8, 1e-12].map(duration),
            ["3 s", "20 ms", "123 µs", "25 ns", "0.001 ns"]
        );
    }
}
