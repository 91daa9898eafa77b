#![doc = include_str!("README.md")]

pub mod bench;
pub mod bins;
pub mod code;
pub mod design;
pub mod detect;
pub mod full;
pub mod functions;
pub mod gf2;
pub mod noise;
pub mod peel;
pub mod pursuit;
pub mod query;
pub mod run;
pub mod settings;
pub mod study;
pub mod value;

use bins::Bins;
use design::Design;
use detect::Detector;
use offprint_core::random::Stream;
use offprint_core::{Progress, Result};
pub use peel::Pass;
pub use query::{Measurements, Query, Returning, Table};
pub use run::{Params, Spright};
pub use settings::{Algorithm, Hashing, Noise, Settings};
pub use value::Value;

/// A coefficient that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Coefficient<T = f64> {
    /// k: bit i says whether the i-th argument takes part.
    pub index: u64,
    /// The estimate of X\[k\].
    pub value: T,
    /// Its standard error.
    pub error: f64,
}

/// A sparse spectrum, and how far to trust it.
#[derive(Debug, Clone)]
pub struct Recovery<T = f64> {
    /// What was found, largest first.
    pub coefficients: Vec<Coefficient<T>>,
    /// σ: the noise on one value, as known or estimated.
    pub sigma: f64,
    /// Coefficients smaller than this are lost in noise.
    pub limit: f64,
    /// Values looked at; those that several groups share count each time.
    pub queries: usize,
    /// The passes of peeling; empty for baselines that do not peel.
    pub passes: Vec<Pass>,
    /// Bins that still hold more than noise.
    pub unresolved: usize,
    /// Share of the energy that is not explained: noise, and what was not resolved.
    pub residual: f64,
}

impl<T: Value> Recovery<T> {
    /// Whether nothing but noise is left. If not, coefficients are missing: take more bins.
    pub fn is_complete(&self) -> bool {
        self.unresolved == 0
    }

    /// The value of the recovered function at m.
    pub fn evaluate(&self, m: u64) -> T {
        let mut sum = T::default();
        self.coefficients.iter().for_each(|c| sum += c.value.signed(gf2::odd(m, c.index)));
        sum
    }
}

/// The sparse Walsh–Hadamard transform of the function behind `query`.
///
/// Random choices (hashing, delays, samples) come from `stream`: the same stream and settings look at the same values.
///
/// ```
/// use offprint_core::{Progress, random::Streams};
/// use offprint_signal::spright::{Settings, transform};
///
/// // f(m) = 3 (−1)^{m₀ + m₃₉} − 2 (−1)^{m₇} on 40 bits: a table of its values would have 10¹² entries.
/// let mut f = |indices: &[u64], values: &mut [f64]| {
///     for (v, m) in values.iter_mut().zip(indices) {
///         let sign = |k: u64| if (m & k).count_ones() % 2 == 0 { 1.0 } else { -1.0 };
///         *v = 3.0 * sign(1 | 1 << 39) - 2.0 * sign(1 << 7);
///     }
/// };
/// let found = transform(&mut f, &Settings::new(40, 4), Streams::new(0).stream("design"), &Progress::silent())?;
/// assert_eq!(found.coefficients.iter().map(|c| c.index).collect::<Vec<_>>(), [1 | 1 << 39, 1 << 7]);
/// assert!((found.coefficients[1].value + 2.0).abs() < 1e-9);
/// # Ok::<(), offprint_core::Error>(())
/// ```
///
/// # Errors
/// Settings out of range; a query that fails; a value that is not finite.
pub fn transform<T: Value>(
    query: &mut dyn Query<T>,
    settings: &Settings,
    stream: Stream,
    progress: &Progress,
) -> Result<Recovery<T>> {
    settings.check()?;
    match settings.algorithm {
        Algorithm::Full => full::recover(query, settings, progress),
        Algorithm::Omp | Algorithm::Lasso => pursuit::recover(query, settings, stream, progress),
        _ => {
            let design = Design::draw(settings, stream)?;
            let bins = Bins::observe(&design, query)?;
            recover(&design, bins, settings, progress)
        }
    }
}

/// The indices whose values [`transform`] will ask for, ascending.
///
/// # Errors
/// Settings out of range; the full transform, which needs all.
pub fn plan(settings: &Settings, stream: Stream) -> Result<Vec<u64>> {
    settings.check()?;
    match settings.algorithm {
        Algorithm::Full if settings.bits > full::MOST_BITS => {
            let allowed = format!("at most {} for the full transform", full::MOST_BITS);
            Err(offprint_core::Error::parameter("bits", settings.bits, allowed))
        }
        Algorithm::Full => Ok((0..1 << settings.bits).collect()),
        Algorithm::Omp | Algorithm::Lasso => pursuit::sample(settings, stream),
        _ => Ok(Design::draw(settings, stream)?.indices()),
    }
}

/// Recovers the spectrum from observed bins.
///
/// # Errors
/// The user asked to stop.
pub fn recover<T: Value>(
    design: &Design,
    mut bins: Bins<T>,
    settings: &Settings,
    progress: &Progress,
) -> Result<Recovery<T>> {
    let sigma = noise::deviation(design, &bins, settings);
    let mut detector = Detector::new(settings, sigma, bins.largest);
    let peeled = peel::peel(design, &mut bins, &mut detector, settings, progress)?;
    let error = if settings.algorithm.is_noiseless() { 0.0 } else { peel::error(design, &detector) };
    let mut coefficients: Vec<Coefficient<T>> =
        peeled.found.into_iter().map(|(index, value)| Coefficient { index, value, error }).collect();
    sort(&mut coefficients);
    Ok(Recovery {
        coefficients,
        sigma: if settings.algorithm.is_noiseless() { 0.0 } else { sigma },
        limit: design.groups.iter().map(|g| detector.limit(g)).fold(0.0, f64::max),
        queries: design.queries(),
        passes: peeled.passes,
        unresolved: peeled.unresolved,
        residual: peeled.residual,
    })
}

/// Largest first; the smaller index of equals.
fn sort<T: Value>(coefficients: &mut [Coefficient<T>]) {
    coefficients.sort_by(|a, b| b.value.modulus().total_cmp(&a.value.modulus()).then(a.index.cmp(&b.index)));
}
