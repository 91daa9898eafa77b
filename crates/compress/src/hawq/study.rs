//! The claims, measured.

use super::blocks::{Block, partition};
use super::choice::Choice;
use super::curvature::{Finder, Measuring, Sensitivity, sensitivities};
use super::finetune::{Assigned, FineTuning, Optimiser, fine_tune, post_training};
use super::problem::{Problem, Score, errors, rank, tensor_wide};
use super::{Hawq, resnet18};
use crate::allocate::{Budget, Solver, exact};
use crate::examples::Example;
use crate::model::{Quality, evaluate};
use candle_core::DType;
use offprint_core::figure::{Axis, Figure, Plot};
use offprint_core::{Error, Result, Run, Study, Table};
use offprint_math::stats::{mean, standard_deviation};
use offprint_nn::data::{Digits, digits};
use offprint_nn::zoo::Zoo;
use offprint_nn::{Architecture, Batch, Network};
use std::time::Instant;

/// The bits of the ablation, the most sensitive block first.
const BITS: [u32; 5] = [8, 4, 4, 2, 2];
/// Samples that curvature is measured over.
const SAMPLES: usize = 512;
/// Networks of the first claims; the order of fine-tuning is compared on more.
const SEEDS: usize = 3;

impl Study for Hawq {
    fn measure(run: &mut Run) -> Result<()> {
        let mut data = digits(DType::F32)?;
        let samples = run.scale().pick(SAMPLES, data.train.len(), data.train.len());
        data.train = data.train.narrow(0, samples).map_err(offprint_nn::computation)?;
        let looks = networks(run)?.iter().map(|network| look(network, &data, run)).collect::<Result<Vec<_>>>()?;
        let few = &looks[..looks.len().min(SEEDS)];
        spread(few, run)?;
        ablation(few, &data, run)?;
        baselines(few, &data, run)?;
        order(&looks, &data, run)?;
        published(run)?;
        run.not_measured(
            "cifar10",
            "needs CIFAR-10 and hours of training ResNet-20 on a GPU; `--cifar10` takes a trained one",
        )?;
        for id in ["imagenet-inception", "imagenet-resnet50", "imagenet-squeezenext"] {
            run.not_measured(id, "needs ImageNet, which a user must bring, and a GPU")?;
        }
        Ok(())
    }
}

/// `digits-cnn` trained from several seeds.
fn networks(run: &Run) -> Result<Vec<Network>> {
    let count: u64 = run.scale().pick(1, 5, 10);
    let built_in = Example::DigitsCnn.load()?.network;
    let trained = (1..count).map(|seed| {
        let trained = Zoo::new(run.seed() + seed, run.scale()).digits_cnn(&run.progress())?;
        Network::with_tensors(&Architecture::DigitsCnn { classes: 10 }, &trained.params.snapshot()?, DType::F32)
    });
    std::iter::once(Ok(built_in)).chain(trained).collect()
}

/// A network with what is known of its blocks.
struct Look {
    network: Network,
    blocks: Vec<Block>,
    found: Vec<Sensitivity>,
    problem: Problem,
    /// Largest relative difference between λ by power iteration and by ten Lanczos steps.
    disagreement: f64,
}

impl Look {
    /// `bits` in the order of the ranking, by block.
    fn given(&self, bits: &[u32], run: &Run) -> Result<Vec<u32>> {
        self.problem.choose(&Choice::Given(bits.to_vec()), Budget::Bytes(u64::MAX / 8), run.stream("bits"))
    }

    fn assigned<'a>(&'a self, bits: &'a [u32]) -> Assigned<'a> {
        Assigned { network: &self.network, blocks: &self.blocks, bits }
    }
}

fn look(network: &Network, data: &Digits, run: &Run) -> Result<Look> {
    let blocks = partition(&network.layers()?, &[])?;
    let samples = data.train.narrow(0, SAMPLES).map_err(offprint_nn::computation)?;
    let measure =
        |measuring| sensitivities(network, &blocks, &samples, measuring, run.stream("curvature"), &run.progress());
    let found = measure(Measuring::default())?;
    let lanczos = measure(Measuring { finder: Finder::Lanczos, products: 10, probes: 0, ..Measuring::default() })?;
    let apart = found.iter().zip(&lanczos).map(|(a, b)| (a.eigenvalue / b.eigenvalue - 1.0).abs());
    let problem = Problem::new(network, &blocks, &found, Score::Eigenvalue, &[8, 4, 2], tensor_wide(), &samples)?;
    Ok(Look { network: network.copy()?, disagreement: apart.fold(0.0, f64::max), blocks, found, problem })
}

