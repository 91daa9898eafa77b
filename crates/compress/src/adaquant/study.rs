//! The claims, measured on the convolutional network of the digits.

use super::layer::{Bits, Settings, apply};
use super::network::{Flow, How, Quantised, fake};
use super::programme::Table as Options;
use super::tuning::{BiasTuning, divergence, drift, tune_biases, tune_norms};
use super::{AdaQuant, Distillation, distil};
use crate::allocate::{Budget, Solver};
use crate::calibration::record;
use crate::examples::{Example, Subject};
use crate::methods::AdaRound;
use crate::model::{Norm, evaluate, fold_batch_norms, outputs, pick};
use candle_core::{DType, Tensor};
use offprint_core::figure::{Axis, Figure, Plot};
use offprint_core::{Result, Run, Study, Table};
use offprint_math::stats::{mean, rank_correlation, standard_deviation};
use offprint_nn::layers::LayerKind;
use offprint_nn::{Batch, LayerPlace, Network, computation};
use rand::seq::SliceRandom;

/// Steps of layers' calibration and of distillation.
const STEPS: usize = 300;

impl Study for AdaQuant {
    fn measure(run: &mut Run) -> Result<()> {
        let digits = Digits::load()?;
        layers(run, &digits)?;
        let repaired = accuracy(run, &digits)?;
        sizes(run, &digits)?;
        programme(run, &digits)?;
        norms(run, &digits)?;
        biases(run, &digits, repaired)?;
        let images = "ImageNet and its trained networks are not built in; bring yours: offprint run adaquant --model DIR \
                      --data images.npy --targets classes.npy";
        for claim in ["resnet50", "programme-resnet50"] {
            run.not_measured(claim, images)?;
        }
        run.not_measured("bert", "SQuAD and a trained BERT-base are not built in, and the answer head is not read")
    }
}

/// The network of all experiments.
struct Digits {
    subject: Subject,
    folded: Network,
    norms: Vec<Norm>,
    places: Vec<LayerPlace>,
}

impl Digits {
    fn load() -> Result<Self> {
        let subject = Example::DigitsCnn.load()?;
        let (folded, norms) = fold_batch_norms(&subject.network)?;
        let places = folded.layers()?.into_iter().filter(|place| place.kind != LayerKind::Embedding).collect();
        Ok(Self { subject, folded, norms, places })
    }

    /// `count` training images that draw `seed` of the run calibrates with.
    fn drawn(&self, run: &Run, seed: u64, count: usize) -> Result<Batch> {
        let mut order: Vec<u32> = (0..self.subject.train.len() as u32).collect();
        order.shuffle(&mut run.stream("calibration images").rng(seed));
        pick(&self.subject.train, &order[..count.min(order.len())])
    }

    fn bits(&self, bits: Bits) -> Vec<(LayerPlace, Bits)> {
        self.places.iter().map(|place| (place.clone(), bits)).collect()
    }

    fn quantised(&self, run: &Run, seed: u64, images: &Tensor, bits: Bits, way: (How, Flow)) -> Result<Quantised> {
        let stream = run.stream("layers").nested(seed).stream("draw");
        Quantised::new(&self.folded, &self.bits(bits), images, way, stream, &run.progress())
    }

    fn accuracy(&self, quantised: &Quantised) -> Result<f64> {
        Ok(evaluate(&quantised.network, &self.subject.test, Some(quantised.within()))?.accuracy)
    }
}

fn calibrated(run: &Run) -> How {
    How::AdaQuant(Settings { steps: run.scale().pick(60, STEPS, STEPS), ..Settings::default() })
}

fn seeds(run: &Run) -> u64 {
    run.scale().pick(1, 3, 5)
}

/// Mean squared error of each layer's outputs on the test images, inputs from the float network.
fn layer_errors(digits: &Digits, quantised: &Quantised) -> Result<Vec<f64>> {
    let errors = quantised.layers.iter().map(|(place, layer)| {
        let (inputs, outputs) = record(&digits.folded, &place.weight, &digits.subject.test.inputs, None)?;
        let bias = place.bias.is_some() || layer.bias.iter().any(|&b| b != 0.0);
        let error = || -> candle_core::Result<f64> {
            let x = layer.input.map_or_else(|| Ok(inputs.clone()), |affine| fake(&inputs, affine))?;
            let weight = Tensor::from_iter(layer.weight.dequant(), x.device())?.reshape(&*place.shape)?;
            let bias = bias.then(|| Tensor::new(layer.bias.to_vec(), x.device())).transpose()?;
            let own = apply(place.kind, &x, &weight, bias.as_ref())?;
            (own - &outputs)?.sqr()?.mean_all()?.to_dtype(DType::F64)?.to_scalar()
        };
        error().map_err(computation)
    });
    errors.collect()
}

