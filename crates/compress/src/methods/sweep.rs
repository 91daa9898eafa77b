//! The column by column sweep of optimal brain surgery that GPTQ and SparseGPT share.
//!
//! With H = (2/N) Σ x xᵀ and H⁻¹ = UᵀU, U upper triangular: column i takes its final value q_i, and the error
//! e = (w_i − q_i)/U_ii is made up for by the columns that are still free, w_j ← w_j − e U_ij. Rows do not know of each
//! other, except where a mask compares them.

use super::Sparsity;
use crate::layer::Layer;
use crate::packed::{Mask, Packed};
use crate::quantiser::{Granularity, Grid, Scheme};
use ndarray::{Array1, Array2, Axis, s};
use offprint_core::{Error, Result};
use offprint_math::linalg::{cholesky, inverse};
use rayon::prelude::*;

/// How a sweep goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sweep {
    /// Share of the mean diagonal of H that is added to it.
    pub damping: f64,
    /// Columns whose mask is chosen together.
    pub block: usize,
    /// Whether columns are taken by falling diagonal of H instead of in their order.
    pub by_diagonal: bool,
}

impl Default for Sweep {
    fn default() -> Self {
        Self { damping: 0.01, block: 128, by_diagonal: false }
    }
}

/// Rows that a thread takes through the columns together, so that a row of U is read once for all of them.
const TOGETHER: usize = 16;

impl Sweep {
    /// Compresses `layer` under `hessian` (in, in).
    ///
    /// O(in³ + out · in²) operations; U and a copy of the weights in f64.
    ///
    /// # Errors
    /// An H that stays indefinite under a hundred times the damping; groups of weights to prune, which no mask of a block
    /// can hold; patterns n:m with columns in another order.
    pub fn run(
        &self,
        layer: &Layer,
        hessian: &Array2<f64>,
        scheme: Option<Scheme>,
        sparsity: Option<Sparsity>,
    ) -> Result<Packed> {
        let name = &layer.place.name;
        match sparsity {
            Some(Sparsity::Groups { .. }) => {
                let allowed = "a share of single weights or n of m: sweeps do not prune groups";
                return Err(Error::parameter("sparsity", "groups", allowed));
            }
            Some(Sparsity::NofM { .. }) if self.by_diagonal => {
                return Err(Error::parameter("act_order", true, "false with n of m, which counts neighbours"));
            }
            _ => {}
        }
        let (rows, columns) = layer.weight.dim();
        let mut hessian = hessian.clone();
        let mut weight = layer.weight.mapv(f64::from);
        for j in 0..columns {
            // A column that never saw anything but 0 may have any weight: 0 is free.
            if hessian[[j, j]] == 0.0 {
                hessian[[j, j]] = 1.0;
                weight.column_mut(j).fill(0.0);
            }
        }
        let mut order: Vec<usize> = (0..columns).collect();
        if self.by_diagonal {
            order.sort_by(|&a, &b| hessian[[b, b]].total_cmp(&hessian[[a, a]]).then(a.cmp(&b)));
            weight = weight.select(Axis(1), &order);
            hessian = hessian.select(Axis(0), &order).select(Axis(1), &order);
        }
        let upper = upper_factor(name, &hessian, self.damping)?;
        let mut keep = Array2::from_elem((rows, columns), true);
        let mut grid = match &scheme {
            // Scales of whole rows are those of the weights as they come.
            Some(scheme) if !matches!(scheme.granularity, Granularity::Group(_)) => {
                Some(Grid::fit(name, weight.mapv(|w| w as f32).view(), scheme)?)
            }
            Some(scheme) => Some(Grid::blank(rows, columns, scheme)),
            None => None,
        };
        for start in (0..columns).step_by(self.block.max(1)) {
            let end = (start + self.block.max(1)).min(columns);
            if let Some(Sparsity::Unstructured(share)) = sparsity {
                choose(&weight, &mut keep, &upper, start..end, share);
            }
            self.columns(start..end, &mut weight, &mut keep, &upper, &mut grid, scheme, sparsity);
        }
        let place = |by_order: Array2<f32>| put_back(by_order, &order);
        let mask = sparsity.map(|sparsity| Mask { keep: put_back(keep, &order), pattern: sparsity.pattern() });
        let weight = weight.mapv(|w| w as f32);
        Ok(match grid {
            None => Packed::floats(name, &layer.place.shape, place(weight), mask),
            Some(mut grid) => {
                if self.by_diagonal && grid.scales.ncols() > 1 {
                    let mut group_of = vec![0; columns];
                    order.iter().enumerate().for_each(|(at, &j)| group_of[j] = (at / grid.group) as u32);
                    grid.group_of = Some(group_of);
                }
                Packed::coded(name, &layer.place.shape, place(weight).view(), grid, mask)
            }
        })
    }

