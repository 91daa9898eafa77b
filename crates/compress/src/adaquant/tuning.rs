//! Repairing a quantised network: its channels' statistics, then its biases.

use super::network::{Quantised, bias_of, read, set};
use crate::calibration::record;
use crate::layer::Layer;
use crate::model::Norm;
use candle_core::{DType, Tensor};
use ndarray::Array1;
use offprint_core::random::Stream;
use offprint_core::{Error, Progress, Result};
use offprint_nn::layers::BatchNorm;
use offprint_nn::layers::substitute::substituting;
use offprint_nn::optim::{Optimizer, Sgd, SgdSettings};
use offprint_nn::{Network, computation, ops};
use rand::seq::SliceRandom;

/// Mean and deviation of the channels behind a convolution against what its batch norm promised, β and |γ|.
#[derive(Debug, Clone)]
pub struct Drift {
    /// The convolution.
    pub layer: String,
    /// Mean over channels of |mean − β|.
    pub mean: f64,
    /// Mean over channels of |deviation − |γ||.
    pub deviation: f64,
}

/// Mean and variance (channels) of the output (n, channels, …).
fn statistics(output: &Tensor) -> candle_core::Result<(Vec<f64>, Vec<f64>)> {
    let channels = output.dim(1)?;
    let rows = output.to_dtype(DType::F64)?.transpose(0, 1)?.contiguous()?.reshape((channels, ()))?;
    let mean = rows.mean_keepdim(1)?;
    let variance = rows.broadcast_sub(&mean)?.sqr()?.mean(1)?;
    Ok((mean.flatten_all()?.to_vec1()?, variance.to_vec1()?))
}

/// How far the channels behind each convolution in `norms` are from its batch norm's β and |γ|, on `samples`.
///
/// # Errors
/// A convolution that the network does not use.
pub fn drift(quantised: &Quantised, norms: &[Norm], samples: &Tensor) -> Result<Vec<Drift>> {
    let found = norms.iter().map(|norm| {
        let (shift, (mean, variance)) = channels(quantised, norm, samples)?;
        let count = mean.len().max(1) as f64;
        let off = |of: &dyn Fn(usize) -> f64| (0..mean.len()).map(|c| of(c).abs()).sum::<f64>() / count;
        Ok(Drift {
            layer: norm.layer.clone(),
            mean: off(&|c| mean[c] + f64::from(shift[c]) - f64::from(norm.shift[c])),
            deviation: off(&|c| variance[c].sqrt() - f64::from(norm.gain[c].abs())),
        })
    });
    found.collect()
}

/// The shift behind a convolution, and mean and variance of its own outputs.
#[expect(clippy::type_complexity, reason = "three things of one layer, used in two places")]
fn channels(quantised: &Quantised, norm: &Norm, samples: &Tensor) -> Result<(Array1<f32>, (Vec<f64>, Vec<f64>))> {
    let place = quantised.layers.iter().map(|(place, _)| place).find(|place| place.name == norm.layer);
    let place = place.ok_or_else(|| Error::input("model", format!("has no quantised layer \"{}\"", norm.layer)))?;
    let bias = bias_of(place).expect("a convolution with a batch norm");
    let (_, output) = record(&quantised.network, &place.weight, samples, Some(quantised.within()))?;
    let moments = statistics(&output).map_err(computation)?;
    let shift =
        if place.bias.is_some() { Array1::zeros(moments.0.len()) } else { read(&quantised.network, bias.name())? };
    Ok((shift, moments))
}

