//! Denoisers in closed form: every sampler is tested on them, and they need no training.

mod diagonal;
mod empirical;
mod mixture;
mod mixture_file;

pub use empirical::ExactEmpirical;
pub use mixture::{Covariances, ExactMixture, Mixture};
