//! Layers that compute with other operands, and the list of a network's layers.

use candle_core::{DType, Device, Result, Tensor, Var};
use offprint_nn::layers::LayerKind;
use offprint_nn::layers::substitute::{LayerUse, Operands, Substitute, substituting};
use offprint_nn::layers::watch::watching;
use offprint_nn::models::{Activation, GptConfig, MlpConfig, Norm, ResNetConfig, ViTConfig};
use offprint_nn::ops::{Beyond, fake_quantise, round_straight_through, scale_gradient};
use offprint_nn::{Architecture, Network, ops};
use proptest::prelude::*;
use std::cell::RefCell;
use std::rc::Rc;

fn mlp() -> Network {
    let config = MlpConfig { widths: vec![3, 4, 2], activation: Activation::Tanh };
    Network::fresh(&Architecture::Mlp(config), 1, DType::F64).unwrap()
}

/// Doubles every weight and remembers who asked.
#[derive(Default)]
struct Double(RefCell<Vec<String>>);

impl Substitute for Double {
    fn operands(&self, layer: LayerUse<'_>, own: Operands) -> Result<Operands> {
        self.0.borrow_mut().push(layer.weight.to_owned());
        Ok(Operands { weight: (own.weight * 2.0)?, ..own })
    }

    fn output(&self, layer: LayerUse<'_>, output: Tensor) -> Result<Tensor> {
        if layer.weight == "layers.1.weight" { output + 1.0 } else { Ok(output) }
    }
}

fn values(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn a_substitute_gives_operands_and_outputs_and_gradients_flow_through() {
    let network = mlp();
    let x = Tensor::new(&[[0.3, -0.2, 0.9]], &Device::Cpu).unwrap();
    let own = values(&network.forward(&x).unwrap());
    let double = Rc::new(Double::default());
    let run = || substituting(Some(double.clone()), || network.forward(&x)).unwrap();
    let substituted = run();
    assert_eq!(*double.0.borrow(), ["layers.0.weight", "layers.1.weight"]);

    let doubled = network.copy().unwrap();
    for param in doubled.params().trained().iter().filter(|p| p.name.ends_with("weight")) {
        param.var.set(&(param.var.as_tensor() * 2.0).unwrap()).unwrap();
    }
    let expected = values(&(doubled.forward(&x).unwrap() + 1.0).unwrap());
    assert_eq!(values(&substituted), expected);
    // The network itself is as it was, and inner scopes end.
    assert_eq!(values(&network.forward(&x).unwrap()), own);
    let inner = substituting(Some(double.clone()), || substituting(None, || network.forward(&x))).unwrap();
    assert_eq!(values(&inner), own);

    let gradient = |network: &Network, y: &Tensor| {
        let weight = network.params().get("layers.0.weight").unwrap().clone();
        values(ops::backward(&y.sum_all().unwrap()).unwrap().get(&weight).unwrap())
    };
    let of_copy = gradient(&doubled, &doubled.forward(&x).unwrap());
    for (own, copy) in gradient(&network, &run()).iter().zip(of_copy) {
        assert!((own - 2.0 * copy).abs() < 1e-12, "{own} {copy}");
    }
}

#[test]
fn whoever_watches_sees_the_substituted_input() {
    struct Halve;
    impl Substitute for Halve {
        fn operands(&self, _: LayerUse<'_>, own: Operands) -> Result<Operands> {
            Ok(Operands { input: (own.input * 0.5)?, ..own })
        }
    }
    let network = mlp();
    let x = Tensor::new(&[[2.0, 4.0, 6.0]], &Device::Cpu).unwrap();
    let (_, seen) = watching(|| substituting(Some(Rc::new(Halve)), || network.forward(&x)).unwrap());
    let offprint_nn::layers::watch::Layer::Linear { input } = &seen[0].layer else { panic!("{:?}", seen[0].layer) };
    assert_eq!(values(input), [1.0, 2.0, 3.0]);
}

#[test]
fn places_follow_the_forward_pass() {
    let network = |architecture| Network::fresh(&architecture, 0, DType::F32).unwrap();
    let names =
        |network: &Network| -> Vec<String> { network.layers().unwrap().into_iter().map(|place| place.name).collect() };
    let cnn = network(Architecture::DigitsCnn { classes: 10 });
    let places = cnn.layers().unwrap();
    assert_eq!(names(&cnn), ["conv1", "conv2", "conv3", "conv4", "fc"]);
    let norms: Vec<_> = places.iter().map(|place| place.batch_norm.as_deref()).collect();
    assert_eq!(norms, [Some("bn1"), Some("bn2"), Some("bn3"), Some("bn4"), None]);
    let sizes: Vec<_> = places.iter().map(|p| (p.outputs(), p.inputs(), p.positions)).collect();
    assert_eq!(sizes, [(16, 9, 64), (32, 144, 16), (32, 288, 16), (64, 288, 4), (10, 64, 1)]);

    let resnet = ResNetConfig { channels: 3, widths: vec![4, 8], blocks: 1, classes: 5 };
    let places = network(Architecture::ResNet(resnet)).layers().unwrap();
    let downsample = places.iter().find(|p| p.name == "layer2.0.downsample.0").unwrap();
    assert_eq!(downsample.batch_norm.as_deref(), Some("layer2.0.downsample.1"));

    let gpt = GptConfig { vocabulary: 7, context: 6, width: 4, heads: 2, depth: 1, mlp: 8, norm: Norm::Rms };
    let gpt = network(Architecture::Gpt(gpt));
    let places = gpt.layers().unwrap();
    assert_eq!(places[0].kind, LayerKind::Embedding);
    // The head shares the table of `wte`, which is listed once.
    assert_eq!(names(&gpt), ["wte", "wpe", "h.0.attn.c_attn", "h.0.attn.c_proj", "h.0.mlp.c_fc", "h.0.mlp.c_proj"]);
    assert_eq!((places[4].positions, places[4].multiplications()), (6, 32 * 6));
    assert_eq!(names(&network(Architecture::ViT(ViTConfig::digits())))[0], "patch_embed.proj");
}

#[test]
fn bytes_load_as_their_file_does() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("net.safetensors");
    mlp().save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap().leak();
    let network = Network::from_bytes(bytes, "bundled", DType::F64).unwrap();
    assert_eq!(network.params().flat::<f64>().unwrap(), mlp().params().flat::<f64>().unwrap());
    assert!(Network::from_bytes(b"no", "bundled", DType::F64).unwrap_err().to_string().contains("bundled"));
}

