//! The fields of a bridge between Gaussian mixtures, in closed form.

use super::{Fields, Interpolant, Joint};
use crate::{Coefficients, check};
use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2, Axis, s};
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

/// Points that are answered at a time: loops run over them, so that they vectorise in any dimension.
const BLOCK: usize = 128;

/// Scratch memory of one thread, for blocks of n points. Coordinates stand one after the other, n numbers each.
struct Work {
    /// Log-weights, then responsibilities (K, n).
    weights: Vec<f64>,
    /// C⁻¹(x − m) of every component (K, d, n).
    pulls: Vec<f64>,
    /// The points (d, n).
    points: Vec<f64>,
    /// x − m of one component, then its u (d, n).
    motion: Vec<f64>,
    /// Largest log-weight of each point, and the sum of all relative to it (n each).
    top: Vec<f64>,
    total: Vec<f64>,
    /// b and s (d, n each).
    velocity: Vec<f64>,
    score: Vec<f64>,
}

/// Where the answers for a block of points go.
struct Rows<'a> {
    velocity: ArrayViewMut2<'a, f64>,
    score: ArrayViewMut2<'a, f64>,
    log_density: &'a mut [f64],
    velocity_divergence: &'a mut [f64],
    score_divergence: &'a mut [f64],
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
        // Blocks of one task: enough work to be worth a thread.
        let least = 16_384usize.div_ceil(BLOCK * level.components.len() * d * d);
        let contiguous = "a new vector is contiguous";
        (
            all.velocity.axis_chunks_iter_mut(Axis(0), BLOCK),
            all.score.axis_chunks_iter_mut(Axis(0), BLOCK),
            x.axis_chunks_iter(Axis(0), BLOCK),
            all.log_density.as_slice_mut().expect(contiguous).par_chunks_mut(BLOCK),
            all.velocity_divergence.as_slice_mut().expect(contiguous).par_chunks_mut(BLOCK),
            all.score_divergence.as_slice_mut().expect(contiguous).par_chunks_mut(BLOCK),
        )
            .into_par_iter()
            .with_min_len(least)
            .for_each_init(
                || Work::new(&level),
                |work, (velocity, score, x, log_density, velocity_divergence, score_divergence)| {
                    let rows = Rows { velocity, score, log_density, velocity_divergence, score_divergence };
                    level.answer(x, work, rows, divergences);
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
    /// The answers at a block of points (n, d).
    fn answer(&self, x: ArrayView2<'_, f64>, work: &mut Work, mut rows: Rows<'_>, divergences: bool) {
        let (n, d) = x.dim();
        for (i, row) in x.outer_iter().enumerate() {
            row.iter().enumerate().for_each(|(j, x)| work.points[j * n + i] = *x);
        }
        self.responsibilities(n, work);
        for ((log, top), total) in rows.log_density.iter_mut().zip(&work.top).zip(&work.total) {
            *log = top + total.ln();
        }
        let (velocity, score) = (&mut work.velocity[..d * n], &mut work.score[..d * n]);
        velocity.fill(0.0);
        score.fill(0.0);
        let motion = &mut work.motion[..d * n];
        let members = work.weights.chunks_exact(n).zip(work.pulls.chunks_exact(d * n));
        for (component, (r, pulls)) in self.components.iter().zip(members) {
            multiply(&component.motion, pulls, motion, n);
            for (u, rate) in motion.chunks_exact_mut(n).zip(&component.rate) {
                u.iter_mut().for_each(|u| *u += rate);
            }
            add_products(velocity, 1.0, r, motion);
            add_products(score, -1.0, r, pulls);
            if divergences {
                rows.add_divergences(component, r, motion, pulls);
            }
        }
        if divergences {
            rows.finish_divergences(velocity, score);
        }
        for (i, (mut b, mut s)) in rows.velocity.outer_iter_mut().zip(rows.score.outer_iter_mut()).enumerate() {
            b.iter_mut().enumerate().for_each(|(j, b)| *b = velocity[j * n + i]);
            s.iter_mut().enumerate().for_each(|(j, s)| *s = score[j * n + i]);
        }
    }

    /// Responsibilities of the components for the n points of `work`, with their pulls.
    fn responsibilities(&self, n: usize, work: &mut Work) {
        let d = self.d;
        let count = self.components.len();
        work.weights.resize(count * n, 0.0);
        work.pulls.resize(count * d * n, 0.0);
        let (apart, top, total) = (&mut work.motion[..d * n], &mut work.top[..n], &mut work.total[..n]);
        top.fill(f64::NEG_INFINITY);
        total.fill(0.0);
        let members = work.weights.chunks_exact_mut(n).zip(work.pulls.chunks_exact_mut(d * n));
        for (component, (logs, pulls)) in self.components.iter().zip(members) {
            for ((apart, x), m) in apart.chunks_exact_mut(n).zip(work.points.chunks_exact(n)).zip(&component.mean) {
                apart.iter_mut().zip(x).for_each(|(a, x)| *a = x - m);
            }
            multiply(&component.precision, apart, pulls, n);
            logs.fill(component.offset);
            for (apart, pull) in apart.chunks_exact(n).zip(pulls.chunks_exact(n)) {
                logs.iter_mut().zip(apart).zip(pull).for_each(|((l, a), p)| *l -= 0.5 * a * p);
            }
            top.iter_mut().zip(&*logs).for_each(|(t, l)| *t = t.max(*l));
        }
        for logs in work.weights.chunks_exact_mut(n) {
            logs.iter_mut().zip(&*top).for_each(|(l, t)| *l -= t);
        }
        vector::exp(&mut work.weights);
        for weights in work.weights.chunks_exact(n) {
            total.iter_mut().zip(weights).for_each(|(t, w)| *t += w);
        }
        for weights in work.weights.chunks_exact_mut(n) {
            weights.iter_mut().zip(&*total).for_each(|(w, t)| *w /= t);
        }
    }
}

impl Rows<'_> {
    /// What one component gives, with responsibilities `r` (n), u as `motion` and C⁻¹(x − m) as `pulls` (d, n).
    fn add_divergences(&mut self, component: &Component, r: &[f64], motion: &[f64], pulls: &[f64]) {
        let slots = self.velocity_divergence.iter_mut().zip(self.score_divergence.iter_mut());
        for (i, ((b, s), r)) in slots.zip(r).enumerate() {
            *b += r * (component.expansion - column_dot(motion, pulls, i, self.log_density.len()));
            *s += r * (column_dot(pulls, pulls, i, self.log_density.len()) - component.stiffness);
        }
    }

    /// Σ r u·(g − s) = Σ r u·g − b·s, and the same for the score.
    fn finish_divergences(&mut self, velocity: &[f64], score: &[f64]) {
        let slots = self.velocity_divergence.iter_mut().zip(self.score_divergence.iter_mut());
        for (i, (b, s)) in slots.enumerate() {
            *b -= column_dot(velocity, score, i, self.log_density.len());
            *s -= column_dot(score, score, i, self.log_density.len());
        }
    }
}

