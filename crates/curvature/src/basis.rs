//! Covariances kept by diagonal blocks, and the eigenbases that follow from them.
//!
//! With one block nothing is left out. With more, memory and the cost of a product fall by the number of blocks, at the
//! price of the correlations between them (Grosse et al. 2023, appendix A).

use ndarray::{Array1, Array2, ArrayView2, s};
use offprint_core::Result;
use offprint_math::linalg::{eigh, gemm, matmul};
use std::ops::Range;

/// Σ x xᵀ over rows x, within diagonal blocks.
#[derive(Debug, Clone)]
pub(crate) struct Covariance {
    blocks: Vec<Array2<f64>>,
}

/// An orthogonal matrix Q that is block-diagonal.
#[derive(Debug, Clone)]
pub(crate) struct Basis {
    blocks: Vec<Array2<f64>>,
}

impl Covariance {
    /// Nothing added yet of rows of `dim` values; at most one block a value.
    pub fn new(dim: usize, blocks: usize) -> Self {
        let blocks = blocks.clamp(1, dim.max(1));
        let edge = |block: usize| block * dim / blocks;
        Self { blocks: (0..blocks).map(|b| edge(b + 1) - edge(b)).map(|n| Array2::zeros((n, n))).collect() }
    }

    /// Adds the rows of `x (n, dim)`.
    pub fn add(&mut self, x: ArrayView2<'_, f64>) {
        for (range, block) in ranges(&self.blocks).zip(&mut self.blocks) {
            let part = x.slice(s![.., range]);
            gemm(1.0, part.t(), part, true, block.view_mut());
        }
    }

    /// The sum as one matrix, zero outside of the blocks.
    pub fn matrix(&self) -> Array2<f64> {
        assembled(&self.blocks)
    }

    /// Eigenvalues and eigenvectors of the sum over `count`.
    pub fn decompose(&self, count: usize) -> Result<(Array1<f64>, Basis)> {
        let (mut values, mut blocks) = (Vec::new(), Vec::new());
        for block in &self.blocks {
            // Sums of rounded products are symmetric only to rounding.
            let symmetric = (block + &block.t()) / (2.0 * count.max(1) as f64);
            let (of_block, vectors) = eigh(symmetric.view())?;
            values.extend(of_block);
            blocks.push(vectors);
        }
        Ok((values.into(), Basis { blocks }))
    }
}

impl Basis {
    /// The basis whose vectors are the columns of `q`.
    pub fn whole(q: Array2<f64>) -> Self {
        Self { blocks: vec![q] }
    }

    /// Q as one matrix.
    pub fn matrix(&self) -> Array2<f64> {
        assembled(&self.blocks)
    }

    /// `x Q` for rows `x (n, dim)`.
    pub fn coordinates(&self, x: ArrayView2<'_, f64>) -> Array2<f64> {
        self.by_blocks(x, |part, block| matmul(part, block))
    }

    /// `x Qᵀ` for rows `x (n, dim)`.
    pub fn combine(&self, x: ArrayView2<'_, f64>) -> Array2<f64> {
        self.by_blocks(x, |part, block| matmul(part, block.t()))
    }

    /// The basis of squares, which carries variances.
    pub fn squared(&self) -> Self {
        Self { blocks: self.blocks.iter().map(|block| block.mapv(|x| x * x)).collect() }
    }

    fn by_blocks(
        &self,
        x: ArrayView2<'_, f64>,
        product: impl Fn(ArrayView2<'_, f64>, ArrayView2<'_, f64>) -> Array2<f64>,
    ) -> Array2<f64> {
        if let [block] = self.blocks.as_slice() {
            return product(x, block.view());
        }
        let mut y = Array2::zeros(x.raw_dim());
        for (range, block) in ranges(&self.blocks).zip(&self.blocks) {
            y.slice_mut(s![.., range.clone()]).assign(&product(x.slice(s![.., range]), block.view()));
        }
        y
    }
}

/// Where each block stands.
fn ranges(blocks: &[Array2<f64>]) -> impl Iterator<Item = Range<usize>> + use<> {
    let sizes: Vec<usize> = blocks.iter().map(|block| block.nrows()).collect();
    sizes.into_iter().scan(0, |start, size| {
        *start += size;
        Some(*start - size..*start)
    })
}

fn assembled(blocks: &[Array2<f64>]) -> Array2<f64> {
    let dim = blocks.iter().map(|block| block.nrows()).sum();
    let mut matrix = Array2::zeros((dim, dim));
    for (range, block) in ranges(blocks).zip(blocks) {
        matrix.slice_mut(s![range.clone(), range]).assign(block);
    }
    matrix
}
