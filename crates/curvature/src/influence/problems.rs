//! The trained networks of the study and of the default run.

use super::Examples;
use candle_core::{DType, Device, Tensor};
use offprint_core::random::Streams;
use offprint_core::{Error, Progress, Result};
use offprint_nn::derivatives::{IGNORED, Loss};
use offprint_nn::models::{Activation, GptConfig, MlpConfig, Norm};
use offprint_nn::optim::{Adam, AdamSettings, Optimizer, Sgd, SgdSettings};
use offprint_nn::train::{Epochs, Plan, Schedule, train};
use offprint_nn::{Architecture, Batch, Network, computation};
use rand::RngExt;
use rand::seq::SliceRandom;
use rand::seq::index::sample;

/// A network with the rows it was trained on and others.
pub(super) struct Problem {
    pub network: Network,
    pub loss: Loss,
    pub train: Examples,
    pub test: Examples,
}

/// How a network is trained.
#[derive(Debug, Clone, Copy)]
pub(super) struct Training {
    pub epochs: u64,
    pub batch: usize,
    pub sgd: SgdSettings,
}

impl Training {
    /// As the digits networks are trained: SGD 0.1 with momentum 0.9 and weight decay 10⁻³, batches of 128.
    pub fn of_digits(epochs: u64) -> Self {
        let sgd = SgdSettings { learning_rate: 0.1, momentum: 0.9, weight_decay: 1e-3, ..SgdSettings::default() };
        Self { epochs, batch: 128, sgd }
    }

    /// As the regression is trained: SGD 0.03 with momentum 0.9 and weight decay 10⁻⁴, batches of 128.
    pub fn of_regression(epochs: u64) -> Self {
        let sgd = SgdSettings { learning_rate: 0.03, momentum: 0.9, weight_decay: 1e-4, ..SgdSettings::default() };
        Self { epochs, batch: 128, sgd }
    }
}

/// Trains `network` on `rows` by the mean loss of each batch.
fn fit(
    network: &Network,
    optimizer: &mut dyn Optimizer,
    loss: Loss,
    rows: &Batch,
    (epochs, batch): (u64, usize),
    streams: Streams,
    progress: &Progress,
) -> Result<()> {
    let order = Epochs::new(rows.clone(), batch, streams.stream("order of samples"))?;
    let plan = Plan::new(epochs * order.steps(), Schedule::constant());
    train(network.params(), optimizer, &plan, progress, |step| {
        let batch = order.at(step)?;
        let outputs = network.forward(&batch.inputs).map_err(computation)?;
        loss.per_sample(&outputs, &batch.targets)?.mean_all().map_err(computation)
    })?;
    Ok(())
}

/// A perceptron with fresh weights, trained on `rows`.
pub(super) fn trained_mlp(
    config: MlpConfig,
    loss: Loss,
    rows: &Batch,
    training: Training,
    streams: Streams,
    progress: &Progress,
) -> Result<Network> {
    let dtype = rows.inputs.dtype();
    let seed = streams.stream("initial weights").rng(0).random();
    let network = Network::fresh(&Architecture::Mlp(config), seed, dtype)?;
    let mut sgd = Sgd::new(network.params().vars(), training.sgd).map_err(computation)?;
    fit(&network, &mut sgd, loss, rows, (training.epochs, training.batch), streams, progress)?;
    Ok(network)
}

/// Digits as rows of 64 numbers from 0 to 1: 1257 to train on, 500 to test.
pub(super) fn digit_rows(dtype: DType) -> Result<(Batch, Batch)> {
    let digits = offprint_nn::data::digits(dtype)?;
    let rows = |batch: Batch| -> Result<Batch> {
        Ok(Batch { inputs: batch.inputs.flatten_from(1).map_err(computation)?, targets: batch.targets })
    };
    Ok((rows(digits.train)?.narrow(0, 1257).map_err(computation)?, rows(digits.test)?))
}

/// A digits classifier 64-`hidden`…-10 with ReLU.
pub(super) fn digits(
    hidden: &[usize],
    rows: usize,
    epochs: u64,
    dtype: DType,
    streams: Streams,
    progress: &Progress,
) -> Result<Problem> {
    let (train, test) = digit_rows(dtype)?;
    let train = train.narrow(0, rows.min(train.len())).map_err(computation)?;
    let network = digits_network(hidden, &train, epochs, streams, progress)?;
    Ok(Problem { network, loss: Loss::CrossEntropy, train: train.into(), test: test.into() })
}

/// The classifier of [`digits`], trained on `train`.
pub(super) fn digits_network(
    hidden: &[usize],
    train: &Batch,
    epochs: u64,
    streams: Streams,
    progress: &Progress,
) -> Result<Network> {
    let widths = [&[64], hidden, &[10]].concat();
    let config = MlpConfig { widths, activation: Activation::Relu };
    trained_mlp(config, Loss::CrossEntropy, train, Training::of_digits(epochs), streams, progress)
}

/// `train` with a share of its class numbers replaced by others, and which they are.
pub(super) fn mislabelled(train: &Batch, share: f64, classes: u32, streams: Streams) -> Result<(Batch, Vec<usize>)> {
    let mut labels: Vec<u32> = train.targets.to_vec1().map_err(computation)?;
    let mut rng = streams.stream("wrong labels").rng(0);
    let count = (share * labels.len() as f64).round() as usize;
    let mut wrong = sample(&mut rng, labels.len(), count).into_vec();
    wrong.sort_unstable();
    for &i in &wrong {
        labels[i] = (labels[i] + rng.random_range(1..classes)) % classes;
    }
    let n = labels.len();
    let targets = Tensor::from_vec(labels, n, &Device::Cpu).map_err(computation)?;
    Ok((Batch { inputs: train.inputs.clone(), targets }, wrong))
}

