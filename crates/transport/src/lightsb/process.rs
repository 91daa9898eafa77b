//! The bridge as a process in time: dX = g(X, t) dt + √ε dW from the source at t = 0 to the target at t = 1.

use super::bridge::{LightBridge, for_each_row};
use super::posterior::Posterior;
use ndarray::{Array2, Array3, ArrayView2, Axis, Zip};
use offprint_core::random::Stream;
use offprint_core::{Error, Progress, Result};
use rand::RngExt;
use rand_distr::StandardNormal;

impl LightBridge {
    /// The law of x₁ given x_t, for `time` in [0, 1).
    pub fn posterior(&self, time: f64) -> Result<Posterior<'_>> {
        // The drift pulls infinitely hard at t = 1.
        if (0.0..1.0).contains(&time) {
            Ok(Posterior::new(self, time))
        } else {
            Err(Error::parameter("time", time, "at least 0 and below 1"))
        }
    }

    /// The drift g(x, t) (n, d) at the rows of `x` (n, d), for `time` in [0, 1).
    pub fn drift(&self, x: ArrayView2<'_, f64>, time: f64) -> Result<Array2<f64>> {
        self.posterior(time)?.drift(x)
    }

    /// Places at `time` in [0, 1] of paths with the ends `x0` and `x1` (n, d): (1−t) x₀ + t x₁ + √(ε t (1−t)) ξ. Row i
    /// draws from `stream.rng(i)`.
    pub fn between(
        &self,
        x0: ArrayView2<'_, f64>,
        x1: ArrayView2<'_, f64>,
        time: f64,
        stream: Stream,
    ) -> Result<Array2<f64>> {
        if !(0.0..=1.0).contains(&time) {
            return Err(Error::parameter("time", time, "between 0 and 1"));
        }
        self.same_dim("x0", x0)?;
        if x0.dim() != x1.dim() {
            return Err(Error::input("x1", format!("has shape {:?} beside {:?} of x0", x1.dim(), x0.dim())));
        }
        let deviation = (self.epsilon * time * (1.0 - time)).sqrt();
        let mut places = Array2::zeros(x0.dim());
        for_each_row(&mut places, |i, row| {
            let mut rng = stream.rng(i as u64);
            Zip::from(row).and(x0.row(i)).and(x1.row(i)).for_each(|p, x0, x1| {
                let noise: f64 = rng.sample(StandardNormal);
                *p = (1.0 - time) * x0 + time * x1 + deviation * noise;
            });
        });
        Ok(places)
    }

    /// Paths from the rows of `x0` (n, d) by Euler–Maruyama with `steps` equal steps: their places at the times of
    /// `keep`-th steps, from 0 to 1, (n, 1 + steps / keep, d). Path i draws its noise of step s from
    /// `stream.rng(i + s · n)`.
    ///
    /// # Errors
    /// `steps` of zero or not a multiple of `keep`; [`Error::Cancelled`].
    pub fn simulate(
        &self,
        x0: ArrayView2<'_, f64>,
        steps: usize,
        keep: usize,
        stream: Stream,
        progress: &Progress,
    ) -> Result<Array3<f64>> {
        if steps == 0 || keep == 0 || !steps.is_multiple_of(keep) {
            return Err(Error::parameter("steps", steps, format!("a positive multiple of {}", keep.max(1))));
        }
        self.same_dim("x0", x0)?;
        let (n, d) = x0.dim();
        let step = 1.0 / steps as f64;
        let deviation = (self.epsilon * step).sqrt();
        let mut paths = Array3::zeros((n, 1 + steps / keep, d));
        paths.index_axis_mut(Axis(1), 0).assign(&x0);
        let mut x = x0.to_owned();
        progress.begin("Euler–Maruyama", steps as u64);
        for s in 0..steps {
            // The last step starts at 1 − 1/steps, so the singular t = 1 is never asked for.
            let drift = Posterior::new(self, s as f64 * step).drift(x.view())?;
            for_each_row(&mut x, |i, row| {
                let mut rng = stream.rng((i + s * n) as u64);
                Zip::from(row).and(drift.row(i)).for_each(|x, g| {
                    let noise: f64 = rng.sample(StandardNormal);
                    *x += g * step + deviation * noise;
                });
            });
            if (s + 1) % keep == 0 {
                paths.index_axis_mut(Axis(1), (s + 1) / keep).assign(&x);
            }
            progress.advance(1)?;
        }
        progress.finish();
        Ok(paths)
    }
}
