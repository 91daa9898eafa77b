//! Errors that name the field, what was given and what is allowed.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

/// The result of everything in Offprint that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, told to the person who can mend it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A parameter lies outside what its method allows.
    #[error("{field}: got {given}, but it must be {allowed}")]
    Parameter {
        /// The parameter's name, as in the flag without its dashes.
        field: String,
        /// The value given.
        given: String,
        /// What is allowed, completing "it must be …".
        allowed: String,
    },
    /// The content of an input does not fit.
    #[error("{input}: {problem}")]
    Input {
        /// The file's path, or the argument's name for arrays in memory.
        input: String,
        /// What is wrong, where, and what was expected.
        problem: String,
    },
    /// The system refused a file operation.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried, completing "cannot …".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A computation left the numbers it can work with.
    #[error("{0}")]
    Numerical(String),
    /// The card, study or report of a paper contradicts itself: a defect of the paper's folder, not of the input.
    #[error("{paper}: {problem}")]
    Paper {
        /// The paper's slug.
        paper: String,
        /// The contradiction.
        problem: String,
    },
    /// The user asked to stop; what was done so far is kept.
    #[error("stopped before the end; what was finished is kept")]
    Cancelled,
}

impl Error {
    /// A parameter `field` has the value `given` but must be `allowed`.
    pub fn parameter(field: impl Into<String>, given: impl Display, allowed: impl Into<String>) -> Self {
        Self::Parameter { field: field.into(), given: given.to_string(), allowed: allowed.into() }
    }

    /// The content of `input` (a path, or an argument's name) has a `problem`.
    pub fn input(input: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Input { input: input.into(), problem: problem.into() }
    }

    /// The system refused to `action` (a verb: "read", "create") the file at `path`.
    pub fn file(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::File { action, path: path.to_owned(), source }
    }

    /// The exit code of a program that ends with this error: 2 for a parameter, 3 for the content of an input,
    /// 4 for a file, 130 for a stop by the user, 1 for the rest.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Parameter { .. } => 2,
            Self::Input { .. } => 3,
            Self::File { .. } => 4,
            Self::Cancelled => 130,
            Self::Numerical(_) | Self::Paper { .. } => 1,
        }
    }
}
