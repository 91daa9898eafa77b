//! `digits8`: the small class-conditional model of 8 × 8 digits on which the papers of this field are tried.

use super::model::{Labels, Network};
use super::train::{Recipe, fit};
use crate::{Denoiser, Grid, Guidance, Path, Sampler, Schedule};
use ndarray::{Array2, Axis};
use offprint_core::random::{Stream, Streams};
use offprint_core::{Error, Progress, Result};
use rand::seq::SliceRandom;

/// The digits as the model sees them, split by one fixed permutation.
#[derive(Debug, Clone)]
pub struct DigitsData {
    /// Points (1437, 64) to train on, of mean 0 and standard deviation ½ over the whole set.
    pub train: Array2<f64>,
    /// Their classes (1437).
    pub train_labels: Vec<u8>,
    /// Points (360, 64) for testing.
    pub test: Array2<f64>,
    /// Their classes (360).
    pub test_labels: Vec<u8>,
    /// Mean ink of a pixel, from 0 to 1.
    pub mean: f64,
    /// Ink in a unit of the points.
    pub scale: f64,
}

/// Points to train on.
const TRAINING: usize = 1437;

impl DigitsData {
    /// The data.
    pub fn new() -> Self {
        let (images, labels) = offprint_data::digits();
        let ink = images / 16.0;
        let mean = ink.mean().unwrap_or(0.0);
        let scale = 2.0 * (ink.mapv(|v| (v - mean).powi(2)).mean().unwrap_or(1.0)).sqrt();
        let points = (ink - mean) / scale;
        let mut order: Vec<usize> = (0..labels.len()).collect();
        order.shuffle(&mut Streams::new(8).stream("split of the digits").rng(0));
        let (train, test) = order.split_at(TRAINING);
        let classes = |rows: &[usize]| rows.iter().map(|&i| labels[i]).collect();
        Self {
            train: points.select(Axis(0), train),
            train_labels: classes(train),
            test: points.select(Axis(0), test),
            test_labels: classes(test),
            mean,
            scale,
        }
    }

    /// Points (n, 64) as ink from 0 (paper) to 1, clipped.
    pub fn to_ink(&self, points: &Array2<f64>) -> Array2<f64> {
        points.mapv(|v| (v * self.scale + self.mean).clamp(0.0, 1.0))
    }
}

impl Default for DigitsData {
    fn default() -> Self {
        Self::new()
    }
}

/// The trained model with its data.
#[derive(Debug, Clone)]
pub struct Digits8 {
    /// The network: ten classes, EDM's path and preconditioning.
    pub network: Network,
    /// What it was trained on.
    pub data: DigitsData,
}

/// All weights of the shipped training, little-endian f32, in the network's order.
static WEIGHTS: &[u8] = include_bytes!("../../data/digits8.f32");

impl Digits8 {
    /// Steps of the shipped training.
    pub const STEPS: u64 = 8000;

    /// The shipped model: what [`Self::train`] gives with seed 0 and 8000 steps.
    pub fn shipped() -> Result<Self> {
        let recipe = Self::recipe(Path::Gaussian(Schedule::Edm), Self::STEPS);
        let network = Network::fresh(&recipe.shape, recipe.path, recipe.target, 0)?;
        let values: Vec<f32> = WEIGHTS.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        network.params().set_flat(&values)?;
        Ok(Self { network, data: DigitsData::new() })
    }

    /// Trains the model anew, on any path from data to noise: for comparisons between paths.
    pub fn train(path: Path, steps: u64, seed: u64, progress: &Progress) -> Result<Self> {
        let data = DigitsData::new();
        let recipe = Self::recipe(path, steps);
        let (network, _) = fit(&recipe, data.train.view(), Some(&data.train_labels), seed, progress)?;
        Ok(Self { network, data })
    }

    /// How it is trained.
    pub fn recipe(path: Path, steps: u64) -> Recipe {
        Recipe::edm(64, 10, path, steps)
    }

    /// `each` samples of every class with guidance `weight` (1 for none): points (10 · each, 64) and their classes.
    pub fn sample(
        &self,
        sampler: &dyn Sampler,
        grid: &Grid,
        (each, weight): (usize, f64),
        stream: Stream,
    ) -> Result<(Array2<f64>, Vec<usize>)> {
        if each == 0 {
            return Err(Error::parameter("samples", each, "at least 1 of each class"));
        }
        let labels: Vec<usize> = (0..10 * each).map(|i| i / each).collect();
        let conditional = self.network.conditioned(Labels::Each(labels.clone()))?;
        let model = Guidance::new(self.network.unconditional(), conditional, weight)?;
        let start = grid.start(labels.len(), 64, model.kernel(), stream);
        let sampled = sampler.run(&model, start, grid, stream.nested(0).stream("sampler"))?;
        Ok((sampled.into_x(), labels))
    }
}
