//! UniPC's steps beside `diffusers`, whose text-to-image pipelines the method plugs into, alone and with a network, whose
//! training stands beside PyTorch too.

use super::{DcSolver, Variant};
use crate::exact::{ExactMixture, Mixture};
use crate::network::{Digits8, fit};
use crate::sample::Sampler;
use crate::{Denoiser, Grid, Path, Schedule, normals};
use ndarray::{Array1, Array2, ArrayView2};
use offprint_core::bench::{Agreement, Bench, Case};
use offprint_core::random::Streams;
use offprint_core::{Progress, Result};
use serde_json::json;

/// Steps: 999/9 is whole, so that the peer, which rounds times to entries of its table, stands at the same places.
const STEPS: usize = 9;
/// Variance of the components.
const VARIANCE: f64 = 0.05;

/// D = y v/(v + τ²): the mixture of one component at the origin, as cheap as a model can be.
struct Linear {
    dim: usize,
}

impl Denoiser for Linear {
    fn dim(&self) -> usize {
        self.dim
    }

    fn denoise(&self, y: ArrayView2<'_, f64>, tau: f64) -> Result<Array2<f64>> {
        Ok(&y * (VARIANCE / (VARIANCE + tau * tau)))
    }
}

/// First, last and mean square of the samples.
fn answer(x: &Array2<f64>) -> Vec<f64> {
    let (n, d) = x.dim();
    vec![x[[0, 0]], x[[n - 1, d - 1]], x.iter().map(|v| v * v).sum::<f64>() / (n * d) as f64]
}

impl Bench for DcSolver {
    fn cases(seed: u64) -> Result<Vec<Case>> {
        let streams = Streams::new(seed);
        let grid = Grid::uniform_t(&Schedule::scaled_linear(), STEPS, 1.0, 1e-3)?;
        let settings = json!({ "steps": STEPS, "variance": VARIANCE });
        let start = normals(40, 64, streams.stream("start"), 0);
        let from = grid.start_from(start.clone());
        let steps = Case {
            name: "steps",
            says: format!("{STEPS} steps of UniPC-3 for 40 points in 64 dimensions, a model that costs nothing"),
            inputs: vec![("start", start.into())],
            settings: settings.clone(),
            work: {
                let (grid, stream) = (grid.clone(), streams.stream("none"));
                let sampler = Variant::Latent.sampler();
                Box::new(move || Ok(answer(&sampler.run(&Linear { dim: 64 }, from.clone(), &grid, stream)?.into_x())))
            },
            // The peer keeps its table in single precision.
            agreement: Agreement::Within(1e-3),
            goal: Some(1.0 / 10.0),
        };
        let centres = normals(10, 64, streams.stream("centres"), 0);
        let variances = Array1::from_elem(10, VARIANCE);
        let mixture = Mixture::round(Array1::from_elem(10, 0.1), centres.clone(), variances.view())?;
        let model = ExactMixture::new(mixture)?;
        let start = normals(400, 64, streams.stream("more"), 0);
        let from = grid.start_from(start.clone());
        let mixture = Case {
            name: "mixture",
            says: format!(
                "{STEPS} steps of UniPC-3 for 400 points on the exact mixture of 10 components in 64 dimensions"
            ),
            inputs: vec![("start", start.into()), ("centres", centres.into())],
            settings,
            work: {
                let (grid, sampler, stream) = (grid.clone(), Variant::Latent.sampler(), streams.stream("none"));
                Box::new(move || Ok(answer(&sampler.run(&model, from.clone(), &grid, stream)?.into_x())))
            },
            agreement: Agreement::Within(1e-2),
            goal: None,
        };
        let network = network(&grid, streams)?;
        Ok(vec![steps, mixture, network, training(seed)])
    }
}

/// Sampling with the digits' network: what a user waits for.
fn network(grid: &Grid, streams: Streams) -> Result<Case> {
    let digits = Digits8::shipped()?;
    let start = normals(256, 64, streams.stream("digits"), 0);
    let from = grid.start_from(start.clone());
    let params = digits.network.params();
    let shapes: Vec<Vec<usize>> = params.trained().iter().map(|param| param.var.dims().to_vec()).collect();
    let inputs = vec![("start", start.into()), ("parameters", params.flat::<f32>()?.into())];
    let (grid, stream) = (grid.clone(), streams.stream("none"));
    let sampler = Variant::Latent.sampler();
    Ok(Case {
        name: "network",
        says: format!("{STEPS} steps of UniPC-3 for 256 digits by their network of 175424 parameters"),
        inputs,
        settings: json!({ "steps": STEPS, "shapes": shapes, "classes": 10 }),
        work: Box::new(move || {
            Ok(answer(&sampler.run(&digits.network.unconditional(), from.clone(), &grid, stream)?.into_x()))
        }),
        agreement: Agreement::Within(5e-3),
        goal: Some(1.0 / 1.5),
    })
}

/// Steps of training, from fresh weights.
const TRAINING: u64 = 300;

/// Training the digits' network. Both sides draw their own weights, batches and noise: the answer, the mean loss over the
/// last third, is that of the recipe.
fn training(seed: u64) -> Case {
    let data = crate::network::DigitsData::new();
    let labels = Array1::from_iter(data.train_labels.iter().map(|&label| i64::from(label)));
    let inputs = vec![("data", data.train.clone().into()), ("labels", labels.into())];
    let recipe = Digits8::recipe(Path::Gaussian(Schedule::Edm), TRAINING);
    Case {
        name: "training",
        says: format!(
            "{TRAINING} steps of training the digits' network, batches of 256, Adam, a running mean of the weights"
        ),
        inputs,
        settings: json!({ "steps": TRAINING, "batch": recipe.batch }),
        work: Box::new(move || {
            let (_, losses) = fit(&recipe, data.train.view(), Some(&data.train_labels), seed, &Progress::silent())?;
            let tail = &losses[losses.len() * 2 / 3..];
            Ok(vec![tail.iter().sum::<f64>() / tail.len() as f64])
        }),
        agreement: Agreement::Within(0.03),
        goal: Some(1.0),
    }
}
