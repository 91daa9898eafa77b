//! How long, how fast and towards what.

use super::generator::Conditioning;
use super::losses::GeneratorLoss;
use super::student::Bits;
use offprint_core::{Error, Result};
use offprint_nn::train::{Decay, Schedule};

/// How long, how fast and towards what. The defaults are those of the study on digits.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Bits of weights and of activations.
    pub bits: Bits,
    /// Images of a step.
    pub batch: usize,
    /// First steps, in which only the generator learns.
    pub warmup: usize,
    /// First steps, in which the ranges of activations follow the images; at least 1.
    pub observed: usize,
    /// All steps.
    pub steps: usize,
    /// Step length of the quantised network: SGD with Nesterov's momentum 0.9 and weight decay 10⁻⁴.
    pub student_rate: f64,
    /// Step length of the generator: Adam with β = (0.5, 0.999).
    pub generator_rate: f64,
    /// Shares of all steps after which both step lengths fall to a tenth.
    pub decays: Vec<f64>,
    /// T of what the quantised network learns.
    pub temperature: f64,
    /// What the generator's loss is made of.
    pub loss: GeneratorLoss,
    /// How the generator learns of classes.
    pub conditioning: Conditioning,
    /// The published code's running means of ranges, which compound their correction.
    pub compounded: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            bits: Bits { weights: 2, activations: 2 },
            batch: 16,
            warmup: 80,
            observed: 80,
            steps: 700,
            student_rate: 3e-3,
            generator_rate: 1e-3,
            decays: vec![0.6],
            temperature: 20.0,
            loss: GeneratorLoss::default(),
            conditioning: Conditioning::Product,
            compounded: false,
        }
    }
}

impl Settings {
    /// Refuses batches of fewer than two images, no observed step, rates and temperatures that are not above 0, and λ_l
    /// above λ_u.
    ///
    /// # Errors
    /// The field, what was given and what is allowed.
    pub fn check(&self) -> Result<()> {
        self.bits.check()?;
        if self.batch < 2 {
            return Err(Error::parameter("batch", self.batch, "at least 2: adaptability is relative to a batch"));
        }
        if self.observed == 0 || self.observed > self.steps {
            let allowed = format!("between 1 and the {} steps", self.steps);
            return Err(Error::parameter("observed", self.observed, allowed));
        }
        if self.warmup > self.steps {
            return Err(Error::parameter("warmup", self.warmup, format!("at most the {} steps", self.steps)));
        }
        let positive = [
            ("student_rate", self.student_rate),
            ("generator_rate", self.generator_rate),
            ("temperature", self.temperature),
        ];
        if let Some((name, value)) = positive.into_iter().find(|(_, value)| !(value.is_finite() && *value > 0.0)) {
            return Err(Error::parameter(name, value, "finite and above 0"));
        }
        let GeneratorLoss { lower, upper, .. } = self.loss;
        if !(0.0 <= lower && lower <= upper && upper <= 1.0) {
            return Err(Error::parameter("lower", lower, format!("from 0 to upper, which is {upper} and at most 1")));
        }
        Ok(())
    }

    pub(super) fn schedule(&self) -> Schedule {
        let milestones = self.decays.iter().map(|share| (share * self.steps as f64).round() as u64).collect();
        Schedule { warmup: 0, decay: Decay::Steps { milestones, factor: 0.1 } }
    }
}
