//! How rows of two data sets are paired for training.

use super::Joint;
use crate::check;
use ndarray::{Array1, Array2, ArrayView2, Axis};
use offprint_core::random::Stream;
use offprint_core::{Error, Progress, Result};
use offprint_math::assignment;
use offprint_transport::sinkhorn::{self, half_squared_distances, sinkhorn};
use rand::RngExt;
use serde::{Deserialize, Serialize};

/// Which x₁ goes with an x₀.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Coupling {
    /// Any with any.
    Independent,
    /// Row i with row i.
    Paired,
    /// Within each batch, the assignment of least squared distance.
    MinibatchTransport,
    /// The entropic plan of the whole data: with a linear path and γ = √(ε t(1−t)), x_t has the laws of the Schrödinger
    /// bridge with Brownian motion of variance ε.
    Entropic {
        /// ε in squared units of the data.
        epsilon: f64,
    },
}

/// Pairs (x₀, x₁) without end.
pub enum Pairs {
    /// Rows of two tables.
    Tables {
        /// Rows (n₀, d).
        starts: Array2<f64>,
        /// Rows (n₁, d).
        ends: Array2<f64>,
        /// How they are paired.
        pairing: Pairing,
    },
    /// x₀ standard normal, x₁ a row of the table (n₁, d).
    FromNoise(Array2<f64>),
    /// An exact law.
    Law(Box<Joint>),
}

/// A [`Coupling`], made ready.
pub enum Pairing {
    /// See [`Coupling::Independent`].
    Independent,
    /// See [`Coupling::Paired`].
    Paired,
    /// See [`Coupling::MinibatchTransport`].
    MinibatchTransport,
    /// Cumulated conditional weights (n₀, n₁) of the plan.
    Plan(Array2<f64>),
}

/// Entries of a plan that is kept whole: 400 MB.
const LARGEST_PLAN: usize = 50_000_000;

/// Rows that are assigned at a time; assignment costs their cube.
const BLOCK: usize = 128;

impl Pairs {
    /// Rows of `starts` (n₀, d) and `ends` (n₁, d) under `coupling`.
    ///
    /// # Errors
    /// Tables of different dimension (the error names both shapes), fewer than two rows, rows that are not finite,
    /// paired tables of different length, a plan that is too large or does not converge.
    pub fn tables(starts: Array2<f64>, ends: Array2<f64>, coupling: Coupling, progress: &Progress) -> Result<Self> {
        table("x0", &starts)?;
        table("x1", &ends)?;
        if starts.ncols() != ends.ncols() {
            let problem =
                format!("has shape {:?}, but x0 has {:?}: as many columns are needed", ends.dim(), starts.dim());
            return Err(Error::input("x1", problem));
        }
        let (n0, n1) = (starts.nrows(), ends.nrows());
        let pairing = match coupling {
            Coupling::Independent => Pairing::Independent,
            Coupling::MinibatchTransport => Pairing::MinibatchTransport,
            Coupling::Paired if n0 != n1 => {
                return Err(Error::input("x1", format!("has {n1} rows, but x0 has {n0}: pairs need as many")));
            }
            Coupling::Paired => Pairing::Paired,
            Coupling::Entropic { epsilon } => Pairing::Plan(plan(&starts, &ends, epsilon, progress)?),
        };
        Ok(Self::Tables { starts, ends, pairing })
    }

    /// Noise and rows of `ends` (n₁, d).
    ///
    /// # Errors
    /// Fewer than two rows, rows that are not finite.
    pub fn from_noise(ends: Array2<f64>) -> Result<Self> {
        table("x1", &ends)?;
        Ok(Self::FromNoise(ends))
    }

    /// Dimension d.
    pub fn dim(&self) -> usize {
        match self {
            Self::Tables { ends, .. } | Self::FromNoise(ends) => ends.ncols(),
            Self::Law(joint) => joint.dim(),
        }
    }

