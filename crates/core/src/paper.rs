//! A paper as the rest of the house sees it: a card, notes, a method and a study.

use crate::bench::{Bench, Case};
use crate::params::{self, Params};
use crate::{Card, Error, Result, Run};
use clap::FromArgMatches;
use serde_json::Value;
use std::sync::OnceLock;

/// A method that runs on the user's input.
pub trait Method {
    /// Its parameters.
    type Params: Params;

    /// Runs it once: reads the input that the parameters name, computes, reports through `run`.
    fn run(params: &Self::Params, run: &mut Run) -> Result<()>;
}

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
    command: fn(&'static str) -> clap::Command,
    schema: fn() -> Value,
    from_flags: fn(&clap::ArgMatches) -> Result<Prepared>,
    from_json: fn(Value) -> Result<Prepared>,
    study: fn(&mut Run) -> Result<()>,
    cases: fn(u64) -> Result<Vec<Case>>,
}

/// A method with checked parameters, ready to run.
pub struct Prepared {
    /// The parameters as JSON, for the report.
    pub parameters: Value,
    work: Work,
}

type Work = Box<dyn FnOnce(&mut Run) -> Result<()> + Send>;

impl Prepared {
    /// Runs the method.
    pub fn run(self, run: &mut Run) -> Result<()> {
        run.set_parameters(self.parameters);
        (self.work)(run)
    }

    fn of<M: Method>(params: M::Params) -> Result<Self> {
        params::check(&params)?;
        let parameters = serde_json::to_value(&params).map_err(|e| Error::input("parameters", e.to_string()))?;
        Ok(Self { parameters, work: Box::new(move |run| M::run(&params, run)) })
    }
}

impl Paper {
    /// The paper implemented by `P`, with the texts of its `card.toml` and `README.md`.
    pub const fn of<P: Method + Study + Bench>(card_text: &'static str, notes: &'static str) -> Self {
        Self {
            card_text,
            card: OnceLock::new(),
            notes,
            command: params::command::<P::Params>,
            schema: params::schema::<P::Params>,
            from_flags: |matches| {
                let params = P::Params::from_arg_matches(matches).map_err(|e| Error::input("flags", e.to_string()))?;
                Prepared::of::<P>(params)
            },
            from_json: |value| Prepared::of::<P>(params::from_json(value)?),
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

    /// The method's flags as a command called `name`.
    pub fn command(&self, name: &'static str) -> clap::Command {
        (self.command)(name)
    }

    /// The JSON schema of the method's parameters.
    pub fn schema(&self) -> Value {
        (self.schema)()
    }

    /// Parameters from parsed flags, checked.
    pub fn prepare_flags(&self, matches: &clap::ArgMatches) -> Result<Prepared> {
        (self.from_flags)(matches)
    }

    /// Parameters from a JSON object, checked; `{}` is the default run.
    pub fn prepare_json(&self, parameters: Value) -> Result<Prepared> {
        (self.from_json)(parameters)
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
