//! The damped Gauss–Newton matrix without approximation, for small models and for tests of the others.

use super::{Element, Examples, Model, Preconditioner, TrackedLayers};
use candle_core::Tensor;
use faer::linalg::solvers::{Llt, Solve};
use faer::{Side, mat::MatRef};
use ndarray::{Array2, ArrayView2, Axis, s};
use offprint_core::{Error, Progress, Result};
use offprint_math::linalg::{as_faer, from_faer, gemm, matmul};
use offprint_nn::derivatives::{IGNORED, Loss};
use offprint_nn::{Batch, computation, ops};

/// Rows R with G = Rᵀ R `(rows, dim)`: for every sample and output the gradient that this output sends back, scaled by the
/// root of the loss's curvature and of 1/n. For squared errors there is a row a sample and output, for cross-entropy a row
/// a sample, position and class.
///
/// # Errors
/// No example; shapes that do not fit the model.
pub fn gauss_newton_roots(model: &Model<'_>, examples: &Examples, progress: &Progress) -> Result<Array2<f64>> {
    let mut parts = Vec::new();
    for_roots(model, examples, progress, |rows| parts.push(rows))?;
    let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
    Ok(ndarray::concatenate(Axis(0), &views).expect("every row has the tracked coordinates"))
}

/// The Gauss–Newton matrix G `(dim, dim)` on tracked coordinates, written out. O(n · outputs · dim²).
///
/// # Errors
/// As [`gauss_newton_roots`]; more than 8000 parameters.
pub fn gauss_newton_matrix(model: &Model<'_>, examples: &Examples, progress: &Progress) -> Result<Array2<f64>> {
    let dim = model.tracked.dim();
    if dim > MOST {
        return Err(Error::parameter(
            "curvature",
            format!("the exact matrix of {dim} parameters"),
            format!("made for at most {MOST}: track fewer layers, or take ekfac"),
        ));
    }
    let mut matrix = Array2::zeros((dim, dim));
    for_roots(model, examples, progress, |rows| gemm(1.0, rows.t(), rows.view(), true, matrix.view_mut()))?;
    Ok(matrix)
}

fn for_roots(model: &Model<'_>, examples: &Examples, progress: &Progress, each: impl FnMut(Array2<f64>)) -> Result<()> {
    match model.is_double() {
        true => for_roots_in::<f64>(model, examples, progress, each),
        false => for_roots_in::<f32>(model, examples, progress, each),
    }
}

fn for_roots_in<T: Element>(
    model: &Model<'_>,
    examples: &Examples,
    progress: &Progress,
    mut each: impl FnMut(Array2<f64>),
) -> Result<()> {
    model.for_chunks(examples, "Gauss–Newton matrix", progress, |_, part| {
        let outputs = model.loss.outputs(&part.batch)?.detach();
        for (targets, weights) in backward_targets(model.loss.loss(), &outputs, &part.batch.targets)? {
            let batch = Batch { inputs: part.batch.inputs.clone(), targets };
            let own = Examples { batch, lengths: part.lengths.clone() };
            let mut rows = model.tracked.gradients::<T>(model.loss, &own)?;
            for (mut row, weight) in rows.outer_iter_mut().zip(&weights) {
                row *= (weight / examples.len() as f64).sqrt();
            }
            each(rows);
        }
        Ok(())
    })
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
    /// The factor of R λ⁻¹ Rᵀ + I, and R.
    Woodbury(Llt<f64>, Array2<f64>),
}

/// Parameters above which the matrix is refused: its factor would take minutes and gigabytes.
const MOST: usize = 8_000;

impl Exact {
    /// Of `model` on `examples`, with the damping of every coordinate; by the cheaper of the two factors.
    ///
    /// # Errors
    /// As [`gauss_newton_matrix`]; a damping that is not positive.
    pub fn fit(model: &Model<'_>, examples: &Examples, damping: Vec<f64>, progress: &Progress) -> Result<Self> {
        let outputs: usize = model.loss.outputs(&examples.range(0..1)?.batch)?.elem_count();
        if examples.len() * outputs <= model.tracked.dim() / 2 {
            return Self::of_roots(gauss_newton_roots(model, examples, progress)?, damping);
        }
        Self::of_matrix(gauss_newton_matrix(model, examples, progress)?, damping)
    }

    /// From G itself `(dim, dim)`.
    ///
    /// # Errors
    /// Another number of dampings, or one that is not positive.
    pub fn of_matrix(mut matrix: Array2<f64>, damping: Vec<f64>) -> Result<Self> {
        check_damping(&damping, matrix.ncols())?;
        matrix.diag_mut().iter_mut().zip(&damping).for_each(|(x, damp)| *x += damp);
        let factor = Factor::Dense(cholesky(matrix.view())?);
        Ok(Self { damping, factor })
    }

    /// From the rows of [`gauss_newton_roots`], by Woodbury's identity: O(rows² · dim).
    ///
    /// # Errors
    /// As [`Self::of_matrix`].
    pub fn of_roots(roots: Array2<f64>, damping: Vec<f64>) -> Result<Self> {
        check_damping(&damping, roots.ncols())?;
        let scaled = &roots / &ndarray::aview1(&damping);
        let mut inner = matmul(scaled.view(), roots.t());
        inner.diag_mut().iter_mut().for_each(|x| *x += 1.0);
        let factor = Factor::Woodbury(cholesky(inner.view())?, roots);
        Ok(Self { damping, factor })
    }

    /// From G `(dim, dim)` with nothing between the parameters of different layers.
    ///
    /// # Errors
    /// As [`Self::of_matrix`].
    pub fn by_layer(tracked: &TrackedLayers, matrix: ArrayView2<'_, f64>, damping: Vec<f64>) -> Result<Self> {
        let mut blocks = Array2::zeros(matrix.raw_dim());
        for layer in tracked.layers() {
            let end = layer.bias.as_ref().map_or(layer.weight.end, |bias| bias.end);
            let place = s![layer.weight.start..end, layer.weight.start..end];
            blocks.slice_mut(place).assign(&matrix.slice(place));
        }
        Self::of_matrix(blocks, damping)
    }
}

impl Preconditioner for Exact {
    fn dim(&self) -> usize {
        self.damping.len()
    }

    fn precondition(&self, gradients: ArrayView2<'_, f64>, progress: &Progress) -> Result<Array2<f64>> {
        super::preconditioner::check_width(&gradients, self.damping.len())?;
        progress.check()?;
        let solve =
            |factor: &Llt<f64>, b: ArrayView2<'_, f64>| -> Array2<f64> { from_faer(factor.solve(as_faer(b)).as_ref()) };
        match &self.factor {
            Factor::Dense(factor) => Ok(solve(factor, gradients.t()).reversed_axes()),
            Factor::Woodbury(factor, roots) => {
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

fn cholesky(matrix: ArrayView2<'_, f64>) -> Result<Llt<f64>> {
    let matrix: MatRef<'_, f64> = as_faer(matrix);
    matrix.llt(Side::Lower).map_err(|_| Error::Numerical("the damped matrix is not positive definite".into()))
}
