//! The claims, measured.

use super::base::Base;
use super::choose::Choice;
use super::data::{Samples, digits_mlp, digits_samples};
use super::graph::examples;
use super::measure::{difference, latencies};
use super::net::Net;
use super::optimizer::{Pace, Ranking, Settings, prune_now};
use super::run::HessoPaper;
use super::saliency::{Criteria, Criterion};
use super::space::{Inside, Space};
use super::subnet::compact;
use super::train::{Quality, Training, judge};
use super::ways::{Pruning, Way, kept};
use candle_core::{DType, Device, Tensor};
use offprint_core::figure::{Axis, Figure, Plot};
use offprint_core::{Result, Run, Study, Table};
use offprint_math::stats::{mean, standard_deviation};
use offprint_nn::derivatives::Loss;
use offprint_nn::models::{ResNetConfig, ViTConfig};
use offprint_nn::ops::Mode;
use offprint_nn::optim::{AdamSettings, SgdSettings};
use offprint_nn::train::Schedule;
use offprint_nn::{Architecture, Network, computation};
use rand_distr::{Distribution, StandardNormal};
use std::sync::Arc;

impl Study for HessoPaper {
    fn measure(run: &mut Run) -> Result<()> {
        search(run)?;
        cuts(run)?;
        exactness(run)?;
        accuracy(run)?;
        bottleneck(run)?;
        criteria(run)?;
        speed(run)?;
        run.not_measured(
            "cifar10",
            "CIFAR-10 is not built in, and 100 epochs of ResNet-18 take days on two cores. Train your own: offprint run \
             hesso --model DIR --data images.npy --targets classes.npy --epochs 100 --batch 64 --weight-decay 1e-4",
        )
    }
}

/// The published groups of ResNet-18.
fn search(run: &mut Run) -> Result<()> {
    let config = ResNetConfig { channels: 3, widths: vec![64, 128, 256, 512], blocks: 2, classes: 10 };
    let net = Net::of(&Network::fresh(&Architecture::ResNet(config), run.seed(), DType::F32)?, &[3, 32, 32])?;
    let space = Arc::new(Space::search(&net, Inside::Heads, &[])?);
    let how = format!("{} components of tied layers", space.components.len());
    run.claim("resnet18-groups", space.groups.len() as f64, how)?;
    let groups = prune_now(net.params(), space.clone(), &at_once(Ranking::Saliency(Criteria::MIXTURE), 0.7))?;
    let removed = groups.is_pruned();
    let small = compact(&net, &space, &removed)?;
    let share = small.params().count() as f64 / net.params().count() as f64;
    run.metric("share of ResNet-18's parameters left at K = 0.7, untrained", share, "");
    run.claim("resnet18-target", removed.iter().filter(|&&r| r).count() as f64, "fresh weights, in one step")
}

/// Settings of a choice made once.
fn at_once(ranking: Ranking, sparsity: f64) -> Settings {
    let choice = Choice { divisible: 1, compat: false };
    Settings { sparsity, start: 0, steps: 1, periods: 1, choice, ranking, pace: Pace::AtOnce }
}

/// Networks of every coupling beside what a cut leaves of them.
fn cuts(run: &mut Run) -> Result<()> {
    for (claim, dtype) in [("compact-f32", DType::F32), ("compact-f64", DType::F64)] {
        let (mut worst, mut tried) = (0.0f64, 0);
        for (number, name) in (0u64..).zip(examples::NAMES) {
            for inside in [Inside::Heads, Inside::HeadDims] {
                let Some(net) = examples::example(name, run.seed(), dtype) else { continue };
                let net = net?;
                let mut rng = run.stream("inputs").rng(number);
                let shape = [&[16], net.graph().input().0].concat();
                let x: Vec<f64> = (0..shape.iter().product()).map(|_| StandardNormal.sample(&mut rng)).collect();
                let x =
                    Tensor::from_vec(x, shape, &Device::Cpu).and_then(|x| x.to_dtype(dtype)).map_err(computation)?;
                // Gives batch norms statistics to be cut.
                net.forward_in(&x, Mode::Training).map_err(computation)?;
                let space = Arc::new(Space::search(&net, inside, &[])?);
                let chance = Ranking::Random(run.stream("chance"));
                let removed = prune_now(net.params(), space.clone(), &at_once(chance, 0.5))?.is_pruned();
                worst = worst.max(difference(&net, &compact(&net, &space, &removed)?, &x)?);
                tried += 1;
            }
        }
        run.claim(claim, worst, format!("{tried} cuts of half the groups, drawn by chance, 16 random inputs each"))?;
    }
    Ok(())
}

