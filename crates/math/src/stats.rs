//! Small statistics of measurements.

/// The arithmetic mean; NaN of nothing.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The standard deviation with n − 1 in the denominator; NaN of fewer than two values.
pub fn standard_deviation(values: &[f64]) -> f64 {
    let mean = mean(values);
    (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (values.len() as f64 - 1.0)).sqrt()
}

/// The `q`-quantile, 0 ≤ q ≤ 1, linear between order statistics (numpy's default); NaN of nothing or with a NaN.
pub fn quantile(values: &[f64], q: f64) -> f64 {
    if values.is_empty() || values.iter().any(|x| x.is_nan()) {
        return f64::NAN;
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = q.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

/// The median; NaN of nothing.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

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

/// Spearman's rank correlation of two lists of one length; NaN if one of them is constant.
pub fn rank_correlation(x: &[f64], y: &[f64]) -> f64 {
    correlation(&ranks(x), &ranks(y))
}

/// The slope of the least-squares line through the points (x, y); NaN of fewer than two different x.
pub fn slope(x: &[f64], y: &[f64]) -> f64 {
    let (mx, my) = (mean(x), mean(y));
    let covariance: f64 = x.iter().zip(y).map(|(x, y)| (x - mx) * (y - my)).sum();
    covariance / x.iter().map(|x| (x - mx).powi(2)).sum::<f64>()
}

/// The exponent p of the power law y ∝ xᵖ that fits best in logarithms; all values must be positive.
pub fn log_log_slope(x: &[f64], y: &[f64]) -> f64 {
    let log = |v: &[f64]| v.iter().map(|x| x.ln()).collect::<Vec<_>>();
    slope(&log(x), &log(y))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn correlations_and_ranks_are_scipys() {
        // scipy.stats 1.17: pearsonr([1, 2, 4, 8], [1, 3, 2, 7]) = 0.9109657318986026, rankdata([3, 1, 3, 0]) = [3.5, 2, 3.5, 1].
        let r = correlation(&[1.0, 2.0, 4.0, 8.0], &[1.0, 3.0, 2.0, 7.0]);
        assert!((r - 0.910_965_731_898_602_6).abs() < 1e-14, "{r}");
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 0.0]), [3.5, 2.0, 3.5, 1.0]);
        assert!(correlation(&[1.0, 1.0], &[1.0, 2.0]).is_nan());
        // Orders 1 2 3 4 and 1 3 2 4: 1 − 6 · 2 / (4 · 15).
        assert!((rank_correlation(&[1.0, 2.0, 4.0, 8.0], &[1.0, 3.0, 2.0, 7.0]) - 0.8).abs() < 1e-14);
    }

    #[test]
    fn quantiles_are_numpys() {
        // numpy.quantile([3, 1, 4, 1, 5], [0.25, 0.5, 0.9]) = [1, 3, 4.6]
        let v = [3.0, 1.0, 4.0, 1.0, 5.0];
        for (q, expected) in [(0.0, 1.0), (0.25, 1.0), (0.5, 3.0), (0.9, 4.6), (1.0, 5.0)] {
            assert!((quantile(&v, q) - expected).abs() < 1e-12, "{q}");
        }
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn slopes_of_exact_laws_are_exact() {
        let x: Vec<f64> = (1..9).map(f64::from).collect();
        let line: Vec<f64> = x.iter().map(|x| 3.0 - 2.0 * x).collect();
        assert!((slope(&x, &line) + 2.0).abs() < 1e-12);
        let power: Vec<f64> = x.iter().map(|x| 5.0 * x.powf(-0.25)).collect();
        assert!((log_log_slope(&x, &power) + 0.25).abs() < 1e-12);
        assert!(slope(&[1.0, 1.0], &[0.0, 2.0]).is_nan());
    }

    #[test]
    fn the_standard_deviation_is_the_samples() {
        assert!((standard_deviation(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]) - (32.0f64 / 7.0).sqrt()).abs() < 1e-12);
    }
}
