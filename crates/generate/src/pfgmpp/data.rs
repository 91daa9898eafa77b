//! Data in the units of the hyper-parameters, and back.

use crate::check;
use ndarray::{Array1, Array2, ArrayView2, Axis};
use offprint_core::{Error, Result};

/// Data (n, N), moved and scaled so that σ means the same for every data set.
#[derive(Debug, Clone)]
pub struct Scaled {
    /// The data (n, N) in these units.
    pub points: Array2<f64>,
    centre: Array1<f64>,
    unit: f64,
}

impl Scaled {
    /// Standard deviation over all numbers that EDM's noise levels are made for.
    pub const DEVIATION: f64 = 0.5;

    /// `data` with each column's mean removed, scaled to the standard deviation ½ over all numbers.
    ///
    /// # Errors
    /// No rows, values that are not finite, data that are all equal.
    pub fn new(data: ArrayView2<'_, f64>) -> Result<Self> {
        check::rows("data", data)?;
        let centre = data.mean_axis(Axis(0)).expect("there are rows");
        let centred = &data - &centre;
        let deviation = (centred.iter().map(|v| v * v).sum::<f64>() / centred.len() as f64).sqrt();
        // Rounding of a constant column leaves a little.
        let largest = data.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        if deviation <= 1e-12 * largest {
            return Err(Error::input("data", "is constant (standard deviation 0): there is nothing to learn"));
        }
        let unit = deviation / Self::DEVIATION;
        Ok(Self { points: centred / unit, centre, unit })
    }

    /// `data` as it is.
    ///
    /// # Errors
    /// No rows, values that are not finite.
    pub fn raw(data: Array2<f64>) -> Result<Self> {
        check::rows("data", data.view())?;
        let centre = Array1::zeros(data.ncols());
        Ok(Self { points: data, centre, unit: 1.0 })
    }

    /// The same units, with the points `rows` alone.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Self {
        Self { points: self.points.select(Axis(0), rows), centre: self.centre.clone(), unit: self.unit }
    }

    /// Points (m, N) in the units of the data that came in.
    pub fn restore(&self, points: ArrayView2<'_, f64>) -> Array2<f64> {
        &points * self.unit + &self.centre
    }
}
