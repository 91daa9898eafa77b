//! How strongly the loss bends along each block: the top eigenvalue and the trace of its Hessian.

use super::blocks::Block;
use super::layered::{bytes, has_traces, is_gauss_newton, layer_curvatures};
use offprint_core::random::Stream;
use offprint_core::{Error, Progress, Result};
use offprint_curvature::batch_hessian::DiagonalBlock;
use offprint_curvature::network::{LossOperator, Matrix};
use offprint_curvature::{
    LinearOperator, Product, Shifted, Until, lanczos, power_iteration_until, trace_until, vector,
};
use offprint_nn::derivatives::Loss;
use offprint_nn::{Batch, LayerPlace, Network};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How eigenvalues are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Finder {
    /// Power iteration, the paper's: the eigenvalue of largest magnitude, until it stands still
    Power,
    /// Lanczos: the largest eigenvalue in fewer products
    Lanczos,
}

/// How sensitivities are measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measuring {
    /// How eigenvalues are found.
    pub finder: Finder,
    /// [`Matrix::Hessian`], or its Gauss–Newton part.
    pub matrix: Matrix,
    /// Relative change of λ (of the trace) at which power iteration (Hutchinson's estimator) stops.
    pub tolerance: f64,
    /// Largest number of products for an eigenvalue, and of Lanczos steps.
    pub products: usize,
    /// Largest number of sign vectors for a trace; 0 measures none.
    pub probes: usize,
    /// Samples that the network works on at once.
    pub part: usize,
}

impl Default for Measuring {
    fn default() -> Self {
        Self { finder: Finder::Power, matrix: Matrix::Hessian, tolerance: 1e-3, products: 100, probes: 100, part: 128 }
    }
}

/// What was found of a block.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sensitivity {
    /// The block's name.
    pub block: String,
    /// Its number of weights, n.
    pub weights: u64,
    /// λ: the largest eigenvalue.
    pub eigenvalue: f64,
    /// The eigenvalue of largest magnitude, with its sign: another than λ where it is negative.
    pub dominant: f64,
    /// ‖Hv − λv‖/|λ|; 0 for a dead block.
    pub residual: f64,
    /// Products spent on λ.
    pub products: usize,
    /// The trace, estimated; NaN if it was not asked for.
    pub trace: f64,
    /// Its standard error.
    pub trace_error: f64,
    /// Sign vectors behind it.
    pub probes: usize,
}

impl Sensitivity {
    /// S = λ/n.
    pub fn score(&self) -> f64 {
        self.eigenvalue / self.weights as f64
    }

    /// trace/n, what HAWQ-V2 ranks by.
    pub fn mean_trace(&self) -> f64 {
        self.trace / self.weights as f64
    }
}

/// Bytes of inputs and gradients that are held at once.
const HELD: usize = 1 << 30;

/// λ and trace of every block, at the weights and batch norms of `network` as they are, over `samples`. Batch norms are in
/// evaluation: samples do not see each other.
///
/// A layer of its own in a piecewise linear network (and any layer's Gauss–Newton matrix) goes through
/// [`LayerCurvature`](super::LayerCurvature); blocks of several layers and other networks through products with the whole
/// network, of about four forward and backward passes each.
///
/// # Errors
/// Fewer than 2 samples; limits of 0; targets that do not fit the network; the user's stop.
pub fn sensitivities(
    network: &Network,
    blocks: &[Block],
    samples: &Batch,
    measuring: Measuring,
    stream: Stream,
    progress: &Progress,
) -> Result<Vec<Sensitivity>> {
    if samples.len() < 2 {
        return Err(Error::parameter("samples", samples.len(), "at least 2"));
    }
    progress.begin("curvature of blocks", blocks.len() as u64);
    let mut found: BTreeMap<usize, Sensitivity> = BTreeMap::new();
    for group in groups(network, blocks, samples, measuring.matrix)? {
        let layers: Vec<&LayerPlace> = group.iter().map(|&at| &blocks[at].layers[0]).collect();
        for (at, operator) in group.into_iter().zip(layer_curvatures(network, &layers, samples, measuring.part)?) {
            found.insert(at, sensitivity(&blocks[at], at, &operator, measuring, stream, progress)?);
            progress.advance(1)?;
        }
    }
    let loss = network.loss(Loss::CrossEntropy);
    let whole = LossOperator::new(&loss, measuring.matrix, samples, measuring.part)?;
    for (at, block) in blocks.iter().enumerate() {
        if found.contains_key(&at) {
            continue;
        }
        let parameters = loss.blocks();
        let ranges = parameters.iter().filter(|p| block.layers.iter().any(|layer| layer.weight == p.name));
        let operator = DiagonalBlock::of::<f32>(&whole, ranges.map(|p| p.range.clone()).collect())?;
        found.insert(at, sensitivity(block, at, &operator, measuring, stream, progress)?);
        progress.advance(1)?;
    }
    progress.finish();
    Ok(found.into_values().collect())
}

