//! What the user brings: a network, training rows and queries, as numbers or as texts.

use super::run::{InfluenceParams, NO_WORDS, Objective, Task};
use super::{Counting, Examples, TfIdf};
use candle_core::DType;
use offprint_core::{Error, Result, Source};
use offprint_nn::data::{Sequence, labelled, read_sequences, sequence_batch};
use offprint_nn::derivatives::Loss;
use offprint_nn::{Network, Reads};
use std::path::Path;

/// A network with the rows that are scored.
pub(super) struct Rows {
    pub network: Network,
    pub loss: Loss,
    pub train: Examples,
    /// Empty if only self-influence is asked for.
    pub queries: Examples,
    /// For each training sample its number in the user's file, where a filter left some out.
    pub numbers: Vec<usize>,
    pub words: Words,
}

/// Lines of the text files, for lists of the most influential.
pub(super) struct Words {
    pub train: Vec<String>,
    pub queries: Vec<String>,
}

impl Rows {
    /// Reads what `params` name.
    pub fn read(params: &InfluenceParams) -> Result<Self> {
        let path = params.model.as_deref().ok_or_else(|| Error::parameter("model", "none", "given"))?;
        let dtype = if params.double { DType::F64 } else { DType::F32 };
        let network = Network::load(path, params.config.as_deref(), dtype)?;
        match &params.texts {
            Some(texts) => Self::read_texts(params, network, texts),
            None => Self::read_numbers(params, network, dtype),
        }
    }

    fn read_numbers(params: &InfluenceParams, network: Network, dtype: DType) -> Result<Self> {
        let loss = params.objective.loss();
        let read = |rows: &Source, targets: &Option<Source>| -> Result<Examples> {
            Ok(labelled(network.architecture(), loss, rows, targets.as_ref(), dtype)?.into())
        };
        let train = read(&params.train, &params.targets)?;
        let queries = match params.task {
            Task::Scores => read(&params.queries, &params.query_targets)?,
            Task::SelfInfluence => train.range(0..0)?,
        };
        let numbers = (0..train.len()).collect();
        Ok(Self { network, loss, train, queries, numbers, words: NO_WORDS })
    }

    fn read_texts(params: &InfluenceParams, network: Network, texts: &Path) -> Result<Self> {
        let Reads::Tokens { vocabulary, context } = network.architecture().reads() else {
            return Err(Error::parameter("texts", texts.display(), "left out: the model does not read tokens"));
        };
        if params.objective != Objective::CrossEntropy {
            return Err(Error::parameter("objective", "another", "cross-entropy for texts"));
        }
        let tokenizer = params.tokenizer.as_deref().ok_or_else(|| Error::parameter("tokenizer", "none", "given"))?;
        let mut train = read_sequences(texts, tokenizer)?;
        let queries = params.query_texts.as_deref().map(|path| read_sequences(path, tokenizer)).transpose()?;
        let mut numbers: Vec<usize> = (0..train.len()).collect();
        let mut words = Words { train: lines(texts)?, queries: Vec::new() };
        if let (Some(keep), Some(queries)) = (params.keep, &queries) {
            let documents: Vec<&[u32]> = train.iter().map(|s| s.tokens.as_slice()).collect();
            let asked: Vec<&[u32]> = queries.iter().map(|s| s.tokens.as_slice()).collect();
            numbers = TfIdf::new(&documents).best(&asked, keep, Counting::Unique);
            words.train = numbers.iter().map(|&i| words.train[i].clone()).collect();
            train = numbers.iter().map(|&i| train[i].clone()).collect();
        }
        let batch = |sequences: &[Sequence], path: &Path| -> Result<Examples> {
            let (batch, lengths) = sequence_batch(sequences, vocabulary, context, &path.display().to_string())?;
            Ok(Examples { batch, lengths: Some(lengths) })
        };
        let train = batch(&train, texts)?;
        let queries = match (&params.query_texts, queries, params.task) {
            (Some(path), Some(queries), Task::Scores) => {
                words.queries = lines(path)?;
                batch(&queries, path)?
            }
            _ => train.range(0..0)?,
        };
        Ok(Self { network, loss: Loss::CrossEntropy, train, queries, numbers, words })
    }

    /// The checkpoints of tracin: learning rate and parameters of each.
    pub fn checkpoints(&self, params: &InfluenceParams) -> Result<Vec<(f64, Vec<f64>)>> {
        let list = params.checkpoints.as_deref().unwrap_or_default();
        list.split(',')
            .map(|item| {
                let allowed = "PATH@RATE with a rate above 0, separated by commas";
                let wrong = || Error::parameter("checkpoints", item, allowed);
                let (path, rate) = item.trim().rsplit_once('@').ok_or_else(wrong)?;
                let rate: f64 = rate.parse().ok().filter(|rate| *rate > 0.0).ok_or_else(wrong)?;
                let checkpoint = offprint_nn::Checkpoint::open(path)?;
                let fresh = Network::fresh(self.network.architecture(), 0, self.network.params().dtype())?;
                fresh.params().restore(&checkpoint, "")?;
                Ok((rate, fresh.params().flat()?))
            })
            .collect()
    }
}

/// The lines of a file that hold anything.
fn lines(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::file("read", path, e))?;
    Ok(text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect())
}
