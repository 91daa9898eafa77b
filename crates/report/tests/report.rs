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

/// A disc on its way from left to right.
fn moving(count: usize) -> Figure {
    let moment = |i: usize| {
        let share = i as f64 / (count - 1) as f64;
        let axis = |label: &str| Axis::new(label).limits(-1.0, 2.0);
        let plot = Plot::new(axis("x"), axis("y")).points("", vec![share], vec![share * share], 5.0);
        (format!("t = {share:.2}"), plot.into())
    };
    Figure::moving("On its way", "Rises.", (0..count).map(moment))
}

#[test]
fn moving_figures_are_animated_and_rest_for_readers_who_want_it() {
    let card = Card::parse(CARD).unwrap();
    let mut run = Run::new(&card);
    run.figure("way", moving(20));
    run.figure("still", figure());
    let (report, _) = run.finish(true).unwrap();
    let directory = tempfile::tempdir().unwrap();
    offprint_report::write(&report, &card, directory.path()).unwrap();
    let animation = std::fs::read(directory.path().join("figures/way.apng")).unwrap();
    assert!(animation.len() <= 2 << 20 && !directory.path().join("figures/still.apng").exists());
    let mut reader = png::Decoder::new(std::io::Cursor::new(&animation)).read_info().unwrap();
    assert_eq!(reader.info().animation_control().unwrap().num_frames, 20);
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    for _ in 0..20 {
        reader.next_frame(&mut pixels).unwrap();
    }
    let page = std::fs::read_to_string(directory.path().join("report.html")).unwrap();
    assert_eq!(page.matches("(prefers-reduced-motion: reduce)").count(), 1);
    assert!(page.contains("src=\"data:image/apng;base64,") && page.contains("srcset=\"data:image/png;base64,"));
    assert!(page.contains("figures/way.apng") && !page.contains("figures/still.apng"));
}

#[test]
fn frames_are_what_the_last_one_and_the_changes_make() {
    // Pasting the parts of all frames gives the last picture alone.
    let figure = moving(5);
    let bytes = offprint_report::animation(&figure).unwrap().unwrap();
    let mut reader = png::Decoder::new(std::io::Cursor::new(&bytes)).read_info().unwrap();
    let (width, height) = (reader.info().width as usize, reader.info().height as usize);
    let mut canvas = vec![255; width * height * 3];
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    for _ in 0..5 {
        reader.next_frame(&mut pixels).unwrap();
        let part = *reader.info().frame_control().unwrap();
        let (w, left, top) = (part.width as usize, part.x_offset as usize, part.y_offset as usize);
        for row in 0..part.height as usize {
            let to = ((top + row) * width + left) * 3;
            canvas[to..to + 3 * w].copy_from_slice(&pixels[row * w * 3..(row + 1) * w * 3]);
        }
    }
    let twice = Figure { frames: vec![figure.frames[4].clone(), figure.frames[4].clone()], ..figure };
    let last = offprint_report::animation(&twice).unwrap().unwrap();
    let mut reader = png::Decoder::new(std::io::Cursor::new(&last)).read_info().unwrap();
    reader.next_frame(&mut pixels).unwrap();
    assert!(canvas == pixels[..canvas.len()]);
    assert!(offprint_report::animation(&Figure::new("", "")).unwrap().is_none());
}
