//! GQSA.
pub mod engine;
mod layer;
mod saliency;
mod starts;
mod student;
mod train;

pub use layer::{CompressedLayer, Form, Stored};
pub use saliency::{Saliency, group_mask, keep_groups};
pub use starts::{block_layers, by_method, dense, group_pruned};
pub use student::Start;
pub use train::{Pruning, Recipe, Stage, assembled, block_of, perplexity, train};
