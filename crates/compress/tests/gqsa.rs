//! GQSA end to end: masks, both stages of training, export, the decoder, and bad input.

use candle_core::{DType, Device, Tensor};
use ndarray::{Array2, array};
use offprint_compress::examples::Example;
use offprint_compress::export::{Format as File, export, load};
use offprint_compress::gqsa::engine::{Format, GROUP, Gemv, Precision};
use offprint_compress::gqsa::{
    CompressedLayer, Decoder, Form, Gqsa, GqsaParams, Pruning, Recipe, Saliency, Stage, Training, assembled,
    block_layers, group_mask, group_pruned, keep_groups, perplexity,
};
use offprint_compress::methods::Scope;
use offprint_compress::{Layer, Subject, calibration};
use offprint_core::random::Streams;
use offprint_core::{Card, Method, Params, Progress, Run};
use offprint_nn::models::LlamaConfig;
use offprint_nn::{Architecture, Network};

fn llama() -> Network {
    let config = LlamaConfig {
        vocab_size: 40,
        hidden_size: 64,
        intermediate_size: 96,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        max_position_embeddings: 24,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        tie_word_embeddings: false,
    };
    Network::fresh(&Architecture::Llama(config), 3, DType::F32).unwrap()
}

fn pruning(share: f64, scope: Scope) -> Pruning {
    Pruning { share, scope }
}

fn trained(subject: &Subject, recipe: &Recipe, seed: u64) -> (Vec<CompressedLayer>, Vec<(Stage, f64)>) {
    let places = block_layers(&subject.network).unwrap();
    let inputs = subject.train.inputs.narrow(0, 0, 16).unwrap();
    let (streams, progress) = (Streams::new(seed), Progress::silent());
    let half = pruning(0.5, Scope::Row);
    let stream = streams.stream("calibration");
    let starts = group_pruned(&subject.network, &places, &inputs, Saliency::Hessian, half, stream, &progress).unwrap();
    let mut stages = Vec::new();
    let training = Training {
        network: &subject.network,
        data: &subject.train,
        form: Form::GQSA,
        pruning: Some(half),
        recipe: *recipe,
        streams,
        progress,
    };
    let layers = training
        .run(&starts, |s, l| {
            stages.push((s, perplexity(&subject.network, l, &subject.test)?));
            Ok(())
        })
        .unwrap();
    (layers, stages)
}

#[test]
fn groups_go_by_the_sum_of_their_scores() {
    // Three groups a row: sums of squares 16, 64, 4 and 1, 4, 9 in the two rows.
    let weights = Array2::from_shape_fn((2, 3 * GROUP), |(i, j)| [[1.0, 2.0, 0.5], [0.25, 0.5, 0.75]][i][j / GROUP]);
    let ones = vec![1.0; 3 * GROUP];
    let kept = |share, scope| group_mask(&keep_groups(weights.view(), &ones, share, scope));
    assert_eq!(kept(0.34, Scope::Row), array![[true, true, false], [false, true, true]]);
    assert_eq!(kept(0.33, Scope::Row), array![[true, true, true], [true, true, true]]);
    // In the whole layer the three lowest of six go: but each row keeps its best.
    assert_eq!(kept(0.5, Scope::Layer), array![[true, true, false], [false, false, true]]);
    // A column's factor counts as much as its weights.
    let mut factors = ones.clone();
    factors[..GROUP].fill(100.0);
    assert_eq!(
        group_mask(&keep_groups(weights.view(), &factors, 0.67, Scope::Row)).row(1).to_vec(),
        [true, false, false]
    );
}

#[test]
fn the_hessian_s_saliency_is_the_diagonal_of_its_inverse() {
    let subject = Example::CharLm.load().unwrap();
    let place = &block_layers(&subject.network).unwrap()[0];
    let inputs = subject.train.inputs.narrow(0, 0, 8).unwrap();
    let stream = Streams::new(0).stream("calibration");
    let needs = Saliency::Hessian.needs();
    let seen = calibration::calibrate(&subject.network, &[place], &inputs, 8, needs, None, stream).unwrap().remove(0);
    let layer = Layer::of(&subject.network, place).unwrap();
    let factors = Saliency::Hessian.factors(&layer, &seen).unwrap();
    let mut damped = seen.hessian.clone().unwrap();
    let mean = damped.diag().sum() / damped.nrows() as f64;
    damped.diag_mut().mapv_inplace(|h| h + 0.01 * mean);
    let inverse = offprint_math::linalg::inverse(damped.view()).unwrap();
    for (factor, &diagonal) in factors.iter().zip(&inverse.diag()) {
        assert!((factor * diagonal - 1.0).abs() < 1e-6);
    }
    assert_eq!(Saliency::Magnitude.factors(&layer, &seen).unwrap(), vec![1.0; 64]);
    assert_eq!(Saliency::Wanda.factors(&layer, &seen).unwrap(), seen.mean_square.to_vec());
}

