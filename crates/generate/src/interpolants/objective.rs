//! What the networks of a bridge are fitted to: plain regression on pairs and latent noise (Theorems 7 and 8).

use super::{Interpolant, Pairs};
use candle_core::{Device, Tensor};
use offprint_core::random::Stream;
use offprint_core::{Error, Result};
use offprint_nn::computation;
use rand::RngExt;
use serde::{Deserialize, Serialize};

/// A field as a regression: its loss is ½|f|² − target · f, whose minimum is E\[target | x_t\].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// b: the target is İ + γ' z.
    Velocity,
    /// v = b + γγ' s: the target is İ.
    Mean,
    /// η = E\[z | x\]: the target is z itself, finite at all times. The sign is that of z.
    Latent,
    /// s = −η/γ: the target is −z/γ, large where γ is small.
    Score,
}

/// Points, times and targets of one step.
#[derive(Debug, Clone)]
pub struct Batch {
    /// \[x, t\] (rows, d + 1).
    pub inputs: Tensor,
    /// The targets (rows, d) of each field asked for.
    pub targets: Vec<Tensor>,
}

impl Batch {
    /// `n` draws for step number `step`: t uniform between `span`, and for a bridge with latent noise both x = I + γ z
    /// and its mirror x = I − γ z (2n rows), which takes most of the variance of γ' z away near the ends.
    ///
    /// # Errors
    /// Those of the pairs and the path.
    pub fn draw(
        path: &Interpolant,
        pairs: &Pairs,
        targets: &[Target],
        (step, n, span): (u64, usize, (f64, f64)),
        stream: Stream,
    ) -> Result<Self> {
        let streams = stream.nested(step);
        let (x0, x1) = pairs.draw(n, streams.stream("pairs"))?;
        let z = crate::normals(n, pairs.dim(), streams.stream("latent"), 0);
        let mut clock = streams.stream("times").rng(0);
        let d = pairs.dim();
        let signs: &[f64] = if path.has_latent() { &[1.0, -1.0] } else { &[1.0] };
        let rows = signs.len() * n;
        let mut inputs = Vec::with_capacity(rows * (d + 1));
        let mut wanted = vec![Vec::with_capacity(rows * d); targets.len()];
        for i in 0..n {
            let t = span.0 + (span.1 - span.0) * clock.random::<f64>();
            let at = path.at(t)?;
            let deviation = path.deviation(&at);
            for &sign in signs {
                for j in 0..d {
                    let (x0, x1) = (x0[[i, j]], x1[[i, j]]);
                    // On a one-sided path the noise is x₀.
                    let noise = if path.is_one_sided() { x0 } else { sign * z[[i, j]] };
                    let (place, mean_rate) = (at.a * x0 + at.b * x1, at.a_rate * x0 + at.b_rate * x1);
                    inputs.push((place + if path.is_one_sided() { 0.0 } else { at.gamma * noise }) as f32);
                    for (wanted, target) in wanted.iter_mut().zip(targets) {
                        let value = match target {
                            Target::Velocity if path.is_one_sided() => mean_rate,
                            Target::Velocity => mean_rate + at.gamma_rate() * noise,
                            Target::Mean => mean_rate,
                            Target::Latent => noise,
                            Target::Score => -noise / deviation,
                        };
                        wanted.push(value as f32);
                    }
                }
                inputs.push(t as f32);
            }
        }
        let tensor =
            |values, columns: usize| Tensor::from_vec(values, (rows, columns), &Device::Cpu).map_err(computation);
        Ok(Self {
            inputs: tensor(inputs, d + 1)?,
            targets: wanted.into_iter().map(|values| tensor(values, d)).collect::<Result<_>>()?,
        })
    }
}

/// The loss ½|f|² − target · f on average over rows.
pub fn loss(field: &Tensor, target: &Tensor) -> Result<Tensor> {
    let rows = field.dim(0).map_err(computation)? as f64;
    let sum = (|| ((field * 0.5)? - target)?.mul(field)?.sum_all()? / rows)();
    sum.map_err(computation)
}

/// Refuses a target that a bridge does not have.
pub fn check(path: &Interpolant, targets: &[Target]) -> Result<()> {
    let bare = !path.has_latent() && !path.is_one_sided();
    match targets.iter().find(|target| bare && matches!(target, Target::Latent | Target::Score)) {
        Some(target) => Err(Error::parameter(
            "target",
            format!("{target:?}"),
            format!("velocity: path {} has no noise, so its score cannot be learnt", path.name()),
        )),
        None => Ok(()),
    }
}
