//! The comparisons, run as users run them.

use candle_core::{DType, Tensor};
use offprint_compress::comparisons;
use offprint_compress::examples::Example;
use offprint_compress::export::{Format, export};
use offprint_compress::methods::{Rtn, Target};
use offprint_compress::quantiser::Scheme;
use offprint_compress::{Order, Work, compress, open_network, usual_targets};
use offprint_core::artifact::Artifact;
use offprint_core::random::Streams;
use offprint_core::table::Values;
use offprint_core::{Array, Comparison, Progress, Report, Run};
use offprint_nn::checkpoint::save;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

fn comparison(task: &str) -> Comparison {
    comparisons().into_iter().find(|comparison| comparison.task == task).unwrap()
}

fn run(task: &str, parameters: Value) -> Report {
    let comparison = comparison(task);
    let mut run = Run::new(&comparison.card());
    comparison.prepare_json(parameters).unwrap().run(&mut run).unwrap();
    run.finish(true).unwrap().0
}

fn refused(task: &str, parameters: Value) -> String {
    let comparison = comparison(task);
    match comparison.prepare_json(parameters) {
        Err(error) => error.to_string(),
        Ok(prepared) => prepared.run(&mut Run::new(&comparison.card())).unwrap_err().to_string(),
    }
}

/// A column of the table of methods.
fn column(report: &Report, name: &str) -> Vec<String> {
    let table = &report.tables[0];
    let column = table.columns.iter().find(|column| column.name == name).unwrap();
    match &column.values {
        Values::Words(words) => words.clone(),
        Values::Numbers(numbers) => numbers.iter().map(f64::to_string).collect(),
        Values::Integers(numbers) => numbers.iter().map(i64::to_string).collect(),
    }
}

#[test]
fn quantizers_keep_accuracy_at_many_bits() {
    let report = run("quantizers", json!({"methods": ["rtn", "omse", "gptq"], "bits": [3, 8], "samples": 64}));
    assert_eq!((report.figures.len(), column(&report, "method").len()), (1, 6));
    let accuracy: Vec<f64> = column(&report, "accuracy").iter().map(|x| x.parse().unwrap()).collect();
    assert!(accuracy[3..].iter().all(|&a| a >= 0.98), "{accuracy:?}");
    // What is compensated at three bits is better than what is not.
    assert!(accuracy[2] > accuracy[0], "{accuracy:?}");
    let size: Vec<f64> = column(&report, "of the float size").iter().map(|x| x.parse().unwrap()).collect();
    assert!(size[0] < 0.15 && (0.25..0.3).contains(&size[3]), "{size:?}");
}

#[test]
fn pruners_leave_layers_alone_that_a_pattern_does_not_fit() {
    let report = run("pruners", json!({"sparsity": ["0.6", "2:4"], "samples": 64}));
    // One threshold for all layers knows no patterns.
    assert_eq!(column(&report, "method").len(), 7);
    assert!(report.warnings.iter().any(|w| w.contains("2:4: does not fit conv1")), "{:?}", report.warnings);
    let accuracy: Vec<f64> = column(&report, "accuracy").iter().map(|x| x.parse().unwrap()).collect();
    // With the same share in every layer, making up for what is pruned beats not doing so; one threshold for all layers
    // has other shares.
    let [magnitude, global, wanda, compensated] = accuracy[..4] else { panic!("{accuracy:?}") };
    assert!(compensated > magnitude.max(wanda) + 0.1 && global > 0.9, "{accuracy:?}");
    assert!(accuracy[6] > accuracy[4].max(accuracy[5]), "{accuracy:?}");
}

#[test]
fn a_network_of_ones_own_is_read_compressed_or_not() {
    let subject = Example::DigitsVit.load().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    // A directory as others write it: config.json beside the weights.
    std::fs::create_dir(at("plain")).unwrap();
    let config = serde_json::to_string(subject.network.architecture()).unwrap();
    std::fs::write(at("plain/config.json"), config).unwrap();
    save(&at("plain/model.safetensors"), &subject.network.params().snapshot().unwrap(), &BTreeMap::new()).unwrap();
    let targets = usual_targets(&subject.network, Target::quantised(Scheme::symmetric(8)), &[]).unwrap();
    let stream = Streams::new(0).stream("test");
    let work =
        Work { method: &Rtn::AsGiven, targets: &targets, calibration: None, part: 1, order: Order::Parallel, stream };
    let compressed = compress(&subject.network, &work, &Progress::silent()).unwrap();
    export(&compressed.network, &compressed.layers, Format::CompressedTensors, &at("ct")).unwrap();
    let (images, classes) = (&subject.test.inputs.narrow(0, 0, 60).unwrap(), &subject.test.targets);
    write_array(&at("x.npy"), images);
    write_array(&at("y.npy"), &classes.narrow(0, 0, 60).unwrap());
    for model in ["plain", "ct"] {
        let given = |name: &str| at(name).display().to_string();
        let report = run(
            "quantizers",
            json!({"model": given(model), "data": given("x.npy"), "targets": given("y.npy"), "methods": ["rtn"],
                "bits": [8], "except": ["head"]}),
        );
        let accuracy: f64 = column(&report, "accuracy")[0].parse().unwrap();
        assert!(accuracy > 0.85, "{model} {accuracy}");
    }
    let same = open_network(&at("ct")).unwrap();
    let flat = |network: &offprint_nn::Network| network.params().flat::<f32>().unwrap();
    assert_eq!(flat(&same), flat(&compressed.network));
    let model = at("plain").display().to_string();
    assert!(refused("quantizers", json!({"model": model})).starts_with("data: got builtin"));
    assert!(refused("pruners", json!({"data": at("x.npy").display().to_string()})).starts_with("model: got none"));
}

fn write_array(path: &Path, tensor: &Tensor) {
    let values = tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let array = ndarray::ArrayD::from_shape_vec(tensor.dims().to_vec(), values).unwrap();
    Artifact::Array(Array::F64(array)).write(path).unwrap();
}

#[test]
fn parameters_out_of_range_are_named() {
    for (task, parameters, words) in [
        ("quantizers", json!({"bits": [9]}), "bits: got 9"),
        ("quantizers", json!({"bits": []}), "bits: got none"),
        ("quantizers", json!({"bits": [1], "symmetric": true}), "between 2 and 8"),
        ("quantizers", json!({"group": 0}), "group: got 0"),
        ("quantizers", json!({"methods": ["gtpq"]}), "gptq-act-order"),
        ("quantizers", json!({"group": 7}), "methods"),
        ("quantizers", json!({"except": ["conv9"]}), "conv9"),
        ("pruners", json!({"sparsity": ["1.0"]}), "sparsity: got 1.0"),
        ("pruners", json!({"sparsity": ["4:2"]}), "sparsity: got 4:2"),
        ("pruners", json!({"sparsity": ["half"]}), "sparsity: got half"),
        ("pruners", json!({"sparsity": []}), "sparsity: got none"),
        ("pruners", json!({"samples": 0}), "samples"),
    ] {
        let error = refused(task, parameters.clone());
        assert!(error.contains(words), "{parameters}: {error}");
    }
}
