//! OFQ's command: files in, files out, and what is wrong with them.

use candle_core::{DType, Device, Tensor};
use ndarray::{Array2, Array4};
use offprint_compress::model::evaluate;
use offprint_compress::ofq::{Precision, QuantisedViT, Rule};
use offprint_compress::{Layer, papers};
use offprint_core::artifact::Artifact;
use offprint_core::{Report, Run};
use offprint_nn::models::ViTConfig;
use offprint_nn::{Architecture, Network};
use serde_json::{Value, json};
use std::path::Path;

fn run(parameters: Value) -> offprint_core::Result<(Report, Vec<(String, Artifact)>)> {
    let paper = papers().into_iter().find(|paper| paper.card().slug == "ofq").unwrap();
    let mut run = Run::new(paper.card()).with_seed(1);
    paper.prepare_json(parameters)?.run(&mut run)?;
    run.finish(true)
}

fn fails(parameters: Value) -> String {
    run(parameters).map(|_| ()).unwrap_err().to_string()
}

fn network() -> Network {
    let config = ViTConfig {
        image: 4,
        patch: 2,
        channels: 1,
        width: 8,
        heads: 2,
        depth: 1,
        mlp: 12,
        classes: 3,
        class_token: true,
    };
    Network::fresh(&Architecture::ViT(config), 3, DType::F32).unwrap()
}

/// A model, images with classes, and what their paths are.
fn files(directory: &Path) -> Value {
    network().save(&directory.join("vit.safetensors")).unwrap();
    let images = Array4::from_shape_fn((40, 1, 4, 4), |(i, _, y, x)| ((i * 7 + y * 3 + x * 5) % 11) as f64 / 10.0);
    let classes: Vec<f64> = (0..40).map(|i| f64::from(i % 3)).collect();
    let path = |name: &str| directory.join(name).display().to_string();
    Artifact::Array(images.into()).write(&directory.join("images.npy")).unwrap();
    Artifact::Array(classes.into()).write(&directory.join("classes.npy")).unwrap();
    json!({
        "model": path("vit.safetensors"), "data": path("images.npy"), "targets": path("classes.npy"),
        "epochs": 2, "cga_epochs": 1, "batch": 8,
    })
}

fn with(mut parameters: Value, extra: Value) -> Value {
    parameters.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    parameters
}

fn logits(files: &[(String, Artifact)]) -> Vec<f64> {
    match files.iter().find(|(name, _)| name == "logits.npy") {
        Some((_, Artifact::Array(array))) => array.clone().into_f64().unwrap().into_iter().collect(),
        _ => panic!("no logits"),
    }
}

#[test]
fn what_a_run_writes_evaluates_to_the_same_logits() {
    let directory = tempfile::tempdir().unwrap();
    let parameters = files(directory.path());
    for extra in [
        json!({}),
        json!({ "plain": true, "rule": "lsq", "activation_bits": 32, "calm": "freezing", "shadow": true }),
        json!({ "keep_qbias": true, "weight_bits": 1, "activation_bits": 4, "calm": "dampening", "cosine": true }),
        json!({ "rule": "lsq-tensor", "weight_bits": 4, "calm": "none", "no_teacher": true, "weight_decay": 0.05 }),
    ] {
        let (report, saved) = run(with(parameters.clone(), extra.clone())).unwrap();
        assert_eq!(report.metric("largest difference of logits after reloading"), Some(0.0), "{extra}");
        assert!(report.metric("size, quantised").unwrap() < report.metric("size, floats").unwrap());
        let quantised = directory.path().join("quantised.safetensors");
        saved.iter().find(|(name, _)| name == "quantised.safetensors").unwrap().1.write(&quantised).unwrap();
        // The run trained on the first half and tested on the second; the file is asked about all.
        let again = json!({
            "model": quantised.display().to_string(), "data": parameters["data"], "targets": parameters["targets"],
        });
        let (report, evaluated) = run(again).unwrap();
        assert_eq!(report.metric("images"), Some(40.0));
        assert_eq!(logits(&evaluated)[60..], logits(&saved)[..]);
    }
}

