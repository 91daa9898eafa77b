//! Adam (Kingma and Ba 2015, arXiv:1412.6980) and AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101).

use super::state::{from_tensor, step_in_place, to_tensor, zeros_like};
use super::{Named, Optimizer, find_like, find_steps};
use crate::ops::element::{Element, vectorised};
use candle_core::{CpuStorage, DType, Device, Result, Tensor, Var, backprop::GradStore};

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
    steps: u64,
    parameters: Vec<Moments>,
}

#[derive(Debug)]
struct Moments {
    name: String,
    parameter: Var,
    first: CpuStorage,
    second: CpuStorage,
}

impl Adam {
    /// Starts with zero moments. Parameters keep the order given.
    pub fn new(parameters: impl IntoIterator<Item = Named>, settings: AdamSettings) -> Result<Self> {
        let start = |(name, parameter): Named| {
            Ok(Moments { name, first: zeros_like(&parameter)?, second: zeros_like(&parameter)?, parameter })
        };
        let parameters = parameters.into_iter().map(start).collect::<Result<_>>()?;
        Ok(Self { settings, steps: 0, parameters })
    }

    /// The settings, with the current learning rate.
    pub fn settings(&self) -> &AdamSettings {
        &self.settings
    }
}

impl Optimizer for Adam {
    fn step(&mut self, gradients: &GradStore) -> Result<()> {
        self.steps += 1;
        let update = Update::new(&self.settings, self.steps);
        for moments in &mut self.parameters {
            if let Some(gradient) = gradients.get(&moments.parameter) {
                match moments.parameter.dtype() {
                    DType::F32 => update.apply::<f32>(moments, gradient)?,
                    _ => update.apply::<f64>(moments, gradient)?,
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
        for moments in &self.parameters {
            state.push((format!("exp_avg.{}", moments.name), to_tensor(&moments.first, &moments.parameter)?));
            state.push((format!("exp_avg_sq.{}", moments.name), to_tensor(&moments.second, &moments.parameter)?));
        }
        Ok(state)
    }

    fn restore(&mut self, state: &[(String, Tensor)]) -> Result<()> {
        let steps = find_steps(state)?;
        let mut restored = Vec::with_capacity(self.parameters.len());
        for Moments { name, parameter, .. } in &self.parameters {
            let first = from_tensor(find_like(state, &format!("exp_avg.{name}"), parameter)?)?;
            let second = from_tensor(find_like(state, &format!("exp_avg_sq.{name}"), parameter)?)?;
            restored.push(Moments { name: name.clone(), parameter: parameter.clone(), first, second });
        }
        self.steps = steps;
        self.parameters = restored;
        Ok(())
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

    fn apply<T: Element>(&self, moments: &mut Moments, gradient: &Tensor) -> Result<()> {
        let Moments { parameter, first, second, .. } = moments;
        step_in_place(parameter, gradient, [first, second], |w: &mut [T], [m, v]: [&mut [T]; 2], g: &[T]| {
            vectorised(
                #[inline(always)]
                || self.chunk(w, m, v, g),
            )
        })
    }

    #[inline(always)]
    fn chunk<T: Element>(&self, w: &mut [T], m: &mut [T], v: &mut [T], g: &[T]) {
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
