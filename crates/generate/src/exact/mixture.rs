//! Gaussian mixtures, and the exact denoiser of one.

use super::diagonal::{BLOCK, Components, Scratch};
use crate::{Denoiser, check};
use ndarray::{Array1, Array2, Array3, ArrayView1, ArrayView2, Axis, Zip, s};
use offprint_core::random::Stream;
use offprint_core::{Error, Result};
use offprint_math::{linalg, vector};
use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

/// Covariances of the components of a mixture.
#[derive(Debug, Clone, PartialEq)]
pub enum Covariances {
    /// Variances (K, d) of independent components.
    Diagonal(Array2<f64>),
    /// Matrices (K, d, d).
    Full(Array3<f64>),
}

/// Σ_k w_k N(m_k, C_k).
#[derive(Debug, Clone, PartialEq)]
pub struct Mixture {
    weights: Array1<f64>,
    means: Array2<f64>,
    covariances: Covariances,
}

/// How far weights may sum from 1.
const WEIGHT_TOLERANCE: f64 = 1e-6;

impl Mixture {
    /// The mixture of `weights` (K), `means` (K, d) and `covariances`.
    ///
    /// # Errors
    /// Shapes that do not fit, weights that are negative or do not sum to 1, values that are not finite, covariances
    /// that are not symmetric and positive definite.
    pub fn new(weights: Array1<f64>, means: Array2<f64>, covariances: Covariances) -> Result<Self> {
        check::rows("means", means.view())?;
        let (k, d) = means.dim();
        if weights.len() != k {
            return Err(Error::input("weights", format!("has {} entries, but there are {k} means", weights.len())));
        }
        if let Some((i, w)) = weights.iter().enumerate().find(|(_, w)| w.is_nan() || **w < 0.0) {
            return Err(Error::input("weights", format!("entry {i} is {w}: weights are not negative")));
        }
        let total = weights.sum();
        if (total - 1.0).abs() > WEIGHT_TOLERANCE {
            return Err(Error::input("weights", format!("sum to {total}, not to 1")));
        }
        match &covariances {
            Covariances::Diagonal(variances) => check_variances(variances, (k, d))?,
            Covariances::Full(matrices) => check_matrices(matrices, (k, d))?,
        }
        Ok(Self { weights, means, covariances })
    }

    /// Round components: variance k is that of every coordinate of component k.
    pub fn round(weights: Array1<f64>, means: Array2<f64>, variances: ArrayView1<'_, f64>) -> Result<Self> {
        let d = means.ncols();
        if variances.len() != means.nrows() {
            let problem = format!("has {} entries, but there are {} means", variances.len(), means.nrows());
            return Err(Error::input("variances", problem));
        }
        let variances = variances.insert_axis(Axis(1)).broadcast((means.nrows(), d)).expect("one column").to_owned();
        Self::new(weights, means, Covariances::Diagonal(variances))
    }

    /// Weights (K).
    pub fn weights(&self) -> ArrayView1<'_, f64> {
        self.weights.view()
    }

    /// Means (K, d).
    pub fn means(&self) -> ArrayView2<'_, f64> {
        self.means.view()
    }

    /// Covariances.
    pub fn covariances(&self) -> &Covariances {
        &self.covariances
    }

    /// The covariance matrix (d, d) of component `k`.
    ///
    /// # Panics
    /// If there is no such component.
    pub fn covariance(&self, k: usize) -> Array2<f64> {
        match &self.covariances {
            Covariances::Diagonal(variances) => Array2::from_diag(&variances.row(k)),
            Covariances::Full(matrices) => matrices.index_axis(Axis(0), k).to_owned(),
        }
    }

    /// The components `chosen`, with their weights scaled to sum to 1: a condition.
    pub fn select(&self, chosen: &[usize]) -> Result<Self> {
        if let Some(k) = chosen.iter().find(|&&k| k >= self.weights.len()) {
            return Err(Error::parameter("component", k, format!("below {}", self.weights.len())));
        }
        let weights = self.weights.select(Axis(0), chosen);
        let total = weights.sum();
        let covariances = match &self.covariances {
            Covariances::Diagonal(variances) => Covariances::Diagonal(variances.select(Axis(0), chosen)),
            Covariances::Full(matrices) => Covariances::Full(matrices.select(Axis(0), chosen)),
        };
        Self::new(weights / total, self.means.select(Axis(0), chosen), covariances)
    }

    /// The mean (d) and the covariance (d, d) of the whole.
    pub fn moments(&self) -> (Array1<f64>, Array2<f64>) {
        let mean = self.means.t().dot(&self.weights);
        let d = mean.len();
        let mut covariance = Array2::zeros((d, d));
        for (k, &w) in self.weights.iter().enumerate() {
            covariance.scaled_add(w, &self.covariance(k));
            let apart = (&self.means.row(k) - &mean).insert_axis(Axis(1));
            covariance.scaled_add(w, &apart.dot(&apart.t()));
        }
        (mean, covariance)
    }
}