fn layers(run: &mut Run, digits: &Digits) -> Result<()> {
    let bits = Bits { weight: 3, input: Some(4) };
    let names: Vec<String> = digits.places.iter().map(|place| place.name.clone()).collect();
    let mut plot =
        Plot::new(Axis::categories("layer", names.clone()), Axis::new("error / error of rounding to nearest"));
    let mut table = Table::new("layers", "Mean squared error of each layer's outputs on test images, AdaQuant over rounding to nearest, 3-bit weights and 4-bit inputs.")
        .words("layer", names);
    for count in [64, 512] {
        let mut ratios = vec![Vec::new(); digits.places.len()];
        for seed in 0..seeds(run) {
            let images = digits.drawn(run, seed, count)?.inputs;
            let errors =
                |way| layer_errors(digits, &digits.quantised(run, seed, &images, bits, (way, Flow::Parallel))?);
            let (nearest, own) = (errors(How::Nearest)?, errors(calibrated(run))?);
            own.iter().zip(nearest).zip(&mut ratios).for_each(|((own, nearest), ratios)| ratios.push(own / nearest));
        }
        let means: Vec<f64> = ratios.iter().map(|ratios| mean(ratios)).collect();
        plot = plot.bars(format!("{count} images"), means.clone());
        table = table.numbers(format!("{count} images"), "", means);
        if count == 512 {
            // The stem has one channel, and 9 weights for each output.
            let worst = ratios[1..].iter().flatten().copied().fold(0.0, f64::max);
            let stem = ratios[0].iter().copied().fold(0.0, f64::max);
            run.claim("layer-error", worst, format!("{} draws of 512 images; the stem {stem:.2}", seeds(run)))?;
        }
    }
    run.table(table)?;
    run.figure(
        "layers",
        Figure::new(
            "What calibration leaves of each layer's error",
            "Mean squared error of outputs on test images over that of rounding to nearest; 3-bit weights, 4-bit inputs, means over draws.",
        )
        .panel(plot.horizontal("rounding to nearest", 1.0)),
    );
    Ok(())
}

/// Test accuracy at 2-bit weights and 8-bit inputs from 64 images; gives the networks that are repaired later.
fn accuracy(run: &mut Run, digits: &Digits) -> Result<Vec<Quantised>> {
    let bits = Bits { weight: 2, input: Some(8) };
    let steps = run.scale().pick(200, 2000, 20_000);
    let rounded = How::AdaRound(AdaRound { steps, ..AdaRound::default() });
    let ways = [
        ("rounding to nearest", (How::Nearest, Flow::Parallel)),
        ("bias correction", (How::BiasCorrection, Flow::Parallel)),
        ("ranges searched", (How::Search { batch: 50 }, Flow::Parallel)),
        ("AdaRound", (rounded, Flow::Parallel)),
        ("AdaQuant, parallel", (calibrated(run), Flow::Parallel)),
        ("AdaQuant, sequential", (calibrated(run), Flow::Sequential)),
    ];
    let (mut found, mut kept) = (vec![Vec::new(); ways.len()], Vec::new());
    for seed in 0..seeds(run) {
        let images = digits.drawn(run, seed, 64)?.inputs;
        for ((_, way), found) in ways.iter().zip(&mut found) {
            let quantised = digits.quantised(run, seed, &images, bits, *way)?;
            found.push(digits.accuracy(&quantised)?);
            if matches!(way, (How::AdaQuant(_), Flow::Sequential)) {
                kept.push(quantised);
            }
        }
    }
    let points = |i: usize| 100.0 * mean(&found[i]);
    let how =
        format!("{:.1} to {:.1} %, sequential {:.1} %, AdaRound {:.1} %", points(0), points(4), points(5), points(3));
    run.claim("accuracy", points(4) - points(0), how)?;
    run.table(
        Table::new("ways", "Test accuracy at 2-bit weights and 8-bit inputs from 64 images.")
            .words("way", ways.iter().map(|(name, _)| *name))
            .numbers("accuracy", "", found.iter().map(|found| mean(found)))
            .numbers("standard deviation", "", found.iter().map(|found| standard_deviation(found))),
    )?;
    Ok(kept)
}

