//! The rows that a model was trained on, or is asked about.

use ndarray::Array2;
use offprint_core::{Error, Result};
use offprint_nn::{Batch, computation};
use std::ops::Range;

/// Samples, and how much of each is padding.
#[derive(Debug, Clone)]
pub struct Examples {
    /// Inputs and targets.
    pub batch: Batch,
    /// For sequences of different lengths, the number of tokens of each before the padding at its end.
    pub lengths: Option<Vec<usize>>,
}

impl From<Batch> for Examples {
    fn from(batch: Batch) -> Self {
        Self { batch, lengths: None }
    }
}

impl Examples {
    /// The number of samples.
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// `len` samples from number `start` on.
    pub fn narrow(&self, start: usize, len: usize) -> Result<Self> {
        let batch = self.batch.narrow(start, len).map_err(computation)?;
        Ok(Self { batch, lengths: self.lengths.as_ref().map(|all| all[start..start + len].to_vec()) })
    }

    /// The samples in `range`, at most as many as there are.
    pub fn range(&self, range: Range<usize>) -> Result<Self> {
        let end = range.end.min(self.len());
        self.narrow(range.start.min(end), end - range.start.min(end))
    }

    /// The samples with the given numbers, in that order.
    ///
    /// # Errors
    /// A number beyond the last sample.
    pub fn select(&self, samples: &[usize]) -> Result<Self> {
        if let Some(sample) = samples.iter().find(|&&sample| sample >= self.len()) {
            return Err(Error::parameter("samples", sample, format!("below {}", self.len())));
        }
        let ids: Vec<u32> = samples.iter().map(|&sample| sample as u32).collect();
        let ids = candle_core::Tensor::from_vec(ids, samples.len(), self.batch.inputs.device()).map_err(computation)?;
        let batch = self.batch.select(&ids).map_err(computation)?;
        Ok(Self { batch, lengths: self.lengths.as_ref().map(|all| samples.iter().map(|&i| all[i]).collect()) })
    }

    /// Which of `positions` are no padding `(n, positions)`; none where nothing is padded, or where the positions are
    /// not those of the sequence (places of an image, a pooled vector).
    pub(super) fn mask(&self, positions: usize) -> Option<Array2<bool>> {
        let lengths = self.lengths.as_ref()?;
        if self.batch.inputs.dims().get(1) != Some(&positions) {
            return None;
        }
        Some(Array2::from_shape_fn((self.len(), positions), |(i, t)| t < lengths[i]))
    }
}
