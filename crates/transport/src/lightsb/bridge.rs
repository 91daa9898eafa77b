//! The model: a Schrödinger bridge whose adjusted potential is a mixture of Gaussians.

use super::posterior::Posterior;
use super::quadratics::{Quadratics, Statistics};
use ndarray::{Array1, Array2, Array3, ArrayView1, ArrayView2, ArrayView3, Axis, Zip};
use offprint_core::artifact::{Arrays, Metadata};
use offprint_core::{Array, Error, Result};
use offprint_math::{linalg, vector};
use rayon::prelude::*;

/// A light Schrödinger bridge: the potential v(y) = Σ_k α_k N(y; r_k, ε S_k) (eq. 6 of the paper) and with it the plan
///
/// π(y | x) = Σ_k w_k(x) N(y; r_k + S_k x, ε S_k),  w_k(x) ∝ α_k exp((x'S_k x + 2 r_k'x) / 2ε)  (prop. 3.2).
///
/// S_k is kept by its eigenvalues and, where it is not diagonal, its eigenvectors. The scale of α is free: it cancels
/// in everything but [`log_c`](Self::log_c) and [`log_v`](Self::log_v).
#[derive(Debug, Clone, PartialEq)]
pub struct LightBridge {
    /// Variance ε of the Brownian prior over the unit of time; the entropic regularisation.
    pub(super) epsilon: f64,
    /// log α_k (K).
    pub(super) log_alpha: Array1<f64>,
    /// Centres r_k (K, d).
    pub(super) centres: Array2<f64>,
    /// Eigenvalues of S_k (K, d).
    pub(super) spectrum: Array2<f64>,
    /// Eigenvectors of S_k in the columns of Q_k (K, d, d): S_k = Q_k diag(spectrum_k) Q_k'. None if S_k is diagonal.
    pub(super) axes: Option<Array3<f64>>,
}

impl LightBridge {
    /// A bridge with diagonal S_k, given as `spreads` (K, d); `log_alpha` (K), `centres` (K, d).
    ///
    /// # Errors
    /// ε that is not above 0, no component, shapes that do not fit, numbers that are not finite, spreads not above 0.
    pub fn diagonal(epsilon: f64, log_alpha: Array1<f64>, centres: Array2<f64>, spreads: Array2<f64>) -> Result<Self> {
        let bridge = Self { epsilon, log_alpha, centres, spectrum: spreads, axes: None };
        bridge.checked()
    }

    /// A bridge with full S_k (K, d, d), which must be symmetric and positive definite.
    ///
    /// # Errors
    /// As for [`diagonal`](Self::diagonal); S_k that are not symmetric or not positive definite.
    pub fn full(
        epsilon: f64,
        log_alpha: Array1<f64>,
        centres: Array2<f64>,
        spreads: ArrayView3<'_, f64>,
    ) -> Result<Self> {
        let (components, d) = centres.dim();
        if spreads.dim() != (components, d, d) {
            return Err(Error::input("S", format!("has shape {:?}, not ({components}, {d}, {d})", spreads.shape())));
        }
        let mut spectrum = Array2::zeros((components, d));
        let mut axes = Array3::zeros((components, d, d));
        for (k, spread) in spreads.outer_iter().enumerate() {
            let size = spread.iter().fold(0.0f64, |m, x| m.max(x.abs()));
            if spread.iter().any(|x| !x.is_finite()) || (&spread - &spread.t()).iter().any(|x| x.abs() > 1e-6 * size) {
                return Err(Error::input("S", format!("component {k} is not a finite symmetric matrix")));
            }
            let (values, vectors) = linalg::eigh(spread)?;
            spectrum.row_mut(k).assign(&values);
            axes.index_axis_mut(Axis(0), k).assign(&vectors);
        }
        Self { epsilon, log_alpha, centres, spectrum, axes: Some(axes) }.checked()
    }

    fn checked(self) -> Result<Self> {
        if !(self.epsilon > 0.0 && self.epsilon.is_finite()) {
            return Err(Error::parameter("epsilon", self.epsilon, "above 0 and finite"));
        }
        let (components, d) = self.centres.dim();
        if components == 0 || d == 0 {
            return Err(Error::input("r", format!("has shape ({components}, {d}); nothing to transport")));
        }
        if self.log_alpha.len() != components || self.spectrum.dim() != (components, d) {
            let problem = format!(
                "has shape {:?} beside log_alpha of {} and S of {:?}",
                self.centres.shape(),
                self.log_alpha.len(),
                self.spectrum.shape()
            );
            return Err(Error::input("r", problem));
        }
        // −∞ is a component without mass.
        let finite = |k: usize| {
            self.log_alpha[k] < f64::INFINITY
                && self.centres.row(k).iter().all(|x| x.is_finite())
                && self.spectrum.row(k).iter().all(|&s| s > 0.0 && s.is_finite())
        };
        match (0..components).find(|&k| !finite(k)) {
            Some(k) => Err(Error::input("S", format!("component {k} is not finite and positive definite"))),
            None if self.log_alpha.iter().all(|a| *a == f64::NEG_INFINITY) => {
                Err(Error::input("log_alpha", "gives no component any mass"))
            }
            None => Ok(self),
        }
    }

