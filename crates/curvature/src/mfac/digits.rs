//! The network of the study and of the default run: a perceptron 64-128-64-10 on handwritten digits.

use super::optimizer::{MfacOptimizer, Settings};
use super::prune::Pruner;
use candle_core::{DType, Tensor};
use ndarray::Array2;
use offprint_core::random::Streams;
use offprint_core::{Progress, Result};
use offprint_nn::derivatives::{Loss, LossFunction};
use offprint_nn::models::{Activation, Mlp, MlpConfig};
use offprint_nn::ops::{Reduction, cross_entropy};
use offprint_nn::optim::Optimizer;
use offprint_nn::params::Block;
use offprint_nn::train::{Decay, Epochs, Plan, Schedule, train};
use offprint_nn::{Batch, Params, Weights, computation};
use rand::seq::index::sample;
use std::collections::BTreeMap;

/// The widths of the layers.
const WIDTHS: [usize; 4] = [64, 128, 64, 10];

/// A perceptron with ReLU, and the digits it learns and is tested on (1297 and 500).
pub(super) struct DigitsNet {
    params: Params,
    mlp: Mlp,
    train: Batch,
    test: Batch,
    streams: Streams,
}

/// How well a network does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Score {
    /// Mean cross-entropy on the training images.
    pub loss: f64,
    /// Share of test images that are recognised.
    pub accuracy: f64,
}

impl DigitsNet {
    /// With fresh weights.
    pub fn fresh(streams: Streams) -> Result<Self> {
        use rand::RngExt;
        let seed = streams.stream("initial weights").rng(0).random();
        let weights = Weights::fresh(seed, DType::F32)?;
        let mlp = Mlp::new(&MlpConfig { widths: WIDTHS.to_vec(), activation: Activation::Relu }, &weights)?;
        let params = weights.finish(&[])?;
        let digits = offprint_nn::data::digits(DType::F32)?;
        let flat = |batch: Batch| {
            let inputs = batch.inputs.flatten_from(1).map_err(computation)?;
            Ok(Batch { inputs, targets: batch.targets })
        };
        Ok(Self { params, mlp, train: flat(digits.train)?, test: flat(digits.test)?, streams })
    }

    /// Trained as the study's dense network: SGD 0.1 with momentum 0.9 and weight decay 10⁻⁴, batches of 64.
    pub fn trained(streams: Streams, epochs: u64, progress: &Progress) -> Result<Self> {
        use offprint_nn::optim::{Sgd, SgdSettings};
        let net = Self::fresh(streams)?;
        let settings = SgdSettings { learning_rate: 0.1, momentum: 0.9, weight_decay: 1e-4, ..SgdSettings::default() };
        let mut sgd = Sgd::new(net.params.vars(), settings).map_err(computation)?;
        net.train_with(&mut sgd, epochs, 64, progress)?;
        Ok(net)
    }

    /// The variables, for an optimiser.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The weight matrices, which are pruned; biases are not.
    pub fn matrices(&self) -> Vec<Block> {
        self.params.blocks().into_iter().filter(|block| block.columns > 1).collect()
    }

    /// The elements of the weight matrices in one vector.
    pub fn weights(&self) -> Result<Vec<f64>> {
        let flat: Vec<f64> = self.params.flat()?;
        Ok(self.matrices().into_iter().flat_map(|block| flat[block.range].to_vec()).collect())
    }

    /// Sets the elements of the weight matrices.
    pub fn set_weights(&self, weights: &[f64]) -> Result<()> {
        let mut flat: Vec<f64> = self.params.flat()?;
        let mut start = 0;
        for block in self.matrices() {
            let length = block.range.len();
            flat[block.range].copy_from_slice(&weights[start..start + length]);
            start += length;
        }
        self.params.set_flat(&flat)
    }

    /// Gradients by the weight matrices of the loss on `count` random batches of `batch` training images `(count, d)`.
    /// `draw` numbers the sets of batches.
    pub fn gradients(&self, count: usize, batch: usize, draw: u64) -> Result<Array2<f32>> {
        let function = self.function();
        let blocks = self.matrices();
        let stream = self.streams.stream("gradients").nested(draw).stream("batches");
        let mut gradients = Array2::zeros((count, blocks.iter().map(|b| b.range.len()).sum()));
        for (i, mut row) in gradients.rows_mut().into_iter().enumerate() {
            let chosen = sample(&mut stream.rng(i as u64), self.train.len(), batch);
            let chosen: Vec<u32> = chosen.into_iter().map(|sample| sample as u32).collect();
            let ids = Tensor::from_vec(chosen, batch, self.train.inputs.device()).map_err(computation)?;
            let (_, gradient) = function.gradient::<f32>(&self.train.select(&ids).map_err(computation)?)?;
            let parts = blocks.iter().flat_map(|block| &gradient[block.range.clone()]);
            row.iter_mut().zip(parts).for_each(|(x, g)| *x = *g);
        }
        Ok(gradients)
    }

