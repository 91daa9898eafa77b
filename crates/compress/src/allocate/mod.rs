//! Which layer gets how many bits: one option for each layer, such that the cost is least within a budget.
//!
//! A [`Candidate`] is a layer with its options, each with a cost (what it does to the network) and a size in whole units.
//! [`exact`] solves the multiple-choice knapsack to the end, [`integer_program`] through a solver of mixed-integer
//! programmes, [`greedy`] along the convex hulls of the layers, [`monotone`] under HAWQ's condition that a layer of higher
//! rank gets no fewer bits.

mod budget;
mod exact;
mod greedy;
mod milp;
mod monotone;
mod states;

pub use budget::{Budget, LayerCost, LayerOption, allocate};
pub use exact::exact;
pub use greedy::greedy;
pub use milp::integer_program;
pub use monotone::monotone;

use offprint_core::{Error, Result};

/// What one option of a layer costs, and how large it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// At least 0.
    pub cost: f64,
    /// In whole units of the budget.
    pub size: u64,
}

/// One option for each layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    /// The number of each layer's option.
    pub choices: Vec<usize>,
    /// Sum of their costs.
    pub cost: f64,
    /// Sum of their sizes.
    pub size: u64,
}

impl Assignment {
    /// The assignment of `choices`.
    pub(crate) fn of(layers: &[Vec<Candidate>], choices: Vec<usize>) -> Self {
        let chosen = || layers.iter().zip(&choices).map(|(options, &choice)| options[choice]);
        Self { cost: chosen().map(|c| c.cost).sum(), size: chosen().map(|c| c.size).sum(), choices }
    }
}

/// Who solves a knapsack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Solver {
    /// [`exact`]
    Exact,
    /// [`integer_program`]
    IntegerProgram,
    /// [`greedy`]
    Greedy,
    /// [`monotone`], with the layers given in falling rank and each layer's options in falling bits.
    Monotone,
}

impl Solver {
    /// The assignment of least cost that this solver finds with a size of at most `budget`.
    ///
    /// # Errors
    /// A layer without options or with a cost that is no number from 0; a budget below the least size, which is named.
    pub fn solve(self, layers: &[Vec<Candidate>], budget: u64) -> Result<Assignment> {
        match self {
            Self::Exact => exact(layers, budget),
            Self::IntegerProgram => integer_program(layers, budget),
            Self::Greedy => greedy(layers, budget),
            Self::Monotone => monotone(layers, budget),
        }
    }
}

/// Refuses what no solver can work with.
fn check(layers: &[Vec<Candidate>], budget: u64) -> Result<()> {
    let mut least: u64 = 0;
    for (number, options) in layers.iter().enumerate() {
        let smallest = options.iter().map(|option| option.size).min();
        let smallest = smallest.ok_or_else(|| Error::input(format!("layer {number}"), "has no option"))?;
        if let Some(bad) = options.iter().find(|option| !(option.cost >= 0.0 && option.cost.is_finite())) {
            let problem = format!("has an option of cost {}; costs are numbers from 0", bad.cost);
            return Err(Error::input(format!("layer {number}"), problem));
        }
        least = least.checked_add(smallest).ok_or_else(|| Error::Numerical("sizes do not fit into 64 bits".into()))?;
    }
    if least > budget {
        return Err(Error::parameter("budget", budget, format!("at least {least}, the least that can be reached")));
    }
    Ok(())
}
