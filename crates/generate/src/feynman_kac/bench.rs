//! Weighted simulation beside the same in numpy, and drawing by weights beside `particles`.

use super::examples::line;
use super::run::FeynmanKac;
use super::{Corrector, Expert, Product, Scheme, Settings, When};
use crate::{Grid, Schedule};
use ndarray::Array1;
use offprint_core::Result;
use offprint_core::bench::{Agreement, Bench, Case};
use offprint_core::random::Streams;
use rand::RngExt;
use serde_json::json;

/// Mild enough that the answer's noise is small.
const BETA: f64 = 1.5;

impl Bench for FeynmanKac {
    fn cases(seed: u64) -> Result<Vec<Case>> {
        Ok(vec![
            annealing(seed)?,
            systematic(seed, "systematic-4096", 4096),
            systematic(seed, "systematic-1m", 1_000_000),
        ])
    }
}

/// Annealing of two modes on the line; the answer is the mass of the right one.
fn annealing(seed: u64) -> Result<Case> {
    let (particles, steps) = (4096, 400);
    let model = line()?;
    let grid = Grid::karras(&Schedule::Edm, steps, 0.01, 20.0, 7.0)?;
    let levels: Vec<f64> = grid.nodes().iter().map(|n| n.tau).collect();
    let mixture = model.mixture();
    let inputs = vec![
        ("levels", levels.into()),
        ("weights", mixture.weights().to_owned().into()),
        ("means", mixture.means().to_owned().into()),
        ("variances", Array1::from_shape_fn(mixture.weights().len(), |k| mixture.covariance(k)[[0, 0]]).into()),
    ];
    let settings = json!({ "beta": BETA, "particles": particles, "seed": seed });
    let work = move || {
        let target = Product::annealed(Expert::known(&model, BETA)?)?;
        let corrector = Corrector::new(Settings { when: When::BelowEss(0.5), ..Settings::default() });
        let found = corrector.run(&target, particles, &grid, Streams::new(seed))?;
        Ok(vec![found.expectation(|y| f64::from(u8::from(y[0] > 0.0)))])
    };
    Ok(Case {
        name: "annealing",
        says: format!("annealing of two modes on the line to β = {BETA}, {particles} particles, {steps} steps"),
        inputs,
        settings,
        work: Box::new(work),
        // Two independent Monte Carlo estimates.
        agreement: Agreement::Within(0.08),
        goal: None,
    })
}

/// Systematic drawing of as many particles as there are; the answer is the mean index, as a part of all.
fn systematic(seed: u64, name: &'static str, particles: usize) -> Case {
    let stream = Streams::new(seed).stream("bench weights");
    let mut rng = stream.rng(0);
    let mut weights: Vec<f64> = (0..particles).map(|_| rng.random::<f64>().powi(4)).collect();
    let total: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|w| *w /= total);
    let inputs = vec![("weights", weights.clone().into())];
    let work = move || {
        let drawn = Scheme::Systematic.draw(&weights, particles, &mut stream.rng(1));
        Ok(vec![drawn.iter().sum::<usize>() as f64 / (particles as f64).powi(2)])
    };
    Case {
        name,
        says: format!("systematic drawing of {particles} particles by their weights"),
        inputs,
        settings: json!({}),
        work: Box::new(work),
        agreement: Agreement::Within(1e-3),
        goal: None,
    }
}
