//! Entropic optimal transport between two weighted point sets, by Sinkhorn's iteration in the log domain.
//!
//! Finds the plan P ≥ 0 with marginals a and b that minimises ⟨C, P⟩ + ε KL(P | a bᵀ). For masses of total one it has
//! the form P_ij = a_i b_j exp((f_i + g_j − C_ij) / ε); the iteration makes rows and columns right in turn:
//!
//! ```text
//! f_i = −ε log Σ_j b_j exp((g_j − C_ij) / ε),    g_j = −ε log Σ_i a_i exp((f_i − C_ij) / ε)
//! ```
//!
//! The potentials stay finite however small ε is. One iteration costs 2nm exponentials, spread over threads; memory is
//! two copies of the cost.
//!
//! M. Cuturi, *Sinkhorn Distances*, NeurIPS 2013 (arXiv 1306.0895); G. Peyré, M. Cuturi, *Computational Optimal
//! Transport*, 2019, §4.4.
//!
//! ```
//! use ndarray::array;
//! use offprint_core::Progress;
//! use offprint_transport::sinkhorn::{Options, sinkhorn};
//!
//! let cost = array![[0.0, 1.0], [1.0, 0.0]];
//! let half = array![0.5, 0.5];
//! let solution = sinkhorn(cost.view(), half.view(), half.view(), 0.1, Options::default(), &Progress::silent())?;
//! assert!(solution.plan(cost.view(), half.view(), half.view())[[0, 0]] > 0.4999);
//! # Ok::<(), offprint_core::Error>(())
//! ```

use ndarray::parallel::prelude::*;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, Zip};
use offprint_core::{Error, Progress, Result};
use offprint_math::{linalg, vector};

/// When the iteration stops.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// It has converged when the marginals are wrong by at most this in total, Σ_i |Σ_j P_ij − a_i| for a total mass
    /// of one.
    pub tolerance: f64,
    /// It stops after so many iterations at the latest.
    pub max_iterations: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { tolerance: 1e-9, max_iterations: 10_000 }
    }
}

/// The potentials of an entropic plan, and how they were reached.
#[derive(Debug, Clone, PartialEq)]
pub struct Sinkhorn {
    /// The regularisation ε.
    pub epsilon: f64,
    /// Potential of the rows, f (n).
    pub f: Array1<f64>,
    /// Potential of the columns, g (m).
    pub g: Array1<f64>,
    /// Iterations done.
    pub iterations: usize,
    /// Bound of the marginals' total error; the columns are exact to rounding, the rows carry it.
    pub marginal_error: f64,
    /// Whether that error is within the tolerance.
    pub converged: bool,
}

/// Solves the problem of this module for `cost` (n, m) with row masses `a` (n) and column masses `b` (m) of equal total.
///
/// An iteration that runs into `max_iterations` is no error: look at [`Sinkhorn::converged`].
///
/// # Errors
/// Shapes that do not fit, masses that are negative, all zero or of different total, costs that are not finite, ε ≤ 0;
/// [`Error::Cancelled`] through `progress`.
pub fn sinkhorn(
    cost: ArrayView2<'_, f64>,
    a: ArrayView1<'_, f64>,
    b: ArrayView1<'_, f64>,
    epsilon: f64,
    options: Options,
    progress: &Progress,
) -> Result<Sinkhorn> {
    check(cost, a, b, epsilon)?;
    let (n, m) = cost.dim();
    let kernel = cost.mapv(|c| -c / epsilon);
    let transposed = kernel.t().as_standard_layout().into_owned();
    // Potentials in units of ε; masses relative to their total.
    let total = a.sum();
    let (a, b) = (a.mapv(|x| x / total), b.mapv(|x| x / total));
    let (log_a, log_b) = (a.mapv(f64::ln), b.mapv(f64::ln));
    let (mut f, mut g) = (Array1::zeros(n), Array1::<f64>::zeros(m));
    let (mut iterations, mut error) = (0, f64::INFINITY);
    progress.begin("Sinkhorn", options.max_iterations as u64);
    while iterations < options.max_iterations && error > options.tolerance {
        f = soft_minimum(kernel.view(), (&g + &log_b).view());
        let next = soft_minimum(transposed.view(), (&f + &log_a).view());
        // Before this update column j held b_j exp(g_j − next_j). Making the columns right disturbs the rows by at most
        // what the columns were wrong by.
        error = Zip::from(&b).and(&g).and(&next).fold(0.0, |sum, &b, &old, &new| sum + b * (old - new).exp_m1().abs());
        g = next;
        iterations += 1;
        if iterations % 50 == 0 {
            progress.status(&format!("marginal error {error:.1e}"));
        }
        progress.advance(1)?;
    }
    progress.finish();
    let converged = error <= options.tolerance;
    Ok(Sinkhorn { epsilon, f: f * epsilon, g: g * epsilon, iterations, marginal_error: error, converged })
}