    /// Prunes from the network's present weights to each of `sparsities` and scores the results; the network is left as
    /// it was. Gradients are of `count` batches of 16 images.
    pub fn prune(&self, pruner: Pruner, sparsities: &[f64], count: usize, progress: &Progress) -> Result<Vec<Score>> {
        sparsities.iter().map(|&sparsity| Ok(self.pruned(pruner, sparsity, count, progress)?.1)).collect()
    }

    /// The weights after pruning to `sparsity`, and their score; the network is left as it was.
    pub fn pruned(
        &self,
        pruner: Pruner,
        sparsity: f64,
        count: usize,
        progress: &Progress,
    ) -> Result<(Vec<f64>, Score)> {
        let dense = self.weights()?;
        let mut weights = dense.clone();
        let mut draw = 0;
        let gradients = |weights: &[f64]| {
            self.set_weights(weights)?;
            draw += 1;
            self.gradients(count, 16, draw)
        };
        let result = pruner.prune(&mut weights, sparsity, gradients, progress);
        let score = result.and_then(|()| self.set_weights(&weights)).and_then(|()| self.score());
        self.set_weights(&dense)?;
        Ok((weights, score?))
    }

    /// Loss and accuracy at the present weights.
    pub fn score(&self) -> Result<Score> {
        let function = self.function();
        let outputs: Vec<Vec<f32>> =
            function.outputs(&self.test).and_then(|outputs| outputs.to_vec2().map_err(computation))?;
        let targets: Vec<u32> = self.test.targets.to_vec1().map_err(computation)?;
        let right = outputs.iter().zip(&targets).filter(|(outputs, target)| {
            let best = (0..outputs.len()).max_by(|&a, &b| outputs[a].total_cmp(&outputs[b]));
            best == Some(**target as usize)
        });
        let accuracy = right.count() as f64 / targets.len() as f64;
        Ok(Score { loss: function.value(&self.train)?, accuracy })
    }

    fn function(&self) -> LossFunction<'_> {
        LossFunction::new(&self.params, |x| self.mlp.forward(x), Loss::CrossEntropy)
    }

    /// Trains with one of the usual optimisers; the loss before each step.
    pub fn train_with(
        &self,
        optimizer: &mut dyn Optimizer,
        epochs: u64,
        batch: usize,
        progress: &Progress,
    ) -> Result<Vec<f64>> {
        let order = Epochs::new(self.train.clone(), batch, self.streams.stream("order of samples"))?;
        let plan = Plan::new(epochs * order.steps(), Schedule { warmup: 0, decay: Decay::Constant });
        let history = train(&self.params, optimizer, &plan, progress, |step| {
            let batch = order.at(step)?;
            let outputs = self.mlp.forward(&batch.inputs);
            outputs.and_then(|y| cross_entropy(&y, &batch.targets, 0.0, Reduction::Mean)).map_err(computation)
        })?;
        Ok(history.losses)
    }

    /// Trains with M-FAC; the loss before each step, as far as it stayed finite.
    pub fn train_with_mfac(
        &self,
        settings: Settings,
        epochs: u64,
        batch: usize,
        progress: &Progress,
    ) -> Result<Vec<f64>> {
        let order = Epochs::new(self.train.clone(), batch, self.streams.stream("order of samples"))?;
        let function = self.function();
        let mut weights: Vec<f32> = self.params.flat()?;
        let mut optimizer = MfacOptimizer::new(&weights, settings)?;
        let mut losses = Vec::new();
        progress.begin("training with M-FAC", epochs * order.steps());
        for step in 0..epochs * order.steps() {
            let (loss, gradient) = function.gradient::<f32>(&order.at(step)?)?;
            losses.push(loss);
            if !loss.is_finite() || gradient.iter().any(|g| !g.is_finite()) {
                break;
            }
            optimizer.step(&mut weights, &gradient)?;
            self.params.set_flat(&weights)?;
            progress.advance(1)?;
        }
        progress.finish();
        Ok(losses)
    }

    /// `values`, one an element of the weight matrices, as named arrays.
    pub fn named<A: Clone>(&self, values: &[A]) -> BTreeMap<String, offprint_core::Array>
    where
        offprint_core::Array: From<Array2<A>>,
    {
        let mut start = 0;
        let named = self.matrices().into_iter().map(|block| {
            let part = values[start..start + block.range.len()].to_vec();
            start += block.range.len();
            let array = Array2::from_shape_vec((block.rows, block.columns), part).expect("a block is rows × columns");
            (block.name, array.into())
        });
        named.collect()
    }
}
