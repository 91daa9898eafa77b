//! The two stages of training: block after block (BQPO), then scales alone from end to end (E2E-OQP).

use super::layer::{CompressedLayer, Form};
use super::student::{Cast, Learning, Role, Start};
use crate::methods::Scope;
use crate::{Layer, model};
use candle_core::Tensor;
use offprint_core::random::Streams;
use offprint_core::{Error, Progress, Result};
use offprint_nn::layers::substitute::{Substitute, substituting};
use offprint_nn::ops::{self, Reduction, cross_entropy};
use offprint_nn::optim::{Adam, AdamSettings, Named, Optimizer};
use offprint_nn::train::{Decay, Epochs, Schedule};
use offprint_nn::{Batch, LayerPlace, Network, computation};
use std::rc::Rc;

/// How long to train, and how fast.
#[derive(Debug, Clone, Copy)]
pub struct Recipe {
    /// Steps of stage one, for each block.
    pub block_steps: u64,
    /// Steps of stage two.
    pub end_steps: u64,
    /// Samples of a step.
    pub batch: usize,
    /// Adam's rate for weights in stage one, on half a cosine down to a twentieth.
    pub rate: f64,
    /// Rate of scales and zeros as a share of [`Self::rate`].
    pub affine_share: f64,
    /// Adam's rate in stage two.
    pub end_rate: f64,
    /// Refreshes of the mask over the first half of stage one, with a sparsity that rises to its end; 0 keeps the first.
    pub refreshes: u64,
}

impl Recipe {
    /// For networks of some hundred thousand weights. The large models of the paper's predecessor take rates of 10⁻⁵
    /// (weights) and 10⁻⁴ (scales) over thousands of steps.
    pub fn small() -> Self {
        Self {
            block_steps: 150,
            end_steps: 150,
            batch: 32,
            rate: 1e-3,
            affine_share: 0.3,
            end_rate: 1e-4,
            refreshes: 0,
        }
    }
}

/// Which groups go when the mask is chosen anew.
#[derive(Debug, Clone, Copy)]
pub struct Pruning {
    /// The share of groups in the end.
    pub share: f64,
    /// Among which they are compared.
    pub scope: Scope,
}

/// What a compressed network is at a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Pruned and rounded.
    Rounded,
    /// After stage one.
    Blocks,
    /// After stage two.
    End,
}

/// Longest gradient of stage two.
const CLIP: f64 = 0.3;

/// Both stages of training.
pub struct Training<'a> {
    /// The float network: what stage one imitates, and all that is not compressed.
    pub network: &'a Network,
    /// Windows of tokens, with the tokens that follow.
    pub data: &'a Batch,
    /// What weights are stored as.
    pub form: Form,
    /// How the mask is chosen anew, if the recipe asks for it.
    pub pruning: Option<Pruning>,
    /// How long and how fast.
    pub recipe: Recipe,
    /// Where the order of the samples comes from.
    pub streams: Streams,
    /// Who is told, and may stop it.
    pub progress: Progress,
}

impl Training<'_> {
    /// Trains the layers of `starts` in the place of the network's own, and shows them to `watch` at each stage.
    ///
    /// # Errors
    /// Layers outside of numbered blocks; a loss that is not finite; the user's stop.
    pub fn run(
        &self,
        starts: &[Start],
        mut watch: impl FnMut(Stage, &[CompressedLayer]) -> Result<()>,
    ) -> Result<Vec<CompressedLayer>> {
        let Self { network, data, form, pruning, ref recipe, streams, ref progress } = *self;
        let mut layers: Vec<CompressedLayer> = starts.iter().map(|start| start.rounded(form)).collect();
        watch(Stage::Rounded, &layers)?;
        let blocks: Vec<usize> = starts.iter().map(|start| block_of(&start.place)).collect::<Result<_>>()?;
        let last = blocks.iter().copied().max().unwrap_or(0);
        if recipe.block_steps > 0 {
            for block in 0..=last {
                let epochs = Epochs::new(data.clone(), recipe.batch, streams.stream(&format!("block {block}")))?;
                let mine: Vec<usize> = (0..starts.len()).filter(|&i| blocks[i] == block).collect();
                let names: Vec<&LayerPlace> =
                    starts.iter().zip(&blocks).filter(|(_, b)| **b <= block).map(|(s, _)| &s.place).collect();
                let stage = BlockStage { network, form, pruning, recipe, progress, branches: branches(&names)? };
                progress.begin(&format!("block {}", block + 1), recipe.block_steps);
                stage.run(&mine, starts, &mut layers, &epochs)?;
                progress.finish();
            }
            watch(Stage::Blocks, &layers)?;
        }
        if recipe.end_steps > 0 {
            let epochs = Epochs::new(data.clone(), recipe.batch, streams.stream("end to end"))?;
            progress.begin("end to end", recipe.end_steps);
            end_to_end(network, &mut layers, &epochs, recipe, progress)?;
            progress.finish();
            watch(Stage::End, &layers)?;
        }
        Ok(layers)
    }
}

