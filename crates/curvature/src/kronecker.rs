//! K-FAC and EK-FAC: each layer's curvature as a Kronecker product of two small matrices.
//!
//! For a linear layer s = W̄ ā with ā = (a, 1) the Fisher matrix is E[ā āᵀ ⊗ Ds Dsᵀ]. K-FAC (Martens, Grosse 2015) takes
//! the expectation of each factor by itself, A = E[ā āᵀ] and S = E[Ds Dsᵀ]. EK-FAC (George et al. 2018) keeps the
//! eigenvectors of A ⊗ S, and refits the eigenvalues: Λ_oi = E[(Q_Sᵀ DW̄ Q_A)_oi²], the second moments of the gradient
//! in that basis. Either way the damped inverse acts on a gradient V (out, in + 1) as
//! Q_S [(Q_Sᵀ V Q_A) ⊘ (Λ + λ)] Q_Aᵀ, at O(out² in + out in²).

use crate::{Inverse, Real};
use ndarray::{Array2, ArrayView2, ArrayView3, Axis, s};
use offprint_core::{Error, Result};
use offprint_math::linalg::{eigh, gemm, matmul};
use std::ops::Range;

/// Where a layer stands in the flattened vector of a model's parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerPlace {
    /// The layer's name, for errors.
    pub name: String,
    /// The weight (out, in), row by row.
    pub weight: Range<usize>,
    /// The bias (out), if the layer has one.
    pub bias: Option<Range<usize>>,
    /// Outputs.
    pub outputs: usize,
    /// Inputs, without the one of the bias.
    pub inputs: usize,
}

/// How much is added to the eigenvalues of a layer before inverting.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Damping {
    /// The same for every layer.
    Fixed(f64),
    /// This share of the mean eigenvalue of each layer; 0.1 is usual.
    OfMean(f64),
}

/// The statistics of one layer: first A and S, from which [`Self::decompose`] makes the eigenbasis.
#[derive(Debug, Clone)]
pub struct KroneckerFactors {
    place: LayerPlace,
    /// Σ ā āᵀ over samples and positions.
    activations: Array2<f64>,
    /// Σ Ds Dsᵀ over samples and positions.
    gradients: Array2<f64>,
    positions: usize,
}

/// A layer's curvature in the eigenbasis of its Kronecker factors.
#[derive(Debug, Clone)]
pub struct KroneckerLayer {
    place: LayerPlace,
    /// Q_A `(in [+ 1], in [+ 1])`, columns.
    activation_basis: Array2<f64>,
    /// Q_S `(out, out)`, columns.
    gradient_basis: Array2<f64>,
    /// Λ `(out, in [+ 1])`.
    eigenvalues: Array2<f64>,
    refit: Option<(Array2<f64>, usize)>,
}

/// The damped inverse of a block-diagonal Kronecker-factored matrix.
#[derive(Debug, Clone)]
pub struct KroneckerInverse {
    layers: Vec<(KroneckerLayer, f64)>,
    dim: usize,
}

impl KroneckerFactors {
    /// Nothing seen yet of the layer at `place`.
    ///
    /// # Errors
    /// Ranges whose lengths are not out · in and out.
    pub fn new(place: LayerPlace) -> Result<Self> {
        let expected = place.outputs * place.inputs;
        if place.weight.len() != expected || place.bias.as_ref().is_some_and(|b| b.len() != place.outputs) {
            let problem = format!("has places for {:?} and {:?}", place.weight, place.bias);
            let shape = format!("{problem}, but {} outputs and {} inputs", place.outputs, place.inputs);
            return Err(Error::input(place.name, shape));
        }
        let columns = place.inputs + usize::from(place.bias.is_some());
        let (activations, gradients) =
            (Array2::zeros((columns, columns)), Array2::zeros((place.outputs, place.outputs)));
        Ok(Self { place, activations, gradients, positions: 0 })
    }

    /// Adds a batch: `inputs (n, positions, in)` of the layer, and the `gradients (n, positions, out)` of each sample's
    /// loss at its outputs. A position whose inputs and gradients are zero is padding; mark it in `mask`
    /// `(n, positions)`, so that it does not count.
    ///
    /// # Errors
    /// Shapes that do not fit the layer or each other; a value that is not finite.
    pub fn add<T: Real>(
        &mut self,
        inputs: ArrayView3<'_, T>,
        gradients: ArrayView3<'_, T>,
        mask: Option<ArrayView2<'_, bool>>,
    ) -> Result<()> {
        check_batch(&self.place, &inputs, &gradients)?;
        let (n, positions, _) = inputs.dim();
        let mut a = with_one(inputs, self.place.bias.is_some());
        let mut g = rows(gradients);
        let mut counted = n * positions;
        if let Some(mask) = mask {
            if mask.dim() != (n, positions) {
                let problem = format!("has shape {:?}, but the batch has ({n}, {positions})", mask.dim());
                return Err(Error::input("mask", problem));
            }
            for (i, &real) in mask.iter().enumerate() {
                if !real {
                    a.row_mut(i).fill(0.0);
                    g.row_mut(i).fill(0.0);
                    counted -= 1;
                }
            }
        }
        gemm(1.0, a.t(), a.view(), true, self.activations.view_mut());
        gemm(1.0, g.t(), g.view(), true, self.gradients.view_mut());
        self.positions += counted;
        Ok(())
    }

