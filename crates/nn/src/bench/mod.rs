//! Training steps and inference of common networks, timed beside PyTorch: `peers/nn.py` does the same work from the
//! same parameters.
//!
//! A training step is a forward pass, a backward pass and a step of Adam. One piece of work is [`STEPS`] of them, and
//! its answer their losses: after the first step these depend on every gradient.

mod derivatives;

use crate::ops::{self, Activation, Conv2d, Mask, Mode, Reduction, RunningStatistics};
use crate::optim::{Adam, AdamSettings, Optimizer};
use candle_core::{DType, Device, Tensor, Var};
use ndarray::Array1;
use offprint_core::bench::{Agreement, Case};
use offprint_core::random::Streams;
use offprint_core::{Array, Error, Result};
use rand::RngExt;
use serde_json::json;

/// Training steps in one piece of work.
pub const STEPS: usize = 3;

/// The workloads, with inputs and parameters drawn from `seed`.
pub fn cases(seed: u64) -> Result<Vec<Case>> {
    let streams = Streams::new(seed);
    Ok(vec![
        training("mlp", "MLP 784-512-512-10, batch of 128", 1.0, &MLP, &streams)?,
        training("transformer", "4 layers, d 256, 8 heads, 128 tokens, batch of 16", 0.95, &TRANSFORMER, &streams)?,
        training("convnet", "3 stages of 16, 32, 64 channels, 32 × 32, batch of 64", 1.1, &CONVNET, &streams)?,
        inference(&streams)?,
        derivatives::pinn::<f32>("pinn-f32", seed)?,
        derivatives::pinn::<f64>("pinn-f64", seed)?,
        derivatives::hessian_product(seed)?,
    ])
}

/// A network: its parameters in order, the shape and kind of its input, and its loss.
struct Network {
    parameters: fn() -> Vec<Spec>,
    /// Shape of the input, and the number of kinds of token, or 0 for real numbers.
    input: (&'static [usize], u32),
    /// Number of targets, and of classes.
    targets: (usize, u32),
    logits: fn(&Parameters<'_>, &Tensor) -> candle_core::Result<Tensor>,
}

/// A parameter: shape, and the bound of its uniform initial values around a centre.
struct Spec {
    shape: Vec<usize>,
    centre: f64,
    bound: f64,
}

/// A network's parameters, taken one after the other.
struct Parameters<'a> {
    all: &'a [Tensor],
    next: std::cell::Cell<usize>,
}

impl<'a> Parameters<'a> {
    fn new(all: &'a [Tensor]) -> Self {
        Self { all, next: 0.into() }
    }

    fn next(&self) -> &'a Tensor {
        let at = self.next.get();
        self.next.set(at + 1);
        &self.all[at]
    }

    fn linear(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let (w, b) = (self.next(), self.next());
        ops::linear(x, w, Some(b))
    }

    fn activated(&self, x: &Tensor, activation: Activation) -> candle_core::Result<Tensor> {
        let (w, b) = (self.next(), self.next());
        ops::linear_activated(x, w, Some(b), activation)
    }

    fn layer_norm(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let (w, b) = (self.next(), self.next());
        ops::layer_norm(x, w, b, 1e-5)
    }
}

fn weight(shape: &[usize]) -> Spec {
    let fan_in: usize = shape[1..].iter().product();
    Spec { shape: shape.to_vec(), centre: 0.0, bound: 1.0 / (fan_in as f64).sqrt() }
}

fn linear(outputs: usize, inputs: usize) -> [Spec; 2] {
    [weight(&[outputs, inputs]), Spec { shape: vec![outputs], centre: 0.0, bound: 1.0 / (inputs as f64).sqrt() }]
}

/// Scales around 1 and shifts around 0, none of them trivial.
fn norm(width: usize) -> [Spec; 2] {
    [1.0, 0.0].map(|centre| Spec { shape: vec![width], centre, bound: 0.1 })
}

const MLP: Network = Network {
    parameters: || [linear(512, 784), linear(512, 512), linear(10, 512)].into_iter().flatten().collect(),
    input: (&[128, 784], 0),
    targets: (128, 10),
    logits: |p, x| {
        let h = p.activated(x, Activation::Relu)?;
        p.linear(&p.activated(&h, Activation::Relu)?)
    },
};

