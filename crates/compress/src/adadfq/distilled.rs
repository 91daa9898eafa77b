//! Images whose pixels are trained to meet the batch norm statistics of a network (Cai et al. 2020).

use super::normalisation::Normalisation;
use super::teacher::Teacher;
use candle_core::{Tensor, Var};
use offprint_core::Result;
use offprint_nn::computation;
use offprint_nn::ops::backward;
use offprint_nn::optim::{Adam, AdamSettings, Optimizer};

/// Steps of a batch.
const STEPS: usize = 100;
/// Step length, in standard deviations of a pixel.
const RATE: f64 = 0.1;

/// `noise` (n, channels, height, width) after 100 steps of Adam on L_BNS, in standard deviations.
///
/// # Errors
/// Noise of another shape than the network reads.
pub fn distilled(noise: &Tensor, teacher: &Teacher, normalisation: &Normalisation) -> Result<Tensor> {
    let pixels = Var::from_tensor(noise).map_err(computation)?;
    let settings = AdamSettings { learning_rate: RATE, ..AdamSettings::default() };
    let mut adam = Adam::new([("pixels".to_owned(), pixels.clone())], settings).map_err(computation)?;
    for _ in 0..STEPS {
        let images = normalisation.restore(&pixels).map_err(computation)?;
        let (_, distance) = teacher.logits_and_statistics(&images)?;
        backward(&distance).and_then(|gradients| adam.step(&gradients)).map_err(computation)?;
    }
    Ok(pixels.as_detached_tensor())
}