/// One training with pruning, judged.
struct Trial {
    accuracy: f64,
    /// Share of the parameters left.
    share: f64,
    removed: usize,
    target: usize,
    /// Groups left in each component.
    kept: Vec<usize>,
    full: Net,
    compact: Net,
}

fn trial(run: &Run, net: Net, samples: &Samples, pruning: &Pruning, epochs: u64, batch: usize) -> Result<Trial> {
    let space = Arc::new(Space::search(&net, Inside::Heads, &[])?);
    let training = Training {
        data: &samples.train,
        loss: Loss::CrossEntropy,
        epochs,
        batch,
        schedule: Schedule::cosine(),
        order: run.stream("batches"),
    };
    let outcome = pruning.run(&net, &space, &training, &run.progress())?;
    let small = compact(&net, &space, &outcome.removed)?;
    let Quality { accuracy, .. } = judge(&small, &samples.test, Loss::CrossEntropy)?;
    Ok(Trial {
        accuracy: accuracy.unwrap_or(f64::NAN),
        share: small.params().count() as f64 / net.params().count() as f64,
        removed: outcome.removed.iter().filter(|&&removed| removed).count(),
        target: outcome.target,
        kept: kept(&space, &outcome.removed),
        full: net,
        compact: small,
    })
}

/// The dossier's recipe for the perceptron: SGD 0.1 with momentum 0.9 on a cosine, batches of 32.
fn perceptron(run: &Run, samples: &Samples, hidden: &[usize], seed: u64, way: Way, sparsity: f64) -> Result<Trial> {
    let pruning = Pruning { way, ..recipe(run, seed, sparsity) };
    perceptron_by(run, samples, hidden, seed, &pruning)
}

fn recipe(run: &Run, seed: u64, sparsity: f64) -> Pruning {
    let base = Base::Sgd(SgdSettings { learning_rate: 0.1, momentum: 0.9, ..SgdSettings::default() });
    Pruning::hesso(base, sparsity, run.stream("chance").nested(seed).stream("groups"))
}

fn perceptron_by(run: &Run, samples: &Samples, hidden: &[usize], seed: u64, pruning: &Pruning) -> Result<Trial> {
    let epochs = run.scale().pick(3, 40, 40);
    trial(run, digits_mlp(hidden, run.seed() + seed, DType::F32)?, samples, pruning, epochs, 32)
}

fn seeds(run: &Run) -> u64 {
    run.scale().pick(2, 5, 10)
}

fn exactness(run: &mut Run) -> Result<()> {
    let (rows, images) = (digits_samples(true, DType::F32)?, digits_samples(false, DType::F32)?);
    let adam = Base::Adam(AdamSettings { learning_rate: 2e-3, ..AdamSettings::default() });
    let (mut worst, mut counts) = (0, Vec::new());
    for sparsity in [0.5, 0.7, 0.9] {
        let pruning = Pruning { base: adam, ..recipe(run, 0, sparsity) };
        let vit = Architecture::ViT(ViTConfig::digits());
        for (name, architecture) in [("cnn", Architecture::DigitsCnn { classes: 10 }), ("vit", vit)] {
            let net = Net::of(&Network::fresh(&architecture, run.seed(), DType::F32)?, &[1, 8, 8])?;
            // Two epochs are enough to count zeros; the window needs a step a period.
            let trial = trial(run, net, &images, &pruning, 2, 64)?;
            worst = worst.max(trial.removed.abs_diff(trial.target));
            counts.push(format!("{name} {}/{}", trial.removed, trial.target));
        }
        let trial = perceptron(run, &rows, &[128, 128], 0, Way::Hesso, sparsity)?;
        worst = worst.max(trial.removed.abs_diff(trial.target));
        counts.push(format!("perceptron {}/{}", trial.removed, trial.target));
    }
    run.claim("exact-sparsity", worst as f64, format!("zero groups of those asked for: {}", counts.join(", ")))
}

