//! HESSO and what it is compared with, behind one call.

use super::base::Base;
use super::choose::{Choice, target};
use super::cric::{Cric, CricSettings};
use super::groups::Groups;
use super::hspg::{Hspg, HspgSettings};
use super::net::Net;
use super::optimizer::{Hesso, Pace, Ranking, Settings, prune_now};
use super::saliency::{Criteria, Criterion};
use super::space::Space;
use super::train::Training;
use offprint_core::random::Stream;
use offprint_core::{Progress, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A way to a smaller network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// Train and shrink redundant groups in the same run.
    Hesso,
    /// HESSO that tries its choice before it commits to it.
    Cric,
    /// A penalty on group norms with projection onto half-spaces, the authors' earlier method.
    Hspg,
    /// Train to the end, then remove the groups of the smallest norm.
    Magnitude,
    /// Remove the groups of the smallest norm where HESSO's window ends, then train on.
    MagnitudeTuned,
    /// Remove groups in steps, those with the least first-order change of the loss, and train in between.
    Taylor,
    /// Train to the end, then remove groups by chance.
    Random,
    /// Remove nothing.
    Full,
}

impl Way {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hesso => "HESSO",
            Self::Cric => "HESSO-CRIC",
            Self::Hspg => "HSPG",
            Self::Magnitude => "magnitude, after training",
            Self::MagnitudeTuned => "magnitude, then training",
            Self::Taylor => "Taylor, in steps",
            Self::Random => "chance, after training",
            Self::Full => "nothing removed",
        }
    }
}

/// How to get there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pruning {
    /// Which way.
    pub way: Way,
    /// The optimiser underneath.
    pub base: Base,
    /// Share of the groups that go.
    pub sparsity: f64,
    /// Share of the steps before the first group is chosen.
    pub start: f64,
    /// Share of the steps in which groups go.
    pub window: f64,
    /// Parts of the window.
    pub periods: u64,
    /// What ranks groups, where the way leaves it open.
    pub criteria: Criteria,
    /// How groups are chosen beside their rank.
    pub choice: Choice,
    /// The penalty of [`Way::Hspg`].
    pub penalty: f64,
    /// Draws for [`Way::Random`].
    pub chance: Stream,
}

/// What came of it. The network is trained, and its removed groups are zero.
pub struct Outcome {
    /// Which groups are zero.
    pub removed: Vec<bool>,
    /// How many were to go.
    pub target: usize,
    /// The loss before each step.
    pub losses: Vec<f64>,
    /// The saliency of all groups at each choice, for [`Way::Hesso`] and [`Way::Taylor`].
    pub scores: Vec<Vec<f64>>,
    /// Cycles of the search, for [`Way::Cric`].
    pub cycles: Option<u64>,
}

impl Pruning {
    /// HESSO with the authors' advice: from a tenth of the training on, over a quarter of it, in five periods.
    pub fn hesso(base: Base, sparsity: f64, chance: Stream) -> Self {
        Self {
            way: Way::Hesso,
            base,
            sparsity,
            start: 0.1,
            window: 0.25,
            periods: 5,
            criteria: Criteria::MIXTURE,
            choice: Choice { divisible: 1, compat: false },
            penalty: 0.1,
            chance,
        }
    }

    /// First step and number of steps of the window in a training of `total` steps.
    pub fn window_of(&self, total: u64) -> (u64, u64) {
        ((self.start * total as f64).round() as u64, (self.window * total as f64).round() as u64)
    }

    fn settings(&self, total: u64) -> Settings {
        let (start, steps) = self.window_of(total);
        let settings = Settings {
            sparsity: self.sparsity,
            start,
            steps,
            periods: self.periods,
            choice: self.choice,
            ranking: Ranking::Saliency(self.criteria),
            pace: Pace::Shrinking,
        };
        let magnitude = Ranking::Saliency(Criteria::only(Criterion::Magnitude));
        match self.way {
            Way::Magnitude => Settings { ranking: magnitude, ..settings },
            Way::MagnitudeTuned => {
                let start = (start + steps).min(total.saturating_sub(1));
                Settings { ranking: magnitude, pace: Pace::AtOnce, start, steps: 1, periods: 1, ..settings }
            }
            Way::Taylor => {
                let ranking = Ranking::Saliency(Criteria::only(Criterion::TaylorFirst));
                Settings { ranking, pace: Pace::AtOnce, ..settings }
            }
            Way::Random => Settings { ranking: Ranking::Random(self.chance), ..settings },
            _ => settings,
        }
    }

