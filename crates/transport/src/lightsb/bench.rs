//! Training beside the authors' PyTorch recipe, Sinkhorn beside POT and ott-jax, on identical samples.

use super::examples::{Ends, Normal, benchmark_bridge, draw, swiss_roll};
use super::{LightSb, Options, Trainer};
use crate::sinkhorn::{self, half_squared_distances, sinkhorn};
use ndarray::{Array1, Array2};
use offprint_core::bench::{Agreement, Bench, Case};
use offprint_core::random::Streams;
use offprint_core::{Progress, Result};
use serde_json::json;

impl Bench for LightSb {
    fn cases(seed: u64) -> Result<Vec<Case>> {
        let streams = Streams::new(seed);
        let mut rng = streams.stream("bench").rng(0);
        let truth = benchmark_bridge(16, 1.0, streams.stream("bench pair"))?;
        let ends = Ends::new(&truth, Normal(16));
        let pair = (draw(&Normal(16), 20_000, &mut rng), draw(&ends, 20_000, &mut rng));
        let options =
            Options { epsilon: 1.0, components: 50, initial_spread: 1.0, learning_rate: 3e-3, ..Options::default() };
        let d16 = training(
            "benchmark-d16",
            "2000 steps on a benchmark pair, d = 16, K = 50, batch 128".into(),
            pair,
            options,
            2000,
            seed,
        );
        let roll = (draw(&Normal(2), 20_000, &mut rng), swiss_roll(20_000, &mut rng));
        let options = Options { components: 500, ..Options::default() };
        let swiss = training(
            "swiss-roll",
            "1000 steps from a normal cloud to a swiss roll, d = 2, K = 500, batch 128".into(),
            roll,
            options,
            1000,
            seed,
        );
        let wide = (draw(&Normal(512), 2000, &mut rng), draw(&Normal(512), 2000, &mut rng) * 0.5 + 0.2);
        let options = Options { components: 10, initial_spread: 0.1, ..Options::default() };
        let d512 = training("latents-d512", "200 steps, d = 512, K = 10, batch 128".into(), wide, options, 200, seed);
        let clouds = (draw(&Normal(2), 1000, &mut rng), swiss_roll(1000, &mut rng));
        Ok(vec![d16, swiss, d512, discrete("sinkhorn-pot", clouds.clone()), discrete("sinkhorn-ott", clouds)])
    }
}

/// Training for a number of steps; the answer is the loss over the samples, at most the peer's.
fn training(
    name: &'static str,
    says: String,
    (x0, x1): (Array2<f64>, Array2<f64>),
    options: Options,
    steps: u64,
    seed: u64,
) -> Case {
    let settings = json!({
        "epsilon": options.epsilon,
        "components": options.components,
        "initial_spread": options.initial_spread,
        "learning_rate": options.learning_rate,
        "batch": options.batch,
        "steps": steps,
        "seed": seed,
    });
    let inputs = vec![("x0", x0.clone().into()), ("x1", x1.clone().into())];
    let work = move || {
        let mut trainer = Trainer::new(x1.view(), options.clone(), Streams::new(seed))?;
        trainer.run(&x0.view(), &x1.view(), steps, &Progress::silent(), |_, _, _| {})?;
        Ok(vec![trainer.bridge().loss(x0.view(), x1.view())?])
    };
    // Batches are drawn differently on both sides: the losses reached differ by the noise of the last batches.
    Case { name, says, inputs, settings, work: Box::new(work), agreement: Agreement::AtMost(0.02), goal: Some(0.2) }
}

/// The entropic plan between two clouds to a marginal error of 1e-6; the answer is its transport cost.
fn discrete(name: &'static str, (x0, x1): (Array2<f64>, Array2<f64>)) -> Case {
    let settings = json!({ "epsilon": 0.1, "tolerance": 1e-6 });
    let inputs = vec![("x0", x0.clone().into()), ("x1", x1.clone().into())];
    let work = move || {
        let cost = half_squared_distances(x0.view(), x1.view());
        let (a, b) = (Array1::from_elem(x0.nrows(), 1e-3), Array1::from_elem(x1.nrows(), 1e-3));
        let options = sinkhorn::Options { tolerance: 1e-6, max_iterations: 100_000 };
        let solution = sinkhorn(cost.view(), a.view(), b.view(), 0.1, options, &Progress::silent())?;
        Ok(vec![(solution.plan(cost.view(), a.view(), b.view()) * &cost).sum()])
    };
    let says = "entropic plan between 1000 and 1000 points of the plane, ε = 0.1, to a marginal error of 1e-6".into();
    Case { name, says, inputs, settings, work: Box::new(work), agreement: Agreement::Within(1e-4), goal: None }
}
