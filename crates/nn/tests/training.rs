//! The training loop: resuming, stopping, learning.

use candle_core::{DType, Tensor};
use offprint_core::random::Streams;
use offprint_core::{Cancel, Error, Observer, Progress, Scale};
use offprint_nn::data::{digits, two_moons};
use offprint_nn::models::{Activation, Mlp, MlpConfig};
use offprint_nn::ops::{Reduction, cross_entropy};
use offprint_nn::optim::{Adam, AdamSettings, Sgd, SgdSettings};
use offprint_nn::train::{Epochs, History, Plan, Save, Schedule, train};
use offprint_nn::zoo::Zoo;
use offprint_nn::{Batch, Params, Weights, computation};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

fn moons() -> Batch {
    let (points, moons) = two_moons(200, 0.1, Streams::new(1).stream("moons"));
    let n = moons.len();
    let inputs = Tensor::from_vec(points.into_raw_vec_and_offset().0, (n, 2), &candle_core::Device::Cpu).unwrap();
    Batch { inputs, targets: Tensor::from_vec(moons, n, &candle_core::Device::Cpu).unwrap() }
}

fn model() -> (Mlp, Params) {
    let weights = Weights::fresh(7, DType::F64).unwrap();
    let mlp = Mlp::new(&MlpConfig { widths: vec![2, 16, 2], activation: Activation::Tanh }, &weights).unwrap();
    (mlp, weights.finish(&[]).unwrap())
}

fn plan(steps: u64, path: Option<&Path>) -> Plan {
    Plan {
        clip: Some(1.0),
        ema: Some(0.9),
        save: path.map(|path| Save { path: path.to_owned(), every: 1000, key: "moons".into() }),
        ..Plan::new(steps, Schedule::cosine().with_warmup(5))
    }
}

fn run(plan: &Plan, progress: &Progress, rate: f64) -> (Params, offprint_core::Result<History>) {
    let (mlp, params) = model();
    let mut adam = Adam::new(params.vars(), AdamSettings { learning_rate: rate, ..AdamSettings::adamw() }).unwrap();
    let epochs = Epochs::new(moons(), 32, Streams::new(3).stream("batches")).unwrap();
    let history = train(&params, &mut adam, plan, progress, |step| {
        let batch = epochs.at(step)?;
        mlp.forward(&batch.inputs)
            .and_then(|logits| cross_entropy(&logits, &batch.targets, 0.0, Reduction::Mean))
            .map_err(computation)
    });
    (params, history)
}

/// Stops the run after so many steps, as a user would.
struct StopAfter {
    left: AtomicU64,
    cancel: Cancel,
}

impl Observer for StopAfter {
    fn begin(&self, _: &str, _: Option<u64>) {}
    fn advance(&self, steps: u64) {
        if steps > 0 && self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.cancel.cancel();
        }
    }
    fn status(&self, _: &str) {}
    fn warn(&self, _: &str) {}
    fn finish(&self) {}
}

fn stop_after(steps: u64) -> Progress {
    let cancel = Cancel::default();
    Progress::new(Arc::new(StopAfter { left: AtomicU64::new(steps), cancel: cancel.clone() }), cancel)
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn a_stopped_training_goes_on_bit_for_bit() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.safetensors");
    let (whole, whole_history) = run(&plan(40, None), &Progress::silent(), 0.05);
    let whole_history = whole_history.unwrap();

    let (stopped, history) = run(&plan(40, Some(&path)), &stop_after(17), 0.05);
    assert!(matches!(history, Err(Error::Cancelled)));
    assert_ne!(stopped.flat::<f64>().unwrap(), whole.flat::<f64>().unwrap());

    let (resumed, history) = run(&plan(40, Some(&path)), &Progress::silent(), 0.05);
    let history = history.unwrap();
    assert_eq!(bits(&resumed.flat::<f64>().unwrap()), bits(&whole.flat::<f64>().unwrap()));
    assert_eq!(bits(&history.losses), bits(&whole_history.losses));
    let mean = |h: &History| -> Vec<Vec<f64>> {
        let weights = h.ema.as_ref().unwrap().weights();
        weights.iter().map(|(_, t)| t.flatten_all().unwrap().to_vec1().unwrap()).collect()
    };
    assert_eq!(mean(&history), mean(&whole_history));
    assert!(history.losses[39] < 0.5 * history.losses[0]);

    // Finished: nothing is left to do, and the weights are there.
    let (again, history) = run(&plan(40, Some(&path)), &Progress::silent(), 0.05);
    assert_eq!(history.unwrap().losses.len(), 40);
    assert_eq!(bits(&again.flat::<f64>().unwrap()), bits(&whole.flat::<f64>().unwrap()));
}

