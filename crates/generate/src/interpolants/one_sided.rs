//! One-sided bridges and the field's diffusions are the same thing, seen from two ends of time.

use super::{Fields, Interpolant};
use crate::network::Network;
use crate::{Denoiser, Denoising, Model, Path, Prediction};
use ndarray::{Array1, Array2, ArrayView2};
use offprint_core::{Picture, Result};

/// Any denoiser of the field as the fields of a one-sided bridge. With t' = 1 − t the diffusion's time, y = x/α and
/// D = E\[x₁ | x\]: b = −(α' D + σ' (x − α D)/σ) and s = (α D − x)/σ².
pub struct Denoised<D> {
    denoiser: D,
    path: Interpolant,
}

impl<D: Denoiser> Denoised<D> {
    /// `denoiser` along the one-sided bridge `path`.
    ///
    /// # Errors
    /// A bridge between two data sets, noise that is not Gaussian.
    pub fn new(denoiser: D, path: Interpolant) -> Result<Self> {
        path.schedule()?;
        crate::denoiser::needs_gaussian("a bridge", denoiser.kernel())?;
        Ok(Self { denoiser, path })
    }

    /// D (n, d), and (α, σ, α', σ') of the diffusion.
    fn denoised(&self, x: ArrayView2<'_, f64>, t: f64) -> Result<(Array2<f64>, crate::Point)> {
        let schedule = self.path.schedule()?;
        let time = 1.0 - t;
        let at = schedule.at(time)?;
        let y = &x / at.alpha;
        Ok((self.denoiser.denoise(y.view(), schedule.tau(time)?)?, at))
    }
}

impl<D: Denoiser> Fields for Denoised<D> {
    fn dim(&self) -> usize {
        self.denoiser.dim()
    }

    fn path(&self) -> &Interpolant {
        &self.path
    }

    fn both(&self, x: ArrayView2<'_, f64>, t: f64) -> Result<(Array2<f64>, Array2<f64>)> {
        let (mut velocity, at) = self.denoised(x, t)?;
        let mut score = velocity.clone();
        Prediction::Score.of_denoised(at, x, score.view_mut());
        Prediction::Velocity.of_denoised(at, x, velocity.view_mut());
        Ok((-velocity, score))
    }

    fn divergences(&self, x: ArrayView2<'_, f64>, t: f64) -> Result<Option<(Array1<f64>, Array1<f64>)>> {
        let schedule = self.path.schedule()?;
        let time = 1.0 - t;
        let at = schedule.at(time)?;
        let y = &x / at.alpha;
        let d = self.dim() as f64;
        // ∂D/∂x = ∂D/∂y / α; both fields are linear in D and x.
        Ok(self.denoiser.divergence(y.view(), schedule.tau(time)?)?.map(|trace| {
            let ratio = at.sigma_rate / at.sigma;
            let score = trace.mapv(|trace| (trace - d) / (at.sigma * at.sigma));
            let velocity = trace.mapv(|trace| -((at.alpha_rate / at.alpha - ratio) * trace + ratio * d));
            (velocity, score)
        }))
    }
}

/// A network of the field, trained on any path to noise, as the fields of a one-sided bridge: which may be another path.
#[derive(Debug, Clone)]
pub struct NetworkFields {
    network: Network,
    path: Interpolant,
}

impl NetworkFields {
    /// `network` without a class along `path`.
    ///
    /// # Errors
    /// A bridge between two data sets, a network of noise that is not Gaussian.
    pub fn new(network: Network, path: Interpolant) -> Result<Self> {
        Denoised::new(network.unconditional(), path.clone())?;
        Ok(Self { network, path })
    }
}

impl NetworkFields {
    /// How a point is a picture, if the network knows.
    pub fn picture(&self) -> Option<Picture> {
        self.network.picture()
    }
}

impl Fields for NetworkFields {
    fn dim(&self) -> usize {
        self.network.dim()
    }

    fn path(&self) -> &Interpolant {
        &self.path
    }

    fn both(&self, x: ArrayView2<'_, f64>, t: f64) -> Result<(Array2<f64>, Array2<f64>)> {
        Denoised::new(self.network.unconditional(), self.path.clone())?.both(x, t)
    }
}

/// The velocity of a one-sided bridge as a model of the field, so that every sampler of diffusions runs on it.
#[derive(Clone)]
pub struct AsDiffusion<'a> {
    fields: &'a dyn Fields,
    path: Path,
}

impl<'a> AsDiffusion<'a> {
    /// Wraps `fields` as a denoiser.
    ///
    /// # Errors
    /// A bridge between two data sets: samplers of diffusions begin at noise.
    pub fn denoiser(fields: &'a dyn Fields) -> Result<Denoising<Self>> {
        let path = Path::Gaussian(fields.path().schedule()?);
        Denoising::new(Self { fields, path })
    }
}

impl Model for AsDiffusion<'_> {
    fn dim(&self) -> usize {
        self.fields.dim()
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn kind(&self) -> Prediction {
        Prediction::Velocity
    }

    fn predict(&self, x: ArrayView2<'_, f64>, t: f64) -> Result<Array2<f64>> {
        // The diffusion's time runs from the data to the noise.
        Ok(-self.fields.velocity(x, 1.0 - t)?)
    }
}
