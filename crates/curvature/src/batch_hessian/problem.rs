//! The built-in problems: handwritten digits by a small perceptron, breast cancer by logistic regression.

use super::NetworkCurvature;
use crate::Real;
use crate::network::Matrix;
use candle_core::{DType, Device, Tensor};
use ndarray::{Array2, s};
use offprint_core::random::{Stream, Streams};
use offprint_core::{Progress, Result};
use offprint_nn::derivatives::{Loss, LossFunction};
use offprint_nn::models::{Activation, MlpConfig};
use offprint_nn::ops;
use offprint_nn::optim::{Optimizer, Sgd, SgdSettings};
use offprint_nn::train::{Decay, Epochs, Plan, Schedule, train};
use offprint_nn::{Architecture, Network};
use offprint_nn::{Batch, computation, params};
use rand::RngExt;

/// Rows of the digits that are used.
const DIGITS: usize = 1280;
/// The batch size of training.
pub(super) const BATCH: usize = 128;

/// A network, its data and its loss.
pub(super) struct Problem {
    pub network: Network,
    pub data: Batch,
    loss: Loss,
    order: Stream,
}

impl Problem {
    /// The first 1280 digits, grey levels over 16, and a perceptron 64-64-32-10 with tanh: P = 6570.
    pub fn digits(streams: Streams, dtype: DType) -> Result<Self> {
        let (images, labels) = offprint_data::digits();
        let images = images.slice(s![..DIGITS, ..]).mapv(|ink| ink / 16.0);
        let ids: Vec<u32> = labels[..DIGITS].iter().map(|&label| label.into()).collect();
        let targets = Tensor::from_vec(ids, DIGITS, &Device::Cpu).map_err(computation)?;
        let widths = vec![images.ncols(), 64, 32, 10];
        Self::new(widths, rows(&images, dtype)?, targets, Loss::CrossEntropy, streams, dtype)
    }

    /// Breast cancer, each measurement with mean 0 and variance 1, and logistic regression: P = 31.
    pub fn cancer(streams: Streams, dtype: DType) -> Result<Self> {
        let (mut x, benign) = offprint_data::breast_cancer();
        for mut column in x.columns_mut() {
            let (mean, deviation) = (column.mean().expect("there are rows"), column.std(0.0));
            column.mapv_inplace(|x| (x - mean) / deviation);
        }
        let y = Array2::from_shape_fn((benign.len(), 1), |(i, _)| f64::from(benign[i]));
        Self::new(vec![x.ncols(), 1], rows(&x, dtype)?, rows(&y, dtype)?, Loss::Logistic, streams, dtype)
    }

    fn new(
        widths: Vec<usize>,
        inputs: Tensor,
        targets: Tensor,
        loss: Loss,
        streams: Streams,
        dtype: DType,
    ) -> Result<Self> {
        let architecture = Architecture::Mlp(MlpConfig { widths, activation: Activation::Tanh });
        let seed = streams.stream("initial weights").rng(0).random();
        let network = Network::fresh(&architecture, seed, dtype)?;
        Ok(Self { network, data: Batch { inputs, targets }, loss, order: streams.stream("order of samples") })
    }

    /// The loss as a function of the weights.
    pub fn function(&self) -> LossFunction<'_> {
        self.network.loss(self.loss)
    }

    /// Trains with SGD 0.05, momentum 0.9, weight decay 5·10⁻⁴ and batches of 128, as the study does.
    pub fn train(&self, epochs: u64, progress: &Progress) -> Result<()> {
        let settings = SgdSettings { learning_rate: 0.05, momentum: 0.9, weight_decay: 5e-4, ..SgdSettings::default() };
        let mut sgd = Sgd::new(self.network.params().vars(), settings).map_err(computation)?;
        let order = Epochs::new(self.data.clone(), BATCH, self.order)?;
        let plan = Plan::new(epochs * order.steps(), Schedule { warmup: 0, decay: Decay::Constant });
        train(self.network.params(), &mut sgd, &plan, progress, |step| self.mean_loss(&order.at(step)?))?;
        Ok(())
    }

    /// The mean loss over `batch`, on the graph.
    fn mean_loss(&self, batch: &Batch) -> Result<Tensor> {
        let outputs = self.network.forward(&batch.inputs).map_err(computation)?;
        self.loss.per_sample(&outputs, &batch.targets)?.mean_all().map_err(computation)
    }

    /// `steps` steps on batches of `batch` samples drawn with replacement; the loss over all data at the end, infinite
    /// where it stopped being finite.
    pub fn descend(&self, optimizer: &mut dyn Optimizer, batch: usize, steps: u64, stream: Stream) -> Result<f64> {
        for step in 0..steps {
            let chosen = super::Sampling::WithReplacement.draw(batch, self.data.len(), stream, step);
            let chosen = Tensor::from_vec(chosen, batch, &Device::Cpu).map_err(computation)?;
            let loss = self.mean_loss(&self.data.select(&chosen).map_err(computation)?)?;
            if !value(&loss)?.is_finite() {
                return Ok(f64::INFINITY);
            }
            optimizer.step(&ops::backward(&loss).map_err(computation)?).map_err(computation)?;
        }
        let last = value(&self.mean_loss(&self.data)?)?;
        Ok(if last.is_finite() { last } else { f64::INFINITY })
    }

    /// `epochs` epochs of heavy-ball descent on batches of 128, with the rate and the momentum that `rates` gives at the
    /// beginning of each; the loss over all data at the end, infinite where it stopped being finite.
    pub fn heavy_ball(&self, epochs: u64, mut rates: impl FnMut(u64, &Self) -> Result<(f64, f64)>) -> Result<f64> {
        let order = Epochs::new(self.data.clone(), BATCH, self.order)?;
        let function = self.function();
        let mut weights: Vec<f64> = self.network.params().flat()?;
        let mut direction = vec![0.0; weights.len()];
        for epoch in 0..epochs {
            let (rate, momentum) = rates(epoch, self)?;
            for step in 0..order.steps() {
                let (loss, gradient) = function.gradient::<f64>(&order.at(epoch * order.steps() + step)?)?;
                if !loss.is_finite() {
                    return Ok(f64::INFINITY);
                }
                for ((w, b), g) in weights.iter_mut().zip(&mut direction).zip(gradient) {
                    *b = momentum * *b + g;
                    *w -= rate * *b;
                }
                self.network.params().set_flat(&weights)?;
            }
        }
        let last = function.value(&self.data)?;
        Ok(if last.is_finite() { last } else { f64::INFINITY })
    }
}

/// The `matrix` of `function` over the problem's data, in parts that hold a few MB of activations.
pub(super) fn curvature<'a, T: Real + params::Real>(
    function: &'a LossFunction<'a>,
    data: &'a Batch,
    matrix: Matrix,
) -> Result<NetworkCurvature<'a, T>> {
    NetworkCurvature::new(function, data, matrix, 2048)
}

fn rows(values: &Array2<f64>, dtype: DType) -> Result<Tensor> {
    let flat: Vec<f64> = values.iter().copied().collect();
    Tensor::from_vec(flat, values.dim(), &Device::Cpu).and_then(|t| t.to_dtype(dtype)).map_err(computation)
}

fn value(loss: &Tensor) -> Result<f64> {
    loss.to_dtype(DType::F64).and_then(|l| l.to_scalar()).map_err(computation)
}