fn spread(looks: &[Look], run: &mut Run) -> Result<()> {
    let ratio = |look: &Look| {
        let scores = || look.found.iter().map(Sensitivity::score);
        scores().fold(0.0, f64::max) / scores().fold(f64::INFINITY, f64::min)
    };
    let names = |look: &Look| look.problem.ranking().iter().map(|&b| look.blocks[b].name.clone()).collect::<Vec<_>>();
    let orders: Vec<String> = looks.iter().map(|look| names(look).join(" > ")).collect();
    let apart = looks.iter().map(|look| look.disagreement).fold(0.0, f64::max);
    let how = format!(
        "digits-cnn, {SAMPLES} training samples, {} seeds; order {}; ten Lanczos steps differ from power iteration by up to {:.1} %",
        looks.len(),
        orders.join(", "),
        100.0 * apart
    );
    run.claim("spread", looks.iter().map(ratio).fold(f64::INFINITY, f64::min), how)?;
    let rows = || looks.iter().enumerate().flat_map(|(seed, look)| look.found.iter().map(move |s| (seed, s)));
    run.table(
        Table::new(
            "curvature",
            "The Hessian of each block of each network: λ by power iteration, trace by Hutchinson's estimator.",
        )
        .integers("seed", "", rows().map(|(seed, _)| seed as i64))
        .words("block", rows().map(|(_, s)| s.block.clone()))
        .integers("n", "", rows().map(|(_, s)| s.weights as i64))
        .numbers("λ", "", rows().map(|(_, s)| s.eigenvalue))
        .numbers("residual", "", rows().map(|(_, s)| s.residual))
        .integers("products", "", rows().map(|(_, s)| s.products as i64))
        .numbers("S", "", rows().map(|(_, s)| s.score()))
        .numbers("trace/n", "", rows().map(|(_, s)| s.mean_trace())),
    )
}

/// How good a network is with its weights rounded.
fn rounded(look: &Look, bits: &[u32], samples: &Batch) -> Result<Quality> {
    evaluate(&post_training(&look.network, &look.blocks, bits, tensor_wide())?.network, samples, None)
}

/// The distinct orders of [`BITS`].
fn permutations() -> Vec<Vec<u32>> {
    let mut all: Vec<Vec<u32>> = vec![Vec::new()];
    for _ in 0..BITS.len() {
        let longer = |some: &Vec<u32>| -> Vec<Vec<u32>> {
            let left =
                |bits: u32| BITS.iter().filter(|&&b| b == bits).count() - some.iter().filter(|&&b| b == bits).count();
            let next = [8, 4, 2].into_iter().filter(|&bits| left(bits) > 0);
            next.map(|bits| some.iter().copied().chain([bits]).collect()).collect()
        };
        all = all.iter().flat_map(longer).collect();
    }
    all
}

