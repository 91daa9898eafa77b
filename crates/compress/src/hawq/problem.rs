//! What each choice of bits costs a block, and how sensitive blocks are beside each other.

use super::blocks::Block;
use super::choice::Choice;
use super::curvature::Sensitivity;
use super::finetune::post_training;
use crate::Layer;
use crate::allocate::{Budget, Candidate, Solver};
use crate::model::evaluate;
use crate::quantiser::{Granularity, Grid, Scheme};
use ndarray::Array2;
use offprint_core::random::Stream;
use offprint_core::{Error, Result};
use offprint_nn::{Batch, Network};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What says how sensitive a block is, and with it what its quantisation error costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Score {
    /// HAWQ: rank by λ/n, cost ½ λ ‖Q(W) − W‖²
    Eigenvalue,
    /// HAWQ-V2 and V3: rank by trace/n, cost (trace/n) ‖Q(W) − W‖²
    Trace,
    /// A control without curvature: rank by 1/n, cost ½ ‖Q(W) − W‖²
    InverseSize,
    /// The error alone: rank by ‖Q(W) − W‖² at the fewest bits, cost the same
    Magnitude,
    /// The rise of the loss when the block alone is quantised: rank by it at the fewest bits, cost the same
    Measured,
}

/// The paper's quantiser of a weight tensor: from its least to its greatest weight, with one scale. Its bits do not matter
/// where it stands for a kind of quantiser.
pub fn tensor_wide() -> Scheme {
    Scheme { granularity: Granularity::Tensor, ..Scheme::asymmetric(8) }
}

/// Numbers of `scores` from the largest on; of equal ones the first comes first.
pub fn rank(scores: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    order
}

/// Which bits for which block.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The blocks.
    pub blocks: Vec<Block>,
    /// Bits to choose from, falling.
    pub bits: Vec<u32>,
    /// Bits of blocks that are not chosen for.
    pub pinned: Vec<Option<u32>>,
    /// Bits of layers' inputs, which matter to bit operations.
    pub activation_bits: u32,
    /// How sensitive each block is.
    pub scores: Vec<f64>,
    /// What each option costs (blocks, bits).
    pub costs: Array2<f64>,
}

impl Problem {
    /// The costs of quantising `network` to each of `bits`, with quantisers like `template`.
    ///
    /// `sensitivities` belong to `blocks`, one each. `samples` are only looked at for [`Score::Measured`], which evaluates
    /// the network blocks × bits times.
    ///
    /// # Errors
    /// No bits, or bits outside 1 to 8 (2 to 8 for symmetric quantisers); a network that cannot be evaluated.
    pub fn new(
        network: &Network,
        blocks: &[Block],
        sensitivities: &[Sensitivity],
        score: Score,
        bits: &[u32],
        template: Scheme,
        samples: &Batch,
    ) -> Result<Self> {
        let mut bits = bits.to_vec();
        bits.sort_unstable_by(|a, b| b.cmp(a));
        bits.dedup();
        let Some(&fewest) = bits.last() else { return Err(Error::parameter("bits", "none", "at least one number")) };
        let errors = errors(network, blocks, &bits, template)?;
        let last = bits.len() - 1;
        let of = |each: &dyn Fn(usize) -> f64| -> Vec<f64> { (0..blocks.len()).map(each).collect() };
        let scaled = |factors: &[f64]| Array2::from_shape_fn(errors.dim(), |(b, o)| factors[b] * errors[[b, o]]);
        let (scores, costs) = match score {
            // A block along which the loss bends down only costs nothing by this measure.
            Score::Eigenvalue => {
                (of(&|b| sensitivities[b].score()), scaled(&of(&|b| 0.5 * sensitivities[b].eigenvalue.max(0.0))))
            }
            Score::Trace => {
                if let Some(without) = sensitivities.iter().find(|s| s.trace.is_nan()) {
                    let problem = format!("of block \"{}\" was not measured", without.block);
                    return Err(Error::input("trace", problem));
                }
                (of(&|b| sensitivities[b].mean_trace()), scaled(&of(&|b| sensitivities[b].mean_trace().max(0.0))))
            }
            Score::InverseSize => (of(&|b| 1.0 / blocks[b].weights() as f64), scaled(&vec![0.5; blocks.len()])),
            Score::Magnitude => (of(&|b| errors[[b, last]]), errors),
            Score::Measured => {
                let before = evaluate(network, samples, None)?.loss;
                let mut rises = Array2::zeros(errors.dim());
                for ((b, o), rise) in rises.indexed_iter_mut() {
                    let alone = post_training(network, &blocks[b..=b], &[bits[o]], template)?.network;
                    *rise = (evaluate(&alone, samples, None)?.loss - before).max(0.0);
                }
                (of(&|b| rises[[b, last]]), rises)
            }
        };
        debug_assert!(fewest >= 1, "checked by the scheme");
        Ok(Self { blocks: blocks.to_vec(), bits, pinned: vec![None; blocks.len()], activation_bits: 32, scores, costs })
    }

