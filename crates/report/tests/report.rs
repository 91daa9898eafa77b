//! The page and the files of a run.

use offprint_core::figure::{Axis, Figure, Plot};
use offprint_core::{Card, Run, Scale, Table};

const CARD: &str = r#"
slug = "toy"
title = "A <b>bold</b> title"
authors = ["A. Author", "B. Author"]
venue = "Journal"
year = 2024
arxiv = "2401.01234"
field = "signal"
summary = "What & why."
tags = []
code = { url = "javascript:alert(1)", licence = "MIT" }
[[claim]]
id = "a"
says = "first"
paper_value = "1"
where = "Fig. 1"
measures = "ratio"
holds_if = ">= 1"
[[claim]]
id = "b"
says = "second"
paper_value = "2"
where = "Fig. 2"
measures = "time"
unit = "s"
holds_if = "0.5 to 2"
"#;

fn figure() -> Figure {
    Figure::new("Figure & title", "caption").panel(Plot::new(Axis::new("x"), Axis::new("y")).line(
        "",
        vec![0.0, 1.0],
        vec![1.0, 2.0],
    ))
}

#[test]
fn a_run_leaves_its_figures_and_a_page_without_outside_needs() {
    let card = Card::parse(CARD).unwrap();
    let mut run = Run::new(&card).with_seed(5);
    run.metric("error", 1.5e-7, "V");
    run.metric("<i>", f64::NAN, "");
    run.warn("<script>x</script>");
    run.figure("curve", figure());
    run.table(Table::new("long", "rows").integers("i", "", 0..120).numbers("x", "s", (0..120).map(f64::from))).unwrap();
    let (report, _) = run.finish(true).unwrap();
    let directory = tempfile::tempdir().unwrap();
    offprint_report::write(&report, &card, directory.path()).unwrap();
    let read = |name: &str| std::fs::read(directory.path().join(name)).unwrap();
    assert!(read("figures/curve.png").starts_with(b"\x89PNG"));
    assert!(read("figures/curve.svg").starts_with(b"<svg"));
    let page = String::from_utf8(read("report.html")).unwrap();
    assert!(page.contains("A &#60;b&#62;bold") || page.contains("A &lt;b&gt;bold"));
    assert!(!page.contains("<script") && !page.contains("javascript:"));
    assert!(page.contains("1.5×10⁻⁷") && page.contains("not a number"));
    assert!(page.contains("The first 50 of 120 rows") && page.contains("href=\"long.csv\""));
    assert!(page.contains("offprint run toy --seed 5"));
    assert!(!page.contains("Claims, measured"));
    // Nothing is loaded: every address of a source is data.
    for source in page.split(" src=\"").skip(1).chain(page.split("url(").skip(1)) {
        assert!(source.starts_with("data:"), "{}", &source[..40]);
    }
}

#[test]
fn a_study_shows_every_claim_of_the_card() {
    let card = Card::parse(CARD).unwrap();
    let mut run = Run::new(&card).with_scale(Scale::Quick);
    run.claim("b", 3.0, "once").unwrap();
    let (report, _) = run.finish(false).unwrap();
    let page = offprint_report::html(&report, &card, Some("One.\n\nTwo <x>.")).unwrap();
    for words in
        ["falls short", "3 s", "0.5 to 2 s", "not measured", "The study ended before it.", "Stopped before the end"]
    {
        assert!(page.contains(words), "{words}");
    }
    assert!(page.contains("1 falls short, 1 not measured"));
    assert!(page.contains("offprint reproduce toy --quick"));
    assert!(page.contains("<p>One.</p>") && !page.contains("<x>"));
}

#[test]
fn names_that_leave_the_directory_are_refused() {
    let card = Card::parse(CARD).unwrap();
    for name in ["../x", "a/b", "", ".hidden", "a b", "ü", &"x".repeat(101)] {
        let mut run = Run::new(&card);
        run.figure(name, figure());
        let (report, _) = run.finish(true).unwrap();
        let directory = tempfile::tempdir().unwrap();
        assert!(offprint_report::write(&report, &card, directory.path()).is_err(), "{name}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
