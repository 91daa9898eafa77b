//! Influence functions against kronfluence's numbers, dense matrices, retraining objectives and finite differences.

use candle_core::{DType, Device, Tensor};
use ndarray::{Array2, Axis, s};
use offprint_core::artifact::{Arrays, read_safetensors};
use offprint_core::random::Streams;
use offprint_core::{Error, Progress, Result};
use offprint_curvature::influence::{
    Detail, DiagonalFisher, Directions, Exact, Examples, FactorFiles, Fit, Identity, Lissa, Model, Preconditioner,
    ProximalBregman, Track, TrackedLayers, gauss_newton_matrix, gauss_newton_roots, input_token_influence,
    output_token_influence, tracin,
};
use offprint_curvature::{Damping, KroneckerInverse, vector};
use offprint_math::linalg;
use offprint_math::stats::correlation;
use offprint_nn::derivatives::{IGNORED, Loss, LossFunction};
use offprint_nn::models::{Activation, GptConfig, LlamaConfig, MlpConfig, Norm};
use offprint_nn::{Architecture, Batch, Network, Params};
use std::path::Path;

fn silent() -> Progress {
    Progress::silent()
}

fn mlp(widths: &[usize]) -> Architecture {
    Architecture::Mlp(MlpConfig { widths: widths.to_vec(), activation: Activation::Tanh })
}

fn reals(index: u64, shape: &[usize]) -> Tensor {
    let values: Vec<f64> = vector::gaussian(Streams::new(3).stream("tests"), index, shape.iter().product());
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn classes(n: usize, count: u32) -> Tensor {
    Tensor::from_vec((0..n as u32).map(|i| (i * i + 3 * i / 2) % count).collect::<Vec<_>>(), n, &Device::Cpu).unwrap()
}

/// A network, `n` samples and 3 queries: rows, images or token sequences.
fn setting(kind: &str, n: usize) -> (Network, Examples, Examples) {
    let (architecture, inputs, targets): (Architecture, Tensor, Tensor) = match kind {
        "mlp" => (mlp(&[4, 5, 3]), reals(0, &[n + 3, 4]), classes(n + 3, 3)),
        "conv" => (Architecture::DigitsCnn { classes: 3 }, reals(1, &[n + 3, 1, 8, 8]), classes(n + 3, 3)),
        _ => {
            let config =
                GptConfig { vocabulary: 7, context: 6, width: 16, heads: 2, depth: 1, mlp: 24, norm: Norm::Layer };
            let ids = classes((n + 3) * 6, 7).reshape((n + 3, 6)).unwrap();
            let next = classes((n + 3) * 6 + 1, 7).narrow(0, 1, (n + 3) * 6).unwrap().reshape((n + 3, 6)).unwrap();
            (Architecture::Gpt(config), ids, next)
        }
    };
    let network = Network::fresh(&architecture, 11, DType::F64).unwrap();
    let batch = Batch { inputs, targets };
    (network, batch.narrow(0, n).unwrap().into(), batch.narrow(n, 3).unwrap().into())
}

fn tracked(loss: &LossFunction<'_>, train: &Examples, track: Track) -> TrackedLayers {
    TrackedLayers::of(loss, train, &track).unwrap()
}

fn close(a: &Array2<f64>, b: &Array2<f64>, tolerance: f64) {
    let largest = b.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    assert_eq!(a.dim(), b.dim());
    for ((place, a), b) in a.indexed_iter().zip(b) {
        assert!((a - b).abs() <= tolerance * largest, "{place:?}: {a} {b}");
    }
}

fn ekfac(model: &Model<'_>, train: &Examples) -> KroneckerInverse {
    let layers = Fit::new(Streams::new(1).stream("fit")).layers(model, train, None, &silent()).unwrap();
    KroneckerInverse::new(layers, model.tracked.dim(), Damping::OfMean(0.1)).unwrap()
}

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/kronfluence")
}

