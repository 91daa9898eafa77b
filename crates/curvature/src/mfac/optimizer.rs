//! M-FAC as an optimiser: gradient descent preconditioned by F̂⁻¹ of the last m gradients.

use super::window::MfacDynamic;
use offprint_core::{Error, Result};

/// The settings of [`MfacOptimizer`]; the defaults are the authors'.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Gradients in the window, m.
    pub window: usize,
    /// Damping λ.
    pub damp: f64,
    /// Learning rate.
    pub learning_rate: f64,
    /// Momentum μ over preconditioned gradients: v ← μ v + (1 − μ) u.
    pub momentum: f64,
    /// Weight decay, added to the gradient before it enters the window.
    pub weight_decay: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { window: 1024, damp: 1e-5, learning_rate: 1e-3, momentum: 0.0, weight_decay: 0.0 }
    }
}

/// The state between steps.
#[derive(Debug, Clone)]
pub struct MfacOptimizer {
    settings: Settings,
    inverse: MfacDynamic<f32>,
    velocity: Vec<f64>,
    /// The coordinates that are trained: all, or those not zero at the start.
    live: Vec<usize>,
    length: usize,
}

impl MfacOptimizer {
    /// For all of `weights (d,)`.
    ///
    /// # Errors
    /// No weight; a window of zero; a damping that is not positive; a momentum outside 0..1; a learning rate or decay
    /// that is not finite.
    pub fn new(weights: &[f32], settings: Settings) -> Result<Self> {
        Self::on((0..weights.len()).collect(), weights.len(), settings)
    }

    /// For those of `weights (d,)` that are not exactly zero: the others, pruned ones, stay zero and are no coordinates
    /// of F̂.
    ///
    /// # Errors
    /// As for [`Self::new`].
    pub fn sparse(weights: &[f32], settings: Settings) -> Result<Self> {
        Self::on((0..weights.len()).filter(|&k| weights[k] != 0.0).collect(), weights.len(), settings)
    }

    fn on(live: Vec<usize>, length: usize, settings: Settings) -> Result<Self> {
        if !(0.0..1.0).contains(&settings.momentum) {
            return Err(Error::parameter("momentum", settings.momentum, "at least 0 and below 1"));
        }
        for (name, x) in [("learning_rate", settings.learning_rate), ("weight_decay", settings.weight_decay)] {
            if !x.is_finite() {
                return Err(Error::parameter(name, x, "finite"));
            }
        }
        if live.is_empty() {
            return Err(Error::input("weights", "has no element to train"));
        }
        let inverse = MfacDynamic::new(live.len(), settings.window, settings.damp)?;
        let velocity = if settings.momentum > 0.0 { vec![0.0; live.len()] } else { Vec::new() };
        Ok(Self { settings, inverse, velocity, live, length })
    }

    /// Changes the learning rate, as schedules do between steps.
    pub fn set_learning_rate(&mut self, learning_rate: f64) {
        self.settings.learning_rate = learning_rate;
    }

    /// One step: g ← ∇ + decay · w enters the window, then w ← w − rate · F̂⁻¹ g (or its running mean).
    ///
    /// # Errors
    /// Another length than at the start; a gradient that is not finite.
    pub fn step(&mut self, weights: &mut [f32], gradient: &[f32]) -> Result<()> {
        for (name, length) in [("weights", weights.len()), ("gradient", gradient.len())] {
            if length != self.length {
                return Err(Error::input(name, format!("has {length} elements; there were {} before", self.length)));
            }
        }
        let Settings { weight_decay, momentum, learning_rate, .. } = self.settings;
        let g: Vec<f64> =
            self.live.iter().map(|&k| f64::from(gradient[k]) + weight_decay * f64::from(weights[k])).collect();
        let mut update = self.inverse.push_solve(&g)?;
        if momentum > 0.0 {
            self.velocity.iter_mut().zip(&update).for_each(|(v, u)| *v = momentum * *v + (1.0 - momentum) * u);
            update.copy_from_slice(&self.velocity);
        }
        for (&k, u) in self.live.iter().zip(update) {
            weights[k] = (f64::from(weights[k]) - learning_rate * u) as f32;
        }
        Ok(())
    }

    /// F̂⁻¹ as it stands.
    pub fn inverse(&self) -> &MfacDynamic<f32> {
        &self.inverse
    }
}
