//! Denoisers that are trained here, and the shared model of the digits.

mod checkpoint;
mod classifier;
mod clock;
mod digits8;
mod layers;
mod model;
mod net;
#[cfg(feature = "onnx")]
mod onnx;
mod open;
mod pairs;
mod reading;
mod train;
mod unet;

pub use checkpoint::Expected;
pub use classifier::LinearClassifier;
pub use clock::Clock;
pub use digits8::{Digits8, DigitsData};
pub use layers::{NetConfig, TimedMlp};
pub use model::{Conditioned, Labels, Network, Target};
pub use net::Shape;
pub use open::{is_model, open};
pub use pairs::{Levels, Pairs};
pub use reading::Reading;
pub use train::{Recipe, fit};
pub use unet::{PictureConfig, PictureNet};
