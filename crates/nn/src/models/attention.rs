//! Splitting a sequence into heads and joining it again.

use candle_core::{Result, Tensor};

/// (n, positions, heads × d) to (n, heads, positions, d).
pub(super) fn split_heads(x: &Tensor, heads: usize) -> Result<Tensor> {
    let (n, positions, width) = x.dims3()?;
    x.reshape((n, positions, heads, width / heads))?.transpose(1, 2)
}

/// (n, heads, positions, d) to (n, positions, heads × d).
pub(super) fn join_heads(x: &Tensor) -> Result<Tensor> {
    x.transpose(1, 2)?.contiguous()?.flatten_from(2)
}
