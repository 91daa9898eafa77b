//! Stochastic gradient descent with momentum (Sutskever et al. 2013) in PyTorch's form.

use super::state::{Rule, State};
use super::{Named, Optimizer};
use crate::ops::element::Element;
use candle_core::{Result, Tensor, backprop::GradStore, bail};

/// What sets a gradient descent apart from another. The defaults are PyTorch's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SgdSettings {
    /// Step length.
    pub learning_rate: f64,
    /// Weight μ of the previous direction.
    pub momentum: f64,
    /// Share δ of the gradient that a direction leaves out from the second step on.
    pub dampening: f64,
    /// Whether the step looks ahead along the direction; needs momentum.
    pub nesterov: bool,
    /// Weight decay λ, added to the gradient as λw.
    pub weight_decay: f64,
}

impl Default for SgdSettings {
    fn default() -> Self {
        Self { learning_rate: 1e-3, momentum: 0.0, dampening: 0.0, nesterov: false, weight_decay: 0.0 }
    }
}

/// Gradient descent over named parameters.
///
/// With g the gradient plus λw: b ← μb + (1 − δ)g (b ← g at first), w ← w − lr · b, or with Nesterov's look-ahead
/// w ← w − lr · (g + μb).
#[derive(Debug)]
pub struct Sgd {
    settings: SgdSettings,
    /// Directions.
    state: State<1>,
}

impl Sgd {
    /// Starts without a direction. Parameters keep the order given.
    pub fn new(parameters: impl IntoIterator<Item = Named>, settings: SgdSettings) -> Result<Self> {
        if settings.nesterov && (settings.momentum <= 0.0 || settings.dampening != 0.0) {
            let SgdSettings { momentum, dampening, .. } = settings;
            bail!("nesterov needs a momentum above 0 and no dampening, but they are {momentum} and {dampening}");
        }
        Ok(Self { settings, state: State::new(["momentum_buffer"], parameters)? })
    }

    /// The settings, with the current learning rate.
    pub fn settings(&self) -> &SgdSettings {
        &self.settings
    }
}

/// The constants of one step.
struct Update<'a> {
    settings: &'a SgdSettings,
    /// Weight of the gradient in the direction.
    fresh: f64,
}

impl Rule<1> for Update<'_> {
    #[inline(always)]
    fn apply<T: Element>(&self, w: &mut [T], [b]: [&mut [T]; 1], g: &[T]) {
        let SgdSettings { learning_rate, momentum, nesterov, weight_decay, .. } = *self.settings;
        let [rate, momentum, decay, fresh] = [learning_rate, momentum, weight_decay, self.fresh].map(T::from_f64);
        let (of_g, of_b) = if nesterov { (T::one(), momentum) } else { (T::zero(), T::one()) };
        for ((w, b), &g) in w.iter_mut().zip(b).zip(g) {
            let g = g + decay * *w;
            *b = momentum * *b + fresh * g;
            *w -= rate * (of_g * g + of_b * *b);
        }
    }
}

impl Optimizer for Sgd {
    fn step(&mut self, gradients: &GradStore) -> Result<()> {
        let first = self.state.next_step() == 1;
        let fresh = if first { 1.0 } else { 1.0 - self.settings.dampening };
        self.state.step(gradients, &Update { settings: &self.settings, fresh })
    }

    fn learning_rate(&self) -> f64 {
        self.settings.learning_rate
    }

    fn set_learning_rate(&mut self, learning_rate: f64) {
        self.settings.learning_rate = learning_rate;
    }

    fn state(&self) -> Result<Vec<(String, Tensor)>> {
        self.state.saved()
    }

    fn restore(&mut self, state: &[(String, Tensor)]) -> Result<()> {
        self.state.restore(state)
    }
}
