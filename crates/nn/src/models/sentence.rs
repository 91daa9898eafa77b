//! Sentences to vectors with a pretrained encoder from a Hugging Face directory.

use super::{Bert, BertConfig};
use crate::checkpoint::Checkpoint;
use crate::error::computation;
use crate::params::{Weights, flatten};
use candle_core::{DType, Device, Tensor};
use ndarray::{Array2, ArrayView1};
use offprint_core::{Error, Result};
use serde::de::DeserializeOwned;
use std::path::Path;
use tokenizers::{Tokenizer, TruncationParams};

/// Sentences that go through the encoder at once.
const BATCH: usize = 32;

/// A BERT encoder whose hidden states are averaged over the tokens of a sentence and scaled to length 1, as
/// sentence-transformers does it.
#[derive(Debug)]
pub struct SentenceEncoder {
    tokenizer: Tokenizer,
    bert: Bert,
    width: usize,
    dtype: DType,
}

impl SentenceEncoder {
    /// Loads `config.json`, `tokenizer.json` and the weights from a directory, and the longest sentence in tokens from
    /// `sentence_bert_config.json` if that is there.
    pub fn open(directory: impl AsRef<Path>, dtype: DType) -> Result<Self> {
        let directory = directory.as_ref();
        let config: BertConfig = json(&directory.join("config.json"))?;
        let path = directory.join("tokenizer.json");
        let mut tokenizer = Tokenizer::from_file(&path)
            .map_err(|e| Error::input(path.display().to_string(), format!("is not a tokenizer: {e}")))?;
        let own = directory.join("sentence_bert_config.json");
        let longest = if own.is_file() {
            json::<Lengths>(&own)?.max_seq_length.unwrap_or(config.max_position_embeddings)
        } else {
            config.max_position_embeddings
        };
        let max_length = longest.min(config.max_position_embeddings);
        // The file's own truncation and padding are those of its last training; each batch is padded here as it needs.
        tokenizer
            .with_padding(None)
            .with_truncation(Some(TruncationParams { max_length, ..TruncationParams::default() }))
            .map_err(|e| {
                Error::parameter("max_seq_length", max_length, format!("more than the special tokens ({e})"))
            })?;
        let vocabulary = tokenizer.get_vocab_size(true);
        if vocabulary > config.vocab_size {
            return Err(Error::input(
                path.display().to_string(),
                format!("has {vocabulary} tokens, but the model's vocab_size is {}", config.vocab_size),
            ));
        }
        let weights = Weights::loaded(Checkpoint::open(directory)?, dtype)?;
        let bert = Bert::new(&config, &weights)?;
        weights.finish(&Bert::IGNORED)?;
        Ok(Self { tokenizer, bert, width: config.hidden_size, dtype })
    }

    /// Length of a vector.
    pub fn width(&self) -> usize {
        self.width
    }

    /// One vector of length 1 a sentence, (n, width).
    pub fn encode(&self, sentences: &[&str]) -> Result<Array2<f32>> {
        let mut encodings = Vec::with_capacity(sentences.len());
        for (i, &sentence) in sentences.iter().enumerate() {
            let encoding = self
                .tokenizer
                .encode(sentence, true)
                .map_err(|e| Error::input("sentences", format!("number {i} cannot be cut into tokens: {e}")))?;
            if encoding.get_ids().is_empty() {
                return Err(Error::input("sentences", format!("number {i} has no tokens")));
            }
            encodings.push((i, encoding.get_ids().to_vec()));
        }
        // Sentences of like length together: less padding.
        encodings.sort_by_key(|(i, ids)| (ids.len(), *i));
        let mut vectors = Array2::zeros((sentences.len(), self.width));
        for part in encodings.chunks(BATCH) {
            let values = self.encode_batch(part)?;
            for ((i, _), vector) in part.iter().zip(values.chunks(self.width)) {
                vectors.row_mut(*i).assign(&ArrayView1::from(vector));
            }
        }
        Ok(vectors)
    }

    fn encode_batch(&self, part: &[(usize, Vec<u32>)]) -> Result<Vec<f32>> {
        let (n, longest) = (part.len(), part.iter().map(|(_, ids)| ids.len()).max().unwrap_or(0));
        let (mut ids, mut mask) = (vec![0u32; n * longest], vec![0u32; n * longest]);
        for (i, (_, tokens)) in part.iter().enumerate() {
            ids[i * longest..][..tokens.len()].copy_from_slice(tokens);
            mask[i * longest..][..tokens.len()].fill(1);
        }
        let pooled = || {
            let ids = Tensor::from_vec(ids, (n, longest), &Device::Cpu)?;
            let mask = Tensor::from_vec(mask, (n, longest), &Device::Cpu)?;
            let hidden = self.bert.forward(&ids, &mask)?;
            let weight = mask.to_dtype(self.dtype)?;
            let sum = weight.unsqueeze(1)?.matmul(&hidden)?.squeeze(1)?;
            let mean = sum.broadcast_div(&weight.sum_keepdim(1)?)?;
            mean.broadcast_div(&mean.sqr()?.sum_keepdim(1)?.sqrt()?.maximum(1e-12)?)
        };
        let pooled = pooled().map_err(computation)?;
        flatten([&pooled].into_iter(), n * self.width)
    }
}

#[derive(serde::Deserialize)]
struct Lengths {
    max_seq_length: Option<usize>,
}

fn json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::file("read", path, e))?;
    serde_json::from_str(&text).map_err(|e| Error::input(path.display().to_string(), format!("does not fit: {e}")))
}
