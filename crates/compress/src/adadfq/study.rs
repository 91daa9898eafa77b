//! The claims, measured.

use super::figures::{alone, histogram, sheet};
use super::losses::GeneratorLoss;
use super::parallel::side_by_side;
use super::recipe::Recipe;
use super::samples::Samples;
use super::settings::Settings;
use super::train::{Problem, quantise};
use super::{AdaDfq, StandardisedDigits};
use crate::model::evaluate;
use offprint_core::figure::{Axis, Figure, Layer, Plot};
use offprint_core::random::Streams;
use offprint_core::{Progress, Result, Run, Scale, Study, Table};
use offprint_math::stats::{mean, standard_deviation};

/// A way to quantise that is compared.
struct Arm {
    name: &'static str,
    recipe: Recipe,
    loss: GeneratorLoss,
}

impl Arm {
    fn of(recipe: Recipe) -> Self {
        Self { name: recipe.name(), recipe, loss: GeneratorLoss::default() }
    }

    fn with_loss(name: &'static str, loss: GeneratorLoss) -> Self {
        Self { name, recipe: Recipe::AdaDfq, loss }
    }

    fn with_margin(name: &'static str, lower: f64, upper: f64) -> Self {
        Self::with_loss(name, GeneratorLoss { lower, upper, ..GeneratorLoss::default() })
    }
}

const ADADFQ: usize = 0;
const GDFQ: usize = 1;
const CALIBRATION: usize = 2;
/// λ = (0, 0), (0, 1), (1, 1).
const MARGINS: [usize; 3] = [7, 8, 9];
const WITHOUT_DISAGREEMENT: usize = 10;
const WITHOUT_AGREEMENT: usize = 11;

fn arms() -> Vec<Arm> {
    let loss = GeneratorLoss::default();
    vec![
        Arm::of(Recipe::AdaDfq),
        Arm::of(Recipe::Gdfq),
        Arm::of(Recipe::Calibration),
        Arm::of(Recipe::NoiseCalibration),
        Arm::of(Recipe::Distilled),
        Arm::of(Recipe::Noise),
        Arm::of(Recipe::Real),
        Arm::with_margin("λ = (0, 0)", 0.0, 0.0),
        Arm::with_margin("λ = (0, 1)", 0.0, 1.0),
        Arm::with_margin("λ = (1, 1)", 1.0, 1.0),
        Arm::with_loss("without L_ds", loss.without_disagreement()),
        Arm::with_loss("without L_as", loss.without_agreement()),
    ]
}

/// What came of one arm under one seed.
struct Trial {
    /// Of the quantised network, on the test images.
    accuracy: f64,
    /// Of the final generator, if there was one.
    samples: Option<Samples>,
}

/// Samples of a final generator.
const SAMPLES: usize = 1000;

fn trial(
    digits: &StandardisedDigits,
    arm: &Arm,
    settings: &Settings,
    streams: Streams,
    progress: &Progress,
) -> Result<Trial> {
    let problem = Problem {
        teacher: &digits.teacher,
        shape: digits.shape,
        normalisation: &digits.normalisation,
        real: Some(&digits.train.inputs),
    };
    let settings = Settings { loss: arm.loss, ..settings.clone() };
    let outcome = quantise(&problem, arm.recipe, &settings, streams, &mut || progress.check())?;
    let student = &outcome.student;
    let accuracy = evaluate(student.network(), &digits.test, Some(student.quantiser()))?.accuracy;
    let samples = outcome.generator.as_ref().map(|generator| {
        let size = (SAMPLES, settings.batch);
        Samples::draw(&problem, student, generator, size, streams.stream("final samples"))
    });
    Ok(Trial { accuracy, samples: samples.transpose()? })
}

/// All trials, by arm and seed.
struct Trials {
    arms: Vec<Arm>,
    trials: Vec<Vec<Trial>>,
    bounds: (f64, f64),
}

impl Trials {
    fn accuracies(&self, arm: usize) -> Vec<f64> {
        self.trials[arm].iter().map(|trial| trial.accuracy).collect()
    }

    /// A number of the samples of each seed; none without a generator.
    fn of_samples(&self, arm: usize, of: impl Fn(&Samples) -> f64) -> Vec<f64> {
        self.trials[arm].iter().filter_map(|trial| trial.samples.as_ref()).map(of).collect()
    }

