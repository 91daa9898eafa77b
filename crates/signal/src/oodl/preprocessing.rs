//! From raw samples to coordinates in which the dictionary is orthogonal.
//!
//! Real measurements are not mixed by an orthogonal matrix. After their mean is taken off and their covariance made the
//! identity they are, as in independent component analysis, mixed by one up to noise.

use clap::ValueEnum;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};
use offprint_core::{Error, Result};
use offprint_math::linalg;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is done to samples before they are learned from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Whitening {
    /// Nothing: the samples come from an orthogonal model.
    None,
    /// The mean is taken off, and columns that do not vary are left out.
    Centre,
    /// The mean is taken off and each column divided by its standard deviation.
    Standardise,
    /// The mean is taken off and the covariance made the identity (ZCA up to a rotation, which the dictionary absorbs).
    Zca,
}

/// Eigenvalues of the correlation below this part of the largest are rounding: those directions are left out.
const RANK_TOLERANCE: f64 = 1e-9;

/// An affine map to learning coordinates and back, fixed after the burn-in.
#[derive(Debug, Clone, PartialEq)]
pub struct Preprocessing {
    /// Which one it is.
    pub kind: Whitening,
    /// The mean taken off (N).
    pub mean: Array1<f64>,
    /// To learning coordinates, (N, r): x = (y − mean) · forward.
    pub forward: Array2<f64>,
    /// Back, (N, r): y = mean + backward · x, exact on the span of the samples it was fitted to.
    pub backward: Array2<f64>,
}

impl Preprocessing {
    /// No change, for samples of length `n`.
    pub fn none(n: usize) -> Self {
        Self { kind: Whitening::None, mean: Array1::zeros(n), forward: Array2::eye(n), backward: Array2::eye(n) }
    }

    /// Fitted to `samples` (p, N). O(p N² + N³).
    ///
    /// # Errors
    /// No sample; columns that are all constant; for ZCA fewer samples than N.
    pub fn fit(kind: Whitening, samples: ArrayView2<'_, f64>) -> Result<Self> {
        let (p, n) = samples.dim();
        let bad = |problem: String| Err(Error::input("samples", problem));
        if kind == Whitening::None {
            return Ok(Self::none(n));
        }
        if p == 0 || n == 0 {
            return bad("are none; the mean needs some".into());
        }
        let mean = mean_of(samples);
        if kind == Whitening::Zca && p < n {
            return bad(format!("are {p}, fewer than their length N = {n}: too few for whitening"));
        }
        let deviation = deviation_of(samples, &mean);
        let varying: Vec<usize> = (0..n).filter(|&j| deviation[j] > 0.0).collect();
        if varying.is_empty() {
            return bad("do not vary in any column: there is nothing to learn".into());
        }
        // Standardised first, so that columns in small units are not taken for rounding.
        let (mut forward, mut backward) = (Array2::zeros((n, varying.len())), Array2::zeros((n, varying.len())));
        for (k, &j) in varying.iter().enumerate() {
            let unit = if kind == Whitening::Centre { 1.0 } else { deviation[j] };
            forward[[j, k]] = 1.0 / unit;
            backward[[j, k]] = unit;
        }
        if kind == Whitening::Zca {
            let mut x = linalg::matmul((&samples - &mean).view(), forward.view());
            // Rounding of the mean would otherwise count as variance.
            x -= &mean_of(x.view());
            let correlation = linalg::matmul(x.t(), x.view()) / p as f64;
            // Where p ≤ N the rank is p − 1 at most.
            let (values, vectors) = linalg::eigh(correlation.view())?;
            let largest = values[values.len() - 1];
            let kept: Vec<usize> = (0..values.len()).rev().filter(|&i| values[i] > RANK_TOLERANCE * largest).collect();
            let root = Array1::from_iter(kept.iter().map(|&i| values[i].sqrt()));
            let vectors = vectors.select(Axis(1), &kept);
            forward = linalg::matmul(forward.view(), (&vectors / &root).view());
            backward = linalg::matmul(backward.view(), (&vectors * &root).view());
        }
        Ok(Self { kind, mean, forward, backward })
    }

    /// Length of samples, N.
    pub fn inputs(&self) -> usize {
        self.forward.nrows()
    }

    /// Number of learning coordinates, r ≤ N.
    pub fn rank(&self) -> usize {
        self.forward.ncols()
    }

    /// Samples (B, N) in learning coordinates (B, r).
    pub fn apply(&self, samples: ArrayView2<'_, f64>) -> Array2<f64> {
        match self.kind {
            Whitening::None => samples.to_owned(),
            Whitening::Centre if self.rank() == self.inputs() => &samples - &self.mean,
            _ => linalg::matmul((&samples - &self.mean).view(), self.forward.view()),
        }
    }
}

/// The columns of `samples` (p, N) whose values are all equal.
pub fn constant_columns(samples: ArrayView2<'_, f64>) -> Vec<usize> {
    let constant = |column: ArrayView1<'_, f64>| column.iter().all(|x| *x == column[0]);
    if samples.nrows() == 0 {
        return Vec::new();
    }
    samples.axis_iter(Axis(1)).enumerate().filter(|(_, column)| constant(column.view())).map(|(j, _)| j).collect()
}

/// Column means (N); each term is divided before it is added, so that sums of huge numbers stay finite.
fn mean_of(samples: ArrayView2<'_, f64>) -> Array1<f64> {
    let p = samples.nrows() as f64;
    let mut mean = Array1::zeros(samples.ncols());
    for row in samples.outer_iter() {
        mean.scaled_add(1.0 / p, &row);
    }
    mean
}

/// Column standard deviations (N), zero where the column is constant up to the rounding of its mean.
fn deviation_of(samples: ArrayView2<'_, f64>, mean: &Array1<f64>) -> Array1<f64> {
    let p = samples.nrows() as f64;
    let mut deviation = Array1::zeros(samples.ncols());
    for (j, column) in samples.axis_iter(Axis(1)).enumerate() {
        // Scaled by the largest distance: its square may not fit otherwise.
        let largest = column.iter().fold(0.0f64, |m, y| m.max((y - mean[j]).abs()));
        if largest > 1e-13 * mean[j].abs() {
            let squares: f64 = column.iter().map(|y| ((y - mean[j]) / largest).powi(2)).sum();
            deviation[j] = largest * (squares / p).sqrt();
        }
    }
    deviation
}
