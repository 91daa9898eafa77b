//! Trains the small models and prints how good they become and how long it takes:
//! `cargo run --release -p offprint-nn --example zoo -- [seed]`.

use offprint_core::random::Streams;
use offprint_core::{Progress, Result, Scale};
use offprint_nn::zoo::Zoo;
use std::time::Instant;

fn main() -> Result<()> {
    let seed = std::env::args().nth(1).and_then(|seed| seed.parse().ok()).unwrap_or(0);
    let (zoo, progress) = (Zoo::new(seed, Scale::Standard), Progress::silent());
    let started = Instant::now();
    let cnn = zoo.digits_cnn(&progress)?;
    println!("digits-cnn  test accuracy {:.4}  {:.1} s", cnn.quality, started.elapsed().as_secs_f64());
    let started = Instant::now();
    let vit = zoo.digits_vit(&progress)?;
    println!("digits-vit  test accuracy {:.4}  {:.1} s", vit.quality, started.elapsed().as_secs_f64());
    let started = Instant::now();
    let (gpt, characters) = zoo.char_lm(&progress)?;
    println!("char-lm     perplexity    {:.3}   {:.1} s", gpt.quality, started.elapsed().as_secs_f64());
    let start = characters.encode("HAMLET\n")?;
    let written = gpt.model.generate(&start, 200, 0.8, Streams::new(seed).stream("writing"))?;
    println!("\n{}", characters.decode(&written));
    Ok(())
}
