//! Models and rewards from files.

use super::{Density, Expert, KernelDensity, Linear, Observation, Reward};
use crate::denoiser::needs_gaussian;
use crate::exact::{ExactMixture, Mixture};
use crate::network::{self, Expected, Labels, Network, Reading};
use crate::{Denoiser, check};
use ndarray::{Array1, Array2, ArrayView2};
use offprint_core::{Error, Result, Source};
use serde::Deserialize;
use std::path::Path;

/// A model that a user brings.
pub enum Loaded {
    /// With its density: a mixture, or a kernel density over points.
    Known(Box<dyn Density>),
    /// Of which the score is all that is known: a network.
    Score(Box<Bound>),
}

impl Loaded {
    /// The model as a factor of a product.
    pub fn expert(&self, exponent: f64) -> Result<Expert<'_>> {
        match self {
            Self::Known(model) => Expert::known(&**model, exponent),
            Self::Score(model) => Expert::new(&**model, exponent),
        }
    }

    /// The model with its density.
    ///
    /// # Errors
    /// If it has none; `what` says what needs it.
    pub fn density(&self, what: &str) -> Result<&dyn Density> {
        match self {
            Self::Known(model) => Ok(&**model),
            Self::Score(_) => Err(Error::parameter("model", "a network", format!("a mixture or points: {what}"))),
        }
    }

    /// The largest standard deviation of a coordinate of the data; 0 where it is not known.
    pub fn spread(&self) -> f64 {
        match self {
            Self::Known(model) => model.spread(),
            Self::Score(_) => 0.0,
        }
    }

    /// The highest noise level at which it can be asked.
    pub fn highest(&self) -> f64 {
        match self {
            Self::Known(_) => f64::INFINITY,
            Self::Score(model) => model.network.highest(),
        }
    }

    /// Components d of a point.
    pub fn dim(&self) -> usize {
        match self {
            Self::Known(model) => model.dim(),
            Self::Score(model) => model.dim(),
        }
    }
}

/// A network with its class bound.
pub struct Bound {
    network: Network,
    labels: Labels,
}

impl Bound {
    /// `network` given `class`, or without one.
    ///
    /// # Errors
    /// A class that the network does not have; noise that is not Gaussian.
    pub fn new(network: Network, class: Option<usize>) -> Result<Self> {
        let labels = class.map_or(Labels::None, Labels::All);
        needs_gaussian("a product of experts", network.conditioned(labels.clone())?.kernel())?;
        Ok(Self { network, labels })
    }
}

impl Denoiser for Bound {
    fn dim(&self) -> usize {
        self.network.dim()
    }

    fn denoise(&self, y: ArrayView2<'_, f64>, tau: f64) -> Result<Array2<f64>> {
        self.network.conditioned(self.labels.clone())?.denoise(y, tau)
    }
}

/// Whether the source is a network, whose class may be chosen.
pub fn is_network(source: &Source) -> bool {
    source.path().is_some_and(network::is_model)
}

/// Reads a model: a mixture from `.json`, a network from `.safetensors` or `.onnx` (as `reading` says; given `class`, if
/// there is one), a kernel density over the points (one a row) of any other source. The bandwidth is Scott's unless given.
pub fn read(
    source: &Source,
    reading: Option<&Reading>,
    bandwidth: Option<f64>,
    class: Option<usize>,
) -> Result<Loaded> {
    let name = source.to_string();
    match source.path() {
        Some(path) if ending(path) == "json" => {
            let mixture = Mixture::read(path)?;
            Ok(Loaded::Known(Box::new(ExactMixture::new(mixture)?)))
        }
        Some(path) if network::is_model(path) => {
            let expected = Expected { conditional: class.is_some(), ..Expected::default() };
            let network = network::open(path, reading, &expected)?;
            Ok(Loaded::Score(Box::new(Bound::new(network, class)?)))
        }
        _ => {
            let points = source.points()?.values;
            let bandwidth = bandwidth.unwrap_or_else(|| KernelDensity::scott(points.view()));
            if bandwidth == 0.0 {
                return Err(Error::input(name, "has points that do not differ: a bandwidth must be given"));
            }
            Ok(Loaded::Known(Box::new(KernelDensity::new(points, bandwidth)?)))
        }
    }
}

fn ending(path: &Path) -> String {
    path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).unwrap_or_default()
}

fn text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| Error::file("read", path, e))
}

/// Rows of equal length.
fn table(what: &str, rows: &[Vec<f64>]) -> Result<Array2<f64>, String> {
    let d = rows.first().map_or(0, Vec::len);
    if d == 0 {
        return Err(format!("has no {what}"));
    }
    if let Some((i, row)) = rows.iter().enumerate().find(|(_, row)| row.len() != d) {
        return Err(format!("row {i} of {what} has {} entries, the first has {d}", row.len()));
    }
    Ok(Array2::from_shape_fn((rows.len(), d), |(i, j)| rows[i][j]))
}

/// A reward as it stands in a file.
#[derive(Deserialize)]
#[serde(untagged)]
enum RewardFile {
    Linear(LinearFile),
    Observation(ObservationFile),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LinearFile {
    linear: Vec<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ObservationFile {
    matrix: Vec<Vec<f64>>,
    values: Vec<f64>,
    deviation: f64,
}

/// The reward in the `.json` file at `path`: {"linear": a} for a·x, or {"matrix": A, "values": b, "deviation": s} for
/// −|A x − b|²/(2 s²).
pub fn read_reward(path: &Path) -> Result<Box<dyn Reward>> {
    reward(&text(path)?, &path.display().to_string())
}

/// The reward in `text`; `name` is told in errors.
pub fn reward(text: &str, name: &str) -> Result<Box<dyn Reward>> {
    let bad = |problem: String| Error::input(name, problem);
    let file: RewardFile = serde_json::from_str(text).map_err(|_| {
        bad("is no reward {\"linear\": [..]} or {\"matrix\": [[..], ..], \"values\": [..], \"deviation\": s}".into())
    })?;
    let named = |e: Error| bad(e.to_string());
    Ok(match file {
        RewardFile::Linear(file) => {
            let direction = table("linear", &[file.linear]).map_err(&bad)?;
            check::rows("linear", direction.view()).map_err(named)?;
            Box::new(Linear::new(direction.row(0).to_owned()).map_err(named)?)
        }
        RewardFile::Observation(file) => {
            let matrix = table("matrix", &file.matrix).map_err(&bad)?;
            Box::new(Observation::new(matrix, Array1::from(file.values), file.deviation).map_err(named)?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_rewards_say_what_is_wrong() {
        let message = |text: &str| reward(text, "r.json").err().unwrap().to_string();
        assert!(message("{}").contains("no reward") && message(r#"{"linear": []}"#).contains("has no linear"));
        let text = r#"{"matrix": [[1, 2]], "values": [1], "deviation": 0}"#;
        assert!(message(text).contains("deviation"));
    }
}
