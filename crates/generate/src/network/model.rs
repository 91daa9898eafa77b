//! A network with all that turns its outputs into clean data: the path, what it was trained to give, its classes.

use super::clock::Clock;
use super::layers::tensor;
use super::net::{Net, Shape};
use crate::denoiser::central_differences;
use crate::{Denoiser, Kernel, Path, Prediction, Schedule, check};
use ndarray::{Array2, ArrayView2};
use offprint_core::{Error, Picture, Result};
use offprint_nn::{Params, Weights, computation};
use serde::{Deserialize, Serialize};

/// What the outputs of a network mean.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// EDM's preconditioning: D = c_skip y + c_out · net(c_in y, ln(τ)/4), all of unit scale when the data have the
    /// deviation `sigma_data`.
    Preconditioned {
        /// Standard deviation of the data.
        sigma_data: f64,
    },
    /// A prediction for x = α y, as it is.
    Plain(Prediction),
}

impl Target {
    /// What a message calls it.
    pub fn name(&self) -> String {
        match self {
            Self::Preconditioned { .. } => "preconditioned x0".into(),
            Self::Plain(kind) => kind.to_string(),
        }
    }

    /// (c_skip, c_out, c_in) of EDM's preconditioning at `tau`.
    pub(super) fn preconditioning(sigma_data: f64, tau: f64) -> (f64, f64, f64) {
        let norm = sigma_data * sigma_data + tau * tau;
        (sigma_data * sigma_data / norm, tau * sigma_data / norm.sqrt(), 1.0 / norm.sqrt())
    }
}

/// The classes that a network is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Labels {
    /// No class: the unconditional model.
    None,
    /// One class for all points.
    All(usize),
    /// A class for each point.
    Each(Vec<usize>),
}

/// A trained denoising network. Ask it through [`Self::unconditional`] or [`Self::conditioned`].
#[derive(Debug, Clone)]
pub struct Network {
    pub(super) net: Net,
    pub(super) params: Params,
    pub(super) path: Path,
    pub(super) target: Target,
    pub(super) clock: Clock,
}

impl Network {
    /// A network of the given shape with fresh weights, drawn by `seed`.
    ///
    /// # Errors
    /// A path that does not lead to noise; a target that has no meaning on it.
    pub fn fresh(shape: &Shape, path: Path, target: Target, seed: u64) -> Result<Self> {
        let weights = Weights::fresh(seed, candle_core::DType::F32)?;
        Self::assemble(Net::new(shape, &weights)?, &weights, (path, target, shape.clock()))
    }

    /// `net`, whose parameters were taken from `weights`, with the meaning of what goes in and comes out.
    pub(super) fn assemble(net: Net, weights: &Weights, meaning: (Path, Target, Clock)) -> Result<Self> {
        let (path, target, clock) = meaning;
        let kernel = path.kernel()?;
        match target {
            Target::Preconditioned { sigma_data } => check::positive("sigma_data", sigma_data)?,
            Target::Plain(kind) if kernel != Kernel::Gaussian && kind != Prediction::X0 => {
                return Err(Error::parameter("target", kind, format!("x0 on the path {}", path.name())));
            }
            Target::Plain(_) => {}
        }
        let params = weights.finish(&[])?;
        Ok(Self { net, params, path, target, clock })
    }

    /// Its shape, unless it was brought from elsewhere.
    pub fn shape(&self) -> Option<Shape> {
        self.net.shape()
    }

    /// Components d of a point.
    pub fn dim(&self) -> usize {
        self.net.dim()
    }

    /// Classes; 0 without any.
    pub fn classes(&self) -> usize {
        self.net.classes()
    }

    /// The picture that a point is, if the network knows it to be one.
    pub fn picture(&self) -> Option<Picture> {
        self.net.picture()
    }

    /// The highest noise level that its path reaches.
    pub fn highest(&self) -> f64 {
        self.path.schedule().map_or(f64::INFINITY, Schedule::highest)
    }

    /// How it is told the noise level.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// The path it was trained on.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What its outputs mean.
    pub fn target(&self) -> Target {
        self.target
    }

    /// Its parameters, by reference: setting them changes the network. Those of an ONNX model are fixed, and not among
    /// them.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The model without a class.
    pub fn unconditional(&self) -> Conditioned<'_> {
        Conditioned { network: self, labels: Labels::None }
    }

    /// The model given `labels`.
    ///
    /// # Errors
    /// A class that the network does not have, or any if it has none.
    pub fn conditioned(&self, labels: Labels) -> Result<Conditioned<'_>> {
        let classes = self.classes();
        let given: &[usize] = match &labels {
            Labels::None => &[],
            Labels::All(class) => std::slice::from_ref(class),
            Labels::Each(each) => each,
        };
        if classes == 0 && labels != Labels::None {
            return Err(Error::parameter("class", format!("{labels:?}"), "absent: the model is unconditional"));
        }
        if let Some(class) = given.iter().find(|&&class| class >= classes) {
            return Err(Error::parameter("class", class, format!("from 0 to {}", classes - 1)));
        }
        Ok(Conditioned { network: self, labels })
    }
}

