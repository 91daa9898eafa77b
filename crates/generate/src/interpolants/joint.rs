//! Gaussian mixtures of pairs (x₀, x₁): couplings whose bridges are known in closed form.

use crate::exact::{Covariances, ExactMixture, Mixture};
use ndarray::{Array1, Array2, Array3, ArrayView2, Axis, concatenate, s};
use offprint_core::random::Stream;
use offprint_core::{Error, Result};
use offprint_math::linalg;
use offprint_transport::lightsb::gaussian::gaussian_plan;

/// A law of pairs (x₀, x₁), each of dimension d: a Gaussian mixture in 2d dimensions.
#[derive(Debug, Clone)]
pub struct Joint {
    pairs: Mixture,
    starts: Mixture,
    ends: Mixture,
}

impl Joint {
    /// x₀ and x₁ drawn independently: one component for each pair of components.
    ///
    /// # Errors
    /// Mixtures of different dimension; the error names both shapes.
    pub fn independent(starts: &Mixture, ends: &Mixture) -> Result<Self> {
        let d = same_dimension(starts, ends)?;
        let (k0, k1) = (starts.means().nrows(), ends.means().nrows());
        let (mut weights, mut means) = (Array1::zeros(k0 * k1), Array2::zeros((k0 * k1, 2 * d)));
        let mut covariances = Array3::zeros((k0 * k1, 2 * d, 2 * d));
        for (i, j) in (0..k0).flat_map(|i| (0..k1).map(move |j| (i, j))) {
            let k = i * k1 + j;
            weights[k] = starts.weights()[i] * ends.weights()[j];
            means.slice_mut(s![k, ..d]).assign(&starts.means().row(i));
            means.slice_mut(s![k, d..]).assign(&ends.means().row(j));
            covariances.slice_mut(s![k, ..d, ..d]).assign(&starts.covariance(i));
            covariances.slice_mut(s![k, d.., d..]).assign(&ends.covariance(j));
        }
        let total = weights.sum();
        let pairs = Mixture::new(weights / total, means, Covariances::Full(covariances))?;
        Ok(Self { pairs, starts: starts.clone(), ends: ends.clone() })
    }

    /// From pairs given as a mixture in 2d dimensions, x₀ first.
    ///
    /// # Errors
    /// An odd dimension.
    pub fn new(pairs: Mixture) -> Result<Self> {
        let twice = pairs.means().ncols();
        if !twice.is_multiple_of(2) {
            return Err(Error::input("pairs", format!("have dimension {twice}; x0 and x1 side by side make it even")));
        }
        let d = twice / 2;
        let side = |range: std::ops::Range<usize>| {
            let count = pairs.weights().len();
            let mut covariances = Array3::zeros((count, d, d));
            for k in 0..count {
                let whole = pairs.covariance(k);
                covariances.slice_mut(s![k, .., ..]).assign(&whole.slice(s![range.clone(), range.clone()]));
            }
            let means = pairs.means().slice(s![.., range]).to_owned();
            Mixture::new(pairs.weights().to_owned(), means, Covariances::Full(covariances))
        };
        let (starts, ends) = (side(0..d)?, side(d..twice)?);
        Ok(Self { pairs, starts, ends })
    }

    /// The entropic plan between two Gaussians: the ends of the Schrödinger bridge whose prior is Brownian motion of
    /// variance `epsilon` per unit of time.
    ///
    /// # Errors
    /// Mixtures of more than one component or of different dimension, ε that is not positive.
    pub fn entropic(start: &Mixture, end: &Mixture, epsilon: f64) -> Result<Self> {
        let d = same_dimension(start, end)?;
        if start.weights().len() != 1 || end.weights().len() != 1 {
            let given = format!("{} and {} components", start.weights().len(), end.weights().len());
            return Err(Error::parameter(
                "mixtures",
                given,
                "single Gaussians: only their plan is known in closed form",
            ));
        }
        crate::check::positive("epsilon", epsilon)?;
        let (c0, c1) = (start.covariance(0), end.covariance(0));
        let (m0, m1) = (start.means(), end.means());
        let plan = gaussian_plan(m0.row(0), c0.view(), m1.row(0), c1.view(), epsilon)?;
        let cross = linalg::matmul(c0.view(), plan.gain.t());
        let mut covariance = Array3::zeros((1, 2 * d, 2 * d));
        covariance.slice_mut(s![0, ..d, ..d]).assign(&c0);
        covariance.slice_mut(s![0, d.., d..]).assign(&c1);
        covariance.slice_mut(s![0, ..d, d..]).assign(&cross);
        covariance.slice_mut(s![0, d.., ..d]).assign(&cross.t());
        let means = concatenate![Axis(1), m0, m1];
        let pairs = Mixture::new(Array1::ones(1), means, Covariances::Full(covariance))?;
        Ok(Self { pairs, starts: start.clone(), ends: end.clone() })
    }

    /// Dimension d of each side.
    pub fn dim(&self) -> usize {
        self.starts.means().ncols()
    }

    /// The pairs as a mixture in 2d dimensions.
    pub fn pairs(&self) -> &Mixture {
        &self.pairs
    }

    /// The law of x₀.
    pub fn starts(&self) -> &Mixture {
        &self.starts
    }

    /// The law of x₁.
    pub fn ends(&self) -> &Mixture {
        &self.ends
    }

    /// `n` pairs: x₀ (n, d) and x₁ (n, d). Pair i comes from generator i of `stream`.
    pub fn sample(&self, n: usize, stream: Stream) -> Result<(Array2<f64>, Array2<f64>)> {
        let (pairs, _) = ExactMixture::new(self.pairs.clone())?.sample(n, stream);
        let side = |pairs: ArrayView2<'_, f64>| pairs.to_owned();
        let d = self.dim();
        Ok((side(pairs.slice(s![.., ..d])), side(pairs.slice(s![.., d..]))))
    }
}

fn same_dimension(starts: &Mixture, ends: &Mixture) -> Result<usize> {
    let (d0, d1) = (starts.means().ncols(), ends.means().ncols());
    if d0 == d1 {
        return Ok(d0);
    }
    let shapes = (starts.means().dim(), ends.means().dim());
    Err(Error::input(
        "mixtures",
        format!("have means of shapes {:?} and {:?}: both need one dimension", shapes.0, shapes.1),
    ))
}
