//! The float network P: its logits, and how far a batch lies from what its batch norms remember.

use candle_core::{DType, Device, Tensor};
use offprint_core::{Error, Result};
use offprint_nn::layers::substitute::{LayerUse, Operands, Substitute, substituting};
use offprint_nn::{Network, computation};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// What a batch norm remembers of its input.
#[derive(Debug, Clone)]
struct Remembered {
    /// Mean μ (channels).
    mean: Tensor,
    /// Variance σ² (channels).
    variance: Tensor,
}

/// The network to be quantised. It is never changed.
#[derive(Debug, Clone)]
pub struct Teacher {
    network: Network,
    /// By the weight of the convolution whose output is normalised.
    norms: BTreeMap<String, Remembered>,
}

impl Teacher {
    /// Of a trained network.
    ///
    /// # Errors
    /// Running statistics that are not finite, or a negative variance, by the norm's name.
    pub fn new(network: Network) -> Result<Self> {
        let mut norms = BTreeMap::new();
        for place in network.layers()? {
            let Some(norm) = place.batch_norm else { continue };
            let part = |ending: &str| -> Result<Tensor> {
                let name = format!("{norm}.{ending}");
                let var = network.params().get(&name);
                let tensor = var.ok_or_else(|| Error::input("model", format!("has no tensor \"{name}\"")))?;
                let tensor = tensor.as_detached_tensor();
                let values = tensor.to_dtype(DType::F64).and_then(|t| t.to_vec1::<f64>()).map_err(computation)?;
                if let Some(bad) = values.iter().find(|x| !x.is_finite() || (ending == "running_var" && **x < 0.0)) {
                    return Err(Error::input("model", format!("tensor \"{name}\" holds {bad}, which is no {ending}")));
                }
                Ok(tensor)
            };
            norms.insert(place.weight, Remembered { mean: part("running_mean")?, variance: part("running_var")? });
        }
        Ok(Self { network, norms })
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Number of batch norms behind convolutions.
    pub fn norms(&self) -> usize {
        self.norms.len()
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.network.architecture().outputs()
    }

    /// Logits (n, classes) of `x`, with gradients to `x` and to no weight.
    ///
    /// # Errors
    /// Inputs that the network cannot read.
    pub fn logits(&self, x: &Tensor) -> Result<Tensor> {
        self.watched(x).map(|(logits, _)| logits)
    }

    /// Logits (n, classes), and L_BNS = 1/L Σ_l \[mean_c (μ_l(x) − μ_l)² + mean_c (σ²_l(x) − σ²_l)²\] over the batch norms,
    /// with the batch's mean and biased variance of what goes into each; 0 for a network without batch norm.
    ///
    /// # Errors
    /// Inputs that the network cannot read.
    pub fn logits_and_statistics(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let (logits, seen) = self.watched(x)?;
        let distance = || {
            let mut sum = Tensor::zeros((), logits.dtype(), &Device::Cpu)?;
            for (weight, input) in &seen {
                let remembered = &self.norms[weight];
                let (mean, variance) = moments(input)?;
                sum = ((sum + (mean - &remembered.mean)?.sqr()?.mean_all()?)?
                    + (variance - &remembered.variance)?.sqr()?.mean_all()?)?;
            }
            sum / seen.len().max(1) as f64
        };
        let distance = distance().map_err(computation)?;
        Ok((logits, distance))
    }

    fn watched(&self, x: &Tensor) -> Result<(Tensor, Vec<(String, Tensor)>)> {
        let frozen = Rc::new(Frozen { norms: self.norms.keys().cloned().collect(), seen: RefCell::default() });
        let logits = substituting(Some(frozen.clone()), || self.network.forward(x)).map_err(computation)?;
        Ok((logits, frozen.seen.take()))
    }
}

/// Mean and biased variance of each channel of (n, channels, height, width).
fn moments(x: &Tensor) -> candle_core::Result<(Tensor, Tensor)> {
    let mean = x.mean_keepdim((0, 2, 3))?;
    let variance = x.broadcast_sub(&mean)?.sqr()?.mean((0, 2, 3))?;
    Ok((mean.flatten_all()?, variance))
}

/// Weights without gradients; remembers what goes into batch norms.
struct Frozen {
    /// Weights whose output is normalised.
    norms: Vec<String>,
    seen: RefCell<Vec<(String, Tensor)>>,
}

impl Substitute for Frozen {
    fn operands(&self, _: LayerUse<'_>, own: Operands) -> candle_core::Result<Operands> {
        Ok(Operands { weight: own.weight.detach(), bias: own.bias.map(|bias| bias.detach()), ..own })
    }

    fn output(&self, layer: LayerUse<'_>, output: Tensor) -> candle_core::Result<Tensor> {
        if self.norms.iter().any(|norm| norm == layer.weight) {
            self.seen.borrow_mut().push((layer.weight.to_owned(), output.clone()));
        }
        Ok(output)
    }
}
