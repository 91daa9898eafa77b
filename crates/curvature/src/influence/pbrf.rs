//! The proximal Bregman response: what influence functions of a network that has not converged approximate.

use super::{Examples, TrackedLayers};
use candle_core::Tensor;
use offprint_core::{Error, Result};
use offprint_math::lbfgs::Lbfgs;
use offprint_nn::derivatives::{Loss, LossFunction};
use offprint_nn::{computation, ops};
use std::ops::ControlFlow;

/// The objective whose minimiser moves with ε at the rate −(G + λ)⁻¹ ∇ℓ_m:
///
/// (1/N) Σᵢ D(h(θ, xᵢ), h(θˢ, xᵢ)) + ε ℓ_m(θ) + ½ (θ − θˢ)ᵀ diag(λ) (θ − θˢ)
///
/// D is the Bregman divergence of the loss in the outputs h: half the squared distance for squared errors,
/// KL(softmax hˢ ‖ softmax h) for cross-entropy. At ε = 0 it is θˢ itself, converged or not.
pub struct ProximalBregman<'a> {
    loss: &'a LossFunction<'a>,
    tracked: &'a TrackedLayers,
    train: &'a Examples,
    damping: &'a [f64],
    /// All parameters at θˢ.
    start: Vec<f64>,
    /// h(θˢ, x), or its soft-max.
    reference: Tensor,
    /// Σᵢ −H(softmax hˢ): what turns a cross-entropy into a divergence.
    constant: f64,
    optimizer: Lbfgs,
}

impl<'a> ProximalBregman<'a> {
    /// At the present parameters of the model, with one damping for each tracked coordinate. Parameters that are not
    /// tracked stay where they are.
    ///
    /// # Errors
    /// A model in single precision, whose rounding hides the response; no example; a loss other than squared error and
    /// cross-entropy of single outputs.
    pub fn new(
        loss: &'a LossFunction<'a>,
        tracked: &'a TrackedLayers,
        train: &'a Examples,
        damping: &'a [f64],
        iterations: usize,
    ) -> Result<Self> {
        if loss.params().dtype() != candle_core::DType::F64 {
            return Err(Error::parameter("dtype", loss.params().dtype().as_str(), "f64 for a response this small"));
        }
        if damping.len() != tracked.dim() {
            let allowed = format!("one number for each of {} tracked coordinates", tracked.dim());
            return Err(Error::parameter("damping", damping.len(), allowed));
        }
        if train.is_empty() {
            return Err(Error::input("training rows", "there is no row"));
        }
        let outputs = loss.outputs(&train.batch)?.detach();
        let (reference, constant) = match loss.loss() {
            Loss::SquaredError => (outputs, 0.0),
            Loss::CrossEntropy if outputs.rank() == 2 => {
                let p = ops::softmax(&outputs).map_err(computation)?;
                let negentropy = ops::log_softmax(&outputs)
                    .and_then(|log| (&p * log)?.sum_all()?.to_scalar::<f64>())
                    .map_err(computation)?;
                (p, negentropy)
            }
            other => {
                let allowed = "squared error or cross-entropy of one output a sample";
                return Err(Error::parameter("loss", format!("{other:?}"), allowed));
            }
        };
        // Relative to the gradient at the start.
        let optimizer = Lbfgs { memory: 20, iterations, gradient_tolerance: 1e-9, value_tolerance: 0.0 };
        Ok(Self { loss, tracked, train, damping, start: loss.params().flat()?, reference, constant, optimizer })
    }