const TOKENS: usize = 256;
const WIDTH: usize = 256;
const ROWS: usize = 128;
const HEADS: usize = 8;
const LAYERS: usize = 4;

const TRANSFORMER: Network = Network {
    parameters: || {
        let table = |rows| Spec { shape: vec![rows, WIDTH], centre: 0.0, bound: 0.1 };
        let mut all = vec![table(TOKENS), table(ROWS)];
        for _ in 0..LAYERS {
            all.extend(norm(WIDTH));
            all.extend(linear(3 * WIDTH, WIDTH));
            all.extend(linear(WIDTH, WIDTH));
            all.extend(norm(WIDTH));
            all.extend(linear(4 * WIDTH, WIDTH));
            all.extend(linear(WIDTH, 4 * WIDTH));
        }
        all.extend(norm(WIDTH));
        all.extend(linear(TOKENS, WIDTH));
        all
    },
    input: (&[16, ROWS], TOKENS as u32),
    targets: (16 * ROWS, TOKENS as u32),
    logits: |p, tokens| {
        let (table, positions) = (p.next(), p.next());
        let mut x = ops::embedding(table, tokens)?.broadcast_add(positions)?;
        for _ in 0..LAYERS {
            let qkv = p.linear(&p.layer_norm(&x)?)?;
            x = (x + p.linear(&ops::self_attention(&qkv, HEADS, Mask::Causal)?)?)?;
            let h = p.activated(&p.layer_norm(&x)?, Activation::Gelu)?;
            x = (x + p.linear(&h)?)?;
        }
        p.linear(&p.layer_norm(&x)?)?.flatten_to(1)
    },
};

/// Convolutions of the ConvNet: channels in, out and stride.
const CONVOLUTIONS: [(usize, usize, usize); 6] =
    [(3, 16, 1), (16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1)];

const CONVNET: Network = Network {
    parameters: || {
        let stage = |&(inputs, outputs, _): &(usize, usize, usize)| {
            let [scale, shift] = norm(outputs);
            [weight(&[outputs, inputs, 3, 3]), scale, shift]
        };
        CONVOLUTIONS.iter().flat_map(stage).chain(linear(10, 64)).collect()
    },
    input: (&[64, 3, 32, 32], 0),
    targets: (64, 10),
    logits: |p, x| {
        let mut x = x.clone();
        for (_, outputs, stride) in CONVOLUTIONS {
            let y = ops::conv2d(&x, p.next(), None, &Conv2d { stride, ..Conv2d::same(3) })?;
            let running = RunningStatistics::new(outputs, DType::F32, &Device::Cpu)?;
            x = ops::batch_norm_relu(&y, p.next(), p.next(), &running, 1e-5, Mode::Training)?;
        }
        p.linear(&x.flatten_from(2)?.mean(2)?)
    },
};