/// Few images: AdaQuant's gap between images it saw and others, and distillation of all weights beside it.
fn sizes(run: &mut Run, digits: &Digits) -> Result<()> {
    let bits = Bits { weight: 2, input: Some(8) };
    let counts = [10, 64, 512];
    let (mut own, mut other, mut gaps) = (Vec::new(), Vec::new(), Vec::new());
    for count in counts {
        let (mut of_own, mut of_other, mut of_gap) = (Vec::new(), Vec::new(), Vec::new());
        for seed in 0..seeds(run) {
            let images = digits.drawn(run, seed, count)?.inputs;
            let quantised = digits.quantised(run, seed, &images, bits, (calibrated(run), Flow::Parallel))?;
            of_own.push(digits.accuracy(&quantised)?);
            let seen = own_errors(digits, &quantised, &images)?;
            let unseen = layer_errors(digits, &quantised)?;
            of_gap.push(mean(&unseen.iter().zip(seen).map(|(unseen, seen)| unseen / seen).collect::<Vec<_>>()));
            let settings = Distillation { steps: run.scale().pick(60, STEPS, STEPS), ..Distillation::default() };
            let stream = run.stream("distillation").nested(seed).stream("draw");
            let distilled = distil(&digits.folded, &digits.bits(bits), &images, &settings, stream, &run.progress())?;
            of_other.push(digits.accuracy(&distilled)?);
        }
        own.push(of_own);
        other.push(of_other);
        gaps.push(mean(&of_gap));
    }
    let (a, b) = (mean(&own[0]), mean(&other[0]));
    let how = format!("{:.1} % against {:.1} %, {} draws", 100.0 * a, 100.0 * b, seeds(run));
    run.claim("small-sets", 100.0 * (a - b), how)?;
    let means = |of: &[Vec<f64>]| of.iter().map(|of| mean(of)).collect::<Vec<_>>();
    run.table(
        Table::new("sizes", "Accuracy at 2-bit weights and 8-bit inputs by the number of images, and the layers' error on unseen over seen ones.")
            .integers("images", "", counts.map(|c| c as i64))
            .numbers("AdaQuant", "", means(&own))
            .numbers("distillation", "", means(&other))
            .numbers("unseen / seen", "", gaps),
    )?;
    let x = counts.map(|c| c as f64).to_vec();
    run.figure(
        "sizes",
        Figure::new("How many images it takes", "Test accuracy at 2-bit weights and 8-bit inputs, means over draws.")
            .panel(
                Plot::new(Axis::log("calibration images"), Axis::new("test accuracy"))
                    .line("AdaQuant, layer by layer", x.clone(), means(&own))
                    .line("distillation of all weights", x, means(&other)),
            ),
    );
    Ok(())
}

/// As [`layer_errors`], on the images of the calibration itself.
fn own_errors(digits: &Digits, quantised: &Quantised, images: &Tensor) -> Result<Vec<f64>> {
    let seen = Digits {
        subject: Subject {
            test: Batch { inputs: images.clone(), targets: digits.subject.test.targets.clone() },
            ..digits.subject.clone()
        },
        folded: digits.folded.clone(),
        norms: Vec::new(),
        places: Vec::new(),
    };
    layer_errors(&seen, quantised)
}

