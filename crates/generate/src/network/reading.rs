//! What a model from elsewhere means by its inputs and outputs, in one line of words.

use super::clock::Clock;
use super::model::Target;
use crate::{Path, Prediction, Schedule, check};
use offprint_core::{Error, Result};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// How an ONNX model is read: words `key=value`, separated by commas.
///
/// | key | value |
/// | --- | --- |
/// | `predicts` | `eps`, `x0`, `v`, `score`, `velocity`, or `edm` for a bare network F with D = c_skip y + c_out F(c_in y) |
/// | `schedule` | `vp-linear`, `vp-discrete` (DDPM's table), `scaled-linear`, `cosine`, `edm`, `rectified`, `trig` |
/// | `time` | `t`, `1-t`, `1000t`, `index`, `sigma`, `log-sigma`, `log-sigma/4`, `250log-sigma` ([`Clock`]) |
/// | `shape` | shape of a point where the file leaves it open: `64`, `3x32x32` |
/// | `classes` | number of classes, for labels that are numbers; the number after the last class stands for none |
/// | `sigma-data` | deviation of the data for `edm`, ½ by default |
/// | `added` | D of PFGM++, for Student's noise on the path `edm` |
/// | `x`, `level`, `class` | names of the inputs, where neither name nor order tells them |
///
/// Without `schedule` it is `edm`; without `time` it is the schedule's usual one: `sigma` for `edm`, `log-sigma/4` for
/// `predicts=edm`, `index` for tables, `t` for others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reading {
    /// What its outputs mean.
    pub target: Target,
    /// The path it was trained on.
    pub path: Path,
    /// How it is told the noise level.
    pub clock: Clock,
    /// The shape of a point.
    pub shape: Option<Vec<usize>>,
    /// Classes of labels that are numbers.
    pub classes: Option<usize>,
    /// Names of the inputs for points, level and class.
    pub inputs: [Option<String>; 3],
    text: String,
}

const KEYS: [&str; 10] =
    ["predicts", "schedule", "time", "shape", "classes", "sigma-data", "added", "x", "level", "class"];

impl FromStr for Reading {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut given: [Option<&str>; KEYS.len()] = [None; KEYS.len()];
        for word in text.split(',') {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            let known = KEYS.iter().position(|k| *k == key.trim()).filter(|_| !value.trim().is_empty());
            let Some(at) = known else {
                let allowed = format!("key=value with a key of {}", KEYS.join(", "));
                return Err(Error::parameter("onnx", format!("\"{word}\""), allowed));
            };
            given[at] = Some(value.trim());
        }
        let [predicts, schedule, time, shape, classes, sigma_data, added, x, level, class] = given;
        let target = target(predicts, sigma_data)?;
        let schedule = schedule_named(schedule.unwrap_or("edm"))?;
        let usual = match (&target, &schedule) {
            (Target::Preconditioned { .. }, _) => Clock::QuarterLogSigma,
            (_, Schedule::Edm) => Clock::Sigma,
            (_, Schedule::VpDiscrete(_)) => Clock::Index,
            _ => Clock::Time,
        };
        let clock = time.map_or(Ok(usual), str::parse)?;
        let path = match added {
            None => Path::Gaussian(schedule),
            Some(_) if schedule != Schedule::Edm => {
                return Err(Error::parameter("schedule", schedule.name(), "edm with added dimensions"));
            }
            Some(d) => Path::student_t(number("added", d)?)?,
        };
        let shape = shape.map(|shape| shape.split('x').map(|n| number("shape", n)).collect()).transpose()?;
        if shape.iter().flatten().any(|&n: &usize| n == 0) {
            return Err(Error::parameter("shape", "0", "positive numbers, as 3x32x32"));
        }
        Ok(Self {
            target,
            path,
            clock,
            shape,
            classes: classes.map(|n| number("classes", n)).transpose()?,
            inputs: [x, level, class].map(|name| name.map(str::to_owned)),
            text: text.to_owned(),
        })
    }
}

