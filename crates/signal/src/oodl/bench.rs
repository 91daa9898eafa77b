//! Timed beside scikit-learn: its online dictionary learning and its FastICA, on the same streams.

use super::*;
use ndarray::{Axis, s};
use offprint_core::Bench;
use offprint_core::bench::{Agreement, Case};
use offprint_core::random::Streams;
use serde_json::json;

impl Bench for Oodl {
    fn cases(seed: u64) -> Result<Vec<Case>> {
        let streams = Streams::new(seed);
        Ok(vec![
            online("online-20", 20, 1, (8000, 1000), streams)?,
            online("online-64-batch-64", 64, 64, (6_400, 6_400), streams)?,
            fast_ica(streams)?,
        ])
    }
}

/// Time to a recovery error, the answer: a pass of the online learner over `ours` samples, and of scikit-learn's over the
/// first `peers` of them. Seen by the sample scikit-learn's learns faster at N = 20, so ours is given more of them, until
/// its error is no larger.
fn online(name: &'static str, n: usize, batch: usize, (ours, peers): (usize, usize), streams: Streams) -> Result<Case> {
    let stream = BernoulliGaussian::new(n, 0.2, 0.0, streams)?;
    let samples = stream.samples(0, ours);
    let truth = stream.truth().to_owned();
    let start = random_orthogonal(n, &mut streams.stream("start").rng(0))?;
    let inputs =
        vec![("samples", samples.clone().into()), ("truth", truth.clone().into()), ("start", start.clone().into())];
    Ok(Case {
        name,
        says: format!(
            "one pass over {ours} samples of N = {n}, θ = 0.2, in batches of {batch}; scikit-learn over {peers}"
        ),
        inputs,
        settings: json!({ "batch": batch, "alpha": 0.3, "count": peers }),
        work: Box::new(move || {
            let mut learner = FrankWolfe::new(start.clone(), Schedule::default())?;
            for batch in samples.axis_chunks_iter(Axis(0), batch) {
                learner.step(batch)?;
            }
            Ok(vec![recovery_error(learner.dictionary()?.view(), truth.view())?])
        }),
        // The answer is an error: ours may not be the larger one.
        agreement: Agreement::AtMost(0.0),
        goal: Some(0.05),
    })
}

/// The task of FastICA: whiten a mixture by a matrix that is not orthogonal, unmix it. FastICA goes over all samples
/// until it converges; this method sees each once.
fn fast_ica(streams: Streams) -> Result<Case> {
    let (n, count) = (20, 20_000);
    let stream = BernoulliGaussian::new(n, 0.2, 0.0, streams)?;
    // Stretching the axes of an orthogonal mixture makes one that whitening has to undo.
    let stretch = ndarray::Array1::from_shape_fn(n, |i| 1.0 + i as f64 / 4.0);
    let samples = stream.samples(0, count) * &stretch;
    let mixing = stream.truth().to_owned() * &stretch.insert_axis(Axis(1));
    let inputs = vec![("samples", samples.clone().into()), ("mixing", mixing.clone().into())];
    Ok(Case {
        name: "fast-ica-20",
        says: format!("whitening and one pass over {count} mixtures of N = {n}, θ = 0.2, in batches of 10"),
        inputs,
        settings: json!({}),
        work: Box::new(move || {
            let settings = Settings { batch: 10, whitening: Whitening::Zca, burn_in: Some(count), clip: None };
            let mut pipeline = Pipeline::new(n, settings, move |r| {
                let start = random_orthogonal(r, &mut streams.stream("start").rng(0))?;
                Ok(Box::new(FrankWolfe::new(start, Schedule::default())?))
            })?;
            for sample in samples.outer_iter() {
                pipeline.learn_one(sample.as_slice().expect("standard layout"))?;
            }
            let unit = |mut atoms: Array2<f64>| {
                for mut atom in atoms.axis_iter_mut(Axis(1)) {
                    let norm = atom.dot(&atom).sqrt();
                    atom /= norm;
                }
                atoms
            };
            // The worst cosine between an atom and the column of the mixing matrix that it fits.
            let truth = unit(mixing.clone());
            let learned = aligned(pipeline.transform()?.unit_atoms().view(), truth.view())?;
            let worst = (0..n).map(|i| learned.slice(s![.., i]).dot(&truth.slice(s![.., i]))).fold(1.0, f64::min);
            Ok(vec![1.0 - worst])
        }),
        agreement: Agreement::AtMost(0.02),
        goal: Some(1.0),
    })
}
