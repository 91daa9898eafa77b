//! One way to sample, under which several D, or several models, are compared.

use super::Perturbed;
use crate::sample::Chain;
use crate::{Denoiser, Grid, Hook, Sampled, Sampler};
use offprint_core::random::Streams;
use offprint_core::{Progress, Result};

/// A sampler on a grid, with errors of size α before every step. The same streams give every D the same Gaussian draws,
/// so that only the radii differ.
pub struct Protocol<'a> {
    /// The sampler; without memory if there are errors.
    pub sampler: &'a dyn Sampler,
    /// Noise levels σ.
    pub grid: &'a Grid,
    /// Number of samples.
    pub count: usize,
    /// Size α of the errors, in units of σ.
    pub alpha: f64,
    /// What is random: streams "prior", "errors" and "sampler".
    pub streams: Streams,
}

impl Protocol<'_> {
    /// Samples of `model`, from its own prior at the first level: σ z √(D/χ²_D). `hook` sees the points after the errors.
    ///
    /// # Errors
    /// Those of [`Perturbed::new`] and of the sampler.
    pub fn sample(&self, model: &dyn Denoiser, hook: &mut dyn Hook, progress: &Progress) -> Result<Sampled> {
        let (n, d) = (self.count, model.dim());
        let start = self.grid.start(n, d, model.kernel(), self.streams.stream("prior"));
        let mut errors = Perturbed::new(self.alpha, self.streams.stream("errors"))?;
        let mut hooks = Chain(&mut errors, hook);
        self.sampler.run_with(model, start, self.grid, self.streams.stream("sampler"), &mut hooks, progress)
    }
}
