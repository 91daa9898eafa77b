//! Limited-memory BFGS with the line search of Moré and Thuente.
//!
//! Minimises a function of which a value and a gradient can be had, keeping the last `memory` pairs of steps and
//! gradient changes (Nocedal 1980; Liu & Nocedal 1989). The line search satisfies the strong Wolfe conditions (Moré &
//! Thuente 1994, "Line search algorithms with guaranteed sufficient decrease"). One iteration costs one evaluation as a
//! rule and 4·memory·n flop; memory is (2·memory + 5)·n numbers, allocated once.
//!
//! Requirements: the function is differentiable where it is evaluated and bounded below along the search. Values that
//! are not finite count as +∞, so a function with a domain may simply answer `f64::INFINITY` outside.

use std::ops::ControlFlow;

/// Settings of the method.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lbfgs {
    /// Number of pairs kept.
    pub memory: usize,
    /// Most iterations.
    pub iterations: usize,
    /// Stops when the largest entry of the gradient is at most this.
    pub gradient_tolerance: f64,
    /// Stops when an iteration lowers the value by at most this much of max(|before|, |after|, 1); 0 turns it off.
    pub value_tolerance: f64,
}

impl Default for Lbfgs {
    fn default() -> Self {
        Self { memory: 10, iterations: 500, gradient_tolerance: 1e-9, value_tolerance: 0.0 }
    }
}

/// Where the method stands after an iteration.
#[derive(Debug, Clone, Copy)]
pub struct Iterate<'a> {
    /// Iterations done.
    pub iteration: usize,
    /// Evaluations done.
    pub evaluations: usize,
    /// The point.
    pub x: &'a [f64],
    /// The value there.
    pub value: f64,
    /// The gradient there.
    pub gradient: &'a [f64],
}

/// Why the method stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The gradient is small enough.
    Gradient,
    /// The value hardly changes any more.
    Value,
    /// The iterations are used up.
    Iterations,
    /// No lower value was found along the steepest descent: rounding, or a kink of a function that is not smooth.
    LineSearch,
    /// The observer asked for it.
    Observer,
    /// The value at the starting point is not finite.
    Start,
}

/// The point found.
#[derive(Debug, Clone)]
pub struct Minimum {
    /// The point of the lowest value seen at the end of an iteration.
    pub x: Vec<f64>,
    /// The value there.
    pub value: f64,
    /// The gradient there.
    pub gradient: Vec<f64>,
    /// Iterations done.
    pub iterations: usize,
    /// Evaluations done.
    pub evaluations: usize,
    /// Why it stopped.
    pub stop: Stop,
}

/// Sufficient decrease and curvature of the strong Wolfe conditions, as in L-BFGS-B.
const DECREASE: f64 = 1e-3;
const CURVATURE: f64 = 0.9;
/// Most evaluations in one line search.
const TRIALS: usize = 20;

