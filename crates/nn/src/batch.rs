//! A batch: inputs and what should come out for them.

use candle_core::{Result, Tensor};

/// Samples along the first axis of both tensors.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Model inputs (n, …): numbers, or token ids of type `u32`.
    pub inputs: Tensor,
    /// Targets (n, …): class numbers of type `u32`, or numbers.
    pub targets: Tensor,
}

impl Batch {
    /// Number of samples.
    pub fn len(&self) -> usize {
        self.inputs.dims().first().copied().unwrap_or(0)
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `len` samples from number `start` on.
    pub fn narrow(&self, start: usize, len: usize) -> Result<Self> {
        Ok(Self { inputs: self.inputs.narrow(0, start, len)?, targets: self.targets.narrow(0, start, len)? })
    }

    /// The samples with the given numbers (type `u32`, one axis), in that order.
    pub fn select(&self, samples: &Tensor) -> Result<Self> {
        Ok(Self { inputs: self.inputs.index_select(samples, 0)?, targets: self.targets.index_select(samples, 0)? })
    }

    /// Consecutive parts of at most `size` samples.
    pub fn chunks(&self, size: usize) -> impl Iterator<Item = Result<Self>> {
        let (n, size) = (self.len(), size.max(1));
        (0..n).step_by(size).map(move |start| self.narrow(start, size.min(n - start)))
    }
}