/// Sparsities of the comparison.
const SPARSITIES: [f64; 4] = [0.5, 0.7, 0.85, 0.93];
const WAYS: [Way; 6] = [Way::Hesso, Way::Cric, Way::MagnitudeTuned, Way::Taylor, Way::Magnitude, Way::Random];

fn accuracy(run: &mut Run) -> Result<()> {
    let samples = digits_samples(true, DType::F32)?;
    let count = seeds(run);
    let hidden = [128, 128];
    let full: Vec<f64> = (0..count)
        .map(|seed| Ok(perceptron(run, &samples, &hidden, seed, Way::Full, 0.5)?.accuracy))
        .collect::<Result<_>>()?;
    let sparsities = if run.scale() == offprint_core::Scale::Quick { &SPARSITIES[1..2] } else { &SPARSITIES[..] };
    let mut table: Vec<(Way, f64, Vec<f64>, f64)> = Vec::new();
    for way in WAYS {
        for &sparsity in sparsities {
            let trials = (0..count)
                .map(|seed| perceptron(run, &samples, &hidden, seed, way, sparsity))
                .collect::<Result<Vec<_>>>()?;
            let accuracies = trials.iter().map(|t| t.accuracy).collect();
            table.push((way, sparsity, accuracies, mean(&trials.iter().map(|t| t.share).collect::<Vec<_>>())));
        }
    }
    let hspg =
        (0..count).map(|seed| perceptron(run, &samples, &hidden, seed, Way::Hspg, 0.7)).collect::<Result<Vec<_>>>()?;
    let zeros: Vec<f64> = hspg.iter().map(|t| t.removed as f64 / t.target.max(1) as f64).collect();
    run.metric("share of the target that HSPG reaches at K = 0.7, λ = 0.1", mean(&zeros), "");
    run.metric("accuracy of HSPG there", mean(&hspg.iter().map(|t| t.accuracy).collect::<Vec<_>>()), "");
    run.metric("accuracy of the full network", mean(&full), "");

    let at = |way: Way| {
        let row = table.iter().find(|(w, k, ..)| *w == way && *k == 0.7);
        row.map(|(_, _, accuracies, share)| (accuracies.clone(), *share)).unwrap_or_default()
    };
    let (hesso, share) = at(Way::Hesso);
    let how = format!("{count} seeds: {:.4} against {:.4}", mean(&hesso), mean(&full));
    run.claim("accuracy-70", mean(&hesso) - mean(&full), how)?;
    run.claim("size-70", share, format!("{count} seeds"))?;
    let (magnitude, _) = at(Way::Magnitude);
    let how = format!("{count} seeds: {:.4} against {:.4}", mean(&hesso), mean(&magnitude));
    run.claim("beats-magnitude", mean(&hesso) - mean(&magnitude), how)?;
    let (tuned, _) = at(Way::MagnitudeTuned);
    let differences: Vec<f64> = hesso.iter().zip(&tuned).map(|(a, b)| a - b).collect();
    let error = standard_deviation(&differences) / (count as f64).sqrt();
    let how = format!("{count} seeds: {:.4} against {:.4}, standard error {error:.4}", mean(&hesso), mean(&tuned));
    run.claim("beats-fine-tuning", mean(&differences) / error.max(1e-9), how)?;

    run.table(
        Table::new("accuracy", "Test accuracy on the digits by way and sparsity, means over seeds.")
            .words("way", table.iter().map(|(way, ..)| way.name()))
            .numbers("sparsity", "", table.iter().map(|(_, k, ..)| *k))
            .numbers("accuracy", "", table.iter().map(|(_, _, a, _)| mean(a)))
            .numbers("standard deviation", "", table.iter().map(|(_, _, a, _)| standard_deviation(a)))
            .numbers("share of the parameters", "", table.iter().map(|(.., share)| *share)),
    )?;
    let mut plot = Plot::new(Axis::new("share of groups removed"), Axis::new("test accuracy").limits(0.0, 1.0));
    for way in WAYS {
        let of: Vec<_> = table.iter().filter(|(w, ..)| *w == way).collect();
        plot = plot.line(
            way.name(),
            of.iter().map(|(_, k, ..)| *k).collect(),
            of.iter().map(|(_, _, a, _)| mean(a)).collect(),
        );
    }
    run.figure(
        "accuracy",
        Figure::new(
            "Accuracy of a digits classifier by the share of its units removed",
            "Perceptron 64-128-128-10, means over seeds; every way has the same number of training steps.",
        )
        .panel(plot.horizontal("nothing removed", mean(&full))),
    );
    Ok(())
}