#[test]
fn both_stages_train_and_keep_the_form() {
    let subject = Example::CharLm.load().unwrap();
    let recipe = Recipe { block_steps: 6, end_steps: 6, batch: 8, ..Recipe::small() };
    let (layers, stages) = trained(&subject, &recipe, 1);
    let [(_, rounded), (_, blocks), (_, end)] = stages[..] else { panic!("three stages, not {stages:?}") };
    assert!(blocks < rounded, "{stages:?}");
    assert!(end < 1.02 * blocks, "{stages:?}");
    for layer in &layers {
        assert!((layer.sparsity() - 0.5).abs() < 1e-12);
        // What the engine multiplies is what the model computes with.
        assert_eq!(layer.records().unwrap().dequant(), layer.weights());
        layer.packed().check().unwrap();
        assert_eq!(layer.packed().dequant(), layer.weights());
    }
    // Without steps nothing but rounding happens; with refreshes the sparsity in the end is the same.
    let none = Recipe { block_steps: 0, end_steps: 0, ..recipe };
    let (plain, only) = trained(&subject, &none, 1);
    assert_eq!((only.len(), plain.len()), (1, layers.len()));
    let (risen, _) = trained(&subject, &Recipe { refreshes: 3, end_steps: 0, ..recipe }, 1);
    assert!(risen.iter().all(|layer| (layer.sparsity() - 0.5).abs() < 1e-12));
}

#[test]
fn an_exported_model_reloads_bit_for_bit() {
    let subject = Example::CharLm.load().unwrap();
    let recipe = Recipe { block_steps: 0, end_steps: 0, ..Recipe::small() };
    let (layers, _) = trained(&subject, &recipe, 2);
    let directory = tempfile::tempdir().unwrap();
    let packed: Vec<_> = layers.iter().map(CompressedLayer::packed).collect();
    let compressed = assembled(&subject.network, &layers).unwrap();
    export(&compressed, &packed, File::Bsr, directory.path()).unwrap();
    let loaded = load(directory.path()).unwrap();
    assert_eq!(loaded.network.params().flat::<f32>().unwrap(), compressed.params().flat::<f32>().unwrap());
    for layer in &layers {
        let read = loaded.layers.iter().find(|read| read.name == layer.place.name).unwrap();
        let read = CompressedLayer::from_packed(&layer.place, read).unwrap();
        assert_eq!(read.weights(), layer.weights());
        assert_eq!(read.records().unwrap().bytes(), layer.records().unwrap().bytes());
    }
}

#[test]
fn the_decoder_gives_the_logits_of_the_whole_sequence() {
    let network = llama();
    let ids: Vec<u32> = (0..20).map(|i| (i * 7 + 3) % 40).collect();
    let input = Tensor::from_slice(&ids, (1, ids.len()), &Device::Cpu).unwrap();
    let whole = network.forward(&input).unwrap().get(0).unwrap().to_vec2::<f32>().unwrap();
    let decoder = Decoder::new(&network, Precision::Single, |_, w| Format::F32.rounded(w)).unwrap();
    let mut session = decoder.start();
    for (position, (&token, expected)) in ids.iter().zip(&whole).enumerate() {
        let logits = decoder.step(&mut session, token).unwrap();
        let size = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
        for (a, b) in logits.iter().zip(expected) {
            assert!((a - b).abs() < 2e-5 * size, "position {position}: {a} and {b}");
        }
    }
    assert_eq!(session.position(), 20);
    // Greedy generation is the path of the likeliest tokens.
    let tokens = decoder.generate(&ids[..3], 4).unwrap();
    let best = |row: &[f32]| (0..row.len()).fold(0, |b, i| if row[i] > row[b] { i } else { b }) as u32;
    assert_eq!(tokens[0], best(&whole[2]));
}