    fn adaptability(&self, arm: usize) -> f64 {
        mean(&self.of_samples(arm, |samples| mean(&samples.adaptability)))
    }

    fn share_within(&self, arm: usize) -> f64 {
        mean(&self.of_samples(arm, |samples| samples.share_within(self.bounds.0, self.bounds.1)))
    }

    /// Differences of accuracy under the same seeds: mean, standard error.
    fn gain(&self, arm: usize, other: usize) -> (f64, f64) {
        let pairs = self.accuracies(arm).into_iter().zip(self.accuracies(other));
        let differences: Vec<f64> = pairs.map(|(a, b)| a - b).collect();
        (mean(&differences), standard_deviation(&differences) / (differences.len() as f64).sqrt())
    }
}

impl Study for AdaDfq {
    fn measure(run: &mut Run) -> Result<()> {
        let quick = run.scale() == Scale::Quick;
        let (seeds, epochs) = run.scale().pick((2, 4), (5, 25), (10, 25));
        let settings = if quick {
            Settings { steps: 60, warmup: 20, observed: 20, ..Settings::default() }
        } else {
            Settings::default()
        };
        let progress = run.progress();
        let digits = StandardisedDigits::trained(epochs, run.streams(), &progress)?;
        let float = evaluate(digits.teacher.network(), &digits.test, None)?.accuracy;
        run.metric("accuracy, float", float, "");
        // At quick scale the first three arms.
        let arms: Vec<Arm> = arms().into_iter().take(if quick { 3 } else { usize::MAX }).collect();
        let stream = run.stream("trials");
        progress.begin("trainings", (arms.len() * seeds) as u64);
        let mut all = side_by_side(arms.len() * seeds, |number| {
            // Seeds of the same number are the same for all arms.
            let (arm, seed) = (&arms[number / seeds], stream.nested((number % seeds) as u64));
            let trial = trial(&digits, arm, &settings, seed, &progress)?;
            progress.advance(1)?;
            Ok(trial)
        })?;
        progress.finish();
        let trials = (0..arms.len()).map(|_| all.drain(..seeds).collect()).collect();
        let trials = Trials { arms, trials, bounds: (settings.loss.lower, settings.loss.upper) };
        let how = format!(
            "digits, {} bits, {seeds} seeds, {} steps of {} images, {} of them warm-up",
            settings.bits.weights, settings.steps, settings.batch, settings.warmup
        );
        accuracy(&trials, &how, run)?;
        margins(&trials, &how, run)?;
        run.not_measured(
            "cifar10",
            "80 000 steps of a ResNet-20 on 32 × 32 pixels, with weights and test images that are not part of the program: give \
             them to `run` with --model, --data and --steps 80000",
        )?;
        report(&trials, float, run)
    }
}

fn accuracy(trials: &Trials, how: &str, run: &mut Run) -> Result<()> {
    let words = |arm: usize| {
        let accuracies = trials.accuracies(arm);
        format!("{how}: {:.3} ± {:.3}", mean(&accuracies), standard_deviation(&accuracies))
    };
    run.claim("recovers", mean(&trials.accuracies(ADADFQ)), words(ADADFQ))?;
    run.claim("calibration-only", mean(&trials.accuracies(CALIBRATION)), words(CALIBRATION))?;
    let (gain, error) = trials.gain(ADADFQ, GDFQ);
    let paired =
        format!("{how}: GDFQ {:.3}; {gain:+.4} ± {error:.4} (standard error) by seeds", mean(&trials.accuracies(GDFQ)));
    run.claim("above-gdfq", gain, paired.clone())?;
    run.claim("above-gdfq-surely", gain / error, paired)?;
    let gdfq = trials.share_within(GDFQ);
    run.claim("histogram", trials.share_within(ADADFQ), format!("{how}: 1000 samples a seed; GDFQ's {gdfq:.3}"))
}

