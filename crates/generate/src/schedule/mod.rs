//! How much signal and how much noise a Gaussian path has at each time.

mod discrete;

pub use discrete::Table;

use offprint_core::{Error, Result};
use serde::{Deserialize, Serialize};
use std::f64::consts::FRAC_PI_2;

/// x_t = α(t) x₀ + σ(t) ε with ε standard normal. Time runs from the data at 0 to the noise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Schedule {
    /// Variance preserving with a rate that grows linearly: ln α = −(b₁ − b₀) t²/4 − b₀ t/2, σ² = 1 − α², t in (0, 1].
    VpLinear {
        /// Rate b₀ at t = 0.
        from: f64,
        /// Rate b₁ at t = 1.
        to: f64,
    },
    /// Variance preserving, tabulated at t = 1/N, 2/N, …, 1, with ln α linear between.
    VpDiscrete(Table),
    /// Variance exploding, EDM: α = 1, σ = t, t > 0.
    Edm,
    /// Straight lines, flow matching: α = 1 − t, σ = t, t in (0, 1).
    Rectified,
    /// α = cos(πt/2), σ = sin(πt/2), t in (0, 1).
    Trigonometric,
}

/// A schedule at one time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Factor of the signal.
    pub alpha: f64,
    /// Standard deviation of the noise.
    pub sigma: f64,
    /// dα/dt.
    pub alpha_rate: f64,
    /// dσ/dt.
    pub sigma_rate: f64,
}

impl Schedule {
    /// The variance-preserving schedule of score-based diffusion: rates from 0.1 to 20.
    pub fn vp_linear() -> Self {
        Self::VpLinear { from: 0.1, to: 20.0 }
    }

    /// The tabulated schedule of noise rates β₁ … β_N, each between 0 and 1.
    pub fn from_betas(betas: &[f64]) -> Result<Self> {
        Ok(Self::VpDiscrete(Table::from_betas(betas)?))
    }

    /// The tabulated schedule of ᾱ₁ > ᾱ₂ > …, the squares of α.
    pub fn from_alphas_cumprod(alphas_cumprod: &[f64]) -> Result<Self> {
        Ok(Self::VpDiscrete(Table::from_alphas_cumprod(alphas_cumprod)?))
    }

    /// The table of DDPM: 1000 rates that grow linearly, from 0.0001 to 0.02.
    pub fn ddpm() -> Self {
        let betas: Vec<f64> = (0..1000).map(|i| 1e-4 + (0.02 - 1e-4) * f64::from(i) / 999.0).collect();
        Self::from_betas(&betas).expect("rates between 0 and 1")
    }

    /// The table of latent diffusion: 1000 rates whose roots grow linearly, from 0.00085 to 0.012.
    pub fn scaled_linear() -> Self {
        let (first, last) = (0.000_85f64.sqrt(), 0.012f64.sqrt());
        let betas: Vec<f64> = (0..1000).map(|i| (first + (last - first) * f64::from(i) / 999.0).powi(2)).collect();
        Self::from_betas(&betas).expect("rates between 0 and 1")
    }

    /// The cosine table: ᾱ(t) ∝ cos²(π/2 · (t + 0.008)/1.008) over `steps`, rates clipped at `largest` (0.999 as
    /// published), which must be below 1.
    pub fn cosine(steps: usize, largest: f64) -> Result<Self> {
        if steps < 2 {
            return Err(Error::parameter("steps", steps, "at least 2"));
        }
        if !(0.0..1.0).contains(&largest) || largest == 0.0 {
            return Err(Error::parameter("largest rate", largest, "above 0 and below 1"));
        }
        let signal = |i: usize| ((i as f64 / steps as f64 + 0.008) / 1.008 * FRAC_PI_2).cos().powi(2);
        let betas: Vec<f64> = (0..steps).map(|i| (1.0 - signal(i + 1) / signal(i)).min(largest)).collect();
        Self::from_betas(&betas)
    }

    /// Refuses numbers that make no schedule: those of a variant made by hand or read from a file.
    pub fn validate(&self) -> Result<()> {
        match self {
            Self::VpDiscrete(table) => table.check(),
            Self::VpLinear { from, to } if !(*from > 0.0 && to >= from && to.is_finite()) => {
                Err(Error::parameter("rates", format!("{from} and {to}"), "positive, the second not below the first"))
            }
            _ => Ok(()),
        }
    }

