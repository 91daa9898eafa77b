//! `offprint run influence` on files of the user's.

use candle_core::{DType, Device, Tensor};
use offprint_core::artifact::Artifact;
use offprint_core::{Array, Paper, Report, Result, Run};
use offprint_nn::models::{Activation, GptConfig, MlpConfig, Norm};
use offprint_nn::{Architecture, Network};
use serde_json::{Value, json};
use std::path::Path;

fn influence() -> Paper {
    offprint_curvature::papers().into_iter().find(|paper| paper.card().slug == "influence").unwrap()
}

fn run(parameters: Value) -> Result<(Report, Vec<(String, Artifact)>)> {
    let paper = influence();
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

fn array(files: &[(String, Artifact)], name: &str) -> ndarray::ArrayD<f64> {
    match files.iter().find(|(file, _)| file == name) {
        Some((_, Artifact::Array(array))) => array.clone().into_f64().unwrap(),
        _ => panic!("no {name}"),
    }
}

fn text<'a>(files: &'a [(String, Artifact)], name: &str) -> &'a str {
    match files.iter().find(|(file, _)| file == name) {
        Some((_, Artifact::Text(text))) => text,
        _ => panic!("no {name}"),
    }
}

/// A perceptron 3-6-2, 30 rows with classes in the last column, 4 queries.
fn tables(directory: &Path) -> impl Fn(&str) -> String + use<> {
    let shape = MlpConfig { widths: vec![3, 6, 2], activation: Activation::Tanh };
    let network = Network::fresh(&Architecture::Mlp(shape), 1, DType::F32).unwrap();
    network.save(&directory.join("net.safetensors")).unwrap();
    let rows = |n: usize, shift: f64| {
        let mut text = "a,b,c,class\n".to_owned();
        for i in 0..n {
            let x: Vec<f64> = (0..3).map(|j| (shift + 1.3 * i as f64 + 0.7 * j as f64).sin()).collect();
            text += &format!("{},{},{},{}\n", x[0], x[1], x[2], i % 2);
        }
        text
    };
    std::fs::write(directory.join("train.csv"), rows(30, 0.0)).unwrap();
    std::fs::write(directory.join("queries.csv"), rows(4, 0.5)).unwrap();
    let directory = directory.to_owned();
    move |name: &str| directory.join(name).display().to_string()
}

#[test]
fn tables_are_scored_by_every_curvature() {
    let directory = tempfile::tempdir().unwrap();
    let path = tables(directory.path());
    let base = json!({
        "model": path("net.safetensors"), "train": path("train.csv"), "queries": path("queries.csv"), "by_layer": true,
        "fisher": "empirical", "chunk": 7,
    });
    let with = |extra: Value| {
        let mut all = base.clone();
        all.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        all
    };
    let mut found = Vec::new();
    for extra in [
        json!({}),
        json!({ "curvature": "kfac", "blocks": 2 }),
        json!({ "curvature": "diagonal" }),
        json!({ "curvature": "dot" }),
        json!({ "curvature": "exact" }),
        json!({ "curvature": "lissa", "lissa_steps": 40 }),
        json!({ "rank": 4, "double": true, "damping": 0.1 }),
    ] {
        let (report, files) = run(with(extra.clone())).unwrap();
        let scores = array(&files, "scores.npy");
        assert_eq!(scores.shape(), [4, 30], "{extra}");
        let layers = array(&files, "layers.npy").sum_axis(ndarray::Axis(2));
        let largest = scores.iter().fold(0.0f64, |m, x| m.max(x.abs()));
        assert!(scores.iter().zip(&layers).all(|(a, b)| (a - b).abs() < 1e-5 * largest), "{extra}");
        assert_eq!(report.metric("tracked parameters"), Some(38.0));
        assert!(text(&files, "top.csv").contains("positive helps"));
        assert!(text(&files, "scores.json").contains("positive helps"));
        found.push(scores);
    }
    // The row asked about itself helps itself under every curvature.
    let own = with(json!({ "queries": path("train.csv") }));
    let (_, files) = run(own.clone()).unwrap();
    let scores = array(&files, "scores.npy");
    let mut of_self = own;
    of_self["task"] = json!("self-influence");
    of_self.as_object_mut().unwrap().remove("queries");
    let (report, files) = run(of_self.clone()).unwrap();
    let of_self_scores = array(&files, "self.npy");
    for i in 0..30 {
        assert!(scores[[i, i]] > 0.0 && (scores[[i, i]] - of_self_scores[[i]]).abs() < 1e-4 * scores[[i, i]]);
    }
    assert!(report.metric("largest self-influence").unwrap() > 0.0);
    of_self["curvature"] = json!("exact");
    assert_eq!(array(&run(of_self).unwrap().1, "self.npy").shape(), [30]);
    // TracIn over the same weights twice is twice the inner product.
    let checkpoints = format!("{0}@0.5,{0}@1.5", path("net.safetensors"));
    let mut tracin = with(json!({ "curvature": "tracin", "checkpoints": checkpoints }));
    tracin["by_layer"] = json!(false);
    let twice = array(&run(tracin).unwrap().1, "scores.npy");
    assert!(twice.iter().zip(&found[3]).all(|(a, b)| (a - 2.0 * b).abs() < 1e-4 * b.abs().max(1e-3)));
}