/// Σ_j x_ji y_ji of two tables (d, n).
fn column_dot(x: &[f64], y: &[f64], i: usize, n: usize) -> f64 {
    x[i..].iter().step_by(n).zip(y[i..].iter().step_by(n)).map(|(x, y)| x * y).sum()
}

/// `out` (d, n) = `matrix` (d, d) `x` (d, n).
fn multiply(matrix: &[f64], x: &[f64], out: &mut [f64], n: usize) {
    let d = x.len() / n;
    for (out, row) in out.chunks_exact_mut(n).zip(matrix.chunks_exact(d)) {
        out.fill(0.0);
        for (x, factor) in x.chunks_exact(n).zip(row) {
            out.iter_mut().zip(x).for_each(|(o, x)| *o += factor * x);
        }
    }
}

/// `sum` (d, n) += `sign` · `weights` (n) · `x` (d, n).
fn add_products(sum: &mut [f64], sign: f64, weights: &[f64], x: &[f64]) {
    let n = weights.len();
    for (sum, x) in sum.chunks_exact_mut(n).zip(x.chunks_exact(n)) {
        sum.iter_mut().zip(weights).zip(x).for_each(|((s, w), x)| *s += sign * w * x);
    }
}

impl Work {
    fn new(level: &Level) -> Self {
        let (k, d) = (level.components.len(), level.d);
        let block = |count: usize| vec![0.0; count * BLOCK];
        Self {
            weights: block(k),
            pulls: block(k * d),
            points: block(d),
            motion: block(d),
            top: block(1),
            total: block(1),
            velocity: block(d),
            score: block(d),
        }
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
