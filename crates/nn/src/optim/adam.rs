//! Adam (Kingma and Ba 2015, arXiv:1412.6980) and AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101).

use super::state::{Rule, State};
use super::{Named, Optimizer};
use crate::ops::element::Element;
use candle_core::{Result, Tensor, backprop::GradStore};

/// What sets an Adam apart from another. The defaults are PyTorch's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamSettings {
    /// Step length.
    pub learning_rate: f64,
    /// Decay of the running means of the gradient and of its square.
    pub betas: (f64, f64),
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Weight decay λ.
    pub weight_decay: f64,
    /// Whether λ shrinks the weights by themselves (AdamW) or is added to the gradient as λw (Adam with an L² penalty).
    pub decoupled: bool,
}

impl Default for AdamSettings {
    fn default() -> Self {
        Self { learning_rate: 1e-3, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0, decoupled: false }
    }
}

impl AdamSettings {
    /// AdamW with PyTorch's default weight decay, 0.01.
    pub fn adamw() -> Self {
        Self { weight_decay: 0.01, decoupled: true, ..Self::default() }
    }
}

/// Adam or AdamW over named parameters.
///
/// With g the gradient and t the number of the step: m ← β₁m + (1−β₁)g, v ← β₂v + (1−β₂)g²,
/// w ← w − lr · m / (1−β₁ᵗ) / (√(v / (1−β₂ᵗ)) + eps).
#[derive(Debug)]
pub struct Adam {
    settings: AdamSettings,
    /// First and second moments.
    state: State<2>,
}

impl Adam {
    /// Starts with zero moments. Parameters keep the order given.
    pub fn new(parameters: impl IntoIterator<Item = Named>, settings: AdamSettings) -> Result<Self> {
        Ok(Self { settings, state: State::new(["exp_avg", "exp_avg_sq"], parameters)? })
    }

    /// The settings, with the current learning rate.
    pub fn settings(&self) -> &AdamSettings {
        &self.settings
    }
}

impl Optimizer for Adam {
    fn step(&mut self, gradients: &GradStore) -> Result<()> {
        let update = Update::new(&self.settings, self.state.next_step());
        self.state.step(gradients, &update)
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

/// The constants of one step.
struct Update {
    /// lr / (1 − β₁ᵗ)
    rate: f64,
    /// 1 / √(1 − β₂ᵗ)
    correction: f64,
    betas: (f64, f64),
    eps: f64,
    /// Factor on the weights before the step.
    shrink: f64,
    /// Factor of the weights in the gradient.
    penalty: f64,
}

impl Update {
    fn new(settings: &AdamSettings, steps: u64) -> Self {
        let AdamSettings { learning_rate, betas, eps, weight_decay, decoupled } = *settings;
        let t = steps as f64;
        Self {
            rate: learning_rate / (1.0 - betas.0.powf(t)),
            correction: 1.0 / (1.0 - betas.1.powf(t)).sqrt(),
            betas,
            eps,
            shrink: if decoupled { 1.0 - learning_rate * weight_decay } else { 1.0 },
            penalty: if decoupled { 0.0 } else { weight_decay },
        }
    }
}

impl Rule<2> for Update {
    #[inline(always)]
    fn apply<T: Element>(&self, w: &mut [T], [m, v]: [&mut [T]; 2], g: &[T]) {
        let [rate, correction, eps, shrink, penalty] =
            [self.rate, self.correction, self.eps, self.shrink, self.penalty].map(T::from_f64);
        let (beta1, beta2) = (T::from_f64(self.betas.0), T::from_f64(self.betas.1));
        let (new1, new2) = (T::from_f64(1.0 - self.betas.0), T::from_f64(1.0 - self.betas.1));
        for (((w, m), v), &g) in w.iter_mut().zip(m).zip(v).zip(g) {
            let g = g + penalty * *w;
            *m = beta1 * *m + new1 * g;
            *v = beta2 * *v + new2 * g * g;
            *w = shrink * *w - rate * *m / (v.sqrt() * correction + eps);
        }
    }
}
