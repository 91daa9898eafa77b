//! Workloads timed beside kronfluence.

use super::problems::{diabetes, digits};
use super::{Detail, Directions, Fit, Influence, Model, Preconditioner, Track, TrackedLayers};
use crate::{Damping, KroneckerInverse};
use candle_core::DType;
use offprint_core::bench::{Agreement, Answer, Case};
use offprint_core::random::Streams;
use offprint_core::{Array, Bench, Progress, Result};
use offprint_nn::derivatives::Loss;
use offprint_nn::{Batch, Network, computation};
use serde_json::json;

/// Damping as a share of the mean eigenvalue; kronfluence's heuristic.
const SHARE: f64 = 0.1;

/// Fit and scores of one set-up, from the data to the last score.
struct Work {
    network: Network,
    loss: Loss,
    train: Batch,
    queries: Batch,
    rank: Option<usize>,
}

impl Work {
    /// Sum, mean size and two elements of the score matrix, in units of the mean size.
    fn run(&self) -> Result<Answer> {
        let progress = Progress::silent();
        let loss = self.network.loss(self.loss);
        let train = self.train.clone().into();
        let tracked = TrackedLayers::of(&loss, &train, &Track::Usual)?;
        let model = Model { loss: &loss, tracked: &tracked, chunk: 128 };
        // True targets: nothing is drawn, so that both sides have the same factors.
        let fit = Fit { sampled: None, ..Fit::new(Streams::new(0).stream("unused")) };
        let inverse =
            KroneckerInverse::new(fit.layers(&model, &train, None, &progress)?, tracked.dim(), Damping::OfMean(SHARE))?;
        let gradients = model.gradients(&self.queries.clone().into(), &progress)?;
        let mut directions = Directions::new(&tracked, inverse.precondition(gradients.view(), &progress)?.view())?;
        if let Some(rank) = self.rank {
            directions = directions.compressed(&tracked, rank)?;
        }
        let scores = model.scores(&directions, &train, Detail::default(), &progress)?.total;
        let size = scores.iter().map(|x| f64::from(x.abs())).sum::<f64>() / scores.len() as f64;
        let sum: f64 = scores.iter().map(|&x| f64::from(x)).sum();
        let (rows, columns) = scores.dim();
        let element = |i: usize, j: usize| f64::from(scores[[i, j]]) / size;
        Ok(vec![1e3 * size, sum / (size * (rows * columns) as f64), element(0, 0), element(rows - 1, columns - 1)])
    }
}

fn values(tensor: &candle_core::Tensor) -> Result<Array> {
    let shape = tensor.dims().to_vec();
    let flat = tensor.flatten_all().and_then(|t| t.to_dtype(DType::F64)?.to_vec1::<f64>()).map_err(computation)?;
    Ok(ndarray::ArrayD::from_shape_vec(shape, flat)
        .expect("as many values as the shape says")
        .mapv(|x| x as f32)
        .into())
}

fn case(name: &'static str, says: String, work: Work, names: &'static [(&'static str, &'static str)]) -> Result<Case> {
    let mut inputs: Vec<(&'static str, Array)> = vec![
        ("x", values(&work.train.inputs)?),
        ("y", values(&work.train.targets)?),
        ("queries", values(&work.queries.inputs)?),
        ("query_targets", values(&work.queries.targets)?),
    ];
    for (parameter, file) in names {
        let var = work.network.params().get(parameter).expect("a perceptron's parameter");
        inputs.push((file, values(var.as_tensor())?));
    }
    let settings = json!({
        "loss": if work.loss == Loss::SquaredError { "squared-error" } else { "cross-entropy" },
        "activation": if work.loss == Loss::SquaredError { "tanh" } else { "relu" },
        "rank": work.rank,
    });
    let work = Box::new(move || work.run());
    // Sums of products in single precision on their side.
    Ok(Case { name, says, inputs, settings, work, agreement: Agreement::Within(1e-2), goal: Some(1.0) })
}

/// The parameters of a perceptron with two hidden layers, and the names of their files.
const THREE_LAYERS: &[(&str, &str)] = &[
    ("layers.0.weight", "w0"),
    ("layers.0.bias", "b0"),
    ("layers.1.weight", "w1"),
    ("layers.1.bias", "b1"),
    ("layers.2.weight", "w2"),
    ("layers.2.bias", "b2"),
];

impl Bench for Influence {
    fn cases(seed: u64) -> Result<Vec<Case>> {
        let (progress, streams) = (Progress::silent(), Streams::new(seed).stream("bench").nested(0));
        let single = |batch: &Batch| -> Result<Batch> {
            let cast =
                |t: &candle_core::Tensor| if t.dtype() == DType::U32 { Ok(t.clone()) } else { t.to_dtype(DType::F32) };
            Ok(Batch {
                inputs: cast(&batch.inputs).map_err(computation)?,
                targets: cast(&batch.targets).map_err(computation)?,
            })
        };
        let small = diabetes(20, streams, &progress)?;
        let network = Network::fresh(small.network.architecture(), 0, DType::F32)?;
        network.params().set_flat(&small.network.params().flat::<f64>()?)?;
        let regression = Work {
            network,
            loss: Loss::SquaredError,
            train: single(&small.train.batch)?,
            queries: single(&small.test.batch)?,
            rank: None,
        };
        let wide = |rank: Option<usize>| -> Result<Work> {
            let problem = digits(&[256, 256], 1257, 3, DType::F32, streams, &progress)?;
            let queries = problem.test.batch.narrow(0, 100).map_err(computation)?;
            Ok(Work { network: problem.network, loss: Loss::CrossEntropy, train: problem.train.batch, queries, rank })
        };
        Ok(vec![
            case(
                "regression",
                "EK-FAC factors and all scores: 309 training rows, 133 queries, perceptron 10-64-64-1".into(),
                regression,
                THREE_LAYERS,
            )?,
            case(
                "digits",
                "EK-FAC factors and all scores: 1257 training rows, 100 queries, perceptron 64-256-256-10".into(),
                wide(None)?,
                THREE_LAYERS,
            )?,
        ])
    }
}
