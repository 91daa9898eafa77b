//! Verdicts as a Markdown table, for RESULTS.md.

use offprint_core::table::significant;
use offprint_core::{Paper, Report, Result, Scale, Verdict, artifact};
use std::path::Path;

/// Writes the verdicts of `reports` to `file`.
pub fn write(file: &Path, reports: &[Report], papers: &[Paper]) -> Result<()> {
    let text = markdown(reports, papers);
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

fn markdown(reports: &[Report], papers: &[Paper]) -> String {
    let mut text = String::from(
        "# Results\n\nWhat the papers claim and what was measured. Made by `offprint reproduce --write`; do not edit.\n",
    );
    if let Some(first) = reports.first() {
        let scale = match first.scale.unwrap_or_default() {
            Scale::Quick => "quick (too few repetitions to trust a verdict)",
            Scale::Standard => "standard",
            Scale::Full => "full",
        };
        let machine = &first.machine;
        text += &format!(
            "\nScale: {scale}. Machine: {}, {} threads, {}. Version {}.\n",
            machine.cpu, machine.threads, machine.system, first.version
        );
    }
    for report in reports {
        let Some(card) = papers.iter().map(Paper::card).find(|c| c.slug == report.paper) else { continue };
        text += &format!(
            "\n## {}: {}\n\n{} ({:.0} s, seed {})\n\n",
            card.slug,
            card.title,
            count(report),
            report.seconds,
            report.seed
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
    }
    text
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").split_whitespace().collect::<Vec<_>>().join(" ")
}
