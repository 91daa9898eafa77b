//! The fields of a bridge between Gaussian mixtures, in closed form.

use super::{Fields, Interpolant, Joint};
use crate::{Coefficients, check};
use ndarray::{Array1, Array2, ArrayView2, Axis, s};
use offprint_core::{Error, Result};
use offprint_math::{linalg, vector};
use rayon::prelude::*;
use std::f64::consts::PI;

/// Velocity, score, density and divergences of the bridge of a [`Joint`] law.
///
/// Component k of x_t has the mean m = a m₀ + b m₁ and the covariance C = a²C₀ + ab(K + Kᵀ) + b²C₁ + γ²I, and ẋ_t is
/// jointly Gaussian with it, Cov(ẋ, x) = aa'C₀ + a'b K + ab' Kᵀ + bb'C₁ + γγ'I, where K = Cov(x₀, x₁). So with
/// responsibilities r_k
///
/// ```text
/// b = Σ r_k u_k,   u_k = m' + Cov(ẋ, x) C⁻¹ (x − m),        s = Σ r_k g_k,   g_k = −C⁻¹ (x − m)
/// div b = Σ r_k [tr Cov(ẋ, x) C⁻¹ + u_k · (g_k − s)],       div s = Σ r_k [−tr C⁻¹ + g_k · (g_k − s)]
/// ```
///
/// All that depends on t alone is made once a call: O(K d³); a point costs O(K d²).
#[derive(Debug, Clone)]
pub struct ExactFields {
    path: Interpolant,
    joint: Joint,
}

/// Share of the variance of the ends below which x_t counts as a single point: rounding of the coefficients alone.
const POINT: f64 = 1e-28;

/// The law of x_t and ẋ_t at one time.
struct Level {
    components: Vec<Component>,
    d: usize,
}

struct Component {
    /// log w − ½ log det 2πC.
    offset: f64,
    /// m (d).
    mean: Vec<f64>,
    /// m' (d).
    rate: Vec<f64>,
    /// C⁻¹ (d, d), row by row.
    precision: Vec<f64>,
    /// Cov(ẋ, x) (d, d), row by row.
    motion: Vec<f64>,
    /// tr Cov(ẋ, x) C⁻¹.
    expansion: f64,
    /// tr C⁻¹.
    stiffness: f64,
}

/// Scratch memory of one thread.
struct Work {
    /// Log-weights, then responsibilities (K).
    weights: Vec<f64>,
    /// x − m (d).
    apart: Vec<f64>,
    /// C⁻¹(x − m) of every component (K · d).
    pulls: Vec<f64>,
    /// u of one component (d).
    motion: Vec<f64>,
}

/// One point's numbers.
struct Answer {
    log_density: f64,
    velocity_divergence: f64,
    score_divergence: f64,
}

/// Everything at n points.
struct Answers {
    velocity: Array2<f64>,
    score: Array2<f64>,
    log_density: Array1<f64>,
    velocity_divergence: Array1<f64>,
    score_divergence: Array1<f64>,
}

impl ExactFields {
    /// Of `joint` along `path`.
    ///
    /// # Errors
    /// A one-sided path whose x₀ is not standard normal.
    pub fn new(path: Interpolant, joint: Joint) -> Result<Self> {
        if path.is_one_sided() {
            let start = joint.starts();
            let standard = start.means().iter().all(|m| *m == 0.0)
                && (0..start.weights().len()).all(|k| start.covariance(k) == Array2::<f64>::eye(joint.dim()));
            if !standard {
                return Err(Error::parameter("x0", "another law", format!("standard normal on path {}", path.name())));
            }
        }
        Ok(Self { path, joint })
    }

    /// The coupling.
    pub fn joint(&self) -> &Joint {
        &self.joint
    }

    /// log ρ(t, x) (n) at the points `x` (n, d).
    pub fn log_density(&self, x: ArrayView2<'_, f64>, t: f64) -> Result<Array1<f64>> {
        Ok(self.answers(x, t, false)?.log_density)
    }

    fn no_spread(&self, t: f64) -> Error {
        Error::parameter("t", t, format!("where path {} has some spread", self.path.name()))
    }

