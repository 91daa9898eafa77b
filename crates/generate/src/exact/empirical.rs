//! The exact denoiser of a data table: what a network that has learnt its data by heart would say.

use crate::{Denoiser, Kernel, check};
use ndarray::{Array1, Array2, ArrayView2, Axis, Zip, s};
use offprint_core::Result;
use offprint_math::{linalg, vector};
use rayon::prelude::*;

/// Posterior means over a table of data (N, d), for Gaussian and Student noise.
///
/// D = Σ_i w_i x_i with w_i ∝ exp(−|y − x_i|²/(2τ²)), or ∝ (1 + |y − x_i|²/(τ² D))^−(d+D)/2. Tiles of the table with a
/// running soft-max: O(n N d) time, O(n · tile) memory.
#[derive(Debug, Clone)]
pub struct ExactEmpirical {
    data: Array2<f64>,
    /// |x_i|² (N).
    squares: Array1<f64>,
    kernel: Kernel,
}

/// Rows of the table in a tile, and points in a block: their product is what is in the cache.
const TILE: usize = 512;
const BLOCK: usize = 64;

impl ExactEmpirical {
    /// Over `data` (N, d) with noise of the law `kernel`.
    pub fn new(data: Array2<f64>, kernel: Kernel) -> Result<Self> {
        check::rows("data", data.view())?;
        let squares = data.outer_iter().map(|row| row.dot(&row)).collect();
        Ok(Self { data, squares, kernel })
    }

    /// The data (N, d).
    pub fn data(&self) -> ArrayView2<'_, f64> {
        self.data.view()
    }

    /// The posterior weights (n, N) of the data behind `y` (n, d).
    pub fn posterior(&self, y: ArrayView2<'_, f64>, tau: f64) -> Result<Array2<f64>> {
        self.check(y, tau)?;
        let mut weights = Array2::zeros((y.nrows(), self.data.nrows()));
        weights.axis_chunks_iter_mut(Axis(0), BLOCK).into_par_iter().zip(y.axis_chunks_iter(Axis(0), BLOCK)).for_each(
            |(mut block, y)| {
                self.log_kernel(y, 0..self.data.nrows(), tau, &mut block);
                block.outer_iter_mut().for_each(|mut row| {
                    vector::softmax(row.as_slice_mut().expect("own rows are contiguous"));
                });
            },
        );
        Ok(weights)
    }

    fn check(&self, y: ArrayView2<'_, f64>, tau: f64) -> Result<()> {
        check::dimension("points", y, "the data", self.dim())?;
        check::positive("tau", tau)
    }

    /// Logarithms of the kernel up to a constant, for points `y` and the table's `rows`, into `out`.
    fn log_kernel(
        &self,
        y: ArrayView2<'_, f64>,
        rows: std::ops::Range<usize>,
        tau: f64,
        out: &mut ndarray::ArrayViewMut2<'_, f64>,
    ) {
        let data = self.data.slice(s![rows.clone(), ..]);
        let squares = self.squares.slice(s![rows]);
        let d = self.dim() as f64;
        // −2 y·x, then the squared distances.
        linalg::gemm(-2.0, y, data.t(), false, out.view_mut());
        for (mut out, y) in out.outer_iter_mut().zip(y.outer_iter()) {
            let own = y.dot(&y);
            let distance = |cross: f64, square: f64| (cross + square + own).max(0.0);
            match self.kernel {
                Kernel::Gaussian => {
                    let scale = -0.5 / (tau * tau);
                    Zip::from(&mut out).and(&squares).for_each(|o, &s| *o = scale * distance(*o, s));
                }
                Kernel::StudentT { freedom } => {
                    let scale = 1.0 / (tau * tau * freedom);
                    Zip::from(&mut out).and(&squares).for_each(|o, &s| *o = 1.0 + scale * distance(*o, s));
                    let power = -0.5 * (d + freedom);
                    let out = out.as_slice_mut().expect("own rows are contiguous");
                    vector::ln(out);
                    out.iter_mut().for_each(|o| *o *= power);
                }
            }
        }
    }

    /// D for a block of points, with a soft-max that runs over the tiles.
    fn denoise_block(&self, y: ArrayView2<'_, f64>, tau: f64, mut out: ndarray::ArrayViewMut2<'_, f64>) {
        let n = y.nrows();
        let mut top = vec![f64::NEG_INFINITY; n];
        let mut total = vec![0.0; n];
        let mut tile = Array2::zeros((n, TILE.min(self.data.nrows())));
        for start in (0..self.data.nrows()).step_by(TILE) {
            let rows = start..(start + TILE).min(self.data.nrows());
            let mut logs = tile.slice_mut(s![.., ..rows.len()]);
            self.log_kernel(y, rows.clone(), tau, &mut logs);
            for (i, mut row) in logs.outer_iter_mut().enumerate() {
                let row = row.as_slice_mut().expect("rows of a tile are contiguous");
                let new_top = vector::max(row).max(top[i]);
                // What was summed so far is in units of the old maximum.
                let fade = (top[i] - new_top).exp();
                row.iter_mut().for_each(|l| *l -= new_top);
                vector::exp(row);
                total[i] = total[i] * fade + row.iter().sum::<f64>();
                if fade != 1.0 {
                    out.row_mut(i).mapv_inplace(|v| v * fade);
                }
                top[i] = new_top;
            }
            linalg::gemm(1.0, logs.view(), self.data.slice(s![rows, ..]), true, out.view_mut());
        }
        for (mut row, total) in out.outer_iter_mut().zip(total) {
            row /= total;
        }
    }
}

impl Denoiser for ExactEmpirical {
    fn dim(&self) -> usize {
        self.data.ncols()
    }

    fn kernel(&self) -> Kernel {
        self.kernel
    }

    fn denoise(&self, y: ArrayView2<'_, f64>, tau: f64) -> Result<Array2<f64>> {
        self.check(y, tau)?;
        let mut out = Array2::zeros(y.dim());
        out.axis_chunks_iter_mut(Axis(0), BLOCK)
            .into_par_iter()
            .zip(y.axis_chunks_iter(Axis(0), BLOCK))
            .for_each(|(out, y)| self.denoise_block(y, tau, out));
        Ok(out)
    }
}
