//! Small trained models that papers start from: made here, deterministic by seed, kept in a directory of the caller's.

use crate::batch::Batch;
use crate::checkpoint::{Checkpoint, save};
use crate::data::{Characters, digits};
use crate::error::computation;
use crate::models::{DigitsCnn, Gpt, GptConfig, ViT, ViTConfig};
use crate::ops::{Mode, Reduction, cross_entropy};
use crate::optim::{Adam, AdamSettings};
use crate::params::{Params, Weights};
use crate::train::{Crops, Epochs, Plan, Schedule, train};
use candle_core::{DType, Tensor};
use offprint_core::random::Streams;
use offprint_core::{Error, Progress, Result, Scale};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A trained model, in evaluation on data that it was not trained on.
#[derive(Debug)]
pub struct Trained<M> {
    /// The model.
    pub model: M,
    /// Its parameters.
    pub params: Params,
    /// Share of right answers on the test set for classifiers, perplexity a character for language models.
    pub quality: f64,
}

/// Where trained models come from.
#[derive(Debug, Clone)]
pub struct Zoo {
    seed: u64,
    scale: Scale,
    cache: Option<PathBuf>,
}

impl Zoo {
    /// Models of `seed`. At [`Scale::Quick`] a fifth of the steps, for tests; otherwise all of them.
    pub fn new(seed: u64, scale: Scale) -> Self {
        Self { seed, scale, cache: None }
    }

    /// Keeps trained weights in `directory`, and takes them from there the next time.
    #[must_use]
    pub fn cached_in(self, directory: impl Into<PathBuf>) -> Self {
        Self { cache: Some(directory.into()), ..self }
    }

    /// `digits-cnn`: [`DigitsCnn`] on the digits. Adam with rate 2·10⁻³ on a cosine, weight decay 10⁻⁴, 25 epochs of
    /// batches of 64.
    pub fn digits_cnn(&self, progress: &Progress) -> Result<Trained<DigitsCnn>> {
        self.classifier(
            "digits-cnn",
            25,
            AdamSettings { learning_rate: 2e-3, weight_decay: 1e-4, ..AdamSettings::default() },
            progress,
            |weights| DigitsCnn::new(10, weights),
            |model, x, mode| model.forward(x, mode),
        )
    }

    /// `digits-vit`: [`ViT`] with 16 tokens on the digits. AdamW with rate 2·10⁻³ on a cosine, 40 epochs of batches of 64.
    pub fn digits_vit(&self, progress: &Progress) -> Result<Trained<ViT>> {
        self.classifier(
            "digits-vit",
            40,
            AdamSettings { learning_rate: 2e-3, ..AdamSettings::adamw() },
            progress,
            |weights| ViT::new(&ViTConfig::digits(), weights),
            |model, x, _| model.forward(x),
        )
    }

    /// `char-lm`: a two-layer [`Gpt`] over the characters of Hamlet and Macbeth, the last tenth kept for testing. AdamW
    /// with rate 5·10⁻³ on a cosine after 50 steps of warm-up, 700 steps of 64 stretches of 64 characters: perplexity 6.2 a
    /// character (seed 0).
    pub fn char_lm(&self, progress: &Progress) -> Result<(Trained<Gpt>, Characters)> {
        let text = offprint_data::text();
        let characters = Characters::of(text);
        let config = GptConfig::characters(characters.count());
        let tokens = characters.encode(text)?;
        let (train_tokens, test_tokens) = tokens.split_at(tokens.len() / 10 * 9);
        let steps = self.share_of(700);
        let trained = self.trained(
            "char-lm",
            |weights| Gpt::new(&config, weights),
            |gpt, params| {
                let streams = Streams::new(self.seed);
                let crops = Crops::new(train_tokens.to_vec(), config.context, 64, streams.stream("crops"))?;
                let settings = AdamSettings { learning_rate: 5e-3, ..AdamSettings::adamw() };
                let mut adam = Adam::new(params.vars(), settings).map_err(computation)?;
                let plan = Plan { clip: Some(1.0), ..Plan::new(steps, Schedule::cosine().with_warmup(steps.min(50))) };
                train(params, &mut adam, &plan, progress, |step| {
                    let batch = crops.at(step)?;
                    token_loss(gpt, &batch).map_err(computation)
                })?;
                let held_out = Crops::new(test_tokens.to_vec(), config.context, 1, streams.stream("unused"))?.all()?;
                let mut total = 0.0;
                for part in held_out.chunks(32) {
                    let part = part.map_err(computation)?;
                    let loss = token_loss(gpt, &part).and_then(|l| l.to_scalar::<f32>()).map_err(computation)?;
                    total += f64::from(loss) * part.len() as f64;
                }
                Ok((total / held_out.len() as f64).exp())
            },
        )?;
        Ok((trained, characters))
    }

