//! What a run tells: the blocks, the other choices, the stages, the files.

use super::choice::Choice;
use super::finetune::post_training;
use super::problem::{Problem, Score};
use super::run::{HawqParams, Outcome};
use crate::allocate::{Budget, Solver};
use crate::export::{export, layer_tensors, packed_bytes};
use crate::model::{Quality, evaluate};
use crate::quantiser::Scheme;
use offprint_core::figure::{Axis, Figure, Plot};
use offprint_core::{Error, Result, Run, Table};
use offprint_nn::layers::substitute::Substitute;
use offprint_nn::{Batch, Network, Reads};
use serde_json::json;
use std::rc::Rc;

/// Reports `outcome`; other choices are rounded and evaluated on `test` and on the `samples` of the curvature.
pub(super) fn run(
    params: &HawqParams,
    outcome: &Outcome,
    samples: &Batch,
    test: &Batch,
    template: Scheme,
    run: &mut Run,
) -> Result<()> {
    let within = || outcome.activations.clone().map(|a| a as Rc<dyn Substitute>);
    let of_tokens = matches!(outcome.float.architecture().reads(), Reads::Tokens { .. });
    let (measure, value): (&str, fn(&Quality) -> f64) =
        if of_tokens { ("perplexity", Quality::perplexity) } else { ("accuracy", |q| q.accuracy) };
    let before = evaluate(&outcome.float, test, None)?;
    let rounded = post_training(&outcome.float, &outcome.blocks, &outcome.bits, template)?;
    let after = evaluate(&outcome.tuned.network, test, within())?;
    run.metric(&format!("{measure} of the float network"), value(&before), "");
    run.metric(&format!("{measure}, rounded"), value(&evaluate(&rounded.network, test, within())?), "");
    if params.epochs > 0 {
        run.metric(&format!("{measure}, fine-tuned"), value(&after), "");
    }
    let (weights, bits) = (outcome.problem.size(&vec![1; outcome.bits.len()]), outcome.problem.size(&outcome.bits));
    run.metric("size of quantised weights", packed_bytes(&outcome.tuned.layers)? as f64 / 1e3, "kB");
    run.metric("smaller than in floats", 32.0 * weights as f64 / bits as f64, "×");
    run.metric("mean bits of a weight", bits as f64 / weights as f64, "bit");
    let scores: Vec<f64> = outcome.found.iter().map(|s| s.score()).filter(|s| *s > 0.0).collect();
    let (low, high) = scores.iter().fold((f64::INFINITY, 0.0f64), |(l, h), &s| (l.min(s), h.max(s)));
    if low.is_finite() {
        run.metric("largest S over smallest", high / low, "");
    }
    let bops: u64 = outcome.blocks.iter().zip(&outcome.bits).map(|(b, &w)| b.multiplications() * u64::from(w)).sum();
    run.metric("bit operations a sample", bops as f64 * f64::from(outcome.problem.activation_bits) / 1e6, "Mbop");
    blocks(params, outcome, run)?;
    if !params.alone {
        choices(params, outcome, samples, test, template, run)?;
    }
    stages(outcome, run)?;
    files(params, outcome, run)
}

fn blocks(params: &HawqParams, outcome: &Outcome, run: &mut Run) -> Result<()> {
    let found = &outcome.found;
    let ranking = super::problem::rank(&outcome.problem.scores);
    let place = |order: &[usize], block: usize| order.iter().position(|&b| b == block).map_or(0, |at| at as i64 + 1);
    let all = || 0..outcome.blocks.len();
    let norms = if params.fold { "folded into the convolutions" } else { "left beside them" };
    let caption = format!(
        "A block's curvature and what it got, batch norms {norms}. S = λ/n ranks; Ω = λ‖Q(W) − W‖² says when it is quantised."
    );
    run.table(
        Table::new("blocks", caption)
            .words("block", found.iter().map(|s| s.block.clone()))
            .integers("n", "", found.iter().map(|s| s.weights as i64))
            .numbers("λ", "", found.iter().map(|s| s.eigenvalue))
            .numbers("S", "", found.iter().map(|s| s.score()))
            .integers("rank", "", all().map(|b| place(&ranking, b)))
            .integers("bits", "bit", outcome.bits.iter().map(|&b| i64::from(b)))
            .numbers("‖Q(W) − W‖²", "", outcome.errors.iter().copied())
            .numbers("Ω", "", all().map(|b| found[b].eigenvalue * outcome.errors[b]))
            .integers("quantised as", "", all().map(|b| place(&outcome.order, b))),
    )?;
    run.save_table(
        "curvature.csv",
        &Table::new("curvature", "")
            .words("block", found.iter().map(|s| s.block.clone()))
            .numbers("λ", "", found.iter().map(|s| s.eigenvalue))
            .numbers("eigenvalue of largest magnitude", "", found.iter().map(|s| s.dominant))
            .numbers("relative residual", "", found.iter().map(|s| s.residual))
            .integers("products", "", found.iter().map(|s| s.products as i64))
            .numbers("trace", "", found.iter().map(|s| s.trace))
            .numbers("standard error of the trace", "", found.iter().map(|s| s.trace_error))
            .integers("sign vectors", "", found.iter().map(|s| s.probes as i64)),
    )?;
    // Too many names would stand on top of each other.
    let names: Vec<String> = match found.len() {
        0..=12 => found.iter().map(|s| s.block.clone()).collect(),
        n => (1..=n).map(|at| if at % (n / 8) == 1 { at.to_string() } else { String::new() }).collect(),
    };
    let axis = || Axis::categories("block", names.clone());
    let positive = |x: f64| if x > 0.0 { x } else { f64::NAN };
    run.figure(
        "blocks",
        Figure::new(
            "How sensitive blocks are, and the bits they got",
            "Left: the largest eigenvalue of a block's Hessian over its number of weights, and the trace over the same. \
             Right: bits of its weights.",
        )
        .columns(2)
        .panel(
            Plot::new(axis(), Axis::log("curvature a weight"))
                .line("λ/n", all().map(|b| b as f64).collect(), found.iter().map(|s| positive(s.score())).collect())
                .line("trace/n", all().map(|b| b as f64).collect(), found.iter().map(|s| positive(s.mean_trace())).collect()),
        )
        .panel(
            Plot::new(axis(), Axis::new("bits of weights").unit("bit").limits(0.0, 8.5))
                .bars("", outcome.bits.iter().map(|&b| f64::from(b)).collect()),
        ),
    );
    Ok(())
}

