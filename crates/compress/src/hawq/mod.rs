#![doc = include_str!("README.md")]

mod activations;
mod bench;
mod blocks;
mod choice;
mod curvature;
mod entrant;
mod finetune;
mod layered;
mod problem;
mod report;
pub mod resnet18;
mod run;
mod study;

pub use activations::Activations;
pub use blocks::{Block, partition};
pub use choice::Choice;
pub use curvature::{Finder, Measuring, Sensitivity, sensitivities};
pub use entrant::MixedPrecision;
pub use finetune::{Assigned, FineTuned, FineTuning, Optimiser, Order, Stage, fine_tune, post_training};
pub use layered::{LayerCurvature, is_gauss_newton, layer_curvatures};
pub use problem::{Problem, Score, rank, tensor_wide};
pub use run::HawqParams;

/// The paper.
#[derive(Debug)]
pub struct Hawq;
