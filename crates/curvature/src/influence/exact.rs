//! The damped Gauss–Newton matrix without approximation, for small models and for tests of the others.

use super::{Element, Examples, Model, Preconditioner};
use candle_core::Tensor;
use faer::linalg::solvers::{Llt, Solve};
use faer::{Side, mat::MatRef};
use ndarray::{Array2, ArrayView2, Axis, s};
use offprint_core::{Error, Progress, Result};
use offprint_math::linalg::{as_faer, from_faer, gemm, matmul};
use offprint_nn::derivatives::{IGNORED, Loss};
use offprint_nn::{Batch, computation, ops};

/// Rows R with G = Rᵀ R: for every sample and output the gradient that this output sends back, scaled by the root of the
/// loss's curvature and of 1/n. For squared errors there is a row a sample and output, for cross-entropy a row a sample,
/// position and class.
///
/// # Errors
/// No example; shapes that do not fit the model.
pub fn gauss_newton_roots(model: &Model<'_>, examples: &Examples, progress: &Progress) -> Result<Array2<f64>> {
    if model.is_double() { roots_in::<f64>(model, examples, progress) } else { roots_in::<f32>(model, examples, progress) }
}

fn roots_in<T: Element>(model: &Model<'_>, examples: &Examples, progress: &Progress) -> Result<Array2<f64>> {
    let mut parts = Vec::new();
    model.for_chunks(examples, "Gauss–Newton matrix", progress, |_, part| {
        let outputs = model.loss.outputs(&part.batch)?.detach();
        for (targets, weights) in backward_targets(model.loss.loss(), &outputs, &part.batch.targets)? {
            let batch = Batch { inputs: part.batch.inputs.clone(), targets };
            let own = Examples { batch, lengths: part.lengths.clone() };
            let mut rows = model.tracked.gradients::<T>(model.loss, &own)?;
            for (mut row, weight) in rows.outer_iter_mut().zip(&weights) {
                row *= (weight / examples.len() as f64).sqrt();
            }
            parts.push(rows);
        }
        Ok(())
    })?;
    let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
    Ok(ndarray::concatenate(Axis(0), &views).expect("every row has the tracked coordinates"))
}

/// Targets whose residuals are the outputs' unit vectors (or, for cross-entropy, those of a class), with the weight of each
/// sample: the curvature of the loss is the weighted sum of the squares of these residuals.
fn backward_targets(loss: Loss, outputs: &Tensor, targets: &Tensor) -> Result<Vec<(Tensor, Vec<f64>)>> {
    let n = outputs.dims()[0];
    let flat = |t: &Tensor| -> candle_core::Result<Vec<Vec<f64>>> {
        t.to_dtype(candle_core::DType::F64)?.reshape((n, ()))?.to_vec2()
    };
    let of = |values: Vec<f64>| {
        let tensor = Tensor::from_vec(values, outputs.shape(), outputs.device())?;
        tensor.to_dtype(outputs.dtype())
    };
    let build = || -> candle_core::Result<Vec<(Tensor, Vec<f64>)>> {
        match loss {
            Loss::SquaredError | Loss::Logistic => {
                let at = if loss == Loss::Logistic { ops::sigmoid(outputs)? } else { outputs.clone() };
                let at = flat(&at)?;
                let width = at.first().map_or(0, Vec::len);
                (0..width)
                    .map(|k| {
                        let unit = at.iter().flat_map(|row| {
                            row.iter().enumerate().map(move |(j, &y)| if j == k { y - 1.0 } else { y })
                        });
                        let weight = at.iter().map(|row| match loss {
                            Loss::Logistic => row[k] * (1.0 - row[k]),
                            _ => 1.0,
                        });
                        Ok((of(unit.collect())?, weight.collect()))
                    })
                    .collect()
            }
            Loss::CrossEntropy => {
                let classes = outputs.dims()[outputs.rank() - 1];
                let p = flat(&ops::softmax(outputs)?)?;
                let ids: Vec<u32> = targets.flatten_all()?.to_vec1()?;
                let positions = ids.len() / n.max(1);
                let mut all = Vec::new();
                for t in 0..positions {
                    for class in 0..classes {
                        // The loss of this class at this position alone.
                        let own: Vec<u32> = (0..n)
                            .flat_map(|_| (0..positions).map(|u| if u == t { class as u32 } else { IGNORED }))
                            .collect();
                        let weight = (0..n).map(|i| match ids[i * positions + t] {
                            IGNORED => 0.0,
                            _ => p[i][t * classes + class],
                        });
                        let weight = weight.collect();
                        all.push((Tensor::from_vec(own, targets.shape(), outputs.device())?, weight));
                    }
                }
                Ok(all)
            }
        }
    };
    build().map_err(computation)
}

