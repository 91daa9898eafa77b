//! A layer's weights as a matrix.

use candle_core::{DType, Device, Tensor};
use ndarray::{Array1, Array2, ArrayView2};
use offprint_core::{Error, Result};
use offprint_nn::{LayerPlace, Network, computation};

/// A layer with its weights as a matrix (out, in); a convolution's rows are its kernels, one after the other in memory.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Where it stands.
    pub place: LayerPlace,
    /// Weights (out, in).
    pub weight: Array2<f32>,
    /// Bias (out).
    pub bias: Option<Array1<f32>>,
}

impl Layer {
    /// The layer at `place` of `network`, as it is now.
    ///
    /// # Errors
    /// A weight that the network does not have, or that is not finite (with its number, row by row).
    pub fn of(network: &Network, place: &LayerPlace) -> Result<Self> {
        let tensor = |name: &str| -> Result<Tensor> {
            let var = network.params().get(name);
            var.map(|v| v.as_detached_tensor())
                .ok_or_else(|| Error::input("model", format!("has no tensor \"{name}\"")))
        };
        let weight = matrix(&tensor(&place.weight)?)?;
        if let Some(at) = weight.iter().position(|w| !w.is_finite()) {
            let problem = format!("tensor \"{}\" holds a value that is not finite, number {at}", place.weight);
            return Err(Error::input("model", problem));
        }
        let bias = place.bias.as_deref().map(|name| Ok::<_, Error>(matrix(&tensor(name)?)?.column(0).to_owned()));
        Ok(Self { place: place.clone(), weight, bias: bias.transpose()? })
    }

    /// Sets the weights at `place` of `network` to `weight` (out, in).
    ///
    /// # Errors
    /// Another shape.
    pub fn set(network: &Network, place: &LayerPlace, weight: ArrayView2<'_, f32>) -> Result<()> {
        let var = network.params().get(&place.weight);
        let var = var.ok_or_else(|| Error::input("model", format!("has no tensor \"{}\"", place.weight)))?;
        let tensor = tensor(weight, &place.shape)?.to_dtype(network.params().dtype());
        tensor.and_then(|t| var.set(&t)).map_err(computation)
    }
}

/// A tensor as a matrix: its first axis, and all others as one.
pub fn matrix(tensor: &Tensor) -> Result<Array2<f32>> {
    let rows = tensor.dims().first().copied().unwrap_or(1);
    let values = tensor.to_dtype(DType::F32).and_then(|t| t.flatten_all()?.to_vec1::<f32>()).map_err(computation)?;
    let columns = values.len().checked_div(rows).unwrap_or(0);
    Array2::from_shape_vec((rows, columns), values).map_err(|e| Error::Numerical(e.to_string()))
}

/// A matrix as a tensor of `shape`.
pub fn tensor(matrix: ArrayView2<'_, f32>, shape: &[usize]) -> Result<Tensor> {
    Tensor::from_vec(matrix.iter().copied().collect::<Vec<f32>>(), shape, &Device::Cpu).map_err(computation)
}
