//! Laws of one and two dimensions by quadrature: what particles are compared with.

use super::Target;
use ndarray::Array2;
use offprint_core::{Error, Result};
use offprint_math::vector;

/// A target on a lattice, normalised over it.
#[derive(Debug, Clone)]
pub struct Lattice {
    /// The lattice's points (N, d), the last coordinate fastest.
    pub points: Array2<f64>,
    /// Probability of each cell (N).
    pub masses: Vec<f64>,
    /// log ∫ p̃.
    pub log_normaliser: f64,
    /// Points along each axis.
    pub count: usize,
    /// Volume of a cell.
    pub cell: f64,
}

impl Lattice {
    /// `target` at noise level `tau`, all steps done, on `count` points along each axis between the corners `low` and
    /// `high` (d). `None` if its density is not known. The rectangle rule: exact to rounding for smooth laws that vanish at
    /// the edges and are wider than a few cells. O(count^d) densities.
    ///
    /// # Errors
    /// More than two dimensions, corners that do not fit.
    pub fn of(target: &dyn Target, tau: f64, low: &[f64], high: &[f64], count: usize) -> Result<Option<Self>> {
        let d = target.dim();
        if d > 2 {
            return Err(Error::parameter("dimension", d, "1 or 2 for quadrature"));
        }
        if low.len() != d
            || high.len() != d
            || low.iter().zip(high).any(|(l, h)| l.is_nan() || h.is_nan() || l >= h)
            || count < 2
        {
            return Err(Error::parameter(
                "corners",
                format!("{low:?} and {high:?}"),
                "in order, one entry a dimension",
            ));
        }
        let gap: Vec<f64> = low.iter().zip(high).map(|(l, h)| (h - l) / count as f64).collect();
        let points = Array2::from_shape_fn((count.pow(d as u32), d), |(i, j)| {
            let index = if j + 1 == d { i % count } else { i / count };
            low[j] + (index as f64 + 0.5) * gap[j]
        });
        let Some(log) = target.log_density(points.view(), tau, 1.0)? else { return Ok(None) };
        let mut masses = log.to_vec();
        let cell: f64 = gap.iter().product();
        let log_normaliser = vector::log_sum_exp(&masses) + cell.ln();
        vector::softmax(&mut masses);
        Ok(Some(Self { points, masses, log_normaliser, count, cell }))
    }

    /// E h.
    pub fn expectation(&self, h: impl Fn(ndarray::ArrayView1<'_, f64>) -> f64) -> f64 {
        self.points.outer_iter().zip(&self.masses).map(|(row, m)| m * h(row)).sum()
    }
}