    fn classifier<M>(
        &self,
        name: &str,
        epochs: u64,
        settings: AdamSettings,
        progress: &Progress,
        make: impl FnOnce(&Weights) -> Result<M>,
        forward: impl Fn(&M, &Tensor, Mode) -> candle_core::Result<Tensor>,
    ) -> Result<Trained<M>> {
        self.trained(name, make, |model, params| {
            let digits = digits(DType::F32)?;
            let epoch = Epochs::new(digits.train, 64, Streams::new(self.seed).stream("batches"))?;
            let mut adam = Adam::new(params.vars(), settings).map_err(computation)?;
            let plan = Plan::new(self.share_of(epochs) * epoch.steps(), Schedule::cosine());
            train(params, &mut adam, &plan, progress, |step| {
                let batch = epoch.at(step)?;
                forward(model, &batch.inputs, Mode::Training)
                    .and_then(|logits| cross_entropy(&logits, &batch.targets, 0.0, Reduction::Mean))
                    .map_err(computation)
            })?;
            let logits = forward(model, &digits.test.inputs, Mode::Evaluation).map_err(computation)?;
            accuracy(&logits, &digits.test.targets)
        })
    }

    fn share_of(&self, all: u64) -> u64 {
        if self.scale == Scale::Quick { all.div_ceil(5) } else { all }
    }

    /// The model from the cache, or `fit` and kept there.
    fn trained<M>(
        &self,
        name: &str,
        make: impl FnOnce(&Weights) -> Result<M>,
        fit: impl FnOnce(&M, &Params) -> Result<f64>,
    ) -> Result<Trained<M>> {
        let quick = if self.scale == Scale::Quick { "-quick" } else { "" };
        let path =
            self.cache.as_ref().map(|directory| directory.join(format!("{name}-{}{quick}.safetensors", self.seed)));
        if let Some(kept) = path.as_deref().filter(|path| path.exists()) {
            return load(kept, make);
        }
        let weights = Weights::fresh(self.seed, DType::F32)?;
        let model = make(&weights)?;
        let params = weights.finish(&[])?;
        let quality = fit(&model, &params)?;
        if let Some(path) = &path {
            let directory = path.parent().expect("joined to a directory");
            std::fs::create_dir_all(directory).map_err(|e| Error::file("create", directory, e))?;
            save(path, &params.snapshot()?, &BTreeMap::from([(QUALITY.to_owned(), quality.to_string())]))?;
        }
        Ok(Trained { model, params, quality })
    }
}

/// The word beside the weights that tells their quality.
const QUALITY: &str = "quality";

fn load<M>(path: &Path, make: impl FnOnce(&Weights) -> Result<M>) -> Result<Trained<M>> {
    let checkpoint = Checkpoint::open(path)?;
    let quality = checkpoint.word(QUALITY).and_then(|word| word.parse().ok()).ok_or_else(|| {
        Error::input(path.display().to_string(), "does not tell the model's quality; remove it to train anew")
    })?;
    let weights = Weights::loaded(checkpoint, DType::F32)?;
    let model = make(&weights)?;
    Ok(Trained { model, params: weights.finish(&[])?, quality })
}

/// Mean cross-entropy a token.
fn token_loss(gpt: &Gpt, batch: &Batch) -> candle_core::Result<Tensor> {
    let logits = gpt.forward(&batch.inputs)?;
    cross_entropy(&logits.flatten_to(1)?, &batch.targets.flatten_all()?, 0.0, Reduction::Mean)
}

/// The share of rows of `logits` (n, classes) whose largest is that of the class in `targets` (n).
pub fn accuracy(logits: &Tensor, targets: &Tensor) -> Result<f64> {
    let predicted = logits.argmax(1).and_then(|p| p.to_vec1::<u32>()).map_err(computation)?;
    let targets = targets.to_vec1::<u32>().map_err(computation)?;
    if predicted.len() != targets.len() || targets.is_empty() {
        return Err(Error::parameter(
            "targets",
            format!("{} classes", targets.len()),
            format!("one for each of {} rows of logits, at least one", predicted.len()),
        ));
    }
    Ok(predicted.iter().zip(&targets).filter(|(p, t)| p == t).count() as f64 / targets.len() as f64)
}
