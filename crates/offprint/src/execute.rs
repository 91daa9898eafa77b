//! `offprint run` and `offprint reproduce`: from flags to a finished report.

use crate::write::{self, columns, style, wrap};
use crate::{cli, results, watch};
use clap::ArgMatches;
use offprint_core::table::significant;
use offprint_core::{
    AnyMethod, Card, Comparison, Error, Measured, Paper, Progress, Report, Result, Run, Scale, Table, Verdict,
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Rows of a table that the terminal shows; the file has them all.
const ROWS_SHOWN: usize = 12;
/// Digits of a number on the terminal.
const DIGITS: usize = 4;

/// `offprint run`.
pub fn run(papers: &[Paper], args: &ArgMatches) -> Result<()> {
    let (slug, args) = args.subcommand().expect("clap asks for a paper");
    let paper = papers.iter().find(|p| p.card().slug == slug).expect("subcommands are papers");
    cli::on_threads(args, || run_method(paper, paper.card(), args))
}

/// `offprint compare`.
pub fn compare(comparisons: &[Comparison], args: &ArgMatches) -> Result<()> {
    let (task, args) = args.subcommand().expect("clap asks for a task");
    let comparison = comparisons.iter().find(|c| c.task == task).expect("subcommands are tasks");
    cli::on_threads(args, || run_method(comparison, &comparison.card(), args))
}

fn run_method(method: &AnyMethod, card: &Card, args: &ArgMatches) -> Result<()> {
    let prepared = method.prepare_flags(args)?;
    let out = directory(args, &card.slug);
    let mut run = new_run(card, args, out.clone(), watch::progress()?)?;
    let done = prepared.run(&mut run);
    let (report, stopped) = close(run, done, card, &out)?;
    if args.get_flag("json") {
        write::json(&report.to_json(Some(&out)));
    } else {
        write::out(&summary(&report, card, &out));
    }
    if stopped { Err(Error::Cancelled) } else { Ok(()) }
}

/// `offprint reproduce`.
pub fn reproduce(papers: &[Paper], args: &ArgMatches) -> Result<()> {
    cli::on_threads(args, || measure(papers, args))
}

fn measure(papers: &[Paper], args: &ArgMatches) -> Result<()> {
    let chosen: Vec<&Paper> = if args.get_flag("all") { papers.iter().collect() } else { cli::chosen(papers, args) };
    let scale = match (args.get_flag("quick"), args.get_flag("full")) {
        (true, _) => Scale::Quick,
        (_, true) => Scale::Full,
        _ => Scale::Standard,
    };
    let progress = watch::progress()?;
    let mut reports = Vec::new();
    let mut failed = None;
    for paper in &chosen {
        let card = paper.card();
        let out = match (chosen.len(), args.get_one::<PathBuf>("out")) {
            (2.., Some(out)) => out.join(&card.slug),
            _ => directory(args, &format!("{}-claims", card.slug)),
        };
        let mut run = new_run(card, args, out.clone(), progress.clone())?.with_scale(scale);
        let done = paper.measure(&mut run);
        let closed = close(run, done, card, &out);
        let stopped = match closed {
            Ok((report, stopped)) => {
                if !args.get_flag("json") {
                    write::out(&verdicts(&report, card, &out));
                }
                reports.push(report);
                stopped
            }
            // One paper that fails does not take the others' results with it.
            Err(error) => {
                progress.finish();
                eprintln!("{}: {}: {error}", style(true).red("error"), card.slug);
                failed = Some(error);
                false
            }
        };
        if let Some(file) = args.get_one::<PathBuf>("write") {
            results::write(file, &reports, papers)?;
        }
        if stopped {
            failed = Some(Error::Cancelled);
            break;
        }
    }
    if args.get_flag("json") {
        let documents: Vec<Value> = reports.iter().map(claims_json).collect();
        let single = chosen.len() == 1 && !args.get_flag("all");
        match documents.into_iter().next() {
            Some(document) if single => write::json(&document),
            None if single => {}
            _ => write::json(&reports.iter().map(claims_json).collect()),
        }
    }
    failed.map_or(Ok(()), Err)
}

fn claims_json(report: &Report) -> Value {
    json!({ "paper": report.paper, "scale": report.scale, "claims": report.claims })
}

fn new_run(card: &Card, args: &ArgMatches, out: PathBuf, progress: Progress) -> Result<Run> {
    let seed = *args.get_one::<u64>("seed").expect("has a default");
    Run::new(card).with_seed(seed).with_progress(progress).with_out(out)
}

/// The directory given, or `runs/<time>-<name>`, new each time.
fn directory(args: &ArgMatches, name: &str) -> PathBuf {
    args.get_one::<PathBuf>("out").cloned().unwrap_or_else(|| {
        let time = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S");
        let first = PathBuf::from(format!("runs/{time}-{name}"));
        let others = (2..).map(|i| PathBuf::from(format!("runs/{time}-{name}-{i}")));
        std::iter::once(first).chain(others).find(|p| !p.exists()).expect("some name is free")
    })
}

/// Ends a run: draws its report, also when the user stopped it; tells whether that happened.
fn close(run: Run, done: Result<()>, card: &Card, out: &Path) -> Result<(Report, bool)> {
    run.progress().finish();
    let stopped = matches!(done, Err(Error::Cancelled));
    if !stopped && let Err(error) = done {
        // What was found before the failure stays on disk, but no page pretends that this is a result.
        run.finish(false)?;
        // An input that was refused at once leaves no directory behind.
        discard_if_bare(out);
        return Err(error);
    }
    let (report, _) = run.finish(!stopped)?;
    offprint_report::write(&report, card, out)?;
    Ok((report, stopped))
}

/// Removes a run's directory that holds nothing but an empty report.
fn discard_if_bare(out: &Path) {
    let only_report =
        std::fs::read_dir(out).is_ok_and(|entries| entries.flatten().all(|e| e.file_name() == "report.json"));
    if only_report && std::fs::remove_file(out.join("report.json")).is_ok() {
        // The directory goes only if it is empty; one that was there before with other files stays.
        let _ = std::fs::remove_dir(out);
    }
}

/// A finished run in the terminal: numbers, tables, a plot, where the report is.
fn summary(report: &Report, card: &Card, out: &Path) -> String {
    let (s, width) = (style(false), write::width());
    let mut text = format!("{}  {}\n\n", s.bold(&card.slug), card.title);
    let metrics: Vec<Vec<String>> =
        report.metrics.iter().map(|m| vec![m.name.clone(), significant(m.value, DIGITS), s.dim(&m.unit)]).collect();
    text += &columns(&metrics, &[false, true], 2);
    for table in &report.tables {
        text += &format!("\n{}\n{}", s.bold(wrap(&table.caption, width, 0)), rows(table, width));
    }
    if let Some((_, figure)) = report.figures.first() {
        text += &format!("\n{}\n", offprint_report::terminal(figure, width.min(90), 18, s.on).trim_end());
    }
    text += "\n";
    for warning in &report.warnings {
        text += &format!("{} {}\n", s.yellow("note"), wrap(warning, width, 5));
    }
    text += &closing(report, out);
    text
}

/// The first rows of a table, as many columns as fit.
fn rows(table: &Table, width: usize) -> String {
    let shown = table.rows().min(ROWS_SHOWN);
    let headings: Vec<String> = table.columns.iter().map(|c| c.heading()).collect();
    let mut cells = vec![headings];
    cells.extend((0..shown).map(|r| (0..table.columns.len()).map(|c| table.cell(r, c, DIGITS)).collect()));
    let right: Vec<bool> =
        table.columns.iter().map(|c| !matches!(c.values, offprint_core::table::Values::Words(_))).collect();
    let text = columns(&cells, &right, 2);
    let mut text: String = text.lines().map(|l| format!("{}\n", console::truncate_str(l, width, "…"))).collect();
    if shown < table.rows() {
        text += &format!("  … {} more rows in {}.csv\n", table.rows() - shown, table.name);
    }
    text
}

/// The verdicts of a study in the terminal.
fn verdicts(report: &Report, card: &Card, out: &Path) -> String {
    let (s, width) = (style(false), write::width());
    let mut text = format!("{}  {}\n\n", s.bold(&card.slug), card.title);
    for measured in &report.claims {
        let claim = card.claim(&measured.id).expect("measured claims are on the card");
        text += &format!("{} {}\n", badge(measured), wrap(&claim.says, width, 14));
        let value = measured.measured.map_or("—".into(), |x| significant(x, DIGITS));
        let unit = if claim.unit.is_empty() { String::new() } else { format!(" {}", claim.unit) };
        let line = format!(
            "{} = {value}{unit}, holds if {}; paper: {}; {:.1} s",
            claim.measures, measured.holds_if, claim.paper_value, measured.seconds
        );
        text += &format!("              {}\n", s.dim(wrap(&line, width, 14)));
        if !measured.why.is_empty() {
            text += &format!("              {}\n", s.dim(wrap(&measured.why, width, 14)));
        }
    }
    text += &format!("\n{}\n", results::count(report));
    if report.scale == Some(Scale::Quick) {
        text += &s.dim("quick scale: too few repetitions to trust a verdict\n");
    }
    text + &closing(report, out) + "\n"
}

fn badge(measured: &Measured) -> String {
    let s = style(false);
    let word = format!("{:<13}", measured.verdict.to_string());
    match measured.verdict {
        Verdict::Holds => s.green(word),
        Verdict::FallsShort => s.yellow(word),
        Verdict::NotMeasured => s.dim(word),
    }
}

fn closing(report: &Report, out: &Path) -> String {
    let s = style(false);
    let state = if report.complete { "" } else { " (stopped before the end; this is what was done)" };
    format!(
        "{} in {:.1} s, seed {}{state}\n{}\n",
        s.dim("done"),
        report.seconds,
        report.seed,
        s.bold(out.join("report.html").display())
    )
}
