//! A linear classifier: tells whether samples of a class are taken for that class.

use super::layers::tensor;
use candle_core::{DType, Device, Tensor};
use ndarray::ArrayView2;
use offprint_core::{Error, Result};
use offprint_nn::layers::Linear;
use offprint_nn::ops::{Reduction, backward, cross_entropy};
use offprint_nn::optim::{Adam, AdamSettings, Optimizer};
use offprint_nn::{Weights, computation};

/// Multinomial logistic regression.
#[derive(Debug, Clone)]
pub struct LinearClassifier {
    layer: Linear,
}

/// Steps of Adam over all data, and their rate.
const STEPS: usize = 300;
const RATE: f64 = 0.05;
/// Weight decay: the data are few.
const DECAY: f64 = 1e-3;

impl LinearClassifier {
    /// Fitted to `data` (N, d) with `labels` (N) below `classes`.
    pub fn fit(data: ArrayView2<'_, f64>, labels: &[u8], classes: usize) -> Result<Self> {
        crate::check::rows("data", data)?;
        if labels.len() != data.nrows() || labels.iter().any(|&l| usize::from(l) >= classes) {
            let problem = format!("must be {} classes below {classes}", data.nrows());
            return Err(Error::input("labels", problem));
        }
        let weights = Weights::fresh(0, DType::F32)?;
        let layer = Linear::new(data.ncols(), classes, true, &weights)?;
        let params = weights.finish(&[])?;
        let settings = AdamSettings { learning_rate: RATE, weight_decay: DECAY, ..AdamSettings::default() };
        let mut adam = Adam::new(params.vars(), settings).map_err(computation)?;
        let inputs = points(data)?;
        let targets: Vec<u32> = labels.iter().map(|&l| u32::from(l)).collect();
        let targets = Tensor::from_vec(targets, data.nrows(), &Device::Cpu).map_err(computation)?;
        for _ in 0..STEPS {
            let step = layer
                .forward(&inputs)
                .and_then(|logits| cross_entropy(&logits, &targets, 0.0, Reduction::Mean))
                .and_then(|loss| backward(&loss))
                .and_then(|gradients| adam.step(&gradients));
            step.map_err(computation)?;
        }
        Ok(Self { layer })
    }

    /// The class (n) of each row of `x` (n, d).
    pub fn classify(&self, x: ArrayView2<'_, f64>) -> Result<Vec<u32>> {
        crate::check::dimension("points", x, "the classifier", self.layer.weight().dims()[1])?;
        let logits = self.layer.forward(&points(x)?);
        logits.and_then(|l| l.argmax(1)).and_then(|c| c.to_vec1::<u32>()).map_err(computation)
    }

    /// The share of rows of `x` (n, d) that are taken for their class in `labels` (n).
    pub fn accuracy(&self, x: ArrayView2<'_, f64>, labels: &[usize]) -> Result<f64> {
        if labels.len() != x.nrows() {
            return Err(Error::input("labels", format!("has {} entries for {} points", labels.len(), x.nrows())));
        }
        let right = self.classify(x)?.iter().zip(labels).filter(|(c, l)| **c as usize == **l).count();
        Ok(right as f64 / labels.len().max(1) as f64)
    }
}

fn points(x: ArrayView2<'_, f64>) -> Result<Tensor> {
    tensor(x.iter().map(|&v| v as f32).collect(), x.nrows())
}
