//! Steps of training, and the rounding of a large matrix, beside PyTorch.

use super::{Form, Lessons, Levels, Ofq, Precision, QuantisedViT, Training, stats_scales, to_levels};
use crate::examples::Example;
use candle_core::{Device, Tensor};
use ndarray::{Array1, Array2, ArrayD, IxDyn};
use offprint_core::bench::{Agreement, Bench, Case};
use offprint_core::random::{Stream, Streams};
use offprint_core::{Array, Progress, Result};
use offprint_nn::train::Epochs;
use offprint_nn::{Batch, computation};
use rand_distr::{Distribution, StandardNormal};
use serde_json::json;

/// Steps of a case.
const STEPS: usize = 8;
/// Images of a batch.
const BATCH: usize = 64;

impl Bench for Ofq {
    fn cases(seed: u64) -> Result<Vec<Case>> {
        let streams = Streams::new(seed);
        Ok(vec![
            training("train-plain", Form::Plain, streams.stream("bench"))?,
            training("train-qkr", Form::Qkr { keep_query_bias: false }, streams.stream("bench"))?,
            levels(streams.stream("bench levels")),
        ])
    }
}

fn array(tensor: &Tensor) -> Result<Array> {
    let values = tensor.flatten_all().and_then(|t| t.to_vec1::<f32>()).map_err(computation)?;
    Ok(Array::F32(ArrayD::from_shape_vec(IxDyn(tensor.dims()), values).expect("as the shape says")))
}

/// Eight steps of Adam on the transformer for digits, weights of two bits. Both sides see the same batches.
fn training(name: &'static str, form: Form, stream: Stream) -> Result<Case> {
    let subject = Example::DigitsVit.load()?;
    let samples = subject.train.narrow(0, STEPS * BATCH).map_err(computation)?;
    let numbers = Tensor::arange(0, (STEPS * BATCH) as u32, &Device::Cpu).map_err(computation)?;
    let order = Epochs::new(Batch { inputs: numbers.clone(), targets: numbers }, BATCH, stream)?;
    let order = (0..STEPS as u64).map(|step| Ok(order.at(step)?.inputs)).collect::<Result<Vec<_>>>()?;
    let seen = Tensor::cat(&order, 0).and_then(|order| samples.select(&order)).map_err(computation)?;
    let params = subject.network.params().snapshot()?;
    let flat: Vec<f32> = subject.network.params().flat()?;
    let shapes: Vec<_> = params.iter().map(|(name, tensor)| json!({ "name": name, "shape": tensor.dims() })).collect();
    let classes: Vec<i64> = seen.targets.to_vec1::<u32>().map_err(computation)?.into_iter().map(i64::from).collect();
    let precision = Precision { form, ..Precision::ofq(2, None) };
    let what = if form == Form::Plain { "plain attention" } else { "QKR" };
    Ok(Case {
        name,
        says: format!("{STEPS} training steps of batches of {BATCH}, two-bit weights by StatsQ, {what}"),
        inputs: vec![
            ("weights", Array1::from_vec(flat).into()),
            ("images", array(&seen.inputs)?),
            ("classes", Array::I64(Array1::from_vec(classes).into_dyn())),
        ],
        settings: json!({
            "params": shapes, "batch": BATCH, "heads": 2, "patch": 2, "bits": 2, "rate": 1e-3,
            "qkr": form != Form::Plain,
        }),
        work: {
            let lessons = Lessons::new(&samples, None)?;
            let network = subject.network;
            Box::new(move || {
                let network = QuantisedViT::new(&network, precision)?;
                let training = Training { epochs: 1, batch: BATCH, ..Training::default() };
                Ok(network.train(&lessons, &training, stream, &Progress::silent())?.losses)
            })
        },
        // A weight that one side's rounding puts beyond a boundary changes the loss a little.
        agreement: Agreement::Within(3e-2),
        goal: Some(0.5),
    })
}

/// StatsQ of one large matrix.
fn levels(stream: Stream) -> Case {
    let mut rng = stream.rng(0);
    let size = 2048;
    let weights = Array2::from_shape_fn((size, size), |_| Distribution::<f32>::sample(&StandardNormal, &mut rng));
    Case {
        name: "levels",
        says: format!("StatsQ's scales and two-bit values of a {size} × {size} matrix"),
        inputs: vec![("weights", weights.clone().into())],
        settings: json!({ "bits": 2 }),
        work: Box::new(move || {
            let flat = weights.as_slice().expect("in C order");
            let values = to_levels(flat, size, Levels::Halves { bits: 2 }, &stats_scales(flat, size));
            Ok(vec![
                f64::from(values[0]),
                f64::from(values[size * size - 1]),
                f64::from(values.iter().sum::<f32>()) / 1e3,
            ])
        }),
        agreement: Agreement::Within(1e-2),
        goal: Some(0.5),
    }
}
