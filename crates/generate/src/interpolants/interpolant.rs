//! The bridge x_t = a(t) x₀ + b(t) x₁ + γ(t) z between two laws (Definition 1 of the paper).

use crate::{Coefficients, Gamma, Interpolation, Path, Schedule, TwoSided};
use ndarray::{Array2, ArrayView2};
use offprint_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// How x₀ and x₁ are joined. Time runs from x₀ at 0 to x₁ at 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Interpolant {
    /// Both ends are data; a latent Gaussian stands between them.
    TwoSided(TwoSided),
    /// x₀ is itself standard normal and takes the part of the latent Gaussian: a = 1 − t, b = t, or their cosine and
    /// sine.
    OneSided(Interpolation),
    /// A diffusion run backward: a(t) = σ(1−t), b(t) = α(1−t), with x₀ standard normal.
    Diffusion(Schedule),
}

/// Names of the bridges that [`Interpolant::named`] knows.
pub const PATHS: [&str; 7] = [
    "linear",
    "trigonometric",
    "encoding-decoding",
    "mirror",
    "one-sided-linear",
    "one-sided-trigonometric",
    "one-sided-vp",
];

impl Interpolant {
    /// The bridge called `name`, with the latent noise `gamma` where both ends are data.
    ///
    /// # Errors
    /// An unknown name, or a γ that the path cannot bear.
    pub fn named(name: &str, gamma: Gamma) -> Result<Self> {
        let two_sided = |mixing| TwoSided::new(mixing, gamma).map(Self::TwoSided);
        match name {
            "linear" => two_sided(Interpolation::Linear),
            "trigonometric" => two_sided(Interpolation::Trigonometric),
            "encoding-decoding" => two_sided(Interpolation::EncodingDecoding),
            "mirror" => two_sided(Interpolation::Mirror),
            "one-sided-linear" => Self::one_sided(Interpolation::Linear),
            "one-sided-trigonometric" => Self::one_sided(Interpolation::Trigonometric),
            "one-sided-vp" => Self::of_diffusion(Schedule::vp_linear()),
            _ => Err(Error::parameter("path", name, format!("one of {}", PATHS.join(", ")))),
        }
    }

    /// From noise to data with the given mixture.
    ///
    /// # Errors
    /// A mixture that does not keep x₀ until the end: only the linear and the trigonometric one have the noise inside.
    pub fn one_sided(mixing: Interpolation) -> Result<Self> {
        match mixing {
            Interpolation::Linear | Interpolation::Trigonometric => Ok(Self::OneSided(mixing)),
            other => Err(Error::parameter("path", format!("one-sided {other:?}"), "linear or trigonometric")),
        }
    }

    /// The diffusion with `schedule`, run from noise to data.
    ///
    /// # Errors
    /// A schedule without an end in time.
    pub fn of_diffusion(schedule: Schedule) -> Result<Self> {
        match schedule.latest() {
            Some(_) => Ok(Self::Diffusion(schedule)),
            None => Err(Error::parameter("schedule", schedule.name(), "one whose time ends at 1")),
        }
    }

