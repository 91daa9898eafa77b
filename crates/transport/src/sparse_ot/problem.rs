//! The problem: a cost, two marginals, and the regulariser of the columns.

use crate::exact::{check_cost, check_marginal, check_marginals};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2};
use offprint_core::{Error, Result};

/// A transport problem, checked: cost C ≥ 0 of shape (m, n), marginals `a` (m) and `b` (n).
#[derive(Debug, Clone)]
pub struct Problem {
    /// Cᵀ (n, m) in standard layout, so that a column of C is contiguous.
    columns: Array2<f64>,
    a: Array1<f64>,
    b: Array1<f64>,
    relaxation: Option<f64>,
}

/// The regulariser Ω of a column t of the plan.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Regulariser {
    /// Ω = 0: optimal transport itself, solved by the network simplex.
    Unregularised,
    /// Ω(t) = γ Σ t_i ln t_i: dense plans, what Sinkhorn's algorithm solves.
    Entropic {
        /// Strength γ > 0.
        gamma: f64,
    },
    /// Ω(t) = (γ/2) |t|²: sparse plans without a bound on the number of non-zeros.
    Quadratic {
        /// Strength γ > 0.
        gamma: f64,
    },
    /// Ω(t) = (γ/2) |t|² where t has at most k non-zeros, +∞ elsewhere: the paper's.
    Sparse {
        /// Strength γ > 0.
        gamma: f64,
        /// Most non-zeros of a column, 1 ≤ k ≤ m.
        k: usize,
    },
}

impl Problem {
    /// A problem with both marginals exact.
    ///
    /// # Errors
    /// A cost that is empty, negative or not finite; marginals of another length than the cost's axes, negative, without
    /// mass, or of different sums.
    pub fn new(cost: ArrayView2<'_, f64>, a: ArrayView1<'_, f64>, b: ArrayView1<'_, f64>) -> Result<Self> {
        check_cost(cost)?;
        check_sign(cost)?;
        check_marginals(cost.dim(), a, b)?;
        Ok(Self::unchecked(cost, a.to_owned(), b.to_owned(), None))
    }

    /// A problem with uniform marginals of sum one.
    ///
    /// # Errors
    /// As [`Problem::new`].
    pub fn uniform(cost: ArrayView2<'_, f64>) -> Result<Self> {
        let share = |count: usize| Array1::from_elem(count, 1.0 / count.max(1) as f64);
        Self::new(cost, share(cost.nrows()).view(), share(cost.ncols()).view())
    }

    /// The unbalanced problem: rows exact, columns within a penalty ρ KL(Tᵀ1 | b) of `b`. The sums may differ.
    ///
    /// # Errors
    /// As [`Problem::new`] but for the sums; a penalty that is not positive; a column without mass.
    pub fn unbalanced(
        cost: ArrayView2<'_, f64>,
        a: ArrayView1<'_, f64>,
        b: ArrayView1<'_, f64>,
        rho: f64,
    ) -> Result<Self> {
        check_cost(cost)?;
        check_sign(cost)?;
        check_marginal("a", "rows", cost.nrows(), a)?;
        check_marginal("b", "columns", cost.ncols(), b)?;
        if !(rho > 0.0 && rho.is_finite()) {
            return Err(Error::parameter("unbalanced", rho, "above 0"));
        }
        Ok(Self::unchecked(cost, a.to_owned(), b.to_owned(), Some(rho)))
    }

    /// Without checks: costs may be +∞ where no mass may go.
    pub(super) fn unchecked(
        cost: ArrayView2<'_, f64>,
        a: Array1<f64>,
        b: Array1<f64>,
        relaxation: Option<f64>,
    ) -> Self {
        Self { columns: cost.t().as_standard_layout().into_owned(), a, b, relaxation }
    }

    /// Number of rows m.
    pub fn rows(&self) -> usize {
        self.a.len()
    }

    /// Number of columns n.
    pub fn columns(&self) -> usize {
        self.b.len()
    }

    /// The cost C (m, n).
    pub fn cost(&self) -> ArrayView2<'_, f64> {
        self.columns.t()
    }

    /// Column `j` of the cost (m).
    pub fn cost_column(&self, j: usize) -> &[f64] {
        let m = self.rows();
        &self.columns.as_slice().expect("standard layout")[j * m..(j + 1) * m]
    }

    /// The row marginal (m).
    pub fn a(&self) -> ArrayView1<'_, f64> {
        self.a.view()
    }

    /// The column marginal (n).
    pub fn b(&self) -> ArrayView1<'_, f64> {
        self.b.view()
    }

    /// The penalty ρ of the column marginal, `None` if it is exact.
    pub fn relaxation(&self) -> Option<f64> {
        self.relaxation
    }
}

fn check_sign(cost: ArrayView2<'_, f64>) -> Result<()> {
    match cost.indexed_iter().find(|&(_, &c)| c < 0.0) {
        Some(((i, j), c)) => Err(Error::input(
            "cost",
            format!(
                "row {i}, column {j} (counted from 0) is {c}; costs are at least 0 (adding a constant to all of them does not change the plan)"
            ),
        )),
        None => Ok(()),
    }
}

impl Regulariser {
    /// The strength γ; zero without regularisation.
    pub fn gamma(self) -> f64 {
        match self {
            Self::Unregularised => 0.0,
            Self::Entropic { gamma } | Self::Quadratic { gamma } | Self::Sparse { gamma, .. } => gamma,
        }
    }

    /// Most non-zeros that a column of `m` rows may have.
    pub fn most_nonzeros(self, m: usize) -> usize {
        match self {
            Self::Sparse { k, .. } => k.min(m),
            _ => m,
        }
    }

    /// Refuses a strength that is not positive and a k outside 1..=m.
    ///
    /// # Errors
    /// Naming `gamma` or `k`.
    pub fn check(self, m: usize) -> Result<()> {
        let gamma = self.gamma();
        if self != Self::Unregularised && !(gamma > 0.0 && gamma.is_finite()) {
            return Err(Error::parameter("gamma", gamma, "above 0"));
        }
        match self {
            Self::Sparse { k, .. } if k < 1 || k > m => {
                Err(Error::parameter("k", k, format!("in 1..{m} (a column has {m} rows)")))
            }
            _ => Ok(()),
        }
    }
}
