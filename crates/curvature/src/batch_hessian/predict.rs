//! λ₁ and λ_P of a batch, predicted from the spectrum of all data.

use super::spiked::{AdditiveNoise, MultiplicativeNoise};
use super::{Ends, Whole};

/// A random-matrix law for the matrix of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Law {
    /// H plus symmetric noise of variance s²/𝔟, for eigenvalues that stand out of a spectrum at zero.
    Additive,
    /// The same noise, with the rest of H's spectrum in the way (free convolution, by subordination).
    FieldDependent,
    /// A covariance of few samples, for generalised Gauss–Newton and Fisher matrices. It needs no s²: the variance follows
    /// from the mean eigenvalue, the ratio is P/𝔟. Its lower end is that of the bulk.
    Multiplicative,
}

impl Law {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Additive, Self::FieldDependent, Self::Multiplicative];

    /// Its name in tables and figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Additive => "additive",
            Self::FieldDependent => "field-dependent",
            Self::Multiplicative => "multiplicative",
        }
    }
}

/// What the laws need to know of the matrix of all data.
#[derive(Debug, Clone, PartialEq)]
pub struct Population {
    /// P.
    pub dim: usize,
    /// λ₁.
    pub top: f64,
    /// λ_P.
    pub bottom: f64,
    /// Σ λ_i.
    pub trace: f64,
    /// The spectrum as `(place, weight)`, weights of sum 1.
    pub spectrum: Vec<(f64, f64)>,
}

/// Places this close to a spike, relative to it, are the spike's own and not what is in its way.
const OWN: f64 = 0.02;

impl Population {
    /// From what Lanczos found.
    pub fn of<T>(whole: &Whole<T>) -> Self {
        let probes = whole.spectrum.probes.len() as f64;
        let pooled = whole.spectrum.probes.iter().flat_map(|(nodes, weights)| nodes.iter().zip(weights));
        Self {
            dim: whole.spectrum.dim,
            top: whole.ends.top,
            bottom: whole.ends.bottom,
            trace: whole.spectrum.trace().value,
            spectrum: pooled.map(|(&node, weight)| (node, weight / probes)).collect(),
        }
    }

    /// From all eigenvalues, ascending.
    ///
    /// # Panics
    /// If there is none.
    pub fn of_eigenvalues(values: &[f64]) -> Self {
        let weight = 1.0 / values.len() as f64;
        Self {
            dim: values.len(),
            top: values[values.len() - 1],
            bottom: values[0],
            trace: values.iter().sum(),
            spectrum: values.iter().map(|&value| (value, weight)).collect(),
        }
    }

    /// (λ₁′, λ_P′) of a batch of effective size `effective`, for noise of variance `variance` = s².
    pub fn predict(&self, law: Law, variance: f64, effective: f64) -> Ends {
        let noise = AdditiveNoise { variance: variance.max(0.0) / effective };
        if effective.is_infinite() {
            return Ends { top: self.top, bottom: self.bottom, residual: 0.0 };
        }
        let (top, bottom) = match law {
            // A lower end above zero is no spike below the rest: noise takes it to its own edge, if that is lower.
            Law::Additive => (noise.spike(self.top), noise.spike(self.bottom.min(-0.0)).min(self.bottom)),
            Law::FieldDependent => {
                let below: Vec<_> = self.spectrum.iter().map(|(place, weight)| (-place, *weight)).collect();
                (end_over(noise, self.top, &self.spectrum), -end_over(noise, -self.bottom, &below))
            }
            Law::Multiplicative => {
                let noise = MultiplicativeNoise { ratio: self.dim as f64 / effective, variance: self.bulk_variance() };
                (noise.spike(self.top), noise.lower_edge())
            }
        };
        Ends { top, bottom, residual: 0.0 }
    }

    /// The squared overlap of a batch's top eigenvector with that of all data, by the additive law.
    pub fn overlap(&self, variance: f64, effective: f64) -> f64 {
        AdditiveNoise { variance: variance.max(0.0) / effective }.overlap(self.top)
    }

    /// The mean eigenvalue without the largest.
    fn bulk_variance(&self) -> f64 {
        ((self.trace - self.top) / (self.dim as f64 - 1.0).max(1.0)).max(0.0)
    }
}

/// Where the largest eigenvalue `lambda` of `spectrum` goes.
fn end_over(noise: AdditiveNoise, lambda: f64, spectrum: &[(f64, f64)]) -> f64 {
    let others: Vec<_> =
        spectrum.iter().filter(|(place, _)| (place - lambda).abs() > OWN * lambda.abs()).copied().collect();
    let total: f64 = others.iter().map(|(_, weight)| weight).sum();
    // Nothing but the spike: a multiple of the identity.
    if total <= 0.0 {
        return lambda + noise.edge();
    }
    let rest: Vec<_> = others.iter().map(|(place, weight)| (*place, weight / total)).collect();
    noise.spike_over(lambda, &rest).unwrap_or_else(|| noise.edge_over(&rest))
}
