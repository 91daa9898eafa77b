//! Trained denoisers: derivatives, targets, files, and the shipped model.

use ndarray::{Array2, array};
use offprint_core::random::Streams;
use offprint_core::{Picture, Progress};
use offprint_generate::exact::ExactEmpirical;
use offprint_generate::metrics::{directions, sliced_wasserstein};
use offprint_generate::network::{
    Clock, Digits8, Expected, Labels, Levels, LinearClassifier, NetConfig, Network, PictureConfig, Reading, Recipe,
    Target, fit, open,
};
use offprint_generate::sample::{Heun, Stepwise};
use offprint_generate::{Denoiser, Grid, Kernel, Path, Prediction, Schedule, normals};
use offprint_nn::models::UNetConfig;
use offprint_nn::train::Plan;

fn small(classes: usize, target: Target, path: Path) -> Recipe {
    let config = NetConfig { dim: 2, classes, width: 48, depth: 2, frequencies: 8 };
    let levels = match target {
        Target::Preconditioned { .. } => Levels::LogNormal { mean: -1.2, deviation: 1.2 },
        Target::Plain(_) => Levels::UniformTime,
    };
    // Too short for a running mean over a thousand steps.
    let edm = Recipe::edm(2, classes, path, 1200);
    Recipe { shape: config.into(), target, levels, batch: 128, plan: Plan { ema: None, ..edm.plan.clone() }, ..edm }
}

/// Four points of the plane, far enough apart.
fn corners() -> Array2<f64> {
    array![[0.5, 0.5], [0.5, -0.5], [-0.5, 0.5], [-0.5, -0.5]]
}

#[test]
fn every_target_learns_the_posterior_mean() {
    let preconditioned = Target::Preconditioned { sigma_data: 0.5 };
    let cases = [
        (preconditioned, Path::Gaussian(Schedule::Edm)),
        (preconditioned, Path::student_t(16.0).unwrap()),
        (Target::Plain(Prediction::Eps), Path::Gaussian(Schedule::vp_linear())),
        (Target::Plain(Prediction::X0), Path::Gaussian(Schedule::Rectified)),
        (Target::Plain(Prediction::V), Path::Gaussian(Schedule::Trigonometric)),
        (Target::Plain(Prediction::Velocity), Path::Gaussian(Schedule::Rectified)),
    ];
    for (target, path) in cases {
        let (network, losses) =
            fit(&small(0, target, path.clone()), corners().view(), None, 3, &Progress::silent()).unwrap();
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        assert!(mean(&losses[1100..]) < mean(&losses[..20]), "{} {}", path.name(), target.name());
        let exact = ExactEmpirical::new(corners(), path.kernel().unwrap()).unwrap();
        let model = network.unconditional();
        // Uniform times see few of the low levels, where the posterior is sharp; EDM's levels centre at 0.3.
        let levels = if target == preconditioned { [0.3, 1.0] } else { [0.7, 1.5] };
        for tau in levels {
            let rows: Vec<usize> = (0..800).map(|i| i % 4).collect();
            let noise = path.kernel().unwrap().noise(800, 2, tau, Streams::new(9).stream("noise"), 0);
            let y = corners().select(ndarray::Axis(0), &rows) + noise;
            let gap = model.denoise(y.view(), tau).unwrap() - exact.denoise(y.view(), tau).unwrap();
            let rms = (gap.iter().map(|v| v * v).sum::<f64>() / 1600.0).sqrt();
            assert!(rms < 0.12, "{} {} at {tau}: {rms}", path.name(), target.name());
        }
    }
}

#[test]
fn products_with_the_jacobian_are_differences() {
    let model = Digits8::shipped().unwrap();
    let digits = model.network.conditioned(Labels::All(3)).unwrap();
    let y = normals(4, 64, Streams::new(1).stream("y"), 0);
    let v = normals(4, 64, Streams::new(1).stream("v"), 0);
    for tau in [0.2, 2.0] {
        let exact = digits.jacobian_product(y.view(), tau, v.view()).unwrap();
        // Single precision: steps of a hundredth.
        let h = 1e-2;
        let high = digits.denoise((&y + &(&v * h)).view(), tau).unwrap();
        let low = digits.denoise((&y - &(&v * h)).view(), tau).unwrap();
        let slope = (high - low) / (2.0 * h);
        let size = exact.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        assert!((exact - slope).iter().all(|d| d.abs() < 5e-3 * (1.0 + size)));
    }
}

