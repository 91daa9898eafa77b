//! A run: the only thing between a method and the outside.

use crate::artifact::{Arrays, Artifact, Metadata};
use crate::random::{Stream, Streams};
use crate::report::{Machine, Measured, Metric, Report, Scale};
use crate::{Array, Card, Error, Figure, Progress, Result, Table, Verdict};
use serde::Serialize;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What a method or a study holds while it runs: random streams, progress, and the report it fills.
pub struct Run {
    card: Card,
    report: Report,
    streams: Streams,
    progress: Progress,
    out: Option<PathBuf>,
    kept: Vec<(String, Artifact)>,
    started: Instant,
    claim_started: Instant,
}

impl Run {
    /// A run of the paper with `card`, seed 0, told to nobody, that keeps its files in memory.
    pub fn new(card: &Card) -> Self {
        let now = Instant::now();
        Self {
            card: card.clone(),
            report: Report {
                paper: card.slug.clone(),
                title: card.title.clone(),
                scale: None,
                parameters: Value::Object(serde_json::Map::new()),
                seed: 0,
                version: env!("CARGO_PKG_VERSION"),
                machine: Machine::here(),
                started: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
                seconds: 0.0,
                complete: false,
                metrics: Vec::new(),
                tables: Vec::new(),
                figures: Vec::new(),
                files: Vec::new(),
                claims: Vec::new(),
                warnings: Vec::new(),
            },
            streams: Streams::new(0),
            progress: Progress::silent(),
            out: None,
            kept: Vec::new(),
            started: now,
            claim_started: now,
        }
    }

