//! The quantities that models predict, and how one follows from another.

use crate::Point;
use ndarray::{ArrayView2, ArrayViewMut2, Zip};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a model of a Gaussian path gives for a noisy point x = α x₀ + σ ε.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Prediction {
    /// E\[ε | x\], the noise.
    Eps,
    /// D = E\[x₀ | x\], the clean data.
    X0,
    /// v = α E\[ε | x\] − σ E\[x₀ | x\].
    V,
    /// ∇ log p_t(x) = −E\[ε | x\]/σ.
    Score,
    /// u = α' E\[x₀ | x\] + σ' E\[ε | x\], the velocity of the probability flow.
    Velocity,
}

impl fmt::Display for Prediction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Eps => "eps",
            Self::X0 => "x0",
            Self::V => "v",
            Self::Score => "score",
            Self::Velocity => "velocity",
        })
    }
}

impl Prediction {
    /// The numbers (p, q) with D = p · prediction + q · x.
    pub(crate) fn to_denoised(self, at: Point) -> (f64, f64) {
        let Point { alpha, sigma, alpha_rate, sigma_rate } = at;
        match self {
            Self::X0 => (1.0, 0.0),
            Self::Eps => (-sigma / alpha, 1.0 / alpha),
            Self::Score => (sigma * sigma / alpha, 1.0 / alpha),
            Self::V => {
                let norm = alpha * alpha + sigma * sigma;
                (-sigma / norm, alpha / norm)
            }
            Self::Velocity => {
                let turn = sigma * alpha_rate - alpha * sigma_rate;
                (sigma / turn, -sigma_rate / turn)
            }
        }
    }

    /// Turns a prediction for `x` (n, d) in place into the clean data D.
    ///
    /// # Panics
    /// If the shapes differ.
    pub fn denoise(self, at: Point, x: ArrayView2<'_, f64>, mut prediction: ArrayViewMut2<'_, f64>) {
        let (p, q) = self.to_denoised(at);
        combine(prediction.view_mut(), p, q, x);
    }

    /// Turns the clean data D behind `x` (n, d) in place into this prediction.
    ///
    /// # Panics
    /// If the shapes differ.
    pub fn of_denoised(self, at: Point, x: ArrayView2<'_, f64>, mut denoised: ArrayViewMut2<'_, f64>) {
        // D = p · prediction + q · x, solved for the prediction.
        let (p, q) = self.to_denoised(at);
        combine(denoised.view_mut(), 1.0 / p, -q / p, x);
    }
}

fn combine(values: ArrayViewMut2<'_, f64>, p: f64, q: f64, x: ArrayView2<'_, f64>) {
    Zip::from(values).and(x).for_each(|v, &x| *v = p * *v + q * x);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Schedule;
    use ndarray::{Array2, array};

    const ALL: [Prediction; 5] =
        [Prediction::Eps, Prediction::X0, Prediction::V, Prediction::Score, Prediction::Velocity];

    #[test]
    fn predictions_of_known_data_and_noise_are_their_definitions() {
        let (x0, eps): (Array2<f64>, Array2<f64>) = (array![[0.3, -1.2]], array![[0.8, 0.1]]);
        for schedule in [Schedule::vp_linear(), Schedule::Edm, Schedule::Rectified, Schedule::Trigonometric] {
            let at = schedule.at(0.4).unwrap();
            let x = &x0 * at.alpha + &eps * at.sigma;
            for kind in ALL {
                let expected = match kind {
                    Prediction::Eps => eps.clone(),
                    Prediction::X0 => x0.clone(),
                    Prediction::V => &eps * at.alpha - &x0 * at.sigma,
                    Prediction::Score => &eps / -at.sigma,
                    Prediction::Velocity => &x0 * at.alpha_rate + &eps * at.sigma_rate,
                };
                let mut out = x0.clone();
                kind.of_denoised(at, x.view(), out.view_mut());
                assert!(out.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-12), "{kind} {}", schedule.name());
                kind.denoise(at, x.view(), out.view_mut());
                assert!(out.iter().zip(&x0).all(|(a, b)| (a - b).abs() < 1e-12), "{kind} {}", schedule.name());
            }
        }
    }
}
