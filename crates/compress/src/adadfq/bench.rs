//! Steps of the game beside the same steps in PyTorch.

use super::generator::{Conditioning, ImageShape};
use super::normalisation::Normalisation;
use super::recipe::Recipe;
use super::settings::Settings;
use super::teacher::Teacher;
use super::train::{Problem, first_generator, latents, quantise};
use super::{AdaDfq, files};
use crate::examples::Example;
use ndarray::Array1;
use offprint_core::bench::{Agreement, Bench, Case};
use offprint_core::random::Streams;
use offprint_core::{Array, Result};
use offprint_math::stats::mean;
use offprint_nn::Params;
use serde_json::{Value, json};

impl Bench for AdaDfq {
    fn cases(seed: u64) -> Result<Vec<Case>> {
        Ok(vec![
            steps(
                "steps-8",
                "20 steps on 1 × 8 × 8 pixels, batches of 16: generator, then quantised network",
                20,
                8,
                seed,
            )?,
            steps(
                "steps-32",
                "4 steps on 1 × 32 × 32 pixels, batches of 16: generator, then quantised network",
                4,
                32,
                seed,
            )?,
        ])
    }
}

/// `count` steps of the digits network for images of `side` pixels.
fn steps(name: &'static str, says: &str, count: usize, side: usize, seed: u64) -> Result<Case> {
    let teacher = Teacher::new(Example::DigitsCnn.load()?.network)?;
    let normalisation = Normalisation::new(1, &[0.3], &[0.4])?;
    let shape = ImageShape { classes: 10, channels: 1, height: side, width: side };
    let settings = Settings {
        steps: count,
        warmup: 0,
        observed: 1,
        decays: Vec::new(),
        conditioning: Conditioning::Product,
        ..Settings::default()
    };
    let streams = Streams::new(seed);
    let generator = first_generator(shape, &settings, streams)?;
    let (mut z, mut labels) = (Vec::new(), Vec::new());
    for step in 0..count {
        let (latent, classes) = latents(&generator, &settings, streams, step)?;
        z.push(files::array(&latent)?);
        labels.push(files::array(&classes)?);
    }
    let (of_teacher, teacher_layout) = flat(teacher.network().params())?;
    let (of_generator, generator_layout) = flat(generator.params())?;
    Ok(Case {
        name,
        says: says.into(),
        inputs: vec![
            ("teacher", of_teacher.into()),
            ("generator", of_generator.into()),
            ("z", joined(&z).into()),
            ("labels", joined(&labels).into()),
        ],
        settings: json!({
            "teacher": teacher_layout, "generator": generator_layout, "steps": count, "batch": settings.batch,
            "side": side, "mean": 0.3, "deviation": 0.4, "bits": settings.bits.weights,
            "student_rate": settings.student_rate, "generator_rate": settings.generator_rate,
            "temperature": settings.temperature, "lower": settings.loss.lower, "upper": settings.loss.upper,
            "disagreement": settings.loss.disagreement, "agreement": settings.loss.agreement,
        }),
        work: Box::new(move || {
            let problem = Problem { teacher: &teacher, shape, normalisation: &normalisation, real: None };
            let history = quantise(&problem, Recipe::AdaDfq, &settings, streams, &mut || Ok(()))?.history;
            let generator: Vec<f64> = history.iter().map(|record| record.generator).collect();
            // Rounding to four levels drives two single-precision trainings apart: the first losses are to be the same, the
            // mean nearly so.
            Ok(vec![generator[0], history[0].student, mean(&generator)])
        }),
        agreement: Agreement::Within(0.05),
        goal: Some(0.5),
    })
}

/// All tensors one after the other, and their names and shapes.
fn flat(params: &Params) -> Result<(Array1<f32>, Value)> {
    let (mut values, mut layout) = (Vec::new(), Vec::new());
    for (name, tensor) in params.snapshot()? {
        layout.push(json!([name, tensor.dims()]));
        values.push(files::array(&tensor)?);
    }
    Ok((joined(&values), layout.into()))
}

fn joined(arrays: &[Array]) -> Array1<f32> {
    let single = arrays.iter().filter_map(|array| if let Array::F32(values) = array { Some(values) } else { None });
    single.flatten().copied().collect()
}
