//! A method that runs on the user's input, with and without its type.

use crate::params::{self, Params};
use crate::{Error, Result, Run};
use clap::FromArgMatches;
use serde_json::Value;

/// A method that runs on the user's input.
pub trait Method {
    /// Its parameters.
    type Params: Params;

    /// Runs it once: reads the input that the parameters name, computes, reports through `run`.
    fn run(params: &Self::Params, run: &mut Run) -> Result<()>;
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

/// A method without its type: what the command line and the page need of it.
pub struct AnyMethod {
    command: fn(&'static str) -> clap::Command,
    schema: fn() -> Value,
    from_flags: fn(&clap::ArgMatches) -> Result<Prepared>,
    from_json: fn(Value) -> Result<Prepared>,
}

impl AnyMethod {
    /// The method `M`.
    pub const fn of<M: Method>() -> Self {
        Self {
            command: params::command::<M::Params>,
            schema: params::schema::<M::Params>,
            from_flags: |matches| {
                let params = M::Params::from_arg_matches(matches).map_err(|e| Error::input("flags", e.to_string()))?;
                Prepared::of::<M>(params)
            },
            from_json: |value| Prepared::of::<M>(params::from_json(value)?),
        }
    }

    /// Its flags as a command called `name`.
    pub fn command(&self, name: &'static str) -> clap::Command {
        (self.command)(name)
    }

    /// The JSON schema of its parameters.
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
}