/// Sizes from a little above all layers at 2 bits to all at 8, and what each solver and each single precision reach there.
fn programme(run: &mut Run, digits: &Digits) -> Result<()> {
    let data = digits.drawn(run, 0, 512)?;
    let loss = |q: &Quantised| Ok(evaluate(&q.network, &data, Some(q.within()))?.loss);
    let stream = run.stream("programme");
    let options = Options::measure(
        &digits.folded,
        &digits.places,
        &[8, 4, 2],
        (&data.inputs, calibrated(run)),
        stream,
        &run.progress(),
        loss,
    )?;
    let uniform: Vec<(f64, f64)> = (0..3)
        .map(|choice| {
            let choices = vec![choice; digits.places.len()];
            Ok((options.compression(&choices), loss(&options.assemble(&choices)?)?))
        })
        .collect::<Result<_>>()?;
    let mut rows = Vec::new();
    let step = run.scale().pick(4, 1, 1);
    for hundredths in (7..=25).step_by(step) {
        let share = f64::from(hundredths) / 100.0;
        let budget = Budget::MeanBits(32.0 * share);
        let exact = options.choose(budget, Solver::Exact)?;
        let greedy = options.choose(budget, Solver::Greedy)?;
        let measured = loss(&options.assemble(&exact)?)?;
        let fits = uniform.iter().filter(|(size, _)| *size <= share + 1e-9).map(|(_, loss)| *loss);
        let single = fits.reduce(f64::min).expect("two bits everywhere fit");
        rows.push((share, options.predicted(&exact), options.predicted(&greedy), measured, single));
    }
    let beaten = rows.iter().map(|row| row.1 - row.2).fold(f64::NEG_INFINITY, f64::max);
    run.claim("programme-greedy", beaten, format!("{} sizes", rows.len()))?;
    let better = rows.iter().filter(|row| row.3 <= row.4).count();
    let how = format!("{better} of {} sizes", rows.len());
    run.claim("programme-uniform", better as f64 / rows.len() as f64, how)?;
    let column = |of: fn(&(f64, f64, f64, f64, f64)) -> f64| rows.iter().map(of).collect::<Vec<_>>();
    let (predicted, measured) = (column(|r| r.1), column(|r| r.3));
    run.claim(
        "programme-rank",
        rank_correlation(&predicted, &measured),
        "predicted against measured loss over all sizes",
    )?;
    run.metric("losses that fell although a layer got fewer bits", options.lucky as f64, "");
    run.table(
        Table::new("programme", "Loss on the calibration images by size: predicted and measured for the integer programme, greedy's prediction, and the best single precision that fits.")
            .numbers("size / float", "", column(|r| r.0))
            .numbers("predicted", "", predicted.clone())
            .numbers("greedy", "", column(|r| r.2))
            .numbers("measured", "", measured.clone())
            .numbers("single precision", "", column(|r| r.4)),
    )?;
    run.figure(
        "programme",
        Figure::new(
            "Loss against size",
            "Loss on the calibration images; each layer 8, 4 or 2 bits. The programme adds up what layers do by themselves.",
        )
        .panel(
            Plot::new(Axis::new("size over float size"), Axis::log("loss"))
                .line("programme, measured", column(|r| r.0), measured)
                .reference("programme, predicted", column(|r| r.0), predicted)
                .line("one precision for all", column(|r| r.0), column(|r| r.4)),
        ),
    );
    Ok(())
}

fn norms(run: &mut Run, digits: &Digits) -> Result<()> {
    let bits = Bits { weight: 2, input: Some(8) };
    let images = digits.drawn(run, 0, 512)?.inputs;
    let mut quantised = digits.quantised(run, 0, &images, bits, (How::Nearest, Flow::Parallel))?;
    // On the images that tune the norms the drift would vanish by construction.
    let unseen = &digits.subject.test.inputs;
    let (before, poor) = (drift(&quantised, &digits.norms, unseen)?, digits.accuracy(&quantised)?);
    tune_norms(&mut quantised, &digits.norms, &images, &run.progress())?;
    let (after, better) = (drift(&quantised, &digits.norms, unseen)?, digits.accuracy(&quantised)?);
    let least = |of: fn(&super::Drift) -> f64| {
        before.iter().zip(&after).map(|(before, after)| of(before) / of(after).max(1e-12)).fold(f64::INFINITY, f64::min)
    };
    run.claim("norm-means", least(|d| d.mean), "least over the convolutions")?;
    run.claim("norm-deviations", least(|d| d.deviation), "least over the convolutions")?;
    let how = format!("{:.1} to {:.1} %", 100.0 * poor, 100.0 * better);
    run.claim("norm-accuracy", 100.0 * (better - poor), how)
}

fn biases(run: &mut Run, digits: &Digits, mut networks: Vec<Quantised>) -> Result<()> {
    let (mut gains, mut ratios) = (Vec::new(), Vec::new());
    for (seed, quantised) in (0..).zip(&mut networks) {
        let images = digits.drawn(run, seed, 64)?.inputs;
        tune_norms(quantised, &digits.norms, &images, &run.progress())?;
        let float = outputs(&digits.folded, &digits.subject.test.inputs, None)?;
        let judge = |q: &Quantised| -> Result<(f64, f64)> {
            let own = outputs(&q.network, &digits.subject.test.inputs, Some(q.within()))?;
            let gap =
                divergence(&float, &own).and_then(|d| d.to_dtype(DType::F64)?.to_scalar()).map_err(computation)?;
            Ok((digits.accuracy(q)?, gap))
        };
        let before = judge(quantised)?;
        let tuning = BiasTuning { steps: run.scale().pick(80, 800, 800), ..BiasTuning::default() };
        let stream = run.stream("biases").nested(seed).stream("draw");
        tune_biases(quantised, &digits.folded, &images, &tuning, stream, &run.progress())?;
        let after = judge(quantised)?;
        gains.push(100.0 * (after.0 - before.0));
        ratios.push(after.1 / before.1);
    }
    run.claim("bias-accuracy", mean(&gains), format!("{} draws of 64 images, after the norms", gains.len()))?;
    run.claim("bias-divergence", mean(&ratios), "on test images, after over before")
}
