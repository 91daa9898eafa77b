//! What keeps weights from jumping between levels, at the optimiser's side.
//!
//! Whatever the optimiser does to a weight that is to stay (a step along its momentum, decoupled weight decay), its value
//! is put back afterwards. Its moments are left to the optimiser, so that it goes on when its turn comes.

use super::{Counts, QuantisedViT, Tracker};
use candle_core::Tensor;
use candle_core::backprop::GradStore;
use offprint_core::{Error, Result};
use offprint_nn::optim::{Adam, Optimizer};
use serde::{Deserialize, Serialize};

/// A way to calm weights.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Calm {
    /// None.
    Nothing,
    /// Confidence-guided annealing: weights farther than `margin` from a boundary get no gradient and keep their values.
    Cga {
        /// In units of the distance between levels, above 0 and below ½. The published scripts have 0.005.
        margin: f64,
    },
    /// Iterative freezing (Nagel et al. 2022): a weight whose frequency of oscillation passes `threshold` stays at the
    /// rounded running mean of its codes. Products of QKR have no weights of their own and are not frozen.
    Freezing {
        /// Oscillations a step.
        threshold: f64,
    },
    /// Dampening (Nagel et al. 2022): `strength` times Σ(clip(w) − ŵ)² joins the loss.
    Dampening {
        /// λ
        strength: f64,
    },
}

impl Calm {
    /// The margin of CGA.
    pub fn margin(self) -> Option<f64> {
        if let Self::Cga { margin } = self { Some(margin) } else { None }
    }

    /// Refuses what would freeze nothing or everything.
    ///
    /// # Errors
    /// The field, and what is allowed.
    pub fn check(self) -> Result<()> {
        match self {
            Self::Cga { margin } if !(margin > 0.0 && margin < 0.5) => {
                Err(Error::parameter("margin", margin, "above 0 and below 0.5, which is all weights"))
            }
            Self::Freezing { threshold } if !(threshold > 0.0 && threshold < 1.0) => {
                Err(Error::parameter("threshold", threshold, "above 0 and below 1"))
            }
            Self::Dampening { strength } if !(strength > 0.0 && strength.is_finite()) => {
                Err(Error::parameter("strength", strength, "above 0"))
            }
            _ => Ok(()),
        }
    }
}

/// Adam over a quantised network, watched and calmed.
pub(super) struct Watched<'a> {
    adam: Adam,
    network: &'a QuantisedViT,
    calm: Calm,
    pub tracker: Tracker,
    /// What happened in each matrix in each step.
    pub counts: Vec<Vec<Counts>>,
    /// Share of weights that CGA trained, step by step.
    pub trained: Vec<f64>,
}

impl<'a> Watched<'a> {
    pub fn new(adam: Adam, network: &'a QuantisedViT, calm: Calm) -> Result<Self> {
        let tracker = Tracker::new(network.readings()?);
        Ok(Self { adam, network, calm, tracker, counts: Vec::new(), trained: Vec::new() })
    }

    fn watched_step(&mut self, gradients: &GradStore) -> Result<()> {
        let failed = offprint_nn::computation;
        match self.calm {
            Calm::Cga { margin } => {
                let before = self.network.readings()?;
                self.adam.step(gradients).map_err(failed)?;
                let (mut free, mut all) = (0, 0);
                for (site, reading) in self.network.sites().zip(&before) {
                    let trainable = reading.trainable(margin);
                    free += trainable.iter().filter(|&&t| t).count();
                    all += trainable.len();
                    site.overwrite(|i, new| if trainable[i] { new } else { reading.weights[i] }).map_err(failed)?;
                }
                self.trained.push(free as f64 / all.max(1) as f64);
            }
            Calm::Freezing { threshold } => {
                self.adam.step(gradients).map_err(failed)?;
                for ((site, reading), memory) in
                    self.network.sites().zip(&self.network.readings()?).zip(&self.tracker.memories)
                {
                    let frozen = |i: usize| f64::from(memory.frequency[i]) > threshold;
                    let level =
                        |i: usize| reading.levels.value(memory.average[i].round_ties_even() as i32, reading.scale(i));
                    site.overwrite(|i, new| if frozen(i) { level(i) } else { new }).map_err(failed)?;
                }
            }
            Calm::Nothing | Calm::Dampening { .. } => self.adam.step(gradients).map_err(failed)?,
        }
        self.counts.push(self.tracker.step(self.network.readings()?));
        Ok(())
    }
}

impl Optimizer for Watched<'_> {
    fn step(&mut self, gradients: &GradStore) -> candle_core::Result<()> {
        self.watched_step(gradients).map_err(|e| candle_core::Error::Msg(e.to_string()))
    }

    fn learning_rate(&self) -> f64 {
        self.adam.learning_rate()
    }

    fn set_learning_rate(&mut self, learning_rate: f64) {
        self.adam.set_learning_rate(learning_rate);
    }

    fn state(&self) -> candle_core::Result<Vec<(String, Tensor)>> {
        self.adam.state()
    }

    fn restore(&mut self, state: &[(String, Tensor)]) -> candle_core::Result<()> {
        self.adam.restore(state)
    }
}
