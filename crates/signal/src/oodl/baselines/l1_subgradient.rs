//! Subgradient descent of the ℓ₁ norm on the sphere, atom by atom (Bai, Jiang and Sun, 2019): offline.

use super::Kept;
use crate::oodl::Learner;
use ndarray::{Array1, Array2, ArrayView2, Axis};
use offprint_core::random::Stream;
use offprint_core::{Progress, Result};
use offprint_math::linalg;
use rand::RngExt;
use rand_distr::StandardNormal;

/// Finds directions q of the sphere at which (1/p) Σ|yᵀq| has a local minimum; for a sparse model these are ± atoms.
///
/// Each descent starts orthogonal to the atoms found so far, takes Riemannian subgradient steps of size η₀ βᵏ on the
/// whole sphere, and is drawn anew if it ends at a known atom. The published method draws independent starts until all
/// atoms were hit (about N ln N descents); the orthogonal start saves most of these. Keeps all samples.
#[derive(Clone)]
pub struct L1Subgradient {
    n: usize,
    starts: Stream,
    samples: Kept,
    progress: Progress,
}

/// Steps of one descent, first step size and its decay: from 0.5 down to about 10⁻⁵.
const STEPS: i32 = 300;
const FIRST_STEP: f64 = 0.5;
const DECAY: f64 = 0.965;
/// |⟨q, d⟩| from which q counts as the known atom d.
const SAME: f64 = 0.9;

impl L1Subgradient {
    /// For samples of length `n`, with random starts from `starts`.
    pub fn new(n: usize, starts: Stream, progress: Progress) -> Self {
        Self { n, starts, samples: Kept::new(n), progress }
    }
}

/// One descent from `q`, a unit vector.
fn descend(samples: ArrayView2<'_, f64>, mut q: Array1<f64>) -> Array1<f64> {
    for k in 0..STEPS {
        let signs = samples.dot(&q).mapv(|z| if z == 0.0 { 0.0 } else { z.signum() });
        let mut subgradient = samples.t().dot(&signs) / samples.nrows() as f64;
        // Its part along the sphere.
        let radial = subgradient.dot(&q);
        subgradient.scaled_add(-radial, &q);
        q.scaled_add(-FIRST_STEP * DECAY.powi(k), &subgradient);
        q /= q.dot(&q).sqrt();
    }
    q
}

impl Learner for L1Subgradient {
    fn learn(&mut self, samples: ArrayView2<'_, f64>) -> Result<()> {
        self.samples.add(samples)
    }

    fn dictionary(&mut self) -> Result<Array2<f64>> {
        let samples = self.samples.scaled()?;
        let mut atoms = Array2::<f64>::zeros((self.n, self.n));
        let mut found = 0;
        for start in 0..5 * self.n as u64 {
            self.progress.check()?;
            let mut rng = self.starts.rng(start);
            let mut q = Array1::from_shape_simple_fn(self.n, || rng.sample::<f64, _>(StandardNormal));
            for known in atoms.axis_iter(Axis(1)).take(found) {
                let along = known.dot(&q);
                q.scaled_add(-along, &known);
            }
            q /= q.dot(&q).sqrt();
            let q = descend(samples.view(), q);
            if atoms.axis_iter(Axis(1)).take(found).all(|known| known.dot(&q).abs() < SAME) {
                atoms.column_mut(found).assign(&q);
                found += 1;
            }
            if found == self.n {
                break;
            }
        }
        // The nearest orthogonal matrix; it also completes what no descent found.
        linalg::polar(atoms.view())
    }

    fn carried(&self) -> usize {
        self.samples.values.len()
    }
}
