//! Adam: gradient descent with steps scaled by running moments of the gradient.
//!
//! D. P. Kingma, J. Ba, *Adam: A Method for Stochastic Optimization*, ICLR 2015 (arXiv 1412.6980), algorithm 1, with the
//! bias correction and the constants of PyTorch's `torch.optim.Adam`, step for step.
//!
//! ```
//! use offprint_math::adam::Adam;
//!
//! let mut x = [3.0, -2.0];
//! let mut adam = Adam::new(0.1, 2);
//! for _ in 0..500 {
//!     let gradient = [2.0 * x[0], 2.0 * x[1]];
//!     adam.step(&mut x, &gradient);
//! }
//! assert!(x.iter().all(|x| x.abs() < 1e-2));
//! ```

/// The state of Adam for a fixed number of parameters. The public constants may be changed between steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Adam {
    /// The step size α.
    pub learning_rate: f64,
    /// Decay β₁ of the gradient's mean; 0.9 at first.
    pub beta1: f64,
    /// Decay β₂ of the squared gradient's mean; 0.999 at first.
    pub beta2: f64,
    /// Added to the root in the denominator; 10⁻⁸ at first.
    pub epsilon: f64,
    steps: i32,
    first: Vec<f64>,
    second: Vec<f64>,
}

impl Adam {
    /// Adam for `parameters` numbers, with the constants of the paper.
    pub fn new(learning_rate: f64, parameters: usize) -> Self {
        Self {
            learning_rate,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            steps: 0,
            first: vec![0.0; parameters],
            second: vec![0.0; parameters],
        }
    }

    /// Steps done so far.
    pub fn steps(&self) -> u64 {
        self.steps as u64
    }

    /// Moves `parameters` one step against `gradient`.
    ///
    /// # Panics
    /// If a length is not that given to [`Adam::new`].
    pub fn step(&mut self, parameters: &mut [f64], gradient: &[f64]) {
        assert_eq!(
            (parameters.len(), gradient.len()),
            (self.first.len(), self.first.len()),
            "lengths of Adam's slices"
        );
        self.steps = self.steps.saturating_add(1);
        let (beta1, beta2, epsilon) = (self.beta1, self.beta2, self.epsilon);
        // m̂ = m / (1 − β₁ᵗ), v̂ = v / (1 − β₂ᵗ)
        let rate = self.learning_rate / (1.0 - beta1.powi(self.steps));
        let correction = 1.0 / (1.0 - beta2.powi(self.steps)).sqrt();
        let moments = self.first.iter_mut().zip(&mut self.second);
        for ((x, &g), (m, v)) in parameters.iter_mut().zip(gradient).zip(moments) {
            *m += (1.0 - beta1) * (g - *m);
            *v = beta2 * *v + (1.0 - beta2) * g * g;
            *x -= rate * *m / (v.sqrt() * correction + epsilon);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_steps_are_those_of_pytorch() {
        // torch 2.15: p = tensor([1., -2.], dtype=float64), Adam([p], lr=.1), loss = p[0]**4 + 3*p[1]**2, three steps.
        let mut x = [1.0f64, -2.0];
        let mut adam = Adam::new(0.1, 2);
        for expected in [
            [0.9000000002499999, -1.9000000000833333],
            [0.8020136496049904, -1.8001664857787731],
            [0.7075128156390624, -1.7006233915360325],
        ] {
            let gradient = [4.0 * x[0].powi(3), 6.0 * x[1]];
            adam.step(&mut x, &gradient);
            assert!(x.iter().zip(expected).all(|(x, e)| (x - e).abs() < 1e-14), "{x:?}");
        }
        assert_eq!(adam.steps(), 3);
    }

    #[test]
    fn the_first_step_has_the_length_of_the_rate_whatever_the_gradients_scale() {
        for scale in [1e-3, 1.0, 1e6] {
            let mut x = [0.0];
            Adam::new(0.01, 1).step(&mut x, &[-scale]);
            assert!((x[0] - 0.01).abs() < 1e-6, "{x:?}");
        }
    }
}
