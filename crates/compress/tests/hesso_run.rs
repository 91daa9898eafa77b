//! `offprint run hesso` on networks and samples of the user's.

use candle_core::DType;
use offprint_compress::hesso::Net;
use offprint_compress::hesso::graph::examples;
use offprint_core::artifact::Artifact;
use offprint_core::{Paper, Report, Result, Run};
use offprint_nn::models::{Activation, GptConfig, MlpConfig, Norm};
use offprint_nn::{Architecture, Network};
use serde_json::{Value, json};
use std::path::Path;

fn hesso() -> Paper {
    offprint_compress::papers().into_iter().find(|paper| paper.card().slug == "hesso").unwrap()
}

fn run(parameters: Value, out: Option<&Path>) -> Result<Report> {
    let paper = hesso();
    let mut run = Run::new(paper.card());
    if let Some(out) = out {
        run = run.with_out(out.to_owned())?;
    }
    paper.prepare_json(parameters)?.run(&mut run)?;
    Ok(run.finish(true)?.0)
}

fn fails(parameters: Value) -> String {
    match run(parameters, None) {
        Ok(_) => panic!("it ran"),
        Err(error) => error.to_string(),
    }
}

fn write(path: &Path, array: impl Into<offprint_core::Array>) -> String {
    Artifact::Array(array.into()).write(path).unwrap();
    path.display().to_string()
}

/// Rows whose class is the sign of their first number.
fn rows(directory: &Path) -> String {
    let table = ndarray::Array2::from_shape_fn((60, 6), |(i, j)| match j {
        5 => f64::from(i % 2 == 0),
        0 => (if i % 2 == 0 { 1.0 } else { -1.0 }) + (i as f64 * 0.37).sin() * 0.5,
        _ => ((i * 7 + j * 3) as f64).sin(),
    });
    write(&directory.join("rows.npy"), table)
}

fn saved(architecture: &Architecture, directory: &Path) -> String {
    let path = directory.join("model.safetensors");
    Network::fresh(architecture, 1, DType::F32).unwrap().save(&path).unwrap();
    path.display().to_string()
}

