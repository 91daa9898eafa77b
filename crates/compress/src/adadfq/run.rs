//! The door: a classifier of the user's in, its quantised copy out, no data needed.

use super::AdaDfq;
use super::figures::{alone, histogram, sheet};
use super::files;
use super::params::AdaDfqParams;
use super::recipe::Recipe;
use super::samples::Samples;
use super::subject::Subject;
use super::train::{Outcome, Record, quantise};
use crate::model::{evaluate, outputs};
use crate::{Layer, LayerRecord};
use candle_core::{D, Tensor};
use offprint_core::artifact::{Arrays, Metadata};
use offprint_core::figure::{Axis, Figure, Plot};
use offprint_core::{Array, Method, Result, Run, Table};
use offprint_math::stats::mean;
use offprint_nn::{Batch, Params, computation};

/// Generated images that are looked at in the end.
const SAMPLES: usize = 1000;

impl Method for AdaDfq {
    type Params = AdaDfqParams;

    fn run(params: &AdaDfqParams, run: &mut Run) -> Result<()> {
        let subject = Subject::open(params)?;
        let settings = params.settings(subject.bits);
        if subject.teacher.norms() == 0 {
            run.warn("the model has no batch norm: nothing but the two networks tells what images look like");
        }
        let progress = run.progress();
        let problem = subject.problem();
        // Without training, the network that the first steps leave is the one whose ranges alone were found.
        let calibrated = match (&subject.test, params.recipe) {
            (Some(_), Recipe::AdaDfq) if settings.steps > settings.observed => {
                progress.begin("ranges", settings.observed as u64);
                let outcome =
                    quantise(&problem, Recipe::Calibration, &settings, run.streams(), &mut || progress.advance(1))?;
                progress.finish();
                Some(outcome.student)
            }
            _ => None,
        };
        progress.begin("quantising", settings.steps as u64);
        let outcome = quantise(&problem, params.recipe, &settings, run.streams(), &mut || progress.advance(1))?;
        progress.finish();
        if let Some(test) = &subject.test {
            let float = evaluate(subject.teacher.network(), test, None)?;
            run.metric("accuracy, float", float.accuracy, "");
            for (name, student) in [("ranges only", calibrated.as_ref()), ("quantised", Some(&outcome.student))] {
                let Some(student) = student else { continue };
                let quality = evaluate(student.network(), test, Some(student.quantiser()))?;
                run.metric(&format!("accuracy, {name}"), quality.accuracy, "");
            }
        }
        network(&subject, &outcome, run)?;
        training(&outcome.history, run)?;
        classes(&subject, params, &outcome, run)?;
        if params.keep {
            run.save_arrays("shadow.safetensors", named(outcome.student.network().params())?, Metadata::new())?;
            if let Some(generator) = &outcome.generator {
                run.save_arrays("generator.safetensors", named(generator.params())?, Metadata::new())?;
            }
        }
        Ok(())
    }
}

fn named(params: &Params) -> Result<Arrays> {
    params.snapshot()?.into_iter().map(|(name, tensor)| Ok((name, files::array(&tensor)?))).collect()
}

/// The quantised network: its file, its size, its layers.
fn network(subject: &Subject, outcome: &Outcome, run: &mut Run) -> Result<()> {
    let student = &outcome.student;
    let (arrays, words) = files::arrays(student)?;
    let bytes = |array: &Array| match array {
        Array::U8(values) => values.len(),
        other => 4 * other.shape().iter().product::<usize>(),
    };
    let size: usize = arrays.values().map(bytes).sum();
    let params = subject.teacher.network().params();
    let count: usize = params.trained().iter().chain(params.buffers()).map(|p| p.var.elem_count()).sum();
    run.metric("size, float", 4.0 * count as f64, "B");
    run.metric("size, quantised", size as f64, "B");
    let layers = student.layers()?;
    let weights: usize = layers.iter().map(|layer| layer.shape.iter().product::<usize>()).sum();
    let of_layers = arrays.iter().filter(|(name, _)| name.contains(".weight_")).map(|(_, array)| bytes(array));
    run.metric(
        "bits of a weight, steps and zeros included",
        8.0 * of_layers.sum::<usize>() as f64 / weights as f64,
        "bit",
    );
    run.save_arrays("quantised.safetensors", arrays, words)?;
    let places = student.network().layers()?;
    let records: Vec<LayerRecord> = layers
        .iter()
        .filter_map(|packed| places.iter().find(|place| place.name == packed.name).map(|place| (packed, place)))
        .map(|(packed, place)| Ok(LayerRecord::of(&Layer::of(student.network(), place)?, packed)))
        .collect::<Result<_>>()?;
    run.table(
        Table::new("layers", "What rounding costs each layer's trained weights.")
            .words("layer", records.iter().map(|record| record.name.as_str()))
            .integers("weights", "", layers.iter().map(|layer| layer.shape.iter().product::<usize>() as i64))
            .integers("bits", "bit", records.iter().map(|record| i64::from(record.bits)))
            .numbers("signal to rounding", "dB", records.iter().map(|record| record.sqnr)),
    )
}