fn margins(trials: &Trials, how: &str, run: &mut Run) -> Result<()> {
    if trials.arms.len() <= WITHOUT_AGREEMENT {
        for id in ["ordered", "margin", "disagreement-term", "agreement-term"] {
            run.not_measured(id, "at quick scale three recipes are trained only")?;
        }
        return Ok(());
    }
    let [disagreeing, free, agreeing] = MARGINS;
    let h = |arm: usize| trials.adaptability(arm);
    let gap = (h(free) - h(disagreeing))
        .min(h(ADADFQ) - h(disagreeing))
        .min(h(agreeing) - h(free))
        .min(h(agreeing) - h(ADADFQ));
    let words = format!(
        "{how}: mean H′ {:.3} at (0, 0), {:.3} at (0.1, 0.8), {:.3} at (0, 1), {:.3} at (1, 1)",
        h(disagreeing),
        h(ADADFQ),
        h(free),
        h(agreeing)
    );
    run.claim("ordered", gap, words)?;
    let by_accuracy = |a: &usize, b: &usize| mean(&trials.accuracies(*a)).total_cmp(&mean(&trials.accuracies(*b)));
    let best = MARGINS.into_iter().max_by(by_accuracy).unwrap_or(free);
    let gain = |arm: usize| {
        let (gain, error) = trials.gain(ADADFQ, arm);
        let name = trials.arms[arm].name;
        (gain, format!("{how}: {name} {:.3}; {gain:+.4} ± {error:.4} by seeds", mean(&trials.accuracies(arm))))
    };
    for (id, arm) in
        [("margin", best), ("disagreement-term", WITHOUT_DISAGREEMENT), ("agreement-term", WITHOUT_AGREEMENT)]
    {
        let (gain, words) = gain(arm);
        run.claim(id, gain, words)?;
    }
    Ok(())
}

fn report(trials: &Trials, float: f64, run: &mut Run) -> Result<()> {
    let arms = 0..trials.arms.len();
    let names = || trials.arms.iter().map(|arm| arm.name);
    let (accuracies, deviations): (Vec<f64>, Vec<f64>) = arms
        .clone()
        .map(|arm| trials.accuracies(arm))
        .map(|accuracies| (mean(&accuracies), standard_deviation(&accuracies)))
        .unzip();
    let recognised = |samples: &Samples| {
        samples.recognised.iter().filter(|&&right| right).count() as f64 / samples.recognised.len() as f64
    };
    run.table(
        Table::new("arms", "Ways to quantise, means over seeds; what has no generator has no samples.")
            .words("way", names())
            .numbers("accuracy", "", accuracies.iter().copied())
            .numbers("deviation", "", deviations.iter().copied())
            .numbers("mean H′", "", arms.clone().map(|arm| trials.adaptability(arm)))
            .numbers("H′ within", "", arms.clone().map(|arm| trials.share_within(arm)))
            .numbers("recognised", "", arms.map(|arm| mean(&trials.of_samples(arm, recognised)))),
    )?;
    let bars = Layer::Bars {
        name: String::new(),
        x: (0..accuracies.len()).map(|i| i as f64).collect(),
        y: accuracies,
        error: Some(deviations),
    };
    run.figure(
        "accuracy",
        alone(
            "Digits with two bits for weights and activations",
            "Test accuracy, means over seeds with one standard deviation; dashed the float network.",
            Plot::new(Axis::categories("", names()), Axis::new("test accuracy").limits(0.0, 1.0))
                .layer(bars)
                .horizontal("float", float),
        ),
    );
    let all_samples = |arm: usize| -> Vec<f64> {
        let samples = trials.trials[arm].iter().filter_map(|trial| trial.samples.as_ref());
        samples.flat_map(|samples| samples.adaptability.iter().copied()).collect()
    };
    let (ours, gdfq) = (all_samples(ADADFQ), all_samples(GDFQ));
    let shares = histogram(&[("AdaDFQ", &ours), ("GDFQ", &gdfq)], trials.bounds);
    let mut figure = Figure::new(
        "What the generators make",
        "Left samples of AdaDFQ's final generator, one class a column; right how adaptable both generators' samples are: at 0 \
         the float and the quantised network disagree most, at 1 they agree; dashed λ_l and λ_u.",
    )
    .columns(2);
    if let Some(samples) = trials.trials[ADADFQ].first().and_then(|trial| trial.samples.as_ref()) {
        figure = figure.panel(sheet(samples, 10, 6)?);
    }
    run.figure("samples", figure.panel(shares));
    Ok(())
}