    /// Refuses numbers that no constructor would have let in: for bridges that come from a file.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::TwoSided(path) => TwoSided::new(path.interpolation(), path.gamma()).map(|_| ()),
            Self::OneSided(mixing) => Self::one_sided(*mixing).map(|_| ()),
            Self::Diffusion(schedule) => {
                Path::Gaussian(schedule.clone()).check()?;
                Self::of_diffusion(schedule.clone()).map(|_| ())
            }
        }
    }

    /// The name in messages and files.
    pub fn name(&self) -> String {
        match self {
            Self::TwoSided(path) => path.name(),
            Self::OneSided(Interpolation::Linear) => "one-sided-linear".into(),
            Self::OneSided(_) => "one-sided-trigonometric".into(),
            Self::Diffusion(schedule) => format!("one-sided {}", schedule.name()),
        }
    }

    /// Whether x₀ is the latent Gaussian.
    pub fn is_one_sided(&self) -> bool {
        !matches!(self, Self::TwoSided(_))
    }

    /// Whether there is latent noise beside x₀ and x₁.
    pub fn has_latent(&self) -> bool {
        matches!(self, Self::TwoSided(path) if path.gamma() != Gamma::Zero)
    }

    /// The same bridge as a schedule of the field, whose time runs from the data at 0 to the noise at 1.
    ///
    /// # Errors
    /// For a bridge between two data sets.
    pub fn schedule(&self) -> Result<Schedule> {
        match self {
            Self::TwoSided(path) => {
                Err(Error::parameter("path", path.name(), "one-sided: samplers of diffusions begin at noise"))
            }
            Self::OneSided(Interpolation::Linear) => Ok(Schedule::Rectified),
            Self::OneSided(_) => Ok(Schedule::Trigonometric),
            Self::Diffusion(schedule) => Ok(schedule.clone()),
        }
    }

    /// The coefficients at `t` in \[0, 1\]. A one-sided bridge has γ = 0: its noise is x₀.
    ///
    /// # Errors
    /// A time outside the bridge; a diffusion has none at its two ends.
    pub fn at(&self, t: f64) -> Result<Coefficients> {
        match self {
            Self::TwoSided(path) => path.at(t),
            Self::OneSided(mixing) => TwoSided::new(*mixing, Gamma::Zero)?.at(t),
            Self::Diffusion(schedule) => {
                let point = schedule.at(1.0 - t)?;
                Ok(Coefficients {
                    a: point.sigma,
                    b: point.alpha,
                    gamma: 0.0,
                    // Time runs the other way.
                    a_rate: -point.sigma_rate,
                    b_rate: -point.alpha_rate,
                    gamma_product: 0.0,
                })
            }
        }
    }

    /// The standard deviation of the noise in x_t at these coefficients: γ, or a where x₀ is the noise. The score is
    /// −E\[noise | x\] over it.
    pub fn deviation(&self, at: &Coefficients) -> f64 {
        if self.is_one_sided() { at.a } else { at.gamma }
    }

    /// Times between which the score can be learnt: a thousandth away from ends where the noise vanishes.
    pub fn learnable(&self) -> (f64, f64) {
        match self {
            Self::TwoSided(_) => (1e-3, 1.0 - 1e-3),
            Self::OneSided(_) => (0.0, 1.0 - 1e-3),
            Self::Diffusion(schedule) => (1.0 - schedule.latest().unwrap_or(1.0), 1.0 - schedule.earliest()),
        }
    }

    /// E\[x₁ | x_t = x\] (n, d) from the velocity b and the score s at the points `x` (n, d): the last step of a sampler
    /// that stops before t = 1.
    ///
    /// # Errors
    /// A time at which x_t does not depend on x₁.
    pub fn end(
        &self,
        x: ArrayView2<'_, f64>,
        t: f64,
        (velocity, score): (ArrayView2<'_, f64>, ArrayView2<'_, f64>),
    ) -> Result<Array2<f64>> {
        let at = self.at(t)?;
        let deviation = self.deviation(&at);
        // x + (deviation)² s is the mean of x without its noise.
        let clean = &x + &(&score * (deviation * deviation));
        if self.is_one_sided() || (at.a == 0.0 && at.a_rate == 0.0) {
            if at.b == 0.0 {
                return Err(Error::parameter("t", t, "later: there is nothing of x1 in the path yet"));
            }
            return Ok(clean / at.b);
        }
        // v = E[dI/dt | x] = b + γγ' s; with x it gives both ends.
        let velocity = &velocity + &(&score * at.gamma_product);
        let turn = at.a * at.b_rate - at.a_rate * at.b;
        if turn == 0.0 {
            return Err(Error::parameter("t", t, "later: there is nothing of x1 in the path yet"));
        }
        Ok((velocity * at.a - clean * at.a_rate) / turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_bridges_and_back_to_schedules() {
        for name in PATHS {
            let path = Interpolant::named(name, Gamma::Brownian { scale: 1.0 }).unwrap();
            assert_eq!(path.is_one_sided(), name.starts_with("one-sided"));
            assert_eq!(path.schedule().is_ok(), path.is_one_sided());
        }
        let message = Interpolant::named("circular", Gamma::Zero).unwrap_err().to_string();
        assert!(message.contains("one-sided-vp"), "{message}");
        assert!(Interpolant::of_diffusion(Schedule::Edm).unwrap_err().to_string().contains("ends at 1"));
        assert!(Interpolant::one_sided(Interpolation::Mirror).is_err());
        let message = Interpolant::named("trigonometric", Gamma::SineSquared).unwrap_err().to_string();
        assert!(message.contains("below 1 on path trig"), "{message}");
    }

    #[test]
    fn diffusions_run_backward() {
        let path = Interpolant::named("one-sided-vp", Gamma::Zero).unwrap();
        let (t, h) = (0.6, 1e-6);
        let (low, here, high) = (path.at(t - h).unwrap(), path.at(t).unwrap(), path.at(t + h).unwrap());
        assert!((here.a * here.a + here.b * here.b - 1.0).abs() < 1e-12);
        assert!(((high.a - low.a) / (2.0 * h) - here.a_rate).abs() < 1e-8);
        assert!(((high.b - low.b) / (2.0 * h) - here.b_rate).abs() < 1e-8);
    }
}
