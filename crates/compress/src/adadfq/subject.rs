//! What a run quantises: the user's classifier, or the built-in one.

use super::generator::ImageShape;
use super::normalisation::Normalisation;
use super::params::{AdaDfqParams, numbers};
use super::teacher::Teacher;
use super::train::Problem;
use crate::examples::Example;
use candle_core::{DType, Tensor};
use offprint_core::{Error, Result};
use offprint_nn::data::{labelled, unlabelled};
use offprint_nn::derivatives::Loss;
use offprint_nn::{Batch, Network, Reads};

/// What is quantised, and what it is measured with.
pub(super) struct Subject {
    pub teacher: Teacher,
    pub shape: ImageShape,
    pub normalisation: Normalisation,
    /// Images to measure the accuracy with.
    pub test: Option<Batch>,
    /// Images to train with, for the recipe that does.
    pub real: Option<Tensor>,
    /// Bits unless given.
    pub bits: u32,
}

impl Subject {
    pub fn open(params: &AdaDfqParams) -> Result<Self> {
        let mut subject = match &params.model {
            Some(path) => Self::of_user(params, Network::load(path, params.config.as_deref(), DType::F32)?)?,
            None => Self::builtin()?,
        };
        let classes = subject.teacher.classes();
        if let Some(given) = params.classes.filter(|&given| given != classes) {
            return Err(Error::parameter("classes", given, format!("the {classes} outputs of the model's last layer")));
        }
        let architecture = subject.teacher.network().architecture();
        if !params.data.is_builtin() {
            let targets = params.targets.as_ref();
            subject.test = Some(labelled(architecture, Loss::CrossEntropy, &params.data, targets, DType::F32)?);
        }
        if !params.images.is_builtin() {
            subject.real = Some(unlabelled(architecture, &params.images, DType::F32)?);
        }
        Ok(subject)
    }

    /// The digits, which the network reads as ink from 0 to 1.
    fn builtin() -> Result<Self> {
        let digits = Example::DigitsCnn.load()?;
        Ok(Self {
            teacher: Teacher::new(digits.network)?,
            shape: ImageShape { classes: 10, channels: 1, height: 8, width: 8 },
            normalisation: Normalisation::of(&digits.train.inputs)?,
            test: Some(digits.test),
            real: Some(digits.train.inputs),
            bits: 2,
        })
    }

    fn of_user(params: &AdaDfqParams, network: Network) -> Result<Self> {
        let architecture = network.architecture().clone();
        let Reads::Images { channels, side } = architecture.reads() else {
            return Err(Error::input("model", "does not read images, which is what the generator makes"));
        };
        let height = params.height.or(side);
        let height =
            height.ok_or_else(|| Error::parameter("height", "none", "given: the model reads images of any size"))?;
        let width = params.width.or(side).unwrap_or(height);
        if let Some(side) = side.filter(|&side| (height, width) != (side, side)) {
            return Err(Error::parameter(
                "height",
                height,
                format!("the {side} that the model is made for, as the width"),
            ));
        }
        let list = |name: &str, given: &Option<String>| match given {
            Some(list) => numbers(name, list),
            None => {
                let allowed =
                    "given: what images have as the model reads them (mean 0 and deviation 1 if standardised)";
                Err(Error::parameter(name, "none", allowed))
            }
        };
        let (mean, deviation) = (list("mean", &params.mean)?, list("deviation", &params.deviation)?);
        Ok(Self {
            shape: ImageShape { classes: architecture.outputs(), channels, height, width },
            normalisation: Normalisation::new(channels, &mean, &deviation)?,
            teacher: Teacher::new(network)?,
            test: None,
            real: None,
            bits: 3,
        })
    }

    pub fn problem(&self) -> Problem<'_> {
        Problem {
            teacher: &self.teacher,
            shape: self.shape,
            normalisation: &self.normalisation,
            real: self.real.as_ref(),
        }
    }
}
