//! Online dictionary learning of Mairal, Bach, Ponce and Sapiro (2010): not orthogonal, lasso codes.

use crate::oodl::Learner;
use crate::oodl::frank_wolfe::check_batch;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};
use offprint_core::Result;
use offprint_math::linalg;

/// Coordinate sweeps after which a lasso code is taken as it is.
const MOST_SWEEPS: usize = 200;

/// Learns N unit atoms by min ½‖y − Dα‖² + λ‖α‖₁, with the sufficient statistics A = Σ ααᵀ and B = Σ yαᵀ (2 N²
/// numbers) in place of the past samples.
#[derive(Debug, Clone)]
pub struct OnlineLasso {
    /// Rows are atoms, (N atoms, N).
    atoms: Array2<f64>,
    lambda: f64,
    a: Array2<f64>,
    /// Row j is the j-th column of B.
    b: Array2<f64>,
    seen: f64,
}

impl OnlineLasso {
    /// From `start` (N, N), columns atoms, with the penalty λ = `lambda`.
    pub fn new(start: Array2<f64>, lambda: f64) -> Self {
        let zeros = Array2::zeros(start.dim());
        Self { atoms: start.t().as_standard_layout().into_owned(), lambda, a: zeros.clone(), b: zeros, seen: 0.0 }
    }
}

/// The lasso code of one sample by cyclic coordinate descent, in place from `code`: `gram` = DᵀD, `correlation` = Dᵀy.
pub(super) fn lasso(gram: ArrayView2<'_, f64>, correlation: ArrayView1<'_, f64>, lambda: f64, code: &mut Array1<f64>) {
    let scale = correlation.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    for _ in 0..MOST_SWEEPS {
        let mut moved = 0.0f64;
        for j in 0..code.len() {
            let curvature = gram[[j, j]];
            if curvature <= 0.0 {
                continue;
            }
            let pull = correlation[j] - gram.row(j).dot(code) + curvature * code[j];
            let new = pull.signum() * (pull.abs() - lambda).max(0.0) / curvature;
            moved = moved.max((new - code[j]).abs());
            code[j] = new;
        }
        if moved <= 1e-6 * scale {
            break;
        }
    }
}

impl Learner for OnlineLasso {
    fn learn(&mut self, samples: ArrayView2<'_, f64>) -> Result<()> {
        check_batch(samples, self.atoms.ncols())?;
        if samples.nrows() == 0 {
            return Ok(());
        }
        let gram = linalg::matmul(self.atoms.view(), self.atoms.t());
        let batch = samples.nrows() as f64;
        // Their β: the past fades as the dictionary improves.
        let step = self.seen / batch + 1.0;
        let theta = if step < batch { step * batch } else { batch * batch + step - batch };
        let keep = (theta + 1.0 - batch) / (theta + 1.0);
        self.a *= keep;
        self.b *= keep;
        for y in samples.outer_iter() {
            let correlation = self.atoms.dot(&y);
            let mut code = Array1::zeros(self.atoms.nrows());
            lasso(gram.view(), correlation.view(), self.lambda, &mut code);
            for (j, &x) in code.iter().enumerate().filter(|&(_, &x)| x != 0.0) {
                self.a.row_mut(j).scaled_add(x / batch, &code);
                self.b.row_mut(j).scaled_add(x / batch, &y);
            }
        }
        self.seen += batch;
        // One pass of block coordinate descent over the atoms: u_j = (b_j − D a_j)/A_jj + d_j, shrunk to the unit ball.
        for j in 0..self.atoms.nrows() {
            let curvature = self.a[[j, j]];
            if curvature > 1e-12 {
                let mut u = &self.b.row(j) - &self.atoms.t().dot(&self.a.row(j));
                u.mapv_inplace(|x| x / curvature);
                u += &self.atoms.row(j);
                let norm = u.dot(&u).sqrt();
                self.atoms.row_mut(j).assign(&(&u / norm.max(1.0)));
            }
        }
        Ok(())
    }

    fn dictionary(&mut self) -> Result<Array2<f64>> {
        let mut atoms = self.atoms.t().as_standard_layout().into_owned();
        for mut atom in atoms.axis_iter_mut(Axis(1)) {
            let norm = atom.dot(&atom).sqrt();
            if norm > 0.0 {
                atom /= norm;
            }
        }
        Ok(atoms)
    }

    fn carried(&self) -> usize {
        self.atoms.len() + self.a.len() + self.b.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn lasso_codes_of_an_orthonormal_dictionary_are_soft_thresholds() {
        // Closed form: DᵀD = I gives α = sign(c) max(|c| − λ, 0).
        let mut code = Array1::zeros(3);
        lasso(Array2::eye(3).view(), array![2.0, -0.3, -1.0].view(), 0.5, &mut code);
        assert_eq!(code, array![1.5, 0.0, -0.5]);
    }

    #[test]
    fn lasso_codes_meet_the_optimality_conditions() {
        let gram = array![[1.0, 0.6, -0.2], [0.6, 1.0, 0.3], [-0.2, 0.3, 1.0]];
        let (correlation, lambda) = (array![1.0, 0.9, -0.4], 0.2);
        let mut code = Array1::zeros(3);
        lasso(gram.view(), correlation.view(), lambda, &mut code);
        let residual = &correlation - &gram.dot(&code);
        for (r, x) in residual.iter().zip(&code) {
            assert!(if *x == 0.0 { r.abs() <= lambda + 1e-5 } else { (r - lambda * x.signum()).abs() < 1e-5 });
        }
    }
}
