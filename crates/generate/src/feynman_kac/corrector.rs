//! Weighted simulation: particles that follow a [`Target`] from noise to data.

use super::jump::jump;
use super::noise::add_noise;
use super::particles::Particles;
use super::resample::{effective_size, log_mean, normalised};
use super::settings::{Settings, When};
use super::target::{Flow, Leg, Target};
use crate::{Grid, check, normals};
use ndarray::{Array1, Array2, Axis};
use offprint_core::random::Streams;
use offprint_core::{Error, Progress, Result};
use std::f64::consts::PI;

/// What is seen after each step: its number, the noise level reached, the particles (K, d) and their weights (K) before
/// they are drawn anew.
pub type Watch<'a> = dyn FnMut(usize, f64, &Array2<f64>, &[f64]) + 'a;

/// Follows a target with weighted particles.
///
/// Each step from τ to τ' asks the models once, at the particles where they stand: log w += G · rate, then
/// y += G · drift + √(G ζ) ξ with G = τ² − τ'². A step to τ' = 0 denoises, y += τ²/B ∇log p̃, and leaves the weights.
#[derive(Debug, Clone, Default)]
pub struct Corrector {
    settings: Settings,
}

/// The state of a run.
struct State {
    y: Array2<f64>,
    log_weights: Vec<f64>,
    log_normaliser: f64,
    roots: Vec<usize>,
    resamplings: Vec<(usize, Vec<usize>)>,
}

impl State {
    /// Takes each particle from its ancestor.
    fn inherit(&mut self, step: usize, ancestors: Vec<usize>) {
        self.y = self.y.select(Axis(0), &ancestors);
        self.roots = ancestors.iter().map(|&k| self.roots[k]).collect();
        self.resamplings.push((step, ancestors));
    }
}

impl Corrector {
    /// With `settings`, which are checked when it runs.
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// `particles` of `target` along `grid`, without watching.
    pub fn run(&self, target: &dyn Target, particles: usize, grid: &Grid, streams: Streams) -> Result<Particles> {
        self.run_with(target, particles, grid, streams, &mut |_, _, _, _| {}, &Progress::silent())
    }

    /// `particles` of `target` along `grid`. Results depend on the seed of `streams` and not on the number of threads.
    ///
    /// # Errors
    /// Fewer than 2 particles, settings out of range, scores or weights that stop being finite, a stop by the user.
    pub fn run_with(
        &self,
        target: &dyn Target,
        particles: usize,
        grid: &Grid,
        streams: Streams,
        watch: &mut Watch<'_>,
        progress: &Progress,
    ) -> Result<Particles> {
        let settings = &self.settings;
        settings.check(target.dim())?;
        if particles < 2 {
            return Err(Error::parameter("particles", particles, "at least 2"));
        }
        let redraws = !matches!(settings.when, When::Unweighted | When::Never);
        if settings.noise == 0.0 && settings.langevin == 0 && redraws {
            progress.warn("without noise, particles that are drawn anew never part again: expect few different ones");
        }
        let mut state = self.start(target, particles, grid.first().tau, streams)?;
        let mut evaluations = 0;
        let mut effective_sizes = Vec::with_capacity(grid.steps());
        let steps = grid.steps();
        if settings.when == When::Jump {
            // Weights of the start: none are left to carry.
            self.redraw(&mut state, 0, streams)?;
        }
        for (step, nodes) in grid.nodes().windows(2).enumerate() {
            let (tau, next) = (nodes[0].tau, nodes[1].tau);
            let leg = Leg { tau, from: step as f64 / steps as f64, to: (step + 1) as f64 / steps as f64 };
            let flow = self.flow(target, &state.y, leg, step)?;
            evaluations += target.models();
            let removed = tau * tau - next * next;
            if next == 0.0 {
                state.y.scaled_add(removed / target.exponent(), flow.score());
            } else {
                let increments = self.increments(&flow, removed, step);
                state.y.scaled_add(removed, &flow.drift_with(settings.noise));
                if settings.noise > 0.0 {
                    add_noise(&mut state.y, (removed * settings.noise).sqrt(), streams.stream("noise"), step);
                }
                self.weigh(&mut state, &increments, step, streams);
                evaluations += self.langevin(target, &mut state.y, (leg, next, step), streams)? * target.models();
            }
            self.centre(&mut state.y);
            if let Some(k) = check::first_bad_row(state.y.view()) {
                return Err(not_finite("position", k, step, next));
            }
            let weights = self.weights(&state)?;
            let size = effective_size(&weights);
            effective_sizes.push(size);
            watch(step, next, &state.y, &weights);
            if next > 0.0 && self.is_due(step, steps, size / particles as f64) {
                self.redraw(&mut state, step, streams)?;
            }
            progress.advance(1)?;
        }
        let weights = self.weights(&state)?;
        let used = settings.when != When::Unweighted && settings.clamp.is_none() && settings.window.is_none();
        Ok(Particles {
            alpha: grid.last().alpha,
            log_normaliser: used.then(|| state.log_normaliser + log_mean(&state.log_weights)),
            weights,
            y: state.y,
            effective_sizes,
            resamplings: state.resamplings,
            roots: state.roots,
            evaluations,
        })
    }

