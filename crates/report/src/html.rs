//! The report of a run as one HTML page that needs nothing from outside.

use crate::layout::{self, Setting};
use crate::motion::{Motion, motion};
use crate::text;
use crate::ticks::number;
use askama::Template;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use offprint_core::table::Values;
use offprint_core::{Card, Error, Report, Result, Scale, Table, Verdict};
use serde_json::Value;
use std::fmt::Write;

/// Rows shown of a table.
const ROWS: usize = 50;
/// Figures with a larger SVG are not drawn a second time for telephones.
const LARGE: usize = 400_000;

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    slug: &'a str,
    title: &'a str,
    authors: String,
    venue: String,
    summary: &'a str,
    kind: &'static str,
    started: &'a str,
    when: String,
    arxiv: Option<Link>,
    code: Option<Link>,
    complete: bool,
    warnings: &'a [String],
    metrics: Vec<Tile>,
    claims: Vec<Verdicts>,
    tally: String,
    figures: Vec<Drawing>,
    tables: Vec<Sheet>,
    notes: Vec<&'a str>,
    command: Option<String>,
    facts: Vec<(String, String)>,
    files: Vec<Link>,
    version: &'a str,
    machine: String,
    regular: String,
    semibold: String,
}

struct Link {
    href: String,
    text: String,
}

struct Tile {
    name: String,
    value: String,
    unit: String,
    exact: String,
}

struct Verdicts {
    class: &'static str,
    sign: &'static str,
    verdict: String,
    says: String,
    measures: String,
    measured: String,
    holds_if: String,
    paper_value: String,
    place: String,
    why: String,
    took: String,
}

struct Drawing {
    title: String,
    caption: String,
    wide: String,
    narrow: Option<String>,
    /// The animation and its still for readers who want no motion, as addresses that hold their data.
    motion: Option<(String, String)>,
    href: String,
}

struct Cell {
    text: String,
    number: bool,
}

struct Sheet {
    name: String,
    caption: String,
    heads: Vec<Cell>,
    rows: Vec<Vec<Cell>>,
    extent: String,
    href: String,
}

/// The report as a page. `notes`, if any, are plain text: paragraphs parted by blank lines.
///
/// Links to files are relative to the run's directory, as [`crate::write`] lays it out.
pub fn html(report: &Report, card: &Card, notes: Option<&str>) -> Result<String> {
    page(report, card, notes, &motions(report)?)
}

/// The moving figures of a report, drawn: one place for each figure.
pub(crate) fn motions(report: &Report) -> Result<Vec<Option<Motion>>> {
    report.figures.iter().map(|(_, figure)| motion(figure)).collect()
}

/// As [`html`], with the moving figures already drawn.
pub(crate) fn page(report: &Report, card: &Card, notes: Option<&str>, motions: &[Option<Motion>]) -> Result<String> {
    let claims = claims(report, card);
    let mut files: Vec<Link> = report.files.iter().map(|f| Link { href: address(f), text: f.clone() }).collect();
    files.push(Link { href: "report.json".into(), text: "report.json".into() });
    let [regular, semibold] = text::web_fonts();
    let page = Page {
        regular,
        semibold,
        slug: &report.paper,
        title: &report.title,
        authors: card.authors.join(", "),
        venue: if card.venue.contains(&card.year.to_string()) {
            card.venue.clone()
        } else {
            format!("{} {}", card.venue, card.year)
        },
        summary: &card.summary,
        kind: match report.scale {
            // A comparison is nobody's paper.
            None if card.authors.is_empty() => "comparison",
            None => "run of the method",
            Some(Scale::Quick) => "quick study",
            Some(Scale::Standard) => "study",
            Some(Scale::Full) => "study at full scale",
        },
        started: &report.started,
        when: moment(&report.started),
        arxiv: (!card.arxiv.is_empty()).then(|| Link {
            href: format!("https://arxiv.org/abs/{}", address(&card.arxiv)),
            text: card.arxiv.clone(),
        }),
        // Only the web: a card must not bring a link that runs something.
        code: ["https://", "http://"]
            .iter()
            .any(|s| card.code.url.starts_with(s))
            .then(|| Link { href: card.code.url.clone(), text: card.code.licence.clone() }),
        complete: report.complete,
        warnings: &report.warnings,
        metrics: report
            .metrics
            .iter()
            .map(|m| Tile {
                name: m.name.clone(),
                value: value(m.value),
                unit: m.unit.clone(),
                exact: format!("{}", m.value),
            })
            .collect(),
        tally: tally(&claims),
        claims,
        figures: report
            .figures
            .iter()
            .zip(motions)
            .map(|((name, figure), motion)| drawing(name, figure, motion.as_ref()))
            .collect(),
        tables: report.tables.iter().map(sheet).collect(),
        notes: notes.unwrap_or_default().split("\n\n").map(str::trim).filter(|p| !p.is_empty()).collect(),
        command: command(report),
        facts: facts(report),
        files,
        version: report.version,
        machine: machine(report),
    };
    page.render().map_err(|e| Error::Paper { paper: report.paper.clone(), problem: format!("report.html: {e}") })
}

