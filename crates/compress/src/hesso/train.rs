//! Training and judging a network.

use super::net::Net;
use candle_core::{DType, Tensor};
use offprint_core::random::Stream;
use offprint_core::{Error, Progress, Result};
use offprint_nn::derivatives::Loss;
use offprint_nn::ops::{self, Mode, Reduction};
use offprint_nn::optim::Optimizer;
use offprint_nn::train::{Epochs, Plan, Schedule, train};
use offprint_nn::{Batch, computation};
use std::cell::Cell;

/// How a network is trained, but for the optimiser.
pub struct Training<'a> {
    /// The samples.
    pub data: &'a Batch,
    /// What is made small.
    pub loss: Loss,
    /// Passes over the samples.
    pub epochs: u64,
    /// Samples of a step.
    pub batch: usize,
    /// What becomes of the learning rate.
    pub schedule: Schedule,
    /// Decides the order of the samples.
    pub order: Stream,
}

impl Training<'_> {
    /// The number of steps.
    pub fn steps(&self) -> u64 {
        self.epochs * self.data.len().div_ceil(self.batch.max(1)) as u64
    }

    /// Trains `net`, telling the loss of each step through `gauge` before the step is taken, and `after` each how far it
    /// is. Gives the losses.
    ///
    /// # Errors
    /// A batch of 0; a loss that is not finite; what the optimiser refuses; a stop by the user.
    pub fn run(
        &self,
        net: &Net,
        optimizer: &mut dyn Optimizer,
        gauge: Option<&Cell<f64>>,
        progress: &Progress,
    ) -> Result<Vec<f64>> {
        let epochs = Epochs::new(self.data.clone(), self.batch, self.order)?;
        let plan = Plan::new(self.steps(), self.schedule.clone());
        let history = train(net.params(), optimizer, &plan, progress, |step| {
            let batch = epochs.at(step)?;
            let outputs = net.forward_in(&batch.inputs, Mode::Training).map_err(computation)?;
            let loss = mean_loss(&outputs, &batch.targets, self.loss)?;
            if let Some(gauge) = gauge {
                gauge.set(number(&loss)?);
            }
            Ok(loss)
        })?;
        Ok(history.losses)
    }
}

/// The mean loss of a target: of a sample, or of a token.
fn mean_loss(outputs: &Tensor, targets: &Tensor, loss: Loss) -> Result<Tensor> {
    if loss == Loss::CrossEntropy {
        let classes = outputs.dims().last().copied().unwrap_or(1);
        let rows = outputs.reshape(((), classes)).map_err(computation)?;
        let targets = targets.flatten_all().map_err(computation)?;
        return ops::cross_entropy(&rows, &targets, 0.0, Reduction::Mean).map_err(computation);
    }
    loss.per_sample(outputs, targets)?.mean_all().map_err(computation)
}

fn number(tensor: &Tensor) -> Result<f64> {
    tensor.to_dtype(DType::F64).and_then(|t| t.to_scalar()).map_err(computation)
}

/// How good a network is on samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quality {
    /// Mean loss of a target.
    pub loss: f64,
    /// Share of right classes, for classifiers.
    pub accuracy: Option<f64>,
}

/// Judges `net` on `data`, in parts of at most 256 samples.
///
/// # Errors
/// No sample; samples that the network does not read.
pub fn judge(net: &Net, data: &Batch, loss: Loss) -> Result<Quality> {
    if data.is_empty() {
        return Err(Error::parameter("data", "no sample", "at least one to judge the network on"));
    }
    let (mut total, mut right, mut targets) = (0.0, 0, 0);
    for part in data.chunks(256) {
        let part = part.map_err(computation)?;
        let outputs = net.forward(&part.inputs).map_err(computation)?;
        total += number(&mean_loss(&outputs, &part.targets, loss)?)? * part.len() as f64;
        if loss == Loss::CrossEntropy {
            let count = || -> candle_core::Result<(u32, usize)> {
                let classes = outputs.dims().last().copied().unwrap_or(1);
                let predicted = outputs.reshape(((), classes))?.argmax(1)?;
                let right = predicted.eq(&part.targets.flatten_all()?)?.to_dtype(DType::U32)?.sum_all()?;
                Ok((right.to_scalar()?, predicted.elem_count()))
            };
            let (hits, of) = count().map_err(computation)?;
            right += hits as usize;
            targets += of;
        }
    }
    let accuracy = (targets > 0).then(|| right as f64 / targets as f64);
    Ok(Quality { loss: total / data.len() as f64, accuracy })
}