    fn level(&self, t: f64) -> Result<Level> {
        let at = self.path.at(t)?;
        let d = self.joint.dim();
        let pairs = self.joint.pairs();
        let components = (0..pairs.weights().len())
            .map(|k| {
                let mean = pairs.means().row(k).to_owned();
                let covariance = pairs.covariance(k);
                let law = Moments::new(&at, mean.view().insert_axis(Axis(0)), covariance.view(), d);
                let largest = |m: &Array2<f64>| m.diag().iter().fold(0.0f64, |m, v| m.max(*v));
                if largest(&law.covariance) <= POINT * largest(&covariance) {
                    return Err(self.no_spread(t));
                }
                Component::new(law, pairs.weights()[k]).map_err(|_| self.no_spread(t))
            })
            .collect::<Result<_>>()?;
        Ok(Level { components, d })
    }

    fn answers(&self, x: ArrayView2<'_, f64>, t: f64, divergences: bool) -> Result<Answers> {
        check::dimension("points", x, "the mixture", self.joint.dim())?;
        let level = self.level(t)?;
        let (n, d) = x.dim();
        let mut all = Answers {
            velocity: Array2::zeros((n, d)),
            score: Array2::zeros((n, d)),
            log_density: Array1::zeros(n),
            velocity_divergence: Array1::zeros(n),
            score_divergence: Array1::zeros(n),
        };
        // Rows of one task: enough work to be worth a thread.
        let least = 16_384usize.div_ceil(level.components.len() * d * d);
        let x = x.as_standard_layout();
        (
            all.velocity.axis_iter_mut(Axis(0)),
            all.score.axis_iter_mut(Axis(0)),
            x.axis_iter(Axis(0)),
            all.log_density.as_slice_mut().expect("a new vector is contiguous"),
            all.velocity_divergence.as_slice_mut().expect("a new vector is contiguous"),
            all.score_divergence.as_slice_mut().expect("a new vector is contiguous"),
        )
            .into_par_iter()
            .with_min_len(least)
            .for_each_init(
                || Work::new(&level),
                |work, (mut velocity, mut score, x, log_density, velocity_divergence, score_divergence)| {
                    let velocity = velocity.as_slice_mut().expect("own rows are contiguous");
                    let score = score.as_slice_mut().expect("own rows are contiguous");
                    let x = x.to_slice().expect("rows in standard layout are contiguous");
                    let answer = level.answer(x, work, velocity, score, divergences);
                    *log_density = answer.log_density;
                    *velocity_divergence = answer.velocity_divergence;
                    *score_divergence = answer.score_divergence;
                },
            );
        Ok(all)
    }
}

/// Mean and covariance of one component's x_t, with the rate of the mean and Cov(ẋ, x).
struct Moments {
    mean: Vec<f64>,
    rate: Vec<f64>,
    covariance: Array2<f64>,
    motion: Array2<f64>,
}

impl Moments {
    /// From the mean (1, 2d) and covariance (2d, 2d) of a component's pairs.
    fn new(at: &Coefficients, mean: ArrayView2<'_, f64>, pairs: ArrayView2<'_, f64>, d: usize) -> Self {
        let Coefficients { a, b, gamma, a_rate, b_rate, gamma_product } = *at;
        let (mean0, mean1) = (mean.slice(s![0, ..d]), mean.slice(s![0, d..]));
        let sum = |p: f64, q: f64| mean0.iter().zip(mean1).map(|(m0, m1)| p * m0 + q * m1).collect();
        let block = |f00: f64, f01: f64, f10: f64, f11: f64, diagonal: f64| {
            let mut out = &pairs.slice(s![..d, ..d]) * f00;
            out.scaled_add(f01, &pairs.slice(s![..d, d..]));
            out.scaled_add(f10, &pairs.slice(s![d.., ..d]));
            out.scaled_add(f11, &pairs.slice(s![d.., d..]));
            out.diag_mut().mapv_inplace(|v| v + diagonal);
            out
        };
        Self {
            mean: sum(a, b),
            rate: sum(a_rate, b_rate),
            covariance: block(a * a, a * b, a * b, b * b, gamma * gamma),
            motion: block(a * a_rate, a_rate * b, b_rate * a, b * b_rate, gamma_product),
        }
    }
}

