//! Which groups matter: the score that decides what is pruned.

use super::engine::GROUP;
use crate::Layer;
use crate::calibration::{Calibration, Needs};
use crate::methods::{Scope, Sparsity, mask_lowest, upper_factor};
use ndarray::{Array2, ArrayView2};
use offprint_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a weight costs when it is pruned. Each is w² times a factor of its column; a group's score is the sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Saliency {
    /// w² / (H⁻¹)_jj with H = 2/N Σ x xᵀ: the loss of the output when the other weights of the row may follow
    Hessian,
    /// (w ‖x_j‖)²: the loss of the output when inputs are uncorrelated
    Wanda,
    /// w²
    Magnitude,
}

/// The share of the mean of diag H that is added to it before it is inverted.
const DAMPING: f64 = 0.01;

impl Saliency {
    /// What it must know of a layer's inputs.
    pub fn needs(self) -> Needs {
        match self {
            Self::Hessian => Needs::HESSIAN,
            Self::Wanda => Needs::STATISTICS,
            Self::Magnitude => Needs::NOTHING,
        }
    }

    /// The factor of each column.
    ///
    /// # Errors
    /// A Hessian that cannot be inverted even when it is damped, with the layer's name.
    pub fn factors(self, layer: &Layer, seen: &Calibration) -> Result<Vec<f64>> {
        let columns = layer.weight.ncols();
        match (self, &seen.hessian) {
            (Self::Magnitude, _) => Ok(vec![1.0; columns]),
            (Self::Wanda, _) => Ok(seen.mean_square.to_vec()),
            (Self::Hessian, Some(hessian)) => {
                // H⁻¹ = Uᵀ U, so its diagonal holds the squared lengths of U's columns.
                let upper = upper_factor(&layer.place.name, hessian, DAMPING)?;
                Ok((0..columns).map(|j| 1.0 / upper.column(j).iter().map(|u| u * u).sum::<f64>()).collect())
            }
            (Self::Hessian, None) => {
                Err(Error::Numerical("the saliency needs the second moments of the inputs".into()))
            }
        }
    }
}

/// Whether each weight (out, in) is kept when the lowest ⌊share · groups⌋ groups of 16 go: of each row, or of the whole
/// layer, where a row keeps at least one.
pub fn keep_groups(weight: ArrayView2<'_, f32>, factors: &[f64], share: f64, scope: Scope) -> Array2<bool> {
    let mut scores = Array2::from_shape_fn(weight.dim(), |(i, j)| f64::from(weight[[i, j]]).powi(2) * factors[j]);
    if scope == Scope::Layer {
        spare_the_best(&mut scores);
    }
    mask_lowest(scores.view(), &Sparsity::Groups { size: GROUP, share }, scope).keep
}

/// Puts the best group of each row beyond all others.
fn spare_the_best(scores: &mut Array2<f64>) {
    for mut row in scores.rows_mut() {
        let sums: Vec<f64> = row.exact_chunks(GROUP).into_iter().map(|group| group.sum()).collect();
        let best = (0..sums.len()).fold(0, |best, g| if sums[g] > sums[best] { g } else { best });
        row.iter_mut().skip(GROUP * best).take(1).for_each(|score| *score = f64::MAX);
    }
}

/// The mask of groups (out, in / 16) of a mask of weights that prunes whole groups.
pub fn group_mask(keep: &Array2<bool>) -> Array2<bool> {
    Array2::from_shape_fn((keep.nrows(), keep.ncols() / GROUP), |(i, g)| keep[[i, GROUP * g]])
}
