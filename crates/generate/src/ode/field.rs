//! Velocity fields.

use crate::Model;
use crate::{Denoiser, Path, Predicting, Prediction};
use ndarray::{Array1, Array2, ArrayView2};
use offprint_core::Result;

/// dx/dt = u(x, t) for rows of independent points.
pub trait Field: Sync {
    /// Components d of a point.
    fn dim(&self) -> usize;

    /// The velocity (n, d) at the points `x` (n, d).
    fn velocity(&self, x: ArrayView2<'_, f64>, t: f64) -> Result<Array2<f64>>;

    /// The product (n, d) of the Jacobian ∂u/∂x at each row of `x` with the same row of `v`. By central differences,
    /// unless the field knows better.
    fn jacobian_product(&self, x: ArrayView2<'_, f64>, t: f64, v: ArrayView2<'_, f64>) -> Result<Array2<f64>> {
        let step = 6e-6;
        let mut slope = self.velocity((&x + &(&v * step)).view(), t)?;
        slope -= &self.velocity((&x - &(&v * step)).view(), t)?;
        Ok(slope / (2.0 * step))
    }

    /// Σ_j ∂u_j/∂x_j at each row (n), where there is a closed form.
    fn divergence(&self, _x: ArrayView2<'_, f64>, _t: f64) -> Result<Option<Array1<f64>>> {
        Ok(None)
    }
}

/// The probability flow in y over s = ln τ: dy/ds = y − D(y, e^s). It is smooth down to the data, and the flow of every
/// kernel.
#[derive(Debug, Clone)]
pub struct LevelFlow<D>(
    /// The denoiser.
    pub D,
);

impl<D: Denoiser> Field for LevelFlow<D> {
    fn dim(&self) -> usize {
        self.0.dim()
    }

    fn velocity(&self, y: ArrayView2<'_, f64>, s: f64) -> Result<Array2<f64>> {
        Ok(&y - &self.0.denoise(y, s.exp())?)
    }

    fn jacobian_product(&self, y: ArrayView2<'_, f64>, s: f64, v: ArrayView2<'_, f64>) -> Result<Array2<f64>> {
        Ok(&v - &self.0.jacobian_product(y, s.exp(), v)?)
    }

    fn divergence(&self, y: ArrayView2<'_, f64>, s: f64) -> Result<Option<Array1<f64>>> {
        Ok(self.0.divergence(y, s.exp())?.map(|divergence| self.dim() as f64 - divergence))
    }
}

/// The probability flow in the path's own coordinates: dx/dt = α' D + σ' ε.
#[derive(Debug, Clone)]
pub struct PathFlow<D> {
    model: Predicting<D>,
}

impl<D: Denoiser> PathFlow<D> {
    /// Of `denoiser` along `path`.
    ///
    /// # Errors
    /// If the noise of the path is of another law than the denoiser's.
    pub fn new(denoiser: D, path: Path) -> Result<Self> {
        Ok(Self { model: Predicting::new(denoiser, path, Prediction::Velocity)? })
    }
}

impl<D: Denoiser> Field for PathFlow<D> {
    fn dim(&self) -> usize {
        self.model.dim()
    }

    fn velocity(&self, x: ArrayView2<'_, f64>, t: f64) -> Result<Array2<f64>> {
        self.model.predict(x, t)
    }
}
