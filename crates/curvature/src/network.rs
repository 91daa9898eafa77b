//! The curvature of a network's loss as an operator.

use crate::{LinearOperator, Real};
use candle_core::Tensor;
use offprint_core::random::Stream;
use offprint_core::{Error, Result};
use offprint_nn::derivatives::{LossFunction, PerceptronCurvature, Targets};
use offprint_nn::{Batch, computation};

/// Which matrix of second derivatives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matrix {
    /// ∇²L.
    Hessian,
    /// The generalised Gauss–Newton matrix (1/n) Σᵢ Jᵢᵀ ∇²_f ℓᵢ Jᵢ: positive semi-definite, and equal to the Fisher
    /// matrix in expectation over the model's own targets.
    GaussNewton,
    /// (1/n) Σᵢ ∇ℓᵢ ∇ℓᵢᵀ at the targets of the samples: the empirical Fisher matrix for true targets, an estimate of the
    /// Fisher matrix for such as [`drawn_targets`] gives.
    Fisher,
}

/// A network's curvature over a set of samples, at the parameters that the network has when the operator is made; they
/// must stay as they are while it is used.
///
/// A product costs about four forward and backward passes over the samples and holds the activations of one part of
/// them. A product with the Hessian of a perceptron costs twice a gradient; what does not depend on the vector is kept
/// while it fits into 256 MiB.
pub struct LossOperator<'a> {
    loss: &'a LossFunction<'a>,
    parts: Vec<Part>,
    samples: usize,
    matrix: Matrix,
}

/// Some of the samples, and what is kept of them.
struct Part {
    samples: Batch,
    kept: Option<PerceptronCurvature>,
}

/// Most bytes of activations that an operator keeps.
const KEPT: usize = 1 << 28;

impl<'a> LossOperator<'a> {
    /// The `matrix` of `loss` over `samples`, taken in parts of at most `part` of them.
    ///
    /// # Errors
    /// No sample; `part` = 0.
    pub fn new(loss: &'a LossFunction<'a>, matrix: Matrix, samples: &Batch, part: usize) -> Result<Self> {
        if samples.is_empty() {
            return Err(Error::parameter("samples", "none", "at least one"));
        }
        if part == 0 {
            return Err(Error::parameter("part", part, "at least 1"));
        }
        let keeps = matrix != Matrix::Fisher && loss.perceptron_bytes(samples.len()) <= KEPT;
        let parts = samples
            .chunks(part)
            .map(|samples| {
                let samples = samples.map_err(computation)?;
                let kept = if keeps { loss.perceptron_curvature(&samples)? } else { None };
                Ok(Part { samples, kept })
            })
            .collect::<Result<_>>()?;
        Ok(Self { loss, parts, samples: samples.len(), matrix })
    }

    fn product<T: offprint_nn::params::Real>(&self, part: &Part, x: &[T]) -> Result<Vec<T>> {
        let Part { samples, kept } = part;
        if self.matrix == Matrix::Fisher {
            return self.loss.fisher_product(samples, x, Targets::True);
        }
        let made = if kept.is_none() { self.loss.perceptron_curvature(samples)? } else { None };
        match (self.matrix, kept.as_ref().or(made.as_ref())) {
            (Matrix::Hessian, Some(fast)) => fast.hessian_product(x),
            (Matrix::Hessian, None) => self.loss.hessian_product(samples, x),
            (_, Some(fast)) => fast.gauss_newton_product(x),
            (_, None) => self.loss.gauss_newton_product(samples, x),
        }
    }
}

impl<T: Real + offprint_nn::params::Real> LinearOperator<T> for LossOperator<'_> {
    fn dim(&self) -> usize {
        self.loss.dim()
    }

    fn apply(&self, x: &[T], y: &mut [T]) -> Result<()> {
        let mut sum = vec![0.0; y.len()];
        for part in &self.parts {
            let product = self.product(part, x)?;
            // Products are means over the part.
            let share = part.samples.len() as f64 / self.samples as f64;
            sum.iter_mut().zip(product).for_each(|(sum, x): (&mut f64, T)| *sum += share * Real::to_f64(x));
        }
        y.iter_mut().zip(sum).for_each(|(y, sum)| *y = Real::from_f64(sum));
        Ok(())
    }
}

/// `samples` with targets drawn from the network's own prediction, sample i from generator i of `stream`; forward passes
/// over parts of at most `part`.
///
/// # Errors
/// `part` = 0; targets whose form does not fit the loss.
pub fn drawn_targets(loss: &LossFunction<'_>, samples: &Batch, part: usize, stream: Stream) -> Result<Batch> {
    if part == 0 {
        return Err(Error::parameter("part", part, "at least 1"));
    }
    let outputs =
        samples.chunks(part).map(|part| loss.outputs(&part.map_err(computation)?)).collect::<Result<Vec<_>>>()?;
    let outputs = Tensor::cat(&outputs, 0).map_err(computation)?;
    Ok(Batch { inputs: samples.inputs.clone(), targets: loss.loss().sample(&outputs, &samples.targets, stream)? })
}
