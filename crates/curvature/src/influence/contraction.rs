//! The kernel of scoring: Σₜ Ds_tᵀ V_q ā_t for all queries and samples of a chunk.

use super::Element;
use super::directions::Cast;
use super::tracked::LayerRows;
use crate::Real;
use ndarray::{Array2, Array3, ArrayView2, Axis, s};
use offprint_math::linalg::{gemm, matmul};
use rayon::prelude::*;

/// Numbers that an intermediate product may hold.
const ROOM: usize = 1 << 21;

/// Adds the scores of one layer to `scores (n, q)`; the sum over positions is taken.
///
/// The order of the products is chosen by their cost. With one position (or one query) V_q meets the wider side first;
/// with several, each sample's gradient is formed for a moment and multiplied by all queries at once.
pub(super) fn add_scores<T: Element>(rows: &LayerRows<T>, bias: bool, direction: &Cast<T>, scores: &mut Array2<f64>) {
    let (n, positions, inputs) = rows.inputs.dim();
    let (outputs, queries) = (rows.gradients.dim().2, scores.ncols());
    let columns = inputs + usize::from(bias);
    match direction {
        Cast::Whole(whole) if positions > 1 && positions + queries < positions * queries => {
            // 2 · out · columns · (positions + queries) flop a sample.
            let at_once = (ROOM / (outputs * columns)).max(1);
            for start in (0..n).step_by(at_once) {
                let end = n.min(start + at_once);
                let formed = formed_gradients(rows, bias, start, end);
                let part = matmul(formed.view(), whole.t());
                add(scores, start, &part);
            }
        }
        _ => {
            let by_position = position_scores(rows, bias, direction, queries);
            for (i, mut row) in scores.outer_iter_mut().enumerate() {
                for t in 0..positions {
                    let part = by_position.row(i * positions + t);
                    row.iter_mut().zip(part).for_each(|(score, x)| *score += Real::to_f64(*x));
                }
            }
        }
    }
}

/// Adds the scores of every position of one layer to `scores (n, positions, q)`.
pub(super) fn add_token_scores<T: Element>(
    rows: &LayerRows<T>,
    bias: bool,
    direction: &Cast<T>,
    scores: &mut Array3<f64>,
) {
    let (_, positions, queries) = scores.dim();
    let by_position = position_scores(rows, bias, direction, queries);
    // A layer that is used several times has its uses one after the other.
    for (place, part) in by_position.outer_iter().enumerate() {
        let (i, t) = (place / rows.inputs.dim().1, place % rows.inputs.dim().1 % positions);
        let mut own = scores.slice_mut(s![i, t, ..]);
        own.iter_mut().zip(part).for_each(|(score, x)| *score += Real::to_f64(*x));
    }
}

/// Ds_tᵀ V_q ā_t for every position `(n · positions, q)`.
fn position_scores<T: Element>(rows: &LayerRows<T>, bias: bool, direction: &Cast<T>, queries: usize) -> Array2<T> {
    let a = flat(&rows.inputs, bias);
    let g = flat(&rows.gradients, false);
    match direction {
        Cast::Whole(whole) => {
            let mut scores = Array2::from_elem((a.nrows(), queries), <T as Real>::from_f64(0.0));
            let (outputs, columns) = (g.ncols(), a.ncols());
            // The product with the longer side first leaves the smaller intermediate.
            let narrow = outputs.min(columns);
            let at_once = (ROOM / (narrow * a.nrows()).max(1)).clamp(1, queries);
            for from in (0..queries).step_by(at_once) {
                let to = queries.min(from + at_once);
                let count = to - from;
                let part = Cast::queries(whole, from, to);
                let out = scores.slice_mut(s![.., from..to]);
                if outputs <= columns {
                    let stacked = part.into_shape_with_order((count * outputs, columns)).expect("rows of a matrix");
                    inner_products(matmul(a.view(), stacked.t()), g.view(), out);
                } else {
                    let stacked = part.into_shape_with_order((count, outputs, columns)).expect("rows of a matrix");
                    let swapped = stacked.permuted_axes([0, 2, 1]).as_standard_layout().into_owned();
                    let swapped = swapped.into_shape_with_order((count * columns, outputs)).expect("same values");
                    inner_products(matmul(g.view(), swapped.t()), a.view(), out);
                }
            }
            scores
        }
        Cast::LowRank { left, right, rank } => {
            let mut scores = Array2::from_elem((a.nrows(), queries), <T as Real>::from_f64(0.0));
            let (along_g, along_a) = (matmul(g.view(), left.t()), matmul(a.view(), right.t()));
            let each = scores.axis_iter_mut(Axis(0)).into_par_iter();
            each.zip(along_g.axis_iter(Axis(0))).zip(along_a.axis_iter(Axis(0))).for_each(|((mut row, g), a)| {
                let pairs = g.exact_chunks(*rank).into_iter().zip(a.exact_chunks(*rank));
                row.iter_mut().zip(pairs).for_each(|(score, (g, a))| *score = g.dot(&a));
            });
            scores
        }
    }
}

/// out[r, q] = Σ_w through[r, q · width + w] side[r, w].
fn inner_products<T: Element>(through: Array2<T>, side: ArrayView2<'_, T>, mut out: ndarray::ArrayViewMut2<'_, T>) {
    let width = side.ncols();
    let each = out.axis_iter_mut(Axis(0)).into_par_iter();
    each.zip(through.axis_iter(Axis(0))).zip(side.axis_iter(Axis(0))).for_each(|((mut row, through), side)| {
        let parts = through.exact_chunks(width);
        row.iter_mut().zip(parts).for_each(|(score, part)| *score = part.dot(&side));
    });
}

/// The gradients of samples `start..end`, each as a row (out · columns).
fn formed_gradients<T: Element>(rows: &LayerRows<T>, bias: bool, start: usize, end: usize) -> Array2<T> {
    let (_, positions, inputs) = rows.inputs.dim();
    let (outputs, columns) = (rows.gradients.dim().2, inputs + usize::from(bias));
    let zero = <T as Real>::from_f64(0.0);
    let mut formed = Array2::from_elem((end - start, outputs * columns), zero);
    formed.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(i, row)| {
        let mut matrix = row.into_shape_with_order((outputs, columns)).expect("a row is out · columns");
        let g = rows.gradients.index_axis(Axis(0), start + i);
        let a = rows.inputs.index_axis(Axis(0), start + i);
        gemm(<T as Real>::from_f64(1.0), g.t(), a, false, matrix.slice_mut(s![.., ..inputs]));
        if bias {
            for t in 0..positions {
                let mut last = matrix.column_mut(inputs);
                last += &g.row(t);
            }
        }
    });
    formed
}

/// (n, positions, width) as (n · positions, width), with a 1 at the end of each row if there is a bias.
fn flat<T: Element>(x: &Array3<T>, bias: bool) -> Array2<T> {
    let (n, positions, width) = x.dim();
    let columns = width + usize::from(bias);
    let mut flat = Array2::from_elem((n * positions, columns), <T as Real>::from_f64(1.0));
    let rows = x.view().into_shape_with_order((n * positions, width)).expect("traces are in C order");
    flat.slice_mut(s![.., ..width]).assign(&rows);
    flat
}

fn add<T: Element>(scores: &mut Array2<f64>, start: usize, part: &Array2<T>) {
    for (i, row) in part.outer_iter().enumerate() {
        scores.row_mut(start + i).iter_mut().zip(row).for_each(|(score, x)| *score += Real::to_f64(*x));
    }
}
