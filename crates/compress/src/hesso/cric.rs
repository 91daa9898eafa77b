//! HESSO-CRIC: groups must look redundant along the path on which they go, before they go for good.

use super::base::Base;
use super::choose::{Choice, target};
use super::groups::{Groups, Snapshot, Status};
use super::optimizer::in_step;
use super::saliency::Criteria;
use super::space::Space;
use candle_core::{Tensor, backprop::GradStore, bail};
use offprint_core::{Error, Result};
use offprint_nn::Params;
use offprint_nn::optim::Optimizer;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

/// When and what HESSO-CRIC prunes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CricSettings {
    /// Share K of the groups that go, above 0 and below 1.
    pub sparsity: f64,
    /// Step after which the search begins.
    pub start: u64,
    /// Steps of one cycle.
    pub sampling: u64,
    /// Most cycles.
    pub cycles: u64,
    /// Number of new candidates at which the cycles end.
    pub tolerance: usize,
    /// Steps in which the final choice shrinks to zero.
    pub hybrid: u64,
    /// Weight of the rise of the loss in the final score.
    pub loss_weight: f64,
    /// How groups are chosen beside their rank.
    pub choice: Choice,
    /// What ranks them.
    pub criteria: Criteria,
}

impl CricSettings {
    /// The most steps that search and shrinking can take in a network with `components` components.
    pub fn longest(&self, components: usize) -> u64 {
        1 + (PROBES.len() * components) as u64 + self.cycles * self.sampling + self.hybrid
    }

    /// Refuses settings that cannot end within a training of `total` steps.
    ///
    /// # Errors
    /// A sparsity outside (0, 1); no steps or cycles; a search that may outlast the training.
    pub fn check(&self, total: u64, components: usize) -> Result<()> {
        if !(self.sparsity > 0.0 && self.sparsity < 1.0) {
            return Err(Error::parameter("sparsity", self.sparsity, "above 0 and below 1"));
        }
        for (field, steps) in [("sampling", self.sampling), ("cycles", self.cycles), ("hybrid", self.hybrid)] {
            if steps == 0 {
                return Err(Error::parameter(field, steps, "at least 1"));
            }
        }
        let end = self.start.saturating_add(self.longest(components));
        if end > total {
            let given = format!("steps {} to {end}", self.start);
            return Err(Error::parameter("pruning window", given, format!("within the {total} steps of training")));
        }
        Ok(())
    }
}

/// Trial sparsities of each component.
const PROBES: [f64; 3] = [0.25, 0.5, 0.75];

/// Where the search stands.
enum Phase {
    /// Plain training.
    Training,
    /// Component and trial sparsity whose loss the next step tells.
    Probing(usize),
    /// Step of the cycle.
    Cycling(u64),
    /// Step of the final shrinking.
    Shrinking(u64),
    /// Training of what is left.
    Done,
}

/// A drop-in optimiser that needs the loss of each step beside its gradient: see [`Cric::gauge`].
///
/// After `start` steps it (1) notes the loss and sets aside the parameters, (2) zeroes in turn the lowest quarter, half and
/// three quarters of each component and reads the loss, (3) shrinks the T lowest groups in trial over a cycle of steps,
/// collecting scores at each, and takes the groups that newly fall among the T lowest as the next cycle's, until none is
/// left; parameters go back after each. (4) The T groups with the lowest mean score, to which the candidates' share of
/// their component's rise of the loss is added, shrink to zero for good.
pub struct Cric {
    base: Base,
    optimizer: Box<dyn Optimizer>,
    groups: Groups,
    settings: CricSettings,
    goal: usize,
    loss: Rc<Cell<f64>>,
    step: u64,
    phase: Phase,
    /// Parameters set aside when the search began.
    cached: Vec<(usize, Tensor)>,
    params: Params,
    reference: f64,
    first_scores: Vec<f64>,
    /// Loss ratios of each component.
    ratios: Vec<Vec<f64>>,
    sums: Vec<f64>,
    collected: u64,
    trial: BTreeSet<usize>,
    historical: BTreeSet<usize>,
    cycles: u64,
}

