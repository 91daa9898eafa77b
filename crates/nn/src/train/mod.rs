//! The training loop: batches in, steps of an optimiser, and everything that a long training needs around them.
//!
//! [`train`] takes a batch and a loss for each step by the step's number, so that a training which was stopped and goes on
//! from its checkpoint is bit for bit the one that was never stopped.

mod clip;
mod ema;
mod samples;
mod schedule;

pub use clip::clip_norm;
pub use ema::Ema;
pub use samples::{Crops, Epochs};
pub use schedule::{Decay, Schedule};

use crate::checkpoint::{Checkpoint, save};
use crate::error::computation;
use crate::ops;
use crate::optim::Optimizer;
use crate::params::Params;
use candle_core::{Device, Tensor};
use offprint_core::{Error, Progress, Result};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

/// How long to train, and how.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Number of steps.
    pub steps: u64,
    /// What becomes of the optimiser's learning rate over the steps.
    pub schedule: Schedule,
    /// Largest Euclidean norm of the gradient over all parameters; longer ones are shortened.
    pub clip: Option<f64>,
    /// Decay a step of the running mean of the weights, if one is kept.
    pub ema: Option<f64>,
    /// Where to keep the state.
    pub save: Option<Save>,
}

impl Plan {
    /// `steps` steps with `schedule`, nothing else.
    pub fn new(steps: u64, schedule: Schedule) -> Self {
        Self { steps, schedule, clip: None, ema: None, save: None }
    }
}

/// Where and when the state of a training is kept. A training that finds its file goes on from there.
#[derive(Debug, Clone)]
pub struct Save {
    /// A `.safetensors` file.
    pub path: PathBuf,
    /// Steps between two writes; also written at the end and when the user stops the run.
    pub every: u64,
    /// Says which training this is (model, data, seed): a file of another one is refused.
    pub key: String,
}

/// What a training leaves beside the weights.
#[derive(Debug, Clone)]
pub struct History {
    /// The loss before each step.
    pub losses: Vec<f64>,
    /// The running mean of the weights, if the plan asks for one.
    pub ema: Option<Ema>,
}

/// Trains `params` for the steps of `plan`. `loss` gives the scalar loss of step number `step`; it makes the batch from that
/// number ([`Epochs`], [`Crops`]) and nothing else.
///
/// Ends with an error at the first loss that is not finite, and with [`Error::Cancelled`] if the user stops it; the state
/// is saved then.
pub fn train(
    params: &Params,
    optimizer: &mut dyn Optimizer,
    plan: &Plan,
    progress: &Progress,
    mut loss: impl FnMut(u64) -> Result<Tensor>,
) -> Result<History> {
    let base_rate = optimizer.learning_rate();
    let ema = plan.ema.map(|decay| Ema::new(params, decay)).transpose()?;
    let mut history = History { losses: Vec::new(), ema };
    if let Some(save) = plan.save.as_ref().filter(|save| save.path.exists()) {
        resume(params, optimizer, save, &mut history)?;
    }
    progress.begin("training", plan.steps);
    progress.advance(history.losses.len() as u64)?;
    let (first, started) = (history.losses.len() as u64, Instant::now());
    for step in first..plan.steps {
        let rate = base_rate * plan.schedule.factor(step, plan.steps);
        let result = one_step(params, optimizer, plan, rate, step, &mut loss, &mut history);
        optimizer.set_learning_rate(base_rate);
        result?;
        let done = step + 1;
        if done.is_multiple_of(10) || done == plan.steps {
            let pace = (done - first) as f64 / started.elapsed().as_secs_f64().max(1e-9);
            progress.status(&format!("loss {:.4}, {pace:.1} steps/s", history.losses[step as usize]));
        }
        let stopped = progress.advance(1);
        if let Some(save) = &plan.save
            && (stopped.is_err() || done.is_multiple_of(save.every.max(1)) || done == plan.steps)
        {
            keep(params, optimizer, save, &history)?;
        }
        stopped?;
    }
    progress.finish();
    Ok(history)
}

fn one_step(
    params: &Params,
    optimizer: &mut dyn Optimizer,
    plan: &Plan,
    rate: f64,
    step: u64,
    loss: &mut impl FnMut(u64) -> Result<Tensor>,
    history: &mut History,
) -> Result<()> {
    let loss = loss(step)?;
    let value = loss.to_dtype(candle_core::DType::F64).and_then(|l| l.to_scalar::<f64>()).map_err(computation)?;
    if !value.is_finite() {
        return Err(Error::Numerical(format!(
            "training stopped at step {step} of {}: the loss is {value}. A smaller learning rate (it is {rate:e}) or \
             shorter gradients (clip) may help",
            plan.steps
        )));
    }
    let mut gradients = ops::backward(&loss).map_err(computation)?;
    if let Some(longest) = plan.clip {
        clip_norm(&mut gradients, params, longest)?;
    }
    optimizer.set_learning_rate(rate);
    optimizer.step(&gradients).map_err(computation)?;
    if let Some(ema) = &mut history.ema {
        ema.update(params)?;
    }
    history.losses.push(value);
    Ok(())
}

/// Prefixes of the names in a saved state.
const MODEL: &str = "model.";
const OPTIMIZER: &str = "optimizer.";
const EMA: &str = "ema.";
const LOSSES: &str = "losses";
const KEY: &str = "training";

fn keep(params: &Params, optimizer: &dyn Optimizer, to: &Save, history: &History) -> Result<()> {
    let mut tensors = Vec::new();
    let mut add = |prefix: &str, named: Vec<(String, Tensor)>| {
        tensors.extend(named.into_iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor)));
    };
    add(MODEL, params.snapshot()?);
    add(OPTIMIZER, optimizer.state().map_err(computation)?);
    if let Some(ema) = &history.ema {
        add(EMA, ema.weights().to_vec());
    }
    let losses = Tensor::from_slice(&history.losses, history.losses.len(), &Device::Cpu).map_err(computation)?;
    tensors.push((LOSSES.to_owned(), losses));
    save(&to.path, &tensors, &BTreeMap::from([(KEY.to_owned(), to.key.clone())]))
}

fn resume(params: &Params, optimizer: &mut dyn Optimizer, from: &Save, history: &mut History) -> Result<()> {
    let checkpoint = Checkpoint::open(&from.path)?;
    if checkpoint.word(KEY) != Some(from.key.as_str()) {
        return Err(Error::input(
            checkpoint.origin(),
            format!(
                "is the state of another training ({}), not of {}; give another file or remove it",
                checkpoint.word(KEY).unwrap_or("unnamed"),
                from.key
            ),
        ));
    }
    let optimizer_state = checkpoint
        .names()
        .filter_map(|name| name.strip_prefix(OPTIMIZER))
        .map(|name| Ok((name.to_owned(), checkpoint.stored(&format!("{OPTIMIZER}{name}"))?)))
        .collect::<Result<Vec<_>>>()?;
    let losses = checkpoint.stored(LOSSES)?.to_vec1::<f64>().map_err(computation)?;
    params.restore(&checkpoint, MODEL)?;
    optimizer.restore(&optimizer_state).map_err(computation)?;
    if let Some(ema) = &mut history.ema {
        ema.restore(&checkpoint, EMA)?;
    }
    history.losses = losses;
    Ok(())
}
