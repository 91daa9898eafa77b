//! How good scores are: correlations, ranks, the linear datamodelling score, sparsity.

use ndarray::{ArrayView1, ArrayView2};
use offprint_core::{Error, Result};
use offprint_math::stats::mean;

/// Pearson's correlation of two lists of one length; NaN if one of them is constant.
pub fn correlation(x: &[f64], y: &[f64]) -> f64 {
    let (mx, my) = (mean(x), mean(y));
    let product =
        |a: &[f64], ma: f64, b: &[f64], mb: f64| -> f64 { a.iter().zip(b).map(|(a, b)| (a - ma) * (b - mb)).sum() };
    product(x, mx, y, my) / (product(x, mx, x, mx) * product(y, my, y, my)).sqrt()
}

/// The ranks of `values` from 1; equal values share the mean of their places.
pub fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    while start < order.len() {
        let same = order[start..].iter().take_while(|&&i| values[i] == values[order[start]]).count();
        for &i in &order[start..start + same] {
            ranks[i] = start as f64 + (same as f64 + 1.0) / 2.0;
        }
        start += same;
    }
    ranks
}

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
            correlation(&ranks(&predicted), &ranks(&measured))
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
    fn correlations_and_ranks_are_scipys() {
        // scipy.stats 1.17: pearsonr([1, 2, 4, 8], [1, 3, 2, 7]) = 0.9109657318986026, rankdata([3, 1, 3, 0]) = [3.5, 2, 3.5, 1].
        let r = correlation(&[1.0, 2.0, 4.0, 8.0], &[1.0, 3.0, 2.0, 7.0]);
        assert!((r - 0.910_965_731_898_602_6).abs() < 1e-14, "{r}");
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 0.0]), [3.5, 2.0, 3.5, 1.0]);
        assert!(correlation(&[1.0, 1.0], &[1.0, 2.0]).is_nan());
    }

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