/// A number in a tile or a claim; what is no number says so.
fn value(x: f64) -> String {
    if x.is_nan() { "not a number".into() } else { number(x, 4) }
}

fn with_unit(x: f64, unit: &str) -> String {
    if unit.is_empty() { value(x) } else { format!("{} {unit}", value(x)) }
}

/// Every claim of the card for a study; none for a run of the method.
fn claims(report: &Report, card: &Card) -> Vec<Verdicts> {
    if report.scale.is_none() && report.claims.is_empty() {
        return Vec::new();
    }
    card.claims
        .iter()
        .map(|claim| {
            let found = report.claims.iter().find(|m| m.id == claim.id);
            let verdict = found.map_or(Verdict::NotMeasured, |m| m.verdict);
            let (class, sign) = match verdict {
                Verdict::Holds => ("holds", "✓"),
                Verdict::FallsShort => ("short", "✗"),
                Verdict::NotMeasured => ("open", "–"),
            };
            let condition = claim.holds_if.to_string().replace(">=", "≥").replace("<=", "≤");
            Verdicts {
                class,
                sign,
                verdict: verdict.to_string(),
                says: claim.says.clone(),
                measures: claim.measures.clone(),
                measured: found.and_then(|m| m.measured).map_or("–".into(), |x| with_unit(x, &claim.unit)),
                holds_if: format!("{condition} {}", claim.unit).trim_end().to_owned(),
                paper_value: claim.paper_value.clone(),
                place: claim.place.clone(),
                why: found.map_or("The study ended before it.".into(), |m| m.why.clone()),
                took: found
                    .filter(|m| m.measured.is_some() && m.seconds >= 0.1)
                    .map_or(String::new(), |m| duration(m.seconds)),
            }
        })
        .collect()
}

fn tally(claims: &[Verdicts]) -> String {
    let count = |class: &str| claims.iter().filter(|c| c.class == class).count();
    let (holds, short, open) = (count("holds"), count("short"), count("open"));
    let mut parts = Vec::new();
    for (n, one, many) in
        [(holds, "holds", "hold"), (short, "falls short", "fall short"), (open, "not measured", "not measured")]
    {
        if n > 0 {
            parts.push(format!("{n} {}", if n == 1 { one } else { many }));
        }
    }
    parts.join(", ")
}

fn drawing(name: &str, figure: &offprint_core::Figure, motion: Option<&Motion>) -> Drawing {
    let data = |kind: &str, bytes: &[u8]| format!("data:image/{kind};base64,{}", STANDARD.encode(bytes));
    let wide = layout::svg(figure, Setting::Inline);
    let narrow = (wide.len() <= LARGE).then(|| layout::svg(figure, Setting::Narrow));
    Drawing {
        title: if figure.title.trim().is_empty() { name.to_owned() } else { figure.title.clone() },
        caption: figure.caption.clone(),
        wide,
        narrow,
        motion: motion.map(|motion| (data("apng", &motion.animation), data("png", &motion.still))),
        href: format!("figures/{}", address(name)),
    }
}

fn sheet(table: &Table) -> Sheet {
    let rows = table.rows();
    let is_number = |c: usize| !matches!(table.columns[c].values, Values::Words(_));
    let heads =
        table.columns.iter().enumerate().map(|(c, column)| Cell { text: column.heading(), number: is_number(c) });
    let cell = |row: usize, c: usize| {
        let text = match &table.columns[c].values {
            Values::Numbers(v) => v.get(row).map_or(String::new(), |&x| number(x, 5)),
            Values::Integers(_) | Values::Words(_) => table.cell(row, c, 17),
        };
        Cell { text, number: is_number(c) }
    };
    Sheet {
        name: table.name.clone(),
        caption: table.caption.clone(),
        heads: heads.collect(),
        rows: (0..rows.min(ROWS)).map(|r| (0..table.columns.len()).map(|c| cell(r, c)).collect()).collect(),
        extent: if rows > ROWS {
            format!("The first {ROWS} of {rows} rows; all of them in full precision:")
        } else {
            "In full precision:".into()
        },
        href: address(&table.name),
    }
}

