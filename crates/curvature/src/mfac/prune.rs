//! Pruning as an optimal brain surgeon does it, with the inverse curvature of M-FAC or of a baseline.

use super::blocks::MfacBlocks;
use super::factored::MfacFactored;
use super::fixed::MfacStatic;
use super::gradients::columns;
use super::woodfisher::WoodFisher;
use crate::{Inverse, wide};
use ndarray::{Array2, ArrayView2};
use offprint_core::{Error, Progress, Result};

/// What tells which weights matter least.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Criterion {
    /// |w|; the others keep their values.
    Magnitude,
    /// w² F̂_kk with F̂_kk the mean squared gradient; the others keep their values.
    DiagonalFisher,
    /// w²/(2 (F̂⁻¹)_kk) with the whole inverse; the others are adjusted.
    Mfac,
    /// The same with the inverse of diagonal blocks of this size, kept as directions.
    MfacBlocks(usize),
    /// The same with the inverse of diagonal blocks of this size, written out.
    WoodFisher(usize),
}

/// How the weights that stay make up for those that go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compensation {
    /// The sum of what each dropped weight alone would ask for, as published: δw = F̂⁻¹ z, z_k = −w_k/(F̂⁻¹)_kk.
    #[default]
    Single,
    /// The minimum of the quadratic model with all dropped weights at zero together; for [`Criterion::Mfac`] only.
    Joint,
}

/// How to prune.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pruner {
    /// What to drop.
    pub criterion: Criterion,
    /// How to make up for it.
    pub compensation: Compensation,
    /// Damping λ.
    pub damp: f64,
    /// Sub-steps, each with fresh gradients; the fraction of live weights shrinks by the same factor in each.
    pub steps: usize,
}

impl Default for Pruner {
    fn default() -> Self {
        Self { criterion: Criterion::Mfac, compensation: Compensation::Single, damp: 1e-5, steps: 1 }
    }
}

impl Pruner {
    /// Sets weights to zero until the fraction `sparsity` of all of them is. Weights that are zero already are taken as
    /// pruned before: they stay zero and are no coordinates of F̂.
    ///
    /// `gradients(weights)` gives mini-batch gradients `(m, d)` at `weights (d,)`, with the network in evaluation mode;
    /// it is called once a sub-step, and not at all for [`Criterion::Magnitude`].
    ///
    /// # Errors
    /// A `sparsity` outside 0..=1 or below the present one; `steps` = 0; gradients of another shape or not finite; a
    /// damping too small; a stop by `progress`, with `weights` as after the last whole sub-step.
    pub fn prune(
        &self,
        weights: &mut [f64],
        sparsity: f64,
        mut gradients: impl FnMut(&[f64]) -> Result<Array2<f32>>,
        progress: &Progress,
    ) -> Result<()> {
        let total = weights.len();
        if !(0.0..=1.0).contains(&sparsity) {
            return Err(Error::parameter("sparsity", sparsity, "between 0 and 1"));
        }
        if self.steps == 0 {
            return Err(Error::parameter("recompute", self.steps, "at least 1"));
        }
        let live_before = weights.iter().filter(|&&w| w != 0.0).count();
        let keep = ((1.0 - sparsity) * total as f64).round() as usize;
        if keep > live_before {
            let present = 1.0 - live_before as f64 / total as f64;
            return Err(Error::parameter("sparsity", sparsity, format!("at least the present sparsity {present:.4}")));
        }
        progress.begin("pruning", self.steps as u64);
        for step in 1..=self.steps {
            let live: Vec<usize> = (0..total).filter(|&k| weights[k] != 0.0).collect();
            let fraction = (keep as f64 / live_before.max(1) as f64).powf(step as f64 / self.steps as f64);
            let target = if step == self.steps { keep } else { (live_before as f64 * fraction).round() as usize };
            let drop = live.len().saturating_sub(target);
            if drop > 0 {
                let mut values: Vec<f64> = live.iter().map(|&k| weights[k]).collect();
                let restricted = if self.criterion == Criterion::Magnitude {
                    Array2::zeros((0, live.len()))
                } else {
                    let all = gradients(weights)?;
                    if all.ncols() != total || all.nrows() == 0 {
                        let problem = format!("have shape {:?}, but there are {total} weights", all.dim());
                        return Err(Error::input("grads", problem));
                    }
                    columns(all.view(), &live)
                };
                self.step(&mut values, restricted, drop)?;
                live.iter().zip(values).for_each(|(&k, value)| weights[k] = value);
            }
            progress.advance(1)?;
        }
        progress.finish();
        Ok(())
    }

