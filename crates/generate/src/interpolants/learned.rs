//! Fields that networks have learnt.

use super::objective::{self, Batch, Target};
use super::{Fields, Interpolant, Pairs};
use crate::check;
use candle_core::{DType, Device, Tensor};
use ndarray::{Array2, ArrayD, ArrayView2, IxDyn};
use offprint_core::artifact::{Arrays, Metadata};
use offprint_core::random::Streams;
use offprint_core::{Array, Error, Progress, Result};
use offprint_nn::checkpoint::Checkpoint;
use offprint_nn::models::{Activation, Mlp, MlpConfig};
use offprint_nn::optim::{Adam, AdamSettings};
use offprint_nn::train::{Decay, Plan, Schedule, train};
use offprint_nn::{Params, Weights, computation};
use serde::{Deserialize, Serialize};
use std::path::Path as File;

/// The shape of both networks of a bridge: perceptrons that see \[x, t\].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Components d of a point.
    pub dim: usize,
    /// Width of the hidden layers.
    pub width: usize,
    /// Hidden layers.
    pub depth: usize,
    /// Between the layers.
    pub activation: Activation,
    /// How the score is learnt; none for a bridge without noise, which has a flow only.
    pub second: Option<Target>,
}

/// How to train.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The bridge.
    pub path: Interpolant,
    /// The networks.
    pub shape: Shape,
    /// Steps of Adam.
    pub steps: u64,
    /// Pairs a step.
    pub batch: usize,
    /// Adam's first rate; multiplied by 0.4 every 1500 steps.
    pub learning_rate: f64,
}

impl Recipe {
    /// The authors' checkerboard: ReLU layers, rate 2·10⁻³, the denoiser η in place of the score.
    pub fn new(path: Interpolant, dim: usize) -> Self {
        let noisy = objective::check(&path, &[Target::Latent]).is_ok();
        let shape =
            Shape { dim, width: 256, depth: 4, activation: Activation::Relu, second: noisy.then_some(Target::Latent) };
        Self { path, shape, steps: 7000, batch: 2000, learning_rate: 2e-3 }
    }
}

/// Steps between two falls of the learning rate, and the factor.
const FALL: (u64, f64) = (1500, 0.4);

/// Rows that go through the networks at a time.
const ROWS: usize = 4096;

/// The words of a file that say what its networks are.
const WORD: &str = "offprint.interpolant";

/// Velocity and score by two networks.
///
/// Training runs in f32; the trained networks answer in f64, so that their divergences can be found by differences.
#[derive(Debug)]
pub struct LearnedFields {
    path: Interpolant,
    shape: Shape,
    velocity: Mlp,
    second: Option<Mlp>,
    params: Params,
}

#[derive(Serialize, Deserialize)]
struct Word {
    path: Interpolant,
    shape: Shape,
}

impl LearnedFields {
    /// Trains on `pairs`. Also the loss before each step, the sum over both networks.
    ///
    /// # Errors
    /// Pairs of another dimension, a bridge without noise whose score is asked for, a loss that is not finite, a stop by
    /// the user.
    pub fn fit(recipe: &Recipe, pairs: &Pairs, seed: u64, progress: &Progress) -> Result<(Self, Vec<f64>)> {
        let Recipe { path, shape, steps, batch, learning_rate } = recipe;
        if pairs.dim() != shape.dim {
            return Err(Error::parameter("dimension", shape.dim, format!("{}, that of the data", pairs.dim())));
        }
        if *batch == 0 {
            return Err(Error::parameter("batch", batch, "at least 1"));
        }
        let weights = Weights::fresh(seed, DType::F32)?;
        let (velocity, second) = networks(path, shape, &weights)?;
        let params = weights.finish(&[])?;
        let targets: Vec<Target> = std::iter::once(Target::Velocity).chain(shape.second).collect();
        let milestones = (1..).map(|i| i * FALL.0).take_while(|m| m < steps).collect();
        let plan = Plan::new(*steps, Schedule { warmup: 0, decay: Decay::Steps { milestones, factor: FALL.1 } });
        let settings = AdamSettings { learning_rate: *learning_rate, ..AdamSettings::default() };
        let mut adam = Adam::new(params.vars(), settings).map_err(computation)?;
        let stream = Streams::new(seed).stream("training pairs");
        let history = train(&params, &mut adam, &plan, progress, |step| {
            let batch = Batch::draw(path, pairs, &targets, (step, *batch, path.learnable()), stream)?;
            let mut total = objective::loss(&velocity.forward(&batch.inputs).map_err(computation)?, &batch.targets[0])?;
            if let Some(second) = &second {
                let output = second.forward(&batch.inputs).map_err(computation)?;
                total = (total + objective::loss(&output, &batch.targets[1])?).map_err(computation)?;
            }
            Ok(total)
        })?;
        // The same networks in f64.
        let wide = Weights::fresh(seed, DType::F64)?;
        let (velocity, second) = networks(path, shape, &wide)?;
        let wide = wide.finish(&[])?;
        wide.set_flat(&params.flat::<f64>()?)?;
        Ok((Self { path: path.clone(), shape: *shape, velocity, second, params: wide }, history.losses))
    }

