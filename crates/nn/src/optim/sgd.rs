//! Stochastic gradient descent with momentum (Sutskever et al. 2013) in PyTorch's form.

use super::state::{from_tensor, step_in_place, to_tensor, zeros_like};
use super::{Named, Optimizer, find_like, find_steps};
use crate::ops::element::{Element, vectorised};
use candle_core::{CpuStorage, DType, Device, Result, Tensor, Var, backprop::GradStore, bail};

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
    steps: u64,
    parameters: Vec<Direction>,
}

#[derive(Debug)]
struct Direction {
    name: String,
    parameter: Var,
    buffer: CpuStorage,
}

impl Sgd {
    /// Starts without a direction. Parameters keep the order given.
    pub fn new(parameters: impl IntoIterator<Item = Named>, settings: SgdSettings) -> Result<Self> {
        if settings.nesterov && settings.momentum <= 0.0 {
            bail!("nesterov needs a momentum above 0, but momentum is {}", settings.momentum);
        }
        let start = |(name, parameter): Named| Ok(Direction { name, buffer: zeros_like(&parameter)?, parameter });
        let parameters = parameters.into_iter().map(start).collect::<Result<_>>()?;
        Ok(Self { settings, steps: 0, parameters })
    }

    /// The settings, with the current learning rate.
    pub fn settings(&self) -> &SgdSettings {
        &self.settings
    }
}

impl SgdSettings {
    fn apply<T: Element>(&self, direction: &mut Direction, gradient: &Tensor) -> Result<()> {
        let [rate, momentum, decay] = [self.learning_rate, self.momentum, self.weight_decay].map(T::from_f64);
        let (of_g, of_b) = if self.nesterov { (T::one(), momentum) } else { (T::zero(), T::one()) };
        let Direction { parameter, buffer, .. } = direction;
        step_in_place(parameter, gradient, [buffer], |w: &mut [T], [b]: [&mut [T]; 1], g: &[T]| {
            vectorised(
                #[inline(always)]
                || {
                    for ((w, b), &g) in w.iter_mut().zip(b).zip(g) {
                        let g = g + decay * *w;
                        *b = momentum * *b + g;
                        *w -= rate * (of_g * g + of_b * *b);
                    }
                },
            )
        })
    }
}

impl Optimizer for Sgd {
    fn step(&mut self, gradients: &GradStore) -> Result<()> {
        self.steps += 1;
        for direction in &mut self.parameters {
            if let Some(gradient) = gradients.get(&direction.parameter) {
                match direction.parameter.dtype() {
                    DType::F32 => self.settings.apply::<f32>(direction, gradient)?,
                    _ => self.settings.apply::<f64>(direction, gradient)?,
                }
            }
        }
        Ok(())
    }

    fn learning_rate(&self) -> f64 {
        self.settings.learning_rate
    }

    fn set_learning_rate(&mut self, learning_rate: f64) {
        self.settings.learning_rate = learning_rate;
    }

    fn state(&self) -> Result<Vec<(String, Tensor)>> {
        let mut state = vec![("step".to_owned(), Tensor::new(self.steps as i64, &Device::Cpu)?)];
        for direction in &self.parameters {
            let buffer = to_tensor(&direction.buffer, &direction.parameter)?;
            state.push((format!("momentum_buffer.{}", direction.name), buffer));
        }
        Ok(state)
    }

    fn restore(&mut self, state: &[(String, Tensor)]) -> Result<()> {
        let steps = find_steps(state)?;
        let mut restored = Vec::with_capacity(self.parameters.len());
        for Direction { name, parameter, .. } in &self.parameters {
            let buffer = from_tensor(find_like(state, &format!("momentum_buffer.{name}"), parameter)?)?;
            restored.push(Direction { name: name.clone(), parameter: parameter.clone(), buffer });
        }
        self.steps = steps;
        self.parameters = restored;
        Ok(())
    }
}