/// A [`Network`] with its classes bound: a [`Denoiser`].
#[derive(Debug, Clone)]
pub struct Conditioned<'a> {
    network: &'a Network,
    labels: Labels,
}

/// How D follows from the output o: D = `skip` · y + `out` · o, for the input `input` · y.
struct Scaling {
    skip: f64,
    out: f64,
    input: f64,
    /// What the network is told of the level.
    code: f64,
}

impl Conditioned<'_> {
    fn label(&self, row: usize) -> Option<usize> {
        match &self.labels {
            Labels::None => None,
            Labels::All(class) => Some(*class),
            Labels::Each(classes) => Some(classes[row]),
        }
    }

    fn scaling(&self, tau: f64) -> Result<Scaling> {
        check::positive("tau", tau)?;
        let network = self.network;
        let schedule = network.path.schedule()?;
        match network.target {
            // Known at every level, also at those that a schedule does not reach.
            Target::Preconditioned { sigma_data } => {
                let t = if network.clock.needs_time() { schedule.time(tau)? } else { f64::NAN };
                let (skip, out, input) = Target::preconditioning(sigma_data, tau);
                Ok(Scaling { skip, out, input, code: network.clock.read(schedule, t, tau) })
            }
            Target::Plain(kind) => {
                let t = schedule.time(tau)?;
                let at = schedule.at(t)?;
                let (out, skip) = kind.to_denoised(at);
                let (out, code) = (out * network.clock.sign(kind), network.clock.read(schedule, t, tau));
                // The prediction is for x = α y.
                Ok(Scaling { skip: skip * at.alpha, out, input: at.alpha, code })
            }
        }
    }

    fn inputs(&self, y: ArrayView2<'_, f64>, scaling: &Scaling) -> Result<candle_core::Tensor> {
        let net = &self.network.net;
        let (n, d) = y.dim();
        check::dimension("points", y, "the network", net.dim())?;
        if let Labels::Each(labels) = &self.labels
            && labels.len() != n
        {
            return Err(Error::input("labels", format!("has {} entries for {n} points", labels.len())));
        }
        let width = d + net.side();
        let mut inputs = vec![0.0f32; n * width];
        for (i, (row, y)) in inputs.chunks_exact_mut(width).zip(y.outer_iter()).enumerate() {
            let (point, side) = row.split_at_mut(d);
            point.iter_mut().zip(y).for_each(|(p, y)| *p = (scaling.input * y) as f32);
            net.fill_side(scaling.code, self.label(i), side);
        }
        tensor(inputs, n)
    }
}

impl Denoiser for Conditioned<'_> {
    fn dim(&self) -> usize {
        self.network.dim()
    }

    fn kernel(&self) -> Kernel {
        self.network.path.kernel().expect("checked when the network was made")
    }

    fn denoise(&self, y: ArrayView2<'_, f64>, tau: f64) -> Result<Array2<f64>> {
        let scaling = self.scaling(tau)?;
        let inputs = self.inputs(y, &scaling)?;
        let out = self.network.net.forward(&inputs)?;
        combine(&out, y, scaling.out, scaling.skip)
    }

    fn jacobian_product(&self, y: ArrayView2<'_, f64>, tau: f64, v: ArrayView2<'_, f64>) -> Result<Array2<f64>> {
        check::dimension("directions", v, "the network", self.dim())?;
        let scaling = self.scaling(tau)?;
        let inputs = self.inputs(y, &scaling)?;
        let tangent = tensor(v.iter().map(|v| (scaling.input * v) as f32).collect(), v.nrows())?;
        match self.network.net.forward_tangent(&inputs, &tangent)? {
            Some(out) => combine(&out, v, scaling.out, scaling.skip),
            // The cube root of single precision, in which the network computes.
            None => central_differences(self, y, tau, v, 5e-3),
        }
    }
}

/// `out` · o + `skip` · y.
fn combine(o: &candle_core::Tensor, y: ArrayView2<'_, f64>, out: f64, skip: f64) -> Result<Array2<f64>> {
    let values = o.flatten_all().and_then(|o| o.to_vec1::<f32>()).map_err(computation)?;
    let mut result = Array2::zeros(y.dim());
    for ((r, o), y) in result.iter_mut().zip(values).zip(y) {
        *r = out * f64::from(o) + skip * y;
    }
    Ok(result)
}
