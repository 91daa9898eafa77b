//! What a denoising network is trained on: noisy points and what it should say to them.

use super::layers::tensor;
use super::model::{Network, Target};
use crate::{Kernel, Prediction};
use ndarray::ArrayView2;
use offprint_core::random::{Rng, Stream};
use offprint_core::{Error, Result};
use offprint_math::vector;
use offprint_nn::Batch;
use rand::RngExt;
use rand_distr::{ChiSquared, Distribution, StandardNormal};
use rayon::prelude::*;

/// Which noise levels a training sees.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Levels {
    /// ln τ ~ N(mean, deviation²), as EDM does it with −1.2 and 1.2.
    LogNormal {
        /// Mean of ln τ.
        mean: f64,
        /// Standard deviation of ln τ.
        deviation: f64,
    },
    /// Times uniform over the schedule, between its usual ends.
    UniformTime,
}

/// Training pairs of a network, from a table of data.
#[derive(Debug)]
pub struct Pairs<'a> {
    network: &'a Network,
    data: ArrayView2<'a, f64>,
    labels: Option<&'a [u8]>,
    levels: Levels,
    /// Share of labels that are hidden, so that the network learns to do without.
    dropout: f64,
    /// Rows over which the clean point of a target is averaged.
    reference: usize,
    stream: Stream,
}

impl<'a> Pairs<'a> {
    /// Pairs for `network` from `data` (N, d) and, if it has classes, `labels` (N).
    ///
    /// # Errors
    /// Data or labels that do not fit the network, levels without an end.
    pub fn new(
        network: &'a Network,
        data: ArrayView2<'a, f64>,
        labels: Option<&'a [u8]>,
        (levels, dropout): (Levels, f64),
        stream: Stream,
    ) -> Result<Self> {
        crate::check::rows("data", data)?;
        crate::check::dimension("data", data, "the network", network.dim())?;
        match labels {
            Some(labels) if labels.len() != data.nrows() => {
                return Err(Error::input(
                    "labels",
                    format!("has {} entries for {} points", labels.len(), data.nrows()),
                ));
            }
            Some(labels) => {
                if let Some(label) = labels.iter().find(|&&label| usize::from(label) >= network.classes()) {
                    return Err(Error::parameter(
                        "class",
                        label,
                        format!("below {}, the network's classes", network.classes()),
                    ));
                }
            }
            None if network.classes() > 0 => {
                return Err(Error::input(
                    "labels",
                    format!("are missing: the network has {} classes", network.classes()),
                ));
            }
            None => {}
        }
        if !(0.0..=1.0).contains(&dropout) {
            return Err(Error::parameter("label dropout", dropout, "from 0 to 1"));
        }
        if levels == Levels::UniformTime && network.path.schedule()?.latest().is_none() {
            return Err(Error::parameter(
                "levels",
                "uniform in time",
                format!("log-normal: {} has no last time", network.path.name()),
            ));
        }
        Ok(Self { network, data, labels, levels, dropout, reference: 1, stream })
    }

    /// The same with stable targets (Xu, Tong and Jaakkola 2023, arXiv:2302.00670): in place of the clean point its mean
    /// under the posterior over `reference` rows of the data, the point's own among them. Less noise, a small bias.
    ///
    /// # Errors
    /// No rows; labels, whose classes would be mixed.
    pub fn with_reference(self, reference: usize) -> Result<Self> {
        if reference == 0 || (reference > 1 && self.labels.is_some()) {
            let allowed = "at least 1, and 1 for a network with classes";
            return Err(Error::parameter("reference", reference, allowed));
        }
        Ok(Self { reference, ..self })
    }

