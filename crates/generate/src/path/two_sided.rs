//! Paths between two data sets, with a latent Gaussian between (stochastic interpolants, arXiv:2303.08797).

use offprint_core::{Error, Result};
use serde::{Deserialize, Serialize};
use std::f64::consts::{FRAC_PI_2, PI};

/// How the two data sets are mixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Interpolation {
    /// a = 1 − t, b = t.
    Linear,
    /// a = √(1−γ²) cos(πt/2), b = √(1−γ²) sin(πt/2): the variance stays.
    Trigonometric,
    /// a = cos²(πt) up to t = ½, then b = cos²(πt): through pure noise in the middle.
    EncodingDecoding,
    /// a = 0, b = 1: the data to themselves through noise.
    Mirror,
}

/// The standard deviation of the latent noise; 0 at both ends.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gamma {
    /// √(A t(1−t)): a Brownian bridge of variance A.
    Brownian {
        /// A > 0.
        scale: f64,
    },
    /// t(1−t).
    Quadratic,
    /// sin²(πt).
    SineSquared,
    /// S(f(t−½)+1) − S(f(t−½)−1) − S(1−f/2) + S(−1−f/2) with the logistic S.
    Sigmoid {
        /// Steepness f > 0.
        steepness: f64,
    },
    /// None: a rectified flow.
    Zero,
}

/// x_t = a(t) x₀ + b(t) x₁ + γ(t) z.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TwoSided {
    interpolation: Interpolation,
    gamma: Gamma,
}

/// A path between two data sets at one time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Coefficients {
    /// Factor of x₀.
    pub a: f64,
    /// Factor of x₁.
    pub b: f64,
    /// Standard deviation of the latent noise.
    pub gamma: f64,
    /// da/dt.
    pub a_rate: f64,
    /// db/dt.
    pub b_rate: f64,
    /// γ dγ/dt, finite where dγ/dt is not.
    pub gamma_product: f64,
}

impl Coefficients {
    /// dγ/dt, infinite at the ends of a Brownian bridge.
    pub fn gamma_rate(&self) -> f64 {
        if self.gamma_product == 0.0 { 0.0 } else { self.gamma_product / self.gamma }
    }
}

impl Gamma {
    /// γ and γ dγ/dt at `t`.
    fn at(self, t: f64) -> (f64, f64) {
        let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
        match self {
            Self::Brownian { scale } => ((scale * t * (1.0 - t)).max(0.0).sqrt(), 0.5 * scale * (1.0 - 2.0 * t)),
            Self::Quadratic => (t * (1.0 - t), t * (1.0 - t) * (1.0 - 2.0 * t)),
            Self::SineSquared => {
                let gamma = (PI * t).sin().powi(2);
                (gamma, gamma * PI * (2.0 * PI * t).sin())
            }
            Self::Sigmoid { steepness: f } => {
                let bump = |s: f64| logistic(s + 1.0) - logistic(s - 1.0);
                let slope = |x: f64| logistic(x) * (1.0 - logistic(x));
                let s = f * (t - 0.5);
                let gamma = bump(s) - bump(-0.5 * f);
                (gamma, gamma * f * (slope(s + 1.0) - slope(s - 1.0)))
            }
            Self::Zero => (0.0, 0.0),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Brownian { .. } => "brownian",
            Self::Quadratic => "quadratic",
            Self::SineSquared => "sine-squared",
            Self::Sigmoid { .. } => "sigmoid",
            Self::Zero => "zero",
        }
    }
}

impl TwoSided {
    /// The path with this mixture and this latent noise.
    ///
    /// # Errors
    /// A scale that is not positive, or γ that reaches 1 under trigonometric coefficients, which are singular there.
    pub fn new(interpolation: Interpolation, gamma: Gamma) -> Result<Self> {
        let (Gamma::Brownian { scale } | Gamma::Sigmoid { steepness: scale }) = gamma else {
            return Self::checked(interpolation, gamma);
        };
        if scale > 0.0 && scale.is_finite() {
            return Self::checked(interpolation, gamma);
        }
        Err(Error::parameter("gamma", format!("{} of scale {scale}", gamma.name()), "of a positive scale"))
    }

    fn checked(interpolation: Interpolation, gamma: Gamma) -> Result<Self> {
        // All of them peak in the middle.
        let (peak, _) = gamma.at(0.5);
        if interpolation == Interpolation::Trigonometric && peak >= 1.0 {
            let given = format!("{} with {peak} at t=1/2", gamma.name());
            return Err(Error::parameter("gamma", given, "below 1 on path trig"));
        }
        Ok(Self { interpolation, gamma })
    }

