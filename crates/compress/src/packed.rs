//! A layer's weights in compressed form: the single truth that exports and kernels are tested against.

use crate::quantiser::Grid;
use ndarray::{Array2, ArrayView2, Zip};
use offprint_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// What a pruning mask looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pattern {
    /// Anything.
    Unstructured,
    /// `n` of each `m` neighbours in a row are kept.
    NofM {
        /// Kept.
        n: usize,
        /// Of so many.
        m: usize,
    },
    /// Groups of so many neighbours in a row are kept or pruned whole.
    Groups(usize),
}

/// Which weights are kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Mask {
    /// True for a weight that is kept (out, in).
    pub keep: Array2<bool>,
    /// What the mask promises to look like.
    pub pattern: Pattern,
}

impl Mask {
    /// The share of weights that are pruned.
    pub fn sparsity(&self) -> f64 {
        1.0 - self.keep.iter().filter(|&&keep| keep).count() as f64 / self.keep.len().max(1) as f64
    }
}

/// The weights themselves.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// As they are (out, in): a layer that is only pruned, or left alone.
    Floats(Array2<f32>),
    /// Codes of a uniform quantiser, counted from its first.
    Codes {
        /// (out, in)
        codes: Array2<u8>,
        /// Their scales and zeros.
        grid: Grid,
    },
    /// Numbers of entries in a table.
    Codebook {
        /// (out, in)
        codes: Array2<u8>,
        /// (out, entries), or (1, entries) for all rows.
        book: Array2<f32>,
    },
}

/// A compressed layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Packed {
    /// Name of the layer, without `.weight`.
    pub name: String,
    /// Shape of the weight tensor; as a matrix (out, in) it is its first axis and all others.
    pub shape: Vec<usize>,
    /// The weights; what stands where the mask prunes does not matter.
    pub values: Values,
    /// Which of them are kept; all without one.
    pub mask: Option<Mask>,
}

impl Packed {
    /// Weights on the levels of `grid`: `weight` (out, in) is encoded.
    pub fn coded(name: &str, shape: &[usize], weight: ArrayView2<'_, f32>, grid: Grid, mask: Option<Mask>) -> Self {
        let values = Values::Codes { codes: grid.encode(weight), grid };
        Self { name: name.to_owned(), shape: shape.to_vec(), values, mask }
    }

    /// Weights as they are.
    pub fn floats(name: &str, shape: &[usize], weight: Array2<f32>, mask: Option<Mask>) -> Self {
        Self { name: name.to_owned(), shape: shape.to_vec(), values: Values::Floats(weight), mask }
    }

    /// Rows and columns.
    pub fn dim(&self) -> (usize, usize) {
        match &self.values {
            Values::Floats(weight) => weight.dim(),
            Values::Codes { codes, .. } | Values::Codebook { codes, .. } => codes.dim(),
        }
    }

    /// The weights (out, in) that a model computes with: 0 where they are pruned.
    pub fn dequant(&self) -> Array2<f32> {
        let mut weight = match &self.values {
            Values::Floats(weight) => weight.clone(),
            Values::Codes { codes, grid } => grid.decode(codes.view()),
            Values::Codebook { codes, book } => {
                Array2::from_shape_fn(codes.dim(), |(i, j)| book[[i % book.nrows(), codes[[i, j]] as usize]])
            }
        };
        if let Some(mask) = &self.mask {
            Zip::from(&mut weight).and(&mask.keep).for_each(|w, &keep| {
                if !keep {
                    *w = 0.0;
                }
            });
        }
        weight
    }

    /// Bits of a weight that is kept: 32 for one that is no code.
    pub fn bits(&self) -> u32 {
        match &self.values {
            Values::Floats(_) => 32,
            Values::Codes { grid, .. } => grid.bits(),
            Values::Codebook { book, .. } => book.ncols().next_power_of_two().trailing_zeros(),
        }
    }

    /// The share of weights that are pruned.
    pub fn sparsity(&self) -> f64 {
        self.mask.as_ref().map_or(0.0, Mask::sparsity)
    }

    /// Refuses values and masks of another shape than the layer's, codes beyond the last level, and a mask that breaks its
    /// pattern.
    ///
    /// # Errors
    /// What is wrong, with the layer's name.
    pub fn check(&self) -> Result<()> {
        let bad = |problem: String| Err(Error::input(format!("layer \"{}\"", self.name), problem));
        let (rows, columns) = self.dim();
        if self.shape.first() != Some(&rows) || self.shape[1..].iter().product::<usize>() != columns {
            return bad(format!("has weights ({rows}, {columns}), but the shape {:?}", self.shape));
        }
        let levels = match &self.values {
            Values::Floats(_) => 256,
            Values::Codes { grid, .. } => (grid.codes.1 - grid.codes.0) as usize + 1,
            Values::Codebook { book, .. } => book.ncols(),
        };
        if let Values::Codes { codes, .. } | Values::Codebook { codes, .. } = &self.values
            && let Some(code) = codes.iter().find(|&&code| usize::from(code) >= levels)
        {
            return bad(format!("holds the code {code}, but there are {levels} levels"));
        }
        if let Values::Codes { grid, .. } = &self.values
            && grid.scales.iter().chain(&grid.zeros).any(|x| !x.is_finite())
        {
            return bad("has a scale or zero that is not finite".into());
        }
        let Some(mask) = &self.mask else { return Ok(()) };
        if mask.keep.dim() != (rows, columns) {
            return bad(format!("has a mask {:?} for weights ({rows}, {columns})", mask.keep.dim()));
        }
        let (size, fits): (usize, Box<dyn Fn(usize) -> bool>) = match mask.pattern {
            Pattern::Unstructured => return Ok(()),
            Pattern::NofM { n, m } => (m, Box::new(move |kept| kept <= n)),
            Pattern::Groups(size) => (size, Box::new(move |kept| kept == 0 || kept == size)),
        };
        if size == 0 || !columns.is_multiple_of(size) {
            return bad(format!("has {columns} inputs, which groups of {size} do not divide"));
        }
        for row in mask.keep.rows() {
            for group in row.exact_chunks(size) {
                let kept = group.iter().filter(|&&keep| keep).count();
                if !fits(kept) {
                    return bad(format!("keeps {kept} of a group of {size}, against its pattern {:?}", mask.pattern));
                }
            }
        }
        Ok(())
    }
}
