//! The door: what a user may set.

use super::problem::Problem;
use super::{BatchHessian, GradientRows, Law, Sampling, inspect};
use crate::mfac::{Gradients, GradientsView};
use crate::network::Matrix;
use candle_core::DType;
use offprint_core::{Error, Method, Params, Result, Run, Source};
use offprint_nn::data::labelled;
use offprint_nn::derivatives::Loss;
use offprint_nn::{Batch, Network};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Which matrix of a network is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Curvature {
    /// Second derivatives of the loss.
    Hessian,
    /// The generalised Gauss–Newton matrix.
    GaussNewton,
    /// Outer products of the samples' gradients.
    Fisher,
}

/// What the network is trained for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LossKind {
    /// Classes.
    CrossEntropy,
    /// Numbers.
    SquaredError,
    /// Yes or no.
    Logistic,
}

/// By which law other batch sizes are predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LawKind {
    /// Symmetric noise, spikes over a spectrum at zero.
    Additive,
    /// Symmetric noise over the matrix's own spectrum.
    FieldDependent,
    /// A covariance of few samples.
    Multiplicative,
}

/// Which estimate of the noise's variance s² is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum NoiseKind {
    /// Fitted at one batch size.
    Effective,
    /// Along the top eigenvector.
    Directional,
    /// Along random directions.
    Isotropic,
}

/// Parameters of `batch-hessian`.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BatchHessianParams {
    /// Weights of a network: a .safetensors file with its architecture in the metadata or in a config.json beside it, or
    /// a directory of both; by default a perceptron is trained on digits
    #[arg(long)]
    pub network: Option<PathBuf>,
    /// Description of the network's architecture (config.json), if it does not come with the weights
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Samples for the network (n, …); if no targets are given the last column of a table holds them
    #[arg(long, default_value = "builtin")]
    pub data: Source,
    /// Targets of the samples: class numbers, or numbers (n, outputs)
    #[arg(long, default_value = "builtin")]
    pub targets: Source,
    /// Loss of the network
    #[arg(long, value_enum, default_value_t = LossKind::CrossEntropy)]
    pub loss: LossKind,
    /// Which matrix of the network is looked at
    #[arg(long, value_enum, default_value_t = Curvature::Hessian)]
    pub curvature: Curvature,
    /// Gradient matrix (N, P), one sample's gradient a row, in place of a network: its Fisher matrix is looked at
    #[arg(long, default_value = "builtin")]
    pub grads: Source,
    /// Symmetric matrix (P, P) of all data in place of a network; its noise must be given with --variance
    #[arg(long, default_value = "builtin")]
    pub matrix: Source,
    /// Variance s² of the noise; if none is given it is estimated from batches
    #[arg(long)]
    #[schemars(range(min = 0))]
    pub variance: Option<f64>,
    /// Number of samples N behind --matrix; if none is given batches are taken from an endless supply
    #[arg(long)]
    #[schemars(range(min = 2))]
    pub samples: Option<usize>,
    /// Batch sizes, separated by commas; by default powers of two from 8 up to half of the samples
    #[arg(long, value_delimiter = ',')]
    pub batch_sizes: Vec<usize>,
    /// Batches that are drawn of each size
    #[arg(long, default_value_t = 8)]
    #[schemars(range(min = 2, max = 10000))]
    pub draws: usize,
    /// Draw samples with replacement, as independent steps do; without, all samples of a batch differ
    #[arg(long)]
    pub replacement: bool,
    /// Lanczos steps on each matrix
    #[arg(long, default_value_t = 40)]
    #[schemars(range(min = 2, max = 1000))]
    pub steps: usize,
    /// Random vectors for the spectrum and for isotropic noise
    #[arg(long, default_value_t = 8)]
    #[schemars(range(min = 1, max = 1000))]
    pub probes: usize,
    /// Batch size at which the noise is estimated; by default the one nearest to 64 (in octaves) among the batch sizes
    #[arg(long)]
    #[schemars(range(min = 1))]
    pub calibrate: Option<usize>,
    /// Law for the eigenvalues of other batch sizes
    #[arg(long, value_enum, default_value_t = LawKind::Additive)]
    pub law: LawKind,
    /// Estimate of s² behind the learning rates
    #[arg(long, value_enum, default_value_t = NoiseKind::Effective)]
    pub noise: NoiseKind,
    /// Momentum of SGD in the table of learning rates
    #[arg(long, default_value_t = 0.0)]
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub momentum: f64,
    /// Batch size from which rates are carried over to others
    #[arg(long, default_value_t = 128)]
    #[schemars(range(min = 1))]
    pub base_batch: usize,
    /// Learning rate of Adam that works at the base batch size
    #[arg(long, default_value_t = 0.001)]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub adam_rate: f64,
    /// Largest eigenvalues that an adaptive method is taken to flatten: about one a class
    #[arg(long, default_value_t = 10)]
    pub spikes: usize,
    /// Also give λ₁ and trace of each parameter tensor's own block
    #[arg(long)]
    pub layers: bool,
    /// Epochs in which the built-in network is trained
    #[arg(long, default_value_t = 20)]
    #[schemars(range(max = 1000))]
    pub epochs: u64,
    /// Samples that the network works on at once, which bounds memory
    #[arg(long, default_value_t = 256)]
    #[schemars(range(min = 1))]
    pub part: usize,
}
offprint_core::defaults_from_flags!(BatchHessianParams);

