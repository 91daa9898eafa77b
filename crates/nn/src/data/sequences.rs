//! A user's texts as sequences of tokens.

use crate::batch::Batch;
use crate::derivatives::IGNORED;
use crate::error::computation;
use candle_core::{Device, Tensor};
use offprint_core::{Error, Result};
use serde::Deserialize;
use std::path::Path;
use tokenizers::Tokenizer;

/// The tokens of one text, and how many of them at its start are a prompt that nothing is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// Token numbers.
    pub tokens: Vec<u32>,
    /// Tokens of the prompt.
    pub prompt: usize,
}

/// A line of a JSON-lines file.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Line {
    Text { text: String },
    Completion { prompt: String, completion: String },
}

/// Reads a file of JSON lines, each `{"text": …}` or `{"prompt": …, "completion": …}`, through a `tokenizer.json`. Empty
/// lines are passed over.
///
/// # Errors
/// Files that cannot be read; a line of another form, or without tokens to predict, by its number from 1.
pub fn read_sequences(path: &Path, tokenizer: &Path) -> Result<Vec<Sequence>> {
    let words = Tokenizer::from_file(tokenizer)
        .map_err(|e| Error::input(tokenizer.display().to_string(), format!("is not a tokenizer: {e}")))?;
    let text = std::fs::read_to_string(path).map_err(|e| Error::file("read", path, e))?;
    let bad =
        |line: usize, problem: String| Error::input(path.display().to_string(), format!("line {line}: {problem}"));
    let mut sequences = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let number = number + 1;
        let encode = |text: &str, special: bool| -> Result<Vec<u32>> {
            let encoded = words.encode(text, special).map_err(|e| bad(number, format!("cannot be encoded: {e}")))?;
            Ok(encoded.get_ids().to_vec())
        };
        let parsed: Line = serde_json::from_str(line).map_err(|_| {
            bad(number, r#"is neither {"text": "…"} nor {"prompt": "…", "completion": "…"}"#.to_owned())
        })?;
        let sequence = match parsed {
            Line::Text { text } => Sequence { tokens: encode(&text, true)?, prompt: 0 },
            Line::Completion { prompt, completion } => {
                let mut tokens = encode(&prompt, true)?;
                let prompt = tokens.len();
                tokens.extend(encode(&completion, false)?);
                Sequence { tokens, prompt }
            }
        };
        if sequence.tokens.len() < 2 || sequence.prompt == sequence.tokens.len() {
            return Err(bad(number, "leaves no token to predict".into()));
        }
        sequences.push(sequence);
    }
    if sequences.is_empty() {
        return Err(Error::input(path.display().to_string(), "holds no line"));
    }
    Ok(sequences)
}

/// Sequences as a batch: inputs (n, longest − 1), each position's target the token after it, [`IGNORED`] within the prompt
/// and in the padding at the end; and the number of positions of each that are no padding. `origin` is what errors call
/// the sequences.
///
/// # Errors
/// No sequence; one that is longer than `context` allows, or holds a token from `vocabulary` on, by its number from 1.
pub fn sequence_batch(
    sequences: &[Sequence],
    vocabulary: usize,
    context: usize,
    origin: &str,
) -> Result<(Batch, Vec<usize>)> {
    let longest = sequences.iter().map(|s| s.tokens.len()).max().unwrap_or(0);
    if longest < 2 {
        return Err(Error::input(origin, "there is no sequence with a token to predict"));
    }
    for (i, Sequence { tokens, .. }) in sequences.iter().enumerate() {
        if tokens.len() - 1 > context {
            let problem = format!("sequence {} has {} tokens; the model reads {context}", i + 1, tokens.len());
            return Err(Error::input(origin, problem));
        }
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= vocabulary) {
            let problem = format!("sequence {} holds token {token}; the model knows 0 to {}", i + 1, vocabulary - 1);
            return Err(Error::input(origin, problem));
        }
    }
    let (mut inputs, mut targets) = (Vec::new(), Vec::new());
    for Sequence { tokens, prompt } in sequences {
        let padding = longest - tokens.len();
        inputs.extend(tokens[..tokens.len() - 1].iter().copied().chain(std::iter::repeat_n(0, padding)));
        let asked = tokens.iter().enumerate().skip(1).map(|(at, &id)| if at < *prompt { IGNORED } else { id });
        targets.extend(asked.chain(std::iter::repeat_n(IGNORED, padding)));
    }
    let shape = (sequences.len(), longest - 1);
    let tensor = |values: Vec<u32>| Tensor::from_vec(values, shape, &Device::Cpu).map_err(computation);
    let lengths = sequences.iter().map(|s| s.tokens.len() - 1).collect();
    Ok((Batch { inputs: tensor(inputs)?, targets: tensor(targets)? }, lengths))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tokenizer of whole words.
    const WORDS: &str = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
        "pre_tokenizer":{"type":"Whitespace"},"post_processor":null,"decoder":null,
        "model":{"type":"WordLevel","vocab":{"?":0,"one":1,"two":2,"three":3},"unk_token":"?"}}"#;

    fn read(lines: &str) -> Result<Vec<Sequence>> {
        let directory = tempfile::tempdir().unwrap();
        let (text, words) = (directory.path().join("t.jsonl"), directory.path().join("tokenizer.json"));
        std::fs::write(&text, lines).unwrap();
        std::fs::write(&words, WORDS).unwrap();
        read_sequences(&text, &words)
    }

    #[test]
    fn texts_and_completions_become_padded_batches() {
        let lines = "{\"text\": \"one two\"}\n\n{\"prompt\": \"one two\", \"completion\": \"three one\"}\n";
        let sequences = read(lines).unwrap();
        assert_eq!(sequences[1], Sequence { tokens: vec![1, 2, 3, 1], prompt: 2 });
        let (batch, lengths) = sequence_batch(&sequences, 4, 3, "t").unwrap();
        assert_eq!(batch.inputs.to_vec2::<u32>().unwrap(), [[1, 0, 0], [1, 2, 3]]);
        assert_eq!(batch.targets.to_vec2::<u32>().unwrap(), [[2, IGNORED, IGNORED], [IGNORED, 3, 1]]);
        assert_eq!(lengths, [1, 3]);
        let error = |vocabulary, context| sequence_batch(&sequences, vocabulary, context, "t").unwrap_err().to_string();
        assert!(error(3, 3).contains("sequence 2 holds token 3"));
        assert!(error(4, 2).contains("sequence 2 has 4 tokens; the model reads 2"));
    }

    #[test]
    fn lines_of_another_form_are_named() {
        for (lines, says) in [
            ("{\"text\": \"one two\"}\n{\"txt\": 1}", "line 2"),
            ("{\"text\": \"one\"}", "line 1: leaves no token"),
            ("{\"prompt\": \"one\", \"completion\": \"\"}", "line 1: leaves no token"),
            ("\n", "holds no line"),
        ] {
            let error = read(lines).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
