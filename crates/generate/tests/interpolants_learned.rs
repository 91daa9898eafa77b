//! Interpolants with networks, and their door: what is learnt, saved, read and refused.

use candle_core::Tensor;
use ndarray::{Array2, array};
use offprint_core::artifact::Artifact;
use offprint_core::random::Streams;
use offprint_core::{Array, Paper, Progress, Report, Result, Run};
use offprint_generate::interpolants::objective::{Batch, Target};
use offprint_generate::interpolants::{
    Coupling, ExactFields, Fields, Interpolant, Joint, LearnedFields, Pairs, Recipe, Shape, examples,
};
use offprint_generate::{Gamma, Interpolation, exact::Mixture, normals};
use serde_json::{Value, json};
use std::path::Path;

const BROWNIAN: Gamma = Gamma::Brownian { scale: 1.0 };

fn values(tensor: &Tensor) -> Vec<Vec<f32>> {
    tensor.to_vec2().unwrap()
}

#[test]
fn mirrored_rows_share_their_mean() {
    let path = Interpolant::named("linear", BROWNIAN).unwrap();
    let (x0, x1) = (array![[1.0, 2.0], [1.0, 2.0]], array![[4.0, 0.0], [4.0, 0.0]]);
    let pairs = Pairs::tables(x0, x1, Coupling::Paired, &Progress::silent()).unwrap();
    let targets = [Target::Velocity, Target::Mean, Target::Latent, Target::Score];
    let batch = Batch::draw(&path, &pairs, &targets, (3, 50, (0.1, 0.9)), Streams::new(1).stream("batch")).unwrap();
    let inputs = values(&batch.inputs);
    let [velocity, mean, latent, score] = [0, 1, 2, 3].map(|i| values(&batch.targets[i]));
    assert_eq!(inputs.len(), 100);
    for i in (0..100).step_by(2) {
        let t = inputs[i][2];
        assert_eq!(t, inputs[i + 1][2]);
        let gamma = (t * (1.0 - t)).sqrt();
        for j in 0..2 {
            let (from, to) = ([1.0, 2.0][j], [4.0, 0.0][j]);
            assert!((0.5 * (inputs[i][j] + inputs[i + 1][j]) - (1.0 - t) * from - t * to).abs() < 1e-5);
            assert!((0.5 * (velocity[i][j] + velocity[i + 1][j]) - (to - from)).abs() < 1e-5);
            assert!((mean[i][j] - (to - from)).abs() < 1e-6);
            assert!((latent[i][j] + latent[i + 1][j]).abs() < 1e-6);
            assert!((score[i][j] + latent[i][j] / gamma).abs() < 1e-4);
            // x = I + γ z, and the velocity of the same z.
            let rate = 0.5 * (1.0 - 2.0 * t) / gamma;
            assert!((inputs[i][j] - (1.0 - t) * from - t * to - gamma * latent[i][j]).abs() < 1e-5);
            assert!((velocity[i][j] - (to - from) - rate * latent[i][j]).abs() < 1e-4);
        }
    }
}

/// From N(0, 1) to N(2, ¼) on a line, one-sided.
fn small() -> (Recipe, Pairs, ExactFields) {
    let path = Interpolant::one_sided(Interpolation::Linear).unwrap();
    let end = Mixture::round(array![1.0], array![[2.0]], array![0.25].view()).unwrap();
    let joint = Joint::independent(&examples::standard_normal(1).unwrap(), &end).unwrap();
    let exact = ExactFields::new(path.clone(), joint.clone()).unwrap();
    let recipe = Recipe::new(path, 1);
    let shape = Shape { width: 32, depth: 2, ..recipe.shape };
    (Recipe { shape, steps: 400, batch: 256, learning_rate: 1e-2, ..recipe }, Pairs::Law(Box::new(joint)), exact)
}

