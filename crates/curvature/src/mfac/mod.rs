//! M-FAC: products with the inverse of a damped empirical Fisher matrix that is never written out.

mod blocks;
mod factor;
mod factored;
mod fixed;
mod gradients;
mod optimizer;
mod prune;
mod weights;
mod window;
mod woodfisher;

pub use blocks::MfacBlocks;
pub use factored::MfacFactored;
pub use fixed::MfacStatic;
pub(crate) use gradients::check_rows;
pub use gradients::{Gradients, GradientsView};
pub use optimizer::{MfacOptimizer, Settings};
pub use prune::{Compensation, Criterion, Pruner, diagonal_fisher, saliencies, smallest};
pub use weights::Weights;
pub use window::MfacDynamic;
pub use woodfisher::WoodFisher;