impl Cric {
    /// Over `params` with what can be removed in `space`.
    ///
    /// # Errors
    /// Settings of the base that it refuses; a sparsity under which nothing is removed.
    pub fn new(params: &Params, space: Arc<Space>, base: Base, settings: CricSettings) -> Result<Self> {
        let eligible = settings.choice.eligible(&space).into_iter().filter(|&e| e).count();
        let goal = target(eligible, settings.sparsity);
        if goal == 0 {
            let allowed = format!("such that at least one of {eligible} groups goes");
            return Err(Error::parameter("sparsity", settings.sparsity, allowed));
        }
        Ok(Self {
            base,
            optimizer: base.optimizer(params)?,
            settings,
            goal,
            loss: Rc::new(Cell::new(f64::NAN)),
            step: 0,
            phase: Phase::Training,
            cached: Vec::new(),
            params: params.clone(),
            reference: f64::NAN,
            first_scores: Vec::new(),
            ratios: vec![Vec::new(); space.components.len()],
            sums: vec![0.0; space.groups.len()],
            collected: 0,
            trial: BTreeSet::new(),
            historical: BTreeSet::new(),
            cycles: 0,
            groups: Groups::new(space, params)?,
        })
    }

    /// Where the training puts the loss of a step before the step is taken.
    pub fn gauge(&self) -> Rc<Cell<f64>> {
        self.loss.clone()
    }

    /// The groups, with where they stand.
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// Number of groups that are to go.
    pub fn target(&self) -> usize {
        self.goal
    }

    /// Cycles so far.
    pub fn cycles(&self) -> u64 {
        self.cycles
    }

    /// Mean ratio of the loss to the reference when parts of each component were zero.
    pub fn loss_ratios(&self) -> Vec<f64> {
        self.ratios.iter().map(|r| r.iter().sum::<f64>() / r.len().max(1) as f64).collect()
    }

    fn scores(&self, before: &Snapshot) -> Result<Vec<f64>> {
        let moments = self.groups.moments(before, &self.base, self.optimizer.as_ref())?;
        let scores = self.settings.criteria.saliency(&moments);
        self.groups.check_scores(&scores)?;
        Ok(scores)
    }

    fn put_back(&self) -> candle_core::Result<()> {
        self.cached.iter().try_for_each(|(i, tensor)| self.params.trained()[*i].var.set(tensor))
    }

    /// The `quota` groups of low `scores` among all.
    fn lowest(&self, scores: &[f64]) -> Vec<usize> {
        let all_kept = vec![Status::Kept; scores.len()];
        self.settings.choice.lowest(self.groups.space(), &all_kept, scores, self.goal)
    }

    /// Zeroes the part of probe number `probe`, if there is one.
    fn probe(&mut self, probe: usize) -> candle_core::Result<bool> {
        let space = self.groups.space().clone();
        let Some(component) = space.components.get(probe / PROBES.len()) else { return Ok(false) };
        let mut order: Vec<usize> = component.groups.clone().collect();
        order.sort_by(|&a, &b| self.first_scores[a].total_cmp(&self.first_scores[b]).then(a.cmp(&b)));
        order.truncate((PROBES[probe % PROBES.len()] * order.len() as f64) as usize);
        self.groups.set(order, Status::Shrinking);
        self.groups.apply(0.0)?;
        self.groups.settle(Status::Kept);
        self.phase = Phase::Probing(probe);
        Ok(true)
    }

    /// The first step of the search: reference loss, parameters, scores.
    fn begin(&mut self, gradients: &GradStore) -> candle_core::Result<()> {
        self.reference = self.loss.get();
        if self.reference.is_nan() {
            bail!("the search for redundant groups needs the loss of each step");
        }
        let copies = self.params.trained().iter().enumerate();
        self.cached =
            copies.map(|(i, p)| Ok((i, p.var.as_detached_tensor().copy()?))).collect::<candle_core::Result<_>>()?;
        let before = self.groups.snapshot().map_err(in_step)?;
        self.optimizer.step(gradients)?;
        self.first_scores = self.scores(&before).map_err(in_step)?;
        self.put_back()?;
        self.probe(0)?;
        Ok(())
    }

    fn first_cycle(&mut self) {
        let lowest = self.lowest(&self.first_scores);
        self.groups.set(lowest, Status::Shrinking);
        self.phase = Phase::Cycling(0);
    }

