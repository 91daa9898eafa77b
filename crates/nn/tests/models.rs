//! Models against the reference implementations whose tensor names they take.
//!
//! The numbers come from PyTorch 2.15 in double precision, with transformers 5.23 (BERT, GPT-2, LLaMA), timm (ViT) and
//! torchvision's `BasicBlock` (ResNet); of LLaMA the norms and rotary angles, which transformers computes in single
//! precision, were computed in double too. Both sides fill parameter number k of the tensor called `name` with
//! 0.2 sin(0.7 k + length of the name), plus 1 for the weights of norms.

use candle_core::{DType, Device, Tensor};
use offprint_core::random::Streams;
use offprint_nn::checkpoint::save;
use offprint_nn::derivatives::{Loss, LossFunction, Targets};
use offprint_nn::models::*;
use offprint_nn::ops::Mode;
use offprint_nn::{Batch, Checkpoint, Params, Weights};
use std::collections::BTreeMap;

fn fresh<M>(make: impl FnOnce(&Weights) -> offprint_core::Result<M>) -> (M, Params) {
    let weights = Weights::fresh(1, DType::F64).unwrap();
    let model = make(&weights).unwrap();
    (model, weights.finish(&[]).unwrap())
}

fn filled<M>(make: impl FnOnce(&Weights) -> offprint_core::Result<M>) -> M {
    let (model, params) = fresh(make);
    for param in params.trained() {
        let n = param.var.elem_count();
        let shift = if param.var.rank() == 1 && param.name.ends_with("weight") { 1.0 } else { 0.0 };
        let length = param.name.len() as f64;
        let values: Vec<f64> = (0..n).map(|k| shift + 0.2 * (k as f64 * 0.7 + length).sin()).collect();
        param.var.set(&Tensor::from_vec(values, param.var.shape(), &Device::Cpu).unwrap()).unwrap();
    }
    model
}

fn tokens() -> Tensor {
    Tensor::new(&[[1u32, 5, 3, 10, 0], [2, 2, 7, 4, 9]], &Device::Cpu).unwrap()
}

fn images() -> Tensor {
    let values: Vec<f64> = (0..128).map(|k| (f64::from(k) * 0.3).sin()).collect();
    Tensor::from_vec(values, (2, 1, 8, 8), &Device::Cpu).unwrap()
}

fn assert_close(found: &Tensor, expected: &[f64]) {
    let found = found.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() < 1e-9, "{found:?}\n{expected:?}");
    }
}

/// The first four values of sample `i`, position `t`.
fn start(x: &Tensor, i: usize, t: usize) -> Tensor {
    x.get(i).unwrap().get(t).unwrap().narrow(0, 0, 4).unwrap()
}

#[test]
fn llama_is_that_of_transformers() {
    let config: LlamaConfig = serde_json::from_str(
        r#"{"vocab_size": 11, "hidden_size": 16, "intermediate_size": 12, "num_hidden_layers": 2, "model_type": "llama",
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 16, "rms_norm_eps": 1e-5}"#,
    )
    .unwrap();
    let logits = filled(|w| Llama::new(&config, w)).forward(&tokens()).unwrap();
    let expected = [-0.19175765818178958, 0.9428943996005079, 0.5745819565545156, -0.7096085359143851];
    assert_close(&start(&logits, 0, 4), &expected);
    let expected = [0.39834136032152945, -0.40100940874268054, -0.5611550811452204, 0.17317498708450932];
    assert_close(&start(&logits, 1, 2), &expected);
    let long = Tensor::zeros((1, 17), DType::U32, &Device::Cpu).unwrap();
    let error = filled(|w| Llama::new(&config, w)).forward(&long).unwrap_err().to_string();
    assert!(error.contains("17 tokens") && error.contains("at most 16"), "{error}");
}

#[test]
fn bert_is_that_of_transformers_and_does_not_see_padding() {
    let config: BertConfig = serde_json::from_str(
        r#"{"vocab_size": 13, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_act": "gelu",
            "intermediate_size": 12, "max_position_embeddings": 10, "type_vocab_size": 2}"#,
    )
    .unwrap();
    let bert = filled(|w| Bert::new(&config, w));
    let ids = Tensor::new(&[[1u32, 5, 3, 12, 0], [2, 2, 7, 0, 0]], &Device::Cpu).unwrap();
    let mask = Tensor::new(&[[1u32, 1, 1, 1, 1], [1, 1, 1, 0, 0]], &Device::Cpu).unwrap();
    let hidden = bert.forward(&ids, &mask).unwrap();
    let expected = [-0.41848468453250726, 0.45252310891268105, 0.49756678251694303, -1.8174372264927432];
    assert_close(&start(&hidden, 0, 4), &expected);
    let expected = [-0.6589902536744972, -1.238753898816577, 0.5706565974874015, -1.159988767775843];
    assert_close(&start(&hidden, 1, 2), &expected);
    let alone = bert
        .forward(
            &ids.narrow(0, 1, 1).unwrap().narrow(1, 0, 3).unwrap(),
            &mask.narrow(1, 0, 3).unwrap().narrow(0, 1, 1).unwrap(),
        )
        .unwrap();
    assert_close(&start(&alone, 0, 2), &expected);

    let error = Bert::new(&BertConfig { hidden_act: "relu".into(), ..config }, &Weights::fresh(0, DType::F32).unwrap());
    assert_eq!(error.unwrap_err().to_string(), "hidden_act: got relu, but it must be gelu");
}