/// A way to choose, and what came of it.
struct Tried {
    name: &'static str,
    bits: Vec<u32>,
    size: u64,
    violations: usize,
    loss: f64,
    quality: Quality,
}

/// Rounds the network by every choice within the same budget.
fn choices(
    params: &HawqParams,
    outcome: &Outcome,
    samples: &Batch,
    test: &Batch,
    template: Scheme,
    run: &mut Run,
) -> Result<()> {
    let budget = match params.assign.is_empty() {
        true => params.budget.parse().map_err(|e: String| Error::input("budget", e))?,
        // What the given bits take.
        false => Budget::Bytes(outcome.problem.size(&outcome.bits).div_ceil(8)),
    };
    let (network, blocks): (&Network, _) = (&outcome.float, &outcome.blocks);
    let of = |score| -> Result<Problem> {
        let problem = Problem::new(network, blocks, &outcome.found, score, &params.bits, template, samples)?;
        let activation_bits = outcome.problem.activation_bits;
        Ok(Problem { pinned: outcome.problem.pinned.clone(), activation_bits, ..problem })
    };
    let (eigenvalue, trace) = (of(Score::Eigenvalue)?, of(Score::Trace)?);
    let (inverse, magnitude, measured) = (of(Score::InverseSize)?, of(Score::Magnitude)?, of(Score::Measured)?);
    let ways: [(&'static str, &Problem, Choice); 11] = [
        ("λ/n, monotone (HAWQ)", &eigenvalue, Choice::Monotone),
        ("λ/n, exact", &eigenvalue, Choice::By(Solver::Exact)),
        ("trace/n, monotone (V2)", &trace, Choice::Monotone),
        ("trace/n, exact (V3)", &trace, Choice::By(Solver::Exact)),
        ("λ/n, greedy", &eigenvalue, Choice::By(Solver::Greedy)),
        ("1/n, monotone", &inverse, Choice::Monotone),
        ("error alone, exact", &magnitude, Choice::By(Solver::Exact)),
        ("measured Δloss, exact", &measured, Choice::By(Solver::Exact)),
        ("uniform", &eigenvalue, Choice::Uniform),
        ("λ/n, random monotone", &eigenvalue, Choice::Random),
        ("λ/n, reversed", &eigenvalue, Choice::Reversed),
    ];
    let progress = run.progress();
    progress.begin("other choices of bits", ways.len() as u64);
    let mut tried = Vec::new();
    for (name, problem, choice) in ways {
        let bits = match problem.choose(&choice, budget, run.stream("other bits")) {
            Ok(bits) => bits,
            // Given bits may be fewer than those to choose from.
            Err(error @ Error::Parameter { .. }) => {
                run.warn(format!("other choices of bits are left out: {error}"));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let rounded = post_training(network, blocks, &bits, template)?.network;
        let within = || outcome.activations.clone().map(|a| a as Rc<dyn Substitute>);
        tried.push(Tried {
            name,
            size: problem.size(&bits),
            violations: eigenvalue.violations(&bits).len(),
            loss: evaluate(&rounded, samples, within())?.loss,
            quality: evaluate(&rounded, test, within())?,
            bits,
        });
        progress.advance(1)?;
    }
    progress.finish();
    let words = |bits: &[u32]| bits.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    run.table(
        Table::new(
            "choices",
            "Ways to choose bits within one budget, weights rounded and nothing trained. Bits in the order of blocks.",
        )
        .words("choice", tried.iter().map(|t| t.name))
        .words("bits", tried.iter().map(|t| words(&t.bits)))
        .numbers("size", "kB", tried.iter().map(|t| t.size as f64 / 8e3))
        .integers("against the ranking", "pairs", tried.iter().map(|t| t.violations as i64))
        .numbers("training loss", "nat", tried.iter().map(|t| t.loss))
        .numbers("test loss", "nat", tried.iter().map(|t| t.quality.loss))
        .numbers("test accuracy", "", tried.iter().map(|t| t.quality.accuracy)),
    )?;
    let mut plot = Plot::new(Axis::new("size of weights").unit("kB"), Axis::log("test loss, rounded").unit("nat"));
    for group in ["λ/n, monotone (HAWQ)", "λ/n, reversed", "uniform", "measured Δloss, exact", ""] {
        let chosen: Vec<&Tried> = match group {
            "" => tried[1..]
                .iter()
                .filter(|t| !["λ/n, reversed", "uniform", "measured Δloss, exact"].contains(&t.name))
                .collect(),
            name => tried.iter().filter(|t| t.name == name).collect(),
        };
        let name = if group.is_empty() { "other choices" } else { group };
        let x = chosen.iter().map(|t| t.size as f64 / 8e3).collect();
        plot = plot.points(name, x, chosen.iter().map(|t| t.quality.loss).collect(), 4.0);
    }
    run.figure(
        "choices",
        Figure::new(
            "Loss against size for every way to choose",
            "Weights rounded, nothing trained. Lower and further left is better; the reversed bits may exceed the budget.",
        )
        .panel(plot.horizontal("float", evaluate(network, test, None)?.loss)),
    );
    Ok(())
}

fn stages(outcome: &Outcome, run: &mut Run) -> Result<()> {
    let stages = &outcome.tuned.stages;
    if stages.is_empty() {
        return Ok(());
    }
    run.table(
        Table::new(
            "stages",
            "Block by block: training loss right after rounding it, and after the training that followed.",
        )
        .words("block", stages.iter().map(|s| s.block.clone()))
        .integers("bits", "bit", stages.iter().map(|s| i64::from(s.bits)))
        .numbers("loss, rounded", "nat", stages.iter().map(|s| s.rounded))
        .numbers("loss, trained", "nat", stages.iter().map(|s| s.trained)),
    )?;
    let (x, y) = stages
        .iter()
        .enumerate()
        .flat_map(|(at, s)| [(at as f64 + 0.5, s.rounded), (at as f64 + 1.0, s.trained)])
        .unzip();
    run.figure(
        "stages",
        Figure::new(
            "Quantising block by block",
            "Training loss: up where a block is rounded (halves), down where the network is trained after it (whole numbers).",
        )
        .panel(Plot::new(Axis::new("blocks done"), Axis::log("training loss").unit("nat")).line("", x, y)),
    );
    Ok(())
}

/// `hawq.json`, and the network in the format asked for.
fn files(params: &HawqParams, outcome: &Outcome, run: &mut Run) -> Result<()> {
    let folded = params.fold;
    let entries: Vec<_> = outcome
        .blocks
        .iter()
        .enumerate()
        .map(|(b, block)| {
            let position = outcome.order.iter().position(|&o| o == b);
            let layers: Vec<_> = block.layers.iter().map(|layer| &layer.name).collect();
            let trace = Some(outcome.found[b].trace).filter(|trace| trace.is_finite());
            json!({
                "block": block.name, "layers": layers, "weights": block.weights(), "bits": outcome.bits[b],
                "eigenvalue": outcome.found[b].eigenvalue, "score": outcome.found[b].score(),
                "trace": trace, "squared_error": outcome.errors[b],
                "omega": outcome.found[b].eigenvalue * outcome.errors[b], "quantised_as": position.map(|p| p + 1),
            })
        })
        .collect();
    let document = json!({
        "blocks": entries, "layers": outcome.tuned.records, "stages": outcome.tuned.stages, "batch_norms_folded": folded,
        "activations": outcome.activations.as_ref().map(|a| a.ranges()).transpose()?.map(|ranges| {
            json!({ "bits": params.activations, "ranges": ranges })
        }),
    });
    run.save_json("hawq.json", &document)?;
    match run.out() {
        Some(out) => {
            let directory = out.join("model");
            let bytes = export(&outcome.tuned.network, &outcome.tuned.layers, params.format, &directory)?;
            run.metric("size of the exported network", bytes as f64 / 1e3, "kB");
        }
        // A run that keeps nothing still tells whether the format could hold the layers.
        None if params.format != crate::export::Format::Gguf => {
            outcome.tuned.layers.iter().try_for_each(|layer| layer_tensors(layer, params.format).map(|_| ()))?;
        }
        None => {}
    }
    Ok(())
}
