//! Pairwise scores and self-influence: training gradients stream by and are never kept.

use super::contraction::{add_scores, add_token_scores};
use super::directions::Cast;
use super::{Directions, Element, Examples, Model, Preconditioner};
use crate::KroneckerInverse;
use ndarray::{Array1, Array2, Array3, Axis, s};
use offprint_core::{Error, Progress, Result};

/// What is kept beside the scores themselves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Detail {
    /// The part of each layer.
    pub layers: bool,
    /// The part of each token of the training sequence.
    pub tokens: bool,
}

/// Scores of queries (rows) and training samples (columns): ∇f_qᵀ (G + λ)⁻¹ ∇ℓ_m, where both gradients are those of
/// losses. Positive: training on the sample more lowers the loss of the query.
#[derive(Debug, Clone)]
pub struct Scores {
    /// (q, n)
    pub total: Array2<f32>,
    /// (q, n, layers); sums to `total`.
    pub layers: Option<Array3<f32>>,
    /// (q, n, positions); sums to `total`.
    pub tokens: Option<Array3<f32>>,
}

impl Model<'_> {
    /// Scores of `directions` against every one of `train`.
    ///
    /// # Errors
    /// Directions of other layers; tokens of a model whose layers do not see each token by itself; samples that do not
    /// fit the model; a score that is not finite; a stop.
    pub fn scores(
        &self,
        directions: &Directions,
        train: &Examples,
        detail: Detail,
        progress: &Progress,
    ) -> Result<Scores> {
        if directions.layers.len() != self.tracked.layers().len() {
            let problem =
                format!("of {} layers, but the model has {}", directions.layers.len(), self.tracked.layers().len());
            return Err(Error::input("directions", problem));
        }
        if self.is_double() {
            self.scores_in::<f64>(directions, train, detail, progress)
        } else {
            self.scores_in::<f32>(directions, train, detail, progress)
        }
    }

    fn scores_in<T: Element>(
        &self,
        directions: &Directions,
        train: &Examples,
        detail: Detail,
        progress: &Progress,
    ) -> Result<Scores> {
        let (q, n, layers) = (directions.queries, train.len(), directions.layers.len());
        let cast: Vec<Cast<T>> = directions.layers.iter().map(Cast::of).collect();
        let mut total = Array2::zeros((q, n));
        let mut by_layer = detail.layers.then(|| Array3::zeros((q, n, layers)));
        let positions = match train.batch.inputs.dims() {
            [_, positions] if train.batch.inputs.dtype() == candle_core::DType::U32 => Some(*positions),
            _ => None,
        };
        let mut by_token = match (detail.tokens, positions) {
            (false, _) => None,
            (true, Some(positions)) => Some(Array3::zeros((q, n, positions))),
            (true, None) => return Err(Error::parameter("by-token", true, "used with sequences of tokens")),
        };
        self.for_chunks(train, "scores", progress, |start, part| {
            let rows = self.tracked.rows::<T>(self.loss, part)?;
            let mut sum = Array2::<f64>::zeros((part.len(), q));
            let mut tokens = by_token.as_ref().map(|all| Array3::<f64>::zeros((part.len(), all.dim().2, q)));
            for (l, (rows, cast)) in rows.iter().zip(&cast).enumerate() {
                let bias = self.tracked.layers()[l].bias.is_some();
                let mut own = Array2::zeros((part.len(), q));
                match &mut tokens {
                    Some(tokens) => {
                        if rows.inputs.dim().1 % tokens.dim().1 != 0 {
                            let name = &self.tracked.layers()[l].name;
                            return Err(Error::input(name.clone(), "does not see each token by itself"));
                        }
                        let mut of_layer = Array3::zeros(tokens.raw_dim());
                        add_token_scores(rows, bias, cast, &mut of_layer);
                        own += &of_layer.sum_axis(Axis(1));
                        *tokens += &of_layer;
                    }
                    None => add_scores(rows, bias, cast, &mut own),
                }
                if let Some(all) = &mut by_layer {
                    all.slice_mut(s![.., start..start + part.len(), l]).assign(&own.t().mapv(|x| x as f32));
                }
                sum += &own;
            }
            if let Some((i, query)) = sum.indexed_iter().find(|(_, x)| !x.is_finite()).map(|(place, _)| place) {
                let sample = start + i;
                let problem = format!("the score of training sample {sample} for query {query} is not finite");
                return Err(Error::Numerical(problem));
            }
            total.slice_mut(s![.., start..start + part.len()]).assign(&sum.t().mapv(|x| x as f32));
            if let (Some(all), Some(tokens)) = (&mut by_token, tokens) {
                let moved = tokens.mapv(|x| x as f32).permuted_axes([2, 0, 1]);
                all.slice_mut(s![.., start..start + part.len(), ..]).assign(&moved);
            }
            Ok(())
        })?;
        Ok(Scores { total, layers: by_layer, tokens: by_token })
    }

    /// ∇ℓᵀ (G + λ)⁻¹ ∇ℓ of every sample: how much it shaped its own prediction. Large for rows that contradict the others.
    ///
    /// # Errors
    /// Samples that do not fit the model; a stop.
    pub fn self_influence(
        &self,
        preconditioner: &dyn Preconditioner,
        train: &Examples,
        progress: &Progress,
    ) -> Result<Array1<f64>> {
        let mut scores = Array1::zeros(train.len());
        self.for_chunks(train, "self-influence", progress, |start, part| {
            let gradients = match self.is_double() {
                true => self.tracked.gradients::<f64>(self.loss, part)?,
                false => self.tracked.gradients::<f32>(self.loss, part)?,
            };
            let directions = preconditioner.precondition(gradients.view(), progress)?;
            for (i, (g, v)) in gradients.outer_iter().zip(directions.outer_iter()).enumerate() {
                scores[start + i] = g.dot(&v);
            }
            Ok(())
        })?;
        Ok(scores)
    }

    /// [`Self::self_influence`] under K-FAC or EK-FAC, without forming gradients where samples have one position.
    ///
    /// # Errors
    /// As there.
    pub fn kronecker_self_influence(
        &self,
        inverse: &KroneckerInverse,
        train: &Examples,
        progress: &Progress,
    ) -> Result<Array1<f64>> {
        if self.is_double() {
            self.kronecker_self_influence_in::<f64>(inverse, train, progress)
        } else {
            self.kronecker_self_influence_in::<f32>(inverse, train, progress)
        }
    }

    fn kronecker_self_influence_in<T: Element>(
        &self,
        inverse: &KroneckerInverse,
        train: &Examples,
        progress: &Progress,
    ) -> Result<Array1<f64>> {
        let mut scores = vec![0.0; train.len()];
        self.for_chunks(train, "self-influence", progress, |start, part| {
            let rows = self.tracked.rows::<T>(self.loss, part)?;
            let scores = &mut scores[start..start + part.len()];
            rows.iter().enumerate().try_for_each(|(l, rows)| {
                inverse.add_quadratic_forms(l, rows.inputs.view(), rows.gradients.view(), scores)
            })
        })?;
        Ok(scores.into())
    }
}
