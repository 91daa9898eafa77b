//! Sparsity-constrained transport: reference values, properties, bad input, and the paper as a whole.

use offprint_core::{Paper, Run, Scale};
use serde_json::json;

fn paper() -> Paper {
    offprint_transport::papers().into_iter().find(|p| p.card().slug == "sparse-ot").expect("listed")
}

#[test]
fn the_study_measures_every_claim_at_quick_scale() {
    let paper = paper();
    let mut run = Run::new(paper.card()).with_scale(Scale::Quick);
    let t = std::time::Instant::now();
    paper.measure(&mut run).unwrap();
    let (report, _) = run.finish(true).unwrap();
    assert_eq!(report.claims.len(), paper.card().claims.len());
    for claim in &report.claims {
        println!("{} {:?} {:?} {:.2}s {}", claim.id, claim.measured, claim.verdict, claim.seconds, claim.why);
    }
    println!("{:?}", t.elapsed());
    for t in &report.tables {
        println!("{}", t.to_csv());
    }
}

#[test]
fn every_task_runs_without_arguments() {
    for task in ["plan", "routing", "colours"] {
        let paper = paper();
        let mut run = Run::new(paper.card());
        let t = std::time::Instant::now();
        paper.prepare_json(json!({ "task": task })).unwrap().run(&mut run).unwrap();
        let (report, files) = run.finish(true).unwrap();
        println!("{task} {:?}", t.elapsed());
        for m in &report.metrics {
            println!("  {} = {} {}", m.name, m.value, m.unit);
        }
        for t in &report.tables {
            println!("{}", t.to_csv());
        }
        println!("{:?} {:?}", report.warnings, files.iter().map(|f| &f.0).collect::<Vec<_>>());
        assert!(!report.figures.is_empty() && !files.is_empty() && report.metrics.len() > 3);
    }
}
