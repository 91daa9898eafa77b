//! Rewards that a law is tilted by.

use crate::check;
use ndarray::{Array1, Array2, ArrayView2, Axis};
use offprint_core::{Error, Result};
use offprint_math::linalg::matmul;

/// A differentiable function of a point.
pub trait Reward: Sync {
    /// Components d of a point, if only points of that dimension have a reward.
    fn dim(&self) -> Option<usize> {
        None
    }

    /// r (n) and ∇r (n, d) at `x` (n, d).
    fn value_and_gradient(&self, x: ArrayView2<'_, f64>) -> Result<(Array1<f64>, Array2<f64>)>;
}

/// r = a·x.
#[derive(Debug, Clone, PartialEq)]
pub struct Linear {
    direction: Array1<f64>,
}

impl Linear {
    /// With the vector a (d).
    pub fn new(direction: Array1<f64>) -> Result<Self> {
        check::rows("reward", direction.view().insert_axis(Axis(0)))?;
        Ok(Self { direction })
    }
}

impl Reward for Linear {
    fn dim(&self) -> Option<usize> {
        Some(self.direction.len())
    }

    fn value_and_gradient(&self, x: ArrayView2<'_, f64>) -> Result<(Array1<f64>, Array2<f64>)> {
        check::dimension("points", x, "the reward", self.direction.len())?;
        Ok((x.dot(&self.direction), self.direction.broadcast(x.dim()).expect("one row").to_owned()))
    }
}

/// r = −|A x − b|²/(2 s²): the log-likelihood of a measurement b of A x with noise of deviation s. Tilting by it gives
/// the posterior of an inverse problem.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    matrix: Array2<f64>,
    values: Array1<f64>,
    deviation: f64,
}

impl Observation {
    /// With A (m, d), b (m) and s.
    ///
    /// # Errors
    /// Shapes that do not fit, values that are not finite, s that is not positive.
    pub fn new(matrix: Array2<f64>, values: Array1<f64>, deviation: f64) -> Result<Self> {
        check::rows("matrix", matrix.view())?;
        check::rows("values", values.view().insert_axis(Axis(0)))?;
        if matrix.nrows() != values.len() {
            let problem = format!("has {} entries, but the matrix has {} rows", values.len(), matrix.nrows());
            return Err(Error::input("values", problem));
        }
        check::positive("deviation", deviation)?;
        Ok(Self { matrix, values, deviation })
    }
}

impl Reward for Observation {
    fn dim(&self) -> Option<usize> {
        Some(self.matrix.ncols())
    }

    fn value_and_gradient(&self, x: ArrayView2<'_, f64>) -> Result<(Array1<f64>, Array2<f64>)> {
        check::dimension("points", x, "the reward", self.matrix.ncols())?;
        let precision = 1.0 / (self.deviation * self.deviation);
        let apart = matmul(x, self.matrix.t()) - &self.values;
        let value = apart.outer_iter().map(|row| -0.5 * precision * row.dot(&row)).collect();
        Ok((value, matmul(apart.view(), self.matrix.view()) * -precision))
    }
}

impl<R: Reward + ?Sized> Reward for Box<R> {
    fn dim(&self) -> Option<usize> {
        (**self).dim()
    }

    fn value_and_gradient(&self, x: ArrayView2<'_, f64>) -> Result<(Array1<f64>, Array2<f64>)> {
        (**self).value_and_gradient(x)
    }
}
