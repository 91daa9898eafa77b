//! AdaRound (Nagel et al. 2020): learns for each weight whether to round up or down.

use super::{Target, WeightMethod};
use crate::calibration::{Calibration, Needs};
use crate::layer::Layer;
use crate::packed::Packed;
use crate::quantiser::Grid;
use ndarray::{Array2, Axis, Zip};
use offprint_core::random::Stream;
use offprint_core::{Error, Result};
use offprint_math::linalg::matmul;
use rand::RngExt;

/// Minimises the mean squared error of the layer's outputs over ŵ = s (clip(⌊w/s⌋ + h(V) + z) − z), with a penalty
/// λ Σ (1 − |2h − 1|^β) that drives each h to 0 or 1 in the end. The scale stays as the scheme finds it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdaRound {
    /// Steps of Adam. The first fifth has no penalty, then β falls from 20 to 2.
    pub steps: usize,
    /// Rows of input that are kept to draw batches from.
    pub samples: usize,
    /// Rows of a batch.
    pub batch: usize,
    /// Adam's learning rate.
    pub rate: f32,
    /// λ
    pub penalty: f32,
}

impl Default for AdaRound {
    fn default() -> Self {
        Self { steps: 20_000, samples: 1024, batch: 32, rate: 1e-3, penalty: 0.01 }
    }
}

/// h(V) = clip(1.2 σ(V) − 0.1, 0, 1) and its derivative.
fn soft_step(v: f32) -> (f32, f32) {
    let sigmoid = 1.0 / (1.0 + (-v).exp());
    let h = 1.2 * sigmoid - 0.1;
    if (0.0..=1.0).contains(&h) { (h, 1.2 * sigmoid * (1.0 - sigmoid)) } else { (h.clamp(0.0, 1.0), 0.0) }
}

impl WeightMethod for AdaRound {
    fn name(&self) -> &str {
        "adaround"
    }

    fn needs(&self, _: &Target) -> Needs {
        Needs::rows(self.samples)
    }

    fn compress(&self, layer: &Layer, seen: &Calibration, target: &Target, stream: Stream) -> Result<Packed> {
        let scheme = target.scheme_only("adaround")?;
        let name = &layer.place.name;
        let rows = seen.rows.as_ref().filter(|rows| rows.nrows() > 0 && self.batch > 0);
        let rows = rows.ok_or_else(|| Error::Numerical(format!("layer \"{name}\" was calibrated without inputs")))?;
        let weight = &layer.weight;
        let grid = Grid::fit(name, weight.view(), &scheme)?;
        let affine = |i: usize, j: usize| grid.affine(i, j);
        // ⌊w/s⌋ + z, and V such that h(V) is the fraction that was cut off.
        let below = Array2::from_shape_fn(weight.dim(), |(i, j)| {
            let a = affine(i, j);
            (weight[[i, j]] / a.scale).floor() + a.zero
        });
        let mut v = Array2::from_shape_fn(weight.dim(), |(i, j)| {
            let scaled = weight[[i, j]] / affine(i, j).scale;
            -(1.2 / (scaled - scaled.floor() + 0.1) - 1.0).ln()
        });
        let value = |i: usize, j: usize, code: f32| {
            let a = affine(i, j);
            let (low, high) = (a.codes.0 as f32, a.codes.1 as f32);
            // The slope is that of the clip.
            let slope = if (low..=high).contains(&code) { a.scale } else { 0.0 };
            ((code.clamp(low, high) - a.zero) * a.scale, slope)
        };
        let (mut m, mut s) = (Array2::<f32>::zeros(weight.dim()), Array2::<f32>::zeros(weight.dim()));
        let warm = self.steps / 5;
        for step in 0..self.steps {
            let mut rng = stream.rng(step as u64);
            let batch: Vec<usize> = (0..self.batch).map(|_| rng.random_range(0..rows.nrows())).collect();
            let x = rows.select(Axis(0), &batch);
            // ŵ − w, and the slope of ŵ in V.
            let mut slope = Array2::<f32>::zeros(weight.dim());
            let mut difference = Array2::<f32>::zeros(weight.dim());
            Zip::indexed(&mut difference).and(&mut slope).and(&v).for_each(|(i, j), difference, slope, &v| {
                let (h, dh) = soft_step(v);
                let (w, dw) = value(i, j, below[[i, j]] + h);
                *difference = w - weight[[i, j]];
                *slope = dw * dh;
            });
            let error = matmul(x.view(), difference.t());
            let pull = matmul(error.t(), x.view()) * (2.0 / self.batch as f32);
            let beta = (step >= warm).then(|| {
                let done = (step - warm) as f32 / (self.steps - warm).max(1) as f32;
                2.0 + 18.0 * (1.0 - done)
            });
            let corrections = [0.9_f32, 0.999].map(|decay| 1.0 - decay.powi(step as i32 + 1));
            Zip::indexed(&mut v).and(&mut m).and(&mut s).and(&pull).for_each(|(i, j), v, m, s, &pull| {
                let mut g = pull * slope[[i, j]];
                if let Some(beta) = beta {
                    let (h, dh) = soft_step(*v);
                    let off = 2.0 * h - 1.0;
                    g -= self.penalty * beta * off.abs().powf(beta - 1.0) * 2.0 * off.signum() * dh;
                }
                *m = 0.9 * *m + 0.1 * g;
                *s = 0.999 * *s + 0.001 * g * g;
                *v -= self.rate * (*m / corrections[0]) / ((*s / corrections[1]).sqrt() + 1e-8);
            });
        }
        let rounded = Array2::from_shape_fn(weight.dim(), |(i, j)| {
            value(i, j, below[[i, j]] + if v[[i, j]] >= 0.0 { 1.0 } else { 0.0 }).0
        });
        Ok(Packed::coded(name, &layer.place.shape, rounded.view(), grid, None))
    }
}