impl Lbfgs {
    /// Minimises `objective`, which writes its gradient into the second argument and answers its value, from `start`.
    /// `observe` sees every iterate and may stop the method.
    pub fn minimise(
        &self,
        start: &[f64],
        mut objective: impl FnMut(&[f64], &mut [f64]) -> f64,
        mut observe: impl FnMut(Iterate<'_>) -> ControlFlow<()>,
    ) -> Minimum {
        let n = start.len();
        let mut x = start.to_vec();
        let mut gradient = vec![0.0; n];
        let mut value = objective(&x, &mut gradient);
        let (mut iterations, mut evaluations) = (0, 1);
        let mut pairs = Pairs::new(self.memory.max(1), n);
        let mut direction = vec![0.0; n];
        let mut trial = vec![0.0; n];
        let mut trial_gradient = vec![0.0; n];
        let finite = value.is_finite() && gradient.iter().all(|g| g.is_finite());

        let stop = loop {
            if !finite {
                break Stop::Start;
            }
            if largest(&gradient) <= self.gradient_tolerance {
                break Stop::Gradient;
            }
            if iterations == self.iterations {
                break Stop::Iterations;
            }
            pairs.direction(&gradient, &mut direction);
            let mut slope = dot(&gradient, &direction);
            if slope >= 0.0 || !slope.is_finite() {
                pairs.clear();
                pairs.direction(&gradient, &mut direction);
                slope = dot(&gradient, &direction);
            }
            // Without curvature yet, the first trial moves by one unit of length.
            let first = if pairs.len() == 0 { 1.0 / dot(&direction, &direction).sqrt() } else { 1.0 };

            let mut search = LineSearch::new(value, slope, first);
            let mut best: Option<(f64, f64)> = None;
            let mut accepted = None;
            for _ in 0..TRIALS {
                let step = search.step;
                for i in 0..n {
                    trial[i] = x[i] + step * direction[i];
                }
                let trial_value = objective(&trial, &mut trial_gradient);
                evaluations += 1;
                let trial_slope = dot(&trial_gradient, &direction);
                if trial_value < value + DECREASE * step * slope && best.is_none_or(|(_, v)| trial_value < v) {
                    best = Some((step, trial_value));
                }
                match search.update(trial_value, trial_slope) {
                    ControlFlow::Break(()) => {
                        accepted = Some(trial_value);
                        break;
                    }
                    ControlFlow::Continue(()) if search.is_exhausted() => break,
                    ControlFlow::Continue(()) => {}
                }
            }
            // A kink has no Wolfe point: a step that decreases enough is still a step.
            if accepted.is_none()
                && let Some((step, _)) = best
            {
                for i in 0..n {
                    trial[i] = x[i] + step * direction[i];
                }
                accepted = Some(objective(&trial, &mut trial_gradient));
                evaluations += 1;
            }
            let Some(next_value) = accepted else {
                if pairs.len() == 0 {
                    break Stop::LineSearch;
                }
                pairs.clear();
                continue;
            };
            pairs.push(&x, &trial, &gradient, &trial_gradient);
            std::mem::swap(&mut x, &mut trial);
            std::mem::swap(&mut gradient, &mut trial_gradient);
            let before = std::mem::replace(&mut value, next_value);
            iterations += 1;
            let iterate = Iterate { iteration: iterations, evaluations, x: &x, value, gradient: &gradient };
            if observe(iterate).is_break() {
                break Stop::Observer;
            }
            if self.value_tolerance > 0.0
                && before - value <= self.value_tolerance * before.abs().max(value.abs()).max(1.0)
            {
                break Stop::Value;
            }
        };
        Minimum { x, value, gradient, iterations, evaluations, stop }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    // Eight running sums, so that the compiler can use vector registers.
    let mut sums = [0.0; 8];
    let (a_blocks, a_rest) = a.as_chunks::<8>();
    let (b_blocks, b_rest) = b.as_chunks::<8>();
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for l in 0..8 {
            sums[l] += a[l] * b[l];
        }
    }
    sums.iter().sum::<f64>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f64>()
}

fn largest(v: &[f64]) -> f64 {
    v.iter().fold(0.0, |m, x| x.abs().max(m))
}

/// The last pairs (s, y) = (change of x, change of gradient), in a ring.
struct Pairs {
    s: Vec<Vec<f64>>,
    y: Vec<Vec<f64>>,
    /// 1 / ⟨s, y⟩ of each pair.
    rho: Vec<f64>,
    weights: Vec<f64>,
    newest: usize,
    count: usize,
}

impl Pairs {
    fn new(memory: usize, n: usize) -> Self {
        let ring = || vec![vec![0.0; n]; memory];
        Self { s: ring(), y: ring(), rho: vec![0.0; memory], weights: vec![0.0; memory], newest: 0, count: 0 }
    }

    fn len(&self) -> usize {
        self.count
    }

    fn clear(&mut self) {
        self.count = 0;
    }

    /// Index in the ring of the pair of `age` 0 (newest), 1 …
    fn place(&self, age: usize) -> usize {
        (self.newest + self.rho.len() - age) % self.rho.len()
    }

    fn push(&mut self, x: &[f64], next: &[f64], gradient: &[f64], next_gradient: &[f64]) {
        let slot = if self.count == 0 { self.newest } else { (self.newest + 1) % self.rho.len() };
        let (s, y) = (&mut self.s[slot], &mut self.y[slot]);
        for i in 0..x.len() {
            s[i] = next[i] - x[i];
            y[i] = next_gradient[i] - gradient[i];
        }
        let (curvature, square) = (dot(s, y), dot(y, y));
        // Only pairs of clearly positive curvature keep the implied matrix positive definite.
        if curvature > f64::EPSILON * square && curvature.is_finite() {
            self.rho[slot] = 1.0 / curvature;
            self.newest = slot;
            self.count = (self.count + 1).min(self.rho.len());
        }
    }

