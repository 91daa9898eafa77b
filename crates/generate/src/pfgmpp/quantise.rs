//! Quantisation of trained weights: uniform, affine, one range a tensor, nothing trained again.

use crate::network::Network;
use offprint_core::{Error, Result};

/// Numbers of bits that can be asked for.
const BITS: std::ops::RangeInclusive<u32> = 2..=16;

/// Replaces each value by the nearest of 2^b levels between the smallest and the largest:
/// w → s (round(clip(z + w/s, 0, 2^b − 1)) − z), s = (max − min)/(2^b − 1), z the whole part of −min/s within the levels.
///
/// Values that are all equal stay.
///
/// # Errors
/// `bits` outside 2 … 16, values that are not finite.
pub fn quantise(values: &mut [f32], bits: u32) -> Result<()> {
    if !BITS.contains(&bits) {
        return Err(Error::parameter("bits", bits, format!("between {} and {}", BITS.start(), BITS.end())));
    }
    if let Some(i) = values.iter().position(|w| !w.is_finite()) {
        return Err(Error::input("weights", format!("value {i} is {}", values[i])));
    }
    let bounds = values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &w| (low.min(w), high.max(w)));
    let (low, high) = (f64::from(bounds.0), f64::from(bounds.1));
    let top = f64::from((1u32 << bits) - 1);
    let step = (high - low) / top;
    if step <= 0.0 {
        return Ok(());
    }
    let zero = (-low / step).clamp(0.0, top).trunc();
    for w in values {
        let level = (zero + f64::from(*w) / step).clamp(0.0, top).round();
        *w = (step * (level - zero)) as f32;
    }
    Ok(())
}

/// What `ask` says of `network` with the weights of its layers at `bits` bits, biases left alone; the network has its
/// own weights again after that. Do not use the network elsewhere meanwhile.
///
/// # Errors
/// Those of [`quantise`] and of `ask`.
pub fn with_quantised<R>(network: &Network, bits: u32, ask: impl FnOnce(&Network) -> Result<R>) -> Result<R> {
    let params = network.params();
    let own = params.flat::<f32>()?;
    let mut values = own.clone();
    for block in params.blocks().into_iter().filter(|block| block.name.ends_with("weight")) {
        quantise(&mut values[block.range], bits)?;
    }
    params.set_flat(&values)?;
    let answer = ask(network);
    params.set_flat(&own)?;
    answer
}
