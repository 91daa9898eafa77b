//! A network to prune: a graph and its tensors.

use super::graph::{self, Graph, Named};
use candle_core::{DType, Tensor};
use ndarray::{ArrayD, IxDyn};
use offprint_core::artifact::Arrays;
use offprint_core::{Array, Error, Result};
use offprint_nn::ops::Mode;
use offprint_nn::params::Init;
use offprint_nn::{Architecture, Checkpoint, Network, Params, Weights, computation};
use std::path::Path;

/// The file of a directory that describes a network of another shape than those of `offprint_nn`.
pub const GRAPH: &str = "graph.json";

/// A graph with its tensors, and the architecture if it is one that has a name.
#[derive(Debug, Clone)]
pub struct Net {
    graph: Graph,
    params: Params,
    tensors: Named,
    architecture: Option<Architecture>,
}

impl Net {
    /// A graph over `params`, which it shares: setting them changes the network.
    ///
    /// # Errors
    /// A tensor that the graph names and `params` lack; a graph that does not run on a sample of zeros.
    pub fn new(graph: Graph, params: Params) -> Result<Self> {
        let mut tensors = Named::new();
        for (name, _) in graph.tensors() {
            let missing = || Error::input("graph", format!("names the tensor \"{name}\", which the weights lack"));
            tensors.insert(name.clone(), params.get(&name).ok_or_else(missing)?.clone());
        }
        let net = Self { graph, params, tensors, architecture: None };
        net.trace()?;
        Ok(net)
    }

    /// The graph of a network of a known architecture, for samples of the given shape; it shares the network's tensors.
    ///
    /// # Errors
    /// Samples that the network does not read.
    pub fn of(network: &Network, sample: &[usize]) -> Result<Self> {
        let architecture = network.architecture();
        let net = Self::new(graph::of(architecture, sample)?, network.params().clone())?;
        Ok(Self { architecture: Some(architecture.clone()), ..net })
    }