    /// How the data sets are mixed.
    pub fn interpolation(&self) -> Interpolation {
        self.interpolation
    }

    /// The latent noise.
    pub fn gamma(&self) -> Gamma {
        self.gamma
    }

    /// The name in messages and files.
    pub fn name(&self) -> String {
        let mixture = match self.interpolation {
            Interpolation::Linear => "linear",
            Interpolation::Trigonometric => "trigonometric",
            Interpolation::EncodingDecoding => "encoding-decoding",
            Interpolation::Mirror => "mirror",
        };
        format!("{mixture} with gamma {}", self.gamma.name())
    }

    /// The coefficients at `t` in \[0, 1\].
    pub fn at(&self, t: f64) -> Result<Coefficients> {
        if !(0.0..=1.0).contains(&t) {
            return Err(Error::parameter("t", t, "from 0 to 1"));
        }
        let (gamma, gamma_product) = self.gamma.at(t);
        let (a, b, a_rate, b_rate) = match self.interpolation {
            Interpolation::Linear => (1.0 - t, t, -1.0, 1.0),
            Interpolation::Mirror => (0.0, 1.0, 0.0, 0.0),
            Interpolation::Trigonometric => {
                let ((sin, cos), rest) = ((FRAC_PI_2 * t).sin_cos(), (1.0 - gamma * gamma).sqrt());
                let shrinking = gamma_product / rest;
                let turn = FRAC_PI_2 * rest;
                (rest * cos, rest * sin, -shrinking * cos - turn * sin, -shrinking * sin + turn * cos)
            }
            Interpolation::EncodingDecoding => {
                let (weight, rate) = ((PI * t).cos().powi(2), -PI * (2.0 * PI * t).sin());
                if t <= 0.5 { (weight, 0.0, rate, 0.0) } else { (0.0, weight, 0.0, rate) }
            }
        };
        Ok(Coefficients { a, b, gamma, a_rate, b_rate, gamma_product })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths() -> Vec<TwoSided> {
        let gammas = [
            Gamma::Brownian { scale: 1.0 },
            Gamma::Quadratic,
            Gamma::SineSquared,
            Gamma::Sigmoid { steepness: 10.0 },
            Gamma::Zero,
        ];
        let mixtures = [
            Interpolation::Linear,
            Interpolation::Trigonometric,
            Interpolation::EncodingDecoding,
            Interpolation::Mirror,
        ];
        mixtures.into_iter().flat_map(|m| gammas.map(|g| TwoSided::new(m, g))).filter_map(Result::ok).collect()
    }

    #[test]
    fn ends_are_the_data_sets() {
        for path in paths() {
            let (start, end) = (path.at(0.0).unwrap(), path.at(1.0).unwrap());
            let mirror = path.interpolation() == Interpolation::Mirror;
            assert!((start.a - f64::from(u8::from(!mirror))).abs() < 1e-15 && (end.b - 1.0).abs() < 1e-15);
            assert!(end.a.abs() < 1e-15 && start.gamma.abs() < 1e-12 && end.gamma.abs() < 1e-12, "{}", path.name());
        }
    }

    #[test]
    fn rates_are_derivatives() {
        let h = 1e-6;
        for path in paths() {
            for t in [0.1, 0.35, 0.8] {
                let (low, here, high) = (path.at(t - h).unwrap(), path.at(t).unwrap(), path.at(t + h).unwrap());
                for (rate, slope) in [
                    (here.a_rate, (high.a - low.a) / (2.0 * h)),
                    (here.b_rate, (high.b - low.b) / (2.0 * h)),
                    (here.gamma_rate(), (high.gamma - low.gamma) / (2.0 * h)),
                ] {
                    assert!((rate - slope).abs() < 1e-7, "{} at {t}: {rate} {slope}", path.name());
                }
            }
        }
    }

    #[test]
    fn singular_paths_are_refused() {
        let message = |g| TwoSided::new(Interpolation::Trigonometric, g).unwrap_err().to_string();
        assert!(message(Gamma::SineSquared).contains("below 1 on path trig"));
        assert!(message(Gamma::Brownian { scale: 4.0 }).contains("below 1"));
        assert!(message(Gamma::Brownian { scale: -1.0 }).contains("positive scale"));
        assert!(paths()[0].at(1.5).is_err());
    }
}
