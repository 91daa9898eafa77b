//! Neural networks on a CPU over `candle`: fused operations with exact gradients, models as plain files, a training
//! loop, derivatives and checkpoints.

pub mod ops;
pub mod optim;