impl Component {
    fn new(law: Moments, weight: f64) -> Result<Self> {
        let root = linalg::cholesky(law.covariance.view())?;
        let log_det: f64 = 2.0 * root.diag().iter().map(|l| l.ln()).sum::<f64>();
        if !log_det.is_finite() {
            return Err(Error::Numerical("a covariance without spread".into()));
        }
        let d = law.mean.len();
        let precision = linalg::inverse(law.covariance.view())?;
        let expansion = (&law.motion * &precision.t()).sum();
        Ok(Self {
            offset: weight.ln() - 0.5 * (log_det + d as f64 * (2.0 * PI).ln()),
            mean: law.mean,
            rate: law.rate,
            expansion,
            stiffness: precision.diag().sum(),
            precision: precision.iter().copied().collect(),
            motion: law.motion.iter().copied().collect(),
        })
    }
}

impl Level {
    /// Velocity and score at one point, into the slices; the rest is returned.
    fn answer(
        &self,
        x: &[f64],
        work: &mut Work,
        velocity: &mut [f64],
        score: &mut [f64],
        divergences: bool,
    ) -> Answer {
        let d = self.d;
        for ((component, weight), pull) in
            self.components.iter().zip(&mut work.weights).zip(work.pulls.chunks_exact_mut(d))
        {
            work.apart.iter_mut().zip(x).zip(&component.mean).for_each(|((a, x), m)| *a = x - m);
            multiply(&component.precision, &work.apart, pull);
            *weight = component.offset - 0.5 * dot(&work.apart, pull);
        }
        let log_density = vector::log_sum_exp(&work.weights);
        vector::softmax(&mut work.weights);
        velocity.fill(0.0);
        score.fill(0.0);
        let (mut velocity_divergence, mut score_divergence) = (0.0, 0.0);
        for ((component, &r), pull) in self.components.iter().zip(&work.weights).zip(work.pulls.chunks_exact(d)) {
            // Components without weight are skipped: most of them, far from the middle.
            if r < 1e-300 {
                continue;
            }
            multiply(&component.motion, pull, &mut work.motion);
            work.motion.iter_mut().zip(&component.rate).for_each(|(u, m)| *u += m);
            velocity.iter_mut().zip(&work.motion).for_each(|(b, u)| *b += r * u);
            score.iter_mut().zip(pull).for_each(|(s, p)| *s -= r * p);
            if divergences {
                velocity_divergence += r * (component.expansion - dot(&work.motion, pull));
                score_divergence += r * (dot(pull, pull) - component.stiffness);
            }
        }
        if divergences {
            // Σ r u·(g − s) = Σ r u·g − b·s.
            velocity_divergence -= dot(velocity, score);
            score_divergence -= dot(score, score);
        }
        Answer { log_density, velocity_divergence, score_divergence }
    }
}

fn multiply(matrix: &[f64], x: &[f64], out: &mut [f64]) {
    for (out, row) in out.iter_mut().zip(matrix.chunks_exact(x.len())) {
        *out = dot(row, x);
    }
}

fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

impl Work {
    fn new(level: &Level) -> Self {
        let (k, d) = (level.components.len(), level.d);
        Self { weights: vec![0.0; k], apart: vec![0.0; d], pulls: vec![0.0; k * d], motion: vec![0.0; d] }
    }
}

impl Fields for ExactFields {
    fn dim(&self) -> usize {
        self.joint.dim()
    }

    fn path(&self) -> &Interpolant {
        &self.path
    }

    fn both(&self, x: ArrayView2<'_, f64>, t: f64) -> Result<(Array2<f64>, Array2<f64>)> {
        let Answers { velocity, score, .. } = self.answers(x, t, false)?;
        Ok((velocity, score))
    }

    fn divergences(&self, x: ArrayView2<'_, f64>, t: f64) -> Result<Option<(Array1<f64>, Array1<f64>)>> {
        let Answers { velocity_divergence, score_divergence, .. } = self.answers(x, t, true)?;
        Ok(Some((velocity_divergence, score_divergence)))
    }
}
