//! The algorithm: stochastic Frank–Wolfe with an averaged gradient over the unit spectral ball.

use super::Learner;
use super::objective::{self, Codes};
use clap::ValueEnum;
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Zip};
use offprint_core::{Error, Result};
use offprint_math::polar::Polar;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The two step sizes, as functions of the step number t = 1, 2, …
///
/// ρ_t = min(1, a (t+1)^(−1/2)) weighs the new gradient in the average and γ_t = min(1, c (t+2)^(−3/4)) moves D. These
/// exponents balance the tracking error of the averaged gradient (~ t^(−1/2)) against the drift of D, which gives the
/// mean gap O(ln t / t^(1/4)) of the paper. Floors keep both from vanishing, so that a changing dictionary is followed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// a, the factor of ρ_t; infinite for plain Frank–Wolfe without averaging (ρ_t = 1).
    pub averaging: f64,
    /// c, the factor of γ_t.
    pub step: f64,
    /// ρ_t never falls below this.
    pub averaging_floor: f64,
    /// γ_t never falls below this.
    pub step_floor: f64,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { averaging: 4.0, step: 2.0, averaging_floor: 0.0, step_floor: 0.0 }
    }
}

impl Schedule {
    /// Plain Frank–Wolfe: each step trusts its own batch alone.
    pub fn plain() -> Self {
        Self { averaging: f64::INFINITY, ..Self::default() }
    }

    /// ρ_t. The first gradient always counts in full: there is nothing to average it with.
    pub fn rho(&self, t: u64) -> f64 {
        if t <= 1 {
            return 1.0;
        }
        (self.averaging / (t as f64 + 1.0).sqrt()).max(self.averaging_floor).min(1.0)
    }

    /// γ_t.
    pub fn gamma(&self, t: u64) -> f64 {
        (self.step * (t as f64 + 2.0).powf(-0.75)).max(self.step_floor).min(1.0)
    }
}

/// Which minimiser S_t is where G_t has not full rank: the first samples, atoms not seen for long, or, without
/// averaging, every step of a small batch. All of them are equally good for the paper; they are not for the outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Completion {
    /// Whatever −U Vᵀ of the singular value decomposition gives, as the paper has it.
    #[default]
    Svd,
    /// The one nearest to D_t, which leaves alone what the samples say nothing of (an extension of ours).
    Nearest,
}

/// What is carried from one sample to the next: 2 N² numbers, whatever the length of the stream.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// D_t (N, N), within the spectral ball; columns are atoms.
    pub dictionary: Array2<f64>,
    /// G_{t−1} (N, N), the averaged gradient in units of `unit`³.
    pub gradient: Array2<f64>,
    /// Steps done.
    pub steps: u64,
    /// The power of two by which samples are divided before they are cubed; 0 until a sample is not all zero.
    ///
    /// The iterates do not depend on it. Without it samples of 10¹⁰⁰ would overflow.
    pub unit: f64,
}

/// The online learner.
#[derive(Debug, Clone)]
pub struct FrankWolfe {
    state: State,
    schedule: Schedule,
    completion: Completion,
    gap: f64,
    // Memory that the steps reuse.
    vertex: Array2<f64>,
    opposite: Array2<f64>,
    polar: Polar,
    codes: Codes,
    scaled: Array2<f64>,
}

impl FrankWolfe {
    /// A learner that starts from `dictionary` (N, N), usually [`random_orthogonal`](super::random_orthogonal).
    ///
    /// # Errors
    /// A start that is not square, is empty, is not finite or leaves the unit spectral ball.
    pub fn new(dictionary: Array2<f64>, schedule: Schedule) -> Result<Self> {
        let gradient = Array2::zeros(dictionary.dim());
        Self::resume(State { dictionary, gradient, steps: 0, unit: 0.0 }, schedule)
    }

    /// A learner that goes on from `state` exactly as the one that had it.
    ///
    /// # Errors
    /// A state whose shapes differ or whose dictionary is not within the unit spectral ball.
    pub fn resume(state: State, schedule: Schedule) -> Result<Self> {
        let n = state.dictionary.nrows();
        let bad = |problem: String| Err(Error::input("dictionary", problem));
        if n == 0 || state.dictionary.ncols() != n || state.gradient.dim() != (n, n) {
            let (d, g) = (state.dictionary.shape(), state.gradient.shape());
            return bad(format!("has shape {d:?} and its gradient {g:?}; both must be square, equal and not empty"));
        }
        if !state.dictionary.iter().chain(&state.gradient).all(|x| x.is_finite())
            || state.unit.is_nan()
            || state.unit < 0.0
        {
            return bad("has entries that are not finite".into());
        }
        let norm = offprint_math::linalg::svd(state.dictionary.view())?.1[0];
        if norm > 1.0 + 1e-9 {
            return bad(format!("has spectral norm {norm}; it must be at most 1"));
        }
        let zeros = || Array2::zeros((n, n));
        Ok(Self {
            state,
            schedule,
            completion: Completion::default(),
            gap: f64::NAN,
            vertex: zeros(),
            opposite: zeros(),
            polar: Polar::new(n),
            codes: Codes::default(),
            scaled: Array2::zeros((0, n)),
        })
    }

    /// The same learner with another choice among equally good steps.
    pub fn with_completion(mut self, completion: Completion) -> Self {
        self.completion = completion;
        self
    }

