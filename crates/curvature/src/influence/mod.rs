#![doc = include_str!("README.md")]

mod bench;
mod contraction;
mod demonstration;
mod directions;
mod evaluate;
mod exact;
mod examples;
mod fit;
mod inputs;
mod layout;
mod lissa;
mod pbrf;
mod preconditioner;
mod problems;
mod report;
mod run;
mod scores;
mod study;
mod tail;
mod tfidf;
mod tokens;
mod tracin;
mod tracked;

pub use directions::Directions;
pub use evaluate::{linear_datamodelling_score, share_of_top};
pub use exact::{Exact, gauss_newton_matrix, gauss_newton_roots};
pub use examples::Examples;
pub use fit::{Fit, FittedLayers};
pub use layout::FactorFiles;
pub use lissa::Lissa;
pub use pbrf::ProximalBregman;
pub use preconditioner::{DiagonalFisher, Identity, Preconditioner};
pub use run::{Curvature, Fisher, InfluenceParams, Objective, Task};
pub use scores::{Detail, Scores};
pub use tail::{PowerLaw, power_law_tail};
pub use tfidf::{Counting, TfIdf};
pub use tokens::{input_token_influence, output_token_influence};
pub use tracin::tracin;
pub use tracked::{Track, TrackedLayers};

use crate::Real as Stored;
use crate::network::drawn_targets;
use candle_core::Tensor;
use ndarray::{Array2, s};
use offprint_core::random::Stream;
use offprint_core::{Error, Progress, Result};
use offprint_nn::derivatives::LossFunction;
use offprint_nn::{Batch, computation};

/// Samples whose predictions are held at once while targets are drawn.
const DRAWN_AT_ONCE: usize = 512;

/// The paper, as the catalogue runs it.
#[derive(Debug, Clone, Copy)]
pub struct Influence;

/// Numbers that layers' inputs and gradients come in: `f32` for a model in single precision, `f64` otherwise.
pub trait Element: Stored + offprint_nn::params::Real + faer::traits::ComplexField {}

impl Element for f32 {}
impl Element for f64 {}

/// A model's loss and the layers through which influence is measured.
#[derive(Clone, Copy)]
pub struct Model<'a> {
    /// The loss as a function of the parameters.
    pub loss: &'a LossFunction<'a>,
    /// The layers whose parameters count.
    pub tracked: &'a TrackedLayers,
    /// Samples that go through the model at once.
    pub chunk: usize,
}

impl Model<'_> {
    /// Goes through `examples` chunk by chunk: `each` gets the number of the first sample and the chunk.
    fn for_chunks(
        &self,
        examples: &Examples,
        stage: &str,
        progress: &Progress,
        mut each: impl FnMut(usize, &Examples) -> Result<()>,
    ) -> Result<()> {
        let (n, size) = (examples.len(), self.chunk.max(1));
        if n == 0 {
            return Err(Error::input(stage, "there is no sample"));
        }
        progress.begin(stage, n as u64);
        for start in (0..n).step_by(size) {
            let part = examples.narrow(start, size.min(n - start))?;
            each(start, &part)?;
            progress.advance(part.len() as u64)?;
        }
        progress.finish();
        Ok(())
    }

    /// `examples` with targets drawn from the model's own prediction: gradients at these make the Fisher matrix, those at
    /// the true targets the empirical one.
    ///
    /// # Errors
    /// No example; targets that do not fit the loss.
    pub fn drawn(&self, examples: &Examples, stream: Stream) -> Result<Examples> {
        let mut parts = Vec::new();
        // The predictions of a group are held at once; groups do not follow the chunk, so that it does not matter.
        for (group, start) in (0..examples.len()).step_by(DRAWN_AT_ONCE).enumerate() {
            let part = examples.range(start..start + DRAWN_AT_ONCE)?;
            let own = stream.nested(group as u64).stream("targets");
            parts.push(drawn_targets(self.loss, &part.batch, self.chunk.max(1), own)?.targets);
        }
        let targets = Tensor::cat(&parts, 0).map_err(computation)?;
        let batch = Batch { inputs: examples.batch.inputs.clone(), targets };
        Ok(Examples { batch, lengths: examples.lengths.clone() })
    }

    /// The gradient of each example's loss by the tracked parameters `(n, dim)`. For queries: training gradients are
    /// never kept.
    ///
    /// # Errors
    /// No example; shapes that do not fit the model; a gradient that is not finite.
    pub fn gradients(&self, examples: &Examples, progress: &Progress) -> Result<Array2<f64>> {
        let mut all = Array2::zeros((examples.len(), self.tracked.dim()));
        self.for_chunks(examples, "gradients of queries", progress, |start, part| {
            let gradients = match self.is_double() {
                true => self.tracked.gradients::<f64>(self.loss, part)?,
                false => self.tracked.gradients::<f32>(self.loss, part)?,
            };
            if let Some(row) = gradients.outer_iter().position(|row| row.iter().any(|g| !g.is_finite())) {
                let problem = format!("the gradient of query {} (counted from 0) is not finite", start + row);
                return Err(Error::Numerical(problem));
            }
            all.slice_mut(s![start..start + part.len(), ..]).assign(&gradients);
            Ok(())
        })?;
        Ok(all)
    }

    /// Whether inputs and gradients are kept in double precision.
    fn is_double(&self) -> bool {
        self.loss.params().dtype() == candle_core::DType::F64
    }
}
