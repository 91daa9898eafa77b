//! Workloads that are timed beside a peer, the library a user would otherwise pick, on identical inputs.

use crate::{Array, Result};
use serde_json::Value;

/// The workloads of a paper that its peer does too.
pub trait Bench {
    /// The workloads, with inputs drawn from `seed`.
    fn cases(seed: u64) -> Result<Vec<Case>>;
}

/// One workload. The peer's script gets the same inputs and settings and must give the same answer.
pub struct Case {
    /// Short name, unique among the paper's cases; the peer's script knows it.
    pub name: &'static str,
    /// One sentence: the work, its size.
    pub says: String,
    /// Named arrays that both sides read.
    pub inputs: Vec<(&'static str, Array)>,
    /// Named settings that both sides read.
    pub settings: Value,
    /// Our side: does the work once and gives the numbers by which the answers are compared.
    pub work: Box<dyn FnMut() -> Result<Answer>>,
    /// How the answers must agree.
    pub agreement: Agreement,
    /// The goal for the ratio ours / peer, if one is set.
    pub goal: Option<f64>,
}

/// The numbers by which two answers to the same work are compared: a value, a short vector.
pub type Answer = Vec<f64>;

/// When two answers count as the same.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Agreement {
    /// |ours − peer| ≤ tolerance · max(1, |peer|), number by number.
    Within(f64),
    /// Our numbers are at most the peer's plus tolerance · max(1, |peer|): losses, errors, times to a target.
    AtMost(f64),
    /// Our numbers are at least the peer's minus tolerance · max(1, |peer|): values of a maximisation.
    AtLeast(f64),
}

impl Agreement {
    /// Whether `ours` agrees with `peer`.
    pub fn holds(self, ours: &[f64], peer: &[f64]) -> bool {
        ours.len() == peer.len()
            && ours.iter().zip(peer).all(|(&ours, &peer)| {
                let scale = peer.abs().max(1.0);
                match self {
                    Self::Within(tolerance) => (ours - peer).abs() <= tolerance * scale,
                    Self::AtMost(tolerance) => ours <= peer + tolerance * scale,
                    Self::AtLeast(tolerance) => ours >= peer - tolerance * scale,
                }
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agreement_is_relative_above_one_and_refuses_nan_and_lengths() {
        assert!(Agreement::Within(1e-3).holds(&[1000.5], &[1000.0]));
        assert!(!Agreement::Within(1e-3).holds(&[0.002], &[0.0]));
        assert!(!Agreement::Within(1.0).holds(&[f64::NAN], &[0.0]));
        assert!(!Agreement::Within(1.0).holds(&[], &[0.0]));
        assert!(Agreement::AtMost(0.0).holds(&[-5.0], &[0.0]));
        assert!(Agreement::AtLeast(0.0).holds(&[5.0], &[0.0]));
        assert!(!Agreement::AtLeast(0.0).holds(&[-1.0], &[0.0]));
    }
}