    /// A `(in [+ 1], in [+ 1])`.
    pub fn activation_covariance(&self) -> Array2<f64> {
        &self.activations / self.positions.max(1) as f64
    }

    /// S `(out, out)`.
    pub fn gradient_covariance(&self) -> Array2<f64> {
        &self.gradients / self.positions.max(1) as f64
    }

    /// The eigenbasis of A ⊗ S with K-FAC's eigenvalues: the products of those of A and S.
    ///
    /// # Errors
    /// Nothing was added; eigenvalues that did not converge.
    pub fn decompose(&self) -> Result<KroneckerLayer> {
        if self.positions == 0 {
            return Err(Error::input(self.place.name.clone(), "no activations were added"));
        }
        let (of_a, activation_basis) = eigh(self.activation_covariance().view())?;
        let (of_s, gradient_basis) = eigh(self.gradient_covariance().view())?;
        // Both factors are positive semi-definite; what rounding leaves below zero is zero.
        let eigenvalues = Array2::from_shape_fn((of_s.len(), of_a.len()), |(o, i)| of_s[o].max(0.0) * of_a[i].max(0.0));
        Ok(KroneckerLayer { place: self.place.clone(), activation_basis, gradient_basis, eigenvalues, refit: None })
    }
}

impl KroneckerLayer {
    /// Adds a batch to the second pass of EK-FAC: squares of each sample's gradient (summed over its positions) in the
    /// eigenbasis. Shapes as in [`KroneckerFactors::add`]; padding must be zero in `gradients`.
    ///
    /// # Errors
    /// Shapes that do not fit; a value that is not finite.
    pub fn add<T: Real>(&mut self, inputs: ArrayView3<'_, T>, gradients: ArrayView3<'_, T>) -> Result<()> {
        check_batch(&self.place, &inputs, &gradients)?;
        let (n, positions, _) = inputs.dim();
        let a = matmul(with_one(inputs, self.place.bias.is_some()).view(), self.activation_basis.view());
        let g = matmul(rows(gradients).view(), self.gradient_basis.view());
        let shape = self.eigenvalues.raw_dim();
        let (sum, samples) = self.refit.get_or_insert_with(|| (Array2::zeros(shape), 0));
        if positions == 1 {
            // (g_o a_i)² sums over samples to a product of matrices of squares.
            gemm(1.0, g.mapv(|x| x * x).t(), a.mapv(|x| x * x).view(), true, sum.view_mut());
        } else {
            for i in 0..n {
                let part = s![i * positions..(i + 1) * positions, ..];
                let gradient = matmul(g.slice(part).t(), a.slice(part));
                sum.zip_mut_with(&gradient, |sum, x| *sum += x * x);
            }
        }
        *samples += n;
        Ok(())
    }

    /// Takes the refitted eigenvalues in place of the products: K-FAC becomes EK-FAC.
    ///
    /// # Errors
    /// No sample was added.
    pub fn refitted(mut self) -> Result<Self> {
        match self.refit.take() {
            Some((sum, samples)) if samples > 0 => {
                self.eigenvalues = sum / samples as f64;
                Ok(self)
            }
            _ => Err(Error::input(self.place.name, "no gradients were added to refit the eigenvalues")),
        }
    }

    /// Λ `(out, in [+ 1])`.
    pub fn eigenvalues(&self) -> ArrayView2<'_, f64> {
        self.eigenvalues.view()
    }

    /// Q_S V Q_Aᵀ, or Q_Sᵀ V Q_A the other way.
    fn rotate(&self, v: ArrayView2<'_, f64>, back: bool) -> Array2<f64> {
        let (s, a) = (&self.gradient_basis, &self.activation_basis);
        match back {
            true => matmul(matmul(s.view(), v).view(), a.t()),
            false => matmul(matmul(s.t(), v).view(), a.view()),
        }
    }

    /// The layer's part of a flattened vector as (out, in [+ 1]), the bias last.
    fn gather(&self, x: &[f64]) -> Array2<f64> {
        let place = &self.place;
        Array2::from_shape_fn(self.eigenvalues.raw_dim(), |(o, i)| match (&place.bias, i == place.inputs) {
            (Some(bias), true) => x[bias.start + o],
            _ => x[place.weight.start + o * place.inputs + i],
        })
    }

    fn scatter(&self, v: &Array2<f64>, y: &mut [f64]) {
        let place = &self.place;
        for ((o, i), &value) in v.indexed_iter() {
            match (&place.bias, i == place.inputs) {
                (Some(bias), true) => y[bias.start + o] = value,
                _ => y[place.weight.start + o * place.inputs + i] = value,
            }
        }
    }
}