fn check_variances(variances: &Array2<f64>, shape: (usize, usize)) -> Result<()> {
    if variances.dim() != shape {
        return Err(Error::input("variances", format!("has shape {:?}, not {shape:?}", variances.dim())));
    }
    match variances.indexed_iter().find(|(_, v)| !(**v > 0.0 && v.is_finite())) {
        Some(((k, j), v)) => {
            Err(Error::input("variances", format!("component {k} has {v} in coordinate {j}, not above 0")))
        }
        None => Ok(()),
    }
}

fn check_matrices(matrices: &Array3<f64>, (k, d): (usize, usize)) -> Result<()> {
    if matrices.dim() != (k, d, d) {
        return Err(Error::input("covariances", format!("has shape {:?}, not {:?}", matrices.dim(), (k, d, d))));
    }
    for (k, matrix) in matrices.outer_iter().enumerate() {
        let scale = matrix.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        let asymmetry = matrix.iter().zip(matrix.t()).fold(0.0f64, |m, (a, b)| m.max((a - b).abs()));
        let symmetric = scale.is_finite() && asymmetry <= 1e-9 * scale;
        if !symmetric || linalg::cholesky(matrix).is_err() {
            return Err(Error::input("covariances", format!("matrix {k} is not symmetric and positive definite")));
        }
    }
    Ok(())
}

/// The exact denoiser of a [`Mixture`]: O(K d) a point with diagonal covariances, O(K d²) with full ones.
///
/// With C_k = U_k diag(l_k) U_kᵀ: D = Σ_k r_k \[m_k + U_k diag(l_k/(l_k + τ²)) U_kᵀ (y − m_k)\], where r_k are the
/// posterior weights of the components at noise level τ.
#[derive(Debug, Clone)]
pub struct ExactMixture {
    mixture: Mixture,
    log_weights: Array1<f64>,
    /// Eigenvalues l (K, d).
    spread: Array2<f64>,
    /// Rows are eigenvectors U_kᵀ (K, d, d); none where the axes are.
    turns: Option<Array3<f64>>,
    /// Means in the eigenbasis, U_kᵀ m_k (K, d).
    centres: Array2<f64>,
}

/// What of the components depends on τ alone.
struct Level {
    /// 1/(l + τ²) (K, d).
    precision: Array2<f64>,
    /// l/(l + τ²) (K, d): how far the posterior mean of a component moves from its centre towards y.
    gain: Array2<f64>,
    /// log w_k − ½ Σ_j log(l_j + τ²) (K).
    offset: Array1<f64>,
}

impl ExactMixture {
    /// Prepares the denoiser: one eigendecomposition a component.
    pub fn new(mixture: Mixture) -> Result<Self> {
        let log_weights = mixture.weights.mapv(f64::ln);
        let (k, d) = mixture.means.dim();
        match &mixture.covariances {
            Covariances::Diagonal(variances) => {
                // Rows are read as slices.
                let standard = |table: &Array2<f64>| table.as_standard_layout().into_owned();
                let (spread, centres) = (standard(variances), standard(&mixture.means));
                Ok(Self { mixture, log_weights, spread, turns: None, centres })
            }
            Covariances::Full(matrices) => {
                let (mut spread, mut centres) = (Array2::zeros((k, d)), Array2::zeros((k, d)));
                let mut turns = Array3::zeros((k, d, d));
                for (i, matrix) in matrices.outer_iter().enumerate() {
                    let (values, vectors) = linalg::eigh(matrix)?;
                    spread.row_mut(i).assign(&values);
                    centres.row_mut(i).assign(&vectors.t().dot(&mixture.means.row(i)));
                    turns.slice_mut(s![i, .., ..]).assign(&vectors.t());
                }
                Ok(Self { mixture, log_weights, spread, turns: Some(turns), centres })
            }
        }
    }

    /// The mixture.
    pub fn mixture(&self) -> &Mixture {
        &self.mixture
    }

