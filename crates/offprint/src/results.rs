//! Verdicts as a Markdown table, for RESULTS.md.

use offprint_core::table::significant;
use offprint_core::{Card, Error, Paper, Report, Result, Scale, Verdict, artifact};
use std::io::ErrorKind;
use std::path::Path;

/// What stands above all sections.
const TITLE: &str =
    "# Results\n\nWhat the papers claim and what was measured. Made by `offprint reproduce --write`; do not edit.\n";

/// Writes the verdicts of `reports` to `file`, a section a paper in the order of `papers`. Sections of other papers that
/// the file already has stay.
pub fn write(file: &Path, reports: &[Report], papers: &[Paper]) -> Result<()> {
    let before = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => return Err(Error::file("read", file, error)),
    };
    let mut text = TITLE.to_owned();
    for card in papers.iter().map(Paper::card) {
        let heading = format!("\n## {}: ", card.slug);
        if let Some(report) = reports.iter().find(|report| report.paper == card.slug) {
            text += &section(report, card);
        } else if let Some(start) = before.find(&heading) {
            let rest = &before[start..];
            text += &rest[..rest[1..].find("\n## ").map_or(rest.len(), |end| end + 1)];
        }
    }
    artifact::write_whole(file, |out| out.write_all(text.as_bytes()))
}

/// The verdicts of a report in words: "7 hold, 1 falls short, 1 not measured".
pub fn count(report: &Report) -> String {
    let of = |verdict| report.claims.iter().filter(|c| c.verdict == verdict).count();
    let (holds, short, not) = (of(Verdict::Holds), of(Verdict::FallsShort), of(Verdict::NotMeasured));
    format!(
        "{holds} {}, {short} {} short, {not} not measured",
        if holds == 1 { "holds" } else { "hold" },
        if short == 1 { "falls" } else { "fall" }
    )
}

fn section(report: &Report, card: &Card) -> String {
    let machine = &report.machine;
    let mut text = format!(
        "\n## {}: {}\n\n{} ({}, seed {}, {:.0} s; {}, {} threads, {}, version {})\n\n",
        card.slug,
        card.title,
        count(report),
        match report.scale.unwrap_or_default() {
            Scale::Quick => "quick scale: too few repetitions to trust a verdict",
            Scale::Standard => "standard scale",
            Scale::Full => "full scale",
        },
        report.seed,
        report.seconds,
        machine.cpu,
        machine.threads,
        machine.system,
        report.version
    );
    text += "| claim | paper | measured | holds if | verdict |\n| --- | --- | --- | --- | --- |\n";
    for measured in &report.claims {
        let Some(claim) = card.claim(&measured.id) else { continue };
        let value = measured.measured.map_or("—".into(), |x| significant(x, 4));
        let unit = if claim.unit.is_empty() || measured.measured.is_none() {
            String::new()
        } else {
            format!(" {}", claim.unit)
        };
        let cells = [
            format!("{} ({}). *{}*", claim.says.trim_end_matches('.'), claim.place, claim.measures),
            claim.paper_value.clone(),
            format!("{value}{unit}"),
            measured.holds_if.to_string(),
            if measured.why.is_empty() {
                measured.verdict.to_string()
            } else {
                format!("**{}**: {}", measured.verdict, measured.why)
            },
        ];
        text += &format!("| {} |\n", cells.map(|c| cell(&c)).join(" | "));
    }
    text
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").split_whitespace().collect::<Vec<_>>().join(" ")
}