/// The blocks that are looked at layer by layer, in groups that fit into memory.
fn groups(network: &Network, blocks: &[Block], samples: &Batch, matrix: Matrix) -> Result<Vec<Vec<usize>>> {
    let classes = network.architecture().outputs();
    let places = network.layers_on(&samples.narrow(0, 1).map_err(offprint_nn::computation)?.inputs)?;
    let (mut groups, mut held): (Vec<Vec<usize>>, usize) = (Vec::new(), 0);
    for (at, block) in blocks.iter().enumerate() {
        let [layer] = &block.layers[..] else { continue };
        let (Some(place), Some(last)) = (places.iter().find(|p| p.weight == layer.weight), places.last()) else {
            continue;
        };
        let fits = match matrix {
            Matrix::Hessian => is_gauss_newton(network, place, last),
            Matrix::GaussNewton => has_traces(place),
            Matrix::Fisher => false,
        };
        let size = bytes(place, samples.len(), classes);
        if !fits || samples.targets.rank() != 1 || size > HELD {
            continue;
        }
        match groups.last_mut().filter(|_| held + size <= HELD) {
            Some(group) => group.push(at),
            None => {
                groups.push(vec![at]);
                held = 0;
            }
        }
        held += size;
    }
    Ok(groups)
}

fn sensitivity(
    block: &Block,
    at: usize,
    operator: &impl LinearOperator<f32>,
    measuring: Measuring,
    stream: Stream,
    progress: &Progress,
) -> Result<Sensitivity> {
    // A product may take long: the user can stop between two.
    let operator = &Product::new(operator.dim(), |x: &[f32], y: &mut [f32]| {
        progress.check()?;
        operator.apply(x, y)
    });
    let streams = stream.nested(at as u64);
    let start = streams.stream("start");
    let (value, dominant, residual, products) = match measuring.finder {
        Finder::Power => {
            let until = Until::Change(measuring.tolerance);
            let first = power_iteration_until(operator, until, measuring.products, start)?;
            if first.value >= 0.0 {
                (first.value, first.value, first.residual, first.products)
            } else {
                // H − λI has no eigenvalue below 0; the one farthest from it belongs to the largest of H.
                let lifted = Shifted { operator, shift: -first.value };
                let second = power_iteration_until(&lifted, until, measuring.products, streams.stream("lifted"))?;
                let spent = first.products + second.products;
                (second.value + first.value, first.value, second.residual, spent)
            }
        }
        Finder::Lanczos => {
            let begin: Vec<f32> = vector::gaussian(start, 0, operator.dim());
            let found = lanczos(operator, &begin, measuring.products, progress)?;
            let ritz = found.ritz()?;
            let ((top, residual), (bottom, _)) = (ritz.top(), ritz.bottom());
            (top, if -bottom > top { bottom } else { top }, residual, found.steps())
        }
    };
    let (trace, probes) = match measuring.probes {
        0 => (offprint_curvature::Estimate { value: f64::NAN, error: f64::NAN }, 0),
        limit => trace_until(operator, measuring.tolerance, limit, streams.stream("signs"), progress)?,
    };
    Ok(Sensitivity {
        block: block.name.clone(),
        weights: block.weights(),
        eigenvalue: value,
        dominant,
        residual: if value == 0.0 { 0.0 } else { residual / value.abs() },
        products,
        trace: trace.value,
        trace_error: trace.error,
        probes,
    })
}
