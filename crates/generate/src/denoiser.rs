//! One model, every sampler: the trait that samplers work on, and the door for models on any path.

use crate::{Kernel, Path, Prediction, check};
use ndarray::{Array1, Array2, ArrayView2};
use offprint_core::{Error, Result};

/// D(y, τ) = E\[x₀ | y\] where y = x₀ + τ · noise: what every sampler of the field asks.
///
/// Rows are independent points, all at the same τ. A condition (a class) is bound in the denoiser, not passed along.
pub trait Denoiser: Sync {
    /// Components d of a point.
    fn dim(&self) -> usize;

    /// The clean data (n, d) behind `y` (n, d) at noise level `tau` > 0. A pure function of its arguments.
    fn denoise(&self, y: ArrayView2<'_, f64>, tau: f64) -> Result<Array2<f64>>;

    /// The law of the noise.
    fn kernel(&self) -> Kernel {
        Kernel::Gaussian
    }

    /// The product (n, d) of the Jacobian ∂D/∂y at each row of `y` with the same row of `v`. By central differences,
    /// unless the denoiser knows better.
    fn jacobian_product(&self, y: ArrayView2<'_, f64>, tau: f64, v: ArrayView2<'_, f64>) -> Result<Array2<f64>> {
        // Errors of rounding and of truncation meet at the cube root of the precision, in units of the law's scale.
        central_differences(self, y, tau, v, 6e-6)
    }

    /// Σ_j ∂D_j/∂y_j at each row (n), where there is a closed form.
    fn divergence(&self, _y: ArrayView2<'_, f64>, _tau: f64) -> Result<Option<Array1<f64>>> {
        Ok(None)
    }

    /// The score ∇ log p_τ(y) = (D − y)/τ² (n, d).
    ///
    /// # Errors
    /// If the noise is not Gaussian: then D does not give the score.
    fn score(&self, y: ArrayView2<'_, f64>, tau: f64) -> Result<Array2<f64>> {
        needs_gaussian("the score", self.kernel())?;
        let mut score = self.denoise(y, tau)?;
        score -= &y;
        score /= tau * tau;
        Ok(score)
    }
}

impl<T: Denoiser + ?Sized> Denoiser for &T {
    fn dim(&self) -> usize {
        (**self).dim()
    }

    fn denoise(&self, y: ArrayView2<'_, f64>, tau: f64) -> Result<Array2<f64>> {
        (**self).denoise(y, tau)
    }

    fn kernel(&self) -> Kernel {
        (**self).kernel()
    }

    fn jacobian_product(&self, y: ArrayView2<'_, f64>, tau: f64, v: ArrayView2<'_, f64>) -> Result<Array2<f64>> {
        (**self).jacobian_product(y, tau, v)
    }

    fn divergence(&self, y: ArrayView2<'_, f64>, tau: f64) -> Result<Option<Array1<f64>>> {
        (**self).divergence(y, tau)
    }
}

/// (D(y + h v) − D(y − h v))/(2h) with h such that the longest step is `relative` times the noise level.
pub(crate) fn central_differences<D: Denoiser + ?Sized>(
    model: &D,
    y: ArrayView2<'_, f64>,
    tau: f64,
    v: ArrayView2<'_, f64>,
    relative: f64,
) -> Result<Array2<f64>> {
    let largest = v.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    let step = relative * tau.max(1e-3) / largest.max(f64::MIN_POSITIVE);
    let mut high = y.to_owned();
    high.scaled_add(step, &v);
    let mut low = y.to_owned();
    low.scaled_add(-step, &v);
    let mut slope = model.denoise(high.view(), tau)?;
    slope -= &model.denoise(low.view(), tau)?;
    slope /= 2.0 * step;
    Ok(slope)
}

/// Refuses noise that is not Gaussian for `what`.
pub(crate) fn needs_gaussian(what: &str, kernel: Kernel) -> Result<()> {
    match kernel {
        Kernel::Gaussian => Ok(()),
        other => Err(Error::parameter("path", other, format!("Gaussian: {what} needs a Gaussian path"))),
    }
}

/// A model in the terms it was trained in: on its own path, with its own kind of prediction.
pub trait Model: Sync {
    /// Components d of a point.
    fn dim(&self) -> usize;

