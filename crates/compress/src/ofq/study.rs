//! The claims, measured on the transformer for digits.
//!
//! All runs start from the same float network, which is also the teacher; seeds shuffle the batches.

use super::{Calm, Counts, Form, History, Lessons, Ofq, Precision, QuantisedViT, Rule, Training};
use crate::examples::{Example, Subject};
use candle_core::{Device, Tensor};
use offprint_core::figure::{Axis, Figure, Layer, Plot};
use offprint_core::random::Streams;
use offprint_core::{Progress, Result, Run, Scale, Study, Table};
use offprint_math::stats::{mean, standard_deviation};
use offprint_nn::computation;

/// The published margin of CGA.
const MARGIN: f64 = 0.005;
/// The margins that were studied.
const MARGINS: [f64; 4] = [0.003, 0.005, 0.007, 0.01];

impl Study for Ofq {
    fn measure(run: &mut Run) -> Result<()> {
        let lab = Lab::new(run)?;
        lab.exact(run)?;
        let plain = lab.annealing(Precision::ofq(2, None).plain(), run)?;
        let qkr = lab.annealing(Precision::ofq(2, None), run)?;
        lab.claim_annealing(&plain, ["cga-calms", "cga-accuracy"], run)?;
        lab.claim_annealing(&qkr, ["cga-calms-qkr", "cga-accuracy-qkr"], run)?;
        lab.margins(&plain, run)?;
        lab.gradients(&plain, &qkr, run)?;
        lab.rules(&plain, &qkr, run)?;
        run.not_measured("deit-t", "needs ImageNet and 300 epochs on eight accelerators")
    }
}

/// What all experiments share.
struct Lab {
    subject: Subject,
    lessons: Lessons,
    streams: Streams,
    progress: Progress,
    scale: Scale,
}

/// One trained network.
struct Trained {
    network: QuantisedViT,
    accuracy: f64,
    history: History,
}

/// A trained network, and what further epochs without and with CGA make of it.
struct Annealed {
    start: Trained,
    without: Trained,
    with: Trained,
}

fn accuracies<'a>(runs: impl Iterator<Item = &'a Trained>) -> Vec<f64> {
    runs.map(|run| run.accuracy).collect()
}

/// Counts of the last two epochs of several runs.
fn last<'a>(runs: impl Iterator<Item = &'a Trained>) -> Counts {
    runs.map(|run| run.history.last(2)).sum()
}

impl Lab {
    fn new(run: &Run) -> Result<Self> {
        let mut subject = Example::DigitsVit.load()?;
        if run.scale() == Scale::Quick {
            subject.train = subject.train.narrow(0, 320).map_err(computation)?;
        }
        let lessons = Lessons::new(&subject.train, Some(&subject.network))?;
        Ok(Self { subject, lessons, streams: run.streams(), progress: run.progress(), scale: run.scale() })
    }

    fn seeds(&self) -> u64 {
        self.scale.pick(1, 3, 5)
    }

    fn seeds_of_accuracy(&self) -> u64 {
        self.scale.pick(2, 5, 10)
    }

    fn epochs(&self) -> u64 {
        self.scale.pick(2, 8, 30)
    }

    fn further_epochs(&self) -> u64 {
        self.scale.pick(2, 3, 30)
    }

    fn train(&self, network: QuantisedViT, epochs: u64, calm: Calm, order: &str, seed: u64) -> Result<Trained> {
        let training = Training { epochs, calm, ..Training::default() };
        let history = network.train(
            &self.lessons,
            &training,
            self.streams.stream(order).nested(seed).stream("order"),
            &self.progress,
        )?;
        let accuracy = network.evaluate(&self.subject.test)?.accuracy;
        Ok(Trained { network, accuracy, history })
    }

    /// A network trained from the float one.
    fn trained_from_floats(&self, precision: Precision, calm: Calm, seed: u64) -> Result<Trained> {
        self.train(QuantisedViT::new(&self.subject.network, precision)?, self.epochs(), calm, "training", seed)
    }

