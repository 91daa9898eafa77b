//! The baselines of compressed sensing: orthogonal matching pursuit and LASSO on random samples.
//!
//! Both see y = A X + noise with the rows of the Hadamard matrix at S random indices, so A v and Aᵀ r are fast
//! transforms of length N. That is what they cost: time and memory grow with N, not with log N.

use super::bins::not_finite;
use super::full::largest;
use super::gf2::sign;
use super::query::Query;
use super::settings::{Algorithm, Noise, Settings};
use super::value::Value;
use super::{Coefficient, Recovery};
use ndarray::Array2;
use offprint_core::random::Stream;
use offprint_core::{Error, Progress, Result};
use offprint_math::linalg::solve;
use rand::RngExt;
use std::collections::BTreeSet;

/// Up to this many bits: each iteration transforms 2ⁿ values.
const MOST_BITS: u32 = 20;
/// Steps of the accelerated proximal gradient method.
const STEPS: usize = 2000;
/// It stops when no coefficient moves by more than this, relative to the largest.
const TOLERANCE: f64 = 1e-9;
/// λ relative to the smallest that gives nothing, where the noise is not known.
const PENALTY: f64 = 0.1;

/// The S random indices, ascending.
pub fn sample(settings: &Settings, stream: Stream) -> Result<Vec<u64>> {
    let n = settings.bits;
    if n > MOST_BITS {
        let problem = format!("at most {MOST_BITS} for omp and lasso, whose every step transforms all 2ⁿ values");
        return Err(Error::parameter("bits", n, problem));
    }
    let count = 1usize << n;
    let samples = settings.samples.unwrap_or((2 * settings.sparsity * n as usize).min(count));
    if samples > count || samples < settings.sparsity {
        let allowed = format!("between the sparsity {} and the {count} values", settings.sparsity);
        return Err(Error::parameter("samples", samples, allowed));
    }
    let mut rng = stream.rng(0);
    let mut indices = BTreeSet::new();
    // The rarer half is drawn.
    let few = samples.min(count - samples);
    while indices.len() < few {
        indices.insert(rng.random_range(0..count as u64));
    }
    if few == samples {
        return Ok(indices.into_iter().collect());
    }
    Ok((0..count as u64).filter(|i| !indices.contains(i)).collect())
}

/// Recovers the spectrum from random samples.
pub fn recover<T: Value>(
    query: &mut dyn Query<T>,
    settings: &Settings,
    stream: Stream,
    progress: &Progress,
) -> Result<Recovery<T>> {
    let indices = sample(settings, stream)?;
    let mut values = vec![T::default(); indices.len()];
    query.query(&indices, &mut values)?;
    if let Some(i) = values.iter().position(|v| !v.is_finite()) {
        return Err(not_finite(indices[i], values[i]));
    }
    let problem = Problem { indices, values, count: 1 << settings.bits };
    let (support, x) = if settings.algorithm == Algorithm::Omp {
        problem.matching_pursuit(settings, progress)?
    } else {
        problem.lasso(settings, progress)?
    };
    let residual = problem.residual(&support, &x);
    let left: f64 = residual.iter().map(|r| r.norm_squared()).sum();
    let all: f64 = problem.values.iter().map(|v| v.norm_squared()).sum();
    let sigma = match settings.noise {
        Noise::Known(sigma) => sigma,
        Noise::Estimated => (left / (residual.len().saturating_sub(support.len()).max(1)) as f64).sqrt(),
    };
    let error = sigma / (residual.len() as f64).sqrt();
    let limit = (3.0 * error).max(settings.tolerance * x.iter().fold(0.0, |l, x| x.modulus().max(l)));
    let mut coefficients: Vec<Coefficient<T>> = support
        .into_iter()
        .zip(x)
        .filter(|(_, x)| x.modulus() > limit)
        .map(|(index, value)| Coefficient { index, value, error })
        .collect();
    super::sort(&mut coefficients);
    Ok(Recovery {
        coefficients,
        sigma,
        limit,
        queries: residual.len(),
        passes: Vec::new(),
        unresolved: 0,
        residual: if all > 0.0 { left / all } else { 0.0 },
    })
}

struct Problem<T> {
    indices: Vec<u64>,
    values: Vec<T>,
    /// N.
    count: usize,
}

impl<T: Value> Problem<T> {
    /// Aᵀ r, into `out` of length N.
    fn correlate(&self, r: &[T], out: &mut Vec<T>) {
        out.clear();
        out.resize(self.count, T::default());
        self.indices.iter().zip(r).for_each(|(&m, &r)| out[m as usize] = r);
        T::transform(out);
    }

    /// y − A X for X with a small support.
    fn residual(&self, support: &[u64], x: &[T]) -> Vec<T> {
        let fitted = |m: u64| {
            let mut sum = T::default();
            support.iter().zip(x).for_each(|(&k, x)| sum += x.scaled(sign(m, k)));
            sum
        };
        self.indices.iter().zip(&self.values).map(|(&m, &y)| y - fitted(m)).collect()
    }

