//! DPM-Solver++ (Lu et al. 2022, arXiv:2211.01095): exponential integrators in λ for the clean data.

use super::multistep::{Output, Solver, Weights};
use super::stepwise::Step;
use crate::{Denoiser, Node, Noise};
use ndarray::{Array2, Zip};
use offprint_core::Result;

/// The multistep method of order 2: with h = λ' − λ and r = h_before/h,
/// y' = e^−h y + (1 − e^−h) \[(1 + 1/(2r)) D_i − D_{i−1}/(2r)\].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DpmPlusPlus2M;

impl Solver for DpmPlusPlus2M {
    fn name(&self) -> String {
        "dpm++2m".into()
    }

    fn order(&self) -> usize {
        2
    }

    fn output(&self) -> Output {
        Output::Data
    }

    fn predictor(&self, places: &[Node], to: Node, order: usize) -> Result<Weights> {
        let keep = to.tau / places[0].tau;
        if order == 1 {
            return Ok(Weights { state: keep, outputs: vec![1.0 - keep] });
        }
        let h = to.lambda() - places[0].lambda();
        let before = places[0].lambda() - places[1].lambda();
        let slope = 0.5 * h / before;
        Ok(Weights { state: keep, outputs: vec![(1.0 - keep) * (1.0 + slope), -(1.0 - keep) * slope] })
    }
}

/// The single-step method of order 2, through the middle in λ: two calls a step, no memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DpmPlusPlus2S;

impl Step for DpmPlusPlus2S {
    fn name(&self) -> String {
        "dpm++2s".into()
    }

    fn step(&self, model: &dyn Denoiser, y: &mut Array2<f64>, from: Node, to: Node, _: (usize, &Noise)) -> Result<u64> {
        let denoised = model.denoise(y.view(), from.tau)?;
        if to.tau == 0.0 {
            *y = denoised;
            return Ok(1);
        }
        let towards = |y: &mut Array2<f64>, d: &Array2<f64>, keep: f64| {
            Zip::from(y).and(d).for_each(|y, &d| *y = keep * *y + (1.0 - keep) * d);
        };
        let middle = (from.tau * to.tau).sqrt();
        let mut half = y.clone();
        towards(&mut half, &denoised, middle / from.tau);
        towards(y, &model.denoise(half.view(), middle)?, to.tau / from.tau);
        Ok(2)
    }
}