    /// The tracked parameters that minimise the objective for sample number `sample` upweighted by `epsilon`; −1/N takes
    /// the sample out. The model is left as it was.
    ///
    /// # Errors
    /// A sample beyond the last; a minimisation that leaves the finite numbers.
    pub fn response(&self, sample: usize, epsilon: f64) -> Result<Vec<f64>> {
        if sample >= self.train.len() {
            return Err(Error::parameter("sample", sample, format!("below {}", self.train.len())));
        }
        let begin = self.tracked.restrict(&self.start);
        let mut slope = vec![0.0; begin.len()];
        self.objective(&begin, &begin, sample, epsilon, &mut slope)?;
        // The objective has other minima further away, and the response is the one that grows from θˢ with ε. Lengths are
        // therefore measured by the gradient there, so that the first trial is a small step.
        let unit = crate::vector::norm(&slope);
        if unit == 0.0 {
            return Ok(begin);
        }
        let at = |u: &[f64]| -> Vec<f64> { begin.iter().zip(u).map(|(x, u)| x + unit * u).collect() };
        let mut failure = None;
        let minimum = self.optimizer.minimise(
            &vec![0.0; begin.len()],
            |u, gradient| match self.objective(&begin, &at(u), sample, epsilon, gradient) {
                Ok(value) => {
                    gradient.iter_mut().for_each(|g| *g /= unit);
                    value / (unit * unit)
                }
                Err(error) => {
                    failure.get_or_insert(error);
                    f64::INFINITY
                }
            },
            |_| ControlFlow::Continue(()),
        );
        self.loss.params().set_flat(&self.start)?;
        match failure {
            Some(error) => Err(error),
            None => Ok(at(&minimum.x)),
        }
    }

    /// `measure` at the response to `sample`, and before.
    ///
    /// # Errors
    /// As [`Self::response`], and what `measure` answers.
    pub fn change<R>(&self, sample: usize, epsilon: f64, measure: impl Fn() -> Result<R>) -> Result<(R, R)> {
        let before = measure()?;
        let moved = self.response(sample, epsilon)?;
        self.set_tracked(&moved)?;
        let after = measure();
        self.loss.params().set_flat(&self.start)?;
        Ok((before, after?))
    }

    fn set_tracked(&self, theta: &[f64]) -> Result<()> {
        let begin = self.tracked.restrict(&self.start);
        let moved: Vec<f64> = theta.iter().zip(&begin).map(|(new, old)| new - old).collect();
        let all: Vec<f64> =
            self.start.iter().zip(self.tracked.embed(&moved)).map(|(old, change)| old + change).collect();
        self.loss.params().set_flat(&all)
    }

    fn objective(
        &self,
        begin: &[f64],
        theta: &[f64],
        sample: usize,
        epsilon: f64,
        gradient: &mut [f64],
    ) -> Result<f64> {
        self.set_tracked(theta)?;
        let n = self.train.len() as f64;
        let (value, whole) = self.loss.gradient_through::<f64>(&self.train.batch, |outputs| {
            let divergence = || -> candle_core::Result<(f64, Tensor)> {
                match self.loss.loss() {
                    Loss::SquaredError => {
                        let moved = (outputs - &self.reference)?;
                        Ok((0.5 * moved.sqr()?.sum_all()?.to_scalar::<f64>()?, moved))
                    }
                    _ => {
                        let log = ops::log_softmax(outputs)?;
                        let crossed = (&self.reference * &log)?.sum_all()?.to_scalar::<f64>()?;
                        Ok((self.constant - crossed, (log.exp()? - &self.reference)?))
                    }
                }
            };
            let (divergence, residual) = divergence().map_err(computation)?;
            let one = |t: &Tensor| t.narrow(0, sample, 1).map_err(computation);
            let (output, target) = (one(outputs)?, one(&self.train.batch.targets)?);
            let own = self.loss.loss().per_sample(&output, &target)?;
            let own = own.sum_all().and_then(|own| own.to_scalar::<f64>()).map_err(computation)?;
            let at_output = self.loss.loss().output_gradient(&output, &target)?;
            let w = (|| {
                let moved = (one_row(&residual, sample)? + (at_output * (epsilon * n))?)?;
                let residual = residual.slice_scatter(&moved, 0, sample)?;
                residual.affine(1.0 / n, 0.0)
            })()
            .map_err(computation)?;
            Ok((divergence / n + epsilon * own, w))
        })?;
        gradient.copy_from_slice(&self.tracked.restrict(&whole));
        let mut proximity = 0.0;
        for ((g, damp), (new, old)) in gradient.iter_mut().zip(self.damping).zip(theta.iter().zip(begin)) {
            let moved = new - old;
            *g += damp * moved;
            proximity += damp * moved * moved;
        }
        Ok(value + 0.5 * proximity)
    }
}

fn one_row(t: &Tensor, row: usize) -> candle_core::Result<Tensor> {
    t.narrow(0, row, 1)
}
