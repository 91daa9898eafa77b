//! A network with all that turns its outputs into clean data: the path, what it was trained to give, its classes.

use super::layers::{NetConfig, TimedMlp, tensor};
use crate::{Denoiser, Kernel, Path, Prediction, check};
use ndarray::{Array2, ArrayView2};
use offprint_core::{Error, Result};
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
    pub(super) net: TimedMlp,
    pub(super) params: Params,
    pub(super) path: Path,
    pub(super) target: Target,
}

impl Network {
    /// A network of the given shape with fresh weights, drawn by `seed`.
    ///
    /// # Errors
    /// A path that does not lead to noise; a target that has no meaning on it.
    pub fn fresh(config: &NetConfig, path: Path, target: Target, seed: u64) -> Result<Self> {
        Self::from_weights(config, path, target, &Weights::fresh(seed, candle_core::DType::F32)?)
    }

    pub(super) fn from_weights(config: &NetConfig, path: Path, target: Target, weights: &Weights) -> Result<Self> {
        let kernel = path.kernel()?;
        match target {
            Target::Preconditioned { sigma_data } => check::positive("sigma_data", sigma_data)?,
            Target::Plain(kind) if kernel != Kernel::Gaussian && kind != Prediction::X0 => {
                return Err(Error::parameter("target", kind, format!("x0 on the path {}", path.name())));
            }
            Target::Plain(_) => {}
        }
        let net = TimedMlp::new(config, weights)?;
        let params = weights.finish(&[])?;
        Ok(Self { net, params, path, target })
    }

    /// Its shape.
    pub fn config(&self) -> &NetConfig {
        self.net.config()
    }

    /// The path it was trained on.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What its outputs mean.
    pub fn target(&self) -> Target {
        self.target
    }

    /// Its parameters, by reference: setting them changes the network.
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
        let classes = self.config().classes;
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
        match self.network.target {
            Target::Preconditioned { sigma_data } => {
                check::positive("tau", tau)?;
                let (skip, out, input) = Target::preconditioning(sigma_data, tau);
                Ok(Scaling { skip, out, input })
            }
            Target::Plain(kind) => {
                let schedule = self.network.path.schedule()?;
                let at = schedule.at(schedule.time(tau)?)?;
                let (out, skip) = kind.to_denoised(at);
                // The prediction is for x = α y.
                Ok(Scaling { skip: skip * at.alpha, out, input: at.alpha })
            }
        }
    }

    fn inputs(&self, y: ArrayView2<'_, f64>, tau: f64, scaling: &Scaling) -> Result<candle_core::Tensor> {
        let net = &self.network.net;
        let (n, d) = y.dim();
        check::dimension("points", y, "the network", net.config().dim)?;
        if let Labels::Each(labels) = &self.labels
            && labels.len() != n
        {
            return Err(Error::input("labels", format!("has {} entries for {n} points", labels.len())));
        }
        let width = d + net.side();
        let mut inputs = vec![0.0f32; n * width];
        let code = 0.25 * tau.ln();
        for (i, (row, y)) in inputs.chunks_exact_mut(width).zip(y.outer_iter()).enumerate() {
            let (point, side) = row.split_at_mut(d);
            point.iter_mut().zip(y).for_each(|(p, y)| *p = (scaling.input * y) as f32);
            net.fill_side(code, self.label(i), side);
        }
        tensor(inputs, n)
    }
}

impl Denoiser for Conditioned<'_> {
    fn dim(&self) -> usize {
        self.network.config().dim
    }

    fn kernel(&self) -> Kernel {
        self.network.path.kernel().expect("checked when the network was made")
    }

    fn denoise(&self, y: ArrayView2<'_, f64>, tau: f64) -> Result<Array2<f64>> {
        let scaling = self.scaling(tau)?;
        let inputs = self.inputs(y, tau, &scaling)?;
        let out = self.network.net.forward(&inputs).map_err(computation)?;
        combine(&out, y, scaling.out, scaling.skip)
    }

    fn jacobian_product(&self, y: ArrayView2<'_, f64>, tau: f64, v: ArrayView2<'_, f64>) -> Result<Array2<f64>> {
        check::dimension("directions", v, "the network", self.dim())?;
        let scaling = self.scaling(tau)?;
        let inputs = self.inputs(y, tau, &scaling)?;
        let tangent = tensor(v.iter().map(|v| (scaling.input * v) as f32).collect(), v.nrows())?;
        let out = self.network.net.forward_tangent(&inputs, &tangent).map_err(computation)?;
        combine(&out, v, scaling.out, scaling.skip)
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
