//! From scores to masks.

use super::Sparsity;
use crate::packed::Mask;
use ndarray::{Array2, ArrayView1, ArrayView2};

/// Among which weights scores are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All of the layer.
    Layer,
    /// Those of the same row.
    Row,
}

/// Prunes the lowest `scores` (out, in): ⌊share · number⌋ of those compared, of groups by the sum of their scores. Of equal
/// scores the one with the lower index is kept. Patterns n:m compare inside each block, whatever the scope.
pub fn mask_lowest(scores: ArrayView2<'_, f64>, sparsity: &Sparsity, scope: Scope) -> Mask {
    let (rows, columns) = scores.dim();
    let mut keep = Array2::from_elem((rows, columns), true);
    let pattern = sparsity.pattern();
    match *sparsity {
        Sparsity::Unstructured(share) => prune_share(scores, share, scope, |i, j| keep[[i, j]] = false),
        Sparsity::NofM { n, m } => {
            for i in 0..rows {
                for start in (0..columns).step_by(m) {
                    let block: Vec<f64> = (start..start + m).map(|j| scores[[i, j]]).collect();
                    for j in lowest(ArrayView1::from(&block), m - n) {
                        keep[[i, start + j]] = false;
                    }
                }
            }
        }
        Sparsity::Groups { size, share } => {
            let groups = Array2::from_shape_fn((rows, columns / size), |(i, g)| {
                (g * size..(g + 1) * size).map(|j| scores[[i, j]]).sum()
            });
            prune_share(groups.view(), share, scope, |i, g| {
                (g * size..(g + 1) * size).for_each(|j| keep[[i, j]] = false);
            });
        }
    }
    Mask { keep, pattern }
}

fn prune_share(scores: ArrayView2<'_, f64>, share: f64, scope: Scope, mut prune: impl FnMut(usize, usize)) {
    let (rows, columns) = scores.dim();
    match scope {
        Scope::Row => {
            for (i, row) in scores.rows().into_iter().enumerate() {
                lowest(row, count(columns, share)).into_iter().for_each(|j| prune(i, j));
            }
        }
        Scope::Layer => {
            let all: Vec<f64> = scores.iter().copied().collect();
            let count = count(rows * columns, share);
            lowest(ArrayView1::from(&all), count).into_iter().for_each(|at| prune(at / columns, at % columns));
        }
    }
}

/// ⌊n share⌋, where a product that is a whole number but for rounding counts as that number.
fn count(n: usize, share: f64) -> usize {
    (n as f64 * share + 1e-9).floor() as usize
}

/// The places of the `count` lowest scores; of equal ones the last.
pub(super) fn lowest(scores: ArrayView1<'_, f64>, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(b.cmp(&a)));
    order.truncate(count);
    order
}