#[test]
fn the_state_of_another_training_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.safetensors");
    run(&plan(2, Some(&path)), &Progress::silent(), 0.05).1.unwrap();
    let mut other = plan(2, Some(&path));
    other.save.as_mut().unwrap().key = "circles".into();
    let error = run(&other, &Progress::silent(), 0.05).1.unwrap_err().to_string();
    assert!(error.contains("another training (moons), not of circles"), "{error}");
}

#[test]
fn a_loss_that_is_not_finite_ends_the_training_with_a_word() {
    let mut plan = plan(200, None);
    plan.clip = None;
    let error = run(&plan, &Progress::silent(), 1e308).1.unwrap_err().to_string();
    assert!(error.starts_with("training stopped at step") && error.contains("learning rate"), "{error}");
}

#[test]
fn a_small_network_learns_the_digits() {
    // The set-up of the pruning study of M-FAC (64-128-64-10, SGD 0.1 with momentum 0.9, batches of 64), ten epochs
    // instead of sixty; a linear classifier reaches 0.95 on this data.
    let digits = digits(DType::F32).unwrap();
    let flat = |b: &Batch| Batch { inputs: b.inputs.flatten_from(1).unwrap(), targets: b.targets.clone() };
    let weights = Weights::fresh(0, DType::F32).unwrap();
    let config = MlpConfig { widths: vec![64, 128, 64, 10], activation: Activation::Relu };
    let mlp = Mlp::new(&config, &weights).unwrap();
    let params = weights.finish(&[]).unwrap();
    let settings = SgdSettings { learning_rate: 0.1, momentum: 0.9, weight_decay: 1e-4, ..SgdSettings::default() };
    let mut sgd = Sgd::new(params.vars(), settings).unwrap();
    let epochs = Epochs::new(flat(&digits.train), 64, Streams::new(0).stream("batches")).unwrap();
    let plan = Plan::new(10 * epochs.steps(), Schedule::cosine());
    train(&params, &mut sgd, &plan, &Progress::silent(), |step| {
        let batch = epochs.at(step)?;
        mlp.forward(&batch.inputs)
            .and_then(|logits| cross_entropy(&logits, &batch.targets, 0.0, Reduction::Mean))
            .map_err(computation)
    })
    .unwrap();
    let test = flat(&digits.test);
    let predicted = mlp.forward(&test.inputs).unwrap().argmax(1).unwrap().to_vec1::<u32>().unwrap();
    let right = predicted.iter().zip(test.targets.to_vec1::<u32>().unwrap()).filter(|(p, t)| **p == *t).count();
    assert!(right >= 475, "{right} of 500");
}

#[test]
fn the_zoo_trains_once_and_then_takes_from_its_directory() {
    let directory = tempfile::tempdir().unwrap();
    let zoo = Zoo::new(0, Scale::Quick).cached_in(directory.path().join("models"));
    let trained = zoo.digits_cnn(&Progress::silent()).unwrap();
    // Five epochs of the twenty-five; the whole training reaches 0.99.
    assert!(trained.quality >= 0.96, "{}", trained.quality);
    let kept = zoo.digits_cnn(&stop_after(1)).unwrap();
    assert_eq!(kept.quality, trained.quality);
    assert_eq!(kept.params.flat::<f32>().unwrap(), trained.params.flat::<f32>().unwrap());
    let again = Zoo::new(0, Scale::Quick).digits_cnn(&Progress::silent()).unwrap();
    assert_eq!(again.params.flat::<f32>().unwrap(), trained.params.flat::<f32>().unwrap());
}
