//! What a cut saves.

use super::net::Net;
use candle_core::Tensor;
use offprint_core::Result;
use offprint_math::stats::median;
use offprint_nn::computation;
use std::time::Instant;

/// The largest difference of two networks' outputs for `x`, relative to the largest output.
///
/// # Errors
/// Samples that the networks do not read.
pub fn difference(full: &Net, compact: &Net, x: &Tensor) -> Result<f64> {
    let off = || -> candle_core::Result<f64> {
        let (full, compact) = (full.forward(x)?, compact.forward(x)?);
        let largest =
            |t: &Tensor| t.abs()?.flatten_all()?.max(0)?.to_dtype(candle_core::DType::F64)?.to_scalar::<f64>();
        Ok(largest(&(&full - &compact)?)? / largest(&full)?.max(f64::MIN_POSITIVE))
    };
    off().map_err(computation)
}

/// Median seconds of a forward pass of each network over `x`, taken in turn so that both see the same machine.
///
/// # Errors
/// Samples that the networks do not read.
pub fn latencies(nets: [&Net; 2], x: &Tensor, repeats: usize) -> Result<[f64; 2]> {
    let mut seconds = [Vec::new(), Vec::new()];
    for round in 0..=repeats {
        for (net, seconds) in nets.iter().zip(&mut seconds) {
            let start = Instant::now();
            std::hint::black_box(net.forward(x).map_err(computation)?);
            // The first round warms up.
            if round > 0 {
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
    }
    Ok(seconds.map(|s| median(&s)))
}