impl KroneckerInverse {
    /// The inverse over `layers`, which must cover the coordinates `0..dim` without gap or overlap: restrict vectors to
    /// the parameters that are tracked.
    ///
    /// # Errors
    /// Coordinates left out or covered twice; a damping that is not positive; a layer that received no gradient under
    /// [`Damping::OfMean`].
    pub fn new(layers: Vec<KroneckerLayer>, dim: usize, damping: Damping) -> Result<Self> {
        let mut covered: Vec<Range<usize>> =
            layers.iter().flat_map(|l| [Some(l.place.weight.clone()), l.place.bias.clone()]).flatten().collect();
        covered.retain(|range| !range.is_empty());
        covered.sort_by_key(|range| range.start);
        let mut end = 0;
        for range in &covered {
            if range.start != end {
                let problem = format!("do not meet at coordinate {end}: the next begins at {}", range.start);
                return Err(Error::input("layers", problem));
            }
            end = range.end;
        }
        if end != dim {
            return Err(Error::input("layers", format!("cover {end} coordinates of {dim}")));
        }
        let damped = layers.into_iter().map(|layer| {
            let damp = match damping {
                Damping::Fixed(damp) => damp,
                Damping::OfMean(share) => share * layer.eigenvalues.mean().unwrap_or(0.0),
            };
            if damp > 0.0 && damp.is_finite() {
                return Ok((layer, damp));
            }
            Err(match damping {
                Damping::OfMean(share) if share > 0.0 => {
                    Error::input(layer.place.name, "received no gradient, so that its damping would be zero; skip it")
                }
                Damping::Fixed(given) | Damping::OfMean(given) => Error::parameter("damp", given, "above 0"),
            })
        });
        Ok(Self { layers: damped.collect::<Result<_>>()?, dim })
    }

    /// The damping of each layer.
    pub fn damping(&self) -> Vec<f64> {
        self.layers.iter().map(|(_, damp)| *damp).collect()
    }
}

impl Inverse for KroneckerInverse {
    fn dim(&self) -> usize {
        self.dim
    }

    fn apply_inverse(&self, x: &[f64]) -> Result<Vec<f64>> {
        crate::operator::check_length("x", x.len(), self.dim)?;
        let mut y = vec![0.0; self.dim];
        for (layer, damp) in &self.layers {
            let mut v = layer.rotate(layer.gather(x).view(), false);
            v.zip_mut_with(&layer.eigenvalues, |v, eigenvalue| *v /= eigenvalue + damp);
            layer.scatter(&layer.rotate(v.view(), true), &mut y);
        }
        Ok(y)
    }

    fn diag_inverse(&self) -> Result<Vec<f64>> {
        let mut y = vec![0.0; self.dim];
        for (layer, damp) in &self.layers {
            // Σ_{o′i′} Q_S[o, o′]² Q_A[i, i′]² / (Λ_{o′i′} + λ).
            let squares = |q: &Array2<f64>| q.mapv(|x| x * x);
            let inverse = layer.eigenvalues.mapv(|eigenvalue| 1.0 / (eigenvalue + damp));
            let left = matmul(squares(&layer.gradient_basis).view(), inverse.view());
            layer.scatter(&matmul(left.view(), squares(&layer.activation_basis).t()), &mut y);
        }
        Ok(y)
    }
}

/// (n, positions, width) as (n · positions, width).
fn rows<T: Real>(x: ArrayView3<'_, T>) -> Array2<f64> {
    let (n, positions, width) = x.dim();
    let values: Vec<f64> = x.iter().map(|x| x.to_f64()).collect();
    Array2::from_shape_vec((n * positions, width), values).expect("as many values as the shape says")
}

/// [`rows`] with a 1 at the end of each for the bias.
fn with_one<T: Real>(x: ArrayView3<'_, T>, bias: bool) -> Array2<f64> {
    let mut rows = rows(x);
    if bias {
        rows.push_column(ndarray::Array1::ones(rows.nrows()).view()).expect("one value a row");
    }
    rows
}

fn check_batch<T: Real>(place: &LayerPlace, inputs: &ArrayView3<'_, T>, gradients: &ArrayView3<'_, T>) -> Result<()> {
    let ((n, t, i), (m, u, o)) = (inputs.dim(), gradients.dim());
    if (n, t) != (m, u) || i != place.inputs || o != place.outputs {
        let allowed = format!("(n, positions, {}) and (n, positions, {})", place.inputs, place.outputs);
        let problem = format!("got inputs ({n}, {t}, {i}) and gradients ({m}, {u}, {o}), but they must be {allowed}");
        return Err(Error::input(place.name.clone(), problem));
    }
    for (what, values) in [("inputs", inputs), ("gradients", gradients)] {
        for (sample, values) in values.axis_iter(Axis(0)).enumerate() {
            if let Some(x) = values.iter().find(|x| !x.to_f64().is_finite()) {
                let problem = format!("the {what} of sample {sample} (counted from 0) hold {}", x.to_f64());
                return Err(Error::input(place.name.clone(), problem));
            }
        }
    }
    Ok(())
}