    /// Particles at the first level, N(centre, τ²/B), with the weights that densities give them.
    fn start(&self, target: &dyn Target, particles: usize, tau: f64, streams: Streams) -> Result<State> {
        let (d, exponent) = (target.dim() as f64, target.exponent());
        let free = self.settings.centred.map_or(d, |dims| d - dims as f64);
        let mut y = normals(particles, target.dim(), streams.stream("start"), 0);
        let log_proposal: Vec<f64> =
            y.outer_iter().map(|z| -0.5 * z.dot(&z) - 0.5 * d * (2.0 * PI * tau * tau / exponent).ln()).collect();
        y *= tau / exponent.sqrt();
        y += &target.centre();
        self.centre(&mut y);
        let (mut log_weights, mut log_normaliser) = (vec![0.0; particles], 0.0);
        match target.log_density(y.view(), tau, 0.0)? {
            Some(log_target) if self.settings.centred.is_none() => {
                log_weights = log_target.iter().zip(log_proposal).map(|(p, q)| p - q).collect();
            }
            // ∫ N(y; 0, τ²)^B = (2πτ²)^{d(1−B)/2} B^{−d/2}.
            _ => {
                log_normaliser = 0.5 * free * ((1.0 - exponent) * (2.0 * PI * tau * tau).ln() - exponent.ln());
            }
        }
        if self.settings.when == When::Unweighted {
            log_weights.fill(0.0);
        }
        Ok(State { y, log_weights, log_normaliser, roots: (0..particles).collect(), resamplings: Vec::new() })
    }

    /// The target's flow, refused if it is not finite; long scores are cut.
    fn flow(&self, target: &dyn Target, y: &Array2<f64>, leg: Leg, step: usize) -> Result<Flow> {
        let mut flow = target.flow(y.view(), leg)?;
        if let Some(k) = check::first_bad_row(flow.drift.view()) {
            return Err(not_finite("score", k, step, leg.tau));
        }
        if self.settings.longest_score.is_finite() {
            for rows in [Some(&mut flow.drift), flow.score.as_mut()].into_iter().flatten() {
                for mut row in rows.outer_iter_mut() {
                    let length = row.dot(&row).sqrt();
                    if length > self.settings.longest_score {
                        row *= self.settings.longest_score / length;
                    }
                }
            }
        }
        Ok(flow)
    }

    /// By how much the log-weights grow in a step that removes `removed`.
    fn increments(&self, flow: &Flow, removed: f64, step: usize) -> Array1<f64> {
        let mut increments = &flow.rate * removed;
        if let Some(change) = &flow.change {
            increments += change;
        }
        if self.settings.window.is_some_and(|(from, to)| !(from..to).contains(&step)) {
            increments.fill(0.0);
        }
        if let Some(clamp) = self.settings.clamp {
            let mean = increments.mean().unwrap_or(0.0);
            increments.mapv_inplace(|g| (g - mean).clamp(-clamp, clamp));
        }
        increments
    }

