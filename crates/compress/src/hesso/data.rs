//! The network and the samples of a run: built in, or the user's.

use super::graph::Graph;
use super::net::Net;
use candle_core::{DType, Device, Tensor};
use offprint_core::random::Stream;
use offprint_core::{Error, Result, Source};
use offprint_nn::data::{digits, labelled};
use offprint_nn::derivatives::Loss;
use offprint_nn::models::{Activation, GptConfig, MlpConfig, Norm, ResNetConfig};
use offprint_nn::{Architecture, Batch, Network, Reads, computation};
use rand::seq::SliceRandom;
use std::path::Path;

/// Samples to train on and samples to judge on.
#[derive(Debug, Clone)]
pub struct Samples {
    /// Seen in training.
    pub train: Batch,
    /// Never seen in training.
    pub test: Batch,
}

/// A perceptron over the digits with the given hidden widths, freshly drawn.
///
/// # Errors
/// A width of 0.
pub fn digits_mlp(hidden: &[usize], seed: u64, dtype: DType) -> Result<Net> {
    let widths = [&[64], hidden, &[10]].concat();
    let architecture = Architecture::Mlp(MlpConfig { widths, activation: Activation::Relu });
    Net::of(&Network::fresh(&architecture, seed, dtype)?, &[64])
}

/// The digits, as rows of 64 numbers if `rows`, else as images.
///
/// # Errors
/// None in practice.
pub fn digits_samples(rows: bool, dtype: DType) -> Result<Samples> {
    let digits = digits(dtype)?;
    let shaped = |batch: Batch| -> Result<Batch> {
        let inputs = if rows { batch.inputs.flatten_from(1).map_err(computation)? } else { batch.inputs };
        Ok(Batch { inputs, targets: batch.targets })
    };
    Ok(Samples { train: shaped(digits.train)?, test: shaped(digits.test)? })
}

/// The user's samples under a loss, as `net` reads them, the share `held_out` of them drawn by `stream` to judge on. The
/// built-in digits for a network that reads them.
///
/// # Errors
/// Samples that the network does not read; fewer than two.
pub fn samples(
    reader: &Architecture,
    data: &Source,
    targets: Option<&Source>,
    loss: Loss,
    held_out: f64,
    stream: Stream,
    dtype: DType,
) -> Result<Samples> {
    if data.is_builtin() {
        let rows = matches!(reader.reads(), Reads::Rows(64));
        let images = matches!(reader.reads(), Reads::Images { channels: 1, side: None | Some(8) });
        if !(rows || images) || reader.outputs() != 10 || loss != Loss::CrossEntropy {
            return Err(Error::parameter("data", "builtin", "given: the digits do not suit this network"));
        }
        return digits_samples(rows, dtype);
    }
    let all = labelled(reader, loss, data, targets, dtype)?;
    let n = all.len();
    if n < 2 {
        return Err(Error::input(data.to_string(), format!("holds {n} sample; at least 2 are needed")));
    }
    let mut order: Vec<u32> = (0..n as u32).collect();
    order.shuffle(&mut stream.rng(0));
    let test = ((held_out * n as f64).round() as usize).clamp(1, n - 1);
    let part = |numbers: &[u32]| {
        let numbers = Tensor::from_slice(numbers, numbers.len(), &Device::Cpu)?;
        all.select(&numbers)
    };
    let (test, train) = order.split_at(test);
    Ok(Samples { train: part(train).map_err(computation)?, test: part(test).map_err(computation)? })
}

/// What a run starts from: a directory with `graph.json`, or one that `offprint_nn` loads.
pub enum Start {
    /// A network of a known architecture.
    Network(Box<Network>),
    /// A graph of the user's.
    Graph(Box<Net>),
}

impl Start {
    /// Loads the network at `path`.
    ///
    /// # Errors
    /// Files that cannot be read or describe no network.
    pub fn load(path: &Path, config: Option<&Path>, dtype: DType) -> Result<Self> {
        if Net::has_graph(path) {
            return Ok(Self::Graph(Net::load(path, dtype)?.into()));
        }
        Ok(Self::Network(Network::load(path, config, dtype)?.into()))
    }

    /// An architecture that reads what the network reads and gives as many outputs.
    ///
    /// # Errors
    /// A graph whose input has a shape that no data take.
    pub fn reader(&self) -> Result<Architecture> {
        match self {
            Self::Network(network) => Ok(network.architecture().clone()),
            Self::Graph(net) => {
                let outputs = net.trace()?.last().and_then(|shape| shape.last().copied()).unwrap_or(0);
                reader_of(net.graph(), outputs)
            }
        }
    }

    /// The network as a graph for samples of the given shape.
    ///
    /// # Errors
    /// Samples of a shape that the network does not read.
    pub fn net(self, sample: &[usize]) -> Result<Net> {
        match self {
            Self::Network(network) => Net::of(&network, sample),
            Self::Graph(net) if net.graph().input().0 == sample => Ok(*net),
            Self::Graph(net) => {
                let problem =
                    format!("holds samples of shape {sample:?}, but the graph reads {:?}", net.graph().input().0);
                Err(Error::input("data", problem))
            }
        }
    }
}

fn reader_of(graph: &Graph, outputs: usize) -> Result<Architecture> {
    match graph.input() {
        (&[context], Some(vocabulary)) if outputs == vocabulary => {
            let norm = Norm::Rms;
            let config = GptConfig { vocabulary, context, width: 1, heads: 1, depth: 0, mlp: 1, norm };
            Ok(Architecture::Gpt(config))
        }
        (&[numbers], None) => {
            Ok(Architecture::Mlp(MlpConfig { widths: vec![numbers, outputs], activation: Activation::Relu }))
        }
        (&[channels, _, _], None) => {
            Ok(Architecture::ResNet(ResNetConfig { channels, widths: vec![1], blocks: 1, classes: outputs }))
        }
        (shape, vocabulary) => Err(Error::input(
            "graph",
            format!(
                "reads samples of shape {shape:?} ({vocabulary:?} tokens) and gives {outputs} outputs; rows, images (channels, \
                 height, width) and tokens whose outputs are the tokens can be trained here"
            ),
        )),
    }
}
