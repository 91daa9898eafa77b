//! What attention does with a sequence beside the attention itself: heads apart and together, rotary positions.

use candle_core::{DType, Device, Result, Tensor};

/// (n, positions, heads × d) to (n, heads, positions, d).
pub fn split_heads(x: &Tensor, heads: usize) -> Result<Tensor> {
    let (n, positions, width) = x.dims3()?;
    x.reshape((n, positions, heads, width / heads))?.transpose(1, 2)
}

/// (n, heads, positions, d) to (n, positions, heads × d).
pub fn join_heads(x: &Tensor) -> Result<Tensor> {
    x.transpose(1, 2)?.contiguous()?.flatten_from(2)
}

/// Each head of (n, heads, positions, d) `times` times in a row.
pub fn repeat_heads(x: &Tensor, times: usize) -> Result<Tensor> {
    if times == 1 {
        return Ok(x.clone());
    }
    let (n, heads, positions, d) = x.dims4()?;
    x.unsqueeze(2)?.broadcast_as((n, heads, times, positions, d))?.reshape((n, heads * times, positions, d))
}

/// Cosines and sines of the rotary angles, (positions, d) each: angle p θ^(−2i/d) for position p and the pair
/// (i, i + d/2) of a head's d components.
#[derive(Debug, Clone)]
pub struct Rotary {
    cos: Tensor,
    sin: Tensor,
}

impl Rotary {
    /// For heads of `d` components, an even number, and `positions` positions.
    pub fn new(d: usize, theta: f64, positions: usize, dtype: DType) -> Result<Self> {
        let half = (d / 2).max(1);
        let angles: Vec<f64> = (0..positions)
            .flat_map(|p| (0..d).map(move |j| p as f64 * theta.powf(-2.0 * (j % half) as f64 / d as f64)))
            .collect();
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f64> = angles.iter().map(|&a| f(a)).collect();
            Tensor::from_vec(values, (positions, d), &Device::Cpu)?.to_dtype(dtype)
        };
        Ok(Self { cos: table(f64::cos)?, sin: table(f64::sin)? })
    }

    /// Rotates each pair (i, i + d/2) of `x` (n, heads, positions, d) by its angle.
    pub fn turn(&self, x: &Tensor) -> Result<Tensor> {
        let half = x.dim(3)? / 2;
        let (a, b) = (x.narrow(3, 0, half)?, x.narrow(3, half, half)?);
        let across = Tensor::cat(&[&b.neg()?, &a], 3)?;
        x.broadcast_mul(&self.cos)? + across.broadcast_mul(&self.sin)?
    }
}
