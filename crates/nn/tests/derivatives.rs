//! Derivatives of small models against explicit matrices, finite differences and closed forms.

use candle_core::{DType, Device, Tensor};
use ndarray::{Array1, Array2, ArrayView2, s};
use offprint_core::random::Streams;
use offprint_nn::derivatives::jets::Jet;
use offprint_nn::derivatives::{IGNORED, Loss, LossFunction, Targets};
use offprint_nn::layers::{Conv2d, Embedding, GroupNorm, LayerNorm, Learned, Linear, RmsNorm};
use offprint_nn::models::{Activation, Mlp, MlpConfig};
use offprint_nn::params::Init;
use offprint_nn::{Batch, Params, Weights, ops};
use rand::RngExt;

fn random(shape: &[usize], seed: u64) -> Tensor {
    let mut rng = Streams::new(seed).stream("inputs").rng(0);
    let n = shape.iter().product();
    let values: Vec<f64> = (0..n).map(|_| rng.random_range(-1.5..1.5)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn classes(shape: &[usize], classes: u32, seed: u64) -> Tensor {
    let mut rng = Streams::new(seed).stream("classes").rng(0);
    let n = shape.iter().product();
    let ids: Vec<u32> = (0..n).map(|_| rng.random_range(0..classes)).collect();
    Tensor::from_vec(ids, shape, &Device::Cpu).unwrap()
}

fn net(activation: Activation) -> (Mlp, Params) {
    let weights = Weights::fresh(3, DType::F64).unwrap();
    let mlp = Mlp::new(&MlpConfig { widths: vec![4, 6, 5, 3], activation }, &weights).unwrap();
    (mlp, weights.finish(&[]).unwrap())
}

fn batches(loss: Loss) -> Batch {
    let inputs = random(&[7, 4], 1);
    let targets = match loss {
        Loss::CrossEntropy => classes(&[7], 3, 2),
        Loss::SquaredError => random(&[7, 3], 2),
        Loss::Logistic => classes(&[7, 3], 2, 2).to_dtype(DType::F64).unwrap(),
    };
    Batch { inputs, targets }
}

fn norm(v: &[f64]) -> f64 {
    v.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    norm(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>()) / norm(b).max(1e-300)
}

/// Fourth-order central differences of `f` at the parameters, along unit vector `i`.
fn difference(params: &Params, i: usize, f: impl Fn() -> Vec<f64>) -> Vec<f64> {
    let at = params.flat::<f64>().unwrap();
    let h = 1e-3;
    let moved = |steps: f64| {
        let mut values = at.clone();
        values[i] += steps * h;
        params.set_flat(&values).unwrap();
        f()
    };
    let (p1, m1, p2, m2) = (moved(1.0), moved(-1.0), moved(2.0), moved(-2.0));
    params.set_flat(&at).unwrap();
    (0..p1.len()).map(|j| (8.0 * (p1[j] - m1[j]) - (p2[j] - m2[j])) / (12.0 * h)).collect()
}

fn unit(d: usize, i: usize) -> Vec<f64> {
    let mut e = vec![0.0; d];
    e[i] = 1.0;
    e
}

const LOSSES: [Loss; 3] = [Loss::CrossEntropy, Loss::SquaredError, Loss::Logistic];

#[test]
fn gradient_and_hessian_are_differences_of_loss_and_gradient() {
    let (mlp, params) = net(Activation::Tanh);
    for loss in LOSSES {
        let batch = batches(loss);
        let f = LossFunction::new(&params, |x| mlp.forward(x), loss);
        let (value, gradient) = f.gradient::<f64>(&batch).unwrap();
        assert_eq!(value, f.value(&batch).unwrap());
        for i in (0..f.dim()).step_by(5) {
            let slope = difference(&params, i, || vec![f.value(&batch).unwrap()])[0];
            assert!((slope - gradient[i]).abs() < 1e-9, "{loss:?} {i}: {slope} {}", gradient[i]);
            let column = difference(&params, i, || f.gradient(&batch).unwrap().1);
            let product = f.hessian_product(&batch, &unit(f.dim(), i)).unwrap();
            assert!(distance(&product, &column) < 1e-8, "{loss:?} {i}");
        }
    }
}

#[test]
fn hessian_products_are_linear_and_symmetric_for_every_activation() {
    for activation in [Activation::Gelu, Activation::Silu, Activation::Sigmoid, Activation::Relu] {
        let (mlp, params) = net(activation);
        let batch = batches(Loss::CrossEntropy);
        let f = LossFunction::new(&params, |x| mlp.forward(x), Loss::CrossEntropy);
        let u = random(&[f.dim()], 10).to_vec1::<f64>().unwrap();
        let v = random(&[f.dim()], 11).to_vec1::<f64>().unwrap();
        let (hu, hv) = (f.hessian_product(&batch, &u).unwrap(), f.hessian_product(&batch, &v).unwrap());
        let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
        assert!((dot(&u, &hv) - dot(&v, &hu)).abs() < 1e-10 * norm(&hu) * norm(&v), "{activation:?}");
        let w: Vec<f64> = u.iter().zip(&v).map(|(u, v)| u - 2.0 * v).collect();
        let expected: Vec<f64> = hu.iter().zip(&hv).map(|(u, v)| u - 2.0 * v).collect();
        assert!(distance(&f.hessian_product(&batch, &w).unwrap(), &expected) < 1e-10, "{activation:?}");
        if activation != Activation::Relu {
            let column = difference(&params, 9, || f.gradient(&batch).unwrap().1);
            let product = f.hessian_product(&batch, &unit(f.dim(), 9)).unwrap();
            assert!(distance(&product, &column) < 1e-6, "{activation:?}: {}", distance(&product, &column));
        }
    }
}

#[test]
fn the_fast_products_of_perceptrons_are_those_of_the_graph() {
    use Activation::{Gelu, Relu, Sigmoid, Silu, Tanh};
    for activation in [Gelu, Relu, Sigmoid, Silu, Tanh] {
        let (mlp, params) = net(activation);
        for loss in LOSSES {
            // More rows than one thread takes at once, several positions a sample, and targets that are left out.
            let (n, positions) = (60, 3);
            let inputs = random(&[n, positions, 4], 1);
            let targets = match loss {
                Loss::CrossEntropy => {
                    let mut ids = classes(&[n * positions], 3, 2).to_vec1::<u32>().unwrap();
                    ids.iter_mut().step_by(7).for_each(|id| *id = IGNORED);
                    Tensor::from_vec(ids, (n, positions), &Device::Cpu).unwrap()
                }
                Loss::SquaredError => random(&[n, positions, 3], 2),
                Loss::Logistic => classes(&[n, positions, 3], 2, 2).to_dtype(DType::F64).unwrap(),
            };
            let batch = Batch { inputs, targets };
            let f = LossFunction::of_perceptron(&params, &mlp, loss);
            let fast = f.perceptron_curvature(&batch).unwrap().expect("it is a perceptron");
            for seed in 20..22 {
                let v = random(&[f.dim()], seed).to_vec1::<f64>().unwrap();
                let hessian = f.hessian_product(&batch, &v).unwrap();
                let gauss_newton = f.gauss_newton_product(&batch, &v).unwrap();
                let gap = distance(&fast.hessian_product(&v).unwrap(), &hessian);
                assert!(gap < 1e-12, "{activation:?} {loss:?}: {gap}");
                let gap = distance(&fast.gauss_newton_product(&v).unwrap(), &gauss_newton);
                assert!(gap < 1e-12, "{activation:?} {loss:?}: {gap}");
            }
            let error = fast.hessian_product(&[1.0]).unwrap_err().to_string();
            assert!(error.contains("one a weight"), "{error}");
        }
    }
}

/// The Jacobian of the outputs, (n · outputs, d), by differences.
fn jacobian(f: &LossFunction, batch: &Batch) -> Array2<f64> {
    let outputs = || f.outputs(batch).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let columns: Vec<_> = (0..f.dim()).map(|i| difference(f.params(), i, outputs)).collect();
    Array2::from_shape_fn((columns[0].len(), f.dim()), |(o, i)| columns[i][o])
}

#[test]
fn gauss_newton_and_fisher_products_are_those_of_explicit_matrices() {
    let (mlp, params) = net(Activation::Tanh);
    for loss in LOSSES {
        let batch = batches(loss);
        let f = LossFunction::new(&params, |x| mlp.forward(x), loss);
        let j = jacobian(&f, &batch);
        let (n, outputs) = (7, 3);
        let v = random(&[f.dim()], 11).to_vec1::<f64>().unwrap();
        let moved = f.jacobian_product(&batch, &v).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        assert!(distance(&moved, &j.dot(&Array1::from(v.clone())).to_vec()) < 1e-9, "{loss:?}");

        // The Hessian of the loss in the outputs, sample by sample, in its closed form.
        let y = f.outputs(&batch).unwrap();
        let p = match loss {
            Loss::CrossEntropy => ops::softmax(&y).unwrap(),
            _ => ops::sigmoid(&y).unwrap(),
        };
        let p = p.to_vec2::<f64>().unwrap();
        let mut ggn = Array2::<f64>::zeros((f.dim(), f.dim()));
        for (i, p) in p.iter().enumerate() {
            let ji = j.slice(s![i * outputs..(i + 1) * outputs, ..]);
            let h = Array2::from_shape_fn((outputs, outputs), |(a, b)| {
                let diagonal = f64::from(u8::from(a == b));
                match loss {
                    Loss::CrossEntropy => diagonal * p[a] - p[a] * p[b],
                    Loss::SquaredError => diagonal,
                    Loss::Logistic => diagonal * p[a] * (1.0 - p[a]),
                }
            });
            ggn = ggn + ji.t().dot(&h).dot(&ji) / n as f64;
        }
        let product = f.gauss_newton_product(&batch, &v).unwrap();
        assert!(distance(&product, &ggn.dot(&Array1::from(v.clone())).to_vec()) < 1e-8, "{loss:?}");

        for targets in [Targets::True, Targets::Sampled(Streams::new(1).stream("labels"))] {
            let g: Array2<f64> = f.per_sample_gradients(&batch, targets).unwrap();
            let fisher = g.t().dot(&g) / n as f64;
            let product = f.fisher_product(&batch, &v, targets).unwrap();
            assert!(distance(&product, &fisher.dot(&Array1::from(v.clone())).to_vec()) < 1e-10, "{loss:?}");
        }
    }
}

#[test]
fn sampled_fisher_averages_to_the_gauss_newton_matrix() {
    // For these losses E over the model's own targets of ∇ℓ ∇ℓᵀ is the Gauss–Newton matrix.
    let (mlp, params) = net(Activation::Tanh);
    let batch = batches(Loss::CrossEntropy);
    let f = LossFunction::new(&params, |x| mlp.forward(x), Loss::CrossEntropy);
    let v = f.gradient::<f64>(&batch).unwrap().1;
    let exact = f.gauss_newton_product(&batch, &v).unwrap();
    let draws = 400;
    let mut mean = vec![0.0; f.dim()];
    for draw in 0..draws {
        let stream = Streams::new(draw).stream("labels");
        for (m, x) in mean.iter_mut().zip(f.fisher_product(&batch, &v, Targets::Sampled(stream)).unwrap()) {
            *m += x / draws as f64;
        }
    }
    let error = distance(&mean, &exact);
    // One draw is off by about its own size; 400 of them by a twentieth.
    assert!(error < 0.15, "{error}");
}

/// A model with every kind of layer: a convolution with groups, norms, an embedding used twice, a learned offset.
struct Everything {
    embedding: Embedding,
    offset: Learned,
    norm: LayerNorm,
    mixing: Linear,
    rms: RmsNorm,
    conv: Conv2d,
    group: GroupNorm,
    head: Linear,
}

impl Everything {
    fn new(dtype: DType) -> (Self, Params) {
        let w = Weights::fresh(5, dtype).unwrap();
        let geometry = ops::Conv2d { stride: 2, padding: 1, dilation: 1, groups: 2 };
        let model = Self {
            embedding: Embedding::new(5, 4, Init::Normal { std: 1.0 }, &w.at("embedding")).unwrap(),
            offset: Learned::new("offset", &[1, 9, 4], Init::Normal { std: 0.5 }, &w).unwrap(),
            norm: LayerNorm::new(4, 1e-5, &w.at("norm")).unwrap(),
            mixing: Linear::new(4, 4, true, &w.at("mixing")).unwrap(),
            rms: RmsNorm::new(4, 1e-5, &w.at("rms")).unwrap(),
            conv: Conv2d::new(4, 6, 3, geometry, true, &w.at("conv")).unwrap(),
            group: GroupNorm::new(3, 6, &w.at("group")).unwrap(),
            head: Linear::new(6, 3, true, &w.at("head")).unwrap(),
        };
        (model, w.finish(&[]).unwrap())
    }

    /// Nine tokens, as an image of three by three places, to three classes.
    fn forward(&self, ids: &Tensor) -> candle_core::Result<Tensor> {
        let n = ids.dim(0)?;
        let x = (self.embedding.forward(ids)? + self.offset.for_samples(n)?)?;
        let x = self.rms.forward(&self.mixing.forward(&self.norm.forward(&x)?)?)?;
        // A head that shares the embedding, back to width 4 through it.
        let tied = Linear::tied(self.embedding.table(), self.embedding.name()).forward(&x)?;
        let x = (x + tied.narrow(2, 0, 4)?)?;
        let image = x.transpose(1, 2)?.contiguous()?.reshape((n, 4, 3, 3))?;
        let x = ops::silu(&self.group.forward(&self.conv.forward(&image)?)?)?;
        self.head.forward(&x.flatten_from(2)?.mean(2)?)
    }
}

#[test]
fn per_sample_gradients_of_every_layer_are_gradients_of_single_samples() {
    let (model, params) = Everything::new(DType::F64);
    let batch = Batch { inputs: classes(&[5, 9], 5, 1), targets: classes(&[5], 3, 2) };
    let f = LossFunction::new(&params, |x| model.forward(x), Loss::CrossEntropy);
    let all: Array2<f64> = f.per_sample_gradients(&batch, Targets::True).unwrap();
    for i in 0..batch.len() {
        let single = f.gradient::<f64>(&batch.narrow(i, 1).unwrap()).unwrap().1;
        for block in f.blocks() {
            let row = all.slice(s![i, block.range.clone()]).to_vec();
            assert!(distance(&row, &single[block.range.clone()]) < 1e-12, "sample {i}, {}", block.name);
        }
    }
    let (_, gradient) = f.gradient::<f64>(&batch).unwrap();
    let column = difference(&params, 7, || f.gradient(&batch).unwrap().1);
    let product = f.hessian_product(&batch, &unit(f.dim(), 7)).unwrap();
    assert!(distance(&product, &column) < 1e-6, "{}", distance(&product, &column));
    assert!(norm(&gradient) > 0.0);
}

#[test]
fn a_parameter_outside_of_layers_still_gets_per_sample_gradients() {
    let weights = Weights::fresh(1, DType::F64).unwrap();
    let linear = Linear::new(3, 2, true, &weights.at("linear")).unwrap();
    let scale = weights.param("scale", &[2], Init::Constant(1.5)).unwrap();
    let params = weights.finish(&[]).unwrap();
    let f = LossFunction::new(&params, |x| linear.forward(x)?.broadcast_mul(&scale), Loss::SquaredError);
    let batch = Batch { inputs: random(&[4, 3], 1), targets: random(&[4, 2], 2) };
    let all: Array2<f64> = f.per_sample_gradients(&batch, Targets::True).unwrap();
    for i in 0..4 {
        let single = f.gradient::<f64>(&batch.narrow(i, 1).unwrap()).unwrap().1;
        assert!(distance(&all.row(i).to_vec(), &single) < 1e-13);
    }
}

#[test]
fn layer_traces_multiply_to_the_weights_gradients() {
    let weights = Weights::fresh(5, DType::F64).unwrap();
    let conv = Conv2d::new(2, 3, 3, ops::Conv2d::same(3), true, &weights.at("conv")).unwrap();
    let head = Linear::new(3 * 4 * 4, 2, true, &weights.at("head")).unwrap();
    let params = weights.finish(&[]).unwrap();
    let forward = |x: &Tensor| head.forward(&ops::relu(&conv.forward(x)?)?.flatten_from(1)?);
    let f = LossFunction::new(&params, forward, Loss::CrossEntropy);
    let batch = Batch { inputs: random(&[6, 2, 4, 4], 1), targets: classes(&[6], 2, 2) };
    let traces = f.layer_traces::<f64>(&batch, Targets::True).unwrap();
    let all: Array2<f64> = f.per_sample_gradients(&batch, Targets::True).unwrap();
    assert_eq!(traces.iter().map(|t| t.weight.as_str()).collect::<Vec<_>>(), ["conv.weight", "head.weight"]);
    assert_eq!(traces[0].inputs.dim(), (6, 16, 18));
    for trace in &traces {
        let block = f.blocks().into_iter().find(|b| b.name == trace.weight).unwrap();
        let bias = f.blocks().into_iter().find(|b| Some(&b.name) == trace.bias.as_ref()).unwrap();
        assert_eq!((block.rows, block.columns), (trace.gradients.dim().2, trace.inputs.dim().2));
        for i in 0..6 {
            let (a, g): (ArrayView2<f64>, ArrayView2<f64>) =
                (trace.inputs.slice(s![i, .., ..]), trace.gradients.slice(s![i, .., ..]));
            let product = g.t().dot(&a);
            let row = all.slice(s![i, block.range.clone()]).to_vec();
            assert!(distance(&product.iter().copied().collect::<Vec<_>>(), &row) < 1e-12);
            let sums = g.sum_axis(ndarray::Axis(0)).to_vec();
            assert!(distance(&sums, &all.slice(s![i, bias.range.clone()]).to_vec()) < 1e-12);
        }
    }
}

#[test]
fn single_precision_agrees_with_double() {
    let (narrow, narrow_params) = Everything::new(DType::F32);
    let (wide, wide_params) = Everything::new(DType::F64);
    let batch = Batch { inputs: classes(&[5, 9], 5, 1), targets: classes(&[5], 3, 2) };
    let f32s = LossFunction::new(&narrow_params, |x| narrow.forward(x), Loss::CrossEntropy);
    let f64s = LossFunction::new(&wide_params, |x| wide.forward(x), Loss::CrossEntropy);
    let v = random(&[f64s.dim()], 11).to_vec1::<f64>().unwrap();
    let a = f32s.hessian_product(&batch, &v).unwrap();
    let b = f64s.hessian_product(&batch, &v).unwrap();
    assert!(distance(&a, &b) < 1e-4, "{}", distance(&a, &b));
    let a: Array2<f64> = f32s.per_sample_gradients(&batch, Targets::True).unwrap();
    let b: Array2<f64> = f64s.per_sample_gradients(&batch, Targets::True).unwrap();
    let flat = |x: &Array2<f64>| x.iter().copied().collect::<Vec<_>>();
    assert!(distance(&flat(&a), &flat(&b)) < 1e-5);
}

#[test]
fn products_do_not_depend_on_the_number_of_threads() {
    let batch = batches(Loss::CrossEntropy);
    let run = || {
        let (mlp, params) = net(Activation::Tanh);
        let f = LossFunction::new(&params, |x| mlp.forward(x), Loss::CrossEntropy);
        let gradients: Array2<f64> = f.per_sample_gradients(&batch, Targets::True).unwrap();
        (gradients, f.gradient::<f64>(&batch).unwrap())
    };
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    assert_eq!(pool(1).install(run), pool(3).install(run));
}

#[test]
fn vectors_of_the_wrong_length_and_empty_batches_are_named() {
    let (mlp, params) = net(Activation::Tanh);
    let f = LossFunction::new(&params, |x| mlp.forward(x), Loss::SquaredError);
    let batch = batches(Loss::SquaredError);
    let error = f.hessian_product(&batch, &[1.0]).unwrap_err().to_string();
    assert!(error.contains("1 values") && error.contains(&f.dim().to_string()), "{error}");
    let empty = Batch { inputs: Tensor::zeros((0, 4), DType::F64, &Device::Cpu).unwrap(), targets: random(&[0, 3], 0) };
    assert!(f.gradient::<f64>(&empty).unwrap_err().to_string().contains("no samples"));
    assert!(f.gauss_newton_product(&empty, &vec![0.0; f.dim()]).unwrap_err().to_string().contains("no samples"));
    let error = f.gradient::<f64>(&Batch { inputs: random(&[7, 5], 0), ..batch }).unwrap_err().to_string();
    assert!(error.contains("linear"), "{error}");
}

#[test]
fn jets_are_derivatives_in_the_inputs() {
    let (mlp, params) = net(Activation::Tanh);
    let x = random(&[5, 4], 1);
    let mut directions = random(&[2, 4], 8).to_vec2::<f64>().unwrap();
    directions.push(vec![0.0, 1.0, 0.0, 0.0]);
    let directions = Tensor::new(directions, &Device::Cpu).unwrap();
    let jet = mlp.jet(&x, &directions).unwrap();
    let flat = |t: Tensor| t.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    assert!(distance(&flat(jet.value().unwrap()), &flat(mlp.forward(&x).unwrap())) < 1e-14);
    for k in 0..3 {
        let h = 1e-3;
        let at = |steps: f64| {
            let moved = x.broadcast_add(&(directions.get(k).unwrap() * (steps * h)).unwrap()).unwrap();
            flat(mlp.forward(&moved).unwrap())
        };
        let values: Vec<_> = [-2.0, -1.0, 0.0, 1.0, 2.0].map(at).to_vec();
        let stencil = |c: [f64; 5], scale: f64| -> Vec<f64> {
            (0..15).map(|i| (0..5).map(|j| c[j] * values[j][i]).sum::<f64>() / scale).collect()
        };
        let first = stencil([1.0, -8.0, 0.0, 8.0, -1.0], 12.0 * h);
        let second = stencil([-1.0, 16.0, -30.0, 16.0, -1.0], 12.0 * h * h);
        assert!(distance(&flat(jet.first(k).unwrap()), &first) < 1e-9);
        assert!(distance(&flat(jet.second(k).unwrap()), &second) < 1e-7);
    }

    // The gradient in the parameters of a residual that holds all parts, fused against unfused and differences.
    let residual = |jet: Jet| -> candle_core::Result<Tensor> {
        let u = (jet.value()?.sqr()? + jet.second(0)?)? + (jet.first(1)? * jet.second(1)?)?;
        u?.sqr()?.mean_all()
    };
    let gradient = |jet: Jet| -> Vec<f64> {
        let grads = residual(jet).unwrap().backward().unwrap();
        let tensors = params.trained().iter().map(|p| grads.get(&p.var).unwrap().clone());
        tensors.flat_map(flat).collect()
    };
    let fused = gradient(mlp.jet(&x, &directions).unwrap());
    let unfused = gradient(ops::unfused(|| mlp.jet(&x, &directions).unwrap()));
    assert!(distance(&fused, &unfused) < 1e-13);
    for i in (0..fused.len()).step_by(7) {
        let value = || vec![residual(mlp.jet(&x, &directions).unwrap()).unwrap().to_scalar::<f64>().unwrap()];
        let slope = difference(&params, i, value)[0];
        assert!((slope - fused[i]).abs() < 1e-8 * norm(&fused).max(1.0), "{i}: {slope} {}", fused[i]);
    }
}
