//! Every fused operation against candle's primitive operations and against central finite differences.

use candle_core::{DType, Device, Result, Tensor, Var};
use offprint_core::random::Streams;
use offprint_nn::ops::{self, Activation, Conv2d, Mask, Mode, Reduction, RunningStatistics};
use rand::RngExt;

/// Numbers in (−2, 2), the same at every run.
fn random(name: &str, shape: &[usize]) -> Tensor {
    let mut rng = Streams::new(7).stream(name).rng(0);
    let count = shape.iter().product();
    let values: Vec<f64> = (0..count).map(|_| rng.random_range(-2.0..2.0)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn values(t: &Tensor) -> Vec<f64> {
    t.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

/// The largest difference, relative to the largest entry (at least 1) of the second.
fn distance(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let (a, b) = (values(a), values(b));
    let scale = b.iter().fold(1.0f64, |m, x| m.max(x.abs()));
    let far = |(a, b): (&f64, &f64)| if a.is_nan() || b.is_nan() { f64::INFINITY } else { (a - b).abs() / scale };
    a.iter().zip(&b).map(far).fold(0.0, f64::max)
}

/// The value of f, and the gradients of ⟨f, c⟩ with random c.
fn differentiate(inputs: &[Tensor], f: &impl Fn(&[Tensor]) -> Result<Tensor>) -> (Tensor, Vec<Tensor>) {
    let vars: Vec<Var> = inputs.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
    let leaves: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let y = f(&leaves).unwrap();
    let c = random("weights of the result", y.dims()).to_dtype(y.dtype()).unwrap();
    let loss = (&y * c).unwrap().sum_all().unwrap();
    let gradients = loss.backward().unwrap();
    let handed_over = ops::backward(&loss).unwrap();
    for v in &vars {
        assert_eq!(gradients.get(v).map(values), handed_over.get(v).map(values));
    }
    let of = |v: &Var| gradients.get(v).cloned().unwrap_or_else(|| v.zeros_like().unwrap());
    (y.detach(), vars.iter().map(of).collect())
}

/// ⟨f(ahead) − f(behind), c⟩ with the same c; entries that do not differ cancel without rounding.
fn difference(ahead: &[Tensor], behind: &[Tensor], f: &impl Fn(&[Tensor]) -> Result<Tensor>) -> f64 {
    let change = (f(ahead).unwrap() - f(behind).unwrap()).unwrap();
    let c = random("weights of the result", change.dims());
    (change * c).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap()
}

/// Compares f fused, f unfused and finite differences of f; fused in f32 with unfused in f64.
fn check(inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let (fused, fused_gradients) = differentiate(inputs, &f);
    let (primitive, primitive_gradients) = ops::unfused(|| differentiate(inputs, &f));
    assert!(distance(&fused, &primitive) < 1e-13, "values: {}", distance(&fused, &primitive));
    for (i, (a, b)) in fused_gradients.iter().zip(&primitive_gradients).enumerate() {
        assert!(distance(a, b) < 1e-12, "gradient {i}: {}", distance(a, b));
    }

    let single: Vec<Tensor> = inputs.iter().map(|t| t.to_dtype(DType::F32).unwrap()).collect();
    let (value, gradients) = differentiate(&single, &|x: &[Tensor]| f(x));
    assert!(distance(&value, &primitive) < 2e-6, "f32 values: {}", distance(&value, &primitive));
    for (i, (a, b)) in gradients.iter().zip(&primitive_gradients).enumerate() {
        assert!(distance(a, b) < 5e-6, "f32 gradient {i}: {}", distance(a, b));
    }

    let h = 1e-5;
    for (i, gradient) in fused_gradients.iter().enumerate() {
        let gradient = values(gradient);
        let scale = gradient.iter().fold(1.0f64, |m, g| m.max(g.abs()));
        // A spread of entries: all of small inputs.
        for at in (0..gradient.len()).step_by(gradient.len() / 40 + 1) {
            let shifted = |by: f64| {
                let mut entries = values(&inputs[i]);
                entries[at] += by;
                let mut inputs = inputs.to_vec();
                inputs[i] = Tensor::from_vec(entries, inputs[i].shape(), &Device::Cpu).unwrap();
                inputs
            };
            let difference = difference(&shifted(h), &shifted(-h), &f) / (2.0 * h);
            let error = (difference - gradient[at]).abs() / scale;
            assert!(error < 1e-8, "input {i}, entry {at}: gradient {}, difference {difference}", gradient[at]);
        }
    }
}

#[test]
fn activations_and_their_gradients() {
    // 0.37 keeps the steps of the differences off relu's corner.
    let x = (random("x", &[3, 1, 37]) * 0.37).unwrap();
    for f in [ops::gelu, ops::gelu_tanh, ops::relu, ops::silu, ops::tanh, ops::sigmoid] {
        check(std::slice::from_ref(&x), |x| f(&x[0]));
        check(&[(&x * 5.0).unwrap()], |x| f(&x[0].transpose(0, 2)?));
    }
}

#[test]
fn activations_in_the_tails_and_on_what_is_no_number() {
    let x = |values: &[f64]| Tensor::new(values, &Device::Cpu).unwrap();
    let ends = x(&[-1e30, -800.0, 800.0, 1e30, f64::NAN, 0.0]);
    for dtype in [DType::F32, DType::F64] {
        let ends = ends.to_dtype(dtype).unwrap();
        assert_eq!(&values(&ops::tanh(&ends).unwrap())[..4], [-1.0, -1.0, 1.0, 1.0]);
        assert_eq!(&values(&ops::sigmoid(&ends).unwrap())[..4], [0.0, 0.0, 1.0, 1.0]);
        assert_eq!(values(&ops::gelu(&ends).unwrap())[1..3], [0.0, 800.0]);
        for f in [ops::gelu, ops::gelu_tanh, ops::relu, ops::silu, ops::tanh, ops::sigmoid] {
            assert!(values(&f(&ends).unwrap())[4].is_nan());
        }
        assert_eq!(values(&ops::relu(&ends).unwrap())[5], 0.0);
    }
    // From mpmath with 30 digits: Φ(−8) · −8, σ(−40), tanh(1e−9).
    let close = |a: Tensor, b: f64| (values(&a)[0] / b - 1.0).abs() < 1e-14;
    assert!(close(ops::gelu(&x(&[-8.0])).unwrap(), -4.976_768_459_417_427e-15));
    assert!(close(ops::sigmoid(&x(&[-40.0])).unwrap(), 4.248_354_255_291_589e-18));
    assert!(close(ops::tanh(&x(&[1e-9])).unwrap(), 1e-9));
}

#[test]
fn linear_layers() {
    for (shape, outputs) in [(vec![1, 1], 1), (vec![5, 7], 3), (vec![2, 3, 11], 13), (vec![4], 2), (vec![0, 3], 2)] {
        let inputs = *shape.last().unwrap();
        let (w, b) = (random("w", &[outputs, inputs]), random("b", &[outputs]));
        check(&[random("x", &shape), w.clone(), b], |t| ops::linear(&t[0], &t[1], Some(&t[2])));
        check(&[random("x", &shape), w], |t| ops::linear(&t[0], &t[1], None));
    }
    for activation in [Activation::Gelu, Activation::Tanh] {
        let inputs = [random("x", &[5, 7]), random("w", &[3, 7]), random("b", &[3])];
        check(&inputs, |t| ops::linear_activated(&t[0], &t[1], Some(&t[2]), activation));
        check(&inputs[..2], |t| ops::linear_activated(&t[0], &t[1], None, activation));
    }
    // Strided operands, and sizes beyond one piece of rows and one thread.
    let (x, w, b) = (random("x", &[61, 300]), random("w", &[61, 131]), random("b", &[131]));
    check(&[x, w, b], |t| ops::linear(&t[0].t()?, &t[1].t()?, Some(&t[2])));
}

#[test]
fn soft_maxima() {
    for shape in [vec![1], vec![3, 1], vec![2, 3, 37], vec![700, 67]] {
        check(&[(random("x", &shape) * 3.0).unwrap()], |t| ops::softmax(&t[0]));
        check(&[(random("x", &shape) * 3.0).unwrap()], |t| ops::log_softmax(&t[0]));
    }
    check(&[random("x", &[5, 7])], |t| ops::softmax(&t[0].t()?));
    let x = Tensor::new(&[[1000.0, 0.0, f64::NEG_INFINITY]], &Device::Cpu).unwrap();
    assert_eq!(values(&ops::softmax(&x).unwrap()), [1.0, 0.0, 0.0]);
    assert_eq!(values(&ops::log_softmax(&x).unwrap()), [0.0, -1000.0, f64::NEG_INFINITY]);
}

#[test]
fn norms_of_rows() {
    for shape in [vec![2, 3], vec![3, 1, 37], vec![301, 67]] {
        let width = *shape.last().unwrap();
        let (x, w, b) = (random("x", &shape), random("w", &[width]), random("b", &[width]));
        check(&[x.clone(), w.clone(), b], |t| ops::layer_norm(&t[0], &t[1], &t[2], 1e-5));
        check(&[x, w], |t| ops::rms_norm(&t[0], &t[1], 1e-5));
    }
    let (w, b) = (random("w", &[5]), random("b", &[5]));
    check(&[random("x", &[5, 7]), w, b], |t| ops::layer_norm(&t[0].t()?, &t[1], &t[2], 1e-5));
}

#[test]
fn norms_of_channels() {
    for shape in [vec![7, 4], vec![2, 6, 5], vec![3, 4, 5, 7], vec![1, 2, 3]] {
        let channels = shape[1];
        let (x, w, b) = (random("x", &shape), random("w", &[channels]), random("b", &[channels]));
        for mode in [Mode::Training, Mode::Evaluation] {
            for norm in [ops::batch_norm, ops::batch_norm_relu] {
                check(&[x.clone(), w.clone(), b.clone()], |t| {
                    let running = RunningStatistics::new(channels, t[0].dtype(), &Device::Cpu)?;
                    running.mean.set(&random("mean", &[channels]).to_dtype(t[0].dtype())?)?;
                    norm(&t[0], &t[1], &t[2], &running, 1e-3, mode)
                });
            }
        }
        for groups in (1..=channels).filter(|g| channels % g == 0) {
            check(&[x.clone(), w.clone(), b.clone()], |t| ops::group_norm(&t[0], &t[1], &t[2], groups, 1e-3));
        }
    }
}

#[test]
fn batch_norm_tracks_mean_and_unbiased_variance() {
    let x = Tensor::new(&[[1.0], [2.0], [6.0]], &Device::Cpu).unwrap();
    let one = Tensor::ones(1, DType::F64, &Device::Cpu).unwrap();
    for fused in [true, false] {
        let running = RunningStatistics::new(1, DType::F64, &Device::Cpu).unwrap();
        let step = || ops::batch_norm(&x, &one, &one, &running, 0.0, Mode::Training).unwrap();
        if fused {
            step()
        } else {
            ops::unfused(step)
        };
        // Mean 3, squares 4 + 1 + 9 = 14 over 3 − 1.
        assert!((values(&running.mean)[0] - 0.3).abs() < 1e-15);
        assert!((values(&running.var)[0] - (0.9 + 0.7)).abs() < 1e-15);
    }
}

#[test]
fn cross_entropies() {
    for (rows, classes) in [(1, 1), (5, 7), (130, 257)] {
        let targets: Vec<u32> = (0..rows as u32).map(|i| i * 5 % classes as u32).collect();
        let targets = Tensor::new(targets, &Device::Cpu).unwrap();
        for reduction in [Reduction::Mean, Reduction::Sum, Reduction::None] {
            for smoothing in [0.0, 0.1, 1.0] {
                check(&[random("x", &[rows, classes])], |t| ops::cross_entropy(&t[0], &targets, smoothing, reduction));
            }
        }
    }
}

#[test]
fn attentions() {
    // (batch, heads, queries, keys, d, e); the last two cross a block of queries.
    for (b, h, n, m, d, e) in [(1, 1, 1, 1, 1, 1), (2, 3, 5, 7, 4, 3), (1, 2, 67, 71, 5, 4), (2, 1, 130, 130, 3, 3)] {
        let q = random("q", &[b, h, n, d]);
        let k = random("k", &[b, h, m, d]);
        let v = random("v", &[b, h, m, e]);
        let inputs = [q, k, v];
        check(&inputs, |t| ops::attention(&t[0], &t[1], &t[2], Mask::None));
        check(&inputs, |t| ops::attention(&t[0], &t[1], &t[2], Mask::Causal));
        // Padding hides the last key where there is more than one.
        let hidden = |j: usize| if j > 0 && j == m - 1 { f64::NEG_INFINITY } else { (j as f64).sin() };
        let mask = Tensor::from_vec((0..b * m).map(|i| hidden(i % m)).collect::<Vec<_>>(), (b, 1, 1, m), &Device::Cpu);
        let mask = mask.unwrap();
        check(&inputs, |t| ops::attention(&t[0], &t[1], &t[2], Mask::Additive(&mask.to_dtype(t[0].dtype())?)));
    }
    // Heads that lie side by side in a row.
    let shapes: [&[usize]; 3] = [&[2, 5, 3, 4], &[2, 7, 3, 4], &[2, 7, 3, 2]];
    let inputs: Vec<Tensor> = shapes.iter().map(|shape| random("t", shape)).collect();
    check(&inputs, |t| {
        ops::attention(&t[0].transpose(1, 2)?, &t[1].transpose(1, 2)?, &t[2].transpose(1, 2)?, Mask::Causal)
    });
    // Width that is not contiguous.
    let inputs = [random("q", &[1, 2, 4, 5]), random("k", &[1, 2, 4, 6]), random("v", &[1, 2, 6, 3])];
    check(&inputs, |t| ops::attention(&t[0].t()?, &t[1].t()?, &t[2], Mask::None));
}

#[test]
fn self_attentions_are_attentions_of_their_parts() {
    for (batch, rows, heads, d) in [(1, 1, 1, 1), (2, 5, 3, 4), (3, 67, 2, 5)] {
        let x = random("x", &[batch, rows, 3 * heads * d]);
        for causal in [false, true] {
            let mask = || if causal { Mask::Causal } else { Mask::None };
            check(std::slice::from_ref(&x), |t| ops::self_attention(&t[0], heads, mask()));
        }
        let mask = random("mask", &[1, heads, rows, rows]);
        check(std::slice::from_ref(&x), |t| {
            ops::self_attention(&t[0], heads, Mask::Additive(&mask.to_dtype(t[0].dtype())?))
        });
    }
}

#[test]
fn convolutions() {
    let conv = |stride, padding, dilation, groups| Conv2d { stride, padding, dilation, groups };
    // (images, in, height, width), (out, kh, kw)
    for ((n, inputs, height, width), (outputs, kh, kw), conv) in [
        ((1, 1, 1, 1), (1, 1, 1), conv(1, 0, 1, 1)),
        ((2, 3, 7, 5), (4, 3, 3), conv(1, 1, 1, 1)),
        ((3, 2, 8, 9), (3, 3, 2), conv(2, 1, 1, 1)),
        ((1, 4, 11, 7), (6, 3, 3), conv(1, 2, 2, 2)),
        ((2, 6, 9, 10), (6, 3, 3), conv(3, 2, 2, 6)),
        ((2, 4, 5, 6), (6, 1, 1), conv(1, 0, 1, 2)),
        ((2, 4, 5, 6), (3, 1, 1), conv(2, 0, 1, 1)),
        ((2, 3, 5, 5), (2, 5, 5), conv(1, 0, 1, 1)),
        // The kernel reaches wholly into the padding.
        ((1, 1, 2, 2), (1, 1, 1), conv(1, 3, 1, 1)),
        // Several tiles, and more images than are added up in one go.
        ((11, 8, 40, 40), (5, 3, 3), conv(1, 1, 1, 1)),
    ] {
        let x = random("x", &[n, inputs, height, width]);
        let (w, b) = (random("w", &[outputs, inputs / conv.groups, kh, kw]), random("b", &[outputs]));
        check(&[x.clone(), w.clone(), b], |t| ops::conv2d(&t[0], &t[1], Some(&t[2]), &conv));
        check(&[x, w], |t| ops::conv2d(&t[0], &t[1], None, &conv));
    }
    check(&[random("x", &[2, 6, 5, 3]), random("w", &[3, 3, 2, 4])], |t| {
        ops::conv2d(&t[0].transpose(1, 3)?, &t[1].transpose(0, 3)?, None, &conv(1, 1, 1, 1))
    });
}

#[test]
fn embeddings() {
    let ids = Tensor::new(&[[0u32, 2, 2], [4, 0, 2]], &Device::Cpu).unwrap();
    check(&[random("table", &[5, 3])], |t| ops::embedding(&t[0], &ids));
    check(&[random("table", &[3, 5])], |t| ops::embedding(&t[0].t()?, &ids.t()?));
}

/// All bits of a network's loss and gradients, computed with so many threads.
fn bits(threads: usize) -> Vec<u64> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let image = random("image", &[19, 3, 24, 24]).to_dtype(DType::F32).unwrap();
        let shapes: [&[usize]; 5] = [&[24, 3, 3, 3], &[24], &[24], &[300, 576], &[300]];
        let parameters: Vec<Tensor> =
            shapes.iter().map(|shape| random("w", shape).to_dtype(DType::F32).unwrap()).collect();
        let (loss, gradients) = differentiate(&parameters, &|p: &[Tensor]| {
            let running = RunningStatistics::new(24, DType::F32, &Device::Cpu)?;
            let y = ops::conv2d(&image, &p[0], None, &Conv2d::same(3))?;
            let y = ops::gelu(&ops::batch_norm(&y, &p[1], &p[2], &running, 1e-5, Mode::Training)?)?;
            let y = ops::linear(&y.flatten_from(2)?, &p[3], Some(&p[4]))?;
            let y = ops::layer_norm(&y, &p[4], &p[4], 1e-5)?;
            ops::softmax(&ops::self_attention(&y, 4, Mask::Causal)?)
        });
        gradients.iter().chain([&loss]).flat_map(values).map(f64::to_bits).collect()
    })
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let one = bits(1);
    assert!(one == bits(2) && one == bits(3));
}