    /// `n` draws (n, d) and the component of each (n); point i comes from generator i of `stream`.
    pub fn sample(&self, n: usize, stream: Stream) -> (Array2<f64>, Vec<usize>) {
        let (k, d) = self.centres.dim();
        let mut points = Array2::zeros((n, d));
        let mut components = vec![0; n];
        for (i, (mut point, component)) in points.outer_iter_mut().zip(&mut components).enumerate() {
            let mut rng = stream.rng(i as u64);
            let mut left: f64 = rng.random();
            *component = (0..k)
                .find(|&c| {
                    left -= self.mixture.weights[c];
                    left < 0.0
                })
                .unwrap_or(k - 1);
            let draw = |l: &f64| {
                let z: f64 = StandardNormal.sample(&mut rng);
                l.sqrt() * z
            };
            let turned: Array1<f64> = self.spread.row(*component).iter().map(draw).collect();
            match &self.turns {
                Some(turns) => point.assign(&turns.index_axis(Axis(0), *component).t().dot(&turned)),
                None => point.assign(&turned),
            }
            point += &self.mixture.means.row(*component);
        }
        (points, components)
    }

    /// log q_τ(y) (n) of the mixture with noise τ ≥ 0 added to it.
    pub fn log_density(&self, y: ArrayView2<'_, f64>, tau: f64) -> Result<Array1<f64>> {
        let level = self.level(y, tau)?;
        let d = self.dim();
        let constant = 0.5 * d as f64 * (2.0 * std::f64::consts::PI).ln();
        let mut work = Work::new(self);
        Ok(y.outer_iter()
            .map(|y| {
                self.log_terms(&level, y, &mut work);
                vector::log_sum_exp(&work.log) - constant
            })
            .collect())
    }

    /// The posterior weights r (n, K) of the components at noise τ ≥ 0.
    pub fn responsibilities(&self, y: ArrayView2<'_, f64>, tau: f64) -> Result<Array2<f64>> {
        let level = self.level(y, tau)?;
        let mut weights = Array2::zeros((y.nrows(), self.log_weights.len()));
        let mut work = Work::new(self);
        for (y, mut row) in y.outer_iter().zip(weights.outer_iter_mut()) {
            self.log_terms(&level, y, &mut work);
            vector::softmax(&mut work.log);
            row.iter_mut().zip(&work.log).for_each(|(w, r)| *w = *r);
        }
        Ok(weights)
    }

    fn level(&self, y: ArrayView2<'_, f64>, tau: f64) -> Result<Level> {
        check::dimension("points", y, "the mixture", self.dim())?;
        if !(tau >= 0.0 && tau.is_finite()) {
            return Err(Error::parameter("tau", tau, "zero or a positive number"));
        }
        let precision = self.spread.mapv(|l| 1.0 / (l + tau * tau));
        let offset = Zip::from(&self.log_weights)
            .and(precision.rows())
            .map_collect(|&w, row| w + 0.5 * row.iter().map(|p| p.ln()).sum::<f64>());
        let gain = &precision * &self.spread;
        Ok(Level { precision, gain, offset })
    }

    /// log w_k + log N(y; m_k, C_k + τ²) up to a constant, into `work.log`; y − m_k in the eigenbasis into `work.apart`.
    fn log_terms(&self, level: &Level, y: ArrayView1<'_, f64>, work: &mut Work) {
        for k in 0..work.log.len() {
            let mut apart = work.apart.row_mut(k);
            match &self.turns {
                Some(turns) => {
                    let turn = turns.index_axis(Axis(0), k);
                    Zip::from(&mut apart).and(turn.rows()).and(self.centres.row(k)).for_each(|a, row, &c| {
                        *a = row.dot(&y) - c;
                    });
                }
                None => Zip::from(&mut apart).and(y).and(self.centres.row(k)).for_each(|a, &y, &c| *a = y - c),
            }
            work.log[k] = level.offset[k] - 0.5 * weighted_square(row(&work.apart, k), row(&level.precision, k));
        }
    }

    /// D of one point into `denoised`; tr Cov(x₀ | y) if `trace`, else 0.
    fn posterior(
        &self,
        (level, tau): (&Level, f64),
        y: ArrayView1<'_, f64>,
        work: &mut Work,
        denoised: &mut [f64],
        trace: bool,
    ) -> f64 {
        self.log_terms(level, y, work);
        vector::softmax(&mut work.log);
        denoised.fill(0.0);
        let mut second = 0.0;
        for (k, &r) in work.log.iter().enumerate() {
            // Components without weight are skipped: most of them, close to the data. What they would add lies far
            // below the last digit.
            if r < 1e-30 {
                continue;
            }
            let (gain, apart) = (row(&level.gain, k), row(&work.apart, k));
            match &self.turns {
                Some(turns) => {
                    let turn = turns.index_axis(Axis(0), k);
                    work.mean.iter_mut().zip(self.mixture.means.row(k)).for_each(|(w, m)| *w = *m);
                    for ((gain, apart), axis) in gain.iter().zip(apart).zip(turn.rows()) {
                        let size = gain * apart;
                        work.mean.iter_mut().zip(axis).for_each(|(w, v)| *w += size * v);
                    }
                }
                None => {
                    let moves = gain.iter().zip(apart);
                    let places = row(&self.centres, k).iter().zip(moves);
                    work.mean.iter_mut().zip(places).for_each(|(w, (c, (g, a)))| *w = c + g * a);
                }
            }
            denoised.iter_mut().zip(&work.mean).for_each(|(d, m)| *d += r * m);
            if trace {
                let spread = gain.iter().sum::<f64>() * tau * tau;
                second += r * (spread + work.mean.iter().map(|m| m * m).sum::<f64>());
            }
        }
        if trace { second - denoised.iter().map(|d| d * d).sum::<f64>() } else { 0.0 }
    }

