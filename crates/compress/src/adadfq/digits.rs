//! The study's network: the digits classifier trained on standardised images.

use super::generator::ImageShape;
use super::normalisation::Normalisation;
use super::teacher::Teacher;
use candle_core::DType;
use offprint_core::random::Streams;
use offprint_core::{Progress, Result};
use offprint_nn::data::digits;
use offprint_nn::ops::{Mode, Reduction, cross_entropy};
use offprint_nn::optim::{Adam, AdamSettings};
use offprint_nn::train::{Epochs, Plan, Schedule, train};
use offprint_nn::{Architecture, Batch, Network, computation};
use rand::RngExt;

/// Digits with mean 0 and variance 1 over the training images, and a network that was trained on them.
#[derive(Debug)]
pub struct StandardisedDigits {
    /// 1297 images.
    pub train: Batch,
    /// 500 images.
    pub test: Batch,
    /// The trained network.
    pub teacher: Teacher,
    /// Mean 0, deviation 1.
    pub normalisation: Normalisation,
    /// Ten classes of 1 × 8 × 8 pixels.
    pub shape: ImageShape,
}

impl StandardisedDigits {
    /// Trains the network: Adam with rate 2·10⁻³ on a cosine, weight decay 10⁻⁴, batches of 64; 25 epochs give about 0.99.
    ///
    /// # Errors
    /// The user's stop.
    pub fn trained(epochs: u64, streams: Streams, progress: &Progress) -> Result<Self> {
        let digits = digits(DType::F32)?;
        let own = Normalisation::of(&digits.train.inputs)?;
        let standardised = |batch: Batch| {
            Ok(Batch { inputs: own.standardise(&batch.inputs).map_err(computation)?, targets: batch.targets })
        };
        let (learned, test) = (standardised(digits.train)?, standardised(digits.test)?);
        let seed = streams.stream("teacher's weights").rng(0).random();
        let network = Network::fresh(&Architecture::DigitsCnn { classes: 10 }, seed, DType::F32)?;
        let epoch = Epochs::new(learned.clone(), 64, streams.stream("teacher's batches"))?;
        let settings = AdamSettings { learning_rate: 2e-3, weight_decay: 1e-4, ..AdamSettings::default() };
        let mut adam = Adam::new(network.params().vars(), settings).map_err(computation)?;
        train(network.params(), &mut adam, &Plan::new(epochs * epoch.steps(), Schedule::cosine()), progress, |step| {
            let batch = epoch.at(step)?;
            network
                .forward_in(&batch.inputs, Mode::Training)
                .and_then(|logits| cross_entropy(&logits, &batch.targets, 0.0, Reduction::Mean))
                .map_err(computation)
        })?;
        Ok(Self {
            train: learned,
            test,
            teacher: Teacher::new(network)?,
            normalisation: Normalisation::new(1, &[0.0], &[1.0])?,
            shape: ImageShape { classes: 10, channels: 1, height: 8, width: 8 },
        })
    }
}