/// kronfluence 1.0.1 in double precision on a perceptron 4-6-5-3 with tanh, 48 random rows, 7 queries, empirical Fisher.
fn kronfluence() -> (Network, Examples, Examples, Arrays) {
    let (arrays, _) = read_safetensors(&folder().join("scores.safetensors")).unwrap();
    let network = Network::fresh(&mlp(&[4, 6, 5, 3]), 0, DType::F64).unwrap();
    for param in network.params().trained() {
        param.var.set(&tensor(&arrays, &format!("model.{}", param.name))).unwrap();
    }
    let examples = |x: &str, y: &str| {
        let targets = tensor(&arrays, y).to_dtype(DType::U32).unwrap();
        Examples::from(Batch { inputs: tensor(&arrays, x), targets })
    };
    let (train, queries) = (examples("x", "y"), examples("queries", "query_targets"));
    (network, train, queries, arrays)
}

fn tensor(arrays: &Arrays, name: &str) -> Tensor {
    let array = arrays[name].clone().into_f64().unwrap();
    let shape = array.shape().to_vec();
    Tensor::from_vec(array.into_iter().collect::<Vec<_>>(), shape, &Device::Cpu).unwrap()
}

fn matrix(arrays: &Arrays, name: &str) -> Array2<f64> {
    arrays[name].clone().into_f64().unwrap().into_dimensionality().unwrap()
}

#[test]
fn scores_are_those_of_kronfluence() {
    let (network, train, queries, arrays) = kronfluence();
    let loss = network.loss(Loss::CrossEntropy);
    let tracked = tracked(&loss, &train, Track::Usual);
    let model = Model { loss: &loss, tracked: &tracked, chunk: 20 };
    let empirical = Fit { sampled: None, ..Fit::new(Streams::new(0).stream("unused")) };
    let layers = empirical.layers(&model, &train, None, &silent()).unwrap();
    let plain: Vec<_> = layers.iter().map(|layer| layer.clone().without_refit()).collect();
    let gradients = model.gradients(&queries, &silent()).unwrap();
    for (damping, name) in [(Damping::OfMean(0.1), "heuristic"), (Damping::Fixed(0.01), "fixed")] {
        let ekfac = KroneckerInverse::new(layers.clone(), tracked.dim(), damping).unwrap();
        let kfac = KroneckerInverse::new(plain.clone(), tracked.dim(), damping).unwrap();
        let diagonal = DiagonalFisher::fit(&model, &train, damping, &silent()).unwrap();
        let identity = Identity { dim: tracked.dim() };
        let all: [(&str, &dyn Preconditioner); 4] =
            [("ekfac", &ekfac), ("kfac", &kfac), ("diagonal", &diagonal), ("identity", &identity)];
        for (method, preconditioner) in all {
            let directions = preconditioner.precondition(gradients.view(), &silent()).unwrap();
            let directions = Directions::new(&tracked, directions.view()).unwrap();
            let detail = Detail { layers: true, tokens: false };
            let scores = model.scores(&directions, &train, detail, &silent()).unwrap();
            // Scores are handed out in single precision.
            close(&scores.total.mapv(f64::from), &matrix(&arrays, &format!("{method}.{name}")), 2e-7);
            if (method, name) == ("ekfac", "heuristic") {
                for layer in 0..3 {
                    let own = scores.layers.as_ref().unwrap().index_axis(Axis(2), layer).mapv(f64::from);
                    close(&own, &matrix(&arrays, &format!("module.layers.{layer}")), 2e-7);
                }
                let of_self = model.kronecker_self_influence(&ekfac, &train, &silent()).unwrap();
                let theirs = arrays["self"].clone().into_f64().unwrap().into_dimensionality::<ndarray::Ix1>().unwrap();
                close(&of_self.insert_axis(Axis(0)), &theirs.insert_axis(Axis(0)), 1e-9);
            }
        }
    }
}

