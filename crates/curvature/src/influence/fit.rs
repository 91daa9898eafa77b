//! Fitting K-FAC and EK-FAC: covariances in a first pass over the data, eigenvalues in a second.

use super::{Element, Examples, FactorFiles, Model};
use crate::{KroneckerFactors, KroneckerLayer};
use offprint_core::random::Stream;
use offprint_core::{Progress, Result};

/// How factors are fitted.
#[derive(Debug, Clone, Copy)]
pub struct Fit {
    /// Where targets are drawn from the model's prediction, which makes the Fisher matrix; none takes the true targets
    /// (the empirical Fisher matrix).
    pub sampled: Option<Stream>,
    /// Diagonal blocks that each of A and S is cut into.
    pub blocks: usize,
    /// Refit the eigenvalues (EK-FAC) rather than taking the products (K-FAC).
    pub refit: bool,
    /// Layers whose factors are held in memory at once; each group of them takes two passes over the data.
    pub layers_at_once: usize,
}

/// The tracked layers in their eigenbases, in order.
pub type FittedLayers = Vec<KroneckerLayer>;

impl Fit {
    /// EK-FAC of the Fisher matrix, all layers at once.
    pub fn new(stream: Stream) -> Self {
        Self { sampled: Some(stream), blocks: 1, refit: true, layers_at_once: usize::MAX }
    }

    /// Fits all tracked layers of `model` on `examples`. With `files`, what is found there is not computed again, and what
    /// is computed is written there group by group, so that a fit that was stopped goes on.
    ///
    /// # Errors
    /// No example; a layer that the examples do not reach; files of another model; values that are not finite; a stop.
    pub fn layers(
        &self,
        model: &Model<'_>,
        examples: &Examples,
        files: Option<&FactorFiles>,
        progress: &Progress,
    ) -> Result<FittedLayers> {
        if model.is_double() {
            self.layers_in::<f64>(model, examples, files, progress)
        } else {
            self.layers_in::<f32>(model, examples, files, progress)
        }
    }

    fn layers_in<T: Element>(
        &self,
        model: &Model<'_>,
        examples: &Examples,
        files: Option<&FactorFiles>,
        progress: &Progress,
    ) -> Result<FittedLayers> {
        let places = model.tracked.layers();
        let mut layers: Vec<Option<KroneckerLayer>> = match files {
            Some(files) => files.read_layers(places, self.refit)?,
            None => places.iter().map(|_| None).collect(),
        };
        let missing: Vec<usize> = (0..places.len()).filter(|&l| layers[l].is_none()).collect();
        for group in missing.chunks(self.layers_at_once.clamp(1, missing.len().max(1))) {
            let mut fitted = self.bases::<T>(model, examples, group, files, progress)?;
            if self.refit {
                self.refit::<T>(model, examples, group, &mut fitted, progress)?;
            }
            if let Some(files) = files {
                files.write_layers(&fitted)?;
            }
            group.iter().zip(fitted).for_each(|(&l, layer)| layers[l] = Some(layer));
        }
        Ok(layers.into_iter().flatten().collect())
    }

    /// `examples` with the targets of one of the two passes.
    fn targets(&self, model: &Model<'_>, examples: &Examples, pass: u64) -> Result<Examples> {
        match self.sampled {
            Some(stream) => model.drawn(examples, stream.nested(pass).stream("pass")),
            None => Ok(examples.clone()),
        }
    }

    /// The first pass: A and S of the layers with the numbers in `group`, and their eigenbases.
    fn bases<T: Element>(
        &self,
        model: &Model<'_>,
        examples: &Examples,
        group: &[usize],
        files: Option<&FactorFiles>,
        progress: &Progress,
    ) -> Result<FittedLayers> {
        let places = model.tracked.layers();
        let mut factors = group
            .iter()
            .map(|&l| KroneckerFactors::in_blocks(places[l].clone(), self.blocks))
            .collect::<Result<Vec<_>>>()?;
        let examples = self.targets(model, examples, 0)?;
        model.for_chunks(&examples, "covariances", progress, |_, part| {
            let rows = model.tracked.rows::<T>(model.loss, part)?;
            for (&l, factors) in group.iter().zip(&mut factors) {
                let mask = part.mask(rows[l].inputs.dim().1);
                factors.add(rows[l].inputs.view(), rows[l].gradients.view(), mask.as_ref().map(|m| m.view()))?;
            }
            Ok(())
        })?;
        if let Some(files) = files {
            files.write_covariances(&factors)?;
        }
        progress.begin("eigenvectors", group.len() as u64);
        let bases = factors.iter().map(|factors| {
            progress.advance(1)?;
            factors.decompose()
        });
        let bases = bases.collect::<Result<_>>()?;
        progress.finish();
        Ok(bases)
    }

    /// The second pass: squares of each sample's gradient in the eigenbasis.
    fn refit<T: Element>(
        &self,
        model: &Model<'_>,
        examples: &Examples,
        group: &[usize],
        layers: &mut FittedLayers,
        progress: &Progress,
    ) -> Result<()> {
        let examples = self.targets(model, examples, 1)?;
        model.for_chunks(&examples, "eigenvalues", progress, |_, part| {
            let rows = model.tracked.rows::<T>(model.loss, part)?;
            group
                .iter()
                .zip(layers.iter_mut())
                .try_for_each(|(&l, layer)| layer.add(rows[l].inputs.view(), rows[l].gradients.view()))
        })?;
        *layers = std::mem::take(layers).into_iter().map(KroneckerLayer::refitted).collect::<Result<_>>()?;
        Ok(())
    }
}
