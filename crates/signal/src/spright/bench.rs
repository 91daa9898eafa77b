//! Workloads timed beside the peers: numpy's vectorised butterfly for the full transform, the package
//! `sparse-transform` (by some of the authors' group) for the sparse one.

use super::functions::{Function, Noisy, SparseFunction};
use super::{Hashing, Noise, Settings, Spright, Table, transform};
use offprint_core::bench::{Agreement, Bench, Case};
use offprint_core::random::Streams;
use offprint_core::{Progress, Result};
use offprint_math::walsh_hadamard::walsh_hadamard;
use serde_json::json;

impl Bench for Spright {
    fn cases(seed: u64) -> Result<Vec<Case>> {
        Ok(vec![full_transform(seed, 22), sparse_transform(seed, 20, 100), sparse_beside_full(seed, 24, 100)])
    }
}

/// A function with K coefficients of modulus 1 to 2, and its table of noisy values.
fn example(seed: u64, bits: u32, sparsity: usize, sigma: f64) -> (SparseFunction, Vec<f64>) {
    let mut rng = Streams::new(seed).stream("bench").rng(0);
    let signs = SparseFunction::random_signs(bits, sparsity, 1.0, &mut rng).spectrum();
    let sizes = (0..sparsity).map(|i| 1.0 + i as f64 / sparsity as f64);
    let function = SparseFunction::new(bits, signs.into_iter().zip(sizes).map(|((k, x), size)| (k, x * size)));
    let table = Noisy { function: &function, sigma, seed }.table();
    (function, table)
}

/// The values at the true indices: few numbers that are wrong if anything is.
fn at(truth: &[(u64, f64)], value: impl Fn(u64) -> f64) -> Vec<f64> {
    truth.iter().map(|t| value(t.0)).collect()
}

fn full_transform(seed: u64, bits: u32) -> Case {
    let (function, table) = example(seed, bits, 16, 0.1);
    let truth = function.spectrum();
    let indices: Vec<u64> = truth.iter().map(|t| t.0).collect();
    let input = table.clone();
    let mut work = table.clone();
    Case {
        name: "full-transform",
        says: format!("Copy 2^{bits} doubles and transform them in place."),
        inputs: vec![("table", table.into()), ("indices", indices.into())],
        settings: json!({}),
        work: Box::new(move || {
            work.copy_from_slice(&input);
            walsh_hadamard(&mut work);
            Ok(at(&truth, |k| work[k as usize] / work.len() as f64))
        }),
        agreement: Agreement::Within(1e-9),
        goal: Some(1.0 / 3.0),
    }
}

/// Standard deviation of the noise.
const SIGMA: f64 = 1.0;

/// The settings of the sparse cases: b = 7, three random hashes, nine random delays.
fn settings(bits: u32, sparsity: usize, sigma: f64) -> Settings {
    Settings {
        hashing: Hashing::Random,
        noise: Noise::Known(sigma),
        bin_bits: Some(7),
        ..Settings::new(bits, sparsity)
    }
}

fn sparse_transform(seed: u64, bits: u32, sparsity: usize) -> Case {
    Case {
        name: "sparse-transform",
        says: format!("{sparsity} coefficients of 2^{bits} noisy values in memory, from look-ups to the spectrum."),
        settings: json!({"bits": bits, "bin_bits": 7, "groups": 3, "delays": 9, "sigma": SIGMA}),
        // Each side draws its own delays; a coefficient's standard error is about 0.01.
        agreement: Agreement::Within(0.1),
        ..sparse_beside_full(seed, bits, sparsity)
    }
}

fn sparse_beside_full(seed: u64, bits: u32, sparsity: usize) -> Case {
    let (function, table) = example(seed, bits, sparsity, SIGMA);
    let truth = function.spectrum();
    let indices: Vec<u64> = truth.iter().map(|t| t.0).collect();
    let input = table.clone();
    let settings = settings(bits, sparsity, SIGMA);
    Case {
        name: "sparse-beside-full",
        says: format!("{sparsity} coefficients of 2^{bits} noisy values in memory; the peer transforms all of them."),
        inputs: vec![("table", table.into()), ("indices", indices.into())],
        settings: json!({}),
        work: Box::new(move || sparse(&input, &settings, seed, &truth)),
        agreement: Agreement::Within(0.1),
        goal: Some(1.0 / 50.0),
    }
}

fn sparse(table: &[f64], settings: &Settings, seed: u64, truth: &[(u64, f64)]) -> Result<Vec<f64>> {
    let mut query = Table::new::<f64>(table, "table")?;
    let found = transform(&mut query, settings, Streams::new(seed).stream("design"), &Progress::silent())?;
    Ok(at(truth, |k| found.coefficients.iter().find(|c| c.index == k).map_or(0.0, |c| c.value)))
}