    /// The variance ε of the prior.
    pub fn epsilon(&self) -> f64 {
        self.epsilon
    }

    /// The number K of components.
    pub fn components(&self) -> usize {
        self.log_alpha.len()
    }

    /// The dimension d.
    pub fn dim(&self) -> usize {
        self.centres.ncols()
    }

    /// log α_k (K), as fitted; only differences matter.
    pub fn log_alpha(&self) -> ArrayView1<'_, f64> {
        self.log_alpha.view()
    }

    /// The centres r_k (K, d).
    pub fn centres(&self) -> ArrayView2<'_, f64> {
        self.centres.view()
    }

    /// The diagonals of S_k (K, d), if all S_k are kept as diagonal.
    pub fn diagonal_spreads(&self) -> Option<ArrayView2<'_, f64>> {
        self.axes.is_none().then(|| self.spectrum.view())
    }

    /// S_k as a matrix (d, d).
    pub fn spread(&self, k: usize) -> Array2<f64> {
        self.map_spread(k, |s| s)
    }

    /// S_k with `f` applied to its eigenvalues.
    pub(super) fn map_spread(&self, k: usize, f: impl Fn(f64) -> f64) -> Array2<f64> {
        let values = self.spectrum.row(k).mapv(f);
        match &self.axes {
            None => Array2::from_diag(&values),
            Some(axes) => {
                let q = axes.index_axis(Axis(0), k);
                linalg::matmul((&q * &values).view(), q.t())
            }
        }
    }

    /// Q_k' z: `z` (d) in the eigenvectors of S_k.
    pub(super) fn rotate(&self, k: usize, z: ArrayView1<'_, f64>) -> Array1<f64> {
        match &self.axes {
            None => z.to_owned(),
            Some(axes) => axes.index_axis(Axis(0), k).t().dot(&z),
        }
    }

    /// Q_k z: back from the eigenvectors of S_k.
    pub(super) fn rotate_back(&self, k: usize, z: ArrayView1<'_, f64>) -> Array1<f64> {
        match &self.axes {
            None => z.to_owned(),
            Some(axes) => axes.index_axis(Axis(0), k).dot(&z),
        }
    }

    pub(super) fn statistics(&self) -> Statistics {
        match self.axes {
            None => Statistics::Diagonal { dim: self.dim() },
            Some(_) => Statistics::Full { dim: self.dim() },
        }
    }

    /// The quadratics whose log-sum-exp is log v(y): log α_k + log N(y; r_k, ε S_k).
    pub(super) fn target_quadratics(&self) -> Quadratics {
        let mut quadratics = Quadratics::zeros(self.components(), self.statistics());
        self.write_target_quadratics(&mut quadratics);
        quadratics
    }

    pub(super) fn write_target_quadratics(&self, quadratics: &mut Quadratics) {
        let d = self.dim();
        let normalisation = 0.5 * d as f64 * (2.0 * std::f64::consts::PI * self.epsilon).ln();
        for (k, mut row) in quadratics.coefficients.rows_mut().into_iter().enumerate() {
            let row = row.as_slice_mut().expect("coefficients are contiguous");
            let (spectrum, centre) = (self.spectrum.row(k), self.centres.row(k));
            let mut weighted = 0.0; // r_k' S_k⁻¹ r_k
            if self.axes.is_none() {
                let (linear, quadratic) = row[1..].split_at_mut(d);
                for j in 0..d {
                    let precision = 1.0 / (self.epsilon * spectrum[j]);
                    linear[j] = precision * centre[j];
                    quadratic[j] = -0.5 * precision;
                    weighted += linear[j] * centre[j];
                }
            } else {
                let precision = self.map_spread(k, |s| 1.0 / (self.epsilon * s));
                let linear = precision.dot(&centre);
                weighted = linear.dot(&centre);
                row[1..=d].copy_from_slice(linear.as_slice().expect("a product is contiguous"));
                quadratics.statistics.set_matrix((precision * -0.5).view(), row);
            }
            let log_det = sum_of_logs(spectrum.as_slice().expect("the spectrum is contiguous"));
            row[0] = self.log_alpha[k] - 0.5 * (weighted + log_det) - normalisation;
        }
    }

    /// The quadratics whose log-sum-exp is log c(x): log α_k + (x'S_k x + 2 r_k'x) / 2ε.
    pub(super) fn source_quadratics(&self) -> Quadratics {
        let mut quadratics = Quadratics::zeros(self.components(), self.statistics());
        self.write_source_quadratics(&mut quadratics);
        quadratics
    }

    pub(super) fn write_source_quadratics(&self, quadratics: &mut Quadratics) {
        let d = self.dim();
        for (k, mut row) in quadratics.coefficients.rows_mut().into_iter().enumerate() {
            let row = row.as_slice_mut().expect("coefficients are contiguous");
            row[0] = self.log_alpha[k];
            row[1..].iter_mut().zip(self.centres.row(k)).for_each(|(c, r)| *c = r / self.epsilon);
            if self.axes.is_none() {
                row[1 + d..].iter_mut().zip(self.spectrum.row(k)).for_each(|(c, s)| *c = 0.5 * s / self.epsilon);
            } else {
                quadratics.statistics.set_matrix(self.map_spread(k, |s| 0.5 * s / self.epsilon).view(), row);
            }
        }
    }

    /// log v(y) (n) at the rows of `y` (n, d).
    pub fn log_v(&self, y: ArrayView2<'_, f64>) -> Result<Array1<f64>> {
        self.same_dim("y", y)?;
        Ok(self.target_quadratics().log_sum(y))
    }

    /// log c(x) = log ∫ exp(x'y/ε) v(y) dy (n) at the rows of `x` (n, d).
    pub fn log_c(&self, x: ArrayView2<'_, f64>) -> Result<Array1<f64>> {
        self.same_dim("x", x)?;
        Ok(self.source_quadratics().log_sum(x))
    }

    /// The loss L = mean log c(x) − mean log v(y) (eq. 8): KL(π* | π) up to a constant, for samples `x` (n0, d) of the
    /// source and `y` (n1, d) of the target.
    pub fn loss(&self, x: ArrayView2<'_, f64>, y: ArrayView2<'_, f64>) -> Result<f64> {
        let (c, v) = (self.log_c(x)?, self.log_v(y)?);
        Ok(c.mean().unwrap_or(f64::NAN) - v.mean().unwrap_or(f64::NAN))
    }

    /// log π(y_i | x_i) (n) for paired rows of `x` and `y` (n, d).
    pub fn log_conditional(&self, x: ArrayView2<'_, f64>, y: ArrayView2<'_, f64>) -> Result<Array1<f64>> {
        if x.nrows() != y.nrows() {
            return Err(Error::input("y", format!("has {} rows beside {} of x", y.nrows(), x.nrows())));
        }
        let mut density = self.log_v(y)? - self.log_c(x)?;
        Zip::from(&mut density).and(x.rows()).and(y.rows()).for_each(|p, x, y| *p += x.dot(&y) / self.epsilon);
        Ok(density)
    }

    /// The plan's conditional law π(· | x).
    pub fn plan(&self) -> Posterior<'_> {
        Posterior::new(self, 0.0)
    }

    /// The same bridge between source points s·x + a and target points s·y + b, where this one stands between x and y.
    /// ε becomes s² ε.
    pub fn in_units(&self, scale: f64, source: ArrayView1<'_, f64>, target: ArrayView1<'_, f64>) -> Self {
        let mut bridge = self.clone();
        bridge.epsilon = self.epsilon * scale * scale;
        for k in 0..self.components() {
            let shift = self.spread(k).dot(&source);
            let centre = &self.centres.row(k) * scale;
            // The same weights w_k at the new x, up to a factor that all components share.
            bridge.log_alpha[k] += (0.5 * source.dot(&shift) - source.dot(&centre)) / bridge.epsilon;
            bridge.centres.row_mut(k).assign(&(centre + target - shift));
        }
        bridge
    }

    /// The weight that each component has in the plan on average over source points `x` (n, d): Σ = 1. (K)
    pub fn usage(&self, x: ArrayView2<'_, f64>) -> Result<Array1<f64>> {
        self.same_dim("x", x)?;
        Ok(self.source_quadratics().weights(x).1.mean_axis(Axis(0)).expect("at least one point"))
    }

    /// The bridge without the components whose mean weight over `x` is below `least`; the heaviest always stays.
    pub fn pruned(&self, x: ArrayView2<'_, f64>, least: f64) -> Result<Self> {
        let usage = self.usage(x)?;
        let heaviest = usage.iter().copied().fold(0.0, f64::max);
        let kept: Vec<usize> = (0..self.components()).filter(|&k| usage[k] >= least.min(heaviest)).collect();
        Ok(Self {
            epsilon: self.epsilon,
            log_alpha: self.log_alpha.select(Axis(0), &kept),
            centres: self.centres.select(Axis(0), &kept),
            spectrum: self.spectrum.select(Axis(0), &kept),
            axes: self.axes.as_ref().map(|axes| axes.select(Axis(0), &kept)),
        })
    }

    /// The arrays of a model file: `log_alpha` (K) with greatest 0, `r` (K, d), `S` (K, d) or (K, d, d); and the word
    /// `epsilon`.
    pub fn to_arrays(&self) -> (Arrays, Metadata) {
        let top = vector::max(self.log_alpha.as_slice().expect("one axis"));
        let spreads: Array = match self.axes {
            None => self.spectrum.clone().into(),
            Some(_) => {
                let d = self.dim();
                let all = (0..self.components()).flat_map(|k| self.spread(k)).collect();
                Array3::from_shape_vec((self.components(), d, d), all).expect("K matrices of d × d").into()
            }
        };
        let arrays = Arrays::from([
            ("log_alpha".into(), (&self.log_alpha - top).into()),
            ("r".into(), self.centres.clone().into()),
            ("S".into(), spreads),
        ]);
        let words = Metadata::from([
            ("epsilon".into(), format!("{:?}", self.epsilon)),
            ("format".into(), "offprint light Schrödinger bridge".into()),
        ]);
        (arrays, words)
    }

    /// The bridge in the arrays of a model file called `name`.
    ///
    /// # Errors
    /// An array that is missing or of the wrong shape; what [`diagonal`](Self::diagonal) and [`full`](Self::full) refuse.
    pub fn from_arrays(arrays: &Arrays, words: &Metadata, name: &str) -> Result<Self> {
        let bad = |problem: String| Error::input(name, problem);
        let array = |key: &str, axes: &[usize]| {
            let array =
                arrays.get(key).ok_or_else(|| bad(format!("has no array \"{key}\"; a model has log_alpha, r, S")))?;
            if !axes.contains(&array.shape().len()) {
                return Err(bad(format!("has \"{key}\" of shape {:?}", array.shape())));
            }
            array.clone().into_f64().ok_or_else(|| bad(format!("has complex numbers in \"{key}\"")))
        };
        let epsilon = words.get("epsilon").and_then(|e| e.parse().ok());
        let epsilon = epsilon.ok_or_else(|| bad("does not tell its epsilon in the metadata".into()))?;
        let log_alpha = array("log_alpha", &[1])?.into_dimensionality().expect("one axis");
        let centres = array("r", &[2])?.into_dimensionality().expect("two axes");
        let spreads = array("S", &[2, 3])?;
        let bridge = if spreads.ndim() == 2 {
            Self::diagonal(epsilon, log_alpha, centres, spreads.into_dimensionality().expect("two axes"))
        } else {
            let spreads: Array3<f64> = spreads.into_dimensionality().expect("three axes");
            Self::full(epsilon, log_alpha, centres, spreads.view())
        };
        bridge.map_err(|e| bad(e.to_string()))
    }

    pub(super) fn same_dim(&self, name: &str, x: ArrayView2<'_, f64>) -> Result<()> {
        if x.ncols() != self.dim() {
            return Err(Error::input(
                name,
                format!("has {} columns; the bridge has dimension {}", x.ncols(), self.dim()),
            ));
        }
        if x.nrows() == 0 {
            return Err(Error::input(name, "has no rows"));
        }
        Ok(())
    }
}

/// Σ ln xᵢ, eight at a time in vector registers.
fn sum_of_logs(values: &[f64]) -> f64 {
    let mut block = [1.0; 8];
    let mut sum = 0.0;
    for part in values.chunks(8) {
        block[..part.len()].copy_from_slice(part);
        vector::ln(&mut block[..part.len()]);
        sum += block[..part.len()].iter().sum::<f64>();
    }
    sum
}

/// Draws an index from weights that sum to one, by inversion at `u` in [0, 1).
pub(super) fn draw(weights: ArrayView1<'_, f64>, u: f64) -> usize {
    let mut rest = u;
    let mut last = 0;
    for (k, &w) in weights.iter().enumerate() {
        if w > 0.0 {
            last = k;
            if rest < w {
                break;
            }
        }
        rest -= w;
    }
    last
}

/// Work on the rows of a matrix in parallel, each with its index.
pub(super) fn for_each_row(matrix: &mut Array2<f64>, work: impl Fn(usize, ndarray::ArrayViewMut1<'_, f64>) + Sync) {
    matrix.axis_iter_mut(Axis(0)).into_par_iter().enumerate().with_min_len(64).for_each(|(i, row)| work(i, row));
}
