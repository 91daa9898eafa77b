//! The number by which a network is told the noise level.

use crate::{Prediction, Schedule};
use offprint_core::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What stands at a network's input for time. σ is the noise-to-signal ratio, for EDM's path the deviation of the noise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Clock {
    /// The schedule's time t, from the data at 0.
    #[serde(rename = "t")]
    Time,
    /// 1 − t, time as flow matching counts it: from the noise at 0 to the data at 1. A velocity then points to the data.
    #[serde(rename = "1-t")]
    Reversed,
    /// 1000 t.
    #[serde(rename = "1000t")]
    Thousandths,
    /// The number of the step in the schedule's table, from 0: N t − 1, with N = 1000 where there is no table.
    #[serde(rename = "index")]
    Index,
    /// σ.
    #[serde(rename = "sigma")]
    Sigma,
    /// ln σ.
    #[serde(rename = "log-sigma")]
    LogSigma,
    /// ln(σ)/4, EDM's.
    #[serde(rename = "log-sigma/4")]
    QuarterLogSigma,
    /// 250 ln σ: EDM's in the units of table steps, for embeddings that are made for these.
    #[serde(rename = "250log-sigma")]
    LogSigmaSteps,
}

const ALL: [Clock; 8] = [
    Clock::Time,
    Clock::Reversed,
    Clock::Thousandths,
    Clock::Index,
    Clock::Sigma,
    Clock::LogSigma,
    Clock::QuarterLogSigma,
    Clock::LogSigmaSteps,
];

impl Clock {
    /// The number at time `t` of `schedule`, where σ is `tau`.
    pub fn read(self, schedule: &Schedule, t: f64, tau: f64) -> f64 {
        match self {
            Self::Time => t,
            Self::Reversed => 1.0 - t,
            Self::Thousandths => 1000.0 * t,
            Self::Index => schedule.entries().unwrap_or(1000) as f64 * t - 1.0,
            Self::Sigma => tau,
            Self::LogSigma => tau.ln(),
            Self::QuarterLogSigma => 0.25 * tau.ln(),
            Self::LogSigmaSteps => 250.0 * tau.ln(),
        }
    }

    /// Whether it depends on the schedule's time, and not on σ alone.
    pub(super) fn needs_time(self) -> bool {
        matches!(self, Self::Time | Self::Reversed | Self::Thousandths | Self::Index)
    }

    /// +1, or −1 for a prediction that changes its sign because this time runs to the data.
    pub(super) fn sign(self, kind: Prediction) -> f64 {
        if self == Self::Reversed && kind == Prediction::Velocity { -1.0 } else { 1.0 }
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Time => "t",
            Self::Reversed => "1-t",
            Self::Thousandths => "1000t",
            Self::Index => "index",
            Self::Sigma => "sigma",
            Self::LogSigma => "log-sigma",
            Self::QuarterLogSigma => "log-sigma/4",
            Self::LogSigmaSteps => "250log-sigma",
        })
    }
}

impl FromStr for Clock {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let names = || ALL.map(|clock| clock.to_string()).join(", ");
        let found = ALL.into_iter().find(|clock| clock.to_string() == text);
        found.ok_or_else(|| Error::parameter("time", text, format!("one of {}", names())))
    }
}