#[test]
fn factors_of_kronfluence_are_read_and_written() {
    let (network, train, queries, arrays) = kronfluence();
    let loss = network.loss(Loss::CrossEntropy);
    let tracked = tracked(&loss, &train, Track::Usual);
    let model = Model { loss: &loss, tracked: &tracked, chunk: 20 };
    // Read theirs, write ours from the data, read ours.
    let ours = tempfile::tempdir().unwrap();
    let fit = Fit { sampled: None, layers_at_once: 2, ..Fit::new(Streams::new(0).stream("unused")) };
    let files = FactorFiles::open(ours.path()).unwrap();
    fit.layers(&model, &train, Some(&files), &silent()).unwrap();
    for directory in [folder(), ours.path().to_owned()] {
        let files = FactorFiles::open(directory).unwrap();
        let layers: Vec<_> =
            files.read_layers(tracked.layers(), true).unwrap().into_iter().map(|l| l.unwrap()).collect();
        let inverse = KroneckerInverse::new(layers, tracked.dim(), Damping::OfMean(0.1)).unwrap();
        let directions = model.gradients(&queries, &silent()).unwrap();
        let directions = inverse.precondition(directions.view(), &silent()).unwrap();
        let directions = Directions::new(&tracked, directions.view()).unwrap();
        let scores = model.scores(&directions, &train, Detail::default(), &silent()).unwrap();
        close(&scores.total.mapv(f64::from), &matrix(&arrays, "ekfac.heuristic"), 1e-5);
    }
    // The same files, tensors and sums (signs of eigenvectors are free).
    for entry in std::fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name();
        if name == "scores.safetensors" {
            continue;
        }
        let (theirs, own) = (folder().join(&name), ours.path().join(&name));
        let (theirs, own) = (read_safetensors(&theirs).unwrap().0, read_safetensors(&own).unwrap().0);
        assert_eq!(theirs.keys().collect::<Vec<_>>(), own.keys().collect::<Vec<_>>(), "{name:?}");
        for (layer, array) in &theirs {
            let (a, b) = (array.clone().into_f64().unwrap(), own[layer].clone().into_f64().unwrap());
            assert_eq!(a.shape(), b.shape(), "{name:?}");
            let vectors = name.to_string_lossy().contains("eigenvectors");
            let largest = a.iter().fold(0.0f64, |m, x| m.max(x.abs()));
            let same = a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5 * largest.max(1e-3));
            assert!(vectors || same, "{name:?} {layer}");
        }
    }
}

#[test]
fn every_order_of_products_gives_the_inner_products_of_gradients() {
    for (kind, track) in [("mlp", Track::Usual), ("conv", Track::All), ("gpt", Track::All), ("gpt", Track::Usual)] {
        let (network, train, queries) = setting(kind, 9);
        let loss = network.loss(Loss::CrossEntropy);
        let tracked = tracked(&loss, &train, track);
        let model = Model { loss: &loss, tracked: &tracked, chunk: 4 };
        // The gradients of nn, cut to the tracked coordinates, are the oracle.
        let all = |examples: &Examples| {
            let whole = loss.per_sample_gradients::<f64>(&examples.batch, offprint_nn::derivatives::Targets::True);
            let rows: Vec<f64> = whole.unwrap().outer_iter().flat_map(|row| tracked.restrict(&row.to_vec())).collect();
            Array2::from_shape_vec((examples.len(), tracked.dim()), rows).unwrap()
        };
        let inverse = ekfac(&model, &train);
        let gradients = model.gradients(&queries, &silent()).unwrap();
        close(&gradients, &all(&queries), 1e-9);
        let directions = inverse.precondition(gradients.view(), &silent()).unwrap();
        let expected = directions.dot(&all(&train).t());
        for q in [1, 3] {
            let some = Directions::new(&tracked, directions.slice(s![..q, ..])).unwrap();
            let expected = expected.slice(s![..q, ..]).to_owned();
            let whole = model.scores(&some, &train, Detail { layers: true, tokens: false }, &silent()).unwrap();
            close(&whole.total.mapv(f64::from), &expected, 1e-6);
            close(&whole.layers.unwrap().mapv(f64::from).sum_axis(Axis(2)), &expected, 1e-6);
            if kind == "gpt" {
                let detail = Detail { layers: true, tokens: true };
                let scores = model.scores(&some, &train, detail, &silent()).unwrap();
                assert_eq!(scores.tokens.as_ref().unwrap().dim(), (q, 9, 6));
                close(&scores.tokens.unwrap().mapv(f64::from).sum_axis(Axis(2)), &expected, 1e-6);
                close(&scores.total.mapv(f64::from), &expected, 1e-6);
            }
        }
        // A gradient itself has at most as high a rank as the sample has positions, so that this rank loses nothing.
        if kind != "conv" {
            let rank = if kind == "mlp" { 1 } else { 6 };
            let whole = Directions::new(&tracked, gradients.view()).unwrap();
            let small = whole.compressed(&tracked, rank).unwrap();
            assert!(small.size() < whole.size());
            let scores = model.scores(&small, &train, Detail::default(), &silent()).unwrap();
            close(&scores.total.mapv(f64::from), &gradients.dot(&all(&train).t()), 1e-6);
        }
        let of_self = model.self_influence(&inverse, &train, &silent()).unwrap();
        let fast = model.kronecker_self_influence(&inverse, &train, &silent()).unwrap();
        close(&fast.insert_axis(Axis(0)), &of_self.insert_axis(Axis(0)), 1e-9);
    }
}

