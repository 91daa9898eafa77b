//! Built-in models, folding, evaluation, calibration, and whole networks compressed.

use candle_core::{DType, Device, Tensor};
use ndarray::Array2;
use offprint_compress::calibration::{Calibration, Needs, calibrate, record, rows};
use offprint_compress::examples::{Example, Subject};
use offprint_compress::methods::{Rtn, Sparsity, Target};
use offprint_compress::model::{evaluate, fold_batch_norms, outputs, pick, windows};
use offprint_compress::quantiser::Scheme;
use offprint_compress::{Layer, Order, Work, compress, matrix, usual_targets};
use offprint_core::Progress;
use offprint_core::random::{Stream, Streams};
use offprint_nn::layers::LayerKind;
use offprint_nn::ops;

fn stream() -> Stream {
    Streams::new(1).stream("test")
}

fn digits() -> Subject {
    Example::DigitsCnn.load().unwrap()
}

#[test]
fn built_in_models_are_as_good_as_the_family_page_says() {
    let quality = evaluate(&digits().network, &digits().test, None).unwrap();
    assert!(quality.accuracy >= 0.985, "{quality:?}");
    let vit = Example::DigitsVit.load().unwrap();
    assert!(evaluate(&vit.network, &vit.test, None).unwrap().accuracy >= 0.92);
    let lm = Example::CharLm.load().unwrap();
    let some = lm.test.narrow(0, 64).unwrap();
    let perplexity = evaluate(&lm.network, &some, None).unwrap().perplexity();
    assert!((4.0..8.0).contains(&perplexity), "{perplexity}");
}

#[test]
fn a_folded_network_computes_the_same() {
    let Subject { network, test, .. } = digits();
    let (folded, norms) = fold_batch_norms(&network).unwrap();
    assert_eq!(norms.iter().map(|norm| norm.layer.as_str()).collect::<Vec<_>>(), ["conv1", "conv2", "conv3", "conv4"]);
    let difference = (outputs(&network, &test.inputs, None).unwrap() - outputs(&folded, &test.inputs, None).unwrap())
        .and_then(|d| d.abs()?.max_all()?.to_scalar::<f32>())
        .unwrap();
    assert!(difference < 1e-4, "{difference}");
    // What is folded twice stays as it is, but for rounding; the first network was not touched.
    let (again, _) = fold_batch_norms(&folded).unwrap();
    let weight = |network: &offprint_nn::Network| matrix(network.params().get("conv2.weight").unwrap()).unwrap();
    assert!(weight(&again).iter().zip(&weight(&folded)).all(|(a, b)| (a - b).abs() < 1e-6));
    assert!(weight(&network).iter().zip(&weight(&folded)).any(|(a, b)| (a - b).abs() > 1e-3));
}

#[test]
fn patches_times_kernels_are_the_convolution() {
    let input = Tensor::randn(0f32, 1.0, (2, 3, 7, 6), &Device::Cpu).unwrap();
    let weight = Tensor::randn(0f32, 1.0, (4, 3, 3, 2), &Device::Cpu).unwrap();
    let conv = ops::Conv2d { stride: 2, padding: 1, dilation: 2, groups: 1 };
    let patches = rows(LayerKind::Conv2d { conv, kernel: (3, 2) }, &input).unwrap();
    let product = patches.dot(&matrix(&weight).unwrap().t());
    let y = ops::conv2d(&input, &weight, None, &conv).unwrap();
    let expected = matrix(&y.permute((0, 2, 3, 1)).unwrap().reshape(((), 4)).unwrap()).unwrap();
    assert_eq!(product.dim(), expected.dim());
    assert!(product.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4));
}