fn small_gpt() -> GptConfig {
    GptConfig { vocabulary: 11, context: 8, width: 8, heads: 2, depth: 2, mlp: 12, norm: Norm::Layer }
}

#[test]
fn gpt_is_that_of_transformers() {
    let logits = filled(|w| Gpt::new(&small_gpt(), w)).forward(&tokens()).unwrap();
    let expected = [0.04032662339710305, -0.2675967262667847, -0.4554044035842349, -0.438795506419702];
    assert_close(&start(&logits, 0, 4), &expected);
    let expected = [-0.3024819265814678, -0.6600789559414715, -0.7213875041202853, -0.45888811081725855];
    assert_close(&start(&logits, 1, 2), &expected);
}

#[test]
fn gpt_generates_the_likeliest_and_draws_by_seed() {
    let gpt = filled(|w| Gpt::new(&small_gpt(), w));
    let stream = |seed| Streams::new(seed).stream("tokens");
    let greedy = gpt.generate(&[1, 5, 3, 10, 0], 1, 0.0, stream(0)).unwrap();
    let logits = gpt.forward(&tokens()).unwrap().get(0).unwrap().get(4).unwrap().to_vec1::<f64>().unwrap();
    assert!(logits.iter().all(|&z| z <= logits[greedy[0] as usize]));
    // Longer than the context of 8.
    let draw = |seed| gpt.generate(&[1], 30, 1.0, stream(seed)).unwrap();
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
    assert!(draw(1).iter().all(|&token| token < 11));
    assert!(gpt.generate(&[], 1, 1.0, stream(0)).unwrap_err().to_string().starts_with("start"));
    assert!(gpt.generate(&[99], 1, 1.0, stream(0)).unwrap_err().to_string().contains("99"));
}

#[test]
fn vit_is_that_of_timm() {
    let config = ViTConfig {
        image: 8,
        patch: 2,
        channels: 1,
        width: 8,
        heads: 2,
        depth: 2,
        mlp: 16,
        classes: 3,
        class_token: true,
    };
    let logits = filled(|w| ViT::new(&config, w)).forward(&images()).unwrap();
    assert_close(
        &logits,
        &[
            0.05071519998439446,
            0.3031749330194362,
            0.42071477737259527,
            0.049063850746248236,
            0.301596152623528,
            0.41991723020128685,
        ],
    );
    let logits = filled(|w| ViT::new(&ViTConfig { class_token: false, ..config }, w)).forward(&images()).unwrap();
    assert_close(
        &logits,
        &[
            0.04307657492943534,
            0.2804559551788366,
            0.39311327441195526,
            0.04381826668614473,
            0.2823530978133053,
            0.39531430084316793,
        ],
    );
}

#[test]
fn resnet_is_made_of_torchvisions_blocks() {
    let config = ResNetConfig { channels: 1, widths: vec![4, 6], blocks: 2, classes: 3 };
    let resnet = filled(|w| ResNet::new(&config, w));
    assert_close(
        &resnet.forward(&images(), Mode::Training).unwrap(),
        &[
            -0.3016425248005321,
            0.41758360849876086,
            0.3882939283852451,
            -0.44480374188762273,
            0.5722224462198611,
            0.3798284182877001,
        ],
    );
    // After one step's update of the running statistics.
    assert_close(
        &resnet.forward(&images(), Mode::Evaluation).unwrap(),
        &[
            -0.41921916675150894,
            0.6486962373269414,
            0.279259635873198,
            -0.8535105796727633,
            0.8323564754280842,
            0.5334682104362625,
        ],
    );
    // He et al. give 0.27 million parameters for the 20-layer network.
    let (_, params) = fresh(|w| ResNet::new(&ResNetConfig::resnet20(), w));
    assert!((270_000..275_000).contains(&params.count()), "{}", params.count());
}