#[test]
fn low_ranks_keep_most_of_the_score() {
    let (network, train, queries) = setting("mlp", 30);
    let loss = network.loss(Loss::CrossEntropy);
    let tracked = tracked(&loss, &train, Track::Usual);
    let model = Model { loss: &loss, tracked: &tracked, chunk: 8 };
    let directions =
        ekfac(&model, &train).precondition(model.gradients(&queries, &silent()).unwrap().view(), &silent());
    let whole = Directions::new(&tracked, directions.unwrap().view()).unwrap();
    let scores = |directions: &Directions| -> Vec<f64> {
        let scores = model.scores(directions, &train, Detail::default(), &silent()).unwrap();
        scores.total.iter().map(|&x| f64::from(x)).collect()
    };
    let small = whole.compressed(&tracked, 1).unwrap();
    assert!(small.size() < whole.size());
    assert!(correlation(&scores(&small), &scores(&whole)) > 0.8);
    assert!(whole.compressed(&tracked, 0).unwrap_err().to_string().starts_with("rank"));
}

/// The Gauss–Newton matrix column by column from products.
fn dense(loss: &LossFunction<'_>, tracked: &TrackedLayers, batch: &Batch) -> Array2<f64> {
    let mut columns = Array2::zeros((tracked.dim(), tracked.dim()));
    for k in 0..tracked.dim() {
        let mut unit = vec![0.0; tracked.dim()];
        unit[k] = 1.0;
        let product = loss.gauss_newton_product::<f64>(batch, &tracked.embed(&unit)).unwrap();
        columns.column_mut(k).assign(&ndarray::aview1(&tracked.restrict(&product)));
    }
    columns
}

#[test]
fn exact_inverses_are_those_of_the_gauss_newton_matrix() {
    let progress = silent();
    for (loss_kind, n, outputs) in
        [(Loss::CrossEntropy, 12, 3), (Loss::SquaredError, 40, 2), (Loss::SquaredError, 8, 1), (Loss::Logistic, 9, 2)]
    {
        let network = Network::fresh(&mlp(&[4, 5, outputs]), 2, DType::F64).unwrap();
        let targets = match loss_kind {
            Loss::CrossEntropy => classes(n, 3),
            _ => reals(5, &[n, outputs]).ge(0.0).unwrap().to_dtype(DType::F64).unwrap(),
        };
        let train: Examples = Batch { inputs: reals(4, &[n, 4]), targets }.into();
        let loss = network.loss(loss_kind);
        let tracked = tracked(&loss, &train, Track::Usual);
        let model = Model { loss: &loss, tracked: &tracked, chunk: 5 };
        let roots = gauss_newton_roots(&model, &train, &progress).unwrap();
        let mut matrix = dense(&loss, &tracked, &train.batch);
        close(&roots.t().dot(&roots), &matrix, 1e-9);
        let damping = tracked.spread(|layer| 0.01 * (1.0 + layer as f64));
        close(&gauss_newton_matrix(&model, &train, &progress).unwrap(), &matrix, 1e-9);
        let exact = Exact::of_matrix(matrix.clone(), damping.clone()).unwrap();
        let woodbury = Exact::of_roots(roots, damping.clone()).unwrap();
        let layers = Exact::by_layer(&tracked, matrix.view(), damping.clone()).unwrap();
        matrix.diag_mut().iter_mut().zip(&damping).for_each(|(x, damp)| *x += damp);
        let inverse = linalg::inverse(matrix.view()).unwrap();
        let probes = Array2::from_shape_vec(
            (2, tracked.dim()),
            vector::gaussian(Streams::new(4).stream("p"), 0, 2 * tracked.dim()),
        )
        .unwrap();
        close(&exact.precondition(probes.view(), &progress).unwrap(), &probes.dot(&inverse), 1e-8);
        close(&woodbury.precondition(probes.view(), &progress).unwrap(), &probes.dot(&inverse), 1e-8);
        let end = tracked.layers()[0].bias.as_ref().unwrap().end;
        matrix.slice_mut(s![..end, end..]).fill(0.0);
        matrix.slice_mut(s![end.., ..end]).fill(0.0);
        let inverse = linalg::inverse(matrix.view()).unwrap();
        close(&layers.precondition(probes.view(), &progress).unwrap(), &probes.dot(&inverse), 1e-8);
    }
}

