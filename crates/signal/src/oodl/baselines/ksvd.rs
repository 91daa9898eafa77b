//! K-SVD (Aharon, Elad and Bruckstein, 2006): offline, not orthogonal, codes of at most T entries.

use super::Kept;
use crate::oodl::Learner;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, parallel::prelude::*};
use offprint_core::{Error, Progress, Result};
use offprint_math::linalg;

/// Alternates orthogonal matching pursuit and rank-one updates of single atoms. Keeps all samples.
///
/// The rank-one update takes one alternating step per pass in place of a whole singular value decomposition
/// (Rubinstein, Zibulevsky and Elad, 2008), which converges to the same fixed points.
#[derive(Clone)]
pub struct Ksvd {
    start: Array2<f64>,
    nonzeros: usize,
    passes: usize,
    samples: Kept,
    progress: Progress,
}

impl Ksvd {
    /// From `start` (N, N), columns atoms, with at most `nonzeros` entries per code and `passes` alternations.
    ///
    /// # Errors
    /// `nonzeros` outside 1..=N.
    pub fn new(start: Array2<f64>, nonzeros: usize, passes: usize, progress: Progress) -> Result<Self> {
        let n = start.nrows();
        if !(1..=n).contains(&nonzeros) {
            return Err(Error::parameter("nonzeros", nonzeros, format!("between 1 and {n}")));
        }
        Ok(Self { samples: Kept::new(n), start, nonzeros, passes, progress })
    }
}

/// The code of `y` with at most `nonzeros` entries by orthogonal matching pursuit over unit `atoms` (rows).
fn pursue(
    atoms: ArrayView2<'_, f64>,
    gram: ArrayView2<'_, f64>,
    y: ArrayView1<'_, f64>,
    nonzeros: usize,
) -> Array1<f64> {
    let correlation = atoms.dot(&y);
    let mut code = Array1::zeros(atoms.nrows());
    let mut support: Vec<usize> = Vec::with_capacity(nonzeros);
    let mut rest = correlation.clone();
    for _ in 0..nonzeros {
        let best =
            (0..rest.len()).filter(|j| !support.contains(j)).max_by(|&i, &j| rest[i].abs().total_cmp(&rest[j].abs()));
        let Some(best) = best.filter(|&j| rest[j].abs() > 1e-12) else { break };
        support.push(best);
        let k = support.len();
        let small = Array2::from_shape_fn((k, k), |(i, j)| gram[[support[i], support[j]]]);
        let right = Array2::from_shape_fn((k, 1), |(i, _)| correlation[support[i]]);
        let Ok(values) = linalg::solve(small.view(), right.view()) else {
            support.pop();
            break;
        };
        code.fill(0.0);
        for (&j, &x) in support.iter().zip(values.column(0)) {
            code[j] = x;
        }
        rest = &correlation - &gram.dot(&code);
    }
    code
}

impl Learner for Ksvd {
    fn learn(&mut self, samples: ArrayView2<'_, f64>) -> Result<()> {
        self.samples.add(samples)
    }

    fn dictionary(&mut self) -> Result<Array2<f64>> {
        let y = self.samples.scaled()?;
        let mut atoms = self.start.t().as_standard_layout().into_owned();
        let mut codes = Array2::<f64>::zeros((y.nrows(), atoms.nrows()));
        for _ in 0..self.passes {
            self.progress.check()?;
            let gram = linalg::matmul(atoms.view(), atoms.t());
            codes
                .axis_iter_mut(Axis(0))
                .into_par_iter()
                .zip(y.axis_iter(Axis(0)).into_par_iter())
                .for_each(|(mut code, y)| code.assign(&pursue(atoms.view(), gram.view(), y, self.nonzeros)));
            let mut residual = y.clone();
            linalg::gemm(-1.0, codes.view(), atoms.view(), true, residual.view_mut());
            for j in 0..atoms.nrows() {
                let users: Vec<usize> = (0..y.nrows()).filter(|&i| codes[[i, j]] != 0.0).collect();
                // E = residual + x dᵀ over the samples that use the atom; one alternation d ← Eᵀx, x ← E d.
                let mut direction = Array1::<f64>::zeros(atoms.ncols());
                for &i in &users {
                    let x = codes[[i, j]];
                    direction.scaled_add(x, &residual.row(i));
                    direction.scaled_add(x * x, &atoms.row(j));
                }
                let norm = direction.dot(&direction).sqrt();
                if norm == 0.0 {
                    continue;
                }
                direction /= norm;
                for &i in &users {
                    let x = codes[[i, j]];
                    let new = residual.row(i).dot(&direction) + x * atoms.row(j).dot(&direction);
                    let mut row = residual.row_mut(i);
                    row.scaled_add(x, &atoms.row(j));
                    row.scaled_add(-new, &direction);
                    codes[[i, j]] = new;
                }
                atoms.row_mut(j).assign(&direction);
            }
        }
        Ok(atoms.t().as_standard_layout().into_owned())
    }

    fn carried(&self) -> usize {
        self.samples.values.len()
    }
}
