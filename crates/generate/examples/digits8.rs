//! Measures the shared model of the digits: `cargo run --release -p offprint-generate --example digits8`. With the path of
//! a file, trains it again first and writes its weights there; the shipped ones are `crates/generate/data/digits8.f32`.

use offprint_core::random::Streams;
use offprint_core::{Cancel, Observer, Progress, Result};
use offprint_generate::metrics::{directions, sliced_wasserstein};
use offprint_generate::network::{Digits8, LinearClassifier};
use offprint_generate::sample::{Heun, Stepwise};
use offprint_generate::{Grid, Path, Schedule};
use std::sync::Arc;
use std::time::Instant;

/// Prints the loss now and then.
struct Words;

impl Observer for Words {
    fn begin(&self, stage: &str, _: Option<u64>) {
        eprintln!("{stage}");
    }
    fn advance(&self, _: u64) {}
    fn status(&self, words: &str) {
        eprint!("\r{words}   ");
    }
    fn warn(&self, words: &str) {
        eprintln!("{words}");
    }
    fn finish(&self) {
        eprintln!();
    }
}

fn main() -> Result<()> {
    let digits = match std::env::args().nth(1) {
        Some(to) => trained(&to)?,
        None => Digits8::shipped()?,
    };
    let classifier = LinearClassifier::fit(digits.data.train.view(), &digits.data.train_labels, 10)?;
    let test_labels: Vec<usize> = digits.data.test_labels.iter().map(|&l| l.into()).collect();
    println!("classifier on real test digits: {:.3}", classifier.accuracy(digits.data.test.view(), &test_labels)?);
    let streams = Streams::new(1);
    let along = directions(500, 64, streams.stream("directions"));
    let distance = |x: &ndarray::Array2<f64>| sliced_wasserstein(x.view(), digits.data.train.view(), along.view());
    println!("sliced W2 of the test set: {:.4}", distance(&digits.data.test)?);
    for weight in [1.0, 2.0, 4.0] {
        for seed in 1..=5 {
            let stream = Streams::new(seed).stream("start");
            let (x, labels) = digits.sample(&Stepwise(Heun::new()), &Grid::edm(18)?, (100, weight), stream)?;
            let accuracy = classifier.accuracy(x.view(), &labels)?;
            println!("w = {weight}, seed {seed}: accuracy {accuracy:.3}, sliced W2 {:.4}", distance(&x)?);
        }
    }
    Ok(())
}

fn trained(to: &str) -> Result<Digits8> {
    let start = Instant::now();
    let progress = Progress::new(Arc::new(Words), Cancel::default());
    let digits = Digits8::train(Path::Gaussian(Schedule::Edm), Digits8::STEPS, 0, &progress)?;
    println!("trained in {:.0} s", start.elapsed().as_secs_f64());
    let weights: Vec<u8> = digits.network.params().flat::<f32>()?.into_iter().flat_map(f32::to_le_bytes).collect();
    std::fs::write(to, &weights).map_err(|e| offprint_core::Error::file("write", to.as_ref(), e))?;
    Ok(digits)
}
