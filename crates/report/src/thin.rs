//! Fewer points where more could not be seen, so that files stay small.

/// Lines with more points than this are thinned.
const LINE_LIMIT: usize = 5_000;
/// Clouds with more points than this are sampled.
const CLOUD_LIMIT: usize = 20_000;

/// A run of points without a gap, thinned: where x rises, the first, lowest, highest and last point of every half
/// pixel stay, so that no peak is lost; elsewhere, points nearer than half a pixel to the last one kept are left out.
pub(crate) fn line(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    if points.len() <= LINE_LIMIT {
        return points;
    }
    if points.windows(2).all(|w| w[1].0 >= w[0].0) { by_column(&points) } else { by_distance(&points) }
}

fn by_column(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let column = |p: &(f64, f64)| (p.0 * 2.0).floor();
    let mut kept = Vec::new();
    for group in points.chunk_by(|a, b| column(a) == column(b)) {
        let lowest = (0..group.len()).min_by(|&a, &b| group[a].1.total_cmp(&group[b].1)).unwrap_or(0);
        let highest = (0..group.len()).max_by(|&a, &b| group[a].1.total_cmp(&group[b].1)).unwrap_or(0);
        let mut stay = [0, lowest, highest, group.len() - 1];
        stay.sort_unstable();
        for (i, &at) in stay.iter().enumerate() {
            if i == 0 || stay[i - 1] != at {
                kept.push(group[at]);
            }
        }
    }
    kept
}

fn by_distance(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut kept = vec![points[0]];
    let mut last = points[0];
    for &p in &points[1..points.len() - 1] {
        if (p.0 - last.0).hypot(p.1 - last.1) >= 0.5 {
            kept.push(p);
            last = p;
        }
    }
    kept.push(points[points.len() - 1]);
    let every = kept.len().div_ceil(4 * LINE_LIMIT);
    kept.into_iter().step_by(every.max(1)).collect()
}

/// The points of a cloud that are drawn: all, or evenly spaced ones.
pub(crate) fn cloud<T>(points: Vec<T>) -> Vec<T> {
    let every = points.len().div_ceil(CLOUD_LIMIT);
    points.into_iter().step_by(every.max(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_peak_survives() {
        let mut points: Vec<(f64, f64)> = (0..100_000).map(|i| (f64::from(i) * 0.005, 100.0)).collect();
        points[54_321].1 = 3.0;
        points[54_322].1 = 250.0;
        let thin = line(points);
        assert!(thin.len() < 5_000);
        assert!(thin.iter().any(|p| p.1 == 3.0) && thin.iter().any(|p| p.1 == 250.0));
    }

    #[test]
    fn closed_curves_keep_their_ends() {
        let points: Vec<(f64, f64)> =
            (0..=50_000).map(|i| f64::from(i) * 1e-3).map(|t| (100.0 * t.cos(), 100.0 * t.sin())).collect();
        let thin = line(points.clone());
        assert!(thin.len() < 20_001 && thin.len() > 1000);
        assert_eq!((thin[0], thin.last()), (points[0], points.last()));
    }

    #[test]
    fn clouds_are_sampled_evenly() {
        assert_eq!(cloud((0..20_000).collect::<Vec<_>>()).len(), 20_000);
        assert_eq!(cloud((0..100_000).collect::<Vec<_>>())[..3], [0, 5, 10]);
    }
}
