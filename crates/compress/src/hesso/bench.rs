//! Steps of the optimiser beside the authors' library.

use super::base::Base;
use super::data::{digits_mlp, digits_samples};
use super::run::HessoPaper;
use super::space::{Inside, Space};
use super::train::{Training, judge};
use super::ways::{Pruning, Way};
use candle_core::{DType, Tensor};
use ndarray::{Array1, Array2};
use offprint_core::bench::{Agreement, Bench, Case};
use offprint_core::random::Streams;
use offprint_core::{Array, Result};
use offprint_nn::derivatives::Loss;
use offprint_nn::optim::SgdSettings;
use offprint_nn::train::{Epochs, Schedule};
use offprint_nn::{Batch, computation};
use serde_json::json;
use std::sync::Arc;

impl Bench for HessoPaper {
    fn cases(seed: u64) -> Result<Vec<Case>> {
        Ok(vec![
            case("training", Way::Full, "no group removed: what a step costs without pruning", seed)?,
            case("training-and-pruning", Way::Hesso, "HESSO at K = 0.7 in five periods", seed)?,
        ])
    }
}

fn rows(tensor: &Tensor) -> Result<Array2<f32>> {
    let shape = tensor.dims2().map_err(computation)?;
    let values = tensor.flatten_all().and_then(|t| t.to_vec1()).map_err(computation)?;
    Ok(Array2::from_shape_vec(shape, values).expect("as many values as the shape says"))
}

/// Ten epochs of the digits on the perceptron 64-128-128-10 by SGD with momentum, from the same weights over the same
/// batches. The answers are the number of zero groups and the share of the training samples that are told wrongly.
fn case(name: &'static str, way: Way, what: &str, seed: u64) -> Result<Case> {
    const EPOCHS: u64 = 10;
    let hidden = [128, 128];
    let data = digits_samples(true, DType::F32)?.train;
    let order = Streams::new(seed).stream("batches");
    let mut inputs: Vec<(&'static str, Array)> = Vec::new();
    let net = digits_mlp(&hidden, seed, DType::F32)?;
    for (name, file) in [("layers.0", "w0"), ("layers.1", "w1"), ("layers.2", "w2")] {
        let weight = net.params().get(&format!("{name}.weight")).expect("a layer of the perceptron");
        inputs.push((file, rows(weight)?.into()));
    }
    for (name, file) in [("layers.0", "b0"), ("layers.1", "b1"), ("layers.2", "b2")] {
        let bias = net.params().get(&format!("{name}.bias")).expect("a layer of the perceptron");
        inputs.push((file, bias.to_vec1::<f32>().map_err(computation)?.into()));
    }
    inputs.push(("x", rows(&data.inputs)?.into()));
    let classes: Vec<i64> = data.targets.to_vec1::<u32>().map_err(computation)?.into_iter().map(i64::from).collect();
    inputs.push(("classes", Array1::from_vec(classes).into()));
    // The samples of every batch in order: both sides see the same.
    let numbers = Tensor::arange(0, data.len() as u32, data.inputs.device()).map_err(computation)?;
    let epochs = Epochs::new(Batch { inputs: numbers.clone(), targets: numbers }, 32, order)?;
    let mut batches: Vec<i64> = Vec::new();
    for step in 0..EPOCHS * epochs.steps() {
        let batch = epochs.at(step)?.inputs.to_vec1::<u32>().map_err(computation)?;
        batches.extend(batch.into_iter().map(i64::from));
    }
    inputs.push(("batches", Array1::from_vec(batches).into()));
    let base = Base::Sgd(SgdSettings { learning_rate: 0.1, momentum: 0.9, ..SgdSettings::default() });
    let pruning = Pruning { way, ..Pruning::hesso(base, 0.7, Streams::new(seed).stream("chance")) };
    let steps = EPOCHS * epochs.steps();
    let (start, window) = pruning.window_of(steps);
    let settings = json!({
        "epochs": EPOCHS, "batch": 32, "rate": 0.1, "momentum": 0.9, "sparsity": 0.7,
        "start": start, "window": window, "periods": 5, "prune": way == Way::Hesso,
    });
    Ok(Case {
        name,
        says: format!("{steps} steps of a perceptron 64-128-128-10 on batches of 32, {what}"),
        inputs,
        settings,
        work: Box::new(move || {
            let net = digits_mlp(&hidden, seed, DType::F32)?;
            let space = Arc::new(Space::search(&net, Inside::Heads, &[])?);
            let training = Training {
                data: &data,
                loss: Loss::CrossEntropy,
                epochs: EPOCHS,
                batch: 32,
                schedule: Schedule::constant(),
                order,
            };
            let outcome = pruning.run(&net, &space, &training, &offprint_core::Progress::silent())?;
            let zero = outcome.removed.iter().filter(|&&removed| removed).count();
            let accuracy = judge(&net, &data, Loss::CrossEntropy)?.accuracy.unwrap_or(f64::NAN);
            // Different rounding sends two trainings apart: the count must be equal, the accuracy about so.
            Ok(vec![zero as f64, accuracy])
        }),
        agreement: Agreement::Within(0.05),
        goal: Some(0.2),
    })
}
