//! The reverse-time SDE in the coordinates (y, τ).

use super::stepwise::Step;
use crate::{Denoiser, Node, Noise};
use ndarray::{Array2, Zip};
use offprint_core::Result;

/// Euler and Maruyama's method with the exact variance of a step, G = τ² − τ'²: y' = y + G ∇log p + √G ξ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EulerMaruyama;

impl Step for EulerMaruyama {
    fn name(&self) -> String {
        "euler-maruyama".into()
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
        if to.tau == 0.0 {
            *y = denoised;
            return Ok(1);
        }
        let variance = from.tau * from.tau - to.tau * to.tau;
        let share = variance / (from.tau * from.tau);
        Zip::from(&mut *y).and(&denoised).for_each(|y, &d| *y += share * (d - *y));
        noise.add(step, variance.sqrt(), y);
        Ok(1)
    }
}