/// (G + λ)⁻¹ exactly, by a Cholesky factor: of the matrix itself, or by Woodbury's identity of R λ⁻¹ Rᵀ + I where that is
/// smaller (regression with few samples).
pub struct Exact {
    damping: Vec<f64>,
    factor: Factor,
}

enum Factor {
    Dense(Llt<f64>),
    /// R, and the factor of R λ⁻¹ Rᵀ + I.
    Woodbury(Array2<f64>, Llt<f64>),
}

/// Parameters above which the matrix is refused: its factor would take minutes and gigabytes.
const MOST: usize = 8_000;

impl Exact {
    /// From the rows of [`gauss_newton_roots`] and the damping of every coordinate. With `blocks`, ranges of coordinates
    /// that G couples only within (layers).
    ///
    /// # Errors
    /// More parameters than a dense matrix is made for; a damping that is not positive.
    pub fn new(roots: &Array2<f64>, damping: Vec<f64>) -> Result<Self> {
        let (rows, dim) = roots.dim();
        check_damping(&damping, dim)?;
        if rows <= dim / 2 {
            let scaled = roots / &ndarray::aview1(&damping);
            let mut inner = matmul(scaled.view(), roots.t());
            inner.diag_mut().iter_mut().for_each(|x| *x += 1.0);
            return Ok(Self { damping, factor: Factor::Woodbury(roots.clone(), cholesky(inner.view())?) });
        }
        let matrix = dense(roots)?;
        Self::of_matrix(matrix, damping)
    }

    /// From the rows of [`gauss_newton_roots`] with nothing between different `blocks` of coordinates.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn in_blocks(roots: &Array2<f64>, blocks: &[std::ops::Range<usize>], damping: Vec<f64>) -> Result<Self> {
        check_damping(&damping, roots.ncols())?;
        let whole = dense(roots)?;
        let mut matrix = Array2::zeros(whole.raw_dim());
        for block in blocks {
            let place = s![block.clone(), block.clone()];
            matrix.slice_mut(place).assign(&whole.slice(place));
        }
        Self::of_matrix(matrix, damping)
    }

    fn of_matrix(mut matrix: Array2<f64>, damping: Vec<f64>) -> Result<Self> {
        matrix.diag_mut().iter_mut().zip(&damping).for_each(|(x, damp)| *x += damp);
        let factor = Factor::Dense(cholesky(matrix.view())?);
        Ok(Self { damping, factor })
    }
}

impl Preconditioner for Exact {
    fn dim(&self) -> usize {
        self.damping.len()
    }

    fn precondition(&self, gradients: ArrayView2<'_, f64>, progress: &Progress) -> Result<Array2<f64>> {
        super::preconditioner::check_width(&gradients, self.damping.len())?;
        progress.check()?;
        let solve = |factor: &Llt<f64>, b: ArrayView2<'_, f64>| -> Array2<f64> { from_faer(factor.solve(as_faer(b)).as_ref()) };
        match &self.factor {
            Factor::Dense(factor) => Ok(solve(factor, gradients.t()).reversed_axes()),
            Factor::Woodbury(roots, factor) => {
                // λ⁻¹ v − λ⁻¹ Rᵀ (R λ⁻¹ Rᵀ + I)⁻¹ R λ⁻¹ v
                let scaled = &gradients / &ndarray::aview1(&self.damping);
                let along = matmul(roots.view(), scaled.t());
                let mut back = matmul(solve(factor, along.view()).t(), roots.view());
                back /= &ndarray::aview1(&self.damping);
                Ok(scaled - back)
            }
        }
    }
}

fn check_damping(damping: &[f64], dim: usize) -> Result<()> {
    if damping.len() != dim {
        return Err(Error::parameter("damping", damping.len(), format!("one number for each of {dim} coordinates")));
    }
    match damping.iter().find(|damp| !(**damp > 0.0 && damp.is_finite())) {
        Some(damp) => Err(Error::parameter("damping", damp, "above 0")),
        None => Ok(()),
    }
}

/// Rᵀ R.
fn dense(roots: &Array2<f64>) -> Result<Array2<f64>> {
    let dim = roots.ncols();
    if dim > MOST {
        return Err(Error::parameter(
            "method",
            format!("the exact matrix of {dim} parameters"),
            format!("made for at most {MOST}: track fewer layers, or use ekfac"),
        ));
    }
    let mut matrix = Array2::zeros((dim, dim));
    gemm(1.0, roots.t(), roots.view(), false, matrix.view_mut());
    Ok(matrix)
}

fn cholesky(matrix: ArrayView2<'_, f64>) -> Result<Llt<f64>> {
    let matrix: MatRef<'_, f64> = as_faer(matrix);
    matrix.llt(Side::Lower).map_err(|_| Error::Numerical("the damped matrix is not positive definite".into()))
}