/// Gives each channel behind a convolution its batch norm's mean β and deviation |γ| again, on `samples`, convolution by
/// convolution in the order of `norms`: outputs become (y − mean) √(γ² + ε) / √(variance + ε) + β. The factor goes into the
/// weights' scales, so that codes stay; the rest into the bias. Channels with γ = 0 keep only their β.
///
/// Statistics are those of all samples, where the authors run batches in training mode with momentum 0.1.
///
/// # Errors
/// A convolution that the network does not use.
pub fn tune_norms(quantised: &mut Quantised, norms: &[Norm], samples: &Tensor, progress: &Progress) -> Result<()> {
    for norm in norms {
        let (shift, (mean, variance)) = channels(quantised, norm, samples)?;
        let at = quantised.layers.iter().position(|(place, _)| place.name == norm.layer).expect("channels found it");
        let factors: Vec<f32> = norm
            .gain
            .iter()
            .zip(&variance)
            .map(|(&gain, variance)| {
                let wanted = f64::from(gain).powi(2);
                if wanted == 0.0 {
                    0.0
                } else {
                    ((wanted + BatchNorm::EPS) / (variance + BatchNorm::EPS)).sqrt() as f32
                }
            })
            .collect();
        let (place, layer) = &mut quantised.layers[at];
        layer.rescale(&factors);
        Layer::set(&quantised.network, place, layer.weight.dequant().view())?;
        // The convolution's own bias, if it has one, is among its outputs.
        let own = if place.bias.is_some() { layer.bias.clone() } else { Array1::zeros(shift.len()) };
        let tuned = Array1::from_shape_fn(shift.len(), |c| {
            let mean = mean[c] as f32 - own[c];
            norm.shift[c] - mean * factors[c]
        });
        if place.bias.is_some() {
            layer.bias = tuned.clone();
        }
        let bias = bias_of(place).expect("a convolution with a batch norm");
        set(&quantised.network, bias.name(), &tuned)?;
        progress.check()?;
    }
    Ok(())
}

/// How biases are tuned. The defaults are the authors': 800 steps of plain gradient descent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BiasTuning {
    /// Steps.
    pub steps: usize,
    /// Samples of a batch.
    pub batch: usize,
    /// Learning rate.
    pub rate: f64,
}

impl Default for BiasTuning {
    fn default() -> Self {
        Self { steps: 800, batch: 50, rate: 0.1 }
    }
}

/// KL(softmax(float) ‖ softmax(quantised)) in the mean over rows and classes, of logits (n, …, classes).
///
/// # Errors
/// Logits of different shapes.
pub fn divergence(float: &Tensor, quantised: &Tensor) -> candle_core::Result<Tensor> {
    let (p, q) = (log_softmax(float)?, log_softmax(quantised)?);
    (p.exp()? * (p - q)?)?.mean_all()
}

fn log_softmax(logits: &Tensor) -> candle_core::Result<Tensor> {
    let logits = logits.broadcast_sub(&logits.detach().max_keepdim(candle_core::D::Minus1)?)?;
    logits.broadcast_sub(&logits.exp()?.sum_keepdim(candle_core::D::Minus1)?.log()?)
}

/// Trains the biases of the quantised layers, and nothing else, to bring the outputs close to those of `float` on
/// `samples`, by [`divergence`].
///
/// # Errors
/// No layer with a bias; a batch of 0; a stop by `progress`.
pub fn tune_biases(
    quantised: &Quantised,
    float: &Network,
    samples: &Tensor,
    tuning: &BiasTuning,
    stream: Stream,
    progress: &Progress,
) -> Result<()> {
    let params = quantised.network.params();
    let named = quantised.layers.iter().filter_map(|(place, _)| {
        let bias = bias_of(place)?;
        Some((bias.name().to_owned(), params.get(bias.name())?.clone()))
    });
    let named: Vec<_> = named.collect();
    if named.is_empty() {
        return Err(Error::input("model", "has no quantised layer with a bias to tune"));
    }
    if tuning.batch == 0 {
        return Err(Error::parameter("batch", 0, "at least 1"));
    }
    let settings = SgdSettings { learning_rate: tuning.rate, momentum: 0.0, ..SgdSettings::default() };
    let mut sgd = Sgd::new(named, settings).map_err(computation)?;
    let within = quantised.within();
    let n = samples.dims().first().copied().unwrap_or(0) as u32;
    progress.begin("tuning biases", tuning.steps as u64);
    for step in 0..tuning.steps {
        let mut rows: Vec<u32> = (0..n).collect();
        let (batch, _) = rows.partial_shuffle(&mut stream.rng(step as u64), tuning.batch);
        let mut descend = || -> candle_core::Result<()> {
            let x = samples.index_select(&Tensor::new(&*batch, samples.device())?, 0)?;
            let target = float.forward(&x)?.detach();
            let own = substituting(Some(within.clone()), || quantised.network.forward(&x))?;
            sgd.step(&ops::backward(&divergence(&target, &own)?)?)
        };
        descend().map_err(computation)?;
        progress.advance(1)?;
    }
    progress.finish();
    Ok(())
}
