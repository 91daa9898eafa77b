//! The curvature of the loss in one layer's weights, from one look at the network.
//!
//! With cross-entropy over C classes the Gauss–Newton matrix of a layer's weights W is
//! (1/N) Σₙ Σ_c p_nc ∇ℓ_nc ∇ℓ_ncᵀ, with ℓ_nc the loss of sample n were its class c, and
//! ∇ℓ_nc = Σ_t δ_nct x_ntᵀ for inputs x and output gradients δ at the layer's places t. Both are kept, δ multiplied by √p; a
//! product then is two products with the inputs, of the size of the layer, and touches the rest of the network no more.
//!
//! Where a network is piecewise linear in W (ReLU between linear layers, convolutions, batch norms in evaluation, sums)
//! the Hessian in W alone *is* this matrix.

use candle_core::{DType, Device, Tensor};
use ndarray::{Array2, ArrayView1, ArrayView2};
use offprint_core::{Error, Result};
use offprint_curvature::LinearOperator;
use offprint_math::linalg::{gemm, matmul};
use offprint_nn::derivatives::{Loss, Targets};
use offprint_nn::layers::LayerKind;
use offprint_nn::models::Activation;
use offprint_nn::{Architecture, Batch, LayerPlace, Network, computation};
use rayon::prelude::*;

/// The Gauss–Newton matrix of one layer's weights, row by row in memory.
#[derive(Debug, Clone)]
pub struct LayerCurvature {
    /// Inputs (samples × places, in).
    inputs: Array2<f32>,
    /// √p δ (samples, classes, places × out).
    gradients: Vec<f32>,
    samples: usize,
    classes: usize,
    out: usize,
}

/// Whether the Hessian in the weights at `place` alone is their Gauss–Newton matrix: the network is piecewise linear in
/// them, or they are those of its last layer.
pub fn is_gauss_newton(network: &Network, place: &LayerPlace, last: &LayerPlace) -> bool {
    let regular;
    let architecture = match network.architecture() {
        Architecture::Slim(slim) => {
            regular = slim.regular();
            &regular
        }
        other => other,
    };
    let linear = match architecture {
        Architecture::DigitsCnn { .. } | Architecture::ResNet(_) => true,
        Architecture::Mlp(config) => config.activation == Activation::Relu,
        Architecture::ViT(_) => place == last,
        // `regular` is never slim itself.
        Architecture::Gpt(_) | Architecture::Llama(_) | Architecture::Slim(_) => false,
    };
    linear && has_traces(place)
}

/// Whether the layer's inputs and output gradients can be watched.
pub fn has_traces(place: &LayerPlace) -> bool {
    match place.kind {
        LayerKind::Linear => true,
        LayerKind::Conv2d { conv, .. } => conv.groups == 1,
        LayerKind::Embedding => false,
    }
}

/// Bytes that the curvature of the layer at `place` takes over so many samples and classes.
pub fn bytes(place: &LayerPlace, samples: usize, classes: usize) -> usize {
    4 * samples * place.positions * (place.inputs() + classes * place.outputs())
}

/// The curvature of each of `layers` over `samples`, which are classes (N), from C backward passes over parts of `part` of
/// them.
///
/// # Errors
/// Targets that are no classes; a layer that the forward pass does not reach or uses twice.
pub fn layer_curvatures(
    network: &Network,
    layers: &[&LayerPlace],
    samples: &Batch,
    part: usize,
) -> Result<Vec<LayerCurvature>> {
    let (loss, classes) = (network.loss(Loss::CrossEntropy), network.architecture().outputs());
    if samples.targets.rank() != 1 {
        return Err(Error::input(
            "targets",
            format!("have shape {:?}; one class a sample is needed", samples.targets.dims()),
        ));
    }
    let mut found: Vec<LayerCurvature> = layers
        .iter()
        .map(|place| LayerCurvature {
            inputs: Array2::zeros((0, place.inputs())),
            gradients: Vec::new(),
            samples: samples.len(),
            classes,
            out: place.outputs(),
        })
        .collect();
    for part in samples.chunks(part.max(1)) {
        let part = part.map_err(computation)?;
        let roots = root_probabilities(&loss.outputs(&part)?)?;
        for class in 0..classes {
            let targets = Tensor::full(class as u32, part.len(), &Device::Cpu).map_err(computation)?;
            let as_if = Batch { inputs: part.inputs.clone(), targets };
            let mut traces = loss.layer_traces::<f32>(&as_if, Targets::True)?;
            for (place, layer) in layers.iter().zip(&mut found) {
                let of_layer: Vec<usize> = (0..traces.len()).filter(|&at| traces[at].weight == place.weight).collect();
                let [at] = of_layer[..] else {
                    let problem = format!("is used {} times in a forward pass, not once", of_layer.len());
                    return Err(Error::input(format!("layer \"{}\"", place.name), problem));
                };
                let trace = traces.swap_remove(at);
                if class == 0 {
                    let rows = trace.inputs.len() / place.inputs().max(1);
                    let rows = trace.inputs.into_shape_with_order((rows, place.inputs()));
                    let rows = rows.map_err(|e| Error::Numerical(e.to_string()))?;
                    layer.inputs.append(ndarray::Axis(0), rows.view()).expect("as many columns");
                }
                layer.keep(class, &trace.gradients, &roots);
            }
        }
    }
    Ok(found)
}

