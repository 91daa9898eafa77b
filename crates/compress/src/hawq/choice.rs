//! Ways to choose bits, the paper's and those it is compared with.

use super::problem::{Limit, Problem};
use crate::allocate::Solver;
use offprint_core::random::Stream;
use rand::RngExt;

/// How bits are chosen.
#[derive(Debug, Clone, PartialEq)]
pub enum Choice {
    /// Least cost among assignments in which a more sensitive block has no fewer bits.
    Monotone,
    /// Least cost among all, by a solver of knapsacks.
    By(Solver),
    /// The most bits that fit, the same for all.
    Uniform,
    /// Those of [`Self::Monotone`], handed to the blocks the wrong way round: the paper's ablation. It may exceed the budget.
    Reversed,
    /// One of the monotone assignments that fit, at random.
    Random,
    /// These, the most sensitive block first, whatever they take.
    Given(Vec<u32>),
}

/// Tries before the fewest bits are taken.
const TRIES: usize = 10_000;

/// Options drawn for all blocks and sorted until they fit: every multiset is as likely as it is among draws, the smaller
/// ones are accepted more easily.
pub(super) fn random_monotone(problem: &Problem, order: &[usize], limit: &Limit, stream: Stream) -> Vec<u32> {
    let mut rng = stream.rng(0);
    let fits = |bits: &[u32]| {
        order.iter().zip(bits).map(|(&block, &bits)| limit.size(problem, block, bits)).sum::<u64>() <= limit.left
    };
    let drawn = (0..TRIES).map(|_| {
        let mut bits: Vec<u32> = order.iter().map(|_| problem.bits[rng.random_range(0..problem.bits.len())]).collect();
        bits.sort_unstable_by(|a, b| b.cmp(a));
        bits
    });
    let fewest = *problem.bits.last().expect("at least one");
    drawn.into_iter().find(|bits| fits(bits)).unwrap_or_else(|| vec![fewest; order.len()])
}
