//! The objective: how spiky the codes Dᵀy are, measured by their third powers.
//!
//! f(D; y) = −‖Dᵀy‖₃³ = −Σᵢ |dᵢᵀy|³ is to be minimised over ‖D‖₂ ≤ 1. Among codes of one energy, sparse ones have the
//! largest third powers; and because −f is convex in D, its largest value over the spectral ball is taken at an
//! orthogonal matrix.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Zip};
use offprint_core::Result;
use offprint_math::linalg;

/// Up to this many samples, one pass per sample beats the product routines' start-up.
const FEW: usize = 4;

/// Adds `weight` · Σ_y ∇f(D; y) to `gradient` (N, N) and leaves the codes Dᵀy in `codes` (B, N).
///
/// `dictionary` (N, N) holds atoms as columns, `batch` (B, N) samples as rows. ∇f = −3 y (z∘|z|)ᵀ with z = Dᵀy.
/// 4 B N² flop, no allocation. Gives Σ_y f(D; y).
///
/// # Panics
/// If the shapes do not fit.
pub fn accumulate_gradient(
    dictionary: ArrayView2<'_, f64>,
    batch: ArrayView2<'_, f64>,
    weight: f64,
    mut gradient: ArrayViewMut2<'_, f64>,
    codes: &mut Codes,
) -> f64 {
    let (samples, n) = batch.dim();
    codes.reserve(samples, n);
    let mut z = codes.z.slice_mut(ndarray::s![..samples, ..]);
    let mut spikes = codes.spikes.slice_mut(ndarray::s![..samples, ..]);
    if samples > FEW {
        linalg::gemm(1.0, batch, dictionary, false, z.view_mut());
        let value = cubes(z.view(), spikes.view_mut());
        linalg::gemm(-3.0 * weight, batch.t(), spikes.view(), true, gradient);
        return value;
    }
    z.fill(0.0);
    for (y, mut z) in batch.outer_iter().zip(z.outer_iter_mut()) {
        for (&y, atoms) in y.iter().zip(dictionary.outer_iter()) {
            Zip::from(&mut z).and(atoms).for_each(|z, &d| *z += y * d);
        }
    }
    let value = cubes(z.view(), spikes.view_mut());
    for (y, spikes) in batch.outer_iter().zip(spikes.outer_iter()) {
        for (&y, mut row) in y.iter().zip(gradient.outer_iter_mut()) {
            let scale = -3.0 * weight * y;
            Zip::from(&mut row).and(spikes).for_each(|g, &c| *g += scale * c);
        }
    }
    value
}

/// Writes z∘|z| into `spikes` and gives −Σ|z|³.
fn cubes(z: ArrayView2<'_, f64>, mut spikes: ArrayViewMut2<'_, f64>) -> f64 {
    let mut sum = 0.0;
    Zip::from(&mut spikes).and(z).for_each(|spike, &z| {
        *spike = z * z.abs();
        sum += *spike * z;
    });
    -sum
}

/// Memory for the codes of a batch.
#[derive(Debug, Clone, Default)]
pub struct Codes {
    z: Array2<f64>,
    spikes: Array2<f64>,
}

impl Codes {
    fn reserve(&mut self, samples: usize, n: usize) {
        if self.z.nrows() < samples || self.z.ncols() != n {
            self.z = Array2::zeros((samples, n));
            self.spikes = Array2::zeros((samples, n));
        }
    }
}

/// Mean objective (1/p) Σ f(D; y) and its gradient (N, N) over `samples` (p, N). 4 p N² flop.
pub fn mean_gradient(dictionary: ArrayView2<'_, f64>, samples: ArrayView2<'_, f64>) -> (f64, Array2<f64>) {
    let mut gradient = Array2::zeros(dictionary.dim());
    let mut codes = Codes::default();
    let weight = 1.0 / samples.nrows() as f64;
    let mut value = 0.0;
    // Blocks keep the codes in cache and the memory independent of p.
    for block in samples.axis_chunks_iter(ndarray::Axis(0), 4096) {
        value += accumulate_gradient(dictionary, block, weight, gradient.view_mut(), &mut codes);
    }
    (value * weight, gradient)
}

/// The Frank–Wolfe gap g(D) = max_{‖S‖₂≤1} ⟨D − S, ∇F⟩ = ⟨D, ∇F⟩ + ‖∇F‖_* of a gradient (N, N) at D (N, N).
///
/// It is zero exactly at stationary points of the relaxed problem and bounds, for convex F, the distance to the
/// optimum in value.
pub fn gap(dictionary: ArrayView2<'_, f64>, gradient: ArrayView2<'_, f64>) -> Result<f64> {
    let nuclear = linalg::svd(gradient)?.1.sum();
    Ok((&dictionary * &gradient).sum() + nuclear)
}
