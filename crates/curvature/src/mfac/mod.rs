#![doc = include_str!("README.md")]

mod bench;
mod blocks;
mod digits;
mod factor;
mod factored;
mod fixed;
mod gradients;
mod optimizer;
mod prune;
mod run;
mod study;
mod weights;
mod window;
mod woodfisher;

pub use blocks::MfacBlocks;
pub use factored::MfacFactored;
pub use fixed::MfacStatic;
pub use gradients::{Gradients, GradientsView};
pub(crate) use gradients::{check_finite, check_rows};
pub use optimizer::{MfacOptimizer, Settings};
pub use prune::{Compensation, Criterion, Pruner, diagonal_fisher, saliencies, smallest};
pub use run::{By, MfacParams, Task};
pub use weights::Weights;
pub use window::MfacDynamic;
pub use woodfisher::WoodFisher;

/// The paper, as the catalogue runs it.
#[derive(Debug, Clone, Copy)]
pub struct Mfac;
