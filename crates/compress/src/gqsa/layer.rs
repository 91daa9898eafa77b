//! A compressed layer: codes, scales and zeros of its groups, or kept weights in half precision.

use super::engine::{Affine, GROUP, Group, Records, SparseQuad, largest_code, packed_sparse};
use super::saliency::group_mask;
use crate::packed::{Mask, Packed, Pattern, Values};
use crate::quantiser::Grid;
use half::f16;
use ndarray::{Array2, ArrayView2};
use offprint_core::{Error, Result};
use offprint_nn::LayerPlace;

/// What kept weights are stored as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Codes of so many bits, a scale and a zero for each so many neighbours of a row.
    Codes {
        /// Bits of a code: 2 to 8.
        bits: u32,
        /// Weights that share a scale.
        group: usize,
    },
    /// Half precision.
    Half,
}

impl Form {
    /// The paper's: 4 bits in groups of 16.
    pub const GQSA: Self = Self::Codes { bits: 4, group: GROUP };
}

/// Weights of a layer as they are stored.
#[derive(Debug, Clone, PartialEq)]
pub enum Stored {
    /// Codes (out, in), with a scale and a zero a group (out, in / group).
    Codes {
        /// Bits of a code.
        bits: u32,
        /// Weights that share a scale.
        group: usize,
        /// Codes q.
        codes: Array2<u8>,
        /// ŵ = (q − z) s.
        affines: Array2<Affine>,
    },
    /// Half precision (out, in).
    Half(Array2<f16>),
}

/// A layer that was compressed.
#[derive(Debug, Clone, PartialEq)]
pub struct CompressedLayer {
    /// Where it stands.
    pub place: LayerPlace,
    /// Which weights are kept (out, in).
    pub keep: Array2<bool>,
    /// The weights; what stands where `keep` is false does not matter.
    pub stored: Stored,
}

impl Affine {
    /// The map of each group of `weight` (out, in) over the weights that are kept.
    pub(super) fn of_groups(weight: ArrayView2<'_, f32>, keep: &Array2<bool>, bits: u32, group: usize) -> Array2<Self> {
        Array2::from_shape_fn((weight.nrows(), weight.ncols().div_ceil(group)), |(i, g)| {
            let kept: Vec<f32> = (g * group..((g + 1) * group).min(weight.ncols()))
                .filter(|&j| keep[[i, j]])
                .map(|j| weight[[i, j]])
                .collect();
            // A group without weights has a scale all the same, so that nothing divides by 0.
            if kept.is_empty() { Self::of(&[0.0], bits) } else { Self::of(&kept, bits) }
        })
    }
}

impl CompressedLayer {
    /// `weight` (out, in) in `form`, rounded with the maps of `affines` (which [`Form::Half`] has none of).
    pub(super) fn rounded(
        place: &LayerPlace,
        keep: Array2<bool>,
        weight: ArrayView2<'_, f32>,
        form: Form,
        affines: Array2<Affine>,
    ) -> Self {
        let stored = match form {
            Form::Half => Stored::Half(weight.mapv(f16::from_f32)),
            Form::Codes { bits, group } => {
                let codes =
                    Array2::from_shape_fn(weight.dim(), |(i, j)| affines[[i, j / group]].code(weight[[i, j]], bits));
                Stored::Codes { bits, group, codes, affines }
            }
        };
        Self { place: place.clone(), keep, stored }
    }

    /// The weights (out, in) that a model computes with, 0 where they are pruned.
    pub fn weights(&self) -> Array2<f32> {
        Array2::from_shape_fn(self.keep.dim(), |(i, j)| match &self.stored {
            _ if !self.keep[[i, j]] => 0.0,
            Stored::Codes { group, codes, affines, .. } => affines[[i, j / group]].weight(codes[[i, j]]),
            Stored::Half(weights) => weights[[i, j]].to_f32(),
        })
    }

    /// The share of weights that are pruned.
    pub fn sparsity(&self) -> f64 {
        1.0 - self.keep.iter().filter(|&&keep| keep).count() as f64 / self.keep.len().max(1) as f64
    }

    /// Bytes of the layer as it is stored in sparse rows of groups of 4 bits: codes, number, scale and zero of each kept
    /// group, and where rows start. The engine fills rows up to a multiple of four groups besides.
    pub fn stored_bytes(&self) -> usize {
        let kept = group_mask(&self.keep).iter().filter(|&&keep| keep).count();
        kept * (GROUP / 2 + 2 + 2 + 1) + 4 * (self.keep.nrows() + 1)
    }

