//! The command `offprint`.

mod bench;
mod browse;
mod cli;
mod execute;
mod peer;
mod results;
mod watch;
mod write;

use offprint_core::Error;
use std::process::ExitCode;

// Methods allocate large arrays again and again; the system's allocator gives them back each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let (papers, comparisons) = (offprint::papers(), offprint::comparisons());
    let whole = || cli::command(&papers, &comparisons);
    let matches = whole().get_matches();
    let done = match matches.subcommand() {
        Some(("papers", args)) => browse::list(&papers, args),
        Some(("show", args)) => browse::show(&papers, args),
        Some(("run", args)) => execute::run(&papers, args),
        Some(("compare", args)) => execute::compare(&comparisons, args),
        Some(("reproduce", args)) => execute::reproduce(&papers, args),
        Some(("bench", args)) => bench::bench(&papers, args),
        Some(("completions", args)) => cli::completions(whole(), args),
        _ => unreachable!("clap asks for a subcommand"),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {}", write::style(true).red("error"), explain(&error));
            ExitCode::from(error.exit_code())
        }
    }
}

/// The error in the words of the command line: parameters are flags there.
fn explain(error: &Error) -> String {
    match error {
        Error::Parameter { field, given, allowed } => {
            format!("--{}: got {given}, but it must be {allowed}", field.replace('_', "-"))
        }
        other => other.to_string(),
    }
}
