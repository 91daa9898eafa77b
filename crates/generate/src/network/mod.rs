//! Denoisers that are trained here, and the shared model of the digits.

mod checkpoint;
mod classifier;
mod digits8;
mod layers;
mod model;
mod pairs;
mod train;

pub use checkpoint::Expected;
pub use classifier::LinearClassifier;
pub use digits8::{Digits8, DigitsData};
pub use layers::{NetConfig, TimedMlp};
pub use model::{Conditioned, Labels, Network, Target};
pub use pairs::{Levels, Pairs};
pub use train::{Recipe, fit};
