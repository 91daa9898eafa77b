//! The block-diagonal variant: the same recursion on every block of coordinates by itself.

use super::fixed::MfacStatic;
use super::gradients::{check_rows, check_vector};
use crate::{Inverse, Real};
use ndarray::{ArrayView2, Axis};
use offprint_core::{Error, Result};
use rayon::prelude::*;

/// The inverse of F̂ with everything outside its diagonal blocks set to zero. Blocks are contiguous, the last one may be
/// shorter; all use the same m. Setup O(d m²), like the full matrix, but each block's directions lie together, and
/// blocks are independent.
#[derive(Debug, Clone)]
pub struct MfacBlocks<T = f32> {
    blocks: Vec<MfacStatic<T>>,
    size: usize,
    dim: usize,
}

impl<T: Real> MfacBlocks<T> {
    /// From `gradients (m, d)`, damping λ and block size b.
    ///
    /// # Errors
    /// `block` = 0, and as for [`MfacStatic::new`].
    pub fn new(gradients: ArrayView2<'_, T>, damp: f64, block: usize) -> Result<Self> {
        check_rows(gradients)?;
        if block == 0 {
            return Err(Error::parameter("block", block, "at least 1"));
        }
        // Checked here because within a block the column would be counted from the block's start.
        super::gradients::check_finite(gradients, "grads")?;
        let blocks: Result<Vec<_>> = gradients
            .axis_chunks_iter(Axis(1), block)
            .into_par_iter()
            .map(|columns| MfacStatic::new(columns.as_standard_layout().into_owned(), damp))
            .collect();
        Ok(Self { blocks: blocks?, size: block, dim: gradients.ncols() })
    }

    /// The blocks, in the order of their coordinates.
    pub fn blocks(&self) -> &[MfacStatic<T>] {
        &self.blocks
    }
}

impl<T: Real> Inverse for MfacBlocks<T> {
    fn dim(&self) -> usize {
        self.dim
    }

    fn apply_inverse(&self, x: &[f64]) -> Result<Vec<f64>> {
        check_vector(x, self.dim)?;
        let parts: Result<Vec<Vec<f64>>> =
            self.blocks.par_iter().zip(x.par_chunks(self.size)).map(|(block, x)| block.apply_inverse(x)).collect();
        Ok(parts?.concat())
    }

    fn diag_inverse(&self) -> Result<Vec<f64>> {
        let parts: Result<Vec<Vec<f64>>> = self.blocks.par_iter().map(Inverse::diag_inverse).collect();
        Ok(parts?.concat())
    }
}
