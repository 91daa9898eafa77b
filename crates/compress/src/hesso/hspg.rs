//! A baseline of the same authors: sparsity by a penalty on group norms and projection onto half-spaces, after HSPG.

use super::base::Base;
use super::choose::{Choice, target};
use super::groups::{Groups, Status};
use super::optimizer::in_step;
use super::saliency::Criteria;
use super::space::Space;
use candle_core::{Tensor, backprop::GradStore};
use offprint_core::{Error, Result};
use offprint_nn::Params;
use offprint_nn::optim::Optimizer;
use std::sync::Arc;

/// When and what the half-space method prunes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HspgSettings {
    /// Share of the groups under the penalty.
    pub sparsity: f64,
    /// Step after which the penalty begins.
    pub start: u64,
    /// Weight λ of Σ‖x_g‖.
    pub penalty: f64,
    /// ε: a group whose new value has an inner product below ε‖x‖² with the old one becomes zero.
    pub epsilon: f64,
    /// How groups are chosen beside their rank.
    pub choice: Choice,
}

/// From step `start` on the groups of lowest saliency are shrunk by λ x/‖x‖ a unit of rate beside the base optimiser's
/// step; one whose step leads out of the half-space ⟨x̂, x⟩ ≥ ε‖x‖² is projected to zero and stays there. How many get
/// there depends on λ: that is what HESSO does away with.
pub struct Hspg {
    base: Base,
    optimizer: Box<dyn Optimizer>,
    groups: Groups,
    settings: HspgSettings,
    goal: usize,
    step: u64,
}

impl Hspg {
    /// Over `params` with what can be removed in `space`.
    ///
    /// # Errors
    /// Settings of the base that it refuses; a sparsity outside (0, 1); a negative penalty or ε.
    pub fn new(params: &Params, space: Arc<Space>, base: Base, settings: HspgSettings) -> Result<Self> {
        if !(settings.sparsity > 0.0 && settings.sparsity < 1.0) {
            return Err(Error::parameter("sparsity", settings.sparsity, "above 0 and below 1"));
        }
        if !(settings.penalty >= 0.0 && settings.penalty.is_finite()) {
            return Err(Error::parameter("penalty", settings.penalty, "at least 0"));
        }
        if !(0.0..1.0).contains(&settings.epsilon) {
            return Err(Error::parameter("epsilon", settings.epsilon, "at least 0 and below 1"));
        }
        let eligible = settings.choice.eligible(&space).into_iter().filter(|&e| e).count();
        Ok(Self {
            base,
            optimizer: base.optimizer(params)?,
            groups: Groups::new(space, params)?,
            settings,
            goal: target(eligible, settings.sparsity),
            step: 0,
        })
    }

    /// The groups, with where they stand.
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// Number of groups under the penalty.
    pub fn target(&self) -> usize {
        self.goal
    }
}

impl Optimizer for Hspg {
    fn step(&mut self, gradients: &GradStore) -> candle_core::Result<()> {
        self.step += 1;
        if self.step <= self.settings.start {
            return self.optimizer.step(gradients);
        }
        let before = self.groups.snapshot().map_err(in_step)?;
        self.optimizer.step(gradients)?;
        if self.step == self.settings.start + 1 {
            let moments = self.groups.moments(&before, &self.base, self.optimizer.as_ref()).map_err(in_step)?;
            let scores = Criteria::MIXTURE.saliency(&moments);
            self.groups.check_scores(&scores).map_err(in_step)?;
            let space = self.groups.space().clone();
            let chosen = self.settings.choice.lowest(&space, self.groups.status(), &scores, self.goal);
            self.groups.set(chosen, Status::Shrinking);
        }
        let shrink = self.learning_rate() * self.settings.penalty;
        let leaving = self.groups.project(&before, shrink, self.settings.epsilon).map_err(in_step)?;
        if !leaving.is_empty() {
            self.groups.set(leaving, Status::Pruned);
        }
        self.groups.apply(1.0)
    }

    fn learning_rate(&self) -> f64 {
        self.optimizer.learning_rate()
    }

    fn set_learning_rate(&mut self, learning_rate: f64) {
        self.optimizer.set_learning_rate(learning_rate);
    }

    fn state(&self) -> candle_core::Result<Vec<(String, Tensor)>> {
        self.optimizer.state()
    }

    fn restore(&mut self, state: &[(String, Tensor)]) -> candle_core::Result<()> {
        self.optimizer.restore(state)
    }
}
