//! AdaDFQ (Qian, Wang, Hong and Wang, CVPR 2023, arXiv:2303.06869): quantises a classifier without any data.
//!
//! A generator makes labelled images on which the float network P and its quantised copy Q neither agree nor disagree too
//! much, and Q is trained to differ from P by a constant only. [`quantise`] runs the loop, for the paper's recipe and for
//! those it is measured against ([`Recipe`]); [`Student`] is the quantised network, which [`save`] writes as codes.

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

/// The paper.
pub struct AdaDfq;