    /// The coefficients on `support` that fit the samples best.
    fn least_squares(&self, support: &[u64]) -> Result<Vec<T>> {
        let size = support.len();
        // ⟨a_k, a_l⟩ is the sum of (−1)^{⟨m, k ⊕ l⟩} over the samples.
        let inner =
            |i: usize, j: usize| -> f64 { self.indices.iter().map(|&m| sign(m, support[i] ^ support[j])).sum() };
        let mut gram = Array2::zeros((size, size));
        for i in 0..size {
            for j in 0..=i {
                let g = inner(i, j);
                (gram[(i, j)], gram[(j, i)]) = (g, g);
            }
        }
        let mut right = Array2::zeros((size, 2));
        for (i, &k) in support.iter().enumerate() {
            for (&m, y) in self.indices.iter().zip(&self.values) {
                let (re, im) = y.scaled(sign(m, k)).parts();
                right[(i, 0)] += re;
                right[(i, 1)] += im;
            }
        }
        let x = solve(gram.view(), right.view())?;
        Ok((0..size).map(|i| T::from_parts(x[(i, 0)], x[(i, 1)])).collect())
    }

    /// Adds the index that correlates most with the residual, fits again, K times.
    fn matching_pursuit(&self, settings: &Settings, progress: &Progress) -> Result<(Vec<u64>, Vec<T>)> {
        let (mut support, mut x) = (Vec::new(), Vec::new());
        let mut correlation = Vec::new();
        let enough = settings.tolerance * self.values.iter().fold(0.0, |l, v| v.modulus().max(l));
        progress.begin("matching pursuit", settings.sparsity as u64);
        for _ in 0..settings.sparsity {
            progress.advance(1)?;
            let residual = self.residual(&support, &x);
            if residual.iter().all(|r| r.modulus() <= enough) {
                break;
            }
            self.correlate(&residual, &mut correlation);
            support.iter().for_each(|&k: &u64| correlation[k as usize] = T::default());
            let best = largest(&correlation, 1)[0].0;
            support.push(best);
            x = match self.least_squares(&support) {
                Ok(x) => x,
                // With few samples two columns can be the same; the new one adds nothing then.
                Err(Error::Numerical(_)) => {
                    support.pop();
                    break;
                }
                Err(e) => return Err(e),
            };
        }
        progress.finish();
        Ok((support, x))
    }

    /// Minimises ½‖y − A X‖² + λ‖X‖₁ by accelerated proximal gradients (the rows of A are orthogonal with norm √N, so
    /// the step is 1/N exactly), then fits the K largest without penalty.
    fn lasso(&self, settings: &Settings, progress: &Progress) -> Result<(Vec<u64>, Vec<T>)> {
        let n = self.count as f64;
        let mut gradient = Vec::new();
        self.correlate(&self.values, &mut gradient);
        let nothing = gradient.iter().fold(0.0, |l: f64, g| l.max(g.modulus()));
        let lambda = match settings.noise {
            // No correlation with noise is likely to be larger.
            Noise::Known(sigma) if sigma > 0.0 => sigma * (2.0 * self.values.len() as f64 * n.ln()).sqrt(),
            _ => PENALTY * nothing,
        };
        let x = self.minimise(lambda, progress)?;
        let mut support: Vec<u64> =
            largest(&x, settings.sparsity).into_iter().filter(|x| x.1.modulus() > 0.0).map(|x| x.0).collect();
        support.truncate(self.values.len());
        let fitted = if support.is_empty() { Vec::new() } else { self.least_squares(&support)? };
        Ok((support, fitted))
    }

    fn minimise(&self, lambda: f64, progress: &Progress) -> Result<Vec<T>> {
        let n = self.count as f64;
        let mut x = vec![T::default(); self.count];
        let mut ahead = x.clone();
        let mut residual = vec![T::default(); self.values.len()];
        let (mut fitted, mut gradient) = (Vec::new(), Vec::new());
        let mut momentum = 1.0f64;
        progress.begin("LASSO", STEPS as u64);
        for _ in 0..STEPS {
            progress.advance(1)?;
            fitted.clone_from(&ahead);
            T::transform(&mut fitted);
            for ((r, &m), &y) in residual.iter_mut().zip(&self.indices).zip(&self.values) {
                *r = y - fitted[m as usize];
            }
            self.correlate(&residual, &mut gradient);
            let next = (1.0 + (1.0 + 4.0 * momentum * momentum).sqrt()) / 2.0;
            let push = (momentum - 1.0) / next;
            momentum = next;
            let (mut moved, mut size) = (0.0f64, 0.0f64);
            for ((x, ahead), g) in x.iter_mut().zip(&mut ahead).zip(&gradient) {
                let v = *ahead + g.scaled(1.0 / n);
                let length = v.modulus();
                let new = if length > lambda / n { v.scaled(1.0 - lambda / n / length) } else { T::default() };
                let step = new - *x;
                moved = moved.max(step.modulus());
                size = size.max(new.modulus());
                *ahead = new + step.scaled(push);
                *x = new;
            }
            if moved <= TOLERANCE * size {
                break;
            }
        }
        progress.finish();
        Ok(x)
    }
}

/// The minimiser of ½‖y − A X‖² + λ‖X‖₁ over all N coefficients, for samples y at `indices`.
///
/// # Errors
/// The user asked to stop.
pub fn lasso(bits: u32, indices: &[u64], values: &[f64], lambda: f64, progress: &Progress) -> Result<Vec<f64>> {
    Problem { indices: indices.to_vec(), values: values.to_vec(), count: 1 << bits }.minimise(lambda, progress)
}
