//! A mean of matrices over samples, and batches drawn from it.

use crate::mfac::check_rows;
use crate::{LinearOperator, Product, Real};
use ndarray::{ArrayView2, Axis, CowArray, Ix2};
use offprint_core::random::Stream;
use offprint_core::{Error, Result};
use rand::RngExt;
use rand::seq::index::sample;

/// The mean over N samples of symmetric P × P matrices H_i, of which the mean over any batch can be multiplied by a
/// vector: Hessians of a loss, generalised Gauss–Newton matrices, outer products of gradients.
pub trait SampledMatrix: Sync {
    /// What vectors are kept in.
    type Element: Real;

    /// The number of samples, N.
    fn samples(&self) -> usize;

    /// The length of the vectors, P.
    fn dim(&self) -> usize;

    /// H_B, the mean over the samples with the numbers `batch`, each counted as often as it is named.
    ///
    /// # Errors
    /// No sample, or a number from N on; what the model itself refuses.
    fn batch(&self, batch: Vec<u32>) -> Result<impl LinearOperator<Self::Element>>;

    /// H, the mean over all samples.
    ///
    /// # Errors
    /// As for [`Self::batch`].
    fn whole(&self) -> Result<impl LinearOperator<Self::Element>> {
        self.batch((0..self.samples() as u32).collect())
    }
}

/// How the samples of a batch are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampling {
    /// All different, as in a pass over shuffled data.
    WithoutReplacement,
    /// Independently of each other.
    WithReplacement,
}

impl Sampling {
    /// 𝔟, the batch size that counts for the variance of a mean over `batch` of `total` samples: B/(1 − B/N) where they
    /// are drawn without replacement (infinite for the whole set), B with.
    ///
    /// # Errors
    /// `batch` = 0 or, without replacement, above `total`; fewer than two samples.
    pub fn effective_batch(self, batch: usize, total: usize) -> Result<f64> {
        let replacement = self == Self::WithReplacement;
        if batch == 0 || (!replacement && batch > total) {
            let allowed = if replacement { "at least 1".into() } else { format!("between 1 and the {total} samples") };
            return Err(Error::parameter("batch_size", batch, allowed));
        }
        if total < 2 {
            let allowed = "a part of at least 2 samples: the noise of a batch is told from how samples differ";
            return Err(Error::parameter("batch_size", format!("{batch} of {total} samples"), allowed));
        }
        let (b, n) = (batch as f64, total as f64);
        Ok(if replacement { b } else { b * n / (n - b) })
    }

    /// The batch B that belongs to 𝔟 = `effective` among `total` samples: the inverse of [`Self::effective_batch`].
    pub fn batch_of(self, effective: f64, total: usize) -> f64 {
        match self {
            Self::WithReplacement => effective,
            Self::WithoutReplacement if effective.is_finite() => effective / (1.0 + effective / total as f64),
            Self::WithoutReplacement => total as f64,
        }
    }

    /// The batch with number `index` of `stream`: `batch` numbers below `total`.
    pub fn draw(self, batch: usize, total: usize, stream: Stream, index: u64) -> Vec<u32> {
        let mut rng = stream.rng(index);
        match self {
            Self::WithReplacement => (0..batch).map(|_| rng.random_range(0..total as u32)).collect(),
            Self::WithoutReplacement => {
                sample(&mut rng, total, batch.min(total)).into_iter().map(|sample| sample as u32).collect()
            }
        }
    }
}

/// That `batch` names at least one sample and none from `total` on.
pub(super) fn check_batch(batch: &[u32], total: usize) -> Result<()> {
    match batch.iter().find(|&&sample| sample as usize >= total) {
        _ if batch.is_empty() => Err(Error::parameter("batch_size", 0, "at least 1")),
        Some(sample) => Err(Error::input("batch", format!("names sample {sample}, but there are {total}"))),
        None => Ok(()),
    }
}

/// A function as a sampled matrix: `product(batch, x, y)` sets y = H_B x.
pub struct Callback<F> {
    samples: usize,
    dim: usize,
    product: F,
}

impl<F: Fn(&[u32], &[f64], &mut [f64]) -> Result<()> + Sync> Callback<F> {
    /// `samples` = N, `dim` = P.
    pub fn new(samples: usize, dim: usize, product: F) -> Self {
        Self { samples, dim, product }
    }
}

impl<F: Fn(&[u32], &[f64], &mut [f64]) -> Result<()> + Sync> SampledMatrix for Callback<F> {
    type Element = f64;

    fn samples(&self) -> usize {
        self.samples
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn batch(&self, batch: Vec<u32>) -> Result<impl LinearOperator<f64>> {
        check_batch(&batch, self.samples)?;
        Ok(Product::new(self.dim, move |x: &[f64], y: &mut [f64]| (self.product)(&batch, x, y)))
    }
}

/// Outer products g_i g_iᵀ of gradients, one a row: the empirical Fisher matrix and its batches.
#[derive(Debug, Clone, Copy)]
pub struct GradientRows<'a, T> {
    rows: ArrayView2<'a, T>,
}

impl<'a, T: Real> GradientRows<'a, T> {
    /// From `rows (N, P)`, called `name` in errors.
    ///
    /// # Errors
    /// No row or no column, rows with gaps, an element that is not finite.
    pub fn new(rows: ArrayView2<'a, T>, name: &str) -> Result<Self> {
        check_rows(rows)?;
        crate::mfac::check_finite(rows, name)?;
        Ok(Self { rows })
    }

    /// The gradients, `(N, P)`.
    pub fn rows(&self) -> ArrayView2<'a, T> {
        self.rows
    }
}

/// 1/B Σ g gᵀ over some rows, which are copied unless they are all.
struct RowsOperator<'a, T>(CowArray<'a, T, Ix2>);

impl<T: Real> LinearOperator for RowsOperator<'_, T> {
    fn dim(&self) -> usize {
        self.0.ncols()
    }

    fn apply(&self, x: &[f64], y: &mut [f64]) -> Result<()> {
        crate::EmpiricalFisher::new(self.0.view())?.apply(x, y)
    }
}

impl<T: Real> SampledMatrix for GradientRows<'_, T> {
    type Element = f64;

    fn samples(&self) -> usize {
        self.rows.nrows()
    }

    fn dim(&self) -> usize {
        self.rows.ncols()
    }

    fn batch(&self, batch: Vec<u32>) -> Result<impl LinearOperator<f64>> {
        check_batch(&batch, self.samples())?;
        let numbers: Vec<usize> = batch.iter().map(|&sample| sample as usize).collect();
        Ok(RowsOperator(self.rows.select(Axis(0), &numbers).into()))
    }

    fn whole(&self) -> Result<impl LinearOperator<f64>> {
        Ok(RowsOperator(self.rows.into()))
    }
}