    /// Gives the first and the last block `bits` bits, whatever is chosen for the others.
    #[must_use]
    pub fn with_ends_at(mut self, bits: u32) -> Self {
        if let [first, .., last] = &mut self.pinned[..] {
            (*first, *last) = (Some(bits), Some(bits));
        }
        self
    }

    /// The blocks that bits are chosen for, the most sensitive first.
    pub fn ranking(&self) -> Vec<usize> {
        rank(&self.scores).into_iter().filter(|&block| self.pinned[block].is_none()).collect()
    }

    /// Bits of all weights together.
    pub fn size(&self, bits: &[u32]) -> u64 {
        self.blocks.iter().zip(bits).map(|(block, &bits)| block.weights() * u64::from(bits)).sum()
    }

    /// The cost of an assignment of bits to choose from; pinned blocks cost nothing.
    pub fn cost(&self, bits: &[u32]) -> f64 {
        let option = |bits: u32| self.bits.iter().position(|&b| b == bits);
        (0..bits.len()).filter_map(|block| option(bits[block]).map(|o| self.costs[[block, o]])).sum()
    }

    /// Pairs of blocks (more sensitive, less sensitive) of which the less sensitive has more bits.
    pub fn violations(&self, bits: &[u32]) -> Vec<(usize, usize)> {
        let order = self.ranking();
        let pairs = order.iter().enumerate().flat_map(|(at, &a)| order[at + 1..].iter().map(move |&b| (a, b)));
        pairs.filter(|&(a, b)| bits[a] < bits[b] && self.scores[a] > self.scores[b]).collect()
    }

    /// Bits of each block by `choice`, within `budget`.
    ///
    /// # Errors
    /// A budget below the least that can be reached, which is named; a list of bits of another length.
    pub fn choose(&self, choice: &Choice, budget: Budget, stream: Stream) -> Result<Vec<u32>> {
        let order = self.ranking();
        let limit = Limit::of(self, budget)?;
        let monotone = |order: &[usize]| -> Result<Vec<u32>> {
            let rows: Vec<Vec<Candidate>> = order.iter().map(|&block| limit.candidates(self, block)).collect();
            let found = Solver::Monotone.solve(&rows, limit.left)?;
            Ok(found.choices.into_iter().map(|o| self.bits[o]).collect())
        };
        let (order, bits) = match choice {
            Choice::Monotone => (order.clone(), monotone(&order)?),
            Choice::Reversed => {
                let mut bits = monotone(&order)?;
                bits.reverse();
                (order, bits)
            }
            Choice::By(solver) => {
                let rows: Vec<Vec<Candidate>> = order.iter().map(|&block| limit.candidates(self, block)).collect();
                let found = if *solver == Solver::Monotone { None } else { Some(solver.solve(&rows, limit.left)?) };
                let bits = match found {
                    Some(found) => found.choices.into_iter().map(|o| self.bits[o]).collect(),
                    None => monotone(&order)?,
                };
                (order, bits)
            }
            Choice::Uniform => {
                let size = |o: usize| order.iter().map(|&b| limit.candidates(self, b)[o].size).sum::<u64>();
                // The last option is the smallest, and it fits.
                let option = (0..self.bits.len()).find(|&o| size(o) <= limit.left).unwrap_or(self.bits.len() - 1);
                let bits = vec![self.bits[option]; order.len()];
                (order, bits)
            }
            Choice::Random => {
                let bits = super::choice::random_monotone(self, &order, &limit, stream);
                (order, bits)
            }
            Choice::Given(bits) => {
                if bits.len() != order.len() {
                    let allowed = format!("one number for each of the {} blocks in rank order", order.len());
                    return Err(Error::parameter("assign", format!("{} numbers", bits.len()), allowed));
                }
                (order, bits.clone())
            }
        };
        let mut all: Vec<u32> = self.pinned.iter().map(|pinned| pinned.unwrap_or(0)).collect();
        order.into_iter().zip(bits).for_each(|(block, bits)| all[block] = bits);
        Ok(all)
    }
}

