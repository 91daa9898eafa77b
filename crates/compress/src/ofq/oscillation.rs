//! Weights that change their level and change back (Nagel et al. 2022), and what made them do so.

use super::Reading;
use std::ops::AddAssign;

/// Share of a new step in the running frequency of oscillation.
const MOMENTUM: f32 = 0.01;

/// The frequency above which a weight counts as oscillating.
pub const OSCILLATING: f32 = 0.005;

/// Events among weights and steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Weights times steps.
    pub weight_steps: u64,
    /// Codes that changed.
    pub flips: u64,
    /// Of these, those that the new scale makes with the weight as it was.
    pub by_scale: u64,
    /// Changes against the direction of the same weight's change before.
    pub oscillations: u64,
}

impl Counts {
    /// Flips of a weight in a step.
    pub fn flip_rate(&self) -> f64 {
        self.flips as f64 / self.weight_steps.max(1) as f64
    }

    /// Oscillations of a weight in a step.
    pub fn oscillation_rate(&self) -> f64 {
        self.oscillations as f64 / self.weight_steps.max(1) as f64
    }

    /// The share of flips that a scale caused; NaN without flips.
    pub fn share_by_scale(&self) -> f64 {
        self.by_scale as f64 / self.flips as f64
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.weight_steps += other.weight_steps;
        self.flips += other.flips;
        self.by_scale += other.by_scale;
        self.oscillations += other.oscillations;
    }
}

impl std::iter::Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |mut sum, counts| {
            sum += counts;
            sum
        })
    }
}

/// What is remembered of a matrix.
#[derive(Debug, Clone)]
pub struct Memory {
    before: Reading,
    codes: Vec<i8>,
    /// Sign of each code's last change; 0 if it never changed.
    directions: Vec<i8>,
    /// Running frequency f of oscillations.
    pub frequency: Vec<f32>,
    /// Running mean of the codes.
    pub average: Vec<f32>,
}

/// Watches matrices step by step, at one more byte of codes read and written a weight.
#[derive(Debug, Clone)]
pub struct Tracker {
    /// One for each matrix.
    pub memories: Vec<Memory>,
}

impl Tracker {
    /// Begins with the matrices as they are.
    pub fn new(start: Vec<Reading>) -> Self {
        let memories = start.into_iter().map(|before| {
            let codes = before.codes();
            Memory {
                directions: vec![0; codes.len()],
                frequency: vec![0.0; codes.len()],
                average: codes.iter().map(|&code| f32::from(code)).collect(),
                codes,
                before,
            }
        });
        Self { memories: memories.collect() }
    }

    /// Looks at the matrices after a step, in the order of the first time: what happened in each.
    pub fn step(&mut self, now: Vec<Reading>) -> Vec<Counts> {
        self.memories.iter_mut().zip(now).map(|(memory, now)| memory.step(now)).collect()
    }

    /// The share of all weights whose frequency of oscillation is above [`OSCILLATING`].
    pub fn oscillating(&self) -> f64 {
        let count = |f: fn(&f32) -> bool| self.memories.iter().flat_map(|m| &m.frequency).filter(|x| f(x)).count();
        count(|&f| f > OSCILLATING) as f64 / count(|_| true).max(1) as f64
    }
}

impl Memory {
    fn step(&mut self, now: Reading) -> Counts {
        let codes = now.codes();
        let mut counts = Counts { weight_steps: codes.len() as u64, ..Counts::default() };
        for (i, (&code, before)) in codes.iter().zip(&mut self.codes).enumerate() {
            let mut oscillated = 0.0;
            if code != *before {
                let direction = (code - *before).signum();
                counts.flips += 1;
                // The weight as it was under the scale as it is: if that moves the code already, the weight need not.
                let under_new = now.levels.code(self.before.weights[i], now.scale(i));
                counts.by_scale += u64::from(under_new != i32::from(*before));
                if self.directions[i] == -direction {
                    counts.oscillations += 1;
                    oscillated = 1.0;
                }
                self.directions[i] = direction;
                *before = code;
            }
            self.frequency[i] += MOMENTUM * (oscillated - self.frequency[i]);
            self.average[i] += MOMENTUM * (f32::from(code) - self.average[i]);
        }
        self.before = now;
        counts
    }
}