fn bottleneck(run: &mut Run) -> Result<()> {
    let samples = digits_samples(true, DType::F32)?;
    let count = seeds(run);
    let (mut good, mut words) = (0, Vec::new());
    for seed in 0..count {
        let [full, hesso, cric] =
            [Way::Full, Way::Hesso, Way::Cric].map(|way| perceptron(run, &samples, &[128, 4, 128], seed, way, 0.9));
        let (full, hesso, cric) = (full?, hesso?, cric?);
        let collapsed = hesso.accuracy < full.accuracy - 0.1;
        let rescued = cric.kept[1] >= 1 && cric.accuracy >= hesso.accuracy + 0.1;
        good += usize::from(!collapsed || rescued);
        words.push(format!(
            "full {:.3}, HESSO {:.3} with {} of 4, CRIC {:.3} with {} of 4",
            full.accuracy, hesso.accuracy, hesso.kept[1], cric.accuracy, cric.kept[1]
        ));
    }
    run.claim("cric-rescues", good as f64 / count as f64, words.join("; "))
}

fn criteria(run: &mut Run) -> Result<()> {
    let samples = digits_samples(true, DType::F32)?;
    let count = seeds(run);
    let mut rows = Vec::new();
    let alone = Criterion::ALL.map(|criterion| (criterion.name(), Criteria::only(criterion)));
    for (name, criteria) in [("mixture", Criteria::MIXTURE)].into_iter().chain(alone) {
        let accuracies: Vec<f64> = (0..count)
            .map(|seed| {
                let pruning = Pruning { criteria, ..recipe(run, seed, 0.85) };
                Ok(perceptron_by(run, &samples, &[128, 128], seed, &pruning)?.accuracy)
            })
            .collect::<Result<_>>()?;
        rows.push((name, mean(&accuracies), standard_deviation(&accuracies)));
    }
    let (low, high) = rows.iter().fold((f64::INFINITY, 0.0f64), |(low, high), row| (low.min(row.1), high.max(row.1)));
    let words: Vec<String> = rows.iter().map(|(name, mean, _)| format!("{name} {mean:.4}")).collect();
    run.claim("criteria", high - low, format!("{count} seeds: {}", words.join(", ")))?;
    run.table(
        Table::new("criteria", "Test accuracy of HESSO at K = 0.85 by what ranks the groups.")
            .words("criterion", rows.iter().map(|row| row.0))
            .numbers("accuracy", "", rows.iter().map(|row| row.1))
            .numbers("standard deviation", "", rows.iter().map(|row| row.2)),
    )
}

/// The convolutional network of the digits at K = 0.7: what is gained on the clock.
fn speed(run: &mut Run) -> Result<()> {
    let samples = digits_samples(false, DType::F32)?;
    let adam = AdamSettings { learning_rate: 2e-3, weight_decay: 1e-4, ..AdamSettings::default() };
    let pruning = Pruning { base: Base::Adam(adam), ..recipe(run, 0, 0.7) };
    let architecture = Architecture::DigitsCnn { classes: 10 };
    let net = Net::of(&Network::fresh(&architecture, run.seed(), DType::F32)?, &[1, 8, 8])?;
    let trial = trial(run, net, &samples, &pruning, run.scale().pick(2, 25, 25), 64)?;
    let x = samples.test.inputs.narrow(0, 0, 256).map_err(computation)?;
    let [full, compact] = latencies([&trial.full, &trial.compact], &x, run.scale().pick(5, 31, 31))?;
    run.metric("accuracy of digits-cnn at K = 0.7", trial.accuracy, "");
    run.metric("share of the parameters of digits-cnn left", trial.share, "");
    let left = trial.compact.multiplications()? as f64 / trial.full.multiplications()? as f64;
    run.metric("share of the multiplications of digits-cnn left", left, "");
    let how = format!("{:.2} ms against {:.2} ms", 1e3 * full, 1e3 * compact);
    run.claim("latency", full / compact, how)
}
