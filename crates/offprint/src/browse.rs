//! `offprint papers` and `offprint show`.

use crate::cli::chosen;
use crate::write::{self, columns, style, wrap};
use clap::ArgMatches;
use offprint_core::{Card, Paper, Result};
use serde_json::{Value, json};

/// `offprint papers`.
pub fn list(papers: &[Paper], args: &ArgMatches) -> Result<()> {
    let field = args.get_one::<String>("field");
    let words = args.get_one::<String>("search").map(|w| w.to_lowercase());
    let cards: Vec<&Card> = papers
        .iter()
        .map(Paper::card)
        .filter(|card| field.is_none_or(|f| card.field == *f))
        .filter(|card| words.as_ref().is_none_or(|w| w.split_whitespace().all(|w| mentions(card, w))))
        .collect();
    if args.get_flag("json") {
        write::json(&serde_json::to_value(&cards).expect("cards are plain data"));
        return Ok(());
    }
    let (s, mut text) = (style(false), String::new());
    // Names stand in a column of their own; everything else is set off by it.
    let names = cards.iter().map(|card| card.slug.len()).max().unwrap_or(0);
    let margin = names + 4;
    for (i, card) in cards.iter().enumerate() {
        if i == 0 || cards[i - 1].field != card.field {
            text += &format!("{}{}\n", if i > 0 { "\n" } else { "" }, s.bold(&card.field));
        }
        let claims = format!("{} claims", card.claims.len());
        let year = card.year.to_string();
        let published = if card.venue.contains(&year) { card.venue.clone() } else { format!("{} {year}", card.venue) };
        let facts = s.dim(format!("{published} · {claims}"));
        text += &format!(
            "  {}  {}\n{:margin$}{}\n{:margin$}{facts}\n",
            s.bold(format!("{:<names$}", card.slug)),
            wrap(&card.title, write::width(), margin),
            "",
            wrap(&card.summary, write::width(), margin),
            ""
        );
    }
    if cards.is_empty() {
        text = format!("No paper matches. `offprint papers` lists all {}.\n", papers.len());
    }
    write::out(&text);
    Ok(())
}

/// Whether the card mentions `word` (lower case), letter for letter or in a word spelled almost alike.
fn mentions(card: &Card, word: &str) -> bool {
    let texts = [&card.slug, &card.title, &card.field, &card.summary, &card.venue, &card.arxiv].into_iter();
    let texts = texts.chain(&card.authors).chain(&card.tags).chain(card.claims.iter().map(|c| &c.says));
    texts.map(|t| t.to_lowercase()).any(|text| {
        let alike = |w: &str| word.len() >= 5 && strsim::osa_distance(w, word) <= 1;
        text.contains(word) || text.split(|c: char| !c.is_alphanumeric()).any(alike)
    })
}

/// `offprint show`.
pub fn show(papers: &[Paper], args: &ArgMatches) -> Result<()> {
    let paper = chosen(papers, args)[0];
    let card = paper.card();
    if args.get_flag("json") {
        let mut document = serde_json::to_value(card).expect("cards are plain data");
        document["notes"] = Value::from(paper.notes);
        document["parameters"] = paper.schema();
        write::json(&json!(document));
        return Ok(());
    }
    let (s, width) = (style(false), write::width());
    let mut text = format!("{}\n{}\n", s.bold(&card.title), wrap(&card.authors.join(", "), width, 0));
    text += &format!("{}, {}", card.venue, card.year);
    if !card.arxiv.is_empty() {
        text += &format!(" · https://arxiv.org/abs/{}", card.arxiv);
    }
    text += "\n";
    if !card.code.url.is_empty() {
        text += &format!("authors' code: {} (licence: {})\n", card.code.url, card.code.licence);
    }
    text += &format!("\n{}\n\n{}\n", wrap(&card.summary, width, 0), s.bold("Claims"));
    for claim in &card.claims {
        text += &format!("  {} {}\n", s.bold(&claim.id), s.dim(format!("({})", claim.place)));
        text += &format!("    {}\n", wrap(&claim.says, width, 4));
        let unit = if claim.unit.is_empty() { String::new() } else { format!(" ({})", claim.unit) };
        let rows = [
            ("paper", claim.paper_value.clone()),
            ("measured", format!("{}{unit}", claim.measures)),
            ("holds if", claim.holds_if.to_string()),
        ];
        let rows: Vec<Vec<String>> = rows.into_iter().map(|(k, v)| vec![s.dim(k), wrap(&v, width, 14)]).collect();
        text += &columns(&rows, &[], 4);
    }
    // The picture at the head of the notes is for readers who can see it.
    let notes: String = paper.notes.lines().filter(|l| !l.starts_with("![")).map(|l| headline(l, s) + "\n").collect();
    text += &format!("\n{}\n\n", notes.trim());
    text += &s.dim(format!("Run it: offprint run {0}    Measure its claims: offprint reproduce {0}", card.slug));
    write::out(&(text + "\n"));
    Ok(())
}

fn headline(line: &str, s: write::Styles) -> String {
    match line.strip_prefix('#') {
        Some(rest) if s.on => s.bold(rest.trim_start_matches('#').trim()),
        _ => line.to_owned(),
    }
}
