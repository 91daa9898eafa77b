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

/// Queries, keys and values, (n, heads, positions, d) each, from one projection (n, positions, 3 × heads × d).
pub(super) fn split_qkv(qkv: &Tensor, heads: usize) -> Result<[Tensor; 3]> {
    let width = qkv.dim(2)? / 3;
    let part = |i: usize| split_heads(&qkv.narrow(2, i * width, width)?.contiguous()?, heads);
    Ok([part(0)?, part(1)?, part(2)?])
}