/// √p (n, classes) from logits.
fn root_probabilities(logits: &Tensor) -> Result<Array2<f32>> {
    let logits = logits.to_dtype(DType::F64).and_then(|t| t.to_vec2::<f64>()).map_err(computation)?;
    let classes = logits.first().map_or(0, Vec::len);
    let roots = logits.iter().flat_map(|row| {
        let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = row.iter().map(|x| (x - largest).exp()).sum();
        row.iter().map(move |x| ((x - largest).exp() / sum).sqrt() as f32)
    });
    Array2::from_shape_vec((logits.len(), classes), roots.collect()).map_err(|e| Error::Numerical(e.to_string()))
}

impl LayerCurvature {
    /// Puts the gradients (n, places, out) of one class of the samples seen last where they belong.
    fn keep(&mut self, class: usize, gradients: &ndarray::Array3<f32>, roots: &Array2<f32>) {
        let (n, places, out) = gradients.dim();
        let width = places * out;
        if class == 0 {
            self.gradients.resize(self.gradients.len() + n * self.classes * width, 0.0);
        }
        let start = self.gradients.len() - n * self.classes * width;
        for (sample, gradient) in gradients.outer_iter().enumerate() {
            let root = roots[[sample, class]];
            let to = &mut self.gradients[start + (sample * self.classes + class) * width..][..width];
            to.iter_mut().zip(gradient).for_each(|(to, g)| *to = root * g);
        }
    }

    /// The trace, exactly: (1/N) Σ ‖√p ∇ℓ‖².
    pub fn trace(&self) -> f64 {
        let places = self.inputs.nrows() / self.samples;
        let each = |sample: usize| -> f64 {
            let x = self.inputs.slice(ndarray::s![sample * places..(sample + 1) * places, ..]);
            let of_class = |class: usize| -> f64 {
                let g = self.gradient(sample, class);
                matmul(g.t(), x).iter().map(|&v| f64::from(v).powi(2)).sum()
            };
            (0..self.classes).map(of_class).sum()
        };
        let sums: Vec<f64> = (0..self.samples).into_par_iter().map(each).collect();
        sums.iter().sum::<f64>() / self.samples as f64
    }

    /// √p δ of one sample and class (places, out).
    fn gradient(&self, sample: usize, class: usize) -> ArrayView2<'_, f32> {
        let width = self.gradients.len() / (self.samples * self.classes);
        let values = &self.gradients[(sample * self.classes + class) * width..][..width];
        ArrayView2::from_shape((width / self.out, self.out), values).expect("whole places")
    }
}

impl LinearOperator<f32> for LayerCurvature {
    fn dim(&self) -> usize {
        self.out * self.inputs.ncols()
    }

    fn apply(&self, x: &[f32], y: &mut [f32]) -> Result<()> {
        let shape = (self.out, self.inputs.ncols());
        let v = ArrayView2::from_shape(shape, x).map_err(|e| Error::Numerical(e.to_string()))?;
        // How the layer's outputs move along v (samples × places, out), and after that what pulls them back.
        let mut moved = matmul(self.inputs.view(), v.t());
        let width = self.gradients.len() / (self.samples * self.classes);
        let values = moved.as_slice_mut().expect("made in this order");
        values
            .par_chunks_mut(width)
            .zip(self.gradients.par_chunks(self.classes * width))
            .with_min_len(8)
            .for_each_init(
                || vec![0.0; width],
                |pulled, (moved, gradients)| {
                    pulled.fill(0.0);
                    for gradient in gradients.chunks_exact(width) {
                        let along = ArrayView1::from(gradient).dot(&ArrayView1::from(&*moved));
                        pulled.iter_mut().zip(gradient).for_each(|(to, g)| *to += along * g);
                    }
                    moved.copy_from_slice(pulled);
                },
            );
        let y = ndarray::ArrayViewMut2::from_shape(shape, y).map_err(|e| Error::Numerical(e.to_string()))?;
        gemm(1.0 / self.samples as f32, moved.t(), self.inputs.view(), false, y);
        Ok(())
    }
}