#[test]
fn the_shipped_model_meets_its_acceptance() {
    let digits = Digits8::shipped().unwrap();
    assert_eq!(digits.network.params().count(), 175_424);
    let classifier = LinearClassifier::fit(digits.data.train.view(), &digits.data.train_labels, 10).unwrap();
    let labels: Vec<usize> = digits.data.test_labels.iter().map(|&l| l.into()).collect();
    assert!(classifier.accuracy(digits.data.test.view(), &labels).unwrap() > 0.93);
    // Five times 100 of each class: one such sample tells the accuracy to 0.007 only.
    let samples: Vec<_> = (1..=5)
        .map(|seed| {
            let stream = Streams::new(seed).stream("start");
            digits.sample(&Stepwise(Heun::new()), &Grid::edm(18).unwrap(), (100, 1.0), stream).unwrap()
        })
        .collect();
    let total: f64 = samples.iter().map(|(x, labels)| classifier.accuracy(x.view(), labels).unwrap()).sum();
    assert!(total / 5.0 >= 0.95, "{}", total / 5.0);
    let (x, _) = &samples[0];
    let along = directions(500, 64, Streams::new(1).stream("directions"));
    let distance = sliced_wasserstein(x.view(), digits.data.train.view(), along.view()).unwrap();
    assert!(distance <= 0.035, "{distance}");
    let ink = digits.data.to_ink(x);
    assert!(ink.iter().all(|v| (0.0..=1.0).contains(v)));
}

#[test]
fn files_keep_the_network_and_its_words() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("net.safetensors");
    let path = Path::Gaussian(Schedule::scaled_linear());
    let config = NetConfig { dim: 2, classes: 3, width: 8, depth: 1, frequencies: 2 };
    let network = Network::fresh(&config.into(), path.clone(), Target::Plain(Prediction::V), 5).unwrap();
    network.save(&file).unwrap();
    let expected = Expected { dim: Some(2), path: Some(path), conditional: true };
    let back = Network::load(&file, &expected).unwrap();
    assert_eq!((back.target(), back.path()), (network.target(), network.path()));
    let y = normals(5, 2, Streams::new(0).stream("y"), 0);
    let ask = |network: &Network| network.conditioned(Labels::All(2)).unwrap().denoise(y.view(), 0.7).unwrap();
    assert_eq!(ask(&back), ask(&network));
    let message = |expected: Expected| Network::load(&file, &expected).unwrap_err().to_string();
    assert!(message(Expected { dim: Some(64), ..Expected::default() }).contains("dimension 2, but 64"));
    let edm = Expected { path: Some(Path::Gaussian(Schedule::Edm)), ..Expected::default() };
    assert!(message(edm).contains("path vp-discrete, but edm"));
    offprint_nn::checkpoint::save(&file, &[], &Default::default()).unwrap();
    assert!(message(Expected::default()).contains("no word"));
}

/// A U-Net of 64 weights a level for grey pictures of 4 × 4 pixels.
fn unet() -> PictureConfig {
    let picture = Picture { channels: 1, height: 4, width: 4 };
    let unet = UNetConfig { inputs: 1, outputs: 1, widths: vec![4, 8], blocks: 1, groups: 2, attention: true };
    PictureConfig { picture, unet }
}

#[test]
fn a_unet_learns_two_pictures_and_reads_back_from_its_file() {
    let path = Path::Gaussian(Schedule::Edm);
    let data = Array2::from_shape_fn((2, 16), |(i, j)| if (j % 4 < 2) == (i == 0) { 0.5 } else { -0.5 });
    let plan = Plan { ema: None, ..Plan::new(80, offprint_nn::train::Schedule::cosine()) };
    let recipe = Recipe { shape: unet().into(), batch: 16, plan, ..Recipe::edm(16, 0, path.clone(), 80) };
    let (network, losses) = fit(&recipe, data.view(), None, 0, &Progress::silent()).unwrap();
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    assert!(mean(&losses[60..]) < 0.8 * mean(&losses[..20]), "{} {}", mean(&losses[..20]), mean(&losses[60..]));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("unet.safetensors");
    network.save(&file).unwrap();
    let back = open(&file, None, &Expected { dim: Some(16), path: Some(path), conditional: false }).unwrap();
    assert_eq!((back.shape(), back.picture()), (Some(unet().into()), Some(unet().picture)));
    let (model, own) = (back.unconditional(), network.unconditional());
    assert_eq!(model.denoise(data.view(), 0.3).unwrap(), own.denoise(data.view(), 0.3).unwrap());
    // No forward mode here: differences, which are those of a longer step.
    let v = normals(2, 16, Streams::new(2).stream("v"), 0);
    let slope = model.jacobian_product(data.view(), 0.5, v.view()).unwrap();
    let ask = |h: f64| model.denoise((&data + &(&v * h)).view(), 0.5).unwrap();
    let coarse = (ask(3e-3) - ask(-3e-3)) / 6e-3;
    assert!(slope.iter().zip(&coarse).all(|(a, b)| (a - b).abs() < 0.03 * (1.0 + b.abs())));
    let conditional = Expected { conditional: true, ..Expected::default() };
    assert!(open(&file, None, &conditional).unwrap_err().to_string().contains("classes 0"));
    let reading: Reading = "predicts=eps".parse().unwrap();
    assert!(open(&file, Some(&reading), &Expected::default()).unwrap_err().to_string().contains("only .onnx"));
}

