//! The exact denoiser and a whole run beside numpy and k-diffusion, Student noise beside scipy, on identical inputs.

use super::{Augmentation, Pfgmpp, Scaled};
use crate::exact::ExactEmpirical;
use crate::sample::{Heun, Stepwise};
use crate::{Denoiser, Grid, Kernel, Sampler};
use ndarray::Array2;
use offprint_core::Result;
use offprint_core::bench::{Agreement, Bench, Case};
use offprint_core::random::Streams;
use serde_json::json;

impl Bench for Pfgmpp {
    fn cases(seed: u64) -> Result<Vec<Case>> {
        let streams = Streams::new(seed);
        let digits = Scaled::new(offprint_data::digits().0.view())?.points;
        let noise =
            |d: f64, sigma: f64| Ok(Augmentation::new(d)?.kernel().noise(1797, 64, sigma, streams.stream("noise"), 0));
        let near = &digits + &noise(128.0, 0.5)?;
        Ok(vec![
            denoising(digits.clone(), near),
            sampling(digits.clone(), noise(f64::INFINITY, 80.0)?, f64::INFINITY, "heun-edm"),
            sampling(digits, noise(128.0, 80.0)?, 128.0, "heun-d128"),
            student(streams),
        ])
    }
}

/// Numbers of the answer: the first of all.
const SHOWN: usize = 256;

fn first(points: &Array2<f64>) -> Vec<f64> {
    points.iter().take(SHOWN).copied().collect()
}

fn denoising(digits: Array2<f64>, y: Array2<f64>) -> Case {
    let inputs = vec![("data", digits.clone().into()), ("y", y.clone().into())];
    let model = ExactEmpirical::new(digits, Kernel::StudentT { freedom: 128.0 });
    let work = move || {
        let model = model.as_ref().map_err(|e| offprint_core::Error::Numerical(e.to_string()))?;
        Ok(first(&model.denoise(y.view(), 0.5)?))
    };
    Case {
        name: "denoise",
        says: "one call of the exact denoiser of the digits at D = 128, σ = 0.5, for 1797 points".into(),
        inputs,
        settings: json!({ "d": 128.0, "sigma": 0.5, "shown": SHOWN }),
        work: Box::new(work),
        agreement: Agreement::Within(1e-8),
        goal: Some(0.5),
    }
}

fn sampling(digits: Array2<f64>, start: Array2<f64>, d: f64, name: &'static str) -> Case {
    let inputs = vec![("data", digits.clone().into()), ("start", start.clone().into())];
    let settings = json!({ "d": d.is_finite().then_some(d), "steps": 18, "shown": SHOWN });
    let work = move || {
        let model = ExactEmpirical::new(digits.clone(), Augmentation::new(d)?.kernel())?;
        let stream = Streams::new(0).stream("none");
        Ok(first(&Stepwise(Heun::new()).run(&model, start.clone(), &Grid::edm(18)?, stream)?.y))
    };
    let says = format!("1797 samples of the exact denoiser of the digits at D = {d}, 18 steps of Heun on EDM's grid");
    Case { name, says, inputs, settings, work: Box::new(work), agreement: Agreement::Within(1e-5), goal: Some(0.5) }
}

/// Student noise; the answer is the share beyond three scales, coordinate by coordinate, which both sides draw anew.
fn student(streams: Streams) -> Case {
    let (n, dim, d) = (20_000usize, 64usize, 8.0);
    let work = move || {
        let noise = Augmentation::new(d)?.kernel().noise(n, dim, 1.0, streams.stream("student"), 0);
        Ok(vec![noise.iter().filter(|v| v.abs() > 3.0).count() as f64 / noise.len() as f64])
    };
    Case {
        name: "student",
        says: format!("{n} draws of the multivariate Student t with D = {d} in {dim} dimensions"),
        inputs: Vec::new(),
        settings: json!({ "n": n, "dim": dim, "d": d }),
        work: Box::new(work),
        agreement: Agreement::Within(2e-3),
        goal: Some(0.5),
    }
}
