//! Products with the curvature of a perceptron's loss, by Pearlmutter's R operator.
//!
//! Forward, zₗ = Wₗ aₗ₋₁ + bₗ and aₗ = φ(zₗ); backward, δₗ = ∂L/∂zₗ. Differentiating both passes along a direction
//! (Vₗ, vₗ) of the weights gives (B. A. Pearlmutter, "Fast exact multiplication by the Hessian", 1994)
//!
//! - R zₗ = Wₗ R aₗ₋₁ + Vₗ aₗ₋₁ + vₗ, and R aₗ = φ'(zₗ) R zₗ,
//! - R δ at the outputs = ∇²ℓ R z / n, and below R δₗ = φ'(zₗ) (Wₗ₊₁ᵀ R δₗ₊₁ + Vₗ₊₁ᵀ δₗ₊₁) + φ''(zₗ) (∂L/∂aₗ) R zₗ,
//! - and the product: R δₗ aₗ₋₁ᵀ + δₗ R aₗ₋₁ᵀ for Wₗ, R δₗ for bₗ.
//!
//! Without the terms in δₗ it is the Gauss–Newton matrix. All that does not depend on the direction is computed once.

use super::{Loss, LossFunction, empty};
use crate::batch::Batch;
use crate::error::computation;
use crate::models::{Activation, Mlp};
use crate::ops;
use crate::params::Real;
use candle_core::{DType, Tensor, WithDType};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, Zip, s};
use offprint_core::{Error, Result};
use offprint_math::linalg::gemm;
use rayon::prelude::*;

/// Rows that one thread takes through all layers: their activations stay in its caches.
const ROWS: usize = 128;

/// A perceptron's activations and gradients on a batch, ready for products with its curvature there.
///
/// A product costs six products of matrices a layer (four for Gauss–Newton): twice a gradient. Memory: four numbers a
/// unit and sample.
#[derive(Debug)]
pub struct PerceptronCurvature(Precision);

#[derive(Debug)]
enum Precision {
    Single(Point<f32>),
    Double(Point<f64>),
}

/// The floating-point types of weights.
trait Element: Real + faer::traits::ComplexField {}
impl Element for f32 {}
impl Element for f64 {}

/// What is fixed at a point.
#[derive(Debug)]
struct Point<E> {
    layers: Vec<Layer<E>>,
    /// The second derivative of the loss in the outputs.
    bend: Bend<E>,
    /// 1 / n.
    share: E,
}

/// One linear layer and the activation below it.
#[derive(Debug)]
struct Layer<E> {
    /// W (out, in).
    weight: Array2<E>,
    /// a (rows, in): what the layer reads.
    input: Array2<E>,
    /// δ (rows, out).
    delta: Array2<E>,
    /// φ' and φ'' ∂L/∂a (rows, in) of the activation whose values the layer reads; none below the first.
    below: Option<(Array2<E>, Array2<E>)>,
}

/// ∇²ℓ of each row.
#[derive(Debug)]
enum Bend<E> {
    /// The identity.
    Squared,
    /// A diagonal, by rows.
    Diagonal(Array2<E>),
    /// diag p − p pᵀ with p by rows, 0 where there is no target.
    Softmax(Array2<E>),
}

impl LossFunction<'_> {
    /// Fast products on `batch` if the model is a perceptron; they stay those of the present weights.
    ///
    /// # Errors
    /// No sample; a batch that does not fit the model or the loss.
    pub fn perceptron_curvature(&self, batch: &Batch) -> Result<Option<PerceptronCurvature>> {
        self.perceptron.map(|model| PerceptronCurvature::new(model, self.loss, batch)).transpose()
    }

    /// Bytes that [`Self::perceptron_curvature`] keeps for `rows` samples; 0 if the model is no perceptron.
    pub fn perceptron_bytes(&self, rows: usize) -> usize {
        let units = |mlp: &Mlp| mlp.layers().iter().map(|layer| layer.weight().dims().iter().sum::<usize>()).sum();
        let units: usize = self.perceptron.map_or(0, units);
        2 * units * rows * self.params.dtype().size_in_bytes()
    }
}

