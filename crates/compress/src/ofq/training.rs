//! Training with quantisation in the loop, under a teacher.

use super::calm::Watched;
use super::{Calm, Counts, QuantisedViT};
use crate::model::{PART, Quality, quality};
use candle_core::{DType, Device, Tensor};
use offprint_core::random::Stream;
use offprint_core::{Error, Progress, Result};
use offprint_nn::ops::{Reduction, cross_entropy, log_softmax, softmax};
use offprint_nn::optim::{Adam, AdamSettings};
use offprint_nn::train::{Epochs, Plan, Schedule, train};
use offprint_nn::{Batch, Network, computation};

/// How long to train, and how. The defaults are those of small networks; the published ones are 300 epochs of AdamW on a
/// cosine with weight decay 0.05.
#[derive(Debug, Clone, PartialEq)]
pub struct Training {
    /// Passes over the images.
    pub epochs: u64,
    /// Images of a batch.
    pub batch: usize,
    /// Adam's learning rate.
    pub rate: f64,
    /// What becomes of it.
    pub schedule: Schedule,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// What keeps weights from jumping.
    pub calm: Calm,
}

impl Default for Training {
    fn default() -> Self {
        Self {
            epochs: 8,
            batch: 64,
            rate: 1e-3,
            schedule: Schedule::constant(),
            weight_decay: 0.0,
            calm: Calm::Nothing,
        }
    }
}

/// Labelled images, with what a teacher makes of them.
#[derive(Debug, Clone)]
pub struct Lessons {
    images: Tensor,
    classes: Tensor,
    /// The teacher's probabilities (n, classes) and Σ p log p of each image.
    taught: Option<(Tensor, Tensor)>,
}

impl Lessons {
    /// Images (n, channels, height, width) with classes (n), and the opinion of `teacher` on them if there is one.
    ///
    /// # Errors
    /// No images; a teacher that cannot read them.
    pub fn new(samples: &Batch, teacher: Option<&Network>) -> Result<Self> {
        if samples.is_empty() {
            return Err(Error::input("data", "holds no image"));
        }
        let taught = teacher.map(|teacher| {
            let parts = samples.chunks(PART).map(|part| {
                let logits = teacher.forward(&part?.inputs)?;
                let p = softmax(&logits)?;
                let information = (&p * log_softmax(&logits)?)?.sum(1)?;
                Ok((p, information))
            });
            let (p, information): (Vec<_>, Vec<_>) =
                parts.collect::<candle_core::Result<Vec<_>>>()?.into_iter().unzip();
            Ok((Tensor::cat(&p, 0)?, Tensor::cat(&information, 0)?))
        });
        let taught = taught.transpose().map_err(computation)?;
        Ok(Self { images: samples.inputs.clone(), classes: samples.targets.clone(), taught })
    }

    /// Images.
    pub fn len(&self) -> usize {
        self.images.dims()[0]
    }

    /// Never so.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The loss of `network` on the images numbered `chosen` (n): cross-entropy, plus the divergence KL(teacher ‖ network).
    ///
    /// # Errors
    /// None but those of the tensor library.
    pub fn loss(&self, network: &QuantisedViT, chosen: &Tensor) -> Result<Tensor> {
        let loss = || {
            let logits = network.forward(&self.images.index_select(chosen, 0)?)?;
            let loss = cross_entropy(&logits, &self.classes.index_select(chosen, 0)?, 0.0, Reduction::Mean)?;
            let Some((p, information)) = &self.taught else { return Ok(loss) };
            let cross = (p.index_select(chosen, 0)? * log_softmax(&logits)?)?.sum(1)?;
            loss + (information.index_select(chosen, 0)? - cross)?.mean_all()?
        };
        loss().map_err(computation)
    }
}

