//! K-FAC and EK-FAC: each layer's curvature as a Kronecker product of two small matrices.
//!
//! For a linear layer s = W̄ ā with ā = (a, 1) the Fisher matrix is E[ā āᵀ ⊗ Ds Dsᵀ]. K-FAC (Martens, Grosse 2015) takes
//! the expectation of each factor by itself, A = E[ā āᵀ] and S = E[Ds Dsᵀ]. EK-FAC (George et al. 2018) keeps the
//! eigenvectors of A ⊗ S, and refits the eigenvalues: Λ_oi = E[(Q_Sᵀ DW̄ Q_A)_oi²], the second moments of the gradient
//! in that basis. Either way the damped inverse acts on a gradient V (out, in + 1) as
//! Q_S [(Q_Sᵀ V Q_A) ⊘ (Λ + λ)] Q_Aᵀ, at O(out² in + out in²).

use crate::basis::{Basis, Covariance};
use crate::{Inverse, Real};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, ArrayView3, Axis, s};
use offprint_core::{Error, Result};
use offprint_math::linalg::{gemm, matmul};
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
    activations: Covariance,
    /// Σ Ds Dsᵀ over samples and positions.
    gradients: Covariance,
    positions: usize,
}

/// A layer's curvature in the eigenbasis of its Kronecker factors.
#[derive(Debug, Clone)]
pub struct KroneckerLayer {
    place: LayerPlace,
    /// Q_A `(in [+ 1], in [+ 1])`, columns.
    activation_basis: Basis,
    /// Eigenvalues of A.
    of_activations: Array1<f64>,
    /// Q_S `(out, out)`, columns.
    gradient_basis: Basis,
    /// Eigenvalues of S.
    of_gradients: Array1<f64>,
    /// Λ `(out, in [+ 1])`.
    eigenvalues: Array2<f64>,
    /// Samples whose gradients made Λ; 0 while it is K-FAC's.
    samples: usize,
    refit: Option<(Array2<f64>, usize)>,
}

