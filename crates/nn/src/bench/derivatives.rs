//! Derivatives of derivatives: the training of a physics-informed network, and a product with a Hessian.

use super::{STEPS, failed};
use crate::batch::Batch;
use crate::derivatives::{Loss, LossFunction};
use crate::models::{Activation, Mlp, MlpConfig};
use crate::ops;
use crate::optim::{Adam, AdamSettings, Optimizer};
use crate::params::{Params, Real, Weights};
use candle_core::{DType, Device, Tensor};
use ndarray::Array1;
use offprint_core::bench::{Agreement, Case};
use offprint_core::random::Streams;
use offprint_core::{Array, Result};
use rand::RngExt;
use serde_json::{Value, json};

/// Points at which the equation is asked for.
const POINTS: usize = 2048;

/// Training steps of a network u(x) of four hidden layers for `u″ + u (u² − 1) = sin 3x`.
pub fn pinn<T: Real>(name: &'static str, seed: u64) -> Result<Case>
where
    Array: From<Vec<T>>,
{
    let config = MlpConfig { widths: vec![1, 64, 64, 64, 64, 1], activation: Activation::Tanh };
    let weights = Weights::fresh(seed, T::DTYPE)?;
    let mlp = Mlp::new(&config, &weights)?;
    let params = weights.finish(&[])?;
    let mut rng = Streams::new(seed).stream("points").rng(0);
    let x: Vec<T> = (0..POINTS).map(|_| T::from_f64(rng.random_range(-3.0..3.0))).collect();
    let x_tensor = Tensor::from_slice(&x, (POINTS, 1), &Device::Cpu).map_err(failed)?;
    let settings = settings(&params, x_tensor.dims());
    let inputs = vec![("x", x.into()), ("parameters", params.flat::<T>()?.into())];
    let mut optimizer = Adam::new(params.vars(), AdamSettings::default()).map_err(failed)?;
    let mut step = move || -> candle_core::Result<f64> {
        let direction = x_tensor.ones_like()?.narrow(0, 0, 1)?;
        let jet = mlp.jet(&x_tensor, &direction)?;
        let (u, curvature) = (jet.value()?, jet.second(0)?);
        let source = (&x_tensor * 3.0)?.sin()?;
        let residual = ((curvature + u.mul(&(u.sqr()? - 1.0)?)?)? - source)?;
        let loss = residual.sqr()?.mean_all()?;
        optimizer.step(&ops::backward(&loss)?)?;
        loss.to_dtype(DType::F64)?.to_scalar()
    };
    Ok(Case {
        name,
        says: format!(
            "{STEPS} training steps with Adam: u'' by jets, network 1-64-64-64-64-1, {POINTS} points, {}",
            T::DTYPE.as_str()
        ),
        inputs,
        settings,
        work: Box::new(move || (0..STEPS).map(|_| step().map_err(failed)).collect()),
        agreement: Agreement::Within(1e-3),
        goal: Some(1.0),
    })
}

/// The Hessian of the MLP's loss times a vector.
pub fn hessian_product(seed: u64) -> Result<Case> {
    let config = MlpConfig { widths: vec![784, 512, 512, 10], activation: Activation::Tanh };
    let weights = Weights::fresh(seed, DType::F32)?;
    let mlp = Mlp::new(&config, &weights)?;
    let params = weights.finish(&[])?;
    let n = 128;
    let mut rng = Streams::new(seed).stream("hessian").rng(0);
    let mut uniform = |count: usize| -> Vec<f32> { (0..count).map(|_| rng.random_range(-1.0..1.0)).collect() };
    let (x, v) = (uniform(n * 784), uniform(params.count()));
    let targets: Vec<u32> = (0..n as u32).map(|i| i % 10).collect();
    let batch = Batch {
        inputs: Tensor::from_slice(&x, (n, 784), &Device::Cpu).map_err(failed)?,
        targets: Tensor::from_slice(&targets, n, &Device::Cpu).map_err(failed)?,
    };
    let inputs = vec![
        ("x", x.into()),
        ("targets", Array1::from_iter(targets.iter().map(|&t| i64::from(t))).into()),
        ("parameters", params.flat::<f32>()?.into()),
        ("v", v.clone().into()),
    ];
    Ok(Case {
        name: "hessian",
        says: "the Hessian times a vector: MLP 784-512-512-10 with tanh, batch of 128".into(),
        settings: settings(&params, batch.inputs.dims()),
        inputs,
        work: Box::new(move || {
            let loss = LossFunction::new(&params, |x| mlp.forward(x), Loss::CrossEntropy);
            let product = loss.hessian_product(&batch, &v)?;
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
            Ok(vec![dot(&product, &product).sqrt(), dot(&product, &v)])
        }),
        agreement: Agreement::Within(1e-3),
        goal: None,
    })
}

fn settings(params: &Params, input: &[usize]) -> Value {
    let shapes: Vec<_> = params.trained().iter().map(|p| p.var.dims()).collect();
    json!({ "shapes": shapes, "input": input, "steps": STEPS })
}