    fn exact(&self, run: &mut Run) -> Result<()> {
        let floats = self.subject.network.copy()?;
        let config = QuantisedViT::new(&floats, Precision::ofq(2, None))?.config().clone();
        for i in 0..config.depth {
            // Biases of queries and keys are 0 in this claim.
            let Some(bias) = floats.params().get(&format!("blocks.{i}.attn.qkv.bias")) else { continue };
            let zeroed = bias.narrow(0, 2 * config.width, config.width).and_then(|values| {
                let zeros = Tensor::zeros(2 * config.width, values.dtype(), &Device::Cpu)?;
                bias.set(&Tensor::cat(&[&zeros, &values], 0)?)
            });
            zeroed.map_err(computation)?;
        }
        let precision = |form| Precision { weights: None, activations: None, rule: Rule::StatsQ, form };
        let logits = |form| QuantisedViT::new(&floats, precision(form))?.logits(&self.subject.test.inputs);
        let (plain, qkr) = (logits(Form::Plain)?, logits(Form::Qkr { keep_query_bias: false })?);
        let largest = plain.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
        let apart = plain.iter().zip(&qkr).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs()));
        run.claim("qkr-exact", f64::from(apart / largest), format!("{} images", plain.nrows()))
    }

    fn annealing(&self, precision: Precision, run: &mut Run) -> Result<Vec<Annealed>> {
        let runs: Result<Vec<Annealed>> = (0..self.seeds())
            .map(|seed| {
                let start = self.trained_from_floats(precision, Calm::Nothing, seed)?;
                let further = |calm| self.train(start.network.copy()?, self.further_epochs(), calm, "annealing", seed);
                Ok(Annealed { without: further(Calm::Nothing)?, with: further(Calm::Cga { margin: MARGIN })?, start })
            })
            .collect();
        let runs = runs?;
        let name = if precision.form == Form::Plain { "plain" } else { "QKR" };
        for (what, trained) in [
            ("trained", runs.iter().map(|r| &r.start).collect::<Vec<_>>()),
            ("further without CGA", runs.iter().map(|r| &r.without).collect()),
            ("further with CGA", runs.iter().map(|r| &r.with).collect()),
        ] {
            let counts = last(trained.iter().copied());
            run.metric(&format!("{name}, {what}: accuracy"), mean(&accuracies(trained.iter().copied())), "");
            run.metric(&format!("{name}, {what}: flips"), 100.0 * counts.flip_rate(), "% a step");
            run.metric(&format!("{name}, {what}: oscillations"), 100.0 * counts.oscillation_rate(), "% a step");
        }
        Ok(runs)
    }

    fn claim_annealing(&self, runs: &[Annealed], [calms, accuracy]: [&str; 2], run: &mut Run) -> Result<()> {
        let (with, without) = (last(runs.iter().map(|r| &r.with)), last(runs.iter().map(|r| &r.without)));
        run.claim(
            calms,
            with.oscillation_rate() / without.oscillation_rate(),
            format!(
                "oscillations {:.4} % with and {:.4} % without, flips {:.4} % and {:.4} %, {} seeds",
                100.0 * with.oscillation_rate(),
                100.0 * without.oscillation_rate(),
                100.0 * with.flip_rate(),
                100.0 * without.flip_rate(),
                runs.len()
            ),
        )?;
        let (with, without) = (accuracies(runs.iter().map(|r| &r.with)), accuracies(runs.iter().map(|r| &r.without)));
        // With few seeds all may agree: then half a test image is the least that a deviation can mean.
        let least = 0.5 / self.subject.test.len() as f64;
        let spread = if runs.len() > 1 {
            ((standard_deviation(&with).powi(2) + standard_deviation(&without).powi(2)) / 2.0).sqrt().max(least)
        } else {
            least
        };
        run.claim(
            accuracy,
            (mean(&with) - mean(&without)) / spread,
            format!("{:.4} with and {:.4} without, standard deviation {spread:.4}", mean(&with), mean(&without)),
        )
    }

    fn margins(&self, runs: &[Annealed], run: &mut Run) -> Result<()> {
        let mut shares = vec![0.0; MARGINS.len()];
        for annealed in runs {
            let readings = annealed.start.network.readings()?;
            let all: usize = readings.iter().map(|r| r.weights.len()).sum();
            for (share, margin) in shares.iter_mut().zip(MARGINS) {
                let near: usize = readings.iter().map(|r| r.trainable(margin).iter().filter(|&&t| t).count()).sum();
                *share += 100.0 * near as f64 / all as f64 / runs.len() as f64;
            }
        }
        let least = shares.windows(2).map(|pair| pair[1] - pair[0]).fold(f64::INFINITY, f64::min);
        run.table(
            Table::new("margins", "The share of weights of trained networks that CGA would train.")
                .numbers("margin", "", MARGINS)
                .numbers("weights", "%", shares.clone()),
        )?;
        run.claim("few-decide", least, format!("{:.2} % at 0.005, {:.2} % at 0.01", shares[1], shares[3]))
    }

    fn gradients(&self, plain: &[Annealed], qkr: &[Annealed], run: &mut Run) -> Result<()> {
        let directions = self.scale.pick(16, 64, 64);
        let images = self.scale.pick(64_u32, 256, 512);
        let chosen = Tensor::arange(0, images, &Device::Cpu).map_err(computation)?;
        let stream = run.stream("directions");
        let amplitudes = [0.03, 0.1, 0.3];
        let mut cosines = vec![[Vec::new(), Vec::new()]; amplitudes.len()];
        for (a, &amplitude) in amplitudes.iter().enumerate() {
            for (form, runs) in [plain, qkr].into_iter().enumerate() {
                for (seed, annealed) in runs.iter().enumerate() {
                    let stream = stream.nested(seed as u64).stream("directions");
                    let network = &annealed.start.network;
                    let cosine = network.gradient_agreement(&self.lessons, &chosen, directions, amplitude, stream)?;
                    cosines[a][form].push(cosine);
                    self.progress.check()?;
                }
            }
        }
        run.table(
            Table::new(
                "gradients",
                "Cosine between the straight-through gradient of the queries' weights and the changes of the rounded loss, \
                 by the size of the change (deviation over the weights' mean size, which is the distance of two levels).",
            )
            .numbers("size of the change", "", amplitudes)
            .numbers("plain", "", cosines.iter().map(|c| mean(&c[0])))
            .numbers("QKR", "", cosines.iter().map(|c| mean(&c[1]))),
        )?;
        let [plain, qkr] = &cosines[1];
        let better = plain.iter().zip(qkr).filter(|(plain, qkr)| qkr > plain).count();
        let listed = |c: &[f64]| c.iter().map(|x| format!("{x:.3}")).collect::<Vec<_>>().join(", ");
        run.claim(
            "qkr-gradient",
            better as f64 / plain.len() as f64,
            format!("changes of 0.1: QKR {}; plain {}", listed(qkr), listed(plain)),
        )
    }

    /// StatsQ, LSQ and the other ways to calm weights, at several widths.
    fn rules(&self, plain: &[Annealed], qkr: &[Annealed], run: &mut Run) -> Result<()> {
        let seeds = self.seeds_of_accuracy();
        let many = |precision, calm, seeds: std::ops::Range<u64>| -> Result<Vec<Trained>> {
            seeds.map(|seed| self.trained_from_floats(precision, calm, seed)).collect()
        };
        let base = Precision::ofq(2, None).plain();
        let few = self.seeds();
        // The first seeds of StatsQ were trained for the annealing.
        let more = many(base, Calm::Nothing, few..seeds)?;
        let stats: Vec<&Trained> = plain.iter().map(|r| &r.start).chain(&more).collect();
        let lsq = many(base.by(Rule::Lsq), Calm::Nothing, 0..seeds)?;
        let lsq: Vec<&Trained> = lsq.iter().collect();
        let (of_stats, of_lsq) =
            (last(stats[..few as usize].iter().copied()), last(lsq[..few as usize].iter().copied()));
        let how = format!(
            "by the scale {:.1} % of flips under StatsQ and {:.1} % under LSQ; flips {:.4} % and {:.4} % a step, \
             oscillations {:.4} % and {:.4} %",
            100.0 * of_stats.share_by_scale(),
            100.0 * of_lsq.share_by_scale(),
            100.0 * of_stats.flip_rate(),
            100.0 * of_lsq.flip_rate(),
            100.0 * of_stats.oscillation_rate(),
            100.0 * of_lsq.oscillation_rate()
        );
        run.claim("scale-flips", of_stats.share_by_scale() / of_lsq.share_by_scale(), how.clone())?;
        run.claim("fewer-flips", of_stats.flip_rate() / of_lsq.flip_rate(), how)?;
        claim_difference("statsq-accuracy-w2", &stats, &lsq, run)?;

        let both = Precision::ofq(2, Some(2)).plain();
        let stats22 = many(both, Calm::Nothing, 0..seeds)?;
        let lsq22 = many(both.by(Rule::Lsq), Calm::Nothing, 0..seeds)?;
        let (stats22, lsq22): (Vec<_>, Vec<_>) = (stats22.iter().collect(), lsq22.iter().collect());
        claim_difference("statsq-accuracy-w2a2", &stats22, &lsq22, run)?;

        let mut rows: Vec<(String, Vec<&Trained>)> = vec![
            ("W2, StatsQ".into(), stats),
            ("W2, StatsQ, QKR".into(), qkr.iter().map(|r| &r.start).collect()),
            ("W2, LSQ".into(), lsq),
            ("W2A2, StatsQ".into(), stats22),
            ("W2A2, LSQ".into(), lsq22),
        ];
        let mut others = Vec::new();
        for (name, precision, calm) in [
            ("W2A2, StatsQ, QKR", Precision::ofq(2, Some(2)), Calm::Nothing),
            ("W2, LSQ, freezing", base.by(Rule::Lsq), Calm::Freezing { threshold: 0.01 }),
            ("W2, LSQ, dampening", base.by(Rule::Lsq), Calm::Dampening { strength: 0.01 }),
            ("W3, StatsQ", Precision { weights: Some(3), ..base }, Calm::Nothing),
            ("W3, LSQ, one scale", Precision { weights: Some(3), ..base }.by(Rule::LsqTensor), Calm::Nothing),
            ("W4, StatsQ", Precision { weights: Some(4), ..base }, Calm::Nothing),
            ("W4, LSQ, one scale", Precision { weights: Some(4), ..base }.by(Rule::LsqTensor), Calm::Nothing),
        ] {
            others.push((name.to_owned(), many(precision, calm, 0..few)?));
        }
        rows.extend(others.iter().map(|(name, trained)| (name.clone(), trained.iter().collect())));
        self.show(&rows, plain, qkr, run)
    }

    fn show(
        &self,
        rows: &[(String, Vec<&Trained>)],
        plain: &[Annealed],
        qkr: &[Annealed],
        run: &mut Run,
    ) -> Result<()> {
        let counts: Vec<Counts> = rows.iter().map(|(_, trained)| last(trained.iter().copied())).collect();
        let of = |f: fn(&Counts) -> f64| counts.iter().map(|c| 100.0 * f(c)).collect::<Vec<f64>>();
        let accuracy: Vec<Vec<f64>> = rows.iter().map(|(_, trained)| accuracies(trained.iter().copied())).collect();
        let deviations: Vec<f64> =
            accuracy.iter().map(|a| if a.len() > 1 { standard_deviation(a) } else { f64::NAN }).collect();
        run.table(
            Table::new("rules", "Quantised training under several rules; rates are those of the last two epochs.")
                .words("training", rows.iter().map(|(name, _)| name.clone()))
                .integers("seeds", "", accuracy.iter().map(|a| a.len() as i64))
                .numbers("accuracy", "", accuracy.iter().map(|a| mean(a)))
                .numbers("its deviation", "", deviations.iter().copied())
                .numbers("flips", "% a step", of(Counts::flip_rate))
                .numbers("of them by the scale", "%", of(Counts::share_by_scale))
                .numbers("oscillations", "% a step", of(Counts::oscillation_rate)),
        )?;
        let by_epoch = |runs: &[Annealed], part: fn(&Annealed) -> &Trained| -> Vec<f64> {
            let all: Vec<Vec<Counts>> = runs.iter().map(|r| part(r).history.epochs()).collect();
            let epochs = all.first().map_or(0, Vec::len);
            let rate = |epoch: usize| all.iter().map(|counts| counts[epoch]).sum::<Counts>().oscillation_rate();
            (0..epochs).map(|epoch| 100.0 * rate(epoch)).collect()
        };
        let curves = |runs: &[Annealed], title: &str| {
            let start = by_epoch(runs, |r| &r.start);
            let first = start.len() as f64;
            let place = |from: f64, count: usize| (1..=count).map(|i| from + i as f64).collect::<Vec<f64>>();
            let mut plot = Plot::new(Axis::new("epoch"), Axis::log("oscillations").unit("% of weights a step"))
                .titled(title)
                .line("trained", place(0.0, start.len()), start);
            for (name, part) in
                [("without CGA", (|r| &r.without) as fn(&Annealed) -> &Trained), ("with CGA", |r| &r.with)]
            {
                let rates = by_epoch(runs, part);
                plot = plot.line(name, place(first, rates.len()), rates);
            }
            plot
        };
        run.figure(
            "oscillations",
            Figure::new(
                "Oscillating weights of a two-bit transformer",
                "Flips against the direction of the same weight's last flip, over all seeds. After the training the same \
                 network goes on twice: as before, and with all weights held that are not at a boundary.",
            )
            .columns(2)
            .panel(curves(plain, "plain attention"))
            .panel(curves(qkr, "QKR")),
        );
        let bars = Layer::Bars {
            name: String::new(),
            x: (0..rows.len()).map(|i| i as f64).collect(),
            y: accuracy.iter().map(|a| mean(a)).collect(),
            error: Some(deviations.iter().map(|d| if d.is_nan() { 0.0 } else { *d }).collect()),
        };
        run.figure(
            "accuracy",
            Figure::new("Accuracy on the test images", "Means over seeds, with standard deviations.").panel(
                Plot::new(
                    Axis::categories("", rows.iter().map(|(name, _)| name.clone())),
                    Axis::new("accuracy").limits(0.8, 1.0),
                )
                .layer(bars),
            ),
        );
        Ok(())
    }
}

/// The mean difference between runs of the same seeds, in its standard errors.
fn claim_difference(id: &str, stats: &[&Trained], lsq: &[&Trained], run: &mut Run) -> Result<()> {
    let (stats, lsq) = (accuracies(stats.iter().copied()), accuracies(lsq.iter().copied()));
    let differences: Vec<f64> = stats.iter().zip(&lsq).map(|(a, b)| a - b).collect();
    let error = standard_deviation(&differences) / (differences.len() as f64).sqrt();
    let ratio = if mean(&differences) == 0.0 { 0.0 } else { mean(&differences) / error };
    let how = format!(
        "StatsQ {:.4}, LSQ {:.4}, difference {:+.4} ± {error:.4} over {} seeds; within 2 standard errors it is undecided",
        mean(&stats),
        mean(&lsq),
        mean(&differences),
        differences.len()
    );
    run.claim(id, ratio, how)
}
