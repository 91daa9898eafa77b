//! Preconditioned gradients of queries, layer by layer, whole or compressed to a low rank.

use super::{Element, TrackedLayers};
use crate::Real;
use ndarray::{Array2, ArrayView2, s};
use offprint_core::{Error, Result};
use offprint_math::linalg::svd;
use rayon::prelude::*;

/// What training gradients are multiplied with: v_q = (G + λ)⁻¹ ∇f_q for each query, one matrix a layer.
#[derive(Debug, Clone)]
pub struct Directions {
    pub(super) layers: Vec<Direction>,
    pub(super) queries: usize,
}

/// The matrices V_q (out, columns) of one layer.
#[derive(Debug, Clone)]
pub(super) enum Direction {
    /// As they are: (q, out · columns), each row by row.
    Whole(Array2<f64>),
    /// V_q ≈ L_q R_q: left (q · k, out) holds L_qᵀ, right (q · k, columns) holds R_q.
    LowRank { left: Array2<f64>, right: Array2<f64>, rank: usize },
}

impl Directions {
    /// From preconditioned gradients in tracked coordinates `(q, dim)`.
    ///
    /// # Errors
    /// No query; another number of columns; values that are not finite, by query.
    pub fn new(tracked: &TrackedLayers, preconditioned: ArrayView2<'_, f64>) -> Result<Self> {
        super::preconditioner::check_width(&preconditioned, tracked.dim())?;
        if preconditioned.nrows() == 0 {
            return Err(Error::input("queries", "there is no query"));
        }
        if let Some(query) = preconditioned.outer_iter().position(|row| row.iter().any(|x| !x.is_finite())) {
            return Err(Error::Numerical(format!("the direction of query {query} (counted from 0) is not finite")));
        }
        let layers = tracked.layers().iter().map(|place| {
            let mut whole = Array2::zeros((preconditioned.nrows(), place.outputs * place.columns()));
            for (mut row, x) in whole.outer_iter_mut().zip(preconditioned.outer_iter()) {
                let x = x.to_vec();
                row.iter_mut().zip(place.gather(&x)).for_each(|(y, x)| *y = x);
            }
            Direction::Whole(whole)
        });
        Ok(Self { layers: layers.collect(), queries: preconditioned.nrows() })
    }

    /// Each matrix replaced by its best approximation of rank `rank`, where that is smaller. Memory falls from out · in to
    /// k (out + in) numbers for each query and layer.
    ///
    /// # Errors
    /// Rank 0; singular values that do not converge.
    pub fn compressed(&self, tracked: &TrackedLayers, rank: usize) -> Result<Self> {
        if rank == 0 {
            return Err(Error::parameter("rank", rank, "at least 1"));
        }
        let layers = tracked.layers().iter().zip(&self.layers).map(|(place, direction)| {
            let (outputs, columns) = (place.outputs, place.columns());
            let Direction::Whole(whole) = direction else { return Ok(direction.clone()) };
            if rank * (outputs + columns) >= outputs * columns {
                return Ok(direction.clone());
            }
            let mut left = Array2::zeros((self.queries * rank, outputs));
            let mut right = Array2::zeros((self.queries * rank, columns));
            let parts: Vec<_> = (0..self.queries)
                .into_par_iter()
                .map(|q| {
                    let matrix = whole.row(q).into_shape_with_order((outputs, columns)).expect("out · columns values");
                    svd(matrix)
                })
                .collect::<Result<_>>()?;
            for (q, (u, values, v)) in parts.into_iter().enumerate() {
                for k in 0..rank.min(values.len()) {
                    left.row_mut(q * rank + k).assign(&(&u.column(k) * values[k]));
                    right.row_mut(q * rank + k).assign(&v.column(k));
                }
            }
            Ok(Direction::LowRank { left, right, rank })
        });
        Ok(Self { layers: layers.collect::<Result<_>>()?, queries: self.queries })
    }

    /// The number of queries.
    pub fn queries(&self) -> usize {
        self.queries
    }

    /// Numbers held.
    pub fn size(&self) -> usize {
        self.layers
            .iter()
            .map(|layer| match layer {
                Direction::Whole(whole) => whole.len(),
                Direction::LowRank { left, right, .. } => left.len() + right.len(),
            })
            .sum()
    }
}

/// A [`Direction`] in the number type of the training gradients, laid out for products.
pub(super) enum Cast<T> {
    /// (q, out · columns)
    Whole(Array2<T>),
    /// As in [`Direction::LowRank`].
    LowRank { left: Array2<T>, right: Array2<T>, rank: usize },
}

impl<T: Element> Cast<T> {
    pub fn of(direction: &Direction) -> Self {
        let cast = |x: &Array2<f64>| x.mapv(|x| <T as Real>::from_f64(x));
        match direction {
            Direction::Whole(whole) => Self::Whole(cast(whole)),
            Direction::LowRank { left, right, rank } => {
                Self::LowRank { left: cast(left), right: cast(right), rank: *rank }
            }
        }
    }
}

impl<T> Cast<T> {
    /// The queries `from..to` of a whole direction.
    pub fn queries(whole: &Array2<T>, from: usize, to: usize) -> ArrayView2<'_, T> {
        whole.slice(s![from..to, ..])
    }
}
