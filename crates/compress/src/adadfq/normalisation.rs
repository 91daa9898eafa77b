//! Between the standardised images that a generator makes and those that a network reads.

use candle_core::{D, DType, Device, Tensor};
use offprint_core::{Error, Result};
use offprint_nn::computation;

/// How the images that a network reads are distributed: a network that was fed (pixel − 0.5)/0.25 reads mean 0 and
/// deviation 1 if that is what pixels have; one that was fed pixels reads mean 0.5 and deviation 0.25.
#[derive(Debug, Clone)]
pub struct Normalisation {
    /// (1, channels, 1, 1)
    mean: Tensor,
    /// (1, channels, 1, 1)
    deviation: Tensor,
}

impl Normalisation {
    /// Mean and standard deviation of each of `channels` channels; one number serves all.
    ///
    /// # Errors
    /// Another number of values; a mean that is not finite, a deviation that is not above 0.
    pub fn new(channels: usize, mean: &[f64], deviation: &[f64]) -> Result<Self> {
        let vector = |name: &str, values: &[f64], fits: fn(f64) -> bool, allowed: &str| -> Result<Tensor> {
            if values.len() != 1 && values.len() != channels {
                let allowed = format!("one number, or one for each of the {channels} channels");
                return Err(Error::parameter(name, format!("{} numbers", values.len()), allowed));
            }
            if let Some(bad) = values.iter().find(|x| !fits(**x)) {
                return Err(Error::parameter(name, bad, allowed));
            }
            let each: Vec<f64> = (0..channels).map(|channel| values[channel % values.len()]).collect();
            let tensor = Tensor::from_vec(each, (1, channels, 1, 1), &Device::Cpu);
            tensor.and_then(|t| t.to_dtype(DType::F32)).map_err(computation)
        };
        Ok(Self {
            mean: vector("mean", mean, f64::is_finite, "finite")?,
            deviation: vector("deviation", deviation, |x| x.is_finite() && x > 0.0, "finite and above 0")?,
        })
    }

    /// What `images` (n, channels, height, width) have.
    ///
    /// # Errors
    /// No image, or a channel without variation.
    pub fn of(images: &Tensor) -> Result<Self> {
        let moments = || {
            let channels = images.dim(1)?;
            let rows = images.transpose(0, 1)?.flatten_from(1)?.to_dtype(DType::F64)?;
            let mean = rows.mean_keepdim(D::Minus1)?;
            let deviation = rows.broadcast_sub(&mean)?.sqr()?.mean(D::Minus1)?.sqrt()?;
            Ok((channels, mean.flatten_all()?.to_vec1::<f64>()?, deviation.to_vec1::<f64>()?))
        };
        let (channels, mean, deviation) = moments().map_err(computation)?;
        Self::new(channels, &mean, &deviation)
    }

    /// Standardised images as the network reads them: x σ + μ.
    ///
    /// # Errors
    /// Images with other channels.
    pub fn restore(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        x.broadcast_mul(&self.deviation)?.broadcast_add(&self.mean)
    }

    /// Images as the network reads them, standardised: (x − μ)/σ.
    ///
    /// # Errors
    /// Images with other channels.
    pub fn standardise(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        x.broadcast_sub(&self.mean)?.broadcast_div(&self.deviation)
    }
}