/// What a [`KroneckerLayer`] consists of, for files.
#[derive(Debug, Clone)]
pub struct KroneckerParts {
    /// Q_A `(in [+ 1], in [+ 1])`, columns.
    pub activation_eigenvectors: Array2<f64>,
    /// Eigenvalues of A `(in [+ 1])`.
    pub activation_eigenvalues: Array1<f64>,
    /// Q_S `(out, out)`, columns.
    pub gradient_eigenvectors: Array2<f64>,
    /// Eigenvalues of S `(out)`.
    pub gradient_eigenvalues: Array1<f64>,
    /// Λ `(out, in [+ 1])` refitted, and the number of samples that made it; none for K-FAC.
    pub refitted: Option<(Array2<f64>, usize)>,
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
        Self::in_blocks(place, 1)
    }

    /// [`Self::new`] with A and S each kept in this many diagonal blocks, which saves memory.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn in_blocks(place: LayerPlace, blocks: usize) -> Result<Self> {
        let expected = place.outputs * place.inputs;
        if place.weight.len() != expected || place.bias.as_ref().is_some_and(|b| b.len() != place.outputs) {
            let problem = format!("has places for {:?} and {:?}", place.weight, place.bias);
            let shape = format!("{problem}, but {} outputs and {} inputs", place.outputs, place.inputs);
            return Err(Error::input(place.name, shape));
        }
        let (activations, gradients) =
            (Covariance::new(place.columns(), blocks), Covariance::new(place.outputs, blocks));
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
        self.activations.add(a.view());
        self.gradients.add(g.view());
        self.positions += counted;
        Ok(())
    }

    /// A `(in [+ 1], in [+ 1])`.
    pub fn activation_covariance(&self) -> Array2<f64> {
        self.activations.matrix() / self.positions.max(1) as f64
    }

    /// S `(out, out)`.
    pub fn gradient_covariance(&self) -> Array2<f64> {
        self.gradients.matrix() / self.positions.max(1) as f64
    }

    /// Samples times positions that were added, without padding.
    pub fn positions(&self) -> usize {
        self.positions
    }

    /// Where the layer stands.
    pub fn place(&self) -> &LayerPlace {
        &self.place
    }

    /// The eigenbasis of A ⊗ S with K-FAC's eigenvalues: the products of those of A and S.
    ///
    /// # Errors
    /// Nothing was added; eigenvalues that did not converge.
    pub fn decompose(&self) -> Result<KroneckerLayer> {
        if self.positions == 0 {
            return Err(Error::input(self.place.name.clone(), "no activations were added"));
        }
        let (of_activations, activation_basis) = self.activations.decompose(self.positions)?;
        let (of_gradients, gradient_basis) = self.gradients.decompose(self.positions)?;
        let eigenvalues = products(&of_gradients, &of_activations);
        Ok(KroneckerLayer {
            place: self.place.clone(),
            activation_basis,
            of_activations,
            gradient_basis,
            of_gradients,
            eigenvalues,
            samples: 0,
            refit: None,
        })
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
        let (a, g) = self.rotated(inputs, gradients);
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
                self.samples = samples;
                Ok(self)
            }
            _ => Err(Error::input(self.place.name, "no gradients were added to refit the eigenvalues")),
        }
    }

    /// Λ `(out, in [+ 1])`.
    pub fn eigenvalues(&self) -> ArrayView2<'_, f64> {
        self.eigenvalues.view()
    }

    /// Where the layer stands.
    pub fn place(&self) -> &LayerPlace {
        &self.place
    }

    /// The same without the refit: K-FAC again.
    pub fn without_refit(mut self) -> Self {
        self.eigenvalues = products(&self.of_gradients, &self.of_activations);
        (self.samples, self.refit) = (0, None);
        self
    }

    /// The matrices and vectors it consists of.
    pub fn parts(&self) -> KroneckerParts {
        KroneckerParts {
            activation_eigenvectors: self.activation_basis.matrix(),
            activation_eigenvalues: self.of_activations.clone(),
            gradient_eigenvectors: self.gradient_basis.matrix(),
            gradient_eigenvalues: self.of_gradients.clone(),
            refitted: (self.samples > 0).then(|| (self.eigenvalues.clone(), self.samples)),
        }
    }

    /// The layer at `place` from its parts.
    ///
    /// # Errors
    /// Shapes that do not fit the layer; a value that is not finite.
    pub fn from_parts(place: LayerPlace, parts: KroneckerParts) -> Result<Self> {
        let (columns, outputs) = (place.columns(), place.outputs);
        let KroneckerParts { activation_eigenvectors, gradient_eigenvectors, refitted, .. } = parts;
        let (of_activations, of_gradients) = (parts.activation_eigenvalues, parts.gradient_eigenvalues);
        let lambda = refitted.as_ref().map_or((outputs, columns), |(lambda, _)| lambda.dim());
        for (what, given, needed) in [
            ("activation eigenvectors", activation_eigenvectors.dim(), (columns, columns)),
            ("gradient eigenvectors", gradient_eigenvectors.dim(), (outputs, outputs)),
            ("activation eigenvalues", (of_activations.len(), 1), (columns, 1)),
            ("gradient eigenvalues", (of_gradients.len(), 1), (outputs, 1)),
            ("refitted eigenvalues", lambda, (outputs, columns)),
        ] {
            if given != needed {
                let problem = format!("has {what} of shape {given:?}, but the layer needs {needed:?}");
                return Err(Error::input(place.name, problem));
            }
        }
        let finite = |x: &f64| x.is_finite();
        if !(activation_eigenvectors.iter().all(finite)
            && gradient_eigenvectors.iter().all(finite)
            && of_activations.iter().chain(&of_gradients).all(finite)
            && refitted.iter().all(|(lambda, _)| lambda.iter().all(finite)))
        {
            return Err(Error::input(place.name, "has factors that are not finite"));
        }
        let (eigenvalues, samples) = match refitted {
            Some((lambda, samples)) => (lambda, samples.max(1)),
            None => (products(&of_gradients, &of_activations), 0),
        };
        Ok(Self {
            place,
            activation_basis: Basis::whole(activation_eigenvectors),
            of_activations,
            gradient_basis: Basis::whole(gradient_eigenvectors),
            of_gradients,
            eigenvalues,
            samples,
            refit: None,
        })
    }

    /// Inputs (with the 1 of the bias) and gradients of all samples and positions, each in its eigenbasis.
    fn rotated<T: Real>(&self, inputs: ArrayView3<'_, T>, gradients: ArrayView3<'_, T>) -> (Array2<f64>, Array2<f64>) {
        let a = self.activation_basis.coordinates(with_one(inputs, self.place.bias.is_some()).view());
        (a, self.gradient_basis.coordinates(rows(gradients).view()))
    }

    /// Q_S V Q_Aᵀ, or Q_Sᵀ V Q_A the other way.
    fn rotate(&self, v: ArrayView2<'_, f64>, back: bool) -> Array2<f64> {
        let (s, a) = (&self.gradient_basis, &self.activation_basis);
        match back {
            true => s.combine(a.combine(v).t()).reversed_axes(),
            false => s.coordinates(a.coordinates(v).t()).reversed_axes(),
        }
    }
}

impl LayerPlace {
    /// Columns of the layer's gradient: its inputs, and one for the bias if there is one.
    pub fn columns(&self) -> usize {
        self.inputs + usize::from(self.bias.is_some())
    }