    /// Takes the columns of a block to their final values and all columns after them to what makes up for it.
    #[expect(clippy::too_many_arguments, reason = "the state of the sweep, lent to threads row by row")]
    fn columns(
        &self,
        block: std::ops::Range<usize>,
        weight: &mut Array2<f64>,
        keep: &mut Array2<bool>,
        upper: &Array2<f64>,
        grid: &mut Option<Grid>,
        scheme: Option<Scheme>,
        sparsity: Option<Sparsity>,
    ) {
        // Groups begin anywhere in a block; their scales are collected and set after the rows are through.
        let groups = scheme.filter(|scheme| matches!(scheme.granularity, Granularity::Group(_)));
        let given: Option<&Grid> = grid.as_ref();
        let chunks = weight.axis_chunks_iter_mut(Axis(0), TOGETHER).into_par_iter();
        let fitted: Vec<_> = chunks
            .zip(keep.axis_chunks_iter_mut(Axis(0), TOGETHER))
            .enumerate()
            .map(|(chunk, (mut weight, mut keep))| {
                let mut fitted = Vec::new();
                let mut current: Vec<Option<crate::quantiser::Affine>> = vec![None; weight.nrows()];
                for i in block.clone() {
                    for row in 0..weight.nrows() {
                        let global = chunk * TOGETHER + row;
                        if let Some(scheme) = groups {
                            let size = scheme.group(weight.ncols());
                            if i % size == 0 {
                                let kept: Vec<f32> = (i..i + size)
                                    .filter(|&j| keep[[row, j]])
                                    .map(|j| weight[[row, j]] as f32)
                                    .collect();
                                let affine = crate::quantiser::fit(&scheme, kept.iter());
                                fitted.push((global, i / size, affine));
                                current[row] = Some(affine);
                            } else if current[row].is_none() {
                                // The group began in an earlier block.
                                current[row] = given.map(|grid| grid.affine(global, i));
                            }
                        } else {
                            current[row] = given.map(|grid| grid.affine(global, i));
                        }
                        if let Some(Sparsity::NofM { n, m }) = sparsity
                            && i % m == 0
                        {
                            let scores: Array1<f64> =
                                (i..i + m).map(|j| (weight[[row, j]] / upper[[j, j]]).powi(2)).collect();
                            for j in super::mask::lowest(scores.view(), m - n) {
                                keep[[row, i + j]] = false;
                            }
                        }
                        let w = weight[[row, i]];
                        let q = match (keep[[row, i]], current[row]) {
                            (false, _) => 0.0,
                            (true, None) => w,
                            (true, Some(affine)) => f64::from(affine.fake(w as f32)),
                        };
                        let error = (w - q) / upper[[i, i]];
                        if error != 0.0 {
                            let mut after = weight.slice_mut(s![row, i + 1..]);
                            after.scaled_add(-error, &upper.slice(s![i, i + 1..]));
                        }
                        weight[[row, i]] = q;
                    }
                }
                fitted
            })
            .collect();
        if let Some(grid) = grid {
            fitted.into_iter().flatten().for_each(|(row, group, affine)| grid.set(row, group, affine));
        }
    }
}

/// SparseGPT's choice for a block: with the scores w²/U_jj² of all its weights sorted, those up to number
/// ⌊number · share⌋ are pruned.
fn choose(
    weight: &Array2<f64>,
    keep: &mut Array2<bool>,
    upper: &Array2<f64>,
    block: std::ops::Range<usize>,
    share: f64,
) {
    if share <= 0.0 {
        return;
    }
    let score = |i: usize, j: usize| (weight[[i, j]] / upper[[j, j]]).powi(2);
    let places = (0..weight.nrows()).flat_map(|i| block.clone().map(move |j| (i, j)));
    let mut sorted: Vec<f64> = places.clone().map(|(i, j)| score(i, j)).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let threshold = sorted[((sorted.len() as f64 * share + 1e-9) as usize).min(sorted.len() - 1)];
    places.filter(|&(i, j)| score(i, j) <= threshold).for_each(|(i, j)| keep[[i, j]] = false);
}

/// The upper triangular U with UᵀU = (H + damping · mean diagonal)⁻¹. Tried three times more with ten times the damping.
///
/// # Errors
/// An H that is not positive definite even so; the layer is named.
pub fn upper_factor(name: &str, hessian: &Array2<f64>, damping: f64) -> Result<Array2<f64>> {
    let n = hessian.nrows();
    let mean = hessian.diag().sum() / n as f64;
    let mut added = damping;
    for _ in 0..4 {
        let mut damped = hessian.clone();
        damped.diag_mut().mapv_inplace(|h| h + added * mean);
        let factored = cholesky(damped.view()).and_then(|_| inverse(damped.view())).and_then(|inverse| {
            let symmetric = (&inverse + &inverse.t()) * 0.5;
            cholesky(symmetric.view())
        });
        if let Ok(lower) = factored
            && lower.iter().all(|x| x.is_finite())
        {
            return Ok(lower.t().to_owned());
        }
        added *= 10.0;
    }
    let (least, most) = hessian.diag().iter().fold((f64::MAX, 0.0_f64), |(a, b), &h| (a.min(h), b.max(h)));
    Err(Error::Numerical(format!(
        "layer \"{name}\": the second moments of its inputs have no Cholesky factor, even with {added:.0e} of their mean \
         added (diagonal from {least:.3e} to {most:.3e}); more or other calibration samples are needed",
    )))
}

/// Columns that stand in `order` back in their places.
fn put_back<T: Clone>(by_order: Array2<T>, order: &[usize]) -> Array2<T> {
    let mut place = vec![0; order.len()];
    order.iter().enumerate().for_each(|(at, &j)| place[j] = at);
    by_order.select(Axis(1), &place)
}
