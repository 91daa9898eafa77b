//! A pretrained model as a factor of a product.

use crate::denoiser::needs_gaussian;
use crate::exact::ExactMixture;
use crate::{Denoiser, check};
use ndarray::{Array1, Array2, ArrayView2};
use offprint_core::{Error, Result};

/// A denoiser whose density is known too.
pub trait Density: Denoiser {
    /// log q_τ (n) at `y` (n, d), τ > 0.
    fn log_density(&self, y: ArrayView2<'_, f64>, tau: f64) -> Result<Array1<f64>>;

    /// The mean of the data (d).
    fn mean(&self) -> Array1<f64>;

    /// The largest standard deviation of a coordinate of the data.
    fn spread(&self) -> f64;
}

impl Density for ExactMixture {
    fn log_density(&self, y: ArrayView2<'_, f64>, tau: f64) -> Result<Array1<f64>> {
        ExactMixture::log_density(self, y, tau)
    }

    fn mean(&self) -> Array1<f64> {
        self.mixture().moments().0
    }

    fn spread(&self) -> f64 {
        self.mixture().moments().1.diag().iter().copied().fold(0.0, f64::max).sqrt()
    }
}

/// A factor q^β of a product: its model, its exponent, and its density where that is known.
#[derive(Clone)]
pub struct Expert<'a> {
    exponent: f64,
    model: &'a dyn Denoiser,
    density: Option<&'a dyn Density>,
    mean: Array1<f64>,
}

impl<'a> Expert<'a> {
    /// A model of which the score is all that is known; its data are taken to be centred at the origin.
    ///
    /// # Errors
    /// Noise that is not Gaussian, an exponent that is not finite.
    pub fn new(model: &'a dyn Denoiser, exponent: f64) -> Result<Self> {
        needs_gaussian("a product of experts", model.kernel())?;
        if !exponent.is_finite() {
            return Err(Error::parameter("exponent", exponent, "a finite number"));
        }
        Ok(Self { exponent, model, density: None, mean: Array1::zeros(model.dim()) })
    }

    /// A model with a density, by which the start is weighted.
    pub fn known(model: &'a dyn Density, exponent: f64) -> Result<Self> {
        let mean = model.mean();
        Ok(Self { density: Some(model), mean, ..Self::new(model, exponent)? })
    }

    /// The same with data centred at `mean` (d).
    pub fn centred_at(mut self, mean: Array1<f64>) -> Result<Self> {
        if mean.len() != self.model.dim() || mean.iter().any(|m| !m.is_finite()) {
            let problem = format!("{mean} does not fit a model of dimension {}", self.model.dim());
            return Err(Error::input("mean", problem));
        }
        self.mean = mean;
        Ok(self)
    }

    /// The same model with another exponent.
    pub(super) fn raised_to(self, exponent: f64) -> Self {
        Self { exponent, ..self }
    }

    /// β.
    pub fn exponent(&self) -> f64 {
        self.exponent
    }

    /// The mean of the data, as far as it is known (d).
    pub fn mean(&self) -> &Array1<f64> {
        &self.mean
    }

    /// Components d of a point.
    pub fn dim(&self) -> usize {
        self.model.dim()
    }

    /// ∇ log q_τ (n, d).
    pub(super) fn score(&self, y: ArrayView2<'_, f64>, tau: f64) -> Result<Array2<f64>> {
        check::dimension("particles", y, "the model", self.dim())?;
        self.model.score(y, tau)
    }

    /// log q_τ (n), if it is known.
    pub(super) fn log_density(&self, y: ArrayView2<'_, f64>, tau: f64) -> Result<Option<Array1<f64>>> {
        self.density.map(|density| density.log_density(y, tau)).transpose()
    }
}
