#![doc = include_str!("README.md")]

mod bench;
mod digits;
mod distilled;
mod figures;
mod files;
mod generator;
mod losses;
mod normalisation;
mod parallel;
mod params;
mod recipe;
mod run;
mod samples;
mod settings;
mod student;
mod study;
mod subject;
mod teacher;
mod train;

pub use digits::StandardisedDigits;
pub use files::{arrays, load};
pub use generator::{Conditioning, Generator, ImageShape};
pub use losses::{GeneratorLoss, adaptability, disagreement, distillation, entropy};
pub use normalisation::Normalisation;
pub use params::AdaDfqParams;
pub use recipe::Recipe;
pub use samples::Samples;
pub use settings::Settings;
pub use student::{Bits, Student};
pub use teacher::Teacher;
pub use train::{Outcome, Problem, Record, quantise};

/// The paper, as the catalogue runs it.
#[derive(Debug, Clone, Copy)]
pub struct AdaDfq;
