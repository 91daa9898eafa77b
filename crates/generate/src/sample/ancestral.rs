//! Samplers that put back part of the noise they take: DDIM with η, ancestral sampling, and SDE-DPM-Solver++.

use super::stepwise::Step;
use crate::{Denoiser, Node, Noise};
use ndarray::{Array2, Zip};
use offprint_core::{Error, Result};

/// DDIM with η: τ_up² = η² τ'² (τ² − τ'²)/τ², τ_down² = τ'² − τ_up², y' = D + (τ_down/τ)(y − D) + τ_up ξ.
///
/// η = 0 is DDIM, η = 1 the ancestral sampler of DDPM.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ancestral {
    eta: f64,
}

impl Ancestral {
    /// With `eta` from 0 to 1.
    pub fn new(eta: f64) -> Result<Self> {
        if (0.0..=1.0).contains(&eta) { Ok(Self { eta }) } else { Err(Error::parameter("eta", eta, "from 0 to 1")) }
    }
}

impl Step for Ancestral {
    fn name(&self) -> String {
        "ancestral".into()
    }

    fn is_stochastic(&self) -> bool {
        self.eta > 0.0
    }

    fn step(
        &self,
        model: &dyn Denoiser,
        y: &mut Array2<f64>,
        from: Node,
        to: Node,
        (step, noise): (usize, &Noise),
    ) -> Result<u64> {
        let denoised = model.denoise(y.view(), from.tau)?;
        let ratio = to.tau / from.tau;
        let up = self.eta * to.tau * (1.0 - ratio * ratio).max(0.0).sqrt();
        let keep = (to.tau * to.tau - up * up).max(0.0).sqrt() / from.tau;
        Zip::from(&mut *y).and(&denoised).for_each(|y, &d| *y = d + keep * (*y - d));
        if up > 0.0 {
            noise.add(step, up, y);
        }
        Ok(1)
    }
}

/// SDE-DPM-Solver++ of order 1: with h = λ' − λ, x' = (σ'/σ) e^−h x + α' (1 − e^−2h) D + σ' √(1 − e^−2h) ξ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SdeDpm;

impl Step for SdeDpm {
    fn name(&self) -> String {
        "sde-dpm".into()
    }

    fn is_stochastic(&self) -> bool {
        true
    }

    fn step(
        &self,
        model: &dyn Denoiser,
        y: &mut Array2<f64>,
        from: Node,
        to: Node,
        (step, noise): (usize, &Noise),
    ) -> Result<u64> {
        let denoised = model.denoise(y.view(), from.tau)?;
        // e^−h = τ'/τ.
        let keep = (to.tau / from.tau).powi(2);
        Zip::from(&mut *y).and(&denoised).for_each(|y, &d| *y = keep * *y + (1.0 - keep) * d);
        if to.tau > 0.0 {
            noise.add(step, to.tau * (1.0 - keep).sqrt(), y);
        }
        Ok(1)
    }
}