    /// What a checkpoint keeps.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// D_t (N, N) itself, not projected: its singular values approach 1 from below.
    pub fn iterate(&self) -> ArrayView2<'_, f64> {
        self.state.dictionary.view()
    }

    /// ⟨D_t − S_t, G_t⟩ of the last step: the Frank–Wolfe gap with the averaged gradient in place of the true one.
    /// NaN before the first step.
    pub fn running_gap(&self) -> f64 {
        self.gap
    }

    /// One step on `batch` (B, N). Samples that are all zero count as samples; a batch without any row does nothing.
    ///
    /// # Errors
    /// A row of another length than N or with a value that is not finite; the learner is then as before.
    pub fn step(&mut self, batch: ArrayView2<'_, f64>) -> Result<()> {
        check_batch(batch, self.state.dictionary.nrows())?;
        if batch.nrows() == 0 {
            return Ok(());
        }
        self.rescale(batch);
        let t = self.state.steps + 1;
        let (rho, gamma) = (self.schedule.rho(t), self.schedule.gamma(t));

        // 1. G_t = (1 − ρ_t) G_{t−1} + ρ_t ∇f(D_t; y_t), averaged over the batch.
        let weight = rho / batch.nrows() as f64;
        self.state.gradient *= 1.0 - rho;
        let (dictionary, gradient) = (self.state.dictionary.view(), self.state.gradient.view_mut());
        let scaled = self.scaled.slice(ndarray::s![..batch.nrows(), ..]);
        objective::accumulate_gradient(dictionary, scaled, weight, gradient, &mut self.codes);

        // 2. S_t = argmin_{‖S‖₂≤1} ⟨S, G_t⟩ = −Polar(G_t).
        if self.state.gradient.iter().all(|&g| g == 0.0) {
            // Nothing but zeros so far: every point of the ball is a minimiser, so D stays.
            self.gap = 0.0;
        } else {
            let (gradient, vertex) = (self.state.gradient.view(), self.vertex.view_mut());
            match self.completion {
                Completion::Svd => self.polar.factor(gradient, vertex)?,
                Completion::Nearest => {
                    Zip::from(&mut self.opposite).and(&self.state.dictionary).for_each(|o, &d| *o = -d);
                    self.polar.factor_near(gradient, self.opposite.view(), vertex)?;
                }
            }
            // 3. D_{t+1} = D_t + γ_t (S_t − D_t), and on the way ⟨D_t − S_t, G_t⟩.
            let (dictionary, gradient) = (self.state.dictionary.view_mut(), self.state.gradient.view());
            self.gap = move_towards(dictionary, self.vertex.view(), gradient, gamma) * self.state.unit.powi(3);
        }
        self.state.steps = t;
        Ok(())
    }

    /// Divides the batch by the unit, which the first sample that is not zero fixes.
    fn rescale(&mut self, batch: ArrayView2<'_, f64>) {
        if self.state.unit == 0.0 {
            let largest = batch.iter().fold(0.0f64, |m, x| m.max(x.abs()));
            if largest > 0.0 {
                // Powers of two divide without rounding.
                self.state.unit = largest.log2().floor().clamp(-1000.0, 1000.0).exp2();
            }
        }
        let shrink = if self.state.unit > 0.0 { 1.0 / self.state.unit } else { 1.0 };
        if self.scaled.nrows() < batch.nrows() {
            self.scaled = Array2::zeros(batch.dim());
        }
        let rows = self.scaled.slice_mut(ndarray::s![..batch.nrows(), ..]);
        Zip::from(rows).and(batch).for_each(|s, &y| *s = y * shrink);
    }
}

/// D ← D + γ (S − D) with S = −`polar`; gives ⟨D − S, G⟩ of the D before. One pass, no allocation.
fn move_towards(
    mut dictionary: ArrayViewMut2<'_, f64>,
    polar: ArrayView2<'_, f64>,
    gradient: ArrayView2<'_, f64>,
    gamma: f64,
) -> f64 {
    let mut gap = 0.0;
    Zip::from(&mut dictionary).and(polar).and(gradient).for_each(|d, &p, &g| {
        let away = *d + p;
        gap += away * g;
        *d -= gamma * away;
    });
    gap
}

/// Rows of N finite numbers.
pub(super) fn check_batch(batch: ArrayView2<'_, f64>, n: usize) -> Result<()> {
    if batch.ncols() != n {
        return Err(Error::input("samples", format!("have {} values each; the dictionary has N = {n}", batch.ncols())));
    }
    match batch.indexed_iter().find(|(_, x)| !x.is_finite()) {
        Some(((i, j), x)) => Err(Error::input(
            "samples",
            format!("row {i}, column {j} (counted from 0) is {x}; every value must be finite"),
        )),
        None => Ok(()),
    }
}

impl Learner for FrankWolfe {
    fn learn(&mut self, samples: ArrayView2<'_, f64>) -> Result<()> {
        self.step(samples)
    }

    fn dictionary(&mut self) -> Result<Array2<f64>> {
        self.polar.factor(self.state.dictionary.view(), self.vertex.view_mut())?;
        Ok(self.vertex.clone())
    }

    fn carried(&self) -> usize {
        self.state.dictionary.len() + self.state.gradient.len()
    }

    fn gap(&self) -> Option<f64> {
        Some(self.gap)
    }

    fn state(&self) -> Option<&State> {
        Some(&self.state)
    }
}