#[test]
fn lissa_comes_to_the_exact_answer_on_whole_batches() {
    let (network, train, queries) = setting("mlp", 10);
    let loss = network.loss(Loss::CrossEntropy);
    let tracked = tracked(&loss, &train, Track::Usual);
    let model = Model { loss: &loss, tracked: &tracked, chunk: 10 };
    let damping = tracked.spread(|layer| 0.1 * (1.0 + layer as f64));
    let stream = Streams::new(6).stream("lissa");
    let scale = Lissa::scale(&loss, &tracked, &train, &damping, 10, stream).unwrap();
    let lissa = Lissa {
        loss: &loss,
        tracked: &tracked,
        train: &train,
        damping: damping.clone(),
        scale,
        steps: 400,
        batch: 10,
        stream,
    };
    let gradients = model.gradients(&queries, &silent()).unwrap();
    let exact = Exact::fit(&model, &train, damping, &silent()).unwrap();
    let found = lissa.precondition(gradients.view(), &silent()).unwrap();
    close(&found, &exact.precondition(gradients.view(), &silent()).unwrap(), 1e-4);
}

#[test]
fn drawn_targets_make_the_gauss_newton_matrix_whatever_the_chunk() {
    let (network, train, _) = setting("mlp", 60);
    let loss = network.loss(Loss::CrossEntropy);
    let tracked = tracked(&loss, &train, Track::Usual);
    let of = |chunk: usize, sampled: bool| {
        let model = Model { loss: &loss, tracked: &tracked, chunk };
        let stream = Streams::new(8).stream("labels");
        let fit = Fit { sampled: sampled.then_some(stream), ..Fit::new(stream) };
        let layers = fit.layers(&model, &train, None, &silent()).unwrap();
        layers.iter().map(|layer| layer.eigenvalues().sum()).collect::<Vec<f64>>()
    };
    for (a, b) in of(7, true).iter().zip(of(60, true)) {
        assert!((a - b).abs() < 1e-9 * a);
    }
    // The trace of each layer estimates that of the Gauss–Newton matrix; true labels give another one.
    let exact = dense(&loss, &tracked, &train.batch).diag().to_vec();
    for ((layer, sampled), true_labels) in tracked.layers().iter().zip(of(60, true)).zip(of(60, false)) {
        let trace: f64 = layer.gather(&exact).sum();
        assert!((sampled - trace).abs() < 0.25 * trace, "{sampled} {trace} {true_labels}");
    }
}

#[test]
fn blocks_within_a_layer_leave_out_what_lies_between_them() {
    let (network, train, _) = setting("mlp", 40);
    let loss = network.loss(Loss::CrossEntropy);
    let tracked = tracked(&loss, &train, Track::Usual);
    let model = Model { loss: &loss, tracked: &tracked, chunk: 40 };
    let parts = |blocks| {
        let fit = Fit { sampled: None, blocks, ..Fit::new(Streams::new(0).stream("unused")) };
        fit.layers(&model, &train, None, &silent()).unwrap()[0].parts()
    };
    let (whole, halves) = (parts(1), parts(2));
    assert!(whole.activation_eigenvectors[[0, 4]].abs() > 1e-6);
    // Five inputs with the one of the bias: blocks of 2 and 3.
    assert!(halves.activation_eigenvectors.slice(s![..2, 2..]).iter().all(|x| *x == 0.0));
    assert!(halves.activation_eigenvectors.slice(s![2.., ..2]).iter().all(|x| *x == 0.0));
    // The trace of Λ does not depend on the basis.
    let sum = |parts: &offprint_curvature::KroneckerParts| parts.refitted.as_ref().unwrap().0.sum();
    assert!((sum(&whole) - sum(&halves)).abs() < 1e-10 * sum(&whole));
    // Every value its own block: the basis is that of the coordinates, Λ the diagonal Fisher matrix.
    assert_eq!(parts(99).activation_eigenvectors.mapv(f64::abs), Array2::<f64>::eye(5));
}