#[test]
fn the_compact_network_of_a_run_is_a_directory_that_loads_and_prunes_again() {
    let (work, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = MlpConfig { widths: vec![5, 16, 12, 2], activation: Activation::Gelu };
    let model = saved(&Architecture::Mlp(config), work.path());
    let parameters = json!({
        "model": model, "data": rows(work.path()), "epochs": 20, "batch": 8, "rate": 0.05, "sparsity": 0.5, "periods": 2,
    });
    let report = run(parameters, Some(out.path())).unwrap();
    assert_eq!((report.metric("groups"), report.metric("groups removed")), (Some(28.0), Some(14.0)));
    assert!(report.metric("test accuracy").unwrap() > 0.9);
    assert!(report.metric("largest difference to the full network").unwrap() < 1e-5);
    let small = Network::load(out.path(), None, DType::F32).unwrap();
    assert_eq!(small.params().count() as f64, report.metric("parameters").unwrap());
    let full = Network::load(&out.path().join("full.safetensors"), None, DType::F32).unwrap();
    assert_eq!(full.params().count(), 16 * 6 + 12 * 17 + 2 * 13);
    // The result is an input again, of any way.
    for way in ["taylor", "random", "magnitude-tuned", "hspg", "cric", "full"] {
        let parameters = json!({
            "model": out.path().display().to_string(), "data": rows(work.path()), "epochs": 10, "batch": 4, "rate": 0.01,
            "sparsity": 0.4, "periods": 2, "window": 0.8, "way": way,
        });
        run(parameters, None).unwrap_or_else(|e| panic!("{way}: {e}"));
    }
}

#[test]
fn a_graph_of_the_users_is_trained_and_cut() {
    let (work, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let net = examples::example("concatenated", 1, DType::F32).unwrap().unwrap();
    std::fs::write(work.path().join("graph.json"), net.graph().to_json().to_string()).unwrap();
    let weights = work.path().join("model.safetensors");
    offprint_nn::checkpoint::save(&weights, &net.params().snapshot().unwrap(), &Default::default()).unwrap();
    let images = ndarray::Array4::from_shape_fn((30, 2, 4, 4), |(i, c, y, x)| {
        (i % 3) as f64 * 0.5 + ((i + 2 * c + 3 * y + 5 * x) as f64).sin()
    });
    let classes = ndarray::Array1::from_shape_fn(30, |i| (i % 3) as f64);
    let parameters = json!({
        "model": work.path().display().to_string(), "data": write(&work.path().join("x.npy"), images),
        "targets": write(&work.path().join("y.npy"), classes), "epochs": 10, "batch": 8, "optimiser": "adam",
        "rate": 0.01, "sparsity": 0.5, "periods": 2, "keep": "stem",
    });
    let report = run(parameters, Some(out.path())).unwrap();
    assert_eq!((report.metric("groups"), report.metric("groups removed")), (Some(9.0), Some(4.0)));
    let small = Net::load(out.path(), DType::F32).unwrap();
    assert_eq!(small.params().count() as f64, report.metric("parameters").unwrap());
}

#[test]
fn tokens_are_pruned_by_heads_and_by_components() {
    let work = tempfile::tempdir().unwrap();
    let config = GptConfig { vocabulary: 7, context: 6, width: 8, heads: 2, depth: 1, mlp: 12, norm: Norm::Layer };
    let model = saved(&Architecture::Gpt(config), work.path());
    let ids = ndarray::Array2::from_shape_fn((40, 7), |(i, j)| ((i + j) % 7) as i64);
    let data = write(&work.path().join("ids.npy"), ids);
    for (attention, groups) in [("heads", 14.0), ("head-dims", 16.0)] {
        let parameters = json!({
            "model": model, "data": data, "epochs": 8, "batch": 8, "optimiser": "adamw", "rate": 0.01, "sparsity": 0.5,
            "periods": 2, "attention": attention, "precision": "f64",
        });
        let report = run(parameters, None).unwrap();
        assert_eq!(report.metric("groups"), Some(groups));
        assert!(report.metric("largest difference to the full network").unwrap() < 1e-12);
    }
}

#[test]
fn what_cannot_be_done_is_told_by_name() {
    let work = tempfile::tempdir().unwrap();
    let config = MlpConfig { widths: vec![5, 8, 2], activation: Activation::Sigmoid };
    let model = saved(&Architecture::Mlp(config), work.path());
    let data = rows(work.path());
    let with = |extra: Value| {
        let mut parameters = json!({ "model": model, "data": data, "epochs": 2, "batch": 8 });
        parameters.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        fails(parameters)
    };
    let words = with(json!({}));
    assert!(words.contains("nothing that can be removed") && words.contains("activation"), "{words}");
    assert!(with(json!({ "sparsity": 1.0 })).starts_with("sparsity"));
    assert!(with(json!({ "sparsity": 0.0 })).starts_with("sparsity"));
    assert!(with(json!({ "start": 0.9 })).starts_with("window"));
    assert!(with(json!({ "example": "digits-cnn" })).starts_with("example"));
    assert!(with(json!({ "way": "hesoo" })).starts_with("way"));
    assert!(with(json!({ "keep": "fc9" })).starts_with("keep"));
    assert!(with(json!({ "batch": 0 })).starts_with("batch"));
    assert!(fails(json!({ "data": data })).starts_with("model"));
    assert!(fails(json!({ "model": model })).starts_with("data"));
    assert!(fails(json!({ "loss": "logistic" })).starts_with("loss"));
    assert!(fails(json!({ "epochs": 1, "periods": 500 })).starts_with("periods"));
    assert!(fails(json!({ "model": "/nowhere", "data": data })).contains("cannot read"));
    let bad = write(&work.path().join("nan.npy"), ndarray::arr2(&[[1.0, 2.0, 3.0, 4.0, f64::NAN, 0.0]; 3]));
    assert!(fails(json!({ "model": model, "data": bad })).contains("row 0"));
    let ragged = write(&work.path().join("four.npy"), ndarray::arr2(&[[1.0, 2.0, 3.0, 0.0]; 3]));
    assert!(fails(json!({ "model": model, "data": ragged })).contains("rows of 5"));
}