    /// The name in messages and files.
    pub fn name(&self) -> &'static str {
        match self {
            Self::VpLinear { .. } => "vp-linear",
            Self::VpDiscrete(_) => "vp-discrete",
            Self::Edm => "edm",
            Self::Rectified => "rectified",
            Self::Trigonometric => "trigonometric",
        }
    }

    /// N, for a schedule that is a table.
    pub fn entries(&self) -> Option<usize> {
        match self {
            Self::VpDiscrete(table) => Some(table.len()),
            _ => None,
        }
    }

    /// The highest noise level τ that it reaches; infinite where the signal falls to nothing.
    pub fn highest(&self) -> f64 {
        match self {
            Self::VpLinear { .. } | Self::VpDiscrete(_) => self.tau(1.0).unwrap_or(f64::INFINITY),
            _ => f64::INFINITY,
        }
    }

    /// The open interval of times at which there are both signal and noise; at a closed upper end 1 for the
    /// variance-preserving ones, infinite for EDM.
    pub fn domain(&self) -> (f64, f64) {
        match self {
            Self::VpDiscrete(table) => (table.earliest(), 1.0),
            Self::Edm => (0.0, f64::INFINITY),
            _ => (0.0, 1.0),
        }
    }

    /// The time from which samplers usually start: where the signal is (almost) lost. `None` for EDM, whose noise has
    /// no end.
    pub fn latest(&self) -> Option<f64> {
        match self {
            Self::VpLinear { .. } | Self::VpDiscrete(_) => Some(1.0),
            Self::Edm => None,
            // Zero signal at t = 1: D cannot be divided out of there.
            Self::Rectified | Self::Trigonometric => Some(0.999),
        }
    }

    /// The time at which samplers usually end: the first entry of a table, otherwise a thousandth.
    pub fn earliest(&self) -> f64 {
        match self {
            Self::VpDiscrete(table) => 1.0 / table.len() as f64,
            Self::Edm => 0.002,
            _ => 1e-3,
        }
    }

    /// α, σ and their derivatives at `t`.
    ///
    /// # Errors
    /// If `t` lies outside the schedule, or there is no signal left at it.
    pub fn at(&self, t: f64) -> Result<Point> {
        self.check(t)?;
        Ok(match self {
            Self::Edm => Point { alpha: 1.0, sigma: t, alpha_rate: 0.0, sigma_rate: 1.0 },
            Self::Rectified => Point { alpha: 1.0 - t, sigma: t, alpha_rate: -1.0, sigma_rate: 1.0 },
            Self::Trigonometric => {
                let (sin, cos) = (FRAC_PI_2 * t).sin_cos();
                Point { alpha: cos, sigma: sin, alpha_rate: -FRAC_PI_2 * sin, sigma_rate: FRAC_PI_2 * cos }
            }
            Self::VpLinear { .. } | Self::VpDiscrete(_) => {
                let (log_alpha, log_rate) = self.log_alpha(t);
                let (alpha, sigma) = (log_alpha.exp(), (-(2.0 * log_alpha).exp_m1()).sqrt());
                // σ² = 1 − α² gives σ σ' = −α α'.
                let alpha_rate = alpha * log_rate;
                Point { alpha, sigma, alpha_rate, sigma_rate: -alpha * alpha_rate / sigma }
            }
        })
    }

    /// The noise-to-signal ratio τ = σ/α at `t`.
    pub fn tau(&self, t: f64) -> Result<f64> {
        self.check(t)?;
        Ok(match self {
            Self::Edm => t,
            Self::Rectified => t / (1.0 - t),
            Self::Trigonometric => (FRAC_PI_2 * t).tan(),
            // τ² = 1/α² − 1.
            Self::VpLinear { .. } | Self::VpDiscrete(_) => (-2.0 * self.log_alpha(t).0).exp_m1().sqrt(),
        })
    }

    /// λ = ln(α/σ) = −ln τ at `t`: half the logarithm of the signal-to-noise ratio.
    pub fn lambda(&self, t: f64) -> Result<f64> {
        Ok(-self.tau(t)?.ln())
    }

    /// The time at which σ/α is `tau`, in closed form.
    ///
    /// # Errors
    /// If the schedule does not reach it.
    pub fn time(&self, tau: f64) -> Result<f64> {
        if !(tau > 0.0 && tau.is_finite()) {
            return Err(Error::parameter("tau", tau, "a positive number"));
        }
        let t = match self {
            Self::Edm => tau,
            Self::Rectified => tau / (1.0 + tau),
            Self::Trigonometric => tau.atan() / FRAC_PI_2,
            Self::VpLinear { from, to } => {
                // The root of (b₁ − b₀) t²/4 + b₀ t/2 = −ln α, without cancellation.
                let loss = 0.5 * log_one_plus_square(tau);
                2.0 * loss / (0.5 * from + (0.25 * from * from + (to - from) * loss).sqrt())
            }
            Self::VpDiscrete(table) => table.time(-0.5 * log_one_plus_square(tau)),
        };
        let (_, last) = self.domain();
        // Rounding may lead past the last time by its last digit.
        let t = if t > last && t < last + 1e-9 { last } else { t };
        self.check(t).map(|()| t).map_err(|_| {
            let reach = self.tau(last).map_or_else(|_| "infinity".to_owned(), |tau| format!("{tau:.4}"));
            Error::parameter("tau", tau, format!("reached by the schedule {}: above 0 and up to {reach}", self.name()))
        })
    }

    fn log_alpha(&self, t: f64) -> (f64, f64) {
        match self {
            Self::VpLinear { from, to } => {
                (-0.25 * (to - from) * t * t - 0.5 * from * t, -0.5 * (to - from) * t - 0.5 * from)
            }
            Self::VpDiscrete(table) => table.log_alpha(t),
            _ => unreachable!("only for the variance-preserving schedules"),
        }
    }

    fn check(&self, t: f64) -> Result<()> {
        let (first, last) = self.domain();
        if matches!(self, Self::Rectified | Self::Trigonometric) && t == last {
            let schedule = self.name();
            return Err(Error::parameter(
                "t",
                t,
                format!("below 1: {schedule} reaches zero signal at t=1, start below"),
            ));
        }
        if t > first && t <= last && t.is_finite() {
            return Ok(());
        }
        Err(Error::parameter("t", t, format!("above {first} and at most {last}, the times of {}", self.name())))
    }
}

