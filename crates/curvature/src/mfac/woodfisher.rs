//! WoodFisher (Singh, Alistarh 2020): the block-diagonal inverse written out, the baseline that M-FAC replaces.

use super::gradients::{check_damp, check_finite, check_rows, check_vector};
use crate::{Inverse, Real};
use ndarray::{Array1, Array2, ArrayView2, Axis, aview1};
use offprint_core::{Error, Result};
use rayon::prelude::*;

/// Dense inverses of the diagonal blocks of F̂, each `(b, b)`, built by m Sherman–Morrison updates: O(d b m) time and
/// O(d b) memory, where [`super::MfacBlocks`] needs O(d m²) and O(d m).
#[derive(Debug, Clone)]
pub struct WoodFisher {
    blocks: Vec<Array2<f64>>,
    size: usize,
    dim: usize,
}

impl WoodFisher {
    /// From `gradients (m, d)`, damping λ and block size b.
    ///
    /// # Errors
    /// An empty matrix, an element that is not finite, a `damp` that is not positive, `block` = 0.
    pub fn new<T: Real>(gradients: ArrayView2<'_, T>, damp: f64, block: usize) -> Result<Self> {
        check_rows(gradients)?;
        check_finite(gradients, "grads")?;
        check_damp(damp)?;
        if block == 0 {
            return Err(Error::parameter("block", block, "at least 1"));
        }
        let count = gradients.nrows() as f64;
        let blocks = gradients
            .axis_chunks_iter(Axis(1), block)
            .into_par_iter()
            .map(|columns| {
                let mut inverse = Array2::eye(columns.ncols()) / damp;
                for gradient in columns.rows() {
                    let gradient: Array1<f64> = gradient.map(|x| x.to_f64());
                    let v = inverse.dot(&gradient);
                    let delta = count + gradient.dot(&v);
                    for (mut row, &v_k) in inverse.rows_mut().into_iter().zip(&v) {
                        row.scaled_add(-v_k / delta, &v);
                    }
                }
                inverse
            })
            .collect();
        Ok(Self { blocks, size: block, dim: gradients.ncols() })
    }
}

impl Inverse for WoodFisher {
    fn dim(&self) -> usize {
        self.dim
    }

    fn apply_inverse(&self, x: &[f64]) -> Result<Vec<f64>> {
        check_vector(x, self.dim)?;
        let parts = self.blocks.par_iter().zip(x.par_chunks(self.size));
        Ok(parts.map(|(block, x)| block.dot(&aview1(x)).to_vec()).collect::<Vec<_>>().concat())
    }

    fn diag_inverse(&self) -> Result<Vec<f64>> {
        super::fixed::positive::<f64>(self.blocks.iter().flat_map(|block| block.diag().to_vec()).collect())
    }
}
