//! The dual and the semi-dual as functions to minimise, over all columns at once.
//!
//! Dual, with signs turned: −D(α, β) = −⟨α, a⟩ − ⟨β, b⟩ + Σ_j Ω*(α + β_j − c_j).
//! Semi-dual: −S(α) = −⟨α, a⟩ + Σ_j Ω*_{b_j}(α − c_j).
//! With a column relaxation ρ KL(·|b), ⟨β, b⟩ becomes −ρ Σ_j b_j (exp(−β_j/ρ) − 1).
//!
//! Columns are split into a fixed number of chunks, whatever the number of threads, and the chunks' sums are added in
//! order, so that the result has the same bits. An evaluation reads the cost from memory once: 8 m n bytes.

use super::conjugate::{self, Scratch};
use super::problem::{Problem, Regulariser};
use crate::plan::Plan;
use clap::ValueEnum;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Which of the two concave problems is solved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Formulation {
    /// Over α and β: neither marginal is exact before the optimum, an evaluation is cheapest.
    Dual,
    /// Over α alone: column marginals are exact always.
    #[default]
    SemiDual,
}

/// Chunks that columns are split into.
const CHUNKS: usize = 16;
/// Below this many entries of the cost, one thread is faster than several.
const WORTH_THREADS: usize = 1 << 15;

/// The function to minimise, with the memory its evaluation needs.
pub struct Objective<'p> {
    problem: &'p Problem,
    regulariser: Regulariser,
    formulation: Formulation,
    /// Strength δ of a ridge beside the biconjugate of a sparse regulariser; none for the regulariser itself.
    ridge: Option<f64>,
    chunks: Vec<Chunk>,
}

struct Chunk {
    columns: Range<usize>,
    /// Σ_j t_j over the chunk (m).
    sums: Vec<f64>,
    /// Σ_i t_ij of its columns.
    masses: Vec<f64>,
    value: f64,
    scratch: Scratch,
}

impl<'p> Objective<'p> {
    /// The objective of `problem` with `regulariser` in the given formulation.
    ///
    /// An unbalanced problem has no semi-dual here; its dual is taken.
    pub fn new(problem: &'p Problem, regulariser: Regulariser, formulation: Formulation) -> Self {
        let formulation = if problem.relaxation().is_some() { Formulation::Dual } else { formulation };
        let n = problem.columns();
        let count = CHUNKS.min(n);
        let chunks = (0..count)
            .map(|c| {
                let columns = c * n / count..(c + 1) * n / count;
                Chunk {
                    masses: vec![0.0; columns.len()],
                    columns,
                    sums: vec![0.0; problem.rows()],
                    value: 0.0,
                    scratch: Scratch::default(),
                }
            })
            .collect();
        Self { problem, regulariser, formulation, ridge: None, chunks }
    }

    /// The semi-dual of the relaxed problem with a ridge: Ω** + (δ/2)|t|², smooth where the paper's has kinks.
    pub(super) fn smoothed(problem: &'p Problem, regulariser: Regulariser, delta: f64) -> Self {
        Self { ridge: Some(delta), ..Self::new(problem, regulariser, Formulation::SemiDual) }
    }

    /// The formulation in use.
    pub fn formulation(&self) -> Formulation {
        self.formulation
    }

    /// Number of variables: m for the semi-dual, m + n for the dual.
    pub fn dimension(&self) -> usize {
        match self.formulation {
            Formulation::Dual => self.problem.rows() + self.problem.columns(),
            Formulation::SemiDual => self.problem.rows(),
        }
    }

    /// The negative (semi-)dual at `x` = α, or α followed by β; its gradient goes into `gradient`. O(m n).
    pub fn evaluate(&mut self, x: &[f64], gradient: &mut [f64]) -> f64 {
        let (problem, regulariser, formulation, ridge) = (self.problem, self.regulariser, self.formulation, self.ridge);
        let (m, n) = (problem.rows(), problem.columns());
        let (alpha, beta) = x.split_at(m);
        let work = |chunk: &mut Chunk| {
            chunk.sums.fill(0.0);
            chunk.value = 0.0;
            for (slot, j) in chunk.columns.clone().enumerate() {
                let cost = problem.cost_column(j);
                let (sums, scratch) = (&mut chunk.sums, &mut chunk.scratch);
                let column = match formulation {
                    Formulation::Dual => conjugate::dual(regulariser, alpha, beta[j], cost, sums, scratch),
                    Formulation::SemiDual => {
                        conjugate::semi_dual(regulariser, ridge, alpha, problem.b()[j], cost, sums, scratch)
                    }
                };
                chunk.value += column.value;
                chunk.masses[slot] = column.mass;
            }
        };
        if m * n >= WORTH_THREADS {
            self.chunks.par_iter_mut().for_each(work);
        } else {
            self.chunks.iter_mut().for_each(work);
        }

        let (by_alpha, by_beta) = gradient.split_at_mut(m);
        by_alpha.fill(0.0);
        let mut value = 0.0;
        for chunk in &self.chunks {
            value += chunk.value;
            for (g, s) in by_alpha.iter_mut().zip(&chunk.sums) {
                *g += s;
            }
            if formulation == Formulation::Dual {
                by_beta[chunk.columns.clone()].copy_from_slice(&chunk.masses);
            }
        }
        for ((g, a), x) in by_alpha.iter_mut().zip(problem.a()).zip(alpha) {
            *g -= a;
            value -= a * x;
        }
        if formulation == Formulation::Dual {
            for ((g, &b), &x) in by_beta.iter_mut().zip(problem.b()).zip(beta) {
                match problem.relaxation() {
                    None => {
                        *g -= b;
                        value -= b * x;
                    }
                    Some(rho) => {
                        *g -= b * (-x / rho).exp();
                        value += rho * b * (-x / rho).exp_m1();
                    }
                }
            }
        }
        value
    }

    /// The plan that the gradient at `x` is made of. It satisfies the marginals only at the optimum, and only where no
    /// column is tied; in the semi-dual its column marginals are always exact. Also answers β and which columns are tied.
    pub fn plan(&self, x: &[f64]) -> ReadOff {
        let problem = self.problem;
        let (m, n) = (problem.rows(), problem.columns());
        let (alpha, beta) = x.split_at(m);
        let mut scratch = Scratch::default();
        let mut read =
            ReadOff { plan: Plan::with_rows(m, n), beta: Vec::with_capacity(n), tied: Vec::with_capacity(n) };
        for (j, &b) in problem.b().iter().enumerate() {
            let cost = problem.cost_column(j);
            let column = match self.formulation {
                Formulation::Dual => conjugate::dual_entries(self.regulariser, alpha, beta[j], cost, &mut scratch),
                Formulation::SemiDual => {
                    conjugate::semi_dual_entries(self.regulariser, self.ridge, alpha, b, cost, &mut scratch)
                }
            };
            scratch.entries.sort_unstable_by_key(|e| e.0);
            read.plan.push_column(scratch.entries.iter().copied());
            read.beta.push(-column.tau);
            read.tied.push(column.tied);
        }
        read
    }
}

/// What a dual point says about the primal.
#[derive(Debug, Clone)]
pub struct ReadOff {
    /// The plan made of the columns' maximisers.
    pub plan: Plan,
    /// β (n): the dual's own, or the semi-dual's −τ.
    pub beta: Vec<f64>,
    /// Whether the column's k-th and (k+1)-th largest scores agree (n).
    pub tied: Vec<bool>,
}
