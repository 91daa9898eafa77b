//! Budgets in the units that people give them in.

use super::{Candidate, Solver};
use offprint_core::{Error, Result};

/// One way to quantise a layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerOption {
    /// Bits of a weight.
    pub bits: u32,
    /// Bits of an input.
    pub activation_bits: u32,
    /// Bits of scales, zeros and indices beside the codes.
    pub extra_bits: u64,
    /// What it does to the network, from 0.
    pub cost: f64,
}

/// A layer with its options.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerCost {
    /// Its name.
    pub name: String,
    /// Number of weights.
    pub weights: u64,
    /// Multiplications a sample.
    pub multiplications: u64,
    /// What may become of it.
    pub options: Vec<LayerOption>,
}

/// What must not be exceeded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Budget {
    /// Bytes of codes, scales, zeros and indices.
    Bytes(u64),
    /// Mean bits of a weight, without scales.
    MeanBits(f64),
    /// Bit operations a sample: multiplications × bits of weights × bits of inputs.
    BitOperations(u64),
    /// Total cost; then the size in bits is what is made least.
    Degradation(f64),
}

impl std::str::FromStr for Budget {
    type Err = String;

    /// `9680B`, `12kB` or `1.5MB` (of 1000), `3bits` a weight, `0.13x` of 32-bit floats, `2.5Gbops` (or `Mbops`, `bops`) a
    /// sample.
    fn from_str(text: &str) -> Result<Self, String> {
        type Make = fn(f64) -> Budget;
        let units: [(&str, Make); 8] = [
            ("Gbops", |x| Self::BitOperations((x * 1e9).round() as u64)),
            ("Mbops", |x| Self::BitOperations((x * 1e6).round() as u64)),
            ("bops", |x| Self::BitOperations(x.round() as u64)),
            ("bits", Self::MeanBits),
            ("MB", |x| Self::Bytes((x * 1e6).round() as u64)),
            ("kB", |x| Self::Bytes((x * 1e3).round() as u64)),
            ("B", |x| Self::Bytes(x.round() as u64)),
            ("x", |x| Self::MeanBits(32.0 * x)),
        ];
        let found = units.iter().find_map(|(unit, make)| text.trim().strip_suffix(unit).map(|number| (number, make)));
        let number = found.and_then(|(number, make)| Some((number.trim().parse::<f64>().ok()?, make)));
        match number {
            Some((number, make)) if number >= 0.0 && number.is_finite() => Ok(make(number)),
            _ => Err(format!("\"{text}\" is no budget; write 9680B, 12kB, 1.5MB, 3bits, 0.13x or 2.5Gbops")),
        }
    }
}

/// Sizes that costs are rounded to when they are the budget.
const COST_UNITS: f64 = (1_u64 << 40) as f64;

/// The option of each layer, by `solver`, such that costs are least within `budget`, or sizes least within a budget of
/// degradation.
///
/// # Errors
/// As [`Solver::solve`], in the budget's own units; a budget that is no number from 0.
pub fn allocate(layers: &[LayerCost], budget: Budget, solver: Solver) -> Result<Vec<usize>> {
    let bits = |layer: &LayerCost, option: &LayerOption| layer.weights * u64::from(option.bits) + option.extra_bits;
    let total: u64 = layers.iter().map(|layer| layer.weights).sum();
    let candidates = |of: &dyn Fn(&LayerCost, &LayerOption) -> Candidate| -> Vec<Vec<Candidate>> {
        layers.iter().map(|layer| layer.options.iter().map(|option| of(layer, option)).collect()).collect()
    };
    let number = |value: f64| {
        if value >= 0.0 && value.is_finite() { Ok(value) } else { Err(Error::parameter("budget", value, "at least 0")) }
    };
    let (candidates, limit, unit): (_, u64, f64) = match budget {
        Budget::Bytes(bytes) => {
            let of = |l: &LayerCost, o: &LayerOption| Candidate { cost: o.cost, size: bits(l, o) };
            (candidates(&of), bytes.saturating_mul(8), 8.0)
        }
        Budget::MeanBits(mean) => {
            let of = |l: &LayerCost, o: &LayerOption| Candidate { cost: o.cost, size: l.weights * u64::from(o.bits) };
            // A mean of 3.2 bits of 10 weights is 32, not the 31 that rounding could leave.
            (candidates(&of), (number(mean)? * total as f64 * (1.0 + 1e-12)) as u64, total.max(1) as f64)
        }
        Budget::BitOperations(most) => {
            let of = |l: &LayerCost, o: &LayerOption| Candidate {
                cost: o.cost,
                size: l.multiplications * u64::from(o.bits) * u64::from(o.activation_bits),
            };
            (candidates(&of), most, 1.0)
        }
        Budget::Degradation(most) => {
            let scale = if number(most)? > 0.0 { COST_UNITS / most } else { COST_UNITS * 1e6 };
            let of = |l: &LayerCost, o: &LayerOption| Candidate {
                cost: bits(l, o) as f64,
                // Costs beyond the budget need no digits.
                size: (o.cost * scale).min(COST_UNITS * 1e6) as u64,
            };
            if let Some(bad) = layers.iter().flat_map(|l| &l.options).find(|o| !(o.cost >= 0.0 && o.cost.is_finite())) {
                return Err(Error::input("costs", format!("hold {}; costs are numbers from 0", bad.cost)));
            }
            (candidates(&of), if most > 0.0 { COST_UNITS as u64 } else { 0 }, scale)
        }
    };
    let least: u64 = candidates.iter().map(|options| options.iter().map(|o| o.size).min().unwrap_or(0)).sum();
    if least > limit {
        let (given, least) = (limit as f64 / unit, least as f64 / unit);
        return Err(Error::parameter("budget", given, format!("at least {least}, the least that can be reached")));
    }
    Ok(solver.solve(&candidates, limit)?.choices)
}