#[test]
fn factors_are_kept_and_used_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = tables(directory.path());
    let parameters = json!({
        "model": path("net.safetensors"), "train": path("train.csv"), "queries": path("queries.csv"),
        "factors": path("factors"), "layers_at_once": 1,
    });
    let first = array(&run(parameters.clone()).unwrap().1, "scores.npy");
    assert!(directory.path().join("factors/lambda_matrix.safetensors").is_file());
    let again = array(&run(parameters.clone()).unwrap().1, "scores.npy");
    let largest = first.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    assert!(first.iter().zip(&again).all(|(a, b)| (a - b).abs() < 1e-4 * largest));
    // The factors of another network.
    let shape = MlpConfig { widths: vec![3, 5, 2], activation: Activation::Tanh };
    let other = Network::fresh(&Architecture::Mlp(shape), 1, DType::F32).unwrap();
    other.save(&directory.path().join("net.safetensors")).unwrap();
    let error = fails(parameters);
    assert!(error.contains("layers.0") && error.contains("shape"), "{error}");
}

/// A transformer over ten words, texts and queries.
fn texts(directory: &Path) {
    let config = GptConfig { vocabulary: 10, context: 8, width: 8, heads: 2, depth: 1, mlp: 16, norm: Norm::Layer };
    let network = Network::fresh(&Architecture::Gpt(config), 2, DType::F32).unwrap();
    network.save(&directory.join("gpt.safetensors")).unwrap();
    let vocabulary: Vec<String> = ["?", "the", "cat", "sat", "on", "mat", "dog", "ran", "far", "away"]
        .iter()
        .enumerate()
        .map(|(i, w)| format!("\"{w}\":{i}"))
        .collect();
    let tokenizer = format!(
        r#"{{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,"pre_tokenizer":{{"type":"Whitespace"}},
        "post_processor":null,"decoder":null,"model":{{"type":"WordLevel","vocab":{{{}}},"unk_token":"?"}}}}"#,
        vocabulary.join(",")
    );
    std::fs::write(directory.join("tokenizer.json"), tokenizer).unwrap();
    let train = "{\"text\": \"the cat sat on the mat\"}\n{\"text\": \"the dog ran far\"}\n\n{\"prompt\": \"the dog\", \"completion\": \"sat\"}\n{\"text\": \"away ran the cat\"}\n";
    std::fs::write(directory.join("train.jsonl"), train).unwrap();
    std::fs::write(directory.join("ask.jsonl"), "{\"prompt\": \"the dog ran\", \"completion\": \"far away\"}\n")
        .unwrap();
}