    /// Puts the increments where they belong: into the weights, or into killing and birth.
    fn weigh(&self, state: &mut State, increments: &Array1<f64>, step: usize, streams: Streams) {
        match self.settings.when {
            When::Unweighted => {}
            When::Jump => {
                let increments = increments.as_slice().expect("own vectors are contiguous");
                state.log_normaliser += log_mean(increments);
                let ancestors = jump(increments, &mut streams.stream("jumps").rng(step as u64));
                state.inherit(step, ancestors);
            }
            _ => state.log_weights.iter_mut().zip(increments).for_each(|(w, g)| *w += g),
        }
    }

    /// Normalised weights, raised to the floor.
    fn weights(&self, state: &State) -> Result<Vec<f64>> {
        let mut weights = normalised(&state.log_weights)?;
        if self.settings.floor > 0.0 {
            let floor = self.settings.floor * weights.iter().copied().fold(0.0, f64::max);
            weights.iter_mut().for_each(|w| *w = w.max(floor));
            let total: f64 = weights.iter().sum();
            weights.iter_mut().for_each(|w| *w /= total);
        }
        Ok(weights)
    }

    fn is_due(&self, step: usize, steps: usize, part: f64) -> bool {
        if step + self.settings.rest >= steps {
            return false;
        }
        match self.settings.when {
            When::Every(interval) => (step + 1).is_multiple_of(interval),
            When::BelowEss(threshold) => part < threshold,
            When::Unweighted | When::Never | When::Jump => false,
        }
    }

    /// Draws the particles anew; their weights become equal.
    fn redraw(&self, state: &mut State, step: usize, streams: Streams) -> Result<()> {
        let weights = self.weights(state)?;
        let mut rng = streams.stream("resampling").rng(step as u64);
        state.log_normaliser += log_mean(&state.log_weights);
        let ancestors = self.settings.scheme.draw(&weights, weights.len(), &mut rng);
        state.inherit(step, ancestors);
        state.log_weights.fill(0.0);
        Ok(())
    }

    /// Langevin steps on the target at the level reached; gives their number.
    fn langevin(
        &self,
        target: &dyn Target,
        y: &mut Array2<f64>,
        (leg, next, step): (Leg, f64, usize),
        streams: Streams,
    ) -> Result<u64> {
        let there = Leg { tau: next, from: leg.to, to: leg.to };
        let (n, d) = y.dim();
        for turn in 0..self.settings.langevin {
            let flow = self.flow(target, y, there, step)?;
            let stream = streams.stream("langevin").nested(turn as u64).stream("noise");
            let fresh = normals(n, d, stream, (step as u64) << 32);
            let size = |rows: &Array2<f64>| rows.outer_iter().map(|row| row.dot(&row).sqrt()).sum::<f64>() / n as f64;
            let ratio = self.settings.langevin_ratio * size(&fresh) / size(flow.score()).max(f64::MIN_POSITIVE);
            // Never longer than what keeps a Gaussian of the level's own width stable.
            let epsilon = (2.0 * ratio * ratio).min(next * next / target.exponent());
            y.scaled_add(epsilon, flow.score());
            y.scaled_add((2.0 * epsilon).sqrt(), &fresh);
        }
        Ok(self.settings.langevin as u64)
    }

    /// Moves centres of mass to the origin, if configurations have none.
    fn centre(&self, y: &mut Array2<f64>) {
        let Some(dims) = self.settings.centred else { return };
        for mut row in y.outer_iter_mut() {
            for axis in 0..dims {
                let mut coordinates = row.slice_mut(ndarray::s![axis..;dims]);
                let mean = coordinates.mean().unwrap_or(0.0);
                coordinates -= mean;
            }
        }
    }
}

fn not_finite(what: &str, particle: usize, step: usize, tau: f64) -> Error {
    Error::Numerical(format!(
        "the {what} of particle {particle} is not finite in step {} at noise level {tau:.4}: more steps, a higher lowest \
         level or exponents nearer to 1 may help",
        step + 1
    ))
}
