//! DDIM (Song, Meng and Ermon 2021, arXiv:2010.02502), the deterministic one.

use super::multistep::{Output, Solver, Weights};
use crate::Node;
use offprint_core::Result;

/// y' = D + τ' ε: Euler's method in τ, exact where ε stays. Order 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ddim;

impl Solver for Ddim {
    fn name(&self) -> String {
        "ddim".into()
    }

    fn order(&self) -> usize {
        1
    }

    fn output(&self) -> Output {
        Output::Data
    }

    fn predictor(&self, places: &[Node], to: Node, _: usize) -> Result<Weights> {
        let keep = to.tau / places[0].tau;
        Ok(Weights { state: keep, outputs: vec![1.0 - keep] })
    }
}
