//! The command `offprint`.

mod bench;
mod browse;
mod cli;
mod execute;
mod memory;
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
    quiet_candle();
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

/// Keeps candle's element-wise operations on the thread that asks for them, unless the user wants it otherwise.
///
/// Candle has a pool of its own for them, of as many threads as the machine has cores whatever `--threads` says, and its
/// threads spin while they wait: beside the kernels of `offprint-nn`, which work on rayon's threads, they doubled the
/// processor time of a small network's training (`offprint bench nn --case mlp`) and gained nothing in a large one's.
fn quiet_candle() {
    const THREADS: &str = "CANDLE_NUM_THREADS";
    if std::env::var_os(THREADS).is_none() {
        // SAFETY: this is the first thing that the program does, on its only thread: nobody else reads the environment.
        // Candle looks at it once, at its first large operation, and has no other way to be told.
        unsafe { std::env::set_var(THREADS, "1") };
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
