//! The command line, made from the catalogue.

use crate::write;
use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use offprint_core::{Comparison, Error, Paper, Result};
use std::path::PathBuf;

/// The whole command line.
pub fn command(papers: &[Paper], comparisons: &[Comparison]) -> Command {
    Command::new("offprint")
        .version(env!("CARGO_PKG_VERSION"))
        .about("The page of trending papers on which every paper runs")
        .after_help(
            "Start with `offprint papers`, then `offprint run PAPER`: every paper runs without further arguments.",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("papers")
                .about("List the papers")
                .arg(
                    Arg::new("field")
                        .long("field")
                        .value_name("FIELD")
                        .value_parser(fields(papers))
                        .help("Only this field"),
                )
                .arg(
                    Arg::new("search")
                        .long("search")
                        .value_name("WORDS")
                        .help("Only papers that match all words, in titles, authors, tags, summaries or claims"),
                )
                .arg(json("Print the papers as one JSON array")),
        )
        .subcommand(
            Command::new("show")
                .about("Show a paper: facts, claims and notes")
                .arg(paper(papers))
                .arg(json("Print card, notes and parameter schema as one JSON object")),
        )
        .subcommand(
            Command::new("run")
                .about("Run a paper's method on your data, or on its built-in input")
                .subcommand_required(true)
                .arg_required_else_help(true)
                .subcommand_help_heading("Papers")
                .subcommand_value_name("PAPER")
                .disable_help_subcommand(true)
                .subcommands(papers.iter().map(run_command)),
        )
        .subcommand(
            Command::new("reproduce")
                .about("Measure the claims of papers on this machine")
                .arg(paper(papers).required(false).num_args(1..).required_unless_present("all"))
                .arg(flag("all", "All papers").conflicts_with("paper"))
                .arg(flag(
                    "quick",
                    "Seconds a paper: shows that every claim can be measured; too few repetitions to trust a verdict",
                ))
                .arg(flag("full", "The published size, where that is larger").conflicts_with("quick"))
                .arg(
                    Arg::new("write")
                        .long("write")
                        .value_name("FILE")
                        .value_parser(value_parser!(PathBuf))
                        .help("Also write the verdicts as a Markdown table, such as RESULTS.md; other papers' sections there stay"),
                )
                .args(run_arguments(
                    "Print {paper, scale, claims} as one JSON document: an object for one paper, an array for several",
                )),
        )
        .subcommand(
            Command::new("compare")
                .about("Compare methods of several papers, and baselines, on one task")
                .subcommand_required(true)
                .arg_required_else_help(true)
                .subcommand_help_heading("Tasks")
                .subcommand_value_name("TASK")
                .disable_help_subcommand(true)
                .subcommands(comparisons.iter().map(compare_command)),
        )
        .subcommand(
            Command::new("bench")
                .about("Time a paper's kernel beside its peer, the library you would otherwise pick")
                .arg(benched(papers))
                .arg(Arg::new("case").long("case").value_name("NAME").help("Only this workload"))
                .arg(
                    Arg::new("rounds")
                        .long("rounds")
                        .value_name("N")
                        .default_value("5")
                        .value_parser(value_parser!(u64).range(1..=1000))
                        .help("Interleaved runs of each side"),
                )
                .arg(flag("install", "Make a virtual environment and install the peer from PyPI into it first"))
                .arg(seed())
                .arg(threads())
                .arg(json("Print the timings as one JSON object")),
        )
        .subcommand(
            Command::new("completions")
                .about("Print a completion script for your shell")
                .arg(Arg::new("shell").required(true).value_parser(value_parser!(clap_complete::Shell))),
        )
}

fn run_command(paper: &Paper) -> Command {
    let card = paper.card();
    // Commands live as long as the program; clap wants names that do too.
    let name: &'static str = card.slug.clone().leak();
    let arxiv = if card.arxiv.is_empty() { String::new() } else { format!("\narXiv {}", card.arxiv) };
    paper
        .command(name)
        .about(card.title.clone())
        .long_about(format!(
            "{}\n{} ({}, {}){arxiv}\n\n{}",
            card.title,
            card.authors.join(", "),
            card.venue,
            card.year,
            card.summary
        ))
        .after_help(format!("Notes, equations and claims: offprint show {}", card.slug))
        .args(of_a_run())
}

