#![doc = include_str!("README.md")]

mod bench;
mod decoder;
pub mod engine;
mod layer;
mod run;
mod saliency;
mod starts;
mod student;
mod study;
mod train;

pub use decoder::{Decoder, Session};
pub use layer::{CompressedLayer, Form, Stored};
pub use run::{Compared, GqsaParams};
pub use saliency::{Saliency, group_mask, keep_groups};
pub use starts::{block_layers, by_method, dense, group_pruned};
pub use student::Start;
pub use train::{Pruning, Recipe, Stage, Training, assembled, block_of, perplexity};

/// The paper, as the catalogue runs it.
#[derive(Debug, Clone, Copy)]
pub struct Gqsa;