impl PerceptronCurvature {
    /// `model` on `batch` at its present weights.
    ///
    /// # Errors
    /// No sample; a batch that does not fit the model or the loss.
    pub fn new(model: &Mlp, loss: Loss, batch: &Batch) -> Result<Self> {
        if batch.is_empty() {
            return Err(empty());
        }
        Ok(Self(match model.layers()[0].weight().dtype() {
            DType::F64 => Precision::Double(Point::new(model, loss, batch)?),
            _ => Precision::Single(Point::new(model, loss, batch)?),
        }))
    }

    /// ∇²L v for `v` (d), flattened as in [`Params::flat`](crate::params::Params::flat).
    ///
    /// # Errors
    /// `v` of another length.
    pub fn hessian_product<T: Real>(&self, v: &[T]) -> Result<Vec<T>> {
        self.product(v, true)
    }

    /// The generalised Gauss–Newton matrix times `v` (d).
    ///
    /// # Errors
    /// `v` of another length.
    pub fn gauss_newton_product<T: Real>(&self, v: &[T]) -> Result<Vec<T>> {
        self.product(v, false)
    }

    fn product<T: Real>(&self, v: &[T], full: bool) -> Result<Vec<T>> {
        match &self.0 {
            Precision::Single(point) => point.product(v, full),
            Precision::Double(point) => point.product(v, full),
        }
    }
}

/// A tensor (…, columns) as a matrix.
fn matrix<E: Element>(tensor: &Tensor) -> candle_core::Result<Array2<E>> {
    let columns = tensor.dims().last().copied().unwrap_or(1);
    let flat = tensor.flatten_all()?.to_vec1::<E>()?;
    Ok(Array2::from_shape_vec((flat.len() / columns.max(1), columns), flat).expect("whole rows"))
}

/// φ, φ' and φ'' at `z`.
fn derivatives(activation: Activation, z: &Tensor) -> candle_core::Result<[Tensor; 3]> {
    let value = activation.forward(z)?;
    let (first, second) = match activation {
        Activation::Relu => (z.gt(0.0)?.to_dtype(z.dtype())?, z.zeros_like()?),
        Activation::Tanh => {
            let first = value.sqr()?.affine(-1.0, 1.0)?;
            let second = (&value * &first)?.affine(-2.0, 0.0)?;
            (first, second)
        }
        Activation::Sigmoid => {
            let first = (&value * value.affine(-1.0, 1.0)?)?;
            let second = (&first * value.affine(-2.0, 1.0)?)?;
            (first, second)
        }
        Activation::Silu => {
            let s = ops::sigmoid(z)?;
            let slope = (&s * s.affine(-1.0, 1.0)?)?;
            let first = (&s + (z * &slope)?)?;
            let second = (slope * ((z * s.affine(-2.0, 1.0)?)? + 2.0)?)?;
            (first, second)
        }
        Activation::Gelu => {
            let density =
                (z.sqr()?.affine(-0.5, 0.0)?.exp()? * (0.5 * std::f64::consts::FRAC_2_SQRT_PI / 2f64.sqrt()))?;
            let cumulative = (z.affine(1.0 / 2f64.sqrt(), 0.0)?.erf()? * 0.5)?.affine(1.0, 0.5)?;
            let first = (cumulative + (z * &density)?)?;
            let second = (density * z.sqr()?.affine(-1.0, 2.0)?)?;
            (first, second)
        }
    };
    Ok([value, first, second])
}