    /// The shape of the networks.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The weights (f32) and words of a `.safetensors` file.
    pub fn to_arrays(&self) -> Result<(Arrays, Metadata)> {
        let mut arrays = Arrays::new();
        for (name, tensor) in self.params.snapshot()? {
            let values = tensor.to_dtype(DType::F32).and_then(|t| t.flatten_all()).and_then(|t| t.to_vec1::<f32>());
            let array = ArrayD::from_shape_vec(IxDyn(tensor.dims()), values.map_err(computation)?);
            arrays.insert(name, Array::F32(array.expect("a tensor has the values of its shape")));
        }
        let word = Word { path: self.path.clone(), shape: self.shape };
        let text =
            serde_json::to_string(&word).map_err(|e| Error::Numerical(format!("the words of the model: {e}")))?;
        Ok((arrays, Metadata::from([(WORD.to_owned(), text)])))
    }

    /// Whether a `.safetensors` file was saved from [`Self::to_arrays`].
    pub fn is_in(file: &File) -> Result<bool> {
        Ok(Checkpoint::open(file)?.word(WORD).is_some())
    }

    /// Reads a file that was saved from [`Self::to_arrays`].
    ///
    /// # Errors
    /// A file that is none, that lacks the words, or whose tensors contradict them.
    pub fn load(file: &File) -> Result<Self> {
        let checkpoint = Checkpoint::open(file)?;
        let origin = checkpoint.origin();
        let bad = |problem: String| Error::input(origin.clone(), problem);
        let text = checkpoint.word(WORD).ok_or_else(|| {
            bad(format!("has no word \"{WORD}\": it is no model of interpolants that was saved here"))
        })?;
        let Word { path, shape } =
            serde_json::from_str(text).map_err(|e| bad(format!("\"{WORD}\" cannot be read: {e}")))?;
        path.check().map_err(|e| bad(e.to_string()))?;
        let weights = Weights::loaded(checkpoint, DType::F64)?;
        let (velocity, second) = networks(&path, &shape, &weights)?;
        let params = weights.finish(&[])?;
        Ok(Self { path, shape, velocity, second, params })
    }

    fn apply(&self, network: &Mlp, x: ArrayView2<'_, f64>, t: f64) -> Result<Array2<f64>> {
        let (n, d) = x.dim();
        let mut out = Vec::with_capacity(n * d);
        for rows in x.axis_chunks_iter(ndarray::Axis(0), ROWS) {
            let count = rows.nrows();
            let inputs = rows.outer_iter().flat_map(|row| row.iter().copied().chain([t]).collect::<Vec<_>>()).collect();
            let answer = Tensor::from_vec::<_, f64>(inputs, (count, d + 1), &Device::Cpu)
                .and_then(|inputs| network.forward(&inputs))
                .and_then(|o| o.flatten_all())
                .and_then(|o| o.to_vec1::<f64>());
            out.extend(answer.map_err(computation)?);
        }
        Ok(Array2::from_shape_vec((n, d), out).expect("a network gives a point for each point"))
    }
}

/// The network of b and, if there is a second, that of the score.
fn networks(path: &Interpolant, shape: &Shape, weights: &Weights) -> Result<(Mlp, Option<Mlp>)> {
    let Shape { dim, width, depth, activation, second } = *shape;
    for (name, value) in [("dimension", dim), ("width", width), ("depth", depth)] {
        if value == 0 {
            return Err(Error::parameter(name, value, "at least 1"));
        }
    }
    match second {
        Some(target @ (Target::Latent | Target::Score)) => objective::check(path, &[target])?,
        None => {}
        Some(other) => return Err(Error::parameter("target", format!("{other:?}"), "the latent noise or the score")),
    }
    let widths = std::iter::once(dim + 1).chain(std::iter::repeat_n(width, depth)).chain([dim]).collect();
    let config = MlpConfig { widths, activation };
    let velocity = Mlp::new(&config, &weights.at("velocity"))?;
    let second = second.map(|_| Mlp::new(&config, &weights.at("second"))).transpose()?;
    Ok((velocity, second))
}

impl Fields for LearnedFields {
    fn dim(&self) -> usize {
        self.shape.dim
    }

    fn path(&self) -> &Interpolant {
        &self.path
    }

    fn both(&self, x: ArrayView2<'_, f64>, t: f64) -> Result<(Array2<f64>, Array2<f64>)> {
        let velocity = self.velocity(x, t)?;
        let Some(network) = &self.second else {
            let allowed = "0: this model has a velocity only (its path has no noise)";
            return Err(Error::parameter("epsilon", "above 0", allowed));
        };
        let mut score = self.apply(network, x, t)?;
        if self.shape.second == Some(Target::Latent) {
            let deviation = self.path.deviation(&self.path.at(t)?);
            check::positive("noise of the path", deviation)?;
            score /= -deviation;
        }
        Ok((velocity, score))
    }

    fn velocity(&self, x: ArrayView2<'_, f64>, t: f64) -> Result<Array2<f64>> {
        check::dimension("points", x, "the model", self.shape.dim)?;
        self.apply(&self.velocity, x, t)
    }
}
