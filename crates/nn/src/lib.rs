//! Neural networks on a CPU over `candle`: fused operations with exact gradients, models as plain files, a training
//! loop, derivatives and checkpoints.

pub mod batch;
pub mod bench;
pub mod checkpoint;
pub mod data;
pub mod derivatives;
mod error;
pub mod layers;
pub mod models;
mod network;
pub mod ops;
pub mod optim;
pub mod params;
pub mod train;
pub mod zoo;

pub use batch::Batch;
pub use checkpoint::Checkpoint;
pub use error::computation;
pub use layers::LayerPlace;
pub use network::{Architecture, Network, Reads};
pub use params::{Params, Weights};