#[test]
fn published_sizes_are_met() {
    let (_, cnn) = fresh(|w| DigitsCnn::new(10, w));
    assert!((33_000..33_700).contains(&cnn.count()), "{}", cnn.count());
    let (_, vit) = fresh(|w| ViT::new(&ViTConfig::digits(), w));
    // Per block: qkv 3168, proj 1056, mlp 2112 + 2080, norms 128; patches 160, positions 512, norm 64, head 330.
    assert_eq!(vit.count(), 3 * 8544 + 1066);
}

/// A central difference of the loss along each fifth parameter.
fn check_gradient(params: &Params, batch: &Batch, forward: &(dyn Fn(&Tensor) -> candle_core::Result<Tensor> + Sync)) {
    let f = LossFunction::new(params, forward, Loss::SquaredError);
    let (_, gradient) = f.gradient::<f64>(batch).unwrap();
    let at = params.flat::<f64>().unwrap();
    for block in f.blocks() {
        let i = block.range.start + block.range.len() / 2;
        let value = |h: f64| {
            let mut moved = at.clone();
            moved[i] += h;
            params.set_flat(&moved).unwrap();
            f.value(batch).unwrap()
        };
        let slope = (value(1e-5) - value(-1e-5)) / 2e-5;
        params.set_flat(&at).unwrap();
        let scale = gradient.iter().fold(0.0, |m: f64, g| m.max(g.abs()));
        assert!((slope - gradient[i]).abs() < 1e-6 * scale, "{}: {slope} {}", block.name, gradient[i]);
    }
    let single = f.per_sample_gradients::<f64>(batch, Targets::True).unwrap();
    let first = f.gradient::<f64>(&batch.narrow(0, 1).unwrap()).unwrap().1;
    let error = single.row(0).iter().zip(&first).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(error < 1e-10, "{error}");
}

#[test]
fn unet_keeps_shapes_sees_times_and_has_its_gradient() {
    let config = UNetConfig { inputs: 1, outputs: 2, widths: vec![4, 8], blocks: 1, groups: 2, attention: true };
    let (unet, params) = fresh(|w| UNet::new(&config, w));
    let x = images();
    let at = |t: [f64; 2]| unet.forward(&x, &Tensor::new(&t, &Device::Cpu).unwrap()).unwrap();
    assert_eq!(at([0.0, 1.0]).dims(), [2, 2, 8, 8]);
    let (a, b) = (at([3.0, 7.0]), at([3.0, 9.0]));
    let distance = |i: usize| {
        (a.get(i).unwrap() - b.get(i).unwrap()).unwrap().sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap()
    };
    assert!(distance(0) == 0.0 && distance(1) > 0.0);
    let times = |n: usize| Tensor::from_vec(vec![3.0; n], n, &Device::Cpu).unwrap();
    let batch = Batch { inputs: x.clone(), targets: at([0.0, 1.0]).zeros_like().unwrap() };
    check_gradient(&params, &batch, &|x| unet.forward(x, &times(x.dim(0)?)));
    let odd = x.narrow(2, 0, 7).unwrap();
    assert!(unet.forward(&odd, &times(2)).unwrap_err().to_string().contains("multiples of 2"));
}

#[test]
fn transformers_have_their_curvature() {
    // Attention, norms and a tied embedding, once more differentiated: against differences of the gradient.
    let config = GptConfig { norm: Norm::Rms, ..small_gpt() };
    let (gpt, gpt_params) = fresh(|w| Gpt::new(&config, w));
    let (vit, vit_params) = fresh(|w| {
        let config = ViTConfig { width: 8, mlp: 8, depth: 1, patch: 4, classes: 3, ..ViTConfig::digits() };
        ViT::new(&config, w)
    });
    let text = Batch {
        inputs: tokens(),
        targets: Tensor::new(&[[5u32, 3, 10, 0, 1], [2, 7, 4, 9, 2]], &Device::Cpu).unwrap(),
    };
    let pictures = Batch { inputs: images(), targets: Tensor::new(&[2u32, 0], &Device::Cpu).unwrap() };
    let cases = [
        (LossFunction::new(&gpt_params, |x| gpt.forward(x), Loss::CrossEntropy), text),
        (LossFunction::new(&vit_params, |x| vit.forward(x), Loss::CrossEntropy), pictures),
    ];
    for (f, batch) in cases {
        let at = f.params().flat::<f64>().unwrap();
        let v: Vec<f64> = (0..f.dim()).map(|k| (k as f64 * 1.3).cos()).collect();
        let gradient = |h: f64| {
            let moved: Vec<f64> = at.iter().zip(&v).map(|(x, v)| x + h * v).collect();
            f.params().set_flat(&moved).unwrap();
            f.gradient::<f64>(&batch).unwrap().1
        };
        let h = 1e-5;
        let (plus, minus) = (gradient(h), gradient(-h));
        f.params().set_flat(&at).unwrap();
        let product = f.hessian_product(&batch, &v).unwrap();
        let scale = product.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
        for (i, p) in product.iter().enumerate() {
            let slope = (plus[i] - minus[i]) / (2.0 * h);
            assert!((slope - p).abs() < 1e-6 * scale, "{i}: {slope} {p}");
        }
        let all = f.per_sample_gradients::<f64>(&batch, Targets::True).unwrap();
        for i in 0..2 {
            let single = f.gradient::<f64>(&batch.narrow(i, 1).unwrap()).unwrap().1;
            assert!(all.row(i).iter().zip(&single).all(|(a, b)| (a - b).abs() < 1e-11));
        }
    }
}

