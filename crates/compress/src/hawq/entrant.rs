//! HAWQ among the quantisers: rounding to nearest, with the same mean bits spread by curvature.

use super::blocks::Block;
use super::choice::Choice;
use super::curvature::{Measuring, sensitivities};
use super::finetune::post_training;
use super::problem::{Problem, Score};
use crate::allocate::Budget;
use crate::contest::{Entrant, Entry, Task};
use offprint_core::{Error, Result};
use offprint_nn::{Reads, computation};

/// Rounds to nearest; layers get 2 to 8 bits, as many on average as the targets ask for, monotone in λ/n.
#[derive(Debug, Clone, Copy)]
pub struct MixedPrecision;

impl Entrant for MixedPrecision {
    fn name(&self) -> &str {
        "hawq"
    }

    fn enter(&self, task: &Task<'_>) -> Result<Entry> {
        let first = task.targets.first().map(|(_, target)| target.scheme_only(self.name())).transpose()?;
        let Some(template) = first else { return Err(Error::parameter("targets", "none", "at least one layer")) };
        let mut bits = 0;
        for (place, target) in task.targets {
            bits += place.weights() as u64 * u64::from(target.scheme_only(self.name())?.bits);
        }
        let blocks: Vec<Block> = task
            .targets
            .iter()
            .map(|(place, _)| Block { name: place.name.clone(), layers: vec![place.clone()] })
            .collect();
        let measuring = Measuring { probes: 0, ..Measuring::default() };
        // Networks over tokens are differentiated as a whole for every product.
        let few = match task.network.architecture().reads() {
            Reads::Tokens { .. } => task.calibration.len().min(16),
            _ => task.calibration.len(),
        };
        let samples = task.calibration.narrow(0, few).map_err(computation)?;
        let stream = task.streams.stream(self.name());
        let found = sensitivities(task.network, &blocks, &samples, measuring, stream, task.progress)?;
        let options: Vec<u32> = (2..=8).collect();
        let problem =
            Problem::new(task.network, &blocks, &found, Score::Eigenvalue, &options, template, task.calibration)?;
        let weights: u64 = blocks.iter().map(Block::weights).sum();
        let budget = Budget::MeanBits(bits as f64 / weights.max(1) as f64);
        let chosen = problem.choose(&Choice::Monotone, budget, stream)?;
        let rounded = post_training(task.network, &blocks, &chosen, template)?;
        Entry::new(rounded.network, &rounded.layers)
    }
}