/// The diabetes regression: 309 patients to train on and 133 to test, features and target standardised by the former; a
/// perceptron 10-64-64-1 with tanh, in double precision.
pub(super) fn diabetes(epochs: u64, streams: Streams, progress: &Progress) -> Result<Problem> {
    let (patients, progression) = offprint_data::diabetes();
    let n = progression.len();
    let mut order: Vec<usize> = (0..n).collect();
    order.shuffle(&mut streams.stream("split").rng(0));
    let training = n * 7 / 10;
    let column = |j: usize| -> Vec<f64> {
        let values: Vec<f64> = order.iter().map(|&i| if j < 10 { patients[[i, j]] } else { progression[i] }).collect();
        let known = &values[..training];
        let mean = offprint_math::stats::mean(known);
        let deviation = offprint_math::stats::standard_deviation(known);
        values.iter().map(|x| (x - mean) / deviation).collect()
    };
    let columns: Vec<Vec<f64>> = (0..11).map(column).collect();
    let inputs: Vec<f64> = (0..n).flat_map(|i| columns[..10].iter().map(move |c| c[i])).collect();
    let rows = || -> candle_core::Result<(Batch, Batch)> {
        let targets = Tensor::from_vec(columns[10].clone(), (n, 1), &Device::Cpu)?;
        let all = Batch { inputs: Tensor::from_vec(inputs, (n, 10), &Device::Cpu)?, targets };
        Ok((all.narrow(0, training)?, all.narrow(training, n - training)?))
    };
    let (train, test) = rows().map_err(computation)?;
    let config = MlpConfig { widths: vec![10, 64, 64, 1], activation: Activation::Tanh };
    let network = trained_mlp(config, Loss::SquaredError, &train, Training::of_regression(epochs), streams, progress)?;
    Ok(Problem { network, loss: Loss::SquaredError, train: train.into(), test: test.into() })
}

/// Facts about pairs of people in two orders, and a transformer that has learned them.
pub(super) struct Facts {
    /// Training: fact i in the order "A is the parent of B" is sequence 2 i, in the order "B is the child of A" 2 i + 1.
    pub problem: Problem,
    /// Number of facts.
    pub count: usize,
}

/// Words before the names.
const IS: u32 = 0;
const THE: u32 = 1;
const PARENT: u32 = 2;
const CHILD: u32 = 3;
const OF: u32 = 4;
const NAMES: u32 = 5;

/// Two blocks of width 64 trained on `count` facts, each told in both orders. Queries ask for B after "A is the parent of".
pub(super) fn facts(count: usize, epochs: u64, streams: Streams, progress: &Progress) -> Result<Facts> {
    let mut names: Vec<u32> = (NAMES..NAMES + 2 * count as u32).collect();
    names.shuffle(&mut streams.stream("names").rng(0));
    let told = |fact: usize, parent_first: bool| -> [u32; 6] {
        let (a, b) = (names[2 * fact], names[2 * fact + 1]);
        if parent_first { [a, IS, THE, PARENT, OF, b] } else { [b, IS, THE, CHILD, OF, a] }
    };
    let batch = |sentences: Vec<[u32; 6]>, all: bool| -> Result<Batch> {
        let n = sentences.len();
        let cut = |from: usize, hide: bool| {
            let ids: Vec<u32> = sentences
                .iter()
                .flat_map(|s| {
                    s[from..from + 5].iter().enumerate().map(|(t, &id)| if hide && t < 4 { IGNORED } else { id })
                })
                .collect();
            Tensor::from_vec(ids, (n, 5), &Device::Cpu).map_err(computation)
        };
        Ok(Batch { inputs: cut(0, false)?, targets: cut(1, !all)? })
    };
    let train = batch((0..count).flat_map(|i| [told(i, true), told(i, false)]).collect(), true)?;
    let test = batch((0..count).map(|i| told(i, true)).collect(), false)?;
    let vocabulary = (NAMES as usize) + 2 * count;
    let config = GptConfig { vocabulary, context: 5, width: 64, heads: 4, depth: 2, mlp: 256, norm: Norm::Layer };
    let seed = streams.stream("initial weights").rng(0).random();
    let network = Network::fresh(&Architecture::Gpt(config), seed, DType::F32)?;
    let settings = AdamSettings { learning_rate: 2e-3, ..AdamSettings::default() };
    let mut adam = Adam::new(network.params().vars(), settings).map_err(computation)?;
    fit(&network, &mut adam, Loss::CrossEntropy, &train, (epochs, 32), streams, progress)?;
    let problem = Problem { network, loss: Loss::CrossEntropy, train: train.into(), test: test.into() };
    Ok(Facts { problem, count })
}

/// The `count` samples of `examples` with the highest losses, highest first.
pub(super) fn worst(problem: &Problem, count: usize) -> Result<Vec<usize>> {
    let losses = problem.network.loss(problem.loss).sample_losses(&problem.test.batch)?;
    if let Some(i) = losses.iter().position(|loss| !loss.is_finite()) {
        return Err(Error::Numerical(format!("the loss of test row {i} is {}", losses[i])));
    }
    Ok(largest(&losses, count))
}

/// The places of the `count` largest values, largest first.
pub(super) fn largest(values: &[f64], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]).then(a.cmp(&b)));
    order.truncate(count);
    order
}
