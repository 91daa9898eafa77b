//! One layer's calibration beside the same steps in PyTorch, and the integer programme beside PuLP with CBC.

use super::AdaQuant;
use super::layer::{Bits, FloatLayer, Pairs, Settings, calibrate_layer};
use crate::allocate::{Candidate, Solver};
use crate::calibration::record;
use crate::examples::Example;
use crate::model::{fold_batch_norms, pick};
use candle_core::{DType, Tensor};
use ndarray::{Array2, Array4};
use offprint_core::bench::{Agreement, Bench, Case};
use offprint_core::random::Streams;
use offprint_core::{Array, Error, Progress, Result};
use offprint_nn::computation;
use rand::RngExt;
use serde_json::json;

/// Images of the layer's calibration.
const IMAGES: u32 = 256;
/// Its steps.
const STEPS: usize = 100;

fn images(tensor: &Tensor) -> Result<Array> {
    let flat = tensor.flatten_all().and_then(|t| t.to_vec1::<f32>()).map_err(computation)?;
    let shape = tensor.dims4().map_err(computation)?;
    Ok(Array4::from_shape_vec(shape, flat).map_err(|e| Error::Numerical(e.to_string()))?.into())
}

impl Bench for AdaQuant {
    fn cases(seed: u64) -> Result<Vec<Case>> {
        Ok(vec![layer(seed)?, programme(seed)])
    }
}

fn layer(seed: u64) -> Result<Case> {
    let subject = Example::DigitsCnn.load()?;
    let (folded, _) = fold_batch_norms(&subject.network)?;
    let samples = pick(&subject.train, &(0..IMAGES).collect::<Vec<_>>())?.inputs;
    let place = folded.layers()?.into_iter().find(|place| place.name == "conv4");
    let place = place.ok_or_else(|| Error::input("model", "has no layer \"conv4\""))?;
    let (inputs, outputs) = record(&folded, &place.weight, &samples, None)?;
    let weight = folded.params().get(&place.weight).expect("the layer's weight").as_detached_tensor();
    let named = vec![("weight", images(&weight)?), ("x", images(&inputs)?), ("y", images(&outputs)?)];
    let bias = Tensor::zeros(place.outputs(), DType::F32, weight.device()).map_err(computation)?;
    let stream = Streams::new(seed).stream("bench");
    let settings = Settings { steps: STEPS, ..Settings::default() };
    let pairs = Pairs { inputs, outputs };
    Ok(Case {
        name: "layer",
        says: format!(
            "conv4 of digits-cnn (64 × 288) at 4-bit weights and inputs, {IMAGES} images, {STEPS} steps of batches of 50; \
             compared by the root of the error on held-out images"
        ),
        inputs: named,
        settings: json!({ "steps": STEPS, "batch": settings.batch, "bits": 4, "stride": 2, "padding": 1 }),
        work: Box::new(move || {
            let bits = Bits { weight: 4, input: Some(4) };
            let quiet = Progress::silent();
            let layer = calibrate_layer(
                FloatLayer { place: &place, weight: &weight, bias: Some(&bias) },
                &pairs,
                bits,
                &settings,
                stream,
                &quiet,
            )?;
            Ok(vec![layer.held_out.expect("a fifth is held out").1.sqrt()])
        }),
        // Other draws of batches end at other places: a tenth of the error's root, which is below 1.
        agreement: Agreement::AtMost(0.03),
        goal: Some(1.0),
    })
}

fn programme(seed: u64) -> Case {
    // Fifty layers of 10³ to 10⁶ weights at 8, 4 and 2 bits, whose losses grow as 4^−bits times a random sensitivity.
    let mut rng = Streams::new(seed).stream("bench programme").rng(0);
    let layers: Vec<(u64, f64)> = (0..50)
        .map(|_| (10f64.powf(rng.random_range(3.0..6.0)) as u64, 10f64.powf(rng.random_range(-3.0..0.0))))
        .collect();
    let option = |&(weights, sensitivity): &(u64, f64), bits: i32| {
        let cost = if bits == 8 { 0.0 } else { sensitivity * 4f64.powi(-bits) };
        Candidate { cost, size: weights * bits as u64 }
    };
    let options: Vec<Vec<Candidate>> = layers.iter().map(|l| [8, 4, 2].map(|bits| option(l, bits)).to_vec()).collect();
    let budget = layers.iter().map(|(weights, _)| weights * 32).sum::<u64>() * 13 / 100;
    let table = |of: fn(&Candidate) -> f64| Array2::from_shape_fn((50, 3), |(i, j)| of(&options[i][j]));
    let inputs = vec![("costs", table(|c| c.cost).into()), ("sizes", table(|c| c.size as f64).into())];
    Case {
        name: "programme",
        says: "50 layers at 8, 4 or 2 bits within 13 % of their float size; compared by the total loss".into(),
        inputs,
        settings: json!({ "budget": budget }),
        work: Box::new(move || Ok(vec![Solver::Exact.solve(&options, budget)?.cost])),
        agreement: Agreement::Within(1e-6),
        goal: None,
    }
}
