//! What a paper is and how it runs.
//!
//! A [`Paper`] of the catalogue has a [`Card`] (facts and claims), notes, a [`Method`] that runs on the user's input and
//! a [`Study`] that measures the claims. Both report through a [`Run`], which is the only thing that touches the outside:
//! random streams, progress, cancellation, and the [`Report`] with its numbers, tables, [`Figure`]s and files. A
//! [`Comparison`] runs several methods on one task.
//!
//! This crate draws nothing, serves nothing and knows no field.

pub mod array;
pub mod artifact;
pub mod bench;
mod card;
mod comparison;
mod error;
pub mod figure;
mod method;
pub mod npy;
mod paper;
pub mod params;
pub mod picture;
mod progress;
pub mod random;
mod report;
mod run;
mod source;
pub mod table;

pub use array::{Array, Complex};
pub use bench::Bench;
pub use card::{Card, Claim, Code, Condition, Verdict};
pub use comparison::Comparison;
pub use error::{Error, Result};
pub use figure::Figure;
pub use method::{AnyMethod, Method, Prepared};
pub use paper::{Paper, Study};
pub use params::{NoParams, Params};
pub use picture::{Picture, Points};
pub use progress::{Cancel, Observer, Progress, Silent};
pub use report::{Machine, Measured, Metric, Report, Scale};
pub use run::Run;
pub use source::{Rows, Source};
pub use table::Table;