impl Params for BatchHessianParams {
    fn check(&self) -> Result<()> {
        let given = [self.network.is_some(), !self.grads.is_builtin(), !self.matrix.is_builtin()]
            .iter()
            .filter(|x| **x)
            .count();
        if given > 1 {
            return Err(Error::parameter("network", "beside others", "alone: one of network, grads and matrix"));
        }
        if self.network.is_some() == self.data.is_builtin() {
            let given = if self.network.is_some() { "none" } else { "given" };
            return Err(Error::parameter("data", given, "given together with a network"));
        }
        if self.network.is_none() && (self.config.is_some() || !self.targets.is_builtin()) {
            let field = if self.config.is_some() { "config" } else { "targets" };
            return Err(Error::parameter(field, "given", "used with a network"));
        }
        if !self.matrix.is_builtin() && self.variance.is_none() {
            return Err(Error::parameter("variance", "none", "given with a matrix, whose samples are not known"));
        }
        if self.matrix.is_builtin() && self.samples.is_some() {
            return Err(Error::parameter("samples", "given", "used with a matrix; other inputs bring their samples"));
        }
        if self.layers && (!self.grads.is_builtin() || !self.matrix.is_builtin()) {
            return Err(Error::parameter("layers", true, "used with a network, whose tensors have names"));
        }
        match self.batch_sizes.contains(&0) {
            true => Err(Error::parameter("batch_sizes", 0, "at least 1")),
            false => Ok(()),
        }
    }
}

impl BatchHessianParams {
    pub(super) fn sampling(&self) -> Sampling {
        if self.replacement { Sampling::WithReplacement } else { Sampling::WithoutReplacement }
    }

    pub(super) fn law(&self) -> Law {
        match self.law {
            LawKind::Additive => Law::Additive,
            LawKind::FieldDependent => Law::FieldDependent,
            LawKind::Multiplicative => Law::Multiplicative,
        }
    }

    fn matrix_kind(&self) -> Matrix {
        match self.curvature {
            Curvature::Hessian => Matrix::Hessian,
            Curvature::GaussNewton => Matrix::GaussNewton,
            Curvature::Fisher => Matrix::Fisher,
        }
    }

    fn loss(&self) -> Loss {
        match self.loss {
            LossKind::CrossEntropy => Loss::CrossEntropy,
            LossKind::SquaredError => Loss::SquaredError,
            LossKind::Logistic => Loss::Logistic,
        }
    }
}

impl Method for BatchHessian {
    type Params = BatchHessianParams;

    fn run(params: &BatchHessianParams, run: &mut Run) -> Result<()> {
        if !params.matrix.is_builtin() {
            return inspect::explicit(params, &params.matrix.matrix()?, run);
        }
        if !params.grads.is_builtin() {
            let gradients = Gradients::open(&params.grads)?;
            let name = params.grads.to_string();
            return match gradients.view() {
                GradientsView::F32(view) => inspect::sampled(params, &GradientRows::new(view, &name)?, run),
                GradientsView::F64(view) => inspect::sampled(params, &GradientRows::new(view, &name)?, run),
            };
        }
        match &params.network {
            Some(path) => {
                let network = Network::load(path, params.config.as_deref(), DType::F32)?;
                let targets = (!params.targets.is_builtin()).then_some(&params.targets);
                let data = labelled(network.architecture(), params.loss(), &params.data, targets, DType::F32)?;
                warn_of_empty_classes(network.architecture().outputs(), params.loss(), &data, run);
                inspect::network(params, &network.loss(params.loss()), &data, params.matrix_kind(), run)
            }
            None => {
                if params.loss != LossKind::CrossEntropy {
                    return Err(Error::parameter("loss", "another", "cross-entropy for the built-in network"));
                }
                let problem = Problem::digits(run.streams(), DType::F32)?;
                problem.train(params.epochs, &run.progress())?;
                inspect::network(params, &problem.function(), &problem.data, params.matrix_kind(), run)
            }
        }
    }
}

/// Tells which classes have no sample: their part of the curvature is not seen.
fn warn_of_empty_classes(classes: usize, loss: Loss, data: &Batch, run: &mut Run) {
    let Ok(ids) = data.targets.to_vec1::<u32>() else { return };
    if loss != Loss::CrossEntropy {
        return;
    }
    let empty: Vec<String> =
        (0..classes as u32).filter(|class| !ids.contains(class)).take(8).map(|class| class.to_string()).collect();
    if !empty.is_empty() {
        run.warn(format!("no sample belongs to class {}: the curvature says nothing of them", empty.join(", ")));
    }
}
