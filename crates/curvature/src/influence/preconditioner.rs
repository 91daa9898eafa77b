//! What turns the gradient of a query into the direction with which training gradients are multiplied.

use super::{Element, Examples, Model, TrackedLayers};
use crate::{Damping, Inverse};
use ndarray::{Array2, ArrayView2};
use offprint_core::{Error, Progress, Result};
use rayon::prelude::*;

/// An approximation of (G + λ)⁻¹ on tracked coordinates.
pub trait Preconditioner {
    /// Number of tracked coordinates.
    fn dim(&self) -> usize;

    /// (G + λ)⁻¹ applied to each row of `gradients (q, dim)`.
    ///
    /// # Errors
    /// Rows of another length; a series that diverges; a stop by `progress`.
    fn precondition(&self, gradients: ArrayView2<'_, f64>, progress: &Progress) -> Result<Array2<f64>>;
}

impl<I: Inverse + Sync> Preconditioner for I {
    fn dim(&self) -> usize {
        Inverse::dim(self)
    }

    fn precondition(&self, gradients: ArrayView2<'_, f64>, progress: &Progress) -> Result<Array2<f64>> {
        check_width(&gradients, Inverse::dim(self))?;
        progress.check()?;
        let rows: Vec<Vec<f64>> = (0..gradients.nrows())
            .into_par_iter()
            .map(|i| self.apply_inverse(&gradients.row(i).to_vec()))
            .collect::<Result<_>>()?;
        let flat: Vec<f64> = rows.into_iter().flatten().collect();
        Ok(Array2::from_shape_vec(gradients.raw_dim(), flat).expect("one row for each"))
    }
}

/// No curvature: scores are inner products of gradients.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    /// Number of tracked coordinates.
    pub dim: usize,
}

impl Preconditioner for Identity {
    fn dim(&self) -> usize {
        self.dim
    }

    fn precondition(&self, gradients: ArrayView2<'_, f64>, _: &Progress) -> Result<Array2<f64>> {
        check_width(&gradients, self.dim)?;
        Ok(gradients.to_owned())
    }
}

/// The diagonal of the Fisher matrix: mean squares of gradients, coordinate by coordinate.
#[derive(Debug, Clone)]
pub struct DiagonalFisher {
    inverse: Vec<f64>,
    damping: Vec<f64>,
}

impl DiagonalFisher {
    /// From the gradients of `examples`, whose targets are true or drawn ([`Model::drawn`]); the damping is taken layer by
    /// layer.
    ///
    /// # Errors
    /// No example; a layer that received no gradient, or a damping that is not positive.
    pub fn fit(model: &Model<'_>, examples: &Examples, damping: Damping, progress: &Progress) -> Result<Self> {
        if model.is_double() {
            Self::fit_in::<f64>(model, examples, damping, progress)
        } else {
            Self::fit_in::<f32>(model, examples, damping, progress)
        }
    }

    fn fit_in<T: Element>(
        model: &Model<'_>,
        examples: &Examples,
        damping: Damping,
        progress: &Progress,
    ) -> Result<Self> {
        let mut sums = vec![0.0; model.tracked.dim()];
        model.for_chunks(examples, "squares of gradients", progress, |_, part| {
            let gradients = model.tracked.gradients::<T>(model.loss, part)?;
            for row in gradients.rows() {
                sums.iter_mut().zip(row).for_each(|(sum, g)| *sum += g * g);
            }
            Ok(())
        })?;
        sums.iter_mut().for_each(|sum| *sum /= examples.len() as f64);
        let damping = layer_damping(model.tracked, damping, &sums)?;
        Ok(Self { inverse: sums.iter().zip(&damping).map(|(sum, damp)| 1.0 / (sum + damp)).collect(), damping })
    }

    /// The damping of every tracked coordinate. The mean of a layer's squares is that of its EK-FAC eigenvalues too, since
    /// a trace does not depend on the basis: this is the damping of all methods on the same gradients.
    pub fn damping(&self) -> &[f64] {
        &self.damping
    }
}

impl Preconditioner for DiagonalFisher {
    fn dim(&self) -> usize {
        self.inverse.len()
    }

    fn precondition(&self, gradients: ArrayView2<'_, f64>, _: &Progress) -> Result<Array2<f64>> {
        check_width(&gradients, self.inverse.len())?;
        Ok(&gradients * &ndarray::aview1(&self.inverse))
    }
}

/// The damping of every tracked coordinate: fixed, or a share of the mean of `diagonal` over the coordinate's layer.
pub(super) fn layer_damping(tracked: &TrackedLayers, damping: Damping, diagonal: &[f64]) -> Result<Vec<f64>> {
    let of_layers = tracked
        .layers()
        .iter()
        .map(|layer| {
            let damp = match damping {
                Damping::Fixed(damp) => damp,
                Damping::OfMean(share) => share * layer.gather(diagonal).mean().unwrap_or(0.0),
            };
            if damp > 0.0 && damp.is_finite() {
                return Ok(damp);
            }
            Err(match damping {
                Damping::OfMean(share) if share > 0.0 => {
                    Error::input(layer.name.clone(), "received no gradient, so that its damping would be zero; skip it")
                }
                Damping::Fixed(given) | Damping::OfMean(given) => Error::parameter("damping", given, "above 0"),
            })
        })
        .collect::<Result<Vec<f64>>>()?;
    Ok(tracked.spread(|layer| of_layers[layer]))
}

pub(super) fn check_width(gradients: &ArrayView2<'_, f64>, dim: usize) -> Result<()> {
    match gradients.ncols() == dim {
        true => Ok(()),
        false => {
            let problem = format!("have {} columns, but {dim} parameters are tracked", gradients.ncols());
            Err(Error::input("gradients", problem))
        }
    }
}