/// The ranking's bits beside the same bits reversed, and all other orders of them.
fn ablation(looks: &[Look], data: &Digits, run: &mut Run) -> Result<()> {
    let reversed: Vec<u32> = BITS.iter().rev().copied().collect();
    let (mut ratio, mut sizes, mut better) = (0.0f64, 0.0f64, 0usize);
    let (mut words, mut places) = (Vec::new(), Vec::new());
    let mut figure = Figure::new(
        "All 30 orders of the bits 8, 4, 4, 2, 2 over five blocks",
        "Weights rounded, nothing trained. No order should be both smaller and better than the ranking's.",
    )
    .columns(looks.len());
    let mut table = Vec::new();
    for (seed, look) in looks.iter().enumerate() {
        let (ours, theirs) = (look.given(&BITS, run)?, look.given(&reversed, run)?);
        let all = permutations()
            .into_iter()
            .map(|bits| Ok((look.problem.size(&bits) as f64 / 8.0, rounded(look, &bits, &data.train)?.loss, bits)))
            .collect::<Result<Vec<_>>>()?;
        let of = |bits: &Vec<u32>| all.iter().find(|(_, _, b)| b == bits).map(|(size, loss, _)| (*size, *loss));
        let missing = || Error::Numerical("an order of the bits is missing".into());
        let ((size, loss), (other_size, other_loss)) =
            (of(&ours).ok_or_else(missing)?, of(&theirs).ok_or_else(missing)?);
        ratio = ratio.max(loss / other_loss);
        sizes = sizes.max(size / other_size);
        better = better.max(all.iter().filter(|(s, l, bits)| *s <= size && *l < loss && *bits != ours).count());
        places.push(1 + all.iter().filter(|(_, l, _)| *l < loss).count());
        let accuracy = |bits: &[u32]| Ok::<_, Error>(rounded(look, bits, &data.test)?.accuracy);
        let tuned = |bits: &[u32]| -> Result<f64> {
            let settings =
                FineTuning { refine_all: true, optimiser: Optimiser::Adam { rate: 3e-4 }, ..FineTuning::default() };
            let order = omegas(look, bits)?;
            let stream = run.stream("ablation").nested(seed as u64).stream("fine-tuning");
            let tuned = fine_tune(look.assigned(bits), &order, &data.train, None, settings, stream, &run.progress())?;
            Ok(evaluate(&tuned.network, &data.test, None)?.accuracy)
        };
        let row = [accuracy(&ours)?, accuracy(&theirs)?, tuned(&ours)?, tuned(&theirs)?];
        words.push(format!("{loss:.3} beside {other_loss:.3}"));
        table.push((seed, size, other_size, loss, other_loss, row));
        let others: Vec<_> = all.iter().filter(|(_, _, bits)| *bits != ours && *bits != theirs).collect();
        figure = figure.panel(
            Plot::new(Axis::new("size of weights").unit("kB"), Axis::log("training loss").unit("nat"))
                .titled(format!("seed {seed}"))
                .points(
                    "other orders",
                    others.iter().map(|a| a.0 / 1e3).collect(),
                    others.iter().map(|a| a.1).collect(),
                    3.0,
                )
                .points("by λ/n", vec![size / 1e3], vec![loss], 5.0)
                .points("reversed", vec![other_size / 1e3], vec![other_loss], 5.0),
        );
    }
    let how =
        format!("bits 8 4 4 2 2 by rank, each tensor from least to greatest; training losses {}", words.join(", "));
    run.claim("beats-reverse", ratio, how.clone())?;
    run.claim(
        "smaller-than-reverse",
        sizes,
        format!("9680 B where the order is conv1, conv2, fc, conv3, conv4; {how}"),
    )?;
    run.claim(
        "front",
        better as f64,
        format!("{how}; by loss alone it is number {places:?} of 30: larger orders win there"),
    )?;
    run.figure("orders", figure);
    run.table(
        Table::new(
            "ablation",
            "The ranking's bits and the same reversed; fine-tuned block by block, an epoch each, all blocks refined.",
        )
        .integers("seed", "", table.iter().map(|t| t.0 as i64))
        .numbers("size", "B", table.iter().map(|t| t.1))
        .numbers("reversed ", "B", table.iter().map(|t| t.2))
        .numbers("training loss", "nat", table.iter().map(|t| t.3))
        .numbers("reversed", "nat", table.iter().map(|t| t.4))
        .numbers("test accuracy", "", table.iter().map(|t| t.5[0]))
        .numbers("accuracy, reversed", "", table.iter().map(|t| t.5[1]))
        .numbers("fine-tuned", "", table.iter().map(|t| t.5[2]))
        .numbers("fine-tuned, reversed", "", table.iter().map(|t| t.5[3])),
    )
}

/// Blocks in the order of falling Ω = λ ‖Q(W) − W‖².
fn omegas(look: &Look, bits: &[u32]) -> Result<Vec<usize>> {
    let omega = |b: usize| -> Result<f64> {
        let error = errors(&look.network, &look.blocks[b..=b], &bits[b..=b], tensor_wide())?[[0, 0]];
        Ok(look.found[b].eigenvalue * error)
    };
    Ok(rank(&(0..bits.len()).map(omega).collect::<Result<Vec<_>>>()?))
}

/// Every way to choose within the bytes that the ablation's ranking takes.
fn baselines(looks: &[Look], data: &Digits, run: &mut Run) -> Result<()> {
    let budget = Budget::Bytes(9680);
    let ways: [(&str, Score, Choice); 10] = [
        ("λ/n, monotone (HAWQ)", Score::Eigenvalue, Choice::Monotone),
        ("λ/n, exact", Score::Eigenvalue, Choice::By(Solver::Exact)),
        ("trace/n, monotone (V2)", Score::Trace, Choice::Monotone),
        ("trace/n, exact (V3)", Score::Trace, Choice::By(Solver::Exact)),
        ("1/n, monotone", Score::InverseSize, Choice::Monotone),
        ("error alone, exact", Score::Magnitude, Choice::By(Solver::Exact)),
        ("measured Δloss, exact", Score::Measured, Choice::By(Solver::Exact)),
        ("uniform", Score::Eigenvalue, Choice::Uniform),
        ("random monotone", Score::Eigenvalue, Choice::Random),
        ("reversed (larger)", Score::Eigenvalue, Choice::Reversed),
    ];
    let samples = data.train.narrow(0, SAMPLES).map_err(offprint_nn::computation)?;
    let (mut sizes, mut losses) = (vec![Vec::new(); ways.len()], vec![Vec::new(); ways.len()]);
    for (seed, look) in looks.iter().enumerate() {
        for (way, (_, score, choice)) in ways.iter().enumerate() {
            let problem =
                Problem::new(&look.network, &look.blocks, &look.found, *score, &[8, 4, 3, 2], tensor_wide(), &samples)?;
            let bits = problem.choose(choice, budget, run.stream("baselines").nested(seed as u64).stream("bits"))?;
            sizes[way].push(problem.size(&bits) as f64 / 8.0);
            losses[way].push(rounded(look, &bits, &data.train)?.loss);
        }
    }
    run.table(
        Table::new(
            "baselines",
            "Ways to choose among 2, 3, 4 and 8 bits within 9680 B; weights rounded. Means over networks.",
        )
        .words("choice", ways.iter().map(|(name, ..)| *name))
        .numbers("size", "B", sizes.iter().map(|s| mean(s)))
        .numbers("training loss", "nat", losses.iter().map(|l| mean(l)))
        .numbers("smallest", "nat", losses.iter().map(|l| l.iter().copied().fold(f64::INFINITY, f64::min)))
        .numbers("largest", "nat", losses.iter().map(|l| l.iter().copied().fold(0.0, f64::max))),
    )
}

