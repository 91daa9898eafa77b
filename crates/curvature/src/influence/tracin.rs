//! TracIn: inner products of gradients along the path of training.

use super::{Detail, Directions, Examples, Model, Scores};
use offprint_core::{Error, Progress, Result};

/// Σ_c η_c ⟨∇f_q(θ_c), ∇ℓ_m(θ_c)⟩ over checkpoints: each a learning rate η_c and all parameters of the model. The model is
/// left as it was.
///
/// # Errors
/// No checkpoint; one of another model; what [`Model::scores`] answers.
pub fn tracin(
    model: &Model<'_>,
    checkpoints: &[(f64, Vec<f64>)],
    queries: &Examples,
    train: &Examples,
    progress: &Progress,
) -> Result<Scores> {
    let params = model.loss.params();
    let before: Vec<f64> = params.flat()?;
    let mut sum: Option<Scores> = None;
    let along = checkpoints.iter().try_for_each(|(rate, checkpoint)| {
        params.set_flat(checkpoint)?;
        let directions = Directions::new(model.tracked, model.gradients(queries, progress)?.view())?;
        let mut scores = model.scores(&directions, train, Detail::default(), progress)?;
        scores.total *= *rate as f32;
        match &mut sum {
            Some(sum) => sum.total += &scores.total,
            None => sum = Some(scores),
        }
        Ok(())
    });
    params.set_flat(&before)?;
    along?;
    sum.ok_or_else(|| Error::parameter("checkpoints", "none", "at least one"))
}
