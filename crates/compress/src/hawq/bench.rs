//! The eigenvalues and traces of all blocks, and PyHessian.

use super::Hawq;
use super::blocks::{Block, partition};
use super::curvature::{Measuring, sensitivities};
use crate::examples::Example;
use offprint_core::bench::{Agreement, Answer, Bench, Case};
use offprint_core::random::Streams;
use offprint_core::{Array, Progress, Result};
use offprint_nn::{Batch, Network, computation};
use serde_json::json;

/// Samples that curvature is measured over.
const SAMPLES: usize = 512;

impl Bench for Hawq {
    fn cases(seed: u64) -> Result<Vec<Case>> {
        let tolerance = 1e-3;
        let eigenvalues = case(
            "eigenvalues",
            "the top eigenvalue of each of the 5 blocks of digits-cnn over 512 images, by power iteration to a change of 1e-3",
            // Both stop by the same rule from other starts: what is left to go differs.
            Agreement::Within(0.05),
            Measuring { probes: 0, tolerance, ..Measuring::default() },
            seed,
        )?;
        let probes = 50;
        let traces = case(
            "traces",
            "the trace of each of the 5 blocks from 50 sign vectors",
            Agreement::Within(0.2),
            // One product for the eigenvalue, which is not asked for; no change is small enough to stop at.
            Measuring { products: 1, probes, tolerance: 1e-300, ..Measuring::default() },
            seed,
        )?;
        Ok(vec![eigenvalues, traces])
    }
}

fn case(name: &'static str, says: &str, agreement: Agreement, measuring: Measuring, seed: u64) -> Result<Case> {
    let subject = Example::DigitsCnn.load()?;
    let (network, blocks) = (subject.network.copy()?, partition(&subject.network.layers()?, &[])?);
    let samples = subject.train.narrow(0, SAMPLES).map_err(computation)?;
    let pixels = samples.inputs.flatten_all().and_then(|t| t.to_vec1::<f32>()).map_err(computation)?;
    let classes = samples.targets.to_vec1::<u32>().map_err(computation)?;
    let shape = ndarray::IxDyn(samples.inputs.dims());
    let pixels = ndarray::ArrayD::from_shape_vec(shape, pixels).expect("as many as the shape says");
    let classes: ndarray::Array1<i64> = classes.into_iter().map(i64::from).collect();
    let mut inputs: Vec<(&'static str, Array)> = vec![("x", pixels.into()), ("y", classes.into_dyn().into())];
    inputs.push(("weights", weights(&network)?));
    Ok(Case {
        name,
        says: says.to_owned(),
        inputs,
        settings: json!({ "tolerance": measuring.tolerance, "products": measuring.products, "probes": measuring.probes }),
        work: Box::new(move || work(&network, &blocks, &samples, measuring, seed)),
        agreement,
        goal: Some(1.0),
    })
}

fn work(network: &Network, blocks: &[Block], samples: &Batch, measuring: Measuring, seed: u64) -> Result<Answer> {
    let stream = Streams::new(seed).stream("curvature");
    let found = sensitivities(network, blocks, samples, measuring, stream, &Progress::silent())?;
    let value = |s: &super::Sensitivity| if measuring.probes > 0 { s.trace } else { s.eigenvalue };
    Ok(found.iter().map(value).collect())
}

/// All parameters, then the running means and variances, in the network's order.
fn weights(network: &Network) -> Result<Array> {
    let mut all: Vec<f32> = network.params().flat()?;
    for buffer in network.params().buffers() {
        all.extend(buffer.var.flatten_all().and_then(|t| t.to_vec1::<f32>()).map_err(computation)?);
    }
    Ok(ndarray::Array1::from(all).into_dyn().into())
}
