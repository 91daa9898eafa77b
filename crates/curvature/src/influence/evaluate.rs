//! How good scores are: correlations, ranks, the linear datamodelling score, sparsity.

use ndarray::{ArrayView1, ArrayView2};
use offprint_core::{Error, Result};
use offprint_math::stats::{mean, rank_correlation};

/// The linear datamodelling score: for each query Spearman's correlation, over training subsets, of the summed scores of
/// a subset and the query's loss after training on it, with the sign turned so that right scores count as positive; the
/// mean over queries. `scores (q, n)`, `subsets` lists samples, `losses (subsets, q)`.
///
/// # Errors
/// Fewer than three subsets; a sample beyond the last; losses of another shape.
pub fn linear_datamodelling_score(
    scores: ArrayView2<'_, f32>,
    subsets: &[Vec<usize>],
    losses: ArrayView2<'_, f64>,
) -> Result<f64> {
    let (q, n) = scores.dim();
    if subsets.len() < 3 {
        return Err(Error::parameter("subsets", subsets.len(), "at least 3: a rank correlation of two is ±1"));
    }
    if losses.dim() != (subsets.len(), q) {
        let problem = format!("has shape {:?}, but there are {} subsets and {q} queries", losses.dim(), subsets.len());
        return Err(Error::input("losses", problem));
    }
    if let Some(sample) = subsets.iter().flatten().find(|&&sample| sample >= n) {
        return Err(Error::parameter("subsets", sample, format!("samples below {n}")));
    }
    let per_query: Vec<f64> = (0..q)
        .map(|query| {
            let predicted: Vec<f64> =
                subsets.iter().map(|subset| subset.iter().map(|&i| f64::from(scores[[query, i]])).sum()).collect();
            // Helpful samples lower the loss.
            let measured: Vec<f64> = losses.column(query).iter().map(|loss| -loss).collect();
            rank_correlation(&predicted, &measured)
        })
        .collect();
    Ok(mean(&per_query))
}

/// Of the sum of all positive scores of a query, the share that its top `share` of samples (at least one) holds; NaN if
/// no score is positive.
pub fn share_of_top(scores: ArrayView1<'_, f32>, share: f64) -> f64 {
    let mut positive: Vec<f64> = scores.iter().map(|&x| f64::from(x)).filter(|&x| x > 0.0).collect();
    positive.sort_by(|a, b| b.total_cmp(a));
    let top = ((share * scores.len() as f64).round() as usize).max(1).min(positive.len());
    positive[..top].iter().sum::<f64>() / positive.iter().sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{arr1, arr2};

    #[test]
    fn a_linear_world_has_a_perfect_datamodelling_score() {
        let scores = arr2(&[[1.0f32, -2.0, 0.5, 3.0]]);
        let subsets = vec![vec![0, 1], vec![0, 3], vec![2, 3], vec![1, 2]];
        let losses = arr2(&[[1.0], [-4.0], [-3.5], [1.5]]);
        assert!((linear_datamodelling_score(scores.view(), &subsets, losses.view()).unwrap() - 1.0).abs() < 1e-12);
        assert!(linear_datamodelling_score(scores.view(), &subsets[..2], losses.view()).is_err());
        let beyond = vec![vec![0], vec![1], vec![4], vec![2]];
        assert!(linear_datamodelling_score(scores.view(), &beyond, losses.view()).is_err());
    }

    #[test]
    fn the_share_of_the_top_counts_positive_scores_only() {
        let scores = arr1(&[4.0f32, 1.0, -10.0, 3.0]);
        assert_eq!(share_of_top(scores.view(), 0.25), 0.5);
        assert_eq!(share_of_top(scores.view(), 0.5), 7.0 / 8.0);
        assert!(share_of_top(arr1(&[-1.0f32]).view(), 0.5).is_nan());
    }
}
