//! Denoisers made of others.

use crate::denoiser::needs_gaussian;
use crate::{Denoiser, Kernel};
use ndarray::{Array1, Array2, ArrayView2, Zip};
use offprint_core::{Error, Result};
use offprint_math::stats::quantile;
use std::sync::atomic::{AtomicU64, Ordering};

/// Classifier-free guidance: D = D_u + w (D_c − D_u), the same in ε and in the score. w = 1 is the conditional model.
#[derive(Debug, Clone)]
pub struct Guidance<U, C> {
    unconditional: U,
    conditional: C,
    weight: f64,
}

impl<U: Denoiser, C: Denoiser> Guidance<U, C> {
    /// Guides `unconditional` towards `conditional` with weight w.
    ///
    /// # Errors
    /// Models of different dimensions or noise; a weight that is not finite.
    pub fn new(unconditional: U, conditional: C, weight: f64) -> Result<Self> {
        if !weight.is_finite() {
            return Err(Error::parameter("guidance", weight, "a finite number"));
        }
        alike(&[&unconditional, &conditional])?;
        Ok(Self { unconditional, conditional, weight })
    }
}

/// Refuses models that cannot be added up.
fn alike(models: &[&dyn Denoiser]) -> Result<()> {
    let Some(first) = models.first() else {
        return Err(Error::parameter("models", "none", "at least one"));
    };
    for (i, model) in models.iter().enumerate() {
        if model.dim() != first.dim() {
            let given = format!("{} dimensions in model {i}", model.dim());
            return Err(Error::parameter("models", given, format!("of {} dimensions, as model 0", first.dim())));
        }
        if model.kernel() != first.kernel() {
            let given = format!("{} noise in model {i}", model.kernel());
            return Err(Error::parameter("models", given, format!("with {} noise, as model 0", first.kernel())));
        }
    }
    Ok(())
}

impl<U: Denoiser, C: Denoiser> Denoiser for Guidance<U, C> {
    fn dim(&self) -> usize {
        self.conditional.dim()
    }

    fn kernel(&self) -> Kernel {
        self.conditional.kernel()
    }

    fn denoise(&self, y: ArrayView2<'_, f64>, tau: f64) -> Result<Array2<f64>> {
        let mut out = self.conditional.denoise(y, tau)?;
        if self.weight != 1.0 {
            let unconditional = self.unconditional.denoise(y, tau)?;
            Zip::from(&mut out).and(&unconditional).for_each(|c, &u| *c = u + self.weight * (*c - u));
        }
        Ok(out)
    }

    fn jacobian_product(&self, y: ArrayView2<'_, f64>, tau: f64, v: ArrayView2<'_, f64>) -> Result<Array2<f64>> {
        let mut out = self.conditional.jacobian_product(y, tau, v)?;
        if self.weight != 1.0 {
            let unconditional = self.unconditional.jacobian_product(y, tau, v)?;
            Zip::from(&mut out).and(&unconditional).for_each(|c, &u| *c = u + self.weight * (*c - u));
        }
        Ok(out)
    }

    fn divergence(&self, y: ArrayView2<'_, f64>, tau: f64) -> Result<Option<Array1<f64>>> {
        let (u, c) = (self.unconditional.divergence(y, tau)?, self.conditional.divergence(y, tau)?);
        Ok(u.zip(c).map(|(u, c)| &u + &((c - &u) * self.weight)))
    }
}

/// The denoiser whose score is Σ βᵢ ∇ log qᵢ: D = y + Σ βᵢ (Dᵢ − y). Its samples follow no product of the qᵢ until
/// weights correct them.
pub struct ScoreSum<'a> {
    terms: Vec<(f64, &'a dyn Denoiser)>,
}

