//! What a user may choose about the weighted simulation.

use super::resample::Scheme;
use offprint_core::{Error, Result};

/// When particles are drawn anew by their weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum When {
    /// Never, and the weights do not count: plain scaling of scores, plain sums, plain guidance.
    Unweighted,
    /// Never; the weights count at the end: sequential importance sampling.
    Never,
    /// After every so many steps; 1 in the paper's tables.
    Every(usize),
    /// When the effective sample size is below this part of the particles.
    BelowEss(f64),
    /// Killing and birth in continuous time take the place of weights.
    Jump,
}

/// Settings of the [`Corrector`](super::Corrector). The default is the paper's scheme without the safeguards of its code.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// ζ, the factor of the noise's variance: 1 with the target's score as drift, 1/β for tempered noise.
    pub noise: f64,
    /// When particles are drawn anew.
    pub when: When,
    /// How.
    pub scheme: Scheme,
    /// Last steps without drawing anew; the weights stay.
    pub rest: usize,
    /// Steps (from, to) outside which the weights do not grow; biased, as in the code for molecules.
    pub window: Option<(usize, usize)>,
    /// Growth of log-weights is centred in each step and cut at this size; biased, as in the code for images.
    pub clamp: Option<f64>,
    /// Weights are raised to this part of the largest before drawing anew; 10⁻⁶ in the code.
    pub floor: f64,
    /// Scores longer than this are cut to it; biased, 1000 in the code for molecules.
    pub longest_score: f64,
    /// Langevin steps on the target after each step: predictor and corrector.
    pub langevin: usize,
    /// Signal-to-noise ratio that sets the size of a Langevin step, ε = 2 (ratio · |ξ|/|S|)² in units of the mean norms.
    pub langevin_ratio: f64,
    /// Particles are configurations of points in this many dimensions whose centre of mass is kept at the origin.
    pub centred: Option<usize>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            noise: 1.0,
            when: When::BelowEss(0.5),
            scheme: Scheme::Systematic,
            rest: 0,
            window: None,
            clamp: None,
            floor: 0.0,
            longest_score: f64::INFINITY,
            langevin: 0,
            langevin_ratio: 0.16,
            centred: None,
        }
    }
}

impl Settings {
    /// Nothing but the drift and the noise: what heuristics do.
    pub fn unweighted() -> Self {
        Self { when: When::Unweighted, ..Self::default() }
    }

    /// The noise factor ζ = (β + (1 − β) 2a)/β of the paper's parameter a: 1 for a = 0, 1/β for a = ½.
    pub fn noise_of(a: f64, beta: f64) -> f64 {
        (beta + (1.0 - beta) * 2.0 * a) / beta
    }

    /// Refuses values outside what each field allows.
    pub fn check(&self, d: usize) -> Result<()> {
        let refuse = |field: &str, given: String, allowed: &str| Err(Error::parameter(field, given, allowed));
        if !(self.noise >= 0.0 && self.noise.is_finite()) {
            return refuse("noise", self.noise.to_string(), "zero or a positive number");
        }
        match self.when {
            When::Every(0) => return refuse("resample", "every 0 steps".into(), "at least every 1"),
            When::BelowEss(part) if !(0.0..=1.0).contains(&part) => {
                return refuse("ess", part.to_string(), "between 0 and 1");
            }
            _ => {}
        }
        if let Some((from, to)) = self.window.filter(|(from, to)| from >= to) {
            return refuse("window", format!("{from} to {to}"), "from a step to a later one");
        }
        if let Some(clamp) = self.clamp.filter(|c| c.is_nan() || *c <= 0.0) {
            return refuse("clamp", clamp.to_string(), "above 0");
        }
        if !(0.0..1.0).contains(&self.floor) {
            return refuse("floor", self.floor.to_string(), "at least 0 and below 1");
        }
        if self.longest_score.is_nan() || self.longest_score <= 0.0 {
            return refuse("longest score", self.longest_score.to_string(), "above 0");
        }
        if self.langevin > 0 && !(self.langevin_ratio > 0.0 && self.langevin_ratio.is_finite()) {
            return refuse("langevin ratio", self.langevin_ratio.to_string(), "above 0");
        }
        match self.centred {
            Some(dims) if dims == 0 || !d.is_multiple_of(dims) || d == dims => refuse(
                "centred",
                format!("{dims} dimensions"),
                &format!("a proper divisor of the model's dimension {d}"),
            ),
            _ => Ok(()),
        }
    }
}
