//! Curvature block by block: the largest eigenvalue and the trace of each parameter tensor's own part of a matrix.

use super::{Ends, ends};
use crate::{Estimate, LinearOperator, Real, trace};
use offprint_core::random::Stream;
use offprint_core::{Error, Progress, Result};
use std::ops::Range;

/// A diagonal block of an operator: what is left when all other coordinates stand still.
#[derive(Debug, Clone)]
pub struct DiagonalBlock<A> {
    operator: A,
    ranges: Vec<Range<usize>>,
    whole: usize,
}

impl<A> DiagonalBlock<A> {
    /// The rows and columns `range` of `operator`.
    ///
    /// # Errors
    /// A range that is empty or reaches beyond the operator.
    pub fn new<T: Real>(operator: A, range: Range<usize>) -> Result<Self>
    where
        A: LinearOperator<T>,
    {
        Self::of(operator, vec![range])
    }

    /// The rows and columns in all of `ranges`, one after the other: the block of several tensors.
    ///
    /// # Errors
    /// No range; one that is empty, reaches beyond the operator, or does not begin where those before it have ended.
    pub fn of<T: Real>(operator: A, ranges: Vec<Range<usize>>) -> Result<Self>
    where
        A: LinearOperator<T>,
    {
        let whole = operator.dim();
        let mut after = 0;
        for range in &ranges {
            if range.is_empty() || range.end > whole || range.start < after {
                let allowed = format!("not empty, within {after}..{whole}");
                return Err(Error::parameter("range", format!("{range:?}"), allowed));
            }
            after = range.end;
        }
        match ranges.is_empty() {
            true => Err(Error::parameter("range", "none", "at least one")),
            false => Ok(Self { operator, ranges, whole }),
        }
    }
}

impl<T: Real, A: LinearOperator<T>> LinearOperator<T> for DiagonalBlock<A> {
    fn dim(&self) -> usize {
        self.ranges.iter().map(ExactSizeIterator::len).sum()
    }

    fn apply(&self, x: &[T], y: &mut [T]) -> Result<()> {
        let (mut input, mut image) = (vec![T::default(); self.whole], vec![T::default(); self.whole]);
        let mut at = 0;
        for range in &self.ranges {
            input[range.clone()].copy_from_slice(&x[at..at + range.len()]);
            at += range.len();
        }
        self.operator.apply(&input, &mut image)?;
        at = 0;
        for range in &self.ranges {
            y[at..at + range.len()].copy_from_slice(&image[range.clone()]);
            at += range.len();
        }
        Ok(())
    }
}

/// The curvature of one block.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockCurvature {
    /// The block's name.
    pub name: String,
    /// Its number of coordinates.
    pub size: usize,
    /// Its largest and smallest eigenvalue.
    pub ends: Ends,
    /// Its trace.
    pub trace: Estimate,
}

/// The curvature of each of `blocks` (name, range): `steps` + `probes` products a block.
///
/// # Errors
/// A range beyond the operator; no step or probe; products that fail; a stop by `progress`.
pub fn block_curvatures<T: Real>(
    operator: &impl LinearOperator<T>,
    blocks: &[(String, Range<usize>)],
    steps: usize,
    probes: usize,
    stream: Stream,
    progress: &Progress,
) -> Result<Vec<BlockCurvature>> {
    let curvature = |(index, (name, range)): (usize, &(String, Range<usize>))| {
        let block = DiagonalBlock::new(operator, range.clone())?;
        let probing = stream.nested(index as u64).stream("probes");
        let found = BlockCurvature {
            name: name.clone(),
            size: range.len(),
            ends: ends(&block, steps, stream, index as u64, progress)?,
            trace: trace(&block, probes, probing, progress)?,
        };
        progress.advance(1)?;
        Ok(found)
    };
    blocks.iter().enumerate().map(curvature).collect()
}