fn compare_command(comparison: &Comparison) -> Command {
    comparison
        .command(comparison.task)
        .about(comparison.title)
        .long_about(format!("{}\n\n{}", comparison.title, comparison.summary))
        .args(of_a_run())
}

/// What every run of a method takes beside the method's own flags.
fn of_a_run() -> impl Iterator<Item = Arg> {
    run_arguments("Print the report as one JSON object").into_iter().map(|a| a.help_heading("Run"))
}

fn run_arguments(json_help: &'static str) -> Vec<Arg> {
    let out = Arg::new("out")
        .long("out")
        .value_name("DIR")
        .value_parser(value_parser!(PathBuf))
        .help("Directory for report, figures and data [default: runs/<time>-<paper>]");
    vec![seed(), out, threads(), json(json_help)]
}

fn seed() -> Arg {
    Arg::new("seed")
        .long("seed")
        .value_name("N")
        .default_value("0")
        .value_parser(value_parser!(u64))
        .help("Seed of all random numbers; the result does not depend on the number of threads")
}

fn threads() -> Arg {
    Arg::new("threads")
        .long("threads")
        .value_name("N")
        .value_parser(value_parser!(u64).range(1..=4096))
        .help("Threads to compute with [default: all]")
}

fn json(help: &'static str) -> Arg {
    flag("json", help)
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

fn paper(papers: &[Paper]) -> Arg {
    let slugs: Vec<String> = papers.iter().map(|p| p.card().slug.clone()).collect();
    Arg::new("paper")
        .value_name("PAPER")
        .required(true)
        .value_parser(PossibleValuesParser::new(slugs))
        .hide_possible_values(true)
        .help("Short name of a paper, see `offprint papers`")
}

/// What `bench` times: a paper, or the neural parts that many papers share.
fn benched(papers: &[Paper]) -> Arg {
    let slugs = papers.iter().map(|p| p.card().slug.clone()).chain(["nn".to_owned()]);
    paper(papers)
        .value_parser(PossibleValuesParser::new(slugs.collect::<Vec<_>>()))
        .help("Short name of a paper, or nn for the shared neural parts")
}

fn fields(papers: &[Paper]) -> PossibleValuesParser {
    let mut fields: Vec<String> = papers.iter().map(|p| p.card().field.clone()).collect();
    fields.dedup();
    PossibleValuesParser::new(fields)
}

/// The papers that the argument `paper` names.
pub fn chosen<'a>(papers: &'a [Paper], args: &ArgMatches) -> Vec<&'a Paper> {
    let slugs: Vec<&String> = args.get_many("paper").into_iter().flatten().collect();
    slugs.iter().filter_map(|slug| papers.iter().find(|p| p.card().slug == **slug)).collect()
}

/// Stack of a thread that computes, in bytes: that of a program's first thread.
const STACK: usize = 8 << 20;

/// Runs `work` and all its parallel parts on the number of threads asked for.
///
/// `work` itself goes to one of them. Left outside, it would hand every parallel step over and sleep until it is done:
/// with one thread and the small steps of a network's inference that took four times as long on a busy machine.
pub fn on_threads<R: Send>(args: &ArgMatches, work: impl FnOnce() -> Result<R> + Send) -> Result<R> {
    let mut pool = rayon::ThreadPoolBuilder::new().stack_size(STACK);
    if let Some(&threads) = args.get_one::<u64>("threads") {
        pool = pool.num_threads(threads as usize);
    }
    pool.build_global().map_err(|e| Error::Numerical(format!("cannot start threads: {e}")))?;
    rayon::scope(|_| work())
}

/// `offprint completions`.
pub fn completions(mut whole: Command, args: &ArgMatches) -> Result<()> {
    let shell = *args.get_one::<clap_complete::Shell>("shell").expect("required");
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut whole, "offprint", &mut script);
    write::out(&String::from_utf8_lossy(&script));
    Ok(())
}
