//! LiSSA: a series of mini-batch products for every query by itself.

use super::{Examples, Preconditioner, TrackedLayers};
use ndarray::{Array2, ArrayView2};
use offprint_core::random::Stream;
use offprint_core::{Error, Progress, Result};
use offprint_nn::derivatives::{LossFunction, keeping_graph};
use rand::seq::index::sample;

/// (G + λ)⁻¹ by the recurrence r ← v + (I − α(G̃ + λ)) r with a Gauss–Newton matrix G̃ of a fresh mini-batch in every step,
/// from r = v; the answer is α r. Each step costs about four passes over the batch, each query has a series of its own.
pub struct Lissa<'a> {
    /// The loss behind G.
    pub loss: &'a LossFunction<'a>,
    /// The layers whose parameters count.
    pub tracked: &'a TrackedLayers,
    /// Where batches come from.
    pub train: &'a Examples,
    /// Damping of every tracked coordinate.
    pub damping: Vec<f64>,
    /// α; it must keep α(G̃ + λ) below 1. [`Lissa::scale`] finds one.
    pub scale: f64,
    /// Steps J.
    pub steps: usize,
    /// Samples in a batch.
    pub batch: usize,
    /// Which samples a step sees.
    pub stream: Stream,
}

impl Lissa<'_> {
    /// An α for batches of `batch`: 0.8 over the largest eigenvalue of G + λ that power iteration finds on some batches.
    ///
    /// # Errors
    /// Products that fail.
    pub fn scale(
        loss: &LossFunction<'_>,
        tracked: &TrackedLayers,
        train: &Examples,
        damping: &[f64],
        batch: usize,
        stream: Stream,
    ) -> Result<f64> {
        let mut largest = 0.0f64;
        let trial = Lissa { loss, tracked, train, damping: damping.to_vec(), scale: 1.0, steps: 0, batch, stream };
        for probe in 0..BATCHES_PROBED {
            let chosen = trial.batch_of(0, probe)?;
            let mut x: Vec<f64> = crate::vector::gaussian(stream, u64::MAX - probe as u64, tracked.dim());
            let mut image = vec![0.0; x.len()];
            for _ in 0..POWER_STEPS {
                let length = crate::vector::norm(&x).max(f64::MIN_POSITIVE);
                crate::vector::scale(&mut x, 1.0 / length);
                trial.product(&chosen, &x, &mut image)?;
                largest = largest.max(crate::vector::norm(&image));
                std::mem::swap(&mut x, &mut image);
            }
        }
        Ok(0.8 / largest.max(f64::MIN_POSITIVE))
    }

    /// The samples of step number `step` of query number `query`.
    fn batch_of(&self, query: usize, step: usize) -> Result<Examples> {
        let (n, size) = (self.train.len(), self.batch.clamp(1, self.train.len().max(1)));
        let mut rng = self.stream.nested(query as u64).stream("batches").rng(step as u64);
        self.train.select(&sample(&mut rng, n, size).into_vec())
    }

    /// (G̃ + λ) x.
    fn product(&self, batch: &Examples, x: &[f64], y: &mut [f64]) -> Result<()> {
        let whole = self.loss.gauss_newton_product::<f64>(&batch.batch, &self.tracked.embed(x))?;
        y.copy_from_slice(&self.tracked.restrict(&whole));
        y.iter_mut().zip(x).zip(&self.damping).for_each(|((y, x), damp)| *y += damp * x);
        Ok(())
    }
}

/// Batches on which the largest eigenvalue is looked for, and products spent on each.
const BATCHES_PROBED: usize = 6;
const POWER_STEPS: usize = 8;

impl Preconditioner for Lissa<'_> {
    fn dim(&self) -> usize {
        self.tracked.dim()
    }

    fn precondition(&self, gradients: ArrayView2<'_, f64>, progress: &Progress) -> Result<Array2<f64>> {
        super::preconditioner::check_width(&gradients, self.tracked.dim())?;
        if self.damping.len() != self.tracked.dim() {
            return Err(Error::parameter("damping", self.damping.len(), "one number for every tracked coordinate"));
        }
        let mut all = Array2::zeros(gradients.raw_dim());
        progress.begin("LiSSA", (gradients.nrows() * self.steps) as u64);
        // One visit to the threads that keep graphs, rather than one for every product.
        keeping_graph(|| {
            all.outer_iter_mut().zip(gradients.outer_iter()).enumerate().try_for_each(|(query, (mut row, gradient))| {
                let sampled = |step: usize, x: &[f64], y: &mut [f64]| {
                    progress.advance(1)?;
                    self.product(&self.batch_of(query, step)?, x, y)
                };
                // The damping differs from layer to layer, so it is part of the sampled product.
                let solution = crate::lissa(sampled, &gradient.to_vec(), 0.0, self.scale, self.steps, progress)?;
                row.assign(&ndarray::aview1(&solution));
                Ok::<(), Error>(())
            })
        })?;
        progress.finish();
        Ok(all)
    }
}
