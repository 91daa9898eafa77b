//! `offprint run mfac` on files of the user's.

use ndarray::Array2;
use offprint_core::artifact::{Arrays, Artifact};
use offprint_core::random::Streams;
use offprint_core::{Array, Paper, Report, Result, Run};
use offprint_curvature::Inverse;
use offprint_curvature::mfac::MfacFactored;
use offprint_curvature::vector;
use serde_json::{Value, json};
use std::path::Path;

fn mfac() -> Paper {
    offprint_curvature::papers().into_iter().find(|paper| paper.card().slug == "mfac").unwrap()
}

fn run(parameters: Value) -> Result<(Report, Vec<(String, Artifact)>)> {
    let paper = mfac();
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

fn array(files: &[(String, Artifact)], name: &str) -> Vec<f64> {
    match files.iter().find(|(file, _)| file == name) {
        Some((_, Artifact::Array(array))) => array.clone().into_f64().unwrap().into_iter().collect(),
        _ => panic!("no {name}"),
    }
}

fn arrays<'a>(files: &'a [(String, Artifact)], name: &str) -> &'a Arrays {
    match files.iter().find(|(file, _)| file == name) {
        Some((_, Artifact::Arrays(arrays, _))) => arrays,
        _ => panic!("no {name}"),
    }
}

/// Files `g.npy` (6, 8), `x.npy` (8) and `w.safetensors` with an "a" (2, 3), a "b" (1, 2) and a bias.
fn files(directory: &Path) -> (Array2<f32>, Vec<f64>) {
    let stream = Streams::new(1).stream("tests");
    let g = Array2::from_shape_vec((6, 8), vector::gaussian::<f32>(stream, 0, 48)).unwrap();
    let x: Vec<f64> = vector::gaussian(stream, 1, 8);
    Artifact::Array(g.clone().into()).write(&directory.join("g.npy")).unwrap();
    Artifact::Array(x.clone().into()).write(&directory.join("x.npy")).unwrap();
    let matrix = |rows, columns, index| -> Array {
        Array2::from_shape_vec((rows, columns), vector::gaussian::<f32>(stream, index, rows * columns)).unwrap().into()
    };
    let tensors = [("b".to_owned(), matrix(1, 2, 2)), ("a".to_owned(), matrix(2, 3, 3)), {
        ("a.bias".to_owned(), vec![1.0f32, 2.0].into())
    }];
    Artifact::Arrays(tensors.into(), Default::default()).write(&directory.join("w.safetensors")).unwrap();
    (g, x)
}

#[test]
fn products_and_diagonals_of_files_are_those_of_the_library() {
    let directory = tempfile::tempdir().unwrap();
    let (g, x) = files(directory.path());
    let path = |name: &str| directory.path().join(name).display().to_string();
    let inverse = MfacFactored::new(g.view(), 0.01).unwrap();
    for extra in [json!({}), json!({ "pages": 2 }), json!({ "block": 8 })] {
        let mut parameters = json!({ "task": "solve", "grads": path("g.npy"), "x": path("x.npy"), "damp": 0.01 });
        parameters.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let (report, files) = run(parameters.clone()).unwrap();
        let expected = inverse.apply_inverse(&x).unwrap();
        for (a, b) in array(&files, "ihvp.npy").iter().zip(&expected) {
            assert!((a - b).abs() < 1e-4 * b.abs().max(1.0), "{parameters}: {a} {b}");
        }
        if let Some(residual) = report.metric("residual ‖F̂y − x‖/‖x‖") {
            assert!(residual < 1e-3, "{residual}");
        }
        parameters["task"] = json!("diagonal");
        let (_, files) = run(parameters).unwrap();
        for (a, b) in array(&files, "diag.npy").iter().zip(inverse.diag_inverse().unwrap()) {
            assert!((a - b).abs() < 1e-4 * b);
        }
    }
}

#[test]
fn weights_of_a_file_are_pruned_with_their_gradients() {
    let directory = tempfile::tempdir().unwrap();
    files(directory.path());
    let path = |name: &str| directory.path().join(name).display().to_string();
    let parameters = json!({
        "grads": path("g.npy"), "weights": path("w.safetensors"), "sparsity": 0.5, "recompute": 1, "damp": 0.01,
    });
    let (report, saved) = run(parameters.clone()).unwrap();
    assert_eq!(report.metric("sparsity"), Some(0.5));
    assert_eq!(report.metric("weights"), Some(8.0));
    let (pruned, mask) = (arrays(&saved, "pruned.safetensors"), arrays(&saved, "mask.safetensors"));
    assert_eq!(pruned.keys().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!((pruned["a"].shape(), mask["b"].shape()), (&[2, 3][..], &[1, 2][..]));
    let flat = |array: &Array| array.clone().into_f64().unwrap();
    for name in ["a", "b"] {
        for (w, kept) in flat(&pruned[name]).iter().zip(&flat(&mask[name])) {
            assert_eq!(*w != 0.0, *kept == 1.0);
        }
    }
    // Magnitude needs no gradients, the rest does.
    let magnitude = json!({ "weights": path("w.safetensors"), "sparsity": 0.25, "by": "magnitude" });
    assert_eq!(run(magnitude).unwrap().0.metric("sparsity"), Some(0.25));
    let mut without = parameters.clone();
    without["grads"] = json!("builtin");
    assert!(fails(without).starts_with("grads"));
    let mut subset = parameters.clone();
    subset["tensors"] = json!("a");
    let words = fails(subset);
    assert!(words.contains("has 8 columns, but the tensors to prune have 6 elements: a [2, 3]"), "{words}");
    let mut again = parameters;
    again["recompute"] = json!(3);
    assert!(run(again).unwrap().0.warnings[0].contains("same gradients"));
}

#[test]
fn parameters_that_do_not_go_together_are_refused() {
    assert!(fails(json!({ "damp": 0 })).starts_with("damp"));
    assert!(fails(json!({ "block": 0 })).starts_with("block"));
    assert!(fails(json!({ "joint": true, "block": 4 })).starts_with("joint"));
    assert!(fails(json!({ "by": "wood-fisher" })).starts_with("block"));
    assert!(fails(json!({ "grads": "g.npy" })).starts_with("weights"));
    assert!(fails(json!({ "sparsity": 1.5 })).starts_with("sparsity"));
    let directory = tempfile::tempdir().unwrap();
    files(directory.path());
    let grads = directory.path().join("g.npy").display().to_string();
    let other = directory.path().join("y.npy");
    Artifact::Array(vec![1.0, 2.0].into()).write(&other).unwrap();
    let words = fails(json!({ "task": "solve", "grads": grads, "x": other.display().to_string() }));
    assert!(words.contains("2 elements") && words.contains("d = 8"), "{words}");
    assert!(fails(json!({ "task": "solve", "grads": "/nowhere/g.npy" })).contains("cannot read"));
}