#[test]
fn shapes_of_pictures_are_checked_and_small_ones_fit() {
    let path = || Path::Gaussian(Schedule::Edm);
    let message = |config: PictureConfig| {
        Network::fresh(&config.into(), path(), Target::Plain(Prediction::X0), 0).unwrap_err().to_string()
    };
    let odd = PictureConfig { picture: Picture { channels: 1, height: 5, width: 4 }, ..unet() };
    assert!(message(odd).contains("5 × 4"));
    let colour = PictureConfig { picture: Picture { channels: 3, height: 4, width: 4 }, ..unet() };
    assert!(message(colour).contains("3, the picture's"));
    for (height, width) in [(8, 12), (5, 4), (1, 1)] {
        let small = PictureConfig::small(Picture { channels: 1, height, width }).unwrap();
        Network::fresh(&small.into(), path(), Target::Plain(Prediction::X0), 0).unwrap();
    }
    assert!(PictureConfig::small(Picture { channels: 1, height: 0, width: 4 }).is_err());
}

#[test]
fn clocks_tell_the_level_in_their_own_terms() {
    let schedule = Schedule::scaled_linear();
    let tau = schedule.tau(0.5).unwrap();
    let read = |clock: &str| clock.parse::<Clock>().unwrap().read(&schedule, 0.5, tau);
    let table =
        [("t", 0.5), ("1-t", 0.5), ("1000t", 500.0), ("index", 499.0), ("sigma", tau), ("log-sigma/4", tau.ln() / 4.0)];
    for (clock, expected) in table {
        assert!((read(clock) - expected).abs() < 1e-12, "{clock}");
    }
}

#[cfg(not(feature = "onnx"))]
#[test]
fn onnx_models_ask_for_the_feature() {
    let message = open("model.onnx".as_ref(), None, &Expected::default()).unwrap_err().to_string();
    assert!(message.contains("--features onnx"), "{message}");
}

#[test]
fn bad_requests_are_answered() {
    let path = Path::Gaussian(Schedule::Edm);
    let target = Target::Preconditioned { sigma_data: 0.5 };
    let config = |classes| NetConfig { dim: 2, classes, width: 8, depth: 1, frequencies: 2 };
    let plain = Network::fresh(&config(0).into(), path.clone(), target, 0).unwrap();
    let message = plain.conditioned(Labels::All(0)).unwrap_err().to_string();
    assert!(message.contains("unconditional"), "{message}");
    let classes = Network::fresh(&config(3).into(), path.clone(), target, 0).unwrap();
    assert!(classes.conditioned(Labels::Each(vec![0, 3])).unwrap_err().to_string().contains("from 0 to 2"));
    let model = classes.conditioned(Labels::Each(vec![0, 1])).unwrap();
    assert!(model.denoise(Array2::zeros((3, 2)).view(), 1.0).unwrap_err().to_string().contains("2 entries for 3"));
    assert!(model.denoise(Array2::zeros((2, 5)).view(), 1.0).unwrap_err().to_string().contains("dimension 2"));
    let student = Path::student_t(8.0).unwrap();
    assert!(Network::fresh(&config(0).into(), student, Target::Plain(Prediction::Eps), 0).is_err());
    let run = |recipe: &Recipe, labels: Option<&[u8]>| {
        fit(recipe, corners().view(), labels, 0, &Progress::silent()).unwrap_err().to_string()
    };
    assert!(run(&small(3, target, path.clone()), None).contains("labels: are missing"));
    assert!(run(&small(3, target, path.clone()), Some(&[0, 1])).contains("2 entries for 4"));
    assert!(run(&small(3, target, path.clone()), Some(&[0, 1, 2, 3])).contains("below 3"));
    let uniform = Recipe { levels: Levels::UniformTime, ..small(0, target, path) };
    assert!(run(&uniform, None).contains("no last time"));
    assert_eq!(classes.conditioned(Labels::None).unwrap().kernel(), Kernel::Gaussian);
}