    /// A graph with tensors of the given shapes, freshly drawn: weights and biases uniform in ±1/√fan-in, gains 1.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn fresh(graph: Graph, shapes: &[(String, Vec<usize>)], seed: u64, dtype: DType) -> Result<Self> {
        let weights = Weights::fresh(seed, dtype)?;
        for (name, trained) in graph.tensors() {
            let missing = || Error::input("graph", format!("names the tensor \"{name}\", whose shape is not given"));
            let (_, shape) = shapes.iter().find(|(known, _)| *known == name).ok_or_else(missing)?;
            if trained {
                let init = match shape[..] {
                    [_] if name.ends_with("weight") => Init::Constant(1.0),
                    [_] => Init::Constant(0.0),
                    _ => Init::fan_in(shape[1..].iter().product()),
                };
                weights.param(&name, shape, init)?;
            } else {
                let start = if name.ends_with("running_var") { 1.0 } else { 0.0 };
                weights.buffer(&name, shape, Init::Constant(start))?;
            }
        }
        Self::new(graph, weights.finish(&[])?)
    }

    /// Whether `path` is a directory that describes its network by a `graph.json`.
    pub fn has_graph(path: &Path) -> bool {
        path.is_dir() && path.join(GRAPH).is_file()
    }

    /// The network of a directory with `graph.json` and `model.safetensors` (or its shards).
    ///
    /// # Errors
    /// Files that cannot be read; a graph that is none or does not fit its tensors; values that are not finite.
    pub fn load(path: &Path, dtype: DType) -> Result<Self> {
        let file = path.join(GRAPH);
        let text = std::fs::read_to_string(&file).map_err(|e| Error::file("read", &file, e))?;
        let graph = Graph::from_json(&text, &file.display().to_string())?;
        let checkpoint = Checkpoint::open(path)?;
        let mut shapes = Vec::new();
        for (name, trained) in graph.tensors() {
            let missing =
                || Error::input(file.display().to_string(), format!("names \"{name}\", which the weights lack"));
            shapes.push((checkpoint.shape(&name).ok_or_else(missing)?.to_vec(), name, trained));
        }
        let weights = Weights::loaded(checkpoint, dtype)?;
        for (shape, name, trained) in &shapes {
            let tensor = match trained {
                true => weights.param(name, shape, Init::Constant(0.0))?,
                false => weights.buffer(name, shape, Init::Constant(0.0))?.as_tensor().clone(),
            };
            let sum = tensor.abs().and_then(|t| t.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>());
            if !sum.map_err(computation)?.is_finite() {
                let problem = format!("tensor \"{name}\" holds values that are not finite");
                return Err(Error::input(path.display().to_string(), problem));
            }
        }
        Self::new(graph, weights.finish(&["num_batches_tracked"])?)
    }

    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The tensors.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The architecture, if it is one that has a name.
    pub fn architecture(&self) -> Option<&Architecture> {
        self.architecture.as_ref()
    }

    pub(super) fn with_architecture(self, architecture: Option<Architecture>) -> Self {
        Self { architecture, ..self }
    }

    /// The output for samples `x`, in evaluation.
    pub fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.forward_in(x, Mode::Evaluation)
    }

    /// The output for samples `x`; `mode` matters to batch norms.
    pub fn forward_in(&self, x: &Tensor, mode: Mode) -> candle_core::Result<Tensor> {
        self.graph.outputs(&self.tensors, x, mode)?.pop().ok_or_else(|| candle_core::Error::Msg("no node".into()))
    }

    /// The shape of every node's output for one sample, that sample's axis of length 1 included.
    ///
    /// # Errors
    /// A graph that does not run.
    pub fn trace(&self) -> Result<Vec<Vec<usize>>> {
        let (shape, vocabulary) = self.graph.input();
        let run = || {
            let x = graph::zeros(shape, vocabulary, self.params.dtype())?;
            self.graph.outputs(&self.tensors, &x, Mode::Evaluation)
        };
        let outputs = run().map_err(|e| Error::input("graph", format!("does not run: {e}")))?;
        Ok(outputs.iter().map(|y| y.dims().to_vec()).collect())
    }

    /// Multiplications and additions in the network's linear maps for one sample; an attention's scores are left out.
    ///
    /// # Errors
    /// As [`Self::trace`].
    pub fn multiplications(&self) -> Result<u64> {
        let shapes = self.trace()?;
        let mut total = 0;
        for (node, shape) in self.graph.nodes().iter().zip(&shapes) {
            // A weight is used once at each place of the output; a transposed convolution's once at each of the input.
            let weights: usize = node
                .op
                .tensors()
                .iter()
                .filter_map(|(name, _)| self.tensors.get(name))
                .fold(0, |sum, var| if var.rank() >= 2 { sum + var.elem_count() } else { sum });
            let places = |shape: &[usize]| match shape {
                [_, _, height, width] => height * width,
                [_, positions, _] => *positions,
                _ => 1,
            };
            total += match node.op {
                graph::Op::Linear(_) | graph::Op::Conv2d { .. } | graph::Op::Attention(_) => weights * places(shape),
                graph::Op::ConvTranspose2d { .. } => weights * places(&shapes[node.inputs[0]]),
                _ => 0,
            } as u64;
        }
        Ok(total)
    }

    /// All tensors as arrays, for a `.safetensors` file.
    ///
    /// # Errors
    /// None in practice; a tensor of another type than f32 and f64.
    pub fn arrays(&self) -> Result<Arrays> {
        let array = |tensor: &Tensor| -> candle_core::Result<Array> {
            let (shape, flat) = (IxDyn(tensor.dims()), tensor.flatten_all()?);
            let whole = "as many values as the shape says";
            Ok(match tensor.dtype() {
                DType::F32 => ArrayD::from_shape_vec(shape, flat.to_vec1::<f32>()?).expect(whole).into(),
                _ => ArrayD::from_shape_vec(shape, flat.to_vec1::<f64>()?).expect(whole).into(),
            })
        };
        let named = self.params.snapshot()?;
        named.iter().map(|(name, tensor)| Ok((name.clone(), array(tensor).map_err(computation)?))).collect()
    }
}
