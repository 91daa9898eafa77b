//! The model and the sampler that the user names.

use super::example::Example;
use super::{Search, Variant};
use crate::exact::{ExactMixture, Mixture};
use crate::network::{self, Digits8, Expected, Labels, Network, Reading};
use crate::sample::{Basis, Bh, Ddim, Deis, DpmPlusPlus2M, Multistep, Solver, UniPc};
use crate::{Denoiser, Guidance, Schedule, Thresholded};
use offprint_core::random::Streams;
use offprint_core::{Error, Picture, Result};
use std::path::Path;
use std::sync::Arc;

/// A solver that is known at run time only.
pub(super) type AnySampler = Multistep<Arc<dyn Solver + Send>>;

/// The sampler called `name` and how its ratios are searched.
pub(super) fn sampler(name: &str, schedule: &Schedule) -> Result<(AnySampler, Search)> {
    let any = |sampler: Multistep<UniPc>| Multistep {
        solver: Arc::new(sampler.solver) as Arc<dyn Solver + Send>,
        lower_order_final: sampler.lower_order_final,
        correction: sampler.correction,
        history: sampler.history,
    };
    let plain = |solver: Arc<dyn Solver + Send>| Multistep::new(solver).with_lower_order_final();
    let unknown = || {
        let allowed =
            "latent, pipeline, ddim, dpm++2m, deis-tab1 to deis-tab4, or unipc-P-bh1 and unipc-P-bh2 of order P";
        Error::parameter("sampler", name, allowed)
    };
    let digits = |text: &str| text.parse::<usize>().map_err(|_| unknown());
    let sampler = match name {
        "latent" => return Ok((any(Variant::Latent.sampler()), Variant::Latent.search())),
        "pipeline" => return Ok((any(Variant::Pipeline.sampler()), Variant::Pipeline.search())),
        "ddim" => plain(Arc::new(Ddim)),
        "dpm++2m" => plain(Arc::new(DpmPlusPlus2M)),
        _ => {
            if let Some(order) = name.strip_prefix("deis-tab") {
                plain(Arc::new(Deis::new(digits(order)?, Basis::Time(schedule.clone()))?))
            } else if let Some((order, bh)) = name.strip_prefix("unipc-").and_then(|rest| rest.split_once('-')) {
                let bh = match bh {
                    "bh1" => Bh::One,
                    "bh2" => Bh::Two,
                    _ => return Err(unknown()),
                };
                plain(Arc::new(UniPc::new(digits(order)?, bh)?))
            } else {
                return Err(unknown());
            }
        }
    };
    Ok((sampler, Search::default()))
}

/// A model with what it may be asked under a condition.
pub(super) enum Choice {
    /// An exact mixture, and the components that meet the condition.
    Mixture {
        /// All components.
        whole: Box<ExactMixture>,
        /// Those of the condition.
        part: Option<Box<ExactMixture>>,
    },
    /// A trained network, and the classes that points are dealt out to in turn.
    Network {
        /// The network.
        network: Network,
        /// Classes; none for the unconditional model.
        classes: Vec<usize>,
    },
}

impl Choice {
    /// The model `name`: `digits`, `mixture`, or a file, an ONNX model as `reading` says. `condition` names components or
    /// classes.
    pub fn open(name: &str, reading: Option<&Reading>, condition: &[usize], streams: Streams) -> Result<Self> {
        match name {
            "digits" => {
                let classes = if condition.is_empty() { (0..10).collect() } else { condition.to_vec() };
                Self::network(Digits8::shipped()?.network, classes)
            }
            "mixture" => {
                let example = Example::new(64, streams.stream("centres"))?;
                let (whole, part) = example.into_parts();
                if condition.is_empty() {
                    Ok(Self::Mixture { whole: Box::new(whole), part: Some(Box::new(part)) })
                } else {
                    Self::mixture(whole.mixture().clone(), condition)
                }
            }
            file => {
                let path = Path::new(file);
                if network::is_model(path) {
                    let network = network::open(path, reading, &Expected::default())?;
                    return Self::network(network, condition.to_vec());
                }
                match path.extension().and_then(|e| e.to_str()) {
                    Some("json") => Self::mixture(Mixture::read(path)?, condition),
                    _ => Err(Error::parameter(
                        "model",
                        file,
                        "digits, mixture, a mixture .json or a network .safetensors or .onnx",
                    )),
                }
            }
        }
    }

    fn mixture(mixture: Mixture, condition: &[usize]) -> Result<Self> {
        let part =
            if condition.is_empty() { None } else { Some(Box::new(ExactMixture::new(mixture.select(condition)?)?)) };
        Ok(Self::Mixture { whole: Box::new(ExactMixture::new(mixture)?), part })
    }

    fn network(network: Network, classes: Vec<usize>) -> Result<Self> {
        // Refuses classes that it does not have, before anything runs.
        network.conditioned(if classes.is_empty() { Labels::None } else { Labels::Each(classes.clone()) })?;
        Ok(Self::Network { network, classes })
    }

    /// Components of a point.
    pub fn dim(&self) -> usize {
        match self {
            Self::Mixture { whole, .. } => whole.dim(),
            Self::Network { network, .. } => network.dim(),
        }
    }

    /// The picture that a point is, if the model knows it to be one.
    pub fn picture(&self) -> Option<Picture> {
        match self {
            Self::Mixture { .. } => None,
            Self::Network { network, .. } => network.picture(),
        }
    }

    /// The model for `n` points with guidance `w`, and with dynamic thresholding for data within ±`limit`.
    pub fn bound(&self, n: usize, w: f64, limit: Option<f64>) -> Result<Box<dyn Denoiser + '_>> {
        match self {
            Self::Mixture { whole, part: Some(part) } => limited(Guidance::new(&**whole, &**part, w)?, limit),
            Self::Network { network, classes } if !classes.is_empty() => {
                let labels = Labels::Each((0..n).map(|i| classes[i % classes.len()]).collect());
                limited(Guidance::new(network.unconditional(), network.conditioned(labels)?, w)?, limit)
            }
            _ if w != 1.0 => Err(Error::parameter(
                "guidance",
                w,
                "1 without a condition: name components or classes with --condition",
            )),
            Self::Mixture { whole, part: None } => limited(&**whole, limit),
            Self::Network { network, .. } => limited(network.unconditional(), limit),
        }
    }
}

fn limited<'a>(model: impl Denoiser + 'a, limit: Option<f64>) -> Result<Box<dyn Denoiser + 'a>> {
    /// The share of coordinates that dynamic thresholding keeps, as published.
    const QUANTILE: f64 = 0.995;
    Ok(match limit {
        Some(limit) => Box::new(Thresholded::new(model, QUANTILE, limit)?),
        None => Box::new(model),
    })
}
