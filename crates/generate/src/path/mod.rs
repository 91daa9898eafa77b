//! How clean data become noise, or one data set another.

mod two_sided;

pub use two_sided::{Coefficients, Gamma, Interpolation, TwoSided};

use crate::{Schedule, check, normals};
use ndarray::{Array2, ArrayView2};
use offprint_core::random::Stream;
use offprint_core::{Error, Result};
use rand_distr::{ChiSquared, Distribution};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A family of laws that leads from data to noise, or from one data set to another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Path {
    /// x_t = α(t) x₀ + σ(t) ε with ε standard normal.
    Gaussian(Schedule),
    /// PFGM++: x_σ = x₀ + σ ε √(D/χ²_D), the multivariate Student t with D degrees of freedom. The time is σ.
    StudentT {
        /// Degrees of freedom D, the number of added dimensions. Need not be whole.
        freedom: f64,
    },
    /// x_t = a(t) x₀ + b(t) x₁ + γ(t) z between two data sets, t from 0 to 1.
    TwoSided(TwoSided),
}

/// The law of the noise that is added in the coordinates (y, τ).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kernel {
    /// y = x₀ + τ ε.
    Gaussian,
    /// y = x₀ + τ ε √(D/χ²_D).
    StudentT {
        /// Degrees of freedom D.
        freedom: f64,
    },
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gaussian => f.write_str("Gaussian"),
            Self::StudentT { freedom } => write!(f, "student-t D={freedom}"),
        }
    }
}

impl Kernel {
    /// Student's kernel of `freedom` degrees of freedom; the Gaussian one if they are infinite.
    pub fn student_t(freedom: f64) -> Result<Self> {
        match freedom {
            f64::INFINITY => Ok(Self::Gaussian),
            _ if freedom > 0.0 => Ok(Self::StudentT { freedom }),
            _ => Err(Error::parameter("D", freedom, "positive or 'inf'")),
        }
    }

    /// `n` draws (n, d) of the kernel around 0 with scale `tau`; row i comes from generator `first + i` of `stream`.
    pub fn noise(self, n: usize, d: usize, tau: f64, stream: Stream, first: u64) -> Array2<f64> {
        let mut noise = normals(n, d, stream, first);
        match self {
            Self::Gaussian => noise *= tau,
            Self::StudentT { freedom } => {
                let chi_squared = ChiSquared::new(freedom).expect("positive degrees of freedom");
                let radii = stream.nested(u64::MAX).stream("radii");
                for (i, mut row) in noise.outer_iter_mut().enumerate() {
                    // A radius of its own for each row, in f64: small D reach far.
                    let chi: f64 = chi_squared.sample(&mut radii.rng(first + i as u64));
                    row *= tau * (freedom / chi.max(f64::MIN_POSITIVE)).sqrt();
                }
            }
        }
        noise
    }
}

impl Path {
    /// The path of the kernel with `freedom` degrees of freedom; EDM's if they are infinite.
    pub fn student_t(freedom: f64) -> Result<Self> {
        Ok(match Kernel::student_t(freedom)? {
            Kernel::Gaussian => Self::Gaussian(Schedule::Edm),
            Kernel::StudentT { freedom } => Self::StudentT { freedom },
        })
    }

    /// Refuses numbers that make no path: those of a variant made by hand or read from a file.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Gaussian(schedule) => schedule.validate(),
            Self::StudentT { freedom } => Kernel::student_t(*freedom).map(|_| ()),
            Self::TwoSided(path) => TwoSided::new(path.interpolation(), path.gamma()).map(|_| ()),
        }
    }

    /// The name in messages and files.
    pub fn name(&self) -> String {
        match self {
            Self::Gaussian(schedule) => schedule.name().to_owned(),
            Self::StudentT { freedom } => format!("student-t D={freedom}"),
            Self::TwoSided(path) => path.name(),
        }
    }

    /// The schedule in which the path is α x₀ + σ · noise: for a Student path EDM's.
    ///
    /// # Errors
    /// For a path between two data sets, which has none.
    pub fn schedule(&self) -> Result<&Schedule> {
        match self {
            Self::Gaussian(schedule) => Ok(schedule),
            Self::StudentT { .. } => Ok(&Schedule::Edm),
            Self::TwoSided(_) => Err(Error::parameter("path", self.name(), "one that leads from data to noise")),
        }
    }

    /// The law of the noise.
    ///
    /// # Errors
    /// For a path between two data sets, whose ends are both data.
    pub fn kernel(&self) -> Result<Kernel> {
        self.schedule()?;
        Ok(match self {
            Self::StudentT { freedom } => Kernel::StudentT { freedom: *freedom },
            _ => Kernel::Gaussian,
        })
    }

    /// Noisy points (n, d) at time `t` for the data `x0` (n, d); row i uses generator i of `stream`.
    pub fn perturb(&self, x0: ArrayView2<'_, f64>, t: f64, stream: Stream) -> Result<Array2<f64>> {
        check::rows("x0", x0)?;
        let (n, d) = x0.dim();
        let point = self.schedule()?.at(t)?;
        let mut x = self.kernel()?.noise(n, d, point.sigma, stream, 0);
        x.scaled_add(point.alpha, &x0);
        Ok(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use offprint_core::random::Streams;

    #[test]
    fn student_noise_has_its_variance_and_tails() {
        // Per coordinate t_D: variance D/(D − 2) = 1.25 for D = 10; P(|t₁₀| > 2.228) = 0.05 (table).
        let stream = Streams::new(3).stream("noise");
        let noise = Kernel::student_t(10.0).unwrap().noise(20_000, 2, 3.0, stream, 0);
        let variance = noise.iter().map(|x| x * x).sum::<f64>() / 40_000.0 / 9.0;
        assert!((variance - 1.25).abs() < 0.03, "{variance}");
        let beyond = noise.column(0).iter().filter(|x| x.abs() > 3.0 * 2.228).count() as f64 / 20_000.0;
        assert!((beyond - 0.05).abs() < 0.006, "{beyond}");
    }

    #[test]
    fn bad_degrees_of_freedom_and_two_sided_paths_are_refused() {
        for freedom in [0.0, -1.0, f64::NAN] {
            assert!(Path::student_t(freedom).unwrap_err().to_string().contains("positive or 'inf'"));
        }
        assert_eq!(Path::student_t(f64::INFINITY).unwrap(), Path::Gaussian(Schedule::Edm));
        let two_sided = Path::TwoSided(TwoSided::new(Interpolation::Linear, Gamma::Zero).unwrap());
        assert!(two_sided.kernel().unwrap_err().to_string().contains("from data to noise"));
    }

    #[test]
    fn perturbed_data_keep_their_signal() {
        let x0 = Array2::from_elem((4000, 2), 2.0);
        let path = Path::Gaussian(Schedule::Rectified);
        let x = path.perturb(x0.view(), 0.25, Streams::new(1).stream("x")).unwrap();
        let mean = x.mean().unwrap();
        let variance = x.iter().map(|x| (x - 1.5).powi(2)).sum::<f64>() / 8000.0;
        assert!((mean - 1.5).abs() < 0.012 && (variance - 0.0625).abs() < 0.004, "{mean} {variance}");
    }
}