/// The steps, as a file and as curves of means over some steps.
fn training(history: &[Record], run: &mut Run) -> Result<()> {
    let column = |of: fn(&Record) -> f64| history.iter().map(of).collect::<Vec<_>>();
    let (generator, student) = (column(|r| r.generator), column(|r| r.student));
    let (adaptability, recognised) = (column(|r| r.adaptability), column(|r| r.recognised));
    run.save_table(
        "training.csv",
        &Table::new("training", "Steps, with losses before them.")
            .integers("step", "", history.iter().map(|record| record.step as i64))
            .numbers("loss of the generator", "", generator.iter().copied())
            .numbers("loss of the quantised network", "", student.iter().copied())
            .numbers("mean adaptability", "", adaptability.iter().copied())
            .numbers("recognised", "", recognised.iter().copied()),
    )?;
    let stretch = history.len().div_ceil(100).max(1);
    let means = |values: &[f64]| values.chunks(stretch).map(mean).collect::<Vec<_>>();
    let steps: Vec<f64> = (0..history.len().div_ceil(stretch)).map(|i| (i as f64 + 0.5) * stretch as f64).collect();
    let x = || Axis::new("step");
    run.figure(
        "training",
        Figure::new(
            "Training",
            format!("Means over {stretch} steps. Left what the generator makes, right what the two networks lose."),
        )
        .columns(2)
        .panel(
            Plot::new(x(), Axis::new("share").limits(0.0, 1.0))
                .curve("mean adaptability H′", steps.clone(), means(&adaptability))
                .curve("recognised by the float network", steps.clone(), means(&recognised)),
        )
        .panel(Plot::new(x(), Axis::new("loss")).curve("generator", steps.clone(), means(&generator)).curve(
            "quantised network",
            steps,
            means(&student),
        )),
    );
    Ok(())
}

/// What the generator makes in the end, and how the classes fare.
fn classes(subject: &Subject, params: &AdaDfqParams, outcome: &Outcome, run: &mut Run) -> Result<()> {
    let classes = subject.shape.classes;
    let mut table = Table::new("classes", "Shares by class.").integers("class", "", 0..classes as i64);
    if let Some(test) = &subject.test {
        let student = &outcome.student;
        let logits = outputs(student.network(), &test.inputs, Some(student.quantiser()))?;
        table = table.numbers("accuracy, quantised", "", right_by_class(&logits, test, classes)?);
    }
    if let Some(generator) = &outcome.generator {
        let size = (SAMPLES, params.batch);
        let samples =
            Samples::draw(&subject.problem(), &outcome.student, generator, size, run.stream("final samples"))?;
        let right = samples.recognised.iter().filter(|&&right| right).count();
        run.metric("samples recognised by the float network", right as f64 / SAMPLES as f64, "");
        run.metric("mean adaptability of samples", mean(&samples.adaptability), "");
        run.metric("samples between λ_l and λ_u", samples.share_within(params.lower, params.upper), "");
        table = table.numbers("recognised", "", samples.recognised_by_class(classes));
        run.figure(
            "samples",
            alone(
                "Generated samples",
                "One class a column. They need not look like anything: they are where the two networks can learn from each \
                 other.",
                sheet(&samples, classes, 5)?,
            ),
        );
        run.figure(
            "adaptability",
            alone(
                "Adaptability of generated samples",
                "At 0 the networks disagree most, at 1 they agree up to a constant; dashed the bounds λ_l and λ_u.",
                histogram(&[("", &samples.adaptability)], (params.lower, params.upper)),
            ),
        );
        run.save_array("samples.npy", files::array(&samples.images)?)?;
        run.save_array("labels.npy", samples.labels.iter().map(|&label| u64::from(label)).collect::<Vec<_>>())?;
    }
    run.table(table)
}

/// The share of samples of each class whose largest logit is theirs; NaN for a class without samples.
fn right_by_class(logits: &Tensor, test: &Batch, classes: usize) -> Result<Vec<f64>> {
    let numbers = |tensor: &Tensor| tensor.to_vec1::<u32>().map_err(computation);
    let predicted = numbers(&logits.argmax(D::Minus1).map_err(computation)?)?;
    let (mut right, mut all) = (vec![0.0; classes], vec![0.0; classes]);
    for (class, predicted) in numbers(&test.targets)?.into_iter().zip(predicted) {
        all[class as usize] += 1.0;
        right[class as usize] += f64::from(u8::from(class == predicted));
    }
    Ok(right.iter().zip(all).map(|(right, all)| right / all).collect())
}