    /// `n` pairs: x₀ (n, d) and x₁ (n, d).
    pub fn draw(&self, n: usize, stream: Stream) -> Result<(Array2<f64>, Array2<f64>)> {
        let mut rng = stream.rng(u64::MAX);
        let mut rows = |below: usize| -> Vec<usize> { (0..n).map(|_| rng.random_range(0..below)).collect() };
        Ok(match self {
            Self::Law(joint) => joint.sample(n, stream)?,
            Self::FromNoise(ends) => {
                (crate::normals(n, ends.ncols(), stream, 0), ends.select(Axis(0), &rows(ends.nrows())))
            }
            Self::Tables { starts, ends, pairing } => {
                let first = rows(starts.nrows());
                let second = match pairing {
                    Pairing::Paired => first.clone(),
                    Pairing::Independent => rows(ends.nrows()),
                    Pairing::MinibatchTransport => {
                        let free = rows(ends.nrows());
                        assigned(starts, ends, &first, &free)
                    }
                    Pairing::Plan(cumulated) => follow(cumulated, &first, &mut rng),
                };
                (starts.select(Axis(0), &first), ends.select(Axis(0), &second))
            }
        })
    }
}

fn table(name: &str, rows: &Array2<f64>) -> Result<()> {
    check::rows(name, rows.view())?;
    if rows.nrows() < 2 {
        return Err(Error::input(name, format!("has shape {:?}: at least 2 rows are needed", rows.dim())));
    }
    Ok(())
}

/// The conditional weights of the entropic plan, cumulated along each row.
fn plan(starts: &Array2<f64>, ends: &Array2<f64>, epsilon: f64, progress: &Progress) -> Result<Array2<f64>> {
    let (n0, n1) = (starts.nrows(), ends.nrows());
    if n0.saturating_mul(n1) > LARGEST_PLAN {
        let problem = format!("with x0 makes a plan of {n0} × {n1}; {LARGEST_PLAN} entries are kept at most");
        return Err(Error::input("x1", problem));
    }
    check::positive("epsilon of the coupling", epsilon)?;
    let cost = half_squared_distances(starts.view(), ends.view());
    let (a, b) = (Array1::from_elem(n0, 1.0 / n0 as f64), Array1::from_elem(n1, 1.0 / n1 as f64));
    let options = sinkhorn::Options { tolerance: 1e-6, max_iterations: 20_000 };
    let solution = sinkhorn(cost.view(), a.view(), b.view(), epsilon, options, progress)?;
    if !solution.converged {
        return Err(Error::Numerical(format!(
            "the entropic coupling did not converge in {} iterations (marginals wrong by {:.1e}): a larger epsilon is easier",
            solution.iterations, solution.marginal_error
        )));
    }
    let mut weights = solution.conditional(cost.view(), b.view());
    for mut row in weights.outer_iter_mut() {
        let mut total = 0.0;
        row.iter_mut().for_each(|w| {
            total += *w;
            *w = total;
        });
    }
    Ok(weights)
}

/// For each row in `first` one column, drawn from the plan.
fn follow(cumulated: &Array2<f64>, first: &[usize], rng: &mut impl rand::Rng) -> Vec<usize> {
    let last = cumulated.ncols() - 1;
    let column = |&row: &usize| {
        let weights = cumulated.row(row);
        let u: f64 = rng.random::<f64>() * weights[last];
        weights.as_slice().expect("rows of an owned table are contiguous").partition_point(|w| *w <= u).min(last)
    };
    first.iter().map(column).collect()
}

/// The rows of `free` in the order in which they fit the rows of `first` best, block by block.
fn assigned(starts: &Array2<f64>, ends: &Array2<f64>, first: &[usize], free: &[usize]) -> Vec<usize> {
    let blocks = first.chunks(BLOCK).zip(free.chunks(BLOCK)).flat_map(|(first, free)| {
        let (x, y) = (starts.select(Axis(0), first), ends.select(Axis(0), free));
        let cost: Array2<f64> = half_squared_distances(x.view(), ArrayView2::from(&y));
        assignment::minimize(cost.view()).into_iter().map(|column| free[column]).collect::<Vec<_>>()
    });
    blocks.collect()
}
