//! The linear assignment problem: rows to distinct columns at the least total cost.

use ndarray::ArrayView2;

/// What a row gets that is left without a column (there are more rows than columns).
pub const UNASSIGNED: usize = usize::MAX;

/// The column of each row in an assignment of distinct columns whose total cost is least, for a cost of shape
/// (rows, columns).
///
/// With more rows than columns, the rows that are better left out get [`UNASSIGNED`]. Costs that are NaN or +∞ forbid
/// a pair: it is taken only where every complete assignment takes one. Jonker and Volgenant's shortest augmenting
/// paths: O(min² · max) time, O(rows + columns) memory beside the cost.
pub fn minimize(cost: ArrayView2<'_, f64>) -> Vec<usize> {
    let (rows, columns) = cost.dim();
    if rows > columns {
        let mut of_row = vec![UNASSIGNED; rows];
        for (column, row) in minimize(cost.t()).into_iter().enumerate() {
            of_row[row] = column;
        }
        return of_row;
    }
    let allowed = cost.iter().copied().filter(|c| c.is_finite());
    let (low, high) = allowed.fold((0.0f64, 0.0f64), |(low, high), c| (low.min(c), high.max(c)));
    // One unit of this scale is the spread of all costs, so huge costs do not overflow when paths add them up.
    let scale = (high / 2.0 - low / 2.0).max(f64::MIN_POSITIVE);
    // A forbidden pair costs more than any complete assignment without one.
    let forbidden = 4.0 * (rows as f64 + 1.0);
    let price = |row: usize, column: usize| match cost[[row, column]] {
        c if c.is_finite() => c / scale,
        f64::NEG_INFINITY => -forbidden,
        _ => forbidden,
    };
    augment_all(rows, columns, price)
}

/// Adds one row after the other along the shortest augmenting path in reduced costs.
fn augment_all(rows: usize, columns: usize, price: impl Fn(usize, usize) -> f64) -> Vec<usize> {
    let mut row_of = vec![UNASSIGNED; columns];
    // Dual prices u (rows) and v (columns): price − u − v ≥ 0 everywhere, = 0 on assigned pairs.
    let (mut u, mut v) = (vec![0.0; rows], vec![0.0; columns]);
    let mut distance = vec![0.0; columns];
    let mut via = vec![UNASSIGNED; columns];
    let mut done = vec![false; columns];
    for start in 0..rows {
        distance.fill(f64::INFINITY);
        done.fill(false);
        let mut row = start;
        let mut column_in = UNASSIGNED;
        let mut travelled = 0.0;
        let end = loop {
            let (mut nearest, mut least) = (UNASSIGNED, f64::INFINITY);
            for column in (0..columns).filter(|&c| !done[c]) {
                let through = travelled + price(row, column) - u[row] - v[column];
                if through < distance[column] {
                    distance[column] = through;
                    via[column] = column_in;
                }
                if nearest == UNASSIGNED || distance[column] < least {
                    (nearest, least) = (column, distance[column]);
                }
            }
            done[nearest] = true;
            travelled = least;
            column_in = nearest;
            match row_of[nearest] {
                UNASSIGNED => break nearest,
                next => row = next,
            }
        };
        u[start] += travelled;
        for column in (0..columns).filter(|&c| done[c] && c != end) {
            u[row_of[column]] += travelled - distance[column];
            v[column] -= travelled - distance[column];
        }
        // Turn the path around: each column on it passes its row on.
        let mut column = end;
        while via[column] != UNASSIGNED {
            row_of[column] = row_of[via[column]];
            column = via[column];
        }
        row_of[column] = start;
    }
    let mut of_row = vec![UNASSIGNED; rows];
    for (column, &row) in row_of.iter().enumerate().filter(|&(_, &row)| row != UNASSIGNED) {
        of_row[row] = column;
    }
    of_row
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array2, array};
    use proptest::prelude::*;

    /// The least total over all ways to give each row its own column (rows ≤ columns).
    fn brute_force(cost: &Array2<f64>, row: usize, used: &mut Vec<bool>) -> f64 {
        if row == cost.nrows() {
            return 0.0;
        }
        let mut best = f64::INFINITY;
        for column in 0..cost.ncols() {
            if !used[column] {
                used[column] = true;
                best = best.min(cost[[row, column]] + brute_force(cost, row + 1, used));
                used[column] = false;
            }
        }
        best
    }

    fn total(cost: &Array2<f64>, assigned: &[usize]) -> f64 {
        assigned.iter().enumerate().filter(|&(_, &c)| c != UNASSIGNED).map(|(r, &c)| cost[[r, c]]).sum()
    }

    fn costs() -> impl Strategy<Value = Array2<f64>> {
        (0usize..6, 0usize..6).prop_flat_map(|(rows, columns)| {
            // Small integers make ties; both signs.
            let cell = prop_oneof![(-3i32..4).prop_map(f64::from), -1e3..1e3f64];
            proptest::collection::vec(cell, rows * columns)
                .prop_map(move |cells| Array2::from_shape_vec((rows, columns), cells).unwrap())
        })
    }

    proptest! {
        #[test]
        fn costs_what_brute_force_finds(cost in costs()) {
            let assigned = minimize(cost.view());
            prop_assert_eq!(assigned.len(), cost.nrows());
            let mut columns: Vec<_> = assigned.iter().copied().filter(|&c| c != UNASSIGNED).collect();
            prop_assert_eq!(columns.len(), cost.nrows().min(cost.ncols()));
            columns.sort_unstable();
            columns.dedup();
            prop_assert_eq!(columns.len(), cost.nrows().min(cost.ncols()));
            let wide = if cost.nrows() > cost.ncols() { cost.t().to_owned() } else { cost.clone() };
            let best = brute_force(&wide, 0, &mut vec![false; wide.ncols()]);
            prop_assert!((total(&cost, &assigned) - best).abs() < 1e-9);
        }
    }

    #[test]
    fn agrees_with_scipy() {
        // scipy 1.17: linear_sum_assignment([[4, 1, 3], [2, 0, 5], [3, 2, 2]]) → columns [1, 0, 2], total 5.
        assert_eq!(minimize(array![[4.0, 1.0, 3.0], [2.0, 0.0, 5.0], [3.0, 2.0, 2.0]].view()), [1, 0, 2]);
        // … of [[10, 2], [3, 7], [1, 8]]: rows [0, 2] to columns [1, 0].
        assert_eq!(minimize(array![[10.0, 2.0], [3.0, 7.0], [1.0, 8.0]].view()), [1, UNASSIGNED, 0]);
    }

    #[test]
    fn forbidden_pairs_are_avoided_where_possible() {
        let inf = f64::INFINITY;
        assert_eq!(minimize(array![[0.0, 1e6], [0.0, inf]].view()), [1, 0]);
        assert_eq!(minimize(array![[0.0, 5.0], [f64::NAN, 1e300]].view()), [0, 1]);
        let mut all = minimize(Array2::from_elem((3, 3), inf).view());
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2]);
    }

    #[test]
    fn finds_a_hidden_permutation_at_any_scale() {
        let n = 200;
        for scale in [1e-300, 1.0, 1e305] {
            let cost = Array2::from_shape_fn((n, n), |(i, j)| if (i * 37 + 11) % n == j { -scale } else { 0.0 });
            assert!(minimize(cost.view()).iter().enumerate().all(|(i, &j)| j == (i * 37 + 11) % n));
        }
    }
}