    /// Kept groups whose scale stands at its floor: weights below half of it vanish.
    pub fn vanishing_groups(&self) -> usize {
        match &self.stored {
            Stored::Codes { group, affines, .. } => {
                let least = Affine::of(&[0.0], 4).scale;
                let kept =
                    |i: usize, g: usize| (g * group..(g + 1) * group).any(|j| self.keep.get([i, j]) == Some(&true));
                affines.indexed_iter().filter(|&((i, g), affine)| affine.scale == least && kept(i, g)).count()
            }
            Stored::Half(_) => 0,
        }
    }

    /// The layer as the field's exporters know it.
    pub fn packed(&self) -> Packed {
        let pattern = if self.prunes_groups() { Pattern::Groups(GROUP) } else { Pattern::Unstructured };
        let mask = Some(Mask { keep: self.keep.clone(), pattern });
        let values = match &self.stored {
            Stored::Half(weights) => Values::Floats(weights.mapv(f16::to_f32)),
            Stored::Codes { bits, group, codes, affines } => Values::Codes {
                codes: codes.clone(),
                grid: Grid {
                    codes: (0, i32::from(largest_code(*bits))),
                    group: *group,
                    scales: affines.mapv(|affine| affine.scale.to_f32()),
                    zeros: affines.mapv(|affine| f32::from(affine.zero)),
                    group_of: None,
                },
            },
        };
        Packed { name: self.place.name.clone(), shape: self.place.shape.clone(), values, mask }
    }

    /// The layer at `place` that was read from a file.
    ///
    /// # Errors
    /// A layer that is not stored in codes counted from 0, with scales in half precision.
    pub fn from_packed(place: &LayerPlace, packed: &Packed) -> Result<Self> {
        let bad = |problem: &str| Error::input(format!("layer \"{}\"", place.name), problem);
        let Values::Codes { codes, grid } = &packed.values else { return Err(bad("is not stored in codes")) };
        if grid.codes.0 != 0 || grid.group_of.is_some() || grid.scales.ncols() * grid.group != codes.ncols() {
            return Err(bad("is not stored in codes from 0 with a scale for each run of columns"));
        }
        let affines = Array2::from_shape_fn(grid.scales.dim(), |at| Affine {
            scale: f16::from_f32(grid.scales[at]),
            zero: grid.zeros[at] as u8,
        });
        let keep = packed.mask.as_ref().map_or_else(|| Array2::from_elem(codes.dim(), true), |mask| mask.keep.clone());
        let stored = Stored::Codes { bits: grid.bits(), group: grid.group, codes: codes.clone(), affines };
        Ok(Self { place: place.clone(), keep, stored })
    }

    /// Whether whole groups of 16 are kept or pruned.
    fn prunes_groups(&self) -> bool {
        self.keep.ncols().is_multiple_of(GROUP)
            && self
                .keep
                .rows()
                .into_iter()
                .all(|row| row.exact_chunks(GROUP).into_iter().all(|group| group.iter().all(|&keep| keep == group[0])))
    }

    /// The layer as the engine multiplies it.
    ///
    /// # Errors
    /// Codes of other than 4 bits or in other groups than of 16.
    pub fn records(&self) -> Result<Records<SparseQuad>> {
        let Stored::Codes { bits, group: GROUP, codes, affines } = &self.stored else {
            return Err(self.unfit("is not stored in groups of 16"));
        };
        if *bits > 4 {
            return Err(self.unfit("has codes of more than 4 bits"));
        }
        let kept = group_mask(&self.keep);
        let rows = (0..codes.nrows()).map(|i| {
            (0..kept.ncols())
                .filter(|&g| kept[[i, g]])
                .map(|g| {
                    let codes = std::array::from_fn(|k| codes[[i, GROUP * g + k]].min(largest_code(4)));
                    (g as u16, Group { codes, affine: affines[[i, g]] })
                })
                .collect()
        });
        packed_sparse(codes.ncols(), rows)
    }

    fn unfit(&self, problem: &str) -> Error {
        Error::input(format!("layer \"{}\"", self.place.name), problem)
    }
}
