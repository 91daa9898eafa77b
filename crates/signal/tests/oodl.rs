//! Online orthogonal dictionary learning: properties, reference values, bad input.
use offprint_core::{Run, Scale};

#[test]
fn study_quick() {
    let papers = offprint_signal::papers();
    let paper = papers.iter().find(|p| p.card().slug == "oodl").unwrap();
    let scale = match std::env::var("SCALE").as_deref() {
        Ok("standard") => Scale::Standard,
        _ => Scale::Quick,
    };
    let mut run = Run::new(paper.card()).with_scale(scale);
    let t = std::time::Instant::now();
    paper.measure(&mut run).unwrap();
    let (report, _) = run.finish(true).unwrap();
    for c in &report.claims {
        println!(
            "{:?} {:?} {} [{:.1}s] {}",
            c.id,
            c.measured,
            match c.verdict {
                offprint_core::Verdict::Holds => "HOLDS",
                _ => "short",
            },
            c.seconds,
            c.why
        );
    }
    for m in &report.metrics {
        println!("{m:?}");
    }
    for t in &report.tables {
        println!("{}\n{}", t.name, t.to_csv());
    }
    println!("total {:?}", t.elapsed());
}

#[test]
fn default_run() {
    let papers = offprint_signal::papers();
    let paper = papers.iter().find(|p| p.card().slug == "oodl").unwrap();
    for v in [serde_json::json!({}), serde_json::json!({"example": "synthetic"})] {
        let t = std::time::Instant::now();
        let mut run = Run::new(paper.card());
        paper.prepare_json(v).unwrap().run(&mut run).unwrap();
        let (report, _) = run.finish(true).unwrap();
        for m in &report.metrics {
            println!("{m:?}");
        }
        println!("{:?} {:?} {:?}", report.files, report.warnings, t.elapsed());
    }
}
