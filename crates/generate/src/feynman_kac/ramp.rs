//! Schedules of an exponent or a reward over the steps.

use offprint_core::{Error, Result};
use std::str::FromStr;

/// A function of the fraction u of the steps that is done, from 0 (noise) to 1 (data).
#[derive(Debug, Clone, PartialEq)]
pub enum Ramp {
    /// from + (to − from) u^power.
    Power {
        /// Value at the noise.
        from: f64,
        /// Value at the data.
        to: f64,
        /// Power of u; 1 is linear, 3 leaves most of the change to the end.
        power: f64,
    },
    /// Straight lines between the knots (u, value), constant outside.
    Knots(Vec<(f64, f64)>),
}

impl Ramp {
    /// The power of u that rises from `from` to `to`.
    pub fn power(from: f64, to: f64, power: f64) -> Result<Self> {
        if !(from.is_finite() && to.is_finite()) {
            return Err(Error::parameter("ramp", format!("{from} to {to}"), "between finite numbers"));
        }
        crate::check::positive("power", power)?;
        Ok(Self::Power { from, to, power })
    }

    /// Straight lines between `knots` (u, value).
    ///
    /// # Errors
    /// No knot, values that are not finite, places outside 0..1 or not rising: at two knots in one place the schedule
    /// jumps and has no derivative.
    pub fn knots(knots: Vec<(f64, f64)>) -> Result<Self> {
        if knots.is_empty() {
            return Err(Error::parameter("ramp", "no knots", "at least one"));
        }
        if let Some((i, (u, v))) =
            knots.iter().enumerate().find(|(_, (u, v))| !(0.0..=1.0).contains(u) || !v.is_finite())
        {
            return Err(Error::parameter("ramp", format!("({u}, {v}) at knot {i}"), "finite, at a place from 0 to 1"));
        }
        if let Some(i) = knots.windows(2).position(|w| w[1].0 <= w[0].0) {
            let given = format!("knot {} at {} after one at {}", i + 1, knots[i + 1].0, knots[i].0);
            return Err(Error::parameter("ramp", given, "at rising places: elsewhere it is not differentiable"));
        }
        Ok(Self::Knots(knots))
    }

    /// The value at `u`.
    pub fn at(&self, u: f64) -> f64 {
        match self {
            Self::Power { from, to, power } => from + (to - from) * u.clamp(0.0, 1.0).powf(*power),
            Self::Knots(knots) => {
                let after = knots.partition_point(|k| k.0 <= u);
                match (after.checked_sub(1).map(|i| knots[i]), knots.get(after)) {
                    (Some(a), Some(b)) => a.1 + (b.1 - a.1) * (u - a.0) / (b.0 - a.0),
                    (Some(a), None) => a.1,
                    (None, _) => knots[0].1,
                }
            }
        }
    }
}

/// Reads `3` (constant), `1:3` (linear), `1:3^2` (a power of the fraction of steps) or knots `0=1,0.5=1.2,1=3`.
impl FromStr for Ramp {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = |part: &str| {
            part.trim()
                .parse::<f64>()
                .ok()
                .filter(|v| v.is_finite())
                .ok_or_else(|| Error::parameter("ramp", text, "a number, 1:3, 1:3^2 or knots 0=1,0.5=1.2,1=3"))
        };
        if text.contains('=') {
            let knot = |part: &str| {
                let (u, v) = part.split_once('=').unwrap_or((part, ""));
                Ok((number(u)?, number(v)?))
            };
            return Self::knots(text.split(',').map(knot).collect::<Result<_>>()?);
        }
        let Some((from, rest)) = text.split_once(':') else {
            return Self::knots(vec![(0.0, number(text)?)]);
        };
        let (to, power) = rest.split_once('^').unwrap_or((rest, "1"));
        Self::power(number(from)?, number(to)?, number(power)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ramps_read_and_interpolate() {
        let at = |text: &str, u| text.parse::<Ramp>().unwrap().at(u);
        assert_eq!((at("3", 0.0), at("3", 0.7)), (3.0, 3.0));
        assert_eq!(at("1:3", 0.5), 2.0);
        assert_eq!(at("0:2^3", 0.5), 0.25);
        assert_eq!((at("0=1,0.5=2,1=0", 0.25), at("0=1,0.5=2,1=0", 0.75), at("0.2=5,1=6", 0.0)), (1.5, 1.0, 5.0));
    }

    #[test]
    fn bad_ramps_say_what_is_wrong() {
        let message = |text: &str| text.parse::<Ramp>().unwrap_err().to_string();
        assert!(message("0=1,0.5=2,0.5=3").contains("knot 2 at 0.5") && message("0=1,0=3").contains("differentiable"));
        assert!(
            message("a:b").contains("1:3^2") && message("nan").contains("nan") && message("0=1,2=3").contains("knot 1")
        );
        assert!(message("1:2^-1").starts_with("power"));
    }
}