/// The command that repeats the run; `None` where a parameter has no form on the command line.
fn command(report: &Report) -> Option<String> {
    let slug = quoted(&report.paper);
    if let Some(scale) = report.scale {
        let flag = match scale {
            Scale::Quick => " --quick",
            Scale::Standard => "",
            Scale::Full => " --full",
        };
        return Some(format!("offprint reproduce {slug}{flag} --seed {}", report.seed));
    }
    let mut command = format!("offprint run {slug}");
    let none = serde_json::Map::new();
    for (name, value) in report.parameters.as_object().unwrap_or(&none) {
        let flag = name.replace('_', "-");
        match value {
            Value::Null | Value::Bool(false) => {}
            Value::Bool(true) => write!(command, " --{flag}").ok()?,
            Value::Number(n) => write!(command, " --{flag} {n}").ok()?,
            Value::String(s) => write!(command, " --{flag} {}", quoted(s)).ok()?,
            Value::Array(_) | Value::Object(_) => return None,
        }
    }
    write!(command, " --seed {}", report.seed).ok()?;
    Some(command)
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._/-+,:=@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn facts(report: &Report) -> Vec<(String, String)> {
    let mut facts = Vec::new();
    let none = serde_json::Map::new();
    for (name, value) in report.parameters.as_object().unwrap_or(&none) {
        let text = match value {
            Value::String(s) => s.clone(),
            Value::Null => "none".into(),
            other => other.to_string(),
        };
        facts.push((name.replace('_', " "), text));
    }
    facts.push(("seed".into(), report.seed.to_string()));
    facts.push(("started".into(), moment(&report.started)));
    facts.push(("took".into(), duration(report.seconds)));
    facts.push(("machine".into(), machine(report)));
    facts.push(("Offprint".into(), report.version.to_owned()));
    facts
}

fn machine(report: &Report) -> String {
    let m = &report.machine;
    let memory = m.memory_gib.map_or(String::new(), |g| format!(", {g} GiB"));
    let threads = if m.threads == 1 { "1 thread".into() } else { format!("{} threads", m.threads) };
    format!("{}, {threads}{memory}, {}", m.cpu, m.system)
}

/// `2026-11-24T09:15:25Z` as people write it.
fn moment(rfc3339: &str) -> String {
    match (rfc3339.get(..10), rfc3339.get(11..16), rfc3339.ends_with('Z')) {
        (Some(day), Some(time), true) => format!("{day} {time} UTC"),
        _ => rfc3339.to_owned(),
    }
}

/// Seconds as people write them.
fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 60.0 {
        return format!("{} s", number(seconds, if seconds < 0.1 { 2 } else { 3 }));
    }
    let whole = seconds.round() as u64;
    if whole < 3600 {
        format!("{} min {} s", whole / 60, whole % 60)
    } else {
        format!("{} h {} min", whole / 3600, whole % 3600 / 60)
    }
}

/// A relative address: everything but letters, digits and `._~-/` as %XX, so that no name becomes a scheme or a query.
fn address(path: &str) -> String {
    let mut out = String::new();
    for byte in path.trim_start_matches('/').bytes() {
        if byte.is_ascii_alphanumeric() || b"._~-/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_moments_read_well() {
        assert_eq!(duration(0.01234), "0.012 s");
        assert_eq!(duration(12.34), "12.3 s");
        assert_eq!(duration(200.0), "3 min 20 s");
        assert_eq!(duration(7500.0), "2 h 5 min");
        assert_eq!(moment("2026-11-24T09:15:25.12Z"), "2026-11-24 09:15 UTC");
        assert_eq!(moment("yesterday"), "yesterday");
    }

    #[test]
    fn addresses_stay_in_the_directory_and_words_in_their_quotes() {
        assert_eq!(address("javascript:alert(1)"), "javascript%3Aalert%281%29");
        assert_eq!(address("//evil/a b.csv"), "evil/a%20b.csv");
        assert_eq!(quoted("a b'c"), r"'a b'\''c'");
        assert_eq!(quoted("data/x.csv:1"), "data/x.csv:1");
    }
}
