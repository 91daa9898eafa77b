//! Trains the models that are compiled into the crate, and writes them to `crates/compress/data`:
//! `cargo run --release -p offprint-compress --example models`.

use candle_core::DType;
use offprint_core::{Progress, Result, Scale};
use offprint_nn::models::{GptConfig, ViTConfig};
use offprint_nn::zoo::Zoo;
use offprint_nn::{Architecture, Network, Params};
use std::path::Path;

fn main() -> Result<()> {
    let (zoo, progress) = (Zoo::new(0, Scale::Standard), Progress::silent());
    let keep = |name: &str, architecture: Architecture, params: &Params, quality: f64| -> Result<()> {
        println!("{name}: {quality:.4}");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(format!("{name}.safetensors"));
        Network::with_tensors(&architecture, &params.snapshot()?, DType::F32)?.save(&path)
    };
    let cnn = zoo.digits_cnn(&progress)?;
    keep("digits-cnn", Architecture::DigitsCnn { classes: 10 }, &cnn.params, cnn.quality)?;
    let vit = zoo.digits_vit(&progress)?;
    keep("digits-vit", Architecture::ViT(ViTConfig::digits()), &vit.params, vit.quality)?;
    let (gpt, characters) = zoo.char_lm(&progress)?;
    keep("char-lm", Architecture::Gpt(GptConfig::characters(characters.count())), &gpt.params, gpt.quality)
}