#[test]
fn the_switch_to_primitive_operations_is_undone_after_a_panic() {
    assert!(!ops::is_unfused());
    ops::unfused(|| {
        assert!(ops::is_unfused());
        ops::unfused(|| ());
        assert!(ops::is_unfused());
    });
    let caught = std::panic::catch_unwind(|| ops::unfused(|| std::panic::resume_unwind(Box::new(()))));
    assert!(caught.is_err() && !ops::is_unfused());
}

#[test]
fn shapes_that_do_not_fit_are_refused_by_name() {
    let t = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    let ids = |ids: &[u32]| Tensor::new(ids, &Device::Cpu).unwrap();
    let conv = Conv2d::default();
    let running = RunningStatistics::new(3, DType::F32, &Device::Cpu).unwrap();
    let q = t(&[1, 2, 4, 3]);
    for (result, part) in [
        (ops::linear(&t(&[2, 3]), &t(&[5, 4]), None), "4 columns of w"),
        (ops::linear(&t(&[2, 4]), &t(&[5, 4]), Some(&t(&[4]))), "b has shape [4]"),
        (ops::linear(&t(&[]), &t(&[5, 4]), None), "x has shape []"),
        (ops::linear(&t(&[2, 4]).to_dtype(DType::F64).unwrap(), &t(&[5, 4]), None), "w has type F32"),
        (ops::softmax(&t(&[])), "x has shape []"),
        (ops::softmax(&t(&[3, 0])), "x has shape [3, 0]"),
        (ops::layer_norm(&t(&[2, 3]), &t(&[2]), &t(&[3]), 1e-5), "weight has shape [2]"),
        (ops::rms_norm(&t(&[2, 3]), &t(&[2]), 1e-5), "weight has shape [2]"),
        (
            ops::batch_norm(&t(&[2, 4]), &t(&[4]), &t(&[4]), &running, 1e-5, Mode::Training),
            "running_mean has shape [3]",
        ),
        (ops::batch_norm(&t(&[1, 3]), &t(&[3]), &t(&[3]), &running, 1e-5, Mode::Training), "at least 2 values"),
        (ops::group_norm(&t(&[1, 3]), &t(&[3]), &t(&[3]), 2, 1e-5), "must divide the 3 channels"),
        (ops::cross_entropy(&t(&[2, 3]), &ids(&[0, 3]), 0.0, Reduction::Mean), "targets hold 3"),
        (ops::cross_entropy(&t(&[2, 3]), &ids(&[0]), 0.0, Reduction::Mean), "targets has shape [1]"),
        (ops::cross_entropy(&t(&[2, 3]), &ids(&[0, 1]), 2.0, Reduction::Mean), "label_smoothing is 2"),
        (ops::cross_entropy(&t(&[2, 3]), &t(&[2]), 0.0, Reduction::Mean), "must be U32"),
        (ops::cross_entropy(&t(&[0, 3]), &ids(&[]), 0.0, Reduction::Mean), "no rows"),
        (ops::attention(&q, &t(&[1, 2, 5, 2]), &t(&[1, 2, 5, 3]), Mask::None), "k has shape"),
        (ops::attention(&q, &t(&[1, 2, 3, 3]), &t(&[1, 2, 3, 3]), Mask::Causal), "causal mask needs"),
        (ops::attention(&q, &q, &q, Mask::Additive(&t(&[1, 1, 2, 4]))), "mask has shape [1, 1, 2, 4]"),
        (ops::self_attention(&t(&[1, 2, 12]), 5, Mask::None), "12 columns"),
        (ops::self_attention(&t(&[1, 2, 12]), 0, Mask::None), "12 columns"),
        (ops::conv2d(&t(&[1, 2, 5, 5]), &t(&[4, 3, 3, 3]), None, &conv), "do not fit 1 groups"),
        (ops::conv2d(&t(&[1, 3, 2, 5]), &t(&[4, 3, 3, 3]), None, &conv), "does not fit into 2 × 5"),
        (ops::conv2d(&t(&[1, 3, 5, 5]), &t(&[4, 3, 3, 3]), None, &Conv2d { stride: 0, ..conv }), "stride is 0"),
        (ops::conv2d(&t(&[1, 3, 5, 5]), &t(&[4, 3, 0, 3]), None, &conv), "does not fit"),
        (ops::embedding(&t(&[4, 2]), &ids(&[1, 4])), "ids hold 4"),
    ] {
        let message = result.unwrap_err().to_string();
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    }
}

