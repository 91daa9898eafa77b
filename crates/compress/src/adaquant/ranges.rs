//! Quantisers whose ranges are trained.

use crate::layer::matrix;
use crate::quantiser::{Affine, Grid};
use candle_core::{DType, Device, Tensor, Var};
use ndarray::Array2;
use offprint_core::{Error, Result};
use offprint_nn::computation;
use offprint_nn::ops::{Beyond, fake_quantise, round_straight_through};

/// The least and the largest range that a quantiser may have.
const RANGE: (f64, f64) = (1e-6, 1e5);

/// Uniform quantisers of `bits` bits given by a range r > 0 and a minimum m ≤ 0: with first code q⁻ = −2^(b−1) and last
/// code q⁺ = q⁻ + 2^b − 1 the scale is s = r / (q⁺ − q⁻) and the zero z = clip(round(q⁻ − m/s)). Both roundings are
/// straight through and the clip has its own derivative, so that r and m have gradients through s and z.
#[derive(Debug, Clone)]
pub struct Ranges {
    /// r, one for each quantiser.
    pub range: Var,
    /// m, one for each quantiser.
    pub minimum: Var,
    codes: (i32, i32),
    run: usize,
}

impl Ranges {
    /// One quantiser a row of `weight` (out, …), from its least to its greatest weight, 0 between them.
    ///
    /// # Errors
    /// Bits outside 1 to 8.
    pub fn of_weight(weight: &Tensor, bits: u32) -> Result<Self> {
        let rows = matrix(weight)?;
        let ends =
            rows.rows().into_iter().map(|row| row.iter().fold((0.0f32, 0.0f32), |(l, h), &w| (l.min(w), h.max(w))));
        Self::between(ends, bits, rows.ncols())
    }

    /// One quantiser for all of a layer's inputs `x` (n, …): from the mean over samples of their least value to the mean
    /// of their greatest.
    ///
    /// # Errors
    /// Bits outside 1 to 8; no sample.
    pub fn of_inputs(x: &Tensor, bits: u32) -> Result<Self> {
        let samples = matrix(x)?;
        if samples.is_empty() {
            return Err(Error::input("calibration", "holds no sample"));
        }
        let (mut low, mut high) = (0.0, 0.0);
        for sample in samples.rows() {
            let (l, h) = sample.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), &x| (l.min(x), h.max(x)));
            low += f64::from(l) / samples.nrows() as f64;
            high += f64::from(h) / samples.nrows() as f64;
        }
        Self::between([((low as f32).min(0.0), (high as f32).max(0.0))].into_iter(), bits, samples.ncols())
    }

    /// Quantisers that reach from each first to each second number, in turn for `run` consecutive elements each.
    fn between(ends: impl Iterator<Item = (f32, f32)>, bits: u32, run: usize) -> Result<Self> {
        if !(1..=8).contains(&bits) {
            return Err(Error::parameter("bits", bits, "between 1 and 8"));
        }
        let (minimum, range): (Vec<f32>, Vec<f32>) =
            ends.map(|(low, high)| (low, if high > low { high - low } else { 1.0 })).unzip();
        let var = |values: Vec<f32>| Tensor::new(values, &Device::Cpu).and_then(|t| Var::from_tensor(&t));
        let first = -(1 << (bits - 1));
        Ok(Self {
            range: var(range).map_err(computation)?,
            minimum: var(minimum).map_err(computation)?,
            codes: (first, first + (1 << bits) - 1),
            run,
        })
    }

    /// `x` brought to its levels.
    ///
    /// # Errors
    /// Elements that the quantisers do not share out.
    pub fn fake(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let (scale, zero) = self.scale_and_zero(x.dtype())?;
        let run = if self.range.elem_count() == 1 { x.elem_count() } else { self.run };
        fake_quantise(x, &scale, &zero, self.codes, run, Beyond::Stops)
    }

    fn scale_and_zero(&self, dtype: DType) -> candle_core::Result<(Tensor, Tensor)> {
        let (first, last) = (f64::from(self.codes.0), f64::from(self.codes.1));
        let scale = self.range.clamp(RANGE.0, RANGE.1)?.affine(1.0 / (last - first), 0.0)?;
        let zero = round_straight_through(&self.minimum.div(&scale)?.affine(-1.0, first)?)?.clamp(first, last)?;
        Ok((scale.to_dtype(dtype)?, zero.to_dtype(dtype)?))
    }

    /// Puts r and m back to where they mean something: r ≥ 10⁻⁶ and m ≤ 0. Called after each step of an optimiser.
    ///
    /// # Errors
    /// None but those of the tensor library.
    pub fn constrain(&self) -> candle_core::Result<()> {
        self.range.set(&self.range.detach().clamp(RANGE.0, RANGE.1)?)?;
        self.minimum.set(&self.minimum.detach().clamp(f64::from(f32::MIN), 0.0)?)
    }

    /// The same quantisers with ranges `factor` times as long and minima moved by `shift`.
    ///
    /// # Errors
    /// None but those of the tensor library.
    pub fn moved(&self, factor: f64, shift: f64) -> Result<Self> {
        let var = |t: candle_core::Result<Tensor>| t.and_then(|t| Var::from_tensor(&t)).map_err(computation);
        let moved = Self {
            range: var(self.range.affine(factor, 0.0))?,
            minimum: var(self.minimum.affine(1.0, shift))?,
            codes: self.codes,
            run: self.run,
        };
        moved.constrain().map_err(computation)?;
        Ok(moved)
    }

    /// The mean of r.
    ///
    /// # Errors
    /// None but those of the tensor library.
    pub fn mean_range(&self) -> Result<f64> {
        let mean = self.range.mean_all().and_then(|m| m.to_dtype(DType::F64)?.to_scalar::<f64>());
        mean.map_err(computation)
    }

    /// The quantisers as they are now.
    ///
    /// # Errors
    /// None but those of the tensor library.
    pub fn affines(&self) -> Result<Vec<Affine>> {
        let (scale, zero) = self.scale_and_zero(DType::F32).map_err(computation)?;
        let values = |t: Tensor| t.to_vec1::<f32>().map_err(computation);
        let pairs = values(scale)?.into_iter().zip(values(zero)?);
        Ok(pairs.map(|(scale, zero)| Affine { scale, zero, codes: self.codes }).collect())
    }

    /// The quantisers of a weight's rows as a grid over `columns` columns.
    ///
    /// # Errors
    /// None but those of the tensor library.
    pub fn grid(&self, columns: usize) -> Result<Grid> {
        let affines = self.affines()?;
        let column = |of: fn(&Affine) -> f32| Array2::from_shape_fn((affines.len(), 1), |(i, _)| of(&affines[i]));
        Ok(Grid {
            codes: self.codes,
            group: columns,
            scales: column(|a| a.scale),
            zeros: column(|a| a.zero),
            group_of: None,
        })
    }
}
