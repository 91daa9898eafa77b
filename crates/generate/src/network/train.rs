//! Training a denoising network on any path and for any target.

use super::layers::NetConfig;
use super::model::{Network, Target};
use super::net::Shape;
use super::pairs::{Levels, Pairs};
use crate::Path;
use ndarray::ArrayView2;
use offprint_core::random::Streams;
use offprint_core::{Error, Progress, Result};
use offprint_nn::computation;
use offprint_nn::optim::{Adam, AdamSettings};
use offprint_nn::train::{Plan, Schedule, train};

/// How to train a denoising network.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The network's shape.
    pub shape: Shape,
    /// The path of the noise.
    pub path: Path,
    /// What the network gives.
    pub target: Target,
    /// Noise levels to train on.
    pub levels: Levels,
    /// Share of labels that are hidden.
    pub dropout: f64,
    /// Rows of the data over which the clean point of a target is averaged ([`Pairs::with_reference`]); 1 takes the
    /// point itself.
    pub reference: usize,
    /// Points a step.
    pub batch: usize,
    /// Adam's learning rate, learning-rate schedule, running mean of the weights, number of steps.
    pub plan: Plan,
    /// Adam's first learning rate.
    pub learning_rate: f64,
}

impl Recipe {
    /// That of `digits8`: three hidden layers of 256, EDM's preconditioning and noise levels, Adam with rate 2·10⁻³ on a
    /// cosine, batches of 256, running mean 0.999, one label in ten hidden.
    pub fn edm(dim: usize, classes: usize, path: Path, steps: u64) -> Self {
        Self {
            shape: NetConfig { dim, classes, width: 256, depth: 3, frequencies: 16 }.into(),
            path,
            target: Target::Preconditioned { sigma_data: 0.5 },
            levels: Levels::LogNormal { mean: -1.2, deviation: 1.2 },
            dropout: if classes > 0 { 0.1 } else { 0.0 },
            reference: 1,
            batch: 256,
            plan: Plan { ema: Some(0.999), ..Plan::new(steps, Schedule::cosine()) },
            learning_rate: 2e-3,
        }
    }
}

/// A network trained by `recipe` on `data` (N, d) and `labels` (N), with the running mean of its weights. Also the loss
/// before each step.
///
/// # Errors
/// Those of [`Network::fresh`] and [`Pairs::new`], a loss that is not finite, a stop by the user.
pub fn fit(
    recipe: &Recipe,
    data: ArrayView2<'_, f64>,
    labels: Option<&[u8]>,
    seed: u64,
    progress: &Progress,
) -> Result<(Network, Vec<f64>)> {
    if recipe.batch == 0 {
        return Err(Error::parameter("batch", recipe.batch, "at least 1"));
    }
    let network = Network::fresh(&recipe.shape, recipe.path.clone(), recipe.target, seed)?;
    let stream = Streams::new(seed).stream("training pairs");
    let pairs = Pairs::new(&network, data, labels, (recipe.levels, recipe.dropout), stream)?
        .with_reference(recipe.reference)?;
    let settings = AdamSettings { learning_rate: recipe.learning_rate, ..AdamSettings::default() };
    let mut adam = Adam::new(network.params.vars(), settings).map_err(computation)?;
    let history = train(&network.params, &mut adam, &recipe.plan, progress, |step| {
        let batch = pairs.batch(step, recipe.batch)?;
        let outputs = network.net.forward(&batch.inputs)?;
        (outputs - &batch.targets).and_then(|gap| gap.sqr()?.mean_all()).map_err(computation)
    })?;
    if let Some(mut ema) = history.ema {
        ema.swap(&network.params)?;
    }
    Ok((network, history.losses))
}
