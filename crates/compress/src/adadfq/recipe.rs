//! Which images a network is quantised with, and what it learns from them.

use super::losses::GeneratorLoss;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A way to quantise, ours and those it is measured against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Recipe {
    /// The paper's: a generator that plays against the quantised network
    AdaDfq,
    /// A generator that knows the float network only (GDFQ)
    Gdfq,
    /// Distillation on Gaussian noise
    Noise,
    /// Distillation on real images: the ceiling
    Real,
    /// Ranges from the paper's generator, nothing trained
    Calibration,
    /// Ranges from Gaussian noise, nothing trained
    NoiseCalibration,
    /// Ranges from images made to meet the batch norm statistics, nothing trained (as ZeroQ)
    Distilled,
}

/// Where images come from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Images {
    /// A generator trained on this.
    Generated(GeneratorGoal),
    Noise,
    Real,
    Distilled,
}

/// What a generator is trained for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum GeneratorGoal {
    /// Samples between agreement and disagreement.
    Adaptable,
    /// Samples that the float network recognises: CE(P, y) + 0.1 L_BNS.
    Recognised,
}

/// What the quantised network is trained for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lesson {
    /// Nothing.
    None,
    /// To differ from P by a constant only.
    Agreement,
    /// To give P's soft outputs.
    Distillation,
    /// To give P's soft outputs and the label.
    LabelsToo,
}

impl Recipe {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 7] =
        [Self::AdaDfq, Self::Gdfq, Self::Noise, Self::Real, Self::Calibration, Self::NoiseCalibration, Self::Distilled];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::AdaDfq => "AdaDFQ",
            Self::Gdfq => "GDFQ",
            Self::Noise => "noise, distillation",
            Self::Real => "real images, distillation",
            Self::Calibration => "calibration only",
            Self::NoiseCalibration => "noise, calibration only",
            Self::Distilled => "distilled images, calibration only",
        }
    }

    pub(super) fn images(self) -> Images {
        match self {
            Self::AdaDfq | Self::Calibration => Images::Generated(GeneratorGoal::Adaptable),
            Self::Gdfq => Images::Generated(GeneratorGoal::Recognised),
            Self::Noise | Self::NoiseCalibration => Images::Noise,
            Self::Real => Images::Real,
            Self::Distilled => Images::Distilled,
        }
    }

    pub(super) fn lesson(self) -> Lesson {
        match self {
            Self::AdaDfq => Lesson::Agreement,
            Self::Gdfq => Lesson::LabelsToo,
            Self::Noise | Self::Real => Lesson::Distillation,
            Self::Calibration | Self::NoiseCalibration | Self::Distilled => Lesson::None,
        }
    }

    /// Whether batch norm statistics are needed, with the weights of `loss`.
    pub fn needs_statistics(self, loss: &GeneratorLoss) -> bool {
        match self.images() {
            Images::Generated(GeneratorGoal::Adaptable) => loss.statistics > 0.0,
            Images::Generated(GeneratorGoal::Recognised) | Images::Distilled => true,
            Images::Noise | Images::Real => false,
        }
    }
}