    /// The mean of `own` and further random rows under the posterior given `y` at `tau`, into `clean`.
    fn stabilise(&self, rng: &mut Rng, own: usize, (y, tau): (&[f64], f64), clean: &mut [f64]) -> Result<()> {
        let kernel = self.network.path.kernel()?;
        let n = self.data.nrows();
        let others = (1..self.reference).map(|_| rng.random_range(0..n));
        let rows: Vec<usize> = std::iter::once(own).chain(others).collect();
        let weight = |&row: &usize| {
            let square = self.data.row(row).iter().zip(y).map(|(x, y)| (x - y) * (x - y)).sum();
            kernel.log_weight(square, tau, y.len())
        };
        let mut weights: Vec<f64> = rows.iter().map(weight).collect();
        vector::softmax(&mut weights);
        clean.fill(0.0);
        for (&row, w) in rows.iter().zip(weights) {
            clean.iter_mut().zip(self.data.row(row)).for_each(|(c, x)| *c += w * x);
        }
        Ok(())
    }

    /// Inputs (batch, dim + side) and what the network should give for them (batch, dim), of step number `step`.
    pub fn batch(&self, step: u64, batch: usize) -> Result<Batch> {
        let net = &self.network.net;
        let d = net.dim();
        let width = d + net.side();
        let (mut inputs, mut targets) = (vec![0.0f32; batch * width], vec![0.0f32; batch * d]);
        inputs
            .par_chunks_exact_mut(width)
            .zip(targets.par_chunks_exact_mut(d))
            .with_min_len(32)
            .enumerate()
            .try_for_each(|(i, (input, target))| {
                let mut rng = self.stream.rng(step * batch as u64 + i as u64);
                self.pair(&mut rng, input, target)
            })?;
        Ok(Batch { inputs: tensor(inputs, batch)?, targets: tensor(targets, batch)? })
    }

    fn pair(&self, rng: &mut Rng, input: &mut [f32], target: &mut [f32]) -> Result<()> {
        let net = &self.network.net;
        let schedule = self.network.path.schedule()?;
        let row = rng.random_range(0..self.data.nrows());
        let t = match self.levels {
            Levels::LogNormal { mean, deviation } => {
                let z: f64 = StandardNormal.sample(rng);
                schedule.time((mean + deviation * z).exp())?
            }
            Levels::UniformTime => {
                let (first, last) = (schedule.earliest(), schedule.latest().unwrap_or(1.0));
                first + (last - first) * rng.random::<f64>()
            }
        };
        let (at, tau) = (schedule.at(t)?, schedule.tau(t)?);
        let label = self.labels.map(|labels| usize::from(labels[row]));
        let hidden = self.dropout > 0.0 && rng.random::<f64>() < self.dropout;
        let radius = match self.network.path.kernel()? {
            Kernel::Gaussian => 1.0,
            Kernel::StudentT { freedom } => {
                let chi: f64 = ChiSquared::new(freedom).expect("positive degrees of freedom").sample(rng);
                (freedom / chi.max(f64::MIN_POSITIVE)).sqrt()
            }
        };
        let (point, side) = input.split_at_mut(target.len());
        net.fill_side(self.network.clock.read(schedule, t, tau), label.filter(|_| !hidden), side);
        let mut clean = self.data.row(row).to_vec();
        let y: Vec<f64> = clean
            .iter()
            .map(|x0| {
                let z: f64 = StandardNormal.sample(rng);
                x0 + tau * (radius * z)
            })
            .collect();
        if self.reference > 1 {
            self.stabilise(rng, row, (&y, tau), &mut clean)?;
        }
        for (((point, target), x0), y) in point.iter_mut().zip(target).zip(clean).zip(y) {
            let (value, wanted) = match self.network.target {
                Target::Preconditioned { sigma_data } => {
                    let (skip, out, scale) = Target::preconditioning(sigma_data, tau);
                    // With this target the mean square is the loss in D weighted by 1/c_out².
                    (scale * y, (x0 - skip * y) / out)
                }
                Target::Plain(kind) => {
                    let eps = (y - x0) / tau;
                    let wanted = self.network.clock.sign(kind)
                        * match kind {
                            Prediction::X0 => x0,
                            Prediction::Eps => eps,
                            Prediction::Score => -eps / at.sigma,
                            Prediction::V => at.alpha * eps - at.sigma * x0,
                            Prediction::Velocity => at.alpha_rate * x0 + at.sigma_rate * eps,
                        };
                    (at.alpha * y, wanted)
                }
            };
            (*point, *target) = (value as f32, wanted as f32);
        }
        Ok(())
    }
}