/// ln(1 + τ²) without overflow.
fn log_one_plus_square(tau: f64) -> f64 {
    if tau > 1e8 { 2.0 * tau.ln() } else { (tau * tau).ln_1p() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all() -> Vec<Schedule> {
        vec![
            Schedule::vp_linear(),
            Schedule::scaled_linear(),
            Schedule::cosine(1000, 0.999).unwrap(),
            Schedule::Edm,
            Schedule::Rectified,
            Schedule::Trigonometric,
        ]
    }

    proptest! {
        #[test]
        fn times_and_noise_levels_are_inverse(t in 0.002..0.998f64) {
            for schedule in all() {
                let tau = schedule.tau(t).unwrap();
                prop_assert!((schedule.time(tau).unwrap() - t).abs() < 1e-12, "{} {t}", schedule.name());
                let point = schedule.at(t).unwrap();
                prop_assert!((point.sigma / point.alpha / tau - 1.0).abs() < 1e-12);
            }
        }

        #[test]
        fn rates_are_derivatives(t in 0.01..0.95f64) {
            for schedule in all() {
                // Tables have kinks at multiples of 1/1000: stay between.
                let t = (t * 1000.0).floor() / 1000.0 + 0.0005;
                let h = 1e-5;
                let (low, high, point) = (schedule.at(t - h).unwrap(), schedule.at(t + h).unwrap(), schedule.at(t).unwrap());
                for (rate, slope) in [
                    (point.alpha_rate, (high.alpha - low.alpha) / (2.0 * h)),
                    (point.sigma_rate, (high.sigma - low.sigma) / (2.0 * h)),
                ] {
                    prop_assert!((rate - slope).abs() < 1e-4 * (1.0 + rate.abs()), "{}: {rate} {slope}", schedule.name());
                }
            }
        }
    }

    #[test]
    fn known_values_hold() {
        // α(1) = exp(−19.9/4 − 0.05) of the linear rate.
        let point = Schedule::vp_linear().at(1.0).unwrap();
        assert!((point.alpha - (-5.025f64).exp()).abs() < 1e-15);
        // diffusers' scaled_linear table: alphas_cumprod[0] = 1 − 0.00085, alphas_cumprod[999] = 0.0047.
        let schedule = Schedule::scaled_linear();
        assert!((schedule.at(0.001).unwrap().alpha.powi(2) - 0.99915).abs() < 1e-12);
        assert!((schedule.at(1.0).unwrap().alpha.powi(2) - 0.00466).abs() < 1e-5);
    }

    #[test]
    fn times_without_signal_or_outside_are_refused() {
        let message = |schedule: Schedule, t| schedule.at(t).unwrap_err().to_string();
        assert!(message(Schedule::Rectified, 1.0).contains("zero signal at t=1"));
        assert!(message(Schedule::Trigonometric, 1.0).contains("start below"));
        assert!(message(Schedule::vp_linear(), 1.5).starts_with("t: got 1.5"));
        assert!(message(Schedule::vp_linear(), f64::NAN).contains("NaN"));
        assert!(Schedule::vp_linear().time(1e9).unwrap_err().to_string().contains("vp-linear"));
        assert!(Schedule::Edm.time(-1.0).is_err());
        assert!(Schedule::cosine(10, 1.0).is_err());
    }
}