    /// Drops `drop` of the live `weights (n,)` with the `gradients (m, n)` restricted to them.
    fn step(&self, weights: &mut [f64], gradients: Array2<f32>, drop: usize) -> Result<()> {
        let scores: Vec<f64>;
        let mut change = vec![0.0; weights.len()];
        let dropped;
        match self.criterion {
            Criterion::Magnitude => {
                scores = weights.iter().map(|w| w.abs()).collect();
                dropped = smallest(&scores, drop);
            }
            Criterion::DiagonalFisher => {
                super::gradients::check_finite(gradients.view(), "grads")?;
                scores = weights.iter().zip(diagonal_fisher(gradients.view())).map(|(w, f)| w * w * f).collect();
                dropped = smallest(&scores, drop);
            }
            Criterion::Mfac | Criterion::MfacBlocks(_) | Criterion::WoodFisher(_) => {
                let joint = self.compensation == Compensation::Joint;
                if joint && self.criterion != Criterion::Mfac {
                    return Err(Error::parameter("joint", true, "used with the full inverse, without blocks"));
                }
                let kept = joint.then(|| gradients.clone());
                let inverse: Box<dyn Inverse> = match self.criterion {
                    Criterion::MfacBlocks(size) => Box::new(MfacBlocks::new(gradients.view(), self.damp, size)?),
                    Criterion::WoodFisher(size) => Box::new(WoodFisher::new(gradients.view(), self.damp, size)?),
                    _ => Box::new(MfacStatic::new(gradients, self.damp)?),
                };
                let diagonal = inverse.diag_inverse()?;
                scores = saliencies(weights, &diagonal);
                dropped = smallest(&scores, drop);
                change = match kept {
                    Some(gradients) => joint_update(weights, gradients.view(), self.damp, &dropped)?,
                    None => single_update(weights, &*inverse, &diagonal, &dropped)?,
                };
            }
        }
        weights.iter_mut().zip(change).for_each(|(w, change)| *w += change);
        dropped.iter().for_each(|&k| weights[k] = 0.0);
        Ok(())
    }
}

/// ρ_k = w_k²/(2 (F̂⁻¹)_kk): by how much the loss grows if weight k alone is dropped and the others adjust.
pub fn saliencies(weights: &[f64], diagonal: &[f64]) -> Vec<f64> {
    weights.iter().zip(diagonal).map(|(w, d)| w * w / (2.0 * d)).collect()
}

/// The indices of the `count` smallest scores, ascending; of equal scores the first go first.
pub fn smallest(scores: &[f64], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    let by_score = |&a: &usize, &b: &usize| scores[a].total_cmp(&scores[b]).then(a.cmp(&b));
    if count < order.len() {
        order.select_nth_unstable_by(count, by_score);
        order.truncate(count);
    }
    order.sort_unstable();
    order
}

/// The diagonal of the undamped F̂: mean squares of the columns of `gradients (m, n)`.
pub fn diagonal_fisher(gradients: ArrayView2<'_, f32>) -> Vec<f64> {
    let mut sums = vec![0.0; gradients.ncols()];
    for row in gradients.rows() {
        sums.iter_mut().zip(row).for_each(|(sum, &g)| *sum += f64::from(g).powi(2));
    }
    sums.iter_mut().for_each(|sum| *sum /= gradients.nrows() as f64);
    sums
}

fn single_update(weights: &[f64], inverse: &dyn Inverse, diagonal: &[f64], dropped: &[usize]) -> Result<Vec<f64>> {
    let mut z = vec![0.0; weights.len()];
    dropped.iter().for_each(|&k| z[k] = -weights[k] / diagonal[k]);
    inverse.apply_inverse(&z)
}

/// With the dropped weights at zero, the quadratic model ½ (w − w₀)ᵀ F̂ (w − w₀) is least over the kept ones K at
/// w_K + F̂_KK⁻¹ F̂_KD w_D. F̂_KD has no damping in it: F̂_KD w_D = 1/m G_Kᵀ (G_D w_D).
fn joint_update(weights: &[f64], gradients: ArrayView2<'_, f32>, damp: f64, dropped: &[usize]) -> Result<Vec<f64>> {
    let mut change = vec![0.0; weights.len()];
    let mut gone = vec![0.0; weights.len()];
    dropped.iter().for_each(|&k| gone[k] = weights[k]);
    let kept: Vec<usize> = (0..weights.len()).filter(|k| dropped.binary_search(k).is_err()).collect();
    if kept.is_empty() {
        return Ok(change);
    }
    let mut along = wide::times(gradients, &gone);
    along.iter_mut().for_each(|c| *c /= gradients.nrows() as f64);
    let gradients = columns(gradients, &kept);
    let mut pull = vec![0.0; kept.len()];
    wide::add_transposed_times(&mut pull, gradients.view(), &along);
    let update = MfacFactored::new(gradients.view(), damp)?.apply_inverse(&pull)?;
    kept.iter().zip(update).for_each(|(&k, update)| change[k] = update);
    Ok(change)
}
