//! The formats, and how a dense matrix is brought into each of them by rounding.

use super::group::{GROUP, Group};
use super::matrix::{Gemv, Records};
use super::plain::Plain;
use super::record::{DenseQuad2, DenseQuad4, GROUPS, SparseQuad, WideQuad2};
use super::two_four::{SPAN, TwoFourQuad};
use half::f16;
use ndarray::{Array2, ArrayView1};
use offprint_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a matrix lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Single precision.
    F32,
    /// Half precision.
    F16,
    /// 4 bits in groups of 16.
    W4G16,
    /// 2 bits in groups of 64.
    W2G64,
    /// 2 bits in groups of 16.
    W2G16,
    /// 4 bits in groups of 16, the lowest groups of a row dropped.
    W4S50,
    /// 4 bits, two of every four kept.
    W4TwoFour,
}

impl Format {
    /// All formats, from the widest.
    pub const ALL: [Self; 7] =
        [Self::F32, Self::F16, Self::W4G16, Self::W4TwoFour, Self::W2G16, Self::W4S50, Self::W2G64];

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::W4G16 => "W4 g16",
            Self::W2G64 => "W2 g64",
            Self::W2G16 => "W2 g16",
            Self::W4S50 => "W4 S50 g16",
            Self::W4TwoFour => "W4 2:4",
        }
    }

    /// `weights` (rows, columns) in this format, rounded to the nearest; where weights are dropped, the smallest are:
    /// half of the groups of a row, or two of every four.
    ///
    /// # Errors
    /// Weights that are not finite; a number of columns that the format cannot hold.
    pub fn rounded(self, weights: &Array2<f32>) -> Result<Box<dyn Gemv>> {
        Ok(match self {
            Self::F32 => Box::new(Plain::new(weights, |w| w)),
            Self::F16 => Box::new(Plain::new(weights, f16::from_f32)),
            Self::W4G16 => Box::new(dense4(weights)?),
            Self::W2G64 => Box::new(wide2(weights)?),
            Self::W2G16 => Box::new(dense2(weights)?),
            Self::W4S50 => {
                let squares: Array2<f32> = group_sums(weights, |w| w * w)?;
                Box::new(sparse(weights, &keep_largest(&squares, squares.ncols().div_ceil(2)))?)
            }
            Self::W4TwoFour => {
                let kept = Array2::from_shape_vec(
                    weights.raw_dim(),
                    weights.rows().into_iter().flat_map(|row| two_largest_of_four(row)).collect(),
                )
                .expect("one for each weight");
                Box::new(two_four(weights, &kept)?)
            }
        })
    }
}

/// The sum of `score` over each group of 16 weights of a row.
fn group_sums(weights: &Array2<f32>, score: impl Fn(f32) -> f32) -> Result<Array2<f32>> {
    check(weights, GROUP)?;
    let groups = weights.ncols() / GROUP;
    Ok(Array2::from_shape_fn((weights.nrows(), groups), |(row, group)| {
        (0..GROUP).map(|i| score(weights[[row, GROUP * group + i]])).sum()
    }))
}

/// Whether each of the elements of a row is among its `count` largest; of equal ones the first is dropped.
fn keep_largest(scores: &Array2<f32>, count: usize) -> Array2<bool> {
    let mut kept = Array2::from_elem(scores.raw_dim(), false);
    for (scores, mut kept) in scores.rows().into_iter().zip(kept.rows_mut()) {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(b.cmp(&a)));
        order.into_iter().take(count).for_each(|group| kept[group] = true);
    }
    kept
}

fn two_largest_of_four(row: ArrayView1<'_, f32>) -> Vec<bool> {
    let row = row.to_vec();
    let keeps = |four: &[f32]| -> Vec<bool> {
        let larger = |i: usize| {
            (0..four.len())
                .filter(|&j| four[j].abs() > four[i].abs() || (four[j].abs() == four[i].abs() && j < i))
                .count()
        };
        (0..four.len()).map(|i| larger(i) < 2).collect()
    };
    row.chunks(4).flat_map(keeps).collect()
}

/// Refuses weights that no format can hold.
fn check(weights: &Array2<f32>, multiple: usize) -> Result<()> {
    let (rows, columns) = weights.dim();
    check_columns(columns, multiple)?;
    if rows == 0 {
        return Err(Error::parameter("weights", "no rows", "at least one row"));
    }
    match weights.iter().position(|w| !w.is_finite()) {
        Some(at) => Err(Error::input(
            "weights",
            format!(
                "row {}, column {} is {}; every weight must be finite",
                at / columns,
                at % columns,
                weights.iter().nth(at).expect("found there")
            ),
        )),
        None => Ok(()),
    }
}