#[test]
fn padding_changes_nothing() {
    let (network, train, queries) = setting("gpt", 8);
    let loss = network.loss(Loss::CrossEntropy);
    let tracked = tracked(&loss, &train, Track::Usual);
    let model = Model { loss: &loss, tracked: &tracked, chunk: 3 };
    let short = |examples: &Examples| {
        let cut = |t: &Tensor| t.narrow(1, 0, 4).unwrap().contiguous().unwrap();
        Examples::from(Batch { inputs: cut(&examples.batch.inputs), targets: cut(&examples.batch.targets) })
    };
    let padded = |examples: &Examples| {
        let short = short(examples);
        let n = short.len();
        let with =
            |t: &Tensor, value: u32| Tensor::cat(&[t, &Tensor::full(value, (n, 2), &Device::Cpu).unwrap()], 1).unwrap();
        let batch = Batch { inputs: with(&short.batch.inputs, 0), targets: with(&short.batch.targets, IGNORED) };
        Examples { batch, lengths: Some(vec![4; n]) }
    };
    let scores = |train: &Examples, queries: &Examples| {
        let fit = Fit { sampled: None, ..Fit::new(Streams::new(0).stream("unused")) };
        let layers = fit.layers(&model, train, None, &silent()).unwrap();
        let inverse = KroneckerInverse::new(layers, tracked.dim(), Damping::OfMean(0.1)).unwrap();
        let directions = inverse.precondition(model.gradients(queries, &silent()).unwrap().view(), &silent()).unwrap();
        let directions = Directions::new(&tracked, directions.view()).unwrap();
        model.scores(&directions, train, Detail::default(), &silent()).unwrap().total.mapv(f64::from)
    };
    close(&scores(&padded(&train), &padded(&queries)), &scores(&short(&train), &short(&queries)), 1e-6);
}

#[test]
fn the_bregman_response_starts_along_the_exact_direction() {
    for kind in [Loss::SquaredError, Loss::CrossEntropy] {
        let outputs = if kind == Loss::SquaredError { 1 } else { 3 };
        let network = Network::fresh(&mlp(&[4, 6, outputs]), 5, DType::F64).unwrap();
        let targets = if outputs == 1 { reals(9, &[20, 1]) } else { classes(20, 3) };
        let train: Examples = Batch { inputs: reals(8, &[20, 4]), targets }.into();
        let loss = network.loss(kind);
        let tracked = tracked(&loss, &train, Track::Usual);
        let model = Model { loss: &loss, tracked: &tracked, chunk: 20 };
        let damping = tracked.spread(|layer| 0.02 * (1.0 + layer as f64));
        let exact = Exact::fit(&model, &train, damping.clone(), &silent()).unwrap();
        let before: Vec<f64> = network.params().flat().unwrap();
        let response = ProximalBregman::new(&loss, &tracked, &train, &damping, 400).unwrap();
        let (epsilon, sample) = (1e-3, 7);
        let moved = response.response(sample, epsilon).unwrap();
        assert_eq!(network.params().flat::<f64>().unwrap(), before);
        let begin = tracked.restrict(&before);
        let found: Vec<f64> = moved.iter().zip(&begin).map(|(new, old)| (new - old) / epsilon).collect();
        let gradient = model.gradients(&train.select(&[sample]).unwrap(), &silent()).unwrap();
        let expected = -exact.precondition(gradient.view(), &silent()).unwrap();
        let found = Array2::from_shape_vec((1, tracked.dim()), found).unwrap();
        close(&found, &expected, 2e-2);
        assert!(response.response(20, epsilon).unwrap_err().to_string().starts_with("sample"));
    }
    let single = Network::fresh(&mlp(&[4, 1]), 5, DType::F32).unwrap();
    let f32s = |index, shape: &[usize]| reals(index, shape).to_dtype(DType::F32).unwrap();
    let train: Examples = Batch { inputs: f32s(8, &[5, 4]), targets: f32s(9, &[5, 1]) }.into();
    let loss = single.loss(Loss::SquaredError);
    let tracked = tracked(&loss, &train, Track::Usual);
    let damping = tracked.spread(|_| 0.1);
    assert!(ProximalBregman::new(&loss, &tracked, &train, &damping, 9).err().unwrap().to_string().contains("f64"));
}

