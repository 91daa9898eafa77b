//! What a run has to tell: the same report is shown in the terminal, as a page, in Python and on the web.

use crate::{Condition, Figure, Table, Verdict};
use serde::Serialize;
use serde::ser::SerializeMap;
use serde_json::{Value, json};
use std::path::Path;

/// The report of one run of a method or a study.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The paper's slug.
    pub paper: String,
    /// The paper's title.
    pub title: String,
    /// How large the study was; `None` for a run of the method.
    pub scale: Option<Scale>,
    /// The parameters as given and by default.
    pub parameters: Value,
    /// The seed of all random streams.
    pub seed: u64,
    /// Version of Offprint.
    pub version: &'static str,
    /// The machine it ran on.
    pub machine: Machine,
    /// When it started (UTC, RFC 3339).
    pub started: String,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Whether it came to its end, rather than being stopped.
    pub complete: bool,
    /// Single numbers with their units, in the order they were found.
    #[serde(serialize_with = "as_map")]
    pub metrics: Vec<Metric>,
    /// Tables.
    pub tables: Vec<Table>,
    /// Figures as data, by name; files carry them as SVG and PNG.
    #[serde(skip)]
    pub figures: Vec<(String, Figure)>,
    /// Names of the data files, relative to the run's directory.
    pub files: Vec<String>,
    /// Claims measured, for a study.
    pub claims: Vec<Measured>,
    /// What the user should know before trusting the numbers.
    pub warnings: Vec<String>,
}

/// A single number that a run found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Metric {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: f64,
    /// Its unit; empty for pure numbers.
    pub unit: String,
}

/// A claim after its measurement.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measured {
    /// The claim's id on the card.
    pub id: String,
    /// The number measured; `None` if it was not.
    pub measured: Option<f64>,
    /// The condition on the card.
    pub holds_if: Condition,
    /// What the number says about the claim.
    pub verdict: Verdict,
    /// How it was measured, or why it was not.
    pub why: String,
    /// Seconds the measurement took.
    pub seconds: f64,
}

/// How large a study is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scale {
    /// Seconds: shows that every claim can be measured; too few repetitions to trust a verdict.
    Quick,
    /// Minutes on two cores: the smallest faithful experiments.
    #[default]
    Standard,
    /// The published size, where that is larger.
    Full,
}

impl Scale {
    /// The value for this scale.
    pub fn pick<T>(self, quick: T, standard: T, full: T) -> T {
        match self {
            Self::Quick => quick,
            Self::Standard => standard,
            Self::Full => full,
        }
    }
}

/// The machine a report was made on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Machine {
    /// Operating system and architecture.
    pub system: String,
    /// The processor's name.
    pub cpu: String,
    /// Hardware threads available to the process.
    pub threads: usize,
    /// Memory in GiB, if the system tells.
    pub memory_gib: Option<f64>,
}

impl Machine {
    /// This machine.
    pub fn here() -> Self {
        let field = |file: &str, key: &str| {
            let text = std::fs::read_to_string(file).ok()?;
            let line = text.lines().find(|l| l.starts_with(key))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let kib = field("/proc/meminfo", "MemTotal").and_then(|m| m.split(' ').next()?.parse::<f64>().ok());
        Self {
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".into()),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: kib.map(|k| (k / 1024.0 / 1024.0 * 10.0).round() / 10.0),
        }
    }
}

impl Report {
    /// The metric called `name`.
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.metrics.iter().find(|m| m.name == name).map(|m| m.value)
    }

    /// The report as JSON with the paths of its figures and files under `directory`, and `out` = that directory.
    pub fn to_json(&self, directory: Option<&Path>) -> Value {
        let place = |name: String| directory.map_or(name.clone(), |d| d.join(&name).display().to_string());
        let mut value = serde_json::to_value(self).expect("a report is plain data");
        value["figures"] = self.figures.iter().map(|(name, _)| place(format!("figures/{name}.svg"))).collect();
        value["files"] = self.files.iter().cloned().map(place).collect();
        value["out"] = directory.map_or(Value::Null, |d| json!(d.display().to_string()));
        value
    }
}

fn as_map<S: serde::Serializer>(metrics: &[Metric], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(metrics.len()))?;
    for m in metrics {
        map.serialize_entry(&m.name, &json!({ "value": m.value, "unit": m.unit }))?;
    }
    map.end()
}