    /// Sets the seed of all random streams.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.report.seed = seed;
        self.streams = Streams::new(seed);
        self
    }

    /// Makes it the run of a study at `scale`.
    pub fn with_scale(mut self, scale: Scale) -> Self {
        self.report.scale = Some(scale);
        self
    }

    /// Tells progress to somebody, who may stop the run.
    pub fn with_progress(mut self, progress: Progress) -> Self {
        self.progress = progress;
        self
    }

    /// Writes files into `directory` as they come, creating it.
    ///
    /// # Errors
    /// The directory cannot be created or written to.
    pub fn with_out(mut self, directory: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&directory).map_err(|e| Error::file("create", &directory, e))?;
        tempfile::tempfile_in(&directory).map_err(|e| Error::file("write to", &directory, e))?;
        self.out = Some(directory);
        Ok(self)
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.report.seed
    }

    /// The scale of a study.
    pub fn scale(&self) -> Scale {
        self.report.scale.unwrap_or_default()
    }

    /// All random streams of this run's seed.
    pub fn streams(&self) -> Streams {
        self.streams
    }

    /// The random stream called `name`.
    pub fn stream(&self, name: &str) -> Stream {
        self.streams.stream(name)
    }

    /// The handle by which algorithms tell progress and learn that they should stop.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Where files go, if they are written at all.
    pub fn out(&self) -> Option<&Path> {
        self.out.as_deref()
    }

    pub(crate) fn set_parameters(&mut self, parameters: Value) {
        self.report.parameters = parameters;
    }

    /// Reports a number with its unit ("" for pure numbers). A second one of the same name replaces the first.
    pub fn metric(&mut self, name: &str, value: f64, unit: &str) {
        let metric = Metric { name: name.into(), value, unit: unit.into() };
        match self.report.metrics.iter_mut().find(|m| m.name == name) {
            Some(slot) => *slot = metric,
            None => self.report.metrics.push(metric),
        }
    }

    /// Reports a table and saves it as `<name>.csv`.
    pub fn table(&mut self, table: Table) -> Result<()> {
        if !table.is_rectangular() {
            return Err(self.defect(format!("table \"{}\" has columns of different lengths", table.name)));
        }
        self.keep(&format!("{}.csv", table.name), Artifact::Text(table.to_csv()))?;
        self.report.tables.retain(|t| t.name != table.name);
        self.report.tables.push(table);
        Ok(())
    }

    /// Reports a figure. `name` becomes its file's stem.
    pub fn figure(&mut self, name: &str, figure: Figure) {
        self.report.figures.retain(|(n, _)| n != name);
        self.report.figures.push((name.into(), figure));
    }

    /// Saves an array as `.npy`.
    pub fn save_array(&mut self, name: &str, array: impl Into<Array>) -> Result<()> {
        self.keep(name, Artifact::Array(array.into()))
    }

    /// Saves named arrays as `.npz`, or as `.safetensors` with words beside them.
    pub fn save_arrays(&mut self, name: &str, arrays: Arrays, metadata: Metadata) -> Result<()> {
        self.keep(name, Artifact::Arrays(arrays, metadata))
    }

    /// Saves plain data as JSON.
    pub fn save_json(&mut self, name: &str, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(value).map_err(|e| self.defect(format!("{name}: {e}")))?;
        self.keep(name, Artifact::Text(text + "\n"))
    }

    /// Saves a table as `.csv` without showing it in the report: long lists.
    pub fn save_table(&mut self, name: &str, table: &Table) -> Result<()> {
        self.keep(name, Artifact::Text(table.to_csv()))
    }

    /// Tells the user something to know before trusting the numbers, now and in the report.
    pub fn warn(&mut self, words: impl Into<String>) {
        let words = words.into();
        self.progress.warn(&words);
        self.report.warnings.push(words);
    }

    /// Reports the number measured for the claim `id` of the card.
    ///
    /// # Errors
    /// The card has no such claim, or it was measured before.
    pub fn claim(&mut self, id: &str, measured: f64, how: impl Into<String>) -> Result<()> {
        let condition = self.unmeasured(id)?;
        let verdict = if condition.is_met_by(measured) { Verdict::Holds } else { Verdict::FallsShort };
        self.record(id, Some(measured), verdict, how.into())
    }

    /// Reports that the claim `id` of the card was not measured, and why.
    ///
    /// # Errors
    /// The card has no such claim, or it was measured before.
    pub fn not_measured(&mut self, id: &str, why: impl Into<String>) -> Result<()> {
        self.unmeasured(id)?;
        self.record(id, None, Verdict::NotMeasured, why.into())
    }

    fn unmeasured(&self, id: &str) -> Result<crate::Condition> {
        let claim = self.card.claim(id).ok_or_else(|| self.defect(format!("the card has no claim \"{id}\"")))?;
        if self.report.claims.iter().any(|c| c.id == id) {
            return Err(self.defect(format!("claim \"{id}\" is measured twice")));
        }
        Ok(claim.holds_if)
    }

    fn record(&mut self, id: &str, measured: Option<f64>, verdict: Verdict, why: String) -> Result<()> {
        let holds_if = self.card.claim(id).expect("looked up by the caller").holds_if;
        let seconds = self.claim_started.elapsed().as_secs_f64();
        self.claim_started = Instant::now();
        self.report.claims.push(Measured { id: id.into(), measured, holds_if, verdict, why, seconds });
        // A study runs for minutes: what is measured is kept, whatever happens next.
        self.write_report()
    }

    fn keep(&mut self, name: &str, artifact: Artifact) -> Result<()> {
        match &self.out {
            Some(out) => artifact.write(&out.join(name))?,
            None => {
                self.kept.retain(|(n, _)| n != name);
                self.kept.push((name.into(), artifact));
            }
        }
        if !self.report.files.iter().any(|f| f == name) {
            self.report.files.push(name.into());
        }
        Ok(())
    }

    fn write_report(&mut self) -> Result<()> {
        self.report.seconds = self.started.elapsed().as_secs_f64();
        let Some(out) = &self.out else { return Ok(()) };
        let text = serde_json::to_string_pretty(&self.report.to_json(None)).expect("a report is plain data");
        Artifact::Text(text + "\n").write(&out.join("report.json"))
    }

    fn defect(&self, problem: String) -> Error {
        Error::Paper { paper: self.card.slug.clone(), problem }
    }

    /// Ends the run: writes `report.json` and gives the report, with the files if they were kept in memory.
    /// `complete` tells whether the method came to its end.
    pub fn finish(mut self, complete: bool) -> Result<(Report, Vec<(String, Artifact)>)> {
        self.report.complete = complete;
        self.write_report()?;
        Ok((self.report, self.kept))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card() -> Card {
        let claim = |id: &str| {
            format!(
                "[[claim]]\nid=\"{id}\"\nsays=\"s\"\npaper_value=\"1\"\nwhere=\"Thm 1\"\nmeasures=\"m\"\nholds_if=\">= 1\"\n"
            )
        };
        let head = "slug=\"p\"\ntitle=\"t\"\nauthors=[\"a\"]\nvenue=\"v\"\nyear=2020\narxiv=\"\"\nfield=\"f\"\nsummary=\"s\"\ntags=[]\ncode={url=\"\",licence=\"MIT\"}\n";
        Card::parse(&format!("{head}{}{}{}", claim("a"), claim("b"), claim("c"))).unwrap()
    }

    #[test]
    fn verdicts_follow_the_card() {
        let mut run = Run::new(&card());
        run.claim("a", 1.0, "").unwrap();
        run.claim("b", f64::NAN, "").unwrap();
        run.not_measured("c", "needs a GPU").unwrap();
        assert!(run.claim("a", 1.0, "").is_err());
        assert!(run.claim("z", 1.0, "").is_err());
        let (report, _) = run.finish(true).unwrap();
        let verdicts: Vec<_> = report.claims.iter().map(|c| c.verdict).collect();
        assert_eq!(verdicts, [Verdict::Holds, Verdict::FallsShort, Verdict::NotMeasured]);
    }

    #[test]
    fn files_go_to_the_directory_or_stay_in_memory() {
        let mut run = Run::new(&card());
        run.save_array("a.npy", vec![1.0]).unwrap();
        let (report, kept) = run.finish(true).unwrap();
        assert_eq!((report.files, kept.len()), (vec!["a.npy".to_owned()], 1));

        let directory = tempfile::tempdir().unwrap();
        let mut run = Run::new(&card()).with_out(directory.path().join("deep/er")).unwrap();
        run.table(Table::new("t", "").numbers("x", "s", [1.0])).unwrap();
        run.finish(true).unwrap();
        let mut names: Vec<_> =
            std::fs::read_dir(directory.path().join("deep/er")).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["report.json", "t.csv"]);
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_an_error_that_names_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let Err(error) = Run::new(&card()).with_out(file.path().join("out")) else { panic!("no error") };
        assert!(error.to_string().starts_with("cannot create"));
        assert_eq!(error.exit_code(), 4);
    }
}