    fn cycle(&mut self, t: u64, gradients: &GradStore) -> candle_core::Result<()> {
        let before = self.groups.snapshot().map_err(in_step)?;
        self.optimizer.step(gradients)?;
        let scores = self.scores(&before).map_err(in_step)?;
        self.sums.iter_mut().zip(&scores).for_each(|(sum, score)| *sum += score);
        self.collected += 1;
        let status = self.groups.status();
        let new = self.lowest(&scores);
        self.trial.extend(new.into_iter().filter(|g| status[*g] == Status::Kept && !self.historical.contains(g)));
        let sampling = self.settings.sampling;
        self.groups.apply((sampling - t - 1) as f64 / (sampling - t) as f64)?;
        self.phase = Phase::Cycling(t + 1);
        if t + 1 == sampling {
            self.end_of_cycle()?;
        }
        Ok(())
    }

    fn end_of_cycle(&mut self) -> candle_core::Result<()> {
        self.put_back()?;
        let active = (0..).zip(self.groups.status()).filter(|(_, s)| **s == Status::Shrinking).map(|(group, _)| group);
        self.historical.extend(active.collect::<Vec<usize>>());
        self.groups.settle(Status::Kept);
        let next: Vec<usize> = std::mem::take(&mut self.trial).difference(&self.historical).copied().collect();
        self.cycles += 1;
        if next.len() <= self.settings.tolerance || self.cycles == self.settings.cycles {
            self.commit();
        } else {
            self.groups.set(next, Status::Shrinking);
            self.phase = Phase::Cycling(0);
        }
        Ok(())
    }

    /// The final choice.
    fn commit(&mut self) {
        let mut scores: Vec<f64> = self.sums.iter().map(|sum| sum / self.collected.max(1) as f64).collect();
        let space = self.groups.space().clone();
        for (component, ratio) in space.components.iter().zip(self.loss_ratios()) {
            let violators: Vec<usize> = self.historical.range(component.groups.clone()).copied().collect();
            let share = self.settings.loss_weight * ratio / violators.len().max(1) as f64;
            violators.into_iter().for_each(|group| scores[group] += share);
        }
        let chosen = self.lowest(&scores);
        self.groups.set(chosen, Status::Shrinking);
        self.phase = Phase::Shrinking(0);
    }
}

impl Optimizer for Cric {
    fn step(&mut self, gradients: &GradStore) -> candle_core::Result<()> {
        self.step += 1;
        match self.phase {
            Phase::Training if self.step > self.settings.start => self.begin(gradients)?,
            Phase::Probing(probe) => {
                let ratio = self.loss.get() / self.reference;
                self.ratios[probe / PROBES.len()].push(ratio);
                self.put_back()?;
                if !self.probe(probe + 1)? {
                    self.first_cycle();
                }
            }
            Phase::Cycling(t) => self.cycle(t, gradients)?,
            Phase::Shrinking(t) => {
                self.optimizer.step(gradients)?;
                let hybrid = self.settings.hybrid;
                self.groups.apply((hybrid - t - 1) as f64 / (hybrid - t) as f64)?;
                self.phase = Phase::Shrinking(t + 1);
                if t + 1 == hybrid {
                    self.groups.settle(Status::Pruned);
                    self.phase = Phase::Done;
                    self.cached.clear();
                }
            }
            Phase::Training | Phase::Done => {
                self.optimizer.step(gradients)?;
                self.groups.apply(0.0)?;
            }
        }
        Ok(())
    }

    fn learning_rate(&self) -> f64 {
        self.optimizer.learning_rate()
    }

    fn set_learning_rate(&mut self, learning_rate: f64) {
        self.optimizer.set_learning_rate(learning_rate);
    }

    fn state(&self) -> candle_core::Result<Vec<(String, Tensor)>> {
        // The search holds parameters of its beginning and what it has collected: it starts anew rather than go on.
        self.optimizer.state()
    }

    fn restore(&mut self, _: &[(String, Tensor)]) -> candle_core::Result<()> {
        bail!("a search for redundant groups cannot be taken up again; start the training anew")
    }
}

impl Cric {
    /// Whether the final choice is zero.
    pub fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }
}
