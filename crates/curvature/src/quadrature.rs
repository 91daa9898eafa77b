//! Stochastic Lanczos quadrature: the spectrum of an operator as a whole, from products alone.
//!
//! Each random probe gives, by k steps of Lanczos, the Gauss quadrature (nodes θ, weights u₁²) of its spectral measure;
//! their average estimates the density of eigenvalues φ(λ) = 1/n Σ δ(λ − λ_i).

use crate::lanczos::lanczos;
use crate::vector::rademacher;
use crate::{LinearOperator, Real};
use offprint_core::random::Stream;
use offprint_core::{Error, Progress, Result};
use offprint_math::stats::{mean, standard_deviation};

/// An estimated spectrum: weighted nodes for each probe.
#[derive(Debug, Clone, PartialEq)]
pub struct Spectrum {
    /// The number of eigenvalues, n.
    pub dim: usize,
    /// For each probe its nodes (ascending) and weights (of sum 1).
    pub probes: Vec<(Vec<f64>, Vec<f64>)>,
    /// The largest residual of an extreme Ritz value.
    pub residual: f64,
}

/// A number estimated from probes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The mean over probes.
    pub value: f64,
    /// Its standard error; NaN from a single probe.
    pub error: f64,
}

impl Estimate {
    /// From one value a probe.
    pub fn of(values: &[f64]) -> Self {
        Self { value: mean(values), error: standard_deviation(values) / (values.len() as f64).sqrt() }
    }
}

/// The spectrum of `operator` from `probes` sign vectors and `steps` Lanczos steps each.
///
/// # Errors
/// No probe or step; products that fail or are not finite; a stop by `progress`.
pub fn spectrum<T: Real>(
    operator: &impl LinearOperator<T>,
    probes: usize,
    steps: usize,
    stream: Stream,
    progress: &Progress,
) -> Result<Spectrum> {
    if probes == 0 {
        return Err(Error::parameter("probes", probes, "at least 1"));
    }
    let mut found = Vec::with_capacity(probes);
    let mut residual = 0.0f64;
    for probe in 0..probes {
        let start: Vec<T> = rademacher(stream, probe as u64, operator.dim());
        let ritz = lanczos(operator, &start, steps, progress)?.ritz()?;
        residual = residual.max(ritz.top().1).max(ritz.bottom().1);
        found.push((ritz.values, ritz.weights));
    }
    Ok(Spectrum { dim: operator.dim(), probes: found, residual })
}

impl Spectrum {
    /// Σ_i f(λ_i) over all n eigenvalues.
    pub fn sum(&self, f: impl Fn(f64) -> f64) -> Estimate {
        let n = self.dim as f64;
        let each = |(nodes, weights): &(Vec<f64>, Vec<f64>)| {
            n * nodes.iter().zip(weights).map(|(&node, weight)| weight * f(node)).sum::<f64>()
        };
        Estimate::of(&self.probes.iter().map(each).collect::<Vec<_>>())
    }

    /// The trace Σ λ_i.
    pub fn trace(&self) -> Estimate {
        self.sum(|x| x)
    }

    /// The smallest and the largest node.
    pub fn range(&self) -> (f64, f64) {
        let nodes = || self.probes.iter().flat_map(|(nodes, _)| nodes.iter().copied());
        (nodes().fold(f64::INFINITY, f64::min), nodes().fold(f64::NEG_INFINITY, f64::max))
    }

    /// The density of eigenvalues at each place of `at`, smoothed by a Gaussian of standard deviation `width`. Its
    /// integral is 1.
    pub fn density(&self, at: &[f64], width: f64) -> Vec<f64> {
        let height = 1.0 / (width * std::f64::consts::TAU.sqrt() * self.probes.len() as f64);
        let bump = |x: f64| height * (-0.5 * (x / width).powi(2)).exp();
        let pairs = || self.probes.iter().flat_map(|(nodes, weights)| nodes.iter().zip(weights));
        at.iter().map(|x| pairs().map(|(node, weight)| weight * bump(x - node)).sum()).collect()
    }
}
