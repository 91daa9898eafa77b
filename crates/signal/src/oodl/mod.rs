#![doc = include_str!("README.md")]

mod baselines;
mod bench;
mod checkpoint;
mod coding;
mod frank_wolfe;
pub mod objective;
mod pipeline;
mod preprocessing;
mod recovery;
mod run;
mod samples;
mod study;
mod synthetic;

pub use baselines::{Ksvd, L1Subgradient, Msp, OnlineLasso, RiemannianSgd};
pub use checkpoint::{Checkpoint, Position};
pub use coding::{Transform, dct, dct_images, is_sparse, kurtosis, principal_axes};
pub use frank_wolfe::{Completion, FrankWolfe, Schedule, State};
pub use pipeline::{Pipeline, Settings};
pub use preprocessing::{Preprocessing, Whitening, constant_columns};
pub use recovery::{aligned, random_orthogonal, recovery_error};
pub use run::{Algorithm, Example, OodlParams};
pub use samples::Samples;
pub use synthetic::BernoulliGaussian;

use ndarray::{Array2, ArrayView2};
use offprint_core::Result;

/// The paper: *Online Orthogonal Dictionary Learning Based on Frank-Wolfe Method*.
pub struct Oodl;

/// Something that learns a dictionary from samples that come in batches.
pub trait Learner: Send {
    /// Takes a batch (B, N). Online methods learn from it and forget it; offline ones keep it.
    ///
    /// # Errors
    /// Rows of another length than N, values that are not finite.
    fn learn(&mut self, samples: ArrayView2<'_, f64>) -> Result<()>;

    /// The dictionary (N, N) as learned so far, columns unit atoms. Offline methods do their work here.
    fn dictionary(&mut self) -> Result<Array2<f64>>;

    /// How many numbers are carried from one batch to the next.
    fn carried(&self) -> usize;

    /// The Frank–Wolfe gap of the last step, for methods that have one.
    fn gap(&self) -> Option<f64> {
        None
    }

    /// The state that a checkpoint keeps, for methods that can go on from one.
    fn state(&self) -> Option<&State> {
        None
    }
}