#[test]
fn statistics_are_those_of_the_rows() {
    let Subject { network, train, .. } = digits();
    let inputs = train.inputs.narrow(0, 0, 20).unwrap();
    let place = network.layers().unwrap().into_iter().find(|place| place.name == "conv2").unwrap();
    let needs = Needs { statistics: true, hessian: true, rows: 50 };
    let seen = calibrate(&network, &[&place], &inputs, 7, needs, None, stream()).unwrap().pop().unwrap();
    let (input, output) = record(&network, "conv2.weight", &inputs, None).unwrap();
    let all = rows(place.kind, &input).unwrap();
    assert_eq!((seen.count, all.nrows(), output.dims()), (320, 320, &[20, 32, 4, 4][..]));
    let wide = all.mapv(f64::from);
    let hessian = wide.t().dot(&wide) * (2.0 / 320.0);
    let own = seen.hessian.unwrap();
    assert!(own.iter().zip(&hessian).all(|(a, b)| (a - b).abs() < 1e-9));
    assert!(seen.mean_square.iter().zip(own.diag()).all(|(m, h)| (m - h / 2.0).abs() < 1e-9));
    assert_eq!(seen.range.1, all.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    // Kept rows are rows that were seen, and a draw is the same for the same stream.
    let kept = seen.rows.unwrap();
    assert_eq!(kept.nrows(), 50);
    assert!(kept.rows().into_iter().all(|row| all.rows().into_iter().any(|other| other == row)));
}

#[test]
fn rounding_a_network_costs_little_at_eight_bits_and_much_at_two() {
    let Subject { network, test, .. } = digits();
    let test = test.narrow(0, 200).unwrap();
    let accuracy = |bits| {
        let targets = usual_targets(&network, Target::quantised(Scheme::asymmetric(bits)), &[]).unwrap();
        let work = Work {
            method: &Rtn::AsGiven,
            targets: &targets,
            calibration: None,
            part: 64,
            order: Order::Parallel,
            stream: stream(),
        };
        let compressed = compress(&network, &work, &Progress::silent()).unwrap();
        assert_eq!((compressed.layers.len(), compressed.records[2].bits), (5, bits));
        for packed in &compressed.layers {
            packed.check().unwrap();
            let name = format!("{}.weight", packed.name);
            let own = matrix(compressed.network.params().get(&name).unwrap()).unwrap();
            assert_eq!(own, packed.dequant());
        }
        (evaluate(&compressed.network, &test, None).unwrap().accuracy, compressed.records[0].sqnr)
    };
    let (eight, two) = (accuracy(8), accuracy(2));
    assert!(eight.0 >= 0.98 && two.0 < 0.9 && eight.1 > 35.0 && two.1 < eight.1 - 20.0, "{eight:?} {two:?}");
}

#[test]
fn bad_input_is_named() {
    let Subject { network, train, test } = digits();
    let places = network.layers().unwrap();
    let inputs = train.inputs.narrow(0, 0, 4).unwrap();
    let calibrated = |inputs: &Tensor| {
        calibrate(&network, &[&places[0]], inputs, 8, Needs::HESSIAN, None, stream()).unwrap_err().to_string()
    };
    assert!(calibrated(&inputs.narrow(0, 0, 0).unwrap()).contains("no sample"));
    let error = calibrated(&inputs.zeros_like().unwrap());
    assert!(error.contains("conv1") && error.contains("only zeros"), "{error}");
    let nan = Array2::from_elem((2, 3), f32::NAN);
    assert!(
        Calibration::of_rows("x", nan.view(), Needs::STATISTICS, stream()).unwrap_err().to_string().contains("finite")
    );
    assert!(evaluate(&network, &test.narrow(0, 0).unwrap(), None).is_err());
    assert!(windows(&[1, 2, 3], 3).is_err() && pick(&test, &[9999]).is_err());

    let copy = network.copy().unwrap();
    let weight = copy.params().get("conv1.weight").unwrap();
    let spoiled = (weight.as_tensor() * f64::INFINITY).unwrap();
    weight.set(&spoiled).unwrap();
    let error = Layer::of(&copy, &places[0]).unwrap_err().to_string();
    assert!(error.contains("conv1.weight") && error.contains("number 0"), "{error}");

    let error = usual_targets(&network, Target::default(), &["fc1".into()]).unwrap_err().to_string();
    assert!(error.contains("fc1") && error.contains("conv4"), "{error}");
    let compressed = |target: Target| {
        let targets = usual_targets(&network, target, &[]).unwrap();
        let work = Work {
            method: &Rtn::AsGiven,
            targets: &targets,
            calibration: None,
            part: 64,
            order: Order::Sequential,
            stream: stream(),
        };
        compress(&network, &work, &Progress::silent()).unwrap_err().to_string()
    };
    assert!(compressed(Target::pruned(Sparsity::Unstructured(0.5))).contains("rtn quantises"));
    assert!(compressed(Target::pruned(Sparsity::Unstructured(1.0))).contains("sparsity: got 1"));
    assert!(compressed(Target::pruned(Sparsity::NofM { n: 2, m: 4 })).contains("conv1"));
    let error = compressed(Target::quantised(Scheme::symmetric(4).grouped(16)));
    assert!(error.contains("group: got 16") && error.contains("conv1"), "{error}");
    assert_eq!(network.params().dtype(), DType::F32);
}
