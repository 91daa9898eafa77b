//! Who watches a run from the command line: a progress bar where there is a terminal, and Ctrl-C everywhere.

use crate::write::style;
use indicatif::{ProgressBar, ProgressStyle};
use offprint_core::{Cancel, Error, Observer, Progress, Result};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A progress bar on standard error; without a terminal only warnings are written.
struct Bar {
    bar: Mutex<ProgressBar>,
}

/// Progress shown on standard error. The first Ctrl-C asks the run to stop, the second ends the program.
pub fn progress() -> Result<Progress> {
    let cancel = Cancel::default();
    let switch = cancel.clone();
    ctrlc::set_handler(move || {
        if switch.is_cancelled() {
            std::process::exit(130);
        }
        switch.cancel();
        eprintln!("\nstopping; once more to stop at once");
    })
    .map_err(|e| Error::Numerical(format!("cannot watch for Ctrl-C: {e}")))?;
    Ok(Progress::new(Arc::new(Bar { bar: Mutex::new(ProgressBar::hidden()) }), cancel))
}

impl Bar {
    fn with(&self, f: impl FnOnce(&mut ProgressBar)) {
        // A bar is only words; one that another thread panicked over still works.
        f(&mut self.bar.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
    }
}

impl Observer for Bar {
    fn begin(&self, stage: &str, total: Option<u64>) {
        if !console::user_attended_stderr() {
            return;
        }
        self.with(|bar| {
            bar.finish_and_clear();
            let (made, template) = match total {
                Some(total) => (
                    ProgressBar::new(total),
                    "{msg:<28} {bar:30.cyan/238} {human_pos}/{human_len}  {per_sec}  {eta} left  {prefix:.dim}",
                ),
                None => {
                    (ProgressBar::no_length(), "{msg:<28} {spinner} {human_pos}  {per_sec}  {elapsed}  {prefix:.dim}")
                }
            };
            let style = ProgressStyle::with_template(template).expect("a valid template").progress_chars("━━─");
            *bar = made.with_style(style).with_message(stage.to_owned());
            bar.enable_steady_tick(Duration::from_millis(120));
        });
    }

    fn advance(&self, steps: u64) {
        self.with(|bar| bar.inc(steps));
    }

    fn status(&self, words: &str) {
        self.with(|bar| bar.set_prefix(words.to_owned()));
    }

    fn warn(&self, words: &str) {
        self.with(|bar| bar.suspend(|| eprintln!("{}: {words}", style(true).yellow("warning"))));
    }

    fn finish(&self) {
        self.with(|bar| bar.finish_and_clear());
    }
}
