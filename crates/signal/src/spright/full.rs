//! The baseline that looks at everything: the full fast transform, N log₂N additions.

use super::bins::not_finite;
use super::query::Query;
use super::settings::{Noise, Settings};
use super::value::Value;
use super::{Coefficient, Recovery};
use offprint_core::{Error, Progress, Result};
use rayon::prelude::*;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Up to this many bits: 2³⁰ values of 8 bytes.
pub const MOST_BITS: u32 = 30;
/// Values asked for at a time.
const BATCH: usize = 1 << 16;

/// All N values, by one in-place transform divided by N.
///
/// # Errors
/// More than 2³⁰ values, a value that is not finite, a query that fails.
pub fn spectrum<T: Value>(query: &mut dyn Query<T>, bits: u32, progress: &Progress) -> Result<Vec<T>> {
    if bits > MOST_BITS {
        return Err(Error::parameter("bits", bits, format!("at most {MOST_BITS} for the full transform")));
    }
    let count = 1usize << bits;
    let mut values = vec![T::default(); count];
    if !query.copy_all(&mut values) {
        ask_for_all(query, &mut values, progress)?;
    }
    if let Some(i) = values.par_iter().position_first(|v| !v.is_finite()) {
        return Err(not_finite(i as u64, values[i]));
    }
    progress.check()?;
    T::transform(&mut values);
    let scale = 1.0 / count as f64;
    values.par_iter_mut().for_each(|x| *x = x.scaled(scale));
    Ok(values)
}

fn ask_for_all<T: Value>(query: &mut dyn Query<T>, values: &mut [T], progress: &Progress) -> Result<()> {
    let mut indices = Vec::with_capacity(BATCH.min(values.len()));
    progress.begin("reading all values", values.len() as u64);
    for (batch, values) in values.chunks_mut(BATCH).enumerate() {
        indices.clear();
        indices.extend((0..values.len()).map(|i| (batch * BATCH + i) as u64));
        query.query(&indices, values)?;
        progress.advance(values.len() as u64)?;
    }
    progress.finish();
    Ok(())
}

/// The K largest coefficients.
pub fn recover<T: Value>(query: &mut dyn Query<T>, settings: &Settings, progress: &Progress) -> Result<Recovery<T>> {
    let spectrum = spectrum(query, settings.bits, progress)?;
    let count = spectrum.len();
    // Noise of variance σ² on the values is noise of variance σ²/N on the spectrum, where most coefficients are noise.
    let sigma = match settings.noise {
        Noise::Known(sigma) => sigma,
        Noise::Estimated => {
            let mut sizes: Vec<f64> = spectrum.iter().map(|x| x.modulus()).collect();
            let (_, &mut median, _) = sizes.select_nth_unstable_by(count / 2, f64::total_cmp);
            // The median modulus of a standard normal number.
            median / 0.674_489_750_196_081_7 * (count as f64).sqrt()
        }
    };
    let largest = largest(&spectrum, settings.sparsity);
    let top = largest.first().map_or(0.0, |x| x.1.modulus());
    let error = sigma / (count as f64).sqrt();
    let limit = (3.0 * error).max(settings.tolerance * top);
    let kept: Vec<(u64, T)> = largest.into_iter().filter(|x| x.1.modulus() > limit).collect();
    let energy: f64 = spectrum.iter().map(|x| x.norm_squared()).sum();
    let explained: f64 = kept.iter().map(|x| x.1.norm_squared()).sum();
    Ok(Recovery {
        coefficients: kept.into_iter().map(|(index, value)| Coefficient { index, value, error }).collect(),
        sigma,
        limit,
        queries: count,
        passes: Vec::new(),
        unresolved: 0,
        residual: if energy > 0.0 { ((energy - explained) / energy).max(0.0) } else { 0.0 },
    })
}

/// The `count` entries of largest modulus, largest first.
pub fn largest<T: Value>(spectrum: &[T], count: usize) -> Vec<(u64, T)> {
    /// By size, the later index being the smaller.
    #[derive(PartialEq)]
    struct Entry(f64, usize);
    impl Eq for Entry {}
    impl PartialOrd for Entry {
        fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
            Some(self.cmp(other))
        }
    }
    impl Ord for Entry {
        fn cmp(&self, other: &Self) -> Ordering {
            // Reversed: the heap gives up its smallest.
            other.0.total_cmp(&self.0).then(self.1.cmp(&other.1))
        }
    }
    let mut heap = BinaryHeap::with_capacity(count + 1);
    let mut smallest = -1.0;
    for (k, x) in spectrum.iter().enumerate() {
        let size = x.norm_squared();
        if heap.len() == count && size <= smallest {
            continue;
        }
        heap.push(Entry(size, k));
        if heap.len() > count {
            heap.pop();
        }
        if heap.len() == count {
            smallest = heap.peek().map_or(-1.0, |e| e.0);
        }
    }
    heap.into_sorted_vec().into_iter().map(|e| (e.1 as u64, spectrum[e.1])).collect()
}
