#![doc = include_str!("README.md")]

mod bench;
mod distil;
mod layer;
mod network;
mod programme;
mod ranges;
mod run;
mod study;
mod tuning;

pub use distil::{Distillation, distil};
pub use layer::{Bits, Calibrated, FloatLayer, Pairs, Rates, Settings, calibrate_layer, correct_bias, search_layer};
pub use network::{Flow, How, Inputs, Quantised, quantise_layer};
pub use programme::Table;
pub use ranges::Ranges;
pub use run::{AdaQuant, AdaQuantParams, Way};
pub use tuning::{BiasTuning, Drift, divergence, drift, tune_biases, tune_norms};