/// What both sides read, and the same as tensors.
struct Inputs {
    arrays: Vec<(&'static str, Array)>,
    x: Tensor,
    targets: Tensor,
    parameters: Vec<Tensor>,
}

fn draw(network: &Network, batch: Option<usize>, streams: &Streams) -> Result<Inputs> {
    let mut shape = network.input.0.to_vec();
    shape[0] = batch.unwrap_or(shape[0]);
    let count: usize = shape.iter().product();
    let mut rng = streams.stream("input").rng(0);
    let mut numbers = |count: usize, kinds: u32| (0..count).map(|_| rng.random_range(0..kinds)).collect::<Vec<u32>>();
    let wide = |numbers: &[u32]| Array1::from_iter(numbers.iter().map(|&n| i64::from(n)));
    let (x, x_array) = match network.input.1 {
        0 => {
            let mut rng = streams.stream("features").rng(0);
            let x: Vec<f32> = (0..count).map(|_| rng.random_range(-1.0..1.0)).collect();
            (Tensor::new(x.as_slice(), &Device::Cpu), Array::from(x))
        }
        kinds => {
            let tokens = numbers(count, kinds);
            (Tensor::new(tokens.as_slice(), &Device::Cpu), Array::from(wide(&tokens)))
        }
    };
    let targets = numbers(network.targets.0, network.targets.1);

    let mut rng = streams.stream("parameters").rng(0);
    let (mut flat, mut parameters) = (Vec::new(), Vec::new());
    for Spec { shape, centre, bound } in (network.parameters)() {
        let draw = |_| (centre + bound * rng.random_range(-1.0..1.0)) as f32;
        let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(draw).collect();
        flat.extend_from_slice(&values);
        parameters.push(Tensor::from_vec(values, shape, &Device::Cpu).map_err(failed)?);
    }
    Ok(Inputs {
        x: x.and_then(|x| x.reshape(shape)).map_err(failed)?,
        arrays: vec![("x", x_array), ("targets", wide(&targets).into()), ("parameters", flat.into())],
        targets: Tensor::new(targets, &Device::Cpu).map_err(failed)?,
        parameters,
    })
}

fn failed(error: candle_core::Error) -> Error {
    Error::Numerical(error.to_string())
}

/// The settings of a case: how to cut the flat parameters, and the input's shape.
fn settings(network: &Network, x: &Tensor) -> serde_json::Value {
    let shapes: Vec<Vec<usize>> = (network.parameters)().into_iter().map(|spec| spec.shape).collect();
    json!({ "shapes": shapes, "input": x.dims(), "steps": STEPS, "heads": HEADS, "layers": LAYERS })
}

fn training(name: &'static str, size: &str, goal: f64, network: &'static Network, streams: &Streams) -> Result<Case> {
    let inputs = draw(network, None, streams)?;
    let settings = settings(network, &inputs.x);
    let mut trainer = Trainer::new(network, &inputs).map_err(failed)?;
    Ok(Case {
        name,
        says: format!("{STEPS} training steps with Adam: {size}"),
        inputs: inputs.arrays,
        settings,
        work: Box::new(move || (0..STEPS).map(|_| trainer.step().map_err(failed)).collect()),
        agreement: Agreement::Within(1e-3),
        goal: Some(goal),
    })
}

/// A network in training.
struct Trainer {
    network: &'static Network,
    x: Tensor,
    targets: Tensor,
    parameters: Vec<Tensor>,
    optimizer: Adam,
}

impl Trainer {
    fn new(network: &'static Network, inputs: &Inputs) -> candle_core::Result<Self> {
        let vars = inputs.parameters.iter().map(Var::from_tensor).collect::<candle_core::Result<Vec<_>>>()?;
        let parameters = vars.iter().map(|v| v.as_tensor().clone()).collect();
        let named = vars.into_iter().enumerate().map(|(i, v)| (i.to_string(), v));
        let optimizer = Adam::new(named, AdamSettings::default())?;
        Ok(Self { network, x: inputs.x.clone(), targets: inputs.targets.clone(), parameters, optimizer })
    }

    /// One training step; the loss before it.
    fn step(&mut self) -> candle_core::Result<f64> {
        let logits = (self.network.logits)(&Parameters::new(&self.parameters), &self.x)?;
        let loss = ops::cross_entropy(&logits, &self.targets, 0.0, Reduction::Mean)?;
        self.optimizer.step(&ops::backward(&loss)?)?;
        Ok(f64::from(loss.to_scalar::<f32>()?))
    }
}

fn inference(streams: &Streams) -> Result<Case> {
    let inputs = draw(&TRANSFORMER, Some(1), streams)?;
    let (x, parameters) = (inputs.x, inputs.parameters);
    Ok(Case {
        name: "inference",
        says: "4 layers, d 256, 8 heads, 128 tokens, batch of 1, no gradients".into(),
        settings: settings(&TRANSFORMER, &x),
        inputs: inputs.arrays,
        work: Box::new(move || {
            let logits = (TRANSFORMER.logits)(&Parameters::new(&parameters), &x).map_err(failed)?;
            let last = logits.get(ROWS - 1).and_then(|row| row.to_vec1::<f32>()).map_err(failed)?;
            Ok(last[..8].iter().map(|&logit| f64::from(logit)).collect())
        }),
        agreement: Agreement::Within(1e-4),
        goal: Some(0.75),
    })
}