impl<'a> ScoreSum<'a> {
    /// The sum over (βᵢ, model i).
    ///
    /// # Errors
    /// No model, different dimensions, noise that is not Gaussian, a factor that is not finite.
    pub fn new(terms: Vec<(f64, &'a dyn Denoiser)>) -> Result<Self> {
        alike(&terms.iter().map(|(_, model)| *model).collect::<Vec<_>>())?;
        needs_gaussian("a sum of scores", terms[0].1.kernel())?;
        if let Some((beta, _)) = terms.iter().find(|(beta, _)| !beta.is_finite()) {
            return Err(Error::parameter("beta", beta, "a finite number"));
        }
        Ok(Self { terms })
    }
}

impl Denoiser for ScoreSum<'_> {
    fn dim(&self) -> usize {
        self.terms[0].1.dim()
    }

    fn denoise(&self, y: ArrayView2<'_, f64>, tau: f64) -> Result<Array2<f64>> {
        let mut out = y.to_owned();
        for (beta, model) in &self.terms {
            let denoised = model.denoise(y, tau)?;
            Zip::from(&mut out).and(&denoised).and(y).for_each(|o, &d, &y| *o += beta * (d - y));
        }
        Ok(out)
    }

    fn divergence(&self, y: ArrayView2<'_, f64>, tau: f64) -> Result<Option<Array1<f64>>> {
        let d = self.dim() as f64;
        let mut total = Array1::from_elem(y.nrows(), d);
        for (beta, model) in &self.terms {
            let Some(divergence) = model.divergence(y, tau)? else { return Ok(None) };
            total.scaled_add(*beta, &(divergence - d));
        }
        Ok(Some(total))
    }
}

/// Counts the calls of a model. A call for a whole batch counts once; a product with the Jacobian counts as the two that
/// differences would take.
#[derive(Debug)]
pub struct Counted<D> {
    model: D,
    calls: AtomicU64,
}

impl<D: Denoiser> Counted<D> {
    /// Starts at zero.
    pub fn new(model: D) -> Self {
        Self { model, calls: AtomicU64::new(0) }
    }

    /// Calls so far.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }
}

impl<D: Denoiser> Denoiser for Counted<D> {
    fn dim(&self) -> usize {
        self.model.dim()
    }

    fn kernel(&self) -> Kernel {
        self.model.kernel()
    }

    fn denoise(&self, y: ArrayView2<'_, f64>, tau: f64) -> Result<Array2<f64>> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.model.denoise(y, tau)
    }

    fn jacobian_product(&self, y: ArrayView2<'_, f64>, tau: f64, v: ArrayView2<'_, f64>) -> Result<Array2<f64>> {
        self.calls.fetch_add(2, Ordering::Relaxed);
        self.model.jacobian_product(y, tau, v)
    }

    fn divergence(&self, y: ArrayView2<'_, f64>, tau: f64) -> Result<Option<Array1<f64>>> {
        self.model.divergence(y, tau)
    }
}

/// Dynamic thresholding: each row of D is cut at s, the given quantile of its absolute values but at least `limit`, and
/// scaled by `limit`/s. For data within ±`limit`, against strong guidance.
#[derive(Debug, Clone)]
pub struct Thresholded<D> {
    model: D,
    quantile: f64,
    limit: f64,
}

impl<D: Denoiser> Thresholded<D> {
    /// With the `quantile` (0.995 as published) and the data's `limit`.
    pub fn new(model: D, quantile: f64, limit: f64) -> Result<Self> {
        if !(0.0..=1.0).contains(&quantile) {
            return Err(Error::parameter("quantile", quantile, "from 0 to 1"));
        }
        crate::check::positive("limit", limit)?;
        Ok(Self { model, quantile, limit })
    }
}

impl<D: Denoiser> Denoiser for Thresholded<D> {
    fn dim(&self) -> usize {
        self.model.dim()
    }

    fn kernel(&self) -> Kernel {
        self.model.kernel()
    }

    fn denoise(&self, y: ArrayView2<'_, f64>, tau: f64) -> Result<Array2<f64>> {
        let mut out = self.model.denoise(y, tau)?;
        for mut row in out.outer_iter_mut() {
            let sizes: Vec<f64> = row.iter().map(|v| v.abs()).collect();
            let s = quantile(&sizes, self.quantile).max(self.limit);
            row.mapv_inplace(|v| v.clamp(-s, s) * self.limit / s);
        }
        Ok(out)
    }
}
