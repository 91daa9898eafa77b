//! Learned step sizes (Esser et al. 2020).

use super::{ActivationQuantiser, Grid};
use crate::layer::matrix;
use candle_core::{Device, Tensor, Var};
use ndarray::Array2;
use offprint_core::{Error, Result};
use offprint_nn::computation;
use offprint_nn::ops::{Beyond, fake_quantise, scale_gradient};

/// The least step.
const FLOOR: f64 = 1e-5;

/// A quantiser ŵ = s round(clip(w/s, Q⁻, Q⁺)) whose steps s are trained with everything else.
#[derive(Debug, Clone)]
pub struct Lsq {
    /// The steps, one for each run of elements in turn.
    pub step: Var,
    codes: (i32, i32),
    run: usize,
    /// Times the deviation 2 mean|x| / √Q⁺ that a first batch sets the steps to; 0 once they are set.
    pending: f64,
}

impl Lsq {
    /// For a weight of any shape whose first axis is its outputs: signed codes of `bits` bits, one step a row, begun at
    /// 2 mean|w| / √Q⁺.
    ///
    /// # Errors
    /// Bits outside 2 to 8.
    pub fn of_weight(weight: &Tensor, bits: u32) -> Result<Self> {
        let rows = matrix(weight)?;
        let lsq = Self::with_steps(rows.nrows(), rows.ncols(), signed(bits)?)?;
        lsq.begin(rows.rows().into_iter().map(|row| mean_abs(row.iter())), 2.0)?;
        Ok(Self { pending: 0.0, ..lsq })
    }

    /// For activations, with one step for all: signed codes, or unsigned ones. The first batch seen sets the step, to
    /// 2 mean|x| / √Q⁺ for signed codes and 4 mean|x| / √Q⁺ for unsigned ones.
    ///
    /// # Errors
    /// Bits outside 2 to 8.
    pub fn of_activations(bits: u32, unsigned: bool) -> Result<Self> {
        let codes = if unsigned { (0, 2 * signed(bits)?.1 + 1) } else { signed(bits)? };
        Ok(Self { pending: if unsigned { 4.0 } else { 2.0 }, ..Self::with_steps(1, 1, codes)? })
    }

    /// `count` steps, each for `run` consecutive elements, that the caller begins.
    ///
    /// # Errors
    /// None but those of the tensor library.
    pub fn with_steps(count: usize, run: usize, codes: (i32, i32)) -> Result<Self> {
        let step = Tensor::ones(count, candle_core::DType::F32, &Device::Cpu).and_then(|t| Var::from_tensor(&t));
        Ok(Self { step: step.map_err(computation)?, codes, run, pending: 0.0 })
    }

    /// Sets each step to `factor` times its mean over √Q⁺.
    ///
    /// # Errors
    /// Another number of means than of steps.
    pub fn begin(&self, means: impl Iterator<Item = f64>, factor: f64) -> Result<()> {
        let root = f64::from(self.codes.1.max(1)).sqrt();
        let steps: Vec<f32> = means.map(|mean| (factor * mean / root).max(FLOOR) as f32).collect();
        Tensor::new(steps, &Device::Cpu).and_then(|t| self.step.set(&t)).map_err(computation)
    }

    /// First and last code.
    pub fn codes(&self) -> (i32, i32) {
        self.codes
    }

    /// The trained steps as a grid for a matrix (out, in), one scale a row.
    ///
    /// # Errors
    /// None but those of the tensor library.
    pub fn grid(&self, columns: usize) -> Result<Grid> {
        let steps = self.step.to_vec1::<f32>().map_err(computation)?;
        let scales: Vec<f32> = steps.into_iter().map(|s| s.max(FLOOR as f32)).collect();
        let shape = (scales.len(), 1);
        let scales = Array2::from_shape_vec(shape, scales).map_err(|e| Error::Numerical(e.to_string()))?;
        Ok(Grid { codes: self.codes, group: columns, zeros: Array2::zeros(shape), scales, group_of: None })
    }
}

impl ActivationQuantiser for Lsq {
    fn observe(&mut self, x: &Tensor) -> Result<()> {
        if self.pending > 0.0 {
            self.begin(std::iter::once(mean_abs(matrix(x)?.iter())), self.pending)?;
            self.pending = 0.0;
        }
        Ok(())
    }

    fn freeze(&mut self) -> Result<()> {
        Ok(())
    }

    /// The gradient of a step is scaled by 1/√(N Q⁺), N the elements that share it.
    fn fake(&self, x: &Tensor) -> Result<Tensor> {
        let share = x.elem_count() as f64 / self.step.elem_count() as f64;
        let slow = 1.0 / (share * f64::from(self.codes.1.max(1))).sqrt();
        let fake = || {
            let step = scale_gradient(&self.step.as_tensor().maximum(FLOOR)?, slow)?.to_dtype(x.dtype())?;
            let zero = Tensor::zeros(1, x.dtype(), x.device())?;
            let run = if self.step.elem_count() == 1 { x.elem_count() } else { self.run };
            fake_quantise(x, &step, &zero, self.codes, run, Beyond::Stops)
        };
        fake().map_err(computation)
    }
}

fn signed(bits: u32) -> Result<(i32, i32)> {
    if !(2..=8).contains(&bits) {
        return Err(Error::parameter("bits", bits, "between 2 and 8"));
    }
    Ok((-(1 << (bits - 1)), (1 << (bits - 1)) - 1))
}

fn mean_abs<'a>(values: impl Iterator<Item = &'a f32>) -> f64 {
    let (mut sum, mut count) = (0.0, 0_usize);
    for x in values {
        sum += f64::from(x.abs());
        count += 1;
    }
    sum / count.max(1) as f64
}