#[test]
fn texts_are_scored_by_token() {
    let directory = tempfile::tempdir().unwrap();
    texts(directory.path());
    let path = |name: &str| directory.path().join(name).display().to_string();
    let parameters = json!({
        "model": path("gpt.safetensors"), "texts": path("train.jsonl"), "query_texts": path("ask.jsonl"),
        "tokenizer": path("tokenizer.json"), "by_token": true, "by_layer": true,
    });
    let (report, files) = run(parameters.clone()).unwrap();
    let (scores, tokens) = (array(&files, "scores.npy"), array(&files, "tokens.npy"));
    assert_eq!((scores.shape(), tokens.shape()), (&[1, 4][..], &[1, 4, 5][..]));
    let sums = tokens.sum_axis(ndarray::Axis(2));
    let largest = scores.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    assert!(scores.iter().zip(&sums).all(|(a, b)| (a - b).abs() < 1e-5 * largest));
    // Padding has no part.
    assert!(tokens.slice(ndarray::s![0, 1, 3..]).iter().all(|x| *x == 0.0));
    assert_eq!(report.metric("tracked layers"), Some(2.0));
    assert!(text(&files, "top.json").contains("the cat sat on the mat"));
    let mut few = parameters.clone();
    few["keep"] = json!(2);
    let (_, files) = run(few).unwrap();
    assert_eq!(array(&files, "scores.npy").shape(), [1, 2]);
    let mut all = parameters.clone();
    all["track"] = json!("all");
    assert_eq!(run(all).unwrap().0.metric("tracked layers"), Some(4.0));
    let mut unknown = parameters.clone();
    unknown["track"] = json!("h.0.mlp,h.9");
    assert!(fails(unknown).contains("h.9"));
    std::fs::write(directory.path().join("train.jsonl"), "{\"text\": \"the cat\"}\n{\"words\": 3}\n").unwrap();
    assert!(fails(parameters.clone()).contains("line 2"));
    let long = "{\"text\": \"the cat sat on the mat the cat sat on the mat\"}\n";
    std::fs::write(directory.path().join("train.jsonl"), long).unwrap();
    let error = fails(parameters);
    assert!(error.contains("sequence 1 has 12 tokens") && error.contains("train.jsonl"), "{error}");
}

#[test]
fn what_does_not_go_together_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = tables(directory.path());
    texts(directory.path());
    let net = path("net.safetensors");
    for (parameters, word) in [
        (json!({ "train": path("train.csv") }), "model"),
        (json!({ "model": net }), "train"),
        (json!({ "model": net, "train": path("train.csv") }), "queries"),
        (json!({ "model": net, "texts": path("train.jsonl") }), "query-texts"),
        (json!({ "model": net, "texts": path("train.jsonl"), "train": path("train.csv") }), "train"),
        (json!({ "model": net, "train": path("train.csv"), "queries": path("queries.csv"), "keep": 3 }), "keep"),
        (json!({ "curvature": "tracin" }), "model"),
        (
            json!({ "model": net, "train": path("train.csv"), "queries": path("queries.csv"), "curvature": "tracin",
                "checkpoints": "x@1", "rank": 3 }),
            "rank",
        ),
        (json!({ "damping": 0.0 }), "damping"),
        (json!({ "damping_share": -1.0 }), "damping_share"),
        (json!({ "rank": 0 }), "rank"),
        (json!({ "track": "layers.9" }), "track"),
        (
            json!({ "model": net, "train": path("train.csv"), "queries": path("queries.csv"), "factors": "x", "curvature": "dot" }),
            "factors",
        ),
    ] {
        let error = fails(parameters.clone());
        assert!(error.starts_with(word), "{parameters}: {error}");
    }
    let ask = |extra: Value| {
        let mut all = json!({ "model": net, "train": path("train.csv"), "queries": path("queries.csv") });
        all.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        fails(all)
    };
    let tokens = json!({ "by_token": true });
    assert!(ask(tokens).starts_with("by-token"));
    assert!(ask(json!({ "curvature": "tracin", "checkpoints": "no rate" })).contains("PATH@RATE"));
    Artifact::Array(Array::from(vec![0.0, 7.0, 1.0, 0.0])).write(&directory.path().join("y.npy")).unwrap();
    let error = ask(json!({ "query_targets": path("y.npy") }));
    assert!(error.contains("rows of 3 numbers"), "{error}");
    std::fs::write(directory.path().join("queries.csv"), "a,b,c,class\n1,2,3,0\n1,2,nan,1\n").unwrap();
    assert!(ask(json!({})).contains("row 1"));
    std::fs::write(directory.path().join("queries.csv"), "a,b,c,class\n1,2,3,0\n1,2,3,7\n").unwrap();
    assert!(ask(json!({})).contains("row 1"));
    let words = json!({
        "model": net, "texts": path("train.jsonl"), "query_texts": path("ask.jsonl"), "tokenizer": path("tokenizer.json"),
    });
    assert!(fails(words).starts_with("texts"));
    // Weights that are not numbers.
    let shape = MlpConfig { widths: vec![3, 6, 2], activation: Activation::Tanh };
    let broken = Network::fresh(&Architecture::Mlp(shape), 1, DType::F32).unwrap();
    let bias = broken.params().get("layers.0.bias").unwrap();
    bias.set(&Tensor::full(f32::NAN, 6, &Device::Cpu).unwrap()).unwrap();
    broken.save(Path::new(&net)).unwrap();
    assert!(ask(json!({})).contains("layers.0.bias"));
}
