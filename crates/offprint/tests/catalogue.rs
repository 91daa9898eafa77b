//! Walks the catalogue: no paper may lack a part.

use offprint::core::{Paper, Run, Scale, Verdict};
use std::collections::HashSet;

fn each(check: impl Fn(&Paper)) {
    for paper in offprint::papers() {
        eprintln!("{}", paper.card().slug);
        check(&paper);
    }
}

#[test]
fn slugs_are_unique_and_papers_stand_field_by_field() {
    let papers = offprint::papers();
    let slugs: HashSet<&str> = papers.iter().map(|p| p.card().slug.as_str()).collect();
    assert_eq!(slugs.len(), papers.len());
    let mut fields: Vec<&str> = papers.iter().map(|p| p.card().field.as_str()).collect();
    fields.dedup();
    assert_eq!(fields.iter().collect::<HashSet<_>>().len(), fields.len(), "papers of a field stand together");
}

#[test]
fn every_card_has_at_least_three_claims_with_all_their_parts() {
    each(|paper| {
        let card = paper.card();
        assert!(card.claims.len() >= 3, "{}: {} claims", card.slug, card.claims.len());
        for claim in &card.claims {
            for (part, text) in [
                ("says", &claim.says),
                ("paper_value", &claim.paper_value),
                ("where", &claim.place),
                ("measures", &claim.measures),
            ] {
                assert!(!text.trim().is_empty(), "{}/{}: {part} is empty", card.slug, claim.id);
            }
        }
    });
}

#[test]
fn notes_begin_with_a_picture_that_exists_and_show_both_calls() {
    each(|paper| {
        let card = paper.card();
        let first = paper.notes.lines().find(|l| !l.trim().is_empty() && !l.starts_with('#')).unwrap_or_default();
        assert!(first.starts_with("!["), "{}: the notes begin with \"{first}\", not with a picture", card.slug);
        let folder = format!("{}/../{}/src/{}", env!("CARGO_MANIFEST_DIR"), card.field, card.slug.replace('-', "_"));
        let picture = first.split(['(', ')']).nth(1).unwrap_or_default();
        assert!(std::path::Path::new(&folder).join(picture).is_file(), "{}: no {picture}", card.slug);
        assert!(
            paper.notes.contains(&format!("offprint run {}", card.slug)),
            "{}: the notes do not show the command",
            card.slug
        );
        assert!(paper.notes.contains("```rust"), "{}: the notes do not show the Rust call", card.slug);
    });
}

#[test]
fn every_parameter_has_a_help_text() {
    each(|paper| {
        let slug = &paper.card().slug;
        let command = paper.command("paper");
        for argument in command.get_arguments() {
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.len() > 10, "{slug}: --{} has no help text", argument.get_id());
        }
        let schema = paper.schema();
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            assert!(
                command.get_arguments().any(|a| a.get_id() == name.as_str()),
                "{slug}: {name} is in the schema but no flag"
            );
            assert!(property["description"].is_string(), "{slug}: {name} has no description");
            if property["type"] == "number" || property["type"] == "integer" {
                assert!(property.get("default").is_some(), "{slug}: {name} has no default");
            }
        }
    });
}

#[test]
fn every_default_run_needs_no_file_and_gives_numbers_a_figure_and_files() {
    each(|paper| {
        let slug = &paper.card().slug;
        let prepared = paper.prepare_json(serde_json::json!({})).unwrap();
        let mut run = Run::new(paper.card());
        prepared.run(&mut run).unwrap_or_else(|e| panic!("{slug}: {e}"));
        let (report, files) = run.finish(true).unwrap();
        assert!(!report.figures.is_empty(), "{slug}: no figure");
        assert!(report.metrics.len() >= 3, "{slug}: {} metrics", report.metrics.len());
        assert!(!files.is_empty(), "{slug}: no file");
        for metric in &report.metrics {
            assert!(!metric.value.is_nan(), "{slug}: {} is NaN", metric.name);
        }
    });
}

#[test]
fn every_study_measures_every_claim_of_its_card() {
    each(|paper| {
        let card = paper.card();
        let mut run = Run::new(card).with_scale(Scale::Quick);
        paper.measure(&mut run).unwrap_or_else(|e| panic!("{}: {e}", card.slug));
        let (report, _) = run.finish(true).unwrap();
        let measured: HashSet<&str> = report.claims.iter().map(|c| c.id.as_str()).collect();
        for claim in &card.claims {
            assert!(measured.contains(claim.id.as_str()), "{}: the study leaves out {}", card.slug, claim.id);
        }
        for claim in &report.claims {
            assert!(
                claim.verdict != Verdict::NotMeasured || !claim.why.is_empty(),
                "{}: {} is not measured, and no reason told",
                card.slug,
                claim.id
            );
        }
    });
}

#[test]
fn every_default_run_is_the_same_twice_and_on_one_thread() {
    let metrics = |paper: &Paper, threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut run = Run::new(paper.card()).with_seed(7);
            paper.prepare_json(serde_json::json!({})).unwrap().run(&mut run).unwrap();
            let (report, files) = run.finish(true).unwrap();
            // Times differ from run to run.
            let numbers: Vec<_> = report
                .metrics
                .into_iter()
                .filter(|m| !["s", "ms", "µs", "1/s", "samples/s"].contains(&m.unit.as_str()))
                .collect();
            (numbers, files.len())
        })
    };
    each(|paper| assert_eq!(metrics(paper, 1), metrics(paper, 2), "{}", paper.card().slug));
}
