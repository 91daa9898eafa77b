//! Which samples a step sees, from the step's number alone.

use crate::batch::Batch;
use crate::error::computation;
use candle_core::{Device, Tensor};
use offprint_core::random::Stream;
use offprint_core::{Error, Result};
use rand::RngExt;
use rand::seq::SliceRandom;
use std::cell::RefCell;

/// Epoch after epoch over a data set, each in its own random order, the last batch of each smaller if need be.
#[derive(Debug)]
pub struct Epochs {
    data: Batch,
    batch: usize,
    stream: Stream,
    /// The order of the epoch that was asked for last.
    order: RefCell<Option<(u64, Vec<u32>)>>,
}

impl Epochs {
    /// Batches of `batch` samples of `data`; the order of epoch e comes from generator e of `stream`.
    pub fn new(data: Batch, batch: usize, stream: Stream) -> Result<Self> {
        if data.is_empty() {
            return Err(Error::parameter("data", "no samples", "at least one sample"));
        }
        if batch == 0 {
            return Err(Error::parameter("batch", batch, "at least 1"));
        }
        Ok(Self { data, batch, stream, order: RefCell::new(None) })
    }

    /// Steps in one epoch.
    pub fn steps(&self) -> u64 {
        self.data.len().div_ceil(self.batch) as u64
    }

    /// The batch of step number `step`.
    pub fn at(&self, step: u64) -> Result<Batch> {
        let (epoch, part) = (step / self.steps(), (step % self.steps()) as usize);
        let mut order = self.order.borrow_mut();
        if order.as_ref().is_none_or(|(of, _)| *of != epoch) {
            let mut samples: Vec<u32> = (0..self.data.len() as u32).collect();
            samples.shuffle(&mut self.stream.rng(epoch));
            *order = Some((epoch, samples));
        }
        let samples = order.as_ref().map(|(_, samples)| samples.as_slice()).unwrap_or_default();
        let chosen = samples.chunks(self.batch).nth(part).unwrap_or_default();
        let chosen = Tensor::from_slice(chosen, chosen.len(), &Device::Cpu).map_err(computation)?;
        self.data.select(&chosen).map_err(computation)
    }
}

/// Random stretches of a long sequence of tokens, with the tokens that follow each as targets.
#[derive(Debug)]
pub struct Crops {
    tokens: Vec<u32>,
    context: usize,
    batch: usize,
    stream: Stream,
}

impl Crops {
    /// `batch` stretches of `context` tokens; those of step s come from generator s of `stream`.
    pub fn new(tokens: Vec<u32>, context: usize, batch: usize, stream: Stream) -> Result<Self> {
        if context == 0 || batch == 0 {
            let (field, value) = if context == 0 { ("context", context) } else { ("batch", batch) };
            return Err(Error::parameter(field, value, "at least 1"));
        }
        if tokens.len() <= context {
            return Err(Error::parameter(
                "tokens",
                format!("{} tokens", tokens.len()),
                format!("more than one context of {context}"),
            ));
        }
        Ok(Self { tokens, context, batch, stream })
    }

    /// Inputs and targets (batch, context) of step number `step`.
    pub fn at(&self, step: u64) -> Result<Batch> {
        let mut rng = self.stream.rng(step);
        let last = self.tokens.len() - self.context;
        let starts: Vec<usize> = (0..self.batch).map(|_| rng.random_range(0..last)).collect();
        self.stretches(&starts)
    }

    /// The whole sequence cut into stretches one after the other, without a rest that is shorter: for evaluation.
    pub fn all(&self) -> Result<Batch> {
        let starts: Vec<usize> = (0..(self.tokens.len() - 1) / self.context).map(|i| i * self.context).collect();
        self.stretches(&starts)
    }

    fn stretches(&self, starts: &[usize]) -> Result<Batch> {
        let cut = |shift: usize| {
            let values: Vec<u32> =
                starts.iter().flat_map(|&s| self.tokens[s + shift..][..self.context].iter().copied()).collect();
            Tensor::from_vec(values, (starts.len(), self.context), &Device::Cpu).map_err(computation)
        };
        Ok(Batch { inputs: cut(0)?, targets: cut(1)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use offprint_core::random::Streams;
    use proptest::prelude::*;

    fn numbered(n: u32) -> Batch {
        let ids = Tensor::arange(0, n, &Device::Cpu).unwrap();
        Batch { inputs: ids.clone(), targets: ids }
    }

    proptest! {
        #[test]
        fn an_epoch_sees_each_sample_once(n in 1u32..60, batch in 1usize..20, epoch in 0u64..3) {
            let epochs = Epochs::new(numbered(n), batch, Streams::new(1).stream("order")).unwrap();
            let steps = epoch * epochs.steps()..(epoch + 1) * epochs.steps();
            let mut seen: Vec<u32> =
                steps.flat_map(|s| epochs.at(s).unwrap().inputs.to_vec1::<u32>().unwrap()).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..n).collect::<Vec<_>>());
        }

        #[test]
        fn targets_are_the_tokens_that_follow(length in 5usize..50, context in 1usize..4, step in 0u64..20) {
            let tokens: Vec<u32> = (0..length as u32).map(|i| i * i).collect();
            let crops = Crops::new(tokens.clone(), context, 3, Streams::new(1).stream("crops")).unwrap();
            for batch in [crops.at(step).unwrap(), crops.all().unwrap()] {
                let inputs = batch.inputs.to_vec2::<u32>().unwrap();
                for (inputs, targets) in inputs.iter().zip(batch.targets.to_vec2::<u32>().unwrap()) {
                    let start = tokens.iter().position(|t| t == &inputs[0]).unwrap();
                    prop_assert_eq!(inputs.as_slice(), &tokens[start..start + context]);
                    prop_assert_eq!(targets.as_slice(), &tokens[start + 1..start + 1 + context]);
                }
            }
        }
    }

    #[test]
    fn a_step_is_the_same_whenever_it_is_asked_for() {
        let epochs = Epochs::new(numbered(10), 4, Streams::new(1).stream("order")).unwrap();
        let at = |step| epochs.at(step).unwrap().inputs.to_vec1::<u32>().unwrap();
        let (early, late) = (at(1), at(7));
        assert_eq!((at(1), at(7)), (early, late));
        assert_ne!((at(0), at(1)), (at(3), at(4)));
    }

    #[test]
    fn impossible_batches_are_named() {
        let stream = Streams::new(0).stream("order");
        assert!(Epochs::new(numbered(3), 0, stream).unwrap_err().to_string().starts_with("batch"));
        assert!(Epochs::new(numbered(0), 1, stream).unwrap_err().to_string().starts_with("data"));
        assert!(Crops::new(vec![1, 2], 2, 1, stream).unwrap_err().to_string().starts_with("tokens"));
    }
}
