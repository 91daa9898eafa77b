//! Energies: laws exp(−E/T) that networks are trained on at one temperature and annealed to a lower one.

use ndarray::{Array1, Array2, ArrayView2, Axis, Zip};
use offprint_core::{Error, Result};

/// A differentiable energy.
pub trait Energy: Sync {
    /// Components d of a point.
    fn dim(&self) -> usize;

    /// E and its gradient, written into `gradient` (d), at `x` (d). Infinite where the energy has a pole.
    fn evaluate(&self, x: &[f64], gradient: &mut [f64]) -> f64;

    /// Spatial dimensions, if points are configurations whose centre of mass is kept at the origin.
    fn centred(&self) -> Option<usize> {
        None
    }

    /// E (n) at `x` (n, d).
    ///
    /// # Errors
    /// Points of another dimension, or at a pole: the error names the row.
    fn energies(&self, x: ArrayView2<'_, f64>) -> Result<Array1<f64>> {
        crate::check::dimension("points", x, "the energy", self.dim())?;
        let mut gradient = vec![0.0; self.dim()];
        let energies: Array1<f64> = x.outer_iter().map(|row| self.evaluate(&row.to_vec(), &mut gradient)).collect();
        match energies.iter().position(|e| !e.is_finite()) {
            Some(row) => Err(Error::input("points", format!("row {row} has no finite energy: particles coincide"))),
            None => Ok(energies),
        }
    }
}

/// 4 (x² − 1)² + ½ y² in the plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DoubleWell;

impl Energy for DoubleWell {
    fn dim(&self) -> usize {
        2
    }

    fn evaluate(&self, x: &[f64], gradient: &mut [f64]) -> f64 {
        let apart = x[0] * x[0] - 1.0;
        gradient[0] = 16.0 * x[0] * apart;
        gradient[1] = x[1];
        4.0 * apart * apart + 0.5 * x[1] * x[1]
    }
}

/// N particles in space, Σ over ordered pairs of r⁻¹² − 2 r⁻⁶, plus ½ Σ |x_i − mean|², which holds them together. The
/// pair distance of least energy is 1. Coordinates are x₁ y₁ z₁ x₂ …. O(N²), powers of r² only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LennardJones {
    particles: usize,
}

impl LennardJones {
    /// For `particles` particles.
    pub fn new(particles: usize) -> Result<Self> {
        if particles < 2 {
            return Err(Error::parameter("particles", particles, "at least 2"));
        }
        Ok(Self { particles })
    }
}

impl Energy for LennardJones {
    fn dim(&self) -> usize {
        3 * self.particles
    }

    fn centred(&self) -> Option<usize> {
        Some(3)
    }

    fn evaluate(&self, x: &[f64], gradient: &mut [f64]) -> f64 {
        let n = self.particles;
        let mut mean = [0.0; 3];
        for point in x.chunks_exact(3) {
            mean.iter_mut().zip(point).for_each(|(m, p)| *m += p / n as f64);
        }
        let mut energy = 0.0;
        for (k, (g, p)) in gradient.iter_mut().zip(x).enumerate() {
            // The mean moves too, but its share of the gradient sums to nothing.
            *g = p - mean[k % 3];
            energy += 0.5 * *g * *g;
        }
        for i in 0..n {
            for j in 0..i {
                let apart: [f64; 3] = std::array::from_fn(|a| x[3 * i + a] - x[3 * j + a]);
                let inverse = 1.0 / apart.iter().map(|a| a * a).sum::<f64>();
                let sixth = inverse * inverse * inverse;
                // Ordered pairs: each pair counts twice.
                energy += 2.0 * (sixth * sixth - 2.0 * sixth);
                let force = 24.0 * (sixth - sixth * sixth) * inverse;
                for a in 0..3 {
                    gradient[3 * i + a] += force * apart[a];
                    gradient[3 * j + a] -= force * apart[a];
                }
            }
        }
        if energy.is_nan() { f64::INFINITY } else { energy }
    }
}

/// Distances (n, N (N − 1)/2) between the particles of each configuration of `x` (n, 3 N).
pub fn pair_distances(x: ArrayView2<'_, f64>) -> Array2<f64> {
    let particles = x.ncols() / 3;
    let pairs: Vec<(usize, usize)> = (0..particles).flat_map(|i| (0..i).map(move |j| (i, j))).collect();
    let mut distances = Array2::zeros((x.nrows(), pairs.len()));
    Zip::from(distances.rows_mut()).and(x.axis_iter(Axis(0))).for_each(|mut row, x| {
        for (d, (i, j)) in row.iter_mut().zip(&pairs) {
            *d = (0..3).map(|a| (x[3 * i + a] - x[3 * j + a]).powi(2)).sum::<f64>().sqrt();
        }
    });
    distances
}
