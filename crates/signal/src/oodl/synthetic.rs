//! The paper's synthetic stream: y = D* x + noise with Bernoulli–Gaussian codes x.

use ndarray::{Array2, ArrayView2, Axis, parallel::prelude::*};
use offprint_core::random::{Stream, Streams};
use offprint_core::{Error, Result};
use rand::RngExt;
use rand_distr::StandardNormal;

/// A stream of samples y_t = D* x_t + noise; each entry of x_t is zero with probability 1 − θ and N(0, 1) otherwise.
///
/// Sample t depends on the seed and t alone, to the last bit, so a stream can be entered anywhere.
#[derive(Debug, Clone)]
pub struct BernoulliGaussian {
    truth: Array2<f64>,
    theta: f64,
    noise: f64,
    samples: Stream,
}

impl BernoulliGaussian {
    /// A stream of dimension `n` with a random orthogonal D*, sparsity `theta` (the chance that an entry is not zero)
    /// and Gaussian noise of standard deviation `noise` per entry.
    ///
    /// # Errors
    /// n = 0, θ outside 0..=1, a negative noise.
    pub fn new(n: usize, theta: f64, noise: f64, streams: Streams) -> Result<Self> {
        let truth = super::random_orthogonal(n, &mut streams.stream("true dictionary").rng(0))?;
        Self::with_dictionary(truth, theta, noise, streams)
    }

    /// The same with a given D* (N, K).
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn with_dictionary(truth: Array2<f64>, theta: f64, noise: f64, streams: Streams) -> Result<Self> {
        if truth.is_empty() {
            return Err(Error::parameter("n", 0, "at least 1"));
        }
        if !(0.0..=1.0).contains(&theta) {
            return Err(Error::parameter("theta", theta, "between 0 and 1"));
        }
        if !(noise >= 0.0 && noise.is_finite()) {
            return Err(Error::parameter("noise", noise, "at least 0 and finite"));
        }
        Ok(Self { truth, theta, noise, samples: streams.stream("samples") })
    }

    /// D* (N, K).
    pub fn truth(&self) -> ArrayView2<'_, f64> {
        self.truth.view()
    }

    /// The samples number `start` … `start + count` − 1, as rows (count, N).
    pub fn samples(&self, start: u64, count: usize) -> Array2<f64> {
        let atoms = self.truth.t().as_standard_layout().into_owned();
        let mut samples = Array2::zeros((count, self.truth.nrows()));
        samples.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(i, mut y)| {
            let mut rng = self.samples.rng(start + i as u64);
            for atom in atoms.outer_iter() {
                if rng.random::<f64>() < self.theta {
                    y.scaled_add(rng.sample(StandardNormal), &atom);
                }
            }
            if self.noise > 0.0 {
                y.mapv_inplace(|y| y + self.noise * rng.sample::<f64, _>(StandardNormal));
            }
        });
        samples
    }
}
