//! HAWQ: bits for each block of a network, and the order in which blocks are quantised, from the top eigenvalue of the
//! loss's Hessian restricted to the block (Dong et al. 2019, arXiv:1905.03696).
//!
//! [`partition`] cuts a network into [`Block`]s. [`sensitivities`] measures each block's largest eigenvalue λ and trace.
//! [`Problem`] holds what every choice of bits costs and how large it is; [`Problem::choose`] gives bits: monotone in the
//! ranking S = λ/n, or by one of the baselines. [`post_training`] rounds the weights, [`fine_tune`] does so block by block
//! in the order of Ω = λ‖Q(W) − W‖² and trains in between.

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
pub use finetune::{FineTuned, FineTuning, Optimiser, Order, Stage, fine_tune, post_training};
pub use layered::{LayerCurvature, is_gauss_newton, layer_curvatures};
pub use problem::{Problem, Score, rank, tensor_wide};
pub use run::HawqParams;

/// The paper.
#[derive(Debug)]
pub struct Hawq;
