//! A paper as the rest of the house sees it: a card, notes, a method and a study.

use crate::bench::{Bench, Case};
use crate::{AnyMethod, Card, Method, Result, Run};
use std::ops::Deref;
use std::sync::OnceLock;

/// The smallest faithful experiments behind a paper's claims.
pub trait Study {
    /// Measures every claim on the card at [`Run::scale`].
    fn measure(run: &mut Run) -> Result<()>;
}

/// A paper of the catalogue. Fields list theirs as `Paper::of::<Type>(card, notes)`.
pub struct Paper {
    card_text: &'static str,
    card: OnceLock<Card>,
    /// The notes (Markdown): what it computes, how to call it, when to use it, what was measured.
    pub notes: &'static str,
    method: AnyMethod,
    study: fn(&mut Run) -> Result<()>,
    cases: fn(u64) -> Result<Vec<Case>>,
}

/// A paper's method is the paper's: its flags, its schema, its runs.
impl Deref for Paper {
    type Target = AnyMethod;

    fn deref(&self) -> &AnyMethod {
        &self.method
    }
}

impl Paper {
    /// The paper implemented by `P`, with the texts of its `card.toml` and `README.md`.
    pub const fn of<P: Method + Study + Bench>(card_text: &'static str, notes: &'static str) -> Self {
        Self {
            card_text,
            card: OnceLock::new(),
            notes,
            method: AnyMethod::of::<P>(),
            study: P::measure,
            cases: P::cases,
        }
    }

    /// The card.
    ///
    /// # Panics
    /// If the paper's `card.toml` is not valid, which the catalogue's tests rule out.
    pub fn card(&self) -> &Card {
        self.card.get_or_init(|| Card::parse(self.card_text).expect("card.toml of the catalogue"))
    }

    /// Measures the claims.
    pub fn measure(&self, run: &mut Run) -> Result<()> {
        (self.study)(run)
    }

    /// The workloads to time beside the paper's peer, with inputs drawn from `seed`.
    pub fn cases(&self, seed: u64) -> Result<Vec<Case>> {
        (self.cases)(seed)
    }
}

/// A paper whose folder is `$slug` beside the calling file, implemented by `$method`.
#[macro_export]
macro_rules! paper {
    ($slug:literal, $method:ty) => {
        $crate::Paper::of::<$method>(
            include_str!(concat!($slug, "/card.toml")),
            include_str!(concat!($slug, "/README.md")),
        )
    };
}