/// Refuses numbers of columns that groups do not divide, or that their numbers do not reach.
fn check_columns(columns: usize, multiple: usize) -> Result<()> {
    if columns == 0 || !columns.is_multiple_of(multiple) {
        return Err(Error::parameter("columns", columns, format!("a multiple of {multiple}, at least one")));
    }
    if columns / GROUP > usize::from(u16::MAX) + 1 {
        return Err(Error::parameter("columns", columns, "at most 65536 groups of 16"));
    }
    Ok(())
}

/// Records of `width` weights each, made by `make` from a row's weights.
fn dense<R: super::Record>(weights: &Array2<f32>, width: usize, make: impl Fn(&[f32]) -> R) -> Records<R> {
    let rows = weights.rows().into_iter().map(|row| row.to_vec().chunks(width).map(&make).collect());
    Records::new(weights.ncols(), rows, false)
}

/// 4 bits in groups of 16, rounded to the nearest.
pub fn dense4(weights: &Array2<f32>) -> Result<Records<DenseQuad4>> {
    check(weights, GROUP)?;
    Ok(dense(weights, GROUPS * GROUP, DenseQuad4::rounded))
}

/// 2 bits in groups of 16, rounded to the nearest.
pub fn dense2(weights: &Array2<f32>) -> Result<Records<DenseQuad2>> {
    check(weights, GROUP)?;
    Ok(dense(weights, GROUPS * GROUP, DenseQuad2::rounded))
}

/// 2 bits in groups of 64, rounded to the nearest.
pub fn wide2(weights: &Array2<f32>) -> Result<Records<WideQuad2>> {
    check(weights, GROUP)?;
    Ok(dense(weights, GROUPS * GROUP, WideQuad2::rounded))
}

/// 4 bits of the groups that `kept` (rows, columns / 16) says to keep, rounded to the nearest.
pub fn sparse(weights: &Array2<f32>, kept: &Array2<bool>) -> Result<Records<SparseQuad>> {
    check(weights, GROUP)?;
    check_mask(kept, (weights.nrows(), weights.ncols() / GROUP))?;
    let rows = weights.rows().into_iter().zip(kept.rows()).map(|(weights, kept)| {
        let weights = weights.to_vec();
        let groups = weights.as_chunks::<GROUP>().0.iter().enumerate().filter(|&(group, _)| kept[group]);
        groups.map(|(group, weights)| (group as u16, Group::rounded(weights, 4))).collect()
    });
    packed_sparse(weights.ncols(), rows)
}

/// Rows of groups with the columns, counted in groups, that they stand at, as the engine multiplies them.
///
/// # Errors
/// A number of columns that is no multiple of 16; a group that stands beyond them.
pub fn packed_sparse(columns: usize, rows: impl IntoIterator<Item = Vec<(u16, Group)>>) -> Result<Records<SparseQuad>> {
    check_columns(columns, GROUP)?;
    let rows: Vec<Vec<(u16, Group)>> = rows.into_iter().collect();
    let beyond = |row: &Vec<(u16, Group)>| row.iter().any(|&(column, _)| usize::from(column) >= columns / GROUP);
    if let Some(row) = rows.iter().position(beyond) {
        return Err(Error::input("groups", format!("row {row} has a group beyond the {columns} columns")));
    }
    let quads = rows.iter().map(|row| row.chunks(GROUPS).map(SparseQuad::new).collect());
    Ok(Records::new(columns, quads, true))
}

/// 4 bits of the weights that `kept` says to keep, two of every four, rounded to the nearest.
///
/// # Errors
/// As for all formats, and four neighbours of which not two are kept.
pub fn two_four(weights: &Array2<f32>, kept: &Array2<bool>) -> Result<Records<TwoFourQuad>> {
    check(weights, SPAN)?;
    check_mask(kept, weights.dim())?;
    for (row, kept) in kept.rows().into_iter().enumerate() {
        if let Some(four) = kept.to_vec().chunks(4).position(|four| four.iter().filter(|&&kept| kept).count() != 2) {
            return Err(Error::input(
                "kept",
                format!("row {row} does not keep two of the four columns from {}", 4 * four),
            ));
        }
    }
    let rows = weights.rows().into_iter().zip(kept.rows()).map(|(weights, kept)| {
        let (weights, kept) = (weights.to_vec(), kept.to_vec());
        weights.chunks(GROUPS * SPAN).zip(kept.chunks(GROUPS * SPAN)).map(|(w, k)| TwoFourQuad::rounded(w, k)).collect()
    });
    Ok(Records::new(weights.ncols(), rows, false))
}

fn check_mask(kept: &Array2<bool>, shape: (usize, usize)) -> Result<()> {
    if kept.dim() == shape {
        return Ok(());
    }
    Err(Error::parameter("kept", format!("shape {:?}", kept.dim()), format!("of shape {shape:?}")))
}
