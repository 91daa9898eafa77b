//! AdaDFQ against closed forms, independent implementations and finite differences.

use candle_core::{DType, Device, Tensor, Var};
use offprint_compress::adadfq::{
    Bits, Conditioning, Generator, GeneratorLoss, ImageShape, Normalisation, Outcome, Problem, Recipe, Settings,
    Student, Teacher, adaptability, arrays, disagreement, distillation, entropy, load, quantise,
};
use offprint_compress::calibration::record;
use offprint_compress::examples::Example;
use offprint_compress::{Values, matrix};
use offprint_core::Result;
use offprint_core::artifact::Artifact;
use offprint_core::random::Streams;
use offprint_nn::models::{ResNetConfig, ViTConfig};
use offprint_nn::ops::backward;
use offprint_nn::{Architecture, Network};
use proptest::prelude::*;

fn tensor(rows: &[&[f64]]) -> Tensor {
    let flat: Vec<f64> = rows.iter().flat_map(|row| row.to_vec()).collect();
    Tensor::from_vec(flat, (rows.len(), rows[0].len()), &Device::Cpu).unwrap()
}

fn values(x: &Tensor) -> Vec<f64> {
    x.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

fn scalar(x: &Tensor) -> f64 {
    values(x)[0]
}

const DIGITS: ImageShape = ImageShape { classes: 10, channels: 1, height: 8, width: 8 };

/// The built-in network with some of its images.
fn digits() -> (Teacher, Normalisation, Tensor) {
    let subject = Example::DigitsCnn.load().unwrap();
    let normalisation = Normalisation::of(&subject.train.inputs).unwrap();
    (Teacher::new(subject.network).unwrap(), normalisation, subject.train.inputs.narrow(0, 0, 32).unwrap())
}

fn short() -> Settings {
    Settings { steps: 6, warmup: 3, observed: 3, batch: 8, ..Settings::default() }
}

fn quantised(recipe: Recipe, settings: &Settings) -> Result<Outcome> {
    let (teacher, normalisation, images) = digits();
    let problem = Problem { teacher: &teacher, shape: DIGITS, normalisation: &normalisation, real: Some(&images) };
    quantise(&problem, recipe, settings, Streams::new(3), &mut || Ok(()))
}

#[test]
fn adaptability_by_hand() {
    // Uniform over 3: ln 3. Odds 1 : 1 : 0: ln 2. One class certain: 0.
    let far = 700.0;
    let h = values(&entropy(&tensor(&[&[1.0, 1.0, 1.0], &[far, far, 0.0], &[far, 0.0, 0.0]])).unwrap());
    for (h, exact) in h.iter().zip([3f64.ln(), 2f64.ln(), 0.0]) {
        assert!((h - exact).abs() < 1e-12, "{h} {exact}");
    }
    let h = values(&adaptability(&tensor(&[&[1.0, 1.0, 1.0], &[far, far, 0.0], &[far, 0.0, 0.0]])).unwrap());
    for (h, exact) in h.iter().zip([1.0, 2f64.ln() / 3f64.ln(), 0.0]) {
        assert!((h - exact).abs() < 1e-12, "{h} {exact}");
    }
}

#[test]
fn networks_that_agree_on_a_whole_batch_give_one_and_no_gradient() {
    let x = Var::from_tensor(&tensor(&[&[2.0, 2.0, 2.0], &[-1.0, -1.0, -1.0]])).unwrap();
    let h = adaptability(&x).unwrap();
    assert_eq!(values(&h), [1.0, 1.0]);
    let gradients = backward(&h.sum_all().unwrap()).unwrap();
    assert!(gradients.get(&x).is_none_or(|g| values(g).iter().all(|&g| g == 0.0)));
}

proptest! {
    #[test]
    fn adaptability_is_a_share_that_constants_do_not_change(
        rows in prop::collection::vec(prop::collection::vec(-9.0..9.0f64, 4), 2..6), shift in -5.0..5.0f64,
    ) {
        let rows: Vec<&[f64]> = rows.iter().map(Vec::as_slice).collect();
        let x = tensor(&rows);
        let h = values(&adaptability(&x).unwrap());
        prop_assert!(h.iter().all(|h| (-1e-12..=1.0 + 1e-12).contains(h)));
        prop_assert!(h.iter().copied().fold(f64::INFINITY, f64::min).abs() < 1e-12);
        let shifted = values(&adaptability(&(x + shift).unwrap()).unwrap());
        prop_assert!(h.iter().zip(&shifted).all(|(a, b)| (a - b).abs() < 1e-9));
    }
}

#[test]
fn losses_have_the_gradients_of_finite_differences() {
    let p = tensor(&[&[0.3, -1.2, 2.0, 0.1], &[1.5, 0.2, -0.7, 0.4], &[0.0, 0.1, 0.05, -0.1]]);
    let start = tensor(&[&[0.1, -1.0, 0.4, 0.6], &[1.1, 0.9, -0.2, 0.0], &[0.2, -0.3, 0.6, 0.0]]);
    let labels = Tensor::new(&[2u32, 0, 1], &Device::Cpu).unwrap();
    // Bounds between which the adaptabilities lie on either side.
    let loss = GeneratorLoss { lower: 0.6, upper: 0.9, ..GeneratorLoss::default() };
    type Function<'a> = Box<dyn Fn(&Tensor) -> Tensor + 'a>;
    let functions: [Function<'_>; 3] = [
        Box::new(|q| loss.game(&p, q, &labels).unwrap()),
        Box::new(|q| disagreement(&p, q, 3.0).unwrap()),
        Box::new(|q| distillation(&p, q, 3.0).unwrap()),
    ];
    for (which, f) in functions.iter().enumerate() {
        let q = Var::from_tensor(&start).unwrap();
        let gradient = values(backward(&f(q.as_tensor())).unwrap().get(&q).unwrap());
        let step = 1e-6;
        for (i, g) in gradient.iter().enumerate() {
            let moved = |by: f64| {
                let mut moved = values(&start);
                moved[i] += by;
                scalar(&f(&Tensor::from_vec(moved, (3, 4), &Device::Cpu).unwrap()))
            };
            let difference = (moved(step) - moved(-step)) / (2.0 * step);
            assert!((g - difference).abs() < 1e-6, "loss {which}, {i}: {g} {difference}");
        }
    }
}

#[test]
fn students_lose_least_where_they_differ_by_a_constant() {
    let p = tensor(&[&[0.3, -1.2, 2.0]]);
    let best = scalar(&disagreement(&p, &(&p + 4.0).unwrap(), 20.0).unwrap());
    assert!((best + 400.0 * 3f64.ln()).abs() < 1e-9);
    assert!(scalar(&disagreement(&p, &tensor(&[&[0.3, -1.0, 2.0]]), 20.0).unwrap()) > best);
    assert!(scalar(&distillation(&p, &(&p + 4.0).unwrap(), 20.0).unwrap()).abs() < 1e-12);
    // Small differences d: T² KL ≈ Var(d)/2 under the uniform law, as T grows.
    let q = tensor(&[&[0.3, -1.0, 2.0]]);
    let kl = scalar(&distillation(&p, &q, 1e4).unwrap());
    assert!((kl - 0.5 * (0.04 / 3.0 - (0.2f64 / 3.0).powi(2))).abs() < 1e-5, "{kl}");
}

#[test]
fn statistics_are_those_of_what_goes_into_the_norms() {
    let (teacher, _, images) = digits();
    let (logits, distance) = teacher.logits_and_statistics(&images).unwrap();
    assert_eq!(values(&logits), values(&teacher.network().forward(&images).unwrap()));
    let mut sum = 0.0;
    for layer in 1..=4 {
        let (_, input) = record(teacher.network(), &format!("conv{layer}.weight"), &images, None).unwrap();
        let running =
            |part: &str| values(teacher.network().params().get(&format!("bn{layer}.running_{part}")).unwrap());
        let (means, variances) = (running("mean"), running("var"));
        let (mut of_mean, mut of_variance) = (0.0, 0.0);
        for channel in 0..means.len() {
            let x = values(&input.narrow(1, channel, 1).unwrap());
            let mean = x.iter().sum::<f64>() / x.len() as f64;
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
            of_mean += (mean - means[channel]).powi(2) / means.len() as f64;
            of_variance += (variance - variances[channel]).powi(2) / means.len() as f64;
        }
        sum += of_mean + of_variance;
    }
    assert!((scalar(&distance) - sum / 4.0).abs() < 1e-4 * sum, "{} {}", scalar(&distance), sum / 4.0);
    assert_eq!(teacher.norms(), 4);
}

#[test]
fn weights_lie_on_the_published_levels() {
    let (teacher, _, images) = digits();
    for bits in [2, 3, 5] {
        let student = Student::new(teacher.network(), Bits { weights: bits, activations: 4 }, false).unwrap();
        student.observe(&images).unwrap();
        for packed in student.layers().unwrap() {
            let weight = matrix(teacher.network().params().get(&format!("{}.weight", packed.name)).unwrap()).unwrap();
            for (row, quantised) in weight.rows().into_iter().zip(packed.dequant().rows()) {
                // S = (2^b − 1)/(hi − lo), Z = round(S lo) + 2^(b−1), q = clip(round(S w − Z)), ŵ = (q + Z)/S.
                let (low, high) = row.iter().fold((f32::MAX, f32::MIN), |(l, h), &w| (l.min(w), h.max(w)));
                let half = f64::from(1 << (bits - 1));
                let s = (2.0 * half - 1.0) / f64::from(high - low);
                let z = (s * f64::from(low)).round_ties_even() + half;
                for (&w, &q) in row.iter().zip(quantised) {
                    let code = (s * f64::from(w) - z).round_ties_even().clamp(-half, half - 1.0);
                    assert!((f64::from(q) - (code + z) / s).abs() < 1e-5, "{}: {w} {q}", packed.name);
                }
            }
            let Values::Codes { codes, .. } = &packed.values else { panic!("no codes") };
            assert!(codes.iter().all(|&code| code < 1 << bits));
        }
    }
}

#[test]
fn many_bits_change_little_and_gradients_reach_images_and_shadow_weights() {
    let (teacher, _, images) = digits();
    let student = Student::new(teacher.network(), Bits { weights: 8, activations: 8 }, false).unwrap();
    assert!(student.logits(&images).unwrap_err().to_string().contains("relu1"));
    student.observe(&images).unwrap();
    let gradient = |logits: &dyn Fn(&Tensor) -> Tensor| {
        let x = Var::from_tensor(&images).unwrap();
        let gradients = backward(&logits(x.as_tensor()).sqr().unwrap().sum_all().unwrap()).unwrap();
        values(gradients.get(&x).unwrap())
    };
    let float = gradient(&|x| teacher.logits(x).unwrap());
    let quantised = gradient(&|x| student.logits_frozen(x).unwrap());
    let size = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
    let difference: Vec<f64> = float.iter().zip(&quantised).map(|(a, b)| a - b).collect();
    assert!(size(&difference) < 0.1 * size(&float), "{} {}", size(&difference), size(&float));
    let weight = student.network().params().get("conv2.weight").unwrap();
    let of = |logits: Tensor| backward(&logits.sum_all().unwrap()).unwrap().get(weight).cloned();
    assert!(values(&of(student.logits(&images).unwrap()).unwrap()).iter().any(|&g| g != 0.0));
    assert!(of(student.logits_frozen(&images).unwrap()).is_none());
    let teachers = teacher.network().params().get("conv2.weight").unwrap();
    assert!(backward(&teacher.logits(&images).unwrap().sum_all().unwrap()).unwrap().get(teachers).is_none());
}

#[test]
fn generated_images_are_standardised_and_of_any_size() {
    for (conditioning, height, width, channels) in
        [(Conditioning::Product, 8, 8, 1), (Conditioning::Norm, 7, 10, 3), (Conditioning::Product, 5, 9, 2)]
    {
        let shape = ImageShape { classes: 4, channels, height, width };
        let generator = Generator::fresh(shape, conditioning, 1).unwrap();
        let (z, labels) = generator.draw(6, Streams::new(0).stream("z"), 0).unwrap();
        let images = generator.forward(&z, &labels).unwrap();
        assert_eq!(images.dims(), [6, channels, height, width]);
        for channel in 0..channels {
            let x = values(&images.narrow(1, channel, 1).unwrap());
            let mean = x.iter().sum::<f64>() / x.len() as f64;
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
            assert!(mean.abs() < 1e-4 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
        }
        // Every parameter takes part.
        let gradients = backward(&images.sqr().unwrap().mul(&images).unwrap().sum_all().unwrap()).unwrap();
        for param in generator.params().trained() {
            assert!(gradients.get(&param.var).is_some(), "{}", param.name);
        }
    }
    assert!(Generator::fresh(ImageShape { height: 0, ..DIGITS }, Conditioning::Product, 1).is_err());
}

#[test]
fn every_recipe_gives_a_network_and_the_number_of_threads_does_not_matter() {
    let codes = |outcome: &Outcome| {
        let layers = outcome.student.layers().unwrap();
        (layers.iter().map(|layer| layer.dequant()).collect::<Vec<_>>(), outcome.student.ranges().unwrap())
    };
    for recipe in Recipe::ALL {
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let outcome = quantised(recipe, &short()).unwrap();
                (codes(&outcome), outcome.history.len(), outcome.generator.is_some())
            })
        };
        let one = on(1);
        assert_eq!(one, on(2), "{}", recipe.name());
        assert_eq!(one.0.1.len(), 4, "{}", recipe.name());
    }
}

