//! HESSO: training that shrinks redundant groups to zero on its way.

use super::base::Base;
use super::choose::{Choice, quotas, target};
use super::groups::{Groups, Status};
use super::saliency::Criteria;
use super::space::Space;
use candle_core::{Device, Tensor, backprop::GradStore};
use offprint_core::random::Stream;
use offprint_core::{Error, Result};
use offprint_nn::optim::Optimizer;
use offprint_nn::{Params, computation};
use rand::RngExt;
use std::sync::Arc;

/// What decides which groups are redundant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ranking {
    /// Saliency, low where a group is redundant.
    Saliency(Criteria),
    /// Chance: the baseline below all others.
    Random(Stream),
}

/// How a chosen group goes to zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// In equal parts over its period, while training goes on.
    Shrinking,
    /// With one step, as pruning before fine-tuning does.
    AtOnce,
}

/// When and what HESSO prunes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Share K of the groups that go, above 0 and below 1.
    pub sparsity: f64,
    /// Step t₀ after which the first period begins.
    pub start: u64,
    /// Steps of all periods together.
    pub steps: u64,
    /// Periods P, in each of which an equal part of the groups goes.
    pub periods: u64,
    /// How groups are chosen beside their rank.
    pub choice: Choice,
    /// What ranks them.
    pub ranking: Ranking,
    /// How they go.
    pub pace: Pace,
}

impl Settings {
    /// Steps of one period.
    pub fn duration(&self) -> u64 {
        self.steps / self.periods.max(1)
    }

    /// Refuses settings under which nothing is pruned in a training of `total` steps.
    ///
    /// # Errors
    /// A sparsity outside (0, 1); no period or one without a step; a window that ends after the training.
    pub fn check(&self, total: u64) -> Result<()> {
        if !(self.sparsity > 0.0 && self.sparsity < 1.0) {
            return Err(Error::parameter("sparsity", self.sparsity, "above 0 and below 1"));
        }
        if self.periods == 0 || self.duration() == 0 {
            let allowed = format!("between 1 and the {} steps of the pruning window", self.steps);
            return Err(Error::parameter("periods", self.periods, allowed));
        }
        if self.choice.divisible == 0 {
            return Err(Error::parameter("divisible", 0, "at least 1"));
        }
        if self.start.saturating_add(self.steps) > total {
            let given = format!("steps {} to {}", self.start, self.start.saturating_add(self.steps));
            return Err(Error::parameter("pruning window", given, format!("within the {total} steps of training")));
        }
        Ok(())
    }
}

/// A drop-in optimiser: each step is one of the base optimiser, and groups chosen as redundant shrink beside it until they
/// are zero, where they stay.
///
/// With D = ⌊steps/P⌋ and t = (n − t₀) mod D, step n multiplies the chosen groups by (D−t−1)/(D−t): over a period that is
/// zero, exactly. Costs the base optimiser's step, and at the P starts of periods one sweep over the parameters.
pub struct Hesso {
    base: Base,
    optimizer: Box<dyn Optimizer>,
    groups: Groups,
    settings: Settings,
    /// Steps done.
    step: u64,
    period: u64,
    quotas: Vec<usize>,
    scores: Vec<Vec<f64>>,
}

impl Hesso {
    /// Over `params` with what can be removed in `space`.
    ///
    /// # Errors
    /// Settings of the base that it refuses; a sparsity under which nothing is removed.
    pub fn new(params: &Params, space: Arc<Space>, base: Base, settings: Settings) -> Result<Self> {
        let eligible = settings.choice.eligible(&space).into_iter().filter(|&e| e).count();
        let goal = target(eligible, settings.sparsity);
        if goal == 0 {
            let allowed = format!("such that at least one of {eligible} groups goes");
            return Err(Error::parameter("sparsity", settings.sparsity, allowed));
        }
        Ok(Self {
            base,
            optimizer: base.optimizer(params)?,
            groups: Groups::new(space, params)?,
            settings,
            step: 0,
            period: 0,
            quotas: quotas(goal, settings.periods as usize),
            scores: Vec::new(),
        })
    }

    /// The groups, with where they stand.
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// Number of groups that are to go.
    pub fn target(&self) -> usize {
        self.quotas.iter().sum()
    }

    /// The saliency of all groups at the start of each period so far.
    pub fn scores(&self) -> &[Vec<f64>] {
        &self.scores
    }

    fn starts_period(&self) -> bool {
        let since = self.step.checked_sub(self.settings.start + 1);
        self.period < self.settings.periods && since.is_some_and(|n| n.is_multiple_of(self.settings.duration()))
    }