fn number<T: FromStr>(key: &str, text: &str) -> Result<T> {
    text.parse().map_err(|_| Error::parameter(key, format!("\"{text}\""), "a number"))
}

fn target(predicts: Option<&str>, sigma_data: Option<&str>) -> Result<Target> {
    let sigma_data = sigma_data.map(|s| number("sigma-data", s)).transpose()?;
    let kind = match predicts {
        Some("edm") => {
            let sigma_data = sigma_data.unwrap_or(0.5);
            check::positive("sigma-data", sigma_data)?;
            return Ok(Target::Preconditioned { sigma_data });
        }
        Some("eps") => Prediction::Eps,
        Some("x0") => Prediction::X0,
        Some("v") => Prediction::V,
        Some("score") => Prediction::Score,
        Some("velocity") => Prediction::Velocity,
        other => {
            let allowed = "one of eps, x0, v, score, velocity, edm, as in predicts=eps";
            return Err(Error::parameter("predicts", other.unwrap_or("nothing"), allowed));
        }
    };
    match sigma_data {
        Some(given) => Err(Error::parameter("sigma-data", given, "left out unless predicts=edm")),
        None => Ok(Target::Plain(kind)),
    }
}

fn schedule_named(name: &str) -> Result<Schedule> {
    Ok(match name {
        "vp-linear" => Schedule::vp_linear(),
        "vp-discrete" => Schedule::ddpm(),
        "scaled-linear" => Schedule::scaled_linear(),
        "cosine" => Schedule::cosine(1000, 0.999)?,
        "edm" => Schedule::Edm,
        "rectified" => Schedule::Rectified,
        "trig" => Schedule::Trigonometric,
        _ => {
            let allowed = "one of vp-linear, vp-discrete, scaled-linear, cosine, edm, rectified, trig";
            return Err(Error::parameter("schedule", name, allowed));
        }
    })
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Reading {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Reading> for String {
    fn from(reading: Reading) -> Self {
        reading.text
    }
}

impl JsonSchema for Reading {
    fn schema_name() -> Cow<'static, str> {
        "Reading".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_their_usual_company() {
        let read = |text: &str| text.parse::<Reading>().unwrap();
        assert_eq!(read("predicts=eps,schedule=scaled-linear").clock, Clock::Index);
        assert_eq!(read("predicts=x0").clock, Clock::Sigma);
        assert_eq!(read("predicts=edm").target, Target::Preconditioned { sigma_data: 0.5 });
        let flow = read("predicts=velocity, schedule=rectified, time=1-t, shape=3x8x8, classes=10, level=when");
        assert_eq!((flow.clock, flow.shape, flow.classes), (Clock::Reversed, Some(vec![3, 8, 8]), Some(10)));
        assert_eq!(flow.inputs[1].as_deref(), Some("when"));
        assert_eq!(read("predicts=x0,added=128").path, Path::StudentT { freedom: 128.0 });
    }

    #[test]
    fn wrong_words_are_named() {
        let message = |text: &str| text.parse::<Reading>().unwrap_err().to_string();
        assert!(message("predict=eps").contains("\"predict=eps\"") && message("predicts=").contains("key=value"));
        assert!(message("schedule=edm").contains("predicts: got nothing"));
        assert!(message("predicts=noise").contains("eps, x0"));
        assert!(message("predicts=eps,schedule=linear").contains("vp-linear"));
        assert!(message("predicts=eps,time=step").contains("log-sigma/4"));
        assert!(
            message("predicts=eps,shape=8by8").contains("\"8by8\"")
                && message("predicts=eps,shape=0").contains("shape")
        );
        assert!(
            message("predicts=eps,sigma-data=1").contains("edm")
                && message("predicts=edm,sigma-data=-1").contains("-1")
        );
        assert!(
            message("predicts=x0,added=0").contains("D") && message("predicts=v,schedule=trig,added=3").contains("edm")
        );
    }
}
