//! The handwritten digits, split into a training and a test set.

use crate::batch::Batch;
use crate::error::computation;
use candle_core::{DType, Device, Tensor};
use offprint_core::Result;
use offprint_core::random::Streams;
use rand::seq::SliceRandom;

/// Images to train on; the other 500 are for testing.
const TRAINING: usize = 1297;

/// The digits with their classes: images (n, 1, 8, 8) with values from 0 to 1.
#[derive(Debug, Clone)]
pub struct Digits {
    /// 1297 images.
    pub train: Batch,
    /// 500 images.
    pub test: Batch,
}

/// The digits, split by one fixed permutation. `dtype` is F32 or F64.
pub fn digits(dtype: DType) -> Result<Digits> {
    let (images, labels) = offprint_data::digits();
    let n = labels.len();
    let mut order: Vec<u32> = (0..n as u32).collect();
    order.shuffle(&mut Streams::new(0).stream("split of the digits").rng(0));
    let pixels: Vec<f64> = images.iter().map(|ink| ink / 16.0).collect();
    let whole = || {
        let inputs = Tensor::from_vec(pixels, (n, 1, 8, 8), &Device::Cpu)?.to_dtype(dtype)?;
        let targets = Tensor::from_vec(labels.into_iter().map(u32::from).collect::<Vec<_>>(), n, &Device::Cpu)?;
        let shuffled = Batch { inputs, targets }.select(&Tensor::from_vec(order, n, &Device::Cpu)?)?;
        Ok(Digits { train: shuffled.narrow(0, TRAINING)?, test: shuffled.narrow(TRAINING, n - TRAINING)? })
    };
    whole().map_err(computation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_split_keeps_every_digit_once() {
        let digits = digits(DType::F64).unwrap();
        assert_eq!(digits.train.inputs.dims(), [1297, 1, 8, 8]);
        assert_eq!(digits.test.inputs.dims(), [500, 1, 8, 8]);
        // Sums of the whole set: 561718 of ink and 8070 of labels (scikit-learn's load_digits).
        let total = |f: &dyn Fn(&Batch) -> f64| f(&digits.train) + f(&digits.test);
        let ink = |b: &Batch| b.inputs.sum_all().unwrap().to_scalar::<f64>().unwrap() * 16.0;
        assert!((total(&ink) - 561_718.0).abs() < 1e-6);
        let labels = |b: &Batch| b.targets.to_vec1::<u32>().unwrap().iter().map(|&l| f64::from(l)).sum();
        assert_eq!(total(&labels), 8070.0);
    }
}