impl Sinkhorn {
    /// The plan P (n, m) for the `cost`, `a` and `b` that were solved.
    pub fn plan(&self, cost: ArrayView2<'_, f64>, a: ArrayView1<'_, f64>, b: ArrayView1<'_, f64>) -> Array2<f64> {
        let total = a.sum();
        let mut plan = cost.as_standard_layout().into_owned();
        plan.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(i, mut row)| {
            Zip::from(&mut row).and(&self.g).for_each(|p, &g| *p = (self.f[i] + g - *p) / self.epsilon);
            vector::exp(row.as_slice_mut().expect("an owned matrix has contiguous rows"));
            Zip::from(&mut row).and(&b).for_each(|p, &b| *p *= a[i] / total * b);
        });
        plan
    }

    /// How a new source point spreads over the targets, P(j | x) ∝ b_j exp((g_j − c(x, y_j)) / ε), for each row of
    /// `cost` (new, m) between new source points and the targets. Rows sum to one.
    pub fn conditional(&self, cost: ArrayView2<'_, f64>, b: ArrayView1<'_, f64>) -> Array2<f64> {
        let offset = Zip::from(&self.g).and(&b).map_collect(|g, b| g / self.epsilon + b.ln());
        let mut weights = cost.as_standard_layout().into_owned();
        weights.axis_iter_mut(Axis(0)).into_par_iter().for_each(|mut row| {
            Zip::from(&mut row).and(&offset).for_each(|w, &offset| *w = offset - *w / self.epsilon);
            vector::softmax(row.as_slice_mut().expect("an owned matrix has contiguous rows"));
        });
        weights
    }

    /// The entropic map: the mean of [`conditional`](Self::conditional) over the targets `y` (m, d), for new source
    /// points. Shape (new, d).
    pub fn barycentric_map(
        &self,
        cost: ArrayView2<'_, f64>,
        b: ArrayView1<'_, f64>,
        y: ArrayView2<'_, f64>,
    ) -> Array2<f64> {
        linalg::matmul(self.conditional(cost, b).view(), y)
    }
}

/// ½|x − y|² between the rows of `x` (n, d) and of `y` (m, d). Shape (n, m).
///
/// # Panics
/// If the dimensions differ.
pub fn half_squared_distances(x: ArrayView2<'_, f64>, y: ArrayView2<'_, f64>) -> Array2<f64> {
    let half_norms = |z: ArrayView2<'_, f64>| z.rows().into_iter().map(|r| 0.5 * r.dot(&r)).collect::<Array1<f64>>();
    let (nx, ny) = (half_norms(x), half_norms(y));
    let mut cost = Array2::zeros((x.nrows(), y.nrows()));
    linalg::gemm(-1.0, x, y.t(), false, cost.view_mut());
    for (mut row, nx) in cost.rows_mut().into_iter().zip(&nx) {
        // Rounding can push the distance of equal points below zero.
        Zip::from(&mut row).and(&ny).for_each(|c, ny| *c = (*c + nx + ny).max(0.0));
    }
    cost
}

/// −log Σ_j exp(kernel_ij + offset_j) for every row i.
fn soft_minimum(kernel: ArrayView2<'_, f64>, offset: ArrayView1<'_, f64>) -> Array1<f64> {
    let values: Vec<f64> = (0..kernel.nrows())
        .into_par_iter()
        .with_min_len((4096 / kernel.ncols()).max(1))
        .map_init(
            || vec![0.0; kernel.ncols()],
            |terms, i| {
                Zip::from(&mut terms[..]).and(kernel.row(i)).and(offset).for_each(|t, k, o| *t = k + o);
                -vector::log_sum_exp(terms)
            },
        )
        .collect();
    values.into()
}

fn check(cost: ArrayView2<'_, f64>, a: ArrayView1<'_, f64>, b: ArrayView1<'_, f64>, epsilon: f64) -> Result<()> {
    if !(epsilon > 0.0 && epsilon.is_finite()) {
        return Err(Error::parameter("epsilon", epsilon, "above 0 and finite"));
    }
    let (n, m) = cost.dim();
    if (a.len(), b.len()) != (n, m) || cost.is_empty() {
        let problem = format!("has shape ({n}, {m}) for {} row and {} column masses", a.len(), b.len());
        return Err(Error::input("cost", problem));
    }
    if let Some(((i, j), c)) = cost.indexed_iter().find(|(_, c)| !c.is_finite()) {
        return Err(Error::input("cost", format!("has {c} at row {i}, column {j}; costs must be finite")));
    }
    for (name, masses) in [("a", a), ("b", b)] {
        if let Some((i, x)) = masses.iter().enumerate().find(|(_, x)| !(**x >= 0.0 && x.is_finite())) {
            return Err(Error::input(name, format!("has mass {x} at {i}; masses must be finite and not negative")));
        }
    }
    let (total_a, total_b) = (a.sum(), b.sum());
    if total_a <= 0.0 || (total_a - total_b).abs() > 1e-9 * total_a {
        let problem = format!("has total mass {total_b} beside {total_a} of a; both must be equal and above 0");
        return Err(Error::input("b", problem));
    }
    Ok(())
}
