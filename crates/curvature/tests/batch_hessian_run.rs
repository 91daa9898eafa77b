//! `offprint run batch-hessian` on files of the user's.

use candle_core::DType;
use ndarray::{Array1, Array2};
use offprint_core::artifact::Artifact;
use offprint_core::random::Streams;
use offprint_core::{Paper, Report, Result, Run, Scale};
use offprint_curvature::vector;
use offprint_math::linalg::eigh;
use offprint_nn::models::{Activation, MlpConfig};
use offprint_nn::{Architecture, Network};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn paper() -> Paper {
    offprint_curvature::papers().into_iter().find(|paper| paper.card().slug == "batch-hessian").unwrap()
}

fn run(parameters: Value) -> Result<(Report, Vec<(String, Artifact)>)> {
    let paper = paper();
    let mut run = Run::new(paper.card());
    paper.prepare_json(parameters)?.run(&mut run)?;
    run.finish(true)
}

fn fails(parameters: Value) -> String {
    match run(parameters) {
        Ok(_) => panic!("it ran"),
        Err(error) => error.to_string(),
    }
}

fn text<'a>(files: &'a [(String, Artifact)], name: &str) -> &'a str {
    match files.iter().find(|(file, _)| file == name) {
        Some((_, Artifact::Text(text))) => text,
        _ => panic!("no {name}"),
    }
}

fn save(path: &Path, array: Array2<f64>) -> String {
    Artifact::Array(array.into()).write(path).unwrap();
    path.display().to_string()
}

fn normal(index: u64, rows: usize, columns: usize) -> Array2<f64> {
    let stream = Streams::new(2).stream("tests");
    Array2::from_shape_vec((rows, columns), vector::gaussian(stream, index, rows * columns)).unwrap()
}

/// A small network with its weights, and 60 rows with a class in the last column.
fn network(directory: &Path) -> (PathBuf, String) {
    let shape = MlpConfig { widths: vec![5, 6, 3], activation: Activation::Tanh };
    let network = Network::fresh(&Architecture::Mlp(shape), 1, DType::F32).unwrap();
    let path = directory.join("net.safetensors");
    network.save(&path).unwrap();
    let mut rows = normal(0, 60, 6);
    rows.column_mut(5).assign(&Array1::from_iter((0..60).map(|i| f64::from(i % 3))));
    (path, save(&directory.join("rows.npy"), rows))
}

#[test]
fn a_users_network_is_looked_at_with_its_layers() {
    let directory = tempfile::tempdir().unwrap();
    let (path, data) = network(directory.path());
    for curvature in ["hessian", "gauss-newton", "fisher"] {
        let parameters = json!({
            "network": path, "data": data, "layers": true, "draws": 4, "probes": 4, "steps": 20, "curvature": curvature,
        });
        let (report, files) = run(parameters).unwrap();
        assert_eq!(report.metric("dimension P"), Some(57.0));
        assert_eq!(report.metric("samples N"), Some(60.0));
        let rates = text(&files, "rates.csv");
        // 8 and 16 alone would be few: 1 to 16.
        assert_eq!(rates.lines().count(), 1 + 5, "{rates}");
        assert_eq!(text(&files, "layers.csv").lines().count(), 1 + 4);
        let summary: Value = serde_json::from_str(text(&files, "curvature.json")).unwrap();
        assert!(summary["top"].as_f64().unwrap() > 0.0);
        if curvature != "hessian" {
            assert!(summary["bottom"].as_f64().unwrap() > -1e-5);
        }
    }
}

#[test]
fn rows_of_gradients_give_their_fisher_matrix() {
    let directory = tempfile::tempdir().unwrap();
    let rows = normal(1, 40, 12);
    let (values, _) = eigh((rows.t().dot(&rows) / 40.0).view()).unwrap();
    let grads = save(&directory.path().join("g.npy"), rows);
    let parameters =
        json!({ "grads": grads, "batch_sizes": [5, 20, 40], "law": "multiplicative", "replacement": false });
    let (report, files) = run(parameters).unwrap();
    assert!((report.metric("λ₁").unwrap() - values[11]).abs() < 1e-9 * values[11]);
    let table = text(&files, "extremes.csv");
    // All samples: no noise, the whole matrix, by every law.
    let last: Vec<f64> = table.lines().last().unwrap().split(',').map(|x| x.parse().unwrap_or(f64::NAN)).collect();
    assert!(last[1..6].iter().filter(|x| !x.is_nan()).all(|x| (x - values[11]).abs() < 1e-6 || *x < 1e-6), "{table}");
}