#[test]
fn empty_batches_give_empty_results_and_zero_gradients() {
    let t = |shape: &[usize]| random("t", shape);
    check(&[t(&[0, 3]), t(&[3]), t(&[3])], |t| ops::layer_norm(&t[0], &t[1], &t[2], 1e-5));
    check(&[t(&[0, 3])], |t| ops::gelu(&t[0]));
    check(&[t(&[0, 3])], |t| ops::softmax(&t[0]));
    check(&[t(&[0, 2, 3, 3]), t(&[4, 2, 3, 3]), t(&[4])], |t| ops::conv2d(&t[0], &t[1], Some(&t[2]), &Conv2d::same(3)));
    check(&[t(&[0, 4, 3]), t(&[4]), t(&[4])], |t| ops::group_norm(&t[0], &t[1], &t[2], 2, 1e-5));
    let ids = Tensor::zeros(0, DType::U32, &Device::Cpu).unwrap();
    check(&[t(&[5, 3])], |t| ops::embedding(&t[0], &ids));
}

#[test]
fn gradients_of_a_parameter_used_in_several_ways_are_added_up() {
    let w = Var::from_tensor(&random("w", &[3, 3])).unwrap();
    let x = random("x", &[2, 3]);
    // Twice through a fused operation and once through one of candle's.
    let y = ops::linear(&ops::linear(&x, &w, None).unwrap(), &w, None).unwrap();
    let loss = (y.sum_all().unwrap() + w.sqr().unwrap().sum_all().unwrap()).unwrap();
    let (expected, got) = (loss.backward().unwrap(), ops::backward(&loss).unwrap());
    assert!(distance(got.get(&w).unwrap(), expected.get(&w).unwrap()) < 1e-15);
}