    /// The search of [`Way::Cric`] within HESSO's window: half of it for cycles, the rest for shrinking.
    fn cric(&self, total: u64, components: usize) -> CricSettings {
        let (start, steps) = self.window_of(total);
        let cycles = 10;
        let probes = 1 + 3 * components as u64;
        let sampling = (steps.saturating_sub(probes) / 2 / cycles).max(1);
        let hybrid = steps.saturating_sub(probes + cycles * sampling).max(1);
        CricSettings {
            sparsity: self.sparsity,
            start,
            sampling,
            cycles,
            tolerance: 0,
            hybrid,
            loss_weight: 1.0,
            choice: self.choice,
            criteria: self.criteria,
        }
    }

    /// Trains `net` and removes groups of `space` from it.
    ///
    /// # Errors
    /// Settings that do not fit the number of steps; a loss or a score that is not finite; a stop by the user.
    pub fn run(&self, net: &Net, space: &Arc<Space>, training: &Training<'_>, progress: &Progress) -> Result<Outcome> {
        let total = training.steps();
        let params = net.params();
        let done = |groups: &Groups, losses, target, scores, cycles| Outcome {
            removed: groups.is_pruned(),
            target,
            losses,
            scores,
            cycles,
        };
        match self.way {
            Way::Full => {
                let mut optimizer = self.base.optimizer(params)?;
                let losses = training.run(net, optimizer.as_mut(), None, progress)?;
                let removed = vec![false; space.groups.len()];
                Ok(Outcome { removed, target: 0, losses, scores: vec![], cycles: None })
            }
            Way::Magnitude | Way::Random => {
                let settings = self.settings(total);
                let mut optimizer = self.base.optimizer(params)?;
                let losses = training.run(net, optimizer.as_mut(), None, progress)?;
                let groups = prune_now(params, space.clone(), &settings)?;
                let eligible = self.choice.eligible(space).into_iter().filter(|&e| e).count();
                Ok(done(&groups, losses, target(eligible, self.sparsity), vec![], None))
            }
            Way::Hesso | Way::MagnitudeTuned | Way::Taylor => {
                let settings = self.settings(total);
                settings.check(total)?;
                let mut hesso = Hesso::new(params, space.clone(), self.base, settings)?;
                let losses = training.run(net, &mut hesso, None, progress)?;
                Ok(done(hesso.groups(), losses, hesso.target(), hesso.scores().to_vec(), None))
            }
            Way::Cric => {
                let settings = self.cric(total, space.components.len());
                settings.check(total, space.components.len())?;
                let mut cric = Cric::new(params, space.clone(), self.base, settings)?;
                let gauge = cric.gauge();
                let losses = training.run(net, &mut cric, Some(&gauge), progress)?;
                Ok(done(cric.groups(), losses, cric.target(), vec![], Some(cric.cycles())))
            }
            Way::Hspg => {
                let (start, _) = self.window_of(total);
                let settings = HspgSettings {
                    sparsity: self.sparsity,
                    start,
                    penalty: self.penalty,
                    epsilon: 0.0,
                    choice: self.choice,
                };
                let mut hspg = Hspg::new(params, space.clone(), self.base, settings)?;
                let losses = training.run(net, &mut hspg, None, progress)?;
                Ok(done(hspg.groups(), losses, hspg.target(), vec![], None))
            }
        }
    }
}

/// How many groups of each component are kept.
pub fn kept(space: &Space, removed: &[bool]) -> Vec<usize> {
    space.components.iter().map(|c| removed[c.groups.clone()].iter().filter(|removed| !**removed).count()).collect()
}