/// The definition, element by element.
fn reference(x: f64, s: f64, z: f64, (low, high): (f64, f64)) -> f64 {
    (((x / s).round_ties_even() + z).clamp(low, high) - z) * s
}

proptest! {
    #[test]
    fn fake_quantisation_is_its_definition(
        x in prop::collection::vec(-4.0..4.0f64, 12), s in prop::collection::vec(0.05..1.0f64, 3), z in -3i32..8,
    ) {
        let scale = Tensor::new(s.as_slice(), &Device::Cpu).unwrap();
        let zero = Tensor::new(&[f64::from(z)], &Device::Cpu).unwrap();
        let t = Tensor::new(x.as_slice(), &Device::Cpu).unwrap().reshape((3, 4)).unwrap();
        let y = values(&fake_quantise(&t, &scale, &zero, (-2, 5), 4, Beyond::Stops).unwrap());
        for (i, y) in y.into_iter().enumerate() {
            prop_assert!((y - reference(x[i], s[i / 4], f64::from(z), (-2.0, 5.0))).abs() < 1e-12);
        }
    }
}

#[test]
fn gradients_are_straight_through() {
    let var = |values: &[f64]| Var::from_tensor(&Tensor::new(values, &Device::Cpu).unwrap()).unwrap();
    // Codes 0.6 → 1, 2.4 → 2 inside; 9 and −9 beyond the codes −2 and 3. Scale ½, zero 0.
    let (x, s, z) = (var(&[0.3, 1.2, 4.5, -4.5]), var(&[0.5]), var(&[0.0]));
    for (beyond, out) in [(Beyond::Stops, 0.0), (Beyond::Passes, 1.0)] {
        let y = fake_quantise(&x, &s, &z, (-2, 3), 4, beyond).unwrap();
        assert_eq!(values(&y), [0.5, 1.0, 1.5, -1.0]);
        let gradients = ops::backward(&y.sum_all().unwrap()).unwrap();
        let of = |var: &Var| values(gradients.get(var).unwrap());
        assert_eq!(of(&x), [1.0, 1.0, out, out]);
        // (1 − 0.6) + (2 − 2.4) + 3 − 2
        assert!((of(&s)[0] - 1.0).abs() < 1e-12);
        assert!((of(&z)[0] + 2.0 * 0.5).abs() < 1e-12);
    }
    // Beyond the levels the value is a smooth function of scale and zero: finite differences agree.
    let far = Tensor::new(&[9.0, -9.0, 8.0], &Device::Cpu).unwrap();
    let at = |s: f64, z: f64| {
        let [s, z] = [s, z].map(|v| Tensor::new(&[v], &Device::Cpu).unwrap());
        values(&fake_quantise(&far, &s, &z, (-2, 3), 3, Beyond::Stops).unwrap()).iter().sum::<f64>()
    };
    let (s, z, h) = (var(&[0.7]), var(&[0.25]), 1e-6);
    let y = fake_quantise(&far, &s, &z, (-2, 3), 3, Beyond::Stops).unwrap();
    let gradients = ops::backward(&y.sum_all().unwrap()).unwrap();
    let of = |var: &Var| values(gradients.get(var).unwrap())[0];
    assert!((of(&s) - (at(0.7 + h, 0.25) - at(0.7 - h, 0.25)) / (2.0 * h)).abs() < 1e-6);
    assert!((of(&z) - (at(0.7, 0.25 + h) - at(0.7, 0.25 - h)) / (2.0 * h)).abs() < 1e-6);
}

#[test]
fn rounding_goes_to_even_and_lets_gradients_pass() {
    let x = Var::from_tensor(&Tensor::new(&[0.5f32, 1.5, 2.5, -0.5, -1.4], &Device::Cpu).unwrap()).unwrap();
    let y = round_straight_through(&x).unwrap();
    assert_eq!(y.to_vec1::<f32>().unwrap(), [0.0, 2.0, 2.0, -0.0, -1.0]);
    let slowed = scale_gradient(&y, 0.25).unwrap();
    assert_eq!(slowed.to_vec1::<f32>().unwrap(), y.to_vec1::<f32>().unwrap());
    let gradient = ops::backward(&slowed.sum_all().unwrap()).unwrap();
    assert_eq!(gradient.get(&x).unwrap().to_vec1::<f32>().unwrap(), [0.25; 5]);
}

#[test]
fn scales_that_do_not_fit_are_refused() {
    let x = Tensor::zeros((2, 6), DType::F32, &Device::Cpu).unwrap();
    let ones = |n: usize| Tensor::ones(n, DType::F32, &Device::Cpu).unwrap();
    let refused = |scale, zero, run| fake_quantise(&x, &ones(scale), &ones(zero), (0, 3), run, Beyond::Stops).is_err();
    assert!(refused(2, 2, 5) && refused(3, 2, 6) && refused(2, 0, 6) && refused(1, 1, 0));
    assert!(!refused(2, 1, 6) && !refused(4, 4, 3) && !refused(2, 2, 1));
}
