//! The flow of exact fields beside torchdiffeq, and training beside PyTorch with torchcfm, on identical inputs.

use super::{
    ExactFields, Fields, Interpolant, Interpolants, Joint, Keep, LearnedFields, Pairs, Recipe, Shape, examples, flow,
};
use crate::exact::ExactMixture;
use crate::{Gamma, normals};
use ndarray::{Array1, Array2, Zip, s};
use offprint_core::bench::{Agreement, Bench, Case};
use offprint_core::random::Streams;
use offprint_core::{Progress, Result};
use rand::RngExt;
use serde_json::json;

impl Bench for Interpolants {
    fn cases(seed: u64) -> Result<Vec<Case>> {
        Ok(vec![exact_flow(seed)?, training(seed)?])
    }
}

/// The flow between the mixtures on the line; the answer is the first two moments of the ends.
fn exact_flow(seed: u64) -> Result<Case> {
    let (points, steps) = (20_000, 100);
    let (start, end) = examples::line()?;
    let path = Interpolant::named("linear", Gamma::Brownian { scale: 1.0 })?;
    let fields = ExactFields::new(path, Joint::independent(&start, &end)?)?;
    let (x, _) = ExactMixture::new(start.clone())?.sample(points, Streams::new(seed).stream("bench starts"));
    let variances = |law: &crate::exact::Mixture| -> Array1<f64> {
        (0..law.weights().len()).map(|k| law.covariance(k)[[0, 0]]).collect()
    };
    let inputs = vec![
        ("x", x.clone().into()),
        ("means0", start.means().to_owned().into()),
        ("variances0", variances(&start).into()),
        ("means1", end.means().to_owned().into()),
        ("variances1", variances(&end).into()),
    ];
    let work = move || {
        let ends = flow(&fields, x.clone(), (steps, (0.0, 1.0)), Keep::NOTHING, &Progress::silent())?.x;
        Ok(vec![ends.mean().unwrap_or(f64::NAN), ends.mapv(|x| x * x).mean().unwrap_or(f64::NAN)])
    };
    Ok(Case {
        name: "exact-flow",
        says: format!(
            "{points} points along the exact flow of a mixture of 6 pairs on the line, {steps} Runge–Kutta steps, float64"
        ),
        inputs,
        settings: json!({ "steps": steps }),
        work: Box::new(work),
        agreement: Agreement::Within(1e-6),
        goal: None,
    })
}

/// A velocity learnt from noise to a checkerboard; the answer is its squared error on given pairs.
fn training(seed: u64) -> Result<Case> {
    let (steps, batch, width, depth, judged) = (500, 512, 64, 3, 20_000);
    let streams = Streams::new(seed);
    let data = examples::checkerboard(50_000, streams.stream("bench board"));
    let x0 = normals(judged, 2, streams.stream("bench noise"), 0);
    let x1 = examples::checkerboard(judged, streams.stream("bench judges"));
    let mut clock = streams.stream("bench times").rng(0);
    let times = Array1::from_shape_simple_fn(judged, || (clock.random::<f64>() * 100.0).floor() / 100.0);
    let inputs = vec![
        ("data", data.clone().into()),
        ("x0", x0.clone().into()),
        ("x1", x1.clone().into()),
        ("t", times.clone().into()),
    ];
    let recipe = Recipe::new(Interpolant::named("linear", Gamma::Zero)?, 2);
    let shape = Shape { width, depth, second: None, ..recipe.shape };
    let recipe = Recipe { shape, steps, batch, ..recipe };
    let pairs = Pairs::from_noise(data)?;
    let learning_rate = recipe.learning_rate;
    let work = move || {
        let (learned, _) = LearnedFields::fit(&recipe, &pairs, seed, &Progress::silent())?;
        Ok(vec![error(&learned, (&x0, &x1), &times)?])
    };
    Ok(Case {
        name: "training",
        says: format!(
            "{steps} steps of a velocity, {depth} × {width} ReLU, {batch} rows a step, noise to a checkerboard"
        ),
        inputs,
        settings: json!({
            "steps": steps, "batch": batch, "width": width, "depth": depth, "learning_rate": learning_rate, "seed": seed,
        }),
        work: Box::new(work),
        agreement: Agreement::AtMost(0.02),
        goal: Some(1.0),
    })
}

/// Mean of |b − (x₁ − x₀)|² over pairs whose times are hundredths.
fn error(fields: &dyn Fields, (x0, x1): (&Array2<f64>, &Array2<f64>), times: &Array1<f64>) -> Result<f64> {
    let mut total = 0.0;
    for hundredth in 0..100 {
        let t = f64::from(hundredth) / 100.0;
        let rows: Vec<usize> = (0..times.len()).filter(|&i| times[i] == t).collect();
        if rows.is_empty() {
            continue;
        }
        let pick = |x: &Array2<f64>| x.select(ndarray::Axis(0), &rows);
        let (x0, x1) = (pick(x0), pick(x1));
        let b = fields.velocity((&x0 * (1.0 - t) + &x1 * t).view(), t)?;
        total += Zip::from(&b).and(&x0).and(&x1).fold(0.0, |sum, b, x0, x1| sum + (b - (x1 - x0)).powi(2));
    }
    Ok(total / x0.slice(s![.., 0]).len() as f64)
}