/// `network` with the weights of `layers`.
///
/// # Errors
/// Layers that it does not have.
pub fn assembled(network: &Network, layers: &[CompressedLayer]) -> Result<Network> {
    let copy = network.copy()?;
    layers.iter().try_for_each(|layer| Layer::set(&copy, &layer.place, layer.weights().view()))?;
    Ok(copy)
}

/// Perplexity a token of `network` with the weights of `layers`.
///
/// # Errors
/// As [`model::evaluate`].
pub fn perplexity(network: &Network, layers: &[CompressedLayer], test: &Batch) -> Result<f64> {
    Ok(model::evaluate(&assembled(network, layers)?, test, None)?.perplexity())
}

/// The number of the block that a layer belongs to: the first number in its name.
pub fn block_of(place: &LayerPlace) -> Result<usize> {
    place
        .name
        .split('.')
        .find_map(|part| part.parse().ok())
        .ok_or_else(|| Error::input(format!("layer \"{}\"", place.name), "belongs to no numbered block of a decoder"))
}

/// Weights of those layers whose outputs are added to the residual stream.
fn branches(places: &[&LayerPlace]) -> Result<Vec<String>> {
    let ends = ["c_proj", "o_proj", "down_proj"];
    let adds = |place: &&&LayerPlace| place.name.rsplit('.').next().is_some_and(|last| ends.contains(&last));
    let found: Vec<String> = places.iter().filter(adds).map(|place| place.weight.clone()).collect();
    if found.is_empty() {
        return Err(Error::input(
            "model",
            "has no c_proj, o_proj or down_proj: stage one trains the blocks of decoders",
        ));
    }
    Ok(found)
}

struct BlockStage<'a> {
    network: &'a Network,
    form: Form,
    pruning: Option<Pruning>,
    recipe: &'a Recipe,
    progress: &'a Progress,
    branches: Vec<String>,
}

impl BlockStage<'_> {
    /// Trains the layers `mine`, with all before them as they have become.
    ///
    /// The output of a block is the residual stream behind it: what the branches of this block and those before it have
    /// added to the embedding, which is the same on both sides. So the loss is the mean square of the difference between
    /// the two sums of branches.
    fn run(&self, mine: &[usize], starts: &[Start], layers: &mut [CompressedLayer], epochs: &Epochs) -> Result<()> {
        let (teacher, student) = (Rc::new(Cast::new(self.branches.clone())), Rc::new(Cast::new(self.branches.clone())));
        let (mut weights, mut affines): (Vec<Named>, Vec<Named>) = Default::default();
        for (i, layer) in layers.iter().enumerate() {
            let role = if mine.contains(&i) {
                let learning = Learning::new(&starts[i], self.form)?;
                weights.push(learning.weights());
                affines.extend(learning.affines());
                Role::Learning(learning.into())
            } else {
                Role::fixed(layer)?
            };
            student.roles.borrow_mut().insert(layer.place.weight.clone(), role);
        }
        let recipe = self.recipe;
        let rate = |share: f64| AdamSettings { learning_rate: recipe.rate * share, ..AdamSettings::default() };
        let mut optimisers = vec![Adam::new(weights, rate(1.0)).map_err(computation)?];
        if !affines.is_empty() {
            optimisers.push(Adam::new(affines, rate(recipe.affine_share)).map_err(computation)?);
        }
        for step in 0..recipe.block_steps {
            self.refresh(step, mine, starts, &student)?;
            let batch = epochs.at(step)?;
            let target = sum_of(self.network, &teacher, &batch.inputs)?.detach();
            let loss = sum_of(self.network, &student, &batch.inputs)
                .and_then(|sum| (sum - target).and_then(|d| d.sqr()?.mean_all()).map_err(computation))?;
            advance(&loss, &mut optimisers, step, recipe.block_steps, None)?;
            self.progress.advance(1)?;
        }
        let roles = student.roles.borrow();
        for &i in mine {
            layers[i] = roles[&layers[i].place.weight].finished(&layers[i])?;
        }
        Ok(())
    }

    /// Raises the sparsity, if it is to rise: refresh k of n, over the first half of the steps, prunes k/n of the share.
    fn refresh(&self, step: u64, mine: &[usize], starts: &[Start], student: &Cast) -> Result<()> {
        let (Some(pruning), n) = (self.pruning, self.recipe.refreshes) else { return Ok(()) };
        if n == 0 {
            return Ok(());
        }
        let every = (self.recipe.block_steps / 2 / n).max(1);
        if !step.is_multiple_of(every) || step / every >= n {
            return Ok(());
        }
        let share = pruning.share * (step / every + 1) as f64 / n as f64;
        let mut roles = student.roles.borrow_mut();
        for &i in mine {
            if let Some(Role::Learning(learning)) = roles.get_mut(&starts[i].place.weight) {
                learning.prune(share, pruning.scope)?;
            }
        }
        Ok(())
    }
}