    /// −H g by the two-loop recursion, H scaled by ⟨s, y⟩ / ⟨y, y⟩ of the newest pair.
    fn direction(&mut self, gradient: &[f64], direction: &mut [f64]) {
        for (d, g) in direction.iter_mut().zip(gradient) {
            *d = -g;
        }
        for age in 0..self.count {
            let p = self.place(age);
            let weight = self.rho[p] * dot(&self.s[p], direction);
            self.weights[p] = weight;
            for (d, y) in direction.iter_mut().zip(&self.y[p]) {
                *d -= weight * y;
            }
        }
        if self.count > 0 {
            let p = self.place(0);
            let scale = 1.0 / (self.rho[p] * dot(&self.y[p], &self.y[p]));
            direction.iter_mut().for_each(|d| *d *= scale);
        }
        for age in (0..self.count).rev() {
            let p = self.place(age);
            let correction = self.weights[p] - self.rho[p] * dot(&self.y[p], direction);
            for (d, s) in direction.iter_mut().zip(&self.s[p]) {
                *d += correction * s;
            }
        }
    }
}

/// A trial point on the line: step, value and slope there.
#[derive(Clone, Copy)]
struct Trial {
    step: f64,
    value: f64,
    slope: f64,
}

/// The search of Moré and Thuente for a step that satisfies the strong Wolfe conditions.
struct LineSearch {
    /// The step to try next.
    step: f64,
    start: Trial,
    /// The end of the interval of uncertainty with the least value, and the other end.
    best: Trial,
    other: Trial,
    bracketed: bool,
    /// Whether the auxiliary function ψ of the first stage is still in use.
    first_stage: bool,
    width: f64,
    width_before: f64,
    low: f64,
    high: f64,
}

impl LineSearch {
    fn new(value: f64, slope: f64, step: f64) -> Self {
        let start = Trial { step: 0.0, value, slope };
        let width = 1e20;
        Self {
            step,
            start,
            best: start,
            other: start,
            bracketed: false,
            first_stage: true,
            width,
            width_before: 2.0 * width,
            low: 0.0,
            high: step + 4.0 * step,
        }
    }

    /// Whether rounding leaves no step between the ends.
    fn is_exhausted(&self) -> bool {
        self.bracketed && (self.high - self.low <= 1e-16 * self.high || self.step <= 0.0)
    }