/// What happened in a training.
#[derive(Debug, Clone)]
pub struct History {
    /// Loss before each step.
    pub losses: Vec<f64>,
    /// Names of the matrices.
    pub matrices: Vec<String>,
    /// Counts of each matrix in each step.
    pub counts: Vec<Vec<Counts>>,
    /// Steps of an epoch.
    pub epoch: usize,
    /// Share of weights whose running frequency of oscillation ends above 0.005.
    pub oscillating: f64,
    /// Mean share of weights that CGA trained; 1 without it.
    pub trained: f64,
}

impl History {
    /// Counts over all matrices in each epoch.
    pub fn epochs(&self) -> Vec<Counts> {
        self.counts.chunks(self.epoch.max(1)).map(|steps| steps.iter().flatten().copied().sum()).collect()
    }

    /// Counts over all matrices in the last `epochs`.
    pub fn last(&self, epochs: usize) -> Counts {
        self.epochs().iter().rev().take(epochs).copied().sum()
    }

    /// Counts of each matrix over the last `epochs`.
    pub fn last_by_matrix(&self, epochs: usize) -> Vec<Counts> {
        let first = self.counts.len().saturating_sub(epochs * self.epoch);
        let steps = &self.counts[first..];
        (0..self.matrices.len()).map(|m| steps.iter().map(|counts| counts[m]).sum()).collect()
    }
}

impl QuantisedViT {
    /// Trains weights, scales and steps on `lessons`, whose order `stream` shuffles anew for each epoch.
    ///
    /// # Errors
    /// Settings out of range; a training that does not stay finite; the user's stop.
    pub fn train(
        &self,
        lessons: &Lessons,
        training: &Training,
        stream: Stream,
        progress: &Progress,
    ) -> Result<History> {
        training.calm.check()?;
        let numbers = Tensor::arange(0, lessons.len() as u32, &Device::Cpu).map_err(computation)?;
        let epochs = Epochs::new(Batch { inputs: numbers.clone(), targets: numbers }, training.batch, stream)?;
        let settings = AdamSettings {
            learning_rate: training.rate,
            weight_decay: training.weight_decay,
            decoupled: true,
            ..AdamSettings::default()
        };
        let adam = Adam::new(self.vars(), settings).map_err(computation)?;
        let mut watched = Watched::new(adam, self, training.calm)?;
        let plan = Plan::new(training.epochs * epochs.steps(), training.schedule.clone());
        let margin = training.calm.margin();
        let history = train(self.network().params(), &mut watched, &plan, progress, |step| {
            let chosen = epochs.at(step)?.inputs;
            let loss = self.within(margin, || lessons.loss(self, &chosen))?;
            match training.calm {
                Calm::Dampening { strength } => {
                    let Some(penalty) = self.dampening()? else { return Ok(loss) };
                    (penalty * strength).and_then(|penalty| loss + penalty).map_err(computation)
                }
                _ => Ok(loss),
            }
        })?;
        let trained = &watched.trained;
        Ok(History {
            losses: history.losses,
            matrices: self.readings()?.into_iter().map(|reading| reading.name).collect(),
            epoch: epochs.steps() as usize,
            oscillating: watched.tracker.oscillating(),
            trained: if trained.is_empty() { 1.0 } else { trained.iter().sum::<f64>() / trained.len() as f64 },
            counts: watched.counts,
        })
    }

    /// How good the network is on labelled images.
    ///
    /// # Errors
    /// No image; images of another size; outputs that are not finite.
    pub fn evaluate(&self, samples: &Batch) -> Result<Quality> {
        quality(samples, |x| self.forward(x))
    }

    /// Predicted classes and logits (n, classes) of images.
    ///
    /// # Errors
    /// Images of another size.
    pub fn logits(&self, images: &Tensor) -> Result<ndarray::Array2<f32>> {
        let n = images.dims().first().copied().unwrap_or(0);
        let parts = (0..n).step_by(PART).map(|first| self.forward(&images.narrow(0, first, PART.min(n - first))?));
        let parts = parts.collect::<candle_core::Result<Vec<_>>>().map_err(computation)?;
        let all = Tensor::cat(&parts, 0).and_then(|t| t.to_dtype(DType::F32)).map_err(computation)?;
        crate::matrix(&all)
    }
}