    fn choose(&mut self, before: &super::groups::Snapshot) -> Result<()> {
        self.groups.settle(Status::Pruned);
        let scores = match self.settings.ranking {
            Ranking::Random(stream) => {
                let mut rng = stream.rng(self.period);
                self.groups.status().iter().map(|_| rng.random::<f64>()).collect()
            }
            Ranking::Saliency(criteria) => {
                criteria.saliency(&self.groups.moments(before, &self.base, self.optimizer.as_ref())?)
            }
        };
        self.groups.check_scores(&scores)?;
        let due: usize = self.quotas[..=self.period as usize].iter().sum();
        let quota = if self.settings.choice.compat {
            self.quotas[self.period as usize]
        } else {
            due.saturating_sub(self.groups.count(Status::Pruned))
        };
        let space = self.groups.space().clone();
        let chosen = self.settings.choice.lowest(&space, self.groups.status(), &scores, quota);
        self.groups.set(chosen, Status::Shrinking);
        self.scores.push(scores);
        self.period += 1;
        Ok(())
    }

    fn shrink(&mut self) -> candle_core::Result<()> {
        let duration = self.settings.duration();
        let t = self.step.saturating_sub(self.settings.start) % duration;
        let at_once = self.settings.pace == Pace::AtOnce;
        let factor = if at_once { 0.0 } else { (duration - t - 1) as f64 / (duration - t) as f64 };
        self.groups.apply(factor)?;
        if factor == 0.0 && self.groups.count(Status::Shrinking) > 0 {
            self.groups.settle(Status::Pruned);
        }
        Ok(())
    }
}

/// An error of the project inside an optimiser, whose steps speak candle's.
pub(super) fn in_step(error: Error) -> candle_core::Error {
    candle_core::Error::Msg(error.to_string())
}

impl Optimizer for Hesso {
    fn step(&mut self, gradients: &GradStore) -> candle_core::Result<()> {
        self.step += 1;
        // The scores belong to the parameters before this step and to the direction that it takes.
        let before = self.starts_period().then(|| self.groups.snapshot()).transpose().map_err(in_step)?;
        self.optimizer.step(gradients)?;
        if let Some(before) = before {
            self.choose(&before).map_err(in_step)?;
        }
        self.shrink()
    }

    fn learning_rate(&self) -> f64 {
        self.optimizer.learning_rate()
    }

    fn set_learning_rate(&mut self, learning_rate: f64) {
        self.optimizer.set_learning_rate(learning_rate);
    }

    fn state(&self) -> candle_core::Result<Vec<(String, Tensor)>> {
        let mut state = self.optimizer.state()?;
        let status: Vec<i64> = self.groups.status().iter().map(|&s| s as i64).collect();
        state.push(("hesso.status".to_owned(), Tensor::new(status, &Device::Cpu)?));
        state.push(("hesso.place".to_owned(), Tensor::new(&[self.step as i64, self.period as i64], &Device::Cpu)?));
        Ok(state)
    }

    fn restore(&mut self, state: &[(String, Tensor)]) -> candle_core::Result<()> {
        let find = |name: &str, length: usize| -> candle_core::Result<Vec<i64>> {
            match state.iter().find(|(have, _)| have == name) {
                Some((_, tensor)) if tensor.elem_count() == length => tensor.to_vec1(),
                _ => candle_core::bail!("the optimiser's state has no tensor {name:?} of {length} numbers"),
            }
        };
        let (status, place) = (find("hesso.status", self.groups.status().len())?, find("hesso.place", 2)?);
        self.optimizer.restore(state)?;
        for (value, known) in [(0, Status::Kept), (1, Status::Shrinking), (2, Status::Pruned)] {
            let of = status.iter().enumerate().filter(|(_, s)| **s == value).map(|(group, _)| group);
            self.groups.set(of, known);
        }
        (self.step, self.period) = (place[0].max(0) as u64, place[1].max(0) as u64);
        Ok(())
    }
}

/// Prunes at once, without training: the lowest-ranked groups of a trained network become zero. The direction v is the
/// negative of nothing here, so a saliency sees magnitudes only.
///
/// # Errors
/// As [`Hesso::new`].
pub fn prune_now(params: &Params, space: Arc<Space>, settings: &Settings) -> Result<Groups> {
    let mut groups = Groups::new(space.clone(), params)?;
    let eligible = settings.choice.eligible(&space).into_iter().filter(|&e| e).count();
    let base = Base::Sgd(Default::default());
    let scores: Vec<f64> = match settings.ranking {
        Ranking::Random(stream) => {
            let mut rng = stream.rng(0);
            space.groups.iter().map(|_| rng.random()).collect()
        }
        Ranking::Saliency(criteria) => {
            let moments = groups.moments(&groups.snapshot()?, &base, base.optimizer(params)?.as_ref())?;
            criteria.saliency(&moments)
        }
    };
    groups.check_scores(&scores)?;
    let chosen = settings.choice.lowest(&space, groups.status(), &scores, target(eligible, settings.sparsity));
    groups.set(chosen, Status::Pruned);
    groups.apply(0.0).map_err(computation)?;
    Ok(groups)
}
