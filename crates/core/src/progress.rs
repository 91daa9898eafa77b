//! Progress and cancellation, injected into algorithms that run long.

use crate::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Somebody who watches a run: a progress bar, a web page, a notebook.
pub trait Observer: Send + Sync {
    /// A stage begins; `total` steps if that is known.
    fn begin(&self, stage: &str, total: Option<u64>);
    /// `steps` more steps of the current stage are done.
    fn advance(&self, steps: u64);
    /// A short word on how it stands ("loss 0.123").
    fn status(&self, words: &str);
    /// Something the user should read.
    fn warn(&self, words: &str);
    /// The current stage is over.
    fn finish(&self);
}

/// Nobody watches.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn begin(&self, _: &str, _: Option<u64>) {}
    fn advance(&self, _: u64) {}
    fn status(&self, _: &str) {}
    fn warn(&self, _: &str) {}
    fn finish(&self) {}
}

/// A switch that asks a run to stop; clones are the same switch.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks to stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether somebody asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What an algorithm holds to tell how far it is and to learn that it should stop. Cheap to clone, shared by threads.
#[derive(Clone)]
pub struct Progress {
    observer: Arc<dyn Observer>,
    cancel: Cancel,
}

impl Progress {
    /// Progress told to `observer`, stopped by `cancel`.
    pub fn new(observer: Arc<dyn Observer>, cancel: Cancel) -> Self {
        Self { observer, cancel }
    }

    /// Told to nobody, never stopped: for library calls and tests.
    pub fn silent() -> Self {
        Self::new(Arc::new(Silent), Cancel::default())
    }

    /// Begins a stage of `total` steps, or of an unknown number.
    pub fn begin(&self, stage: &str, total: impl Into<Option<u64>>) {
        self.observer.begin(stage, total.into());
    }

    /// Tells of `steps` more steps; answers [`Error::Cancelled`] if the run should stop.
    pub fn advance(&self, steps: u64) -> Result<()> {
        self.observer.advance(steps);
        self.check()
    }

    /// [`Error::Cancelled`] if the run should stop.
    pub fn check(&self) -> Result<()> {
        if self.cancel.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// A short word on how it stands.
    pub fn status(&self, words: &str) {
        self.observer.status(words);
    }

    /// Something the user should read.
    pub fn warn(&self, words: &str) {
        self.observer.warn(words);
    }

    /// Ends the stage.
    pub fn finish(&self) {
        self.observer.finish();
    }
}