/// The sum of the branches when `network` runs on `inputs` with `cast` in charge.
fn sum_of(network: &Network, cast: &Rc<Cast>, inputs: &Tensor) -> Result<Tensor> {
    let substitute: Rc<dyn Substitute> = cast.clone();
    substituting(Some(substitute), || network.forward(inputs)).and_then(|_| cast.take_sum()).map_err(computation)
}

/// One step of all optimisers at the rate of this step.
fn advance(loss: &Tensor, optimisers: &mut [Adam], step: u64, steps: u64, clip: Option<&[Named]>) -> Result<()> {
    let value = loss.to_scalar::<f32>().map_err(computation)?;
    if !value.is_finite() {
        let advice = "a smaller rate may help";
        return Err(Error::Numerical(format!(
            "training stopped at step {step} of {steps}: the loss is {value}; {advice}"
        )));
    }
    let mut gradients = ops::backward(loss).map_err(computation)?;
    if let Some(named) = clip {
        shorten(&mut gradients, named)?;
    }
    let factor = Schedule { warmup: 0, decay: Decay::Cosine { floor: 0.05 } }.factor(step, steps);
    for optimiser in optimisers {
        let rate = optimiser.learning_rate();
        optimiser.set_learning_rate(rate * factor);
        let stepped = optimiser.step(&gradients).map_err(computation);
        optimiser.set_learning_rate(rate);
        stepped?;
    }
    Ok(())
}

/// Shortens the gradient over all of `named` to [`CLIP`].
fn shorten(gradients: &mut candle_core::backprop::GradStore, named: &[Named]) -> Result<()> {
    let mut square = 0.0;
    for (_, var) in named {
        if let Some(gradient) = gradients.get(var.as_tensor()) {
            let sum = gradient.sqr().and_then(|g| g.sum_all()?.to_scalar::<f32>());
            square += f64::from(sum.map_err(computation)?);
        }
    }
    let norm = square.sqrt();
    if norm > CLIP {
        for (_, var) in named {
            if let Some(gradient) = gradients.get(var.as_tensor()) {
                let shorter = (gradient * (CLIP / norm)).map_err(computation)?;
                gradients.insert(var.as_tensor(), shorter);
            }
        }
    }
    Ok(())
}

fn end_to_end(
    network: &Network,
    layers: &mut [CompressedLayer],
    epochs: &Epochs,
    recipe: &Recipe,
    progress: &Progress,
) -> Result<()> {
    let cast = Rc::new(Cast::new(Vec::new()));
    let mut learning: Vec<Named> = Vec::new();
    for layer in layers.iter() {
        let role = Role::scales(layer)?;
        learning.extend(role.learning(&layer.place.name));
        cast.roles.borrow_mut().insert(layer.place.weight.clone(), role);
    }
    let settings = AdamSettings { learning_rate: recipe.end_rate, ..AdamSettings::default() };
    let mut optimisers = [Adam::new(learning.clone(), settings).map_err(computation)?];
    for step in 0..recipe.end_steps {
        let batch = epochs.at(step)?;
        let substitute: Rc<dyn Substitute> = cast.clone();
        let loss = substituting(Some(substitute), || network.forward(&batch.inputs))
            .and_then(|logits| {
                let flat = logits.flatten_to(logits.rank() - 2)?;
                cross_entropy(&flat, &batch.targets.flatten_all()?, 0.0, Reduction::Mean)
            })
            .map_err(computation)?;
        advance(&loss, &mut optimisers, step, recipe.end_steps, Some(&learning))?;
        progress.advance(1)?;
    }
    let roles = cast.roles.borrow();
    for layer in layers {
        *layer = roles[&layer.place.weight].finished(layer)?;
    }
    Ok(())
}