#[test]
fn token_influences_by_differences_add_up() {
    let (network, train, queries) = setting("gpt", 5);
    let loss = network.loss(Loss::CrossEntropy);
    let tracked = tracked(&loss, &train, Track::Usual);
    let model = Model { loss: &loss, tracked: &tracked, chunk: 5 };
    let directions =
        ekfac(&model, &train).precondition(model.gradients(&queries, &silent()).unwrap().view(), &silent());
    let direction = directions.unwrap().row(0).to_vec();
    let row = Array2::from_shape_vec((1, tracked.dim()), direction.clone()).unwrap();
    let scores = model
        .scores(&Directions::new(&tracked, row.view()).unwrap(), &train, Detail::default(), &silent())
        .unwrap()
        .total
        .mapv(f64::from);
    let by_output = output_token_influence(&model, &direction, &train, 1e-6).unwrap();
    close(&by_output.sum_axis(Axis(1)).insert_axis(Axis(0)), &scores, 1e-3);
    assert!(
        output_token_influence(&model, &direction[1..], &train, 1e-6).unwrap_err().to_string().contains("direction")
    );
}

#[test]
fn input_tokens_are_asked_by_the_scale_of_their_embedding() {
    let config: LlamaConfig = serde_json::from_str(
        r#"{"vocab_size": 9, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2,
            "num_key_value_heads": 2, "max_position_embeddings": 8, "rms_norm_eps": 1e-5}"#,
    )
    .unwrap();
    let network = Network::fresh(&Architecture::Llama(config), 3, DType::F64).unwrap();
    // Tokens that occur once, so that scaling a row of the table scales one token; the head has a table of its own.
    let ids = |values: [u32; 4]| Tensor::new(&[values], &Device::Cpu).unwrap();
    let train: Examples = Batch { inputs: ids([5, 2, 7, 1]), targets: ids([2, 7, 1, 8]) }.into();
    let loss = network.loss(Loss::CrossEntropy);
    let tracked = tracked(&loss, &train, Track::Usual);
    let model = Model { loss: &loss, tracked: &tracked, chunk: 1 };
    let direction: Vec<f64> = vector::gaussian(Streams::new(9).stream("direction"), 0, tracked.dim());
    let found = input_token_influence(&model, &direction, &train, 1e-6).unwrap();
    let table = network.params().trained().iter().find(|p| p.name.ends_with("embed_tokens.weight")).unwrap();
    let rows: Vec<Vec<f64>> = table.var.to_vec2().unwrap();
    for (t, token) in [5, 2, 7, 1].into_iter().enumerate() {
        let score = |scale: f64| -> f64 {
            let mut scaled = rows.clone();
            scaled[token].iter_mut().for_each(|x| *x *= scale);
            table.var.set(&Tensor::new(scaled, &Device::Cpu).unwrap()).unwrap();
            let gradient = model.gradients(&train, &silent()).unwrap();
            vector::dot(&gradient.row(0).to_vec(), &direction)
        };
        let slope = (score(1.0 + 1e-4) - score(1.0 - 1e-4)) / 2e-4;
        score(1.0);
        assert!((found[[0, t]] - slope).abs() < 1e-3 * slope.abs().max(1e-3), "{t}: {} {slope}", found[[0, t]]);
    }
}

#[test]
fn tracin_sums_inner_products_over_checkpoints() {
    let (network, train, queries) = setting("mlp", 6);
    let loss = network.loss(Loss::CrossEntropy);
    let tracked = tracked(&loss, &train, Track::Usual);
    let model = Model { loss: &loss, tracked: &tracked, chunk: 6 };
    let here: Vec<f64> = network.params().flat().unwrap();
    let there: Vec<f64> = here.iter().map(|x| 1.5 * x).collect();
    let dots = |params: &Params, at: &[f64]| {
        params.set_flat(at).unwrap();
        let gradients = |e: &Examples| model.gradients(e, &silent()).unwrap();
        gradients(&queries).dot(&gradients(&train).t())
    };
    let expected = dots(network.params(), &here) * 0.1 + dots(network.params(), &there) * 0.2;
    network.params().set_flat(&here).unwrap();
    let found = tracin(&model, &[(0.1, here.clone()), (0.2, there)], &queries, &train, &silent()).unwrap();
    close(&found.total.mapv(f64::from), &expected, 1e-6);
    assert_eq!(network.params().flat::<f64>().unwrap(), here);
    assert!(tracin(&model, &[], &queries, &train, &silent()).is_err());
}