#[test]
fn the_decoder_with_compressed_matrices_is_the_compressed_network() {
    let network = llama();
    let places = block_layers(&network).unwrap();
    assert_eq!(places.len(), 14);
    let inputs = Tensor::zeros((2, 8), DType::U32, &Device::Cpu).unwrap();
    let half = pruning(0.5, Scope::Layer);
    let stream = Streams::new(0).stream("calibration");
    let starts =
        group_pruned(&network, &places, &inputs, Saliency::Magnitude, half, stream, &Progress::silent()).unwrap();
    let layers: Vec<_> = starts.iter().map(|start| start.rounded(Form::GQSA)).collect();
    let make = |name: &str, weights: &Array2<f32>| -> offprint_core::Result<Box<dyn Gemv>> {
        match layers.iter().find(|layer| layer.place.name == name) {
            Some(layer) => Ok(Box::new(layer.records()?)),
            None => Format::F32.rounded(weights),
        }
    };
    let decoder = Decoder::new(&network, Precision::Single, make).unwrap();
    let compressed = assembled(&network, &layers).unwrap();
    let input = Tensor::from_slice(&[5u32, 9, 1], (1, 3), &Device::Cpu).unwrap();
    let whole = compressed.forward(&input).unwrap().get(0).unwrap().to_vec2::<f32>().unwrap();
    let mut session = decoder.start();
    let logits = [5, 9, 1].map(|token| decoder.step(&mut session, token).unwrap());
    let size = whole[2].iter().fold(0f32, |m, x| m.max(x.abs()));
    assert!(logits[2].iter().zip(&whole[2]).all(|(a, b)| (a - b).abs() < 2e-5 * size));
    assert!(decoder.bytes() < 4 * 2 * (64 * (64 + 32 + 32 + 64) + 3 * 64 * 96) / 3 + 4 * 40 * 64);

    assert!(decoder.step(&mut session, 40).unwrap_err().to_string().contains("below the vocabulary's 40"));
    assert!(decoder.generate(&[], 1).is_err());
    assert!(decoder.generate(&[1], 60).unwrap_err().to_string().contains("below the model's 24"));
}

#[test]
fn parameters_and_models_that_do_not_fit_are_refused_by_name() {
    let check = |json: serde_json::Value| {
        let params: GqsaParams = offprint_core::params::from_json(json)?;
        params.check()
    };
    assert!(check(serde_json::json!({"sparsity": 1.0})).unwrap_err().to_string().starts_with("sparsity"));
    assert!(check(serde_json::json!({"bits": 5})).unwrap_err().to_string().starts_with("bits"));
    assert!(check(serde_json::json!({"size": 100})).unwrap_err().to_string().contains("multiple of 32"));
    assert!(check(serde_json::json!({"model": "x"})).unwrap_err().to_string().starts_with("tokens"));
    let digits = Example::DigitsCnn.load().unwrap();
    assert!(block_layers(&digits.network).unwrap_err().to_string().contains("does not read tokens"));
    let subject = Example::CharLm.load().unwrap();
    assert!(Decoder::new(&subject.network, Precision::Single, |_, w| Format::F32.rounded(w)).is_err());

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("llama.safetensors");
    llama().save(&path).unwrap();
    let card = Card::parse(include_str!("../src/gqsa/card.toml")).unwrap();
    let run = |tokens: Vec<f64>| {
        let file = directory.path().join("tokens.csv");
        std::fs::write(&file, tokens.iter().map(|t| format!("{t}\n")).collect::<String>()).unwrap();
        let params = GqsaParams {
            model: Some(path.clone()),
            tokens: file.display().to_string().parse().unwrap(),
            block_steps: 2,
            end_steps: 2,
            batch: 2,
            size: 0,
            ..GqsaParams::default()
        };
        let mut run = Run::new(&card);
        Gqsa::run(&params, &mut run).map(|()| run.finish(true).unwrap().0)
    };
    let tokens: Vec<f64> = (0..400).map(|i| f64::from((i * i) % 40)).collect();
    let report = run(tokens.clone()).unwrap();
    assert!(report.metric("time a token, compressed").is_some() && report.metric("bits a weight, stored").is_some());
    assert!(run(vec![1.0; 30]).unwrap_err().to_string().contains("more than a window of 24"));
    let mut wrong = tokens;
    wrong[7] = 41.0;
    assert!(run(wrong).unwrap_err().to_string().contains("token 7 is 41"));
}
