//! The scales and zeros of a matrix.

use super::range::{between, fit};
use super::{Affine, Granularity, LEAST_SCALE, Scheme};
use candle_core::{Device, Tensor};
use ndarray::{Array2, ArrayView2, Zip, s};
use offprint_core::{Error, Result};
use offprint_nn::computation;
use offprint_nn::ops::{Beyond, fake_quantise};

/// Quantisers of a matrix (out, in), one for each group of columns in each row.
#[derive(Debug, Clone, PartialEq)]
pub struct Grid {
    /// First and last code.
    pub codes: (i32, i32),
    /// Columns of a group.
    pub group: usize,
    /// Steps (rows, groups), or (1, 1) for all weights.
    pub scales: Array2<f32>,
    /// Codes of 0, of the same shape.
    pub zeros: Array2<f32>,
    /// The group of each column, where it is not column / group: after columns were taken in another order.
    pub group_of: Option<Vec<u32>>,
}

impl Grid {
    /// The quantisers of `scheme` for `weight` (out, in). The layer's `name` stands in errors.
    ///
    /// # Errors
    /// As [`Scheme::check`].
    pub fn fit(name: &str, weight: ArrayView2<'_, f32>, scheme: &Scheme) -> Result<Self> {
        Self::fit_kept(name, weight, None, scheme)
    }

    /// As [`Self::fit`] over the weights that `keep` does not prune.
    ///
    /// # Errors
    /// As there.
    pub fn fit_kept(
        name: &str,
        weight: ArrayView2<'_, f32>,
        keep: Option<ArrayView2<'_, bool>>,
        scheme: &Scheme,
    ) -> Result<Self> {
        let (rows, columns) = weight.dim();
        scheme.check(name, columns)?;
        let mut grid = Self::blank(rows, columns, scheme);
        let fitted = |rows: std::ops::Range<usize>, columns: std::ops::Range<usize>| {
            let part = s![rows, columns];
            match &keep {
                None => fit(scheme, weight.slice(part).iter()),
                Some(keep) => {
                    let kept = weight.slice(part).into_iter().zip(keep.slice(part)).filter(|(_, keep)| **keep);
                    fit(scheme, kept.map(|(w, _)| w))
                }
            }
        };
        if scheme.granularity == Granularity::Tensor {
            grid.set(0, 0, fitted(0..rows, 0..columns));
            return Ok(grid);
        }
        for row in 0..rows {
            for group in 0..grid.scales.ncols() {
                let columns = group * grid.group..(group + 1) * grid.group;
                grid.set(row, group, fitted(row..row + 1, columns));
            }
        }
        Ok(grid)
    }

    /// A grid of `scheme` for a matrix (rows, columns), whose scales are still to be set.
    pub fn blank(rows: usize, columns: usize, scheme: &Scheme) -> Self {
        let group = scheme.group(columns).max(1);
        let shape = if scheme.granularity == Granularity::Tensor { (1, 1) } else { (rows, columns.div_ceil(group)) };
        let Affine { scale, zero, codes } = between(scheme, 0.0, 0.0);
        Self {
            codes,
            group,
            scales: Array2::from_elem(shape, scale),
            zeros: Array2::from_elem(shape, zero),
            group_of: None,
        }
    }

    /// Sets the scale and the zero of a group.
    pub fn set(&mut self, row: usize, group: usize, affine: Affine) {
        self.scales[[row, group]] = affine.scale;
        self.zeros[[row, group]] = affine.zero;
    }

    /// The quantiser of the weight at (row, column).
    #[inline]
    pub fn affine(&self, row: usize, column: usize) -> Affine {
        let group = self.group_of.as_ref().map_or(column / self.group, |groups| groups[column] as usize);
        let at = [row % self.scales.nrows(), group % self.scales.ncols()];
        Affine { scale: self.scales[at], zero: self.zeros[at], codes: self.codes }
    }

    /// The codes of `weight`, counted from the first: (out, in).
    pub fn encode(&self, weight: ArrayView2<'_, f32>) -> Array2<u8> {
        Array2::from_shape_fn(weight.dim(), |(i, j)| (self.affine(i, j).code(weight[[i, j]]) - self.codes.0) as u8)
    }

    /// The values of `codes`, which are counted from the first.
    pub fn decode(&self, codes: ArrayView2<'_, u8>) -> Array2<f32> {
        Array2::from_shape_fn(codes.dim(), |(i, j)| self.affine(i, j).value(i32::from(codes[[i, j]]) + self.codes.0))
    }

    /// `weight` brought to its levels.
    pub fn fake(&self, weight: ArrayView2<'_, f32>) -> Array2<f32> {
        let mut values = weight.to_owned();
        Zip::indexed(&mut values).for_each(|(i, j), w| *w = self.affine(i, j).fake(*w));
        values
    }

    /// Σ (w − ŵ)².
    pub fn squared_error(&self, weight: ArrayView2<'_, f32>) -> f64 {
        Zip::from(&weight).and(&self.fake(weight)).fold(0.0, |sum, w, q| sum + f64::from(w - q).powi(2))
    }

    /// Bits of a code.
    pub fn bits(&self) -> u32 {
        ((self.codes.1 - self.codes.0) as u32 + 1).next_power_of_two().trailing_zeros()
    }

    /// Groups whose weights are all equal, so that their scale is the least one.
    pub fn constant_groups(&self) -> usize {
        self.scales.iter().filter(|&&s| s <= LEAST_SCALE).count()
    }

    /// Scales and zeros as tensors, and the run of elements that share one, as [`fake_quantise`] takes them for a weight of
    /// (out, in) or of any shape with the same elements.
    ///
    /// # Errors
    /// Columns that stand in another order.
    pub fn tensors(&self) -> Result<(Tensor, Tensor, usize)> {
        if self.group_of.is_some() {
            return Err(Error::Numerical("a grid over reordered columns has no runs of equal scale".into()));
        }
        let tensor =
            |values: &Array2<f32>| Tensor::from_iter(values.iter().copied(), &Device::Cpu).map_err(computation);
        Ok((tensor(&self.scales)?, tensor(&self.zeros)?, self.group))
    }

    /// `weight`, of any shape with the matrix's elements, brought to its levels with a straight-through gradient.
    ///
    /// # Errors
    /// Columns that stand in another order; another number of elements.
    pub fn fake_tensor(&self, weight: &Tensor, beyond: Beyond) -> Result<Tensor> {
        let (scale, zero, run) = self.tensors()?;
        let cast = |t: Tensor| t.to_dtype(weight.dtype());
        cast(scale)
            .and_then(|scale| fake_quantise(weight, &scale, &cast(zero)?, self.codes, run, beyond))
            .map_err(computation)
    }
}