#[test]
fn a_fit_that_was_stopped_goes_on() {
    let (network, train, _) = setting("gpt", 6);
    let loss = network.loss(Loss::CrossEntropy);
    let tracked = tracked(&loss, &train, Track::All);
    let model = Model { loss: &loss, tracked: &tracked, chunk: 3 };
    let directory = tempfile::tempdir().unwrap();
    let files = FactorFiles::open(directory.path()).unwrap();
    let fit = Fit { layers_at_once: 1, ..Fit::new(Streams::new(2).stream("labels")) };
    let whole = fit.layers(&model, &train, None, &silent()).unwrap();
    // The factors of the first layer alone, as a stop after the first group leaves them.
    files.write_layers(&whole[..1]).unwrap();
    let resumed = fit.layers(&model, &train, Some(&files), &silent()).unwrap();
    for (a, b) in whole.iter().zip(&resumed) {
        assert_eq!(a.place().name, b.place().name);
        close(&a.eigenvalues().to_owned(), &b.eigenvalues().to_owned(), 1e-6);
    }
    // Factors of another model.
    let (other, rows, _) = setting("mlp", 6);
    let other_loss = other.loss(Loss::CrossEntropy);
    let mut places = self::tracked(&other_loss, &rows, Track::Usual).layers().to_vec();
    places[0].name = tracked.layers()[0].name.clone();
    let error = files.read_layers(&places, true).unwrap_err().to_string();
    assert!(error.contains("h.0.attn.c_attn") && error.contains("shape"), "{error}");
}

#[test]
fn bad_input_is_answered_by_name() {
    let (network, train, queries) = setting("mlp", 6);
    let loss = network.loss(Loss::CrossEntropy);
    let tracked = tracked(&loss, &train, Track::Usual);
    let model = Model { loss: &loss, tracked: &tracked, chunk: 6 };
    let words = |result: Result<()>| result.unwrap_err().to_string();
    let unknown = TrackedLayers::of(&loss, &train, &Track::Named(vec!["layers.7".into()])).map(|_| ());
    assert!(words(unknown).contains("layers.7"));
    let none = queries.range(0..0).unwrap();
    assert!(words(model.gradients(&none, &silent()).map(|_| ())).contains("no sample"));
    let narrow = Array2::zeros((1, 3));
    assert!(words(Directions::new(&tracked, narrow.view()).map(|_| ())).contains("3 columns"));
    let mut holed = Array2::zeros((2, tracked.dim()));
    holed[[1, 0]] = f64::NAN;
    assert!(words(Directions::new(&tracked, holed.view()).map(|_| ())).contains("query 1"));
    let fine = Directions::new(&tracked, Array2::zeros((1, tracked.dim())).view()).unwrap();
    let tokens = Detail { tokens: true, layers: false };
    assert!(words(model.scores(&fine, &train, tokens, &silent()).map(|_| ())).starts_with("by-token"));
    let roots = Array2::zeros((2, tracked.dim()));
    assert!(words(Exact::of_roots(roots, tracked.spread(|_| 0.0)).map(|_| ())).starts_with("damping"));
    let negative = DiagonalFisher::fit(&model, &train, Damping::Fixed(-1.0), &silent()).map(|_| ());
    assert!(words(negative).starts_with("damping"));
    assert!(words(train.select(&[6]).map(|_| ())).starts_with("samples"));
    let cancel = offprint_core::Cancel::default();
    cancel.cancel();
    let stopped = Progress::new(std::sync::Arc::new(offprint_core::Silent), cancel);
    assert!(matches!(model.scores(&fine, &train, Detail::default(), &stopped), Err(Error::Cancelled)));
}