    /// Takes the value and slope at `step`. Breaks when they satisfy the conditions; otherwise sets the next step.
    fn update(&mut self, value: f64, slope: f64) -> ControlFlow<()> {
        if !value.is_finite() || !slope.is_finite() {
            // Outside the domain: back towards the best point known.
            self.other = Trial { step: self.step, value: f64::INFINITY, slope: f64::INFINITY };
            self.bracketed = true;
            self.step = self.best.step + 0.1 * (self.step - self.best.step);
            (self.low, self.high) = (self.best.step.min(self.other.step), self.best.step.max(self.other.step));
            return ControlFlow::Continue(());
        }
        let decrease = DECREASE * self.start.slope;
        let allowed = self.start.value + self.step * decrease;
        if value <= allowed && slope.abs() <= -CURVATURE * self.start.slope {
            return ControlFlow::Break(());
        }
        // Where rounding hides the decrease, the slopes tell (the approximate Wolfe conditions of Hager & Zhang 2005).
        let rounding = 10.0 * f64::EPSILON * self.start.value.abs();
        let tame = slope >= CURVATURE * self.start.slope && slope <= (2.0 * DECREASE - 1.0) * self.start.slope;
        if value <= self.start.value + rounding && tame {
            return ControlFlow::Break(());
        }
        if self.first_stage && value <= allowed && slope >= 0.0 {
            self.first_stage = false;
        }
        let trial = Trial { step: self.step, value, slope };
        let other_finite = self.other.value.is_finite();
        if self.first_stage && value <= self.best.value && value > allowed && other_finite {
            // ψ(t) = f(t) − f(0) − μ t f′(0) has a minimiser where f may not have one yet.
            let tilt = |t: Trial| Trial { value: t.value - t.step * decrease, slope: t.slope - decrease, ..t };
            let untilt = |t: Trial| Trial { value: t.value + t.step * decrease, slope: t.slope + decrease, ..t };
            let (mut best, mut other) = (tilt(self.best), tilt(self.other));
            self.step = narrow(&mut best, &mut other, tilt(trial), &mut self.bracketed, self.low, self.high);
            (self.best, self.other) = (untilt(best), untilt(other));
        } else {
            self.step = narrow(&mut self.best, &mut self.other, trial, &mut self.bracketed, self.low, self.high);
        }
        if self.bracketed {
            let width = (self.other.step - self.best.step).abs();
            if width >= 0.66 * self.width_before {
                self.step = self.best.step + 0.5 * (self.other.step - self.best.step);
            }
            self.width_before = self.width;
            self.width = width;
            (self.low, self.high) = (self.best.step.min(self.other.step), self.best.step.max(self.other.step));
        } else {
            self.low = self.step + 1.1 * (self.step - self.best.step);
            self.high = self.step + 4.0 * (self.step - self.best.step);
        }
        ControlFlow::Continue(())
    }
}

/// Shrinks the interval between `best` and `other` by the point `trial`, and answers the next step: a safeguarded
/// minimiser of the cubic or quadratic through the values and slopes known (the four cases of Section 4).
fn narrow(best: &mut Trial, other: &mut Trial, trial: Trial, bracketed: &mut bool, low: f64, high: f64) -> f64 {
    let (x, t) = (*best, trial);
    let opposite = t.slope * x.slope.signum() < 0.0;
    // θ and Γ of the cubic through both points, scaled against overflow.
    let theta = 3.0 * (x.value - t.value) / (t.step - x.step) + x.slope + t.slope;
    let scale = theta.abs().max(x.slope.abs()).max(t.slope.abs());
    let root = |floor: bool| {
        let square = (theta / scale).powi(2) - (x.slope / scale) * (t.slope / scale);
        scale * if floor { square.max(0.0) } else { square }.sqrt()
    };
    let mut next = if t.value > x.value {
        // Case 1: a higher value brackets a minimum.
        *bracketed = true;
        let gamma = if t.step < x.step { -root(true) } else { root(true) };
        let ratio = ((gamma - x.slope) + theta) / (((gamma - x.slope) + gamma) + t.slope);
        let cubic = x.step + ratio * (t.step - x.step);
        let quadratic =
            x.step + ((x.slope / ((x.value - t.value) / (t.step - x.step) + x.slope)) / 2.0) * (t.step - x.step);
        if (cubic - x.step).abs() < (quadratic - x.step).abs() { cubic } else { cubic + (quadratic - cubic) / 2.0 }
    } else if opposite {
        // Case 2: a lower value and a slope of the other sign bracket a minimum.
        *bracketed = true;
        let gamma = if t.step > x.step { -root(true) } else { root(true) };
        let ratio = ((gamma - t.slope) + theta) / (((gamma - t.slope) + gamma) + x.slope);
        let cubic = t.step + ratio * (x.step - t.step);
        let secant = t.step + (t.slope / (t.slope - x.slope)) * (x.step - t.step);
        if (cubic - t.step).abs() > (secant - t.step).abs() { cubic } else { secant }
    } else if t.slope.abs() < x.slope.abs() {
        // Case 3: a lower value, the same sign, and a slope that shrinks.
        let gamma = if t.step > x.step { -root(true) } else { root(true) };
        let ratio = ((gamma - t.slope) + theta) / ((gamma + (x.slope - t.slope)) + gamma);
        let cubic = if ratio < 0.0 && gamma != 0.0 {
            t.step + ratio * (x.step - t.step)
        } else if t.step > x.step {
            high
        } else {
            low
        };
        let secant = t.step + (t.slope / (t.slope - x.slope)) * (x.step - t.step);
        if *bracketed {
            let step = if (cubic - t.step).abs() < (secant - t.step).abs() { cubic } else { secant };
            let limit = t.step + 0.66 * (other.step - t.step);
            if t.step > x.step { step.min(limit) } else { step.max(limit) }
        } else {
            let step = if (cubic - t.step).abs() > (secant - t.step).abs() { cubic } else { secant };
            step.clamp(low, high)
        }
    } else if *bracketed && other.value.is_finite() {
        // Case 4: the minimum lies between the trial and the other end.
        let theta = 3.0 * (t.value - other.value) / (other.step - t.step) + other.slope + t.slope;
        let scale = theta.abs().max(other.slope.abs()).max(t.slope.abs());
        let gamma = scale * ((theta / scale).powi(2) - (other.slope / scale) * (t.slope / scale)).max(0.0).sqrt();
        let gamma = if t.step > other.step { -gamma } else { gamma };
        let ratio = ((gamma - t.slope) + theta) / (((gamma - t.slope) + gamma) + other.slope);
        t.step + ratio * (other.step - t.step)
    } else if *bracketed {
        0.5 * (t.step + other.step)
    } else if t.step > x.step {
        high
    } else {
        low
    };
    if t.value > x.value {
        *other = t;
    } else {
        if opposite {
            *other = x;
        }
        *best = t;
    }
    if !next.is_finite() {
        next = 0.5 * (best.step + other.step);
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(_: Iterate<'_>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// Σ 100 (x_{i+1} − x_i²)² + (1 − x_i)²: minimum 0 at (1, …, 1).
    fn rosenbrock(x: &[f64], g: &mut [f64]) -> f64 {
        g.fill(0.0);
        let mut f = 0.0;
        for i in 0..x.len() - 1 {
            let (a, b) = (x[i + 1] - x[i] * x[i], 1.0 - x[i]);
            f += 100.0 * a * a + b * b;
            g[i] += -400.0 * x[i] * a - 2.0 * b;
            g[i + 1] += 200.0 * a;
        }
        f
    }

    #[test]
    fn reaches_rosenbrocks_minimum_in_about_as_many_iterations_as_scipy() {
        // scipy 1.17.1: minimize(rosen, [-1.2, 1] * 5, jac=rosen_der, method="L-BFGS-B", options={"maxcor": 10,
        // "ftol": 0, "gtol": 1e-9}) ends at (1, …, 1) after 79 iterations.
        let start: Vec<f64> = (0..10).map(|i| if i % 2 == 0 { -1.2 } else { 1.0 }).collect();
        let found = Lbfgs::default().minimise(&start, rosenbrock, watch);
        assert_eq!(found.stop, Stop::Gradient);
        assert!(found.x.iter().all(|x| (x - 1.0).abs() < 1e-8), "{:?}", found.x);
        assert!(found.iterations < 110, "{}", found.iterations);
    }

    #[test]
    fn solves_an_ill_conditioned_quadratic() {
        // f = Σ ½ h_i x_i² − x_i with h from 1 to 10⁴: x_i = 1 / h_i.
        let h: Vec<f64> = (0..40).map(|i| 10f64.powf(4.0 * f64::from(i) / 39.0)).collect();
        let objective = |x: &[f64], g: &mut [f64]| {
            for i in 0..x.len() {
                g[i] = h[i] * x[i] - 1.0;
            }
            x.iter().zip(&h).map(|(x, h)| 0.5 * h * x * x - x).sum()
        };
        let found = Lbfgs { iterations: 2000, ..Lbfgs::default() }.minimise(&[0.0; 40], objective, watch);
        assert_eq!(found.stop, Stop::Gradient);
        assert!(found.x.iter().zip(&h).all(|(x, h)| (x - 1.0 / h).abs() < 1e-8));
    }

    #[test]
    fn values_outside_the_domain_are_stepped_back_from() {
        // f(x) = x − ln x, defined for x > 0, minimum at 1. The first unit step from 0.5 along −f′ stays inside, later
        // ones may not; a start near the boundary has a steep slope.
        let objective = |x: &[f64], g: &mut [f64]| {
            g[0] = 1.0 - 1.0 / x[0];
            if x[0] > 0.0 { x[0] - x[0].ln() } else { f64::INFINITY }
        };
        for start in [1e-3, 0.5, 1.9, 50.0] {
            let found = Lbfgs::default().minimise(&[start], objective, watch);
            assert!((found.x[0] - 1.0).abs() < 1e-8, "from {start}: {:?}", found);
        }
        assert_eq!(Lbfgs::default().minimise(&[-1.0], objective, watch).stop, Stop::Start);
    }

    #[test]
    fn a_kink_ends_the_search_without_raising_the_value() {
        let objective = |x: &[f64], g: &mut [f64]| {
            g[0] = x[0].signum();
            g[1] = 2.0 * x[1];
            x[0].abs() + x[1] * x[1]
        };
        let mut last = f64::INFINITY;
        let found = Lbfgs::default().minimise(&[1.0, 3.0], objective, |it| {
            assert!(it.value <= last);
            last = it.value;
            ControlFlow::Continue(())
        });
        assert!(found.value < 1e-3, "{found:?}");
    }

    #[test]
    fn stops_when_told_and_at_zero_dimensions() {
        let found = Lbfgs::default().minimise(&[-1.2, 1.0], rosenbrock, |it| {
            if it.iteration == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!((found.iterations, found.stop), (3, Stop::Observer));
        assert_eq!(Lbfgs::default().minimise(&[], |_, _| 0.0, watch).stop, Stop::Gradient);
    }
}