#[test]
fn regression_finds_the_exact_fields() {
    let (recipe, pairs, exact) = small();
    let (learned, losses) = LearnedFields::fit(&recipe, &pairs, 1, &Progress::silent()).unwrap();
    assert_eq!(losses.len(), 400);
    for (t, places) in [(0.2, [-0.5, 0.4, 1.3]), (0.7, [0.9, 1.4, 1.9])] {
        let x = Array2::from_shape_vec((3, 1), places.to_vec()).unwrap();
        let ((b, s), (b2, s2)) = (exact.both(x.view(), t).unwrap(), learned.both(x.view(), t).unwrap());
        assert!((&b - &b2).iter().all(|v| v.abs() < 0.25), "{t}: {b} {b2}");
        assert!((&s - &s2).iter().all(|v| v.abs() < 0.3), "{t}: {s} {s2}");
    }
}

#[test]
fn models_survive_their_files() {
    let (recipe, pairs, _) = small();
    let (learned, _) = LearnedFields::fit(&Recipe { steps: 3, ..recipe }, &pairs, 1, &Progress::silent()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("model.safetensors");
    let (arrays, words) = learned.to_arrays().unwrap();
    Artifact::Arrays(arrays.clone(), words.clone()).write(&file).unwrap();
    assert!(LearnedFields::is_in(&file).unwrap());
    let again = LearnedFields::load(&file).unwrap();
    let x = array![[0.3], [1.7]];
    assert_eq!(learned.both(x.view(), 0.4).unwrap(), again.both(x.view(), 0.4).unwrap());
    // Words that contradict the tensors.
    let words = words.into_iter().map(|(k, w)| (k, w.replace("\"width\":32", "\"width\":33"))).collect();
    Artifact::Arrays(arrays.clone(), words).write(&file).unwrap();
    assert!(LearnedFields::load(&file).unwrap_err().to_string().contains("shape"));
    Artifact::Arrays(arrays, Default::default()).write(&file).unwrap();
    assert!(LearnedFields::load(&file).unwrap_err().to_string().contains("no word"));
}

#[test]
fn a_path_without_noise_has_no_score() {
    let path = Interpolant::named("linear", Gamma::Zero).unwrap();
    let recipe = Recipe::new(path, 1);
    assert_eq!(recipe.shape.second, None);
    let (_, pairs, _) = small();
    let asked = Recipe { shape: Shape { second: Some(Target::Score), ..recipe.shape }, steps: 1, ..recipe.clone() };
    let message = LearnedFields::fit(&asked, &pairs, 0, &Progress::silent()).unwrap_err().to_string();
    assert!(message.contains("no noise"), "{message}");
    let shape = Shape { width: 8, depth: 1, ..recipe.shape };
    let (learned, _) =
        LearnedFields::fit(&Recipe { shape, steps: 2, batch: 8, ..recipe }, &pairs, 0, &Progress::silent()).unwrap();
    assert!(learned.velocity(array![[0.0]].view(), 0.5).is_ok());
    assert!(learned.both(array![[0.0]].view(), 0.5).unwrap_err().to_string().contains("velocity only"));
}

fn paper() -> Paper {
    offprint_generate::papers().into_iter().find(|p| p.card().slug == "interpolants").unwrap()
}

fn run(parameters: Value, out: &Path) -> Result<Report> {
    let paper = paper();
    let mut run = Run::new(paper.card()).with_out(out.to_owned())?;
    paper.prepare_json(parameters)?.run(&mut run)?;
    Ok(run.finish(true)?.0)
}

fn rows(file: &Path, rows: Array2<f64>) {
    Artifact::Array(Array::from(rows)).write(file).unwrap();
}

#[test]
fn the_users_samples_are_bridged_and_the_model_serves_again() {
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| directory.path().join(name);
    let stream = Streams::new(1).stream("rows");
    rows(&place("x0.npy"), normals(300, 2, stream, 0));
    let csv: Vec<String> =
        normals(200, 2, stream, 1000).outer_iter().map(|r| format!("{},{}", r[0] + 3.0, r[1])).collect();
    std::fs::write(place("x1.csv"), csv.join("\n")).unwrap();
    let small = json!({
        "x0": place("x0.npy"), "x1": place("x1.csv"), "coupling": "minibatch-transport", "train_steps": 60, "width": 16,
        "depth": 2, "batch": 64, "samples": 150, "steps": 20, "paths": 5,
    });
    let report = run(small, &place("first")).unwrap();
    for file in ["model.safetensors", "samples-flow.npy", "samples-epsilon-0.5.npy", "paths-flow.npy", "times.npy"] {
        assert!(place("first").join(file).is_file(), "{file}");
    }
    assert!(report.metric("energy distance, flow, ε = 0").unwrap() < 2.0);
    let model = place("first").join("model.safetensors");
    let again = json!({
        "x0": place("x0.npy"), "x1": place("x1.csv"), "model": model, "samples": 100, "steps": 20, "backward": true,
    });
    assert!(run(again, &place("second")).unwrap().metric("training time").is_none());
    // The density of x0 is not known, so the flow has no likelihood.
    let asked = json!({"x0": place("x0.npy"), "x1": place("x1.csv"), "model": model, "samples": 10, "steps": 2,
        "likelihood": place("x0.npy")});
    assert!(run(asked, &place("third")).unwrap_err().to_string().contains("law of x0"));
}

#[test]
fn mixtures_of_the_user_have_exact_fields() {
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| directory.path().join(name);
    std::fs::write(place("a.json"), r#"{"weights": [1], "means": [[0, 0]], "covs": [1]}"#).unwrap();
    std::fs::write(place("b.json"), r#"{"weights": [0.5, 0.5], "means": [[3, 0], [0, 3]], "covs": [[1, 0.2], 0.3]}"#)
        .unwrap();
    let exact = json!({"mixture0": place("a.json"), "mixture1": place("b.json"), "samples": 300, "steps": 30,
        "path": "encoding-decoding", "gamma": "sine-squared", "epsilon_shape": "bump", "integrator": "heun"});
    let report = run(exact, &place("out")).unwrap();
    assert!(report.metric("energy distance, diffusion, ε = 0.5").unwrap() < 0.3);
    let one =
        json!({"mixture1": place("a.json"), "samples": 50, "steps": 10, "coupling": "entropic", "gamma_scale": 0.5});
    assert!(run(one, &place("entropic")).is_ok());
}

#[test]
fn the_door_answers_what_does_not_fit() {
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| directory.path().join(name);
    rows(&place("two.npy"), normals(30, 2, Streams::new(1).stream("rows"), 0));
    rows(&place("three.npy"), normals(30, 3, Streams::new(1).stream("rows"), 0));
    rows(&place("nan.npy"), array![[0.0, 1.0], [f64::NAN, 0.0], [1.0, 1.0]]);
    rows(&place("one.npy"), array![[0.0, 1.0]]);
    std::fs::write(place("a.json"), r#"{"weights": [0.9], "means": [[0, 0]], "covs": [1]}"#).unwrap();
    let message = |parameters: Value| run(parameters, &place("out")).unwrap_err().to_string();
    let two = place("two.npy");
    let shapes = message(json!({"x0": two, "x1": place("three.npy")}));
    assert!(shapes.contains("(30, 3)") && shapes.contains("(30, 2)"), "{shapes}");
    assert!(message(json!({"x1": place("nan.npy")})).contains("row 1"));
    assert!(message(json!({"x1": place("one.npy")})).contains("at least 2 rows"));
    assert!(message(json!({"x0": two})).starts_with("x1"));
    assert!(message(json!({"mixture0": place("a.json")})).starts_with("mixture1"));
    assert!(message(json!({"mixture1": place("a.json")})).contains("sum to 0.9"));
    assert!(message(json!({"mixture1": place("a.json"), "x1": two})).contains("not both"));
    assert!(message(json!({"path": "trigonometric", "gamma": "sine-squared"})).contains("below 1 on path trig"));
    assert!(message(json!({"path": "one-sided-linear"})).contains("standard normal"));
    assert!(message(json!({"x0": two, "x1": two, "path": "one-sided-vp"})).contains("two-sided"));
    assert!(message(json!({"epsilon": -1})).starts_with("epsilon"));
    assert!(message(json!({"steps": 0})).starts_with("steps"));
    assert!(message(json!({"gamma_scale": 0})).starts_with("gamma_scale"));
    assert!(message(json!({"coupling": "entropic", "gamma": "zero"})).starts_with("coupling"));
    assert!(message(json!({"coupling": "paired"})).starts_with("coupling"));
    assert!(message(json!({"model": two})).contains("safetensors"));
}
