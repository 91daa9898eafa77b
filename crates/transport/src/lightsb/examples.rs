//! Distributions to try the method on, among them pairs whose bridge is known.

use super::bridge::LightBridge;
use super::fit::Samples;
use super::posterior::Posterior;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, ArrayViewMut2, Axis};
use offprint_core::Result;
use offprint_core::random::{Rng, Stream};
use rand::RngExt;
use rand_distr::StandardNormal;

/// The standard normal distribution in `0` dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Normal(pub usize);

impl Samples for Normal {
    fn dim(&self) -> usize {
        self.0
    }

    fn fill(&self, rng: &mut Rng, mut batch: ArrayViewMut2<'_, f64>) {
        batch.iter_mut().for_each(|x| *x = rng.sample(StandardNormal));
    }
}

/// `n` samples of anything, (n, d).
pub fn draw(samples: &impl Samples, n: usize, rng: &mut Rng) -> Array2<f64> {
    let mut batch = Array2::zeros((n, samples.dim()));
    samples.fill(rng, batch.view_mut());
    batch
}

/// The authors' swiss roll (n, 2): two of the three coordinates of scikit-learn's `make_swiss_roll(noise=.8)`, divided
/// by 7.5.
pub fn swiss_roll(n: usize, rng: &mut Rng) -> Array2<f64> {
    let mut roll = Array2::zeros((n, 2));
    for mut row in roll.rows_mut() {
        let angle = 1.5 * std::f64::consts::PI * (1.0 + 2.0 * rng.random::<f64>());
        for (x, turn) in row.iter_mut().zip([angle.cos(), angle.sin()]) {
            *x = (angle * turn + 0.8 * rng.sample::<f64, _>(StandardNormal)) / 7.5;
        }
    }
    roll
}

/// Where the paths of a known bridge end, when they start in a known source: the target of a pair with known answer.
#[derive(Debug, Clone)]
pub struct Ends<'a, S> {
    plan: Posterior<'a>,
    source: S,
}

impl<'a, S: Samples> Ends<'a, S> {
    /// The ends of `bridge` from `source`.
    pub fn new(bridge: &'a LightBridge, source: S) -> Self {
        Self { plan: bridge.plan(), source }
    }
}

impl<S: Samples> Samples for Ends<'_, S> {
    fn dim(&self) -> usize {
        self.source.dim()
    }

    fn fill(&self, rng: &mut Rng, mut batch: ArrayViewMut2<'_, f64>) {
        self.source.fill(rng, batch.view_mut());
        let ends = self.plan.sample_with(batch.view(), rng).expect("source and bridge have one dimension");
        batch.assign(&ends);
    }
}

/// The bridge with π(y | x) ∝ N(y; x, ε I) φ(y) for a mixture φ of Gaussians with `weights` (n), `means` (n, d) and
/// diagonal `variances` (n, d).
///
/// This is how the entropic optimal transport benchmark (N. Gushchin et al., NeurIPS 2023, arXiv 2306.10161) makes pairs
/// whose plan is known for any source. It is a light bridge itself: S = (I + ε Σ⁻¹)⁻¹, r = ε S Σ⁻¹ μ,
/// α = w N(μ; 0, Σ + ε I).
pub fn mixture_bridge(
    epsilon: f64,
    weights: ArrayView1<'_, f64>,
    means: ArrayView2<'_, f64>,
    variances: ArrayView2<'_, f64>,
) -> Result<LightBridge> {
    let spreads = variances.mapv(|sigma| sigma / (sigma + epsilon));
    let centres = &means * &variances.mapv(|sigma| epsilon / (sigma + epsilon));
    let log_alpha: Array1<f64> = (0..weights.len())
        .map(|n| {
            let log_normal: f64 = means
                .row(n)
                .iter()
                .zip(variances.row(n))
                .map(|(mu, sigma)| {
                    let total = sigma + epsilon;
                    -0.5 * (mu * mu / total + (2.0 * std::f64::consts::PI * total).ln())
                })
                .sum();
            weights[n].ln() + log_normal
        })
        .collect();
    LightBridge::diagonal(epsilon, log_alpha, centres, spreads)
}

/// A benchmark pair in `d` dimensions: from N(0, I) with φ of five unit Gaussians of equal weight whose means lie
/// uniformly on the sphere of radius 5.
pub fn benchmark_bridge(d: usize, epsilon: f64, stream: Stream) -> Result<LightBridge> {
    let components = 5;
    let mut means = draw(&Normal(d), components, &mut stream.rng(0));
    for mut mean in means.axis_iter_mut(Axis(0)) {
        let length = mean.dot(&mean).sqrt();
        mean *= 5.0 / length;
    }
    let weights = Array1::from_elem(components, 1.0 / components as f64);
    mixture_bridge(epsilon, weights.view(), means.view(), Array2::ones((components, d)).view())
}