    /// D (n, d) and tr Cov(x₀ | y) (n).
    fn posteriors(&self, y: ArrayView2<'_, f64>, tau: f64, trace: bool) -> Result<(Array2<f64>, Array1<f64>)> {
        let level = self.level(y, tau)?;
        let (n, d) = y.dim();
        let mut denoised = Array2::zeros((n, d));
        let mut traces = Array1::zeros(n);
        // Rows of one task: enough work to be worth a thread.
        let least = 8192usize.div_ceil(self.spread.len());
        denoised
            .axis_iter_mut(Axis(0))
            .into_par_iter()
            .zip(y.axis_iter(Axis(0)))
            .zip(traces.axis_iter_mut(Axis(0)))
            .with_min_len(least)
            .for_each_init(
                || Work::new(self),
                |work, ((mut row, y), mut t)| {
                    let row = row.as_slice_mut().expect("own rows are contiguous");
                    t.fill(self.posterior((&level, tau), y, work, row, trace));
                },
            );
        Ok((denoised, traces))
    }
}

/// Row `k` of a table that is stored row by row.
fn row(table: &Array2<f64>, k: usize) -> &[f64] {
    let d = table.ncols();
    &table.as_slice().expect("stored row by row")[k * d..(k + 1) * d]
}

/// Σ a² p, in eight sums side by side that the compiler turns into vector instructions.
fn weighted_square(a: &[f64], p: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (a_blocks, a_rest) = a.as_chunks::<8>();
    let (p_blocks, p_rest) = p.as_chunks::<8>();
    for (a, p) in a_blocks.iter().zip(p_blocks) {
        sums.iter_mut().zip(a).zip(p).for_each(|((sum, a), p)| *sum += a * a * p);
    }
    sums.iter().sum::<f64>() + a_rest.iter().zip(p_rest).map(|(a, p)| a * a * p).sum::<f64>()
}

/// Scratch memory of one thread.
struct Work {
    /// y − m_k in the eigenbasis of component k (K, d).
    apart: Array2<f64>,
    /// Log-weights, then weights (K).
    log: Vec<f64>,
    /// The posterior mean of one component (d).
    mean: Vec<f64>,
}

impl Work {
    fn new(model: &ExactMixture) -> Self {
        let (k, d) = model.spread.dim();
        Self { apart: Array2::zeros((k, d)), log: vec![0.0; k], mean: vec![0.0; d] }
    }
}

impl Denoiser for ExactMixture {
    fn dim(&self) -> usize {
        self.spread.ncols()
    }

    fn denoise(&self, y: ArrayView2<'_, f64>, tau: f64) -> Result<Array2<f64>> {
        if self.turns.is_some() {
            return Ok(self.posteriors(y, tau, false)?.0);
        }
        let level = self.level(y, tau)?;
        let components = Components {
            centres: self.centres.view(),
            spread: self.spread.view(),
            precision: level.precision.view(),
            offset: level.offset.view(),
        };
        let mut denoised = Array2::zeros(y.dim());
        // Blocks of one task: enough work to be worth a thread.
        let least = 16_384usize.div_ceil(BLOCK * self.spread.len());
        denoised
            .axis_chunks_iter_mut(Axis(0), BLOCK)
            .into_par_iter()
            .zip(y.axis_chunks_iter(Axis(0), BLOCK))
            .with_min_len(least)
            .for_each_init(Scratch::default, |scratch, (out, y)| components.denoise(y, scratch, out));
        Ok(denoised)
    }

    /// div D = tr Cov(x₀ | y)/τ².
    fn divergence(&self, y: ArrayView2<'_, f64>, tau: f64) -> Result<Option<Array1<f64>>> {
        check::positive("tau", tau)?;
        Ok(Some(self.posteriors(y, tau, true)?.1 / (tau * tau)))
    }
}