#[test]
fn an_explicit_matrix_is_predicted_from_its_variance() {
    let directory = tempfile::tempdir().unwrap();
    let mut matrix = Array2::zeros((30, 30));
    matrix[[3, 3]] = 4.0;
    matrix[[7, 7]] = -1.5;
    let path = save(&directory.path().join("h.npy"), matrix);
    let (report, files) = run(json!({ "matrix": path, "variance": 8.0, "batch_sizes": [2, 8], "steps": 10 })).unwrap();
    assert_eq!(report.metric("critical batch B*").map(|b| (b * 1e6).round() / 1e6), Some(0.5));
    let rows: Vec<Vec<f64>> = text(&files, "extremes.csv")
        .lines()
        .skip(1)
        .map(|line| line.split(',').map(|x| x.parse().unwrap()).collect())
        .collect();
    let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-6, "{a} {b}");
    close(rows[0][1], 4.0 + 4.0 / 4.0);
    close(rows[0][2], -4.0);
    close(rows[1][1], 4.0 + 1.0 / 4.0);
    close(rows[1][2], -1.5 - 1.0 / 1.5);
    let lopsided = save(&directory.path().join("l.npy"), normal(3, 4, 4));
    assert!(fails(json!({ "matrix": lopsided, "variance": 1.0 })).contains("not symmetric"));
    let oblong = save(&directory.path().join("o.npy"), normal(3, 4, 5));
    assert!(fails(json!({ "matrix": oblong, "variance": 1.0 })).contains("square"));
}

#[test]
fn what_does_not_go_together_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let (path, data) = network(directory.path());
    let starts = |parameters: Value, word: &str| {
        let words = fails(parameters);
        assert!(words.starts_with(word), "{words}");
    };
    starts(json!({ "network": path }), "data");
    starts(json!({ "data": data }), "data");
    starts(json!({ "network": path, "data": data, "grads": data }), "network");
    starts(json!({ "matrix": data }), "variance");
    starts(json!({ "samples": 5 }), "samples");
    starts(json!({ "targets": data }), "targets");
    starts(json!({ "batch_sizes": [0] }), "batch_sizes");
    starts(json!({ "grads": data, "layers": true }), "layers");
    starts(json!({ "grads": data, "batch_sizes": [61] }), "batch_sizes: got 61, but it must be at most the 60 samples");
    starts(json!({ "grads": data, "batch_sizes": [60] }), "batch_sizes");
    starts(json!({ "grads": data, "calibrate": 60 }), "calibrate");
    starts(json!({ "momentum": 1.0 }), "momentum");
    starts(json!({ "draws": 1 }), "draws");
    assert!(fails(json!({ "network": "/nowhere.safetensors", "data": data })).contains("cannot read"));
    let one = save(&directory.path().join("one.npy"), normal(4, 1, 3));
    starts(json!({ "grads": one }), "batch_size");
    let mut rows = normal(5, 6, 3);
    rows[[2, 1]] = f64::NAN;
    let bad = save(&directory.path().join("bad.npy"), rows);
    assert!(fails(json!({ "grads": bad })).contains("row 2, column 1"));
    let mut rows = normal(6, 6, 6);
    rows[[4, 5]] = 7.0;
    let classes = save(&directory.path().join("classes.npy"), rows);
    assert!(fails(json!({ "network": path, "data": classes })).contains("row 0"));
}

#[test]
fn the_default_run_shows_spectrum_extremes_and_rates() {
    let (report, _) = run(json!({ "epochs": 2, "draws": 2, "probes": 1, "steps": 12 })).unwrap();
    let figures: Vec<&str> = report.figures.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(figures, ["spectrum", "extremes", "rates"]);
    assert_eq!(report.metric("dimension P"), Some(6570.0));
    assert!(report.metric("s²_eff").unwrap() > 0.0);
}

#[test]
fn the_laws_hold_in_their_own_models_at_quick_scale() {
    let paper = paper();
    let mut run = Run::new(paper.card()).with_scale(Scale::Quick);
    paper.measure(&mut run).unwrap();
    let (report, _) = run.finish(true).unwrap();
    let measured = |id: &str| report.claims.iter().find(|c| c.id == id).and_then(|c| c.measured).unwrap();
    // A third of the published size, so the edges are rounder.
    assert!(measured("wigner") < 0.06, "{}", measured("wigner"));
    assert!(measured("covariance") < 0.12, "{}", measured("covariance"));
    assert!(measured("threshold-quadratic") < 0.02);
    // After two epochs the loss is not yet near a minimum, where its threshold would be that of the quadratic model.
    // Of two draws of each size one mean may lie below.
    assert!(measured("top-exceeds") > 0.9);
}