#[test]
fn warm_up_leaves_the_weights_and_training_moves_them() {
    let (teacher, ..) = digits();
    let weight = |network: &Network| values(network.params().get("conv3.weight").unwrap());
    let calibrated = quantised(Recipe::Calibration, &short()).unwrap();
    assert_eq!(weight(calibrated.student.network()), weight(teacher.network()));
    let trained = quantised(Recipe::AdaDfq, &short()).unwrap();
    assert_ne!(weight(trained.student.network()), weight(teacher.network()));
    // Calibration is the beginning of the same run.
    assert_eq!(calibrated.student.ranges().unwrap(), trained.student.ranges().unwrap());
    assert!(trained.history[2].student.is_nan() && trained.history[3].student.is_finite());
    let compounded = quantised(Recipe::Calibration, &Settings { compounded: true, ..short() }).unwrap();
    let top = |outcome: &Outcome| outcome.student.ranges().unwrap()["relu1"].1;
    assert!(top(&compounded) > 3.0 * top(&calibrated));
}

#[test]
fn what_is_saved_computes_the_same_and_is_small() {
    let (_, _, images) = digits();
    let outcome = quantised(Recipe::AdaDfq, &short()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("quantised.safetensors");
    let (kept, words) = arrays(&outcome.student).unwrap();
    Artifact::Arrays(kept.clone(), words.clone()).write(&path).unwrap();
    let loaded = load(&path).unwrap();
    assert_eq!(values(&loaded.logits(&images).unwrap()), values(&outcome.student.logits(&images).unwrap()));
    assert!(std::fs::metadata(&path).unwrap().len() < 20_000);

    let refused = |kept, words| {
        Artifact::Arrays(kept, words).write(&path).unwrap();
        load(&path).unwrap_err().to_string()
    };
    let without = |name: &str| {
        let mut kept = kept.clone();
        kept.remove(name);
        kept
    };
    assert!(refused(without("conv2.weight_scale"), words.clone()).contains("conv2.weight_scale"));
    assert!(refused(without("bn1.bias"), words.clone()).contains("bn1.bias"));
    let mut short = kept.clone();
    short.insert("conv2.weight_codes".into(), vec![0u8; 3].into());
    assert!(refused(short, words.clone()).contains("too short"));
    let mut wrong = kept.clone();
    wrong.insert("relu1.range".into(), vec![2.0f32, 1.0].into());
    assert!(refused(wrong, words.clone()).contains("relu1"));
    assert!(refused(kept, Default::default()).contains("weight_bits"));
}

#[test]
fn what_cannot_be_quantised_is_named() {
    let (teacher, normalisation, _) = digits();
    let told = |teacher: &Teacher, shape, settings: &Settings, recipe| {
        let problem = Problem { teacher, shape, normalisation: &normalisation, real: None };
        quantise(&problem, recipe, settings, Streams::new(0), &mut || Ok(())).unwrap_err().to_string()
    };
    let with = |settings: Settings| told(&teacher, DIGITS, &settings, Recipe::AdaDfq);
    assert!(with(Settings { bits: Bits { weights: 1, activations: 2 }, ..short() }).contains("weight_bits: got 1"));
    assert!(with(Settings { bits: Bits { weights: 2, activations: 9 }, ..short() }).contains("activation_bits: got 9"));
    assert!(with(Settings { batch: 1, ..short() }).contains("batch: got 1"));
    assert!(with(Settings { observed: 0, ..short() }).contains("observed: got 0"));
    assert!(with(Settings { warmup: 7, ..short() }).contains("warmup: got 7"));
    assert!(with(Settings { temperature: f64::NAN, ..short() }).contains("temperature"));
    let loss = GeneratorLoss { lower: 0.9, ..GeneratorLoss::default() };
    assert!(with(Settings { loss, ..short() }).contains("lower: got 0.9"));
    let classes = told(&teacher, ImageShape { classes: 7, ..DIGITS }, &short(), Recipe::AdaDfq);
    assert!(classes.contains("classes: got 7") && classes.contains("10"), "{classes}");
    assert!(told(&teacher, DIGITS, &short(), Recipe::Real).contains("data"));

    let vit = Network::fresh(&Architecture::ViT(ViTConfig::digits()), 0, DType::F32).unwrap();
    let vit = Teacher::new(vit).unwrap();
    let error = told(&vit, DIGITS, &short(), Recipe::AdaDfq);
    assert!(error.contains("batch norm"), "{error}");

    let spoiled = teacher.network().copy().unwrap();
    let variance = spoiled.params().get("bn2.running_var").unwrap();
    variance.set(&(variance.as_tensor() - 1e6).unwrap()).unwrap();
    let error = Teacher::new(spoiled).unwrap_err().to_string();
    assert!(error.contains("bn2.running_var"), "{error}");

    let error = |mean: &[f64], deviation: &[f64]| Normalisation::new(3, mean, deviation).unwrap_err().to_string();
    assert!(error(&[0.0, 1.0], &[1.0]).contains("mean: got 2 numbers"));
    assert!(error(&[0.0], &[0.0]).contains("deviation: got 0"));
    assert!(error(&[f64::NAN], &[1.0]).contains("mean"));
}

#[test]
fn residual_networks_with_colours_and_transformers_without_statistics_work_too() {
    let config = ResNetConfig { channels: 3, widths: vec![4, 8], blocks: 1, classes: 3 };
    let resnet = Teacher::new(Network::fresh(&Architecture::ResNet(config), 0, DType::F32).unwrap()).unwrap();
    // The first, two in each block, one in the projection.
    assert_eq!(resnet.norms(), 6);
    let vit = Teacher::new(Network::fresh(&Architecture::ViT(ViTConfig::digits()), 0, DType::F32).unwrap()).unwrap();
    let loss = GeneratorLoss { statistics: 0.0, ..GeneratorLoss::default() };
    for (teacher, shape, loss) in [
        (&resnet, ImageShape { classes: 3, channels: 3, height: 9, width: 6 }, GeneratorLoss::default()),
        (&vit, DIGITS, loss),
    ] {
        let normalisation = Normalisation::new(shape.channels, &[0.1], &[0.5]).unwrap();
        let problem = Problem { teacher, shape, normalisation: &normalisation, real: None };
        let settings = Settings { loss, conditioning: Conditioning::Norm, ..short() };
        let outcome = quantise(&problem, Recipe::AdaDfq, &settings, Streams::new(0), &mut || Ok(())).unwrap();
        assert!(outcome.history.iter().all(|record| record.generator.is_finite()));
    }
}