#[test]
fn images_and_models_that_do_not_fit_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let parameters = files(directory.path());
    let path = |name: &str| directory.path().join(name).display().to_string();
    let write = |name: &str, array: offprint_core::Array| {
        Artifact::Array(array).write(&directory.path().join(name)).unwrap();
        path(name)
    };
    let larger = write("larger.npy", Array4::from_elem((40, 1, 8, 8), 0.5).into());
    assert!(fails(with(parameters.clone(), json!({ "data": larger }))).contains("8 × 8"));
    let wrong = write("wrong.npy", vec![3.0; 40].into());
    assert!(fails(with(parameters.clone(), json!({ "targets": wrong }))).contains("0 to 2"));
    let mut images = Array4::from_elem((40, 1, 4, 4), 0.5);
    images[[7, 0, 1, 1]] = f64::NAN;
    let not_finite = write("nan.npy", images.into());
    assert!(fails(with(parameters.clone(), json!({ "data": not_finite }))).contains("row 7"));
    let one = write("one.npy", Array2::from_elem((1, 17), 0.0).into());
    assert!(fails(with(parameters.clone(), json!({ "data": one, "targets": null }))).contains("one sample"));
    let cnn = Network::fresh(&Architecture::DigitsCnn { classes: 3 }, 0, DType::F32).unwrap();
    cnn.save(&directory.path().join("cnn.safetensors")).unwrap();
    assert!(
        fails(with(parameters.clone(), json!({ "model": path("cnn.safetensors") }))).contains("vision transformer")
    );
    std::fs::write(directory.path().join("bad.safetensors"), b"nothing").unwrap();
    assert!(fails(with(parameters, json!({ "model": path("bad.safetensors") }))).contains("bad.safetensors"));
}

#[test]
fn parameters_that_cannot_be_are_refused() {
    for (parameters, starts) in [
        (json!({ "weight_bits": 0 }), "weight_bits"),
        (json!({ "activation_bits": 9 }), "activation_bits: got 9"),
        (json!({ "activation_bits": 1 }), "activation_bits"),
        (json!({ "rule": "lsq", "weight_bits": 1 }), "weight_bits: got 1"),
        (json!({ "margin": 0.5 }), "margin: got 0.5"),
        (json!({ "margin": 0 }), "margin"),
        (json!({ "plain": true, "keep_qbias": true }), "keep_qbias"),
        (json!({ "model": "vit" }), "data"),
        (json!({ "data": "x.npy" }), "model"),
        (json!({ "rate": -1 }), "rate"),
        (json!({ "epochs": 0 }), "epochs"),
    ] {
        let error = fails(parameters.clone());
        assert!(error.starts_with(starts), "{parameters}: {error}");
    }
}

#[test]
fn packed_layers_compute_what_the_quantised_network_does() {
    let network = network();
    let x = Tensor::from_vec((0..96).map(|i| (i % 13) as f32 / 7.0).collect::<Vec<_>>(), (6, 1, 4, 4), &Device::Cpu)
        .unwrap();
    for rule in [Rule::StatsQ, Rule::Lsq, Rule::LsqTensor] {
        let vit = QuantisedViT::new(&network, Precision::ofq(3, None).plain().by(rule)).unwrap();
        let packed = vit.packed().unwrap();
        let other = vit.network().copy().unwrap();
        for (place, layer) in other.layers().unwrap().iter().zip(&packed) {
            layer.check().unwrap();
            assert_eq!(place.name, layer.name);
            Layer::set(&other, place, layer.dequant().view()).unwrap();
        }
        let targets = Tensor::zeros(6, DType::U32, &Device::Cpu).unwrap();
        let batch = offprint_nn::Batch { inputs: x.clone(), targets };
        let (a, b) = (vit.evaluate(&batch).unwrap().loss, evaluate(&other, &batch, None).unwrap().loss);
        assert!((a - b).abs() < 1e-5, "{rule:?}: {a} {b}");
    }
    let qkr = QuantisedViT::new(&network, Precision::ofq(3, None)).unwrap();
    assert!(qkr.packed().unwrap_err().to_string().contains("attention"));
}

#[test]
fn a_perfect_gradient_agrees_with_small_changes_of_a_smooth_loss() {
    use offprint_compress::ofq::{Form, Lessons};
    let floats = Precision { weights: None, activations: None, rule: Rule::StatsQ, form: Form::Plain };
    let network = network();
    let inputs =
        Tensor::from_vec((0..96).map(|i| (i * i % 13) as f32 / 7.0).collect::<Vec<_>>(), (6, 1, 4, 4), &Device::Cpu);
    let targets = Tensor::from_vec(vec![0_u32, 1, 2, 2, 1, 0], 6, &Device::Cpu);
    let batch = offprint_nn::Batch { inputs: inputs.unwrap(), targets: targets.unwrap() };
    let lessons = Lessons::new(&batch, None).unwrap();
    let chosen = Tensor::arange(0, 6_u32, &Device::Cpu).unwrap();
    let stream = offprint_core::random::Streams::new(1).stream("directions");
    for form in [Form::Plain, Form::Qkr { keep_query_bias: true }] {
        let vit = QuantisedViT::new(&network, Precision { form, ..floats }).unwrap();
        let before = vit.network().params().flat::<f32>().unwrap();
        let cosine = vit.gradient_agreement(&lessons, &chosen, 32, 0.3, stream).unwrap();
        assert!(cosine > 0.98, "{cosine}");
        assert_eq!(vit.network().params().flat::<f32>().unwrap(), before);
    }
}