    /// The path, one from data to noise.
    fn path(&self) -> &Path;

    /// What it predicts.
    fn kind(&self) -> Prediction;

    /// The prediction (n, d) for the points `x` (n, d) at time `t` of the path.
    fn predict(&self, x: ArrayView2<'_, f64>, t: f64) -> Result<Array2<f64>>;
}

/// A [`Model`] on any path as a [`Denoiser`]: D(y, τ) = D(x = α y, t) at the time t where σ/α = τ.
#[derive(Debug, Clone)]
pub struct Denoising<M> {
    model: M,
    kernel: Kernel,
}

impl<M: Model> Denoising<M> {
    /// Wraps `model`.
    ///
    /// # Errors
    /// If its path does not lead to noise, or the kind of prediction has no meaning on it: with Student noise only the
    /// clean data and the velocity do.
    pub fn new(model: M) -> Result<Self> {
        let kernel = model.path().kernel()?;
        let kind = model.kind();
        if kernel != Kernel::Gaussian && !matches!(kind, Prediction::X0 | Prediction::Velocity) {
            return Err(Error::parameter(
                "prediction",
                kind,
                format!("x0 or velocity on the path {}", model.path().name()),
            ));
        }
        Ok(Self { model, kernel })
    }

    /// The model.
    pub fn model(&self) -> &M {
        &self.model
    }
}

impl<M: Model> Denoiser for Denoising<M> {
    fn dim(&self) -> usize {
        self.model.dim()
    }

    fn kernel(&self) -> Kernel {
        self.kernel
    }

    fn denoise(&self, y: ArrayView2<'_, f64>, tau: f64) -> Result<Array2<f64>> {
        check::dimension("points", y, "the model", self.dim())?;
        let schedule = self.model.path().schedule()?;
        let t = schedule.time(tau)?;
        let at = schedule.at(t)?;
        let x = &y * at.alpha;
        let mut out = self.model.predict(x.view(), t)?;
        if out.dim() != x.dim() {
            let problem = format!("answered with shape {:?} for points of shape {:?}", out.shape(), x.shape());
            return Err(Error::input("model", problem));
        }
        self.model.kind().denoise(at, x.view(), out.view_mut());
        Ok(out)
    }
}

/// A denoiser in the terms of any path and kind of prediction: the way back, for exact models and for comparisons.
#[derive(Debug, Clone)]
pub struct Predicting<D> {
    denoiser: D,
    path: Path,
    kind: Prediction,
}

impl<D: Denoiser> Predicting<D> {
    /// `denoiser` as a model of `kind` on `path`.
    ///
    /// # Errors
    /// If the noise of the path is of another law than the denoiser's.
    pub fn new(denoiser: D, path: Path, kind: Prediction) -> Result<Self> {
        if path.kernel()? != denoiser.kernel() {
            return Err(Error::parameter("path", path.name(), format!("{}, as the model", denoiser.kernel())));
        }
        Ok(Self { denoiser, path, kind })
    }
}

impl<D: Denoiser> Model for Predicting<D> {
    fn dim(&self) -> usize {
        self.denoiser.dim()
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn kind(&self) -> Prediction {
        self.kind
    }

    fn predict(&self, x: ArrayView2<'_, f64>, t: f64) -> Result<Array2<f64>> {
        let schedule = self.path.schedule()?;
        let at = schedule.at(t)?;
        let y = &x / at.alpha;
        let mut out = self.denoiser.denoise(y.view(), schedule.tau(t)?)?;
        self.kind.of_denoised(at, x, out.view_mut());
        Ok(out)
    }
}