/// Blocks quantised in the order of falling Ω, and of rising.
fn order(looks: &[Look], data: &Digits, run: &mut Run) -> Result<()> {
    // A spread needs at least two trainings.
    let repeats = run.scale().pick(2, 1, 1);
    let settings = FineTuning { optimiser: Optimiser::Adam { rate: 3e-4 }, ..FineTuning::default() };
    let (mut falling, mut rising) = (Vec::new(), Vec::new());
    for (number, look) in looks.iter().enumerate() {
        let bits = look.given(&BITS, run)?;
        let order = omegas(look, &bits)?;
        let backwards: Vec<usize> = order.iter().rev().copied().collect();
        for repeat in 0..repeats {
            let stream = run.stream("order").nested((number * repeats + repeat) as u64).stream("fine-tuning");
            for (order, losses) in [(&order, &mut falling), (&backwards, &mut rising)] {
                let tuned =
                    fine_tune(look.assigned(&bits), order, &data.train, None, settings, stream, &run.progress())?;
                losses.push(evaluate(&tuned.network, &data.train, None)?.loss);
            }
        }
    }
    let gains: Vec<f64> = rising.iter().zip(&falling).map(|(r, f)| r - f).collect();
    let how = format!(
        "{} trainings a side, bits 8 4 4 2 2 by rank, an epoch of Adam at 3e-4 a block; final training loss {:.4} falling, {:.4} \
         rising, difference {:.4} with a standard deviation of {:.4}",
        gains.len(),
        mean(&falling),
        mean(&rising),
        mean(&gains),
        standard_deviation(&gains)
    );
    run.claim("order", mean(&gains) / standard_deviation(&gains), how)?;
    run.table(
        Table::new("order", "Final training loss by the order in which blocks are quantised.")
            .integers("training", "", (0..gains.len()).map(|i| i as i64))
            .numbers("Ω falling", "nat", falling.iter().copied())
            .numbers("Ω rising", "nat", rising.iter().copied()),
    )
}

/// HAWQ-V3's ResNet-18, from published numbers.
fn published(run: &mut Run) -> Result<()> {
    let limits = [0.25, 0.5, 0.75];
    let (mut slowest, mut rows) = (0.0f64, Vec::new());
    for limit in limits {
        let instance = resnet18::instance(limit);
        let started = Instant::now();
        let best = exact(&instance.options, instance.budget)?;
        slowest = slowest.max(started.elapsed().as_secs_f64() * 1e3);
        let bits = instance.bits(&best.choices);
        let violations = resnet18::violations(&bits);
        rows.push((bits, best, violations));
    }
    let how = format!(
        "19 layers, 4 or 8 bits, three ties, size at most size₄ + t (size₈ − size₄) for t = 1/4, 1/2, 3/4; the optimum breaks the \
         ranking by trace/n in {:?} pairs",
        rows.iter().map(|r| r.2.len()).collect::<Vec<_>>()
    );
    run.claim("resnet18-exact", slowest, how)?;
    let words = |bits: &[u32]| bits.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    let pairs = |pairs: &[(usize, usize)]| pairs.iter().map(|(a, b)| format!("{a}<{b}")).collect::<Vec<_>>().join(" ");
    run.table(
        Table::new("resnet18", "The optimum for HAWQ-V3's ResNet-18, and the pairs (more sensitive < less sensitive) that have bits against the ranking.")
            .numbers("t", "", limits)
            .words("bits of layers 0 to 18", rows.iter().map(|r| words(&r.0)))
            .numbers("cost", "", rows.iter().map(|r| r.1.cost))
            .numbers("size", "MB", rows.iter().map(|r| r.1.size as f64 / 8e6))
            .words("against the ranking", rows.iter().map(|r| pairs(&r.2))),
    )
}