impl<E: Element> Point<E> {
    fn new(model: &Mlp, loss: Loss, batch: &Batch) -> Result<Self> {
        let layers = model.layers();
        let mut reads = vec![batch.inputs.detach()];
        let mut slopes = Vec::with_capacity(layers.len());
        let forward = |x: &Tensor, i: usize| {
            let bias = layers[i].bias().map(Tensor::detach);
            ops::linear(x, &layers[i].weight().detach(), bias.as_ref())
        };
        for i in 0..layers.len() - 1 {
            let z = forward(&reads[i], i).map_err(computation)?;
            let [value, first, second] = derivatives(model.activation(), &z).map_err(computation)?;
            reads.push(value);
            slopes.push((first, second));
        }
        let outputs = forward(&reads[layers.len() - 1], layers.len() - 1).map_err(computation)?;
        let share = 1.0 / batch.len() as f64;
        let mut delta = loss.output_gradient(&outputs, &batch.targets)?.affine(share, 0.0).map_err(computation)?;
        let bend = Bend::of(loss, &outputs, batch)?;
        let mut built = Vec::with_capacity(layers.len());
        for (i, layer) in layers.iter().enumerate().rev() {
            let mut step = || -> candle_core::Result<Layer<E>> {
                let weight = layer.weight().detach();
                let own = matrix(&delta)?;
                let below = match slopes.get(i.wrapping_sub(1)) {
                    Some((first, second)) => {
                        let up = delta.broadcast_matmul(&weight)?;
                        delta = (&up * first)?;
                        Some((matrix(first)?, matrix(&(up * second)?)?))
                    }
                    None => None,
                };
                Ok(Layer { weight: matrix(&weight)?, input: matrix(&reads[i])?, delta: own, below })
            };
            built.push(step().map_err(computation)?);
        }
        built.reverse();
        Ok(Self { layers: built, bend, share: E::from_f64(share) })
    }

    fn dim(&self) -> usize {
        self.layers.iter().map(|layer| layer.weight.len() + layer.weight.nrows()).sum()
    }

    fn product<T: Real>(&self, v: &[T], full: bool) -> Result<Vec<T>> {
        if v.len() != self.dim() {
            return Err(Error::parameter("v", format!("{} numbers", v.len()), format!("{}, one a weight", self.dim())));
        }
        let v: Vec<E> = v.iter().map(|&x| E::from_f64(WithDType::to_f64(x))).collect();
        let mut rest = v.as_slice();
        let directions: Vec<(ArrayView2<'_, E>, ArrayView1<'_, E>)> = self
            .layers
            .iter()
            .map(|layer| {
                let (weight, tail) = rest.split_at(layer.weight.len());
                let (bias, tail) = tail.split_at(layer.weight.nrows());
                rest = tail;
                (ArrayView2::from_shape(layer.weight.dim(), weight).expect("as long as the weight"), bias.into())
            })
            .collect();
        let rows = self.layers[0].input.nrows();
        let parts: Vec<Vec<E>> = (0..rows.div_ceil(ROWS))
            .into_par_iter()
            .map(|part| self.rows(part * ROWS, rows.min((part + 1) * ROWS), &directions, full))
            .collect();
        let mut sum = vec![E::zero(); v.len()];
        for part in parts {
            sum.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
        }
        Ok(sum.into_iter().map(|x| T::from_f64(WithDType::to_f64(x))).collect())
    }