/// A budget in whole units, less what pinned blocks take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    budget: Budget,
    pub(super) left: u64,
}

impl Limit {
    fn of(problem: &Problem, budget: Budget) -> Result<Self> {
        let total: u64 = problem.blocks.iter().map(Block::weights).sum();
        let (limit, unit) = match budget {
            Budget::Bytes(bytes) => (bytes.saturating_mul(8), 8.0),
            // A mean of 3.2 bits of 10 weights is 32, not the 31 that rounding could leave.
            Budget::MeanBits(mean) if mean >= 0.0 && mean.is_finite() => {
                ((mean * total as f64 * (1.0 + 1e-12)) as u64, total.max(1) as f64)
            }
            Budget::BitOperations(most) => (most, 1.0),
            Budget::MeanBits(_) | Budget::Degradation(_) => {
                return Err(Error::parameter("budget", format!("{budget:?}"), "bytes, mean bits or bit operations"));
            }
        };
        let this = Self { budget, left: 0 };
        let fewest = *problem.bits.last().expect("at least one");
        let least = |block: usize| this.size(problem, block, problem.pinned[block].unwrap_or(fewest));
        let pinned = |block: &usize| problem.pinned[*block].is_some();
        let all: u64 = (0..problem.blocks.len()).map(least).sum();
        if all > limit {
            let allowed = format!("at least {}, the least that can be reached", all as f64 / unit);
            return Err(Error::parameter("budget", limit as f64 / unit, allowed));
        }
        let taken: u64 = (0..problem.blocks.len()).filter(pinned).map(least).sum();
        Ok(Self { left: limit - taken, ..this })
    }

    /// Size of a block at so many bits.
    pub(super) fn size(&self, problem: &Problem, block: usize, bits: u32) -> u64 {
        let block = &problem.blocks[block];
        match self.budget {
            Budget::BitOperations(_) => block.multiplications() * u64::from(bits) * u64::from(problem.activation_bits),
            _ => block.weights() * u64::from(bits),
        }
    }

    fn candidates(&self, problem: &Problem, block: usize) -> Vec<Candidate> {
        let option = |(o, &bits): (usize, &u32)| Candidate {
            cost: problem.costs[[block, o]],
            size: self.size(problem, block, bits),
        };
        problem.bits.iter().enumerate().map(option).collect()
    }
}

/// ‖Q(W) − W‖² of each block at each number of bits.
pub(super) fn errors(network: &Network, blocks: &[Block], bits: &[u32], template: Scheme) -> Result<Array2<f64>> {
    let mut errors = Array2::zeros((blocks.len(), bits.len()));
    for (b, block) in blocks.iter().enumerate() {
        for place in &block.layers {
            let weight = Layer::of(network, place)?.weight;
            for (o, &bits) in bits.iter().enumerate() {
                let grid = Grid::fit(&place.name, weight.view(), &Scheme { bits, ..template })?;
                errors[[b, o]] += grid.squared_error(weight.view());
            }
        }
    }
    Ok(errors)
}