#[test]
fn time_mlp_has_its_gradient_and_sinusoids_their_formula() {
    let config =
        TimeMlpConfig { inputs: 2, outputs: 2, width: 8, depth: 2, frequencies: 6, activation: Activation::Silu };
    let (mlp, params) = fresh(|w| TimeMlp::new(&config, w));
    let points = Tensor::new(&[[0.3, -0.2], [1.0, 0.4], [-0.5, 0.1]], &Device::Cpu).unwrap();
    let times = |n: usize| Tensor::from_vec(vec![0.7; n], n, &Device::Cpu).unwrap();
    let batch = Batch { targets: points.zeros_like().unwrap(), inputs: points };
    check_gradient(&params, &batch, &|x| mlp.forward(x, &times(x.dim(0)?)));
    let t = Tensor::new(&[2.5], &Device::Cpu).unwrap();
    let f = [1.0, 1e4f64.powf(-0.5)];
    let expected = [(2.5 * f[0]).cos(), (2.5 * f[1]).cos(), (2.5 * f[0]).sin(), (2.5 * f[1]).sin()];
    assert_close(&sinusoids(&t, 4).unwrap(), &expected);
}

#[test]
fn a_saved_model_loads_under_its_names_and_foreign_tensors_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let (resnet, params) = fresh(|w| ResNet::new(&ResNetConfig { blocks: 1, ..ResNetConfig::resnet20() }, w));
    let x = Tensor::ones((2, 3, 8, 8), DType::F64, &Device::Cpu).unwrap();
    resnet.forward(&x, Mode::Training).unwrap();
    let path = directory.path().join("model.safetensors");
    let mut tensors = params.snapshot().unwrap();
    save(&path, &tensors, &BTreeMap::new()).unwrap();
    let load = |blocks: usize| {
        let weights = Weights::loaded(Checkpoint::open(directory.path())?, DType::F64)?;
        let resnet = ResNet::new(&ResNetConfig { blocks, ..ResNetConfig::resnet20() }, &weights)?;
        weights.finish(&[])?;
        Ok::<_, offprint_core::Error>(resnet)
    };
    // Running statistics come along.
    let (a, b) = (resnet.forward(&x, Mode::Evaluation), load(1).unwrap().forward(&x, Mode::Evaluation));
    assert_close(&a.unwrap(), &b.unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap());
    let error = load(2).unwrap_err().to_string();
    assert!(error.contains("no tensor \"layer1.1.conv1.weight\""), "{error}");
    tensors.push(("extra.weight".into(), x));
    save(&path, &tensors, &BTreeMap::new()).unwrap();
    let error = load(1).unwrap_err().to_string();
    assert!(error.contains("does not have: extra.weight"), "{error}");
}

#[test]
fn impossible_shapes_are_named_before_anything_is_made() {
    let weights = || Weights::fresh(0, DType::F32).unwrap();
    let named = |result: Result<(), offprint_core::Error>, start: &str| {
        let error = result.unwrap_err().to_string();
        assert!(error.starts_with(start), "{error}");
    };
    let mlp = |widths| Mlp::new(&MlpConfig { widths, activation: Activation::Relu }, &weights()).map(drop);
    named(mlp(vec![3]), "widths");
    named(mlp(vec![3, 0, 2]), "widths");
    named(Gpt::new(&GptConfig { heads: 3, ..small_gpt() }, &weights()).map(drop), "heads: got 3");
    named(ViT::new(&ViTConfig { patch: 3, ..ViTConfig::digits() }, &weights()).map(drop), "patch: got 3");
    named(ResNet::new(&ResNetConfig { widths: vec![], ..ResNetConfig::resnet20() }, &weights()).map(drop), "widths");
    let unet = UNetConfig { inputs: 1, outputs: 1, widths: vec![4, 6], blocks: 1, groups: 4, attention: false };
    named(UNet::new(&unet, &weights()).map(drop), "widths: got 6");
    named(DigitsCnn::new(0, &weights()).map(drop), "classes: got 0");
}