    /// What the samples `from..to` add to the product.
    fn rows(
        &self,
        from: usize,
        to: usize,
        directions: &[(ArrayView2<'_, E>, ArrayView1<'_, E>)],
        full: bool,
    ) -> Vec<E> {
        let rows = s![from..to, ..];
        let one = E::one();
        // Forward: R a of what each layer reads; R z of its outputs is kept where φ'' needs it.
        let mut moved: Vec<Option<Array2<E>>> = vec![None];
        let mut tilts: Vec<Option<Array2<E>>> = vec![None];
        let mut along = Array2::zeros((0, 0));
        for (i, (layer, (weight, bias))) in self.layers.iter().zip(directions).enumerate() {
            along = bias.broadcast((to - from, bias.len())).expect("a row for each").to_owned();
            gemm(one, layer.input.slice(rows), weight.t(), true, along.view_mut());
            if let Some(moved) = &moved[i] {
                gemm(one, moved.view(), layer.weight.t(), true, along.view_mut());
            }
            if let Some((slope, bend)) = self.layers.get(i + 1).and_then(|above| above.below.as_ref()) {
                let (slope, bend) = (slope.slice(rows), bend.slice(rows));
                tilts.push(full.then(|| &bend * &along));
                along.zip_mut_with(&slope, |z, &slope| *z *= slope);
                moved.push(Some(std::mem::replace(&mut along, Array2::zeros((0, 0)))));
            }
        }
        // Backward.
        self.bend.apply(&mut along, from);
        let mut delta = along;
        delta.mapv_inplace(|x| x * self.share);
        let mut product = vec![E::zero(); self.dim()];
        let mut end = product.len();
        for (i, (layer, (weight, _))) in self.layers.iter().zip(directions).enumerate().rev() {
            let start = end - layer.weight.len() - layer.weight.nrows();
            let (for_weight, for_bias) = product[start..end].split_at_mut(layer.weight.len());
            end = start;
            let mut for_weight = ndarray::ArrayViewMut2::from_shape(layer.weight.dim(), for_weight).expect("as long");
            gemm(one, delta.t(), layer.input.slice(rows), false, for_weight.view_mut());
            if let (true, Some(moved)) = (full, &moved[i]) {
                gemm(one, layer.delta.slice(rows).t(), moved.view(), true, for_weight.view_mut());
            }
            let column_sums: Array1<E> = delta.sum_axis(Axis(0));
            for_bias.iter_mut().zip(column_sums).for_each(|(b, sum)| *b = sum);
            if let Some((slope, _)) = &layer.below {
                let mut down = Array2::zeros((to - from, layer.weight.ncols()));
                gemm(one, delta.view(), layer.weight.view(), false, down.view_mut());
                if full {
                    gemm(one, layer.delta.slice(rows), *weight, true, down.view_mut());
                }
                down.zip_mut_with(&slope.slice(rows), |x, &slope| *x *= slope);
                if let Some(tilt) = &tilts[i] {
                    down += tilt;
                }
                delta = down;
            }
        }
        product
    }
}

impl<E: Element> Bend<E> {
    fn of(loss: Loss, outputs: &Tensor, batch: &Batch) -> Result<Self> {
        Ok(match loss {
            Loss::SquaredError => Self::Squared,
            Loss::Logistic => {
                let p = ops::sigmoid(outputs).map_err(computation)?;
                let slope = p.affine(-1.0, 1.0).and_then(|q| p * q).map_err(computation)?;
                Self::Diagonal(matrix(&slope).map_err(computation)?)
            }
            Loss::CrossEntropy => {
                let mut p: Array2<E> = ops::softmax(outputs).and_then(|p| matrix(&p)).map_err(computation)?;
                let targets = batch.targets.flatten_all().and_then(|t| t.to_vec1::<u32>()).map_err(computation)?;
                let ignored = p.rows_mut().into_iter().zip(&targets).filter(|(_, target)| **target == super::IGNORED);
                ignored.for_each(|(mut row, _)| row.fill(E::zero()));
                Self::Softmax(p)
            }
        })
    }

    /// ∇²ℓ of the rows from `from` on, times each row of `x`.
    fn apply(&self, x: &mut Array2<E>, from: usize) {
        let rows = s![from..from + x.nrows(), ..];
        match self {
            Self::Squared => {}
            Self::Diagonal(slope) => x.zip_mut_with(&slope.slice(rows), |x, &slope| *x *= slope),
            Self::Softmax(p) => Zip::from(x.rows_mut()).and(p.slice(rows).rows()).for_each(|mut x, p| {
                let mean = x.dot(&p);
                x.zip_mut_with(&p, |x, &p| *x = p * (*x - mean));
            }),
        }
    }
}
