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
    /// Whether the step looks ahead along the direction; needs momentum.
    pub nesterov: bool,
    /// Weight decay λ, added to the gradient as λw.
    pub weight_decay: f64,
}

impl Default for SgdSettings {
    fn default() -> Self {
        Self { learning_rate: 1e-3, momentum: 0.0, nesterov: false, weight_decay: 0.0 }
    }
}

/// Gradient descent over named parameters.
///
/// With g the gradient plus λw: b ← μb + g (b ← g at first), w ← w − lr · b, or with Nesterov's look-ahead
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
        if settings.nesterov && settings.momentum <= 0.0 {
            bail!("nesterov needs a momentum above 0, but momentum is {}", settings.momentum);
        }
        Ok(Self { settings, state: State::new(["momentum_buffer"], parameters)? })
    }

    /// The settings, with the current learning rate.
    pub fn settings(&self) -> &SgdSettings {
        &self.settings
    }
}

impl Rule<1> for SgdSettings {
    #[inline(always)]
    fn apply<T: Element>(&self, w: &mut [T], [b]: [&mut [T]; 1], g: &[T]) {
        let [rate, momentum, decay] = [self.learning_rate, self.momentum, self.weight_decay].map(T::from_f64);
        let (of_g, of_b) = if self.nesterov { (T::one(), momentum) } else { (T::zero(), T::one()) };
        for ((w, b), &g) in w.iter_mut().zip(b).zip(g) {
            let g = g + decay * *w;
            *b = momentum * *b + g;
            *w -= rate * (of_g * g + of_b * *b);
        }
    }
}

impl Optimizer for Sgd {
    fn step(&mut self, gradients: &GradStore) -> Result<()> {
        self.state.step(gradients, &self.settings)
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