    /// The layer's part of a flattened vector as (out, in [+ 1]), the bias last.
    pub fn gather(&self, x: &[f64]) -> Array2<f64> {
        let mut v = Array2::zeros((self.outputs, self.columns()));
        for (mut row, weight) in v.outer_iter_mut().zip(x[self.weight.clone()].chunks_exact(self.inputs.max(1))) {
            row.slice_mut(s![..self.inputs]).assign(&ArrayView1::from(weight));
        }
        if let Some(bias) = &self.bias {
            v.column_mut(self.inputs).assign(&ArrayView1::from(&x[bias.clone()]));
        }
        v
    }

    /// Puts what [`Self::gather`] gives back into its place.
    pub fn scatter(&self, v: ArrayView2<'_, f64>, y: &mut [f64]) {
        for ((o, i), &value) in v.indexed_iter() {
            match (&self.bias, i == self.inputs) {
                (Some(bias), true) => y[bias.start + o] = value,
                _ => y[self.weight.start + o * self.inputs + i] = value,
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

    /// The layers.
    pub fn layers(&self) -> impl ExactSizeIterator<Item = &KroneckerLayer> {
        self.layers.iter().map(|(layer, _)| layer)
    }

    /// Adds vᵢᵀ (Λ + λ)⁻¹ vᵢ of layer number `layer` to `forms`, for the gradient vᵢ = Σₜ gradients[i, t] inputs[i, t]ᵀ
    /// of each sample. O(n (out + in)²) where there is one position, without forming a gradient.
    ///
    /// # Errors
    /// Shapes that do not fit the layer or `forms`; a value that is not finite.
    pub fn add_quadratic_forms<T: Real>(
        &self,
        layer: usize,
        inputs: ArrayView3<'_, T>,
        gradients: ArrayView3<'_, T>,
        forms: &mut [f64],
    ) -> Result<()> {
        let (layer, damp) = &self.layers[layer];
        check_batch(&layer.place, &inputs, &gradients)?;
        let (n, positions, _) = inputs.dim();
        crate::operator::check_length("forms", forms.len(), n)?;
        let (a, g) = layer.rotated(inputs, gradients);
        let inverse = layer.eigenvalues.mapv(|eigenvalue| 1.0 / (eigenvalue + damp));
        if positions == 1 {
            // (g_o a_i)² splits into a product of squares.
            let through = matmul(a.mapv(|x| x * x).view(), inverse.t());
            for ((form, g), through) in forms.iter_mut().zip(g.outer_iter()).zip(through.outer_iter()) {
                *form += g.iter().zip(through).map(|(g, t)| g * g * t).sum::<f64>();
            }
        } else {
            for (i, form) in forms.iter_mut().enumerate() {
                let part = s![i * positions..(i + 1) * positions, ..];
                let gradient = matmul(g.slice(part).t(), a.slice(part));
                *form += gradient.iter().zip(&inverse).map(|(v, inverse)| v * v * inverse).sum::<f64>();
            }
        }
        Ok(())
    }
}

/// Eigenvalues of A ⊗ S: the products of those of S (rows) and A (columns). Both factors are positive semi-definite; what
/// rounding leaves below zero is zero.
fn products(of_s: &Array1<f64>, of_a: &Array1<f64>) -> Array2<f64> {
    Array2::from_shape_fn((of_s.len(), of_a.len()), |(o, i)| of_s[o].max(0.0) * of_a[i].max(0.0))
}

impl Inverse for KroneckerInverse {
    fn dim(&self) -> usize {
        self.dim
    }

    fn apply_inverse(&self, x: &[f64]) -> Result<Vec<f64>> {
        crate::operator::check_length("x", x.len(), self.dim)?;
        let mut y = vec![0.0; self.dim];
        for (layer, damp) in &self.layers {
            let mut v = layer.rotate(layer.place.gather(x).view(), false);
            v.zip_mut_with(&layer.eigenvalues, |v, eigenvalue| *v /= eigenvalue + damp);
            layer.place.scatter(layer.rotate(v.view(), true).view(), &mut y);
        }
        Ok(y)
    }

    fn diag_inverse(&self) -> Result<Vec<f64>> {
        let mut y = vec![0.0; self.dim];
        for (layer, damp) in &self.layers {
            // Σ_{o′i′} Q_S[o, o′]² Q_A[i, i′]² / (Λ_{o′i′} + λ).
            let inverse = layer.eigenvalues.mapv(|eigenvalue| 1.0 / (eigenvalue + damp));
            let right = layer.activation_basis.squared().combine(inverse.view());
            let both = layer.gradient_basis.squared().combine(right.t());
            layer.place.scatter(both.t(), &mut y);
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
        rows.push_column(Array1::ones(rows.nrows()).view()).expect("one value a row");
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
